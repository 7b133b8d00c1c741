"""Training: tokens a second of forward, backward and optimizer, and what share of the machine's peak that is.

Two models and a product that tells the peak take turns, so that what disturbs the machine meets all three. Loading
data, evaluation and checkpoints are no part of a step.
"""

import time
from dataclasses import dataclass
from statistics import median

import torch

from nanochat.bench.machine import product_flops
from nanochat.config import GPTConfig
from nanochat.model.gpt import GPT
from nanochat.model.init import init_weights
from nanochat.optim.groups import param_groups
from nanochat.optim.optimizer import MuonAdamW


@dataclass(frozen=True, kw_only=True)
class TrainingFigures:
    """Of the median step; the peak is the best of all rounds. `rounds` are the measurements themselves."""

    tokens_per_second: float
    mfu_ratio: float  # of the peak, in model FLOPs: a query counts as seeing its whole context or window
    optimizer_ratio: float  # of the step's time
    windowed_tokens_per_second: float
    windowed_speedup: float  # median over the rounds
    peak_gflops: float
    rounds: list[dict[str, float]]


class Trainer:
    """A model with random weights, and one batch of random tokens."""

    def __init__(self, config: GPTConfig, batch_size: int) -> None:
        generator = torch.Generator().manual_seed(1)
        self.model = GPT(config)
        init_weights(self.model, generator)
        self.optimizer = MuonAdamW(param_groups(self.model))
        rows = torch.randint(config.vocab_size, (batch_size, config.sequence_len + 1), generator=generator)
        self.inputs, self.targets = rows[:, :-1].contiguous(), rows[:, 1:].contiguous()

    def step(self) -> tuple[float, float]:
        """Seconds of the whole step, and of the optimizer in it."""
        start = time.perf_counter()
        self.model(self.inputs, self.targets).backward()
        before_optimizer = time.perf_counter()
        self.optimizer.step()
        self.optimizer.zero_grad()
        end = time.perf_counter()
        return end - start, end - before_optimizer


def measure_training(full: GPTConfig, windowed: GPTConfig, *, batch_size: int, num_rounds: int) -> TrainingFigures:
    """A first round is not counted: it touches memory that later ones find ready."""
    trainer, windowed_trainer = Trainer(full, batch_size), Trainer(windowed, batch_size)
    rounds = []
    for _ in range(1 + num_rounds):
        peak_gflops = product_flops() / 1e9
        step_s, optimizer_s = trainer.step()
        windowed_s, _ = windowed_trainer.step()
        rounds.append(
            {"peak_gflops": peak_gflops, "step_s": step_s, "optimizer_s": optimizer_s, "windowed_step_s": windowed_s}
        )
    del rounds[0]
    tokens_per_second = trainer.inputs.numel() / median(one["step_s"] for one in rounds)
    peak_gflops = max(one["peak_gflops"] for one in rounds)
    return TrainingFigures(
        tokens_per_second=tokens_per_second,
        mfu_ratio=trainer.model.num_flops_per_token() * tokens_per_second / (1e9 * peak_gflops),
        optimizer_ratio=median(one["optimizer_s"] / one["step_s"] for one in rounds),
        windowed_tokens_per_second=trainer.inputs.numel() / median(one["windowed_step_s"] for one in rounds),
        windowed_speedup=median(one["step_s"] / one["windowed_step_s"] for one in rounds),
        peak_gflops=peak_gflops,
        rounds=rounds,
    )
