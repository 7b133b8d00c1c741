"""The model against the plain float64 reference: every part on, and every constant of older checkpoints."""

from collections.abc import Callable

import pytest
import torch

from nanochat.config import GPTConfig
from nanochat.model.gpt import GPT
from nanochat.model.names import named_parameters, named_tensors
from tests.numerics import reference
from tests.numerics.constants import EARLIER, FIRST

SIZES = {"vocab_size": 70, "n_embd": 32, "n_head": 4}

# Short windows are 128 wide at least, so a row must be longer for one to hide anything.
CONFIGS = {
    "every part, windows, grouped heads": GPTConfig(
        **SIZES, sequence_len=200, n_layer=3, n_kv_head=2, window_pattern="SL"
    ),
    "one key head for all": GPTConfig(**SIZES, sequence_len=24, n_layer=2, n_kv_head=1, window_pattern="L"),
    "a single layer": GPTConfig(**SIZES, sequence_len=24, n_layer=1, n_kv_head=4),
    "the first constants": GPTConfig(**SIZES, **FIRST, sequence_len=24, n_layer=3, n_kv_head=4),
    "earlier constants": GPTConfig(**SIZES, **EARLIER, sequence_len=44, n_layer=3, n_kv_head=4, window_pattern="SSSL"),
}


@pytest.fixture(params=CONFIGS.values(), ids=CONFIGS.keys())
def config(request: pytest.FixtureRequest) -> GPTConfig:
    config: GPTConfig = request.param
    return config


def random_tokens(config: GPTConfig, num_rows: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randint(config.vocab_size, (num_rows, config.sequence_len), generator=generator)


def test_logits_equal_the_reference(config: GPTConfig, random_model: Callable[[GPTConfig], GPT]) -> None:
    model, tokens = random_model(config), random_tokens(config, 1)
    with torch.no_grad():
        expected = reference.logits(named_tensors_double(model), config, tokens[0].tolist())
        found = model(tokens)[0]
    assert found.dtype == torch.float32
    assert found.shape == (config.sequence_len, config.vocab_size)
    # Float32 through a few layers of weights of order 1; the logits reach 15.
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=5e-5)


@pytest.mark.parametrize(("num_rows", "sequence_len"), [(1, 132), (3, 12)])
def test_loss_and_gradients_equal_the_reference(
    random_model: Callable[[GPTConfig], GPT], num_rows: int, sequence_len: int
) -> None:
    config = GPTConfig(**SIZES, sequence_len=sequence_len, n_layer=3, n_kv_head=2, window_pattern="SL")
    model, tokens = random_model(config), random_tokens(config, num_rows)
    targets = random_tokens(config, num_rows).flip(1)
    targets[0, :5] = -1
    weights = reference.double(named_tensors(model))
    expected = reference.loss(weights, config, tokens.tolist(), targets.tolist())
    expected.backward()
    loss = model(tokens, targets)
    loss.backward()
    assert loss.item() == pytest.approx(expected.item(), abs=1e-5)
    for name, parameter in named_parameters(model).items():
        grad, expected_grad = parameter.grad, weights[name].grad
        assert grad is not None
        assert expected_grad is not None
        error = (grad.double() - expected_grad).norm() / expected_grad.norm()
        assert error < 1e-4, f"gradient of {name} is off by {error:.1e} of its norm"


def test_changing_a_token_beyond_every_window_changes_nothing(random_model: Callable[[GPTConfig], GPT]) -> None:
    """Two short layers and a last long one: without the long one's head, a query reaches 2 x 128 tokens back."""
    config = GPTConfig(**SIZES, sequence_len=512, n_layer=3, n_kv_head=4, window_pattern="S", smear=False)
    model, tokens = random_model(config), random_tokens(config, 1)
    with torch.no_grad():
        model.blocks[-1].attention.out.weight.zero_()
        before = model(tokens)
        tokens[0, 0] = (tokens[0, 0] + 1) % config.vocab_size
        after = model(tokens)
    assert not torch.equal(before[0, 256], after[0, 256])
    assert torch.equal(before[0, 257:], after[0, 257:])


def named_tensors_double(model: GPT) -> dict[str, torch.Tensor]:
    return {name: tensor.double() for name, tensor in named_tensors(model).items()}
