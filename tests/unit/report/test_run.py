"""Which jobs and checkpoints are a run's, and which are not."""

from pathlib import Path

import pytest

from nanochat.errors import InvalidConfig, NotFound
from nanochat.protocol.progress import Result
from nanochat.report.run import read_run
from tests.unit.report.conftest import Home, metric, progress, sample, setup, training


def judged(step: int, **values: float) -> list[object]:
    return [progress(5000.0, 0), metric(5001.0, step, **values), Result(time=5002.0, output=None)]


@pytest.fixture
def family(made: Home) -> Home:
    """Run chat, fine-tuned from run base; each was judged. Others do the same beside them."""
    home = str(made.path)
    made.job("tokenizer", "words", [progress(1.0, 1), metric(2.0, 1, bytes_per_token=4.0)], dataset="d")
    made.job("tokenizer", "other", [progress(1.0, 1)], dataset="d")
    for run in ("base", "elsewhere"):
        made.job(
            "pretrain", run, training(), run=run, tokenizer=f"{home}/tokenizers/words/tokenizer.json", dataset="/far/d"
        )
        made.checkpoint(run, "pretrain", 10, metrics={"val_bpb": 1.9}, tokens=1000)
        folder = f"{home}/checkpoints/{run}/pretrain/step_000010"
        made.job("evaluate", f"judge-{run}", judged(10, core_metric=0.2, val_bpb=1.8), checkpoint=folder)  # type: ignore[arg-type]
    made.job("sft", "chat", training(), run="chat", checkpoint=f"{home}/checkpoints/base/pretrain/step_000010")
    made.job(
        "evaluate", "judge-chat", judged(10, spelling_accuracy=0.5, val_bpb=3.0), checkpoint="chat/sft/step_000010"
    )  # type: ignore[arg-type]
    return made


def test_a_run_is_its_stages_and_what_they_are_built_on(family: Home) -> None:
    run = read_run(family.path, "chat")
    assert [stage.name for stage in run.stages] == ["base/pretrain", "chat/sft"]
    assert run.stages[1].base == "base/pretrain/step_000010"
    assert {job.spec.name for job in run.jobs} == {"words", "base", "judge-base", "chat", "judge-chat"}
    assert run.tokenizer is not None and run.tokenizer.spec.name == "words"


def test_a_base_is_told_nothing_of_what_was_built_on_it(family: Home) -> None:
    run = read_run(family.path, "base")
    assert {job.spec.name for job in run.jobs} == {"words", "base", "judge-base"}


def test_judgements_join_the_curves_at_their_checkpoints_step(family: Home) -> None:
    base, chat = read_run(family.path, "chat").stages
    assert base.curves().points("val_bpb") == [(0, 2.0), (5, 1.95), (10, 1.8)]
    # Of conversations while it trained, of text when it was judged: not one curve.
    assert chat.curves().newest()["val_bpb"] == 1.9
    assert chat.curves().newest()["text_bpb"] == 3.0
    assert chat.curves().newest()["spelling_accuracy"] == 0.5


def test_a_home_that_was_moved_is_read_as_before(family: Home, tmp_path: Path) -> None:
    moved = tmp_path.with_name(tmp_path.name + "-moved")
    family.path.rename(moved)
    run = read_run(moved, "chat")
    assert {job.spec.name for job in run.jobs} == {"words", "base", "judge-base", "chat", "judge-chat"}


def test_a_pipeline_that_has_only_begun_is_its_tokenizer(made: Home) -> None:
    made.job("tokenizer", "demo-1", [progress(1.0, 3)], dataset="d")
    run = read_run(made.path, "demo-1")
    assert not run.stages
    assert [job.spec.kind for job in run.jobs] == ["tokenizer"]


def test_a_run_by_hand_goes_by_its_jobs_name_and_a_checkpoint_alone_is_a_run(made: Home) -> None:
    made.job("pretrain", "byhand", training(0, 3, ends=[]))
    assert read_run(made.path, "byhand").stages[0].status == "unfinished"
    made.checkpoint("imported", "sft", 7, metrics={"val_bpb": 0.8})
    (stage,) = read_run(made.path, "imported").stages
    assert (stage.status, stage.curves().newest()) == ("succeeded", {"val_bpb": 0.8})


def test_a_job_that_goes_on_with_a_run_continues_its_curves(made: Home) -> None:
    made.job("pretrain", "a", training(0, 6, ends=[]), run="r")
    made.job("pretrain", "b", training(5, 10, start=9000.0), run="r", resume=True)
    (stage,) = read_run(made.path, "r").stages
    assert [step for step, _ in stage.curves().points("train_loss")] == list(range(10))
    assert stage.status == "succeeded"


def test_samples_are_the_newest_and_those_of_judges_first(made: Home) -> None:
    lines = [setup(0.0), sample(1.0, 5, "p", "early"), sample(2.0, 10, "p", "late"), sample(2.0, 10, "q", "late too")]
    made.job("pretrain", "r", lines)
    assert [s.text for s in read_run(made.path, "r").stages[0].samples] == ["late", "late too"]
    made.job("evaluate", "j", [sample(9.0, 10, "p", "judged")], checkpoint="r/pretrain/step_000010")
    assert [s.text for s in read_run(made.path, "r").stages[0].samples] == ["judged"]


def test_specs_that_name_each_other_in_a_circle_end(made: Home) -> None:
    made.job("sft", "a", training(), checkpoint="b/sft/step_000001")
    made.job("sft", "b", training(), checkpoint="a/sft/step_000001")
    assert {stage.name for stage in read_run(made.path, "a").stages} == {"a/sft", "b/sft"}


def test_damaged_specs_and_checkpoints_are_passed_over(family: Home) -> None:
    broken = family.path / "jobs" / "job_0"
    broken.mkdir()
    (broken / "spec.json").write_text('{"job_id": ')
    (family.path / "checkpoints" / "base" / "pretrain" / "step_000010" / "state.json").write_text("{")
    assert len(read_run(family.path, "chat").stages) == 2


def test_an_unknown_run_is_told_the_known_ones_the_likest_first(family: Home) -> None:
    with pytest.raises(NotFound, match="no run is called 'bas'; there is base, chat, elsewhere"):
        read_run(family.path, "bas")
    with pytest.raises(NotFound, match="none yet"):
        read_run(family.path / "empty", "base")


@pytest.mark.parametrize("name", ["../base", "", ".hidden", "a/b", "job_1"])
def test_what_can_be_no_runs_name_is_refused(made: Home, name: str) -> None:
    with pytest.raises(InvalidConfig, match=r"config\.run"):
        read_run(made.path, name)
