"""The worker's metrics: its runs, what those report of themselves, the processes and GPUs they use."""

import time
from pathlib import Path
from typing import get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from nanochat.observability.metrics import JOB_DURATION_BUCKETS
from nanochat.observability.process_metrics import register_process_metrics
from nanochat.protocol.jobs import Job, JobKind
from nanochat.protocol.progress import Line, Metric, Progress
from nanochat_worker.gpus import GpuCollector
from nanochat_worker.run_processes import RunProcessesCollector
from nanochat_worker.run_series import Run, RunSeries

CHECKPOINT_BUCKETS = (0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
# As runner.py counts the ends of runs.
OUTCOMES = ("succeeded", "failed", "cancelled", "requeued", "lease_lost")


class Metrics:
    """Own registry, so that several fit into one process. Safe between threads."""

    def __init__(self, home: Path | None = None, *, num_slots: int = 1) -> None:
        self.registry = registry = CollectorRegistry()
        self.attempts = Counter(
            "nanochat_job_attempts_total", "Runs of a job that ended.", ["kind", "outcome"], registry=registry
        )
        for kind in get_args(JobKind):  # from 0, or the first failure of a kind would be no increase
            for outcome in OUTCOMES:
                self.attempts.labels(kind, outcome)
        self.duration = Histogram(
            "nanochat_job_duration_seconds",
            "From the start of a run to its end.",
            ["kind", "outcome"],
            buckets=JOB_DURATION_BUCKETS,
            registry=registry,
        )
        self.queue_wait = Histogram(
            "nanochat_queue_wait_seconds",
            "From a job's turn to the start of its run.",
            buckets=JOB_DURATION_BUCKETS,
            registry=registry,
        )
        self._tokens = Counter("nanochat_train_tokens_total", "Tokens processed by runs here.", registry=registry)
        self._checkpoints = Histogram(
            "nanochat_checkpoint_seconds", "To write a checkpoint.", buckets=CHECKPOINT_BUCKETS, registry=registry
        )
        self.running = Gauge("nanochat_worker_jobs_running", "Runs at this moment.", registry=registry)
        slots = Gauge("nanochat_worker_job_slots", "Runs that it takes at the same time.", registry=registry)
        slots.set(num_slots)
        self._heartbeat_at = time.monotonic()
        age = Gauge(
            "nanochat_worker_heartbeat_age_seconds", "Since the database last heard of this worker.", registry=registry
        )
        age.set_function(self.heartbeat_age_s)
        self._run_series = RunSeries()
        for collector in (self._run_series, RunProcessesCollector(), GpuCollector()):
            registry.register(collector)
        register_process_metrics(registry, home)

    def beat(self) -> None:
        self._heartbeat_at = time.monotonic()

    def heartbeat_age_s(self) -> float:
        return time.monotonic() - self._heartbeat_at

    def of_job(self, job: Job) -> "JobMetrics":
        return JobMetrics(self._run_series.begin(job), self._tokens, self._checkpoints)


class JobMetrics:
    """What one run adds."""

    def __init__(self, run: Run, tokens: Counter, checkpoints: Histogram) -> None:
        self._run = run
        self._tokens = tokens
        self._checkpoints = checkpoints
        self._tokens_seen: int | None = None

    def observe(self, line: Line) -> None:
        self._run.observe(line)
        if isinstance(line, Progress):
            if self._tokens_seen is not None:  # the first line of a resumed run counts what was done before
                self._tokens.inc(max(0, line.tokens - self._tokens_seen))
            self._tokens_seen = line.tokens
        elif isinstance(line, Metric) and "checkpoint_seconds" in line.values:
            self._checkpoints.observe(line.values["checkpoint_seconds"])

    def end(self) -> None:
        """Nothing more comes: its series will go."""
        self._run.end()
