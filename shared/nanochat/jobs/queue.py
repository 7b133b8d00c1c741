"""The names and options by which trainer and worker meet on the broker; no Celery in here.

A message carries a job's id and nothing else. Losing one delays a job until the reconciler sends it again.
"""

from typing import Any

QUEUE = "nanochat"
RUN_JOB = "nanochat.run_job"

# Redis delivers an unacknowledged message again after this time, and the shortest value among all clients of the
# broker wins, so both sides take it from here. Longer than any job: a second delivery would be a no-op (the claim
# is in the database), but would take the worker's slot for a moment.
VISIBILITY_TIMEOUT_S = 14 * 24 * 3600

BROKER_TRANSPORT_OPTIONS: dict[str, Any] = {
    "visibility_timeout": VISIBILITY_TIMEOUT_S,
    "priority_steps": list(range(10)),
    "queue_order_strategy": "priority",
    "socket_timeout": 10.0,
    "socket_connect_timeout": 5.0,
    "socket_keepalive": True,
}


def broker_priority(priority: int) -> int:
    """Redis takes the smallest number first; a job's priority is the other way round. Both run 0-9."""
    return 9 - priority
