"""What the end of a run means for its job. Pure.

torchrun ends with 1 whatever happened to its ranks and writes their exit status into the log, so it is read there.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Literal

from nanochat.protocol.jobs import JobError
from nanochat.protocol.progress import Failure, Result

EXIT_STOPPED = 75  # a recipe's "I have saved what I can: run me again"
SIGKILL = 9
_RANK_EXIT = re.compile(r"exitcode\s*:\s*(-?\d+)\s*\(pid")


class StopReason(Enum):
    """Why the worker ended the run, if it did."""

    CANCELLED = "cancelled"
    DEADLINE = "deadline"
    WORKER_STOPS = "worker_stops"


@dataclass(frozen=True, kw_only=True)
class Ending:
    """All that is known of a run that has ended. `exit_code` is torchrun's as the supervisor gives it on."""

    exit_code: int
    stop_reason: StopReason | None
    failure: Failure | None
    result: Result | None
    log_tail: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """`requeued` goes back to the queue; `is_failure` says whether that uses up an attempt."""

    status: Literal["succeeded", "failed", "cancelled", "requeued"]
    error: JobError | None = None
    is_failure: bool = False


def judge(ending: Ending) -> Outcome:
    if ending.result is not None and ending.exit_code == 0:
        return Outcome(status="succeeded")  # even if it was to be stopped: the work is done
    if ending.stop_reason is StopReason.CANCELLED:
        return Outcome(status="cancelled")
    if ending.stop_reason is StopReason.DEADLINE:
        message = (
            "the job did not end within its deadline_s and was stopped. Retry it to go on from its last checkpoint."
        )
        return _failed(ending, "deadline_exceeded", message)
    if ending.failure is not None:
        return _failed(ending, ending.failure.code, ending.failure.message)
    if ending.stop_reason is StopReason.WORKER_STOPS:
        return Outcome(status="requeued")
    return _judge_exit(ending)


def _judge_exit(ending: Ending) -> Outcome:
    """Nobody asked it to end, and the recipe did not say why it did."""
    code = rank_exit_code(ending)
    if code == EXIT_STOPPED:  # somebody else's SIGTERM; counted, or a recipe that always does this would run for ever
        return Outcome(status="requeued", is_failure=True)
    if code == 0:
        return _failed(ending, "exit_code", "the run ended with status 0 without saying what it made; see the log.")
    if code in (-SIGKILL, 128 + SIGKILL):
        message = (
            f"a process of the run was killed by SIGKILL (exit code {code}), most often because the machine ran out of "
            "memory. Lower device_batch_size, max_seq_len or depth, and retry."
        )
        return _failed(ending, "out_of_memory", message)
    how = f"by signal {-code if code < 0 else code - 128}" if code < 0 or code > 128 else f"with exit code {code}"
    return _failed(ending, "exit_code", f"the run ended {how} and gave no reason; see the log's last lines.")


def rank_exit_code(ending: Ending) -> int:
    """The exit code of the rank that ended first, from torchrun's report; its own where there is none."""
    found = _RANK_EXIT.findall("\n".join(ending.log_tail))
    return int(found[-1]) if found else ending.exit_code


def _failed(ending: Ending, code: str, message: str) -> Outcome:
    return Outcome(status="failed", error=JobError(code=code, message=message, log_tail=list(ending.log_tail)))
