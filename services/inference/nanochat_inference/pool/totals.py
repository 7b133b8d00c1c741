"""The metrics of all workers as the replica's own.

Counters and histograms are added up, with what lost workers had counted, so that none goes backwards; gauges over those
that live, ratios averaged.
Names and meanings are metrics.py's. A worker that does not answer a scrape counts as it last said.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from nanochat.observability.process_metrics import register_process_metrics
from nanochat_inference.metrics import Metrics
from nanochat_inference.pool.frames import Family, Sample

# A series: its name and its labels, in order.
_Key = tuple[str, tuple[tuple[str, str], ...]]


def snapshot(registry: CollectorRegistry) -> list[Family]:
    """What a worker tells of its registry. When a series was created is left out: it means nothing in a sum."""
    return [
        Family(
            name=metric.name,
            documentation=metric.documentation,
            type=metric.type,
            samples=[
                Sample(sample.name, dict(sample.labels), sample.value)
                for sample in metric.samples
                if not sample.name.endswith("_created")
            ],
        )
        for metric in registry.collect()
    ]


class Totals:
    """For the event loop alone."""

    def __init__(self, home: Path | None = None) -> None:
        self.registry = CollectorRegistry()
        self.num_pending = 0  # choices that no worker has been given yet
        # All at 0: every series exists before a worker has counted anything.
        self._families = {family.name: family for family in snapshot(Metrics().registry)}
        self._living: dict[int, list[Family]] = {}
        self._lost: dict[_Key, float] = {}  # counted by workers that have ended
        self._model = Gauge(
            "nanochat_model_info",
            "1 for the model that new requests get.",
            ["model", "checkpoint"],
            registry=self.registry,
        )
        self.registry.register(_Sums(self))
        register_process_metrics(self.registry, home)

    def set_model(self, model: str, checkpoint: str) -> None:
        self._model.clear()
        self._model.labels(model, checkpoint).set(1)

    def take(self, worker: int, families: list[Family]) -> None:
        self._living[worker] = families
        for family in families:
            self._families.setdefault(family.name, family)

    def lose(self, worker: int) -> None:
        """A worker has ended; one that is started in its place begins at 0."""
        for family in self._living.pop(worker, []):
            if family.type != "gauge":
                for sample in family.samples:
                    self._lost[_key(sample)] = self._lost.get(_key(sample), 0.0) + sample.value

    def add(self, name: str, value: float, **labels: str) -> None:
        """Count what no worker can: a restart, a request that a lost worker had."""
        key = name, tuple(sorted(labels.items()))
        self._lost[key] = self._lost.get(key, 0.0) + value

    def metrics(self) -> Iterator[Metric]:
        sums, counts = self._sums()
        for family in self._families.values():
            metric = Metric(family.name, family.documentation, family.type)
            for key in _keys(family, sums):
                value = sums.get(key, 0.0)
                if family.name.endswith("_ratio"):
                    value /= max(1, counts.get(key, 0))
                elif family.name == "nanochat_num_requests_waiting":
                    value += self.num_pending
                metric.add_sample(key[0], dict(key[1]), value)
            yield metric

    def _sums(self) -> tuple[dict[_Key, float], dict[_Key, int]]:
        """Values by series, and how many workers have it."""
        sums, counts = dict(self._lost), dict[_Key, int]()
        for families in self._living.values():
            for sample in (sample for family in families for sample in family.samples):
                key = _key(sample)
                sums[key] = sums.get(key, 0.0) + sample.value
                counts[key] = counts.get(key, 0) + 1
        return sums, counts


class _Sums(Collector):
    def __init__(self, totals: Totals) -> None:
        self._totals = totals

    def collect(self) -> Iterable[Metric]:
        return self._totals.metrics()

    def describe(self) -> Iterable[Metric]:
        return []


def _key(sample: Sample) -> _Key:
    return sample.name, tuple(sorted(sample.labels.items()))


def _keys(family: Family, sums: Mapping[_Key, float]) -> Iterator[_Key]:
    """A family's series, those that appeared later after the first ones. Buckets stay in order.

    A gauge's series with labels goes with the workers that have it.
    """
    known = dict.fromkeys(_key(sample) for sample in family.samples)
    names = {name for name, _ in known}
    yield from (key for key in known if key in sums or not key[1] or family.type != "gauge")
    yield from (key for key in sums if key[0] in names and key not in known)
