"""What a worker's process uses: the memory and the time that a replica takes are its workers', not its own.

On Linux, as all process metrics are. The calculator's processes and the grammars' are not counted.
"""

from collections.abc import Iterator

from prometheus_client import ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector


class UsageCollector(Collector):
    """In the worker's own registry: the labels tell it from the others in the replica's."""

    def __init__(self, worker: int, device: str) -> None:
        self._labels = {"worker": str(worker), "device": device}
        self._process = ProcessCollector(registry=None)

    def collect(self) -> Iterator[Metric]:
        found = {sample.name: sample.value for metric in self._process.collect() for sample in metric.samples}
        names = list(self._labels)
        cpu = CounterMetricFamily("nanochat_worker_cpu_seconds", "CPU time of a worker's process.", labels=names)
        memory = GaugeMetricFamily(
            "nanochat_worker_resident_memory_bytes", "Memory of a worker's process.", labels=names
        )
        for metric, name in ((cpu, "process_cpu_seconds_total"), (memory, "process_resident_memory_bytes")):
            if name in found:
                metric.add_metric(list(self._labels.values()), found[name])
            yield metric
