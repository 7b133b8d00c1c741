"""What a task is: a sequence of conversations, some with an answer that can be checked.

A task knows nothing of tokens or models; recipes render its conversations and evals/chat.py scores answers with it.
"""

import copy
import hashlib
import random
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self, overload

from pydantic import SerializeAsAny, TypeAdapter

from nanochat.protocol.generate import Message

Split = Literal["train", "held_out"]

# "-" is a number's sign only where nothing that it could be subtracted from stands before it.
_NUMBER = re.compile(r"(?:(?<![\w)])-)?\d[\d,]*(?:\.\d+)?")
_FINAL_ANSWER = re.compile(r"####\s*(-?\d[\d,]*(?:\.\d+)?)")


@dataclass(frozen=True, kw_only=True)
class Conversation:
    """Messages, user and assistant in turn, ending with the assistant's.

    `answer` is what the last one must come to, where that can be checked. `choices` are the letters that it is one of,
    where the task is categorical: then the likeliest of them is the model's answer. `context_only` holds the indices of
    assistant messages that stand there to be read and must not be learned (rendered, mask 0).
    """

    messages: list[Message]
    answer: str | None = None
    choices: tuple[str, ...] = ()
    context_only: frozenset[int] = frozenset()


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row of a benchmark's data, and where it stands ("FILE, line N")."""

    place: str
    values: dict[str, Any]


# With what a task of its own kind adds to its conversations.
_CONVERSATION: TypeAdapter[Conversation] = TypeAdapter(SerializeAsAny[Conversation])


class Task(ABC):
    """An indexable set of conversations of one split. Slices are views: no example is made or copied by slicing."""

    split: Split
    is_checkable: bool = False
    baseline: float = 0.0  # the accuracy of guessing
    # Longer than any right answer; a model that rambles costs no more than this.
    max_answer_tokens: int = 128

    def __init__(self, split: Split, num_examples: int) -> None:
        self.split = split
        self._indices = range(num_examples)

    @abstractmethod
    def example(self, index: int) -> Conversation:
        """The conversation at an index of the whole, unsliced task. The same one at every call."""

    def reward(self, conversation: Conversation, text: str) -> float:
        """1.0 if `text`, an assistant's whole content, comes to the conversation's answer; else 0.0."""
        return float(conversation.answer is not None and text.strip() == conversation.answer)

    def rewards(self, conversations: Sequence[Conversation], texts: Sequence[str]) -> list[float]:
        """`reward` of each, for tasks that can do several at once."""
        return [self.reward(conversation, text) for conversation, text in zip(conversations, texts, strict=True)]

    def prepare(self) -> None:  # noqa: B027 - most have nothing to prepare
        """Raise Unavailable where answers cannot be checked on this machine. Called before a model answers any."""

    def fingerprint(self) -> str:
        """Another one where a conversation is another, or stands elsewhere. Reads them all, which takes about a fifth
        of the time that a file of them takes."""
        return _digest(map(_CONVERSATION.dump_json, self))

    def __len__(self) -> int:
        return len(self._indices)

    @overload
    def __getitem__(self, index: int) -> Conversation: ...

    @overload
    def __getitem__(self, index: slice) -> Self: ...

    def __getitem__(self, index: int | slice) -> Conversation | Self:
        if isinstance(index, slice):
            view = copy.copy(self)
            view._indices = self._indices[index]
            return view
        return self.example(self._indices[index])

    def __iter__(self) -> Iterator[Conversation]:
        return (self.example(index) for index in self._indices)


class GeneratedTask(Task):
    """A task whose examples are drawn, each from its own generator: a function of (task, split, seed, index)."""

    # Enough that a training run hardly meets an example twice; held-out ones are cheap to make and dear to answer.
    default_size: dict[Split, int] = {"train": 100_000, "held_out": 1_000}  # noqa: RUF012

    def __init__(self, split: Split, *, size: int | None = None, seed: int = 42) -> None:
        super().__init__(split, self.default_size[split] if size is None else size)
        self.seed = seed

    def example(self, index: int) -> Conversation:
        return self.draw(random.Random(f"{type(self).__name__}/{self.split}/{self.seed}/{index}"))

    def fingerprint(self) -> str:
        """Of what the examples are a function of; none is drawn."""
        return _digest([f"{type(self).__name__}/{self.split}/{self.seed}/{self._indices}".encode()])

    @abstractmethod
    def draw(self, rng: random.Random) -> Conversation:
        """One conversation of this task's split."""


def last_number(text: str) -> str | None:
    """The last number in a text, without commas and without ".0"; None where there is none."""
    found = _NUMBER.findall(text)
    return _plain(found[-1]) if found else None


def final_answer(text: str) -> str | None:
    """The number behind the first "#### ", where answers that are worked out step by step have it; likewise plain."""
    found = _FINAL_ANSWER.search(text)
    return _plain(found[1]) if found else None


def _digest(parts: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()[:16]


def _plain(number: str) -> str:
    number = number.replace(",", "")
    whole, _, fraction = number.partition(".")
    return whole if not fraction.strip("0") else number
