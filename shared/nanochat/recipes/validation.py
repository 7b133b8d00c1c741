"""What a model is judged by while it trains and afterwards: validation text, CORE, chat tasks, samples.

A result NAME, NAME_accuracy or NAME_metric comes with its standard error, number of examples and time: NAME_stderr,
NAME_count (of rows, for val_bpb) and NAME_seconds.
"""

import functools
import logging
import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from nanochat.collectives import ALONE, Peers
from nanochat.data.loader import Loader
from nanochat.data.registry import datasets_dir
from nanochat.engine.generate import Engine
from nanochat.errors import DataError, InvalidConfig
from nanochat.evals import core
from nanochat.evals.bpb import bits_per_byte, token_byte_lengths
from nanochat.evals.chat import ChatScore, is_categorical, longest_prompt, score_categorical, score_generated
from nanochat.evals.core import CoreScore
from nanochat.evals.core_tasks import CORE_TASKS, CoreTask
from nanochat.evals.likelihood import Scorer
from nanochat.evals.samples import sample_chats, sample_texts
from nanochat.model.gpt import GPT
from nanochat.recipes.progress import ProgressWriter
from nanochat.recipes.stop import StopSignal
from nanochat.tasks.base import Task
from nanochat.tasks.loading import load
from nanochat.tasks.registry import CHECKABLE, DEFAULT_EVALS
from nanochat.tokenizer.bpe import Tokenizer
from nanochat.tools.calculator import Calculator

log = logging.getLogger(__name__)

# Rows side by side. Requests and answers of the generated tasks are short: a whole context a slot would be a waste.
NUM_SLOTS = 32
MAX_LEN = 512
CORE_LABELS = frozenset(task.label for task in CORE_TASKS)


