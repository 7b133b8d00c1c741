"""Sums, differences and products of two whole numbers from 0 to 999 with the calculator.

The pair of numbers, in either order, belongs to one split, whatever is done with it.
"""

import random
from dataclasses import dataclass

from nanochat.protocol.generate import Message, Part, PythonOutputPart, PythonPart, TextPart
from nanochat.tasks.base import Conversation, GeneratedTask, Split, last_number
from nanochat.tasks.phrasing import varied
from nanochat.tasks.words import split_of

# {sum} is the whole expression as written, for instance "12 + 7", "12 plus 7" or "12+7".
MAIN_TEMPLATE = "What is {sum}?"
TEMPLATES = (
    "What's {sum}?",
    "What does {sum} equal?",
    "What does {sum} make?",
    "What do you get for {sum}?",
    "What is the result of {sum}?",
    "What is the value of {sum}?",
    "What is the answer to {sum}?",
    "How much is {sum}?",
    "How much does {sum} make?",
    "Calculate {sum}",
    "Calculate {sum}.",
    "Calculate: {sum}",
    "Calculate {sum} for me.",
    "Compute {sum}",
    "Compute {sum}.",
    "Compute: {sum}",
    "Evaluate {sum}",
    "Evaluate: {sum}",
    "Work out {sum}.",
    "Figure out {sum}.",
    "Solve {sum}",
    "Solve: {sum}",
    "Find {sum}.",
    "Find the value of {sum}.",
    "Give me {sum}.",
    "Give me the result of {sum}.",
    "Tell me what {sum} is.",
    "Tell me the result of {sum}.",
    "Do you know what {sum} is?",
    "Can you calculate {sum}?",
    "Can you compute {sum}?",
    "Can you work out {sum} for me?",
    "Could you tell me what {sum} is?",
    "I need to know {sum}.",
    "I want to know what {sum} is.",
    "{sum}",
    "{sum} = ?",
    "{sum} =",
    "{sum}=",
    "{sum}?",
    "{sum} equals what?",
    "{sum} is how much?",
)


@dataclass(frozen=True)
class Operation:
    """One of + - *: how the calculator writes it, how people do, and requests that name both numbers."""

    symbol: str
    signs: tuple[str, ...]
    words: tuple[str, ...]
    sentences: tuple[str, ...]


OPERATIONS = (
    Operation(
        "+",
        ("+",),
        ("plus", "and", "added to"),
        (
            "Add {a} and {b}.",
            "Add {a} to {b}.",
            "What is the sum of {a} and {b}?",
            "Find the sum of {a} and {b}.",
            "Calculate the sum of {a} and {b}.",
            "What do you get if you add {a} and {b}?",
        ),
    ),
    Operation(
        "-",
        ("-", "-", "\N{MINUS SIGN}"),
        ("minus", "minus", "take away", "less"),
        (
            "Subtract {b} from {a}.",
            "What is the difference of {a} and {b}?",
            "What is the difference between {a} and {b}?",
            "Take {b} away from {a}.",
            "What do you get if you subtract {b} from {a}?",
        ),
    ),
    Operation(
        "*",
        ("*", "*", "x", "\N{MULTIPLICATION SIGN}"),
        ("times", "times", "multiplied by", "by"),
        (
            "Multiply {a} by {b}.",
            "Multiply {a} and {b}.",
            "What is the product of {a} and {b}?",
            "Find the product of {a} and {b}.",
            "Calculate the product of {a} and {b}.",
            "What do you get if you multiply {a} by {b}?",
        ),
    ),
)


class Arithmetic(GeneratedTask):
    is_checkable = True

    def draw(self, rng: random.Random) -> Conversation:
        a, b = draw_pair(rng, self.split)
        operation = rng.choice(OPERATIONS)
        request = varied(rng, _request(rng, operation, a, b), kept=str(a))
        result = str({"+": a + b, "-": a - b, "*": a * b}[operation.symbol])
        answer: list[Part] = [
            PythonPart(text=f"{a}{operation.symbol}{b}"),
            PythonOutputPart(text=result),
            TextPart(text=f"The answer is {result}."),
        ]
        return Conversation(
            messages=[Message(role="user", content=request), Message(role="assistant", content=answer)],
            answer=result,
        )

    def reward(self, conversation: Conversation, text: str) -> float:
        return float(last_number(text) == conversation.answer)


def draw_pair(rng: random.Random, split: Split) -> tuple[int, int]:
    """Two numbers from 0 to 999, short ones as often as long ones, whose pair is of the split."""
    while True:
        a, b = (rng.randrange(10 ** rng.choice((1, 2, 3, 3))) for _ in range(2))
        if split_of(f"{min(a, b)},{max(a, b)}") == split:
            return a, b


def _request(rng: random.Random, operation: Operation, a: int, b: int) -> str:
    kind = rng.random()
    if kind < 0.1:
        return rng.choice(operation.sentences).format(a=a, b=b)
    if kind < 0.3:
        written = f"{a} {rng.choice(operation.words)} {b}"
    else:
        space = " " if rng.random() < 0.7 else ""
        written = f"{a}{space}{rng.choice(operation.signs)}{space}{b}"
    template = MAIN_TEMPLATE if rng.random() < 0.3 else rng.choice(TEMPLATES)
    return template.format(sum=written)
