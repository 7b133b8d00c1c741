"""The load generator against a server whose delays are known: the figures are those delays."""

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest

from nanochat.bench.serving.cases import Memory, long_prompt, memory, second_turn
from nanochat.bench.serving.client import Answer, Dialect, Server
from nanochat.bench.serving.figures import Targets
from nanochat.bench.serving.prompts import Messages
from nanochat.bench.serving.sweep import Level, LoadKind, Shape, sweep
from nanochat.errors import NotFound, Unavailable
from tests.integration.bench.fake_openai import FakeOpenAI
from tests.integration.gateway.server import serving

T = TypeVar("T")
IDS = Dialect()


def with_server(fake: FakeOpenAI, run: Callable[[Server], Awaitable[T]], *, timeout_s: float = 30.0) -> T:
    async def connected(url: str) -> T:
        async with Server(url, timeout_s=timeout_s) as server:
            return await run(server)

    with serving(fake.app) as url:
        return asyncio.run(connected(url))


def measured(
    fake: FakeOpenAI,
    load: float,
    *,
    kind: LoadKind = "concurrency",
    shape: Shape | None = None,
    targets: Targets | None = None,
    timeout_s: float = 30.0,
) -> Level:
    shape = shape or Shape(prompt_tokens="5", max_tokens="4", num_requests=12, num_warmup=0)

    async def run(server: Server) -> list[Level]:
        return await sweep(server, IDS, shape, kind, [load], targets or Targets())

    (level,) = with_server(fake, run, timeout_s=timeout_s)
    return level


# Sleeps are never shorter than asked for; how much longer they become on a busy machine is left open by wide bounds.
def test_latencies_are_the_servers_delays() -> None:
    one = measured(FakeOpenAI(first_s=0.1, gap_s=0.04), 4).figures
    assert one.ttft.p50 is not None and 0.1 <= one.ttft.p50 < 0.18
    assert one.itl.p50 is not None and 0.035 <= one.itl.p50 < 0.08
    assert one.tpot.p50 is not None and 0.035 <= one.tpot.p50 < 0.08
    assert one.e2e.p50 is not None and 0.22 <= one.e2e.p50 < 0.42


def test_rates_count_tokens_and_requests_in_the_whole_time() -> None:
    one = measured(FakeOpenAI(first_s=0.1, gap_s=0.04), 4).figures
    assert one.num_requests == 12 and not one.errors and one.num_short == 0
    assert one.duration_s >= 3 * 0.22  # three after one another in each of four places
    assert one.request_rate == pytest.approx(12 / one.duration_s)
    assert one.output_tokens_per_second == pytest.approx(48 / one.duration_s)
    assert one.prompt_tokens_per_second == pytest.approx(60 / one.duration_s)
    assert one.cached_tokens == 36


def test_so_many_run_at_once_and_no_more() -> None:
    fake = FakeOpenAI()
    measured(fake, 4)
    assert fake.max_open == 4


def test_the_warm_up_is_sent_and_not_counted() -> None:
    fake = FakeOpenAI(first_s=0.0, gap_s=0.0)
    shape = Shape(prompt_tokens="5", max_tokens="4", num_requests=6, num_warmup=3)
    assert measured(fake, 2, shape=shape).figures.num_requests == 6
    assert len(fake.asked) == 9


def test_no_prompt_comes_twice() -> None:
    fake = FakeOpenAI(first_s=0.0, gap_s=0.0)
    measured(fake, 2, shape=Shape(prompt_tokens="8", max_tokens="1", num_requests=20, num_warmup=5))
    assert len({tuple(body["prompt"]) for body in fake.asked}) == 25


def test_random_arrivals_come_at_their_rate_whatever_the_answers_take() -> None:
    fake = FakeOpenAI(first_s=0.6, gap_s=0.0)
    shape = Shape(prompt_tokens="5", max_tokens="2", num_requests=20, num_warmup=0, duration_s=20)
    one = measured(fake, 40, kind="rate", shape=shape).figures
    assert one.num_requests == 20
    assert fake.max_open > 8  # 24 on average: nobody waits for another's answer
    assert one.duration_s < 3


