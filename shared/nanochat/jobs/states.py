"""Which status may follow which. Pure: no clock, no database.

    queued ──> running ──> succeeded
      │  ^        │ │
      │  └────────┘ ├────> failed ─────┐ retry
      └─────────────┴────> cancelled ──┴──> queued

running -> queued is a worker that stopped or was lost; queued -> failed is a stage whose predecessor failed.
"""

from collections.abc import Sequence

from nanochat.errors import Conflict
from nanochat.protocol.jobs import FINAL_STATUSES, JobStatus

TRANSITIONS: dict[JobStatus, frozenset[JobStatus]] = {
    "queued": frozenset({"running", "failed", "cancelled"}),
    "running": frozenset({"queued", "succeeded", "failed", "cancelled"}),
    "succeeded": frozenset(),
    "failed": frozenset({"queued"}),
    "cancelled": frozenset({"queued"}),
}


def may_follow(current: JobStatus, target: JobStatus) -> bool:
    return target in TRANSITIONS[current]


def is_final(status: JobStatus) -> bool:
    return status in FINAL_STATUSES


def check_cancel(job_id: str, status: JobStatus) -> None:
    """Raises Conflict for a job that has already ended otherwise. Cancelling twice is no mistake."""
    if status in ("succeeded", "failed"):
        raise Conflict(f"job {job_id} has already {status}; only a queued or running job can be cancelled.")


def check_retry(job_id: str, status: JobStatus) -> None:
    """Raises Conflict unless the job has failed or was cancelled."""
    if status not in ("failed", "cancelled"):
        found = f"has {status}" if status == "succeeded" else f"is {status}"
        raise Conflict(f"job {job_id} {found}; only a failed or cancelled job can be retried.")


def requeues_after_loss(failures: int, max_attempts: int) -> bool:
    """Whether a job whose worker was lost goes back to the queue. `failures` includes this one."""
    return failures < max_attempts


def turn_came_at(queued_at: float, predecessor_finished_at: float | None) -> float:
    """Since when a queued job could run: a stage is queued with its pipeline, long before its turn."""
    return max(queued_at, predecessor_finished_at or queued_at)


def pipeline_status(stages: Sequence[JobStatus]) -> JobStatus:
    """What a pipeline's stages, in order, make of it. A stage that runs on is waited for, whatever the others say."""
    if "running" in stages:
        return "running"
    if "failed" in stages:
        return "failed"
    if "cancelled" in stages:
        return "cancelled"
    if all(status == "succeeded" for status in stages):
        return "succeeded"
    return "running" if "succeeded" in stages else "queued"
