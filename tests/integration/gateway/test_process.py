"""python -m nanochat_gateway: when it refuses to start, how it stops, and what an unforeseen failure looks like."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest
from fastapi import FastAPI

from nanochat.cli.ports import any_free_port
from nanochat.protocol.generate import GenerateRequest
from nanochat_gateway.app import create_app
from nanochat_gateway.settings import GatewaySettings
from tests.integration.gateway.conftest import settings_with
from tests.integration.gateway.fake_inference import FakeInference, Gate, answer
from tests.integration.gateway.fake_trainer import FakeTrainer
from tests.integration.gateway.server import eventually, serving


def environment(**variables: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("NANOCHAT_")}
    return {**kept, **variables}


@contextmanager
def running(**variables: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "nanochat_gateway"]
    with subprocess.Popen(command, env=environment(**variables), stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def test_it_refuses_to_be_open_to_a_network_without_keys() -> None:
    with running(NANOCHAT_GATEWAY_HOST="0.0.0.0") as process:
        _, told = process.communicate(timeout=30)
    assert process.returncode == 2
    assert "the address 0.0.0.0 can be reached" in told
    assert "NANOCHAT_ALLOW_ANONYMOUS=1" in told
    assert "Traceback" not in told


def test_a_wrong_setting_is_named() -> None:
    with running(NANOCHAT_GATEWAY_PORT="many") as process:
        _, told = process.communicate(timeout=30)
    assert process.returncode == 2
    assert "port" in told


@pytest.mark.parametrize(
    "variables",
    [{"NANOCHAT_ALLOW_ANONYMOUS": "1"}, {"NANOCHAT_API_KEYS": "k"}, {"NANOCHAT_ADMIN_KEYS": "k"}],
)
def test_it_starts_on_every_address_with_a_key_or_on_purpose(
    variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in list(os.environ):
        if name.startswith("NANOCHAT_"):
            monkeypatch.delenv(name)
    for name, value in {**variables, "NANOCHAT_GATEWAY_HOST": "0.0.0.0"}.items():
        monkeypatch.setenv(name, value)
    assert GatewaySettings.load().host == "0.0.0.0"


@pytest.fixture
def process(
    inference: FakeInference,
    trainer: FakeTrainer,
    _inference: tuple[FakeInference, str],
    _trainer: tuple[FakeTrainer, str],
) -> Iterator[tuple[subprocess.Popen[str], httpx.Client]]:
    """A gateway as a process of its own, and a client of it."""
    port = any_free_port()
    variables = {
        "NANOCHAT_GATEWAY_PORT": str(port),
        "NANOCHAT_GATEWAY_INFERENCE_URLS": _inference[1],
        "NANOCHAT_GATEWAY_TRAINER_URL": _trainer[1],
    }
    with running(**variables) as process, httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
        eventually(lambda: answers(client), "the gateway starts", deadline_s=30)
        yield process, client


def test_sigterm_closes_event_streams(process: tuple[subprocess.Popen[str], httpx.Client]) -> None:
    gateway, client = process
    with client.stream("GET", "/v1/jobs/j1/events") as response:
        lines = response.iter_lines()
        assert next(lines) == "id: 1"
        gateway.send_signal(signal.SIGTERM)
        assert len(list(lines)) > 0  # ends, and not by an error
    _, logged = gateway.communicate(timeout=15)
    assert gateway.returncode == 0
    events = [json.loads(line) for line in logged.splitlines()]
    assert {event["service"] for event in events} == {"gateway"}
    assert not [event for event in events if event["level"] == "error"]


def test_sigterm_lets_an_answer_end_and_says_meanwhile_that_it_is_not_ready(
    process: tuple[subprocess.Popen[str], httpx.Client], inference: FakeInference
) -> None:
    gateway, client = process
    gate = Gate()
    started, delta, *rest = answer("Hello", " world")(GenerateRequest(model="nanochat"))  # type: ignore[misc]
    inference.script = lambda asked: [started, delta, gate, *rest]
    body = {"model": "nanochat", "messages": [{"role": "user", "content": "Hi"}], "stream": True}
    with client.stream("POST", "/v1/chat/completions", json=body) as response:
        lines = response.iter_lines()
        next(lines)
        gateway.send_signal(signal.SIGTERM)
        eventually(lambda: client.get("/health/ready").status_code == 503, "it is no longer ready")
        assert client.get("/health/ready").json()["reasons"] == ["the process is stopping"]
        gate.opened.set()
        assert list(lines)[-2:] == ["data: [DONE]", ""]
    assert gateway.wait(timeout=15) == 0


def test_ctrl_c_stops_it_at_once_without_a_traceback(process: tuple[subprocess.Popen[str], httpx.Client]) -> None:
    gateway, _ = process
    gateway.send_signal(signal.SIGINT)
    _, logged = gateway.communicate(timeout=15)
    assert gateway.returncode == 0
    assert "Traceback" not in logged


def answers(client: httpx.Client) -> bool:
    try:
        return client.get("/health/live").status_code == 200
    except httpx.TransportError:
        return False


def test_an_unforeseen_failure_is_a_500_with_its_id_and_a_logged_traceback(caplog: pytest.LogCaptureFixture) -> None:
    app: FastAPI = create_app(settings_with())

    async def broken() -> None:
        raise RuntimeError("secret cause")

    app.add_api_route("/broken", broken)
    with serving(app) as url:
        response = httpx.get(f"{url}/broken", headers={"x-request-id": "id-1"}, trust_env=False)
        metrics = httpx.get(f"{url}/metrics", trust_env=False).text
    assert response.status_code == 500
    error = response.json()["error"]
    assert (error["type"], error["code"]) == ("server_error", "internal_error")
    assert "id-1" in error["message"]
    assert "secret cause" not in response.text
    [record] = [record for record in caplog.records if record.message == "request_failed"]
    assert record.exc_info is not None
    assert 'nanochat_requests_total{route="/broken",status="500"} 1.0' in metrics
