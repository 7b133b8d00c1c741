"""Attacks on the machine's time, memory and disk: each ends by itself, soon, and leaves nothing behind."""

import contextlib
import resource
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from nanochat.errors import Unavailable
from nanochat.tools.sandbox import Limits, Outcome, Result, Sandbox
from tests.integration.sandbox.conftest import LIMITS

MARK = "/program/main.py"

# What a program does, what becomes of it, and what it has printed by then, if that is known.
ATTACKS: dict[str, tuple[str, set[Outcome], str | None]] = {
    "busy loop": ("while True: pass", {"timeout"}, ""),
    "all signals ignored": (
        """
        import signal
        for number in range(1, 65):
            try:
                signal.signal(number, signal.SIG_IGN)
            except (OSError, ValueError):
                pass
        while True: pass
        """,
        {"timeout"},
        "",
    ),
    "one long computation": ("print(len(str(3 ** (10 ** 8))))", {"timeout", "memory"}, ""),
    "a catastrophic expression": ("import re; re.match('(a+)+$', 'a' * 40 + 'b')", {"timeout"}, ""),
    "memory, bit by bit": ("x = []\nwhile True: x.append(bytearray(2**20))", {"memory"}, ""),
    "memory at once": ("x = bytearray(2**40)", {"memory"}, ""),
    "memory from the kernel": (
        """
        import mmap
        maps = []
        try:
            while True:
                maps.append(mmap.mmap(-1, 2**24))
                maps[-1].write(b"x" * 2**24)
        except (OSError, MemoryError, ValueError):
            print(len(maps) < 8)
        """,
        {"ok"},
        "True\n",
    ),
    "memory in pipes": (
        """
        import fcntl, os
        pipes = []
        try:
            while True:
                pipes.append(os.pipe())
        except OSError:
            print(len(pipes) <= 32)
        """,
        {"ok"},
        "True\n",
    ),
    "memory by fork bomb": ("import os\nwhile True: os.fork()", {"error"}, ""),
    "threads": (
        """
        import threading
        try:
            while True: threading.Thread(target=threading.Event().wait).start()
        except RuntimeError:
            print(threading.active_count())
        """,
        {"ok"},
        "1\n",
    ),
    "the disk filled": (
        """
        import errno
        try:
            for number in range(10**6):
                with open(f"/tmp/{number}", "wb") as file: file.write(b"x" * 2**20)
        except OSError as exc:
            print(number <= 4, exc.errno == errno.ENOSPC)
        """,
        {"ok"},
        "True True\n",
    ),
    "a file without data": (
        """
        import errno, os
        with open("/tmp/sparse", "wb") as file:
            try:
                os.ftruncate(file.fileno(), 2**40)
            except OSError as exc:
                print(exc.errno == errno.EFBIG)
        """,
        {"ok"},
        "True\n",
    ),
    "very many files": (
        "import os\nfor number in range(10**9): os.close(os.open(f'/tmp/{number}', os.O_CREAT))",
        {"disk"},
        "",
    ),
    "a very deep folder": (
        "import os\nfor _ in range(10**9):\n    os.mkdir('d'); os.chdir('d')",
        {"disk"},
        "",
    ),
    "endless output": ("while True: print('x' * 1000)", {"output"}, "x" * 1000 + "\n"),
    "endless errors": ("import sys\nwhile True: sys.stderr.write('x' * 1000)", {"output"}, ""),
    "one line without end": ("import os\nwhile True: os.write(1, b'x' * 65536)", {"output"}, "x" * 1000),
    "recursion without bound": (
        "import sys\nsys.setrecursionlimit(10**9)\ndef f(): f()\nf()",
        {"error", "memory", "timeout"},
        "",
    ),
    "the stack exhausted": (
        """
        import ctypes
        @ctypes.CFUNCTYPE(None)
        def again(): again()
        import sys; sys.setrecursionlimit(10**9)
        again()
        """,
        {"error"},
        "",
    ),
    "a crash": ("import ctypes; ctypes.string_at(0)", {"error"}, ""),
    "an abort": ("import os; os.abort()", {"error"}, ""),
    "a text that the parser chokes on": ("eval('(' * 10**5)", {"error", "memory", "output"}, ""),
    "death by itself": ("import os, signal; os.kill(os.getpid(), signal.SIGKILL); print('alive')", {"ok"}, "alive\n"),
    "stop of itself": ("import os, signal; os.kill(os.getpid(), signal.SIGSTOP); print('alive')", {"ok"}, "alive\n"),
    "end without a word": ("import os; os._exit(7)", {"error"}, ""),
    "exit in a finally": ("import sys\ntry:\n    sys.exit(0)\nfinally:\n    raise SystemExit(4)", {"error"}, ""),
    "its own folder removed": (
        """
        import os, shutil
        open("/tmp/file", "w").close()
        shutil.rmtree("/tmp", ignore_errors=True)
        print(os.listdir("/tmp"))
        """,
        {"ok"},
        "[]\n",
    ),
    "no program at all": ("\0", {"ok", "error"}, ""),  # up to the version of Python
    "half a character": ("print('\ud800')", {"error"}, ""),
    "bytes that are no text": ("import os; os.write(1, bytes(range(128, 256)))", {"ok"}, "\ufffd" * 128),
}


