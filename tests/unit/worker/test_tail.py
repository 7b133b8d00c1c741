from pathlib import Path

from nanochat.protocol.progress import CheckpointWritten, Metric, Progress, Result, Sample
from nanochat_worker.tail import ProgressTail, report


def progress(step: int) -> Progress:
    return Progress(time=float(step), step=step, num_steps=10)


def append(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)


def test_lines_are_read_once_and_only_when_whole(tmp_path: Path) -> None:
    path = tmp_path / "progress.jsonl"
    tail = ProgressTail(path, 0)
    assert tail.read() == []
    line = progress(1).model_dump_json()
    append(path, line[:10])
    assert tail.read() == []
    append(path, line[10:] + "\n")
    assert tail.read() == [progress(1)]
    assert tail.read() == []
    assert tail.offset == path.stat().st_size


def test_reading_begins_at_the_offset(tmp_path: Path) -> None:
    path = tmp_path / "progress.jsonl"
    append(path, progress(1).model_dump_json() + "\n")
    tail = ProgressTail(path, path.stat().st_size)
    append(path, progress(2).model_dump_json() + "\n")
    assert tail.read() == [progress(2)]


def test_a_line_that_cannot_be_read_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "progress.jsonl"
    append(path, f'{{"type": "progress"\n\xff\n\n{progress(3).model_dump_json()}\n')
    assert ProgressTail(path, 0).read() == [progress(3)]


def test_a_half_written_line_costs_itself_and_not_the_next_one(tmp_path: Path) -> None:
    path = tmp_path / "progress.jsonl"
    append(path, '{"type": "prog')
    tail = ProgressTail(path, 0)
    assert tail.read() == []
    tail.mend()
    append(path, progress(4).model_dump_json() + "\n")
    assert tail.read() == [progress(4)]


def test_values_that_are_no_numbers_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "progress.jsonl"
    append(path, '{"type": "metric", "time": 1, "step": 2, "values": {"a": NaN, "b": 1.5}}\n')
    (line,) = ProgressTail(path, 0).read()
    assert isinstance(line, Metric)
    assert line.values == {"b": 1.5}


def test_a_report_holds_every_metric_but_only_the_newest_progress() -> None:
    metrics = [Metric(time=0.0, step=step, values={"a": 1.0}) for step in (1, 2)]
    checkpoints = [CheckpointWritten(time=0.0, step=step, checkpoint=f"r/s/step_00000{step}") for step in (1, 2)]
    lines = [progress(1), *metrics, *checkpoints, progress(2), Result(time=0.0, output=None)]
    told = report(lines, 99)
    assert told.progress == progress(2)
    assert told.metrics == metrics
    assert told.checkpoint == "r/s/step_000002"
    assert told.offset == 99


def test_what_only_a_report_reads_passes_the_worker_by(tmp_path: Path) -> None:
    sample = Sample(time=1.0, step=3, prompt="Hello", text="<script>")
    append(tmp_path / "p.jsonl", sample.model_dump_json() + "\n")
    tail = ProgressTail(tmp_path / "p.jsonl", 0)
    lines = tail.read()
    assert lines == [sample]
    told = report(lines, tail.offset)
    assert (told.progress, list(told.metrics), told.checkpoint) == (None, [], None)
