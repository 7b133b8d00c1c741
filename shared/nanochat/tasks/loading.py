"""From a task's name to its conversations: drawn, or read from the folder where a benchmark's data lies."""

from pathlib import Path

from nanochat.errors import DataError, InvalidConfig
from nanochat.tasks.base import Split, Task
from nanochat.tasks.benchmark import Benchmark
from nanochat.tasks.registry import TASKS
from nanochat.tasks.rows import read_files
from nanochat.tasks.splits import files_by_split


def load(name: str, split: Split, datasets: Path, *, published: str | None = None) -> Task:
    """A task by name; a benchmark's data is in the folder of its name under `datasets`.

    `published` takes another split of a benchmark than the one that it trains on or holds out. Raises InvalidConfig
    that lists the known tasks, DataError for data that is missing or bad.
    """
    kind = TASKS.get(name)
    if kind is None:
        raise InvalidConfig(f"task {name!r} is not known; choose one of {', '.join(TASKS)}.", param="task")
    if issubclass(kind, Benchmark):
        return _read(kind, name, split, datasets / name, published)
    if published is not None:
        raise InvalidConfig(f"task {name!r} is generated and has no split {published!r}; leave it out.", param="split")
    return kind(split)


def _read(kind: type[Benchmark], name: str, split: Split, folder: Path, published: str | None) -> Benchmark:
    files = files_by_split(folder)
    wanted = (published,) if published else kind.published.get(split, ())
    found = next((one for one in wanted if one in files), None)
    if found is None:
        use = "train on" if split == "train" else "be scored on"
        needed = f"needs the split {' or '.join(wanted)}" if wanted else f"has no split to {use}"
        raise DataError(
            f"task {name} {needed}; {folder} holds {', '.join(sorted(files))}. Put a file of that name there, or name "
            "a split that is.",
            param="split",
        )
    task = kind(split, read_files(files[found]))
    if not len(task):
        raise DataError(f"split {found} in {folder} has no rows; fetch or copy its files again.", param="split")
    return task
