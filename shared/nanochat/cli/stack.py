"""The embedded stack: Redis, trainer, worker, inference and gateway as five processes on loopback.

    async with Stack(settings, say, service_specs) as stack:    # all of them answer
        await stack.supervise()                  # until cancelled; one that dies is started again
                                                 # on the way out they stop in order and leave nothing behind

What runs is what the containers run; only the addresses come from here. One process's life is service.py's.
"""

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from nanochat.cli import ports
from nanochat.cli.redis_server import find_redis_server, redis_command, require_redis
from nanochat.cli.service import Service, ServiceSpec, end_processes
from nanochat.cli.settings import StackSettings
from nanochat.cli.state import ProcessRef, StackState, stack_lock
from nanochat.errors import Unavailable
from nanochat.files import require_writable

# Redis first, then who creates the tables; the three others need both and start together.
START_ORDER = (("redis",), ("trainer",), ("worker", "inference", "gateway"))
# From the door inwards: no new request, no new job, then what they rest on.
STOP_ORDER = ("gateway", "inference", "worker", "trainer", "redis")
PORT_FIELDS = {
    "gateway": "gateway_port",
    "trainer": "trainer_port",
    "inference": "inference_port",
    "worker": "worker_metrics_port",
}
FIRST_BACKOFF_S = 1.0
LONGEST_BACKOFF_S = 30.0
STEADY_S = 60.0  # a process that lived this long starts its backoff anew

Say = Callable[[str], None]
Specs = Callable[[StackSettings, dict[str, int]], list[ServiceSpec]]


class Stack:
    """Five supervised processes. `say` gets a line for a person whenever something happens."""

    def __init__(self, settings: StackSettings, say: Say, specs: Specs) -> None:
        self._settings = settings
        self._home = settings.home_dir
        self._say = say
        self._specs = specs
        self._services: dict[str, Service] = {}
        self._held = ExitStack()
        self._hurry = asyncio.Event()
        self.is_stopping = False  # true from the first service told to stop
        self._state = StackState(stack=ProcessRef.of(os.getpid()), url="")

    @property
    def url(self) -> str:
        return self._state.url

    def hurry(self) -> None:
        """Stop without grace from now on: the second Ctrl-C."""
        self._hurry.set()

    async def __aenter__(self) -> Self:
        require_writable(self._home)
        self._held.enter_context(stack_lock(self._home))
        try:
            await end_leftovers(self._home)
            chosen = choose_ports(self._settings, self._say)
            if "redis" not in chosen:
                await require_redis(self._settings.redis_url)
            self._state = StackState(
                stack=self._state.stack, url=f"http://{ports.LOOPBACK}:{chosen['gateway']}", ports=chosen
            )
            for spec in self._specs(self._settings, chosen):
                self._services[spec.name] = Service(spec, self._home / "logs" / f"{spec.name}.log")
            await self._start_all()
        except BaseException:
            await self._stop_all()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._stop_all()

    async def supervise(self) -> None:
        """Start again whatever ends, after a backoff. Returns only by cancellation."""
        async with asyncio.TaskGroup() as group:
            for service in self._services.values():
                group.create_task(self._keep_alive(service))

    async def _start_all(self) -> None:
        for names in START_ORDER:
            together = [self._services[name] for name in names if name in self._services]
            for service in together:
                await service.start()
            self._write_state()
            for service in together:
                await service.wait_until_up()
        self._state = self._state.model_copy(update={"is_ready": True})
        self._write_state()

    async def _keep_alive(self, service: Service) -> None:
        backoff_s = FIRST_BACKOFF_S
        while True:
            began = time.monotonic()
            status = await service.wait()
            if time.monotonic() - began > STEADY_S:
                backoff_s = FIRST_BACKOFF_S
            how = f"was ended by signal {-status}" if status < 0 else f"ended with status {status}"
            self._say(f"{service.spec.name} {how}; starting it again in {backoff_s:.0f} s (log: {service.log_file})")
            await asyncio.sleep(backoff_s)
            backoff_s = min(2 * backoff_s, LONGEST_BACKOFF_S)
            await service.start()
            self._write_state()
            with contextlib.suppress(Unavailable):  # it has ended again, or is slow: the next round tells
                await service.wait_until_up()
                self._say(f"{service.spec.name} is up again")

    async def _stop_all(self) -> None:
        self.is_stopping = True
        try:
            for name in STOP_ORDER:
                if name in self._services:
                    await self._services[name].stop(hurry=self._hurry)
            StackState.remove(self._home)
        finally:
            self._held.close()

    def _write_state(self) -> None:
        alive = {name: ref for name, service in self._services.items() if (ref := service.ref)}
        self._state = self._state.model_copy(update={"services": alive})
        self._state.write(self._home)


