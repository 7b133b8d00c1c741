"""Every error as {"error": {"message", "type", "param", "code"}}. The caller's mistakes are 422 here."""

import logging
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from nanochat.errors import InvalidRequest, NanochatError

log = logging.getLogger(__name__)


def error_response(
    status: int, code: str, message: str, *, param: str | None = None, retry_after_s: float | None = None
) -> JSONResponse:
    kind = "server_error" if status >= 500 else "invalid_request_error"
    headers = {"retry-after": str(max(1, round(retry_after_s)))} if retry_after_s else None
    body = {"error": {"message": message, "type": kind, "param": param, "code": code}}
    return JSONResponse(body, status_code=status, headers=headers)


def install_error_handlers(app: FastAPI) -> None:
    app.add_exception_handler(NanochatError, _on_nanochat_error)  # type: ignore[arg-type]
    app.add_exception_handler(RequestValidationError, _on_validation_error)  # type: ignore[arg-type]
    app.add_exception_handler(HTTPException, _on_http_exception)  # type: ignore[arg-type]
    app.add_exception_handler(Exception, _on_unexpected)


async def _on_nanochat_error(_request: Request, exc: NanochatError) -> JSONResponse:
    status = 422 if isinstance(exc, InvalidRequest) else exc.status
    return error_response(status, exc.code, exc.message, param=exc.param, retry_after_s=exc.retry_after_s)


async def _on_validation_error(_request: Request, exc: RequestValidationError) -> JSONResponse:
    """The first complaint: which field, what was found, what is expected."""
    first: dict[str, Any] = exc.errors()[0]
    path = ".".join(str(part) for part in first["loc"][1:])  # the first part is body, query or path
    if first["type"] == "json_invalid":
        reason = first.get("ctx", {}).get("error", "")
        message = f"the body is not valid JSON ({reason} at character {path}); send one JSON object."
        return error_response(422, "invalid_json", message)
    if first["type"] == "extra_forbidden":
        return error_response(422, "invalid_request", f"{path} is not a known key; remove it.", param=path)
    if first["type"] == "missing" and path:
        return error_response(422, "invalid_request", f"{path} is required; add it.", param=path)
    if not path:
        message = "the body must be one JSON object, sent as content-type application/json."
        return error_response(422, "invalid_request", message)
    found = repr(first["input"])[:80]
    return error_response(422, "invalid_request", f"{path} is {found}: {first['msg']}.", param=path)


async def _on_http_exception(request: Request, exc: HTTPException) -> JSONResponse:
    match exc.status_code:
        case 400:  # FastAPI's answer to a body that is no text at all
            return error_response(422, "invalid_json", "the body is not valid JSON in UTF-8; send one JSON object.")
        case 404:
            return error_response(404, "not_found", f"there is nothing at {request.url.path}; see ARCHITECTURE.md.")
        case _:
            return error_response(exc.status_code, "http_error", str(exc.detail))


async def _on_unexpected(_request: Request, exc: Exception) -> JSONResponse:
    log.error("request_failed", exc_info=exc)
    return error_response(500, "internal_error", "the trainer failed on this request; its log says why.")
