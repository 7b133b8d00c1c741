"""The one place where pickle data is read: model_*.pt and tokenizer.pkl, as nanochat publishes its checkpoints.

A pickle is a program. These readers let it make tensors, or a dictionary of bytes and numbers, and nothing else. What
it means is published.py's. Of any bytes, unpickling may raise anything: hence the `except Exception`.
"""

import io
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nanochat.errors import DataError, NotFound

# That of a vocabulary of 65536 has 1.5 MB.
_MAX_ENCODING_BYTES = 64 * 2**20


@dataclass
class Encoding:
    """What a pickled tiktoken.Encoding consists of; tiktoken's own class would look a name up on the network."""

    pattern: str
    ranks: dict[bytes, int]
    special_tokens: dict[str, int]


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Tensors by name, on the CPU, mapped from the file. Raises NotFound, or DataError naming the file."""
    if not path.is_file():
        raise NotFound(f"there is no file {path}.")
    try:
        values = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as exc:
        raise DataError(f"{path} is no file of tensors that can be read safely: {_first_line(exc)}") from exc
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise DataError(f"{path} holds {type(values).__name__}, and tensors by name were expected.")
    for name, value in values.items():
        if not isinstance(value, Tensor):
            raise DataError(f"{path} holds {type(value).__name__} under {name!r}, and a tensor was expected.")
    return values


def read_tensor(path: Path) -> Tensor:
    """A single one, likewise."""
    try:
        value = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as exc:
        raise DataError(f"{path} is no tensor that can be read safely: {_first_line(exc)}") from exc
    if not isinstance(value, Tensor):
        raise DataError(f"{path} holds {type(value).__name__}, and a tensor was expected.")
    return value


def read_encoding(path: Path) -> Encoding:
    """A pickled tiktoken.Encoding, and nothing else. Raises DataError naming the file and what it asked for."""
    if path.stat().st_size > _MAX_ENCODING_BYTES:
        raise DataError(f"{path} has {path.stat().st_size} bytes; a tokenizer has {_MAX_ENCODING_BYTES} at most.")
    try:
        value = _EncodingUnpickler(io.BytesIO(path.read_bytes())).load()
    except _Refused as exc:
        raise DataError(f"{path} asks for {exc}; a tokenizer.pkl may hold a tiktoken Encoding alone.") from exc
    except Exception as exc:
        raise DataError(f"{path} is no pickled tiktoken Encoding ({_first_line(exc)}).") from exc
    if not isinstance(value, _EncodingState):
        raise DataError(f"{path} holds {type(value).__name__}, and a tiktoken Encoding was expected.")
    return _checked(value.state, path)


class _Refused(Exception):
    """Something that no tokenizer needs."""


class _EncodingState:
    """Stands in for tiktoken.core.Encoding: keeps what it is given, and computes nothing."""

    state: object = None

    def __setstate__(self, state: object) -> None:
        self.state = state


# The one in Python: the one in C sets memory aside as the data says, before it is there.
class _EncodingUnpickler(pickle._Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("tiktoken.core", "Encoding"):
            return _EncodingState
        raise _Refused(f"{module}.{name}")

    def persistent_load(self, pid: object) -> Any:
        raise _Refused("an object kept elsewhere")


def _checked(state: object, path: Path) -> Encoding:
    if not isinstance(state, dict) or not {"pat_str", "mergeable_ranks", "special_tokens"} <= state.keys():
        raise DataError(f"{path} holds a tiktoken Encoding without its pattern and ranks; it cannot be used alone.")
    pattern, ranks, special = state["pat_str"], state["mergeable_ranks"], state["special_tokens"]
    is_whole = (
        isinstance(pattern, str)
        and isinstance(ranks, dict)
        and all(isinstance(token, bytes) and type(rank) is int for token, rank in ranks.items())
        and isinstance(special, dict)
        and all(isinstance(name, str) and type(number) is int for name, number in special.items())
    )
    if not is_whole:
        raise DataError(f"{path} holds a tiktoken Encoding whose ranks are no numbers by bytes.")
    return Encoding(pattern=pattern, ranks=ranks, special_tokens=special)


def _first_line(exc: Exception) -> str:
    return f"{type(exc).__name__}: {exc}".split("\n", 1)[0]
