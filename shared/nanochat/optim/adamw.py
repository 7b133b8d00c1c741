"""AdamW, in float32 whatever the weights' dtype. State and groups are optimizer.py's."""

import math

from torch import Tensor


def adamw_step(
    weights: Tensor,
    grad: Tensor,
    first: Tensor,
    second: Tensor,
    *,
    step: int,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
) -> None:
    """Move weights in place, and the moments (float32, same shape) with them; step counts from 1.

    Decay is decoupled and comes before the step. A weight narrower than float32 is widened, moved and rounded once.
    """
    grad = grad.float()
    wide = weights.float()  # weights itself where it is float32
    first.lerp_(grad, 1 - betas[0])
    second.mul_(betas[1]).addcmul_(grad, grad, value=1 - betas[1])
    denominator = second.sqrt().div_(math.sqrt(1 - betas[1] ** step)).add_(eps)
    wide.mul_(1 - lr * weight_decay).addcdiv_(first, denominator, value=-lr / (1 - betas[0] ** step))
    if wide is not weights:
        weights.copy_(wide)
