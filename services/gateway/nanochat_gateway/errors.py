"""Every error as OpenAI's envelope: {"error": {"message", "type", "param", "code"}}.

The tree is nanochat.errors; here it meets HTTP. What nobody foresaw is answered with 500 and the request's id, and
logged with its traceback; the cause is never told to the client.
"""

import http
import logging
import math
from typing import assert_never

from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from nanochat.disconnect import ClientGone
from nanochat.errors import NanochatError
from nanochat.observability.request_id import ASGIApp, Message, Receive, Scope, Send, current_request_id
from nanochat.protocol.openai import ErrorBody, ErrorDetail
from nanochat_gateway.state import state_of

log = logging.getLogger(__name__)

# The client left before its answer; nobody reads this status but the metrics. nginx's number.
CLIENT_CLOSED_REQUEST = 499
_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
_DEFAULT_RETRY_AFTER_S = {429: 1.0, 503: 1.0, 504: 1.0}


def error_body(status: int, code: str, message: str, param: str | None = None) -> ErrorBody:
    kind = _TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    return ErrorBody(error=ErrorDetail(message=message, type=kind, param=param, code=code))


def body_of(error: NanochatError) -> ErrorBody:
    return error_body(error.status, error.code, error.message, error.param)


def error_response(error: NanochatError) -> Response:
    headers: dict[str, str] = {}
    retry_after_s = error.retry_after_s or _DEFAULT_RETRY_AFTER_S.get(error.status)
    if retry_after_s is not None:
        headers["retry-after"] = str(max(1, math.ceil(retry_after_s)))
    if error.status == 401:
        headers["www-authenticate"] = "Bearer"
    return _json(error.status, body_of(error), headers)


def install_error_handlers(app: FastAPI) -> None:
    app.add_exception_handler(NanochatError, _on_error)
    app.add_exception_handler(HTTPException, _on_error)
    app.add_exception_handler(ClientGone, _on_error)
    app.add_exception_handler(ClientDisconnect, _on_error)


async def _on_error(request: Request, exc: Exception) -> Response:
    match exc:
        case NanochatError():
            # The class's code, not the instance's: labels come from a closed set.
            state_of(request).metrics.rejected.labels(type(exc).code).inc()
            return error_response(exc)
        case HTTPException():
            return _json(exc.status_code, _routing_error(request, exc.status_code), dict(exc.headers or {}))
        case ClientGone() | ClientDisconnect():
            return Response(status_code=CLIENT_CLOSED_REQUEST)
        case _:
            assert_never(exc)  # type: ignore[arg-type]


def _routing_error(request: Request, status: int) -> ErrorBody:
    place = f"{request.method} {request.url.path}"
    if status == 404:
        return error_body(404, "not_found", f"There is nothing at {place}; check the address.")
    if status == 405:
        return error_body(405, "method_not_allowed", f"{place} is not possible; use a method of the Allow header.")
    return error_body(status, "http_error", f"{place}: {http.HTTPStatus(status).phrase}.")


def _json(status: int, body: ErrorBody, headers: dict[str, str]) -> Response:
    return Response(body.model_dump_json(), status_code=status, headers=headers, media_type="application/json")


class UnexpectedErrorMiddleware:
    """The outermost loop of a request: what nobody caught becomes a logged 500. Plain ASGI."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        has_started = False

        async def watched_send(message: Message) -> None:
            nonlocal has_started
            has_started = has_started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, watched_send)
        except Exception:
            if scope["type"] != "http":
                raise
            log.exception("request_failed", extra={"method": scope["method"], "path": scope["path"]})
            if has_started:
                raise  # the server closes the connection: half an answer must not look like a whole one
            message = f"The gateway failed on this request; its log has the reason under {current_request_id()}."
            await _json(500, error_body(500, "internal_error", message), {})(scope, receive, send)
