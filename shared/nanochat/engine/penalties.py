"""logit_bias and the penalties for repeating: what a row's own tokens change about its next logits.

A row that asks for any keeps a small table, an entry for each token concerned, brought up to date a token at a time; a
step gathers the entries of all such rows, changes those logits, and scatters them back. Rows that ask for nothing have
no table and cost nothing.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from nanochat.engine.params import SamplingParams

_Floats = npt.NDArray[np.float32]


class Penalties:
    """One row's table. Columns: added before the penalties, divides or multiplies, subtracted after."""

    def __init__(self, params: SamplingParams, prompt_ids: Iterable[int]) -> None:
        """`params.changes_logits` is True."""
        self._params = params
        self._has_presence = (params.presence_penalty, params.frequency_penalty) != (0.0, 0.0)
        self._place: dict[int, int] = {}
        self._sampled: set[int] = set()
        self._ids = np.zeros(64, dtype=np.int64)
        self._columns: _Floats = np.zeros((3, 64), dtype=np.float32)
        for token_id, bias in params.logit_bias.items():
            place = self._find(token_id)
            self._columns[0, place] = bias
        if params.repetition_penalty != 1:
            for token_id in set(prompt_ids):
                self._repeat(token_id)

    def add(self, token_id: int, *, is_sampled: bool) -> None:
        """The row has a new token. One that a tool forced counts as repeated only, not as the model's own."""
        if self._params.repetition_penalty != 1:
            self._repeat(token_id)
        if is_sampled and self._has_presence:
            place = self._find(token_id)
            if token_id not in self._sampled:
                self._sampled.add(token_id)
                self._columns[2, place] += self._params.presence_penalty
            self._columns[2, place] += self._params.frequency_penalty

    @property
    def token_ids(self) -> npt.NDArray[np.int64]:
        return self._ids[: len(self._place)]

    @property
    def columns(self) -> _Floats:
        """(3, entries)."""
        return self._columns[:, : len(self._place)]

    def _repeat(self, token_id: int) -> None:
        place = self._find(token_id)
        self._columns[1, place] = self._params.repetition_penalty

    def _find(self, token_id: int) -> int:
        """The token's place, a new one if it has none: for which the arrays may have to be replaced."""
        place = self._place.setdefault(token_id, len(self._place))
        if place == len(self._ids):
            self._ids = np.concatenate([self._ids, np.zeros_like(self._ids)])
            self._columns = np.concatenate([self._columns, np.zeros_like(self._columns)], axis=1)
        if self._columns[1, place] == 0:  # it is new
            self._ids[place], self._columns[1, place] = token_id, 1.0
        return place


def penalised(logits: Tensor, tables: Sequence[Penalties | None]) -> Tensor:
    """A copy of logits (B, V) with every row's table applied; the same tensor where no row has one."""
    own = [(row, table) for row, table in enumerate(tables) if table is not None]
    if not own:
        return logits
    V = logits.size(1)
    flat_ids = np.concatenate([table.token_ids + row * V for row, table in own])
    columns = np.concatenate([table.columns for _, table in own], axis=1)
    places = torch.from_numpy(flat_ids).to(logits.device)
    bias, factor, subtrahend = torch.from_numpy(columns).to(logits.device)
    changed = logits.clone()
    values = changed.view(-1).gather(0, places).add_(bias)
    values = torch.where(values > 0, values / factor, values * factor).sub_(subtrahend)
    changed.view(-1).scatter_(0, places, values)
    return changed
