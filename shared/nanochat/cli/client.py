"""Speaks to a gateway over REST: address, key, and errors as sentences. What is asked is the commands' matter."""

from collections.abc import AsyncIterator, Mapping
from types import TracebackType
from typing import Any, Self

import httpx

from nanochat import errors
from nanochat.cli.settings import CliSettings
from nanochat.cli.state import StackState

DEFAULT_URL = "http://127.0.0.1:8000"
# A promotion answers once every replica serves the model; everything else is quick.
TIMEOUT = httpx.Timeout(10.0, read=120.0)


class ApiClient:
    """`async with ApiClient(url, key) as api`. Every method raises a NanochatError of the answer's status."""

    def __init__(self, url: str, key: str = "") -> None:
        self.url = url.rstrip("/")
        headers = {"authorization": f"Bearer {key}"} if key else {}
        self._client = httpx.AsyncClient(base_url=self.url, headers=headers, timeout=TIMEOUT, trust_env=False)

    @classmethod
    def from_settings(cls, settings: CliSettings) -> Self:
        """The gateway that was named, else the stack that runs in this home, else the default address."""
        running = None if settings.url else StackState.running(settings.home_dir)
        return cls(settings.url or (running.url if running else DEFAULT_URL), settings.key)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._client.aclose()

    async def get(self, path: str, **query: str | int | None) -> Any:
        """The JSON of the answer. Parameters that are None are left out."""
        params = {name: value for name, value in query.items() if value is not None}
        return (await self._send("GET", path, params=params)).json()

    async def get_text(self, path: str) -> str:
        return (await self._send("GET", path)).text

    async def post(
        self, path: str, body: Mapping[str, Any] | None = None, *, idempotency_key: str | None = None
    ) -> Any:
        headers = {"idempotency-key": idempotency_key} if idempotency_key else {}
        return (await self._send("POST", path, json=dict(body or {}), headers=headers)).json()

    async def stream(self, path: str, body: Mapping[str, Any]) -> AsyncIterator[str]:
        """The data of each server-sent event, in order."""
        try:
            async with self._client.stream("POST", path, json=dict(body)) as response:
                if response.is_error:
                    await response.aread()
                    raise _error_of(response)
                async for line in response.aiter_lines():
                    if line.startswith("data:"):
                        yield line.removeprefix("data:").strip()
        except httpx.TransportError as exc:
            raise self._unreachable(exc) from exc

    async def _send(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        try:
            response = await self._client.request(method, path, **arguments)
        except httpx.TransportError as exc:
            raise self._unreachable(exc) from exc
        if response.is_error:
            raise _error_of(response)
        return response

    def _unreachable(self, error: httpx.TransportError) -> errors.Unavailable:
        return errors.Unavailable(
            f"no answer from {self.url} ({type(error).__name__}). Start the stack with: nanochat up - "
            "or name another gateway with NANOCHAT_URL."
        )


def _error_of(response: httpx.Response) -> errors.NanochatError:
    """The narrowest error of the answer's status, with the answer's own message."""
    try:
        found = response.json()["error"]
        message, param = str(found["message"]), found.get("param")
    except (ValueError, KeyError, TypeError):
        message, param = f"{response.request.url} answered {response.status_code}: {response.text[:300]}", None
    if response.status_code == 401:
        message += " Set NANOCHAT_API_KEY."
    kinds = [errors.NotFound, errors.Conflict, errors.Unauthorized, errors.Forbidden, errors.TooLarge]
    kinds += [errors.RateLimited, errors.Unavailable, errors.DeadlineExceeded]
    by_status: dict[int, type[errors.NanochatError]] = {kind.status: kind for kind in kinds}
    by_status |= {400: errors.InvalidRequest, 422: errors.InvalidConfig}
    return by_status.get(response.status_code, errors.NanochatError)(message, param=param)
