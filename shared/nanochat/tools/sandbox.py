"""Runs generated programs, which nobody has read, so that they can harm nothing and hold nobody up.

How a program is confined is bubblewrap.py's and seccomp.py's; here it is watched while it runs, and what became of it
is told. Where confinement does not work, nothing is run.
"""

import functools
import os
import selectors
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from io import FileIO
from typing import Literal

from nanochat.errors import InvalidConfig, Unavailable
from nanochat.tools import bubblewrap
from nanochat.tools.bubblewrap import Bounds, Confined, Parts, memory_file

# error: it raised, exited with another status than 0, or was killed. output: it wrote more than it may. disk: it made
# more than MAX_FILES files.
Outcome = Literal["ok", "error", "timeout", "memory", "output", "disk"]

MAX_FILES = 10_000
# Files are counted so often: as many as can be made meanwhile take some 10 MB.
_LOOK_EVERY_S = 0.05

_CHUNK_BYTES = 2**16
_KILLED = 128 + 9


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Of one program, which is one process with one thread. Its files lie in memory, `disk_bytes` beside its own.

    `output_bytes` bounds standard output and standard error each.
    """

    wall_s: float = 10.0
    cpu_s: int = 5
    memory_bytes: int = 256 * 2**20
    disk_bytes: int = 16 * 2**20
    output_bytes: int = 64 * 2**10

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not 0 < value < 2**62:
                raise InvalidConfig(f"{name} is {value}; give a positive number.", param=name)
        if self.memory_bytes < 64 * 2**20:
            raise InvalidConfig(
                f"memory_bytes is {self.memory_bytes}, and Python alone takes most of 64 MiB; give that or more.",
                param="memory_bytes",
            )


@dataclass(frozen=True, kw_only=True)
class Result:
    """What became of a program. Output is cut to `output_bytes`; exit status 128 + n means ended by signal n."""

    outcome: Outcome
    stdout: str
    stderr: str
    exit_status: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Program:
    """Files by name, and the command line: the name of one of them and its arguments."""

    files: Mapping[str, bytes]
    arguments: Sequence[str]


class Sandbox:
    """Any number of threads may share one: it holds nothing. Raises Unavailable where programs cannot be confined."""

    def __init__(self, limits: Limits | None = None, parts: Parts | None = None) -> None:
        """`parts`: not those that the probe found to work."""
        self.limits = limits or Limits()
        self._parts = parts or _working_parts()

    def run(self, program: str, stdin: str = "") -> Result:
        """Run a program to its end, or to the first limit that it reaches. Takes about 25 ms.

        Never raises because of what the program is or does; raises Unavailable where nothing can be started.
        """
        with memory_file(encoded(stdin)) as given, ExitStack() as running:
            began = time.monotonic()
            main = Program(files={"main.py": encoded(program)}, arguments=["main.py"])
            confined = self._start(running, main, stdin=given)
            return self._result(confined, [], began)

    def run_with_peer(self, program: Program, peer: Program) -> Result:
        """Run two programs, the standard output of each the standard input of the other, until the first ends.

        They share nothing else. The result is the first one's, without its output. Raises as `run` does.
        """
        with ExitStack() as running:
            began = time.monotonic()
            asks_out, asks_in = _pipe(running)
            answers_out, answers_in = _pipe(running)
            first = self._start(running, program, stdin=answers_out, stdout=asks_in)
            second = self._start(running, peer, stdin=asks_out, stdout=answers_in)
            for end in (asks_out, asks_in, answers_out, answers_in):
                end.close()  # so that each reads an end when the other is gone
            return self._result(first, [second], began)

    def _start(self, running: ExitStack, program: Program, *, stdin: FileIO, stdout: FileIO | None = None) -> Confined:
        limits = self.limits
        bounds = Bounds(cpu_s=limits.cpu_s, memory_bytes=limits.memory_bytes, disk_bytes=limits.disk_bytes)
        confined = bubblewrap.start(self._parts, bounds, program.files, program.arguments, stdin=stdin, stdout=stdout)
        running.callback(confined.close)
        return confined

    def _result(self, confined: Confined, peers: Sequence[Confined], began: float) -> Result:
        """Of a program that is running, once it and its peers are gone."""
        limits = self.limits
        stdout, stderr = bytearray(), bytearray()
        sinks: dict[FileIO, bytearray] = {confined.stderr: stderr}
        if confined.stdout is not None:
            sinks[confined.stdout] = stdout
        sinks |= {peer.stderr: bytearray() for peer in peers}
        stopped = _watch([confined, *peers], sinks, began + limits.wall_s, limits.output_bytes)
        for each in (confined, *peers):
            each.kill()
        status = confined.wait()
        for pipe in (confined.stdout, confined.stderr):
            # Nobody is left to write: what lies there is read without waiting.
            if pipe is not None and stopped is None:
                stopped = _take_rest(pipe, sinks[pipe], limits.output_bytes)
        errors = stderr[: limits.output_bytes].decode(errors="replace")
        if status is None and stopped is None:
            raise Unavailable(f"a generated program could not be confined: {errors.strip()}.")
        return Result(
            outcome=stopped or _outcome(status or 0, errors, has_used_up=confined.cpu_s > 0.9 * limits.cpu_s),
            stdout=stdout[: limits.output_bytes].decode(errors="replace"),
            stderr=errors,
            exit_status=_KILLED if status is None else status,
            seconds=time.monotonic() - began,
        )


def probe() -> str | None:
    """Why generated programs cannot be confined here and what to do about it; None where they can.

    Tried once in the life of this process, with a program that attempts what it must not be able to.
    """
    try:
        _working_parts()
    except Unavailable as exc:
        return exc.message
    return None


def encoded(text: str) -> bytes:
    """A program as its file holds it; of a lone surrogate, which no UTF-8 has, Python says so."""
    return text.encode("utf-8", "surrogatepass")


# Ends with 0 if it is alone, can start nothing, has no network and no disk, and is held by its limits; not before its
# files were counted.
_PROBE = """
import os, resource, socket, time
def is_refused(attempt, *arguments):
    try:
        attempt(*arguments)
    except (OSError, ValueError):
        return True
    return False
