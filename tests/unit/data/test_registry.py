"""Which dataset a reference means, and each way in which it cannot be used."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from nanochat.data.registry import resolve_dataset
from nanochat.errors import DataError

WHOLE = b"PAR1" + b"\0" * 20 + b"PAR1"


@pytest.fixture
def datasets(home: Path) -> Path:
    folder = home / "datasets"
    folder.mkdir()
    return folder


def fill(folder: Path, num_shards: int = 3) -> Path:
    folder.mkdir(parents=True)
    for index in reversed(range(num_shards)):
        (folder / f"shard_{index:05d}.parquet").write_bytes(WHOLE)
    return folder


def test_a_name_means_a_folder_under_home(home: Path, datasets: Path) -> None:
    fill(datasets / "mine")
    dataset = resolve_dataset("mine", home, [datasets])
    assert (dataset.name, dataset.folder, dataset.must_be_built) == ("mine", datasets / "mine", False)
    assert [path.name for path in dataset.shards] == [f"shard_0000{i}.parquet" for i in range(3)]


def test_an_absolute_path_inside_a_root_is_taken(home: Path, tmp_path: Path) -> None:
    folder = fill(tmp_path / "big" / "corpus")
    assert resolve_dataset(str(folder), home, [home / "datasets", tmp_path / "big"]).folder == folder


def test_hidden_and_other_files_are_no_shards(home: Path, datasets: Path) -> None:
    folder = fill(datasets / "mine")
    (folder / ".shard_9.parquet").write_bytes(b"")
    (folder / "README.md").write_text("text")
    assert len(resolve_dataset("mine", home, [datasets]).shards) == 3


def test_a_built_in_dataset_is_known_before_it_is_made(home: Path, datasets: Path) -> None:
    for reference in ("python-docs", str(datasets / "python-docs")):
        dataset = resolve_dataset(reference, home, [datasets])
        assert dataset.must_be_built
        assert dataset.folder == datasets / "python-docs"


def test_a_path_outside_the_roots_names_the_setting(home: Path, tmp_path: Path, datasets: Path) -> None:
    folder = fill(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="NANOCHAT_DATA_ROOTS"):
        resolve_dataset(str(folder), home, [datasets])
    with pytest.raises(DataError, match="NANOCHAT_DATA_ROOTS"):
        resolve_dataset(f"{datasets}/../../elsewhere", home, [datasets])


def test_a_path_outside_the_roots_does_not_tell_whether_it_exists(home: Path, tmp_path: Path, datasets: Path) -> None:
    with pytest.raises(DataError, match="outside the allowed folders"):
        resolve_dataset(str(tmp_path / "missing"), home, [datasets])


def test_symbolic_links_out_of_the_roots_are_refused(home: Path, tmp_path: Path, datasets: Path) -> None:
    outside = fill(tmp_path / "elsewhere")
    (datasets / "linked").symlink_to(outside)
    with pytest.raises(DataError, match="it leads to"):
        resolve_dataset("linked", home, [datasets])
    folder = fill(datasets / "mine")
    (folder / "shard_00000.parquet").unlink()
    (folder / "shard_00000.parquet").symlink_to(outside / "shard_00000.parquet")
    with pytest.raises(DataError, match=r"shard_00000\.parquet"):
        resolve_dataset("mine", home, [datasets])


def test_a_root_that_is_a_link_itself_works(home: Path, tmp_path: Path) -> None:
    fill(tmp_path / "disk" / "corpus")
    (tmp_path / "data").symlink_to(tmp_path / "disk")
    assert len(resolve_dataset(str(tmp_path / "data" / "corpus"), home, [tmp_path / "data"]).shards) == 3


@pytest.mark.parametrize("reference", ["../datasets", "a/b", "", ".hidden", "a b", "näme"])
def test_what_is_neither_name_nor_path_is_refused(home: Path, datasets: Path, reference: str) -> None:
    with pytest.raises(DataError, match="neither a name"):
        resolve_dataset(reference, home, [datasets])


def damage_missing(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()


def damage_empty(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


def damage_single(folder: Path) -> None:
    for path in sorted(folder.iterdir())[1:]:
        path.unlink()


def damage_file(folder: Path) -> None:
    damage_missing(folder)
    folder.write_text("not a folder")


def damage_cut(folder: Path) -> None:
    (folder / "shard_00001.parquet").write_bytes(WHOLE[:-1])


def damage_short(folder: Path) -> None:
    (folder / "shard_00001.parquet").write_bytes(b"PAR1")


def damage_folder_as_shard(folder: Path) -> None:
    (folder / "shard_00001.parquet").unlink()
    (folder / "shard_00001.parquet").mkdir()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damage_missing, "not on this machine"),
        (damage_empty, r"holds no \*\.parquet"),
        (damage_single, "holds one shard, shard_00000.parquet, and needs two"),
        (damage_file, "is not a folder"),
        (damage_cut, r"shard_00001\.parquet is truncated"),
        (damage_short, r"shard_00001\.parquet is truncated"),
        (damage_folder_as_shard, r"shard_00001\.parquet cannot be read"),
    ],
)
def test_a_dataset_that_cannot_be_used_says_why(
    home: Path, datasets: Path, damage: Callable[[Path], None], message: str
) -> None:
    damage(fill(datasets / "mine"))
    with pytest.raises(DataError, match=message) as caught:
        resolve_dataset("mine", home, [datasets])
    assert str(datasets / "mine") in caught.value.message
    assert caught.value.param == "dataset"


def test_datasets_are_resolved_without_torch_numpy_and_pyarrow() -> None:
    script = "import sys, nanochat.data.registry; print({'torch', 'numpy', 'pyarrow'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize("reference", ["climbmix", "hf://acme/text@v1"])
def test_a_dataset_that_can_be_downloaded_says_how(home: Path, datasets: Path, reference: str) -> None:
    with pytest.raises(DataError, match=rf"nanochat data download {reference} --shards 8"):
        resolve_dataset(reference, home, [datasets])
    fill(datasets / ("climbmix" if reference == "climbmix" else "acme--text--v1"))
    assert len(resolve_dataset(reference, home, [datasets]).shards) == 3