def measure_bpb(
    model: GPT, tokenizer: Tokenizer, loader: Loader, max_tokens: int, stop: StopSignal, peers: Peers = ALONE
) -> dict[str, float]:
    """val_bpb over a loader that gives one pass, the same on every rank, which is closed. Nothing where no byte was
    counted. Raises Stopped."""
    start = time.monotonic()
    with loader:
        found = bits_per_byte(
            # forward, not a call: a compiled model would be compiled once more for this, longer than it then saves.
            lambda inputs, targets: model.forward(inputs, targets, reduction="none"),
            stop.watch(loader),
            token_byte_lengths(tokenizer, model.device),
            max_tokens,
            peers,
        )
    if found is None:
        return {}
    beside = _beside("val_bpb", found.stderr, found.num_rows, time.monotonic() - start)
    return {"val_bpb": found.value, **beside}


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

    The log names the missing ones, and has the accuracies. `on_progress` gets tasks done and tasks in all. Raises
    DataError without any file.
    """
    folder = datasets_dir(home) / "core"
    wanted = [task for task in CORE_TASKS if labels is None or task.label in labels]
    present = core_tasks_present(home, wanted)
    missing = [task.label for task in wanted if task not in present]
    if missing:
        log.warning("core_tasks_missing", extra={"tasks": missing})
    scorer = Scorer.of(model)
    scores = {}
    for index, task in enumerate(present):
        on_progress(index, len(present))
        examples = core.load_examples(task, folder, max_per_task)
        scores[task.label] = score = core.score_task(scorer, tokenizer, task, examples, peers)
        log.info(
            "core_task", extra={"task": task.label, "accuracy": score.accuracy, "num_excluded": score.num_excluded}
        )
    return _core_values(scores)


def _core_values(scores: Mapping[str, CoreScore]) -> dict[str, float]:
    values: dict[str, float] = {}
    for label, score in scores.items():
        values[f"core_{label}"] = score.centered
        values |= _beside(f"core_{label}", score.centered_stderr, score.num_examples, score.seconds)
    values["core_metric"] = sum(score.centered for score in scores.values()) / len(scores)
    values["core_num_tasks"] = float(len(scores))
    stderr = mean_stderr([score.centered_stderr for score in scores.values()])
    num_examples = sum(score.num_examples for score in scores.values())
    return values | _beside("core", stderr, num_examples, sum(score.seconds for score in scores.values()))


def chat_task_names(names: Collection[str] | None) -> list[str]:
    """The chat tasks among the names, else DEFAULT_EVALS. Raises InvalidConfig for what is neither one nor CORE's.

    ARC's sets are both, under the same names: a job's `evals` say which of the two is measured.
    """
    found = [name for name in names or () if name in CHECKABLE or name not in CORE_LABELS]
    for name in found:
        if name not in CHECKABLE:
            raise InvalidConfig(
                f"task {name!r} cannot be scored; choose of {', '.join(CHECKABLE)}, or CORE's.", param="config.tasks"
            )
    return found or list(DEFAULT_EVALS)


def chat_tasks(names: Sequence[str], home: Path, max_per_task: int | None) -> dict[str, Task]:
    """The first examples of each task, ready to be answered.

    Raises DataError without a task's data, Unavailable where its answers cannot be checked here.
    """
    tasks = {}
    for name in names:
        task = load(name, "held_out", datasets_dir(home))
        task.prepare()
        tasks[name] = task[:max_per_task]
    return tasks


def measure_chat(
    model: GPT,
    tokenizer: Tokenizer,
    tasks: Mapping[str, Task],
    *,
    on_progress: Callable[[int, int], None],
    peers: Peers = ALONE,
) -> dict[str, float]:
    """Accuracy of each task, and chatcore_metric, the mean of what they are above guessing; the log gets wrong answers.

    Ranks take turns with the examples. `on_progress` gets how many of rank 0's are done, and how many there are. Raises
    InvalidConfig, ContextTooLong.
    """
    shares = {name: task[peers.rank :: peers.world_size] for name, task in tasks.items()}
    total, num_before = sum(map(len, shares.values())), 0
    scores = {}
    with Calculator() as calculator:
        judge = _ChatJudge(model, tokenizer, calculator, list(shares.values()))
        for name, share in shares.items():
            report = functools.partial(_report_after, on_progress, num_before, total)
            own = judge.score(share, report) if len(share) else ChatScore(num_right=0.0, num_examples=0)
            num_before += len(share)
            num_right, seconds = peers.sum([own.num_right, own.seconds if peers.rank == 0 else 0.0])
            task = tasks[name]
            scores[name] = ChatScore(
                num_right=num_right, num_examples=len(task), baseline=task.baseline, seconds=seconds
            )
            for failure in own.failures:
                log.info("wrong_answer", extra={"task": name, **vars(failure)})
    return _chat_values(scores)


class _ChatJudge:
    """What generates, and what compares letters, each made where there are tasks for it."""

    def __init__(self, model: GPT, tokenizer: Tokenizer, calculator: Calculator, tasks: Sequence[Task]) -> None:
        self._tokenizer = tokenizer
        filled = [task for task in tasks if len(task)]
        generated = [task for task in filled if not is_categorical(task)]
        self._engine: Engine | None = None
        if generated:
            max_len = max(longest_prompt(tokenizer, task) + task.max_answer_tokens for task in generated)
            self._engine = Engine.of(model, tokenizer, calculator, num_slots=NUM_SLOTS, max_len=max_len)
        self._scorer = Scorer.of(model) if len(generated) < len(filled) else None

    def score(self, task: Task, on_progress: Callable[[int], None]) -> ChatScore:
        if is_categorical(task):
            assert self._scorer is not None
            return score_categorical(self._scorer, self._tokenizer, task, on_progress)
        assert self._engine is not None
        return score_generated(self._engine, self._tokenizer, task, on_progress)


def _report_after(on_progress: Callable[[int, int], None], num_before: int, total: int, num_done: int) -> None:
    on_progress(num_before + num_done, total)


def _chat_values(scores: Mapping[str, ChatScore]) -> dict[str, float]:
    values: dict[str, float] = {}
    for name, score in scores.items():
        values[f"{name}_accuracy"] = score.accuracy
        values |= _beside(name, score.stderr, score.num_examples, score.seconds)
    values["chatcore_metric"] = sum(score.centered for score in scores.values()) / len(scores)
    values["chatcore_num_tasks"] = float(len(scores))
    stderr = mean_stderr([score.centered_stderr for score in scores.values()])
    num_examples = sum(score.num_examples for score in scores.values())
    return values | _beside("chatcore", stderr, num_examples, sum(score.seconds for score in scores.values()))


def mean_stderr(stderrs: Sequence[float]) -> float:
    """Of the mean of independent results, given the standard error of each."""
    return math.sqrt(sum(stderr**2 for stderr in stderrs)) / len(stderrs)


def _beside(name: str, stderr: float, num_examples: int, seconds: float) -> dict[str, float]:
    return {f"{name}_stderr": stderr, f"{name}_count": float(num_examples), f"{name}_seconds": seconds}


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
