"""Jobs with their events and idempotency keys; models, replicas, workers."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "jobs",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("config", sa.JSON(), nullable=False),
        sa.Column("num_processes", sa.Integer(), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("max_attempts", sa.Integer(), nullable=False),
        sa.Column("deadline_s", sa.Double()),
        sa.Column("parent_id", sa.String(64), sa.ForeignKey("jobs.id")),
        sa.Column("predecessor_id", sa.String(64), sa.ForeignKey("jobs.id")),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("cancel_requested", sa.Boolean(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("queued_at", sa.Double(), nullable=False),
        sa.Column("dispatched_at", sa.Double()),
        sa.Column("started_at", sa.Double()),
        sa.Column("finished_at", sa.Double()),
        sa.Column("worker", sa.String(200)),
        sa.Column("lease_token", sa.String(64)),
        sa.Column("lease_expires_at", sa.Double()),
        sa.Column("progress", sa.JSON(), nullable=False),
        sa.Column("progress_offset", sa.BigInteger(), nullable=False),
        sa.Column("metrics", sa.JSON(), nullable=False),
        sa.Column("checkpoint", sa.Text()),
        sa.Column("output", sa.Text()),
        sa.Column("error", sa.JSON()),
        sa.Column("last_event", sa.Integer(), nullable=False),
    )
    op.create_index("jobs_by_status", "jobs", ["status", "priority", "created_at"])
    op.create_index("jobs_by_parent", "jobs", ["parent_id", "position"])
    op.create_index("jobs_by_age", "jobs", ["created_at", "id"])
    op.create_table(
        "job_events",
        sa.Column("job_id", sa.String(64), sa.ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("number", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("type", sa.String(16), nullable=False),
        sa.Column("time", sa.Double(), nullable=False),
        sa.Column("data", sa.JSON(), nullable=False),
    )
    op.create_table(
        "idempotency_keys",
        sa.Column("key", sa.String(255), primary_key=True),
        sa.Column("body_sha256", sa.String(64), nullable=False),
        sa.Column("job_id", sa.String(64), sa.ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
    )
    op.create_table(
        "models",
        sa.Column("name", sa.String(100), primary_key=True),
        sa.Column("checkpoint", sa.Text(), nullable=False),
        sa.Column("previous", sa.Text()),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("promoted_at", sa.Double(), nullable=False),
    )
    op.create_table(
        "replicas",
        sa.Column("id", sa.String(200), primary_key=True),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("checkpoint", sa.Text()),
        sa.Column("error", sa.Text()),
        sa.Column("heartbeat_at", sa.Double(), nullable=False),
    )
    op.create_table(
        "workers",
        sa.Column("id", sa.String(200), primary_key=True),
        sa.Column("started_at", sa.Double(), nullable=False),
        sa.Column("heartbeat_at", sa.Double(), nullable=False),
    )


def downgrade() -> None:
    for table in ("workers", "replicas", "models", "idempotency_keys", "job_events", "jobs"):
        op.drop_table(table)
