"""Every call is answered, once and in time, whatever the calculator does."""

import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from nanochat_inference.batching.calls import Calls

DEADLINE_S = 0.2


class Scripted:
    """Doubles a number, hangs at "hang" until the test is over, raises at "raise"."""

    def __init__(self) -> None:
        self.is_over = threading.Event()

    def evaluate(self, expression: str) -> str | None:
        if expression == "hang":
            self.is_over.wait(30)
            return "too late"
        if expression == "raise":
            raise ValueError("a calculator never raises; this one does")
        return str(2 * int(expression))


@contextmanager
def calls(num_threads: int) -> Iterator[tuple[Calls, Scripted]]:
    scripted = Scripted()
    made = Calls(scripted, num_threads=num_threads, timeout_s=DEADLINE_S)
    try:
        yield made, scripted
    finally:
        scripted.is_over.set()
        made.close()


def test_a_call_is_answered_with_its_value() -> None:
    answers: queue.Queue[str | None] = queue.Queue()
    with calls(num_threads=1) as (made, _):
        made.ask("4", answers.put)
        made.ask("5", answers.put)
        assert [answers.get(timeout=10), answers.get(timeout=10)] == ["8", "10"]


def test_a_call_that_hangs_has_no_result_and_is_not_answered_again() -> None:
    answers: queue.Queue[str | None] = queue.Queue()
    with calls(num_threads=1) as (made, scripted):
        made.ask("hang", answers.put)
        assert answers.get(timeout=10) is None
        scripted.is_over.set()
        made.ask("1", answers.put)
        assert answers.get(timeout=10) == "2"  # and "too late" is nowhere
        assert answers.empty()


def test_a_call_that_waits_behind_those_that_hang_has_a_deadline_too() -> None:
    answers: queue.Queue[str | None] = queue.Queue()
    with calls(num_threads=1) as (made, _):
        made.ask("hang", lambda _: None)
        made.ask("4", answers.put)
        assert answers.get(timeout=10) is None


def test_a_calculator_that_breaks_ends_neither_call_nor_thread() -> None:
    answers: queue.Queue[str | None] = queue.Queue()
    with calls(num_threads=1) as (made, _):
        made.ask("raise", answers.put)
        made.ask("3", answers.put)
        assert [answers.get(timeout=10), answers.get(timeout=10)] == [None, "6"]
