"""What int8 is said to cost a model is what follows from logits that torch alone has computed."""

import math
import random

import pytest
import torch
import torch.nn.functional as F

from nanochat.config import GPTConfig
from nanochat.engine import quality
from nanochat.engine.native_backend import NativeBackend
from nanochat.engine.quality import bits_per_byte, int8_cost_ratio
from nanochat.model.gpt import GPT
from nanochat.model.init import init_weights
from nanochat.tokenizer.bpe import Tokenizer
from tests.numerics.native.rounded import int8_logits

pytestmark = pytest.mark.usefixtures("kernels")

TOKENIZER = Tokenizer([*(bytes([byte]) for byte in range(256)), b"th", b"the", b"do", b"dog", b"se", b"see"])
CONFIG = GPTConfig(
    sequence_len=128, vocab_size=TOKENIZER.vocab_size, n_layer=2, n_head=2, n_kv_head=2, n_embd=48, window_pattern="SL"
)
_RNG = random.Random(0)
TEXTS = [
    " ".join(_RNG.choice(words) for _ in range(8) for words in (["the", "a"], ["dog", "cat", "ox"], ["sees", "has"]))
    for _ in range(10)
]
ROWS = [[TOKENIZER.bos_id, *TOKENIZER.encode(text)][: CONFIG.sequence_len] for text in TEXTS]


@pytest.fixture(scope="module")
def trained() -> GPT:
    """It has learned such sentences: next to chance, rounding costs nothing."""
    model = GPT(CONFIG)
    init_weights(model, torch.Generator().manual_seed(1))
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    length = min(map(len, ROWS))
    tokens = torch.tensor([row[:length] for row in ROWS])
    for _ in range(60):
        loss = model(tokens[:, :-1], tokens[:, 1:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 1
    return model.requires_grad_(False)


def uneven(model: GPT) -> GPT:
    """The same function, badly said in int8: hidden numbers differ by up to 10,000 times, and count as much less."""
    other = GPT(CONFIG)
    other.load_state_dict(model.state_dict())
    for block in other.requires_grad_(False).blocks:
        scales = torch.logspace(0, 2, block.mlp.up.weight.size(0))
        block.mlp.up.weight *= scales[:, None]
        block.mlp.down.weight /= scales**2  # numbers are squared between
    return other


def expected_nats(model: GPT, *, in_int8: bool) -> float:
    """-ln p of all tokens but the first ones."""
    nats = 0.0
    for row in ROWS:
        token_ids = torch.tensor([row[:-1]])
        with torch.inference_mode():
            logits = int8_logits(model, token_ids) if in_int8 else model(token_ids)
        nats += float(F.cross_entropy(logits[0].double(), torch.tensor(row[1:]), reduction="sum"))
    return nats


def test_bits_are_counted_for_each_byte_of_the_text(trained: GPT) -> None:
    backend = NativeBackend(trained, num_slots=1, max_len=CONFIG.sequence_len, weights="fp32")
    num_bytes = sum(len(TOKENIZER.token_bytes(token)) for row in ROWS for token in row[1:])
    assert num_bytes > sum(len(row) - 1 for row in ROWS)
    expected = expected_nats(trained, in_int8=False) / math.log(2) / num_bytes
    assert bits_per_byte(backend, TOKENIZER, ROWS) == pytest.approx(expected, rel=1e-5)


def test_the_cost_of_int8_is_that_of_rounded_matrices(trained: GPT, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quality, "documents", lambda: iter(TEXTS))
    found = {}
    for name, model in (("trained", trained), ("uneven", uneven(trained))):
        found[name] = int8_cost_ratio(model, TOKENIZER)
        expected = expected_nats(model, in_int8=True) / expected_nats(model, in_int8=False) - 1
        # Where a float32 sum lies between two numbers of int8, its order decides.
        assert found[name] == pytest.approx(expected, rel=0.01, abs=1e-4)
    assert abs(found["trained"]) < 0.005 < found["uneven"]
