"""Conversations as token ids: what is learned, and which orders of roles are refused."""

from typing import Any

import pytest
from pydantic import TypeAdapter

from nanochat.errors import InvalidRequest
from nanochat.protocol.generate import Message
from nanochat.tokenizer import chat
from nanochat.tokenizer.bpe import Tokenizer
from nanochat.tokenizer.special import SPECIAL_TOKENS

_messages = TypeAdapter(list[Message])


def messages(*pairs: tuple[str, Any]) -> list[Message]:
    return _messages.validate_python([{"role": role, "content": content} for role, content in pairs])


def spell(tokenizer: Tokenizer, ids: list[int]) -> str:
    """The ids as text with the special tokens written out."""
    names = {tokenizer.special_id(name): name for name in SPECIAL_TOKENS}
    return "".join(names.get(i) or tokenizer.decode([i]) for i in ids)


CALCULATION = messages(
    ("user", "2+3?"),
    (
        "assistant",
        [
            {"type": "text", "text": "Sum: "},
            {"type": "python", "text": "2+3"},
            {"type": "python_output", "text": "5"},
            {"type": "text", "text": "."},
        ],
    ),
)


def test_a_conversation_is_framed_by_its_marks(tokenizer: Tokenizer) -> None:
    ids, _ = chat.render(tokenizer, CALCULATION)
    assert spell(tokenizer, ids) == (
        "<|bos|><|user_start|>2+3?<|user_end|><|assistant_start|>Sum: <|python_start|>2+3<|python_end|>"
        "<|output_start|>5<|output_end|>.<|assistant_end|>"
    )


def test_the_model_learns_its_text_its_expressions_and_when_to_end(tokenizer: Tokenizer) -> None:
    ids, mask = chat.render(tokenizer, CALCULATION)
    learned = [i for i, counts in zip(ids, mask, strict=True) if counts]
    assert spell(tokenizer, learned) == "Sum: <|python_start|>2+3<|python_end|>.<|assistant_end|>"


def test_a_system_message_joins_the_first_user_message_after_a_blank_line(tokenizer: Tokenizer) -> None:
    ids, _ = chat.render(
        tokenizer, messages(("system", "Be brief."), ("user", "Hi"), ("assistant", "Yes"), ("user", "x"))
    )
    assert spell(tokenizer, ids).startswith("<|bos|><|user_start|>Be brief.\n\nHi<|user_end|>")
    assert spell(tokenizer, ids).endswith("<|user_start|>x<|user_end|>")


def test_a_prompt_ends_where_the_assistant_begins(tokenizer: Tokenizer) -> None:
    ids = chat.render_prompt(tokenizer, messages(("user", "Hi")))
    assert spell(tokenizer, ids) == "<|bos|><|user_start|>Hi<|user_end|><|assistant_start|>"


def test_special_tokens_in_a_message_stay_text(tokenizer: Tokenizer) -> None:
    ids, mask = chat.render(tokenizer, messages(("user", "<|assistant_start|>"), ("assistant", "<|assistant_end|>")))
    assert sum(i >= tokenizer.bos_id for i in ids) == 5
    assert sum(mask) == len(tokenizer.encode("<|assistant_end|>")) + 1


@pytest.mark.parametrize(
    ("pairs", "param"),
    [
        ([], "messages"),
        ([("assistant", "Hi")], "messages[0]"),
        ([("system", "s")], "messages[1]"),
        ([("system", "s"), ("assistant", "a")], "messages[1]"),
        ([("user", "u"), ("user", "u")], "messages[1]"),
        ([("user", "u"), ("assistant", "a"), ("assistant", "a")], "messages[2]"),
        ([("user", "u"), ("system", "s")], "messages[1]"),
        ([("system", "s"), ("system", "s"), ("user", "u")], "messages[1]"),
        ([("user", [{"type": "text", "text": "u"}])], "messages[0]"),
        ([("system", [{"type": "text", "text": "s"}]), ("user", "u")], "messages[0]"),
    ],
)
def test_a_wrong_order_of_roles_names_the_message(tokenizer: Tokenizer, pairs: list[Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        chat.render(tokenizer, messages(*pairs))
    assert caught.value.param == param
    assert caught.value.message.startswith(param)


def test_a_prompt_that_ends_with_the_assistant_is_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(InvalidRequest, match=r"messages\[1\].*must be from user"):
        chat.render_prompt(tokenizer, messages(("user", "u"), ("assistant", "a")))
    with pytest.raises(InvalidRequest, match="empty"):
        chat.render_prompt(tokenizer, [])
