"""A load that hangs in a real worker ends it after the usual patience; one that is slow may take many times that."""

import os
import select
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from nanochat.native import library
from nanochat_inference.pool.frames import Configure
from nanochat_inference.pool.worker_process import Worker
from nanochat_inference.settings import InferenceSettings
from tests.integration.inference.conftest import Serve
from tests.integration.inference.load import workers
from tests.integration.inference.server import Server, events_of, logged, text_of, until

TIMEOUT_S = 2

# Python runs this module as a process starts. Weights are read while a test has the file "hang" or "slow" beside it.
LOADING = """
import sys
import time
from pathlib import Path

if "nanochat_inference.pool.worker_process" in sys.orig_argv:
    from nanochat_inference import loaded_model

    load_tensors = loaded_model.load_tensors
    folder = Path(__file__).parent

    def reading(model, tensors, on_progress):
        (folder / "begun").touch()
        while (folder / "hang").exists():
            time.sleep(0.05)
        while (folder / "slow").exists():
            time.sleep(0.05)
            on_progress()
        load_tensors(model, tensors, on_progress)

    loaded_model.load_tensors = reading
"""


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "sitecustomize.py").write_text(LOADING)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    yield tmp_path
    for name in ("hang", "slow"):
        (tmp_path / name).unlink(missing_ok=True)


def promoted(serve: Serve) -> Server:
    server = serve(promoted=None, workers=1, worker_timeout_s=TIMEOUT_S, poll_interval_s=0.1)
    server.models.promote("nanochat", "nano/sft/step_000001")
    return server


def test_a_worker_whose_first_load_hangs_is_started_again(serve: Serve, disk: Path) -> None:
    (disk / "hang").touch()
    server = promoted(serve)
    until(lambda: bool(logged(server, "worker_hangs")), "it is noticed", 60)
    assert logged(server, "worker_hangs")[0]["reason"] == f"it did not go on with a checkpoint for {TIMEOUT_S} s"
    (disk / "hang").unlink()
    server.until(server.is_ready, "the next one loads", 60)
    assert text_of(events_of(server.post(prompt="a", max_tokens=2))) == "ba"


def test_a_load_that_takes_longer_than_patience_and_goes_on_ends_nothing(serve: Serve, disk: Path) -> None:
    (disk / "slow").touch()
    server = promoted(serve)
    until((disk / "begun").exists, "it loads", 60)
    with pytest.raises(AssertionError, match="not within"):
        until(lambda: bool(logged(server, "worker_lost")), "it is lost", 3 * TIMEOUT_S)
    (disk / "slow").unlink()
    server.until(server.is_ready, "it is loaded", 60)
    assert server.metric("nanochat_worker_restarts_total") == 0


def test_a_load_that_hangs_beside_what_is_served_is_told_of_and_ends_no_answer(serve: Serve, disk: Path) -> None:
    server = promoted(serve)
    server.until(server.is_ready, "it serves", 60)
    (worker,) = workers(server)
    second = "nano/sft/step_000002"
    (disk / "hang").touch()
    server.models.promote("nanochat", second)
    until(lambda: bool(logged(server, "load_hangs")), "it is noticed", 60)
    assert text_of(events_of(server.post(prompt="a", max_tokens=2))) == "ba"
    (disk / "hang").unlink()
    server.until(lambda: server.models.live_replicas("nanochat")[0].checkpoint == second, "it is served", 60)
    assert [process.pid for process in workers(server)] == [worker.pid]
    assert len(logged(server, "load_hangs")) == 1


def test_a_worker_has_its_kernels_before_it_says_hello(monkeypatch: pytest.MonkeyPatch) -> None:
    """To compile them takes longer than a load may stand still."""
    ours, theirs = socket.socketpair()
    found: list[bool] = []

    def load() -> None:
        found.append(bool(select.select([ours], [], [], 0)[0]))  # has it said anything?

    monkeypatch.setattr(library, "load", load)
    settings = InferenceSettings(device="cpu")
    with ours, theirs:
        worker = Worker(theirs, Configure(worker=0, settings=settings, capacity=1, beat_interval_s=60))
        worker.start()
        ours.settimeout(30)
        assert b'"hello"' in ours.recv(2**16)
        worker.stop()
        worker._outbox.close()
    assert found == [False]
