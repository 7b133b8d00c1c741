"""What a worker may do with a job, and only while it holds the job's lease: claim, renew, record, finish, release.

A claim is a compare-and-set from queued to running with a fresh token; whoever comes second gets nothing, and whoever
has lost the lease raises LeaseLost at the next write and must stop its run. `reap` ends leases that nobody renews.
"""

import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from nanochat.errors import Conflict
from nanochat.jobs.database import Database
from nanochat.jobs.journal import append_event, lock, move
from nanochat.jobs.pipelines import pass_on, settle
from nanochat.jobs.states import requeues_after_loss, turn_came_at
from nanochat.jobs.tables import JobRow, WorkerRow
from nanochat.jobs.views import to_job
from nanochat.protocol.jobs import Job, JobError, JobProgress, JobStatus
from nanochat.protocol.progress import Metric, Progress

# A lost worker is noticed within LEASE_S, many missed beats later. A beat also brings back the wish to cancel, so it is
# frequent.
LEASE_S = 20.0
HEARTBEAT_S = 2.0


class LeaseLost(Conflict):
    """Another worker has the job, or nobody: what this one still does for it counts no more."""

    code = "lease_lost"


@dataclass(frozen=True, kw_only=True)
class Lease:
    """A job that this worker holds. `deadline_at` (Unix seconds) is the job's or its pipeline's, whichever is first."""

    job: Job
    token: str
    progress_offset: int
    deadline_at: float | None
    queue_wait_s: float


@dataclass(frozen=True, kw_only=True)
class Report:
    """What was read from progress.jsonl since the last report, up to byte `offset`."""

    offset: int
    progress: Progress | None = None
    metrics: Sequence[Metric] = field(default_factory=tuple)
    checkpoint: str | None = None


