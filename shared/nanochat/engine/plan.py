"""How many tokens each row gets computed in the next step, torch-free.

Rows that decode always take part: one token each, or what a tool has forced. What the budget leaves goes to prompts,
the shortest remainder first, so that a short question does not wait behind a long document; a quarter of it is for
whoever has waited longest, so that the document comes in too.
"""

from collections.abc import Sequence

from nanochat.engine.slots import Row

# Of a step that has prompts: less would make a long one take for ever on a busy server.
MIN_PROMPT_TOKENS = 16
_OLDEST_SHARE = 4


def plan_step(rows: Sequence[Row], budget: int, max_chunk: int) -> list[tuple[Row, int]]:
    """Rows with their number of tokens, at least 1, in the order of the rows given, the oldest first.

    A row that waits for another's prompt (fork_of) is left out. `budget` bounds the tokens of all rows; decoding rows
    may exceed it, and prompts get MIN_PROMPT_TOKENS at least.
    """
    runnable = [row for row in rows if row.fork_of is None]
    counts = {row: min(row.num_pending, max_chunk) for row in runnable if _decodes(row)}
    prompts = [row for row in runnable if row not in counts]
    left = max(budget - sum(counts.values()), MIN_PROMPT_TOKENS)
    shares = share([row.num_pending for row in prompts], left, max_chunk)
    counts.update({row: count for row, count in zip(prompts, shares, strict=True) if count})
    return [(row, counts[row]) for row in runnable if row in counts]


def share(lengths: Sequence[int], budget: int, max_chunk: int) -> list[int]:
    """How many tokens of prompts of these lengths, the oldest first, are computed within a budget of at least 1."""
    if not lengths:
        return []
    counts = [0] * len(lengths)
    counts[0] = min(lengths[0], max_chunk, max(1, budget // _OLDEST_SHARE))
    budget -= counts[0]
    for i in sorted(range(len(lengths)), key=lengths.__getitem__):
        given = min(lengths[i], max_chunk) - counts[i]
        counts[i] += min(given, budget)
        budget -= min(given, budget)
    return counts


def _decodes(row: Row) -> bool:
    """Has its prompt been computed?"""
    return row.num_computed >= len(row.sequence.prompt_ids)
