"""$NANOCHAT_HOME/stack.json: which processes belong to the embedded stack, and where it listens.

A process is named by its id and its start, so that a number which the system has given to another is never signalled.
The lock beside the file says whether a stack runs; the kernel frees it with the process, however that ends.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import psutil
from pydantic import Field, ValidationError

from nanochat.errors import Conflict
from nanochat.protocol import Strict


class ProcessRef(Strict):
    """One process. `started` is its start in Unix seconds, as the kernel tells it."""

    pid: int
    started: float

    @classmethod
    def of(cls, pid: int) -> Self:
        return cls(pid=pid, started=psutil.Process(pid).create_time())

    def find(self) -> psutil.Process | None:
        """The process, unless it has ended or its id belongs to another one by now."""
        try:
            process = psutil.Process(self.pid)
            # create_time is derived from clock ticks and the boot time, which may be corrected by a little.
            is_same = abs(process.create_time() - self.started) < 1.0
            return process if is_same and process.status() != psutil.STATUS_ZOMBIE else None
        except psutil.NoSuchProcess:
            return None


class StackState(Strict):
    """What `down`, a second `up` and the clients need to know."""

    stack: ProcessRef
    url: str
    is_ready: bool = False
    ports: dict[str, int] = Field(default_factory=dict)
    services: dict[str, ProcessRef] = Field(default_factory=dict)

    @staticmethod
    def path(home: Path) -> Path:
        return home / "stack.json"

    @classmethod
    def read(cls, home: Path) -> Self | None:
        """The state as last written; None when there is none or it cannot be read."""
        try:
            return cls.model_validate_json(cls.path(home).read_bytes())
        except (FileNotFoundError, ValidationError):
            return None

    @classmethod
    def running(cls, home: Path) -> Self | None:
        """The state of a stack that is alive now."""
        state = cls.read(home)
        return state if state and state.stack.find() else None

    def write(self, home: Path) -> None:
        partial = self.path(home).with_suffix(".partial")
        partial.write_text(self.model_dump_json(indent=2))
        partial.replace(self.path(home))

    @classmethod
    def remove(cls, home: Path) -> None:
        cls.path(home).unlink(missing_ok=True)


@contextmanager
def stack_lock(home: Path) -> Iterator[None]:
    """Held for as long as a stack runs in this home. Raises Conflict when one does already."""
    home.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(home / "stack.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            state = StackState.read(home)
            where = f" at {state.url} (process {state.stack.pid})" if state else ""
            raise Conflict(f"the stack of {home} is already running{where}. Stop it with: nanochat down.") from None
        yield
    finally:
        os.close(descriptor)
