"""A gateway without a model: the API's shapes and the strict content security policy, answers by rule.

Runs uvicorn in a thread of its own. What a test wants to see or steer is plain attributes of FakeGateway.
"""

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from fastapi import Depends, FastAPI, Request
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.responses import Response

from nanochat.errors import Forbidden, NanochatError, Unauthorized
from nanochat_gateway.routes_pages import STATIC, install_pages
from nanochat_gateway.security_headers import SecurityHeadersMiddleware
from tests.e2e.web import answers, training

TOKEN_PAUSE_S = 0.004
# Frames are sent in pieces of this size, so that pieces end in the middle of lines and of characters.
PIECE_BYTES = 11

Json = dict[str, Any]


@dataclass
class FakeGateway:
    """`keys` maps a key to "chat" or "admin"; empty: none is asked for. `context_chars` stands in for the context."""

    keys: dict[str, str] = field(default_factory=dict)
    models: list[Json] = field(default_factory=lambda: [training.served("demo/sft/step_000700")])
    jobs: dict[str, Json] = field(default_factory=dict)
    checkpoints: list[Json] = field(default_factory=list)
    promoted: list[str] = field(default_factory=list)
    context_chars: int = 1_000_000
    num_refusals: int = 0
    requests: list[Json] = field(default_factory=list)
    submitted: list[Json] = field(default_factory=list)
    num_running: int = 0
    num_left: int = 0
    url: str = ""


@contextmanager
def running(gateway: FakeGateway) -> Iterator[FakeGateway]:
    """Serve it on a free port."""
    config = uvicorn.Config(make_app(gateway), host="127.0.0.1", port=0, log_level="warning", ws="none", lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        deadline = time.monotonic() + 15
        while not server.started:
            assert time.monotonic() < deadline, "the fake gateway does not start"
            time.sleep(0.01)
        gateway.url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        yield gateway
    finally:
        server.should_exit = True
        server.force_exit = True
        thread.join(15)


def make_app(gateway: FakeGateway) -> FastAPI:
    def check_key(request: Request) -> None:
        path = request.url.path
        if not path.startswith("/v1/") or not gateway.keys:
            return
        scope = gateway.keys.get(request.headers.get("authorization", "").removeprefix("Bearer "))
        if scope is None:
            raise Unauthorized("This key is not known.")
        if scope == "chat" and path not in ("/v1/models", "/v1/chat/completions"):
            raise Forbidden("This key may chat but neither train nor change models.")

    async def refuse(_request: Request, exc: Exception) -> Response:
        assert isinstance(exc, NanochatError)
        return error(exc.status, exc.code, exc.message)

    app = FastAPI(dependencies=[Depends(check_key)])
    app.add_middleware(SecurityHeadersMiddleware)
    app.add_exception_handler(NanochatError, refuse)

    @app.get("/v1/models")
    def models() -> Json:
        return {"object": "list", "data": gateway.models}

    @app.post("/v1/chat/completions")
    async def chat(request: Request) -> Response:
        body = await request.json()
        gateway.requests.append(body)
        if gateway.num_refusals > 0:
            gateway.num_refusals -= 1
            return error(503, "unavailable", "All slots are taken.")
        if len(json.dumps(body["messages"])) > gateway.context_chars:
            return error(400, "context_length_exceeded", "the prompt has 700 tokens; the model takes 512.")
        return StreamingResponse(stream(gateway, body), media_type="text/event-stream")

    training.install(app, gateway)
    install_pages(app, STATIC)
    return app


async def stream(gateway: FakeGateway, body: Json) -> AsyncIterator[bytes]:
    """The frames of an answer in pieces. Counts who is being answered, and who left before the end."""
    gateway.num_running += 1
    is_complete = False
    try:
        for frame in answers.frames(body["messages"][-1]["content"]):
            data = f"data: {frame if isinstance(frame, str) else json.dumps(frame, ensure_ascii=False)}\n\n".encode()
            for start in range(0, len(data), PIECE_BYTES):
                yield data[start : start + PIECE_BYTES]
                # Pieces sent at once may arrive as one, and then no character is cut.
                await asyncio.sleep(0 if data.isascii() else TOKEN_PAUSE_S)
            await asyncio.sleep(TOKEN_PAUSE_S)
        is_complete = True
    finally:
        gateway.num_running -= 1
        gateway.num_left += not is_complete


def error(status: int, code: str, message: str) -> JSONResponse:
    detail = {"message": message, "type": "server_error", "param": None, "code": code}
    return JSONResponse({"error": detail}, status_code=status)
