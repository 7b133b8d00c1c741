"""make chaos: workers killed under load at length, and the memory of many requests and of swaps.

Some minutes on two cores. `make test` has shorter forms of the same (tests/integration/inference/test_workers.py).
"""

import random
from pathlib import Path

import psutil
import pytest
import torch

from nanochat.checkpoint import store
from nanochat.config import GPTConfig
from nanochat.model.gpt import GPT
from nanochat.model.init import init_weights
from nanochat.model.names import named_tensors
from tests.integration.inference.chain_model import TOKENIZER
from tests.integration.inference.conftest import Serve, make_home, one_thread, serve
from tests.integration.inference.load import ANSWERED, BROKEN_OFF, REFUSED, Load, family, kill, workers
from tests.integration.inference.server import Server, logged, until
from tests.integration.inference.test_workers import all_ready, num_ready

__all__ = ["make_home", "one_thread", "serve"]  # fixtures

NUM_KILLS = 100
NUM_REQUESTS = 10_000


def resident_mib(server: Server) -> float:
    processes = [psutil.Process(server.process.pid), *family(server)]
    return float(sum(process.memory_info().rss for process in processes)) / 2**20


@pytest.mark.timeout(1200)
def test_kills_under_load(serve: Serve) -> None:
    server = serve(workers=2, max_running=4)
    all_ready(server)
    rng = random.Random(1)
    with Load(server, num_clients=16) as load:
        for _ in range(NUM_KILLS):
            until(lambda: num_ready(server) > 0, "a worker is ready", 60)
            load.until_answered(load.ends[ANSWERED] + 1, 60)
            kill(rng.choice(workers(server)))
    print(
        f"\n{NUM_KILLS} kills: {load.ends[ANSWERED]} answered, {load.ends[BROKEN_OFF]} broken off, {load.wrong} wrong"
    )
    assert load.wrong == [] and load.ends[REFUSED] == 0
    all_ready(server)
    assert server.metric("nanochat_worker_restarts_total") == NUM_KILLS


@pytest.mark.timeout(1200)
def test_memory_does_not_grow_over_ten_thousand_requests(serve: Serve) -> None:
    server = serve(max_running=8)
    sizes = []
    with Load(server, num_clients=8, max_tokens=8) as load:
        for done in (NUM_REQUESTS // 2, NUM_REQUESTS, NUM_REQUESTS * 3 // 2):
            load.until_answered(done, 600)
            sizes.append(resident_mib(server))
    print(f"\nresident after each {NUM_REQUESTS // 2} requests:", " ".join(f"{size:.1f}" for size in sizes), "MiB")
    assert load.wrong == [] and load.ends[ANSWERED] == load.ends.total()
    assert abs(sizes[2] / sizes[0] - 1) < 0.02


def test_memory_returns_after_swaps(serve: Serve) -> None:
    """Of a model whose weights are a good part of what a worker holds."""
    server = serve(poll_interval_s=0.1)
    names = [_save_large(server.home, step) for step in (11, 12)]
    sizes = []
    for swap in range(7):
        wanted = names[swap % 2]
        server.models.promote("nanochat", wanted)
        _serves(server, wanted)
        assert server.post(prompt="a", max_tokens=4).status_code == 200
        _has_given_back(server, swap + 1)
        sizes.append(resident_mib(server))
    print("\nresident after each swap:", " ".join(f"{size:.1f}" for size in sizes), "MiB")
    assert abs(sizes[6] / sizes[1] - 1) < 0.05


def _serves(server: Server, checkpoint: str) -> None:
    server.until(lambda: server.get("/v1/info").json()["checkpoint"] == checkpoint, f"{checkpoint} is served")


def _has_given_back(server: Server, num_models: int) -> None:
    """So many models are freed, and the allocator has given back what they had: a beat later."""

    def has_given_back() -> bool:
        return any(line["num_models"] == num_models for line in logged(server, "memory_given_back"))

    server.until(has_given_back, "the old model's memory is back")


def _save_large(home: Path, step: int) -> str:
    config = GPTConfig(sequence_len=512, vocab_size=265, n_layer=6, n_head=8, n_kv_head=8, n_embd=512)
    model = GPT(config)
    init_weights(model, torch.Generator().manual_seed(step))
    state = {"metrics": {}}
    return store.save(
        home, "large", "sft", step, model_tensors=named_tensors(model), config=config, tokenizer=TOKENIZER, state=state
    )
