"""Joins one to four exchanges of other tasks in one conversation, so that a model also answers later turns.

An earlier answer of the assistant comes back from a client as plain text, where a calculator's call reads "E=R" and a
line break. So it stands here in that form half of the time, to be read and not learned.
"""

import random

from nanochat.protocol.generate import Message, PythonOutputPart, PythonPart
from nanochat.tasks.arithmetic import Arithmetic
from nanochat.tasks.base import Conversation, GeneratedTask, Split
from nanochat.tasks.counting import Counting
from nanochat.tasks.smalltalk import Smalltalk
from nanochat.tasks.spelling import Spelling

# Spelling is letter by letter and takes longest to learn.
_SOURCES: tuple[tuple[type[GeneratedTask], float], ...] = (
    (Spelling, 0.45),
    (Counting, 0.25),
    (Arithmetic, 0.15),
    (Smalltalk, 0.15),
)
_NUM_EXCHANGES_WEIGHTS = (0.4, 0.3, 0.2, 0.1)


class Dialogue(GeneratedTask):
    """`answer` is that of the last exchange; null after small talk."""

    is_checkable = False

    def __init__(self, split: Split, *, size: int | None = None, seed: int = 42) -> None:
        super().__init__(split, size=size, seed=seed)
        self._sources = [source(split, size=0, seed=seed) for source, _ in _SOURCES]
        self._weights = [weight for _, weight in _SOURCES]

    def draw(self, rng: random.Random) -> Conversation:
        num_exchanges = rng.choices(range(1, 5), weights=_NUM_EXCHANGES_WEIGHTS)[0]
        parts = [rng.choices(self._sources, weights=self._weights)[0].draw(rng) for _ in range(num_exchanges)]
        messages: list[Message] = []
        context_only: set[int] = set()
        for part in parts[:-1]:
            for message in part.messages:
                if not isinstance(message.content, str) and rng.random() < 0.5:
                    context_only.add(len(messages))
                    message = Message(role=message.role, content=as_plain_text(message))
                messages.append(message)
        messages += parts[-1].messages
        return Conversation(messages=messages, answer=parts[-1].answer, context_only=frozenset(context_only))


def as_plain_text(message: Message) -> str:
    """A message's content as clients see it: a call E with result R reads "E=R" and a line break."""
    if isinstance(message.content, str):
        return message.content
    text = ""
    for part in message.content:
        if isinstance(part, PythonPart):
            text += part.text
        elif isinstance(part, PythonOutputPart):
            text += f"={part.text}\n"
        else:
            text += part.text
    return text
