"""The calculator that a model calls: arithmetic and string methods such as 'strawberry'.count('r').

The text comes from a model, so from whoever prompts it. It is never evaluated in this process: pydantic-monty, an
interpreter without access to files, network or modules, runs it in worker processes with limits on time and memory.
This module decides what may go in (one expression, on one line, of bounded length) and how a result is printed.
When a call is made and where its result goes is the engine's.
"""

import math
import re
from collections.abc import Iterator
from types import TracebackType
from typing import Self

from pydantic_monty import Monty, MontyError, ResourceLimits

MAX_EXPRESSION_CHARS = 500
MAX_RESULT_CHARS = 128
# An int is printed only below this size: printing costs time quadratic in its digits, in this process.
_MAX_INT_BITS = 4 * MAX_RESULT_CHARS
# Above 2^53 a float no longer holds every whole number, so its digits would be invented.
_MAX_WHOLE_FLOAT = 2.0**53

# A string on one line without escapes; a number that may hold commas; a name; a run of blanks; any other character.
_TOKEN = re.compile(r"""'[^'\\\n]*'|"[^"\\\n]*"|\d(?:[\d,]*\d)?|[^\W\d]\w*|\s+|.""", re.DOTALL)
# Outside strings. A \ or a lone quote would let the sandbox read a text differently from _TOKEN; # would hide the
# closing parenthesis, and ; would begin a second statement.
_FORBIDDEN = frozenset("\\'\"#;")
# Checked inside the sandbox, since a value that cannot cross over (a function, a generator) arrives as its repr.
_ONLY_PRINTABLE_TYPES = "(lambda value: value if isinstance(value, (int, float, str)) else None)"


class Calculator:
    """A pool of sandboxed workers. Safe to call from several threads; close it, or use it in a `with` block.

    `evaluate` never raises. A worker is killed at `timeout_s` of wall clock and replaced, as is one that dies.
    """

    def __init__(self, *, num_workers: int = 2, timeout_s: float = 0.5, memory_bytes: int = 64 * 2**20) -> None:
        self._memory_bytes = memory_bytes
        # A caller waits for a worker at most as long as each worker could be held by one call before it, and a spawn.
        self._pool = Monty(max_processes=num_workers, request_timeout=timeout_s, checkout_timeout=2 * timeout_s + 1.0)
        self._pool.__enter__()

    def evaluate(self, expression: str) -> str | None:
        """The value of one expression as text of at most MAX_RESULT_CHARS characters on one line.

        None where there is none: no single expression, an error in it, a limit reached, a value that is no number,
        truth value or printable string. Costs about 0.2 ms.
        """
        code = _prepare(expression)
        if code is None:
            return None
        limits = ResourceLimits(max_memory=self._memory_bytes, max_recursion_depth=100, max_suspensions=1)
        try:
            with self._pool.checkout(limits=limits, os_policy={"sleep": "zero"}) as session:
                value: object = session.feed_run(code, print_callback=_discard)
        except (MontyError, TimeoutError, RuntimeError, ValueError, OverflowError, MemoryError):
            # Timeout: every worker is busy. Runtime: the pool is closed. The others: a value that does not cross over.
            return None
        return _printed(value)

    def close(self) -> None:
        """End the workers. Later calls of evaluate give None."""
        self._pool.__exit__(None, None, None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _prepare(expression: str) -> str | None:
    """The code for the sandbox: in parentheses, which no statement survives, and without commas in its numbers."""
    if not expression.strip() or len(expression) > MAX_EXPRESSION_CHARS or not expression.isprintable():
        return None
    if "'''" in expression or '"""' in expression:
        return None
    tokens: list[str] = _TOKEN.findall(expression)
    if not _FORBIDDEN.isdisjoint(tokens) or not _is_balanced(tokens):
        return None
    return f"{_ONLY_PRINTABLE_TYPES}(({''.join(_without_commas(tokens))}))"


def _is_balanced(tokens: list[str]) -> bool:
    """No bracket closes that was not opened: the text cannot end the parentheses put around it."""
    depth = 0
    for token in tokens:
        depth += (token in ("(", "[", "{")) - (token in (")", "]", "}"))
        if depth < 0:
            return False
    return depth == 0


def _without_commas(tokens: list[str]) -> Iterator[str]:
    """Drop the commas of 1,234 but keep those that part arguments and items, as in max(1,234) and [1,234]."""
    keeps: list[bool] = []  # an entry for each open bracket: do commas inside it part things?
    previous = ""
    for token in tokens:
        if token in ("(", "[", "{"):
            keeps.append(token != "(" or previous[-1:].isalnum() or previous[-1:] in (")", "]", "_", "'", '"'))
        elif token in (")", "]", "}"):
            keeps.pop()
        yield token if any(keeps) or not token[0].isdigit() else token.replace(",", "")
        if not token.isspace():
            previous = token


def _printed(value: object) -> str | None:
    """Numbers as a person writes them: 4 for 4.0, 0.3 for 0.1 + 0.2."""
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, int):
        if value.bit_length() > _MAX_INT_BITS:
            return None
        text = str(value)
    elif isinstance(value, float):
        if not math.isfinite(value):
            return None
        # 12 digits: enough for every sum of money, few enough that binary rounding does not show.
        text = str(int(value)) if value.is_integer() and abs(value) < _MAX_WHOLE_FLOAT else f"{value:.12g}"
    elif isinstance(value, str):
        text = value
    else:
        return None
    return text if len(text) <= MAX_RESULT_CHARS and text.isprintable() else None


def _discard(stream: str, text: str) -> None:
    """print() in an expression goes nowhere."""
