"""What a conversation is to be like: drawn from a seed and its number, so that they differ, and come again the same.

Left to itself a model writes the same conversation a thousand times; here topic, asker, opening, length and language
are drawn apart, over ten thousand ways.
"""

import json
import random
from dataclasses import dataclass
from typing import Any

from nanochat.tasks.persona import Persona

TOPICS = (
    "its name", "who made it", "how it was trained", "what it can do", "what it cannot do",
    "whether it is some other model",
    "whether it is a person", "how large it is", "whether it remembers earlier chats", "its code and licence",
    "how it differs from famous assistants", "whether it has feelings", "how old it is", "where it runs",
    "whether it can be trusted", "what its name means", "how to make one like it", "what it was trained on",
)  # fmt: skip
ASKERS = (
    "a curious child", "a busy engineer", "a teacher preparing a lesson", "a sceptic", "somebody who is bored",
    "a student of computer science", "a grandparent new to chat programs", "a journalist", "a lonely person at night",
    "a manager who is choosing a tool", "somebody whose English is poor", "a friendly neighbour", "a poet",
    "somebody who mistakes it for another assistant", "a philosopher", "somebody in a hurry",
)  # fmt: skip
OPENINGS = (
    "a bare greeting", "a question without any greeting", "a greeting and a question in one message",
    "a statement that is wrong and has to be corrected", "a task that leads to the topic", "a compliment",
    "a complaint", "one word", "a long rambling message", "a message all in lower case without punctuation",
    "a message with typing errors", "a joke",
)  # fmt: skip
_MAX_TURNS = 4


@dataclass(frozen=True, kw_only=True)
class Draw:
    """Number `index` of a seed."""

    index: int
    topic: str
    asker: str
    opening: str
    language: str
    num_turns: int


def draw(persona: Persona, seed: int, index: int) -> Draw:
    rng = random.Random(f"identity/{seed}/{index}")
    return Draw(
        index=index,
        topic=rng.choice(TOPICS),
        asker=rng.choice(ASKERS),
        opening=rng.choice(OPENINGS),
        language=rng.choice(persona.languages),
        num_turns=rng.randint(1, _MAX_TURNS),
    )


# What comes back, where the endpoint can hold a model to a schema.
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "messages": {
            "type": "array",
            "minItems": 2,
            "maxItems": 2 * _MAX_TURNS,
            "items": {
                "type": "object",
                "properties": {
                    "role": {"type": "string", "enum": ["user", "assistant"]},
                    "content": {"type": "string", "minLength": 1, "maxLength": 1500},
                },
                "required": ["role", "content"],
                "additionalProperties": False,
            },
        }
    },
    "required": ["messages"],
    "additionalProperties": False,
}


def request(persona: Persona, wanted: Draw) -> list[dict[str, str]]:
    """The messages that ask an endpoint for one conversation."""
    facts = "\n".join(f"- {fact}" for fact in (*persona.facts, *persona.limits))
    system = (
        "You write conversations from which a small chat model learns who it is. Answer with JSON alone: "
        '{"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}, ...]}, user and '
        "assistant in turn, the user first, the assistant last. The assistant is the model described here.\n\n"
        f"Name: {persona.name}\nMade by: {persona.maker}\nManner: {persona.tone}\n{facts}\n\n"
        "It claims nothing about itself that is not written above; asked for more, it says that it does not know. "
        "It never takes itself for another model or company. Plain text, no placeholders."
    )
    particulars = {
        "topic": wanted.topic,
        "user": wanted.asker,
        "first message": wanted.opening,
        "language": wanted.language,
        "user messages": wanted.num_turns,
    }
    user = f"Write one conversation: {json.dumps(particulars, ensure_ascii=False)}"
    return [{"role": "system", "content": system}, {"role": "user", "content": user}]
