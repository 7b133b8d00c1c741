"""The supervisor with real processes: sessions of their own, deaf to SIGTERM, orphaned."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from nanochat_worker.leftovers import MARK, end_leftovers

Start = Callable[..., subprocess.Popen[bytes]]

# A torchrun of few words: a rank in its own session, which starts another process in its own session.
TREE = """
import os, signal, subprocess, sys, time
deaf = {deaf}
rank = '''
import os, pathlib, signal, subprocess, sys, time
if {deaf}: signal.signal(signal.SIGTERM, signal.SIG_IGN)
else: signal.signal(signal.SIGTERM, lambda *_: (pathlib.Path({saved!r}).write_text("saved"), sys.exit(75)))
loader = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(300)"
loader = subprocess.Popen([sys.executable, "-c", loader], start_new_session=True)
pathlib.Path({pids!r}).write_text(f"{{os.getpid()}} {{loader.pid}}")
time.sleep(300)
'''
child = subprocess.Popen([sys.executable, "-c", rank], start_new_session=True)
{then}
"""


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    started: list[subprocess.Popen[bytes]] = []

    def start(
        code: str, *, grace_s: float = 5.0, lost_grace_s: float = 5.0, **environment: str
    ) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "nanochat_worker.supervisor", str(grace_s), str(lost_grace_s), "--"]
        process = subprocess.Popen(
            [*command, sys.executable, "-c", code], stdin=subprocess.PIPE, env={**environment} if environment else None
        )
        started.append(process)
        return process

    yield start
    for process in started:
        assert process.stdin is not None
        process.stdin.close()
        process.wait(20)


def tree(tmp_path: Path, *, deaf: bool = False, then: str = "sys.exit(child.wait() and 1)") -> str:
    return TREE.format(deaf=deaf, saved=str(tmp_path / "saved"), pids=str(tmp_path / "pids"), then=then)


def pids_of(tmp_path: Path) -> list[int]:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if (tmp_path / "pids").exists() and len(words := (tmp_path / "pids").read_text().split()) == 2:
            return [int(word) for word in words]
        time.sleep(0.02)
    raise AssertionError("the rank did not start")


def alive(pids: list[int]) -> list[int]:
    return [pid for pid in pids if psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE]


@pytest.mark.parametrize(("code", "status"), [("raise SystemExit(7)", 7), ("import os; os.kill(os.getpid(), 9)", 137)])
def test_the_commands_status_is_given_on(start: Start, code: str, status: int) -> None:
    assert start(code).wait(20) == status


def test_stop_lets_the_rank_save_and_leaves_nothing(start: Start, tmp_path: Path) -> None:
    process = start(tree(tmp_path))
    pids = pids_of(tmp_path)
    assert process.stdin is not None
    process.stdin.write(b"stop\n")
    process.stdin.flush()
    assert process.wait(20) == 1
    assert (tmp_path / "saved").read_text() == "saved"
    assert alive(pids) == []


def test_a_rank_deaf_to_sigterm_is_killed_after_the_grace(start: Start, tmp_path: Path) -> None:
    process = start(tree(tmp_path, deaf=True), grace_s=0.3)
    pids = pids_of(tmp_path)
    process.terminate()  # as good as "stop"
    process.wait(20)
    assert alive(pids) == []


def test_a_closed_pipe_means_that_the_worker_is_gone(start: Start, tmp_path: Path) -> None:
    process = start(tree(tmp_path, deaf=True), grace_s=300, lost_grace_s=0.3)
    pids = pids_of(tmp_path)
    assert process.stdin is not None
    process.stdin.close()
    process.wait(20)
    assert alive(pids) == []


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has subreapers")
def test_orphans_of_a_torchrun_that_was_killed_are_ended(start: Start, tmp_path: Path) -> None:
    pids_file = str(tmp_path / "pids")
    then = f"while len(open({pids_file!r}, 'a+').read() or open({pids_file!r}).read()) < 3: time.sleep(0.02)\n"
    process = start(tree(tmp_path, deaf=True, then=then + "os.kill(os.getpid(), 9)"))
    assert process.wait(20) == 137
    assert alive(pids_of(tmp_path)) == []


def test_processes_that_outlived_everything_are_known_by_their_mark(start: Start, tmp_path: Path) -> None:
    process = start(tree(tmp_path, deaf=True), **{MARK: "job_of_this_test"})
    pids = pids_of(tmp_path)
    process.kill()
    process.wait(20)
    end_leftovers("job_of_another_test")
    assert alive(pids) == pids
    end_leftovers("job_of_this_test")
    assert alive(pids) == []
