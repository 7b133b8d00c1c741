"""Server-sent events, both ways: reading a peer's, and answering a client with one.

Lines are split at line feeds alone. JSON may hold U+2028 or U+0085 as they are, and readers that split text at every
Unicode line break would cut such an event in two, so what is sent escapes them.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence

from prometheus_client import Gauge
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from nanochat.disconnect import disconnected
from nanochat.errors import Unavailable

KEEP_ALIVE = b": keep-alive\n\n"
DONE = b"data: [DONE]\n\n"
_MAX_EVENT_BYTES = 16 * 2**20
# For a client that has stopped reading, once its stream is to end: then the server breaks the connection.
_LAST_SEND_S = 1.0
_UNSAFE = {0x85: "\\u0085", 0x2028: "\\u2028", 0x2029: "\\u2029"}


def frame(json_text: str) -> bytes:
    """One event. `json_text` is JSON without line feeds."""
    return f"data: {json_text.translate(_UNSAFE)}\n\n".encode()


async def read_events(chunks: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    """The data of each event; comments and other fields are skipped. Raises Unavailable on one without an end."""
    pending = b""
    data: list[bytes] = []
    async for chunk in chunks:
        *lines, pending = (pending + chunk).split(b"\n")
        for line in lines:
            line = line.removesuffix(b"\r")
            if not line and data:
                yield b"\n".join(data)
                data = []
            elif line.startswith(b"data:"):
                data.append(line[5:].removeprefix(b" "))
        if len(pending) + sum(map(len, data)) > _MAX_EVENT_BYTES:
            raise Unavailable(f"A peer sent an event of over {_MAX_EVENT_BYTES} bytes; look into its log.")


class EventStream(Response):
    """Answers with frames as they come, and with a comment after each `keep_alive_s` without one.

    When the client leaves, or `until` returns, the frames' generator is cancelled where it waits. `close` runs in any
    case, also when the generator never began: it frees what the frames are made from.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        frames: AsyncGenerator[bytes, None],
        *,
        close: Callable[[], Awaitable[None]],
        active: Gauge,
        keep_alive_s: float,
        until: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self.status_code = 200
        self.background = None
        self.init_headers({"cache-control": "no-store", "x-accel-buffering": "no"})
        self._frames = frames
        self._close = close
        self._active = active
        self._keep_alive_s = keep_alive_s
        self._until = until
        self._quiet_since_s = 0.0  # of the event loop's clock; without end while a frame is being sent

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        waits = [disconnected(receive), *([self._until()] if self._until is not None else [])]
        ends = [asyncio.ensure_future(wait) for wait in waits]
        try:
            with self._active.track_inprogress():
                await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
                await self._pump(send, ends)
                last = send({"type": "http.response.body", "body": b"", "more_body": False})
                if any(end.done() for end in ends):
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(last, _LAST_SEND_S)
                else:
                    await last
        finally:
            for end in ends:
                end.cancel()
            await asyncio.gather(*ends, return_exceptions=True)
            await self._frames.aclose()
            await self._close()

    async def _pump(self, send: Send, ends: Sequence[asyncio.Future[None]]) -> None:
        """Send frames until there are no more, or one of `ends` is done."""
        self._quiet_since_s = asyncio.get_running_loop().time()
        # One task for all frames: one a frame costs more than what makes the frame. Another for the comments, as a
        # client that has stopped reading holds up whoever sends, and an end is to be noticed all the same.
        sending = asyncio.ensure_future(self._send_frames(send, ends))
        commenting = asyncio.ensure_future(self._send_comments(send))
        try:
            await asyncio.wait({sending, commenting, *ends}, return_when=asyncio.FIRST_COMPLETED)
            if any(end.done() for end in ends):
                return
            for task in (sending, commenting):
                if task.done():
                    task.result()
        finally:
            sending.cancel()
            commenting.cancel()
            await asyncio.gather(sending, commenting, return_exceptions=True)

    async def _send_frames(self, send: Send, ends: Sequence[asyncio.Future[None]]) -> None:
        loop = asyncio.get_running_loop()
        async for chunk in self._frames:
            if any(end.done() for end in ends):
                return
            self._quiet_since_s = float("inf")  # a client that takes its time needs no comment on top
            await send(_body(chunk))
            self._quiet_since_s = loop.time()

    async def _send_comments(self, send: Send) -> None:
        loop = asyncio.get_running_loop()
        while True:
            left_s = self._keep_alive_s - max(0.0, loop.time() - self._quiet_since_s)
            if left_s > 0:
                await asyncio.sleep(left_s)
            else:
                self._quiet_since_s = loop.time()
                await send(_body(KEEP_ALIVE))


def _body(data: bytes) -> Message:
    return {"type": "http.response.body", "body": data, "more_body": True}
