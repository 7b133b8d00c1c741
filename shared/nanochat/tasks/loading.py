"""From a task's name to its conversations: drawn, or read from the folder where a benchmark's data lies."""

import logging
from pathlib import Path

from nanochat.errors import DataError, InvalidConfig
from nanochat.tasks.base import Split, Task
from nanochat.tasks.benchmark import Benchmark
from nanochat.tasks.registry import TASKS
from nanochat.tasks.rows import read_files
from nanochat.tasks.splits import files_of

log = logging.getLogger(__name__)


def load(name: str, split: Split, datasets: Path, *, published: str | None = None) -> Task:
    """A task by name; a benchmark's data is in the folder of its name under `datasets`.

    `published` takes another split of a benchmark than the one that it trains on or holds out. Raises InvalidConfig
    that lists the known tasks, DataError for data that is missing or bad.
    """
    kind = TASKS.get(name)
    if kind is None:
        raise InvalidConfig(f"task {name!r} is not known; choose one of {', '.join(TASKS)}.", param="task")
    if issubclass(kind, Benchmark):
        return _read(kind, split, datasets / name, published)
    if published is not None:
        raise InvalidConfig(f"task {name!r} is generated and has no split {published!r}; leave it out.", param="split")
    return kind(split)


def _read(kind: type[Benchmark], split: Split, folder: Path, published: str | None) -> Benchmark:
    found, files = files_of(kind, split, folder, published)
    task = kind(split, read_files(files))
    if not len(task):
        raise DataError(f"split {found} in {folder} has no rows; fetch or copy its files again.", param="split")
    # Which one it was, where a task has several to take.
    log.info("benchmark_read", extra={"task": folder.name, "split": found, "num_rows": len(task)})
    return task
