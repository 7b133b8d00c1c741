"""What a device could compute at best, so that training can say what share of it is used (MFU).

GPUs are looked up by name; a CPU is measured. Model FLOPs are horizon.py's.
"""

import time

import torch

# Dense bfloat16 products with float32 accumulation, FLOP/s, from the makers' data sheets. Longer names come first.
PEAK_FLOPS_BY_NAME = {
    "H200": 989e12,
    "H100 NVL": 835e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "B200": 2250e12,
    "A100": 312e12,
    "L40S": 362e12,
    "MI300X": 1307.4e12,
    "RTX 5090": 209.5e12,
    "RTX 5080": 112.6e12,
    "RTX 4090": 165.2e12,
    "RTX 4080": 97.5e12,
    "RTX 3090": 71e12,
}
CPU_MATRIX_SIZE = 1024
CPU_TRIALS = 5


def peak_flops(device: torch.device | str) -> float | None:
    """FLOP/s of one device; None for a GPU that is not in the table. On CPU about 0.1 s of float32 products."""
    device = torch.device(device)
    if device.type == "cpu":
        return _measure_cpu()
    if device.type != "cuda":
        return None
    return lookup(torch.cuda.get_device_name(device))


def lookup(device_name: str) -> float | None:
    """The table's entry for a device's own name, such as "NVIDIA H100 80GB HBM3"."""
    name = device_name.lower()
    return next((flops for part, flops in PEAK_FLOPS_BY_NAME.items() if part.lower() in name), None)


def _measure_cpu() -> float:
    """The best of a few products, with as many threads as training will use."""
    a = torch.ones(CPU_MATRIX_SIZE, CPU_MATRIX_SIZE)
    best_s = float("inf")
    for _ in range(CPU_TRIALS):
        start = time.perf_counter()
        torch.mm(a, a)
        best_s = min(best_s, time.perf_counter() - start)
    return 2 * CPU_MATRIX_SIZE**3 / best_s
