from typing import Any

import pytest
from pydantic import ValidationError

from nanochat.protocol.openai import ChatCompletionRequest, CompletionRequest, invalid_request
from nanochat_gateway.openai_request import completion_generations
from tests.integration.gateway.conftest import settings_with

CHAT = {"model": "m", "messages": [{"role": "user", "content": "x"}]}


@pytest.mark.parametrize(
    "neutral",
    [
        {"presence_penalty": 0},
        {"presence_penalty": 0.0, "frequency_penalty": 0.0},
        {"logit_bias": {}},
        {"tools": []},
        {"tool_choice": "none"},
        {"store": False},
        {"service_tier": "auto"},
        {"response_format": {"type": "text"}},
        {"max_tokens": 5, "max_completion_tokens": 5},
    ],
)
def test_what_changes_nothing_is_accepted(neutral: dict[str, Any]) -> None:
    ChatCompletionRequest.model_validate({**CHAT, **neutral})


@pytest.mark.parametrize(
    ("prompt", "prompts"),
    [("a", ["a"]), (["a", "b"], ["a", "b"]), ([1, 2], [[1, 2]]), ([[1], [2, 3]], [[1], [2, 3]]), ("", [""])],
)
def test_a_prompt_is_one_or_several(prompt: Any, prompts: list[Any]) -> None:
    assert CompletionRequest(model="m", prompt=prompt).prompts == prompts


@pytest.mark.parametrize(
    ("prompt", "options", "wants"),
    [
        ("a", {}, False),
        ("a", {"echo": True}, False),  # the gateway has the text itself
        ("a", {"echo": True, "logprobs": 0}, True),
        ([1], {"echo": True}, True),
        ([1], {"logprobs": 1}, False),
    ],
)
def test_prompt_logprobs_are_asked_for_where_echo_needs_them(prompt: Any, options: dict[str, Any], wants: bool) -> None:
    body = CompletionRequest(model="m", prompt=prompt, **options)
    assert [asked.prompt_logprobs for asked in completion_generations(body, settings_with())] == [wants]


def test_a_long_value_is_shortened_in_the_message() -> None:
    with pytest.raises(ValidationError) as caught:
        ChatCompletionRequest.model_validate({**CHAT, "seed": "x" * 1000})
    assert len(invalid_request(caught.value).message) < 200
