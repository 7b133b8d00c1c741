"""How commands print: one console, plain tables."""

import time
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table

from nanochat.numbers import duration

# Without emoji: ":bug:" in a name or a model's answer is what it says.
console = Console(highlight=False, emoji=False)
error_console = Console(stderr=True, highlight=False, emoji=False)


def say(line: str) -> None:
    """One line, as it is: no markup is read in it."""
    console.print(line, markup=False, soft_wrap=True)


def print_table(headings: Sequence[str], rows: Iterable[Sequence[str]], *, empty: str) -> None:
    """A borderless table; `empty` in its place when there are no rows. The first column, which names, is never cut."""
    table = Table(*headings, box=None, pad_edge=False, header_style="bold")
    table.columns[0].no_wrap = True
    for row in rows:
        table.add_row(*row)
    if table.row_count:
        console.print(table, markup=False)
    else:
        say(empty)


def age(unix_time: float) -> str:
    return f"{duration(max(0.0, time.time() - unix_time))} ago"
