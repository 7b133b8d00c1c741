"""The engine's thread without HTTP: parity with offline generation, parked rows, failures."""

import asyncio
import random
import threading
from collections.abc import AsyncIterator, Callable
from queue import SimpleQueue
from typing import Any

import pytest
import torch

from nanochat.config import GPTConfig
from nanochat.engine.backend import Chunk, make_backend
from nanochat.engine.generate import Engine, Evaluates
from nanochat.engine.params import SamplingParams
from nanochat.engine.prefix_cache import PrefixCache
from nanochat.engine.sequence import Sequence
from nanochat.engine.slots import Row
from nanochat.errors import Unavailable
from nanochat.model.gpt import GPT
from nanochat.protocol.generate import Done, GenerateError, GenerateEvent
from nanochat_inference.batching.request import Request
from nanochat_inference.batching.runner import Runner
from nanochat_inference.loaded_model import LoadedModel
from nanochat_inference.metrics import FINISHED_REASONS, Metrics
from nanochat_inference.settings import InferenceSettings
from tests.decisive_model import decisive_model
from tests.integration.inference.chain_model import ABAB, TOKENIZER, chain_model
from tests.integration.inference.server import text_of, until

NUM_SLOTS = 3
Start = Callable[..., Runner]


class Told(SimpleQueue[list[GenerateEvent]]):
    """What a request's client gets."""

    def __init__(self) -> None:
        self.is_given_back = threading.Event()

    def give_back(self) -> None:
        self.is_given_back.set()


class NoCalculator:
    def evaluate(self, expression: str) -> str | None:
        return None


class SlowCalculator:
    """Answers when it is told to."""

    def __init__(self) -> None:
        self.asked = threading.Event()
        self.may_answer = threading.Event()

    def evaluate(self, expression: str) -> str | None:
        self.asked.set()
        assert self.may_answer.wait(30)
        return "42"


class BrokenCalculator:
    def evaluate(self, expression: str) -> str | None:
        raise ValueError("a calculator never raises; this one does")


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    runners: list[Runner] = []

    def start(calculator: Evaluates, call_timeout_s: float = 30.0, **options: Any) -> Runner:
        runner = Runner(
            calculator,
            Metrics(),
            model_name="m",
            max_running=NUM_SLOTS,
            max_waiting=100,
            num_threads=1,
            call_timeout_s=call_timeout_s,
            **options,
        )
        runner.start()
        runners.append(runner)
        return runner

    yield start
    for runner in runners:
        await asyncio.to_thread(runner.stop)


def _loaded(model: GPT) -> LoadedModel:
    backend = make_backend(model, num_slots=NUM_SLOTS, max_len=model.config.sequence_len)
    settings = InferenceSettings(max_running=NUM_SLOTS, prefix_cache_mib=8)
    return LoadedModel.of(backend, model, TOKENIZER, settings, "nano")


def _request(loaded: LoadedModel, prompt: list[int], params: SamplingParams) -> Request:
    sequences = [Sequence(prompt, params, TOKENIZER, loaded.context_length, index=index) for index in range(params.n)]
    return Request(sequences, Told())


async def _all_events(request: Request) -> list[GenerateEvent]:
    events: list[GenerateEvent] = []
    while not events or not isinstance(events[-1], Done | GenerateError):
        events += await asyncio.to_thread(request.events.get, timeout=60)
    return events


@pytest.fixture(scope="module")
def random_model() -> GPT:
    config = GPTConfig(sequence_len=128, vocab_size=265, n_layer=3, n_head=4, n_kv_head=2, n_embd=64)
    return decisive_model(config, seed=2)


async def test_the_service_says_what_offline_generation_and_the_plain_model_say(
    start: Start, random_model: GPT
) -> None:
    rng = random.Random(0)
    prompts = [[256, *(rng.randrange(256) for _ in range(rng.randint(0, 90)))] for _ in range(14)]
    params = [
        SamplingParams(temperature=0, max_tokens=rng.randint(1, 30))
        if i % 2
        else SamplingParams(seed=i, temperature=1.5, top_k=(i % 3) * 10, max_tokens=12, n=1 + i % 3)
        for i in range(14)
    ]
    offline = Engine.of(random_model, TOKENIZER, num_slots=5).generate(prompts, params)
    runner, loaded = start(NoCalculator()), _loaded(random_model)
    runner.use(loaded)
    requests = []
    for prompt, p in zip(prompts, params, strict=True):  # they join while others are in the middle
        requests.append(_request(loaded, prompt, p))
        runner.submit(requests[-1], loaded)
        await asyncio.sleep(rng.random() * 0.01)
    told = [await _all_events(request) for request in requests]
    for request, events, choices in zip(requests, told, offline, strict=True):
        assert [sequence.generated_ids for sequence in request.sequences] == [c.token_ids for c in choices]
        assert [text_of(events, c) for c in range(len(choices))] == [choice.text for choice in choices]
    for prompt, p, choices in zip(prompts, params, offline, strict=True):
        if p.temperature == 0:
            assert choices[0].token_ids == _plain(random_model, prompt, len(choices[0].token_ids))
    assert runner.num_open == 0


