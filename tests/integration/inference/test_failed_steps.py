"""Steps of the engine that fail in a real worker: what had begun ends in one clear error, the rest is answered."""

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from nanochat.protocol.generate import GenerateError
from tests.integration.inference.conftest import Serve
from tests.integration.inference.load import workers
from tests.integration.inference.server import Server, events_of, logged, text_of

# Python runs this module as a process starts. A step fails for each file that a test puts beside it.
FAILING = """
import sys
from pathlib import Path

if "nanochat_inference.pool.worker_process" in sys.orig_argv:
    from nanochat_inference.batching import runner

    run_step = runner.run_step

    def failing(*arguments, **options):
        for fault in Path(__file__).parent.glob("*.fault"):
            fault.unlink()
            raise RuntimeError("out of memory")
        return run_step(*arguments, **options)

    runner.run_step = failing
"""


class Faults:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = itertools.count()

    def fail(self, num_steps: int) -> None:
        """The next steps of whatever worker."""
        for number in itertools.islice(self._numbers, num_steps):
            (self._folder / f"{number}.fault").touch()


@pytest.fixture(scope="module")
def faults(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Faults]:
    folder = tmp_path_factory.mktemp("faults")
    (folder / "sitecustomize.py").write_text(FAILING)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)
        yield Faults(folder)


@pytest.fixture(scope="module")
def server(faults: Faults, serve: Serve) -> Server:
    return serve(max_running=1)


def test_a_failed_step_ends_what_it_had_begun_and_the_rest_is_answered(server: Server, faults: Faults) -> None:
    (worker,) = workers(server)
    with server.stream(prompt="a") as begun:
        begun.start()
        waiting = server.post_later(prompt="a", max_tokens=2)
        server.until(lambda: server.metric("nanochat_num_requests_waiting") == 1, "one waits")
        faults.fail(1)
        last = list(begun)[-1]
    assert isinstance(last, GenerateError) and last.code == "internal_error" and "ask again" in last.message
    assert text_of(events_of(waiting.result(60))) == "ba"
    assert [line["is_retried"] for line in logged(server, "request_returned")] == [True]
    assert server.metric('nanochat_request_success_total{finished_reason="error"}') == 1
    assert server.metric("nanochat_worker_restarts_total") == 1
    assert server.metric("nanochat_slot_leaks_total") == 0
    assert [process.pid for process in workers(server)] == [worker.pid], "it recovered by itself"


def test_a_request_outlives_a_worker_whose_every_step_fails(server: Server, faults: Faults) -> None:
    (worker,) = workers(server)
    errors = server.metric('nanochat_request_success_total{finished_reason="error"}')
    faults.fail(3)
    assert text_of(events_of(server.post(prompt="a", max_tokens=2))) == "ba"
    assert [line["num_failures"] for line in logged(server, "engine_broken")] == [3]
    assert worker.pid not in [process.pid for process in workers(server)]
    assert server.metric('nanochat_request_success_total{finished_reason="error"}') == errors


def test_a_request_that_fails_whoever_tries_it_ends_in_one_clear_error(server: Server, faults: Faults) -> None:
    faults.fail(4)
    refused = server.post(prompt="a", max_tokens=2)
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "unavailable")
    assert "not tried again" in refused.json()["error"]["message"]
    assert text_of(events_of(server.post(prompt="a", max_tokens=2))) == "ba"
