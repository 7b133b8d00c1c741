"""Every error in OpenAI's envelope, and as the exception that OpenAI's package makes of it."""

import json
from typing import Any

import httpx
import openai
import pytest

from nanochat.protocol.generate import Delta, GenerateError, Started
from tests.integration.gateway.conftest import GatewayWith
from tests.integration.gateway.fake_inference import CHECKPOINT, Break, FakeInference, Refusal

MESSAGES = [{"role": "user", "content": "Hi"}]
CHAT = {"model": "nanochat", "messages": MESSAGES}
STARTED = Started(model="nanochat", checkpoint=CHECKPOINT, prompt_tokens=1)


def error_of(response: httpx.Response) -> dict[str, Any]:
    body = response.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert response.headers["x-request-id"]
    error: dict[str, Any] = body["error"]
    return error


@pytest.mark.parametrize(
    ("change", "param", "said"),
    [
        ({"temprature": 1}, "temprature", "not a known field"),
        ({"model": None}, "model", "is required"),
        ({"model": 3}, "model", "valid string"),
        ({"messages": None}, "messages", "is required"),
        ({"messages": []}, "messages", "empty"),
        ({"messages": "Hi"}, "messages", "valid list"),
        ({"temperature": 2.1}, "temperature", "less than or equal to 2"),
        ({"temperature": "1"}, "temperature", "valid number"),
        ({"top_p": 0}, "top_p", "greater than 0"),
        ({"top_k": 201}, "top_k", "less than or equal to 200"),
        ({"max_tokens": 0}, "max_tokens", "greater than or equal to 1"),
        ({"max_tokens": 5, "max_completion_tokens": 6}, "max_tokens", "differ"),
        ({"stop": ["a", "b", "c", "d", "e"]}, "stop", "at most 4"),
        ({"stop": ""}, "stop", "at least 1 character"),
        ({"seed": 1.5}, "seed", "integer"),
        ({"seed": 2**63}, "seed", "less than"),
        ({"n": 17}, "n", "less than or equal to 16"),
        ({"top_logprobs": 2}, "top_logprobs", "only for logprobs"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "only for a stream"),
        ({"stream": True, "stream_options": {"include_usag": True}}, "stream_options.include_usag", "not a known"),
        ({"stop": "x" * 10_000}, "stop", "at most 1024 characters"),
        ({"stop": ["x", "y" * 1025]}, "stop[1]", "at most 1024 characters"),
        ({"min_p": 1.1}, "min_p", "less than or equal to 1"),
        ({"repetition_penalty": 0}, "repetition_penalty", "greater than or equal to 0.001"),
        ({"repetition_penalty": 1e39}, "repetition_penalty", "less than or equal to 1000"),
        ({"presence_penalty": 2.5}, "presence_penalty", "less than or equal to 2"),
        ({"frequency_penalty": -3}, "frequency_penalty", "greater than or equal to -2"),
        ({"logit_bias": {"5": 101}}, "logit_bias.5", "less than or equal to 100"),
        ({"logit_bias": {"five": 1}}, "logit_bias.five", "match pattern"),
        ({"logit_bias": [5]}, "logit_bias", "valid dictionary"),
        ({"response_format": {"type": "xml"}}, "response_format.type", "'text', 'json_object', 'json_schema'"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema", "is required"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": 5}}},
            "response_format.json_schema.schema",
            "valid dictionary",
        ),
        ({"response_format": {"type": "json_object", "schema": {}}}, "response_format.schema", "not a known"),
        ({"response_format": {"type": "regex", "regex": ""}}, "response_format.regex", "at least 1 character"),
        ({"response_format": {"type": "regex", "regex": "a" * 8193}}, "response_format.regex", "at most 8192"),
        ({"response_format": {"type": "choice", "choices": []}}, "response_format.choices", "at least 1 item"),
        ({"tools": [{"type": "function"}]}, "tools", "does not support"),
        ({"messages": [{"role": "user"}]}, "messages[0].content", "is required"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role", "'system', 'user' or 'assistant'"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content", "valid string"),
        ({"messages": [{"role": "user", "content": ""}]}, "messages[0].content", "empty"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
            "messages[0].content[0].type",
            "must be one of 'text', 'python', 'python_output'",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": 1}]}]},
            "messages[0].content[0].text",
            "valid string",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "python", "text": "1"}]}]},
            "messages[0].content[0].type",
            "only an assistant's",
        ),
        ({"messages": [*MESSAGES, *MESSAGES]}, "messages[1].role", "'assistant' is expected"),
        ({"messages": [*MESSAGES, {"role": "system", "content": "x"}]}, "messages[1].role", "'assistant' is expected"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, "messages[0].role", "'user' is expected"),
        ({"messages": [*MESSAGES, {"role": "assistant", "content": "x"}]}, "messages[1].role", "must be the user's"),
        ({"messages": [{"role": "system", "content": "x"}]}, "messages[0].role", "must be the user's"),
        ({"messages": [{"role": "user", "content": "x" * 8001}]}, "messages[0].content", "8001 characters"),
        (
            {"messages": [{"role": ("user", "assistant")[i % 2], "content": "x"} for i in range(501)]},
            "messages",
            "501 items",
        ),
        (
            {"messages": [{"role": ("user", "assistant")[i % 2], "content": "x" * 8000} for i in range(5)]},
            "messages",
            "40000 characters in all",
        ),
    ],
)
def test_a_bad_field_is_named(client: httpx.Client, change: dict[str, Any], param: str, said: str) -> None:
    response = client.post("/v1/chat/completions", json={**CHAT, **change})
    error = error_of(response)
    assert response.status_code == 400
    assert (error["type"], error["param"]) == ("invalid_request_error", param)
    assert said in error["message"]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"[1, 2]", "not a JSON object"),
        (b'{"model": "\xff"}', "not UTF-8: bad byte at position 11"),
        (b'{"temperature": NaN}', "not JSON"),
        (b'{"model": "\\ud800"}', "not JSON"),
        (b'{"seed": ' + b"1" * 5000 + b"}", "not JSON"),
        (b"[" * 100_000, "not JSON"),
    ],
)
def test_a_body_that_is_no_json_object_is_refused(client: httpx.Client, body: bytes, said: str) -> None:
    response = client.post("/v1/chat/completions", content=body, headers={"content-type": "application/json"})
    assert response.status_code == 400
    assert said in error_of(response)["message"]


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"prompt": []}, "prompt"),
        ({"prompt": [[]]}, "prompt[0]"),
        ({"prompt": [[1], "x"]}, "prompt[1]"),
        ({"prompt": [-1]}, "prompt[0]"),
        ({"prompt": 5}, "prompt"),
        ({"prompt": "x" * 32001}, "prompt"),
        ({"prompt": ["x"] * 257}, "prompt"),
        ({"suffix": "x"}, "suffix"),
        ({"best_of": 2}, "best_of"),
        ({"logprobs": 21}, "logprobs"),
        ({"max_tokens": 0, "echo": True, "response_format": {"type": "json_object"}}, "response_format"),
        ({"messages": MESSAGES}, "messages"),
    ],
)
def test_a_bad_field_of_completions_is_named(client: httpx.Client, change: dict[str, Any], param: str) -> None:
    response = client.post("/v1/completions", json={"model": "nanochat", "prompt": "x", **change})
    assert response.status_code == 400
    assert error_of(response)["param"] == param


