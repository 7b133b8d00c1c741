"""The head's loss for a model that is compiled: its loop over chunks would be unrolled into the graph.

A module of its own, since its decorator loads torch's compiler, which takes as long again as torch itself.
"""

import torch
from torch import Tensor

from nanochat.model.loss import HeadLoss


@torch.compiler.disable  # type: ignore[untyped-decorator]
def uncompiled_loss(loss: HeadLoss, x: Tensor, weight: Tensor, targets: Tensor, reduction: str) -> Tensor:
    """As HeadLoss.forward."""
    return loss.compute(x, weight, targets, reduction)
