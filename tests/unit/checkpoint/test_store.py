"""Saving whole or not at all, loading what was saved."""

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from nanochat import files
from nanochat.checkpoint import manifest, store
from nanochat.collectives import Peers
from nanochat.config import GPTConfig
from nanochat.errors import CheckpointCorrupt, InvalidRequest
from nanochat.tokenizer.bpe import Tokenizer

Save = Callable[..., Path]


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_what_was_saved_comes_back(save: Save, tokenizer: Tokenizer) -> None:
    loaded = store.load(save(500, value=2.5), with_optimizer=True)
    assert loaded.info.id == "first/pretrain/step_000500"
    assert torch.equal(loaded.model_tensors["embedding"], torch.full((4, 3), 2.5))
    assert loaded.model_tensors["head"].dtype == torch.bfloat16
    assert loaded.optimizer_tensors is not None
    assert torch.equal(loaded.optimizer_tensors["embedding.first"][...], torch.full((4, 3), -2.5))
    assert loaded.config.n_embd == 32
    assert loaded.tokenizer == tokenizer
    assert loaded.state["loader"] == {"waiting": [[0, 1]]}


def test_the_files_are_those_of_the_contract(save: Save) -> None:
    assert names(save(1)) == {
        "model.safetensors",
        "config.json",
        "tokenizer.json",
        "optimizer/rank_00000.safetensors",
        "state.json",
        "manifest.json",
    }


def test_the_optimizer_is_left_alone_unless_asked_for(save: Save) -> None:
    assert store.load(save(1)).optimizer_tensors is None


def test_views_of_one_stack_are_saved_each_for_itself(home: Path, tokenizer: Tokenizer) -> None:
    stack = torch.arange(6.0).view(2, 3)
    identity = store.save(
        home,
        "run",
        "sft",
        1,
        model_tensors={"a": stack[0], "b": stack[1], "c": stack.clone().T},
        config=GPTConfig(vocab_size=265),
        tokenizer=tokenizer,
        state={},
    )
    loaded = store.load(home / "checkpoints" / identity, with_optimizer=True)
    assert torch.equal(loaded.model_tensors["b"], stack[1])
    assert torch.equal(loaded.model_tensors["c"], stack.T)
    assert loaded.optimizer_tensors is None


@pytest.mark.parametrize(
    "name",
    [
        "model.safetensors",
        "config.json",
        "tokenizer.json",
        "optimizer/rank_00000.safetensors",
        "state.json",
        "manifest.json",
    ],
)
@pytest.mark.parametrize("place", [0.0, 0.5, 0.999])
def test_a_changed_byte_anywhere_is_named(save: Save, name: str, place: float) -> None:
    folder = save(1)
    content = bytearray((folder / name).read_bytes())
    content[int(place * len(content))] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(CheckpointCorrupt, match=name) as caught:
        store.load(folder)
    assert "Choose another checkpoint" in caught.value.message


@pytest.mark.parametrize("name", ["model.safetensors", "manifest.json"])
def test_a_missing_or_truncated_file_is_named(save: Save, name: str) -> None:
    folder = save(1)
    (folder / name).write_bytes((folder / name).read_bytes()[:-1])
    with pytest.raises(CheckpointCorrupt, match=name):
        store.load(folder)
    (folder / name).unlink()
    with pytest.raises(CheckpointCorrupt, match=f"{name} is missing"):
        store.load(folder)


def test_saving_a_step_again_replaces_it(save: Save) -> None:
    save(1, value=1.0)
    folder = save(1, value=2.0)
    assert store.load(folder).model_tensors["embedding"][0, 0] == 2.0
    assert sorted(path.name for path in folder.parent.iterdir()) == [".lock", "step_000001"]


def test_metrics_measured_later_join_a_saved_checkpoint_and_nothing_else_changes(home: Path, save: Save) -> None:
    folder = save(1)
    before = manifest.verify(folder)["files"]
    store.add_metrics(home, "first/pretrain/step_000001", {"val_bpb": 1.25})
    after = manifest.verify(folder)["files"]
    assert {name for name in before if before[name] != after[name]} == {"state.json"}
    assert before.keys() == after.keys()
    loaded = store.load(folder)
    assert loaded.info.metrics["val_bpb"] == 1.25
    assert loaded.state["loader"] == {"waiting": [[0, 1]]}


