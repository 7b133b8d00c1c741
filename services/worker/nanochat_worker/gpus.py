"""The GPUs that this worker sees, as NVIDIA's driver tells of them when metrics are scraped; nothing without a GPU.

The numbers are the device's, whoever uses it. What a driver does not tell (utilization under MIG, say) is absent.
"""

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pynvml  # type: ignore[import-untyped]
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

log = logging.getLogger(__name__)

_READINGS: dict[str, tuple[str, Callable[[Any], float]]] = {
    "nanochat_gpu_utilization_ratio": (
        "Share of the time in which the GPU computes.",
        lambda gpu: pynvml.nvmlDeviceGetUtilizationRates(gpu).gpu / 100,
    ),
    "nanochat_gpu_memory_used_bytes": (
        "Memory of the GPU that is taken, by whomever.",
        lambda gpu: pynvml.nvmlDeviceGetMemoryInfo(gpu).used,
    ),
    "nanochat_gpu_memory_total_bytes": ("Memory of the GPU.", lambda gpu: pynvml.nvmlDeviceGetMemoryInfo(gpu).total),
    "nanochat_gpu_temperature_celsius": (
        "Temperature of the GPU.",
        lambda gpu: pynvml.nvmlDeviceGetTemperature(gpu, pynvml.NVML_TEMPERATURE_GPU),
    ),
    "nanochat_gpu_power_watts": ("What the GPU draws.", lambda gpu: pynvml.nvmlDeviceGetPowerUsage(gpu) / 1000),
}


class GpuCollector(Collector):
    """Loads the driver at the first scrape. A driver that fails later fails no scrape."""

    def __init__(self) -> None:
        self._gpus: list[Any] | None = None

    def collect(self) -> Iterator[Metric]:
        if self._gpus is None:
            self._gpus = _find()
        for name, (text, read) in _READINGS.items():
            family = GaugeMetricFamily(name, text, labels=["gpu"])
            for index, gpu in enumerate(self._gpus):
                try:
                    family.add_metric([str(index)], read(gpu))
                except pynvml.NVMLError:  # not told, or a lost device: the scrape shows the rest
                    continue
            yield family


def _find() -> list[Any]:
    try:
        pynvml.nvmlInit()
        return [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
    except pynvml.NVMLError as exc:
        log.info("no_gpu", extra={"reason": str(exc)})
        return []
