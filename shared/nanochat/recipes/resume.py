"""From which checkpoint a run goes on, if from any: after a crash, a stop, or because the job asks for it."""

import logging

from nanochat.checkpoint import manifest, store
from nanochat.checkpoint.store import Checkpoint
from nanochat.config import GPTConfig
from nanochat.errors import Conflict
from nanochat.recipes.job import JobContext

log = logging.getLogger(__name__)


def checkpoint_to_resume(job: JobContext, run: str, stage: str, *, resume: bool) -> Checkpoint | None:
    """The newest whole checkpoint of the run's stage; None to begin at the beginning.

    A later attempt of a job goes on by itself, but only from what an attempt of this very job has saved: a run's name
    may be used again. `resume` takes what any job has saved.
    """
    if not (resume or job.spec.attempt > 1):
        return None
    info = manifest.newest(job.home, run, stage, verified=True)
    if info is None:
        log.info("nothing_to_resume", extra={"run": run, "stage": stage})
        return None
    checkpoint = store.load(info.folder, with_optimizer=True)
    if not resume and checkpoint.state.get("job_id") != job.spec.job_id:
        log.info("checkpoint_of_another_job", extra={"checkpoint": info.id})
        return None
    log.info("resuming", extra={"checkpoint": info.id, "step": info.step})
    return checkpoint


def check_same_model(checkpoint: Checkpoint, config: GPTConfig) -> None:
    """Raises Conflict naming the first size that differs."""
    saved, asked = checkpoint.config.to_dict(), config.to_dict()
    for name, value in asked.items():
        if saved[name] != value:
            raise Conflict(
                f"checkpoint {checkpoint.info.id} has {name} {saved[name]} and the job asks for {value}; "
                "give the same sizes, or another run.",
                param="run",
            )
