"""One step of the model: rows get some of their pending tokens computed, and those without any left a new one sampled.

Shared by the offline loop (generate.py) and the inference service. Which rows there are, and in which slots, is theirs.
"""

from collections.abc import Sequence as Seq
from typing import NamedTuple

import torch

from nanochat.engine.backend import Backend, Chunk
from nanochat.engine.choosing import append_sampled
from nanochat.engine.plan import plan_step
from nanochat.engine.prefix_cache import PrefixCache
from nanochat.engine.sampling import lookup_logprobs
from nanochat.engine.slots import Row
from nanochat.protocol.generate import TokenLogprob

# Tokens in one step where nobody waits for the next token: enough for products to be bound by arithmetic.
DEFAULT_BUDGET = 1024


class Step(NamedTuple):
    """What a step did: the rows that were sampled a token, how many rows took part, and tokens computed for them."""

    sampled: list[Row]
    num_rows: int
    num_tokens: int


@torch.inference_mode()
def run_step(
    backend: Backend, rows: Seq[Row], *, budget: int = DEFAULT_BUDGET, prefixes: PrefixCache | None = None
) -> Step:
    """Advance rows that are in distinct slots and wait for no tool.

    At most about `budget` tokens are computed (plan.py). With `prefixes`, fresh rows begin with what is kept of their
    prompt.
    """
    if prefixes is not None:
        for row in rows:
            if not row.num_computed and row.fork_of is None:
                prefixes.restore(row)
    plan = plan_step(rows, budget, backend.max_chunk)
    logits = backend.forward([_chunk(row, count) for row, count in plan])
    sources: dict[Row, int] = {}  # a row that has all its tokens computed, and the place of its logits
    for place, (row, count) in enumerate(plan):
        row.sequence.pending = row.sequence.pending[count:]
        row.num_computed += count
        if not row.sequence.pending:
            sources[row] = place
        if prefixes is not None:
            prefixes.keep(row)
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
    return Step(sampled, len(plan), sum(count for _, count in plan))


@torch.inference_mode()
def score_prompt(backend: Backend, row: Row, prefixes: PrefixCache | None = None) -> list[TokenLogprob | None]:
    """Log probability of a fresh row's prompt tokens, None for the first. Leaves the last one pending.

    All are computed, whatever is kept of them; `prefixes` keeps what is new.
    """
    sequence = row.sequence
    num_top = sequence.params.logprobs or 0
    ids = sequence.prompt_ids
    scored: list[TokenLogprob | None] = [None]
    while len(sequence.pending) > 1:
        count = min(len(sequence.pending) - 1, backend.max_chunk, _SCORED_CHUNK)
        logits = backend.forward_all(_chunk(row, count))
        targets = ids[row.num_computed + 1 : row.num_computed + 1 + count]
        scored += [sequence.token_logprob(*choice) for choice in lookup_logprobs(logits, targets, num_top)]
        sequence.pending = sequence.pending[count:]
        row.num_computed += count
        if prefixes is not None:  # at once: layers with windows hold no more than the newest
            prefixes.keep(row)
    return scored


# Prompt tokens scored at once: (256, V) float32 logits are 32 MiB at V = 32768.
_SCORED_CHUNK = 256


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
