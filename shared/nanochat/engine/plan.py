"""How many tokens each row gets computed in the next step, torch-free.

Rows that decode always take part: one token each, or what a tool has forced. Prompts share what the budget leaves
(pace.py).
"""

from collections.abc import Sequence

from nanochat.engine.pace import MIN_PROMPT_TOKENS, share
from nanochat.engine.slots import Row


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


def _decodes(row: Row) -> bool:
    """Has its prompt been computed?"""
    return row.num_computed >= len(row.sequence.prompt_ids)
