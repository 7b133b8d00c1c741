"""CORE: in-context tasks of three kinds, each scored by what the model finds likely, none by what it writes.

multiple_choice    one context, several continuations: the one with the lowest mean loss wins
schema             several contexts, one continuation: likewise
language_modeling  every token of the continuation must be the model's first choice

What the model finds likely is likelihood.py's to tell. The tasks themselves are core_tasks.py.
"""

import math
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nanochat.collectives import ALONE, Peers
from nanochat.evals.core_tasks import CoreTask
from nanochat.evals.likelihood import Likelihood, Passage, Scorer, common_length
from nanochat.tasks.rows import read_files
from nanochat.tokenizer.bpe import Tokenizer

_SHUFFLE_SEED = 1337
_SHOTS_SEED = 1234
# As ranks tell each other an example's outcome; 0 is no word on it.
_OUTCOME_OF = {1.0: None, 2.0: False, 3.0: True}
_NUMBER_OF = {outcome: number for number, outcome in _OUTCOME_OF.items()}

Example = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class CoreScore:
    """`outcomes` in the order of the shuffled examples; None where an example's tokens do not line up.

    random_accuracy is the task's: `centered` is 0 at it and 1 where all is right. `seconds` are rank 0's.
    """

    outcomes: tuple[bool | None, ...]
    random_accuracy: float
    seconds: float

    @property
    def num_examples(self) -> int:
        """That were judged."""
        return len(self.outcomes) - self.num_excluded

    @property
    def num_excluded(self) -> int:
        return self.outcomes.count(None)

    @property
    def accuracy(self) -> float:
        return self.outcomes.count(True) / self.num_examples if self.num_examples else 0.0

    @property
    def stderr(self) -> float:
        """Of the accuracy."""
        return math.sqrt(self.accuracy * (1 - self.accuracy) / max(1, self.num_examples))

    @property
    def centered(self) -> float:
        return (self.accuracy - self.random_accuracy) / (1 - self.random_accuracy)

    @property
    def centered_stderr(self) -> float:
        return self.stderr / (1 - self.random_accuracy)


def load_examples(task: CoreTask, folder: Path, max_examples: int | None = None) -> list[Example]:
    """The task's examples, shuffled, the first `max_examples`. Raises DataError naming the file, and the line."""
    examples = [row.values for row in read_files([folder / task.file])]
    random.Random(_SHUFFLE_SEED).shuffle(examples)
    return examples[:max_examples]


def score_task(
    scorer: Scorer, tokenizer: Tokenizer, task: CoreTask, examples: Sequence[Example], peers: Peers = ALONE
) -> CoreScore:
    """Passages longer than the scorer takes lose their left end. Excluded examples count in no accuracy.

    Ranks take turns with the examples, and all get the score. Raises PeerLost.
    """
    start = time.monotonic()
    own = range(peers.rank, len(examples), peers.world_size)
    options = {index: passages(tokenizer, task, examples, index, scorer.max_len) for index in own}
    judged = {index: group for index, group in options.items() if group is not None}
    likelihoods = dict(zip(judged, scorer.score(list(judged.values())), strict=True))
    found = [0.0] * len(examples)  # of other ranks' examples
    for index in own:
        outcome = _is_right(task, examples[index], likelihoods[index]) if index in judged else None
        found[index] = _NUMBER_OF[outcome]
    outcomes = tuple(_OUTCOME_OF[number] for number in peers.sum(found))
    (seconds,) = peers.sum([time.monotonic() - start if peers.rank == 0 else 0.0])
    return CoreScore(outcomes=outcomes, random_accuracy=task.random_accuracy, seconds=seconds)


def passages(
    tokenizer: Tokenizer, task: CoreTask, examples: Sequence[Example], index: int, max_len: int
) -> list[Passage] | None:
    """The passages to compare for one of the examples, after others as shots; longer ones without their left end.

    None where the prompt's tokens do not begin those of prompt and continuation.
    """
    whole = _options(tokenizer, task, examples[index], _draw_shots(examples, index, task.num_shots))
    return None if whole is None else [_cut(passage, max_len) for passage in whole]


def _draw_shots(examples: Sequence[Example], index: int, num_shots: int) -> list[Example]:
    others = [other for other in range(len(examples)) if other != index]
    drawn = random.Random(_SHOTS_SEED + index).sample(others, min(num_shots, len(others)))
    return [examples[other] for other in drawn]


def _options(tokenizer: Tokenizer, task: CoreTask, example: Example, shots: Sequence[Example]) -> list[Passage] | None:
    """The passages to compare. None where the prompt's tokens do not begin those of prompt and continuation."""
    preamble = "".join(_shot(task, shot) for shot in shots)
    if task.kind == "language_modeling":
        prompt = preamble + example["context"].strip() + task.delimiter
        without, full = _encode(tokenizer, [prompt.strip(), prompt + example["continuation"]])
        return [Passage(full, len(without))] if full[: len(without)] == without else None
    if task.kind == "multiple_choice":
        texts = [preamble + example["query"] + task.delimiter + choice for choice in example["choices"]]
        rows = _encode(tokenizer, texts)
        start = common_length(rows)
        return [Passage(row, start) for row in rows]
    texts = [preamble + context + task.delimiter + example["continuation"] for context in example["context_options"]]
    rows = _encode(tokenizer, texts)
    num_common = common_length([row[::-1] for row in rows])
    return [Passage(row, len(row) - num_common) for row in rows]


def _shot(task: CoreTask, shot: Example) -> str:
    """A solved example and the blank line after it."""
    if task.kind == "multiple_choice":
        context, continuation = shot["query"], shot["choices"][shot["gold"]]
    elif task.kind == "schema":
        context, continuation = shot["context_options"][shot["gold"]], shot["continuation"]
    else:
        context, continuation = shot["context"].strip(), shot["continuation"]
    return f"{context}{task.delimiter}{continuation}\n\n"


def _encode(tokenizer: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
    return [[tokenizer.bos_id, *tokenizer.encode(text)] for text in texts]


def _cut(passage: Passage, max_len: int) -> Passage:
    """Without as many tokens on the left as it has too many. The first that is left is never judged."""
    num_cut = max(0, len(passage.token_ids) - max_len)
    return Passage(passage.token_ids[num_cut:], max(1, passage.start - num_cut))


def _is_right(task: CoreTask, example: Example, options: Sequence[Likelihood]) -> bool:
    if task.kind == "language_modeling":
        return options[0].is_greedy
    losses = [option.mean_nats for option in options]
    return bool(losses.index(min(losses)) == example["gold"])
