"""What a device could compute at best, so that training can say what share of it is used (MFU).

GPUs are looked up by name (hardware.py); a CPU is measured. Model FLOPs are sizes.py's.
"""

import time

import torch

from nanochat.hardware import lookup

CPU_MATRIX_SIZE = 1024
CPU_TRIALS = 5


def peak_flops(device: torch.device | str) -> float | None:
    """FLOP/s of one device; None for a GPU that is not in the table. On CPU about 0.1 s of float32 products."""
    device = torch.device(device)
    if device.type == "cpu":
        return _measure_cpu()
    if device.type != "cuda":
        return None
    found = lookup(torch.cuda.get_device_name(device))
    return found.peak_flops if found else None


def _measure_cpu() -> float:
    """The best of a few products, with as many threads as training will use."""
    a = torch.ones(CPU_MATRIX_SIZE, CPU_MATRIX_SIZE)
    best_s = float("inf")
    for _ in range(CPU_TRIALS):
        start = time.perf_counter()
        torch.mm(a, a)
        best_s = min(best_s, time.perf_counter() - start)
    return 2 * CPU_MATRIX_SIZE**3 / best_s
