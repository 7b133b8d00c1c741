"""The embedded stack with stand-ins for the services and a real Redis: order, restarts, and what is left behind."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import psutil
import pytest

from nanochat.cli.ports import any_free_port
from nanochat.cli.state import StackState

STACK = Path(__file__).with_name("stub_stack.py")
SERVICES = {"redis", "trainer", "worker", "inference", "gateway"}


def wait_until(condition: Callable[[], object], what: str, deadline_s: float = 30.0) -> None:
    end = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end, f"after {deadline_s} s still not so: {what}"
        time.sleep(0.05)


class RunningStack:
    """A stack of stand-ins in a process of its own."""

    def __init__(self, home: Path, *options: str) -> None:
        self.home = home
        self.grandchild_file = home / "grandchild"
        self.stopped_file = home / "stopped"
        self.process = subprocess.Popen(
            [sys.executable, STACK, self.stopped_file, self.grandchild_file, *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    @property
    def state(self) -> StackState:
        state = StackState.read(self.home)
        assert state is not None
        return state

    def wait_until_ready(self) -> StackState:
        def is_ready() -> bool:
            assert self.process.poll() is None, self.output()
            state = StackState.running(self.home)
            return state is not None and state.is_ready

        wait_until(is_ready, "the stack is ready")
        return self.state

    def processes(self) -> list[psutil.Process]:
        """Its services, and what the worker has started."""
        found = [ref.find() for ref in self.state.services.values()]
        pids = [process.pid for process in found if process] + [int(self.grandchild_file.read_text())]
        return [psutil.Process(pid) for pid in pids]

    def output(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.read()


@pytest.fixture
def ports(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    names = ("GATEWAY_PORT", "TRAINER_PORT", "INFERENCE_PORT", "WORKER_METRICS_PORT")
    chosen = {name: any_free_port() for name in names}
    for name, port in chosen.items():
        monkeypatch.setenv(f"NANOCHAT_{name}", str(port))
    return chosen


@pytest.fixture
def start(home: Path, ports: dict[str, int]) -> Iterator[Callable[..., RunningStack]]:
    started: list[RunningStack] = []

    def start_one(*options: str) -> RunningStack:
        started.append(RunningStack(home, *options))
        return started[-1]

    yield start_one
    for stack in started:
        with suppress(ProcessLookupError):
            stack.process.terminate()
        stack.process.wait(30)
        assert stack.process.stdout is not None
        stack.process.stdout.close()


def all_gone(processes: list[psutil.Process]) -> bool:
    def is_gone(process: psutil.Process) -> bool:
        try:
            return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True

    return all(is_gone(process) for process in processes)


def test_five_processes_answer_and_the_state_file_names_them(
    start: Callable[..., RunningStack], ports: dict[str, int]
) -> None:
    state = start().wait_until_ready()
    assert set(state.services) == SERVICES
    assert state.url == f"http://127.0.0.1:{ports['GATEWAY_PORT']}"
    assert len({ref.pid for ref in state.services.values()}) == 5
    for port in ports.values():
        assert httpx.get(f"http://127.0.0.1:{port}/health/live").status_code == 200


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_everything_in_order(start: Callable[..., RunningStack], number: signal.Signals) -> None:
    stack = start()
    stack.wait_until_ready()
    processes = stack.processes()
    stack.process.send_signal(number)
    assert stack.process.wait(30) == 0
    assert all_gone(processes)
    assert not StackState.path(stack.home).exists()
    assert stack.stopped_file.read_text().split() == ["gateway", "inference", "worker", "trainer"]


def test_a_service_that_ignores_sigterm_is_killed(start: Callable[..., RunningStack]) -> None:
    stack = start("--deaf")
    stack.wait_until_ready()
    processes = stack.processes()
    stack.process.terminate()
    assert stack.process.wait(30) == 0
    assert all_gone(processes)


def test_a_second_signal_stops_without_grace(start: Callable[..., RunningStack]) -> None:
    stack = start("--deaf")
    stack.wait_until_ready()
    stack.process.terminate()
    stack.process.send_signal(signal.SIGINT)
    began = time.monotonic()
    assert stack.process.wait(30) == 0
    assert time.monotonic() - began < 3.0  # the deaf worker would hold it for 2 s, and its grandchild for 2 more


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's parent-death signal is Linux's")
def test_kill_9_of_the_stack_takes_its_services_along(start: Callable[..., RunningStack]) -> None:
    stack = start()
    stack.wait_until_ready()
    services = [process for ref in stack.state.services.values() if (process := ref.find())]
    stack.process.kill()
    wait_until(lambda: all_gone(services), "no service is left")
    psutil.Process(int(stack.grandchild_file.read_text())).kill()  # the real worker ends its own


def test_the_next_start_ends_what_a_killed_stack_left(start: Callable[..., RunningStack]) -> None:
    first = start("--deaf")
    first.wait_until_ready()
    left = first.state.services["worker"].find()
    assert left is not None
    first.process.kill()
    first.process.wait()
    second = start()
    wait_until(lambda: all_gone([left]), "the deaf worker of the first stack is gone", 60.0)
    second.wait_until_ready()


def test_a_service_that_dies_is_started_again(start: Callable[..., RunningStack]) -> None:
    stack = start()
    before = stack.wait_until_ready().services
    os.kill(before["inference"].pid, signal.SIGKILL)
    wait_until(lambda: stack.state.services.get("inference", before["inference"]) != before["inference"], "a new one")
    assert stack.state.services["gateway"] == before["gateway"]
    stack.process.terminate()
    stack.process.wait(30)
    assert "inference was ended by signal 9; starting it again in 1 s" in stack.output()


def test_a_service_that_cannot_start_ends_the_stack_with_its_words(start: Callable[..., RunningStack]) -> None:
    stack = start("--fail")
    assert stack.process.wait(30) == 1
    output = stack.output()
    assert "worker ended with status 1 while starting" in output
    assert "the reason why it failed" in output
    assert not StackState.path(stack.home).exists()


def test_a_second_stack_in_the_same_home_is_refused(start: Callable[..., RunningStack]) -> None:
    first = start()
    state = first.wait_until_ready()
    second = start()
    assert second.process.wait(30) == 1
    assert f"already running at {state.url}" in second.output()
    assert first.process.poll() is None


def test_a_chosen_port_that_is_taken_is_named(start: Callable[..., RunningStack], ports: dict[str, int]) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", ports["GATEWAY_PORT"]))
        taken.listen()
        stack = start()
        assert stack.process.wait(30) == 1
    assert f"port {ports['GATEWAY_PORT']} is taken" in stack.output()
