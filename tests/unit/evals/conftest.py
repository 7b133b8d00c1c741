"""A tiny tokenizer of single bytes and a tiny random model."""

import pytest
import torch

from nanochat.config import GPTConfig
from nanochat.model.gpt import GPT
from nanochat.model.init import init_weights
from nanochat.tokenizer.bpe import Tokenizer


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return Tokenizer([bytes([byte]) for byte in range(256)])


@pytest.fixture
def model(tokenizer: Tokenizer) -> GPT:
    config = GPTConfig(
        sequence_len=128, vocab_size=tokenizer.vocab_size, n_layer=2, n_head=2, n_kv_head=2, n_embd=32,
        window_pattern="L",
    )  # fmt: skip
    model = GPT(config)
    init_weights(model, torch.Generator().manual_seed(0))
    return model.eval()
