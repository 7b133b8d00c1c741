"""Products a @ b.T, as linear maps and their gradients are made of, by the fastest there is for float32 on a CPU.

native: this project's own, on AMD's processors with AVX-512; twice the speed of torch's MKL there. onednn: on AMD's
others, a library that torch holds too and keeps for narrower numbers; 12 to 30% faster than MKL for outputs and for the
gradients of inputs, but not for those of weights, sums over thousands of tokens of operands that lie the wrong way.
torch: all else; on Intel's, MKL is as fast as native at depth 4 and 6% faster at depth 6 (docs/performance.md).
"""

from functools import cache
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from nanochat.compiling import constant_in_graphs, cpu_operation
from nanochat.native import training as native

Way = Literal["native", "onednn", "torch"]
# Of rows, inputs and outputs; below, calling and packing take longer than multiplying.
MIN_SIZE = 64


def linear(x: Tensor, weight: Tensor) -> Tensor:
    """x (..., K), weight (N, K) in one dtype -> (..., N)."""
    is_large = min(x.shape[:-1].numel(), *weight.shape) >= MIN_SIZE
    if is_large and x.device.type == "cpu" and x.dtype == torch.float32 and fastest_way() != "torch":
        product: Tensor = multiply(x.flatten(0, -2), weight)
        return product.view(*x.shape[:-1], weight.size(0))
    return F.linear(x, weight)


@constant_in_graphs
def fastest_way() -> Way:
    """The same on every run of a machine, so that runs can be repeated."""
    return _fastest_way()


@cache
def _fastest_way() -> Way:
    if not _is_amd():
        return "torch"
    if native.is_available():
        return "native"
    return "onednn" if has_onednn() else "torch"


def has_onednn() -> bool:
    is_built_in: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return is_built_in and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def _is_amd() -> bool:
    try:
        return "AuthenticAMD" in Path("/proc/cpuinfo").read_text()
    except OSError:
        return False


def _product_like(a: Tensor, b: Tensor) -> Tensor:
    return a.new_empty(a.size(0), b.size(0))


# An operation of its own: the compiler takes oneDNN's for one with constant weights.
@cpu_operation("nanochat::multiply", fake=_product_like)
def multiply(a: Tensor, b: Tensor) -> Tensor:
    """a (M, K) @ b (N, K).T in float32 on a CPU, not for the way torch; either may be a transposed view."""
    if fastest_way() == "native":
        return native.multiply(a, b)
    return torch.ops.mkldnn._linear_pointwise(a, b, None, "none", [], "")  # type: ignore[no-any-return]


def _setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
    a, b = ctx.saved_tensors
    a_grad = multiply(grad, b.t()) if ctx.needs_input_grad[0] else None
    b_grad = None
    if ctx.needs_input_grad[1]:
        b_grad = multiply(grad.t(), a.t()) if fastest_way() == "native" else grad.t() @ a
    return a_grad, b_grad


torch.library.register_autograd("nanochat::multiply", _backward, setup_context=_setup_context)


def zero_sum(num_rows: int, num_columns: int, device: torch.device) -> Tensor:
    """(num_rows, num_columns) float32 for add_product, lying the way round that is faster there."""
    if device.type == "cpu" and fastest_way() == "onednn":
        return torch.zeros(num_columns, num_rows, device=device).t()
    return torch.zeros(num_rows, num_columns, device=device)


def add_product(total: Tensor, a: Tensor, b: Tensor) -> None:
    """total (M, N) += a (M, K) @ b (N, K).T, without gradients; total as zero_sum made it. Where the library can add by
    itself, the product is not held."""
    is_float32 = a.dtype == torch.float32
    way = fastest_way() if is_float32 and total.device.type == "cpu" else "torch"
    if way == "native":
        native.multiply(a, b, total)
    elif way == "onednn" or not is_float32:
        total += linear(b, a).t()
    else:
        total.addmm_(a, b.t())
