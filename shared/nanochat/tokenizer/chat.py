"""A conversation as token ids, and which of them the model learns to say.

    <|bos|> (<|user_start|> text <|user_end|> <|assistant_start|> parts <|assistant_end|>)*

An expression stands between python_start and python_end, the calculator's result between output_start and output_end.
Knows nothing of rows and padding (data/packing.py) or of generating (engine/).
"""

from collections.abc import Iterator, Sequence

from nanochat.errors import InvalidRequest
from nanochat.protocol.generate import Message, Part, TextPart
from nanochat.tokenizer.bpe import Tokenizer
from nanochat.tokenizer.special import (
    ASSISTANT_END,
    ASSISTANT_START,
    OUTPUT_END,
    OUTPUT_START,
    PYTHON_END,
    PYTHON_START,
    USER_END,
    USER_START,
)


def render(tokenizer: Tokenizer, messages: Sequence[Message]) -> tuple[list[int], list[int]]:
    """The conversation's ids and its mask: 1 where the model is to learn the token, 0 elsewhere.

    Learned are the assistant's text, its expressions with both their marks, and assistant_end. Raises InvalidRequest
    naming messages[i].
    """
    ids, mask = [tokenizer.bos_id], [0]
    for role, content in _turns(messages):
        start, end = (USER_START, USER_END) if role == "user" else (ASSISTANT_START, ASSISTANT_END)
        spans = [
            ([tokenizer.special_id(start)], 0),
            *(_user_spans(tokenizer, content) if isinstance(content, str) else _part_spans(tokenizer, content)),
            ([tokenizer.special_id(end)], int(role == "assistant")),
        ]
        for span, learned in spans:
            ids += span
            mask += [learned] * len(span)
    return ids, mask


def render_prompt(tokenizer: Tokenizer, messages: Sequence[Message]) -> list[int]:
    """The conversation's ids with assistant_start at the end, for the model to go on. Ends with a user's message."""
    if messages and messages[-1].role != "user":
        raise InvalidRequest(
            f"messages[{len(messages) - 1}] is from {messages[-1].role}; the last message must be from user.",
            param=f"messages[{len(messages) - 1}]",
        )
    ids, _ = render(tokenizer, messages)
    return [*ids, tokenizer.special_id(ASSISTANT_START)]


def _user_spans(tokenizer: Tokenizer, text: str) -> list[tuple[list[int], int]]:
    return [(tokenizer.encode(text), 0)]


def _part_spans(tokenizer: Tokenizer, parts: Sequence[Part]) -> Iterator[tuple[list[int], int]]:
    for part in parts:
        ids = tokenizer.encode(part.text)
        if part.type == "python":
            yield [tokenizer.special_id(PYTHON_START), *ids, tokenizer.special_id(PYTHON_END)], 1
        elif part.type == "python_output":
            yield [tokenizer.special_id(OUTPUT_START), *ids, tokenizer.special_id(OUTPUT_END)], 0
        else:
            yield ids, 1


def _turns(messages: Sequence[Message]) -> Iterator[tuple[str, str | Sequence[Part]]]:
    """User turns as text, assistant turns as parts, the system's text put before the first user's with a blank line.

    Raises InvalidRequest: a system message comes first and once, then user and assistant take turns, user first.
    """
    if not messages:
        raise InvalidRequest("messages is empty; give at least one message from user.", param="messages")
    system: str | None = None
    num_turns = 0
    for index, message in enumerate(messages):
        if message.role == "system":
            if index:
                raise _misplaced(index, "a system message may only come first")
            system = _text(index, message)
            continue
        expected = "assistant" if num_turns % 2 else "user"
        if message.role != expected:
            raise _misplaced(
                index, f"it is from {message.role}, and {expected} was due: the two take turns, user first"
            )
        num_turns += 1
        if message.role == "user":
            text = _text(index, message)
            yield "user", text if system is None else f"{system}\n\n{text}"
            system = None
        else:
            yield "assistant", _parts(message)
    if not num_turns:
        raise _misplaced(len(messages), "there is a system message only; add one from user")


def _text(index: int, message: Message) -> str:
    if not isinstance(message.content, str):
        raise _misplaced(index, f"the content of a {message.role} message must be text, only an assistant has parts")
    return message.content


def _parts(message: Message) -> Sequence[Part]:
    return [TextPart(text=message.content)] if isinstance(message.content, str) else message.content


def _misplaced(index: int, what: str) -> InvalidRequest:
    return InvalidRequest(f"messages[{index}]: {what}.", param=f"messages[{index}]")
