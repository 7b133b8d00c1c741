"""Conversations from a JSONL file, or a folder of them, one a line: a list of messages or {"messages": [...]}.

Every line is checked when the task is made, so that a bad one stops a job before it trains, by file and line.
"""

import logging
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from nanochat.data.jsonl import read_values
from nanochat.errors import DataError
from nanochat.protocol.generate import Message
from nanochat.tasks.base import Conversation, Task

log = logging.getLogger(__name__)

_SHOWN_CHARS = 200
_MESSAGES: TypeAdapter[list[Message]] = TypeAdapter(list[Message])


class CustomJSON(Task):
    """All conversations of a path, in order of file name and line. Held in memory. Blank lines are passed over.

    Raises DataError naming file and line for what is no conversation, and for a path without any.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._conversations = [conversation for file in _files(path) for conversation in _read(file)]
        except OSError as exc:
            place = exc.filename or path
            raise DataError(f"{place} cannot be read: {exc.strerror}. Check the path and its permissions.") from exc
        if not self._conversations:
            raise DataError(f"{path} holds no conversation; put one on each line, as a JSON list of messages.")
        super().__init__("train", len(self._conversations))

    def example(self, index: int) -> Conversation:
        return self._conversations[index]


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        found = [file for file in sorted(path.iterdir()) if not file.name.startswith(".")]
        files = [file for file in found if file.suffix.lower() == ".jsonl" and file.is_file()]
        if not files:
            raise DataError(f"{path} holds no .jsonl file; put the conversations there, one a line.")
        if others := [file for file in found if file not in files]:
            log.warning("files_left_out", extra={"count": len(others), "first": str(others[0]), "taken": "*.jsonl"})
        return files
    if not path.is_file():
        raise DataError(f"{path} is no file or folder; give the path of a JSONL file of conversations.")
    return [path]


def _read(file: Path) -> list[Conversation]:
    with file.open("rb") as stream:
        return [conversation_of(value, place) for place, value in read_values(stream, file)]


def conversation_of(value: Any, place: str) -> Conversation:
    """A list of messages, or an object that has it as "messages". Raises DataError naming the place."""
    if isinstance(value, dict):
        if "messages" not in value:
            raise DataError(f'{place} is an object without "messages"; name the list of messages so.')
        value = value["messages"]
    try:
        messages = _MESSAGES.validate_python(value, strict=True)
    except ValidationError as exc:
        # The deepest: content is a string or a list, and of a bad list "no string" would be said first.
        worst = max(exc.errors(include_url=False), key=lambda error: len(error["loc"]))
        where = ".".join(str(part) for part in worst["loc"]) or "the line"
        raise DataError(f"{place}: {_shown(where)}: {_shown(worst['msg'])}. A message has role and content.") from exc
    _check_turns(messages, place)
    return Conversation(messages=messages)


def _check_turns(messages: list[Message], place: str) -> None:
    """A system message or none, then user and assistant in turn, the user first; at least one answer."""
    for number, message in enumerate(messages, start=1):
        if not _said(message).strip():
            raise DataError(f"{place}: message {number}, the {message.role}'s, is empty; leave the conversation out.")
        if message.role != "assistant" and not isinstance(message.content, str):
            raise DataError(f"{place}: message {number}, the {message.role}'s, is a list of parts; give it as text.")
    turns = messages[1:] if messages and messages[0].role == "system" else messages
    for index, message in enumerate(turns):
        expected = "assistant" if index % 2 else "user"
        if message.role != expected:
            raise DataError(
                f"{place}: message {index + 1 + len(messages) - len(turns)} is the {message.role}'s where the "
                f"{expected}'s is due; let user and assistant take turns, the user first."
            )
    if len(turns) < 2:
        raise DataError(f"{place} has no answer of the assistant, so nothing can be learned from it; add one.")


def _said(message: Message) -> str:
    if isinstance(message.content, str):
        return message.content
    return "".join(part.text for part in message.content)


def _shown(text: str) -> str:
    """What may quote the file: control characters escaped rather than sent to a terminal, and not at any length."""
    return ascii(text)[1:-1][:_SHOWN_CHARS] if len(text) > _SHOWN_CHARS or not text.isprintable() else text
