"""A worker's heartbeat: it ends a process whose engine has ended, unless that was asked to."""

import os
import socket
import threading
from collections.abc import Iterator

import pytest

from nanochat_inference.pool.frames import Configure
from nanochat_inference.pool.worker_process import Worker
from nanochat_inference.settings import InferenceSettings
from tests.integration.inference.server import until


class LateWaiter(threading.Event):
    """Its first wait() ends as one that ran out of time and was then held up for as long as a stop takes."""

    def __init__(self) -> None:
        super().__init__()
        self.may_go_on = threading.Event()
        self.num_waits = 0

    def wait(self, timeout: float | None = None) -> bool:
        self.num_waits += 1
        if self.num_waits > 1:
            return super().wait(timeout)
        assert self.may_go_on.wait(30)
        return False


@pytest.fixture
def worker() -> Iterator[Worker]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        configure = Configure(worker=0, settings=InferenceSettings(device="cpu"), capacity=1, beat_interval_s=0.01)
        worker = Worker(theirs, configure)
        yield worker
        ours.close()  # nobody reads what it says, and it shall not wait for that
        worker._outbox.close()


@pytest.fixture
def exits(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The statuses that this process would have ended with."""
    found: list[int] = []
    monkeypatch.setattr(os, "_exit", found.append)
    yield found
    for thread in threading.enumerate():
        if thread.name == "heartbeat":  # which would end this process once it may
            thread.join(10)


def test_a_worker_that_stops_is_not_taken_for_one_whose_engine_has_ended(worker: Worker, exits: list[int]) -> None:
    waiter = worker._is_stopping = LateWaiter()
    worker.start()
    worker.stop()
    waiter.may_go_on.set()
    until(lambda: waiter.num_waits == 2, "the heartbeat has looked")
    assert exits == []


def test_a_worker_whose_engine_has_ended_by_itself_ends(worker: Worker, exits: list[int]) -> None:
    worker.start()
    worker._runner.stop()
    until(lambda: bool(exits), "its heartbeat ends it")
    worker.stop()
    assert set(exits) == {70}