assert os.getpid() == 1 and os.getuid() != 0
assert is_refused(os.fork)
assert is_refused(socket.socket)
assert is_refused(os.open, "/main", os.O_CREAT | os.O_WRONLY)
assert is_refused(resource.setrlimit, resource.RLIMIT_AS, (2**60, 2**60))
time.sleep(0.2)
"""


def _working_parts() -> Parts:
    """As found by the probe. Raises Unavailable."""
    found = _probed()
    if isinstance(found, str):
        raise Unavailable(found)
    return found


@functools.cache
def _probed() -> Parts | str:
    try:
        parts = bubblewrap.find_parts()
        result = Sandbox(Limits(wall_s=60.0), parts).run(_PROBE)
    except Unavailable as exc:
        return f"{exc.message} {_HINT}"
    if result.outcome != "ok":
        return f"a program could not be confined: {result.stderr.strip()} ({result.outcome}). {_HINT}"
    return parts


_HINT = (
    "Generated programs need bubblewrap and user namespaces: docs/operations.md, Generated programs. "
    "What does not run them works without."
)


def _watch(
    programs: Sequence[Confined], sinks: Mapping[FileIO, bytearray], deadline: float, limit: int
) -> Outcome | None:
    """Read what programs write until the first has ended (None), time is up, or one of them has overdone it.

    Raises Unavailable where one cannot be looked at.
    """
    next_look = time.monotonic() + _LOOK_EVERY_S
    with selectors.DefaultSelector() as selector:
        selector.register(programs[0].ended, selectors.EVENT_READ)
        for pipe in sinks:
            selector.register(pipe, selectors.EVENT_READ)
        while True:
            now = time.monotonic()
            if now >= deadline:
                return "timeout"
            if now >= next_look:
                next_look = now + _LOOK_EVERY_S
                if any(_num_files(program) > MAX_FILES for program in programs):
                    return "disk"
            for key, _ in selector.select(min(deadline, next_look) - now):
                if key.fileobj == programs[0].ended:
                    return None
                assert isinstance(key.fileobj, FileIO)
                sink = sinks[key.fileobj]
                part = key.fileobj.read(_CHUNK_BYTES)
                sink += part
                if not part:
                    selector.unregister(key.fileobj)
                if len(sink) > limit:
                    return "output"


def _num_files(program: Confined) -> int:
    try:
        return program.num_files()
    except PermissionError as exc:
        raise Unavailable(
            "the files of a generated program cannot be counted, for which root needs the capability SYS_PTRACE."
        ) from exc


def _take_rest(pipe: FileIO, sink: bytearray, limit: int) -> Outcome | None:
    """What is left in a pipe that nobody writes to any more."""
    while len(sink) <= limit:
        part = pipe.read(_CHUNK_BYTES)
        if not part:
            return None
        sink += part
    return "output"


def _outcome(status: int, errors: str, *, has_used_up: bool) -> Outcome:
    """Of a program that ended by itself or by the kernel. `has_used_up`: its seconds of CPU."""
    if status == 0:
        return "ok"
    if status == _KILLED:
        return "timeout" if has_used_up else "memory"
    last = errors.rstrip().rpartition("\n")[2]
    return "memory" if last.startswith("MemoryError") else "error"


def _pipe(running: ExitStack) -> tuple[FileIO, FileIO]:
    """Both ends, which that stack closes at the latest. Raises Unavailable."""
    try:
        reading, writing = os.pipe()
    except OSError as exc:
        raise Unavailable(f"a generated program could not be started: {exc.strerror}.") from exc
    ends = FileIO(reading, "rb"), FileIO(writing, "wb")
    for end in ends:
        running.callback(end.close)
    return ends
