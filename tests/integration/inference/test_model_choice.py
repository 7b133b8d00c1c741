"""The replica follows the choice of model in the database, without dropping a request."""

from collections.abc import Callable
from pathlib import Path

import pytest

from nanochat.protocol.generate import Delta, Done, Started
from tests.integration.inference.chain_model import damaged
from tests.integration.inference.conftest import Serve
from tests.integration.inference.server import Server, events_of, logged, text_of

FIRST, SECOND = "nano/sft/step_000001", "nano/sft/step_000002"


@pytest.fixture(scope="module")
def server(serve: Serve) -> Server:
    return serve(poll_interval_s=0.1)


def _serves(server: Server, checkpoint: str) -> None:
    server.until(lambda: server.get("/v1/info").json()["checkpoint"] == checkpoint, f"{checkpoint} is served")


def test_a_promotion_in_mid_stream_changes_new_requests_and_not_the_running_one(server: Server) -> None:
    with server.stream(prompt="a", max_tokens=2000) as running:
        assert running.start().checkpoint == FIRST
        server.models.promote("nanochat", SECOND)
        _serves(server, SECOND)
        events = events_of(server.post(prompt="a", max_tokens=4))
        assert isinstance(events[0], Started) and events[0].checkpoint == SECOND
        assert text_of(events) == "xyxy"
        rest = list(running)
    assert {*text_of(rest)} == {"a", "b"}
    assert any(isinstance(event, Delta) for event in rest), "it was still running when the new model answered"
    assert rest[-1] == Done(prompt_tokens=2, completion_tokens=2000)
    server.until(lambda: any(line["checkpoint"] == FIRST for line in logged(server, "model_freed")), "it is freed")
    assert server.metric(f'nanochat_model_info{{checkpoint="{SECOND}",model="nanochat"}}') == 1
    assert FIRST not in server.get("/metrics").text
    (replica,) = server.models.live_replicas("nanochat")
    assert (replica.checkpoint, replica.error) == (SECOND, None)
    server.models.rollback("nanochat")
    _serves(server, FIRST)

    def num_given_back() -> int:
        return max((line["num_models"] for line in logged(server, "memory_given_back")), default=0)

    # Of the swap back too, which is over between two beats: nothing ran on the old model.
    server.until(lambda: num_given_back() == len(logged(server, "model_freed")) >= 2, "what both took goes back")


def test_a_damaged_checkpoint_is_refused_and_the_old_one_keeps_answering(server: Server) -> None:
    server.models.promote("nanochat", FIRST)
    _serves(server, FIRST)
    bad = damaged(server.home, "bad", 3)
    server.models.promote("nanochat", bad)
    server.until(lambda: server.models.live_replicas("nanochat")[0].error is not None, "the reason is reported")
    (replica,) = server.models.live_replicas("nanochat")
    assert replica.checkpoint == FIRST
    assert "model.safetensors" in (replica.error or "") and "SHA-256" in (replica.error or "")
    assert text_of(events_of(server.post(prompt="a", max_tokens=2))) == "ba"
    assert server.is_ready()
    server.models.rollback("nanochat")
    server.until(lambda: server.models.live_replicas("nanochat")[0].error is None, "nothing is wrong any more")


def test_without_a_model_it_says_what_to_do_and_takes_the_first_promoted(serve: Serve) -> None:
    server = serve(promoted=None, poll_interval_s=0.1)
    server.until(lambda: server.is_alive(), "the server answers", 60)
    ready = server.get("/health/ready")
    assert ready.status_code == 503
    server.until(lambda: "promote" in server.get("/health/ready").text, "the choice was read")
    refused = server.post(prompt="a")
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "unavailable")
    assert "promote" in refused.json()["error"]["message"]
    assert refused.headers["retry-after"] == "5"
    assert server.get("/v1/info").status_code == 503
    assert server.post(prompt="a", model="other").status_code == 404
    server.models.promote("nanochat", FIRST)
    server.until(server.is_ready, "the promoted model is served")
    assert text_of(events_of(server.post(prompt="a", max_tokens=2))) == "ba"


def test_a_fixed_checkpoint_needs_no_database(serve: Serve, make_home: Callable[[], Path]) -> None:
    server = serve(promoted=None, checkpoint=make_home() / "checkpoints" / SECOND)
    server.until(server.is_ready, "the fixed checkpoint is served", 60)
    assert text_of(events_of(server.post(prompt="a", max_tokens=2))) == "xy"
    assert server.models.live_replicas("nanochat") == []
