"""How a job's row changes: locked, moved from status to status, with the event written in the same transaction.

Everything that changes a job goes through here, so no change is without its event and no event without its change.
"""

from typing import Any, Literal, cast

from sqlalchemy.orm import Session

from nanochat.jobs.states import is_final, may_follow
from nanochat.jobs.tables import JobEventRow, JobRow
from nanochat.jobs.views import row_of
from nanochat.protocol.jobs import JobError, JobStatus

EventType = Literal["status", "progress", "metric"]


def status_of(row: JobRow) -> JobStatus:
    return cast(JobStatus, row.status)


def lock(session: Session, job_id: str) -> JobRow:
    """The job's row, its pipeline's row before it, both locked until the transaction ends.

    Parent first, always: two transactions that took them in different orders would wait for each other.
    Raises NotFound.
    """
    row = row_of(session, job_id)
    if row.parent_id is not None:
        session.get(JobRow, row.parent_id, with_for_update=True, populate_existing=True)
    session.refresh(row, with_for_update=True)
    return row


def append_event(session: Session, row: JobRow, event_type: EventType, now: float, data: dict[str, Any]) -> None:
    """Number and store an event. The row's lock makes the numbers gapless, so a reader never passes one by."""
    row.last_event += 1
    session.add(JobEventRow(job_id=row.id, number=row.last_event, type=event_type, time=now, data=data))


def move(session: Session, row: JobRow, target: JobStatus, now: float, error: JobError | None = None) -> None:
    """Give a locked job its next status. A transition outside states.py is our mistake."""
    assert may_follow(status_of(row), target), f"{row.id}: {row.status} -> {target}"
    row.status = target
    row.error = error.model_dump() if error else None
    row.finished_at = now if is_final(target) else None
    if target == "queued":
        row.queued_at = now
        row.dispatched_at = None
    if target != "running":
        row.worker = row.lease_token = row.lease_expires_at = None
    data = {"status": target, "attempt": row.attempt, "error": row.error}
    append_event(session, row, "status", now, data)
