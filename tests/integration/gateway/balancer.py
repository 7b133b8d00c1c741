"""What stands before two gateways: passes each connection to one that says it is ready, as a TCP balancer does.

It looks at bytes no more than those do: a connection stays where it is until one side closes it, nothing is sent twice.
"""

import asyncio
import contextlib
import threading
from collections.abc import Iterator

import httpx

_LOOK_S = 0.25  # between two looks at readiness; balancers take 1 to 10 s


class Balancer:
    def __init__(self, ports: list[int]) -> None:
        self._ports = ports
        self._ready: list[int] = []
        self._started = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self.port = 0

    def is_ready(self, port: int) -> bool:
        """Whether new connections go there now."""
        return port in self._ready

    async def run(self) -> None:
        """Until stop()."""
        self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        server = await asyncio.start_server(self._pass_on, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        async with server, httpx.AsyncClient(timeout=2.0, trust_env=False) as client:
            while True:
                self._ready = [port for port in self._ports if await _says_ready(client, port)]
                self._started.set()
                await asyncio.sleep(_LOOK_S)

    def stop(self) -> None:
        """From another thread."""
        if self._loop is not None and self._task is not None:
            self._loop.call_soon_threadsafe(self._task.cancel)

    def wait_until_started(self) -> None:
        assert self._started.wait(10.0)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            self._ready.append(self._ready.pop(0))
            there, back = await asyncio.open_connection("127.0.0.1", self._ready[0])
        except (OSError, IndexError):  # nobody is there: the client sees its connection closed
            writer.close()
            return
        await asyncio.gather(_copy(reader, back), _copy(there, writer))


async def _says_ready(client: httpx.AsyncClient, port: int) -> bool:
    try:
        return (await client.get(f"http://127.0.0.1:{port}/health/ready")).status_code == 200
    except httpx.HTTPError:
        return False


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while block := await reader.read(65536):
            writer.write(block)
            await writer.drain()
    with contextlib.suppress(OSError):
        writer.close()


@contextlib.contextmanager
def balancing(ports: list[int]) -> Iterator[Balancer]:
    balancer = Balancer(ports)

    def serve() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            asyncio.run(balancer.run())

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        balancer.wait_until_started()
        yield balancer
    finally:
        balancer.stop()
        thread.join(10)
        assert not thread.is_alive()
