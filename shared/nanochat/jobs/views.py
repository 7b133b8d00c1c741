"""Rows as the API shows them."""

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from nanochat.errors import NotFound
from nanochat.jobs.tables import JobRow
from nanochat.protocol.jobs import Job


def row_of(session: Session, job_id: str) -> JobRow:
    """Raises NotFound."""
    row = session.get(JobRow, job_id)
    if row is None:
        raise NotFound(f"no job {job_id!r}; GET /v1/jobs lists them.", param="id")
    return row


def stage_rows(session: Session, parent_id: str) -> list[JobRow]:
    """A pipeline's stages in order; of another job, none."""
    return list(session.scalars(select(JobRow).where(JobRow.parent_id == parent_id).order_by(JobRow.position)))


def show(session: Session, row: JobRow) -> Job:
    return to_job(row, [stage.id for stage in stage_rows(session, row.id)] if row.kind == "pipeline" else [])


def to_job(row: JobRow, stages: Sequence[str] = ()) -> Job:
    return Job.model_validate(
        {
            "id": row.id,
            "kind": row.kind,
            "name": row.name,
            "status": row.status,
            "created_at": row.created_at,
            "started_at": row.started_at,
            "finished_at": row.finished_at,
            "attempt": row.attempt,
            "max_attempts": row.max_attempts,
            "num_processes": row.num_processes,
            "priority": row.priority,
            "deadline_s": row.deadline_s,
            "progress": row.progress,
            "metrics": row.metrics,
            "checkpoint": row.checkpoint,
            "output": row.output,
            "error": row.error,
            "parent_id": row.parent_id,
            "stages": list(stages),
            "config": row.config,
        }
    )
