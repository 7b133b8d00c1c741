"""How commands print: one console, plain tables, numbers as people read them."""

import time
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table

console = Console(highlight=False)
error_console = Console(stderr=True, highlight=False)


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


def duration(seconds: float) -> str:
    """Such as 42s, 3m05s, 2h10m."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"


def count(number: int) -> str:
    """Such as 815, 36.7M, 1.38B."""
    for unit, size in (("T", 10**12), ("B", 10**9), ("M", 10**6), ("k", 10**3)):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return str(number)


def age(unix_time: float) -> str:
    return f"{duration(max(0.0, time.time() - unix_time))} ago"
