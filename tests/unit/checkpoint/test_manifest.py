"""Listing and finding checkpoints without torch."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from nanochat.checkpoint import manifest
from nanochat.errors import CheckpointCorrupt, NotFound

Save = Callable[..., Path]


def spoil(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def test_checkpoints_are_listed_newest_first_with_what_they_are(home: Path, save: Save) -> None:
    save(5)
    folder = save(3, value=0.5, run="second", stage="sft")
    infos = manifest.list_checkpoints(home)
    assert [info.id for info in infos] == ["second/sft/step_000003", "first/pretrain/step_000005"]
    newest = infos[0]
    assert (newest.run, newest.stage, newest.step, newest.folder) == ("second", "sft", 3, folder)
    assert newest.metrics == {"val_bpb": 0.5}  # a metric that is not finite is no number in JSON
    assert newest.config.n_layer == 2
    assert newest.size_bytes == sum(
        path.stat().st_size for path in folder.rglob("*") if path.is_file() and path.name != "manifest.json"
    )


def test_no_checkpoints_are_an_empty_list(home: Path) -> None:
    assert manifest.list_checkpoints(home) == []
    assert manifest.newest(home, "run", "pretrain") is None


def test_incomplete_and_damaged_folders_are_left_out(home: Path, save: Save) -> None:
    good = save(1)
    (save(2) / "manifest.json").unlink()
    spoil(save(3) / "manifest.json")
    (save(4) / "state.json").unlink()
    (good.parent / "step_000005").mkdir()
    assert [info.step for info in manifest.list_checkpoints(home)] == [1]


def test_the_newest_is_the_one_written_last_not_the_highest_step(home: Path, save: Save) -> None:
    save(500)
    save(100)
    info = manifest.newest(home, "first", "pretrain")
    assert info is not None
    assert info.step == 100


def test_the_newest_verified_one_passes_over_damage(home: Path, save: Save) -> None:
    save(1)
    spoil(save(2) / "model.safetensors")
    unverified = manifest.newest(home, "first", "pretrain")
    verified = manifest.newest(home, "first", "pretrain", verified=True)
    assert unverified is not None
    assert verified is not None
    assert (unverified.step, verified.step) == (2, 1)


@pytest.mark.parametrize(
    ("reference", "found"),
    [
        ("first/pretrain/step_000001", "first/pretrain/step_000001"),
        ("first/pretrain", "first/pretrain/step_000002"),
        ("first", "first/sft/step_000001"),
    ],
)
def test_a_checkpoint_is_found_by_id_by_stage_and_by_run(home: Path, save: Save, reference: str, found: str) -> None:
    save(1)
    save(2)
    save(1, stage="sft")
    assert manifest.find(home, reference).id == found


@pytest.mark.parametrize(
    "reference", ["other", "first/sft", "first/pretrain/step_000009", "../x", "first/../..", "", "/etc", "a/b/c/d"]
)
def test_a_reference_to_nothing_is_not_found(home: Path, save: Save, reference: str) -> None:
    save(1)
    with pytest.raises(NotFound, match="checkpoint"):
        manifest.find(home, reference)


def test_a_damaged_step_named_by_its_id_says_so(home: Path, save: Save) -> None:
    (save(1) / "config.json").unlink()
    with pytest.raises(CheckpointCorrupt, match=r"config\.json"):
        manifest.find(home, "first/pretrain/step_000001")


def test_a_copied_folder_goes_by_its_new_place(home: Path, save: Save) -> None:
    folder = save(7)
    shutil.copytree(folder, home / "checkpoints" / "copy" / "base" / "step_000007")
    assert manifest.find(home, "copy").id == "copy/base/step_000007"


def test_a_config_from_a_newer_version_is_not_guessed_at(home: Path, save: Save) -> None:
    folder = save(1)
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "unheard_of": 1}))
    values = manifest.read(folder)
    manifest.write(folder, **{key: values[key] for key in ("run", "stage", "step", "created")})
    with pytest.raises(CheckpointCorrupt, match="unheard_of"):
        manifest.read_info(folder)


def test_a_manifest_is_not_part_of_itself(save: Save) -> None:
    folder = save(1)
    values = manifest.read(folder)
    manifest.write(folder, **{key: values[key] for key in ("run", "stage", "step", "created")})
    assert manifest.verify(folder) == values


def test_manifests_are_read_without_torch_and_numpy() -> None:
    script = "import sys, nanochat.checkpoint.manifest; print({'torch', 'numpy', 'pyarrow'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
