"""The factor on the loss that keeps small gradients from vanishing in float16, whose least number is 6e-8.

The rule and its constants are those of torch.amp.GradScaler, which wants an optimizer of torch's: a step whose
gradients are not finite is left out and halves the factor, many good ones in a row double it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

GROWTH_INTERVAL = 2000


@dataclass(kw_only=True)
class LossScale:
    """JSON, in every checkpoint's state. num_good_steps: since the value last changed."""

    value: float = 2.0**16
    num_good_steps: int = 0

    @classmethod
    def of(cls, dtype: torch.dtype) -> Self | None:
        """None for dtypes that have float32's exponents."""
        return cls() if dtype == torch.float16 else None

    def unscale(self, gradients: Sequence[Tensor]) -> None:
        torch._foreach_mul_(list(gradients), 1.0 / self.value)

    def update(self, is_finite: bool) -> None:
        """After each step, taken or not."""
        if not is_finite:
            self.value, self.num_good_steps = self.value / 2, 0
            return
        self.num_good_steps += 1
        if self.num_good_steps == GROWTH_INTERVAL:
            self.value, self.num_good_steps = self.value * 2, 0
