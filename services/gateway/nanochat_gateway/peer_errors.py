"""A peer's refusal as an error of our own tree: the status says which class, the peer's code and message stay.

A failure of the peer itself (500, an answer that makes no sense) is "unavailable" to the client: it may try again.
"""

import contextlib
import json

from nanochat.errors import (
    Conflict,
    DeadlineExceeded,
    InvalidRequest,
    NanochatError,
    NotFound,
    RateLimited,
    TooLarge,
    Unavailable,
)
from nanochat_gateway.peer_http import Response, chunks

_BY_STATUS: dict[int, type[NanochatError]] = {
    400: InvalidRequest,
    404: NotFound,
    409: Conflict,
    413: TooLarge,
    422: InvalidRequest,
    429: RateLimited,
    503: Unavailable,
    504: DeadlineExceeded,
}
# Codes of an error that comes within a stream, where no status says which class it is.
_BY_CODE: dict[str, type[NanochatError]] = {error.code: error for error in _BY_STATUS.values()}
_MAX_ERROR_BYTES = 64 * 1024


def peer_error(code: str, message: str) -> NanochatError:
    """The error of an event within a stream."""
    error = _BY_CODE.get(code, Unavailable)(message)
    error.code = code
    return error


async def refusal(response: Response) -> NanochatError:
    """The error of an answer that is no success. Reads its body, up to a bound."""
    body = b""
    async for chunk in chunks(response):
        body += chunk
        if len(body) > _MAX_ERROR_BYTES:
            break
    kind = _BY_STATUS.get(response.status, Unavailable)
    message, code, param = f"A part of the server answered {response.status}; try again.", kind.code, None
    with contextlib.suppress(ValueError, KeyError, TypeError):
        told = json.loads(body)["error"]
        message, code, param = str(told["message"]), str(told.get("code") or code), told.get("param")
    if kind is NotFound and param == "model":
        code = "model_not_found"  # OpenAI's word, which clients look for
    error = kind(message, param=param if isinstance(param, str) else None, retry_after_s=_retry_after_s(response))
    error.code = code
    return error


def _retry_after_s(response: Response) -> float | None:
    with contextlib.suppress(ValueError):
        return max(0.0, float(response.headers.get("retry-after", "")))
    return None
