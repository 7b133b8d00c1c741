"""Judges a checkpoint: bits per byte, CORE, tasks with checkable answers, and samples for the log."""

import functools
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from nanochat.checkpoint import store
from nanochat.checkpoint.store import Checkpoint
from nanochat.collectives import Peers
from nanochat.data.loader import validation_loader
from nanochat.data.registry import datasets_dir
from nanochat.engine.generate import Engine
from nanochat.errors import DataError, InvalidConfig
from nanochat.evals.chat import ChatScore, score_task
from nanochat.evals.core_tasks import CORE_TASKS
from nanochat.model.gpt import GPT
from nanochat.model.names import load_tensors
from nanochat.protocol.jobs import EvaluateConfig
from nanochat.recipes import pretrain
from nanochat.recipes.device import Device, choose_device
from nanochat.recipes.distributed import joined
from nanochat.recipes.environment import report_setup
from nanochat.recipes.job import JobContext, Outcome
from nanochat.recipes.validation import MAX_LEN, NUM_SLOTS, measure_bpb, measure_core, write_samples
from nanochat.tasks.base import Task
from nanochat.tasks.loading import load
from nanochat.tasks.registry import CHECKABLE, DEFAULT_EVALS
from nanochat.tools.calculator import Calculator

log = logging.getLogger(__name__)

_VALIDATION_ROWS = 8
_UNITS = 100  # of progress, an eval
_CORE_LABELS = frozenset(task.label for task in CORE_TASKS)

# Examples or tasks done, and how many there are.
Report = Callable[[int, int], None]


def run(job: JobContext, config: EvaluateConfig) -> Outcome:
    """Metrics are written as they come, at the checkpoint's step. Raises NanochatError, Stopped."""
    evals = list(dict.fromkeys(config.evals))
    chat_tasks = _chat_tasks(config)
    device = choose_device(local_rank=job.ranks.local_rank)
    with joined(job.ranks, device.device.type) as peers:
        return _evaluate(job, config, evals, chat_tasks, device, peers)


def _evaluate(
    job: JobContext, config: EvaluateConfig, evals: Sequence[str], chat_tasks: list[str], device: Device, peers: Peers
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
            values = _chat(subject, chat_tasks, report)
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


def _chat_tasks(config: EvaluateConfig) -> list[str]:
    """The chat tasks that the job names. Raises InvalidConfig for what is neither one of them nor of CORE's."""
    names = [name for name in config.tasks or DEFAULT_EVALS if name not in _CORE_LABELS]
    for name in names:
        if name not in CHECKABLE:
            raise InvalidConfig(
                f"task {name!r} cannot be scored; choose of {', '.join(CHECKABLE)}, or CORE's.", param="config.tasks"
            )
    return names


def _chat_task(name: str, home: Path) -> Task:
    """Ready to be answered. Raises DataError without its data, Unavailable where answers cannot be checked here."""
    task = load(name, "held_out", datasets_dir(home))
    task.prepare()
    return task


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
    labels = [name for name in subject.config.tasks or () if name in _CORE_LABELS]
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
    """Accuracy, its standard error and the number of examples of each task; the log gets some wrong answers.

    Ranks take turns with the examples; what is reported on the way is rank 0's share.
    """
    tokenizer, peers = subject.checkpoint.tokenizer, subject.peers
    tasks = {name: _chat_task(name, subject.job.home)[: subject.config.max_per_task] for name in names}
    shares = {name: task[peers.rank :: peers.world_size] for name, task in tasks.items()}
    max_len = MAX_LEN - Task.max_answer_tokens + max(task.max_answer_tokens for task in tasks.values())
    total = sum(map(len, shares.values()))
    values: dict[str, float] = {}
    num_before = 0
    with Calculator() as calculator:
        engine = Engine.of(subject.model, tokenizer, calculator, num_slots=NUM_SLOTS, max_len=max_len)
        for name, task in shares.items():
            on_progress = functools.partial(_report_after, report, num_before, total)
            own = score_task(engine, tokenizer, task, on_progress=on_progress) if len(task) else None
            num_before += len(task)
            (num_right,) = peers.sum([own.num_right if own else 0.0])
            score = ChatScore(num_right=num_right, num_examples=len(tasks[name]))
            values[f"{name}_accuracy"] = score.accuracy
            values[f"{name}_stderr"] = score.stderr
            values[f"{name}_count"] = float(score.num_examples)
            for failure in own.failures if own else ():
                log.info("wrong_answer", extra={"task": name, **vars(failure)})
    return values


def _report(job: JobContext, index: int, num_evals: int, num_done: int, total: int) -> None:
    """Every eval is the same share of the job's progress, as their costs are not known. Raises Stopped."""
    job.stop.check()
    job.progress.progress(index * _UNITS + _UNITS * num_done // total, num_evals * _UNITS)


def _report_after(report: Report, num_before: int, total: int, num_done: int) -> None:
    report(num_before + num_done, total)
