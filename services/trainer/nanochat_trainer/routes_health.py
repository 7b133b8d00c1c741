"""GET /health/live, /health/ready, /metrics."""

from typing import Any

import anyio.to_thread
from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from nanochat.errors import Unavailable
from nanochat_trainer.state import State, TrainerState

router = APIRouter()


@router.get("/health/live")
async def live() -> dict[str, str]:
    return {"status": "ok"}


@router.get("/health/ready")
async def ready(state: State) -> JSONResponse:
    """Ready with a database. Without a broker jobs are still taken and wait, so that is told and no reason."""
    status, body = await anyio.to_thread.run_sync(_readiness, state)
    return JSONResponse(body, status_code=status)


@router.get("/metrics")
def metrics(state: State) -> Response:
    return Response(generate_latest(state.metrics.registry), media_type=CONTENT_TYPE_LATEST)


def _readiness(state: TrainerState) -> tuple[int, dict[str, Any]]:
    try:
        state.database.require_schema()
    except Unavailable as exc:
        return 503, {"status": "unavailable", "reasons": [exc.message]}
    try:
        state.broker.num_waiting()
    except Unavailable as exc:
        return 200, {"status": "degraded", "reasons": [exc.message]}
    return 200, {"status": "ok", "reasons": []}
