"""Evaluations many examples at a time beside one at a time: CORE, and answers that are generated.

By itself: python -m tests.bench.evaluation [CORE_FOLDER [MAX_PER_TASK [NUM_PLAIN]]]. Without the benchmark's data,
examples are made up that are as long as its own: ten shots, four choices.
"""

import random
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from nanochat.bench.random_model import random_model, random_tokenizer
from nanochat.config import GPTConfig
from nanochat.cores import usable_cores
from nanochat.engine.generate import Engine
from nanochat.evals.chat import score_generated
from nanochat.evals.core import Example, load_examples, score_task
from nanochat.evals.core_tasks import CORE_TASKS, CoreTask
from nanochat.evals.likelihood import Scorer
from nanochat.recipes.validation import NUM_SLOTS
from nanochat.tasks.arithmetic import Arithmetic
from nanochat.tasks.base import Task
from nanochat.tasks.counting import Counting
from nanochat.tasks.spelling import Spelling
from nanochat.tokenizer.bpe import Tokenizer
from tests.plain_core import plain_outcomes

Asked = Sequence[tuple[CoreTask, list[Example]]]


@dataclass(frozen=True, kw_only=True)
class EvaluationFigures:
    """Examples a second, many at a time and one at a time. num_compared had both; num_different other outcomes."""

    core_per_second: float
    plain_core_per_second: float
    num_compared: int
    num_different: int
    answers_per_second: float
    single_answers_per_second: float

    @property
    def core_ratio(self) -> float:
        return self.core_per_second / self.plain_core_per_second

    @property
    def answers_ratio(self) -> float:
        return self.answers_per_second / self.single_answers_per_second


def measure_evaluation(
    config: GPTConfig, asked: Asked, tokenizer: Tokenizer, *, num_plain: int, num_answers: int
) -> EvaluationFigures:
    """A random model of a config. `num_plain` examples of each task are judged one at a time, which stand for all."""
    model = random_model(config)
    scorer = Scorer.of(model)
    seconds = plain_seconds = 0.0
    num_compared = num_different = 0
    for task, examples in asked:
        score = score_task(scorer, tokenizer, task, examples)
        indices = range(min(num_plain, len(examples)))
        start = time.perf_counter()
        plain = plain_outcomes(model, tokenizer, task, examples, indices)
        plain_seconds += (time.perf_counter() - start) * len(examples) / len(indices)
        seconds += score.seconds
        num_compared += len(indices)
        num_different += sum(a != b for a, b in zip(plain, score.outcomes, strict=False))
    num_examples = sum(len(examples) for _, examples in asked)
    tasks = [Spelling("held_out"), Counting("held_out"), Arithmetic("held_out")]
    many = Engine.of(model, tokenizer, num_slots=NUM_SLOTS, max_len=512)
    single = Engine.of(model, tokenizer, num_slots=1, max_len=512)
    return EvaluationFigures(
        core_per_second=num_examples / seconds,
        plain_core_per_second=num_examples / plain_seconds,
        num_compared=num_compared,
        num_different=num_different,
        answers_per_second=_answers_per_second(many, tokenizer, tasks, num_answers),
        single_answers_per_second=_answers_per_second(single, tokenizer, tasks, max(1, num_answers // 16)),
    )


def made_up(num_examples: int) -> Asked:
    """A task of each kind."""
    rng = random.Random(0)

    def text(num_words: int) -> str:
        letters = "abcdefghijklmnopqrstuvwxyz"
        return " ".join("".join(rng.choices(letters, k=rng.randint(2, 7))) for _ in range(num_words))

    choices = CoreTask(label="choices", file="", kind="multiple_choice")
    words = CoreTask(label="words", file="", kind="language_modeling")
    schema = CoreTask(label="schema", file="", kind="schema", num_shots=0)
    return [
        (choices, [_choice_example(rng, text) for _ in range(num_examples)]),
        (words, [{"context": text(30), "continuation": text(2)} for _ in range(num_examples)]),
        (
            schema,
            [{"context_options": [text(9), text(9)], "continuation": text(8), "gold": 0} for _ in range(num_examples)],
        ),
    ]


def _choice_example(rng: random.Random, text: Callable[[int], str]) -> Example:
    return {"query": text(25), "choices": [text(5) for _ in range(4)], "gold": rng.randrange(4)}


def _answers_per_second(engine: Engine, tokenizer: Tokenizer, tasks: Sequence[Task], num_answers: int) -> float:
    score_generated(engine, tokenizer, tasks[0][:1])  # not counted
    scores = [score_generated(engine, tokenizer, task[:num_answers]) for task in tasks]
    return sum(score.num_examples for score in scores) / sum(score.seconds for score in scores)


def add_rows(table: Table, found: EvaluationFigures) -> None:
    table.add_row("[bold]CORE, many at a time to one at a time", f"[bold]{found.core_ratio:.1f} x")
    table.add_row("  examples", f"{found.core_per_second:.1f} and {found.plain_core_per_second:.1f} a second")
    table.add_row("  other outcomes", f"{found.num_different} of {found.num_compared}")
    table.add_row(f"[bold]generated answers, {NUM_SLOTS} at a time to one", f"[bold]{found.answers_ratio:.1f} x")
    table.add_row("  answers", f"{found.answers_per_second:.1f} and {found.single_answers_per_second:.1f} a second")


def main() -> None:
    torch.set_num_threads(usable_cores())
    arguments = sys.argv[1:]
    max_per_task = int(arguments[1]) if len(arguments) > 1 else 100
    num_plain = int(arguments[2]) if len(arguments) > 2 else 4
    asked: Asked = made_up(max_per_task)
    everything: list[list[Example]] = []
    if arguments:
        folder = Path(arguments[0])
        present = [task for task in CORE_TASKS if (folder / task.file).is_file()]
        everything = [load_examples(task, folder) for task in present]
        asked = [(task, examples[:max_per_task]) for task, examples in zip(present, everything, strict=True)]
    for vocab_size in (4096, 32768):
        tokenizer = _tokenizer(everything, vocab_size) if everything else random_tokenizer(vocab_size)
        config = GPTConfig.from_depth(4, vocab_size=vocab_size, sequence_len=2048, head_dim=64)
        found = measure_evaluation(config, asked, tokenizer, num_plain=num_plain, num_answers=64)
        table = Table(title=f"depth 4, vocabulary {vocab_size}, {torch.get_num_threads()} threads")
        add_rows(table, found)
        Console().print(table)


def _tokenizer(tasks: Sequence[Sequence[Example]], vocab_size: int) -> Tokenizer:
    """Trained on the benchmark's own text: rows are then about as long as with a real one."""
    return Tokenizer.train((str(example) for examples in tasks for example in examples), vocab_size)


if __name__ == "__main__":
    main()
