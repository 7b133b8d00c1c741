"""Peaks by a device's own name, and by measuring a CPU."""

import pytest

from nanochat.hardware import lookup
from nanochat.optim.peak_flops import peak_flops


@pytest.mark.parametrize(
    ("name", "flops"),
    [
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA H200", 989e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA L40S", 362e12),
        ("NVIDIA B200", 2250e12),
        ("AMD Instinct MI300X", 1307.4e12),
        ("NVIDIA GeForce RTX 4090", 165.2e12),
        ("Some Other Device", None),
    ],
)
def test_a_device_is_found_by_its_name(name: str, flops: float | None) -> None:
    found = lookup(name)
    assert (found and found.peak_flops) == flops


def test_a_cpu_is_measured() -> None:
    found = peak_flops("cpu")
    assert found is not None
    assert 1e8 < found < 1e14
