"""Follows the choice of model: has the workers load the wanted checkpoint beside the one in service, and reports.

A checkpoint that cannot be loaded is refused: the old one keeps answering, the reason is reported, and it is tried
again later, since somebody may repair it. Loading has a thread of its own: the replica's heartbeat never stops for it.
"""

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

from nanochat.checkpoint import manifest
from nanochat.errors import NanochatError, Unavailable
from nanochat.jobs.database import Database
from nanochat.jobs.models import ModelStore
from nanochat_inference.settings import InferenceSettings

log = logging.getLogger(__name__)


class ModelSource(Protocol):
    """Says which checkpoint is wanted, and hears what became of it."""

    def wanted(self) -> str | None:
        """A reference; None where nothing was chosen yet. Raises Unavailable where nobody can tell now."""

    def folder(self, reference: str) -> Path:
        """Where it lies. Raises NotFound or CheckpointCorrupt."""

    def report(self, served: str | None, error: str | None) -> None:
        """What this replica serves, and why it does not serve what is wanted. Raises Unavailable."""

    def retire(self) -> None:
        """This replica ends. Raises Unavailable."""


class PromotedModel:
    """The choice in the database, under a model's name; this replica beats there. The trainer makes the tables."""

    def __init__(self, database: Database, home: Path, name: str, replica_id: str) -> None:
        self._database = database
        self._has_schema = False
        self._store = ModelStore(database)
        self._home = home
        self._name = name
        self._replica_id = replica_id

    def wanted(self) -> str | None:
        if not self._has_schema:  # this replica may well start before the trainer
            self._database.require_schema()
            self._has_schema = True
        choice = self._store.served(self._name)
        return choice.checkpoint if choice else None

    def folder(self, reference: str) -> Path:
        return manifest.find(self._home, reference).folder

    def report(self, served: str | None, error: str | None) -> None:
        self._store.heartbeat(self._replica_id, self._name, served, error)

    def retire(self) -> None:
        if self._has_schema:
            self._store.retire(self._replica_id)


class FixedModel:
    """One checkpoint for good, without a database."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def wanted(self) -> str:
        return str(self._folder)

    def folder(self, reference: str) -> Path:
        return Path(reference)

    def report(self, served: str | None, error: str | None) -> None:
        """Nobody asks."""

    def retire(self) -> None:
        """Nobody asks."""


class ModelWatcher:
    def __init__(self, source: ModelSource, settings: InferenceSettings, serve: Callable[[str, Path], None]) -> None:
        """`serve` is called on the loader's thread, with a reference and where it lies; it returns when every worker
        serves it, or raises with the old one in service."""
        self._source = source
        self._settings = settings
        self._serve = serve
        self._served: str | None = None
        self._error: str | None = None
        self._failed: tuple[str, float] | None = None  # which reference, and when
        self._status = "the choice of model has not been read yet"
        self._loading: tuple[str, Future[None]] | None = None
        self._loader = ThreadPoolExecutor(1, thread_name_prefix="loader")
        self._wake = threading.Event()
        self._is_stopping = False
        self._thread = threading.Thread(target=self._run, name="model-watcher", daemon=True)

    @property
    def status(self) -> str:
        """Why there is no model, for people to read. Any thread."""
        return self._status

    @property
    def is_alive(self) -> bool:
        """Whether promotions are followed. Any thread."""
        return self._thread.is_alive()

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._is_stopping = True
        self._wake.set()
        self._thread.join()
        self._loader.shutdown()

    def _run(self) -> None:
        while not self._is_stopping:
            self._wake.clear()
            try:
                self._look()
                self._source.report(self._served, self._error)
            except Unavailable as exc:
                # What is served goes on; only the news do not come through.
                status = f"the choice of model cannot be read: {exc.message}"
                if status != self._status:
                    log.warning("model_choice_unreadable", extra={"reason": exc.message})
                self._status = status
            except Exception as exc:
                # A thread that ended here would leave the replica on its model, or without one, for ever.
                status = f"following the choice of model failed ({type(exc).__name__}); the log says why."
                if status != self._status:
                    log.exception("model_choice_failed")
                self._status = status
            self._wake.wait(self._settings.poll_interval_s)
        try:
            self._source.retire()
        except Unavailable as exc:
            log.warning("retire_failed", extra={"reason": exc.message})

    def _look(self) -> None:
        """Compare what is wanted with what is served, and take the next step towards it."""
        wanted = self._source.wanted()
        self._take_loaded()
        if wanted is None:
            self._status = (
                f"no checkpoint has been promoted to {self._settings.model!r}; train one and promote it "
                f"(POST /v1/models/{self._settings.model}/promote)."
            )
        elif wanted == self._served:
            self._error = None
        elif self._loading is None and not self._failed_lately(wanted):
            if self._failed is None or self._failed[0] != wanted:  # else the reason stays, until it is another one
                self._status = f"checkpoint {wanted} is being loaded"
            log.info("model_loading", extra={"checkpoint": wanted})
            future = self._loader.submit(self._load, wanted)
            self._loading = wanted, future
            future.add_done_callback(lambda _: self._wake.set())

    def _load(self, reference: str) -> None:
        self._serve(reference, self._source.folder(reference))

    def _take_loaded(self) -> None:
        """See what became of a checkpoint that was to be loaded."""
        if self._loading is None or not self._loading[1].done():
            return
        reference, future = self._loading
        self._loading = None
        error = future.exception()
        if error is not None:
            message = error.message if isinstance(error, NanochatError) else repr(error)
            # A reason in words says it all; the traceback is for what nobody foresaw.
            unforeseen = None if isinstance(error, NanochatError) else error
            log.error("model_refused", extra={"checkpoint": reference, "reason": message}, exc_info=unforeseen)
            self._failed = reference, time.monotonic()
            self._error = message
            self._status = f"checkpoint {reference} could not be loaded: {message}"
        else:
            self._served, self._error, self._failed = reference, None, None
            log.info("model_served", extra={"checkpoint": reference})

    def _failed_lately(self, reference: str) -> bool:
        if self._failed is None or self._failed[0] != reference:
            return False
        return time.monotonic() - self._failed[1] < self._settings.reload_interval_s
