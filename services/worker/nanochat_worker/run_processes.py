"""What the processes of the runs use: supervisors, torchrun and its ranks, which are none of the worker's own process.

Read from /proc when metrics are scraped.
"""

import contextlib
from collections.abc import Iterator

import psutil
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector


class RunProcessesCollector(Collector):
    def __init__(self) -> None:
        self._cpu_s = 0.0

    def collect(self) -> Iterator[Metric]:
        memory_bytes, cpu_s = _usage()
        # A process that ends while they are added up is missed until its parent has collected it: never count down.
        self._cpu_s = max(self._cpu_s, cpu_s)
        yield CounterMetricFamily("nanochat_runs_cpu_seconds", "CPU time of the runs' processes.", self._cpu_s)
        yield GaugeMetricFamily("nanochat_runs_resident_memory_bytes", "Memory of the runs' processes.", memory_bytes)


def _usage() -> tuple[float, float]:
    """Memory of all descendants, and their CPU time with that of those which have ended."""
    process = psutil.Process()
    memory_bytes, cpu_s = 0.0, process.cpu_times().children_user + process.cpu_times().children_system
    for child in process.children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            with child.oneshot():
                times, size = child.cpu_times(), child.memory_info().rss
            memory_bytes += size
            cpu_s += times.user + times.system + times.children_user + times.children_system
    return memory_bytes, cpu_s
