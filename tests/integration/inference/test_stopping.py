"""Deadlines, and the way out: SIGTERM lets running requests end, for a bounded time."""

import signal

import httpx
import pytest

from nanochat.protocol.generate import Done, GenerateError
from tests.integration.inference.conftest import Serve


def test_a_deadline_ends_a_running_answer_with_an_error_event(serve: Serve) -> None:
    server = serve(deadline_s=0.5)
    with server.stream(prompt="a") as running:
        running.start()
        last = list(running)[-1]
    assert isinstance(last, GenerateError) and last.code == "deadline_exceeded"
    server.until(lambda: server.metric("nanochat_num_requests_running") == 0, "the slot is free")


def test_sigterm_lets_running_requests_end_and_refuses_new_ones(serve: Serve) -> None:
    server = serve()
    with server.stream(prompt="a", max_tokens=8000) as running:
        running.start()
        server.process.send_signal(signal.SIGTERM)
        server.until(lambda: server.get("/health/ready").status_code == 503, "it drains")
        assert any("draining" in reason for reason in server.get("/health/ready").json()["reasons"])
        refused = server.post(prompt="a")
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "unavailable")
        assert "retry-after" in refused.headers
        assert server.process.poll() is None
        assert list(running)[-1] == Done(prompt_tokens=2, completion_tokens=8000)
    assert server.process.wait(20) == 0
    assert server.models.live_replicas("nanochat") == [], "it has taken itself off"


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_the_time_for_draining_is_bounded(serve: Serve, sent: signal.Signals) -> None:
    server = serve(drain_timeout_s=0.3)
    with server.stream(prompt="a") as running:
        running.start()
        server.process.send_signal(sent)
        last = list(running)[-1]
    assert isinstance(last, GenerateError) and last.code == "unavailable"
    # uvicorn passes the signal on once it has ended well.
    assert server.process.wait(20) in (0, -sent)


def test_an_idle_server_stops_at_once(serve: Serve) -> None:
    server = serve()
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(10) == 0
    with pytest.raises(httpx.TransportError):
        server.get("/health/live")
