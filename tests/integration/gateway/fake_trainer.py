"""A trainer that records what it gets and answers what a test has scripted."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

from fastapi import FastAPI, Request, Response
from starlette.responses import JSONResponse, StreamingResponse


@dataclass(frozen=True)
class Received:
    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes


class FakeTrainer:
    def __init__(self) -> None:
        self.reset()
        self.app = FastAPI()
        self.app.get("/health/live")(self._live)
        self.app.get("/v1/jobs/{job_id}/events")(self._events)
        self.app.api_route("/{path:path}", methods=["GET", "POST"])(self._any)

    def reset(self) -> None:
        self.received: list[Received] = []
        self.response = Response('{"object":"list","data":[]}', media_type="application/json")
        self.num_streams = 0

    async def _live(self) -> Response:
        return JSONResponse({"status": "ok"})

    async def _any(self, request: Request) -> Response:
        raw_path: bytes = request.scope["raw_path"]
        self.received.append(
            Received(
                request.method,
                raw_path.decode(),
                request.url.query,
                dict(request.headers),
                await request.body(),
            )
        )
        return self.response

    async def _events(self, request: Request) -> Response:
        last = int(request.headers.get("last-event-id", "0"))
        return StreamingResponse(self._stream(last), media_type="text/event-stream")

    async def _stream(self, last: int) -> AsyncIterator[str]:
        self.num_streams += 1
        try:
            for number in range(last + 1, last + 3):
                yield f'id: {number}\nevent: progress\ndata: {{"step": {number}}}\n\n'
            await asyncio.Event().wait()
        finally:
            self.num_streams -= 1
