"""Says that the process was told to stop: readiness turns to 503 and streams without an end are closed.

Answers being generated go on until they are done or the server's time for draining is over (server.py). Each answer
asks for a new connection: clients and balancers that keep theirs would send the next request here too.
"""

import asyncio

from nanochat.observability.request_id import ASGIApp, Message, Receive, Scope, Send


class Drain:
    def __init__(self) -> None:
        self._begun = asyncio.Event()

    @property
    def is_draining(self) -> bool:
        return self._begun.is_set()

    def begin(self) -> None:
        self._begun.set()

    async def begun(self) -> None:
        await self._begun.wait()


class ClosingMiddleware:
    """Adds `connection: close` to what is answered while draining. Plain ASGI."""

    def __init__(self, app: ASGIApp, *, drain: Drain) -> None:
        self._app = app
        self._drain = drain

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_and_close(message: Message) -> None:
            if message["type"] == "http.response.start" and self._drain.is_draining:
                message = {**message, "headers": [*message.get("headers", []), (b"connection", b"close")]}
            await send(message)

        await self._app(scope, receive, send_and_close)
