"""POST /v1/generate against a real server: what is said, how it is refused, and what is counted."""

import httpx
import pytest

from nanochat.protocol.generate import Delta, Done, Finished, Started, ToolCall
from tests.integration.inference.conftest import Serve
from tests.integration.inference.server import Server, Stream, events_of, text_of

HI = [{"role": "user", "content": "hi"}]


@pytest.fixture(scope="module")
def server(serve: Serve) -> Server:
    return serve(max_running=2, max_waiting=2)


def test_an_answer_is_started_told_finished_and_done(server: Server) -> None:
    events = events_of(server.post(prompt="a", max_tokens=5))
    assert isinstance(events[0], Started)
    assert (events[0].model, events[0].checkpoint, events[0].prompt_tokens) == ("nanochat", "nano/sft/step_000001", 2)
    assert text_of(events) == "babab"
    assert events[-2:] == [
        Finished(finish_reason="length", completion_tokens=5),
        Done(prompt_tokens=2, completion_tokens=5),
    ]


def test_a_calculator_call_is_made_and_told(server: Server) -> None:
    before = server.metric('nanochat_tool_calls_total{outcome="result"}')
    events = events_of(server.post(messages=HI))
    assert text_of(events) == "6*7=42\n!"
    calls = [event for event in events if isinstance(event, ToolCall)]
    assert calls == [ToolCall(expression="6*7", result="42", start=0, end=6)]
    assert Finished(finish_reason="stop", completion_tokens=7) in events
    assert server.metric('nanochat_tool_calls_total{outcome="result"}') == before + 1


def test_two_streams_run_at_once(server: Server) -> None:
    with server.stream(prompt="a") as first, server.stream(prompt="x") as second:
        first.start()
        second.start()
        # Each goes on while the other is open: neither had to wait for the other's end.
        for stream in (first, second, first, second):
            for _, event in zip(range(20), stream, strict=False):
                assert isinstance(event, Delta)
        assert server.metric("nanochat_num_requests_running") == 2


def test_all_choices_of_a_request_are_told_apart(server: Server) -> None:
    events = events_of(server.post(prompt="a", max_tokens=3, n=4))
    assert [text_of(events, index) for index in range(4)] == ["bab"] * 4
    assert sorted(event.index for event in events if isinstance(event, Finished)) == [0, 1, 2, 3]
    assert events[-1] == Done(prompt_tokens=2, completion_tokens=12)


def test_a_stop_string_ends_the_answer(server: Server) -> None:
    events = events_of(server.post(prompt="a", stop=["abab"]))
    assert text_of(events) == "b"
    assert Finished(finish_reason="stop", completion_tokens=5) in events


def test_log_probabilities_of_answer_and_prompt(server: Server) -> None:
    events = events_of(server.post(prompt_token_ids=[256, 97, 98], max_tokens=2, logprobs=2, prompt_logprobs=True))
    assert isinstance(events[0], Started)
    scored = events[0].prompt_logprobs
    assert scored is not None and scored[0] is None
    assert [score.token for score in scored[1:] if score] == ["a", "b"]
    assert scored[2] is not None and scored[2].top[0].token == "b"
    told = [logprob for event in events if isinstance(event, Delta) for logprob in event.logprobs or []]
    assert [logprob.token for logprob in told] == ["a", "b"]
    assert all(len(logprob.top) == 2 and logprob.top[0].logprob == logprob.logprob for logprob in told)
    assert all(-0.1 < logprob.logprob < 0 for logprob in told)


def test_a_seed_gives_the_same_text_beside_others(server: Server) -> None:
    body = {"prompt": "a", "temperature": 2.0, "seed": 5, "max_tokens": 40}
    alone = text_of(events_of(server.post(**body)))
    with server.stream(prompt="x") as other:
        other.start()
        assert text_of(events_of(server.post(**body))) == alone
    assert text_of(events_of(server.post(**{**body, "seed": 6}))) != alone


def test_a_client_that_leaves_frees_its_slots(server: Server) -> None:
    aborted = server.metric('nanochat_request_success_total{finished_reason="abort"}')
    leaving = [server.stream(prompt="a"), server.stream(prompt="x")]
    for stream in leaving:
        stream.start()
    with httpx.Client(timeout=60) as client:
        request = client.build_request(
            "POST", f"{server.url}/v1/generate", json={"model": "nanochat", "prompt": "a", "max_tokens": 3}
        )
        for stream in leaving:
            stream.close()
        assert client.send(request).status_code == 200
    server.until(lambda: server.metric("nanochat_num_requests_running") == 0, "the slots are free")
    assert server.metric('nanochat_request_success_total{finished_reason="abort"}') == aborted + 2


def test_a_client_that_leaves_while_it_waits_gives_up_its_place(server: Server) -> None:
    with server.stream(prompt="a") as first, server.stream(prompt="x") as second:
        first.start()
        second.start()
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{server.url}/v1/generate", json={"model": "nanochat", "prompt": "a"}, timeout=0.3)
        server.until(lambda: server.metric("nanochat_num_requests_waiting") == 0, "nobody waits")
    server.until(lambda: server.get("/stats").json()["workers"][0]["num_open"] == 0, "all have gone")


