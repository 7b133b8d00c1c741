"""Tasks whose examples are the rows of published data: a folder of JSONL or parquet files, one split or several.

Rows are checked when the task is made, so that a bad one stops a job before it begins, by file and line. What a row is
and what is asked of it is said in each task's own file; where rows come from is loading.py's.
"""

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from typing import ClassVar, TypeVar

from pydantic import BaseModel, ValidationError

from nanochat.errors import DataError
from nanochat.tasks.base import Conversation, Row, Split, Task

M = TypeVar("M", bound=BaseModel)


class Benchmark(Task):
    """The conversations of the rows given, in their order."""

    # Which of the published splits is trained on and which is held out: the first of these that is there.
    published: ClassVar[Mapping[Split, tuple[str, ...]]] = {"train": ("train",), "held_out": ("test", "validation")}

    def __init__(self, split: Split, rows: Iterable[Row]) -> None:
        """Raises DataError naming the place of a row that cannot be used."""
        self._conversations = [self.conversation(row) for row in rows]
        super().__init__(split, len(self._conversations))

    @abstractmethod
    def conversation(self, row: Row) -> Conversation:
        """What a row asks, and the answer. Raises DataError naming the place of a row that cannot be used."""

    def example(self, index: int) -> Conversation:
        return self._conversations[index]


def checked(kind: type[M], row: Row) -> M:
    """A row as `kind`, whose fields it must have. Raises DataError naming the place and the field."""
    try:
        return kind.model_validate(row.values)
    except ValidationError as exc:
        first = exc.errors(include_url=False)[0]
        name = ".".join(map(str, first["loc"])) or "the row"
        fields = ", ".join(kind.model_fields)
        raise DataError(f"{row.place}: {name}: {first['msg']}. A row has {fields}.") from exc
