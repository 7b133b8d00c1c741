"""ARC: science questions of American schools, in an easy and a challenging set (arXiv 1803.05457, CC BY-SA 4.0).

Most have four choices, A to D; some have three or five, and some are numbered. Their letters are kept as published.
"""

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from nanochat.tasks.base import Conversation, Row
from nanochat.tasks.benchmark import checked
from nanochat.tasks.multiple_choice import MultipleChoice, choice_conversation


class Choices(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True)

    text: Annotated[list[str], Field(min_length=2)]
    label: list[str]


class Question(BaseModel):
    """A row of the benchmark. `answerKey` is one of the labels."""

    model_config = ConfigDict(frozen=True, strict=True)

    question: str
    choices: Choices
    answerKey: str  # as published

    @model_validator(mode="after")
    def _labels_fit(self) -> Self:
        labels = self.choices.label
        if len(labels) != len(self.choices.text) or len(set(labels)) < len(labels):
            raise ValueError(f"{len(self.choices.text)} choices have the labels {labels}")
        if self.answerKey not in labels:
            raise ValueError(f"answerKey {self.answerKey!r} is none of {labels}")
        return self


class ARC(MultipleChoice):
    """Both sets; which one it is, is a question of the folder."""

    def conversation(self, row: Row) -> Conversation:
        found = checked(Question, row)
        return choice_conversation(found.question, found.choices.text, found.choices.label, found.answerKey)
