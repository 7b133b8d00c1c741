"""Stands between the worker and torchrun, and ends the whole tree of a run: on command, or when the worker is gone.

    python -m nanochat_worker.supervisor GRACE_S LOST_GRACE_S -- COMMAND...

Standard input is a pipe whose other end only the worker holds. "stop" in it asks for the end; its closing means that
the worker was killed. torchrun puts ranks into sessions of their own, so signals to a process group would miss them: on
Linux the supervisor is the subreaper, every orphan of the run becomes its child, and it leaves only when it has none.
Imports nothing of the project, so that it starts at once.
"""

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from types import FrameType

import psutil

POLL_S = 0.1
KILL_PATIENCE_S = 10.0
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_PR_SET_CHILD_SUBREAPER = 36


class Supervisor:
    def __init__(self, command: list[str], grace_s: float, lost_grace_s: float) -> None:
        self._command = command
        self._grace_s = grace_s
        self._lost_grace_s = lost_grace_s
        self._is_asked = False  # by a signal of our own
        self._status: int | None = None

    def run(self) -> int:
        """Start the command and stay until nothing of it is left. Returns its exit status, 128 + n for signal n."""
        if sys.platform == "linux":
            _prctl(_PR_SET_CHILD_SUBREAPER, 1)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        child = subprocess.Popen(
            self._command, stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=_die_with_supervisor
        )
        self._pid = child.pid
        grace_s = self._wait()
        if self._status is None:
            self._end_gently(grace_s)
        self._kill_all()
        child.returncode = self._status  # collected in _reap, behind Popen's back
        assert self._status is not None
        return (
            os.waitstatus_to_exitcode(self._status) if os.WIFEXITED(self._status) else 128 + os.WTERMSIG(self._status)
        )

    def _wait(self) -> float:
        """Until the command has ended or is to be stopped; gives the grace it then has."""
        while self._reap() is None and not self._is_asked:
            readable, _, _ = select.select([0], [], [], POLL_S)
            if readable:
                return self._grace_s if os.read(0, 64) else self._lost_grace_s
        return self._grace_s

    def _end_gently(self, grace_s: float) -> None:
        """SIGTERM to the ranks, and time to write a checkpoint. To torchrun only while it has no ranks: told itself, it
        would give them a grace of its own."""
        ranks = [process for process in _descendants() if process.pid != self._pid]
        for process in ranks or _descendants():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.terminate()
        deadline = time.monotonic() + grace_s
        while self._reap() is None and time.monotonic() < deadline:
            time.sleep(POLL_S)

    def _kill_all(self) -> None:
        """SIGKILL until no descendant is left: one that forks meanwhile is met in the next round."""
        deadline = time.monotonic() + KILL_PATIENCE_S
        while (left := _descendants()) and time.monotonic() < deadline:
            for process in left:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            self._reap()
            time.sleep(POLL_S / 5)
        while self._reap() is None:  # what cannot be killed hangs in the kernel; wait for the command all the same
            time.sleep(POLL_S)

    def _reap(self) -> int | None:
        """Collect whoever has ended; gives the command's wait status once it has."""
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    break
                if pid == self._pid:
                    self._status = status
        return self._status

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._is_asked = True


def _descendants() -> list[psutil.Process]:
    """Everything below this process that still runs; zombies wait only to be reaped."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def _die_with_supervisor() -> None:
    """In the child: should the supervisor itself be killed, torchrun is told to end, and ends its ranks."""
    if sys.platform == "linux":
        _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None).prctl(option, value)


def main(arguments: list[str]) -> int:
    split = arguments.index("--")
    grace_s, lost_grace_s = (float(value) for value in arguments[:split])
    return Supervisor(arguments[split + 1 :], grace_s, lost_grace_s).run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
