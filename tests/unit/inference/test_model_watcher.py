"""The watcher outlives whatever its source raises, and says what is missing."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy.exc import ProgrammingError

from nanochat.errors import NotFound, Unavailable
from nanochat.jobs.database import Database
from nanochat.settings import CommonSettings
from nanochat_inference.model_watcher import FixedModel, ModelSource, ModelWatcher, PromotedModel
from nanochat_inference.service import InferenceService
from nanochat_inference.settings import InferenceSettings


class Nothing(FixedModel):
    """A source without a choice, whose first looks fail as PostgreSQL does where a table is missing."""

    def __init__(self, num_failures: int) -> None:
        self.num_failures = num_failures

    def wanted(self) -> str:
        if self.num_failures:
            self.num_failures -= 1
            raise ProgrammingError("SELECT", {}, Exception('relation "models" does not exist'))
        return None  # type: ignore[return-value]


class Missing(FixedModel):
    """A source whose checkpoint is away; later looks for it hang until they are let go."""

    def __init__(self) -> None:
        super().__init__(Path("demo/sft"))
        self.num_looks = 0
        self.let_go = threading.Event()

    def folder(self, reference: str) -> Path:
        self.num_looks += 1
        if self.num_looks > 1:
            assert self.let_go.wait(20.0)
        raise NotFound("there is no such folder.")


@pytest.fixture
def settings(home: Path) -> InferenceSettings:
    return InferenceSettings(poll_interval_s=0.01, common=CommonSettings(home=home))


@contextmanager
def watching(source: ModelSource, settings: InferenceSettings) -> Iterator[ModelWatcher]:
    def serve(reference: str, folder: Path) -> None:
        raise AssertionError

    watcher = ModelWatcher(source, settings, serve)
    watcher.start()
    try:
        yield watcher
    finally:
        watcher.stop()


def until(is_so: Callable[[], bool], deadline_s: float = 20.0) -> None:
    end = time.monotonic() + deadline_s
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.005)


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_error_that_nobody_foresaw_does_not_end_the_watcher(settings: InferenceSettings) -> None:
    with watching(Nothing(num_failures=3), settings) as watcher:
        until(lambda: "promote" in watcher.status)
        assert watcher.is_alive


def test_such_an_error_is_told_and_logged_once(settings: InferenceSettings, caplog: pytest.LogCaptureFixture) -> None:
    source = Nothing(num_failures=10**9)
    with watching(source, settings) as watcher:
        until(lambda: source.num_failures < 10**9 - 5)
        assert "ProgrammingError" in watcher.status
    (line,) = [record for record in caplog.records if record.message == "model_choice_failed"]
    assert line.exc_info


def test_a_replica_started_before_the_trainer_waits_for_the_tables(settings: InferenceSettings, home: Path) -> None:
    database = Database(settings.common.resolved_database_url)
    with watching(PromotedModel(database, home, settings.model, "r"), settings) as watcher:
        until(lambda: "start the trainer" in watcher.status)
        database.upgrade()
        until(lambda: "promote" in watcher.status)
    database.close()


def test_a_replica_that_saw_no_tables_leaves_without_asking_for_them(settings: InferenceSettings, home: Path) -> None:
    source = PromotedModel(Database("postgresql://nobody@127.0.0.1:9/none"), home, settings.model, "r")
    with pytest.raises(Unavailable):
        source.wanted()
    source.retire()


def test_why_a_checkpoint_was_refused_is_said_while_it_is_tried_again(settings: InferenceSettings) -> None:
    source = Missing()
    with watching(source, settings.model_copy(update={"reload_interval_s": 0.01})) as watcher:
        until(lambda: source.num_looks == 2)
        try:
            assert watcher.status == "checkpoint demo/sft could not be loaded: there is no such folder."
        finally:
            source.let_go.set()


async def test_a_replica_whose_watcher_is_dead_is_not_ready(settings: InferenceSettings) -> None:
    service = InferenceService(settings, ["cpu"])
    service.start()
    try:
        reason = "the thread that follows the choice of model is not running"
        assert reason not in service.unready_reasons()
        await asyncio.to_thread(service._watcher.stop)
        assert reason in service.unready_reasons()
    finally:
        await service.stop()
