"""The tasks that a job can name. A new task is one file and one line here."""

from collections.abc import Callable, Iterable

from nanochat.errors import InvalidConfig
from nanochat.tasks.arithmetic import Arithmetic
from nanochat.tasks.base import GeneratedTask, Row, Split, Task
from nanochat.tasks.counting import Counting
from nanochat.tasks.dialogue import Dialogue
from nanochat.tasks.humaneval import HumanEval
from nanochat.tasks.smalltalk import Smalltalk
from nanochat.tasks.spelling import Spelling

TASKS: dict[str, type[GeneratedTask]] = {
    "spelling": Spelling,
    "counting": Counting,
    "arithmetic": Arithmetic,
    "smalltalk": Smalltalk,
    "dialogue": Dialogue,
}
# Benchmarks, made of the rows of their data (rows.py), which lie under $NANOCHAT_HOME/datasets by these names.
FROM_ROWS: dict[str, Callable[[Iterable[Row]], Task]] = {"humaneval": HumanEval}
# Generated ones whose answers can be checked, in the order in which reports show them.
CHECKABLE = tuple(name for name, task in TASKS.items() if task.is_checkable)


def build(name: str, split: Split, *, size: int | None = None, seed: int = 42) -> GeneratedTask:
    """A task by name. Raises InvalidConfig that lists the known ones."""
    if name not in TASKS:
        raise InvalidConfig(f"task {name!r} is not known; choose one of {', '.join(TASKS)}.", param="task")
    return TASKS[name](split, size=size, seed=seed)
