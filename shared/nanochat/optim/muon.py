"""Muon: momentum for matrices, orthogonalised, so that every direction of a matrix learns at the same pace.

The rule for a stack of matrices of one shape; which matrices, and their state, are groups.py's and optimizer.py's.
Sources: kellerjordan.github.io/posts/muon; arXiv 2603.28254 (row equilibration), 2510.05491 (NorMuon), 2602.21545
(renormalisation).
"""

import math

import torch
from torch import Tensor

from nanochat.optim.polar_express import polar_express, polar_express_by_gram

# The first gradients of most matrices are exactly zero, because the projections after them begin at zero.
MIN_NORM = 1e-6
MIN_NORM_VARIANCE = 1e-10
LIGHT_STEPS = 3


def muon_step(
    weights: Tensor,
    grads: Tensor,
    buffer: Tensor,
    second: Tensor,
    *,
    lr: float,
    momentum: float,
    beta2: float,
    weight_decay: float,
    dtype: torch.dtype,
    is_light: bool = False,
) -> None:
    """Move weights (n, rows, cols) float32 in place, and buffer and second (see second_shape) with them.

    grads is overwritten. lr is the group's own, before the shape's factor; dtype is that of the orthogonalisation.
    is_light: a cruder one of half the cost or less (orthogonalise_lightly), for batches so small that it counts.
    """
    rows, cols = weights.shape[-2:]
    buffer.lerp_(grads, 1 - momentum)
    update = grads.lerp_(buffer, momentum)
    update = equilibrate_rows(update)
    orthogonalise = orthogonalise_lightly if is_light else polar_express
    update = rescale(orthogonalise(update.to(dtype)).float(), math.sqrt(min(rows, cols)))
    update = reduce_variance(update, second, beta2)
    lr *= math.sqrt(max(1.0, rows / cols))
    agrees = (update * weights >= 0).to(weights.dtype)
    weights.sub_(update.add_(weights * agrees, alpha=weight_decay), alpha=lr)


def second_shape(rows: int, cols: int) -> tuple[int, int]:
    """Shape of the second moment of one matrix: one number a row where it is tall or square, else one a column."""
    return (rows, 1) if rows >= cols else (1, cols)


def orthogonalise_lightly(g: Tensor) -> Tensor:
    """Three steps of polar_express, those of long matrices on the short side: (n, rows, cols) -> the same shape."""
    rows, cols = g.shape[-2:]
    is_long = max(rows, cols) >= 2 * min(rows, cols)
    by_gram = is_long and g.dtype == torch.float32  # narrower numbers do not bear the product of three
    return (polar_express_by_gram if by_gram else polar_express)(g, LIGHT_STEPS)


def equilibrate_rows(g: Tensor) -> Tensor:
    """Give every row the matrix's root mean square row norm."""
    row_norms = torch.linalg.vector_norm(g, dim=-1, keepdim=True).clamp_(min=MIN_NORM)
    mean_norm: Tensor = _norm(g) / math.sqrt(g.size(-2))
    scale: Tensor = mean_norm / row_norms
    return g * scale


def rescale(g: Tensor, norm: float | Tensor) -> Tensor:
    """Give every matrix this Frobenius norm."""
    return g * (norm / _norm(g).clamp_(min=MIN_NORM))


def reduce_variance(g: Tensor, second: Tensor, beta2: float) -> Tensor:
    """Even out rows (tall, square) or columns (wide) by their running mean square; every matrix keeps its norm."""
    dim = -1 if second.size(-1) == 1 else -2
    second.lerp_(g.square().mean(dim=dim, keepdim=True), 1 - beta2)
    scaled = g * second.clamp(min=MIN_NORM_VARIANCE).rsqrt()
    return scaled * (_norm(g) / _norm(scaled).clamp_(min=MIN_NORM_VARIANCE))


def _norm(g: Tensor) -> Tensor:
    """Frobenius norm of each matrix, (n, 1, 1)."""
    norm: Tensor = torch.linalg.matrix_norm(g, keepdim=True)
    return norm
