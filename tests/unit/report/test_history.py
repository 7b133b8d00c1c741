"""What one job has said, with restarts, half lines and late words."""

import pytest

from nanochat.report.history import Curves, read_history
from tests.unit.report.conftest import Home, failure, metric, progress, setup, training


def test_metrics_are_curves_and_so_is_the_speed(made: Home) -> None:
    history = read_history(made.path, made.job("pretrain", "r", training()))
    assert history.curves.points("val_bpb") == [(0, 2.0), (5, 1.95), (10, 1.9)]
    assert history.curves.points("tokens_per_second")[-1] == (10, 60.0)
    assert len(history.curves.points("train_loss")) == 10
    assert history.status == "succeeded"
    assert history.seconds == 100


def test_what_was_lost_by_a_restart_is_cut_out_and_the_time_between_attempts_is_not_counted(made: Home) -> None:
    lines = [*training(0, 8, ends=[]), *training(6, 10, start=50_000.0)]
    history = read_history(made.path, made.job("pretrain", "r", lines))
    losses = history.curves.points("train_loss")
    assert [step for step, _ in losses] == list(range(10))
    assert history.seconds == 80 + 40
    assert history.status == "succeeded"


def test_a_half_written_last_line_costs_itself_alone(made: Home) -> None:
    spec = made.job("pretrain", "r", training(0, 4, ends=[]))
    with (made.folder(spec) / "progress.jsonl").open("ab") as file:
        file.write(b'\xff not a line\n{"type": "metric", "time": 1.0, "ste')
    history = read_history(made.path, spec)
    assert history.status == "unfinished"
    assert history.progress is not None and history.progress.step == 4


def test_a_word_after_the_failure_does_not_hide_it(made: Home) -> None:
    lines = [setup(0.0), progress(1.0, 1), failure(2.0), progress(3.0, 2)]
    assert read_history(made.path, made.job("pretrain", "r", lines)).status == "failed"


def test_an_attempt_after_a_failure_counts(made: Home) -> None:
    again = read_history(made.path, made.job("pretrain", "r", [setup(0.0), failure(2.0), setup(90.0)]))
    assert (again.status, again.seconds) == ("unfinished", 2.0)
    without_setup = [progress(0.0, 1), failure(2.0), progress(90.0, 1), progress(95.0, 2)]
    tokenizer = read_history(made.path, made.job("tokenizer", "t", without_setup))
    assert (tokenizer.status, tokenizer.seconds) == ("unfinished", 7.0)


def test_a_job_without_a_word_has_not_started(made: Home) -> None:
    spec = made.job("sft", "r", [])
    (made.folder(spec) / "progress.jsonl").unlink()
    assert read_history(made.path, spec).status == "not started"


@pytest.mark.parametrize(("step", "expected"), [(1, [(1, 9.0), (5, 0.5)]), (5, [(5, 9.0)]), (7, [(5, 0.5), (7, 9.0)])])
def test_an_inserted_value_takes_the_place_of_its_step_alone(step: int, expected: list[tuple[float, float]]) -> None:
    curves = Curves()
    curves.extend(5, {"a": 0.5})
    curves.insert(step, {"a": 9.0})
    assert curves.points("a") == expected
    assert curves.newest() == {"a": expected[-1][1]}


def test_a_metric_nobody_knows_is_kept(made: Home) -> None:
    history = read_history(made.path, made.job("rl", "r", [metric(0.0, 3, strange_thing=1.5)]))
    assert history.curves.points("strange_thing") == [(3, 1.5)]


def test_after_a_restart_nothing_is_told_of_steps_that_are_still_to_come_again(made: Home) -> None:
    lines = [*training(0, 8, ends=[]), *training(4, 6, start=50_000.0, ends=[])]
    history = read_history(made.path, made.job("pretrain", "r", lines))
    assert history.curves.points("train_loss")[-1][0] == 5
    assert history.curves.points("tokens_per_second")[-1] == (6, 56.0)
