"""The training API, passed on to the trainer. What it means is the trainer's to say; here is only who may call it.

The addresses are listed, so that a wrong one is answered here and a new one of the trainer is not public by accident.
"""

import contextlib
import json

from fastapi import APIRouter, Request
from starlette.responses import Response

from nanochat.disconnect import unless_gone
from nanochat_gateway.auth import admin_key
from nanochat_gateway.body import read_body
from nanochat_gateway.errors import error_body
from nanochat_gateway.sse import EventStream
from nanochat_gateway.state import State
from nanochat_gateway.trainer_client import TrainerReply

router = APIRouter(dependencies=[admin_key])

ADDRESSES = [
    ("/v1/jobs", ["GET", "POST"]),
    ("/v1/jobs/{job_id}", ["GET"]),
    ("/v1/jobs/{job_id}/cancel", ["POST"]),
    ("/v1/jobs/{job_id}/retry", ["POST"]),
    ("/v1/jobs/{job_id}/events", ["GET"]),
    ("/v1/jobs/{job_id}/metrics", ["GET"]),
    ("/v1/jobs/{job_id}/logs", ["GET"]),
    ("/v1/checkpoints", ["GET"]),
    ("/v1/checkpoints/{checkpoint_id:path}", ["GET"]),  # run/stage/step_000500
    ("/v1/reports/{run}", ["GET"]),
    ("/v1/datasets", ["GET"]),
    ("/v1/datasets/{name}/download", ["POST"]),
    ("/v1/models/{name}/promote", ["POST"]),
    ("/v1/models/{name}/rollback", ["POST"]),
]


async def pass_on(request: Request, state: State) -> Response:
    body = await read_body(request, state.settings.max_body_bytes)
    reply = await unless_gone(request.receive, state.trainer.send(request, body))
    if reply.is_event_stream:
        return EventStream(
            reply.events(),
            close=reply.aclose,
            active=state.metrics.streams_active,
            keep_alive_s=state.settings.keep_alive_s,
            until=state.drain.begun,
        )
    try:
        content = await unless_gone(request.receive, reply.body())
    finally:
        await reply.aclose()
    if reply.status >= 400:
        return _refusal(reply, content)
    return Response(content, status_code=reply.status, headers=reply.headers)


def _refusal(reply: TrainerReply, content: bytes) -> Response:
    """The trainer's error, in the envelope that every error of the gateway has."""
    told = error_body(reply.status, "trainer_error", f"The trainer answered {reply.status}; its log says more.")
    with contextlib.suppress(ValueError, KeyError, TypeError):
        error = json.loads(content)["error"]
        told = error_body(reply.status, str(error["code"]), str(error["message"]), error.get("param"))
    headers = {**reply.headers, "content-type": "application/json"}
    return Response(told.model_dump_json(), status_code=reply.status, headers=headers)


for address, methods in ADDRESSES:
    router.add_api_route(address, pass_on, methods=methods)
