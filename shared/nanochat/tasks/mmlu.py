"""MMLU: questions of 57 subjects, from school to professions, four choices each (arXiv 2009.03300, MIT)."""

from collections.abc import Mapping
from typing import Annotated, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from nanochat.tasks.base import Conversation, Row, Split
from nanochat.tasks.benchmark import checked
from nanochat.tasks.multiple_choice import MultipleChoice, choice_conversation

_LETTERS = "ABCD"


class Question(BaseModel):
    """A row of the benchmark. `answer` is the right choice's index."""

    model_config = ConfigDict(frozen=True, strict=True)

    question: str
    subject: str
    choices: Annotated[list[str], Field(min_length=len(_LETTERS), max_length=len(_LETTERS))]
    answer: Annotated[int, Field(ge=0, lt=len(_LETTERS))]


class MMLU(MultipleChoice):
    published: ClassVar[Mapping[Split, tuple[str, ...]]] = {
        "train": ("auxiliary_train",),
        "held_out": ("test", "validation"),
    }

    def conversation(self, row: Row) -> Conversation:
        found = checked(Question, row)
        return choice_conversation(found.question, found.choices, _LETTERS, _LETTERS[found.answer])
