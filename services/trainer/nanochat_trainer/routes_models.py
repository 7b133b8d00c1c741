"""/v1/models/{name}: which checkpoint is served. A promotion answers once every live replica serves it."""

import time
from typing import Annotated, Any

import anyio
import anyio.to_thread
from fastapi import APIRouter
from pydantic import Field

from nanochat.checkpoint.manifest import verify
from nanochat.errors import DeadlineExceeded, InvalidRequest
from nanochat.jobs.models import Replica, ServedChoice
from nanochat.protocol import Strict
from nanochat.protocol.jobs import Reference
from nanochat_trainer.state import State, TrainerState

router = APIRouter(prefix="/v1/models", tags=["models"])

ModelName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
POLL_S = 0.1


class Promotion(Strict):
    """`checkpoint` is a checkpoint's id, a job's id (its output), or a path under an allowed folder."""

    checkpoint: Reference


@router.get("")
def list_all(state: State) -> dict[str, Any]:
    return {"object": "list", "data": [_shown(choice, []) for choice in state.models.choices()]}


@router.post("/{name}/promote")
async def promote(name: ModelName, body: Promotion, state: State) -> dict[str, Any]:
    """Verify every byte of the checkpoint, store the choice, wait for the replicas."""
    choice = await anyio.to_thread.run_sync(_promote, state, name, body.checkpoint)
    return await _settled(state, choice)


@router.post("/{name}/rollback")
async def rollback(name: ModelName, state: State) -> dict[str, Any]:
    """Back to the checkpoint before, verified again."""
    choice = await anyio.to_thread.run_sync(_rollback, state, name)
    return await _settled(state, choice)


def _promote(state: TrainerState, name: str, reference: str) -> ServedChoice:
    info = state.references.checkpoint_info(reference)
    if reference.startswith("/") and not info.folder.is_relative_to((state.home / "checkpoints").resolve()):
        raise InvalidRequest(
            f"checkpoint {info.folder} is outside {state.home / 'checkpoints'}, where replicas look for them; "
            "copy it there as run/stage/step_000500.",
            param="checkpoint",
        )
    verify(info.folder)
    return state.models.promote(name, info.id)


def _rollback(state: TrainerState, name: str) -> ServedChoice:
    previous = state.models.previous(name)
    verify(state.references.checkpoint(previous))
    return state.models.rollback(name)


async def _settled(state: TrainerState, choice: ServedChoice) -> dict[str, Any]:
    """Once every live replica serves the choice. Raises DeadlineExceeded naming those that do not."""
    deadline = time.monotonic() + state.settings.promote_timeout_s
    while True:
        replicas = await anyio.to_thread.run_sync(state.models.live_replicas, choice.name)
        behind = [replica for replica in replicas if replica.checkpoint != choice.checkpoint]
        if not behind:
            return _shown(choice, replicas)
        if time.monotonic() >= deadline:
            raise DeadlineExceeded(
                f"{choice.checkpoint} is chosen, but after {state.settings.promote_timeout_s:g} s it is not served by "
                f"{'; '.join(_said(replica) for replica in behind)}. They go on trying; rollback takes the choice back."
            )
        await anyio.sleep(POLL_S)


def _said(replica: Replica) -> str:
    reason = f", which says: {replica.error}" if replica.error else ""
    return f"{replica.id} (serves {replica.checkpoint or 'nothing'}{reason})"


def _shown(choice: ServedChoice, replicas: list[Replica]) -> dict[str, Any]:
    return {
        "id": choice.name,
        "object": "model",
        "checkpoint": choice.checkpoint,
        "previous": choice.previous,
        "generation": choice.generation,
        "promoted_at": choice.promoted_at,
        "replicas": [replica.id for replica in replicas],
        "message": None if replicas else "no replica is live; the first one to start will serve it.",
    }
