"""Batched, one by one, and without a cache: the same text. A scripted model tests what a random one would never say.

What is random runs on both backends.
"""

import itertools
import random
from collections.abc import Callable
from collections.abc import Sequence as Seq

import pytest
import torch
from torch import Tensor

from nanochat.engine.backend import Backend, BlockStore, Chunk
from nanochat.engine.generate import Engine
from nanochat.engine.params import SamplingParams
from nanochat.engine.sequence import Sequence
from nanochat.engine.slots import Row
from nanochat.engine.step import run_step
from nanochat.errors import ContextTooLong, InvalidRequest
from nanochat.model.gpt import GPT
from nanochat.protocol.generate import Delta, Finished, ToolCall
from nanochat.tokenizer.bpe import Tokenizer

GREEDY = SamplingParams(temperature=0, max_tokens=20)
MakeEngine = Callable[..., Engine]


@pytest.fixture
def make_engine(make_backend: Callable[..., Backend], tokenizer: Tokenizer) -> MakeEngine:
    return lambda **sizes: Engine(make_backend(**sizes), tokenizer)


def _prompts(num: int, seed: int = 0, longest: int = 150) -> list[list[int]]:
    rng = random.Random(seed)
    return [[256, *(rng.randrange(256) for _ in range(rng.randint(0, longest)))] for _ in range(num)]


def _plain(model: GPT, prompt: list[int], max_tokens: int) -> list[int]:
    """Greedy, the whole row anew for every token: no cache, no batch."""
    ids = list(prompt)
    with torch.inference_mode():
        for _ in range(max_tokens):
            ids.append(int(model(torch.tensor([ids]))[0, -1].argmax()))
            if ids[-1] in (256, 260):  # bos, assistant_end
                break
    return ids[len(prompt) :]


def test_ragged_batches_equal_single_rows_equal_the_plain_model(make_engine: MakeEngine, model: GPT) -> None:
    prompts = _prompts(9)
    plain = [_plain(model, prompt, 20) for prompt in prompts]
    # Three slots for nine prompts: rows of all lengths join and leave in the middle.
    for num_slots in (1, 3, 16):
        completions = make_engine(num_slots=num_slots).generate(prompts, GREEDY)
        assert [choices[0].token_ids for choices in completions] == plain, f"{num_slots} slots"


def test_rows_that_end_at_different_times_do_not_disturb_others(make_engine: MakeEngine, model: GPT) -> None:
    prompts = _prompts(8, seed=3)
    params = [SamplingParams(temperature=0, max_tokens=1 + 3 * i) for i in range(8)]
    together = make_engine(num_slots=3).generate(prompts, params)
    for prompt, p, choices in zip(prompts, params, together, strict=True):
        assert choices[0].token_ids == _plain(model, prompt, p.max_tokens or 0)


