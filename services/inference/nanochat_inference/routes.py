"""HTTP in, events out: POST /v1/generate, GET /v1/info, GET /stats, health and metrics.

An error before the first event is a status with {"error": {"code", "message", "param"}}; after it, an event.
What answers is service.py, and how events stream is event_stream.py's.
"""

import asyncio
from functools import partial
from typing import Any

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import ValidationError
from starlette.responses import JSONResponse

from nanochat.disconnect import unless_gone
from nanochat.errors import InvalidRequest, TooLarge
from nanochat.protocol.complaint import invalid_config
from nanochat.protocol.generate import GenerateRequest, ServedModel
from nanochat_inference.event_stream import EventStream, first_piece, frames
from nanochat_inference.service import InferenceService

router = APIRouter()


def _service(request: Request) -> InferenceService:
    service: InferenceService = request.app.state.service
    return service


@router.post("/v1/generate")
async def generate(request: Request) -> Response:
    service = _service(request)
    deadline = asyncio.get_running_loop().time() + service.settings.deadline_s
    body = await _body(request, service.settings.max_body_bytes)
    flight = service.submit(_parsed(body), body)
    cancel = partial(service.cancel, flight)
    try:
        first = await unless_gone(request.receive, first_piece(flight, deadline))
    except BaseException:
        cancel()
        raise
    return EventStream(frames(first, flight, deadline), on_close=cancel)


@router.get("/v1/info")
async def info(request: Request) -> ServedModel:
    return _service(request).info()


@router.get("/stats")
async def stats(request: Request) -> dict[str, Any]:
    return _service(request).stats()


@router.get("/health/live")
async def live() -> dict[str, str]:
    return {"status": "ok"}


@router.get("/health/ready")
async def ready(request: Request) -> Response:
    reasons = _service(request).unready_reasons()
    status = "not_ready" if reasons else "ready"
    return JSONResponse({"status": status, "reasons": reasons}, status_code=503 if reasons else 200)


@router.get("/metrics")
async def metrics(request: Request) -> Response:
    registry = await _service(request).measured()
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)


async def _body(request: Request, limit: int) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise TooLarge(f"the request's body is over {limit} bytes; send a shorter one.")
    return bytes(body)


def _parsed(body: bytes) -> GenerateRequest:
    try:
        return GenerateRequest.model_validate_json(body)
    except ValidationError as exc:
        (first, *_) = exc.errors(include_url=False, include_input=False)
        if first["type"] == "json_invalid":
            raise InvalidRequest(f"the body is no JSON in UTF-8 ({first['msg']}); correct it.") from exc
        invalid = invalid_config(exc)
        raise InvalidRequest(invalid.message, param=invalid.param) from exc