def choose_ports(settings: StackSettings, say: Say) -> dict[str, int]:
    """A port for each service, by its name. Says so when a default gives way; Conflict when a chosen one is taken."""
    chosen: dict[str, int] = {}
    for name, field in PORT_FIELDS.items():
        preferred: int = getattr(settings, field)
        variable = f"NANOCHAT_{field.upper()}"
        port = ports.pick(preferred, chosen=settings.chosen(field), variable=variable, taken=frozenset(chosen.values()))
        if port != preferred and name == "gateway":
            say(f"port {preferred} is taken by another program; using {port} (choose one with {variable})")
        chosen[name] = port
    if not settings.chosen("redis_url"):
        chosen["redis"] = ports.any_free_port()
    return chosen


def service_specs(settings: StackSettings, chosen: dict[str, int]) -> list[ServiceSpec]:
    """The commands of the five, with the variables that make them meet. A Redis of the user's own is not started."""
    local = f"http://{ports.LOOPBACK}"
    redis_url = f"redis://{ports.LOOPBACK}:{chosen['redis']}/0" if "redis" in chosen else settings.redis_url
    shared = {
        "PYTHONUNBUFFERED": "1",
        "NANOCHAT_HOME": str(settings.home_dir),
        "NANOCHAT_REDIS_URL": redis_url,
        "NANOCHAT_GATEWAY_PORT": str(chosen["gateway"]),
        "NANOCHAT_GATEWAY_TRAINER_URL": f"{local}:{chosen['trainer']}",
        "NANOCHAT_GATEWAY_INFERENCE_URLS": f"{local}:{chosen['inference']}",
        "NANOCHAT_TRAINER_PORT": str(chosen["trainer"]),
        "NANOCHAT_INFERENCE_PORT": str(chosen["inference"]),
        "NANOCHAT_WORKER_METRICS_PORT": str(chosen["worker"]),
    }

    def python(name: str, health: str, stop_s: float) -> ServiceSpec:
        return ServiceSpec(
            name=name,
            command=[sys.executable, "-m", f"nanochat_{name}"],
            port=chosen[name],
            environment=shared,
            health=health,
            stop_s=stop_s,
        )

    services = [
        python("trainer", "/health/ready", 10.0),
        # Its recipe may be writing a checkpoint, which is worth waiting for.
        python("worker", "/health/ready", 45.0),
        # Neither is ready before the first model; that they answer is enough.
        python("inference", "/health/live", 10.0),
        python("gateway", "/health/live", 10.0),
    ]
    if "redis" in chosen:
        services.insert(0, _redis(settings.home_dir / "redis", chosen["redis"]))
    return services


def _redis(folder: Path, port: int) -> ServiceSpec:
    folder.mkdir(parents=True, exist_ok=True)
    return ServiceSpec(
        name="redis", command=redis_command(find_redis_server(), port, folder), port=port, health="", start_s=15.0
    )


async def end_leftovers(home: Path) -> None:
    """End what a stack that was killed has left in this home, by the ids and starts it had written down."""
    state = StackState.read(home)
    if state is None:
        return
    found: Iterable[ProcessRef] = state.services.values()
    processes = [process for ref in found if (process := ref.find())]
    family = [child for process in processes for child in process.children(recursive=True)]
    for process in processes:
        process.terminate()
    await end_processes([*processes, *family], grace_s=10.0)
    StackState.remove(home)
