"""The GPUs of a worker, with the driver stood in for: no GPU is needed."""

from types import SimpleNamespace

import pynvml  # type: ignore[import-untyped]
import pytest
from prometheus_client import CollectorRegistry

from nanochat_worker.gpus import GpuCollector


def value(registry: CollectorRegistry, name: str, gpu: str) -> float | None:
    return registry.get_sample_value(f"nanochat_gpu_{name}", {"gpu": gpu})


@pytest.fixture
def registry() -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(GpuCollector())
    return registry


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    def power(gpu: int) -> int:
        if gpu == 1:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return 312_500

    monkeypatch.setattr(pynvml, "nvmlInit", lambda: None)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetCount", lambda: 2)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByIndex", lambda index: index)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetUtilizationRates", lambda gpu: SimpleNamespace(gpu=25 + gpu))
    monkeypatch.setattr(pynvml, "nvmlDeviceGetMemoryInfo", lambda gpu: SimpleNamespace(used=70, total=100))
    monkeypatch.setattr(pynvml, "nvmlDeviceGetTemperature", lambda gpu, sensor: 41)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetPowerUsage", power)


@pytest.mark.usefixtures("two_gpus")
def test_each_gpu_has_its_readings_in_base_units(registry: CollectorRegistry) -> None:
    assert [value(registry, "utilization_ratio", gpu) for gpu in "01"] == [0.25, 0.26]
    assert value(registry, "memory_used_bytes", "0") == 70
    assert value(registry, "memory_total_bytes", "0") == 100
    assert value(registry, "temperature_celsius", "0") == 41
    assert value(registry, "power_watts", "0") == 312.5


@pytest.mark.usefixtures("two_gpus")
def test_what_a_gpu_does_not_tell_is_absent_and_the_rest_is_there(registry: CollectorRegistry) -> None:
    assert value(registry, "power_watts", "1") is None
    assert value(registry, "utilization_ratio", "1") == 0.26


def test_without_a_driver_there_is_no_series(registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(pynvml, "nvmlInit", fail)
    assert not [sample for family in registry.collect() for sample in family.samples]
