"""Serving in float8: the same arithmetic that Hopper has, by torch on a CPU."""

import pytest
import torch

from nanochat.config import GPTConfig
from nanochat.engine.backend import Chunk
from nanochat.engine.torch_backend import TorchBackend
from nanochat.errors import InvalidConfig
from nanochat.model.float8_weights import Float8Linear, require_float8_weights, store_in_float8
from nanochat.model.gpt import GPT
from nanochat.model.init import init_weights

CONFIG = GPTConfig(sequence_len=32, vocab_size=250, n_layer=2, n_head=2, n_kv_head=2, n_embd=128, window_pattern="L")


@pytest.fixture
def model() -> GPT:
    model = GPT(CONFIG, torch.bfloat16)
    init_weights(model, torch.Generator().manual_seed(0))
    with torch.no_grad():  # zero at first: layers would add nothing
        for block in model.blocks:
            block.attention.out.weight.normal_(std=0.05, generator=torch.Generator().manual_seed(1))
            block.mlp.down.weight.normal_(std=0.05, generator=torch.Generator().manual_seed(2))
    return model.requires_grad_(False).eval()


def test_a_product_is_that_of_weights_and_activations_rounded_row_by_row() -> None:
    generator = torch.Generator().manual_seed(0)
    weight, x = torch.randn(256, 128, generator=generator), torch.randn(5, 128, generator=generator)

    def rounded(rows: torch.Tensor) -> torch.Tensor:
        scale = rows.abs().amax(dim=1, keepdim=True).double() / 448  # e4m3's largest
        return (rows.double() / scale).float().to(torch.float8_e4m3fn).double() * scale

    found = Float8Linear(weight)(x.bfloat16())
    assert found.dtype == torch.bfloat16
    expected = rounded(x.bfloat16().float()) @ rounded(weight).T
    torch.testing.assert_close(found.double(), expected, rtol=0.01, atol=0.02)


def test_a_row_does_not_depend_on_its_neighbours_and_may_be_zero() -> None:
    generator = torch.Generator().manual_seed(0)
    linear = Float8Linear(torch.randn(128, 128, generator=generator))
    x = torch.randn(4, 128, generator=generator).bfloat16()
    x[1] = 0
    x[2] *= 1000
    assert torch.equal(linear(x)[0], linear(x[:1])[0])
    assert torch.equal(linear(x)[1], torch.zeros(128, dtype=torch.bfloat16))


def test_a_model_in_float8_predicts_nearly_as_in_bfloat16(model: GPT) -> None:
    ids = torch.randint(0, 250, (2, 32), generator=torch.Generator().manual_seed(3))
    num_before, expected = model.num_parameters(), model(ids)
    store_in_float8(model)
    assert {type(block.mlp.up) for block in model.blocks} == {Float8Linear}
    assert not isinstance(model.head, Float8Linear)
    assert model.num_parameters() == num_before
    error = (model(ids) - expected).norm() / expected.norm()
    assert 0.001 < error < 0.1


def test_the_backend_runs_it_and_says_so(model: GPT) -> None:
    store_in_float8(model)
    backend = TorchBackend(model, num_slots=2, max_len=32)
    assert backend.weights == "float8_e4m3fn"
    ids = list(range(8))
    backend.forward([Chunk(0, 0, ids[:5], -1)])
    stepped = backend.forward([Chunk(0, 5, ids[5:], ids[4])])
    torch.testing.assert_close(stepped[0], backend.forward_all(Chunk(1, 0, ids, -1))[-1], rtol=0.05, atol=0.05)


def test_other_devices_are_refused() -> None:
    with pytest.raises(InvalidConfig, match=r"precision fp8 needs an NVIDIA GPU .* and this is cpu\. Or use auto"):
        require_float8_weights(torch.device("cpu"))
