"""POST /chat/completions, GET /health and GET /stats: the interface of the single-file server that came before."""

import json
from typing import Any

import httpx

from nanochat.protocol.generate import Delta, GenerateRequest, Message, Started
from tests.integration.gateway.fake_inference import Break, FakeInference

BODY = {"messages": [{"role": "user", "content": "Hi"}]}


def frames(response: httpx.Response) -> list[dict[str, Any]]:
    assert response.headers["content-type"].startswith("text/event-stream")
    return [json.loads(frame.removeprefix("data: ")) for frame in response.text.split("\n\n") if frame]


def test_tokens_come_with_their_worker_and_then_done(client: httpx.Client) -> None:
    assert frames(client.post("/chat/completions", json=BODY)) == [
        {"token": "Hello", "gpu": 0},
        {"token": ", wor", "gpu": 0},
        {"token": "ld", "gpu": 0},
        {"done": True},
    ]


def test_defaults_suit_a_small_model(client: httpx.Client, inference: FakeInference) -> None:
    client.post("/chat/completions", json=BODY)
    client.post("/chat/completions", json={**BODY, "temperature": 0, "top_k": 3, "max_tokens": 4})
    message = Message(role="user", content="Hi")
    assert inference.asked == [
        GenerateRequest(model="nanochat", messages=[message], temperature=0.8, top_k=50, max_tokens=512),
        GenerateRequest(model="nanochat", messages=[message], temperature=0, top_k=3, max_tokens=4),
    ]


def test_what_breaks_ends_in_an_error_and_no_done(client: httpx.Client, inference: FakeInference) -> None:
    started = Started(model="nanochat", checkpoint="c", worker=1, prompt_tokens=1)
    inference.script = lambda asked: [started, Delta(text="Hal", num_tokens=1), Break()]
    token, error = frames(client.post("/chat/completions", json=BODY))
    assert token == {"token": "Hal", "gpu": 1}
    assert error["error"]["code"] == "unavailable"


def test_the_same_limits_hold(client: httpx.Client) -> None:
    response = client.post("/chat/completions", json={**BODY, "top_k": 201})
    assert (response.status_code, response.json()["error"]["param"]) == (400, "top_k")


def test_health_counts_the_workers(client: httpx.Client) -> None:
    assert client.get("/health").json() == {"status": "ok", "ready": True, "num_gpus": 1, "available_workers": 1}


def test_stats_shows_each_worker(client: httpx.Client) -> None:
    stats = client.get("/stats").json()
    assert (stats["total_workers"], stats["busy_workers"]) == (1, 0)
    assert stats["workers"] == [{"gpu_id": 0, "device": "cpu", "num_open": 0}]
