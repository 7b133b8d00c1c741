"""Beginnings of chats, texts and token ids are known again, whatever follows."""

from nanochat.protocol.generate import GenerateRequest, Message
from nanochat_inference.pool.choice import beginnings

LONG = "what is this? " * 10


def chat(*contents: str) -> GenerateRequest:
    roles = ("user", "assistant")
    messages = [Message(role=roles[i % 2], content=text) for i, text in enumerate(contents)]  # type: ignore[arg-type]
    return GenerateRequest(model="m", messages=messages)


def test_the_next_turn_of_a_chat_begins_like_the_one_before() -> None:
    first, second = beginnings(chat(LONG)), beginnings(chat(LONG, "That.", "And this?"))
    assert second[: len(first)] == first and len(second) == 3


def test_another_chat_begins_in_another_way() -> None:
    assert not set(beginnings(chat(LONG))) & set(beginnings(chat("x" + LONG)))


def test_short_beginnings_are_not_worth_a_detour() -> None:
    assert beginnings(chat("hi")) == []


def test_texts_and_token_ids_are_known_by_blocks() -> None:
    text = "x" * 600
    assert beginnings(GenerateRequest(model="m", prompt=text)) == beginnings(
        GenerateRequest(model="m", prompt=text + "y")
    )
    ids = list(range(150))
    one, other = (beginnings(GenerateRequest(model="m", prompt_token_ids=i)) for i in (ids, [*ids[:100], 0, 0, 0] * 1))
    assert one[0] == other[0] and len(one) == 2
