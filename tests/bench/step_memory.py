"""Peak memory of a training step: python -m tests.bench.step_memory chunked|whole ROWS CONFIG.

A step is as jobs run it, compiled; the second one is measured, after the first has compiled. What it holds is weights
and optimizer's state, by their sizes, and what the process grows by meanwhile: gradients and activations. The
interpreter, torch and its compiler are not counted, nor what malloc would keep of freed tensors: each is the system's.
"""

import ctypes
import gc
import json
import sys
from pathlib import Path

import torch.nn.functional as F
from torch import Tensor, nn

from nanochat.config import GPTConfig
from nanochat.model.loss import IGNORE_INDEX, softcap
from nanochat.recipes.device import choose_device, compile_model
from tests.bench.training import Trainer

_M_MMAP_THRESHOLD = -3  # glibc's malloc.h


class WholeLoss(nn.Module):
    """As it is written down: logits of all tokens, softcapped, then cross entropy."""

    def __init__(self, cap: float) -> None:
        super().__init__()
        self.cap = cap
        self.rows = None  # which the loss in chunks may have compiled

    def forward(self, x: Tensor, weight: Tensor, targets: Tensor, reduction: str) -> Tensor:
        logits = softcap(F.linear(x, weight), self.cap).flatten(0, 1)
        return F.cross_entropy(logits, targets.flatten(), ignore_index=IGNORE_INDEX, reduction=reduction)


def resident_kib(which: str) -> int:
    """VmRSS, or VmHWM: the most there was. getrusage's is at least that of the process which started this one."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{which}:"))


def peak_bytes(loss: str, num_rows: int, config: GPTConfig) -> int:
    ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, 2**16)
    trainer = Trainer(config, num_rows)
    if loss == "whole":
        trainer.model.loss = WholeLoss(config.softcap)  # type: ignore[assignment]
    compile_model(trainer.model, None, choose_device())
    trainer.step()
    kept = [*trainer.model.parameters(), *(moment.tensor for moment in trainer.optimizer.state().values())]
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    before = resident_kib("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    trainer.step()
    return sum(tensor.nbytes for tensor in kept) + 1024 * (resident_kib("VmHWM") - before)


if __name__ == "__main__":
    print(peak_bytes(sys.argv[1], int(sys.argv[2]), GPTConfig(**json.loads(sys.argv[3]))))
