"""Messages of a request as inference takes them: order of roles checked, parts in their places.

The order: at most one system message, first; then user and assistant in turns; a user message last.
"""

from collections.abc import Sequence

from nanochat.errors import InvalidRequest
from nanochat.protocol.generate import Message, Part, PythonOutputPart, PythonPart, TextPart
from nanochat.protocol.openai import ChatMessage, ToolCallRecord
from nanochat_gateway.limits import num_chars


def conversation(messages: Sequence[ChatMessage]) -> list[Message]:
    """Raises InvalidRequest naming messages[i]."""
    check_roles(messages)
    return [_message(message, f"messages[{i}]") for i, message in enumerate(messages)]


def check_roles(messages: Sequence[ChatMessage]) -> None:
    if not messages:
        raise InvalidRequest("messages is empty; send at least one user message.", param="messages")
    has_system = messages[0].role == "system"
    for i, message in enumerate(messages):
        expected = "user" if (i - has_system) % 2 == 0 else "assistant"
        if message.role != expected and not (i == 0 and has_system):
            raise InvalidRequest(
                f"messages[{i}].role is {message.role!r}; {expected!r} is expected there. A system message may only "
                "come first, then user and assistant take turns.",
                param=f"messages[{i}].role",
            )
        # An assistant's may be empty: a model can end its answer at once, and clients send back what they got.
        if message.role != "assistant" and num_chars(message) == 0:
            raise InvalidRequest(
                f"messages[{i}].content is empty; write something.",
                param=f"messages[{i}].content",
            )
    if messages[-1].role != "user":
        last = len(messages) - 1
        raise InvalidRequest(
            f"messages[{last}].role is {messages[-1].role!r}; the last message must be the user's.",
            param=f"messages[{last}].role",
        )


def _message(message: ChatMessage, path: str) -> Message:
    if message.role == "assistant":
        return Message(role="assistant", content=_assistant_content(message, path))
    if message.nanochat is not None:
        raise InvalidRequest(
            f"{path}.nanochat is only for an assistant's message; remove it.", param=f"{path}.nanochat"
        )
    if isinstance(message.content, str):
        return Message(role=message.role, content=message.content)
    texts = []
    for i, part in enumerate(message.content):
        if not isinstance(part, TextPart):
            raise InvalidRequest(
                f"{path}.content[{i}].type is {part.type!r}; only an assistant's message may hold it.",
                param=f"{path}.content[{i}].type",
            )
        texts.append(part.text)
    return Message(role=message.role, content="".join(texts))


def _assistant_content(message: ChatMessage, path: str) -> str | list[Part]:
    calls = message.nanochat.tool_calls if message.nanochat else []
    if not calls:
        return message.content
    if not isinstance(message.content, str):
        raise InvalidRequest(
            f"{path} has calls both as parts and in nanochat.tool_calls; send one of them.", param=f"{path}.nanochat"
        )
    return _with_calls(message.content, calls, path)


def _with_calls(text: str, calls: Sequence[ToolCallRecord], path: str) -> list[Part]:
    """Undo how an answer was shown: each span "expression=result" and its line break become the two parts again."""
    parts: list[Part] = []
    position = 0
    for i, call in enumerate(calls):
        span = f"{call.expression}={call.result or ''}"
        if call.start < position or text[call.start : call.end] != span:
            raise InvalidRequest(
                f"{path}.nanochat.tool_calls[{i}] is not what stands at {call.start} to {call.end} of the content; "
                "send the message as it was received, or without nanochat.",
                param=f"{path}.nanochat.tool_calls[{i}]",
            )
        if call.start > position:
            parts.append(TextPart(text=text[position : call.start]))
        parts += [PythonPart(text=call.expression), PythonOutputPart(text=call.result or "")]
        position = call.end + text.startswith("\n", call.end)
    if position < len(text):
        parts.append(TextPart(text=text[position:]))
    return parts