def test_errors_are_counted_by_kind_and_others_go_on() -> None:
    fails = {0: "status", 3: "status", 5: "error frame", 7: "cut off", 8: "odd frame"}
    one = measured(FakeOpenAI(first_s=0.0, fails=fails), 2).figures
    assert one.errors == {"status 503": 2, "error in the stream": 1, "cut off": 1, "unreadable answer": 1}
    assert one.num_requests == 12 and one.num_errors == 5
    assert one.output_tokens_per_second == pytest.approx(7 * 4 / one.duration_s)


def test_an_address_where_nobody_listens_is_said_before_any_load() -> None:
    async def run() -> None:
        async with Server("http://127.0.0.1:1") as server:
            await server.dialect()

    with pytest.raises(Unavailable, match="no answer"):
        asyncio.run(run())


def test_a_model_that_is_not_there_is_named_with_those_that_are() -> None:
    async def run(url: str) -> None:
        async with Server(url, model="other") as server:
            await server.dialect()

    with serving(FakeOpenAI().app) as url, pytest.raises(NotFound, match=r"'other'.*there: fake"):
        asyncio.run(run(url))


def test_a_server_that_hangs_ends_by_the_time_limit() -> None:
    shape = Shape(prompt_tokens="5", max_tokens="4", num_requests=1000, num_warmup=0, duration_s=0.5)
    began = time.monotonic()
    one = measured(FakeOpenAI(hangs=True, first_s=0.0), 4, shape=shape, timeout_s=0.4).figures
    assert time.monotonic() - began < 10
    assert one.errors == {"timeout": one.num_requests} and 4 <= one.num_requests <= 8
    assert one.ttft.p50 is None


def test_a_run_ends_after_its_duration_with_requests_left() -> None:
    shape = Shape(prompt_tokens="5", max_tokens="2", num_requests=1_000_000, num_warmup=0, duration_s=0.5)
    one = measured(FakeOpenAI(first_s=0.02), 2, shape=shape).figures
    assert 0.5 <= one.duration_s < 3 and 2 < one.num_requests < 100


def test_goodput_counts_the_answers_that_met_the_target() -> None:
    one = measured(FakeOpenAI(first_s=0.05), 2, targets=Targets.parse("ttft=10s,itl=9s")).figures
    assert one.good_ratio == 1 and one.good_rate == pytest.approx(one.request_rate)
    assert measured(FakeOpenAI(first_s=0.05), 2, targets=Targets.parse("ttft=40ms")).figures.good_ratio == 0


def test_answers_that_ended_early_are_told_and_only_their_tokens_count() -> None:
    one = measured(FakeOpenAI(first_s=0.0, num_missing=1), 2).figures
    assert one.num_short == 12
    assert one.output_tokens_per_second == pytest.approx(36 / one.duration_s)


@pytest.mark.parametrize(
    ("takes_ids", "takes", "found"),
    [
        (True, {"ignore_eos"}, ("ids", True)),
        (True, set(), ("ids", False)),
        (False, {"ignore_eos"}, ("text", True)),
        (False, set(), ("text", False)),
    ],
)
def test_what_a_server_takes_is_found_out(takes_ids: bool, takes: set[str], found: tuple[str, bool]) -> None:
    fake = FakeOpenAI(first_s=0.0, takes_ids=takes_ids, takes=takes)
    dialect = with_server(fake, lambda server: server.dialect())
    assert (dialect.prompts, dialect.takes_ignore_eos) == found


def test_a_server_that_answers_no_completion_is_an_error_with_its_reason() -> None:
    with pytest.raises(Unavailable, match=r"status 503.*saturated"):
        with_server(FakeOpenAI(fails={0: "status"}), lambda server: server.dialect())


