"""The product of every linear map, x @ weight.T, by the faster of the two libraries that torch has for a CPU.

torch gives float32 products to MKL. On AMD's processors oneDNN, which torch holds too and keeps for narrower numbers,
is 12 to 30% faster for outputs and for the gradients of inputs (docs/performance.md). For those of weights, sums over
thousands of tokens of operands that lie the wrong way, MKL is faster. Elsewhere MKL does all.
"""

from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

# Of inputs and outputs; below, calling takes longer than multiplying.
MIN_WIDTH = 64


@cache
def onednn_is_faster() -> bool:
    """Ask before compiling: reads /proc/cpuinfo. The same on every run of a machine, so that runs can be repeated."""
    try:
        vendor = "AuthenticAMD" in Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return vendor and has_onednn()


def has_onednn() -> bool:
    is_built_in: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return is_built_in and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def linear(x: Tensor, weight: Tensor, *, use_onednn: bool) -> Tensor:
    """x (..., K), weight (N, K) in one dtype -> (..., N)."""
    if use_onednn and x.device.type == "cpu" and x.dtype == torch.float32:
        product: Tensor = multiply(x.flatten(0, -2), weight)
        return product.view(*x.shape[:-1], weight.size(0))
    return F.linear(x, weight)


# An operation of its own: the compiler takes torch's for one with constant weights.
@torch.library.custom_op("nanochat::multiply", mutates_args=())
def multiply(a: Tensor, b: Tensor) -> Tensor:
    """a (M, K) @ b (N, K).T by oneDNN, float32; either may be a transposed view."""
    return torch.ops.mkldnn._linear_pointwise(a, b, None, "none", [], "")  # type: ignore[no-any-return]


@multiply.register_fake
def _(a: Tensor, b: Tensor) -> Tensor:
    return a.new_empty(a.size(0), b.size(0))


def _setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
    a, b = ctx.saved_tensors
    a_grad = multiply(grad, b.t()) if ctx.needs_input_grad[0] else None
    b_grad = grad.t() @ a if ctx.needs_input_grad[1] else None
    return a_grad, b_grad


multiply.register_autograd(_backward, setup_context=_setup_context)
