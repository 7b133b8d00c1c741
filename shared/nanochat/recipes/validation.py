"""What a model is judged by while it trains and afterwards: validation text, CORE, samples."""

import logging
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from nanochat.collectives import ALONE, Peers
from nanochat.data.loader import Loader
from nanochat.data.registry import datasets_dir
from nanochat.engine.generate import Engine
from nanochat.errors import DataError
from nanochat.evals import core
from nanochat.evals.bpb import bits_per_byte, token_byte_lengths
from nanochat.evals.core_tasks import CORE_TASKS, CoreTask
from nanochat.evals.samples import sample_chats, sample_texts
from nanochat.model.gpt import GPT
from nanochat.recipes.progress import ProgressWriter
from nanochat.recipes.stop import StopSignal
from nanochat.tokenizer.bpe import Tokenizer
from nanochat.tools.calculator import Calculator

log = logging.getLogger(__name__)

# Rows side by side. Requests and answers of the generated tasks are short: a whole context a slot would be a waste.
NUM_SLOTS = 32
MAX_LEN = 512


def measure_bpb(
    model: GPT, tokenizer: Tokenizer, loader: Loader, max_tokens: int, stop: StopSignal, peers: Peers = ALONE
) -> dict[str, float]:
    """val_bpb over a loader that gives one pass, the same on every rank, which is closed. Nothing where no byte was
    counted. Raises Stopped."""
    with loader:
        value = bits_per_byte(
            # forward, not a call: a compiled model would be compiled once more for this, longer than it then saves.
            lambda inputs, targets: model.forward(inputs, targets, reduction="none"),
            stop.watch(loader),
            token_byte_lengths(tokenizer, model.device),
            max_tokens,
            peers,
        )
    return {} if value is None else {"val_bpb": value}


def core_tasks_present(home: Path, wanted: Sequence[CoreTask] = CORE_TASKS) -> list[CoreTask]:
    """Those of the tasks whose files are here. Raises DataError without any."""
    folder = datasets_dir(home) / "core"
    present = [task for task in wanted if (folder / task.file).is_file()]
    if not present:
        raise DataError(
            f"no file of the CORE benchmark in {folder}; put its data there, or leave CORE out.", param="evals"
        )
    return present


def measure_core(
    model: GPT,
    tokenizer: Tokenizer,
    home: Path,
    *,
    labels: Collection[str] | None,
    max_per_task: int | None,
    on_progress: Callable[[int, int], None],
    peers: Peers = ALONE,
) -> dict[str, float]:
    """Centered accuracy of each task whose file is under $NANOCHAT_HOME/datasets/core, and core_metric, their mean.

    The log names the missing ones. `on_progress` gets tasks done and tasks in all. Raises DataError without any file.
    """
    folder = datasets_dir(home) / "core"
    wanted = [task for task in CORE_TASKS if labels is None or task.label in labels]
    present = core_tasks_present(home, wanted)
    missing = [task.label for task in wanted if task not in present]
    if missing:
        log.warning("core_tasks_missing", extra={"tasks": missing})
    values = {}
    for index, task in enumerate(present):
        on_progress(index, len(present))
        examples = core.load_examples(task, folder, max_per_task)
        max_len = model.config.sequence_len
        score = core.score_task(model, tokenizer, task, examples, max_len=max_len, device=model.device, peers=peers)
        values[f"core_{task.label}"] = score.centered
    return {**values, "core_metric": sum(values.values()) / len(values), "core_num_tasks": float(len(values))}


def write_samples(
    progress: ProgressWriter,
    model: GPT,
    tokenizer: Tokenizer,
    *,
    as_chat: bool,
    step: int | None = None,
    peers: Peers = ALONE,
) -> dict[str, float]:
    """For people: to progress.jsonl and the log, by rank 0; gives no metric. Without `step`: of the step told last."""
    if peers.rank:
        return {}
    with Calculator() as calculator:
        engine = Engine.of(model, tokenizer, calculator, num_slots=NUM_SLOTS, max_len=MAX_LEN)
        for sample in (sample_chats if as_chat else sample_texts)(engine, tokenizer):
            progress.sample(sample.prompt, sample.text, step)
            log.info("sample", extra={"prompt": sample.prompt, "text": sample.text})
    return {}
