"""Sends a job's message, and tells how many wait. The one place in the trainer that speaks Celery.

Messages are sent by task name: the worker's code is not here.
"""

from celery import Celery
from kombu.exceptions import OperationalError

from nanochat.errors import Unavailable
from nanochat.jobs.queue import BROKER_TRANSPORT_OPTIONS, QUEUE, RUN_JOB, broker_priority
from nanochat.protocol.jobs import Job


class Broker:
    """Blocking calls, each with a deadline of its own from BROKER_TRANSPORT_OPTIONS. Raises Unavailable."""

    def __init__(self, url: str) -> None:
        self._celery = Celery("nanochat", broker=url)
        self._celery.conf.update(
            # One more try and no waiting in between: whoever calls comes back later.
            broker_transport_options={
                **BROKER_TRANSPORT_OPTIONS,
                "max_retries": 1,
                "interval_start": 0.0,
                "interval_step": 0.0,
            },
            broker_connection_timeout=5,
            task_default_queue=QUEUE,
            task_ignore_result=True,
        )

    def send(self, job: Job) -> None:
        try:
            self._celery.send_task(
                RUN_JOB,
                args=[job.id],
                queue=QUEUE,
                priority=broker_priority(job.priority),
                ignore_result=True,
                retry=False,  # the reconciler comes back to it
            )
        except (OperationalError, OSError) as exc:
            raise _away(exc) from exc

    def num_waiting(self) -> int:
        """Messages that no worker has taken yet."""
        try:
            with self._celery.connection_for_write() as connection:
                connection.ensure_connection(max_retries=1, interval_start=0, interval_step=0, timeout=5)
                declared = connection.default_channel.queue_declare(QUEUE)
                return int(declared.message_count)
        except (OperationalError, OSError) as exc:
            raise _away(exc) from exc

    def close(self) -> None:
        self._celery.close()


def _away(exc: Exception) -> Unavailable:
    return Unavailable(f"the broker does not answer ({exc}); jobs stay queued until Redis is back.", retry_after_s=5)
