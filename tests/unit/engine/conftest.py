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
from tests.cuda_stand_ins import record, use_paged_flash_attn
from tests.decisive_model import decisive_model

CONFIG = GPTConfig(
    sequence_len=256,
    vocab_size=265,
    n_layer=4,
    n_head=4,
    n_kv_head=2,
    n_embd=64,
    short_window_divisor=4,
    short_window_multiple=16,
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


class SmallChunks(TorchBackend):
    """So small that the rings of layers with a window go round."""

    max_chunk = 32


@pytest.fixture(params=["kernels", "torch", "graphs", "rings", "rings in pages"])
def make_backend(request: pytest.FixtureRequest, model: GPT, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Backend]:
    if request.param == "rings in pages":
        use_paged_flash_attn(monkeypatch)

    def make_backend(*, num_slots: int = 16, max_len: int = CONFIG.sequence_len, model: GPT = model) -> Backend:
        if request.param != "kernels":
            kind = SmallChunks if request.param.startswith("rings") else TorchBackend
            with_graphs = request.param in ("graphs", "rings in pages")
            return kind(model, num_slots=num_slots, max_len=max_len, record=record if with_graphs else None)
        request.getfixturevalue("kernels")
        return NativeBackend(model, num_slots=num_slots, max_len=max_len, weights="fp32")

    return make_backend
