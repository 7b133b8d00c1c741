"""Cross entropy of the head's softcapped logits, a chunk of tokens at a time.

Logits (B, T, V) in float32 are the largest thing of a training step: 512 MiB at V = 32768 and 8 rows of 512, once for
each operation on them. Here a chunk of rows is multiplied out, turned into its losses and, in the same place, into the
gradient of its logits, and multiplied back at once; so the whole never exists, and a chunk's memory serves the next.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from nanochat.model.product import linear, onednn_is_faster
from nanochat.sizes import LOGITS_AT_ONCE

IGNORE_INDEX = -1
RowLosses = Callable[[Tensor, Tensor, float], tuple[Tensor, Tensor]]


def softcap(logits: Tensor, cap: float) -> Tensor:
    """Into (-cap, cap), in float32."""
    return cap * torch.tanh(logits.float() / cap)


def row_losses(logits: Tensor, targets: Tensor, cap: float) -> tuple[Tensor, Tensor]:
    """Logits (R, V) before the softcap, targets (R,) -> losses (R,) and the gradient (R, V) of their sum, in float32.

    Rows whose target is -1 have 0 in both.
    """
    below = _below_cap(logits.float(), cap)
    weights = torch.exp(-cap * below)  # at most 1: capped logits need no search for the largest
    total = weights.sum(dim=-1, keepdim=True)
    is_counted = targets != IGNORE_INDEX
    columns = targets.clamp(min=0)[:, None]
    at_target = _below_cap(logits.gather(1, columns).float(), cap)
    losses = torch.where(is_counted, (total.log() + cap * at_target)[:, 0], 0.0)
    is_target = torch.arange(logits.size(-1), device=logits.device) == columns
    slope = below * (2.0 - below)  # of the softcap: 1 - tanh^2
    grad = torch.where(is_counted[:, None], (weights / total - is_target.float()) * slope, 0.0)
    return losses, grad


def _below_cap(logits: Tensor, cap: float) -> Tensor:
    """1 - tanh(logits / cap), by one exponential: a third of the time of tanh on a CPU."""
    return 2.0 / (torch.exp(logits * (2.0 / cap)) + 1.0)


class HeadLoss(nn.Module):
    """The loss of x @ weight.T. `rows` may be a compiled row_losses, which reads a chunk twice and not ten times."""

    def __init__(self, cap: float) -> None:
        super().__init__()
        self.cap = cap
        self.rows: RowLosses = row_losses

    # A loop over chunks would be unrolled into a compiled graph.
    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def forward(self, x: Tensor, weight: Tensor, targets: Tensor, reduction: str = "mean") -> Tensor:
        """x (B, T, C), in whose dtype products are computed, weight (V, C), targets (B, T) -> the mean over counted
        targets (0 if none), the sum, or with "none" all losses (B, T), 0 where not counted; float32."""
        assert reduction in ("mean", "sum", "none"), f"unknown reduction {reduction!r}"
        rows, flat = x.flatten(0, -2), targets.flatten()
        if reduction == "none":
            each: Tensor = _EachLoss.apply(rows, weight, flat, self.cap, self.rows)  # type: ignore[no-untyped-call]
            return each.view_as(targets)
        total: Tensor = _SummedLoss.apply(rows, weight, flat, self.cap, self.rows)  # type: ignore[no-untyped-call]
        return total if reduction == "sum" else total / (targets != IGNORE_INDEX).sum().clamp(min=1)


class _SummedLoss(torch.autograd.Function):
    """Gradients are computed along with the loss: all rows count alike, so nothing more has to be known."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, targets: Tensor, cap: float, rows: RowLosses) -> Tensor:
        if not any(ctx.needs_input_grad):
            return _losses(x, weight, targets, cap, rows).sum()
        losses, x_grad, weight_grad = _losses_and_gradients(x, weight, targets, cap, rows)
        ctx.save_for_backward(x_grad, weight_grad)
        return losses.sum()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        # In place: nobody else has them, and autograd refuses a second backward.
        x_grad, weight_grad = (saved.mul_(grad) for saved in ctx.saved_tensors)
        return x_grad, weight_grad, None, None, None


class _EachLoss(torch.autograd.Function):
    """Logits are computed once more for the gradients, whose rows are weighted by then."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, targets: Tensor, cap: float, rows: RowLosses) -> Tensor:
        ctx.save_for_backward(x, weight, targets)
        ctx.cap, ctx.rows = cap, rows
        return _losses(x, weight, targets, cap, rows)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, targets = ctx.saved_tensors
        _, x_grad, weight_grad = _losses_and_gradients(x, weight, targets, ctx.cap, ctx.rows, grad)
        return x_grad, weight_grad, None, None, None


def _losses(x: Tensor, weight: Tensor, targets: Tensor, cap: float, rows: RowLosses) -> Tensor:
    """x (N, C), targets (N,) -> losses (N,)."""
    narrow = weight.to(x.dtype)
    losses = torch.empty(x.size(0), device=x.device)
    for part in _parts(x, weight):
        losses[part] = rows(_product(x[part], narrow), targets[part], cap)[0]
    return losses


def _losses_and_gradients(
    x: Tensor, weight: Tensor, targets: Tensor, cap: float, rows: RowLosses, row_weights: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """The same, and the gradients of their sum, or weighted sum, to x (N, C) and weight (V, C), in these' dtypes.

    That of the weight adds up in float32: a sum over thousands of tokens would not fit float16.
    """
    narrow = weight.to(x.dtype)
    losses, x_grad = torch.empty(x.size(0), device=x.device), torch.empty_like(x)
    weight_grad = torch.zeros(weight.size(1), weight.size(0), device=x.device)  # (C, V): the faster way round
    for part in _parts(x, weight):
        losses[part], grad = rows(_product(x[part], narrow), targets[part], cap)
        if row_weights is not None:
            grad = grad * row_weights[part, None]
        grad = grad.to(x.dtype)
        x_grad[part] = _product(grad, narrow.t())
        weight_grad += _product(x[part].t(), grad.t())
    return losses, x_grad, weight_grad.t().to(weight.dtype)


def _product(a: Tensor, b: Tensor) -> Tensor:
    """a @ b.T"""
    return linear(a, b, use_onednn=onednn_is_faster())


def _parts(x: Tensor, weight: Tensor) -> list[slice]:
    size = max(1, LOGITS_AT_ONCE // weight.size(0))
    return [slice(start, min(start + size, x.size(0))) for start in range(0, x.size(0), size)]
