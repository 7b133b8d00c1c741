"""/v1/checkpoints: those that are complete, newest first."""

from typing import Any

from fastapi import APIRouter

from nanochat.checkpoint.manifest import CheckpointInfo, find, list_checkpoints
from nanochat_trainer.state import State

router = APIRouter(prefix="/v1/checkpoints", tags=["checkpoints"])


@router.get("")
def list_all(state: State) -> dict[str, Any]:
    return {"object": "list", "data": [_shown(info) for info in list_checkpoints(state.home)]}


@router.get("/{checkpoint_id:path}")
def get(checkpoint_id: str, state: State) -> dict[str, Any]:
    """By id (run/stage/step_000500); run/stage and run give their newest one."""
    return _shown(find(state.home, checkpoint_id))


def _shown(info: CheckpointInfo) -> dict[str, Any]:
    return {
        "id": info.id,
        "object": "checkpoint",
        "run": info.run,
        "stage": info.stage,
        "step": info.step,
        "created_at": info.created,
        "size_bytes": info.size_bytes,
        "config": info.config.to_dict(),
        "metrics": info.metrics,
    }
