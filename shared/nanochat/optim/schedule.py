"""How learning rates, Muon's momentum and matrix weight decay move over a run: one class a stage of training.

What they multiply is groups.py's; how many steps there are is horizon.py's.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from nanochat.optim.groups import Group


class Schedule(Protocol):
    """What a training loop asks before every step; steps count from 0."""

    def lr_multiplier(self, step: int) -> float: ...

    def muon_momentum(self, step: int) -> float: ...

    def weight_decay_multiplier(self, step: int) -> float: ...


def apply_schedule(schedule: Schedule, groups: Iterable[Group], step: int) -> None:
    """Set every group's rates for this step. AdamW's weight decay stays as the group has it."""
    for group in groups:
        group.lr = group.initial_lr * schedule.lr_multiplier(step)
        if group.rule == "muon":
            group.momentum = schedule.muon_momentum(step)
            group.weight_decay = group.initial_weight_decay * schedule.weight_decay_multiplier(step)


@dataclass(frozen=True, kw_only=True)
class PretrainSchedule:
    """Short warm-up, flat, long linear warm-down."""

    num_steps: int
    warmup_steps: int = 40
    warmdown_ratio: float = 0.65
    final_lr_frac: float = 0.05

    @property
    def warmdown_steps(self) -> int:
        return round(self.warmdown_ratio * self.num_steps)

    def lr_multiplier(self, step: int) -> float:
        """The lower of warm-up and warm-down, so that a run too short for both still ends low."""
        warmup = (step + 1) / self.warmup_steps if self.warmup_steps else 1.0
        return min(1.0, warmup, _linear(1.0, self.final_lr_frac, self._warmdown_progress(step)))

    def muon_momentum(self, step: int) -> float:
        """0.85 -> 0.97 over 400 steps, first; then 0.97 -> 0.90 during the warm-down."""
        if step < 400:
            return _linear(0.85, 0.97, step / 400)
        return _linear(0.97, 0.90, self._warmdown_progress(step))

    def weight_decay_multiplier(self, step: int) -> float:
        """Cosine to 0 over the whole run."""
        return 0.5 * (1 + math.cos(math.pi * step / self.num_steps))

    def _warmdown_progress(self, step: int) -> float:
        """0 until the warm-down begins, 1 at the end of the run."""
        into = step - (self.num_steps - self.warmdown_steps)
        return into / self.warmdown_steps if into > 0 else 0.0


@dataclass(frozen=True, kw_only=True)
class SftSchedule:
    """Flat, then linear over the second half. Matrices do not decay."""

    num_steps: int
    final_lr_frac: float = 0.0

    def lr_multiplier(self, step: int) -> float:
        half = self.num_steps / 2
        return _linear(1.0, self.final_lr_frac, max(0.0, (step - half) / half))

    def muon_momentum(self, step: int) -> float:
        """0.85 -> 0.95 in 300 steps."""
        return _linear(0.85, 0.95, min(1.0, step / 300))

    def weight_decay_multiplier(self, step: int) -> float:
        return 0.0


@dataclass(frozen=True, kw_only=True)
class RlSchedule:
    """Linear to 0 over the whole run. Matrices do not decay."""

    num_steps: int

    def lr_multiplier(self, step: int) -> float:
        return _linear(1.0, 0.0, step / self.num_steps)

    def muon_momentum(self, step: int) -> float:
        return 0.95

    def weight_decay_multiplier(self, step: int) -> float:
        return 0.0


def _linear(start: float, end: float, progress: float) -> float:
    return start + (end - start) * progress
