"""The Celery consumer: acknowledges late, holds one message at a time, keeps no results.

The database decides whether a message's job runs, so neither a lost nor a doubled message does harm.
"""

from typing import Any

from celery import Celery

from nanochat.jobs.queue import BROKER_TRANSPORT_OPTIONS, QUEUE, RUN_JOB
from nanochat_worker.runner import Runner
from nanochat_worker.settings import WorkerSettings


def create_celery(settings: WorkerSettings, runner: Runner) -> Celery:
    celery = Celery("nanochat_worker", broker=settings.common.redis_url)
    celery.conf.update(
        broker_transport_options=BROKER_TRANSPORT_OPTIONS,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,  # for ever: Redis comes back, and until then running jobs run on
        broker_heartbeat=0,
        task_default_queue=QUEUE,
        task_acks_late=True,
        task_ignore_result=True,
        task_store_errors_even_if_ignored=False,
        worker_concurrency=settings.concurrency,
        worker_prefetch_multiplier=1,
        worker_disable_prefetch=True,  # the prefetch count drifts with late acknowledgement; this does not
        # A blip of Redis must not end hours of training; the redelivered message finds its job claimed.
        worker_cancel_long_running_tasks_on_connection_loss=False,
        worker_enable_remote_control=False,
        worker_send_task_events=False,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
    )

    def run_job(job_id: str) -> None:
        runner.run(job_id)

    celery.task(name=RUN_JOB)(run_job)
    return celery


def create_worker(celery: Celery, settings: WorkerSettings) -> Any:
    """A worker program whose pool is threads: one process holds the consumer and the launchers, so that a kill -9 takes
    them all, and the supervisors see their pipes close."""
    return celery.Worker(
        hostname=f"nanochat@{settings.worker_id}",
        pool_cls="threads",
        concurrency=settings.concurrency,
        loglevel=settings.common.log_level,
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
        quiet=True,
    )
