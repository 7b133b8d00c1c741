"""Training: tokens a second of whole steps, and what share of the machine's peak that is; and a step's peak memory.

A step is as jobs run it: compiled, several micro-batches, forward, backward and optimizer. Models and a product that
tells the peak take turns, so that what disturbs the machine meets all. Loading data, evaluation and checkpoints are no
part of a step.
"""

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import torch

from nanochat.bench.machine import product_flops
from nanochat.config import GPTConfig
from nanochat.model.gpt import GPT
from nanochat.model.init import init_weights
from nanochat.optim.groups import param_groups
from nanochat.optim.optimizer import MuonAdamW
from nanochat.recipes.device import choose_device, compile_model
from nanochat.recipes.memory import keep_freed_memory


@dataclass(frozen=True, kw_only=True)
class TrainingFigures:
    """Of the median step; the peak is the best product of all rounds. `rounds` are the measurements themselves."""

    name: str
    tokens_per_second: float
    mfu_ratio: float  # of the peak, in model FLOPs: a query counts as seeing its whole context or window
    optimizer_ratio: float  # of the step's time
    peak_gflops: float
    rounds: list[dict[str, float]]


class Trainer:
    """A model with random weights, and one batch of random tokens that serves all micro-batches."""

    def __init__(
        self, config: GPTConfig, batch_size: int, num_micro_steps: int = 1, *, is_compiled: bool = False
    ) -> None:
        generator = torch.Generator().manual_seed(1)
        self.model = GPT(config)
        init_weights(self.model, generator)
        self.optimizer = MuonAdamW(param_groups(self.model))
        rows = torch.randint(config.vocab_size, (batch_size, config.sequence_len + 1), generator=generator)
        self.inputs, self.targets = rows[:, :-1].contiguous(), rows[:, 1:].contiguous()
        self.num_micro_steps = num_micro_steps
        if is_compiled:
            compile_model(self.model, None, choose_device())

    @property
    def tokens_per_step(self) -> int:
        return self.inputs.numel() * self.num_micro_steps

    def step(self) -> tuple[float, float]:
        """Seconds of the whole step, and of the optimizer in it."""
        start = time.perf_counter()
        for _ in range(self.num_micro_steps):
            (self.model(self.inputs, self.targets, reduction="sum") / self.tokens_per_step).backward()
        before_optimizer = time.perf_counter()
        self.optimizer.step()
        self.optimizer.zero_grad()
        end = time.perf_counter()
        return end - start, end - before_optimizer


def measure_training(
    configs: dict[str, GPTConfig], *, batch_size: int, num_micro_steps: int, num_rounds: int, is_compiled: bool
) -> list[TrainingFigures]:
    """A first round is not counted: it compiles, and touches memory that later ones find ready."""
    keep_freed_memory()
    trainers = {
        name: Trainer(config, batch_size, num_micro_steps, is_compiled=is_compiled) for name, config in configs.items()
    }
    rounds: list[dict[str, tuple[float, float]]] = []
    peak_flops = 0.0
    for _ in range(1 + num_rounds):
        steps = {}
        for name, trainer in trainers.items():
            peak_flops = max(peak_flops, product_flops())
            steps[name] = trainer.step()
        rounds.append(steps)
    return [
        _figures(name, trainer, [one[name] for one in rounds[1:]], peak_flops) for name, trainer in trainers.items()
    ]


def _figures(name: str, trainer: Trainer, steps: Sequence[tuple[float, float]], peak_flops: float) -> TrainingFigures:
    tokens_per_second = trainer.tokens_per_step / median(step_s for step_s, _ in steps)
    return TrainingFigures(
        name=name,
        tokens_per_second=tokens_per_second,
        mfu_ratio=trainer.model.num_flops_per_token() * tokens_per_second / peak_flops,
        optimizer_ratio=median(optimizer_s / step_s for step_s, optimizer_s in steps),
        peak_gflops=peak_flops / 1e9,
        rounds=[{"step_s": step_s, "optimizer_s": optimizer_s} for step_s, optimizer_s in steps],
    )


def peak_memory_ratio(config: GPTConfig, batch_size: int) -> float:
    """A step's peak memory to that of the same step with whole logits, each in a process of its own."""
    chunked, whole = (_peak_bytes(config, batch_size, loss) for loss in ("chunked", "whole"))
    return chunked / whole


def _peak_bytes(config: GPTConfig, batch_size: int, loss: str) -> int:
    command = [sys.executable, "-m", "tests.bench.step_memory", loss, str(batch_size), json.dumps(config.to_dict())]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])
