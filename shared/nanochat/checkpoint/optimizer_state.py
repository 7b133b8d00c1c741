"""The optimizer's state in a checkpoint: a safetensors file a rank, read as whole tensors by any number of ranks.

A rank that has some rows of a tensor says which in its file's metadata: name -> "first row, size, size, ...", the sizes
being the whole tensor's. torch.distributed.checkpoint would do this too, but describes its files, and speaks between
ranks, in pickle.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import EllipsisType
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from nanochat.optim.parts import Moment


def write(folder: Path, rank: int, state: Mapping[str, Moment]) -> Path:
    """What one rank holds of it; the folder exists. Gives the file. Raises OSError."""
    path = folder / f"rank_{rank:05d}.safetensors"
    rows = {
        name: ",".join(map(str, (moment.start, *moment.shape))) for name, moment in state.items() if moment.is_split
    }
    write_tensors({name: moment.tensor for name, moment in state.items()}, path, rows)
    return path


def write_tensors(tensors: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str] | None = None) -> None:
    """From any device. Raises OSError, also where safetensors names what the system said by an error of its own."""
    contents = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    try:
        save_file(contents, path, metadata=dict(metadata) if metadata else None)
    except SafetensorError as exc:
        raise OSError(f"{path} could not be written: {exc}") from exc


def read(folder: Path) -> dict[str, "SavedTensor"]:
    """Every tensor of the ranks' files, none of them read yet. Raises SafetensorError or OSError."""
    tensors: dict[str, SavedTensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        file: Any = safe_open(path, framework="pt")
        rows = file.metadata() or {}
        for name in file.keys():  # noqa: SIM118
            piece = file.get_slice(name)
            start, *shape = map(int, rows[name].split(",")) if name in rows else (0, *piece.get_shape())
            tensors.setdefault(name, SavedTensor(torch.Size(shape), [])).pieces.append(_Piece(start, piece))
    return tensors


@dataclass(frozen=True)
class _Piece:
    start: int
    content: Any  # safetensors' slice


@dataclass(frozen=True)
class SavedTensor:
    """Read when it is indexed, by rows or by `...`, and then only the files that have them."""

    shape: torch.Size
    pieces: list[_Piece]

    def __getitem__(self, rows: slice | EllipsisType, /) -> Tensor:
        if not self.shape:
            whole: Tensor = self.pieces[0].content[...]
            return whole
        start, stop, _ = slice(None).indices(self.shape[0]) if rows is ... else rows.indices(self.shape[0])
        found = []
        for piece in sorted(self.pieces, key=lambda piece: piece.start):
            first, last = max(start, piece.start), min(stop, piece.start + piece.content.get_shape()[0])
            if first < last:
                found.append(piece.content[first - piece.start : last - piece.start])
        return torch.cat(found) if found else torch.empty((0, *self.shape[1:]))
