"""Reads a request's body up to a bound while it comes in, and makes a checked model of it."""

from typing import TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError
from pydantic_core import from_json

from nanochat.errors import InvalidRequest, TooLarge
from nanochat.protocol.openai import invalid_request

M = TypeVar("M", bound=BaseModel)


async def read_body(request: Request, max_bytes: int) -> bytes:
    """Raises TooLarge as soon as more than `max_bytes` have come, or are announced."""
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > max_bytes:
        raise _too_large(max_bytes)
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > max_bytes:
            raise _too_large(max_bytes)
    return bytes(body)


async def read_model(request: Request, model: type[M], max_bytes: int) -> M:
    """Raises InvalidRequest that says where the body is no UTF-8, no JSON, or not what `model` takes."""
    body = await read_body(request, max_bytes)
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as exc:
        raise InvalidRequest(f"The body is not UTF-8: bad byte at position {exc.start}. Encode it as UTF-8.") from exc
    try:
        # Unlike the standard library's reader, this one refuses NaN, half a surrogate pair and endless nesting.
        value = from_json(text, allow_inf_nan=False)
    except ValueError as exc:
        raise InvalidRequest(f"The body is not JSON: {exc}. Send a JSON object.") from exc
    try:
        return model.model_validate(value)
    except ValidationError as exc:
        raise invalid_request(exc) from exc


def _too_large(max_bytes: int) -> TooLarge:
    return TooLarge(f"The body is over {max_bytes} bytes; send less.")
