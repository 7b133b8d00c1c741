"""A tiny random model with every part active, and a tokenizer whose tokens are the 256 bytes."""

from collections.abc import Callable

import pytest
import torch

from nanochat.config import GPTConfig
from nanochat.engine.backend import Backend
from nanochat.engine.native_backend import NativeBackend
from nanochat.engine.torch_backend import TorchBackend
from nanochat.model.gpt import GPT
from nanochat.tokenizer.bpe import Tokenizer
from tests.decisive_model import decisive_model

CONFIG = GPTConfig(
    sequence_len=256, vocab_size=265, n_layer=4, n_head=4, n_kv_head=2, n_embd=64, short_window_divisor=4
)


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Matrices this small only lose by sharing them out."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return Tokenizer([bytes([byte]) for byte in range(256)])


@pytest.fixture(scope="session")
def model() -> GPT:
    return decisive_model(CONFIG, seed=5)


def replayed(compute: Callable[[], torch.Tensor]) -> tuple[torch.Tensor, Callable[[], None]]:
    """What a CUDA graph does, on a CPU: the same computation again, its result in the same place."""
    compute()
    result = compute().clone()

    def replay() -> None:
        result.copy_(compute())

    return result, replay


@pytest.fixture(params=["kernels", "torch", "graphs"])
def make_backend(request: pytest.FixtureRequest, model: GPT) -> Callable[..., Backend]:
    def make_backend(*, num_slots: int = 16, max_len: int = CONFIG.sequence_len) -> Backend:
        if request.param != "kernels":
            record = replayed if request.param == "graphs" else None
            return TorchBackend(model, num_slots=num_slots, max_len=max_len, record=record)
        request.getfixturevalue("kernels")
        return NativeBackend(model, num_slots=num_slots, max_len=max_len, weights="fp32")

    return make_backend
