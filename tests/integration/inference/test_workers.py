"""Workers that die, hang and come back, under load: the service stays up, and every request ends in one clear way."""

import os
import random
import signal
import time

import psutil
import pytest

from nanochat.protocol.generate import Delta, Done, GenerateError, Started
from tests.integration.inference.chain_model import damaged
from tests.integration.inference.conftest import Serve
from tests.integration.inference.load import ANSWERED, REFUSED, Load, family, is_gone, kill, workers
from tests.integration.inference.server import Server, events_of, logged, text_of, until


def num_ready(server: Server) -> int:
    return sum(worker["is_ready"] for worker in server.get("/stats").json()["workers"])


def all_ready(server: Server) -> None:
    def are_ready() -> bool:
        stats = server.get("/stats").json()
        return all(worker["is_ready"] for worker in stats["workers"])

    server.until(are_ready, "every worker is ready", 60)


@pytest.mark.slow
def test_twenty_kills_under_load_lose_no_request_without_a_word(serve: Serve) -> None:
    server = serve(workers=2, max_running=4)
    all_ready(server)
    rng = random.Random(4)
    num_fds = psutil.Process(server.process.pid).num_fds()
    tokens = 0.0
    with Load(server, num_clients=12) as load:
        for _ in range(20):
            until(lambda: num_ready(server) > 0, "a worker is ready", 60)
            load.until_answered(load.ends[ANSWERED] + 1, 60)
            kill(rng.choice(workers(server)))
            now = server.metric("nanochat_generation_tokens_total")
            assert now >= tokens, "a counter went backwards"
            tokens = now
    assert load.wrong == []
    assert load.ends[ANSWERED] > 100
    assert load.ends[REFUSED] == 0, "what had not begun was not answered by another worker"
    all_ready(server)
    assert server.metric("nanochat_worker_restarts_total") == 20
    assert text_of(events_of(server.post(prompt="a", max_tokens=4))) == "baba"
    until(lambda: psutil.Process(server.process.pid).num_fds() <= num_fds + 2, "no file stays open", 30)
    assert len(logged(server, "worker_lost")) == 20


@pytest.fixture(scope="module")
def server(serve: Serve) -> Server:
    """Two workers, of which the first one that a single client asks is number 0."""
    return serve(workers=2, max_running=2, worker_timeout_s=2, poll_interval_s=0.1)


def test_a_lost_worker_ends_what_it_began_and_the_rest_goes_to_another(server: Server) -> None:
    all_ready(server)
    restarts = server.metric("nanochat_worker_restarts_total")
    errors = server.metric('nanochat_request_success_total{finished_reason="error"}')
    with server.stream(prompt="a") as begun:
        index = begun.start().worker
        pid = next(line["pid"] for line in reversed(logged(server, "worker_started")) if line["worker"] == index)
        os.kill(pid, signal.SIGKILL)
        last = list(begun)[-1]
    assert isinstance(last, GenerateError) and last.code == "unavailable" and "ask again" in last.message
    assert text_of(events_of(server.post(prompt="a", max_tokens=2))) == "ba"
    all_ready(server)
    assert server.metric("nanochat_worker_restarts_total") == restarts + 1
    assert server.metric('nanochat_request_success_total{finished_reason="error"}') == errors + 1
    lost = logged(server, "worker_lost")[-1]
    assert (lost["worker"], lost["exit_status"]) == (index, -signal.SIGKILL)


def test_a_worker_that_hangs_is_killed_and_its_requests_are_answered_elsewhere(server: Server) -> None:
    all_ready(server)
    with server.stream(prompt="a") as begun:
        index = begun.start().worker
        pid = next(line["pid"] for line in reversed(logged(server, "worker_started")) if line["worker"] == index)
        os.kill(pid, signal.SIGSTOP)
        started = time.monotonic()
        # Two at once: the least loaded worker is the healthy one, which has room for one more than that.
        for _ in range(3):
            assert text_of(events_of(server.post(prompt="a", max_tokens=2))) == "ba"
        last = [event for event in begun if not isinstance(event, Delta)][-1]
    assert isinstance(last, GenerateError) and last.code == "unavailable"
    assert time.monotonic() - started < 15
    assert any(line["pid"] == pid for line in logged(server, "worker_hangs"))
    assert not psutil.pid_exists(pid) or is_gone(psutil.Process(pid))
    all_ready(server)


def test_a_request_that_arrives_while_all_workers_are_away_waits_for_the_next(server: Server) -> None:
    all_ready(server)
    assert text_of(events_of(server.post(prompt="a", max_tokens=2))) == "ba"
    for worker in workers(server):
        kill(worker)
    until(lambda: num_ready(server) == 0, "none is ready")
    ready = server.get("/health/ready")
    assert ready.status_code == 503 and "worker 0 (cpu)" in ready.text
    events = events_of(server.post(prompt="a", max_tokens=2))
    assert isinstance(events[0], Started) and text_of(events) == "ba"


