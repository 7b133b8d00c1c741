"""From which checkpoint a run goes on, if from any: after a crash, a stop, or because the job asks for it."""

import logging
from pathlib import Path
from typing import Any

from nanochat.checkpoint import manifest, store
from nanochat.checkpoint.store import Checkpoint
from nanochat.collectives import ALONE, Peers
from nanochat.data.handover import deal_out
from nanochat.errors import InvalidConfig
from nanochat.recipes.job import JobContext

log = logging.getLogger(__name__)


def checkpoint_to_resume(
    job: JobContext, run: str, stage: str, *, resume: bool, resume_from: str | None, peers: Peers = ALONE
) -> Checkpoint | None:
    """The newest whole checkpoint of the run's stage, else the one that `resume_from` names; None to begin at the
    beginning.

    A later attempt of a job goes on by itself, but only from what an attempt of this very job has saved: a run's name
    may be used again. So do ranks that torchrun has started again. `resume` takes what any job has saved. Rank 0
    verifies and chooses for all. Raises NotFound, CheckpointCorrupt, and InvalidConfig where what is named is of
    another stage, or the run has gone on from it.
    """
    may_go_on = resume or job.spec.attempt > 1 or job.ranks.may_be_restarted
    if not (may_go_on or resume_from):
        return None
    if peers.rank:
        folder = peers.first("")
        return store.load(Path(folder), with_optimizer=True, is_verified=True) if folder else None
    chosen = _newest(job, run, stage, resume=resume) if may_go_on else None
    if chosen is None and resume_from:
        chosen = _named(job, run, stage, resume_from)
    if chosen is not None:
        log.info("resuming", extra={"checkpoint": chosen.info.id, "step": chosen.info.step})
    peers.first("" if chosen is None else str(chosen.info.folder))
    return chosen


def _newest(job: JobContext, run: str, stage: str, *, resume: bool) -> Checkpoint | None:
    info = manifest.newest(job.home, run, stage, verified=True)
    if info is None:
        log.info("nothing_to_resume", extra={"run": run, "stage": stage})
        return None
    checkpoint = store.load(info.folder, with_optimizer=True, is_verified=True)
    if not resume and checkpoint.state.get("job_id") != job.spec.job_id:
        log.info("checkpoint_of_another_job", extra={"checkpoint": info.id})
        return None
    return checkpoint


def _named(job: JobContext, run: str, stage: str, reference: str) -> Checkpoint:
    info = manifest.find(job.home, reference)
    if info.stage != stage:
        raise InvalidConfig(
            f"resume_from names a checkpoint of the stage {info.stage}, and this is {stage}; begin with it by "
            "`checkpoint`, or name one of this stage.",
            param="resume_from",
        )
    newest = manifest.newest(job.home, run, stage)
    if newest is not None and newest.id != info.id:
        raise InvalidConfig(
            f"the run {run} has {newest.id}, which training from {info.id} would be mixed with; give another `run`.",
            param="run",
        )
    return store.load(info.folder, with_optimizer=True)


def text_state(checkpoint: Checkpoint | None, peers: Peers) -> dict[str, Any] | None:
    """Where this rank's loader of text goes on: its own place, or, where ranks are others now, the first that any was
    at."""
    if checkpoint is None:
        return None
    states = _loader_states(checkpoint)
    if len(states) == peers.world_size:
        return states[peers.rank]
    return min(states, key=lambda state: list(state["cursor"].values()))  # epoch first, then shard, row group, ...


def conversation_state(checkpoint: Checkpoint | None, num_conversations: int, peers: Peers) -> dict[str, Any] | None:
    """Where this rank's loader of conversations goes on: its own place, or a share of what all ranks left."""
    if checkpoint is None:
        return None
    states = _loader_states(checkpoint)
    if len(states) == peers.world_size:
        return states[peers.rank]
    return deal_out(states, num_conversations, rank=peers.rank, world_size=peers.world_size)


def _loader_states(checkpoint: Checkpoint) -> list[dict[str, Any]]:
    """By rank."""
    saved = checkpoint.state["loader"]
    return saved if isinstance(saved, list) else [saved]  # one, of a version with one rank
