"""Who are you, who made you, are you that other one: asked in many ways, answered out of a persona.

The built-in set, for a model to know its name without any endpoint to write for it; nanochat/identity has one write
more. To train on alone.
"""

import random

from nanochat.protocol.generate import Message
from nanochat.tasks.base import Conversation, GeneratedTask, Split
from nanochat.tasks.persona import Persona, default_persona
from nanochat.tasks.phrasing import varied
from nanochat.tasks.smalltalk import GREETING, WHO_ARE_YOU, WHO_MADE_YOU

_LIMIT_QUESTIONS = (
    "What can't you do?", "What are your limits?", "What are you bad at?", "Can I trust what you say?",
    "Do you make mistakes?", "Are you always right?", "What should I not ask you?", "Do you know everything?",
)  # fmt: skip
_FACT_QUESTIONS = (
    "Tell me something about yourself.", "Tell me more about you.", "What is special about you?",
    "Describe yourself in a sentence.", "What should I know about you?", "What kind of model are you?",
    "How do you work?", "What do you know about yourself?",
)  # fmt: skip
_ARE_YOU = (
    "Are you {other}?", "You are {other}, right?", "Is this {other}?", "So you are made by {other}?",
    "Aren't you {other}?", "I thought you were {other}.", "Do you run on {other}?", "{other}, is that you?",
)  # fmt: skip
_NAME_ANSWERS = ("I am {name}, made by {maker}.", "My name is {name}. I was made by {maker}.", "I'm {name}.")
_MAKER_ANSWERS = ("I was made by {maker}.", "{maker} made me. I am {name}.", "I am {name}, and {maker} made me.")
_NOT_OTHER = ("No, I am {name}, made by {maker}.", "No. My name is {name}; {other} is somebody else.")
_HELLO = ("Hello! I am {name}. How can I help you?", "Hi! I'm {name}.")


class Identity(GeneratedTask):
    """One or two questions in a row, the second about something else."""

    def __init__(
        self, split: Split, *, size: int | None = None, seed: int = 42, persona: Persona | None = None
    ) -> None:
        super().__init__(split, size=size, seed=seed)
        self._persona = persona or default_persona()

    def draw(self, rng: random.Random) -> Conversation:
        turns = rng.sample(
            [self._name, self._maker, self._fact, self._limit, self._other, self._hello], rng.randint(1, 2)
        )
        messages: list[Message] = []
        for turn in turns:
            request, answer = turn(rng)
            messages += [Message(role="user", content=request), Message(role="assistant", content=answer)]
        return Conversation(messages=messages)

    def _name(self, rng: random.Random) -> tuple[str, str]:
        # Those that name nanochat, and those about others, belong to its own persona or to _other.
        requests = [request for request in WHO_ARE_YOU.requests if "nanochat" not in request and "GPT" not in request]
        return varied(rng, rng.choice(requests)), self._say(rng.choice(_NAME_ANSWERS))

    def _maker(self, rng: random.Random) -> tuple[str, str]:
        requests = [request for request in WHO_MADE_YOU.requests if "OpenAI" not in request]
        return varied(rng, rng.choice(requests)), self._say(rng.choice(_MAKER_ANSWERS))

    def _fact(self, rng: random.Random) -> tuple[str, str]:
        return varied(rng, rng.choice(_FACT_QUESTIONS)), first_person(rng.choice(self._persona.facts))

    def _limit(self, rng: random.Random) -> tuple[str, str]:
        if not self._persona.limits:
            return self._fact(rng)
        return varied(rng, rng.choice(_LIMIT_QUESTIONS)), first_person(rng.choice(self._persona.limits))

    def _other(self, rng: random.Random) -> tuple[str, str]:
        if not self._persona.not_me:
            return self._name(rng)
        other = rng.choice(self._persona.not_me)
        return rng.choice(_ARE_YOU).format(other=other), self._say(rng.choice(_NOT_OTHER), other)

    def _hello(self, rng: random.Random) -> tuple[str, str]:
        greetings = [request for request in GREETING.requests if "nanochat" not in request]
        return rng.choice(greetings), self._say(rng.choice(_HELLO))

    def _say(self, template: str, other: str = "") -> str:
        maker = self._persona.maker
        said = template.format(name=self._persona.name, maker=maker, other=other)
        return said[:1].upper() + said[1:]


def first_person(fact: str) -> str:
    """ "It cannot see." -> "I cannot see.": a fact as the model says it of itself."""
    for third, first in (("It is ", "I am "), ("It was ", "I was "), ("It has ", "I have "), ("Its ", "My ")):
        if fact.startswith(third):
            return first + fact.removeprefix(third)
    return "I " + fact.removeprefix("It ") if fact.startswith("It ") else fact
