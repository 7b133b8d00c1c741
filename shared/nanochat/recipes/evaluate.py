"""Judges a checkpoint: bits per byte, CORE, ChatCORE's tasks with checkable answers, and samples for the log."""

import functools
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nanochat.checkpoint import store
from nanochat.checkpoint.store import Checkpoint
from nanochat.collectives import Peers
from nanochat.data.loader import validation_loader
from nanochat.errors import DataError
from nanochat.model.gpt import GPT
from nanochat.model.names import load_tensors
from nanochat.protocol.jobs import EvaluateConfig
from nanochat.recipes import pretrain
from nanochat.recipes.device import Device, choose_device
from nanochat.recipes.distributed import joined
from nanochat.recipes.environment import report_setup
from nanochat.recipes.job import JobContext, Outcome
from nanochat.recipes.validation import (
    CORE_LABELS,
    chat_task_names,
    chat_tasks,
    measure_bpb,
    measure_chat,
    measure_core,
    write_samples,
)

log = logging.getLogger(__name__)

_VALIDATION_ROWS = 8
_UNITS = 100  # of progress, an eval

# Examples or tasks done, and how many there are.
Report = Callable[[int, int], None]


def run(job: JobContext, config: EvaluateConfig) -> Outcome:
    """Metrics are written as they come, at the checkpoint's step. Raises NanochatError, Stopped."""
    evals = list(dict.fromkeys(config.evals))
    names = chat_task_names(config.tasks)
    device = choose_device(local_rank=job.ranks.local_rank)
    with joined(job.ranks, device.device.type) as peers:
        return _evaluate(job, config, evals, names, device, peers)


def _evaluate(
    job: JobContext, config: EvaluateConfig, evals: Sequence[str], chat_names: list[str], device: Device, peers: Peers
) -> Outcome:
    checkpoint = store.load(job.checkpoint_folder(config.checkpoint))
    model = GPT(checkpoint.config, device.dtype).to(device.device)
    load_tensors(model, checkpoint.model_tensors)
    model.eval()
    report_setup(job, model, model.config.sequence_len)
    subject = _Subject(job, config, checkpoint, model, peers)
    metrics: dict[str, float] = {}
    for index, name in enumerate(evals):
        report = functools.partial(_report, job, index, len(evals))
        report(0, 1)
        if name == "bpb":
            values = _bpb(subject)
        elif name == "core":
            values = _core(subject, report)
        elif name == "chat":
            values = _chat(subject, chat_names, report)
        else:
            values = write_samples(
                job.progress,
                model,
                checkpoint.tokenizer,
                as_chat=checkpoint.info.stage != pretrain.STAGE,
                step=checkpoint.info.step,
                peers=peers,
            )
        metrics |= values
        job.progress.metrics(checkpoint.info.step, values)
        log.info("evaluated", extra={"eval": name, "checkpoint": checkpoint.info.id, **values})
    _report(job, len(evals), len(evals), 0, 1)
    return Outcome(output=None, values=metrics)


@dataclass(frozen=True)
class _Subject:
    """The checkpoint under examination, and what was asked about it."""

    job: JobContext
    config: EvaluateConfig
    checkpoint: Checkpoint
    model: GPT
    peers: Peers


def _bpb(subject: _Subject) -> dict[str, float]:
    """On the dataset that the job names, else the one that the checkpoint was trained on. Raises DataError."""
    job, config, checkpoint, model = subject.job, subject.config, subject.checkpoint, subject.model
    reference = config.dataset or checkpoint.state.get("dataset")
    if reference is None:
        raise DataError("the checkpoint does not say what it was trained on; give dataset.", param="config.dataset")
    loader = validation_loader(
        job.dataset(reference).folder,
        checkpoint.tokenizer,
        batch_size=config.device_batch_size or _VALIDATION_ROWS,
        sequence_len=model.config.sequence_len,
    )
    return measure_bpb(model, checkpoint.tokenizer, loader, config.eval_tokens, job.stop, subject.peers)


def _core(subject: _Subject, report: Report) -> dict[str, float]:
    labels = [name for name in subject.config.tasks or () if name in CORE_LABELS]
    return measure_core(
        subject.model,
        subject.checkpoint.tokenizer,
        subject.job.home,
        labels=labels or None,
        max_per_task=subject.config.max_per_task,
        on_progress=report,
        peers=subject.peers,
    )


def _chat(subject: _Subject, names: list[str], report: Report) -> dict[str, float]:
    job, config = subject.job, subject.config
    tasks = chat_tasks(names, job.home, config.max_per_task)
    return measure_chat(subject.model, subject.checkpoint.tokenizer, tasks, on_progress=report, peers=subject.peers)


def _report(job: JobContext, index: int, num_evals: int, num_done: int, total: int) -> None:
    """Every eval is the same share of the job's progress, as their costs are not known. Raises Stopped."""
    job.stop.check()
    job.progress.progress(index * _UNITS + _UNITS * num_done // total, num_evals * _UNITS)
