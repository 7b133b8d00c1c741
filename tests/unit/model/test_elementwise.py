"""Norm and activation give what torch's give, with gradients that need nothing but the result."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from nanochat.model.elementwise import rms_norm, squared_relu


def written_out_norm(x: Tensor) -> Tensor:
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + torch.finfo(torch.float32).eps)


PAIRS = [(rms_norm, written_out_norm), (squared_relu, lambda x: F.relu(x).square())]


@pytest.mark.parametrize(("function", "written_out"), PAIRS, ids=["norm", "activation"])
@pytest.mark.parametrize("size", [1.0, 1e-3, 1e3])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-6), (torch.bfloat16, 0.02)])
def test_results_and_gradients_are_those_of_the_formula(
    function: Callable[[Tensor], Tensor],
    written_out: Callable[[Tensor], Tensor],
    size: float,
    dtype: torch.dtype,
    tolerance: float,
) -> None:
    generator = torch.Generator().manual_seed(0)
    x = (size * torch.randn(5, 7, 64, generator=generator)).to(dtype).requires_grad_()
    upstream = torch.randn(x.shape, generator=generator).to(dtype)
    wide = x.detach().double().requires_grad_()
    found, expected = function(x), written_out(wide)
    assert found.dtype == dtype
    (grad,), (expected_grad,) = torch.autograd.grad(found, x, upstream), torch.autograd.grad(expected, wide, upstream)
    for one, other in ((found, expected), (grad, expected_grad)):
        assert (one - other).abs().max() <= tolerance * other.abs().max()


@pytest.mark.parametrize("function", [rms_norm, squared_relu])
def test_without_gradients_the_result_is_the_same(function: Callable[[Tensor], Tensor]) -> None:
    x = torch.randn(5, 64, requires_grad=True)
    with torch.no_grad():
        alone = function(x)
    assert torch.equal(alone, function(x).detach())
    assert not alone.requires_grad


def test_a_row_of_zeros_has_finite_gradients() -> None:
    x = torch.zeros(2, 8, requires_grad=True)
    squared_relu(rms_norm(x)).sum().backward()
    assert x.grad is not None and x.grad.isfinite().all()
