import pytest

from nanochat.protocol.progress import Failure, Result
from nanochat_worker.outcome import Ending, Outcome, StopReason, judge

RESULT = Result(time=0.0, output="t")
FAILURE = Failure(time=0.0, code="data_error", message="a broken shard")
REPORT = ["Root Cause (first observed failure):", "  exitcode  : {} (pid: 77)"]


def ending(
    exit_code: int = 1,
    *,
    stop_reason: StopReason | None = None,
    failure: Failure | None = None,
    result: Result | None = None,
    rank_code: int | None = None,
) -> Outcome:
    log = ["some words"] if rank_code is None else [line.format(rank_code) for line in REPORT]
    return judge(Ending(exit_code=exit_code, stop_reason=stop_reason, failure=failure, result=result, log_tail=log))


@pytest.mark.parametrize("stop_reason", [None, *StopReason])
def test_a_run_that_gave_its_result_has_succeeded_even_if_it_was_to_be_stopped(stop_reason: StopReason | None) -> None:
    assert ending(0, result=RESULT, stop_reason=stop_reason).status == "succeeded"


def test_a_result_before_a_crash_does_not_count() -> None:
    assert ending(1, result=RESULT).status == "failed"


def test_status_zero_without_a_result_is_a_failure() -> None:
    outcome = ending(0)
    assert outcome.error is not None
    assert "without saying what it made" in outcome.error.message


def test_a_cancelled_run_is_cancelled_however_it_ended() -> None:
    assert ending(1, stop_reason=StopReason.CANCELLED, failure=FAILURE).status == "cancelled"


def test_a_run_that_its_worker_stopped_goes_back_to_the_queue_for_free() -> None:
    outcome = ending(1, stop_reason=StopReason.WORKER_STOPS, rank_code=75)
    assert (outcome.status, outcome.is_failure) == ("requeued", False)


def test_a_run_that_failed_while_its_worker_stopped_has_failed() -> None:
    assert ending(1, stop_reason=StopReason.WORKER_STOPS, failure=FAILURE).status == "failed"


def test_a_run_that_somebody_else_stopped_goes_back_to_the_queue_and_is_counted() -> None:
    outcome = ending(1, rank_code=75)
    assert (outcome.status, outcome.is_failure) == ("requeued", True)


def test_the_recipes_own_word_is_the_error() -> None:
    outcome = ending(1, failure=FAILURE, rank_code=1)
    assert outcome.error is not None
    assert (outcome.error.code, outcome.error.message) == ("data_error", "a broken shard")
    assert outcome.error.log_tail


@pytest.mark.parametrize(("exit_code", "rank_code"), [(1, -9), (1, 137), (137, None), (-9, None)])
def test_sigkill_is_called_out_of_memory(exit_code: int, rank_code: int | None) -> None:
    outcome = ending(exit_code, rank_code=rank_code)
    assert outcome.error is not None
    assert outcome.error.code == "out_of_memory"
    assert "device_batch_size" in outcome.error.message


@pytest.mark.parametrize(
    ("exit_code", "rank_code", "words"),
    [(1, None, "with exit code 1"), (1, 3, "with exit code 3"), (1, -11, "by signal 11"), (139, None, "by signal 11")],
)
def test_any_other_end_says_its_code(exit_code: int, rank_code: int | None, words: str) -> None:
    outcome = ending(exit_code, rank_code=rank_code)
    assert outcome.error is not None
    assert outcome.error.code == "exit_code"
    assert words in outcome.error.message


def test_a_deadline_is_told() -> None:
    outcome = ending(1, stop_reason=StopReason.DEADLINE, rank_code=75)
    assert outcome.error is not None
    assert outcome.error.code == "deadline_exceeded"
