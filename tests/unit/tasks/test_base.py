"""Slicing, iteration and the reading of numbers out of answers."""

import pytest

from nanochat.protocol.generate import Message
from nanochat.tasks.base import Conversation, Task, last_number
from nanochat.tasks.counting import Counting
from nanochat.tasks.spelling import Spelling


class Numbered(Task):
    """Example i is the number i; counts how many were made."""

    def __init__(self, num_examples: int) -> None:
        super().__init__("train", num_examples)
        self.made: list[int] = []

    def example(self, index: int) -> Conversation:
        self.made.append(index)
        return Conversation(messages=[Message(role="user", content=str(index))])


def contents(task: Task) -> list[str]:
    return [str(conversation.messages[0].content) for conversation in task]


def test_a_slice_is_a_view_that_makes_no_example() -> None:
    task = Numbered(1_000_000)
    view = task[10:1_000_000:3][1:4]
    assert len(view) == 3
    assert task.made == []
    assert contents(view) == ["13", "16", "19"]
    assert len(task) == 1_000_000


def test_an_index_beyond_the_end_is_an_index_error_and_a_negative_one_counts_from_the_end() -> None:
    task = Numbered(5)[1:3]
    assert task[-1].messages[0].content == "2"
    with pytest.raises(IndexError):
        task[2]


def test_a_fingerprint_is_of_the_conversations_and_their_order_alone() -> None:
    fingerprint = Numbered(5).fingerprint()
    assert fingerprint == Numbered(9)[:5].fingerprint()
    others = [Numbered(4), Numbered(6), Numbered(5)[::-1], Numbered(6)[1:]]
    assert fingerprint not in [other.fingerprint() for other in others]


def test_a_generated_tasks_fingerprint_draws_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = [
        Spelling("train")[:300],
        Spelling("train")[:301],
        Spelling("held_out")[:300],
        Spelling("train", seed=1)[:300],
    ]
    assert len({task.fingerprint() for task in [*tasks, Counting("train")[:300]]}) == 5
    monkeypatch.setattr(Spelling, "draw", lambda task, rng: pytest.fail("an example was drawn"))
    assert tasks[0].fingerprint() == Spelling("train", size=400)[:300].fingerprint()


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("The answer is 46.", "46"),
        ("12+34=46\nThe answer is 46.", "46"),
        ("It is 1,234,567.", "1234567"),
        ("3-10=-7\nThe answer is -7.", "-7"),
        ("-7", "-7"),
        ("12-5", "5"),
        ("That makes 3.0", "3"),
        ("That makes 3.5", "3.5"),
        ("'tree'.count('e')=2\nThe number of e in tree is 2.", "2"),
        ("There is none.", None),
        ("", None),
    ],
)
def test_the_last_number_of_an_answer_is_read_without_commas(text: str, number: str | None) -> None:
    assert last_number(text) == number
