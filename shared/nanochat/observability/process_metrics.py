"""What every service says of itself: its process, its version, and the disk that $NANOCHAT_HOME is on.

Process metrics (process_cpu_seconds_total, process_resident_memory_bytes, process_open_fds, ...) are there on Linux.
"""

import importlib.metadata
import platform
import shutil
from collections.abc import Iterator
from pathlib import Path

from prometheus_client import CollectorRegistry, Gauge, ProcessCollector
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector


def register_process_metrics(registry: CollectorRegistry, home: Path | None = None) -> None:
    """`home` is given by the services that use the files there."""
    ProcessCollector(registry=registry)
    info = Gauge("nanochat_build_info", "1 for what runs here.", ["version", "python_version"], registry=registry)
    info.labels(_version(), platform.python_version()).set(1)
    if home is not None:
        registry.register(_DiskCollector(home))


def _version() -> str:
    try:
        return importlib.metadata.version("nanochat-shared")
    except importlib.metadata.PackageNotFoundError:  # run from a source tree that was not installed
        return "unknown"


class _DiskCollector(Collector):
    """Absent while the folder is: on a volume that is not mounted, and before anything was written."""

    def __init__(self, home: Path) -> None:
        self._home = home

    def collect(self) -> Iterator[Metric]:
        size = GaugeMetricFamily("nanochat_home_size_bytes", "Of the disk that $NANOCHAT_HOME is on.")
        free = GaugeMetricFamily("nanochat_home_free_bytes", "What is left of it for this process.")
        try:
            usage = shutil.disk_usage(self._home)
        except OSError:
            pass
        else:
            size.add_metric([], usage.total)
            free.add_metric([], usage.free)
        yield from (size, free)
