"""Three situations that a sweep does not show: a long prompt that comes while others read, the second turn of a chat,
and memory over many requests. Each against any OpenAI-compatible address; memory is asked of whoever knows the process.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import median

from nanochat.bench.serving.client import Answer, Dialect, Server, draw
from nanochat.bench.serving.load import closed_loop
from nanochat.bench.serving.prompts import Messages, words
from nanochat.errors import Unavailable

_NUM_GAPS_BEFORE = 8  # of every stream, before the long prompt is sent
_POLL_S = 0.002
_STREAM_PROMPT_TOKENS = 128
# Prompts between two looks at the memory. A model of four layers keeps 192 MiB of their keys and values.
_FILL_PROMPTS, _FILL_TOKENS = 16, 1500
_MAX_FILL_ROUNDS = 50
_SETTLED = 0.005  # of the memory; less than this is no more filling


@dataclass(frozen=True, kw_only=True)
class LongPrompt:
    """Of the worst round. ratio: the longest gap of any stream over that stream's own median gap. ratio_alone: the same
    in a run just before without the long prompt, which tells what noise does. ttft_s is the long prompt's."""

    num_streams: int
    max_tokens: int  # of a stream
    prompt_tokens: int
    ratio: float
    ratio_alone: float
    median_gap_s: float
    longest_gap_s: float
    ttft_s: float
    rounds: list[dict[str, float]]


async def long_prompt(
    server: Server,
    dialect: Dialect,
    *,
    num_streams: int = 8,
    max_tokens: int = 256,
    prompt_tokens: int = 2000,
    num_rounds: int = 3,
) -> LongPrompt:
    """Streams of 128 prompt tokens. A first round is not counted: in it a server touches memory that later ones find
    ready. Where streams of max_tokens end before the long prompt's first token, they are made longer, until they have
    as many tokens as it. Raises Unavailable where a request failed, or even those ended too early."""
    rounds: list[dict[str, float]] = []
    turn = 0
    while len(rounds) < 1 + num_rounds:
        turn += 1
        alone, _ = await _streams(server, dialect, num_streams, max_tokens, 0, f"alone/{turn}")
        joined, late = await _streams(server, dialect, num_streams, max_tokens, prompt_tokens, f"joined/{turn}")
        _require_good([*alone, *joined, late])
        if late.chunks_s[0] > min(one.chunks_s[-1] for one in joined):
            longest = prompt_tokens - _STREAM_PROMPT_TOKENS  # which has room wherever the long prompt has
            if max_tokens >= longest:
                raise Unavailable(
                    f"a stream of {max_tokens} tokens ended before the long prompt's first token, so nothing was "
                    "measured; take a larger model."
                )
            max_tokens = min(2 * max_tokens, longest)
            rounds.clear()  # a longer stream has more gaps to be the longest of
            continue
        worst = max(joined, key=_gap_ratio)
        rounds.append(
            {
                "ratio": _gap_ratio(worst),
                "ratio_alone": max(map(_gap_ratio, alone)),
                "median_gap_s": median(worst.gaps_s),
                "longest_gap_s": max(worst.gaps_s),
                "ttft_s": late.ttft_s,
            }
        )
    counted = rounds[1:]
    worst_round = max(counted, key=lambda one: one["ratio"])
    return LongPrompt(
        num_streams=num_streams, max_tokens=max_tokens, prompt_tokens=prompt_tokens, **worst_round, rounds=counted
    )


async def _streams(
    server: Server, dialect: Dialect, num_streams: int, max_tokens: int, late_tokens: int, name: str
) -> tuple[list[Answer], Answer]:
    """So many at once, and where late_tokens is not 0, one more with a prompt of that length once all stream."""
    answers = [Answer() for _ in range(num_streams)]
    late = Answer()
    async with asyncio.TaskGroup() as group:
        for n, answer in enumerate(answers):
            prompt = draw(dialect, _STREAM_PROMPT_TOKENS, seed=f"{name}/{n}")
            group.create_task(server.ask(dialect, prompt, max_tokens=max_tokens, answer=answer))
        if late_tokens:
            while any(len(one.chunks_s) <= _NUM_GAPS_BEFORE and one.is_open for one in answers):
                await asyncio.sleep(_POLL_S)
            await server.ask(dialect, draw(dialect, late_tokens, seed=name), max_tokens=4, answer=late)
    return answers, late if late_tokens else answers[0]


def _gap_ratio(answer: Answer) -> float:
    return max(answer.gaps_s) / median(answer.gaps_s)


@dataclass(frozen=True, kw_only=True)
class SecondTurn:
    """Medians. ratio: a second turn's time to the first token over that of the same chat's first turn."""

    first_prompt_tokens: int
    second_prompt_tokens: int
    second_cached_tokens: int
    first_ttft_s: float
    second_ttft_s: float
    ratio: float
    rounds: list[dict[str, float]]


