"""Jobs as the API asks for them: submit, get, list, events, cancel, retry, and what is to be dispatched.

What a running job's worker does is in leases.py. The caller has checked the spec's references and sizes.
"""

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, and_, func, or_, select
from sqlalchemy.orm import Session, aliased

from nanochat.errors import Conflict
from nanochat.jobs.database import Database
from nanochat.jobs.journal import append_event, lock, move, status_of
from nanochat.jobs.outputs import check_outputs_free
from nanochat.jobs.pipelines import settle
from nanochat.jobs.plans import plan
from nanochat.jobs.states import check_cancel, check_retry, turn_came_at
from nanochat.jobs.tables import IdempotencyKeyRow, JobEventRow, JobRow
from nanochat.jobs.views import row_of, show, stage_rows, to_job
from nanochat.protocol.jobs import Job, JobKind, JobSpec, JobStatus


@dataclass(frozen=True, kw_only=True)
class JobEvent:
    """`number` counts from 1 within the job. `data` by type: see journal.py and leases.py."""

    number: int
    type: str
    time: float
    data: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """Jobs whose turn it is. `oldest_s` is how long the first of them has waited; 0 where there is none."""

    num_jobs: int
    oldest_s: float


@dataclass(frozen=True, kw_only=True)
class MetricPoint:
    step: int
    time: float
    value: float


class JobStore:
    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock

    def plan(self, spec: JobSpec) -> list[Job]:
        """The jobs that this spec would make, a pipeline before its stages; nothing is stored. Raises InvalidConfig."""
        return [to_job(row) for row in plan(spec, self._clock())]

    def submit(self, spec: JobSpec, *, idempotency_key: str | None = None) -> Job:
        """Store a job, with its stages. The same key with the same spec gives the job of the first time.

        Raises InvalidConfig for a bad config, Conflict for a key that was used with another spec, or when a job that
        has not ended writes to the same place.
        """
        now = self._clock()
        rows = plan(spec, now)
        digest = _digest(spec)
        with self._database.write() as session:
            self._database.lock_submissions(session)
            if idempotency_key is not None:
                earlier = _submitted_with(session, idempotency_key, digest)
                if earlier is not None:
                    return show(session, earlier)
            check_outputs_free(session, rows)
            for row in rows:
                session.add(row)
                session.flush()  # row by row: each may refer to the ones before
                append_event(session, row, "status", now, {"status": "queued", "attempt": 0, "error": None})
            if idempotency_key is not None:
                key = IdempotencyKeyRow(key=idempotency_key, body_sha256=digest, job_id=rows[0].id, created_at=now)
                session.add(key)
                session.flush()
            return show(session, rows[0])

    def submitted(self, spec: JobSpec, idempotency_key: str) -> Job | None:
        """The job of an earlier submission with this key, if there is one. Raises Conflict as submit() does."""
        with self._database.read() as session:
            row = _submitted_with(session, idempotency_key, _digest(spec))
            return show(session, row) if row else None

    def get(self, job_id: str) -> Job:
        """Raises NotFound."""
        with self._database.read() as session:
            return show(session, row_of(session, job_id))

    def find(
        self, *, status: JobStatus | None = None, kind: JobKind | None = None, limit: int = 50, after: str | None = None
    ) -> list[Job]:
        """Newest first; `after` is the id of the last job already seen. Raises NotFound for an unknown one."""
        query = select(JobRow).order_by(JobRow.created_at.desc(), JobRow.id.desc()).limit(limit)
        if status is not None:
            query = query.where(JobRow.status == status)
        if kind is not None:
            query = query.where(JobRow.kind == kind)
        with self._database.read() as session:
            if after is not None:
                query = query.where(_older_than(row_of(session, after)))
            return [show(session, row) for row in session.scalars(query)]

    def stages(self, job_id: str) -> list[Job]:
        """A pipeline's stages in order; of another job, none."""
        with self._database.read() as session:
            return [to_job(row) for row in stage_rows(session, job_id)]

    def events(self, job_id: str, after: int = 0, limit: int = 500) -> list[JobEvent]:
        """Events numbered above `after`, in order."""
        query = select(JobEventRow).where(JobEventRow.job_id == job_id, JobEventRow.number > after)
        with self._database.read() as session:
            rows = session.scalars(query.order_by(JobEventRow.number).limit(limit))
            return [JobEvent(number=row.number, type=row.type, time=row.time, data=row.data) for row in rows]

    def series(self, job_id: str) -> dict[str, list[MetricPoint]]:
        """Every metric the job has reported, by name, in order; not those of a pipeline's stages. Raises NotFound."""
        query = select(JobEventRow).where(JobEventRow.job_id == job_id, JobEventRow.type == "metric")
        series: dict[str, list[MetricPoint]] = {}
        with self._database.read() as session:
            row_of(session, job_id)
            for row in session.scalars(query.order_by(JobEventRow.number)):
                if "stage" in row.data:  # a stage's own, passed on to its pipeline's events
                    continue
                for name, value in row.data["values"].items():
                    point = MetricPoint(step=row.data["step"], time=row.time, value=value)
                    series.setdefault(name, []).append(point)
        return series

    def cancel(self, job_id: str) -> Job:
        """End a queued job at once, ask a running one's worker to; of a pipeline, all its stages. Raises Conflict."""
        now = self._clock()
        with self._database.write() as session:
            row = lock(session, job_id)
            check_cancel(row.id, status_of(row))
            stages = stage_rows(session, row.id)
            for stage in stages or [row]:
                if stage.status == "running":
                    stage.cancel_requested = True
                elif stage.status == "queued":
                    move(session, stage, "cancelled", now)
                settle(session, stage, now)
            if stages and row.status != "cancelled":
                row.cancel_requested = True
            return show(session, row)

    def retry(self, job_id: str) -> Job:
        """Queue a failed or cancelled job again; of a pipeline or its stage, every stage that has not succeeded.

        The next attempt goes on from the last checkpoint. Raises Conflict for a job in another state, or when another
        job writes to the same place by now.
        """
        now = self._clock()
        with self._database.write() as session:
            self._database.lock_submissions(session)
            row = lock(session, job_id)
            check_retry(row.id, status_of(row))
            family = row_of(session, row.parent_id) if row.parent_id else row
            stages = stage_rows(session, family.id)
            ended = [member for member in [family, *stages] if member.status in ("failed", "cancelled")]
            check_outputs_free(session, ended)
            for member in ended:
                _requeue(session, member, now)
            for stage in stages[-1:]:
                settle(session, stage, now)
            return show(session, row)

    def dispatchable(self, limit: int = 100) -> list[Job]:
        """Queued jobs whose turn it is and whose message has not been sent, the most urgent first."""
        return self._ready(JobRow.dispatched_at.is_(None), limit)

    def undelivered(self, sent_before: float, limit: int = 100) -> list[Job]:
        """Queued jobs whose message was sent before that time (Unix seconds) and has started nothing."""
        return self._ready(JobRow.dispatched_at < sent_before, limit)

    def mark_dispatched(self, job_id: str) -> None:
        now = self._clock()
        with self._database.write() as session:
            row = lock(session, job_id)
            if row.status == "queued":
                row.dispatched_at = now

    def count_by_status(self) -> dict[str, int]:
        query = select(JobRow.status, func.count()).group_by(JobRow.status)
        with self._database.read() as session:
            return dict(session.execute(query).all())

    def waiting(self) -> Waiting:
        """What a worker could take now: neither pipelines nor stages behind one that has not succeeded."""
        query = select(JobRow.queued_at, _PREDECESSOR.finished_at).outerjoin(_PREDECESSOR, _IS_PREDECESSOR)
        with self._database.read() as session:
            since = [turn_came_at(*times) for times in session.execute(query.where(_IS_READY))]
        oldest_s = max(0.0, self._clock() - min(since)) if since else 0.0
        return Waiting(num_jobs=len(since), oldest_s=oldest_s)

    def _ready(self, condition: ColumnElement[bool], limit: int) -> list[Job]:
        query = (
            select(JobRow)
            .outerjoin(_PREDECESSOR, _IS_PREDECESSOR)
            .where(_IS_READY, condition)
            .order_by(JobRow.priority.desc(), JobRow.created_at, JobRow.id)
            .limit(limit)
        )
        with self._database.read() as session:
            return [to_job(row) for row in session.scalars(query)]


