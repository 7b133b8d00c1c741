"""GET /v1/jobs/{id}/events: status, progress, metric and log as server-sent events, until the job has ended.

An event's id is "<number>.<offset>": the last stored event and the byte of the log reached, so that Last-Event-ID
resumes both. A pipeline's stream tells its stages' metrics and logs too, with the stage's name as "stage" in the data.
"""

import functools
import json
import re
from collections.abc import AsyncIterator
from typing import Annotated, Any

import anyio
import anyio.to_thread
from fastapi import APIRouter, Header
from sse_starlette import EventSourceResponse, ServerSentEvent

from nanochat.errors import InvalidRequest
from nanochat.protocol.jobs import FINAL_STATUSES, stage_name
from nanochat_trainer.logs import new_lines
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
    stages = await anyio.to_thread.run_sync(state.jobs.stages, job_id)  # the logs of these never change their order
    pipeline = (await anyio.to_thread.run_sync(state.jobs.get, job_id)).name
    while True:
        # The status is read first: whatever happened before it is in the events read after it.
        job = await anyio.to_thread.run_sync(state.jobs.get, job_id)
        stored = await anyio.to_thread.run_sync(state.jobs.events, job_id, number)
        is_whole = job.status in FINAL_STATUSES
        read = functools.partial(new_lines, state.home, stages or [job], offset, is_whole=is_whole)
        new = await anyio.to_thread.run_sync(read)
        if new is not None:
            offset = new.offset
            stage = {"stage": stage_name(new.job.kind, new.job.name, pipeline)} if stages else {}
            yield _event("log", number, offset, {**stage, "lines": new.lines})
        for event in stored:
            number = event.number
            yield _event(event.type, number, offset, {"time": event.time, **event.data})
        if stored or new is not None:
            continue
        if is_whole:
            return
        await anyio.sleep(state.settings.events_poll_s)


def _event(kind: str, number: int, offset: int, data: dict[str, Any]) -> ServerSentEvent:
    return ServerSentEvent(event=kind, id=f"{number}.{offset}", data=json.dumps(data, ensure_ascii=False))


def _position(last_event_id: str | None) -> tuple[int, int]:
    """Raises InvalidRequest for what was never an id of ours."""
    if last_event_id is None or last_event_id == "":
        return 0, 0
    match = re.fullmatch(r"([0-9]{1,9})(?:\.([0-9]{1,15}))?", last_event_id)
    if match is None:
        raise InvalidRequest(
            f"Last-Event-ID is {last_event_id[:40]!r}; send the id of an event of this stream, as '12.3456'.",
            param="Last-Event-ID",
        )
    return int(match[1]), int(match[2] or 0)
