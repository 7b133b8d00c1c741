"""The rows of the database: jobs, their events, served models, replicas, workers.

Times are Unix seconds, as everywhere in the API. A new column or table needs a migration (migrations/versions), and
SCHEMA_REVISION names the newest one.
"""

from typing import Any, ClassVar

from sqlalchemy import JSON, BigInteger, ForeignKey, Index, String, Text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

SCHEMA_REVISION = "0001"


class Base(DeclarativeBase):
    type_annotation_map: ClassVar[dict[Any, Any]] = {dict[str, Any]: JSON}


class JobRow(Base):
    """One job. A pipeline is a row too (never claimed); its stages name it as parent and each other as predecessor."""

    __tablename__ = "jobs"
    __table_args__ = (
        Index("jobs_by_status", "status", "priority", "created_at"),
        Index("jobs_by_parent", "parent_id", "position"),
        Index("jobs_by_age", "created_at", "id"),
    )

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    kind: Mapped[str] = mapped_column(String(32))
    name: Mapped[str] = mapped_column(String(100))
    config: Mapped[dict[str, Any]]
    num_processes: Mapped[int]
    priority: Mapped[int]
    max_attempts: Mapped[int]
    deadline_s: Mapped[float | None]
    parent_id: Mapped[str | None] = mapped_column(ForeignKey("jobs.id"))
    predecessor_id: Mapped[str | None] = mapped_column(ForeignKey("jobs.id"))
    position: Mapped[int] = mapped_column(default=0)  # of a stage within its pipeline

    status: Mapped[str] = mapped_column(String(16))
    cancel_requested: Mapped[bool] = mapped_column(default=False)
    attempt: Mapped[int] = mapped_column(default=0)  # runs begun; over 1 means resume
    failures: Mapped[int] = mapped_column(default=0)  # runs lost since the last retry, against max_attempts
    created_at: Mapped[float]
    queued_at: Mapped[float]
    dispatched_at: Mapped[float | None]  # when its message was last sent
    started_at: Mapped[float | None]
    finished_at: Mapped[float | None]

    # Who runs it. The token changes with each claim, so that a worker that lost its lease can write nothing more.
    worker: Mapped[str | None] = mapped_column(String(200))
    lease_token: Mapped[str | None] = mapped_column(String(64))
    lease_expires_at: Mapped[float | None]

    progress: Mapped[dict[str, Any]]
    progress_offset: Mapped[int] = mapped_column(BigInteger, default=0)  # bytes of progress.jsonl already recorded
    metrics: Mapped[dict[str, Any]]
    checkpoint: Mapped[str | None] = mapped_column(Text)
    output: Mapped[str | None] = mapped_column(Text)
    error: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    last_event: Mapped[int] = mapped_column(default=0)


class JobEventRow(Base):
    """What happened to a job, numbered from 1 within it; the number is the id of the server-sent event."""

    __tablename__ = "job_events"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    type: Mapped[str] = mapped_column(String(16))
    time: Mapped[float]
    data: Mapped[dict[str, Any]]


class IdempotencyKeyRow(Base):
    """A submission's key: the same key with the same body answers with the same job."""

    __tablename__ = "idempotency_keys"

    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    body_sha256: Mapped[str] = mapped_column(String(64))
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    created_at: Mapped[float]


class ModelRow(Base):
    """Which checkpoint is to be served under a name. `generation` grows with every change."""

    __tablename__ = "models"

    name: Mapped[str] = mapped_column(String(100), primary_key=True)
    checkpoint: Mapped[str] = mapped_column(Text)
    previous: Mapped[str | None] = mapped_column(Text)
    generation: Mapped[int]
    promoted_at: Mapped[float]


class ReplicaRow(Base):
    """What an inference process says of itself about once a second."""

    __tablename__ = "replicas"

    id: Mapped[str] = mapped_column(String(200), primary_key=True)
    name: Mapped[str] = mapped_column(String(100))
    checkpoint: Mapped[str | None] = mapped_column(Text)
    error: Mapped[str | None] = mapped_column(Text)
    heartbeat_at: Mapped[float]


class WorkerRow(Base):
    """What a worker says of itself every few seconds."""

    __tablename__ = "workers"

    id: Mapped[str] = mapped_column(String(200), primary_key=True)
    started_at: Mapped[float]
    heartbeat_at: Mapped[float]