def test_prompts_larger_than_one_step_are_split(
    make_engine: MakeEngine, model: GPT, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nanochat.engine.torch_backend.MAX_PREFILL_TOKENS", 200)
    monkeypatch.setattr("nanochat.engine.generate.DEFAULT_BUDGET", 50)
    prompts = _prompts(6, seed=4)
    completions = make_engine(num_slots=6).generate(prompts, GREEDY)
    assert [choices[0].token_ids for choices in completions] == [_plain(model, prompt, 20) for prompt in prompts]


def test_a_seed_gives_the_same_text_in_any_company(make_engine: MakeEngine) -> None:
    prompts = _prompts(7, seed=5)
    params = [
        SamplingParams(seed=i, max_tokens=15, temperature=1.2, top_k=(0, 5, 200)[i % 3], top_p=(1.0, 0.9)[i % 2])
        for i in range(7)
    ]
    alone = [make_engine().generate([q], [p])[0] for q, p in zip(prompts, params, strict=True)]
    together = make_engine(num_slots=4).generate(prompts, params)
    backwards = make_engine(num_slots=7).generate(prompts[::-1], params[::-1])[::-1]
    assert together == alone == backwards


def test_samples_of_one_prompt_share_its_prefill_and_differ(
    make_backend: Callable[..., Backend], make_engine: MakeEngine, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    (prompt,) = _prompts(1, seed=6)
    params = SamplingParams(seed=1, n=5, temperature=2.0, max_tokens=10)
    backend, computed = make_backend(num_slots=8), []
    forward = backend.forward

    def counting(chunks: Seq[Chunk]) -> Tensor:
        computed.append(sum(len(chunk.token_ids) for chunk in chunks))
        return forward(chunks)

    monkeypatch.setattr(backend, "forward", counting)
    (choices,) = Engine(backend, tokenizer).generate([prompt], params)
    num_steps = -(-len(prompt) // backend.max_chunk)
    assert sum(computed[:num_steps]) == len(prompt)
    assert max(computed[num_steps:]) <= 5
    assert len({tuple(choice.token_ids) for choice in choices}) == 5
    # With fewer slots than samples, later ones compute the prompt again, and come to the same.
    assert make_engine(num_slots=2).generate([prompt], params) == [choices]


def test_a_prompt_of_one_token_can_be_sampled_several_times(make_engine: MakeEngine, model: GPT) -> None:
    (choices,) = make_engine().generate([[256]], SamplingParams(temperature=0, n=3, max_tokens=5))
    assert [choice.token_ids for choice in choices] == [_plain(model, [256], 5)] * 3


def test_slots_are_clean_for_the_next_prompt(make_engine: MakeEngine) -> None:
    engine = make_engine(num_slots=2)
    prompts = _prompts(4, seed=8)
    assert engine.generate(prompts, GREEDY) == engine.generate(prompts, GREEDY)


def test_generation_ends_where_the_context_does(make_engine: MakeEngine) -> None:
    prompts = [[256] * 250, [256] * 255, [256] * 10]
    completions = make_engine().generate(prompts, SamplingParams(seed=3, temperature=2))
    for prompt, (choice,) in zip(prompts, completions, strict=True):
        assert len(prompt) + len(choice.token_ids) <= 256


def test_a_prompt_too_long_is_refused_before_anything_runs(make_engine: MakeEngine) -> None:
    with pytest.raises(ContextTooLong):
        make_engine(max_len=32).generate([[256], [256] * 32], GREEDY)


def test_no_prompts_give_no_completions(make_engine: MakeEngine) -> None:
    assert make_engine().generate([], GREEDY) == []


def test_a_stream_says_what_generate_says(make_engine: MakeEngine) -> None:
    prompt = _prompts(1, seed=9)[0]
    engine = make_engine(num_slots=2)
    params = SamplingParams(seed=4, max_tokens=30)
    events = list(engine.stream(prompt, params))
    ((whole,),) = engine.generate([prompt], params)
    assert "".join(event.text for event in events if isinstance(event, Delta)) == whole.text
    assert events[-1] == Finished(finish_reason=whole.finish_reason, completion_tokens=len(whole.token_ids))
    # Left off in the middle, the next one starts anew.
    next(engine.stream(prompt, params))
    assert list(engine.stream(prompt, params)) == events
    with pytest.raises(InvalidRequest):
        next(engine.stream(prompt, SamplingParams(n=2)))


def test_prompt_scores_are_those_of_the_plain_model(
    make_backend: Callable[..., Backend], model: GPT, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nanochat.engine.step.MAX_SCORED", 16)
    prompt = [256, *range(60, 110)]
    backend = make_backend(num_slots=2)
    for start in range(0, 96, 32):  # left by somebody else
        backend.forward([Chunk(1, start, [7] * 32, 7 if start else -1)])
    row = Row(Sequence(prompt, SamplingParams(temperature=0, logprobs=3), tokenizer, 256), slot=1, scores=[None])
    num_steps = 0
    while not row.sequence.generated_ids:
        num_steps += 1
        assert run_step(backend, [row]).num_tokens <= 16
    assert num_steps == 4
    with torch.inference_mode():
        reference = model(torch.tensor([prompt]))[0].double().log_softmax(-1)
    assert row.scores is not None and row.scores[0] is None and len(row.scores) == len(prompt)
    for position, score in enumerate(row.scores[1:], start=1):
        assert score is not None
        assert score.token_id == prompt[position]
        assert score.logprob == pytest.approx(reference[position - 1, prompt[position]].item(), abs=1e-4)
        assert [top.token_id for top in score.top] == reference[position - 1].topk(3).indices.tolist()
    # The row goes on as if it had not been scored.
    assert row.sequence.generated_ids == _plain(model, prompt, 1)


def test_prompts_that_are_scored_hold_up_nobody(
    make_backend: Callable[..., Backend], model: GPT, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They come in by the budget as others do, beside rows that decode, and two of them in turns."""
    monkeypatch.setattr("nanochat.engine.step.MAX_SCORED", 24)
    backend = make_backend(num_slots=3)
    params = SamplingParams(temperature=0, max_tokens=100)
    reader = Row(Sequence([256, 65], params, tokenizer, 256), slot=0)
    run_step(backend, [reader])
    prompts = [[256, *range(60, 160)], [256, *range(30, 90)]]
    scored = [Row(Sequence(ids, params, tokenizer, 256), slot=i, scores=[None]) for i, ids in enumerate(prompts, 1)]
    for _ in range(40):
        before = reader.sequence.num_sampled
        step = run_step(backend, [reader, *scored], budget=32)
        assert step.num_tokens <= 32 and reader.sequence.num_sampled == before + 1
        if all(row.sequence.generated_ids for row in scored):
            break
    for row, ids in zip(scored, prompts, strict=True):
        assert row.scores is not None and [score and score.token_id for score in row.scores] == [None, *ids[1:]]
        assert row.sequence.generated_ids[:1] == _plain(model, ids, 1)
    assert reader.sequence.generated_ids == _plain(model, [256, 65], reader.sequence.num_sampled)


class Scripted:
    """A backend that answers with given tokens, by their place behind the prompt; what a tool forces has one too."""

    num_slots, max_len, max_chunk, step_tokens, weights, num_torch_threads = 1, 256, 256, 1024, "none", None

    def __init__(self, prompt: list[int], script: list[int]) -> None:
        self.seen: list[int] = []
        self._num_prompt = len(prompt)
        self._script = script

    def forward(self, chunks: Seq[Chunk]) -> Tensor:
        (chunk,) = chunks
        assert chunk.previous_id == (self.seen[-1] if self.seen else -1)
        self.seen += chunk.token_ids
        logits = torch.zeros((1, 265))
        logits[0, self._script[len(self.seen) - self._num_prompt]] = 1.0
        return logits

    def forward_all(self, chunk: Chunk) -> Tensor:
        raise NotImplementedError

    def forward_ends(self, chunks: Seq[Chunk], counts: Seq[int]) -> Tensor:
        raise NotImplementedError

    def copy_slot(self, source: int, target: int, length: int) -> None:
        raise NotImplementedError

    def block_bytes(self) -> int:
        raise NotImplementedError

    def new_block_store(self, num_blocks: int) -> BlockStore:
        raise NotImplementedError


class Sums:
    def evaluate(self, expression: str) -> str | None:
        left, _, right = expression.partition("+")
        return str(int(left) + int(right)) if left.isdigit() and right.isdigit() else None


def test_a_tool_call_runs_and_its_result_is_what_the_model_reads(tokenizer: Tokenizer) -> None:
    prompt = [256, *b"q"]
    special = tokenizer.special_id
    call = [special("<|python_start|>"), *b"20+22", special("<|python_end|>")]
    output = [special("<|output_start|>"), *b"42", special("<|output_end|>")]
    said = [*call, *[0] * len(output), *b"ok", special("<|assistant_end|>")]  # zeros: places of forced tokens
    scripted = Scripted(prompt, said)
    engine = Engine(scripted, tokenizer, Sums())
    ((completion,),) = engine.generate([prompt], SamplingParams(temperature=0))
    assert completion.text == "20+22=42\nok"
    assert completion.token_ids == [*call, *output, *b"ok", special("<|assistant_end|>")]
    assert list(itertools.compress(completion.token_ids, completion.is_sampled)) == [
        *call,
        *b"ok",
        special("<|assistant_end|>"),
    ]
    assert scripted.seen == [*prompt, *completion.token_ids[:-1]]
    assert completion.tool_calls == [ToolCall(expression="20+22", result="42", start=0, end=8)]
    events = list(Engine(Scripted(prompt, said), tokenizer, Sums()).stream(prompt, GREEDY))
    assert "".join(event.text for event in events if isinstance(event, Delta)) == completion.text


def test_without_a_calculator_a_call_has_an_empty_result(tokenizer: Tokenizer) -> None:
    special = tokenizer.special_id
    said = [special("<|python_start|>"), *b"1", special("<|python_end|>"), 0, 0, special("<|assistant_end|>")]
    engine = Engine(Scripted([256], said), tokenizer)
    ((completion,),) = engine.generate([[256]], SamplingParams(temperature=0))
    assert completion.text == "1=\n"
    assert completion.token_ids[3:5] == [special("<|output_start|>"), special("<|output_end|>")]
