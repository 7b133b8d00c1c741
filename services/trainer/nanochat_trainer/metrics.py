"""The trainer's metrics: jobs by status, the queue, the workers' pulse; read from the database when they are scraped.

What cannot be read is absent: that a service answers without it is how an outage of database or broker shows.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import get_args

from prometheus_client import CollectorRegistry, Counter
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from nanochat.errors import Unavailable
from nanochat.jobs.leases import Leases
from nanochat.jobs.states import TRANSITIONS
from nanochat.jobs.store import JobStore
from nanochat.observability.process_metrics import register_process_metrics
from nanochat.protocol.jobs import JobKind


class Metrics:
    """Own registry, so that several applications fit into one process.

    `broker_messages` is how many messages no worker has taken yet; None while nobody knows.
    """

    def __init__(self, jobs: JobStore, leases: Leases, home: Path) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(_DatabaseCollector(jobs, leases))
        self.registry.register(_BrokerCollector(self))
        self.broker_messages: int | None = None
        self.dispatched = Counter(
            "nanochat_job_messages_total", "Messages sent to the broker.", ["reason"], registry=self.registry
        )
        self.attempts = Counter(
            "nanochat_job_attempts_total",
            "Runs of a job that ended; here those whose worker was lost.",
            ["kind", "outcome"],
            registry=self.registry,
        )
        for kind in get_args(JobKind):  # from 0, or the first loss of a kind would be no increase
            self.attempts.labels(kind, "worker_lost")
        register_process_metrics(self.registry, home)


class _BrokerCollector(Collector):
    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        messages = GaugeMetricFamily("nanochat_broker_messages", "Messages in Redis that no worker has taken yet.")
        if self._metrics.broker_messages is not None:
            messages.add_metric([], self._metrics.broker_messages)
        yield messages


class _DatabaseCollector(Collector):
    def __init__(self, jobs: JobStore, leases: Leases) -> None:
        self._jobs = jobs
        self._leases = leases

    def collect(self) -> Iterator[Metric]:
        jobs = GaugeMetricFamily(
            "nanochat_jobs", "Jobs in the database, pipelines and their stages.", labels=["status"]
        )
        queue = GaugeMetricFamily("nanochat_queue_jobs", "Jobs that a worker could take now.")
        oldest = GaugeMetricFamily("nanochat_queue_oldest_seconds", "How long the first of them has waited; 0: none.")
        age = GaugeMetricFamily(
            "nanochat_worker_heartbeat_age_seconds",
            "Since the last sign of life of any worker; absent when none was seen for a day.",
        )
        try:
            counts, waiting, ages = self._jobs.count_by_status(), self._jobs.waiting(), self._leases.worker_ages()
        except Unavailable:  # the scrape still shows the rest; /health/ready says what is wrong
            pass
        else:
            for status in TRANSITIONS:
                jobs.add_metric([status], counts.get(status, 0))
            queue.add_metric([], waiting.num_jobs)
            oldest.add_metric([], waiting.oldest_s)
            if ages:
                age.add_metric([], min(ages.values()))
        yield from (jobs, queue, oldest, age)
