"""/v1/jobs: submit, show, list, cancel, retry, metrics, logs. Events are routes_events.py."""

from typing import Annotated, Any

import anyio.to_thread
from fastapi import APIRouter, Header, Query
from fastapi.responses import PlainTextResponse, StreamingResponse
from starlette.responses import Response

from nanochat.protocol.jobs import Job, JobKind, JobSpec, JobStatus, stage_name
from nanochat_trainer.logs import read_log, tail_log
from nanochat_trainer.state import State, TrainerState
from nanochat_trainer.validation import check_jobs

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])

IdempotencyKey = Annotated[str | None, Header(min_length=1, max_length=255)]


@router.post("", status_code=202)
async def submit(spec: JobSpec, state: State, idempotency_key: IdempotencyKey = None) -> Job:
    """Check, store, and have the message sent. The same Idempotency-Key and body answer with the same job."""
    job = await anyio.to_thread.run_sync(_submit, state, spec, idempotency_key)
    state.reconciler.wake()
    return job


@router.get("")
def find(
    state: State,
    status: JobStatus | None = None,
    kind: JobKind | None = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    after: str | None = None,
) -> dict[str, Any]:
    """Newest first. `after` is the `last_id` of the page before."""
    jobs = state.jobs.find(status=status, kind=kind, limit=limit + 1, after=after)
    page = jobs[:limit]
    last_id = page[-1].id if page else None
    return {"object": "list", "data": page, "has_more": len(jobs) > limit, "last_id": last_id}


@router.get("/{job_id}")
def get(job_id: str, state: State) -> Job:
    return state.jobs.get(job_id)


@router.post("/{job_id}/cancel")
def cancel(job_id: str, state: State) -> Job:
    """A queued job ends at once; a running one when its worker has stopped it, within seconds."""
    return state.jobs.cancel(job_id)


@router.post("/{job_id}/retry")
async def retry(job_id: str, state: State) -> Job:
    """Queue a failed or cancelled job again; it goes on from its last checkpoint."""
    job = await anyio.to_thread.run_sync(state.jobs.retry, job_id)
    state.reconciler.wake()
    return job


@router.get("/{job_id}/metrics")
def metrics(job_id: str, state: State) -> dict[str, Any]:
    """Every metric as a series of points; a pipeline's by name of stage, as pretrain/train_loss."""
    series = dict(state.jobs.series(job_id))
    pipeline = state.jobs.get(job_id).name
    for stage in state.jobs.stages(job_id):
        label = stage_name(stage.kind, stage.name, pipeline)
        series |= {f"{label}/{name}": points for name, points in state.jobs.series(stage.id).items()}
    return {"object": "job.metrics", "job_id": job_id, "series": series}


@router.get("/{job_id}/logs")
def logs(job_id: str, state: State, tail: Annotated[int | None, Query(ge=1, le=100_000)] = None) -> Response:
    """The run's output as text, or its last `tail` lines; a pipeline's is that of its stages in order."""
    job = state.jobs.get(job_id)
    members = state.jobs.stages(job_id) or [job]
    if tail is not None:
        return PlainTextResponse("".join(f"{line}\n" for line in tail_log(state.home, members, tail)))
    return StreamingResponse(read_log(state.home, members), media_type="text/plain; charset=utf-8")


def _submit(state: TrainerState, spec: JobSpec, idempotency_key: str | None) -> Job:
    """A repeated key is answered before the checks: what the first one made would fail them now."""
    if idempotency_key is not None:
        earlier = state.jobs.submitted(spec, idempotency_key)
        if earlier is not None:
            return earlier
    check_jobs(state.jobs.plan(spec), state.references, state.home)
    return state.jobs.submit(spec, idempotency_key=idempotency_key)
