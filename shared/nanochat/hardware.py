"""What devices can do at best, hold and cost: a table of GPUs. Torch-free; measuring a CPU is optim/peak_flops.py's.

Peaks and memory are from the makers' data sheets, prices from a survey of rents (PRICE_SOURCE): the former do not
change, the latter do, so every place that shows one lets the user give another.
"""

from dataclasses import dataclass

PRICE_SOURCE = "RunPod's rents in March 2026 as listed by deploybase.ai/articles/runpod-gpu-pricing, the lower tier"

# Rows at a time where a job does not say, by the device's type: what fits small models and keeps the device busy.
DEFAULT_ROWS = {"cuda": 32, "mps": 16, "cpu": 8}


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """peak_flops: dense bfloat16 products with float32 accumulation, FLOP/s. has_fp8 as the recipes take it: Hopper or
    newer. price_per_hour in US dollars a device; None where the survey has none."""

    name: str
    peak_flops: float
    memory_gib: int
    has_fp8: bool = False
    price_per_hour: float | None = None


# A name that contains another comes before it.
HARDWARE = (
    Hardware(name="H200", peak_flops=989e12, memory_gib=141, has_fp8=True, price_per_hour=3.59),
    Hardware(name="H100 NVL", peak_flops=835e12, memory_gib=94, has_fp8=True),
    Hardware(name="H100 PCIe", peak_flops=756e12, memory_gib=80, has_fp8=True, price_per_hour=1.99),
    Hardware(name="H100", peak_flops=989e12, memory_gib=80, has_fp8=True, price_per_hour=2.69),
    Hardware(name="B200", peak_flops=2250e12, memory_gib=180, has_fp8=True, price_per_hour=5.98),
    Hardware(name="A100", peak_flops=312e12, memory_gib=80, price_per_hour=1.39),
    Hardware(name="L40S", peak_flops=362e12, memory_gib=48, price_per_hour=0.79),
    Hardware(name="MI300X", peak_flops=1307.4e12, memory_gib=192),
    Hardware(name="RTX 5090", peak_flops=209.5e12, memory_gib=32, has_fp8=True, price_per_hour=0.69),
    Hardware(name="RTX 5080", peak_flops=112.6e12, memory_gib=16, has_fp8=True),
    Hardware(name="RTX 4090", peak_flops=165.2e12, memory_gib=24, price_per_hour=0.34),
    Hardware(name="RTX 4080", peak_flops=97.5e12, memory_gib=16),
    Hardware(name="RTX 3090", peak_flops=71e12, memory_gib=24, price_per_hour=0.22),
)


def lookup(device_name: str) -> Hardware | None:
    """The table's entry for a device's own name, such as "NVIDIA H100 80GB HBM3"."""
    name = device_name.lower()
    return next((entry for entry in HARDWARE if entry.name.lower() in name), None)
