"""What a job must satisfy before it is stored: its references, its sizes, a folder of its own to write to.

Whether its tasks can be used is task_checks.py's, the shape of a config protocol/jobs.py's; what a recipe can only find
out from the data, the recipe says.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from nanochat.checkpoint.manifest import MANIFEST, checkpoints_dir
from nanochat.config import GPTConfig
from nanochat.data.catalogue import public_datasets
from nanochat.data.registry import BUILTIN_DATASETS, datasets_dir
from nanochat.errors import InvalidConfig
from nanochat.planning.pretraining import DEFAULT_SEQUENCE_LEN, model_of
from nanochat.protocol.jobs import (
    DatasetConfig,
    EvaluateConfig,
    Job,
    PretrainConfig,
    ReportConfig,
    RlConfig,
    SftConfig,
    TokenizerConfig,
    TrainingConfig,
    parse_config,
    stage_name,
)
from nanochat.references import References
from nanochat.sizes import num_parameters
from nanochat_trainer.task_checks import TaskChecks

# In float32: the weight, its gradient, and two numbers that the optimizer keeps.
BYTES_PER_WEIGHT = 16
MIN_VOCAB_SIZE = 265  # the bytes and the special tokens


def check_jobs(jobs: Sequence[Job], references: References, home: Path) -> None:
    """A planned job, or a pipeline and its stages in order. Raises InvalidConfig or DataError naming the field."""
    stages = [job for job in jobs if job.kind != "pipeline"]
    for position, job in enumerate(stages):
        try:
            _check_job(job, stages[:position], references, home)
        except InvalidConfig as exc:
            if len(jobs) == 1:
                raise
            name = stage_name(job.kind, job.name, jobs[0].name)
            raise InvalidConfig(f"stage {name}: {exc.message}", param=exc.param) from exc


def _check_job(job: Job, earlier: Sequence[Job], references: References, home: Path) -> None:
    config = parse_config(job.kind, job.config)
    tasks = TaskChecks(home, earlier)
    match config:
        case PretrainConfig():
            _check_memory(_model(config, _vocab_size(config.tokenizer, earlier)))
            _check_batch(config, config.max_seq_len or DEFAULT_SEQUENCE_LEN, job.num_processes)
        case SftConfig():
            _check_batch(config, config.max_seq_len, job.num_processes)
            tasks.check_mixture(config.mixture)
            if config.chatcore_every:
                tasks.check_scored("config.chatcore_tasks", config.chatcore_tasks or [])
        case RlConfig():
            tasks.check_rewarded(config.task)
            _check_questions(config, job.num_processes)
        case EvaluateConfig():
            tasks.check_scored("config.tasks", config.tasks or [], as_chat="chat" in config.evals)
        case DatasetConfig():
            _check_dataset(config, home)
        case TokenizerConfig():
            tasks.check_mixture(config.mixture)
        case _:
            assert isinstance(config, ReportConfig), job.kind
    references.resolve(job.kind, job.config, pending=earlier)
    _check_unused(job, home)


def _vocab_size(tokenizer: str, earlier: Sequence[Job]) -> int:
    """Of the tokenizer that an earlier stage makes; of any other, known when the job starts, the smallest there is."""
    for job in earlier:
        if job.id == tokenizer:
            return TokenizerConfig.model_validate(job.config).vocab_size
    return MIN_VOCAB_SIZE


def _model(config: PretrainConfig, vocab_size: int) -> GPTConfig:
    """Raises InvalidConfig naming the key that the user can change."""
    try:
        return model_of(config, vocab_size)
    except InvalidConfig as exc:
        # from_depth derives n_embd and n_head; head_dim is the key that the user can change.
        key = exc.param if exc.param in PretrainConfig.model_fields else "head_dim"
        raise InvalidConfig(f"config.{key}: {exc.message}", param=f"config.{key}") from exc


def _check_memory(model: GPTConfig) -> None:
    """Weights, gradients and the optimizer's state alone must fit; activations come on top."""
    num_weights = num_parameters(model)
    needed, available = num_weights * BYTES_PER_WEIGHT, memory_bytes()
    if needed > available:
        raise InvalidConfig(
            f"config.depth: a model of {num_weights / 1e9:.1f}e9 weights takes {needed / 2**30:.0f} GiB to train, "
            f"{BYTES_PER_WEIGHT} bytes a weight, and this machine has {available / 2**30:.0f} GiB; "
            "choose a smaller depth or aspect_ratio.",
            param="config.depth",
        )


def memory_bytes() -> int:
    """Of the machine."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _check_batch(config: TrainingConfig, max_seq_len: int | None, num_processes: int) -> None:
    """total_batch_size must be whole steps. What is not given, the recipe chooses to fit."""
    if config.total_batch_size is None or max_seq_len is None:
        return
    rows = config.device_batch_size or 1
    unit = rows * max_seq_len * num_processes
    if config.total_batch_size % unit:
        raise InvalidConfig(
            f"config.total_batch_size is {config.total_batch_size}, which is no multiple of {unit} tokens "
            f"(device_batch_size {rows} x max_seq_len {max_seq_len} x {num_processes} processes); "
            f"use {max(1, round(config.total_batch_size / unit)) * unit}.",
            param="config.total_batch_size",
        )


def _check_questions(config: RlConfig, num_processes: int) -> None:
    """Every process answers as many."""
    if config.examples_per_step % num_processes:
        raise InvalidConfig(
            f"config.examples_per_step is {config.examples_per_step}, which is no multiple of {num_processes} "
            f"processes; use {max(1, round(config.examples_per_step / num_processes)) * num_processes}.",
            param="config.examples_per_step",
        )


def _check_dataset(config: DatasetConfig, home: Path) -> None:
    """Whether the hub has it, only the hub can say."""
    name = config.folder_name
    if name in BUILTIN_DATASETS:
        raise InvalidConfig(f"config.name: {name!r} is made on first use, without a job.", param="config.name")
    if config.source is None and name not in public_datasets():
        raise InvalidConfig(
            f"config.name: no public dataset is called {name!r}; known are {', '.join(public_datasets())}. For another "
            "one give config.source, such as hf://owner/dataset.",
            param="config.name",
        )
    if config.is_repackaging and (datasets_dir(home) / name).exists():
        raise InvalidConfig(f"config.name: dataset {name!r} exists already; choose another one.", param="config.name")


def _check_unused(job: Job, home: Path) -> None:
    """Two jobs that wrote into one folder would resume from each other's checkpoints."""
    if job.kind == "tokenizer" and (home / "tokenizers" / job.name / "tokenizer.json").exists():
        raise InvalidConfig(f"tokenizer {job.name!r} exists already; give the job another name.", param="name")
    run = job.config.get("run")
    if run is None or job.config.get("resume"):
        return
    folder = checkpoints_dir(home) / run / job.kind
    if any(folder.glob(f"step_*/{MANIFEST}")):
        raise InvalidConfig(
            f"run {run!r} has checkpoints of stage {job.kind} already; choose another name or config.run, "
            "or set config.resume to go on from the newest.",
            param="config.run",
        )
