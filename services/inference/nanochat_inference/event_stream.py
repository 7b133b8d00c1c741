"""From a request's event queue to its client: the first events as an answer or an error, then server-sent events.

Notices when the client leaves, before the answer begins and while it streams, and when the deadline passes.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from collections.abc import Sequence as Seq
from typing import Any, TypeVar

from fastapi import Request
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from nanochat.errors import DeadlineExceeded, NanochatError, Unavailable
from nanochat.protocol.generate import Done, GenerateError, GenerateEvent
from nanochat_inference.batching.request import EventQueue
from nanochat_inference.errors import ClientGone

T = TypeVar("T")


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


async def first_events(events: EventQueue, deadline: float) -> Seq[GenerateEvent]:
    """The events that the answer begins with. `deadline` is of the loop's clock.

    Raises DeadlineExceeded, or the error that came in place of the first event.
    """
    try:
        async with asyncio.timeout_at(deadline):
            first = await events.get()
    except TimeoutError as exc:
        raise DeadlineExceeded(
            "no token came before the deadline: the server is busy. Try again later.", retry_after_s=5
        ) from exc
    if isinstance(first[0], GenerateError):
        kind = Unavailable if first[0].code == Unavailable.code else NanochatError
        raise kind(first[0].message, retry_after_s=1)
    return first


async def frames(first: Seq[GenerateEvent], events: EventQueue, deadline: float) -> AsyncGenerator[bytes, None]:
    """All events as frames. After the deadline, an error event is the last."""
    coming = first
    while True:
        yield b"".join(b"data: " + event.model_dump_json().encode() + b"\n\n" for event in coming)
        if isinstance(coming[-1], Done | GenerateError):
            return
        try:
            async with asyncio.timeout_at(deadline):
                coming = await events.get()
        except TimeoutError:
            message = "the answer was not complete at the deadline; ask for fewer tokens."
            coming = [GenerateError(code=DeadlineExceeded.code, message=message)]


async def unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The work's result; ClientGone, with the work cancelled, when the client leaves first. The body must be read."""
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise ClientGone
    finally:
        for task in (working, leaving):
            task.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
