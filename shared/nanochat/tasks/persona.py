"""Who a model is: a TOML file of a few facts, from which conversations about it are made (identity.py, identity/).

nanochat.toml beside this file is the one that is used where none is given, and shows every key.
"""

import functools
import tomllib
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from nanochat.errors import DataError
from nanochat.protocol import Strict

Sentence = Annotated[str, Field(min_length=3, max_length=500)]
ShortName = Annotated[str, Field(min_length=1, max_length=60, pattern=r"^[^\n{}]+$")]
_DEFAULT = Path(__file__).with_name("nanochat.toml")


class Persona(Strict):
    """`facts` and `limits` are sentences about it in the third person; `not_me` are names it must not answer to."""

    name: ShortName
    maker: ShortName
    facts: Annotated[list[Sentence], Field(min_length=1, max_length=50)]
    limits: Annotated[list[Sentence], Field(default_factory=list, max_length=50)]
    tone: Sentence = "friendly and brief"
    languages: Annotated[list[ShortName], Field(default=["English"], min_length=1, max_length=20)]
    not_me: Annotated[list[ShortName], Field(default_factory=list, max_length=100)]

    @classmethod
    def load(cls, path: Path) -> "Persona":
        """Raises DataError naming the file, and the key or the line that is wrong."""
        try:
            values = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as exc:  # tomllib's errors and broken UTF-8 are ValueErrors
            raise DataError(
                f"persona {path} cannot be read: {exc}. It is a TOML file with name, maker and facts."
            ) from exc
        try:
            return cls.model_validate(values)
        except ValidationError as exc:
            first = exc.errors(include_url=False)[0]
            key = ".".join(map(str, first["loc"])) or "the file"
            keys = ", ".join(cls.model_fields)
            raise DataError(f"persona {path}: {key}: {first['msg']}. Its keys are {keys}.") from exc


@functools.cache
def default_persona() -> Persona:
    return Persona.load(_DEFAULT)
