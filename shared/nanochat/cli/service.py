"""One process of the embedded stack: started in its own session, watched until it answers, stopped with all it started.

Which ones there are and in which order is stack.py's matter.
"""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil

from nanochat.cli.ports import LOOPBACK
from nanochat.cli.state import ProcessRef
from nanochat.errors import Unavailable

POLL_S = 0.1
KILL_S = 5.0
LOG_LIMIT_BYTES = 10 * 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class ServiceSpec:
    """How to start a service, and how to know that it is up. `health` is a URL's path; empty: a RESP ping (Redis)."""

    name: str
    command: Sequence[str]
    port: int
    environment: dict[str, str] = field(default_factory=dict)
    health: str = "/health/live"
    start_s: float = 60.0
    stop_s: float = 15.0


class Service:
    """A process that runs `spec`. `start` may be called again after it has ended."""

    def __init__(self, spec: ServiceSpec, log_file: Path) -> None:
        self.spec = spec
        self.log_file = log_file
        self._process: asyncio.subprocess.Process | None = None

    @property
    def ref(self) -> ProcessRef | None:
        """The running process, or None."""
        if self._process is None or self._process.returncode is not None:
            return None
        with contextlib.suppress(psutil.NoSuchProcess):
            return ProcessRef.of(self._process.pid)
        return None

    async def start(self) -> None:
        """Start the process; its output is appended to the log file."""
        self.log_file.parent.mkdir(parents=True, exist_ok=True)
        if self.log_file.exists() and self.log_file.stat().st_size > LOG_LIMIT_BYTES:
            self.log_file.replace(self.log_file.with_suffix(".log.1"))
        variables = [f"{name}={value}" for name, value in self.spec.environment.items()]
        with self.log_file.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "nanochat.cli.child", str(os.getpid()), *variables, "--", *self.spec.command),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,  # a Ctrl-C in the terminal reaches the stack alone, which stops in order
            )

    async def wait(self) -> int:
        """Exit status of the process (negative: the signal that ended it)."""
        assert self._process is not None
        return await self._process.wait()

    async def wait_until_up(self) -> None:
        """Raises Unavailable, with the log's last lines, when it ends or does not answer in `start_s`."""
        assert self._process is not None
        try:
            async with asyncio.timeout(self.spec.start_s), httpx.AsyncClient(timeout=2.0, trust_env=False) as client:
                while not await self._answers(client):
                    if self._process.returncode is not None:
                        raise Unavailable(
                            f"{self.spec.name} ended with status {self._process.returncode} while starting.\n"
                            f"{self.log_tail()}\nThe whole log: {self.log_file}"
                        )
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            raise Unavailable(
                f"{self.spec.name} did not answer on port {self.spec.port} within {self.spec.start_s:.0f} s.\n"
                f"{self.log_tail()}\nThe whole log: {self.log_file}"
            ) from None

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[str]:
        """Its address, while it is up. Raises Unavailable, as wait_until_up does."""
        try:
            await self.start()
            await self.wait_until_up()
            yield f"http://{LOOPBACK}:{self.spec.port}"
        finally:
            await self.stop(hurry=asyncio.Event())

    async def stop(self, *, hurry: asyncio.Event) -> None:
        """SIGTERM, `stop_s` of grace (none once `hurry` is set), then SIGKILL for the process and all it started."""
        if self._process is None:
            return
        family = self._family()
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGTERM)
            ended = asyncio.ensure_future(self._process.wait())
            hurried = asyncio.ensure_future(hurry.wait())
            await asyncio.wait({ended, hurried}, timeout=self.spec.stop_s, return_when=asyncio.FIRST_COMPLETED)
            hurried.cancel()
            if not ended.done():
                with contextlib.suppress(ProcessLookupError):
                    self._process.kill()
            await ended
        await end_processes(family, grace_s=0.0 if hurry.is_set() else 2.0)

    def log_tail(self, num_lines: int = 15) -> str:
        if not self.log_file.exists():
            return "(no log)"
        with self.log_file.open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - 16384))
            lines = log.read().decode("utf-8", "replace").splitlines()
        return "\n".join(f"  | {line[:500]}" for line in lines[-num_lines:])

    def _family(self) -> list[psutil.Process]:
        """What the process has started, sessions of their own included (torchrun). Asked before it ends: orphans
        have another parent."""
        assert self._process is not None
        try:
            return psutil.Process(self._process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    async def _answers(self, client: httpx.AsyncClient) -> bool:
        if not self.spec.health:
            return await _answers_ping(self.spec.port)
        try:
            response = await client.get(f"http://127.0.0.1:{self.spec.port}{self.spec.health}")
        except httpx.TransportError:
            return False
        return response.status_code == 200


async def end_processes(processes: list[psutil.Process], grace_s: float) -> None:
    """Wait for them to end by themselves for `grace_s`, then SIGKILL. psutil refuses a process id used anew.

    Returns when they are gone, so that their ports are free; a kill that the kernel delays is waited for KILL_S.
    """
    for process in await _still_alive(processes, grace_s):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    await _still_alive(processes, KILL_S)


async def _still_alive(processes: list[psutil.Process], deadline_s: float) -> list[psutil.Process]:
    """Those that have not ended by the deadline; none as soon as all have."""
    deadline = asyncio.get_running_loop().time() + deadline_s
    while alive := [process for process in processes if _is_alive(process)]:
        if asyncio.get_running_loop().time() >= deadline:
            break
        await asyncio.sleep(POLL_S)
    return alive


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def _answers_ping(port: int) -> bool:
    try:
        async with asyncio.timeout(2.0):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(b"PING\r\n")
                return await reader.readline() == b"+PONG\r\n"
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return False
