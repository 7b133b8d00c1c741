"""The worker's metrics: its runs, and what the jobs that run now report of themselves.

Gauges with a job_name live as long as the job runs here.
"""

import time

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from nanochat.observability.metrics import JOB_DURATION_BUCKETS
from nanochat.protocol.jobs import Job
from nanochat.protocol.progress import Metric, Progress
from nanochat_worker.tail import Line

CHECKPOINT_BUCKETS = (0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
# Metrics of a recipe that are shown here, by their names in progress.jsonl.
SHOWN = ("train_loss", "train_mfu_ratio", "val_bpb", "core_metric")


class Metrics:
    """Own registry, so that several fit into one process. Safe between threads."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.attempts = Counter(
            "nanochat_job_attempts_total", "Runs of a job that ended.", ["kind", "outcome"], registry=registry
        )
        self.duration = Histogram(
            "nanochat_job_duration_seconds",
            "From the start of a run to its end.",
            ["kind", "outcome"],
            buckets=JOB_DURATION_BUCKETS,
            registry=registry,
        )
        self.queue_wait = Histogram(
            "nanochat_queue_wait_seconds",
            "From the queue to the start of a run.",
            buckets=JOB_DURATION_BUCKETS,
            registry=registry,
        )
        self._gauges = {
            name: Gauge(f"nanochat_{name}", f"Newest {name} of a running job.", ["job_name"], registry=registry)
            for name in SHOWN
        }
        self._tokens_per_second = Gauge(
            "nanochat_train_tokens_per_second", "Speed of a running job.", ["job_name"], registry=registry
        )
        self._tokens = Counter("nanochat_train_tokens_total", "Tokens processed by runs here.", registry=registry)
        self._checkpoints = Histogram(
            "nanochat_checkpoint_seconds", "To write a checkpoint.", buckets=CHECKPOINT_BUCKETS, registry=registry
        )
        self.running = Gauge("nanochat_worker_jobs_running", "Runs at this moment.", registry=registry)
        self._heartbeat_at = time.monotonic()
        age = Gauge(
            "nanochat_worker_heartbeat_age_seconds", "Since the database last heard of this worker.", registry=registry
        )
        age.set_function(self.heartbeat_age_s)

    def beat(self) -> None:
        self._heartbeat_at = time.monotonic()

    def heartbeat_age_s(self) -> float:
        return time.monotonic() - self._heartbeat_at

    def of_job(self, job: Job) -> "JobMetrics":
        return JobMetrics(job.name, self._gauges, self._tokens_per_second, self._tokens, self._checkpoints)


class JobMetrics:
    """What one run adds. `drop` takes its gauges away again."""

    def __init__(
        self,
        job_name: str,
        gauges: dict[str, Gauge],
        tokens_per_second: Gauge,
        tokens: Counter,
        checkpoints: Histogram,
    ) -> None:
        self._job_name = job_name
        self._gauges = gauges
        self._tokens_per_second = tokens_per_second
        self._tokens = tokens
        self._checkpoints = checkpoints
        self._tokens_seen: int | None = None
        self._used: set[Gauge] = set()

    def observe(self, line: Line) -> None:
        if isinstance(line, Progress):
            self._set(self._tokens_per_second, line.tokens_per_second)
            if self._tokens_seen is not None:  # the first line of a resumed run counts what was done before
                self._tokens.inc(max(0, line.tokens - self._tokens_seen))
            self._tokens_seen = line.tokens
        elif isinstance(line, Metric):
            for name in self._gauges.keys() & line.values.keys():
                self._set(self._gauges[name], line.values[name])
            if "checkpoint_seconds" in line.values:
                self._checkpoints.observe(line.values["checkpoint_seconds"])

    def drop(self) -> None:
        for gauge in self._used:
            gauge.remove(self._job_name)
        self._used.clear()

    def _set(self, gauge: Gauge, value: float) -> None:
        gauge.labels(self._job_name).set(value)
        self._used.add(gauge)
