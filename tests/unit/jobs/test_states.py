from itertools import product

import pytest

from nanochat.errors import Conflict
from nanochat.jobs.states import (
    TRANSITIONS,
    check_cancel,
    check_retry,
    is_final,
    may_follow,
    pipeline_status,
    requeues_after_loss,
)
from nanochat.protocol.jobs import JobStatus


def test_a_final_status_is_left_only_by_retry() -> None:
    for status in TRANSITIONS:
        if is_final(status):
            assert TRANSITIONS[status] <= {"queued"}
    assert TRANSITIONS["succeeded"] == frozenset()


def test_only_a_queued_job_starts_running() -> None:
    assert [status for status in TRANSITIONS if may_follow(status, "running")] == ["queued"]


@pytest.mark.parametrize("status", ["succeeded", "failed"])
def test_what_has_ended_cannot_be_cancelled(status: JobStatus) -> None:
    with pytest.raises(Conflict, match="already"):
        check_cancel("job_1", status)


def test_cancelling_twice_is_no_mistake() -> None:
    check_cancel("job_1", "cancelled")


@pytest.mark.parametrize("status", ["queued", "running", "succeeded"])
def test_only_failed_and_cancelled_jobs_are_retried(status: JobStatus) -> None:
    with pytest.raises(Conflict, match="only a failed or cancelled"):
        check_retry("job_1", status)


def test_a_lost_job_is_queued_again_while_attempts_are_left() -> None:
    assert [requeues_after_loss(failures, 3) for failures in (1, 2, 3)] == [True, True, False]


@pytest.mark.parametrize(
    ("stages", "expected"),
    [
        (["queued", "queued"], "queued"),
        (["running", "queued"], "running"),
        (["succeeded", "queued"], "running"),
        (["succeeded", "succeeded"], "succeeded"),
        (["succeeded", "failed"], "failed"),
        (["failed", "running"], "running"),
        (["succeeded", "cancelled"], "cancelled"),
        (["failed", "cancelled"], "failed"),
    ],
)
def test_a_pipeline_is_what_its_stages_make_of_it(stages: list[JobStatus], expected: JobStatus) -> None:
    assert pipeline_status(stages) == expected


def test_a_pipeline_of_any_stages_has_a_status() -> None:
    for stages in product(TRANSITIONS, repeat=3):
        assert pipeline_status(stages) in TRANSITIONS
