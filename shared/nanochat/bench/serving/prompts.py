"""What is asked for: random token ids, which have the length that was wished in any tokenizer, or random words.

Random, so that no server finds the beginning of a prompt in its cache unless that is what is measured.
"""

import random
from dataclasses import dataclass
from typing import Literal

_LETTERS = "abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True)
class Messages:
    """A conversation, as (role, content); the last is the user's."""

    turns: tuple[tuple[Literal["user", "assistant"], str], ...]

    @classmethod
    def of(cls, text: str) -> "Messages":
        return cls((("user", text),))

    def answered(self, answer: str, text: str) -> "Messages":
        """The next turn."""
        return Messages((*self.turns, ("assistant", answer), ("user", text)))

    def as_json(self) -> list[dict[str, str]]:
        return [{"role": role, "content": content} for role, content in self.turns]


Prompt = list[int] | str | Messages


def token_ids(num_tokens: int, num_ids: int, *, seed: object) -> list[int]:
    dice = random.Random(f"ids/{seed}")
    return [dice.randrange(num_ids) for _ in range(num_tokens)]


def words(num_words: int, *, seed: object) -> str:
    """Of three letters: one token each in most vocabularies, two in small ones."""
    dice = random.Random(f"words/{seed}")
    return " ".join("".join(dice.choices(_LETTERS, k=3)) for _ in range(num_words))