def test_a_full_queue_refuses_with_a_time_to_come_again(server: Server) -> None:
    streams: list[Stream] = []
    try:
        for _ in range(2):
            streams.append(server.stream(prompt="a"))
            streams[-1].start()
        refused = server.post(prompt="a", n=3)
        assert refused.status_code == 503
        assert refused.json()["error"]["code"] == "unavailable"
        assert int(refused.headers["retry-after"]) >= 1
    finally:
        for stream in streams:
            stream.close()
    server.until(lambda: server.get("/stats").json()["workers"][0]["num_open"] == 0, "all have gone")
    assert server.post(prompt="a", n=4, max_tokens=1).status_code == 200


@pytest.mark.parametrize(
    ("body", "status", "code", "param", "words"),
    [
        ({"prompt": "a", "model": "other"}, 404, "not_found", "model", "'nanochat'"),
        ({"messages": []}, 400, "invalid_request", "messages", "at least one"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, 400, "invalid_request", "messages[0]", "user"),
        ({}, 400, "invalid_request", None, "exactly one"),
        ({"prompt": "a", "messages": HI}, 400, "invalid_request", None, "messages and prompt"),
        ({"prompt": "a" * 9000}, 400, "context_length_exceeded", "messages", "9001 tokens; the model takes 8192"),
        ({"prompt_token_ids": []}, 400, "invalid_request", "prompt_token_ids", "empty"),
        ({"prompt_token_ids": [1, 265]}, 400, "invalid_request", "prompt_token_ids", "265"),
        ({"prompt_token_ids": [-1]}, 400, "invalid_request", "prompt_token_ids", "-1"),
        ({"prompt": "a", "temperature": 3}, 400, "invalid_request", "temperature", "2"),
        ({"prompt": "a", "max_tokens": "5"}, 400, "invalid_request", "max_tokens", "integer"),
        ({"prompt": "a", "nonsense": 1}, 400, "invalid_request", "nonsense", "known"),
        ({"prompt": "a", "stop": [""]}, 400, "invalid_request", "stop", "empty"),
        ({"prompt": "a", "n": 16}, 400, "invalid_request", "n", "4 choices"),
        ({"prompt": "a", "stop": ["x" * 10_000]}, 400, "invalid_request", "stop", "10000 characters"),
        ({"prompt": "a", "min_p": 2}, 400, "invalid_request", "min_p", "1"),
        ({"prompt": "a", "repetition_penalty": 0}, 400, "invalid_request", "repetition_penalty", "0"),
        ({"prompt": "a", "logit_bias": {"265": 1}}, 400, "invalid_request", "logit_bias", "ids 0 to 264"),
        ({"prompt": "a", "logit_bias": {"5": 101}}, 400, "invalid_request", "logit_bias", "100"),
        ({"prompt": "a", "logprobs": 21}, 400, "invalid_request", "logprobs", "20"),
        (
            {"prompt": "a", "response_format": {"type": "regex", "regex": "(a"}},
            400,
            "invalid_request",
            "response_format",
            "parenthesis is not closed",
        ),
        (
            {"prompt": "a", "response_format": {"type": "json_schema", "json_schema": {"schema": {"not": {}}}}},
            400,
            "invalid_request",
            "response_format",
            "'not'",
        ),
        (
            {"prompt": "a", "response_format": {"type": "regex", "regex": "[a-z]+" * 5000}},
            400,
            "invalid_request",
            "response_format.regex.regex",
            "8192",
        ),
    ],
)
def test_a_bad_request_is_refused_with_its_reason(
    server: Server, body: dict[str, object], status: int, code: str, param: str | None, words: str
) -> None:
    response = server.post(**body)
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["param"]) == (status, code, param)
    assert words in error["message"]


def test_a_format_holds_the_model_to_it(server: Server) -> None:
    """After the prompt "a" this model would say b, a, b, a without end."""
    asked = {"prompt": "a", "response_format": {"type": "regex", "regex": "b[0-9]{2}a"}, "logit_bias": {"52": 5}}
    events = events_of(server.post(**asked, n=2))
    assert [text_of(events, index) for index in range(2)] == ["b44a", "b44a"]
    assert Finished(index=1, finish_reason="stop", completion_tokens=5) in events
    choice = {"type": "choice", "choices": ["yes", "no"]}
    assert text_of(events_of(server.post(messages=HI, response_format=choice))) in ("yes", "no")


def test_penalties_and_biases_change_what_is_said(server: Server) -> None:
    assert text_of(events_of(server.post(prompt="a", max_tokens=2, logit_bias={"98": -100}))) != "ba"
    # The next token is 15 ahead of all others, which a penalty of 2 eats up in eight of each.
    assert text_of(events_of(server.post(prompt="a", max_tokens=24))) == "ba" * 12
    penalised = text_of(events_of(server.post(prompt="a", max_tokens=24, frequency_penalty=2.0)))
    assert penalised.startswith("ba" * 7) and penalised != "ba" * 12


