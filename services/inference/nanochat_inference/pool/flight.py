"""A request on its way, as the replica's process sees it: from its admission to the last byte for its client."""

import asyncio
import time
from typing import NamedTuple

from nanochat.errors import NanochatError


class Piece(NamedTuple):
    """Server-sent events as they go to the client; after the last piece nothing comes."""

    text: bytes
    is_last: bool


class Flight:
    """For the event loop alone. Times are of time.monotonic(), which all processes of a machine share.

    Pieces wait for their client in a queue that is bounded by what a request can say: a full context a choice.
    """

    def __init__(
        self, number: int, body: bytes, *, num_choices: int, prompt_bytes: int, tokens: int, beginnings: list[int]
    ) -> None:
        self.number = number
        self.body = body  # as the client sent it
        self.num_choices = num_choices
        self.prompt_bytes = prompt_bytes
        self.tokens = tokens  # of prompt and answer, as far as can be told
        self.beginnings = beginnings  # of its prompt, longest last (choice.py)
        self.arrived_at = time.monotonic()
        self.num_ended = 0  # choices
        self.num_sampled = 0
        self.num_attempts = 0
        self.failed_on: int | None = None  # the worker that gave it back last
        self.has_started = False  # something was said that cannot be taken back
        self._pieces: asyncio.Queue[Piece | NanochatError] = asyncio.Queue()

    @property
    def num_open(self) -> int:
        """Choices that have not ended."""
        return self.num_choices - self.num_ended

    @property
    def tokens_left(self) -> int:
        return max(0, self.tokens - self.num_sampled)

    def say(self, piece: Piece) -> None:
        self.has_started = True
        self._pieces.put_nowait(piece)

    def fail(self, error: NanochatError) -> None:
        """Ends it: as an answer of its own where nothing was said, else as the stream's last event."""
        self._pieces.put_nowait(error)

    async def next_piece(self) -> Piece:
        """Raises the error that ends it."""
        piece = await self._pieces.get()
        if isinstance(piece, NanochatError):
            raise piece
        return piece
