"""First weights have the spread that the training recipe was tuned for."""

import math

import pytest
import torch
from torch import Tensor

from nanochat.config import GPTConfig
from nanochat.model.gpt import GPT
from nanochat.model.init import init_weights
from nanochat.model.names import named_tensors

CONFIG = GPTConfig(sequence_len=16, vocab_size=500, n_layer=3, n_head=4, n_kv_head=2, n_embd=128)
BOUND = math.sqrt(3 / 128)


@pytest.fixture(scope="module")
def tensors() -> dict[str, Tensor]:
    model = GPT(CONFIG)
    init_weights(model, torch.Generator().manual_seed(0))
    return named_tensors(model)


@pytest.mark.parametrize(("name", "std"), [("embedding", 0.8), ("head", 0.001)])
def test_normal_weights_have_their_spread(tensors: dict[str, Tensor], name: str, std: float) -> None:
    assert tensors[name].std().item() == pytest.approx(std, rel=0.02)
    assert tensors[name].abs().max() > 3 * std


@pytest.mark.parametrize(
    ("part", "low", "high"),
    [
        ("query", -BOUND, BOUND),
        ("key", -BOUND, BOUND),
        ("value", -BOUND, BOUND),
        ("mlp_up", -0.4 * BOUND, 0.4 * BOUND),
        ("value_embedding", -BOUND, BOUND),
        ("value_gate", 0.0, 0.02),
    ],
)
def test_uniform_weights_fill_their_range(tensors: dict[str, Tensor], part: str, low: float, high: float) -> None:
    weight = tensors[f"layer.2.{part}"]
    span = high - low
    assert low <= weight.min() < low + 0.2 * span
    assert high - 0.2 * span < weight.max() <= high
    assert weight.std().item() == pytest.approx(span / math.sqrt(12), rel=0.3)


def test_ways_back_to_the_residual_stream_begin_at_zero(tensors: dict[str, Tensor]) -> None:
    for layer in range(3):
        assert not tensors[f"layer.{layer}.attention_out"].any()
        assert not tensors[f"layer.{layer}.mlp_down"].any()


def test_scalars_have_their_first_values(tensors: dict[str, Tensor]) -> None:
    torch.testing.assert_close(tensors["resid_lambdas"], torch.tensor([1.15, 1.10, 1.05]))
    torch.testing.assert_close(tensors["x0_lambdas"], torch.tensor([0.20, 0.125, 0.05]))
    assert tensors["smear_lambda"].item() == 0
    assert tensors["backout_lambda"].item() == pytest.approx(0.2)
    assert 0 <= tensors["smear_gate"].min() < tensors["smear_gate"].max() <= 0.02


def test_a_seed_gives_one_model(tensors: dict[str, Tensor]) -> None:
    again = GPT(CONFIG)
    init_weights(again, torch.Generator().manual_seed(0))
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in named_tensors(again).items())


def test_a_fresh_model_knows_nothing() -> None:
    """With a head near zero every token is as likely: the loss is that of guessing."""
    model = GPT(CONFIG)
    init_weights(model, torch.Generator().manual_seed(0))
    tokens = torch.randint(500, (2, 17), generator=torch.Generator().manual_seed(1))
    assert model(tokens[:, :-1], tokens[:, 1:]).item() == pytest.approx(math.log(500), abs=0.02)
