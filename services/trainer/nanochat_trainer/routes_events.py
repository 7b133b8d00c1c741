"""GET /v1/jobs/{id}/events: status, progress, metric and log as server-sent events, until the job has ended.

An event's id is "<number>.<offset>": the last stored event and the byte of the log reached, so that Last-Event-ID
resumes both.
"""

import json
import re
from collections.abc import AsyncIterator
from typing import Annotated, Any

import anyio
import anyio.to_thread
from fastapi import APIRouter, Header
from sse_starlette import EventSourceResponse, ServerSentEvent

from nanochat.errors import InvalidRequest
from nanochat.protocol.jobs import FINAL_STATUSES
from nanochat_trainer.logs import log_file, new_lines
from nanochat_trainer.state import State, TrainerState

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])

PING_S = 10


@router.get("/{job_id}/events")
async def events(
    job_id: str, state: State, last_event_id: Annotated[str | None, Header()] = None
) -> EventSourceResponse:
    number, offset = _position(last_event_id)
    await anyio.to_thread.run_sync(state.jobs.get, job_id)  # an unknown job is a 404, not an empty stream
    return EventSourceResponse(_stream(state, job_id, number, offset), ping=PING_S)


async def _stream(state: TrainerState, job_id: str, number: int, offset: int) -> AsyncIterator[ServerSentEvent]:
    path = log_file(state.home, job_id)
    while True:
        # The status is read first: whatever happened before it is in the events read after it.
        job = await anyio.to_thread.run_sync(state.jobs.get, job_id)
        stored = await anyio.to_thread.run_sync(state.jobs.events, job_id, number)
        lines, end = await anyio.to_thread.run_sync(new_lines, path, offset)
        if lines:
            offset = end
            yield _event("log", number, offset, {"lines": lines})
        for event in stored:
            number = event.number
            yield _event(event.type, number, offset, {"time": event.time, **event.data})
        if stored or lines:
            continue
        if job.status in FINAL_STATUSES:
            return
        await anyio.sleep(state.settings.events_poll_s)


def _event(kind: str, number: int, offset: int, data: dict[str, Any]) -> ServerSentEvent:
    return ServerSentEvent(event=kind, id=f"{number}.{offset}", data=json.dumps(data, ensure_ascii=False))


def _position(last_event_id: str | None) -> tuple[int, int]:
    """Raises InvalidRequest for what was never an id of ours."""
    if last_event_id is None or last_event_id == "":
        return 0, 0
    match = re.fullmatch(r"(\d{1,10})(?:\.(\d{1,15}))?", last_event_id)
    if match is None:
        raise InvalidRequest(
            f"Last-Event-ID is {last_event_id[:40]!r}; send the id of an event of this stream, as '12.3456'.",
            param="Last-Event-ID",
        )
    return int(match[1]), int(match[2] or 0)
