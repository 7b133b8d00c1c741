"""GSM8K: word problems of grade school, solved in a few steps of arithmetic (arXiv 2110.14168, MIT).

A published answer marks its calculations as <<2*3=6>>: these become calls of the calculator and its results, which
stand in the text beside the marks anyway. The last line is "#### " and the number that it comes to.
"""

import re

from pydantic import BaseModel, ConfigDict

from nanochat.errors import DataError
from nanochat.protocol.generate import Message, Part, PythonOutputPart, PythonPart, TextPart
from nanochat.tasks.base import Conversation, Row, final_answer
from nanochat.tasks.benchmark import Benchmark, checked

_CALCULATION = re.compile(r"<<([^<>]*)>>")


class Problem(BaseModel):
    """A row of the benchmark."""

    model_config = ConfigDict(frozen=True, strict=True)

    question: str
    answer: str


class GSM8K(Benchmark):
    is_checkable = True
    # Published solutions come to 420 tokens of three bytes and marks.
    max_answer_tokens = 512

    def conversation(self, row: Row) -> Conversation:
        problem = checked(Problem, row)
        answer = final_answer(problem.answer)
        if answer is None:
            raise DataError(f'{row.place}: answer has no "#### " with a number behind it. Fetch the data again.')
        return Conversation(
            messages=[
                Message(role="user", content=problem.question),
                Message(role="assistant", content=parts_of(problem.answer)),
            ],
            answer=answer,
        )

    def reward(self, conversation: Conversation, text: str) -> float:
        return float(final_answer(text) == conversation.answer)


def parts_of(answer: str) -> list[Part]:
    """Text, and for each mark a call and its result. A mark without "=" is a call without a result."""
    parts: list[Part] = []
    # split() with one group: text and marks in turn.
    for index, piece in enumerate(_CALCULATION.split(answer)):
        if index % 2 == 0:
            parts += [TextPart(text=piece)] if piece else []
        else:
            expression, _, result = piece.rpartition("=") if "=" in piece else (piece, "", "")
            parts += [PythonPart(text=expression), PythonOutputPart(text=result)]
    return parts
