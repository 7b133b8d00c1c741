"""What users get wrong: each ends with exit code 1 and one Failure line that says what to do."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nanochat.errors import InvalidConfig
from nanochat.model.gpt import GPT
from nanochat.protocol.progress import Progress
from nanochat.recipes.__main__ import read_spec

from .conftest import Workshop, write_dataset


def dataset_cases() -> list[Any]:
    def missing(folder: Path) -> None:
        """No such folder."""

    def empty(folder: Path) -> None:
        folder.mkdir()

    def without_text(folder: Path) -> None:
        write_dataset(folder, column="body")

    def numbers(folder: Path) -> None:
        write_dataset(folder)
        pq.write_table(pa.table({"text": [1, 2, 3]}), folder / "shard_00000.parquet")

    def truncated(folder: Path) -> None:
        write_dataset(folder)
        path = folder / "shard_00000.parquet"
        path.write_bytes(path.read_bytes()[:-100])

    def damaged(folder: Path) -> None:
        write_dataset(folder)
        path = folder / "shard_00001.parquet"
        content = bytearray(path.read_bytes())
        content[4:200] = bytes(196)
        path.write_bytes(content)

    return [
        pytest.param(missing, "there is no folder", id="missing"),
        pytest.param(empty, "holds no *.parquet file", id="empty"),
        pytest.param(without_text, "has no column 'text', only body", id="no text column"),
        pytest.param(numbers, "must hold strings", id="numbers"),
        pytest.param(truncated, "shard_00000.parquet is truncated", id="truncated"),
        pytest.param(damaged, "shard_00001.parquet cannot be read", id="damaged"),
    ]


@pytest.mark.parametrize("kind", ["tokenizer", "pretrain"])
@pytest.mark.parametrize(("spoil", "reason"), dataset_cases())
def test_a_dataset_that_cannot_be_used(workshop: Workshop, tmp_path: Path, kind: str, spoil: Any, reason: str) -> None:
    folder = tmp_path / "data"
    spoil(folder)
    spec = getattr(workshop, kind)("bad", dataset=str(folder))
    ran = workshop.run(spec)
    assert ran.failure.code == "data_error"
    assert reason in ran.failure.message
    assert str(folder) in ran.failure.message
    assert not (workshop.home / "checkpoints" / "bad").exists()
    assert not (workshop.home / "tokenizers" / "bad" / "tokenizer.json").exists()


def test_a_null_that_training_would_meet_late_is_named_before_the_first_step(
    workshop: Workshop, tmp_path: Path
) -> None:
    """In the validation split, which is read last."""
    folder = write_dataset(tmp_path / "data")
    texts = ["some text"] * 30 + [None]
    pq.write_table(pa.table({"text": texts}), folder / "shard_00002.parquet", row_group_size=20)
    ran = workshop.run(workshop.pretrain("late-null", dataset=str(folder)))
    assert f"document 10 of row group 1 of shard {folder / 'shard_00002.parquet'} is null" in ran.failure.message
    assert not [line for line in ran.lines if isinstance(line, Progress)]


@pytest.mark.parametrize(
    ("config", "code", "reason"),
    [
        ({"total_batch_size": 500}, "invalid_config", "500 tokens is no multiple of 512"),
        ({"total_batch_size": 128, "device_batch_size": 2}, "invalid_config", "no multiple of 256"),
        ({"depht": 2}, "invalid_config", "config.depht is not a known key"),
        ({"depth": 0}, "invalid_config", "config.depth is 0"),
        ({"depth": "two"}, "invalid_config", "config.depth is 'two'"),
        ({"head_dim": 3}, "invalid_config", "head_dim 3 is odd"),
        ({"precision": "fp8"}, "invalid_config", "precision fp8 needs an NVIDIA GPU"),
        ({"tokenizer": "nowhere"}, "not_found", "no tokenizer at"),
    ],
)
def test_a_run_that_cannot_be(workshop: Workshop, config: dict[str, Any], code: str, reason: str) -> None:
    ran = workshop.run(workshop.pretrain("impossible", **config))
    assert ran.failure.code == code
    assert reason in ran.failure.message


def test_a_run_whose_loss_is_never_finite(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(GPT, "forward", lambda self, ids, *args, **options: self.head.weight.sum() * float("nan"))
    ran = workshop.run(workshop.pretrain("diverged", num_iterations=40))
    assert ran.failure.code == "training_diverged"
    assert "10 steps in a row" in ran.failure.message
    assert not ran.checkpoints


@pytest.mark.parametrize("stage", ["sft", "evaluate"])
@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "state.json", "manifest.json"])
def test_a_checkpoint_with_a_changed_byte(workshop: Workshop, stage: str, name: str) -> None:
    folder = workshop.home / "checkpoints" / f"changed-{stage}" / "pretrain" / "step_000008"
    shutil.rmtree(folder.parent, ignore_errors=True)
    shutil.copytree(workshop.home / "checkpoints" / "base" / "pretrain" / "step_000008", folder)
    content = bytearray((folder / name).read_bytes())
    digest = content.find(b'"sha256": "')  # in the manifest: a byte of one, so that it stays JSON
    content[digest + 11 if digest >= 0 else len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    ran = workshop.run(getattr(workshop, stage)("bad", checkpoint=str(folder)))
    assert ran.failure.code == "checkpoint_corrupt"
    assert f"{folder / name} has changed since it was written" in ran.failure.message


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"mixture": [{"task": "dancing"}]}, "'dancing' is not known; choose one of"),
        ({"mixture": [{"file": "/nowhere/chat.jsonl"}]}, "/nowhere/chat.jsonl is no file or folder"),
        ({"max_seq_len": 4096}, "max_seq_len is 4096; the checkpoint's model takes 128"),
        ({"weight_decay": 0.1}, "no weight decay"),
        ({"checkpoint": "nothing/sft"}, "no complete checkpoint under 'nothing/sft'"),
    ],
)
def test_fine_tuning_that_cannot_be(workshop: Workshop, config: dict[str, Any], reason: str) -> None:
    assert reason in workshop.run(workshop.sft("bad-chat", **config)).failure.message


def test_a_bad_line_is_named(workshop: Workshop, tmp_path: Path) -> None:
    file = tmp_path / "chat.jsonl"
    good = json.dumps([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"}])
    file.write_text(f"{good}\n{good}\n[]\n")
    ran = workshop.run(workshop.sft("bad-line", mixture=[{"file": str(file)}]))
    assert ran.failure.code == "data_error"
    assert f"{file}, line 3" in ran.failure.message


def test_core_without_its_data_is_refused_before_the_first_step(workshop: Workshop) -> None:
    ran = workshop.run(workshop.pretrain("no-core", core_metric_every=999_999))
    assert "no file of the CORE benchmark" in ran.failure.message
    assert not ran.checkpoints


def test_a_tracker_that_is_not_installed_is_named_before_the_first_step(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    ran = workshop.run(workshop.pretrain("untracked", tracker="wandb"))
    assert "pip install wandb" in ran.failure.message
    assert not ran.checkpoints


def test_a_task_without_answers_cannot_be_scored(workshop: Workshop) -> None:
    ran = workshop.run(workshop.evaluate("bad-task", tasks=["smalltalk"]))
    assert "'smalltalk' cannot be scored" in ran.failure.message


def test_a_tokenizer_is_trained_by_one_process(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "num_processes is 2" in workshop.run(workshop.tokenizer("two")).failure.message


def test_an_error_of_our_own_is_told_with_its_name_and_the_log_has_the_traceback(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*args: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("nanochat.recipes.pretrain.run", broken)
    ran = workshop.run(workshop.pretrain("buggy"))
    assert (ran.failure.code, ran.failure.message[:24]) == ("internal_error", "ZeroDivisionError: a bug")
    assert "Traceback" in caplog.text


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "spec"),
        ('{"kind": "pretrain"}', "spec.job_id is required"),
        ('{"job_id": "j", "kind": "sft", "name": "n", "config": {}, "home": "/tmp"}', "is of kind sft, not pretrain"),
        (None, "cannot be read"),
    ],
)
def test_a_spec_that_cannot_be_read(tmp_path: Path, content: str | None, reason: str) -> None:
    file = tmp_path / "spec.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(InvalidConfig, match=reason):
        read_spec(file, "pretrain")
