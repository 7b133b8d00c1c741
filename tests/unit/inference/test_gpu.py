"""The gauges of a GPU: 0 without one, the driver's numbers with one. No GPU is needed: the driver is stood in for."""

import pynvml  # type: ignore[import-untyped]
import pytest
import torch
from prometheus_client import CollectorRegistry

from nanochat_inference import gpu

CUDA = torch.device("cuda", 1)


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "utilization", lambda device: 25 * (device == CUDA))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (30, 100 * (device == CUDA)))
    return monkeypatch


def values(device: torch.device | None) -> tuple[float | None, ...]:
    """Utilization, memory taken, memory in all."""
    registry = CollectorRegistry()
    gpu.register_metrics(registry, device)
    names = ("utilization_ratio", "memory_used_bytes", "memory_total_bytes")
    return tuple(registry.get_sample_value(f"nanochat_gpu_{name}") for name in names)


@pytest.mark.usefixtures("driver")
def test_the_gauges_tell_of_the_device_that_the_worker_has() -> None:
    assert values(CUDA) == (0.25, 70.0, 100.0)


@pytest.mark.usefixtures("driver")
@pytest.mark.parametrize("device", [None, torch.device("cpu")])
def test_without_a_gpu_they_are_zero(device: torch.device | None) -> None:
    assert values(device) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize("error", [ImportError(), RuntimeError(), pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)])
def test_a_driver_that_does_not_tell_fails_no_scrape(driver: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(_: torch.device) -> int:
        raise error

    driver.setattr(torch.cuda, "utilization", fail)
    assert values(CUDA) == (0.0, 70.0, 100.0)


def test_a_lost_device_fails_no_scrape(driver: pytest.MonkeyPatch) -> None:
    def fail(_: torch.device) -> tuple[int, int]:
        raise RuntimeError

    driver.setattr(torch.cuda, "mem_get_info", fail)
    assert gpu.memory_used_bytes(CUDA) == 0.0
