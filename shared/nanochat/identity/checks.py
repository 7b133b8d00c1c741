"""What makes a written conversation unfit to learn from. Each reason is a few words, counted in the summary."""

import json
import re
from typing import Any

from nanochat.errors import DataError
from nanochat.protocol.generate import Message
from nanochat.tasks.custom_json import conversation_of
from nanochat.tasks.persona import Persona

_MAX_CHARS = 2000  # a message
_PLACEHOLDER = re.compile(
    r"\{\{.*?\}\}|\[(?:your|my|the|insert)? ?[A-Z a-z]*name[^\]]*\]|<[a-z_ ]*name[a-z_ ]*>|lorem ipsum", re.I
)
_SHINGLE_WORDS = 4
_MAX_KNOWN_RATIO = 0.6  # of a conversation's runs of words


class Unfit(Exception):
    """Never leaves this package."""


def parse(text: str) -> list[Message]:
    """From what an endpoint wrote: JSON, alone or within other text. Raises Unfit."""
    start, end = text.find("{"), text.rfind("}")
    try:
        value: Any = json.loads(text[start : end + 1])
        return conversation_of(value, "it").messages
    except (ValueError, RecursionError) as exc:
        raise Unfit("no JSON") from exc
    except DataError as exc:
        raise Unfit("no conversation of user and assistant in turn") from exc


def check(messages: list[Message], persona: Persona) -> None:
    """Raises Unfit."""
    for message in messages:
        content = message.content
        if not isinstance(content, str):
            raise Unfit("a message that is no text")
        if len(content) > _MAX_CHARS:
            raise Unfit(f"a message of over {_MAX_CHARS} characters")
        if _PLACEHOLDER.search(content):
            raise Unfit("a placeholder")
    if messages[0].role != "user" or messages[-1].role != "assistant":
        raise Unfit("no conversation of user and assistant in turn")
    asked = " ".join(str(message.content) for message in messages if message.role == "user").lower()
    said = " ".join(str(message.content) for message in messages if message.role == "assistant").lower()
    for other in persona.not_me:
        if _mentions(said, other.lower()) and not _mentions(asked, other.lower()):
            raise Unfit("another model's name that nobody had asked about")
        if re.search(rf"\bi(?:.m| am) (?:an? |the )?{re.escape(other.lower())}\b", said):
            raise Unfit("taking itself for another model")


def _mentions(text: str, name: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text) is not None


class Novelty:
    """Remembers conversations: the same first exchange, or mostly the same runs of words, is not new."""

    def __init__(self) -> None:
        self._openings: set[tuple[str, ...]] = set()
        self._shingles: set[tuple[str, ...]] = set()

    def add(self, messages: list[Message]) -> None:
        """Raises Unfit for one that is not new, and then remembers nothing of it."""
        opening = tuple(" ".join(_words(message)) for message in messages[:2])
        shingles = {run for message in messages for run in _runs(_words(message))}
        if opening in self._openings:
            raise Unfit("the same first exchange as before")
        if shingles and len(shingles & self._shingles) > _MAX_KNOWN_RATIO * len(shingles):
            raise Unfit("nearly the same as before")
        self._openings.add(opening)
        self._shingles |= shingles


def _words(message: Message) -> list[str]:
    return re.findall(r"\w+", str(message.content).lower())


def _runs(words: list[str]) -> list[tuple[str, ...]]:
    return [tuple(words[i : i + _SHINGLE_WORDS]) for i in range(len(words) - _SHINGLE_WORDS + 1)]
