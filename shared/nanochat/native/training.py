"""Parts of a training step on a CPU for torch: products, attention with its gradients, and the head's losses.

For float32, with AVX-512, where torch's attention has a third of a product's speed (docs/performance.md). product.py,
attention.py and loss.py say what they compute and choose them where is_available(); tests hold the two together.
"""

import ctypes
import logging
from functools import cache
from typing import Any

import torch
from torch import Tensor

from nanochat.compiling import cpu_operation
from nanochat.errors import Unavailable
from nanochat.native.library import AttentionShape, Library, load_training

log = logging.getLogger(__name__)


@cache
def is_available() -> bool:
    """Whether there is a library for this machine, compiled on first use where none was installed. Logs why not."""
    try:
        load_training()
    except Unavailable as exc:
        log.info("training_kernels_unavailable", extra={"reason": exc.message})
        return False
    return True


def multiply(a: Tensor, b: Tensor, total: Tensor | None = None) -> Tensor:
    """a (M, K) @ b (N, K).T, added to total (M, N) where one is given; either operand may be a transposed view."""
    (M, K), N = a.shape, b.size(0)
    assert b.size(1) == K and a.dtype == b.dtype == torch.float32
    a, b = (x if 1 in x.stride() else x.contiguous() for x in (a, b))
    out = a.new_empty(M, N) if total is None else total
    assert out.is_contiguous() and out.shape == (M, N) and out.dtype == torch.float32
    _call("multiply", a, *a.stride(), b, *b.stride(), out, M, N, K, total is not None)
    return out


def row_losses(logits: Tensor, targets: Tensor, cap: float) -> tuple[Tensor, Tensor, Tensor]:
    """loss.py's row_losses, for logits (R, V) that lie row after row. Raises IndexError where a target is no column."""
    assert logits.is_contiguous() and logits.dtype == torch.float32
    targets = targets.contiguous()
    losses, factors = logits.new_empty(len(logits)), logits.new_empty(len(logits))
    _call("row_losses", logits, targets, *logits.shape, cap, losses, factors)
    return losses, logits, factors


def causal_attention(q: Tensor, k: Tensor, v: Tensor, window: int, scale: float) -> Tensor:
    """As in attention.py: q (B, T, H, D), k and v (B, T, Hk, D) -> (B, T, H, D)."""
    y: Tensor = _attend(q, k, v, window, scale)[0]
    return y


def _attended_like(q: Tensor, k: Tensor, v: Tensor, window: int, scale: float) -> tuple[Tensor, Tensor]:
    return q.new_empty(q.shape), q.new_empty(q.size(0), q.size(2), q.size(1))


@cpu_operation("nanochat::cpu_attention", fake=_attended_like)
def _attend(q: Tensor, k: Tensor, v: Tensor, window: int, scale: float) -> tuple[Tensor, Tensor]:
    """The output, and of each query the logarithm of its sum of weights (B, H, T)."""
    assert k.shape == v.shape and q.shape[::3] == k.shape[::3] and q.size(1) == k.size(1)
    assert q.size(2) % k.size(2) == 0 and {x.dtype for x in (q, k, v)} == {torch.float32}
    q, k, v = (x.contiguous() for x in (q, k, v))
    y, lse = torch.empty_like(q), q.new_empty(q.size(0), q.size(2), q.size(1))
    _call("attention_forward", _shape(q, k, window, scale), q, k, v, y, lse)
    return y, lse


def _gradients_like(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, y: Tensor, lse: Tensor, window: int, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape)


@cpu_operation("nanochat::cpu_attention_backward", fake=_gradients_like)
def _attend_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, y: Tensor, lse: Tensor, window: int, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    grad, q, k, v, y, lse = (x.contiguous() for x in (grad, q, k, v, y, lse))
    grads = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
    _call("attention_backward", _shape(q, k, window, scale), q, k, v, y, lse, grad, *grads)
    return grads


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    q, k, v, ctx.window, ctx.scale = inputs
    ctx.save_for_backward(q, k, v, *output)
    ctx.mark_non_differentiable(output[1])


def _backward(ctx: Any, grad: Tensor, _: Tensor | None) -> tuple[Tensor | None, ...]:
    return (*_attend_backward(grad, *ctx.saved_tensors, ctx.window, ctx.scale), None, None)


torch.library.register_autograd("nanochat::cpu_attention", _backward, setup_context=_setup_context)


def _shape(q: Tensor, k: Tensor, window: int, scale: float) -> AttentionShape:
    return AttentionShape(*q.shape[:3], *k.shape[2:], min(window, q.size(1)), scale)


def _call(name: str, *arguments: Tensor | AttentionShape | float) -> None:
    library: Library = load_training()
    library.call(name, *map(_passed, arguments))


def _passed(argument: Tensor | AttentionShape | float) -> object:
    if isinstance(argument, Tensor):
        return argument.data_ptr()
    return ctypes.byref(argument) if isinstance(argument, AttentionShape) else argument
