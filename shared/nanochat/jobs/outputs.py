"""Two jobs never write to the same place: what a job would leave, against those that are queued or running."""

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from nanochat.errors import Conflict
from nanochat.jobs.tables import JobRow

ACTIVE = ("queued", "running")


def check_outputs_free(session: Session, rows: Sequence[JobRow]) -> None:
    """Raises Conflict naming the other job when one that has not ended writes where one of these would.

    Nobody may add a job meanwhile: the caller has the database's lock on submissions.
    """
    for row in rows:
        other = _rival(session, row)
        if other is None:
            continue
        is_tokenizer = row.kind == "tokenizer"
        place = f"tokenizer {row.name!r}" if is_tokenizer else f"stage {row.kind} of run {row.config['run']!r}"
        raise Conflict(
            f"job {other.id} is {other.status} and writes {place}; wait for its end, cancel it, or choose another "
            f"{'name' if is_tokenizer else 'name or config.run'}.",
            param="name" if is_tokenizer else "config.run",
        )


def _rival(session: Session, row: JobRow) -> JobRow | None:
    query = select(JobRow).where(JobRow.kind == row.kind, JobRow.status.in_(ACTIVE), JobRow.id != row.id)
    if row.kind == "tokenizer":
        query = query.where(JobRow.name == row.name)
    elif row.kind in ("pretrain", "sft", "rl"):
        query = query.where(JobRow.config["run"].as_string() == row.config["run"])
    else:
        return None
    return session.scalars(query.limit(1)).first()