@pytest.mark.parametrize(
    ("refusal", "exception", "code"),
    [
        (Refusal(400, "context_length_exceeded"), openai.BadRequestError, "context_length_exceeded"),
        (Refusal(404, "not_found", param="model"), openai.NotFoundError, "model_not_found"),
        (Refusal(429, "rate_limit_exceeded"), openai.RateLimitError, "rate_limit_exceeded"),
        (Refusal(503, "unavailable"), openai.InternalServerError, "unavailable"),
        (Refusal(504, "deadline_exceeded"), openai.InternalServerError, "deadline_exceeded"),
        (Refusal(500, "internal_error"), openai.InternalServerError, "internal_error"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_refusal_of_inference_is_the_sdks_exception(
    sdk: openai.OpenAI,
    inference: FakeInference,
    refusal: Refusal,
    exception: type[openai.APIStatusError],
    code: str,
    stream: bool,
) -> None:
    inference.script = lambda asked: refusal
    with pytest.raises(exception) as caught:
        sdk.chat.completions.create(model="nanochat", messages=MESSAGES, stream=stream)  # type: ignore[call-overload]
    assert caught.value.code == code
    assert caught.value.status_code == (503 if refusal.status == 500 else refusal.status)
    assert "refused" in caught.value.message


@pytest.mark.parametrize("param", ["messages", "prompt_token_ids"])
def test_a_prompt_that_inference_refuses_is_named_as_the_caller_knows_it(
    client: httpx.Client, inference: FakeInference, param: str
) -> None:
    inference.script = lambda asked: Refusal(400, param=param)
    response = client.post("/v1/completions", json={"model": "nanochat", "prompt": [1, 2]})
    assert error_of(response)["param"] == "prompt"


def test_retry_after_of_inference_is_passed_on(client: httpx.Client, inference: FakeInference) -> None:
    inference.script = lambda asked: Refusal(503, "unavailable", headers={"retry-after": "5"})
    assert client.post("/v1/chat/completions", json=CHAT).headers["retry-after"] == "5"
    inference.script = lambda asked: Refusal(429, "rate_limit_exceeded")
    assert client.post("/v1/chat/completions", json=CHAT).headers["retry-after"] == "1"


def test_an_error_before_the_first_token_is_still_a_status(client: httpx.Client, inference: FakeInference) -> None:
    inference.script = lambda asked: [STARTED, GenerateError(code="unavailable", message="the engine stopped")]
    response = client.post("/v1/chat/completions", json={**CHAT, "stream": True})
    assert response.status_code == 503
    assert error_of(response)["message"] == "the engine stopped"


@pytest.mark.parametrize("last", [GenerateError(code="unavailable", message="the engine stopped"), Break()])
def test_a_stream_that_breaks_ends_in_one_error_frame_and_no_done(
    client: httpx.Client, inference: FakeInference, last: GenerateError | Break
) -> None:
    inference.script = lambda asked: [STARTED, Delta(text="Hal", num_tokens=1), last]
    response = client.post("/v1/chat/completions", json={**CHAT, "stream": True})
    assert response.status_code == 200
    frames = [frame for frame in response.text.split("\n\n") if frame]
    assert json.loads(frames[-2].removeprefix("data: "))["choices"][0]["delta"]["content"] == "Hal"
    error = json.loads(frames[-1].removeprefix("data: "))["error"]
    assert (error["type"], error["code"]) == ("server_error", "unavailable")


def test_the_sdk_raises_on_a_stream_that_breaks(sdk: openai.OpenAI, inference: FakeInference) -> None:
    inference.script = lambda asked: [STARTED, Delta(text="Hal", num_tokens=1), Break()]
    stream = sdk.chat.completions.create(model="nanochat", messages=MESSAGES, stream=True)
    with pytest.raises(openai.APIError) as caught:
        list(stream)
    assert caught.value.code == "unavailable"


def test_a_whole_answer_that_breaks_is_a_503(client: httpx.Client, inference: FakeInference) -> None:
    inference.script = lambda asked: [STARTED, Delta(text="Hal", num_tokens=1), Break()]
    response = client.post("/v1/chat/completions", json=CHAT)
    assert response.status_code == 503
    assert response.headers["retry-after"] == "1"
    assert error_of(response)["code"] == "unavailable"


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v1/nothing", 404, "not_found"),
        ("POST", "/v1/embeddings", 404, "not_found"),
        ("GET", "/v1/chat/completions", 405, "method_not_allowed"),
        ("DELETE", "/v1/jobs", 405, "method_not_allowed"),
        ("GET", "/assets/nothing.js", 404, "not_found"),
    ],
)
def test_a_wrong_address_or_method_is_said_in_the_envelope(
    client: httpx.Client, method: str, path: str, status: int, code: str
) -> None:
    response = client.request(method, path)
    assert response.status_code == status
    assert error_of(response)["code"] == code


def test_a_body_over_the_limit_is_a_413(gateway_with: GatewayWith) -> None:
    url = f"{gateway_with(max_body_bytes=2000)}/v1/chat/completions"
    body = json.dumps(CHAT).encode() + b" " * 2000

    def unannounced() -> Any:
        yield from (body[i : i + 100] for i in range(0, len(body), 100))

    for content in (body, unannounced()):
        response = httpx.post(url, content=content, trust_env=False)
        assert response.status_code == 413
        assert error_of(response)["code"] == "request_too_large"


def test_keys_are_the_sdks_exceptions(gateway_with: GatewayWith) -> None:
    base_url = f"{gateway_with(access={'api_keys': 'chat-key'})}/v1"
    with openai.OpenAI(base_url=base_url, api_key="wrong", max_retries=0) as sdk:
        with pytest.raises(openai.AuthenticationError) as caught:
            sdk.models.list()
        assert (caught.value.code, caught.value.type) == ("invalid_api_key", "authentication_error")
    with openai.OpenAI(base_url=base_url, api_key="chat-key", max_retries=0) as sdk:
        assert [model.id for model in sdk.models.list()] == ["nanochat"]
        with pytest.raises(openai.PermissionDeniedError) as denied:
            sdk.get("/jobs", cast_to=object)
        assert (denied.value.code, denied.value.type) == ("insufficient_scope", "permission_error")
