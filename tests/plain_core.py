"""CORE a passage at a time, by whole logits of the plain model: what evals/core.py must agree with."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from nanochat.evals.core import Example, passages
from nanochat.evals.core_tasks import CoreTask
from nanochat.model.gpt import GPT
from nanochat.tokenizer.bpe import Tokenizer


@torch.inference_mode()
def plain_outcomes(
    model: GPT, tokenizer: Tokenizer, task: CoreTask, examples: Sequence[Example], indices: Sequence[int] | None = None
) -> list[bool | None]:
    """Of the examples at the indices, or of all."""
    return [_outcome(model, tokenizer, task, examples, i) for i in indices or range(len(examples))]


def _outcome(model: GPT, tokenizer: Tokenizer, task: CoreTask, examples: Sequence[Example], index: int) -> bool | None:
    options = passages(tokenizer, task, examples, index, model.config.sequence_len)
    if options is None:
        return None
    losses = []
    for option in options:
        token_ids = torch.tensor(option.token_ids)
        predicted = model(token_ids[None])[0, option.start - 1 : -1]  # (1, T, V) -> (judged, V)
        judged = token_ids[option.start :]
        if task.kind == "language_modeling":
            return bool((predicted.argmax(dim=-1) == judged).all())
        losses.append(F.cross_entropy(predicted, judged).item())
    return bool(losses.index(min(losses)) == examples[index]["gold"])
