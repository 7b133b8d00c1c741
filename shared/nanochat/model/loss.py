"""Cross entropy of the head's softcapped logits, a chunk of tokens at a time.

Logits (B, T, V) in float32 are the largest thing of a training step: 512 MiB at V = 32768 and 8 rows of 512, once for
each operation on them. Here a chunk of rows is multiplied out, turned into its losses and, in the same place, into the
gradient of its logits, and multiplied back at once; so the whole never exists, and a chunk's memory serves the next.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from nanochat.model.product import add_product, linear, zero_sum
from nanochat.native import training as native
from nanochat.sizes import LOGITS_AT_ONCE

IGNORE_INDEX = -1
_LOGITS_IN_BLOCK = 2**20  # 4 MiB: about what a processor's cache holds
RowLosses = Callable[[Tensor, Tensor, float], tuple[Tensor, Tensor, Tensor]]


def softcap(logits: Tensor, cap: float) -> Tensor:
    """Into (-cap, cap), in float32."""
    return cap * torch.tanh(logits.float() / cap)


def row_losses(logits: Tensor, targets: Tensor, cap: float) -> tuple[Tensor, Tensor, Tensor]:
    """Logits (R, V) before the softcap, targets (R,) -> losses (R,), and the gradient of their sum in two factors,
    (R, V) and one a row (R,), all float32.

    A row's own factor is known only at its end; left to the products around it, each logit is read once. Float32 logits
    are overwritten. Rows whose target is -1 have the loss and the factor 0.
    """
    below = _below_cap(logits.float(), cap)
    weights = torch.exp(-cap * below)  # at most 1: capped logits need no search for the largest
    slope = below * (2.0 - below)  # of the softcap: 1 - tanh^2
    is_counted = targets != IGNORE_INDEX
    columns = targets.clamp(min=0)[:, None]
    below_target = _below_cap(logits.gather(1, columns).float(), cap)
    total = weights.sum(dim=-1, keepdim=True)
    losses = torch.where(is_counted, (total.log() + cap * below_target)[:, 0], 0.0)
    grad = weights * slope
    if logits.dtype == torch.float32:
        grad = logits.copy_(grad)
    grad.scatter_add_(1, columns, -total * below_target * (2.0 - below_target))
    return losses, grad, torch.where(is_counted, 1.0 / total[:, 0], 0.0)


def _below_cap(logits: Tensor, cap: float) -> Tensor:
    """1 - tanh(logits / cap), by one exponential: a third of the time of tanh on a CPU."""
    return 2.0 / (torch.exp(logits * (2.0 / cap)) + 1.0)


def in_blocks(rows: RowLosses, num_logits: int) -> RowLosses:
    """The same for float32 logits (R, V), which are overwritten, so many of them at once, though a row a thread at
    least: what is computed on the way is no larger than that."""

    def computed(logits: Tensor, targets: Tensor, cap: float) -> tuple[Tensor, Tensor, Tensor]:
        losses, factors = logits.new_empty(len(logits)), logits.new_empty(len(logits))
        # Threads share the rows of a block.
        for block in _blocks(len(logits), max(num_logits // logits.size(1), torch.get_num_threads())):
            own = logits[block]
            losses[block], grad, factors[block] = rows(own, targets[block], cap)
            if grad.data_ptr() != own.data_ptr():
                own.copy_(grad)
        return losses, logits, factors

    return computed


def fastest_row_losses(device: torch.device, dtype: torch.dtype, *, compiled: bool = False) -> RowLosses:
    """For logits of that dtype: row_losses, or what computes the same in one reading of them."""
    is_in_place = device.type == "cpu" and dtype == torch.float32
    if is_in_place and native.is_available():
        return native.row_losses
    rows = torch.compile(row_losses, dynamic=False) if compiled else row_losses
    return in_blocks(rows, _LOGITS_IN_BLOCK) if is_in_place else rows


class HeadLoss(nn.Module):
    """The loss of x @ weight.T. `rows`: what is to turn a chunk into losses, where it is not the fastest at hand."""

    def __init__(self, cap: float) -> None:
        super().__init__()
        self.cap = cap
        self.rows: RowLosses | None = None

    def forward(self, x: Tensor, weight: Tensor, targets: Tensor, reduction: str = "mean") -> Tensor:
        """x (B, T, C), in whose dtype products are computed, weight (V, C), targets (B, T) -> the mean over counted
        targets (0 if none), the sum, or with "none" all losses (B, T), 0 where not counted; float32."""
        if torch.compiler.is_compiling():
            from nanochat.model.uncompiled_loss import uncompiled_loss  # loads torch's compiler

            loss: Tensor = uncompiled_loss(self, x, weight, targets, reduction)
            return loss
        return self.compute(x, weight, targets, reduction)

    def compute(self, x: Tensor, weight: Tensor, targets: Tensor, reduction: str) -> Tensor:
        assert reduction in ("mean", "sum", "none"), f"unknown reduction {reduction!r}"
        rows, flat = x.flatten(0, -2), targets.flatten()
        row_losses = self.rows or fastest_row_losses(x.device, x.dtype)
        if reduction == "none":
            each: Tensor = _EachLoss.apply(rows, weight, flat, self.cap, row_losses)  # type: ignore[no-untyped-call]
            return each.view_as(targets)
        total: Tensor = _SummedLoss.apply(rows, weight, flat, self.cap, row_losses)  # type: ignore[no-untyped-call]
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
        losses[part] = rows(linear(x[part], narrow), targets[part], cap)[0]
    return losses


def _losses_and_gradients(
    x: Tensor, weight: Tensor, targets: Tensor, cap: float, rows: RowLosses, row_weights: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """The same, and the gradients of their sum, or weighted sum, to x (N, C) and weight (V, C), in these' dtypes.

    That of the weight adds up in float32: a sum over thousands of tokens would not fit float16.
    """
    narrow = weight.to(x.dtype)
    losses, x_grad = torch.empty(x.size(0), device=x.device), torch.empty_like(x)
    weight_grad = zero_sum(weight.size(0), weight.size(1), weight.device)
    for part in _parts(x, weight):
        losses[part], grad, factors = rows(linear(x[part], narrow), targets[part], cap)
        if row_weights is not None:
            factors = factors * row_weights[part]
        if x.dtype == torch.float32:
            torch.mul(linear(grad, narrow.t()), factors[:, None], out=x_grad[part])
            add_product(weight_grad, grad.t(), (x[part] * factors[:, None]).t())
        else:
            grad = (grad * factors[:, None]).to(x.dtype)
            x_grad[part] = linear(grad, narrow.t())
            add_product(weight_grad, grad.t(), x[part].t())
        del grad  # or two chunks would exist
    return losses, x_grad, weight_grad.to(weight.dtype)


def _parts(x: Tensor, weight: Tensor) -> list[slice]:
    return _blocks(x.size(0), LOGITS_AT_ONCE // weight.size(0))


def _blocks(num_rows: int, size: int) -> list[slice]:
    size = max(1, size)
    return [slice(start, min(start + size, num_rows)) for start in range(0, num_rows, size)]
