"""From a job's id to the end of its run: claim, resolve, launch, watch, report, judge.

The one place where the worker's parts meet. Runs in a thread of Celery's pool; several at once share nothing but the
database, the metrics and the flag that says the worker stops.
"""

import logging
import threading
import time
from collections.abc import Callable
from typing import cast

from nanochat.errors import NanochatError, NotFound, Unavailable
from nanochat.jobs.leases import HEARTBEAT_S, LEASE_S, Lease, LeaseLost, Leases
from nanochat.jobs.store import JobStore
from nanochat.protocol.jobs import JobError, JobStatus
from nanochat.protocol.progress import Failure, Result
from nanochat.references import References
from nanochat_worker.launcher import Run, job_folder, launch
from nanochat_worker.metrics import JobMetrics, Metrics
from nanochat_worker.outcome import Ending, Outcome, StopReason, judge
from nanochat_worker.retirement import Retirement
from nanochat_worker.settings import WorkerSettings
from nanochat_worker.tail import ProgressTail, report

log = logging.getLogger(__name__)

# Beyond the grace: for the supervisor to kill what is left and for the last words to be stored.
CLOSE_PATIENCE_S = 15.0
RETRY_S = 0.5


class Runner:
    def __init__(self, settings: WorkerSettings, jobs: JobStore, leases: Leases, metrics: Metrics) -> None:
        self._settings = settings
        self._jobs = jobs
        self._leases = leases
        self._metrics = metrics
        self.stopping = threading.Event()
        self.retirement = Retirement(max_jobs=settings.max_jobs, idle_timeout_s=settings.idle_timeout_s)

    def run(self, job_id: str) -> None:
        """Run the job unless there is nothing to do: taken by another worker, ended, or not its turn."""
        if self.stopping.is_set() or not self.retirement.begin():
            return  # it stays queued, and the trainer sends it again
        was_run = False
        try:
            was_run = self._run(job_id)
        finally:
            self.retirement.ended(was_run=was_run)

    def _run(self, job_id: str) -> bool:
        """Whether the job was this worker's to run."""
        try:
            lease = self._leases.claim(job_id, self._settings.worker_id)
        except NotFound:
            log.warning("job_unknown", extra={"job_id": job_id})
            return False
        if lease is None:
            log.info("job_not_claimed", extra={"job_id": job_id})
            return False
        log.info("job_claimed", extra={"job_id": job_id, "kind": lease.job.kind, "attempt": lease.job.attempt})
        self._metrics.queue_wait.observe(lease.queue_wait_s)
        started = time.monotonic()
        with self._metrics.running.track_inprogress():
            outcome = self._run_claimed(lease)
        self._metrics.attempts.labels(lease.job.kind, outcome).inc()
        self._metrics.duration.labels(lease.job.kind, outcome).observe(time.monotonic() - started)
        log.info("job_ended", extra={"job_id": job_id, "outcome": outcome})
        return True

    def _run_claimed(self, lease: Lease) -> str:
        """Gives the outcome's label. Whatever goes wrong, the job gets an end or its lease runs out."""
        watch = Watch(lease, self._settings, self._leases, self._metrics, self.stopping)
        try:
            settings = self._settings.common
            references = References(settings.home_dir, settings.resolved_data_roots, self._jobs.get)
            config = references.resolve(lease.job.kind, lease.job.config)
            watch.catch_up()
            outcome = watch.run(launch(lease.job, config, self._settings))
            insist(lambda: self._settle(lease, outcome, watch.result))
        except (LeaseLost, Unavailable) as exc:  # ours no more, or will not be: the trainer sees the lease run out
            log.warning("lease_lost", extra={"job_id": lease.job.id, "reason": exc.message})
            return "lease_lost"
        except NanochatError as exc:
            return self._fail(lease, exc.code, exc.message)
        except OSError as exc:
            log.error("run_not_started", extra={"job_id": lease.job.id, "reason": str(exc)})
            return self._fail(lease, "io_error", f"{exc}. Check disk space and permissions of $NANOCHAT_HOME.")
        except Exception as exc:  # the outermost loop of a run
            log.exception("run_failed", extra={"job_id": lease.job.id})
            return self._fail(lease, "internal_error", f"{type(exc).__name__}: {exc}. See the worker's log.")
        finally:
            watch.end()
        return outcome.status

    def _settle(self, lease: Lease, outcome: Outcome, result: Result | None) -> None:
        if outcome.status == "requeued":
            self._leases.release(lease, is_failure=outcome.is_failure)
            return
        values = result.values if result else None
        output = result.output if result else None
        status = cast(JobStatus, outcome.status)
        self._leases.finish(lease, status, error=outcome.error, output=output, values=values)

    def _fail(self, lease: Lease, code: str, message: str) -> str:
        error = JobError(code=code, message=message)
        try:
            insist(lambda: self._leases.finish(lease, "failed", error=error))
        except (LeaseLost, Unavailable) as exc:
            log.error("job_end_not_stored", extra={"job_id": lease.job.id, "code": code, "reason": exc.message})
        return "failed"


