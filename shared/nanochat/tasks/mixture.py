"""Several tasks as one: shuffled (mixture) or one after the other (sequence).

Listing a task twice in a mixture oversamples it. Only indices are shuffled; examples are made when asked for.
"""

import random
from collections.abc import Sequence

from nanochat.tasks.base import Conversation, Task

MIXTURE_SEED = 42


class TaskSequence(Task):
    """All examples of the first task, then all of the second, and so on."""

    def __init__(self, tasks: Sequence[Task]) -> None:
        self.tasks = list(tasks)
        self._order = [(number, index) for number, task in enumerate(self.tasks) for index in range(len(task))]
        super().__init__("train", len(self._order))

    def example(self, index: int) -> Conversation:
        number, inner = self._order[index]
        return self.tasks[number][inner]


class TaskMixture(TaskSequence):
    """All examples of all tasks, in an order that depends on their number alone."""

    def __init__(self, tasks: Sequence[Task], *, seed: int = MIXTURE_SEED) -> None:
        super().__init__(tasks)
        random.Random(seed).shuffle(self._order)
