"""Whether the tasks that a job names can be used: known, fit for what is done with them, and with their data there.

A pipeline that scored on a benchmark without data would fail after its training.
"""

from collections.abc import Collection, Sequence
from pathlib import Path

from nanochat.data.registry import datasets_dir
from nanochat.errors import DataError, InvalidConfig
from nanochat.evals.core_tasks import CORE_TASKS
from nanochat.protocol.jobs import DatasetConfig, Job, MixtureItem
from nanochat.tasks.base import Split
from nanochat.tasks.benchmark import Benchmark
from nanochat.tasks.registry import CHECKABLE, TASKS
from nanochat.tasks.splits import files_of

_SCORED = frozenset({*CHECKABLE, *(task.label for task in CORE_TASKS)})


class TaskChecks:
    """For one job, after `earlier` stages of its pipeline. All raise InvalidConfig or DataError naming config.<key>."""

    def __init__(self, home: Path, earlier: Sequence[Job]) -> None:
        self._datasets = datasets_dir(home)
        # What these fetch need not be there yet.
        self._coming = {
            DatasetConfig.model_validate(job.config).folder_name for job in earlier if job.kind == "dataset"
        }

    def check_mixture(self, items: Sequence[MixtureItem]) -> None:
        _check_known("config.mixture", TASKS, [item.task for item in items if item.task is not None])
        for index, item in enumerate(items):
            if item.task is not None:
                self._check_data(f"config.mixture.{index}.task", item.task, "train", item.split)

    def check_scored(self, param: str, names: Sequence[str], *, as_chat: bool = True) -> None:
        """Tasks of a chat or of CORE. `as_chat`: those of a chat are asked, so their data is needed."""
        _check_known(param, _SCORED, names)
        for name in names:
            if as_chat and name in CHECKABLE:
                self._check_data(param, name, "held_out")

    def check_rewarded(self, name: str) -> None:
        if name not in CHECKABLE:
            what = "has no answers that can be checked, so it gives no reward" if name in TASKS else "is not known"
            raise InvalidConfig(
                f"config.task: task {name!r} {what}; choose from {', '.join(sorted(CHECKABLE))}.", param="config.task"
            )
        self._check_data("config.task", name, "train")
        self._check_data("config.task", name, "held_out")

    def _check_data(self, param: str, name: str, split: Split, published: str | None = None) -> None:
        kind = TASKS[name]
        if name in self._coming or not issubclass(kind, Benchmark):
            return
        try:
            files_of(kind, split, self._datasets / name, published)
        except DataError as exc:
            raise DataError(f"{param}: {exc.message}", param=param) from exc


def _check_known(param: str, known: Collection[str], names: Sequence[str]) -> None:
    for name in names:
        if name not in known:
            raise InvalidConfig(
                f"{param}: task {name!r} is not known; choose from {', '.join(sorted(known))}.", param=param
            )
