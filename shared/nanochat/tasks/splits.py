"""Which files of a benchmark's folder belong to which of its published splits, by their names.

Opens none of them, so that who loads no pyarrow can refuse a job whose data is not there.
"""

import re
from pathlib import Path

from nanochat.errors import DataError
from nanochat.tasks.base import Split
from nanochat.tasks.benchmark import Benchmark

_NUMBERING = re.compile(r"(?:[-_.]+\d+(?:-of-\d+)?)+$")


def files_of(kind: type[Benchmark], split: Split, folder: Path, published: str | None = None) -> tuple[str, list[Path]]:
    """A published split and its files: the one named, or the first of the task's own that is there.

    Raises DataError naming the splits that are there, or the folder that is not.
    """
    files = files_by_split(folder)
    wanted = (published,) if published else kind.published.get(split, ())
    found = next((one for one in wanted if one in files), None)
    if found is None:
        use = "train on" if split == "train" else "be scored on"
        needed = f"needs the split {' or '.join(wanted)}" if wanted else f"has no split to {use}"
        raise DataError(
            f"task {folder.name} {needed}; {folder} holds {', '.join(sorted(files))}. Put a file of that name there, "
            "or name a split that is.",
            param="split",
        )
    return found, files[found]


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
