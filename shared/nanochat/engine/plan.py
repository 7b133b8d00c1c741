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
    if prompts:
        left = max(budget - sum(counts.values()), MIN_PROMPT_TOKENS)
        counts[prompts[0]] = min(prompts[0].num_pending, max_chunk, max(1, left // _OLDEST_SHARE))
        left -= counts[prompts[0]]
        for row in sorted(prompts, key=lambda row: row.num_pending):
            given = min(row.num_pending - counts.get(row, 0), max_chunk - counts.get(row, 0), left)
            if given > 0:
                counts[row] = counts.get(row, 0) + given
                left -= given
    return [(row, counts[row]) for row in runnable if row in counts]


def _decodes(row: Row) -> bool:
    """Has its prompt been computed?"""
    return row.num_computed >= len(row.sequence.prompt_ids)