def insist(write: Callable[[], None]) -> None:
    """Try a last write until the lease would be over. Raises Unavailable then."""
    deadline = time.monotonic() + LEASE_S
    while True:
        try:
            return write()
        except Unavailable:
            if time.monotonic() >= deadline:
                raise
        time.sleep(RETRY_S)


class Watch:
    """One run from its start to its end: reports what it writes, holds the lease, stops it when it must end."""

    def __init__(
        self,
        lease: Lease,
        settings: WorkerSettings,
        leases: Leases,
        metrics: Metrics,
        stopping: threading.Event,
    ) -> None:
        self._lease = lease
        self._settings = settings
        self._leases = leases
        self._stopping = stopping
        self._job_metrics: JobMetrics = metrics.of_job(lease.job)
        path = job_folder(settings.common.home_dir, lease.job.id) / "progress.jsonl"
        self._tail = ProgressTail(path, lease.progress_offset)
        self._stop_reason: StopReason | None = None
        self._renewed_at = time.monotonic()
        self._failure: Failure | None = None
        self.result: Result | None = None

    def catch_up(self) -> None:
        """Store what an earlier attempt wrote and its lost worker did not; how that one ended says nothing now."""
        self._report_rest()
        self._tail.mend()
        self._failure = self.result = None

    def run(self, run: Run) -> Outcome:
        """Raises LeaseLost, with the run ended, when the job is no longer ours."""
        try:
            while (exit_code := run.poll()) is None:
                self._look(run)
                time.sleep(self._settings.poll_s)
            insist(self._report_rest)
        finally:
            run.close(self._settings.lost_grace_s + CLOSE_PATIENCE_S)
        return judge(
            Ending(
                exit_code=exit_code,
                stop_reason=self._stop_reason,
                failure=self._failure,
                result=self.result,
                log_tail=run.log_tail(),
            )
        )

    def end(self) -> None:
        """There is nothing more to watch, whether or not there ever was a run."""
        self._job_metrics.end()

    def _look(self, run: Run) -> None:
        try:
            self._report()
            is_cancelled = self._renew()
        except Unavailable as exc:
            # What was read is lost for this round only if the database stays away longer than the lease.
            if time.monotonic() - self._renewed_at > LEASE_S:
                raise LeaseLost(f"the database was away for longer than the lease: {exc.message}") from exc
            return
        reason = self._reason(is_cancelled)
        if reason is not None and self._stop_reason is None:
            log.info("run_stopping", extra={"job_id": self._lease.job.id, "reason": reason.value})
            self._stop_reason = reason
            run.stop()

    def _report_rest(self) -> None:
        while self._report():
            pass

    def _report(self) -> bool:
        """Store what the run has written since; whether there was anything."""
        before = self._tail.offset
        lines = self._tail.read()
        if self._tail.offset == before:
            return False
        try:
            self._leases.record(self._lease, report(lines, self._tail.offset))
        except Unavailable:
            self._tail.offset = before  # read again at the next look
            raise
        for line in lines:
            self._job_metrics.observe(line)
            if isinstance(line, Failure):
                self._failure = line
            if isinstance(line, Result):
                self.result = line
        return True

    def _renew(self) -> bool:
        """Hold the lease, and learn whether the job is to be cancelled."""
        if time.monotonic() - self._renewed_at < HEARTBEAT_S:
            return False
        is_cancelled = self._leases.renew(self._lease)
        self._renewed_at = time.monotonic()
        return is_cancelled

    def _reason(self, is_cancelled: bool) -> StopReason | None:
        if is_cancelled:
            return StopReason.CANCELLED
        if self._lease.deadline_at is not None and time.time() > self._lease.deadline_at:
            return StopReason.DEADLINE
        if self._stopping.is_set():
            return StopReason.WORKER_STOPS
        return None