@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe", b"[]", b'{"model": "nanochat", "prompt": "\\ud800"}'])
def test_a_body_that_is_no_request_is_refused(server: Server, body: bytes) -> None:
    response = httpx.post(f"{server.url}/v1/generate", content=body)
    assert response.status_code == 400
    assert response.json()["error"]["message"]


def test_a_body_too_large_is_refused(server: Server) -> None:
    response = httpx.post(f"{server.url}/v1/generate", content=b"x" * (9 * 2**20))
    assert (response.status_code, response.json()["error"]["code"]) == (413, "request_too_large")


def test_unknown_addresses_are_answered_in_the_same_shape(server: Server) -> None:
    assert server.get("/nope").json()["error"]["code"] == "not_found"


def test_info_tells_what_is_served(server: Server) -> None:
    info = server.get("/v1/info").json()
    assert (info["model"], info["checkpoint"], info["context_length"]) == ("nanochat", "nano/sft/step_000001", 8192)
    assert info["num_parameters"] > 1000


def test_health_and_request_ids(server: Server) -> None:
    assert server.get("/health/live").status_code == 200
    assert server.get("/health/ready").json() == {"status": "ready", "reasons": []}
    response = httpx.get(f"{server.url}/health/live", headers={"x-request-id": "abc-1"})
    assert response.headers["x-request-id"] == "abc-1"


def test_requests_of_web_pages_are_refused(server: Server) -> None:
    body = {"model": "nanochat", "prompt": "a", "max_tokens": 1}
    for headers in ({"origin": "https://evil.example"}, {"host": "evil.example:8002"}):
        refused = httpx.post(f"{server.url}/v1/generate", json=body, headers=headers)
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "insufficient_scope")
        assert refused.headers["x-request-id"]


def test_every_metric_of_the_contract_is_there(server: Server) -> None:
    events_of(server.post(prompt="a", max_tokens=3))
    text = server.get("/metrics").text
    for name in (
        "num_requests_running",
        "num_requests_waiting",
        "kv_cache_usage_ratio",
        "prompt_tokens_total",
        "generation_tokens_total",
        'request_success_total{finished_reason="length"}',
        "prefix_cache_queries_total",
        "prefix_cache_hits_total",
        "time_to_first_token_seconds_bucket",
        "inter_token_latency_seconds_bucket",
        "e2e_request_latency_seconds_bucket",
        "request_queue_time_seconds_bucket",
        "batch_size_bucket",
        'tool_calls_total{outcome="no_result"}',
        "worker_restarts_total",
        "slot_leaks_total",
        'model_info{checkpoint="nano/sft/step_000001",model="nanochat"} 1.0',
        "gpu_utilization_ratio",
        "gpu_memory_used_bytes",
    ):
        assert f"\nnanochat_{name}" in text, name
    assert "process_resident_memory_bytes" in text
    assert server.metric("nanochat_inter_token_latency_seconds_count") >= 2


def test_counters_count_tokens_and_ends(server: Server) -> None:
    names = ["prompt_tokens_total", "generation_tokens_total", 'request_success_total{finished_reason="length"}']
    before = [server.metric(f"nanochat_{name}") for name in names]
    events_of(server.post(prompt="ab", max_tokens=7, n=2))
    after = [server.metric(f"nanochat_{name}") for name in names]
    assert [b - a for a, b in zip(before, after, strict=True)] == [3, 14, 2]


@pytest.mark.parametrize(
    ("response_format", "expected"),
    [
        ({"type": "choice", "choices": ["no", "bad"]}, "bad"),  # b is what it says after a, and then d alone may come
        ({"type": "regex", "regex": "[a-c]{4}!"}, "baba!"),
    ],
)
def test_a_response_format_is_kept_and_ends_the_answer(
    server: Server, response_format: dict[str, object], expected: str
) -> None:
    events = events_of(server.post(prompt="a", response_format=response_format, temperature=0))
    assert text_of(events) == expected
    assert any(isinstance(event, Finished) and event.finish_reason == "stop" for event in events)


def test_a_response_format_that_is_no_grammar_is_refused_before_a_slot_is_taken(server: Server) -> None:
    refused = server.post(prompt="a", response_format={"type": "regex", "regex": "(["})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "response_format")


def test_a_prompt_that_comes_again_is_found_and_counted(server: Server) -> None:
    prompt = "once upon a time there was a model that repeated itself "
    first, second = (events_of(server.post(prompt=prompt, max_tokens=2, temperature=0)) for _ in range(2))
    assert isinstance(first[0], Started) and isinstance(second[0], Started)
    assert (first[0].cached_tokens, second[0].cached_tokens) == (0, 48)  # whole blocks of 16
    assert isinstance(second[-1], Done) and second[-1].cached_tokens == 48
    assert text_of(first) == text_of(second)
    assert server.metric("nanochat_prefix_cache_hits_total") >= 48
