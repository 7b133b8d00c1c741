"""The worker's sign of life goes on, whatever went wrong once."""

import threading
from pathlib import Path

import pytest
from celery import Celery

from nanochat.jobs.database import Database
from nanochat.jobs.leases import Leases
from nanochat_worker import pulse as module
from nanochat_worker.metrics import Metrics
from nanochat_worker.pulse import Pulse


class Faltering(Leases):
    """Fails at the first beat in a way that nobody foresaw."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self.num_beats = 0
        self.has_beaten_again = threading.Event()

    def beat(self, worker: str) -> None:
        self.num_beats += 1
        if self.num_beats == 1:
            raise RuntimeError("an error of no known kind")
        super().beat(worker)
        self.has_beaten_again.set()


def test_an_unforeseen_error_does_not_end_the_beats(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "HEARTBEAT_S", 0.01)
    database = Database(f"sqlite:///{tmp_path / 'jobs.db'}")
    database.upgrade()
    leases = Faltering(database)
    pulse = Pulse("w", database, leases, Celery(), Metrics())
    pulse.start()
    try:
        assert leases.has_beaten_again.wait(10)
        assert list(leases.worker_ages()) == ["w"]
    finally:
        pulse.stop()
        database.close()
    assert "heartbeat_failed" in caplog.text
