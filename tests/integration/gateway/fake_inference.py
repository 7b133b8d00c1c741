"""An inference replica that speaks protocol/generate.py and says what a test has scripted."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI, Request, Response
from starlette.responses import JSONResponse, StreamingResponse

from nanochat.protocol.generate import (
    Delta,
    Done,
    Finished,
    GenerateEvent,
    GenerateRequest,
    ServedModel,
    Started,
    ToolCall,
)

CHECKPOINT = "demo/sft/step_000500"


@dataclass(frozen=True)
class Refusal:
    """An HTTP error before the first event."""

    status: int
    code: str = "invalid_request"
    message: str = "refused"
    param: str | None = None
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Silence:
    """Nothing more comes until the client leaves."""


@dataclass(frozen=True)
class Break:
    """The connection ends without a Done."""


@dataclass(frozen=True)
class Gate:
    """Nothing more comes until the test opens it."""

    opened: threading.Event = field(default_factory=threading.Event)


Step = GenerateEvent | Silence | Break | Gate
Script = Callable[[GenerateRequest], Sequence[Step] | Refusal]


def answer(*pieces: str, finish_reason: str = "stop", calls: Sequence[ToolCall] = ()) -> Script:
    """The same pieces of text, a token each, for every choice; then the calls; then the end."""

    def script(asked: GenerateRequest) -> list[Step]:
        steps: list[Step] = [Started(model=asked.model, checkpoint=CHECKPOINT, prompt_tokens=7, cached_tokens=3)]
        for index in range(asked.n):
            steps += [Delta(index=index, text=piece, num_tokens=1) for piece in pieces]
            steps += [call.model_copy(update={"index": index}) for call in calls]
            steps.append(
                Finished.model_validate(
                    {"index": index, "finish_reason": finish_reason, "completion_tokens": len(pieces)}
                )
            )
        steps.append(Done(prompt_tokens=7, completion_tokens=len(pieces) * asked.n, cached_tokens=3))
        return steps

    return script


class FakeInference:
    def __init__(self) -> None:
        self.reset()
        self.app = FastAPI()
        self.app.post("/v1/generate")(self._generate)
        self.app.get("/v1/info")(self._info)
        self.app.get("/stats")(self._stats)
        self.app.get("/health/live")(self._live)

    def reset(self) -> None:
        self.script: Script = answer("Hello", ", wor", "ld")
        self.asked: list[GenerateRequest] = []
        self.bodies: list[dict[str, Any]] = []  # as they came
        self.headers: dict[str, str] = {}
        self.num_active = 0
        self.num_left = 0  # generations whose client went before the end
        self.served: ServedModel | None = ServedModel(
            model="nanochat",
            checkpoint=CHECKPOINT,
            context_length=512,
            vocab_size=4096,
            num_parameters=1000,
            created=1_700_000_000,
        )

    async def _generate(self, request: Request) -> Response:
        asked = GenerateRequest.model_validate_json(await request.body())
        self.bodies.append(await request.json())
        self.asked.append(asked)
        self.headers = dict(request.headers)
        steps = self.script(asked)
        if isinstance(steps, Refusal):
            error = {"code": steps.code, "message": steps.message, "param": steps.param}
            return JSONResponse({"error": error}, status_code=steps.status, headers=steps.headers)
        return StreamingResponse(self._stream(steps), media_type="text/event-stream")

    async def _stream(self, steps: Sequence[Step]) -> AsyncIterator[str]:
        self.num_active += 1
        try:
            for step in steps:
                if isinstance(step, Silence):
                    await asyncio.Event().wait()
                elif isinstance(step, Gate):
                    await asyncio.to_thread(step.opened.wait, 10.0)
                elif isinstance(step, Break):
                    return
                else:
                    yield f"data: {step.model_dump_json()}\n\n"
        except asyncio.CancelledError:
            self.num_left += 1
            raise
        finally:
            self.num_active -= 1

    async def _info(self) -> Response:
        if self.served is None:
            error = {"code": "unavailable", "message": "no model yet", "param": None}
            return JSONResponse({"error": error}, status_code=503)
        return Response(self.served.model_dump_json(), media_type="application/json")

    async def _stats(self) -> Response:
        worker = {"gpu_id": 0, "device": "cpu", "num_open": self.num_active}
        return JSONResponse(
            {"total_workers": 1, "available_workers": 1, "busy_workers": int(self.num_active > 0), "workers": [worker]}
        )

    async def _live(self) -> Response:
        return JSONResponse({"status": "ok"})
