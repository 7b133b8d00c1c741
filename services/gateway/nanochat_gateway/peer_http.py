"""HTTP to a service behind the gateway: a pool of connections, and its errors by one name.

Tokens come in pieces of a few bytes, thousands a second: parsing them in C is why this is aiohttp.
"""

import asyncio
import io
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import aiohttp
from yarl import URL

# Of one kind of peer. Inference refuses what it cannot queue long before; of jobs' streams this is the bound.
_MAX_CONNECTIONS = 1000
# Below the five seconds after which uvicorn closes an idle connection, so that no request meets a closing one.
_IDLE_CONNECTION_S = 2.0
# Never sent unless a caller does: aiohttp would guess a content type where a client gave none.
_NOT_GUESSED = ("Content-Type",)

# aiohttp warns of larger bodies that it is given whole.
_MAX_WHOLE_BYTES = 2**20

Response = aiohttp.ClientResponse
PeerError = aiohttp.ClientError  # whatever goes wrong on the way


@dataclass(frozen=True, kw_only=True)
class Reply:
    """A whole answer."""

    status: int
    body: bytes


class PeerHttp:
    """`async with` it around all use: connections belong to an event loop."""

    def __init__(self) -> None:
        self._opened: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        # Peers are named by address: no proxy of the outer world, no cookie, and each name is looked up as it is used,
        # since a service that was replaced has another address.
        self._opened = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=_MAX_CONNECTIONS, keepalive_timeout=_IDLE_CONNECTION_S, use_dns_cache=False
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def send(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        content: bytes = b"",
        connect_timeout_s: float,
    ) -> Response:
        """Status and headers; whoever calls bounds the time, reads the body by chunks() and closes it. `url` is sent as
        it is written. Raises PeerError."""
        return await self._session.request(
            method,
            URL(url, encoded=True),
            data=io.BytesIO(content) if len(content) > _MAX_WHOLE_BYTES else content or None,
            headers=headers,
            timeout=aiohttp.ClientTimeout(connect=connect_timeout_s),
            allow_redirects=False,
            skip_auto_headers=_NOT_GUESSED,
        )

    async def get(self, url: str, *, headers: Mapping[str, str] | None = None, timeout_s: float) -> Reply:
        """A short answer, whole. Raises PeerError, or TimeoutError where it is not there in time."""
        timeout = aiohttp.ClientTimeout(total=timeout_s)
        async with self._session.get(url, headers=headers, timeout=timeout, allow_redirects=False) as response:
            return Reply(status=response.status, body=await response.read())

    @property
    def _session(self) -> aiohttp.ClientSession:
        assert self._opened is not None, "used before it was entered"
        return self._opened


async def chunks(response: Response, silence_timeout_s: float | None = None) -> AsyncGenerator[bytes, None]:
    """The body as it comes. Raises PeerError where it breaks, TimeoutError where nothing comes for too long.

    The limit is also what ends it where a peer goes on with what is no HTTP: aiohttp closes the connection then and
    tells nobody who waits already.
    """
    while True:
        try:
            async with asyncio.timeout(silence_timeout_s):
                chunk = await response.content.readany()
        except RuntimeError as exc:  # which aiohttp has for a connection that it closed before
            raise aiohttp.ClientPayloadError(str(exc)) from exc
        if not chunk:
            return
        yield chunk
