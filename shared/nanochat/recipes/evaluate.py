"""Judges a checkpoint: bits per byte, CORE, tasks with checkable answers, and samples for the log."""

import functools
import logging

from nanochat.checkpoint import store
from nanochat.checkpoint.store import Checkpoint
from nanochat.data.loader import validation_loader
from nanochat.engine.generate import Engine
from nanochat.errors import DataError, InvalidConfig
from nanochat.evals.chat import ChatScore, score_task
from nanochat.evals.core_tasks import CORE_TASKS
from nanochat.model.gpt import GPT
from nanochat.model.names import load_tensors
from nanochat.protocol.jobs import EvaluateConfig
from nanochat.recipes import pretrain
from nanochat.recipes.device import choose_device
from nanochat.recipes.job import JobContext, Outcome
from nanochat.recipes.validation import MAX_LEN, NUM_SLOTS, log_samples, measure_bpb, measure_core
from nanochat.tasks.registry import CHECKABLE, build
from nanochat.tools.calculator import Calculator

log = logging.getLogger(__name__)

_VALIDATION_ROWS = 8
_CORE_LABELS = frozenset(task.label for task in CORE_TASKS)


def run(job: JobContext, config: EvaluateConfig) -> Outcome:
    """Metrics are written as they come, at the checkpoint's step. Raises NanochatError, Stopped."""
    chat_tasks = _chat_tasks(config)
    device = choose_device(local_rank=job.ranks.local_rank)
    checkpoint = store.load(job.checkpoint_folder(config.checkpoint))
    model = GPT(checkpoint.config, device.dtype).to(device.device)
    load_tensors(model, checkpoint.model_tensors)
    model.eval()
    measures = {
        "bpb": lambda: _bpb(job, config, checkpoint, model),
        "core": lambda: _core(job, config, checkpoint, model),
        "sample": lambda: log_samples(model, checkpoint.tokenizer, as_chat=checkpoint.info.stage != pretrain.STAGE),
        "chat": lambda: _chat(job, config, checkpoint, model, chat_tasks),
    }
    metrics: dict[str, float] = {}
    for name in dict.fromkeys(config.evals):
        job.stop.check()
        values = measures[name]()
        metrics |= values
        job.progress.metrics(checkpoint.info.step, values)
        log.info("evaluated", extra={"eval": name, "checkpoint": checkpoint.info.id, **values})
    job.progress.progress(1, 1, force=True)
    return Outcome(output=None, values=metrics)


def _chat_tasks(config: EvaluateConfig) -> list[str]:
    """The chat tasks that the job names. Raises InvalidConfig for what is neither one of them nor of CORE's."""
    names = [name for name in config.tasks or CHECKABLE if name not in _CORE_LABELS]
    for name in names:
        if name not in CHECKABLE:
            raise InvalidConfig(
                f"task {name!r} cannot be scored; choose of {', '.join(CHECKABLE)}, or CORE's.", param="config.tasks"
            )
    return names


def _bpb(job: JobContext, config: EvaluateConfig, checkpoint: Checkpoint, model: GPT) -> dict[str, float]:
    reference = config.dataset or checkpoint.state.get("dataset")
    if reference is None:
        raise DataError("the checkpoint does not say what it was trained on; give dataset.", param="config.dataset")
    loader = validation_loader(
        job.dataset(reference).folder,
        checkpoint.tokenizer,
        batch_size=config.device_batch_size or _VALIDATION_ROWS,
        sequence_len=model.config.sequence_len,
    )
    return measure_bpb(model, checkpoint.tokenizer, loader, config.eval_tokens, job.stop)


def _core(job: JobContext, config: EvaluateConfig, checkpoint: Checkpoint, model: GPT) -> dict[str, float]:
    labels = [name for name in config.tasks or () if name in _CORE_LABELS]
    return measure_core(
        model,
        checkpoint.tokenizer,
        job.home,
        labels=labels or None,
        max_per_task=config.max_per_task,
        on_progress=functools.partial(_report, job),
    )


def _chat(
    job: JobContext, config: EvaluateConfig, checkpoint: Checkpoint, model: GPT, names: list[str]
) -> dict[str, float]:
    tasks = {name: build(name, "held_out")[: config.max_per_task] for name in names}
    total = sum(map(len, tasks.values()))
    values: dict[str, float] = {}
    num_before = 0
    with Calculator() as calculator:
        engine = Engine(model, checkpoint.tokenizer, calculator, num_slots=NUM_SLOTS, max_len=MAX_LEN)
        for name, task in tasks.items():
            report = functools.partial(_report_after, job, num_before, total)
            score = score_task(engine, checkpoint.tokenizer, task, on_progress=report)
            num_before += len(task)
            values |= _named_score(name, score)
            for failure in score.failures:
                log.info("wrong_answer", extra={"task": name, **vars(failure)})
    return values


def _named_score(name: str, score: ChatScore) -> dict[str, float]:
    return {
        f"{name}_accuracy": score.accuracy,
        f"{name}_stderr": score.stderr,
        f"{name}_count": float(score.num_examples),
    }


def _report(job: JobContext, num_done: int, total: int) -> None:
    job.stop.check()
    job.progress.progress(num_done, total)


def _report_after(job: JobContext, num_before: int, total: int, num_done: int) -> None:
    _report(job, num_before + num_done, total)
