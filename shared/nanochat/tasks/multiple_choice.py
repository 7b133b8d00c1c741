"""Questions with lettered choices, of which one is right: what MMLU and ARC have in common.

The answer is the letter alone. A model's is the likeliest of the letters (evals/chat.py); none is written by it.
"""

from collections.abc import Sequence

from nanochat.protocol.generate import Message
from nanochat.tasks.base import Conversation
from nanochat.tasks.benchmark import Benchmark


class MultipleChoice(Benchmark):
    is_checkable = True
    baseline = 0.25


def choice_conversation(question: str, choices: Sequence[str], letters: Sequence[str], answer: str) -> Conversation:
    """`answer` is one of `letters`, which stand for `choices` in turn."""
    lines = "".join(f"- {choice}={letter}\n" for choice, letter in zip(choices, letters, strict=True))
    request = f"Multiple Choice question: {question}\n{lines}\nRespond only with the letter of the correct answer."
    return Conversation(
        messages=[Message(role="user", content=request), Message(role="assistant", content=answer)],
        answer=answer,
        choices=tuple(letters),
    )
