"""One replica: which model it serves now, which requests it accepts, and why it might not.

Knows no HTTP (routes.py), and computes nothing: the workers do (pool/).
"""

import asyncio
import os
import socket
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from nanochat.errors import NotFound, Unavailable
from nanochat.jobs.database import Database
from nanochat.protocol.generate import GenerateRequest, ServedModel
from nanochat_inference.model_watcher import FixedModel, ModelSource, ModelWatcher, PromotedModel
from nanochat_inference.pool.devices import share_out
from nanochat_inference.pool.flight import Flight
from nanochat_inference.pool.pool import Pool
from nanochat_inference.pool.totals import Totals
from nanochat_inference.settings import InferenceSettings

# Loading takes seconds, and so does a drain behind which another replica stands ready.
_RETRY_LATER_S = 5.0


class InferenceService:
    """For the event loop's thread, but for begin_drain and abort_all, which a signal's handler calls."""

    def __init__(self, settings: InferenceSettings, devices: list[str]) -> None:
        self.settings = settings
        self.is_draining = False
        self._loop = asyncio.get_running_loop()
        self._totals = Totals(settings.common.home_dir)
        self._pool = Pool(share_out(devices, settings), self._totals)
        self._watcher = ModelWatcher(_source(settings), settings, self._serve)

    def start(self) -> None:
        self._pool.start()
        self._watcher.start()

    async def stop(self) -> None:
        """Waits for a step of the engine."""
        await self._pool.stop()
        await asyncio.to_thread(self._watcher.stop)

    def begin_drain(self) -> None:
        """Accept nothing new; what runs goes on."""
        self.is_draining = True

    def abort_all(self) -> None:
        """The time for draining is over: whoever still waits is told."""
        reason = Unavailable("the server is stopping and its time for running requests is over.")
        self._loop.call_soon_threadsafe(self._pool.abort_all, reason)

    @property
    def is_idle(self) -> bool:
        return self._pool.num_open == 0

    def unready_reasons(self) -> list[str]:
        """Why this replica should get no requests now; empty when it should."""
        reasons = ["draining: the server was told to stop"] if self.is_draining else []
        if not self._watcher.is_alive:
            reasons.append("the thread that follows the choice of model is not running")
        if self._pool.served is None:
            reasons.append(self._watcher.status)
        else:
            reasons += self._pool.unready_reasons()
        return reasons

    def info(self) -> ServedModel:
        """Raises Unavailable while there is no model."""
        served = self._pool.served
        if served is None:
            raise Unavailable(f"no model can answer yet: {self._watcher.status}", retry_after_s=_RETRY_LATER_S)
        return served

    def stats(self) -> dict[str, Any]:
        """Load by worker, in the shape of the seed's /stats."""
        stats = self._pool.stats()
        return {**stats, "available_workers": 0} if self.unready_reasons() else stats

    async def measured(self) -> CollectorRegistry:
        """The metrics of now."""
        await self._pool.measure()
        return self._totals.registry

    def submit(self, asked: GenerateRequest, body: bytes) -> Flight:
        """Queue a request, which `body` says too. Raises what stands in the way: InvalidRequest, NotFound, Unavailable.
        While workers are started again it waits."""
        if asked.model != self.settings.model:
            raise NotFound(f"no model {asked.model!r}; this server has {self.settings.model!r}.", param="model")
        if self.is_draining:
            raise Unavailable("the server is stopping; try again.", retry_after_s=_RETRY_LATER_S)
        self.info()
        return self._pool.submit(asked, body)

    def cancel(self, flight: Flight) -> None:
        """Nobody waits for it any more. Harmless once it has ended."""
        self._pool.cancel(flight)

    def _serve(self, reference: str, folder: Path) -> None:
        """On the loader's thread."""
        asyncio.run_coroutine_threadsafe(self._pool.serve(reference, folder), self._loop).result()


def _source(settings: InferenceSettings) -> ModelSource:
    if settings.checkpoint is not None:
        return FixedModel(settings.checkpoint)
    replica_id = settings.replica_id or f"{socket.gethostname()}-{os.getpid()}"
    database = Database(settings.common.resolved_database_url)
    return PromotedModel(database, settings.common.home_dir, settings.model, replica_id)
