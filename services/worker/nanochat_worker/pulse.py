"""The worker's sign of life in the database, every few seconds, busy or not; and whether it can work at all."""

import logging
import threading

from celery import Celery
from kombu.exceptions import OperationalError

from nanochat.errors import Unavailable
from nanochat.jobs.database import Database
from nanochat.jobs.leases import HEARTBEAT_S, Leases
from nanochat_worker.metrics import Metrics

log = logging.getLogger(__name__)


class Pulse:
    """Beats in a thread of its own from start() to stop()."""

    def __init__(self, worker_id: str, database: Database, leases: Leases, celery: Celery, metrics: Metrics) -> None:
        self._worker_id = worker_id
        self._database = database
        self._leases = leases
        self._celery = celery
        self._metrics = metrics
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="pulse", daemon=True)
        self.is_consuming = threading.Event()
        self.is_stopping = threading.Event()

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Raises nothing: the database may be away when the worker goes."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()
        try:
            self._leases.retire(self._worker_id)
        except Unavailable as exc:
            log.warning("worker_not_retired", extra={"reason": exc.message})

    def reasons(self) -> list[str]:
        """What keeps the worker from taking jobs now."""
        if self.is_stopping.is_set():
            return ["the worker is stopping."]
        reasons = [] if self.is_consuming.is_set() else ["the consumer has not started yet."]
        try:
            self._database.require_schema()
        except Unavailable as exc:
            reasons.append(exc.message)
        try:
            with self._celery.connection_for_read() as connection:
                connection.ensure_connection(max_retries=1, interval_start=0, interval_step=0, timeout=2)
        except (OperationalError, OSError) as exc:
            reasons.append(f"the broker does not answer: {exc}.")
        return reasons

    def _beat(self) -> None:
        while True:
            try:
                self._leases.beat(self._worker_id)
                self._metrics.beat()
            except Unavailable as exc:
                log.warning("heartbeat_missed", extra={"reason": exc.message})
            except Exception:  # the thread's outermost loop: without it the worker would look dead for good
                log.exception("heartbeat_failed")
            if self._stopped.wait(HEARTBEAT_S):
                return