async def second_turn(
    server: Server, dialect: Dialect, *, prompt_tokens: int = 1000, max_tokens: int = 32, num_rounds: int = 5
) -> SecondTurn:
    """Each round is a chat of new words, whose first message has about so many tokens."""
    chat = replace(dialect, prompts="chat")
    # How many words that is depends on the tokenizer: as many tokens a word as a first message shows.
    probe = await server.ask(chat, Messages.of(words(100, seed="probe")), max_tokens=1)
    _require_good([probe])
    num_words = max(1, round(prompt_tokens * 100 / max(1, probe.prompt_tokens)))
    rounds = []
    for turn in range(num_rounds):
        asked = Messages.of(words(num_words, seed=turn))
        first = await server.ask(chat, asked, max_tokens=max_tokens)
        again = asked.answered(first.text, words(10, seed=f"second/{turn}"))
        second = await server.ask(chat, again, max_tokens=max_tokens)
        _require_good([first, second])
        rounds.append(
            {
                "first_ttft_s": first.ttft_s,
                "second_ttft_s": second.ttft_s,
                "ratio": second.ttft_s / first.ttft_s,
                "first_prompt_tokens": first.prompt_tokens,
                "second_prompt_tokens": second.prompt_tokens,
                "second_cached_tokens": second.cached_tokens,
            }
        )
    middle = {name: median(one[name] for one in rounds) for name in rounds[0]}
    return SecondTurn(
        first_prompt_tokens=round(middle["first_prompt_tokens"]),
        second_prompt_tokens=round(middle["second_prompt_tokens"]),
        second_cached_tokens=round(middle["second_cached_tokens"]),
        first_ttft_s=middle["first_ttft_s"],
        second_ttft_s=middle["second_ttft_s"],
        ratio=middle["ratio"],
        rounds=rounds,
    )


@dataclass(frozen=True, kw_only=True)
class Memory:
    """growth_ratio: how much the mean of the last fifth of the samples exceeds that of the first fifth after the
    warm-up. num_filling: prompts of 1,500 tokens that filled the cache of prefixes before. samples_bytes: one before,
    one after each batch of requests; the warm-up's are left out."""

    num_requests: int
    num_warmup: int
    num_filling: int
    num_errors: int
    before_bytes: int
    after_bytes: int
    growth_ratio: float
    samples_bytes: list[int]


async def memory(
    server: Server,
    dialect: Dialect,
    resident_bytes: Callable[[], int],
    *,
    num_requests: int = 10_000,
    concurrency: int = 16,
    prompt_tokens: int = 16,
    max_tokens: int = 4,
) -> Memory:
    """Beforehand a cache of prefixes fills, by long prompts until memory grows no more, and a tenth of the requests is
    warm-up: allocators keep what they got. Raises Unavailable where memory never stops growing by long prompts."""
    num_warmup, num_batches = max(concurrency, num_requests // 10), 20
    num_errors = 0
    num_filling = await _fill(server, dialect, resident_bytes, concurrency)

    async def batch(size: int, name: str) -> None:
        nonlocal num_errors

        async def ask(number: int) -> Answer:
            # Lengths differ, as they do in life: memory that grows by the shape of a batch is found too.
            num_tokens = max(1, prompt_tokens // 2 + (number * 7) % (prompt_tokens + 1))
            prompt = draw(dialect, num_tokens, seed=f"{name}/{number}")
            return await server.ask(dialect, prompt, max_tokens=max_tokens)

        run = await closed_loop(ask, concurrency=concurrency, num_requests=size)
        num_errors += sum(not answer.is_good for answer in run.answers)

    await batch(num_warmup, "warm-up")
    samples = [resident_bytes()]
    sizes = _shares(num_requests, num_batches)
    for number, size in enumerate(sizes):
        await batch(size, str(number))
        samples.append(resident_bytes())
    fifth = max(1, len(samples) // 5)
    before, after = _mean(samples[:fifth]), _mean(samples[-fifth:])
    return Memory(
        num_requests=num_requests,
        num_warmup=num_warmup,
        num_filling=num_filling,
        num_errors=num_errors,
        before_bytes=round(before),
        after_bytes=round(after),
        growth_ratio=after / before - 1,
        samples_bytes=samples,
    )


async def _fill(server: Server, dialect: Dialect, resident_bytes: Callable[[], int], concurrency: int) -> int:
    """Prompts that no answer is wanted to, until so many of them add next to nothing twice; how many there were."""
    before, num_quiet = resident_bytes(), 0
    for turn in range(_MAX_FILL_ROUNDS):

        async def ask(number: int, turn: int = turn) -> Answer:
            return await server.ask(dialect, draw(dialect, _FILL_TOKENS, seed=f"fill/{turn}/{number}"), max_tokens=1)

        run = await closed_loop(ask, concurrency=concurrency, num_requests=_FILL_PROMPTS)
        _require_good(run.answers)
        after = resident_bytes()
        num_quiet = num_quiet + 1 if after < (1 + _SETTLED) * before else 0
        if num_quiet == 2:
            return (turn + 1) * _FILL_PROMPTS
        before = after
    raise Unavailable(
        f"memory still grew after {_MAX_FILL_ROUNDS * _FILL_PROMPTS} prompts of {_FILL_TOKENS} tokens, to "
        f"{before / 2**20:.0f} MiB: a cache is larger than that, or memory leaks. A smaller cache tells which, such as "
        "NANOCHAT_INFERENCE_PREFIX_CACHE_MIB=64."
    )


def _shares(total: int, parts: int) -> list[int]:
    return [(total * (i + 1)) // parts - (total * i) // parts for i in range(parts)]


def _mean(values: Sequence[int]) -> float:
    return sum(values) / len(values)


def _require_good(answers: Sequence[Answer]) -> None:
    bad = next((answer for answer in answers if not answer.is_good), None)
    if bad is not None:
        raise Unavailable(f"a request failed ({bad.error}), so nothing was measured. {bad.message}".strip())
