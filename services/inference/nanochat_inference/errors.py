"""Errors as HTTP: {"error": {"code", "message", "param"}} with the status of nanochat.errors, which the gateway reads.

A failure that nobody foresaw is a 500 with the request's id; its traceback is in the log alone.
"""

import logging
import math
from functools import cache

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse

from nanochat.disconnect import ClientGone
from nanochat.errors import NanochatError, NotFound
from nanochat.observability.request_id import current_request_id

log = logging.getLogger(__name__)

# nginx's number; the client that left will not read it.
CLIENT_CLOSED_REQUEST = 499


def error_of(code: str, message: str, param: str | None = None, retry_after_s: float | None = None) -> NanochatError:
    """An error that another process told by its code; one of ours where the code is none of the tree's."""
    error = _by_code().get(code, NanochatError)(message, param=param, retry_after_s=retry_after_s)
    error.code = code
    return error


@cache
def _by_code() -> dict[str, type[NanochatError]]:
    kinds = [NanochatError]
    for kind in kinds:
        kinds += kind.__subclasses__()
    return {kind.code: kind for kind in reversed(kinds)}


def install_error_handlers(app: FastAPI) -> None:
    app.add_exception_handler(NanochatError, _on_nanochat_error)
    app.add_exception_handler(HTTPException, _on_routing_error)
    app.add_exception_handler(ClientGone, _on_client_gone)
    app.add_exception_handler(ClientDisconnect, _on_client_gone)
    app.add_exception_handler(Exception, _on_unexpected)


async def _on_nanochat_error(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, NanochatError)
    headers = {}
    if exc.retry_after_s is not None:
        headers["retry-after"] = str(max(1, math.ceil(exc.retry_after_s)))
    return _answer(exc.status, exc.code, exc.message, exc.param, headers)


async def _on_routing_error(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, HTTPException)
    code = NotFound.code if exc.status_code == 404 else "http_error"
    return _answer(exc.status_code, code, f"{request.method} {request.url.path}: {exc.detail}.", None, exc.headers)


async def _on_client_gone(request: Request, exc: Exception) -> Response:
    return Response(status_code=CLIENT_CLOSED_REQUEST)


async def _on_unexpected(request: Request, exc: Exception) -> Response:
    # The server logs the traceback itself, as starlette raises the error again behind this answer.
    log.error("request_failed", extra={"method": request.method, "path": request.url.path})
    message = f"the inference service failed on this request; its log has the reason under {current_request_id()}."
    return _answer(500, NanochatError.code, message, None)


def _answer(status: int, code: str, message: str, param: str | None, headers: object = None) -> Response:
    body = {"error": {"code": code, "message": message, "param": param}}
    return JSONResponse(body, status_code=status, headers=dict(headers) if isinstance(headers, dict) else None)
