"""Sampling options and response_format as OpenAI's package sends them, on both addresses, and what usage says."""

from typing import Any

import openai
import pytest
from pydantic import BaseModel

from nanochat.protocol.generate import (
    ChoiceFormat,
    GenerateRequest,
    JsonObjectFormat,
    JsonSchemaFormat,
    RegexFormat,
)
from tests.integration.gateway.fake_inference import FakeInference, Refusal, answer

MESSAGES: list[dict[str, str]] = [{"role": "user", "content": "Hi"}]


class City(BaseModel):
    name: str
    inhabitants: int


def _ask(sdk: openai.OpenAI, address: str, **options: Any) -> None:
    if address == "chat":
        sdk.chat.completions.create(model="nanochat", messages=MESSAGES, **options)  # type: ignore[call-overload]
    else:
        sdk.completions.create(model="nanochat", prompt="Hi", **options)


@pytest.mark.parametrize("address", ["chat", "completions"])
def test_penalties_bias_and_filters_reach_inference(sdk: openai.OpenAI, inference: FakeInference, address: str) -> None:
    _ask(
        sdk,
        address,
        presence_penalty=0.5,
        frequency_penalty=-1,
        logit_bias={"5": -100, "17": 2.5},
        extra_body={"min_p": 0.05, "repetition_penalty": 1.2, "top_k": 9},
    )
    (asked,) = inference.asked
    assert (asked.presence_penalty, asked.frequency_penalty, asked.logit_bias) == (0.5, -1, {5: -100, 17: 2.5})
    assert (asked.min_p, asked.repetition_penalty, asked.top_k) == (0.05, 1.2, 9)


@pytest.mark.parametrize("address", ["chat", "completions"])
def test_nothing_is_asked_of_inference_that_the_caller_did_not_ask_for(
    sdk: openai.OpenAI, inference: FakeInference, address: str
) -> None:
    _ask(sdk, address)
    neutral = GenerateRequest(model="nanochat")
    for name in ("min_p", "repetition_penalty", "presence_penalty", "frequency_penalty", "logit_bias"):
        assert getattr(inference.asked[0], name) == getattr(neutral, name)
    assert inference.asked[0].response_format is None


SCHEMA = {"type": "object", "properties": {"b": {"type": "integer"}, "a": {"type": "string"}}, "required": ["b"]}


@pytest.mark.parametrize("address", ["chat", "completions"])
@pytest.mark.parametrize(
    ("given", "asked"),
    [
        ({"type": "text"}, None),
        ({"type": "json_object"}, JsonObjectFormat()),
        (
            {"type": "json_schema", "json_schema": {"name": "n", "strict": True, "schema": SCHEMA}},
            JsonSchemaFormat.model_validate({"json_schema": {"name": "n", "strict": True, "schema": SCHEMA}}),
        ),
        ({"type": "regex", "regex": "[0-9]+"}, RegexFormat(regex="[0-9]+")),
        ({"type": "choice", "choices": ["yes", "no"]}, ChoiceFormat(choices=["yes", "no"])),
    ],
)
def test_every_response_format_reaches_inference(
    sdk: openai.OpenAI, inference: FakeInference, address: str, given: dict[str, Any], asked: object
) -> None:
    if address == "chat":
        _ask(sdk, address, response_format=given)
    else:
        _ask(sdk, address, extra_body={"response_format": given})
    assert inference.asked[0].response_format == asked


def test_a_schema_keeps_the_order_of_its_properties(sdk: openai.OpenAI, inference: FakeInference) -> None:
    schema = {"name": "n", "schema": SCHEMA}
    _ask(sdk, "chat", response_format={"type": "json_schema", "json_schema": schema})
    found = inference.asked[0].response_format
    assert isinstance(found, JsonSchemaFormat)
    assert list(found.json_schema.schema_["properties"]) == ["b", "a"]


def test_the_packages_own_parsing_of_a_model_works(sdk: openai.OpenAI, inference: FakeInference) -> None:
    inference.script = answer('{"name": "Bern", ', '"inhabitants": 146000}')
    parsed = sdk.chat.completions.parse(model="nanochat", messages=MESSAGES, response_format=City)  # type: ignore[arg-type]
    assert parsed.choices[0].message.parsed == City(name="Bern", inhabitants=146000)
    assert isinstance(inference.asked[0].response_format, JsonSchemaFormat)


def test_a_format_that_inference_refuses_is_named(sdk: openai.OpenAI, inference: FakeInference) -> None:
    inference.script = lambda asked: Refusal(400, message="cannot be compiled", param="response_format")
    with pytest.raises(openai.BadRequestError) as caught:
        _ask(sdk, "chat", response_format={"type": "json_object"})
    assert caught.value.param == "response_format"
    assert "cannot be compiled" in caught.value.message


@pytest.mark.parametrize("address", ["chat", "completions"])
def test_cached_tokens_are_in_usage_whole_and_streamed(
    sdk: openai.OpenAI, inference: FakeInference, address: str
) -> None:
    create: Any = sdk.chat.completions.create if address == "chat" else sdk.completions.create
    prompt: dict[str, Any] = {"messages": MESSAGES} if address == "chat" else {"prompt": "Hi"}
    whole = create(model="nanochat", **prompt)
    *_, last = create(model="nanochat", stream=True, stream_options={"include_usage": True}, **prompt)
    for usage in (whole.usage, last.usage):
        assert (usage.prompt_tokens, usage.prompt_tokens_details.cached_tokens) == (7, 3)


def test_cached_tokens_of_several_prompts_are_added_up(sdk: openai.OpenAI) -> None:
    usage = sdk.completions.create(model="nanochat", prompt=["a", "b"]).usage
    assert usage is not None and usage.prompt_tokens_details is not None
    assert usage.prompt_tokens_details.cached_tokens == 6
