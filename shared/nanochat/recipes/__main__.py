"""What torchrun runs: python -m nanochat.recipes KIND --spec jobs/<id>/spec.json

Exits with 0 when the job succeeded, 75 when it was stopped by a signal and can go on, 1 when it failed; then the last
line of progress.jsonl says why.
"""

import argparse
import ctypes
import importlib
import logging
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from nanochat.errors import InvalidConfig, NanochatError, PeerLost
from nanochat.files import write_file
from nanochat.observability.logs import setup_logs
from nanochat.protocol.complaint import invalid_config
from nanochat.protocol.jobs import RlConfig, RunSpec, TrainingConfig, parse_config
from nanochat.recipes.distributed import is_under_torchrun, read_ranks
from nanochat.recipes.job import JobContext, Outcome, describe, progress_path
from nanochat.recipes.memory import keep_freed_memory
from nanochat.recipes.progress import ProgressWriter
from nanochat.recipes.stop import EXIT_STOPPED, Stopped, StopSignal
from nanochat.recipes.tracker import start_tracker

log = logging.getLogger(__name__)

KINDS = ("dataset", "tokenizer", "pretrain", "sft", "rl", "evaluate", "report")
_PR_SET_PDEATHSIG = 1  # from Linux's prctl.h


def main() -> int:
    parser = argparse.ArgumentParser(prog="nanochat.recipes", description="Run one job by its spec file.")
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--spec", type=Path, required=True, metavar="FILE", help="a job's spec.json")
    arguments = parser.parse_args()
    setup_logs("recipe")
    logging.getLogger("rustbpe").setLevel(logging.WARNING)  # it logs a line a percent
    if is_under_torchrun():
        _die_with_parent()
    keep_freed_memory()
    stop = StopSignal()
    stop.install()
    ranks = read_ranks()
    if not ranks.is_first:  # what all ranks do alike is logged once
        logging.getLogger().setLevel(logging.WARNING)
    try:
        spec = read_spec(arguments.spec, arguments.kind)
    except NanochatError as exc:
        log.error("job_failed", extra={"code": exc.code, "reason": exc.message})
        return 1
    with ProgressWriter(progress_path(spec), is_first=ranks.is_first) as progress:
        return run_job(spec, progress, stop)


def run_job(spec: RunSpec, progress: ProgressWriter, stop: StopSignal) -> int:
    """The outermost loop: whatever happens, the file and the exit code say it."""
    try:
        job = JobContext(spec=spec, progress=progress, stop=stop, ranks=read_ranks())
        if job.ranks.is_first:
            _keep_spec(spec)
        config = parse_config(spec.kind, spec.config)
        log.info("job_started", extra={"job_id": spec.job_id, "kind": spec.kind, "attempt": spec.attempt})
        log.info("job_config", extra={"config": describe(config.model_dump())})
        if isinstance(config, TrainingConfig | RlConfig) and config.tracker != "none" and job.ranks.rank == 0:
            progress.track(start_tracker(config, spec))
        outcome = _recipe(spec.kind)(job, config)
    except Stopped:
        log.info("job_stopped", extra={"job_id": spec.job_id})
        return EXIT_STOPPED
    except PeerLost as exc:  # the rank that ended says why, or torchrun's report does
        log.error("job_failed", extra={"code": exc.code, "reason": exc.message})
        return 1
    except NanochatError as exc:
        log.error("job_failed", extra={"code": exc.code, "reason": exc.message})
        progress.failure(exc.code, exc.message)
        return 1
    except Exception as exc:
        log.exception("job_failed")
        progress.failure(*_explained(exc))
        return 1
    progress.result(outcome.output, outcome.values)
    log.info("job_succeeded", extra={"job_id": spec.job_id, "output": outcome.output})
    return 0


def _keep_spec(spec: RunSpec) -> None:
    """Beside progress.jsonl, where a worker has put it already and a person's may have come from anywhere: who looks
    at the folder later (report/run.py) finds what was asked for."""
    path = progress_path(spec).with_name("spec.json")
    if not path.exists():
        write_file(path, spec.model_dump_json(indent=2).encode())


def _recipe(kind: str) -> Callable[[JobContext, Any], Outcome]:
    """The module of a kind; only that one is imported, as training a tokenizer needs no torch."""
    module = importlib.import_module(f"nanochat.recipes.{kind}")
    recipe: Callable[[JobContext, Any], Outcome] = module.run
    return recipe


def read_spec(path: Path, kind: str) -> RunSpec:
    """Raises InvalidConfig: no such file, no JSON, a wrong key, or a spec of another kind."""
    try:
        spec = RunSpec.model_validate_json(path.read_bytes())
    except OSError as exc:
        raise InvalidConfig(f"spec file {path} cannot be read: {exc.strerror}. Check the path.") from exc
    except ValidationError as exc:
        raise invalid_config(exc, prefix="spec") from exc
    if spec.kind != kind:
        raise InvalidConfig(f"spec file {path} is of kind {spec.kind}, not {kind}; give that kind.", param="kind")
    return spec


def _explained(exc: Exception) -> tuple[str, str]:
    """Code and message for a failure that is no NanochatError."""
    is_torchs = type(exc).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(exc)
    if isinstance(exc, MemoryError) or is_torchs:
        return "out_of_memory", "memory ran out; lower device_batch_size, max_seq_len or depth."
    if isinstance(exc, OSError):
        return "io_error", f"{exc}. Check disk space and permissions."
    return "internal_error", f"{type(exc).__name__}: {exc}. The log has the traceback."


def _die_with_parent() -> None:
    """Let the kernel end this rank when its torchrun dies, so that no rank is left alone (Linux only)."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main())
