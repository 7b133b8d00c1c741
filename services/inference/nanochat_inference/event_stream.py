"""From a request's flight to its client: the first piece as an answer or an error, then server-sent events.

Notices when the client leaves, before the answer begins and while it streams, and when the deadline passes. However an
answer breaks off, exactly one error event is its last.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from nanochat.errors import DeadlineExceeded, NanochatError
from nanochat.protocol.generate import GenerateError
from nanochat_inference.pool.flight import Flight, Piece


class EventStream(StreamingResponse):
    """Streams frames; runs `on_close` at the end, however it comes: done, client gone, server stopping."""

    media_type = "text/event-stream"

    def __init__(self, frames: AsyncGenerator[bytes, None], on_close: Callable[[], None]) -> None:
        super().__init__(frames, headers={"cache-control": "no-store", "x-accel-buffering": "no"})
        self._on_close = on_close

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._on_close()


async def first_piece(flight: Flight, deadline: float) -> Piece:
    """What the answer begins with. `deadline` is of the loop's clock.

    Raises DeadlineExceeded, or the error that came in its place.
    """
    try:
        async with asyncio.timeout_at(deadline):
            return await flight.next_piece()
    except TimeoutError as exc:
        raise DeadlineExceeded(
            "no token came before the deadline: the server is busy. Try again later.", retry_after_s=5
        ) from exc


async def frames(first: Piece, flight: Flight, deadline: float) -> AsyncGenerator[bytes, None]:
    """All pieces. After the deadline, or an error, an error event is the last."""
    piece = first
    while True:
        yield piece.text
        if piece.is_last:
            return
        try:
            async with asyncio.timeout_at(deadline):
                piece = await flight.next_piece()
        except TimeoutError:
            message = "the answer was not complete at the deadline; ask for fewer tokens."
            piece = _last(DeadlineExceeded(message))
        except NanochatError as exc:
            piece = _last(exc)


def _last(error: NanochatError) -> Piece:
    event = GenerateError(code=error.code, message=error.message)
    return Piece(b"data: " + event.model_dump_json().encode() + b"\n\n", is_last=True)
