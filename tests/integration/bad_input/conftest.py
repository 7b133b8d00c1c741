"""Processes that cannot do their work, what they say, and disks that are full or cannot be written."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from nanochat.cli.ports import any_free_port

PORTS = ("GATEWAY_PORT", "TRAINER_PORT", "INFERENCE_PORT", "WORKER_METRICS_PORT")
# Where nobody listens: port 1 is one that no program of a test gets.
NOBODY = "127.0.0.1:1"


@dataclass
class Ended:
    """A command that has ended, with everything that it said."""

    status: int
    said: str

    @property
    def lines(self) -> list[str]:
        """What it said, log lines as `event: reason`."""
        return [_plain(line) for line in self.said.splitlines() if line.strip()]


@dataclass
class Program:
    """A running module, its ports its own, its log a file."""

    process: subprocess.Popen[bytes]
    log: Path
    ports: dict[str, int] = field(default_factory=dict)

    @property
    def said(self) -> str:
        return self.log.read_text()

    def wait(self, timeout_s: float = 90.0) -> Ended:
        return Ended(self.process.wait(timeout_s), self.said)

    def reasons(self, port_name: str) -> list[str]:
        """Why it says that it is not ready; empty while it does not answer, or is ready."""
        with suppress(httpx.TransportError):
            answer = httpx.get(f"http://127.0.0.1:{self.ports[port_name]}/health/ready", timeout=10, trust_env=False)
            return [str(reason) for reason in answer.json().get("reasons", [])]
        return []


Start = Callable[..., Program]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts `python -m MODULE ARGUMENTS` with NANOCHAT_ variables by name; None: not set."""
    programs: list[Program] = []

    def start_one(module: str, *arguments: str, **variables: object) -> Program:
        ports = {name: any_free_port() for name in PORTS}
        kept = {name: value for name, value in os.environ.items() if not name.startswith("NANOCHAT_")}
        ours = {"HOME": tmp_path / "home", "REDIS_URL": f"redis://{NOBODY}/0", **ports, **variables}
        environment = {**kept, "OMP_NUM_THREADS": "1"}
        environment |= {f"NANOCHAT_{name}": str(value) for name, value in ours.items() if value is not None}
        log = tmp_path / f"{module}.{len(programs)}.log"
        with log.open("wb") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments], env=environment, stdout=file, stderr=subprocess.STDOUT
            )
        programs.append(Program(process, log, {name: int(str(ours[name])) for name in PORTS}))
        return programs[-1]

    yield start_one
    for program in programs:
        if program.process.poll() is None:
            program.process.terminate()
    for program in programs:
        try:
            program.process.wait(60)
        except subprocess.TimeoutExpired:
            program.process.kill()
            program.process.wait()


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A file system of that size. Skips the test where it may not be made."""
    folder.mkdir(parents=True, exist_ok=True)
    options = ["-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(["mount", *options], capture_output=True).returncode != 0:
        pytest.skip("no file system may be mounted here: not root, or a container without the right")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextmanager
def unwritable(folder: Path) -> Iterator[Path]:
    """A folder that this user cannot write; root can write any but one that is mounted read-only."""
    folder.mkdir(parents=True)
    if os.geteuid() != 0:
        folder.chmod(0o500)
        yield folder
        folder.chmod(0o700)
        return
    with small_disk(folder, "1m"):
        subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
        yield folder


def fill(folder: Path) -> None:
    """Use up what is left of a disk."""
    with suppress(OSError), (folder / "ballast").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def _plain(line: str) -> str:
    if not line.startswith("{"):
        return line
    values: dict[str, Any] = json.loads(line)
    return f"{values['event']}: {values.get('reason', '')}"
