"""What a worker's GPU is doing, read when metrics are collected. All are 0 where the model runs on something else.

The numbers are the device's, whoever uses it: a neighbour's load explains a slow replica as well as its own.
"""

from functools import partial

import torch
from prometheus_client import CollectorRegistry, Gauge
from pynvml import NVMLError  # type: ignore[import-untyped]


def register_metrics(registry: CollectorRegistry, device: torch.device | None) -> None:
    for name, text, read in (
        ("gpu_utilization_ratio", "Share of the time in which the GPU computes.", utilization_ratio),
        ("gpu_memory_used_bytes", "Memory of the GPU that is taken, by whomever.", memory_used_bytes),
        ("gpu_memory_total_bytes", "Memory of the GPU.", memory_total_bytes),
    ):
        Gauge(f"nanochat_{name}", text, registry=registry).set_function(partial(read, device))


def utilization_ratio(device: torch.device | None) -> float:
    """Share of the last sample period in which the GPU computed, 0 to 1; 0 where the driver does not tell (MIG)."""
    if not _is_gpu(device):
        return 0.0
    try:
        return torch.cuda.utilization(device) / 100
    except (ImportError, RuntimeError, NVMLError):  # ImportError: AMD's package, which we do not ship
        return 0.0


def memory_used_bytes(device: torch.device | None) -> float:
    """Memory of the GPU that is taken; 0 where the driver does not tell."""
    free, total = _memory(device)
    return float(total - free)


def memory_total_bytes(device: torch.device | None) -> float:
    """Memory of the GPU; 0 where the driver does not tell."""
    return float(_memory(device)[1])


def _memory(device: torch.device | None) -> tuple[int, int]:
    """Free and total."""
    if not _is_gpu(device):
        return 0, 0
    try:
        return torch.cuda.mem_get_info(device)
    except RuntimeError:  # a lost device: its requests fail loudly, and the scrape shows the rest
        return 0, 0


def _is_gpu(device: torch.device | None) -> bool:
    return device is not None and device.type == "cuda" and torch.cuda.is_available()
