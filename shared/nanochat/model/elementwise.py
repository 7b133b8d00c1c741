"""RMS norm and the squared ReLU, with gradients that are computed from their results.

A product keeps what it reads for its own backward pass. These take their gradient from that same tensor, so that what
they read themselves need not be kept: four tensors of a layer fewer, of which one is as wide as the MLP.
"""

from typing import Any

import torch
from torch import Tensor

# F.rms_norm's own in every dtype narrower than float64: it computes in float32.
_EPS = torch.finfo(torch.float32).eps


def rms_norm(x: Tensor) -> Tensor:
    """Over the last dimension, without parameters; computed in float32, given in x's dtype."""
    if not torch.is_grad_enabled():
        return torch.rms_norm(x, (x.size(-1),))
    y: Tensor = _RMSNorm.apply(x)  # type: ignore[no-untyped-call]
    return y


def squared_relu(x: Tensor) -> Tensor:
    """max(x, 0)^2"""
    if not torch.is_grad_enabled():
        return torch.relu(x).square()
    y: Tensor = _SquaredReLU.apply(x)  # type: ignore[no-untyped-call]
    return y


class _RMSNorm(torch.autograd.Function):
    """y = x / r with r = sqrt(mean(x^2) + eps), so dL/dx = (dL/dy - y mean(y dL/dy)) / r."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        wide = x.float()
        inverse = torch.rsqrt(wide.square().mean(-1, keepdim=True) + _EPS)
        y = (wide * inverse).to(x.dtype)
        ctx.save_for_backward(y, inverse)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        y, inverse = ctx.saved_tensors
        wide, wide_grad = y.float(), grad.float()
        x_grad: Tensor = inverse * (wide_grad - wide * (wide * wide_grad).mean(-1, keepdim=True))
        return x_grad.to(grad.dtype)


class _SquaredReLU(torch.autograd.Function):
    """y = max(x, 0)^2, so dL/dx = 2 sqrt(y) dL/dy. The root of a float's square is that float, where that fits."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = torch.relu(x).square()
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        return 2.0 * torch.sqrt(y) * grad