def test_a_chats_opening_chunk_is_no_token() -> None:
    async def run(server: Server) -> Answer:
        return await server.ask(IDS, Messages.of("hello"), max_tokens=3)

    answer = with_server(FakeOpenAI(first_s=0.0), run)
    assert answer.text == "w w w " and len(answer.chunks_s) == 3 and answer.num_tokens == 3


def test_a_stream_held_up_by_a_long_prompt_is_seen() -> None:
    fake = FakeOpenAI(first_s=0.02, gap_s=0.02)
    found = with_server(
        fake,
        lambda server: long_prompt(server, IDS, num_streams=3, max_tokens=30, prompt_tokens=500, num_rounds=1),
    )
    assert [len(body["prompt"]) for body in fake.asked].count(500) == 2  # in the first round too
    assert len(found.rounds) == 1
    assert found.ratio >= 1 and found.longest_gap_s >= found.median_gap_s >= 0.015


def test_streams_that_end_before_the_long_prompt_is_answered_are_made_longer() -> None:
    fake = FakeOpenAI(first_s=0.3, gap_s=0.01)
    found = with_server(
        fake,
        lambda server: long_prompt(server, IDS, num_streams=2, max_tokens=12, prompt_tokens=500, num_rounds=1),
    )
    assert len(found.rounds) == 1
    lengths = {body["max_tokens"] for body in fake.asked if len(body["prompt"]) == 128}
    assert {12, 24} < lengths and max(lengths) <= 372


def test_streams_that_end_before_the_long_prompt_however_long_they_are_are_no_measurement() -> None:
    with pytest.raises(Unavailable, match="ended before"):
        with_server(
            FakeOpenAI(first_s=0.5, gap_s=0.001),
            lambda server: long_prompt(server, IDS, num_streams=2, max_tokens=12, prompt_tokens=140, num_rounds=1),
        )


def test_a_second_turn_holds_the_first_and_its_answer() -> None:
    fake = FakeOpenAI(first_s=0.01)
    found = with_server(fake, lambda server: second_turn(server, IDS, prompt_tokens=4, max_tokens=2, num_rounds=2))
    first, second = fake.asked[1]["messages"], fake.asked[2]["messages"]
    assert second[:2] == [*first, {"role": "assistant", "content": "w w "}] and len(second) == 3
    assert found.second_cached_tokens == 3 and 0.1 < found.ratio < 10


def memory_of(fake: FakeOpenAI, resident_bytes: Callable[[], int]) -> Memory:
    return with_server(
        fake,
        lambda server: memory(server, IDS, resident_bytes, num_requests=40, concurrency=4),
    )


def test_memory_that_grows_is_told_and_memory_that_does_not_is_not() -> None:
    fake = FakeOpenAI(first_s=0.0, gap_s=0.0)
    grown = itertools.chain((1000, 1000, 1000), range(1000, 10_000, 10))
    found = memory_of(fake, lambda: next(grown))
    assert found.num_errors == 0 and len(fake.asked) == found.num_filling + 44
    assert found.growth_ratio == pytest.approx(0.17, abs=0.02)
    assert memory_of(fake, lambda: 1000).growth_ratio == 0


def test_a_cache_that_long_prompts_fill_beforehand_is_no_growth() -> None:
    fake, cache_tokens = FakeOpenAI(first_s=0.0, gap_s=0.0), 100_000

    def resident_bytes() -> int:
        return 1_000_000 + min(cache_tokens, sum(len(body["prompt"]) for body in fake.asked)) * 10

    found = memory_of(fake, resident_bytes)
    assert found.growth_ratio == 0 and found.num_filling * 1500 > cache_tokens


def test_memory_that_long_prompts_never_stop_growing_is_no_measurement() -> None:
    fake = FakeOpenAI(first_s=0.0, gap_s=0.0)
    with pytest.raises(Unavailable, match="still grew"):
        memory_of(fake, lambda: 1000 + 1000 * len(fake.asked))
