"""Carries a request of the training API to the trainer and its answer back, event streams as they come.

Understands neither; what goes along is listed here: a few headers, a bounded body. A trainer that is away is a 503.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack

from fastapi import Request
from starlette.datastructures import Headers

from nanochat.errors import DeadlineExceeded, Unavailable
from nanochat.observability.request_id import current_request_id
from nanochat_gateway.peer_http import PeerError, PeerHttp, Response, chunks
from nanochat_gateway.settings import GatewaySettings

_BLANK_LINES = (b"\n\n", b"\r\n\r\n")
_REQUEST_HEADERS = ("content-type", "accept", "idempotency-key", "last-event-id")
_RESPONSE_HEADERS = ("content-type", "retry-after", "location", "cache-control", "etag", "content-security-policy")


class TrainerReply:
    """Status and headers, and then either `events()` or `body()`. Call aclose() in any case."""

    def __init__(
        self, response: Response, resources: AsyncExitStack, *, max_bytes: int, silence_timeout_s: float
    ) -> None:
        self._response = response
        self._resources = resources
        self._max_bytes = max_bytes
        self._silence_timeout_s = silence_timeout_s
        self.status = response.status
        self.headers = {name: response.headers[name] for name in _RESPONSE_HEADERS if name in response.headers}

    @property
    def is_event_stream(self) -> bool:
        return self.headers.get("content-type", "").startswith("text/event-stream")

    async def events(self) -> AsyncGenerator[bytes, None]:
        """Whole events as they come, so that a comment may be sent between any two.

        Ends where the trainer breaks off: the client resumes with Last-Event-ID.
        """
        pending = b""
        try:
            async for chunk in chunks(self._response, self._silence_timeout_s):
                pending += chunk
                end = max(pending.rfind(blank) + len(blank) if blank in pending else 0 for blank in _BLANK_LINES)
                if end:
                    yield pending[:end]
                    pending = pending[end:]
        except (PeerError, TimeoutError):
            return

    async def body(self) -> bytes:
        """Raises Unavailable when it breaks off or is over the bound."""
        body = bytearray()
        try:
            async for chunk in chunks(self._response, self._silence_timeout_s):
                body += chunk
                if len(body) > self._max_bytes:
                    raise Unavailable(f"The trainer's answer is over {self._max_bytes} bytes; ask for less of it.")
        except (PeerError, TimeoutError) as exc:
            raise Unavailable("The trainer's answer broke off; try again.") from exc
        return bytes(body)

    async def aclose(self) -> None:
        await self._resources.aclose()


class TrainerClient:
    def __init__(self, http: PeerHttp, settings: GatewaySettings) -> None:
        self._http = http
        self._url = settings.trainer_url.rstrip("/")
        self._settings = settings

    async def send(self, request: Request, body: bytes) -> TrainerReply:
        """Raises Unavailable when the trainer is away, DeadlineExceeded when it takes over `trainer_timeout_s`."""
        timeout_s = self._settings.trainer_timeout_s
        async with AsyncExitStack() as undo:
            try:
                async with asyncio.timeout(timeout_s):
                    response = await self._http.send(
                        request.method,
                        self._url + _path(request),
                        headers=_carried_headers(request.headers),
                        content=body,
                        connect_timeout_s=self._settings.connect_timeout_s,
                    )
            except PeerError as exc:
                raise Unavailable("The trainer does not answer; wait until it has started.") from exc
            except TimeoutError as exc:
                raise DeadlineExceeded(f"The trainer took over {timeout_s:g} s; look whether it was done.") from exc
            undo.callback(response.close)
            return TrainerReply(
                response, undo.pop_all(), max_bytes=self._settings.max_reply_bytes, silence_timeout_s=timeout_s
            )

    async def is_live(self) -> bool:
        url = f"{self._url}/health/live"
        try:
            return (await self._http.get(url, timeout_s=self._settings.probe_timeout_s)).status == 200
        except (PeerError, TimeoutError):
            return False


def _path(request: Request) -> str:
    """Path and query as the client wrote them, escapes included."""
    path: bytes = request.scope.get("raw_path") or request.url.path.encode()
    query: bytes = request.scope["query_string"]
    return (path + (b"?" + query if query else b"")).decode("latin-1")


def _carried_headers(headers: Headers) -> dict[str, str]:
    carried = {name: headers[name] for name in _REQUEST_HEADERS if name in headers}
    request_id = current_request_id()
    return {**carried, "x-request-id": request_id} if request_id else carried
