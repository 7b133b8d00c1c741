"""POST /v1/chat/completions as OpenAI's package sees it."""

import json

import httpx
import openai
import pytest

from nanochat.protocol.generate import Delta, Done, Finished, GenerateRequest, Message, Started, TokenLogprob, ToolCall
from tests.integration.gateway.fake_inference import CHECKPOINT, FakeInference, Step, answer

MESSAGES: list[dict[str, str]] = [{"role": "user", "content": "Hi"}]


def test_an_answer_has_content_finish_reason_and_usage(sdk: openai.OpenAI) -> None:
    completion = sdk.chat.completions.create(model="nanochat", messages=MESSAGES)
    assert completion.object == "chat.completion"
    assert completion.id.startswith("chatcmpl-")
    assert completion.model == "nanochat"
    assert completion.system_fingerprint == CHECKPOINT
    [choice] = completion.choices
    assert (choice.index, choice.finish_reason, choice.logprobs) == (0, "stop", None)
    assert (choice.message.role, choice.message.content, choice.message.refusal) == ("assistant", "Hello, world", None)
    assert completion.usage is not None
    assert completion.usage.prompt_tokens == 7
    assert completion.usage.completion_tokens == 3
    assert completion.usage.total_tokens == 10
    assert completion.usage.prompt_tokens_details is not None
    assert completion.usage.prompt_tokens_details.cached_tokens == 3


def test_a_stream_begins_with_the_role_and_ends_with_finish_reason_and_usage(sdk: openai.OpenAI) -> None:
    stream = sdk.chat.completions.create(
        model="nanochat", messages=MESSAGES, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    assert {chunk.id for chunk in chunks} == {chunks[0].id}
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1]) == "Hello, world"
    assert [chunk.choices[0].finish_reason for chunk in chunks[:-1]] == [None] * (len(chunks) - 2) + ["stop"]
    assert all(chunk.usage is None for chunk in chunks[:-1])
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens == 10


def test_a_stream_without_include_usage_has_none_and_ends_with_done(client: httpx.Client) -> None:
    body = {"model": "nanochat", "messages": MESSAGES, "stream": True}
    with client.stream("POST", "/v1/chat/completions", json=body) as response:
        lines = response.read().decode().split("\n\n")
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert response.headers["cache-control"] == "no-store"
    assert lines[-2:] == ["data: [DONE]", ""]
    chunks = [json.loads(line.removeprefix("data: ")) for line in lines[:-2]]
    assert all("usage" not in chunk for chunk in chunks)
    assert all(chunk["choices"][0]["finish_reason"] is None for chunk in chunks[:-1])
    assert all(chunk["object"] == "chat.completion.chunk" for chunk in chunks)


def test_every_option_reaches_inference(sdk: openai.OpenAI, inference: FakeInference) -> None:
    sdk.chat.completions.create(
        model="nanochat",
        messages=[
            {"role": "system", "content": "Be short."},
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
            {"role": "assistant", "content": "c"},
            {"role": "user", "content": "d"},
        ],
        temperature=0.5,
        top_p=0.9,
        max_tokens=5,
        stop=["x", "y"],
        seed=42,
        n=2,
        logprobs=True,
        top_logprobs=4,
        user="somebody",
        presence_penalty=0,
        response_format={"type": "text"},
        extra_body={"top_k": 40},
    )
    assert inference.asked == [
        GenerateRequest(
            model="nanochat",
            messages=[
                Message(role="system", content="Be short."),
                Message(role="user", content="ab"),
                Message(role="assistant", content="c"),
                Message(role="user", content="d"),
            ],
            temperature=0.5,
            top_p=0.9,
            top_k=40,
            max_tokens=5,
            stop=["x", "y"],
            seed=42,
            n=2,
            logprobs=4,
        )
    ]


def test_defaults_are_those_of_openai_but_for_the_cooler_temperature(
    sdk: openai.OpenAI, inference: FakeInference
) -> None:
    sdk.chat.completions.create(model="nanochat", messages=MESSAGES)
    message = Message(role="user", content="Hi")
    assert inference.asked == [GenerateRequest(model="nanochat", messages=[message], temperature=0.3)]
    assert (inference.asked[0].top_p, inference.asked[0].top_k) == (1.0, 0)


def test_one_stop_string_and_max_completion_tokens(sdk: openai.OpenAI, inference: FakeInference) -> None:
    inference.script = answer("cut", finish_reason="length")
    completion = sdk.chat.completions.create(model="nanochat", messages=MESSAGES, stop="\n", max_completion_tokens=1)
    assert completion.choices[0].finish_reason == "length"
    assert (inference.asked[0].stop, inference.asked[0].max_tokens) == (["\n"], 1)


@pytest.mark.parametrize("stream", [False, True])
def test_nulls_are_taken_as_absent(client: httpx.Client, inference: FakeInference, stream: bool) -> None:
    nulls = dict.fromkeys(
        ("temperature", "top_p", "top_k", "max_tokens", "stop", "seed", "n", "tools", "response_format", "logit_bias")
    )
    body = {"model": "nanochat", "messages": [{**MESSAGES[0], "name": None}], "stream": stream, **nulls}
    assert client.post("/v1/chat/completions", json=body).status_code == 200
    assert inference.asked[0].temperature == 0.3


