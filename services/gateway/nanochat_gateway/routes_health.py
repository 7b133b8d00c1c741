"""Health, metrics, and what inference says of itself. Probes and scrapers have no key, so none is asked for here.

Ready means: chat requests can reach an inference process. That it has no model yet is no reason against, since the
pages then say what to do; that the trainer is away is reported and no reason either: chatting goes on without it.
"""

import json
from typing import Any

from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.responses import JSONResponse, Response

from nanochat.errors import Unavailable
from nanochat_gateway.auth import chat_key
from nanochat_gateway.state import State

router = APIRouter()


@router.api_route("/health/live", methods=["GET", "HEAD"])
async def live() -> Response:
    return JSONResponse({"status": "ok"})


@router.api_route("/health/ready", methods=["GET", "HEAD"])
async def ready(state: State) -> Response:
    reasons = []
    if state.drain.is_draining:
        reasons.append("the process is stopping")
    if not await state.inference.fetch("/health/live"):
        reasons.append("no inference process answers")
    warnings = [] if await state.trainer.is_live() else ["the trainer does not answer"]
    body = {"status": "not_ready" if reasons else "ready", "reasons": reasons, "warnings": warnings}
    return JSONResponse(body, status_code=503 if reasons else 200)


@router.get("/metrics")
async def metrics(state: State) -> Response:
    return Response(generate_latest(state.metrics.registry), headers={"content-type": CONTENT_TYPE_LATEST})


@router.get("/health")
async def pool_health(state: State) -> Response:
    """The worker pool in four numbers. 200 in any case, as its readers expect; /health/ready is for probes."""
    stats = await _pool_stats(state)
    available = stats["available_workers"]
    return JSONResponse(
        {"status": "ok", "ready": available > 0, "num_gpus": stats["total_workers"], "available_workers": available}
    )


@router.get("/stats", dependencies=[chat_key])
async def stats(state: State) -> Response:
    """Load by worker, those of all replicas together. 503 while no replica answers."""
    return JSONResponse(await _pool_stats(state))


async def _pool_stats(state: State) -> dict[str, Any]:
    answers = [json.loads(answer.body) for answer in await state.inference.fetch("/stats") if answer.status == 200]
    if not answers:
        raise Unavailable("The inference service does not answer; wait until it has started.", retry_after_s=2)
    total: dict[str, Any] = {
        name: sum(answer[name] for answer in answers) for name in ("total_workers", "available_workers", "busy_workers")
    }
    workers = [worker for answer in answers for worker in answer["workers"]]
    total["workers"] = [{**worker, "gpu_id": number} for number, worker in enumerate(workers)]
    return total
