"""Several tasks as one."""

from collections import Counter

from nanochat.tasks.counting import Counting
from nanochat.tasks.mixture import TaskMixture, TaskSequence
from nanochat.tasks.spelling import Spelling


def test_a_mixture_holds_every_example_once_in_a_fixed_shuffled_order() -> None:
    spelling, counting = Spelling("train", size=30), Counting("train", size=20)
    mixture = TaskMixture([spelling, counting])
    assert len(mixture) == 50
    assert list(mixture) == list(TaskMixture([spelling, counting]))
    assert list(mixture) != list(TaskSequence([spelling, counting]))
    requests = Counter(str(conversation.messages) for conversation in mixture)
    assert requests == Counter(str(conversation.messages) for task in (spelling, counting) for conversation in task)


def test_a_task_listed_twice_counts_twice() -> None:
    spelling, counting = Spelling("train", size=10), Counting("train", size=10)
    mixture = TaskMixture([spelling, spelling, counting])
    assert sum(":" in (conversation.answer or "") for conversation in mixture) == 20


def test_a_sequence_keeps_the_order_of_its_tasks() -> None:
    spelling, counting = Spelling("train", size=3), Counting("train", size=2)
    assert list(TaskSequence([counting, spelling])) == [*counting, *spelling]
