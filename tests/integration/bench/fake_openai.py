"""A server in OpenAI's shapes whose delays are known: so long to the first token, so long between two."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

MODELS = {"object": "list", "data": [{"id": "fake", "object": "model"}]}


@dataclass
class FakeOpenAI:
    """`fails`: what becomes of the n-th completion, counted from 0: `status`, `error frame`, `odd frame`, `cut off` or
    `hang`. Without `takes`, the fields that every server knows are taken; others are refused by name."""

    first_s: float = 0.05
    gap_s: float = 0.01
    takes_ids: bool = True
    takes: set[str] = field(default_factory=set)
    fails: dict[int, str] = field(default_factory=dict)
    hangs: bool = False
    num_missing: int = 0  # tokens by which each answer is too short
    asked: list[dict[str, Any]] = field(default_factory=list)
    num_open: int = 0
    max_open: int = 0

    @property
    def app(self) -> Starlette:
        async def models(request: Request) -> Response:
            return JSONResponse(MODELS)

        routes = [
            Route("/v1/models", models),
            Route("/v1/completions", self._complete, methods=["POST"]),
            Route("/v1/chat/completions", self._complete, methods=["POST"]),
        ]
        return Starlette(routes=routes)

    async def _complete(self, request: Request) -> Response:
        body = await request.json()
        known = {"model", "prompt", "messages", "max_tokens", "temperature", "stream", "stream_options"} | self.takes
        if unknown := set(body) - known:
            return JSONResponse({"error": {"message": f"unknown {unknown}"}}, status_code=400)
        if isinstance(body.get("prompt"), list) and not self.takes_ids:
            return JSONResponse({"error": {"message": "prompt is no text"}}, status_code=422)
        fate = self.fails.get(len(self.asked), "hang" if self.hangs else "")
        self.asked.append(body)
        if fate == "status":
            return JSONResponse({"error": {"message": "saturated"}}, status_code=503)
        return StreamingResponse(self._stream(body, fate), media_type="text/event-stream")

    async def _stream(self, body: dict[str, Any], fate: str) -> AsyncIterator[str]:
        self.num_open += 1
        self.max_open = max(self.max_open, self.num_open)
        try:
            await asyncio.sleep(self.first_s)
            if "messages" in body:
                yield _frame({"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]})
            num_tokens = body["max_tokens"] - self.num_missing
            for n in range(num_tokens):
                if n:
                    await asyncio.sleep(self.gap_s)
                if fate == "hang" and n == 1:
                    await asyncio.sleep(3600)
                if fate == "cut off" and n == 1:
                    return
                if fate == "error frame" and n == 1:
                    yield _frame({"error": {"message": "the engine is gone"}})
                    return
                if fate == "odd frame" and n == 1:
                    yield "data: []\n\n"
                yield _frame({"choices": [_choice(body, "w ", None)]})
            yield _frame({"choices": [_choice(body, "", "length")]})
            usage = {
                "prompt_tokens": len(body.get("prompt") or "chat"),
                "completion_tokens": num_tokens,
                "prompt_tokens_details": {"cached_tokens": 3},
            }
            yield _frame({"choices": [], "usage": usage})
            yield "data: [DONE]\n\n"
        finally:
            self.num_open -= 1


def _choice(body: dict[str, Any], text: str, finish_reason: str | None) -> dict[str, Any]:
    shown: dict[str, Any] = {"delta": {"content": text} if text else {}} if "messages" in body else {"text": text}
    return {"index": 0, "finish_reason": finish_reason, **shown}


def _frame(value: dict[str, Any]) -> str:
    return f"data: {json.dumps(value)}\n\n"
