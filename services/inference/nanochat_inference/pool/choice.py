"""Whose turn it is: the worker with the fewest open choices, then the one with the fewest tokens before it.

Unless another one is likely to have the request's beginning computed: the worker that was last given the longest
common beginning, if it has at most SLACK more open choices than the least loaded. A beginning is told by whole messages
of a chat, or by blocks of a text or of token ids, as hashes; what a worker really keeps is its own matter.
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Protocol, TypeVar

from nanochat.protocol.generate import GenerateRequest

# Open choices by which a worker that knows the beginning may lead the least loaded one.
SLACK = 2
# A shorter beginning is sooner computed than looked for, in characters or token ids.
_MIN_LENGTH = 64
_BLOCK = 256
# Of one request, and of all: 16 bytes or so each.
_MAX_BEGINNINGS = 64
_MAX_KNOWN = 16384


class Loaded(Protocol):
    """What is asked of a worker here."""

    @property
    def index(self) -> int: ...
    @property
    def is_late(self) -> bool: ...
    @property
    def num_open(self) -> int: ...
    @property
    def tokens_left(self) -> int: ...


W = TypeVar("W", bound=Loaded)


class Choice:
    def __init__(self) -> None:
        self._known: OrderedDict[int, int] = OrderedDict()  # a beginning, and the worker that was last given it

    def pick(self, workers: Sequence[W], beginnings: Sequence[int]) -> W:
        """One of `workers`, of which there is at least one. Those that have been silent for long come last."""
        least = min(workers, key=lambda worker: (worker.is_late, worker.num_open, worker.tokens_left, worker.index))
        chosen = self._holder(workers, beginnings) or least
        if chosen.is_late or chosen.num_open > least.num_open + SLACK:
            chosen = least
        for beginning in beginnings:
            self._known[beginning] = chosen.index
            self._known.move_to_end(beginning)
        while len(self._known) > _MAX_KNOWN:
            self._known.popitem(last=False)
        return chosen

    def forget(self, index: int) -> None:
        """A worker has lost what it had computed."""
        for beginning in [known for known, holder in self._known.items() if holder == index]:
            del self._known[beginning]

    def _holder(self, workers: Sequence[W], beginnings: Sequence[int]) -> W | None:
        for beginning in reversed(beginnings):
            if beginning in self._known:
                return next((worker for worker in workers if worker.index == self._known[beginning]), None)
        return None


def beginnings(asked: GenerateRequest) -> list[int]:
    """Hashes of the prompt's beginnings, each of the one before it and what comes then; the longest last."""
    pieces: list[tuple[int, object]]  # length and content
    if asked.messages is not None:
        pieces = [
            (len(content), (message.role, content))
            for message in asked.messages
            for content in [
                message.content
                if isinstance(message.content, str)
                else "\0".join(f"{part.type}\0{part.text}" for part in message.content)
            ]
        ]
    elif asked.prompt is not None:
        pieces = [(_BLOCK, asked.prompt[end - _BLOCK : end]) for end in range(_BLOCK, len(asked.prompt) + 1, _BLOCK)]
    else:
        ids = asked.prompt_token_ids or []
        pieces = [
            (_MIN_LENGTH, tuple(ids[end - _MIN_LENGTH : end])) for end in range(_MIN_LENGTH, len(ids) + 1, _MIN_LENGTH)
        ]
    found, length, before = [], 0, 0
    for piece_length, piece in pieces[:_MAX_BEGINNINGS]:
        length, before = length + piece_length, hash((before, piece))
        if length >= _MIN_LENGTH:
            found.append(before)
    return found