def confined_processes() -> set[int]:
    """Those of this process, and those that nobody waits for any more; not those of tests that run beside it."""
    parent = psutil.Process().parent()
    beside = set(parent.children() if parent is not None else []) - {psutil.Process()}
    found = set()
    for process in psutil.process_iter(["cmdline"]):
        with contextlib.suppress(psutil.NoSuchProcess):
            is_confined = any(MARK in part for part in process.info["cmdline"] or [])
            if is_confined and beside.isdisjoint(process.parents()):
                found.add(process.pid)
    return found


def descriptors() -> set[str]:
    """What this process holds open, but for sockets: those come and go with the servers of other tests in it."""
    found = set()
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # that of the listing itself
            found.add(f"{entry.name} {entry.readlink()}")
    return {one for one in found if "socket:" not in one and "anon_inode:" not in one}


@pytest.fixture(autouse=True)
def nothing_stays() -> Iterator[None]:
    """No child, alive or dead, no descriptor and no mount."""
    process = psutil.Process()
    children, mounts, held = process.children(recursive=True), Path("/proc/self/mountinfo").read_text(), descriptors()
    yield
    assert (process.children(recursive=True), Path("/proc/self/mountinfo").read_text()) == (children, mounts)
    assert descriptors() <= held


def run(sandbox: Sandbox, program: str, limits: Limits = LIMITS) -> Result:
    del sandbox  # which says that there can be one
    return Sandbox(limits).run(textwrap.dedent(program))


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_is_bounded_and_what_became_of_it_is_told(sandbox: Sandbox, name: str) -> None:
    program, outcomes, output = ATTACKS[name]
    result = run(sandbox, program)
    assert result.outcome in outcomes, result
    assert output is None or result.stdout.startswith(output)
    assert len(result.stdout) <= LIMITS.output_bytes and len(result.stderr) <= LIMITS.output_bytes


@pytest.mark.parametrize(
    "program",
    [
        "import time; time.sleep(10**6)",
        "import signal; signal.pause()",
        "import os; os.close(1); os.close(2)\nimport time; time.sleep(10**6)",  # nothing more to be read from it
        "import os; r, w = os.pipe(); os.read(r, 1)",
    ],
    ids=["sleep", "pause", "closed output", "a read without a writer"],
)
def test_who_waits_for_ever_is_ended(sandbox: Sandbox, program: str) -> None:
    result = run(sandbox, program, replace(LIMITS, wall_s=0.5))
    assert (result.outcome, result.exit_status) == ("timeout", 128 + signal.SIGKILL)


def test_a_program_that_ended_is_gone_with_its_files(sandbox: Sandbox) -> None:
    before = confined_processes()
    for _ in range(2):
        assert run(sandbox, "import os; print(os.listdir('/tmp')); open('/tmp/mine', 'w').close()").stdout == "[]\n"
    assert confined_processes() <= before


def test_the_program_ends_when_the_process_that_runs_it_is_killed(sandbox: Sandbox) -> None:
    before = confined_processes()
    code = (
        f"from nanochat.tools.sandbox import *; Sandbox(Limits(wall_s=600.0)).run({'import time; time.sleep(600)'!r})"
    )
    with subprocess.Popen([sys.executable, "-c", code]) as parent:
        try:
            _wait_until(lambda: bool(confined_processes() - before))
        finally:
            parent.kill()
    _wait_until(lambda: not confined_processes() - before)


def test_many_run_side_by_side(sandbox: Sandbox) -> None:
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda number: sandbox.run(f"print({number}, input())", f"{number}\n"), range(40)))
    assert [result.stdout for result in results] == [f"{number} {number}\n" for number in range(40)]


def test_input_is_read_and_cannot_be_changed(sandbox: Sandbox) -> None:
    program = """
        import os, sys
        print(len(sys.stdin.read()))
        try:
            os.write(0, b"x")
        except OSError:
            print("refused")
    """
    result = sandbox.run(textwrap.dedent(program), "x" * 10**6)
    assert result.stdout == "1000000\nrefused\n"


def test_the_result_tells_status_output_and_errors(sandbox: Sandbox) -> None:
    result = sandbox.run("import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)")
    assert (result.outcome, result.stdout, result.stderr, result.exit_status) == ("error", "out\n", "err\n", 3)
    assert 0 < result.seconds < LIMITS.wall_s


def _wait_until(is_so: object, deadline_s: float = 20.0) -> None:
    assert callable(is_so)
    end = time.monotonic() + deadline_s
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_where_descriptors_run_out_it_says_so_and_keeps_none(sandbox: Sandbox) -> None:
    process, (soft, hard) = psutil.Process(), resource.getrlimit(resource.RLIMIT_NOFILE)
    before, others = process.num_fds(), set(process.children())  # servers of other tests
    for spare in range(1, 18):
        resource.setrlimit(resource.RLIMIT_NOFILE, (before + spare, hard))
        try:
            assert sandbox.run("pass").outcome == "ok"
        except Unavailable as exc:
            assert "Too many open files" in exc.message
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert process.num_fds() == before
        assert set(process.children()) <= others


def test_a_slow_start_is_not_taken_for_many_files(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nanochat.tools.sandbox._LOOK_EVERY_S", 0.0)
    monkeypatch.setattr("nanochat.tools.sandbox.MAX_FILES", 20)  # fewer than there are on any machine's own disk
    assert {sandbox.run("pass").outcome for _ in range(10)} == {"ok"}
