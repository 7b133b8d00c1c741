"""CORE: in-context tasks of three kinds, each scored by what the model finds likely, none by what it writes.

multiple_choice    one context, several continuations: the one with the lowest mean loss wins
schema             several contexts, one continuation: likewise
language_modeling  every token of the continuation must be the model's first choice

One row at a time, so a score depends on no batch. The tasks themselves are core_tasks.py.
"""

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from nanochat.collectives import ALONE, Peers
from nanochat.errors import DataError
from nanochat.evals.core_tasks import CoreTask
from nanochat.tokenizer.bpe import Tokenizer

_SHUFFLE_SEED = 1337
_SHOTS_SEED = 1234
# As ranks tell each other an example's outcome; 0 is no word on it.
_OUTCOME_OF = {1.0: None, 2.0: False, 3.0: True}
_NUMBER_OF = {outcome: number for number, outcome in _OUTCOME_OF.items()}

Example = dict[str, Any]
# Token ids (1, T) -> logits (1, T, V).
Logits = Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class CoreScore:
    """`outcomes` in the order of the shuffled examples; None where an example's tokens do not line up."""

    accuracy: float
    centered: float
    outcomes: tuple[bool | None, ...]

    @property
    def num_excluded(self) -> int:
        return self.outcomes.count(None)


@dataclass(frozen=True)
class _Option:
    """A row of tokens, BOS first, of which those from `start` on are judged."""

    token_ids: list[int]
    start: int


def load_examples(task: CoreTask, folder: Path, max_examples: int | None = None) -> list[Example]:
    """The task's examples, shuffled, the first `max_examples`. Raises DataError naming the file."""
    path = folder / task.file
    try:
        with path.open(encoding="utf-8") as lines:
            examples = [json.loads(line) for line in lines if line.strip()]
    except (OSError, ValueError) as exc:
        raise DataError(f"CORE file {path} cannot be read: {exc}. Put the benchmark's data there.") from exc
    random.Random(_SHUFFLE_SEED).shuffle(examples)
    return examples[:max_examples]


@torch.inference_mode()
def score_task(
    logits: Logits,
    tokenizer: Tokenizer,
    task: CoreTask,
    examples: Sequence[Example],
    *,
    max_len: int,
    device: torch.device | str = "cpu",
    peers: Peers = ALONE,
) -> CoreScore:
    """Rows longer than max_len tokens lose their left end. Excluded examples count in no accuracy.

    Ranks take turns with the examples, and all get the score. Raises PeerLost.
    """
    found = [0.0] * len(examples)  # of other ranks' examples
    for index in range(peers.rank, len(examples), peers.world_size):
        example, shots = examples[index], _draw_shots(examples, index, task.num_shots)
        options = _options(tokenizer, task, example, shots)
        outcome = None if options is None else _judge(logits, task, example, options, max_len, device)
        found[index] = _NUMBER_OF[outcome]
    outcomes = [_OUTCOME_OF[number] for number in peers.sum(found)]
    judged = [outcome for outcome in outcomes if outcome is not None]
    accuracy = sum(judged) / len(judged) if judged else 0.0
    centered = (accuracy - task.random_accuracy) / (1 - task.random_accuracy)
    return CoreScore(accuracy=accuracy, centered=centered, outcomes=tuple(outcomes))


def _draw_shots(examples: Sequence[Example], index: int, num_shots: int) -> list[Example]:
    others = [other for other in range(len(examples)) if other != index]
    return [examples[other] for other in random.Random(_SHOTS_SEED + index).sample(others, num_shots)]


def _options(tokenizer: Tokenizer, task: CoreTask, example: Example, shots: Sequence[Example]) -> list[_Option] | None:
    """The rows to compare. None where the prompt's tokens do not begin those of prompt and continuation."""
    preamble = "".join(_shot(task, shot) for shot in shots)
    if task.kind == "language_modeling":
        prompt = preamble + example["context"].strip() + task.delimiter
        without, full = _encode(tokenizer, [prompt.strip(), prompt + example["continuation"]])
        return [_Option(full, len(without))] if full[: len(without)] == without else None
    if task.kind == "multiple_choice":
        texts = [preamble + example["query"] + task.delimiter + choice for choice in example["choices"]]
        rows = _encode(tokenizer, texts)
        start = _common_length(rows)
        return [_Option(row, start) for row in rows]
    texts = [preamble + context + task.delimiter + example["continuation"] for context in example["context_options"]]
    rows = _encode(tokenizer, texts)
    num_common = _common_length([row[::-1] for row in rows])
    return [_Option(row, len(row) - num_common) for row in rows]


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


def _common_length(rows: Sequence[list[int]]) -> int:
    """How many tokens all rows begin with."""
    count = 0
    for column in zip(*rows, strict=False):
        if len(set(column)) > 1:
            break
        count += 1
    return count


def _judge(
    logits: Logits,
    task: CoreTask,
    example: Example,
    options: Sequence[_Option],
    max_len: int,
    device: torch.device | str,
) -> bool:
    losses = []
    for option in options:
        num_cut = max(0, len(option.token_ids) - max_len)
        # The first token is never judged: nothing stands before it to predict it from.
        start = max(1, option.start - num_cut)
        token_ids = torch.tensor(option.token_ids[num_cut:], device=device)
        predicted = logits(token_ids[None])[0, start - 1 : -1]  # (1, T, V) -> (judged, V)
        judged = token_ids[start:]
        if task.kind == "language_modeling":
            return bool((predicted.argmax(dim=-1) == judged).all())
        losses.append(F.cross_entropy(predicted.float(), judged).item())
    return bool(losses.index(min(losses)) == example["gold"])