async def test_a_token_leaves_before_what_its_step_computed_is_kept(
    start: Start, random_model: GPT, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    keep = PrefixCache.keep

    def keeping(prefixes: PrefixCache, rows: list[Row]) -> None:
        keep(prefixes, rows)
        order.append("kept")

    class Noting(Told):
        def put(self, *arguments: Any) -> None:
            order.append("told")
            super().put(*arguments)

    monkeypatch.setattr(PrefixCache, "keep", keeping)
    runner, loaded = start(NoCalculator(), on_step=lambda: order.append("left")), _loaded(random_model)
    runner.use(loaded)
    prompt = [256, *range(90)]
    params = SamplingParams(temperature=0, max_tokens=1)
    request = Request([Sequence(prompt, params, TOKENIZER, loaded.context_length)], Noting())
    runner.submit(request, loaded)
    await _all_events(request)
    until(lambda: "kept" in order, "it is kept")
    told = order.index("told")
    assert order[told : told + 3] == ["told", "left", "kept"]
    assert loaded.prefixes.usage_ratio > 0


def _plain(model: GPT, prompt: list[int], num_tokens: int) -> list[int]:
    ids = list(prompt)
    with torch.inference_mode():
        for _ in range(num_tokens):
            ids.append(int(model(torch.tensor([ids]))[0, -1].argmax()))
    return ids[len(prompt) :]


async def test_a_row_that_waits_for_the_calculator_lets_the_others_go_on(start: Start) -> None:
    calculator = SlowCalculator()
    runner, loaded = start(calculator), _loaded(chain_model(ABAB))
    runner.use(loaded)
    greedy = SamplingParams(temperature=0, max_tokens=50)
    calling = _request(loaded, [TOKENIZER.special_id("<|assistant_start|>")], greedy)
    runner.submit(calling, loaded)
    assert await asyncio.to_thread(calculator.asked.wait, 30)
    other = _request(loaded, [ord("a")], greedy)
    runner.submit(other, loaded)
    assert text_of(await _all_events(other)) == "ba" * 25
    assert not calling.is_finished
    until(lambda: runner.is_waiting, "it waits, and does not hang")
    calculator.may_answer.set()
    assert text_of(await _all_events(calling)) == "6*7=42\n!"


async def test_calls_that_hang_end_without_a_result_and_hold_nobody_up(start: Start) -> None:
    """More of them than there are threads for calls: those that only wait for a thread have a deadline too."""
    calculator = SlowCalculator()
    runner, loaded = start(calculator, call_timeout_s=0.3), _loaded(chain_model(ABAB))
    runner.use(loaded)
    for _ in range(3):
        calling = [
            _request(loaded, [TOKENIZER.special_id("<|assistant_start|>")], SamplingParams(temperature=0))
            for _ in range(NUM_SLOTS - 1)
        ]
        for request in calling:
            runner.submit(request, loaded)
        other = _request(loaded, [ord("a")], SamplingParams(temperature=0, max_tokens=50))
        runner.submit(other, loaded)
        assert text_of(await _all_events(other)) == "ba" * 25
        for request in calling:
            assert text_of(await _all_events(request)) == "6*7=\n!"
    assert runner.num_open == 0
    calculator.may_answer.set()  # too late: nothing more is said


async def test_a_client_that_leaves_during_a_call_leaves_no_trace(start: Start) -> None:
    calculator = SlowCalculator()
    runner, loaded = start(calculator), _loaded(chain_model(ABAB))
    runner.use(loaded)
    calling = _request(loaded, [TOKENIZER.special_id("<|assistant_start|>")], SamplingParams(temperature=0))
    runner.submit(calling, loaded)
    assert await asyncio.to_thread(calculator.asked.wait, 30)
    runner.cancel(calling)
    calculator.may_answer.set()
    # Three more in three slots: the one that left has none.
    others = [_request(loaded, [ord("a")], SamplingParams(temperature=0, max_tokens=5)) for _ in range(NUM_SLOTS)]
    for other in others:
        runner.submit(other, loaded)
    assert [text_of(await _all_events(other)) for other in others] == ["babab"] * NUM_SLOTS
    assert runner.num_open == 0


async def test_a_client_that_leaves_before_its_request_is_queued_holds_no_place(start: Start) -> None:
    runner, loaded = start(NoCalculator()), _loaded(chain_model(ABAB))
    runner.use(loaded)
    gone = _request(loaded, [ord("a")], SamplingParams(temperature=0, max_tokens=5, n=2))
    runner.cancel(gone)
    runner.submit(gone, loaded)
    until(lambda: runner.num_open == 0, "its places are free")
    other = _request(loaded, [ord("a")], SamplingParams(temperature=0, max_tokens=5))
    runner.submit(other, loaded)
    assert text_of(await _all_events(other)) == "babab"
    assert gone.events.empty()


async def test_a_calculator_that_breaks_gives_no_result(start: Start) -> None:
    runner, loaded = start(BrokenCalculator()), _loaded(chain_model(ABAB))
    runner.use(loaded)
    request = _request(loaded, [TOKENIZER.special_id("<|assistant_start|>")], SamplingParams(temperature=0))
    runner.submit(request, loaded)
    assert text_of(await _all_events(request)) == "6*7=\n!"


async def test_a_step_that_fails_ends_what_had_begun_and_gives_the_rest_back(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner, loaded = start(NoCalculator()), _loaded(chain_model(ABAB))
    forward = loaded.backend.forward

    def fail_on_two(chunks: list[Chunk]) -> torch.Tensor:
        if len(chunks) > 1:
            raise RuntimeError("out of memory")
        return forward(chunks)

    runner.use(loaded)
    with monkeypatch.context() as patch:
        patch.setattr(loaded.backend, "forward", fail_on_two)
        begun = _request(loaded, [ord("a")], SamplingParams(temperature=0))
        runner.submit(begun, loaded)
        until(lambda: not begun.events.empty(), "it has begun")
        new = _request(loaded, [ord("a")], SamplingParams(temperature=0, max_tokens=4, n=2))
        runner.submit(new, loaded)
        error = (await _all_events(begun))[-1]
        assert isinstance(error, GenerateError) and error.code == "internal_error" and "ask again" in error.message
        assert await asyncio.to_thread(new.events.is_given_back.wait, 30)
    assert new.events.empty() and not begun.events.is_given_back.is_set()
    assert runner.num_open == 0
    # Whoever tries the others again counts them.
    ends = [runner._metrics.request_success.labels(reason)._value.get() for reason in FINISHED_REASONS]
    assert dict(zip(FINISHED_REASONS, ends, strict=True)) == {"stop": 0, "length": 0, "abort": 0, "error": 1}
    request = _request(loaded, [ord("a")], SamplingParams(temperature=0, max_tokens=4))
    runner.submit(request, loaded)
    assert text_of(await _all_events(request)) == "baba"


async def test_failures_are_counted_until_a_step_works(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    failures: list[int] = []
    runner, loaded = start(NoCalculator(), on_failure=failures.append), _loaded(chain_model(ABAB))
    runner.use(loaded)
    for _ in range(2):
        with monkeypatch.context() as patch:
            patch.setattr(loaded.backend, "forward", _fail)
            for _ in range(2):
                failing = _request(loaded, [ord("a")], SamplingParams(temperature=0))
                runner.submit(failing, loaded)
                assert await asyncio.to_thread(failing.events.is_given_back.wait, 30)
        working = _request(loaded, [ord("a")], SamplingParams(temperature=0, max_tokens=4))
        runner.submit(working, loaded)
        assert text_of(await _all_events(working)) == "baba"
    assert failures == [1, 2, 1, 2]


def _fail(*_: object, **__: object) -> None:
    raise RuntimeError("out of memory")


async def test_a_slot_that_is_held_for_nobody_is_told_once_and_only_when_nobody_is_served(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    def told() -> list[list[str]]:
        return [record.__dict__["leaks"] for record in caplog.records if record.message == "slots_leaked"]

    runner, loaded = start(NoCalculator()), _loaded(chain_model(ABAB))
    runner.use(loaded)
    running = _request(loaded, [ord("a")], SamplingParams(temperature=0))
    runner.submit(running, loaded)
    until(lambda: not running.events.empty(), "it runs")
    loaded.scheduler._slots._free.discard(NUM_SLOTS - 1)
    seen = runner.num_steps
    until(lambda: runner.num_steps > seen + 10, "it goes on")
    assert not told()
    runner.cancel(running)
    until(lambda: bool(told()), "it is told")
    other = _request(loaded, [ord("a")], SamplingParams(temperature=0, max_tokens=4))
    runner.submit(other, loaded)
    assert text_of(await _all_events(other)) == "baba"
    until(lambda: runner.is_waiting, "nothing is to be done")
    assert told() == [["1 slots not free of nano"]]
    assert runner._metrics.slot_leaks._value.get() == 1


async def test_nothing_is_held_once_all_have_ended_in_whatever_way(start: Start) -> None:
    runner, loaded = start(NoCalculator()), _loaded(chain_model(ABAB))
    runner.use(loaded)
    requests = [_request(loaded, [ord("a")], SamplingParams(temperature=0, max_tokens=99, n=n)) for n in (1, 2, 2, 3)]
    for request in requests:
        runner.submit(request, loaded)
    runner.cancel(requests[1])
    for request in (requests[0], *requests[2:]):
        assert text_of(await _all_events(request)).startswith("baba")
    until(lambda: runner.num_open == 0 and runner.is_waiting, "nothing is to be done")
    assert loaded.scheduler.leaks() == []
    assert runner._metrics.slot_leaks._value.get() == 0


async def test_stopping_answers_everybody(start: Start) -> None:
    runner, loaded = start(NoCalculator()), _loaded(chain_model(ABAB))
    runner.use(loaded)
    requests = [_request(loaded, [ord("a")], SamplingParams(temperature=0)) for _ in range(NUM_SLOTS + 2)]
    for request in requests:
        runner.submit(request, loaded)
    runner.abort_all(Unavailable("stopping"))
    for request in requests:
        assert (await _all_events(request))[-1] == GenerateError(code="unavailable", message="stopping")
