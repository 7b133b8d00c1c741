"""What happens between gateway and inference when one of the three parties fails, is slow, or leaves."""

import json
import socket
import sys
import threading
from typing import Any

import httpx
import pytest

from nanochat.protocol.generate import Delta, Started
from tests.integration.gateway.conftest import GatewayWith
from tests.integration.gateway.fake_inference import CHECKPOINT, FakeInference, Refusal, Silence, answer
from tests.integration.gateway.server import eventually, serving

CHAT: dict[str, Any] = {"model": "nanochat", "messages": [{"role": "user", "content": "Hi"}]}
STARTED = Started(model="nanochat", checkpoint=CHECKPOINT, prompt_tokens=1)
HAL = Delta(text="Hal", num_tokens=1)


@pytest.fixture
def refused_url() -> str:
    """An address where nothing listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{taken.getsockname()[1]}"


def chat(gateway: str, **change: Any) -> httpx.Response:
    return httpx.post(f"{gateway}/v1/chat/completions", json={**CHAT, **change}, timeout=10.0, trust_env=False)


def test_a_refused_connection_is_retried_on_another_replica(
    gateway_with: GatewayWith, inference: FakeInference, _inference: tuple[FakeInference, str], refused_url: str
) -> None:
    gateway = gateway_with(inference_urls=f"{refused_url},{_inference[1]}")
    assert [chat(gateway).status_code for _ in range(4)] == [200] * 4
    assert len(inference.asked) == 4


def test_a_full_replica_is_replaced_by_another(
    gateway_with: GatewayWith, inference: FakeInference, _inference: tuple[FakeInference, str]
) -> None:
    full = FakeInference()
    full.script = lambda asked: Refusal(503, "unavailable", "the queue is full")
    with serving(full.app) as url:
        gateway = gateway_with(inference_urls=f"{url},{_inference[1]}")
        assert [chat(gateway).status_code for _ in range(4)] == [200] * 4
    assert len(full.asked) == 1  # then it is left alone for a while


def test_one_that_leaves_and_one_without_a_model_yet_cost_no_request(
    gateway_with: GatewayWith, inference: FakeInference, _inference: tuple[FakeInference, str], refused_url: str
) -> None:
    """As in a rolling update."""
    new = FakeInference()
    new.script = lambda asked: Refusal(503, "unavailable", "no model can answer yet")
    with serving(new.app) as url:
        gateway = gateway_with(inference_urls=f"{refused_url},{url},{_inference[1]}")
        assert [chat(gateway).status_code for _ in range(6)] == [200] * 6
    assert len(inference.asked) == 6
    assert len(new.asked) == 1


def test_an_older_replica_is_not_sent_options_that_nobody_asked_for(
    gateway_with: GatewayWith, inference: FakeInference, _inference: tuple[FakeInference, str]
) -> None:
    """It would refuse every request for a field that it does not know."""
    gateway = gateway_with(inference_urls=_inference[1])
    assert chat(gateway).status_code == 200
    assert inference.bodies[-1].keys() == {"model", "messages", "temperature"}
    assert chat(gateway, min_p=0.1).status_code == 200
    assert inference.bodies[-1].keys() == {"model", "messages", "temperature", "min_p"}


def test_replicas_take_turns(
    gateway_with: GatewayWith, inference: FakeInference, _inference: tuple[FakeInference, str]
) -> None:
    other = FakeInference()
    with serving(other.app) as url:
        gateway = gateway_with(inference_urls=f"{url},{_inference[1]}")
        for _ in range(4):
            chat(gateway)
    assert (len(inference.asked), len(other.asked)) == (2, 2)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux answers on all of 127.0.0.0/8")
def test_replicas_behind_one_name_are_found_as_they_come_and_go(
    gateway_with: GatewayWith, inference: FakeInference, _inference: tuple[FakeInference, str]
) -> None:
    addresses = ["127.0.0.1"]

    async def lookup(host: str, port: int) -> list[str]:
        assert host == "inference.test"
        return addresses

    port = int(_inference[1].rsplit(":", 1)[1])
    gateway = gateway_with(
        inference_urls=f"http://inference.test:{port}", lookup=lookup, replica_lookup_interval_s=0.05
    )
    eventually(lambda: chat(gateway).status_code == 200, "the first replica is found")
    other = FakeInference()
    with serving(other.app, "127.0.0.2", port):
        addresses.append("127.0.0.2")
        eventually(lambda: chat(gateway).status_code == 200 and other.asked, "the second replica is asked")
        asked = len(inference.asked), len(other.asked)
        assert [chat(gateway).status_code for _ in range(6)] == [200] * 6
        assert (len(inference.asked), len(other.asked)) == (asked[0] + 3, asked[1] + 3)
        assert httpx.get(f"{gateway}/stats", trust_env=False).json()["total_workers"] == 2
    addresses.remove("127.0.0.2")
    assert [chat(gateway).status_code for _ in range(6)] == [200] * 6
    eventually(
        lambda: httpx.get(f"{gateway}/stats", trust_env=False).json()["total_workers"] == 1, "the second is forgotten"
    )


def test_no_replica_at_all_is_a_503_with_retry_after(gateway_with: GatewayWith, refused_url: str) -> None:
    gateway = gateway_with(inference_urls=refused_url)
    response = chat(gateway, stream=True)
    assert (response.status_code, response.headers["retry-after"]) == (503, "1")
    for path in ("/v1/models", "/stats", "/health"):
        assert httpx.get(gateway + path, trust_env=False).status_code == 503
    ready = httpx.get(f"{gateway}/health/ready", trust_env=False)
    assert (ready.status_code, ready.json()["reasons"]) == (503, ["no inference process answers"])


@pytest.mark.parametrize("stream", [False, True])
def test_no_token_in_time_is_a_504_and_frees_the_replica(
    gateway_with: GatewayWith, inference: FakeInference, stream: bool
) -> None:
    gateway = gateway_with(first_token_timeout_s=0.2)
    inference.script = lambda asked: [STARTED, Silence()]
    response = chat(gateway, stream=stream)
    assert (response.status_code, response.json()["error"]["code"]) == (504, "deadline_exceeded")
    eventually(lambda: inference.num_left == 1, "the replica stops")


@pytest.mark.parametrize("setting", ["token_timeout_s", "request_timeout_s"])
def test_a_silence_within_an_answer_ends_in_an_error_frame(
    gateway_with: GatewayWith, inference: FakeInference, setting: str
) -> None:
    gateway = gateway_with(**{setting: 0.3})
    inference.script = lambda asked: [STARTED, HAL, Silence()]
    frames = [frame for frame in chat(gateway, stream=True).text.split("\n\n") if frame]
    assert json.loads(frames[-1].removeprefix("data: "))["error"]["code"] == "deadline_exceeded"
    eventually(lambda: inference.num_left == 1, "the replica stops")


def test_a_client_that_leaves_a_stream_frees_the_replica(gateway: str, inference: FakeInference) -> None:
    inference.script = lambda asked: [STARTED, HAL, Silence()]
    with (
        httpx.Client(trust_env=False) as client,
        client.stream("POST", f"{gateway}/v1/chat/completions", json={**CHAT, "stream": True}) as response,
    ):
        lines = response.iter_lines()  # dropping it would close the response
        assert next(lines).startswith("data: ")
        assert inference.num_active == 1
        assert streams_active(gateway) == 1
    eventually(lambda: (inference.num_active, inference.num_left) == (0, 1), "the replica stops")
    eventually(lambda: streams_active(gateway) == 0, "the stream is no longer counted")


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/chat/completions"])
@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_before_the_first_token_frees_the_replica(
    gateway: str, inference: FakeInference, path: str, stream: bool
) -> None:
    inference.script = lambda asked: [Silence()]
    body: dict[str, Any] = {**CHAT, "stream": stream}
    if path == "/v1/completions":
        body = {"model": "nanochat", "prompt": ["a", "b"], "stream": stream}
    if path == "/chat/completions":
        body = {"messages": CHAT["messages"]}
    content = json.dumps(body).encode()
    host, port = gateway.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(
            f"POST {path} HTTP/1.1\r\nhost: {host}:{port}\r\ncontent-length: {len(content)}\r\n\r\n".encode()
        )
        connection.sendall(content)
        eventually(lambda: inference.num_active > 0, "the replica is asked")
    eventually(lambda: inference.num_active == 0 and inference.num_left > 0, "the replica stops")


def test_a_whole_answer_whose_client_leaves_frees_the_replica(gateway: str, inference: FakeInference) -> None:
    inference.script = lambda asked: [STARTED, HAL, Silence()]
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{gateway}/v1/chat/completions", json=CHAT, timeout=0.3, trust_env=False)
    eventually(lambda: (inference.num_active, inference.num_left) == (0, 1), "the replica stops")


def test_a_slow_stream_is_kept_alive_by_comments(gateway_with: GatewayWith, inference: FakeInference) -> None:
    gateway = gateway_with(keep_alive_s=0.05, token_timeout_s=0.5)
    inference.script = lambda asked: [STARTED, HAL, Silence()]
    assert chat(gateway, stream=True).text.count(": keep-alive\n\n") >= 3


def test_two_streams_run_at_once(gateway: str, inference: FakeInference) -> None:
    inference.script = lambda asked: [STARTED, HAL, Silence()]
    with httpx.Client(trust_env=False) as client:
        streams = [
            client.stream("POST", f"{gateway}/v1/chat/completions", json={**CHAT, "stream": True}) for _ in range(2)
        ]
        with streams[0] as first, streams[1] as second:
            lines = [first.iter_lines(), second.iter_lines()]
            assert all(next(line).startswith("data: ") for line in lines)
            assert inference.num_active == 2


def test_the_request_id_goes_all_the_way(gateway: str, inference: FakeInference) -> None:
    headers = {"x-request-id": "my-id.1"}
    response = httpx.post(f"{gateway}/v1/chat/completions", json=CHAT, headers=headers, trust_env=False)
    assert (response.headers["x-request-id"], inference.headers["x-request-id"]) == ("my-id.1", "my-id.1")
    made = httpx.get(f"{gateway}/v1/nothing", headers={"x-request-id": "not acceptable"}, trust_env=False)
    assert len(made.headers["x-request-id"]) == 32


def test_prompts_of_one_request_are_asked_a_few_at_a_time(gateway_with: GatewayWith, inference: FakeInference) -> None:
    gateway = gateway_with(max_parallel_prompts=2)
    busiest = 0
    lock = threading.Lock()
    whole = answer("x")

    def script(asked: Any) -> Any:
        nonlocal busiest
        with lock:
            busiest = max(busiest, inference.num_active + 1)
        return whole(asked)

    inference.script = script
    body = {"model": "nanochat", "prompt": [str(i) for i in range(10)]}
    response = httpx.post(f"{gateway}/v1/completions", json=body, trust_env=False)
    assert len(response.json()["choices"]) == 10
    assert busiest <= 2


def streams_active(gateway: str) -> float:
    lines = httpx.get(f"{gateway}/metrics", trust_env=False).text.splitlines()
    return float(next(line for line in lines if line.startswith("nanochat_streams_active ")).split()[1])
