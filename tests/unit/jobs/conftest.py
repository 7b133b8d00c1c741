"""Stores on a fresh SQLite file, with a clock that the test moves."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from nanochat.jobs.database import Database
from nanochat.jobs.leases import Leases
from nanochat.jobs.models import ModelStore
from nanochat.jobs.store import JobStore


class Clock:
    """Unix seconds that pass only when told."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(f"sqlite:///{tmp_path / 'jobs.db'}")
    database.upgrade()
    yield database
    database.close()


@pytest.fixture
def jobs(database: Database, clock: Clock) -> JobStore:
    return JobStore(database, clock)


@pytest.fixture
def leases(database: Database, clock: Clock) -> Leases:
    return Leases(database, clock)


@pytest.fixture
def models(database: Database, clock: Clock) -> ModelStore:
    return ModelStore(database, clock)
