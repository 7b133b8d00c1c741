"""One step of the model: rows get some of their pending tokens computed, and those without any left a new one sampled.

Shared by the offline loop (generate.py) and the inference service. Which rows there are, and in which slots, is theirs.
"""

from collections.abc import Sequence as Seq
from typing import NamedTuple

import torch
from torch import Tensor

from nanochat.engine.backend import Backend, Chunk
from nanochat.engine.choosing import append_sampled
from nanochat.engine.plan import plan_step
from nanochat.engine.prefix_cache import PrefixCache
from nanochat.engine.sampling import lookup_logprobs
from nanochat.engine.slots import Row

# Tokens in one step where nobody waits for the next token: enough for products to be bound by arithmetic.
DEFAULT_BUDGET = 1024


class Step(NamedTuple):
    """What a step did: the rows that were sampled a token, those that took part, and tokens computed for them."""

    sampled: list[Row]
    rows: list[Row]
    num_tokens: int


@torch.inference_mode()
def run_step(
    backend: Backend, rows: Seq[Row], *, budget: int = DEFAULT_BUDGET, prefixes: PrefixCache | None = None
) -> Step:
    """Advance rows that are in distinct slots and wait for no tool.

    At most about `budget` tokens are computed (plan.py). With `prefixes`, fresh rows begin with what is kept of their
    prompt, but for those whose prompt is scored: all of it is computed. What a step has computed is kept by
    prefixes.keep(), of the step's rows, once their tokens are told: whoever waits for those does not wait for that.
    """
    if prefixes is not None:
        for row in rows:
            if not row.num_computed and row.fork_of is None and row.scores is None:
                prefixes.restore(row)
    plan = plan_step(rows, budget, backend.max_chunk)
    is_scoring = any(map(_is_scored, rows))  # seldom: then rows are not asked one by one
    if is_scoring:
        plan = _with_bounded_scores(plan)
    chunks = [_chunk(row, count) for row, count in plan]
    counts = [count if is_scoring and _is_scored(row) else 1 for row, count in plan]  # of logits
    logits = backend.forward_ends(chunks, counts) if is_scoring else backend.forward(chunks)
    sources: dict[Row, int] = {}  # a row that has all its tokens computed, and the place of its logits
    end = 0
    for (row, count), num_logits in zip(plan, counts, strict=True):
        end += num_logits
        if is_scoring and _is_scored(row):
            _score(row, logits[end - num_logits : end])
        row.sequence.pending = row.sequence.pending[count:]
        row.num_computed += count
        if not row.sequence.pending:
            sources[row] = end - 1
    for row in rows:
        if row.fork_of is not None and row.fork_of in sources:
            _fork(backend, row)
            sources[row] = sources[row.fork_of]
            row.fork_of = None
    sampled = list(sources)
    if sampled:
        places = list(sources.values())
        # Most steps sample every row once, in order: then nothing has to be copied.
        wanted = logits if places == list(range(len(logits))) else logits[places]
        append_sampled([row.sequence for row in sampled], wanted)
    return Step(sampled, [row for row, _ in plan], sum(count for _, count in plan))


# Prompt tokens scored in a step: (256, V) float32 logits are 32 MiB at V = 32768.
MAX_SCORED = 256


def _is_scored(row: Row) -> bool:
    return row.scores is not None and row.num_computed < len(row.sequence.prompt_ids)


def _with_bounded_scores(plan: list[tuple[Row, int]]) -> list[tuple[Row, int]]:
    """The same, but MAX_SCORED tokens at most of all prompts that are scored, the first rows first."""
    left, bounded = MAX_SCORED, []
    for row, planned in plan:
        count = min(planned, left) if _is_scored(row) else planned
        left -= count if _is_scored(row) else 0
        if count:
            bounded.append((row, count))
    return bounded


def _score(row: Row, logits: Tensor) -> None:
    """What each token of the prompt but the first is given by the logits (count, V) before it."""
    assert row.scores is not None
    sequence = row.sequence
    targets = sequence.prompt_ids[row.num_computed + 1 : row.num_computed + 1 + len(logits)]  # none for the last one
    choices = lookup_logprobs(logits[: len(targets)], targets, sequence.params.logprobs or 0)
    row.scores += [sequence.token_logprob(*choice) for choice in choices]


def _chunk(row: Row, count: int) -> Chunk:
    sequence, start = row.sequence, row.num_computed
    previous = -1
    if start:
        num_prompt = len(sequence.prompt_ids)
        previous = (
            sequence.prompt_ids[start - 1] if start <= num_prompt else sequence.generated_ids[start - 1 - num_prompt]
        )
    return Chunk(row.slot, start, sequence.pending[:count], previous)


def _fork(backend: Backend, row: Row) -> None:
    source = row.fork_of
    assert source is not None
    backend.copy_slot(source.slot, row.slot, source.num_computed)
    row.num_computed = source.num_computed
    row.kept_blocks = list(source.kept_blocks)
    row.sequence.num_cached = source.sequence.num_cached
    row.sequence.pending = []
