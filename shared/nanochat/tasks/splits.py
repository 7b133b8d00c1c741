"""Which files of a benchmark's folder belong to which of its published splits, by their names. Opens none of them."""

import re
from pathlib import Path

from nanochat.errors import DataError

_NUMBERING = re.compile(r"(?:[-_.]+\d+(?:-of-\d+)?)+$")


def files_by_split(folder: Path) -> dict[str, list[Path]]:
    """The data files of a folder by the split that their names say: train-00000-of-00002.parquet, test.jsonl.

    Folders of the hub are part of a name, before "--". Where a split is there in both forms, JSONL counts. Raises
    DataError without any file.
    """
    if not folder.is_dir():
        raise DataError(
            f"there is no folder {folder}; put the benchmark's data there, as .jsonl or .parquet, or download it with: "
            f"nanochat data download {folder.name}"
        )
    found: dict[str, list[Path]] = {}
    for suffix in (".jsonl", ".parquet"):
        splits: dict[str, list[Path]] = {}
        for file in sorted(folder.glob(f"*{suffix}")):
            if file.is_file() and not file.name.startswith("."):
                splits.setdefault(_split_name(file.stem), []).append(file)
        found = {**splits, **found}
    if not found:
        raise DataError(f"{folder} holds no .jsonl or .parquet file; put the benchmark's data there.")
    return found


def _split_name(stem: str) -> str:
    """auxiliary_train-00000-of-00001 -> auxiliary_train; default--test--0000 -> test."""
    name = _NUMBERING.sub("", stem)
    return name.rpartition("--")[2] or stem
