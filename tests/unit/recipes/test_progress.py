"""The lines of progress.jsonl, with a clock that the test moves."""

from pathlib import Path

import pytest

from nanochat.protocol.progress import (
    Line,
    Metric,
    Progress,
    Sample,
    Setup,
    progress_line,
    readable_lines,
)
from nanochat.recipes.progress import ProgressWriter


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def read(path: Path) -> list[Line]:
    return [progress_line.validate_json(line) for line in path.read_text().splitlines()]


def test_every_line_can_be_read_as_soon_as_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "jobs" / "job_1" / "progress.jsonl"
    writer = ProgressWriter(path)
    writer.progress(0, 10)
    writer.metrics(1, {"train_loss": 2.5})
    writer.checkpoint(5, "run/pretrain/step_000005")
    writer.failure("data_error", "no text")
    writer.result("run/pretrain/step_000010", {"val_bpb": 1.0})
    assert [line.type for line in read(path)] == ["progress", "metric", "checkpoint", "failure", "result"]
    writer.close()


def test_a_second_attempt_appends(tmp_path: Path) -> None:
    for step in (1, 2):
        with ProgressWriter(tmp_path / "progress.jsonl") as writer:
            writer.progress(step, 10, force=True)
    assert [line.step for line in read(tmp_path / "progress.jsonl") if isinstance(line, Progress)] == [1, 2]


def test_progress_is_written_once_a_second_and_at_the_end(tmp_path: Path) -> None:
    clock = Clock()
    with ProgressWriter(tmp_path / "p.jsonl", clock) as writer:
        for step in range(31):
            writer.progress(step, 30)
            clock.now += 0.3
    steps = [line.step for line in read(tmp_path / "p.jsonl") if isinstance(line, Progress)]
    assert steps == [0, 4, 8, 12, 16, 20, 24, 28, 30]


def test_speed_and_time_left_leave_out_pauses(tmp_path: Path) -> None:
    clock = Clock()
    with ProgressWriter(tmp_path / "p.jsonl", clock) as writer:
        writer.progress(0, 100, tokens=0)
        clock.now = 2.0
        writer.progress(4, 100, tokens=4000)
        clock.now = 50.0  # an evaluation
        writer.paused()
        writer.progress(4, 100, tokens=4000)
        clock.now = 52.0
        writer.progress(8, 100, tokens=8000)
    lines = [line for line in read(tmp_path / "p.jsonl") if isinstance(line, Progress)]
    assert lines[0].eta_s is None and lines[0].tokens_per_second == 0
    assert lines[-1].tokens_per_second == pytest.approx(2000)
    assert lines[-1].eta_s == pytest.approx(92 * 0.5)


def test_a_run_of_less_than_a_second_has_a_speed_too(tmp_path: Path) -> None:
    clock = Clock()
    with ProgressWriter(tmp_path / "p.jsonl", clock) as writer:
        for step in range(5):
            writer.progress(step, 4, tokens=100 * step)
            if step == 0:
                clock.now += 0.5  # compiling, say
                writer.paused()
            else:
                clock.now += 0.1
    lines = [line for line in read(tmp_path / "p.jsonl") if isinstance(line, Progress)]
    assert [line.step for line in lines] == [0, 4]
    assert lines[-1].tokens_per_second == pytest.approx(1000)


def test_values_that_are_not_finite_are_left_out(tmp_path: Path) -> None:
    with ProgressWriter(tmp_path / "p.jsonl") as writer:
        writer.metrics(1, {"train_loss": float("nan"), "val_bpb": 2.0})
        writer.metrics(2, {"train_loss": float("inf")})
    (line,) = read(tmp_path / "p.jsonl")
    assert isinstance(line, Metric) and line.values == {"val_bpb": 2.0}


def test_a_sample_is_of_the_step_that_was_told_last_or_of_the_one_it_names(tmp_path: Path) -> None:
    with ProgressWriter(tmp_path / "p.jsonl", Clock()) as writer:
        writer.progress(3, 10)
        writer.progress(4, 10)  # not written, as a second has not gone by
        writer.sample("Hello", "<b>\n")
        writer.sample("Hello", "", step=9)
    found = [line for line in readable_lines(tmp_path / "p.jsonl") if isinstance(line, Sample)]
    assert [(sample.step, sample.text) for sample in found] == [(4, "<b>\n"), (9, "")]


def test_setups_of_earlier_versions_are_read(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text(
        '{"type":"setup","time":1.0,"device":"cpu","precision":"fp32","attention":"sdpa","window_attention":"none"}\n'
        '{"type":"progress","time":2.0,"st'
    )
    (setup,) = readable_lines(path)
    assert isinstance(setup, Setup) and setup.environment is None
    assert not list(readable_lines(tmp_path / "none.jsonl"))
