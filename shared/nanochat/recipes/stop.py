"""Stopping when asked: SIGTERM and Ctrl-C become a flag that a recipe looks at where it can stop without loss."""

import os
import signal
from collections.abc import Callable, Iterable, Iterator
from types import FrameType
from typing import TypeVar

T = TypeVar("T")

# sysexits' "temporary failure": what was done is kept, run me again.
EXIT_STOPPED = 75


class Stopped(Exception):
    """The recipe was asked to stop and has saved what it can. Not an error: the job goes on later."""


class StopSignal:
    """Set by SIGTERM or SIGINT once install() has been called, in the main thread.

    Several ranks stop together: `agree` is then a call that all make, which gives each the same answer, and every
    check is one that all ranks come to.
    """

    def __init__(self) -> None:
        self.is_set = False
        self.agree: Callable[[bool], bool] = bool

    def install(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._receive)

    def check(self) -> None:
        """Raises Stopped once the signal has come, to whichever rank."""
        if self.agree(self.is_set):
            raise Stopped

    def watch(self, items: Iterable[T]) -> Iterator[T]:
        """The items, with a check before each."""
        for item in items:
            self.check()
            yield item

    def exit_if_set(self) -> None:
        """As check(), for where native code would lose an exception: ends the process at once. One rank's only."""
        if self.is_set:
            os._exit(EXIT_STOPPED)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.is_set = True
