"""What FLOPs take in time and money on hardware of the table: a dry run asks before training, a report after it.

The share of a device's peak that training reaches (MFU) is assumed; where it was measured, give that.
"""

from dataclasses import dataclass

from nanochat.hardware import Hardware

# What nanochat's record of 3.04 hours for depth 24 and a ratio of 12 on eight H100 comes to is 48% by these FLOPs.
GPU_MFU = 0.45
CPU_MFU = 0.5


@dataclass(frozen=True, kw_only=True)
class Cost:
    """`dollars` is None where no price is known."""

    seconds: float
    dollars: float | None


def estimate(
    flops: float, hardware: Hardware, *, num_devices: int = 1, mfu: float = GPU_MFU, price: float | None = None
) -> Cost:
    """Of training steps alone, shared out evenly. `price`: US dollars a device and hour, else the table's."""
    seconds = flops / (hardware.peak_flops * mfu * num_devices)
    return Cost(
        seconds=seconds, dollars=rent(seconds, num_devices, hardware.price_per_hour if price is None else price)
    )


def rent(seconds: float, num_devices: int, price_per_hour: float | None) -> float | None:
    return None if price_per_hour is None else price_per_hour * num_devices * seconds / 3600
