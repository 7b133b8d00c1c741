"""The real stack, once for all tests of this folder: `nanochat demo` with a pipeline that takes a minute.

Started as a user starts it, in a process of its own, with free ports and a home of its own.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from playwright.sync_api import Browser, Page

from nanochat.cli.ports import any_free_port
from nanochat.cli.state import StackState
from tests.e2e.browsing import launched, watched_pages
from tests.e2e.scraping import Prometheus, running_prometheus

PORTS = ("GATEWAY_PORT", "TRAINER_PORT", "INFERENCE_PORT", "WORKER_METRICS_PORT")
# The demo's pipeline made so small that it learns nothing: what is tested is everything around it.
_TRAINING = {
    "max_seq_len": 128,
    "device_batch_size": 4,
    "total_batch_size": 512,
    "eval_tokens": 1024,
    "compile": False,
}
TINY = {
    "tokenizer": {"vocab_size": 300, "max_chars": 200_000},
    "pretrain": {**_TRAINING, "depth": 1, "num_iterations": 12, "eval_every": 6, "save_every": 6},
    "sft": {**_TRAINING, "num_iterations": 12, "eval_every": 6},
    "evaluate": {"max_per_task": 2, "eval_tokens": 1024},
}


def wait_until(condition: Callable[[], object], what: str, deadline_s: float) -> None:
    end = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end, f"after {deadline_s:g} s still not so: {what}"
        time.sleep(0.2)


class RealStack:
    """A `nanochat` command that holds a stack, as a process, with its API."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.home = folder / "home"
        self.output_file = folder / "output.txt"
        variables = {f"NANOCHAT_{name}": str(any_free_port()) for name in PORTS}
        # One thread each: what is tested is small, and threads that wait for each other on a busy machine are slow.
        variables |= {"NANOCHAT_WORKER_THREADS": "1", "NANOCHAT_INFERENCE_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        self.environment = {**os.environ, **variables, "NANOCHAT_HOME": str(self.home)}
        self.start(*arguments)

    def start(self, *arguments: str) -> None:
        with self.output_file.open("w") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "nanochat.cli.main", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=self.environment,
            )

    @property
    def output(self) -> str:
        return self.output_file.read_text()

    @property
    def state(self) -> StackState:
        state = StackState.read(self.home)
        assert state is not None, self.output
        return state

    @property
    def url(self) -> str:
        return self.state.url

    def wait_for_output(self, text: str, deadline_s: float) -> None:
        def is_there() -> bool:
            assert self.process.poll() is None, f"it ended with {self.process.returncode}:\n{self.output}"
            return text in self.output

        wait_until(is_there, f"the output holds {text!r}; it is:\n{self.output}", deadline_s)

    def get(self, path: str) -> Any:
        response = httpx.get(self.url + path, timeout=30)
        assert response.status_code == 200, response.text
        return response.json()

    def post(self, path: str, body: dict[str, Any] | None = None) -> Any:
        response = httpx.post(self.url + path, json=body or {}, timeout=60)
        assert response.is_success, response.text
        return response.json()

    def job(self, job_id: str) -> Any:
        return self.get(f"/v1/jobs/{job_id}")

    def processes(self) -> list[psutil.Process]:
        """Everything that the command has started, whatever session it is in."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def interrupt(self, deadline_s: float = 60.0) -> int:
        """What Ctrl-C does; gives the exit status."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(deadline_s)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(90)

    def run(self, *arguments: str, timeout_s: float = 120.0) -> subprocess.CompletedProcess[str]:
        """Another `nanochat` command, in the same home."""
        return subprocess.run(
            [sys.executable, "-m", "nanochat.cli.main", *arguments],
            capture_output=True,
            text=True,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            timeout=timeout_s,
        )


def is_gone(process: psutil.Process) -> bool:
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A module's, not the session's: while it is open, no other test of the process can run an event loop."""
    with launched() as browser:
        yield browser


@pytest.fixture
def new_page(browser: Browser) -> Iterator[Callable[..., Page]]:
    with watched_pages(browser) as make:
        yield make


@pytest.fixture(scope="package")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealStack]:
    """A demo that has trained, promoted its model, and stays up."""
    stack = RealStack(tmp_path_factory.mktemp("demo"), "demo", "--overrides", json.dumps(TINY))
    try:
        stack.wait_for_output("Ctrl-C stops everything", 280.0)
        yield stack
    finally:
        stack.close()


@pytest.fixture(scope="package")
def prometheus(stack: RealStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Scrapes the demo's stack from now on."""
    with running_prometheus(stack.state.ports, tmp_path_factory.mktemp("prometheus")) as prometheus:
        yield prometheus
