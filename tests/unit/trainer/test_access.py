"""The trainer serves its gateway and probes of this machine; web pages cannot reach it."""

import pytest
from fastapi.testclient import TestClient

from nanochat_trainer.app import create_app
from nanochat_trainer.settings import TrainerSettings


@pytest.mark.parametrize("headers", [{"origin": "https://evil.example"}, {"host": "evil.example:8001"}])
def test_a_web_page_can_submit_no_job(client: TestClient, headers: dict[str, str]) -> None:
    refused = client.post("/v1/jobs", json={"kind": "tokenizer"}, headers=headers)
    assert (refused.status_code, refused.json()["error"]["type"]) == (403, "permission_error")
    assert refused.headers["x-request-id"]
    assert client.get("/v1/jobs").json()["data"] == []


@pytest.mark.parametrize("path", ["/health/live", "/health/ready", "/metrics"])
def test_probes_come_to_loopback_like_everybody(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 200
    assert client.get(path, headers={"host": "evil.example:8001"}).status_code == 403


def test_in_a_container_the_gateway_calls_it_by_its_name(settings: TrainerSettings) -> None:
    app = create_app(settings.model_copy(update={"host": "0.0.0.0"}))
    with TestClient(app, base_url="http://trainer:8001") as client:
        assert client.get("/v1/jobs").status_code == 200
        assert client.get("/v1/jobs", headers={"origin": "https://evil.example"}).status_code == 403
