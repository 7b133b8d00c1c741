"""The trainer's metrics: jobs by status and the workers' pulse, read from the database when they are scraped."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from nanochat.errors import Unavailable
from nanochat.jobs.leases import Leases
from nanochat.jobs.states import TRANSITIONS
from nanochat.jobs.store import JobStore


class Metrics:
    """Own registry, so that several applications fit into one process."""

    def __init__(self, jobs: JobStore, leases: Leases) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(_DatabaseCollector(jobs, leases))
        self.dispatched = Counter(
            "nanochat_job_messages_total", "Messages sent to the broker.", ["reason"], registry=self.registry
        )
        self.attempts = Counter(
            "nanochat_job_attempts_total",
            "Runs of a job that ended; here those whose worker was lost.",
            ["kind", "outcome"],
            registry=self.registry,
        )


class _DatabaseCollector(Collector):
    def __init__(self, jobs: JobStore, leases: Leases) -> None:
        self._jobs = jobs
        self._leases = leases

    def describe(self) -> Iterator[Metric]:
        """Names without values: registering must not need the database."""
        yield from (_jobs_family(), _age_family())

    def collect(self) -> Iterator[Metric]:
        jobs, age = _jobs_family(), _age_family()
        try:
            counts = self._jobs.count_by_status()
            ages = self._leases.worker_ages()
        except Unavailable:  # the scrape still shows the rest; /health/ready says what is wrong
            return
        for status in TRANSITIONS:
            jobs.add_metric([status], counts.get(status, 0))
        if ages:
            age.add_metric([], min(ages.values()))
        yield from (jobs, age)


def _jobs_family() -> GaugeMetricFamily:
    return GaugeMetricFamily("nanochat_jobs", "Jobs in the database, pipelines and their stages.", labels=["status"])


def _age_family() -> GaugeMetricFamily:
    return GaugeMetricFamily(
        "nanochat_worker_heartbeat_age_seconds",
        "Since the last sign of life of any worker; absent when none was seen for a day.",
        labels=[],
    )