def test_a_checkpoint_is_swapped_in_every_worker_and_a_damaged_one_in_none(server: Server) -> None:
    all_ready(server)
    second = "nano/sft/step_000002"
    bad = damaged(server.home, "bad", 3)
    server.models.promote("nanochat", bad)
    server.until(lambda: server.models.live_replicas("nanochat")[0].error is not None, "the reason is reported")
    assert {worker["checkpoint"] for worker in server.get("/stats").json()["workers"]} == {"nano/sft/step_000001"}
    server.models.promote("nanochat", second)
    server.until(lambda: server.models.live_replicas("nanochat")[0].checkpoint == second, "it is served")
    assert {worker["checkpoint"] for worker in server.get("/stats").json()["workers"]} == {second}
    for worker in workers(server):
        kill(worker)
    assert text_of(events_of(server.post(prompt="a", max_tokens=2))) == "xy", "a new worker loads the one in service"
    server.models.promote("nanochat", "nano/sft/step_000001")
    server.until(lambda: server.models.live_replicas("nanochat")[0].checkpoint != second, "it is served")


def test_all_processes_end_with_a_server_that_is_killed(serve: Serve) -> None:
    server = serve(workers=2)
    all_ready(server)
    events_of(server.post(messages=[{"role": "user", "content": "hi"}]))  # a calculator's process is there too,
    events_of(server.post(prompt="a", response_format={"type": "regex", "regex": "[ab]*"}, max_tokens=4))
    started = family(server)
    assert any("nanochat.engine.grammar_process" in process.cmdline() for process in started)  # and a grammar's
    assert len(started) >= 4
    server.process.kill()
    server.process.wait(10)
    until(lambda: all(is_gone(process) for process in started), "no process is left", 20)


def test_all_processes_end_with_a_server_that_is_stopped_while_a_worker_hangs(serve: Serve) -> None:
    server = serve(workers=2, drain_timeout_s=1)
    all_ready(server)
    started = family(server)
    os.kill(workers(server)[0].pid, signal.SIGSTOP)
    server.process.send_signal(signal.SIGTERM)
    server.process.wait(20)
    until(lambda: all(is_gone(process) for process in started), "no process is left", 20)


def test_a_server_that_is_stopped_before_a_worker_could_load_ends_too(serve: Serve) -> None:
    server = serve(promoted=None)
    until(lambda: bool(logged(server, "worker_started")), "a worker is started", 60)
    os.kill(workers(server)[0].pid, signal.SIGSTOP)
    server.models.promote("nanochat", "nano/sft/step_000001")
    until(lambda: bool(logged(server, "model_loading")), "it is to load", 60)
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(20) == 0


def test_workers_drain_on_sigterm(serve: Serve) -> None:
    server = serve(workers=2, max_running=1)
    all_ready(server)
    # Long enough that the first has not ended when the second comes.
    with server.stream(prompt="a", max_tokens=8000) as first, server.stream(prompt="a", max_tokens=8000) as second:
        assert {first.start().worker, second.start().worker} == {0, 1}
        server.process.send_signal(signal.SIGTERM)
        for running in (first, second):
            assert list(running)[-1] == Done(prompt_tokens=2, completion_tokens=8000)
    assert server.process.wait(20) == 0


def test_too_many_waiting_tokens_are_refused_with_a_time_to_come_again(serve: Serve) -> None:
    server = serve(max_running=1, max_waiting_tokens=2000)
    with server.stream(prompt="a") as running:
        running.start()
        waiting = server.post_later(prompt_token_ids=[97] * 1500, max_tokens=1)
        until(lambda: server.metric("nanochat_num_requests_waiting") == 1, "one waits")
        refused = server.post(prompt_token_ids=[97] * 1500, max_tokens=1)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "unavailable")
        assert "tokens" in refused.json()["error"]["message"] and refused.headers["retry-after"] == "2"
    assert waiting.result(60).status_code == 200


@pytest.mark.slow
def test_memory_does_not_grow_over_a_thousand_requests(serve: Serve) -> None:
    """`make chaos` has ten thousand."""
    server = serve(max_running=8)

    def resident_bytes() -> int:
        return sum(psutil.Process(pid).memory_info().rss for pid in [server.process.pid, workers(server)[0].pid])

    with Load(server, num_clients=8, max_tokens=4) as load:
        load.until_answered(500, 120)  # it is warm
        before = resident_bytes()
        load.until_answered(1500, 120)
        after = resident_bytes()
    assert load.wrong == []
    assert after < 1.02 * before
