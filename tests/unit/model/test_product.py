"""oneDNN's product and its gradients are those of F.linear."""

import pytest
import torch
import torch.nn.functional as F

from nanochat.model.product import has_onednn, linear


@pytest.mark.skipif(not has_onednn(), reason="torch without oneDNN")
@pytest.mark.parametrize("shape", [(5, 64), (2, 3, 64), (2, 1, 3, 64)])
@pytest.mark.parametrize("is_compiled", [False, True])
def test_onednn_multiplies_as_torch_does(shape: tuple[int, ...], is_compiled: bool) -> None:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(*shape, generator=generator).requires_grad_()
    weight = torch.randn(80, 64, generator=generator).requires_grad_()
    multiply = torch.compile(linear, backend="aot_eager", dynamic=False) if is_compiled else linear
    found, expected = multiply(x, weight, use_onednn=True), F.linear(x, weight)
    torch.testing.assert_close(found, expected)
    upstream = torch.randn(expected.shape, generator=generator)
    for one, other in zip(
        torch.autograd.grad(found, (x, weight), upstream),
        torch.autograd.grad(expected, (x, weight), upstream),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_only_float32_on_a_cpu_goes_to_onednn() -> None:
    x, weight = torch.randn(2, 64, dtype=torch.float64), torch.randn(80, 64, dtype=torch.float64)
    assert torch.equal(linear(x, weight, use_onednn=True), F.linear(x, weight))
