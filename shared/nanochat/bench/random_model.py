"""A model with random weights, for measuring: its speed is that of a trained one, and its answers never end early.

Logits are spread as a trained model's are, and those of tokens that would end an answer, call a tool or split a
character stay at zero, far below the best: at temperatures up to 1 they are not drawn.
"""

import itertools
from pathlib import Path

import torch

from nanochat.checkpoint import store
from nanochat.config import GPTConfig
from nanochat.model.gpt import GPT
from nanochat.model.init import init_weights
from nanochat.model.names import named_tensors
from nanochat.tokenizer.bpe import Tokenizer
from nanochat.tokenizer.special import SPECIAL_TOKENS

# Softcapped at 15: the largest of some thousands is then near 11, and a zero is 10^-4 times as likely.
_LOGIT_STD = 4.0
_NUM_BYTES, _NUM_ASCII = 256, 128
_LETTERS = "abcdefghijklmnopqrstuvwxyz"


def random_model(config: GPTConfig, *, seed: int = 1) -> GPT:
    """Both ways back to the residual stream are random too: an untrained model has zeros there."""
    generator = torch.Generator().manual_seed(seed)
    model = GPT(config)
    init_weights(model, generator)
    with torch.no_grad():
        for block in model.blocks:
            for weight in (block.attention.out.weight, block.mlp.down.weight):
                weight.copy_(torch.randn(weight.shape, generator=generator) / weight.size(1) ** 0.5)
        head = model.head.weight
        head.copy_(torch.randn(head.shape, generator=generator) * _LOGIT_STD / config.n_embd**0.5)
        head[_NUM_ASCII:_NUM_BYTES] = 0
        head[config.vocab_size - len(SPECIAL_TOKENS) :] = 0
    return model.requires_grad_(False).eval()


def random_tokenizer(vocab_size: int) -> Tokenizer:
    """Bytes, and then words of two letters and more: plain text, a whole character or several in each."""
    lengths = itertools.count(2)
    letters = ("".join(word) for n in lengths for word in itertools.product(_LETTERS, repeat=n))
    tokens = [word.encode() for word in itertools.islice(letters, vocab_size - _NUM_BYTES - len(SPECIAL_TOKENS))]
    return Tokenizer([*(bytes([byte]) for byte in range(_NUM_BYTES)), *tokens])


def write_checkpoint(home: Path, config: GPTConfig) -> Path:
    """The folder of a checkpoint with such a model, under `home`."""
    identity = store.save(
        home,
        "random",
        "pretrain",
        1,
        model_tensors=named_tensors(random_model(config)),
        config=config,
        tokenizer=random_tokenizer(config.vocab_size),
        state={},
    )
    return home / "checkpoints" / identity


def bench_config(depth: int, *, sequence_len: int = 2048) -> GPTConfig:
    """The sizes that are measured: heads of 64; the vocabulary is 32768 from 8 layers on, 4096 below."""
    vocab_size = 32768 if depth >= 8 else 4096
    return GPTConfig.from_depth(depth, vocab_size=vocab_size, sequence_len=sequence_len, head_dim=64)