class Leases:
    def __init__(self, database: Database, clock: Callable[[], float] = time.time, lease_s: float = LEASE_S) -> None:
        self._database = database
        self._clock = clock
        self._lease_s = lease_s

    def claim(self, job_id: str, worker: str) -> Lease | None:
        """Take a queued job. None when there is nothing to do: taken, ended, or its predecessor has not succeeded.

        Raises NotFound for a job that never was.
        """
        now = self._clock()
        with self._database.write() as session:
            row = lock(session, job_id)
            if not _is_claimable(session, row):
                return None
            queue_wait_s = now - turn_came_at(row.queued_at, _predecessor_finished_at(session, row))
            row.attempt += 1
            row.started_at = row.started_at or now
            move(session, row, "running", now)
            row.worker = worker
            row.lease_token = secrets.token_hex(16)
            row.lease_expires_at = now + self._lease_s
            settle(session, row, now)
            return Lease(
                job=to_job(row),
                token=row.lease_token,
                progress_offset=row.progress_offset,
                deadline_at=_deadline_at(session, row),
                queue_wait_s=max(0.0, queue_wait_s),
            )

    def renew(self, lease: Lease) -> bool:
        """Hold on for another lease. Returns whether the job is to be cancelled. Raises LeaseLost."""
        with self._database.write() as session:
            row = self._held(session, lease)
            row.lease_expires_at = self._clock() + self._lease_s
            return row.cancel_requested

    def record(self, lease: Lease, report: Report) -> None:
        """Store progress, metrics and the newest checkpoint, each once: the offset goes with them. Raises LeaseLost."""
        with self._database.write() as session:
            row = self._held(session, lease)
            if report.progress is not None:
                row.progress = _progress(report.progress)
                append_event(session, row, "progress", report.progress.time, row.progress)
            for metric in report.metrics:
                row.metrics = {**row.metrics, **metric.values}
                data = {"step": metric.step, "values": metric.values}
                append_event(session, row, "metric", metric.time, data)
                pass_on(session, row, "metric", metric.time, data)
            row.checkpoint = report.checkpoint or row.checkpoint
            row.progress_offset = report.offset
            settle(session, row, self._clock())

    def finish(
        self,
        lease: Lease,
        status: JobStatus,
        *,
        error: JobError | None = None,
        output: str | None = None,
        values: dict[str, float] | None = None,
    ) -> None:
        """End the job. `values` are the result's last metrics. Raises LeaseLost."""
        now = self._clock()
        with self._database.write() as session:
            row = self._held(session, lease)
            row.output = output
            row.metrics = {**row.metrics, **(values or {})}
            if status == "succeeded" and row.progress.get("ratio") != 1.0:
                row.progress = {**row.progress, "ratio": 1.0, "eta_s": 0.0}
            move(session, row, status, now, error)
            settle(session, row, now)

    def release(self, lease: Lease, *, is_failure: bool = False) -> None:
        """Back to the queue, to be resumed elsewhere. With `is_failure` it uses up an attempt. Raises LeaseLost."""
        now = self._clock()
        with self._database.write() as session:
            row = self._held(session, lease)
            row.failures += is_failure
            if row.cancel_requested:
                move(session, row, "cancelled", now)
            elif not is_failure or requeues_after_loss(row.failures, row.max_attempts):
                move(session, row, "queued", now)
            else:
                message = f"the run was stopped from outside in {row.failures} of {row.max_attempts} attempts."
                move(session, row, "failed", now, JobError(code="stopped", message=message))
            settle(session, row, now)

    def reap(self) -> list[Job]:
        """End every lease that has expired: queued again while attempts are left, else failed. Returns those jobs."""
        now = self._clock()
        expired = select(JobRow.id).where(JobRow.status == "running", JobRow.lease_expires_at < now)
        with self._database.read() as session:
            job_ids = list(session.scalars(expired))
        return [job for job_id in job_ids if (job := self._reap_one(job_id, now)) is not None]

    def _reap_one(self, job_id: str, now: float) -> Job | None:
        with self._database.write() as session:
            row = lock(session, job_id)
            if row.status != "running" or row.lease_expires_at is None or row.lease_expires_at >= now:
                return None  # renewed, ended or reaped by another trainer meanwhile
            row.failures += 1
            if row.cancel_requested:
                move(session, row, "cancelled", now)
            elif requeues_after_loss(row.failures, row.max_attempts):
                move(session, row, "queued", now)
            else:
                move(session, row, "failed", now, _worker_lost(row))
            settle(session, row, now)
            return to_job(row)

    def beat(self, worker: str) -> None:
        """A worker says that it is alive, busy or not."""
        now = self._clock()
        values = {"id": worker, "started_at": now, "heartbeat_at": now}
        with self._database.write() as session:
            self._database.upsert(session, WorkerRow, values, ("heartbeat_at",))

    def retire(self, worker: str) -> None:
        """A worker that stops in good order takes itself off the list."""
        with self._database.write() as session:
            row = session.get(WorkerRow, worker)
            if row is not None:
                session.delete(row)

    def worker_ages(self) -> dict[str, float]:
        """Seconds since each worker's last beat. Workers silent for a day are left out."""
        now = self._clock()
        with self._database.read() as session:
            rows = session.scalars(select(WorkerRow).where(WorkerRow.heartbeat_at > now - 86_400))
            return {row.id: max(0.0, now - row.heartbeat_at) for row in rows}

    def _held(self, session: Session, lease: Lease) -> JobRow:
        row = lock(session, lease.job.id)
        if row.status != "running" or row.lease_token != lease.token:
            raise LeaseLost(f"the lease of job {row.id} is lost: it is {row.status} (attempt {row.attempt}).")
        return row


def _is_claimable(session: Session, row: JobRow) -> bool:
    if row.status != "queued" or row.kind == "pipeline":
        return False
    return row.predecessor_id is None or session.get_one(JobRow, row.predecessor_id).status == "succeeded"


def _predecessor_finished_at(session: Session, row: JobRow) -> float | None:
    return None if row.predecessor_id is None else session.get_one(JobRow, row.predecessor_id).finished_at


def _deadline_at(session: Session, row: JobRow) -> float | None:
    owners = [row] if row.parent_id is None else [row, session.get_one(JobRow, row.parent_id)]
    ends = [
        owner.started_at + owner.deadline_s
        for owner in owners
        if owner.started_at is not None and owner.deadline_s is not None
    ]
    return min(ends, default=None)


def _worker_lost(row: JobRow) -> JobError:
    message = (
        f"worker {row.worker} was lost during attempt {row.attempt}, and {row.failures} of {row.max_attempts} "
        "attempts are used up. Retry the job to go on from its last checkpoint."
    )
    return JobError(code="worker_lost", message=message)


def _progress(line: Progress) -> dict[str, Any]:
    return JobProgress(
        step=line.step,
        num_steps=line.num_steps,
        ratio=line.ratio,
        tokens=line.tokens,
        tokens_per_second=line.tokens_per_second,
        eta_s=line.eta_s,
    ).model_dump()
