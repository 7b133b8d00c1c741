"""Keys, scopes, and what other sites' pages may do."""

import httpx
import pytest

from tests.integration.gateway.conftest import GatewayWith

ACCESS = {"api_keys": "chat-1, chat-2", "admin_keys": "admin-1"}
CHAT = {"model": "nanochat", "messages": [{"role": "user", "content": "Hi"}]}


@pytest.fixture
def locked(gateway_with: GatewayWith) -> str:
    return gateway_with(access=ACCESS)


def get(url: str, key: str | None = None, **headers: str) -> int:
    if key is not None:
        headers["authorization"] = key
    return httpx.get(url, headers=headers, trust_env=False).status_code


@pytest.mark.parametrize("path", ["/", "/train", "/models", "/health/live", "/health/ready", "/health", "/metrics"])
def test_pages_health_and_metrics_need_no_key(locked: str, path: str) -> None:
    assert get(locked + path) == 200


@pytest.mark.parametrize(
    ("key", "chat", "train"),
    [
        (None, 401, 401),
        ("Bearer wrong", 401, 401),
        ("Bearer chat-", 401, 401),
        ("chat-1", 401, 401),
        ("Basic chat-1", 401, 401),
        ("Bearer ké", 401, 401),
        ("Bearer chat-1", 200, 403),
        ("bearer chat-2", 200, 403),
        ("Bearer admin-1", 200, 200),
    ],
)
def test_a_key_opens_what_its_scope_says(locked: str, key: str | None, chat: int, train: int) -> None:
    headers = {} if key is None else {"authorization": key.encode()}
    with httpx.Client(base_url=locked, headers=headers, trust_env=False) as client:
        assert client.get("/v1/models").status_code == chat
        assert client.get("/stats").status_code == chat
        assert client.post("/v1/chat/completions", json=CHAT).status_code == chat
        assert client.post("/chat/completions", json={"messages": CHAT["messages"]}).status_code == chat
        assert client.post("/v1/completions", json={"model": "nanochat", "prompt": "x"}).status_code == chat
        assert client.get("/v1/jobs").status_code == train
        assert client.get("/v1/checkpoints").status_code == train
        assert client.post("/v1/models/nanochat/promote", json={}).status_code == train


def test_a_missing_key_is_asked_for_as_a_bearer_token(locked: str) -> None:
    response = httpx.get(f"{locked}/v1/models", trust_env=False)
    assert response.headers["www-authenticate"] == "Bearer"
    assert "chat-1" not in response.text


def test_api_keys_alone_open_no_training(gateway_with: GatewayWith) -> None:
    gateway = gateway_with(access={"api_keys": "chat-1"})
    assert get(f"{gateway}/v1/jobs", "Bearer chat-1") == 403


def test_admin_keys_alone_lock_the_chat_as_well(gateway_with: GatewayWith) -> None:
    gateway = gateway_with(access={"admin_keys": "admin-1"})
    assert get(f"{gateway}/v1/models") == 401
    assert get(f"{gateway}/v1/models", "Bearer admin-1") == 200


def test_without_keys_a_page_of_another_site_is_refused(gateway: str) -> None:
    models = f"{gateway}/v1/models"
    assert get(models, origin="https://evil.example") == 403
    assert get(models, origin="null") == 403
    assert get(models, origin=gateway) == 200
    assert get(models, origin="http://localhost:5173") == 200


def test_without_keys_a_foreign_name_for_this_machine_is_refused(gateway: str) -> None:
    assert get(f"{gateway}/v1/models", host="evil.example:8000") == 403
    assert get(f"{gateway}/v1/models", host="[::1") == 403
    assert get(f"{gateway}/v1/models", host="localhost:8000") == 200


def test_on_purpose_anonymous_means_anybody(gateway_with: GatewayWith) -> None:
    gateway = gateway_with(access={"allow_anonymous": True})
    assert get(f"{gateway}/v1/models", origin="https://elsewhere.example", host="chat.example") == 200


def test_with_keys_the_page_may_come_from_anywhere(locked: str) -> None:
    assert get(f"{locked}/v1/models", "Bearer chat-1", origin="https://elsewhere.example", host="chat.example") == 200


def test_refusals_are_counted_by_their_reason(locked: str) -> None:
    get(f"{locked}/v1/models")
    get(f"{locked}/v1/jobs", "Bearer chat-1")
    metrics = httpx.get(f"{locked}/metrics", trust_env=False).text
    assert 'nanochat_rejected_total{reason="invalid_api_key"} 1.0' in metrics
    assert 'nanochat_rejected_total{reason="insufficient_scope"} 1.0' in metrics
    assert 'nanochat_requests_total{route="/v1/models",status="401"} 1.0' in metrics
