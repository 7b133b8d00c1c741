"""Two jobs never write to the same place: what a job would leave, against those that are queued or running."""

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from nanochat.errors import Conflict
from nanochat.jobs.tables import JobRow

ACTIVE = ("queued", "running")

# What is written, what else could be chosen, and which field says so.
_PLACES = {
    "tokenizer": ("tokenizer {row.name!r}", "name", "name"),
    "dataset": ("dataset {row.config[name]!r}", "config.name", "config.name"),
}
_RUN = ("stage {row.kind} of run {row.config[run]!r}", "name or config.run", "config.run")


def check_outputs_free(session: Session, rows: Sequence[JobRow]) -> None:
    """Raises Conflict naming the other job when one that has not ended writes where one of these would.

    Nobody may add a job meanwhile: the caller has the database's lock on submissions.
    """
    for row in rows:
        other = _rival(session, row)
        if other is None:
            continue
        place, choice, param = _PLACES.get(row.kind, _RUN)
        raise Conflict(
            f"job {other.id} is {other.status} and writes {place.format(row=row)}; wait for its end, cancel it, or "
            f"choose another {choice}.",
            param=param,
        )


def _rival(session: Session, row: JobRow) -> JobRow | None:
    query = select(JobRow).where(JobRow.kind == row.kind, JobRow.status.in_(ACTIVE), JobRow.id != row.id)
    if row.kind == "tokenizer":
        query = query.where(JobRow.name == row.name)
    elif row.kind == "dataset":
        query = query.where(JobRow.config["name"].as_string() == row.config["name"])
    elif row.kind in ("pretrain", "sft", "rl"):
        query = query.where(JobRow.config["run"].as_string() == row.config["run"])
    else:
        return None
    return session.scalars(query.limit(1)).first()
