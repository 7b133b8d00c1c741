"""The training API passed on: what goes along, what comes back, and who may."""

import json
import socket
import threading
from collections.abc import Iterator

import httpx
import pytest
from starlette.responses import Response

from nanochat_gateway import peer_http
from tests.integration.gateway.conftest import GatewayWith
from tests.integration.gateway.fake_inference import FakeInference, Silence, answer
from tests.integration.gateway.fake_trainer import FakeTrainer
from tests.integration.gateway.server import eventually


def test_a_job_is_passed_on_with_its_headers(client: httpx.Client, trainer: FakeTrainer) -> None:
    trainer.response = Response('{"id": "j1"}', status_code=202, headers={"location": "/v1/jobs/j1"})
    trainer.response.headers["content-type"] = "application/json"
    headers = {"idempotency-key": "k1", "x-request-id": "r1", "cookie": "c=1", "authorization": "Bearer x"}
    response = client.post("/v1/jobs?a=1&b=%20", json={"kind": "pipeline"}, headers=headers)
    assert (response.status_code, response.json(), response.headers["location"]) == (202, {"id": "j1"}, "/v1/jobs/j1")
    [received] = trainer.received
    assert (received.method, received.path, received.query) == ("POST", "/v1/jobs", "a=1&b=%20")
    assert json.loads(received.body) == {"kind": "pipeline"}
    assert received.headers["idempotency-key"] == "k1"
    assert received.headers["x-request-id"] == "r1"
    assert received.headers["content-type"] == "application/json"
    assert not {"cookie", "authorization"} & set(received.headers)


def test_the_trainer_sees_a_program_and_no_page(gateway: str, client: httpx.Client, trainer: FakeTrainer) -> None:
    client.post("/v1/jobs", json={}, headers={"origin": gateway, "referer": f"{gateway}/train"})
    [received] = trainer.received
    assert not {"origin", "referer"} & set(received.headers)
    assert received.headers["host"] != gateway.removeprefix("http://")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/jobs/j%2D1"),
        ("POST", "/v1/jobs/j1/cancel"),
        ("POST", "/v1/jobs/j1/retry"),
        ("GET", "/v1/jobs/j1/metrics"),
        ("GET", "/v1/jobs/j1/logs"),
        ("GET", "/v1/checkpoints"),
        ("GET", "/v1/checkpoints/demo/sft/step_000500"),
        ("GET", "/v1/reports/demo-1a2b3c"),
        ("GET", "/v1/datasets"),
        ("POST", "/v1/datasets/climbmix/download"),
        ("POST", "/v1/models/nanochat/promote"),
        ("POST", "/v1/models/nanochat/rollback"),
    ],
)
def test_each_address_goes_through_as_it_was_written(
    client: httpx.Client, trainer: FakeTrainer, method: str, path: str
) -> None:
    assert client.request(method, path).status_code == 200
    assert [(received.method, received.path) for received in trainer.received] == [(method, path)]


def test_an_error_of_the_trainer_keeps_its_status_and_gets_the_envelope(
    client: httpx.Client, trainer: FakeTrainer
) -> None:
    body = json.dumps({"error": {"code": "invalid_config", "message": "config.depth is 0", "param": "config.depth"}})
    trainer.response = Response(body, status_code=422, media_type="application/json")
    response = client.post("/v1/jobs", json={})
    assert response.status_code == 422
    assert response.json()["error"] == {
        "message": "config.depth is 0",
        "type": "invalid_request_error",
        "param": "config.depth",
        "code": "invalid_config",
    }
    trainer.response = Response("Internal Server Error", status_code=500)
    assert client.post("/v1/jobs", json={}).json()["error"]["code"] == "trainer_error"


def test_events_are_streamed_and_resumed(gateway: str, trainer: FakeTrainer) -> None:
    with httpx.Client(trust_env=False) as client:
        for last, expected in (("0", "id: 1"), ("7", "id: 8")):
            headers = {"last-event-id": last}
            with client.stream("GET", f"{gateway}/v1/jobs/j1/events", headers=headers) as response:
                assert response.headers["content-type"].startswith("text/event-stream")
                lines: Iterator[str] = response.iter_lines()
                assert next(lines) == expected
                assert trainer.num_streams == 1
            eventually(lambda: trainer.num_streams == 0, "the trainer's stream is closed with the client's")


