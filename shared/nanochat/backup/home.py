"""Which files of $NANOCHAT_HOME a backup holds: not logs, not what a running stack keeps, no datasets unless
asked for.

A checkpoint is read through its folder's descriptor: one that is pruned or written anew meanwhile stays whole.
"""

import os
import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

DATASETS = "datasets"
# Of the process that runs now, or made anew by it. The database is kept as rows.
_NOT_KEPT = re.compile(r"\..*|logs|redis|stack\.(json|lock|partial)|nanochat\.db.*")
_CHECKPOINT = re.compile(r"checkpoints/[^/]+/[^/]+/step_\d+")


def files(home: Path, *, with_datasets: bool) -> Iterator[Path]:
    """Plain files, relative to the home, sorted; and the folders of checkpoints, which checkpoint_files() opens."""
    for top in sorted(home.iterdir()):
        if _NOT_KEPT.fullmatch(top.name) or (top.name == DATASETS and not with_datasets):
            continue
        yield from _walk(home, Path(top.name), frozenset())


def checkpoint_files(folder: Path, held: ExitStack) -> dict[str, BinaryIO] | None:
    """The open files of a checkpoint by name; None where it is gone. They stay whole until `held` closes them."""
    for _ in range(10):  # it may be replaced by a newer version of itself while its files are opened
        try:
            directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            return None
        opened = ExitStack()
        try:
            names = _names_below(directory)
            found = {name: opened.enter_context(_open_in(directory, name)) for name in names}
        except FileNotFoundError:
            opened.close()
            continue
        finally:
            os.close(directory)
        held.push(opened)
        return found
    return None


def dataset_shards(home: Path) -> dict[str, list[dict[str, Any]]]:
    """Name and size of each shard by dataset: what must be put back where the datasets themselves were not kept."""
    found: dict[str, list[dict[str, Any]]] = {}
    for path in sorted((home / DATASETS).glob("*/*.parquet")):
        shard = {"name": path.name, "size_bytes": path.stat().st_size}
        found.setdefault(path.parent.name, []).append(shard)
    return found


def is_checkpoint(name: Path) -> bool:
    return _CHECKPOINT.fullmatch(name.as_posix()) is not None


def _walk(home: Path, name: Path, above: frozenset[tuple[int, int]]) -> Iterator[Path]:
    """Links are followed, as a home may have its checkpoints on another disk; not in a circle."""
    try:
        status = (home / name).stat()
        if not (home / name).is_dir():
            yield from [name] if (home / name).is_file() else []
            return
        entries = sorted(path.name for path in (home / name).iterdir() if not path.name.startswith("."))
    except FileNotFoundError:  # gone since its folder was read
        return
    identity = (status.st_dev, status.st_ino)
    if identity in above:
        return
    if is_checkpoint(name):
        yield name
        return
    for entry in entries:
        yield from _walk(home, name / entry, above | {identity})


def _names_below(directory: int) -> list[str]:
    """Files of a folder and of its folders, relative to it."""
    names = []
    for top, _, here, _ in os.fwalk(".", dir_fd=directory):
        names += [(Path(top) / name).as_posix() for name in here]
    return sorted(names)


def _open_in(directory: int, name: str) -> BinaryIO:
    return os.fdopen(os.open(name, os.O_RDONLY, dir_fd=directory), "rb")
