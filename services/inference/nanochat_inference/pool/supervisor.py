"""Keeps one worker alive: starts it, brings it to the model in service, notices its end and its silence.

A worker hangs when it has said nothing for a while, has made no step though it has work, or loads its first checkpoint
and that does not go on; it is killed, since what hangs cannot be asked. A load beside what is served is only told of: a
kill would end the answers, and the next life would read from the same disk. One that had worked is started again at
once; one that ends before it does, later each time.
"""

import asyncio
import contextlib
import logging
import signal
from typing import Protocol

from nanochat.errors import NanochatError
from nanochat_inference.pool.worker import Worker

log = logging.getLogger(__name__)

# Loading torch from a slow disk, with every core taken, and compiling the CPU's kernels where none are: build.py gives
# that 300 s.
_START_TIMEOUT_S = 480.0
_FIRST_DELAY_S, _MAX_DELAY_S = 0.5, 15.0
# Lives in a row without an answer, from which on nobody should wait for the next.
_HOPELESS = 3


class Owner(Protocol):
    """pool.py."""

    async def bring_up(self, worker: Worker) -> None:
        """Load what is in service. Raises NanochatError where that cannot be."""

    def lost(self, worker: Worker) -> None:
        """It has ended, with all that it was given."""


class Supervisor:
    def __init__(self, worker: Worker, owner: Owner, *, timeout_s: float, beat_interval_s: float) -> None:
        self._worker = worker
        self._owner = owner
        self._timeout_s = timeout_s
        self._beat_interval_s = beat_interval_s
        self._num_failures = 0  # lives without an answer, since the last one with

    @property
    def is_hopeless(self) -> bool:
        return self._num_failures >= _HOPELESS

    async def run(self) -> None:
        """Until cancelled, which ends the worker gently."""
        worker = self._worker
        while True:
            try:
                await self._live()
            except asyncio.CancelledError:
                await worker.end(gently=True)
                raise
            except OSError as exc:
                worker.status = f"it cannot be started: {exc}"
                log.error("worker_not_started", extra={"worker": worker.index, "reason": str(exc)})
                await worker.end()
            except Exception:
                log.exception("supervisor_failed", extra={"worker": worker.index})
                await worker.end()
            self._num_failures = 0 if worker.has_worked else self._num_failures + 1
            worker.num_restarts += 1
            self._owner.lost(worker)
            if self._num_failures:
                await asyncio.sleep(min(_FIRST_DELAY_S * 2 ** (self._num_failures - 1), _MAX_DELAY_S))

    async def _live(self) -> None:
        """One life, from its start to its end."""
        worker = self._worker
        await worker.start()
        log.info("worker_started", extra={"worker": worker.index, "pid": worker.pid, "device": worker.device})
        opening = asyncio.create_task(self._open())
        try:
            reason = await self._watch(opening)
        finally:
            opening.cancel()
            await asyncio.gather(opening, return_exceptions=True)
        await worker.end()
        reason = reason or _how_it_ended(worker.exit_status)
        worker.status = f"it is started again: {reason}"
        log.error(
            "worker_lost",
            extra={
                "worker": worker.index,
                "pid": worker.pid,
                "exit_status": worker.exit_status,
                "reason": reason,
                "num_requests": len(worker.flights),
            },
        )

    async def _open(self) -> None:
        """Raises NanochatError, or TimeoutError."""
        worker = self._worker
        async with asyncio.timeout(_START_TIMEOUT_S):
            await worker.has_said_hello.wait()
        await self._owner.bring_up(worker)

    async def _watch(self, opening: "asyncio.Task[None]") -> str:
        """Returns why the worker is given up; empty where it ended by itself."""
        worker = self._worker
        loop = asyncio.get_running_loop()
        looked_at = loop.time()
        told_load_at = 0.0
        while not worker.is_lost.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(worker.is_lost.wait(), self._beat_interval_s)
            if opening.done() and not opening.cancelled() and (error := opening.exception()):
                return error.message if isinstance(error, NanochatError) else f"it did not open ({error!r})"
            now = loop.time()
            was_away = now - looked_at > 3 * self._beat_interval_s  # this process itself: nothing was read meanwhile
            looked_at = now
            if was_away:
                worker.refresh()
            elif worker.is_up and (reason := self._hangs(now)):
                log.error("worker_hangs", extra={"worker": worker.index, "pid": worker.pid, "reason": reason})
                return reason
            elif self._load_hangs(now) and worker.load_went_on_at != told_load_at:
                told_load_at = worker.load_went_on_at
                log.error("load_hangs", extra={"worker": worker.index, "pid": worker.pid})
        return ""

    def _hangs(self, now: float) -> str:
        worker = self._worker
        limit_s = self._timeout_s
        if now - worker.heard_at > limit_s:
            return f"it said nothing for {limit_s:g} s"
        if worker.flights and now - worker.went_on_at > limit_s:
            return f"it made no step for {limit_s:g} s"
        if worker.served is None and self._load_hangs(now):
            return f"it did not go on with a checkpoint for {limit_s:g} s"
        return ""

    def _load_hangs(self, now: float) -> bool:
        return self._worker.is_loading and now - self._worker.load_went_on_at > self._timeout_s


def _how_it_ended(status: int | None) -> str:
    if status is None or status >= 0:
        return f"it ended with status {status}"
    name = signal.Signals(-status).name
    return f"it was ended by {name}" + (": out of memory, unless somebody did" if name == "SIGKILL" else "")