@pytest.mark.parametrize("streaming", ["chat", "jobs"])
def test_streams_of_one_service_that_take_all_its_connections_keep_nobody_from_the_other(
    gateway_with: GatewayWith, inference: FakeInference, monkeypatch: pytest.MonkeyPatch, streaming: str
) -> None:
    monkeypatch.setattr(peer_http, "_MAX_CONNECTIONS", 1)
    gateway = gateway_with(connect_timeout_s=0.3)
    inference.script = lambda asked: [*answer("Hal")(asked)[:2], Silence()]
    chat = {"model": "nanochat", "messages": [{"role": "user", "content": "Hi"}], "stream": True}
    with httpx.Client(base_url=gateway, timeout=10.0, trust_env=False) as client:
        streams = {
            "chat": lambda: client.stream("POST", "/v1/chat/completions", json=chat),
            "jobs": lambda: client.stream("GET", "/v1/jobs/j1/events"),
        }
        with streams[streaming]() as open_stream:
            lines = open_stream.iter_lines()  # which close it when they are thrown away
            next(lines)
            other = "jobs" if streaming == "chat" else "chat"
            for asked, expected in ((streaming, 503), (other, 200)):
                with streams[asked]() as response:
                    assert response.status_code == expected, asked


def test_a_trainer_that_is_away_is_a_503_and_chat_goes_on(gateway_with: GatewayWith) -> None:
    gateway = gateway_with(trainer_url="http://127.0.0.1:9")
    response = httpx.get(f"{gateway}/v1/jobs", trust_env=False)
    assert (response.status_code, response.json()["error"]["code"]) == (503, "unavailable")
    assert response.headers["retry-after"] == "1"
    ready = httpx.get(f"{gateway}/health/ready", trust_env=False)
    assert (ready.status_code, ready.json()["warnings"]) == (200, ["the trainer does not answer"])


def test_bodies_are_bounded_both_ways(gateway_with: GatewayWith, trainer: FakeTrainer) -> None:
    gateway = gateway_with(max_body_bytes=2000, max_reply_bytes=2000)
    assert httpx.post(f"{gateway}/v1/jobs", content=b"x" * 2001, trust_env=False).status_code == 413
    assert trainer.received == []
    trainer.response = Response(b"x" * 2001)
    assert httpx.get(f"{gateway}/v1/jobs/j1/logs", trust_env=False).status_code == 503


def test_a_report_keeps_the_policy_that_came_with_it(client: httpx.Client, trainer: FakeTrainer) -> None:
    policy = "default-src 'none'; style-src 'sha256-x'; sandbox"
    trainer.response = Response("<p>", media_type="text/html", headers={"content-security-policy": policy})
    response = client.get("/v1/reports/mine")
    assert response.headers.get_list("content-security-policy") == [policy]
    assert response.headers["x-content-type-options"] == "nosniff"
    assert "script-src 'self'" in client.get("/health/live").headers["content-security-policy"]


def test_a_trainers_address_may_end_with_a_slash(gateway_with: GatewayWith, _trainer: tuple[FakeTrainer, str]) -> None:
    gateway = gateway_with(trainer_url=f"{_trainer[1]}/")
    assert httpx.get(f"{gateway}/v1/jobs", trust_env=False).status_code == 200


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        pytest.param(b"", 504, id="nothing"),
        pytest.param(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n[1\r\n", 503, id="no more"),
        pytest.param(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n[1\r\nno size\r\n", 503, id="no HTTP"),
        pytest.param(b"what is this?\r\n\r\n", 503, id="no answer at all"),
    ],
)
def test_a_trainer_that_stops_within_its_answer_ends_in_an_error_in_time(
    gateway_with: GatewayWith, answer: bytes, status: int
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(answer)
                done.wait(30)

        done = threading.Event()
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            gateway = gateway_with(trainer_url=f"http://127.0.0.1:{server.getsockname()[1]}", trainer_timeout_s=0.5)
            assert httpx.get(f"{gateway}/v1/jobs", trust_env=False, timeout=20).status_code == status
        finally:
            done.set()
            thread.join()
