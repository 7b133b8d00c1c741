"""Which dataset a reference means, and whether it can be used: checked before a job starts, without torch or pyarrow.

A dataset is a folder of parquet shards; sorted by name, the last one is the validation split. What is in the shards is
shards.py; how the built-in ones are made is builtin.py.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nanochat.data.catalogue import public_datasets
from nanochat.errors import DataError
from nanochat.protocol.hub import SCHEME, HubReference

# Made on first use from text that the machine already has (builtin.py).
BUILTIN_DATASETS = ("python-docs",)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_MAGIC = b"PAR1"  # a parquet file begins and ends with it; a download cut short does not
_MIN_PARQUET_BYTES = 12


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A dataset that can be used. `shards` are sorted by name; they are empty for a built-in one not made yet."""

    name: str
    folder: Path
    shards: tuple[Path, ...]

    @property
    def must_be_built(self) -> bool:
        return not self.shards


def datasets_dir(home: Path) -> Path:
    return home / "datasets"


def resolve_dataset(reference: str, home: Path, roots: Sequence[Path]) -> Dataset:
    """The dataset that a name under $NANOCHAT_HOME/datasets, a built-in name, hf://..., or an absolute path means.

    Symbolic links are followed, and what lies outside `roots` is refused. Nothing is downloaded here. Raises DataError
    naming the folder or file.
    """
    given = reference
    if reference.startswith(SCHEME):
        reference = HubReference.parse(reference).folder_name
    folder = Path(reference) if reference.startswith("/") else _named_folder(reference, home)
    is_builtin = folder.name in BUILTIN_DATASETS and folder.parent.resolve() == datasets_dir(home).resolve()
    if is_builtin and not folder.exists():
        return Dataset(name=folder.name, folder=folder, shards=())
    folder = _inside(folder, roots)
    if not folder.exists():
        raise DataError(
            f"dataset {given!r} is not on this machine: there is no folder {folder}. {_remedy(given)}",
            param="dataset",
        )
    return Dataset(name=folder.name, folder=folder, shards=list_shards(folder, roots))


def list_shards(folder: Path, roots: Sequence[Path] | None = None) -> tuple[Path, ...]:
    """The folder's parquet files by name, each seen to be whole and (given `roots`) inside them.

    Raises DataError: not a folder, none, one only, or a truncated one.
    """
    if not folder.is_dir():
        raise DataError(f"dataset {folder} is not a folder of parquet files; name the folder.", param="dataset")
    shards = tuple(sorted(path for path in folder.glob("*.parquet") if not path.name.startswith(".")))
    if not shards:
        raise DataError(f"dataset folder {folder} holds no *.parquet file; put its shards there.", param="dataset")
    if len(shards) == 1:
        raise DataError(
            f"dataset folder {folder} holds one shard, {shards[0].name}, and needs two: "
            "the last one is kept for validation. Split the file.",
            param="dataset",
        )
    for path in shards:
        if roots is not None:
            _inside(path, roots)
        _check_whole(path)
    return shards


def _named_folder(reference: str, home: Path) -> Path:
    if not _NAME.fullmatch(reference):
        raise DataError(
            f"dataset {reference!r} is neither a name (letters, digits, '.', '_', '-') nor an absolute path.",
            param="dataset",
        )
    return datasets_dir(home) / reference


def _remedy(reference: str) -> str:
    if reference in public_datasets() or reference.startswith(SCHEME):
        return (
            f"Download it, as with: nanochat data download {reference} --shards 8; {BUILTIN_DATASETS[0]!r} needs no "
            "download."
        )
    return f"Put its shards there, or use {BUILTIN_DATASETS[0]!r}, which needs no download."


def _inside(path: Path, roots: Sequence[Path]) -> Path:
    """The path with its symbolic links followed. Raises DataError unless one of the roots holds it."""
    resolved = path.resolve()
    if not any(resolved.is_relative_to(root.resolve()) for root in roots):
        target = f" (it leads to {resolved})" if resolved != path else ""
        raise DataError(
            f"dataset path {path}{target} is outside the allowed folders {', '.join(map(str, roots))}; "
            "add its folder to NANOCHAT_DATA_ROOTS.",
            param="dataset",
        )
    return resolved


def _check_whole(path: Path) -> None:
    """Begins and ends as parquet does. Raises DataError naming the file."""
    try:
        size_bytes = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(len(_MAGIC))
            file.seek(max(0, size_bytes - len(_MAGIC)))
            tail = file.read(len(_MAGIC))
    except OSError as exc:
        raise DataError(f"shard {path} cannot be read: {exc.strerror}.", param="dataset") from exc
    if size_bytes < _MIN_PARQUET_BYTES or head != _MAGIC or tail != _MAGIC:
        raise DataError(
            f"shard {path} is truncated or no parquet file ({size_bytes} bytes); fetch or copy it again.",
            param="dataset",
        )