_PREDECESSOR = aliased(JobRow)
_IS_PREDECESSOR = JobRow.predecessor_id == _PREDECESSOR.id
_IS_READY = and_(
    JobRow.status == "queued",
    JobRow.kind != "pipeline",
    or_(JobRow.predecessor_id.is_(None), _PREDECESSOR.status == "succeeded"),
)


def _requeue(session: Session, row: JobRow, now: float) -> None:
    row.failures = 0
    row.cancel_requested = False
    row.started_at = None  # the deadline begins anew
    move(session, row, "queued", now)


def _digest(spec: JobSpec) -> str:
    return hashlib.sha256(json.dumps(spec.model_dump(), sort_keys=True).encode()).hexdigest()


def _submitted_with(session: Session, key: str, digest: str) -> JobRow | None:
    """The job that was submitted with this key. Raises Conflict when its spec was another one."""
    earlier = session.get(IdempotencyKeyRow, key)
    if earlier is None:
        return None
    if earlier.body_sha256 != digest:
        raise Conflict(
            f"Idempotency-Key {key!r} was used for job {earlier.job_id} with another body; use a new key.",
            param="Idempotency-Key",
        )
    return row_of(session, earlier.job_id)


def _older_than(row: JobRow) -> ColumnElement[bool]:
    same_time = and_(JobRow.created_at == row.created_at, JobRow.id < row.id)
    return or_(JobRow.created_at < row.created_at, same_time)
