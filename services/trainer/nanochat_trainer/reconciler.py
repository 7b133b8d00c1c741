"""Brings broker and database together: sends what is dispatchable, sends again what was lost, ends dead leases.

The database is right and the broker may forget. Several trainers may do this at once: a message sent twice starts a
job once (nanochat.jobs.leases).
"""

import asyncio
import contextlib
import logging
import time

import anyio.to_thread

from nanochat.errors import Unavailable
from nanochat.jobs.leases import Leases
from nanochat.jobs.store import JobStore
from nanochat.protocol.jobs import Job
from nanochat_trainer.broker import Broker
from nanochat_trainer.metrics import Metrics

log = logging.getLogger(__name__)


# Between two looks at the length of the broker's queue, which is there to be scraped.
_BROKER_LOOK_S = 5.0


class Reconciler:
    def __init__(
        self,
        jobs: JobStore,
        leases: Leases,
        broker: Broker,
        metrics: Metrics,
        *,
        interval_s: float,
        resend_after_s: float,
    ) -> None:
        self._jobs = jobs
        self._leases = leases
        self._broker = broker
        self._metrics = metrics
        self._interval_s = interval_s
        self._resend_after_s = resend_after_s
        self._broker_seen_at = -_BROKER_LOOK_S
        self._wake = asyncio.Event()

    def wake(self) -> None:
        """There is something to send: do not wait for the interval. Call on the event loop."""
        self._wake.set()

    async def run(self) -> None:
        """Until cancelled. What fails is logged, an absence once, and tried again at the next round."""
        is_away = False
        while True:
            try:
                await anyio.to_thread.run_sync(self.reconcile)
                is_away = False
            except Unavailable as exc:
                if not is_away:
                    log.warning("reconcile_postponed", extra={"reason": exc.message})
                is_away = True
            except Exception:
                log.exception("reconcile_failed")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), self._interval_s)
            self._wake.clear()

    def reconcile(self) -> None:
        """One round. Raises Unavailable when database or broker are away."""
        for job in self._leases.reap():
            log.warning("lease_expired", extra={"job_id": job.id, "status": job.status, "attempt": job.attempt})
            self._metrics.attempts.labels(job.kind, "worker_lost").inc()
        self._look_at_broker()
        for job in self._jobs.dispatchable():
            self._send(job, "new")
        self._send_again()

    def _look_at_broker(self) -> None:
        now = time.monotonic()
        if now - self._broker_seen_at < _BROKER_LOOK_S:
            return
        try:
            self._metrics.broker_messages = self._broker.num_waiting()
        except Unavailable:
            self._metrics.broker_messages = None
            raise
        self._broker_seen_at = now

    def _send_again(self) -> None:
        """Jobs sent a while ago that nobody took, if the broker holds no message: it has forgotten them.

        While it holds some, the workers are busy, and sending more would only lengthen the queue.
        """
        jobs = self._jobs.undelivered(time.time() - self._resend_after_s)
        if jobs and self._broker.num_waiting() == 0:
            for job in jobs:
                self._send(job, "lost")

    def _send(self, job: Job, reason: str) -> None:
        """Send, then mark: a crash in between sends twice, the other order never."""
        self._broker.send(job)
        self._jobs.mark_dispatched(job.id)
        self._metrics.dispatched.labels(reason).inc()
        log.info("job_dispatched", extra={"job_id": job.id, "kind": job.kind, "reason": reason})
