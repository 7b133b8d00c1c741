"""A client that has stopped reading, over a real socket."""

import asyncio
import socket
from collections.abc import AsyncGenerator
from typing import Any

import uvicorn
from prometheus_client import Gauge

from nanochat.cli.ports import LOOPBACK
from nanochat_gateway import sse


async def test_a_stream_ends_although_its_client_has_stopped_reading() -> None:
    is_freed = asyncio.Event()
    is_to_end = asyncio.Event()

    async def frames() -> AsyncGenerator[bytes, None]:
        while True:  # until the buffers of both sides are full
            yield sse.frame('"' + "x" * 2**20 + '"')

    async def free() -> None:
        is_freed.set()

    async def until() -> None:
        await is_to_end.wait()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        active = Gauge("active", "Streams.", registry=None)
        await sse.EventStream(frames(), close=free, active=active, keep_alive_s=0.05, until=until)(scope, receive, send)

    with socket.create_server((LOOPBACK, 0)) as listening:
        port = listening.getsockname()[1]
        server = uvicorn.Server(uvicorn.Config(app, lifespan="off", log_level="critical"))
        serving = asyncio.create_task(server.serve([listening]))
        _, writer = await asyncio.open_connection(LOOPBACK, port, limit=1)
        try:
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            await asyncio.sleep(0.5)  # it sends until nothing more is taken, then comments
            assert not is_freed.is_set()
            is_to_end.set()
            async with asyncio.timeout(5):
                await is_freed.wait()
        finally:
            writer.close()
            server.should_exit = True
            await serving
