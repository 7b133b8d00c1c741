"""One worker, as the replica's process sees it: its process, its channel, what it serves and what it has to do.

Says nothing about when it is started or given up (supervisor.py), nor what it is given (pool.py).
"""

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path

from pydantic import BaseModel

from nanochat.errors import Unavailable
from nanochat.protocol.generate import ServedModel
from nanochat_inference.errors import error_of
from nanochat_inference.pool.flight import Flight, Piece
from nanochat_inference.pool.frames import (
    Accepted,
    Beat,
    Cancel,
    Configure,
    Drop,
    Events,
    Family,
    Frame,
    FrameReader,
    Hello,
    Kind,
    Load,
    Loaded,
    Measure,
    NotLoaded,
    Rejected,
    Returned,
    Use,
    control_frame,
    from_worker,
    read_events,
    request_frame,
)
from nanochat_inference.settings import InferenceSettings

# A worker is given choices beyond its slots, so that none stays empty for the length of a message; the others wait
# where they can still go to another worker.
_OVERBOOKED = 2
# Beats that may be missing before others come first.
_LATE_BEATS = 3
# To end by itself, once its channel is closed.
_STOP_TIMEOUT_S = 5.0


class WorkerLost(Unavailable):
    """It ended before it had done what was asked."""


class Worker:
    """For the event loop alone. One worker through all its lives: each begins with start() and ends with end()."""

    def __init__(
        self,
        index: int,
        settings: InferenceSettings,
        *,
        capacity: int,
        beat_interval_s: float,
        on_ended: Callable[[Flight], None],
        on_accepted: Callable[[Flight, int], None],
        on_returned: Callable[[Flight], None],
    ) -> None:
        """on_ended: a flight has had its last word. on_accepted: how many tokens its prompt has. on_returned: a step
        failed with it, and nothing was said."""
        self.index = index
        self.settings = settings
        self.device = settings.device
        self.status = "it is being started"
        self.num_restarts = 0
        self.flights: dict[int, Flight] = {}
        self.served: ServedModel | None = None
        self.reference: str | None = None  # of what it serves
        self.metrics: list[Family] = []
        self._configure = Configure(worker=index, settings=settings, capacity=capacity, beat_interval_s=beat_interval_s)
        self._on_ended = on_ended
        self._on_accepted = on_accepted
        self._on_returned = on_returned
        self._reset()

    def refresh(self) -> None:
        """Its silence, and whatever it is at, counts from now."""
        self.heard_at = self.went_on_at = self.load_went_on_at = _now()

    def _reset(self) -> None:
        self._process: asyncio.subprocess.Process | None = None
        self._transport: asyncio.WriteTransport | None = None
        self._loading: asyncio.Future[ServedModel] | None = None
        self._loaded: tuple[str, ServedModel] | None = None
        self._progress = self._load_progress = -1
        self.served = self.reference = None
        self.has_said_hello = asyncio.Event()
        self.is_lost = asyncio.Event()
        self.has_worked = False
        self._has_beaten = asyncio.Event()
        self.refresh()

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    @property
    def exit_status(self) -> int | None:
        """Negative: the signal that ended it."""
        return self._process.returncode if self._process is not None else None

    @property
    def is_up(self) -> bool:
        """It has said hello, and has not ended."""
        return self.has_said_hello.is_set() and not self.is_lost.is_set()

    @property
    def is_ready(self) -> bool:
        """It can be given requests."""
        return self.served is not None and self.is_up

    @property
    def is_loading(self) -> bool:
        return self._loading is not None

    @property
    def is_late(self) -> bool:
        return _now() - self.heard_at > _LATE_BEATS * self._configure.beat_interval_s

    @property
    def num_open(self) -> int:
        return sum(flight.num_open for flight in self.flights.values())

    @property
    def tokens_left(self) -> int:
        return sum(flight.tokens_left for flight in self.flights.values())

    @property
    def has_room(self) -> bool:
        return self.num_open < _OVERBOOKED * self.settings.max_running

    async def start(self) -> None:
        """Raises OSError. Of the event loop's own thread: the kernel ends a worker with the thread that started it."""
        self._reset()
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                self._process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    "-m",
                    "nanochat_inference.pool.worker_process",
                    str(theirs.fileno()),
                    str(os.getpid()),
                    stdin=asyncio.subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                    # Ctrl-C is for the replica's process, which lets answers end; and a group can be ended as a whole.
                    start_new_session=True,
                    env=self._environment(),
                )
            except BaseException:
                ours.close()
                raise
        loop = asyncio.get_running_loop()
        ours.setblocking(False)
        self._transport, _ = await loop.create_unix_connection(lambda: _Channel(self), sock=ours)
        self._send(self._configure)

    def _environment(self) -> dict[str, str]:
        # OpenMP's threads spin between the many small products of a step, and where another process wants the same
        # cores that costs ten times the speed: 17 tokens/s instead of 181 were seen on two busy cores.
        # The library reads this as it is loaded.
        return {**os.environ, "OMP_WAIT_POLICY": self.settings.openmp_wait_policy}

    async def end(self, *, gently: bool = False) -> None:
        """End its process and all that it started, whatever state they are in."""
        if self._transport is not None:
            self._transport.abort()
        if self._process is None:
            return
        if gently:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._process.wait(), _STOP_TIMEOUT_S)
        self.kill()
        await self._process.wait()

    def kill(self) -> None:
        if self._process is not None:
            # Its group outlives it while the calculator's processes do.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)

    async def load(self, reference: str, folder: Path) -> ServedModel:
        """Beside what it serves. Raises CheckpointCorrupt and the like; Unavailable where the worker ends."""
        assert self._loading is None
        if self.is_lost.is_set():  # nobody would answer
            raise self._lost_loading()
        self._loading = asyncio.get_running_loop().create_future()
        self.load_went_on_at = _now()
        self._send(Load(reference=reference, folder=folder))
        try:
            served = await self._loading
        finally:
            self._loading = None
        self._loaded = reference, served
        return served

    def has_loaded(self, reference: str) -> bool:
        return self._loaded is not None and self._loaded[0] == reference

    def use(self) -> None:
        """What was loaded, from the next request on. Older requests end on what they began with."""
        assert self._loaded is not None
        self.reference, self.served = self._loaded
        self._loaded = None
        self._send(Use(reference=self.reference))
        self.status = "it is ready"

    def drop(self) -> None:
        self._loaded = None
        self._send(Drop())

    def give(self, flight: Flight) -> None:
        if not self.flights:
            self.went_on_at = _now()
        self.flights[flight.number] = flight
        flight.num_attempts += 1
        self._write(request_frame(flight.number, flight.arrived_at, flight.body))

    def take_back(self, flight: Flight) -> None:
        """Nobody waits for it: its slot is free by the next step."""
        if self.flights.pop(flight.number, None) is not None:
            self._send(Cancel(number=flight.number))

    async def measure(self, timeout_s: float) -> None:
        """Bring `metrics` up to date, if it answers in time."""
        self._has_beaten.clear()
        self._send(Measure())
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._has_beaten.wait(), timeout_s)

    def lose(self) -> None:
        """The channel has ended."""
        self.is_lost.set()
        if self._loading is not None and not self._loading.done():
            self._loading.set_exception(self._lost_loading())

    def _lost_loading(self) -> WorkerLost:
        return WorkerLost(f"worker {self.index} ended while it loaded a checkpoint.")

    def take(self, frame: Frame) -> None:
        self.heard_at = _now()
        if frame.kind is Kind.EVENTS:
            for events in read_events(frame.body):
                self._tell(events)
            self.went_on_at = self.heard_at
            self.has_worked = True
            return
        message = from_worker.validate_json(frame.body)
        if isinstance(message, Beat):
            self._take_beat(message)
        elif isinstance(message, Accepted):
            if flight := self.flights.get(message.number):
                self._on_accepted(flight, message.prompt_tokens)
        elif isinstance(message, Rejected):
            if flight := self.flights.pop(message.number, None):
                flight.fail(error_of(message.code, message.message, message.param, message.retry_after_s))
                self._on_ended(flight)
        elif isinstance(message, Returned):
            if flight := self.flights.pop(message.number, None):
                flight.failed_on = self.index
                self._on_returned(flight)
        elif isinstance(message, Hello):
            self.device, self.status = message.device, "it has no model yet"
            self.has_said_hello.set()
        elif self._loading is not None and not self._loading.done():
            if isinstance(message, Loaded):
                self._loading.set_result(message.served)
            elif isinstance(message, NotLoaded):
                self._loading.set_exception(error_of(message.code, message.message))

    def _tell(self, events: Events) -> None:
        flight = self.flights.get(events.number)
        if flight is None:  # its client has left
            return
        flight.num_ended += events.num_ended
        flight.num_sampled += events.num_tokens
        flight.say(Piece(events.text, events.is_last))
        if events.is_last:
            del self.flights[flight.number]
        if events.num_ended or events.is_last:
            self._on_ended(flight)

    def _take_beat(self, beat: Beat) -> None:
        if beat.progress != self._progress:
            self._progress, self.went_on_at = beat.progress, self.heard_at
        if beat.load_progress != self._load_progress:
            self._load_progress, self.load_went_on_at = beat.load_progress, self.heard_at
        self.metrics = beat.metrics
        self._has_beaten.set()

    def _send(self, message: BaseModel) -> None:
        self._write(control_frame(message))

    def _write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)


class _Channel(asyncio.Protocol):
    """All that a worker has said arrives before its end does."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._reader = FrameReader()

    def data_received(self, data: bytes) -> None:
        for frame in self._reader.feed(data):
            self._worker.take(frame)

    def connection_lost(self, exc: Exception | None) -> None:
        self._worker.lose()


def _now() -> float:
    return asyncio.get_running_loop().time()
