"""A gateway and an inference replica of their own for a while, serving a model with random weights, or any checkpoint.

Real processes on free ports with a home of their own; nothing of the user's stack is touched.
"""

import asyncio
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from nanochat.cli.ports import LOOPBACK, any_free_port
from nanochat.cli.service import Service, ServiceSpec

# A long prompt of 2000 tokens and its answer fit.
SEQUENCE_LEN = 2304


@dataclass(frozen=True, kw_only=True)
class TemporaryService:
    """`url` is the gateway's."""

    url: str
    inference: Service

    def resident_bytes(self) -> int:
        """Of inference and all it has started. Memory that its processes share counts once for each."""
        ref = self.inference.ref
        process = ref.find() if ref else None
        assert process is not None, "inference has ended"
        total = 0
        for one in [process, *process.children(recursive=True)]:
            try:
                total += one.memory_info().rss
            except psutil.NoSuchProcess:
                continue
        return total


@asynccontextmanager
async def random_service(
    *, depth: int, max_running: int, sequence_len: int = SEQUENCE_LEN, environment: dict[str, str] | None = None
) -> AsyncIterator[TemporaryService]:
    """`environment` adds to inference's. Raises Unavailable, with the log's end, where a service does not start."""
    with tempfile.TemporaryDirectory(prefix="nanochat-bench-") as folder:
        home = Path(folder)
        checkpoint = await asyncio.to_thread(_write_checkpoint, home, depth, sequence_len)
        async with checkpoint_service(home, checkpoint, max_running=max_running, environment=environment) as service:
            yield service


@asynccontextmanager
async def checkpoint_service(
    home: Path, checkpoint: Path, *, max_running: int, environment: dict[str, str] | None = None
) -> AsyncIterator[TemporaryService]:
    """The same for any checkpoint's folder. Logs go to home/logs."""
    inference = _service(
        home,
        "inference",
        NANOCHAT_INFERENCE_CHECKPOINT=str(checkpoint),
        NANOCHAT_INFERENCE_MAX_RUNNING=str(max_running),
        **(environment or {}),
    )
    gateway = _service(
        home,
        "gateway",
        NANOCHAT_GATEWAY_INFERENCE_URLS=f"http://{LOOPBACK}:{inference.spec.port}",
        # A chat of a thousand tokens and more is measured.
        NANOCHAT_GATEWAY_MAX_MESSAGE_CHARS="32000",
    )
    hurry = asyncio.Event()
    try:
        for service in (inference, gateway):
            await service.start()
            await service.wait_until_up()
        yield TemporaryService(url=f"http://{LOOPBACK}:{gateway.spec.port}", inference=inference)
    finally:
        hurry.set()
        for service in (gateway, inference):
            await service.stop(hurry=hurry)


def _write_checkpoint(home: Path, depth: int, sequence_len: int) -> Path:
    from nanochat.bench.random_model import (
        bench_config,
        write_checkpoint,
    )  # here: the command line starts without torch

    return write_checkpoint(home, bench_config(depth, sequence_len=sequence_len))


def _service(home: Path, name: str, **variables: str) -> Service:
    port = any_free_port()
    own = {
        "PYTHONUNBUFFERED": "1",
        "NANOCHAT_HOME": str(home),
        "NANOCHAT_API_KEYS": "",
        "NANOCHAT_ADMIN_KEYS": "",
        f"NANOCHAT_{name.upper()}_PORT": str(port),
    }
    spec = ServiceSpec(
        name=name,
        command=[sys.executable, "-m", f"nanochat_{name}"],
        port=port,
        environment={**own, **variables},
        health="/health/ready",
        start_s=180.0,
    )
    return Service(spec, home / "logs" / f"{name}.log")
