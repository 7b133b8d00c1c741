"""Hundreds of schedules: ragged prompts that join and leave in mid-flight say what the plain model says of each alone.

Scheduler, step, prefix cache and kernels together, without a thread or a clock, so that a seed repeats a schedule.
"""

import random
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue

import pytest
import torch

from nanochat.config import GPTConfig
from nanochat.engine.backend import Backend
from nanochat.engine.generate import Engine
from nanochat.engine.native_backend import NativeBackend
from nanochat.engine.params import SamplingParams
from nanochat.engine.prefix_cache import PrefixCache
from nanochat.engine.sequence import Sequence
from nanochat.engine.step import run_step
from nanochat.engine.torch_backend import TorchBackend
from nanochat.model.gpt import GPT
from nanochat_inference.batching.request import Request
from nanochat_inference.batching.scheduler import Scheduler
from tests.cuda_stand_ins import record, use_paged_flash_attn
from tests.decisive_model import decisive_model
from tests.integration.inference.chain_model import TOKENIZER

NUM_SCHEDULES = {"kernels": 300, "torch": 40, "rings": 40, "rings in pages": 40}
MAX_TOKENS = 16
# Nearer than this the two best logits may change places by rounding.
NEAR = 1e-4
CONFIG = GPTConfig(
    sequence_len=160,
    vocab_size=265,
    n_layer=3,
    n_head=4,
    n_kv_head=2,
    n_embd=64,
    short_window_divisor=16,
    short_window_multiple=1,
)


class SmallChunks(TorchBackend):
    """So small that the longest rows go round a ring of 32 positions, a window of 10 and a chunk, five times."""

    max_chunk = 16


@pytest.fixture(scope="module")
def model() -> GPT:
    return decisive_model(CONFIG, seed=11)


@pytest.fixture(scope="module")
def prompts() -> list[list[int]]:
    """Of all lengths; some begin alike."""
    rng = random.Random(0)
    system = [rng.randrange(256) for _ in range(70)]
    alone = [[256, *(rng.randrange(256) for _ in range(rng.randint(0, 130)))] for _ in range(8)]
    return alone + [[256, *system[: rng.randint(20, 70)], *(rng.randrange(256) for _ in range(20))] for _ in range(6)]


@pytest.fixture(scope="module")
def plain(model: GPT, prompts: list[list[int]]) -> list[list[int]]:
    """What the model says greedily, every token from a forward over the whole row; up to where two logits are near."""
    said = []
    for prompt in prompts:
        ids = list(prompt)
        while len(ids) < min(len(prompt) + MAX_TOKENS, CONFIG.sequence_len):
            best, next_best = model(torch.tensor([ids]))[0, -1].topk(2).values.tolist()
            if best - next_best < NEAR:
                break
            ids.append(int(model(torch.tensor([ids]))[0, -1].argmax()))
            if ids[-1] in (256, 260):  # bos, assistant_end
                break
        said.append(ids[len(prompt) :])
    assert sum(map(len, said)) > 100
    return said


@pytest.fixture(params=NUM_SCHEDULES)
def make_backend(
    request: pytest.FixtureRequest, model: GPT, monkeypatch: pytest.MonkeyPatch
) -> Callable[[int], Backend]:
    if request.param == "torch":
        return lambda num_slots: TorchBackend(model, num_slots=num_slots, max_len=CONFIG.sequence_len)
    if request.param == "rings":
        return lambda num_slots: SmallChunks(model, num_slots=num_slots, max_len=CONFIG.sequence_len)
    if request.param == "rings in pages":
        use_paged_flash_attn(monkeypatch)
        return lambda num_slots: SmallChunks(model, num_slots=num_slots, max_len=CONFIG.sequence_len, record=record)
    request.getfixturevalue("kernels")
    return lambda num_slots: NativeBackend(model, num_slots=num_slots, max_len=CONFIG.sequence_len, weights="fp32")


def _run(backend: Backend, prompts: list[list[int]], seed: int) -> dict[int, list[list[int]]]:
    """One schedule; the tokens of every choice that was not taken off, by prompt."""
    rng = random.Random(seed)
    scheduler = Scheduler(backend.num_slots)
    prefixes = PrefixCache(backend, rng.choice([0, 3, 50]) * backend.block_bytes())
    greedy = {n: SamplingParams(temperature=0, max_tokens=MAX_TOKENS, n=n) for n in (1, 2, 3)}
    coming = deque(rng.sample(range(len(prompts)), rng.randint(1, len(prompts))))
    asked: dict[Request, int] = {}
    while coming or scheduler.requests:
        while coming and rng.random() < 0.5:
            number, n = coming.popleft(), rng.choice([1, 1, 1, 2, 3])
            ids = list(prompts[number])
            choices = [Sequence(ids, greedy[n], TOKENIZER, backend.max_len, index=index) for index in range(n)]
            request = Request(choices, SimpleQueue())
            asked[request] = number
            scheduler.add(request)
        if scheduler.requests and rng.random() < 0.03:
            leaving = rng.choice(scheduler.requests)
            scheduler.remove(leaving)
            del asked[leaving]
        scheduler.admit()
        rows = scheduler.runnable()
        if not rows:
            continue
        step = run_step(backend, rows, budget=rng.choice([1, 20, 64, 500]), prefixes=prefixes)
        for row in step.sampled:
            if row.sequence.expression is not None:
                row.sequence.answer(None)
            if row.sequence.is_finished:
                scheduler.release(row)
        prefixes.keep(step.rows)
    assert scheduler.leaks() == []
    found: dict[int, list[list[int]]] = {}
    for request, number in asked.items():
        found[number] = [sequence.generated_ids for sequence in request.sequences]
    return found


def test_every_schedule_says_what_the_plain_model_says(
    make_backend: Callable[[int], Backend],
    prompts: list[list[int]],
    plain: list[list[int]],
    request: pytest.FixtureRequest,
) -> None:
    backends = [make_backend(num_slots) for num_slots in (1, 2, 3, 5, 8)]
    num_compared = 0
    for seed in range(NUM_SCHEDULES[request.node.callspec.params["make_backend"]]):
        for number, choices in _run(backends[seed % 5], prompts, seed).items():
            for generated in choices:
                assert generated[: len(plain[number])] == plain[number], f"schedule {seed}, prompt {number}"
                num_compared += 1
    assert num_compared > 100


@pytest.mark.usefixtures("kernels")
def test_the_service_and_the_offline_loop_agree_to_the_last_token(model: GPT, prompts: list[list[int]]) -> None:
    """Nearness of logits is no excuse on the kernels: a row is computed to the bit as if it were alone."""
    backend = NativeBackend(model, num_slots=4, max_len=CONFIG.sequence_len, weights="int8")
    greedy = SamplingParams(temperature=0, max_tokens=MAX_TOKENS)
    offline = Engine(backend, TOKENIZER).generate(prompts, greedy)
    for seed in range(20):
        for number, choices in _run(backend, prompts, seed).items():
            assert all(generated == offline[number][0].token_ids for generated in choices), f"schedule {seed}"
