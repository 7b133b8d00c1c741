"""A home folder and a way to save small checkpoints into it."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from nanochat.checkpoint import store
from nanochat.config import GPTConfig
from nanochat.optim.parts import Moment
from nanochat.tokenizer.bpe import Tokenizer

Save = Callable[..., Path]


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return Tokenizer([bytes([byte]) for byte in range(256)])


@pytest.fixture
def save(home: Path, tokenizer: Tokenizer) -> Save:
    """save(step, value=..., run=..., stage=...) writes a checkpoint whose tensors are all `value`; gives its folder."""

    def save_one(step: int, value: float = 1.0, run: str = "first", stage: str = "pretrain") -> Path:
        identity = store.save(
            home,
            run,
            stage,
            step,
            model_tensors={
                "embedding": torch.full((4, 3), value),
                "head": torch.full((2,), value, dtype=torch.bfloat16),
            },
            config=GPTConfig(n_layer=2, n_head=2, n_kv_head=2, n_embd=32, vocab_size=265),
            tokenizer=tokenizer,
            state={
                "step": step,
                "metrics": {"val_bpb": value, "train_loss": float("nan")},
                "loader": {"waiting": [[0, 1]]},
            },
            optimizer_state={"embedding.first": Moment(tensor=torch.full((4, 3), -value), shape=torch.Size((4, 3)))},
        )
        return home / "checkpoints" / identity

    return save_one
