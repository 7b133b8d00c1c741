"""Where reference numbers are, small models with every part active, and one thread so that numbers repeat."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from nanochat.config import GPTConfig
from nanochat.model.gpt import GPT
from nanochat.model.names import named_tensors


@pytest.fixture(scope="session")
def golden(test_data: Path) -> Path:
    """The folder of numbers from an independent implementation; the test is skipped where there is none."""
    return test_data / "golden"


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def random_model() -> Callable[[GPTConfig], GPT]:
    """Makes a model whose every weight matters: none of the zeros and equal values that a fresh one begins with."""

    def make(config: GPTConfig) -> GPT:
        model = GPT(config)
        generator = torch.Generator().manual_seed(1)
        for name, tensor in named_tensors(model).items():
            scale = 1.0 if "embedding" in name or "gate" in name else tensor.size(-1) ** -0.5
            drawn = torch.randn(tensor.shape, generator=generator) * scale
            tensor.copy_(1 + drawn / 4 if tensor.ndim == 1 else drawn)
        return model

    return make