def test_n_choices_come_under_their_index(sdk: openai.OpenAI, inference: FakeInference) -> None:
    inference.script = lambda asked: [
        Started(model="nanochat", checkpoint=CHECKPOINT, prompt_tokens=1),
        Delta(index=1, text="one", num_tokens=1),
        Delta(index=0, text="zero", num_tokens=1),
        Finished(index=1, finish_reason="stop", completion_tokens=1),
        Finished(index=0, finish_reason="length", completion_tokens=1),
        Done(prompt_tokens=1, completion_tokens=2),
    ]
    whole = sdk.chat.completions.create(model="nanochat", messages=MESSAGES, n=2)
    assert [(choice.index, choice.message.content, choice.finish_reason) for choice in whole.choices] == [
        (0, "zero", "length"),
        (1, "one", "stop"),
    ]
    texts = {0: "", 1: ""}
    for chunk in sdk.chat.completions.create(model="nanochat", messages=MESSAGES, n=2, stream=True):
        texts[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert texts == {0: "zero", 1: "one"}


CALL = ToolCall(expression="2+2", result="4", start=5, end=10)
RECORD = {"index": 0, "expression": "2+2", "result": "4", "start": 5, "end": 10}


def test_calculator_calls_stand_in_the_text_and_in_the_extension(
    client: httpx.Client, inference: FakeInference
) -> None:
    inference.script = answer("It is", "2+2=4\n", calls=[CALL])
    body = {"model": "nanochat", "messages": MESSAGES}
    message = client.post("/v1/chat/completions", json=body).json()["choices"][0]["message"]
    assert message["content"] == "It is2+2=4\n"
    assert message["nanochat"] == {"tool_calls": [RECORD]}
    events = client.post("/v1/chat/completions", json={**body, "stream": True}).text.split("\n\n")
    chunks = [json.loads(event.removeprefix("data: ")) for event in events if event.startswith("data: {")]
    live, final = [chunk for chunk in chunks if "nanochat" in chunk]
    assert live["choices"] == [{"index": 0, "delta": {}, "logprobs": None, "finish_reason": None}]
    assert live["nanochat"] == {"tool_calls": [RECORD]}
    assert final["choices"][0]["finish_reason"] == "stop"
    assert final["nanochat"] == {"tool_calls": [RECORD]}


def test_an_answer_can_be_sent_back_as_it_was_received(sdk: openai.OpenAI, inference: FakeInference) -> None:
    inference.script = answer("It is", "2+2=4\n", "ok", calls=[CALL])
    message = sdk.chat.completions.create(model="nanochat", messages=MESSAGES).choices[0].message
    sdk.chat.completions.create(model="nanochat", messages=[*MESSAGES, message, {"role": "user", "content": "Sure?"}])
    messages = inference.asked[-1].messages
    assert messages is not None
    assert messages[1].model_dump()["content"] == [
        {"type": "text", "text": "It is"},
        {"type": "python", "text": "2+2"},
        {"type": "python_output", "text": "4"},
        {"type": "text", "text": "ok"},
    ]


def test_logprobs_are_in_openais_shape(sdk: openai.OpenAI, inference: FakeInference) -> None:
    token = TokenLogprob(token_id=5, token="Hi", bytes=[72, 105], logprob=-0.5)
    token.top = [token.model_copy(), TokenLogprob(token_id=6, token="Ho", bytes=[72, 111], logprob=-1.5)]

    def script(asked: GenerateRequest) -> list[Step]:
        return [
            Started(model="nanochat", checkpoint=CHECKPOINT, prompt_tokens=1),
            Delta(text="Hi", num_tokens=1, logprobs=[token]),
            Finished(finish_reason="stop", completion_tokens=1),
            Done(prompt_tokens=1, completion_tokens=1),
        ]

    inference.script = script
    whole = sdk.chat.completions.create(model="nanochat", messages=MESSAGES, logprobs=True, top_logprobs=2)
    assert whole.choices[0].logprobs is not None
    [found] = whole.choices[0].logprobs.content or []
    assert (found.token, found.logprob, found.bytes) == ("Hi", -0.5, [72, 105])
    assert [(top.token, top.logprob) for top in found.top_logprobs] == [("Hi", -0.5), ("Ho", -1.5)]
    stream = sdk.chat.completions.create(
        model="nanochat", messages=MESSAGES, logprobs=True, top_logprobs=2, stream=True
    )
    streamed = [chunk.choices[0].logprobs for chunk in stream if chunk.choices[0].logprobs]
    assert [logprobs.content for logprobs in streamed] == [[found]]


def test_text_is_passed_on_unharmed_in_any_script(sdk: openai.OpenAI, inference: FakeInference) -> None:
    pieces = ("naïve ", "日本", " 👩‍👩‍👧", "\u2028\u2029\x85\r\n", "\x00\x1f", "data: [DONE]\n\n")
    inference.script = answer(*pieces)
    stream = sdk.chat.completions.create(model="nanochat", messages=MESSAGES, stream=True)
    assert [chunk.choices[0].delta.content for chunk in stream][1:-1] == list(pieces)
    whole = sdk.chat.completions.create(model="nanochat", messages=MESSAGES)
    assert whole.choices[0].message.content == "".join(pieces)
