"""What the runs of this worker say of themselves, as series that live as long as the run and a little longer.

A recipe's last words, its final validation among them, come just before it ends: without the little longer no scrape
would see them. So the series are bounded by the runs at a time, whatever their names.
"""

import threading
import time
from collections.abc import Callable, Iterator

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.core import Metric as Family
from prometheus_client.registry import Collector

from nanochat.protocol.jobs import Job
from nanochat.protocol.progress import Line, Metric, Progress, Setup

# Longer than the usual interval between two scrapes.
LINGER_S = 30.0
LABELS = ("job_name", "kind")
GAUGES = {
    "nanochat_train_loss": "Newest training loss.",
    "nanochat_train_mfu_ratio": "Share of the device's peak FLOP/s that training uses.",
    "nanochat_val_bpb": "Newest validation bits per byte.",
    "nanochat_core_metric": "Newest CORE.",
    "nanochat_train_tokens_per_second": "Speed.",
    "nanochat_job_progress_ratio": "How far it is, 0 to 1.",
    "nanochat_job_eta_seconds": "What it expects to take still.",
    "nanochat_job_silence_seconds": "Since it last said anything.",
}
INFO = "nanochat_train_setup_info"
INFO_LABELS = ("device", "precision", "attention", "window_attention")


class Run:
    """One run's newest values by their series' names. Filled by the thread that watches it, read by scrapes."""

    def __init__(self, job: Job, clock: Callable[[], float]) -> None:
        self.labels = (job.name, job.kind)
        self._clock = clock
        self._values: dict[str, float] = {}
        self.setup: tuple[str, ...] | None = None  # values of INFO_LABELS
        self._heard_at = clock()
        self._ended_at: float | None = None

    def observe(self, line: Line) -> None:
        self._heard_at = self._clock()
        if isinstance(line, Progress):
            values = {
                "nanochat_job_progress_ratio": line.ratio,
                "nanochat_job_eta_seconds": line.eta_s,
                # Jobs that process no tokens have no speed.
                "nanochat_train_tokens_per_second": line.tokens_per_second or None,
            }
        elif isinstance(line, Metric):
            values = {f"nanochat_{name}": value for name, value in line.values.items()}
        else:
            if isinstance(line, Setup):
                self.setup = tuple(getattr(line, label) for label in INFO_LABELS)
            return
        shown = {name: value for name, value in values.items() if value is not None and name in GAUGES}
        self._values = {**self._values, **shown}

    def end(self) -> None:
        self._ended_at = self._clock()

    def values(self) -> dict[str, float]:
        if self._ended_at is not None:
            return self._values
        return {**self._values, "nanochat_job_silence_seconds": self._clock() - self._heard_at}

    @property
    def is_over(self) -> bool:
        return self._ended_at is not None and self._clock() - self._ended_at > LINGER_S


class RunSeries(Collector):
    """The runs of now, by their labels: a job's next attempt takes the place of the one before."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._runs: dict[tuple[str, ...], Run] = {}
        self._lock = threading.Lock()

    def begin(self, job: Job) -> Run:
        run = Run(job, self._clock)
        with self._lock:
            self._runs[run.labels] = run
        return run

    def collect(self) -> Iterator[Family]:
        with self._lock:
            self._runs = {labels: run for labels, run in self._runs.items() if not run.is_over}
            values = {labels: run.values() for labels, run in self._runs.items()}
            setups = {labels: run.setup for labels, run in self._runs.items()}
        for name, text in GAUGES.items():
            family = GaugeMetricFamily(name, f"{text} Of a running job.", labels=LABELS)
            for labels, of_run in values.items():
                if name in of_run:
                    family.add_metric(labels, of_run[name])
            yield family
        info = GaugeMetricFamily(INFO, "1 for what a running job computes with.", labels=(*LABELS, *INFO_LABELS))
        for labels, setup in setups.items():
            if setup is not None:
                info.add_metric((*labels, *setup), 1)
        yield info
