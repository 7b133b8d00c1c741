"""Peak memory of one training step, this process's own: python -m tests.bench.step_memory chunked|whole ROWS CONFIG.

The interpreter and torch, a few hundred MiB, are not counted; weights, gradients and the optimizer's state are.
"""

import json
import sys
from pathlib import Path

import torch.nn.functional as F
from torch import Tensor, nn

from nanochat.config import GPTConfig
from nanochat.model.loss import IGNORE_INDEX, softcap
from tests.bench.training import Trainer


class WholeLoss(nn.Module):
    """As it is written down: logits of all tokens, softcapped, then cross entropy."""

    def __init__(self, cap: float) -> None:
        super().__init__()
        self.cap = cap
        self.rows = None  # what would be compiled for the loss in chunks

    def forward(self, x: Tensor, weight: Tensor, targets: Tensor, reduction: str) -> Tensor:
        logits = softcap(F.linear(x, weight), self.cap).flatten(0, 1)
        return F.cross_entropy(logits, targets.flatten(), ignore_index=IGNORE_INDEX, reduction=reduction)


def peak_kib() -> int:
    """Of this program. getrusage's would be at least that of the process which started it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


def main() -> None:
    loss, num_rows, config = sys.argv[1], int(sys.argv[2]), GPTConfig(**json.loads(sys.argv[3]))
    before = peak_kib()
    trainer = Trainer(config, num_rows)
    if loss == "whole":
        trainer.model.loss = WholeLoss(config.softcap)  # type: ignore[assignment]
    trainer.model.compile(dynamic=False)
    trainer.step()
    print(1024 * (peak_kib() - before))


if __name__ == "__main__":
    main()