def test_a_save_that_fails_leaves_the_old_one_and_nothing_else(home: Path, save: Save, tokenizer: Tokenizer) -> None:
    folder = save(1, value=1.0)
    with pytest.raises(TypeError):
        store.save(
            home,
            "first",
            "pretrain",
            1,
            model_tensors={"embedding": torch.zeros(1)},
            config=GPTConfig(vocab_size=265),
            tokenizer=tokenizer,
            state={"not json": object()},
        )
    assert store.load(folder).model_tensors["embedding"][0, 0] == 1.0
    assert sorted(path.name for path in folder.parent.iterdir()) == [".lock", "step_000001"]


class Pair(Peers):
    """Rank 0 of two, whose other rank says `reason` when the parts are written."""

    reason = ""

    def texts(self, text: str) -> list[str]:
        is_asked_for_parts = not text.startswith("/")
        return [text, self.reason if is_asked_for_parts else ""]


def test_a_save_that_fails_on_another_rank_fails_and_leaves_nothing(home: Path, tokenizer: Tokenizer) -> None:
    class FullPair(Pair):
        reason = "no space left on device"

    with pytest.raises(OSError, match="rank 1 could not write its part of a checkpoint: no space left"):
        store.save(
            home,
            "run",
            "sft",
            1,
            model_tensors={},
            config=GPTConfig(vocab_size=265),
            tokenizer=tokenizer,
            state={},
            peers=FullPair(world_size=2),
        )
    assert sorted(path.name for path in (home / "checkpoints" / "run" / "sft").iterdir()) == [".lock"]


def test_names_that_leave_the_folder_are_refused(home: Path, tokenizer: Tokenizer) -> None:
    with pytest.raises(InvalidRequest, match="cannot name"):
        store.save(
            home, "..", "x", 1, model_tensors={}, config=GPTConfig(vocab_size=265), tokenizer=tokenizer, state={}
        )


def test_a_killed_save_is_not_listed_and_is_cleared_by_the_next(home: Path, save: Save) -> None:
    save(1)
    script = f"""
        import os, signal, pathlib
        from nanochat import files
        target = pathlib.Path({str(home)!r}) / "checkpoints/first/pretrain/step_000002"
        with files.locked(target.parent), files.new_folder(target) as folder:
            (folder / "model.safetensors").write_bytes(b"half")
            os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=False)
    assert done.returncode == -signal.SIGKILL
    stage = home / "checkpoints" / "first" / "pretrain"
    assert len(list(stage.glob(".step_000002*"))) == 1
    assert [info.step for info in manifest.list_checkpoints(home)] == [1]
    save(3)
    assert sorted(path.name for path in stage.iterdir()) == [".lock", "step_000001", "step_000003"]


def test_a_replacement_cut_between_its_two_renames_gets_the_old_one_back(save: Save) -> None:
    folder = save(1, value=1.0)
    folder.rename(folder.with_name(".step_000001.replaced-00000000"))
    files.recover(folder.parent)
    assert store.load(folder).model_tensors["embedding"][0, 0] == 1.0


def test_two_processes_saving_the_same_step_leave_one_whole_checkpoint(home: Path, save: Save) -> None:
    script = f"""
        import pathlib, sys
        from nanochat import files
        target = pathlib.Path({str(home)!r}) / "checkpoints/first/pretrain/step_000001"
        for _ in range(20):
            with files.locked(target.parent), files.new_folder(target) as folder:
                for name in "abc":
                    (folder / name).write_text(sys.argv[1])
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    processes = [subprocess.Popen([*command, str(i)], env={**os.environ}) for i in range(2)]
    assert [process.wait(timeout=60) for process in processes] == [0, 0]
    stage = home / "checkpoints" / "first" / "pretrain"
    assert sorted(path.name for path in stage.iterdir()) == [".lock", "step_000001"]
    assert len({path.read_text() for path in (stage / "step_000001").iterdir()}) == 1


def test_pruning_keeps_the_newest_and_the_protected(home: Path, save: Save) -> None:
    for step in (1, 2, 3, 4):
        save(step)
    save(9, stage="sft")
    gone = store.prune(home, "first", "pretrain", keep_last=2, protected=["first/pretrain/step_000001"])
    assert gone == ["first/pretrain/step_000002"]
    left = [info.id for info in manifest.list_checkpoints(home)]
    assert left == ["first/sft/step_000009", *(f"first/pretrain/step_00000{step}" for step in (4, 3, 1))]
