"""Deadlines, and the way out: SIGTERM lets running requests end, for a bounded time."""

import signal

import httpx
import pytest

from nanochat.protocol.generate import Done, GenerateError
from tests.integration.inference.conftest import Serve
from tests.integration.inference.server import events_of


def test_a_deadline_is_an_error_event_after_the_first_token_and_a_status_before(serve: Serve) -> None:
    server = serve(deadline_s=0.6, max_running=1)
    with server.stream(prompt="a") as running:
        running.start()
        late = server.post(prompt="a")
        # The one that waits gets the slot at the other's deadline, at best: either it is too late, or it starts late.
        if late.status_code == 200:
            assert isinstance(events_of(late)[-1], GenerateError)
        else:
            assert (late.status_code, late.json()["error"]["code"]) == (504, "deadline_exceeded")
        last = list(running)[-1]
    assert isinstance(last, GenerateError) and last.code == "deadline_exceeded"
    server.until(lambda: server.metric("nanochat_num_requests_running") == 0, "the slot is free")


def test_a_request_that_never_gets_a_slot_has_a_status_of_its_own(serve: Serve) -> None:
    server = serve(deadline_s=0.01, max_running=1)
    refused = server.post(prompt="a" * 8000, prompt_logprobs=True)
    assert (refused.status_code, refused.json()["error"]["code"]) == (504, "deadline_exceeded")


def test_sigterm_lets_running_requests_end_and_refuses_new_ones(serve: Serve) -> None:
    server = serve()
    with server.stream(prompt="a", max_tokens=1500) as running:
        running.start()
        server.process.send_signal(signal.SIGTERM)
        server.until(lambda: server.get("/health/ready").status_code == 503, "it drains")
        assert any("draining" in reason for reason in server.get("/health/ready").json()["reasons"])
        refused = server.post(prompt="a")
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "unavailable")
        assert "retry-after" in refused.headers
        assert server.process.poll() is None
        assert list(running)[-1] == Done(prompt_tokens=2, completion_tokens=1500)
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
