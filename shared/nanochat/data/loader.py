"""Batches of token ids, made ahead of the training step in a thread, from a position that can be saved.

A resumed loader gives the rows that the uninterrupted one would have given: its state holds the source's cursor and
the places of the documents that wait for a row, which are read and tokenised again.
"""

import logging
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from nanochat.data.packing import Buffer, PackingCounts, Row, fill_rows, pad_rows
from nanochat.data.shards import Shards
from nanochat.data.sources import ConversationSource, Source, TextSource
from nanochat.errors import DataError
from nanochat.tokenizer.bpe import Tokenizer

log = logging.getLogger(__name__)

IGNORED = -1


@dataclass(frozen=True, slots=True)
class Batch:
    """`inputs` and `targets` (B, T) int64 on CPU; ignored targets are -1. `state` is the loader's after this batch."""

    inputs: Tensor
    targets: Tensor
    state: dict[str, Any]


class Loader:
    """An iterator of batches, endless if its source is; a last one that is not full has rows without targets.

    Close it, or use it in `with`. `state()` and `counts` speak of the batches handed out, not of those made ahead.
    """

    def __init__(
        self,
        source: Source,
        *,
        batch_size: int,
        sequence_len: int,
        pads: bool,
        state: Mapping[str, Any] | None = None,
        num_ahead: int = 4,
    ) -> None:
        """`pads`: rows are padded (pad_rows) and not cut to fill (fill_rows). `state` is one that state() gave.

        Raises DataError when the state is of other data. Exact for the rank that saved it; another rank, or another
        number of ranks, goes on from the same row group without the documents that were waiting.
        """
        self._source = source
        self._fingerprint = source.fingerprint()
        self._batch_size = batch_size
        self._buffer = Buffer(clip=sequence_len + 1 if pads else None)
        self._counts = PackingCounts()
        if state is not None:
            self._restore(state)
        pack = pad_rows if pads else fill_rows
        self._rows = pack(source.documents(), self._buffer, sequence_len + 1, self._counts)
        self._state = self._snapshot()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="loader")
        self._ahead: deque[Future[Batch | None]] = deque()
        for _ in range(num_ahead):
            self._ahead.append(self._thread.submit(self._make_batch))

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        """Waits only if the thread is behind. Raises what reading raised, such as DataError naming a shard."""
        future = self._ahead.popleft()
        batch = future.result()
        if batch is None:
            self._ahead.appendleft(future)
            raise StopIteration
        self._ahead.append(self._thread.submit(self._make_batch))
        self._state = batch.state
        return batch

    def state(self) -> dict[str, Any]:
        """JSON from which an equal loader goes on after the last batch handed out."""
        return self._state

    @property
    def counts(self) -> PackingCounts:
        return PackingCounts(**self._state["counts"])

    @property
    def epoch(self) -> int:
        """How many times the source had been read to its end when the last batch was made."""
        return int(self._state["cursor"]["epoch"])

    def close(self) -> None:
        """Wait for the batch in the making, drop those made ahead, close the source. Twice is fine."""
        self._thread.shutdown(wait=True, cancel_futures=True)
        self._source.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _make_batch(self) -> Batch | None:
        """In the thread. None after the last row."""
        rows = list(islice(self._rows, self._batch_size))
        if not rows:
            return None
        num_missing = self._batch_size - len(rows)
        blank = Row(np.full_like(rows[0].token_ids, rows[0].token_ids[0]), np.zeros_like(rows[0].is_target))
        rows += [blank] * num_missing
        token_ids = torch.from_numpy(np.stack([row.token_ids for row in rows]))  # (B, T + 1)
        is_target = torch.from_numpy(np.stack([row.is_target for row in rows]))
        targets = token_ids.masked_fill(~is_target, IGNORED)[:, 1:].contiguous()
        return Batch(token_ids[:, :-1].contiguous(), targets, self._snapshot())

    def _snapshot(self) -> dict[str, Any]:
        return {
            "fingerprint": self._fingerprint,
            "rank": self._source.rank,
            "world_size": self._source.world_size,
            "cursor": self._source.cursor(),
            "waiting": [list(place) for place in self._buffer.places()],
            "counts": asdict(self._counts),
        }

    def _restore(self, state: Mapping[str, Any]) -> None:
        if state["fingerprint"] != self._fingerprint:
            raise DataError(
                "the data is not what the checkpoint was trained on: files were added, removed or changed. "
                "Restore them, or start a new run from the checkpoint."
            )
        is_same_rank = (state["rank"], state["world_size"]) == (self._source.rank, self._source.world_size)
        self._source.seek(state["cursor"], exact=is_same_rank)
        if not is_same_rank:
            log.warning("loader_resumed_roughly", extra={"saved_by_rank": state["rank"], "of": state["world_size"]})
            return
        self._counts = PackingCounts(**state["counts"])
        for document in self._source.fetch([tuple(place) for place in state["waiting"]]):
            self._buffer.add(document)


def training_loader(
    folder: Path,
    tokenizer: Tokenizer,
    *,
    batch_size: int,
    sequence_len: int,
    rank: int = 0,
    world_size: int = 1,
    state: Mapping[str, Any] | None = None,
    num_threads: int = 1,
) -> Loader:
    """Endless batches of a dataset's training split, for pretraining. Raises DataError."""
    source = TextSource(Shards(folder), "train", tokenizer, rank=rank, world_size=world_size, num_threads=num_threads)
    return Loader(source, batch_size=batch_size, sequence_len=sequence_len, pads=False, state=state)


def validation_loader(
    folder: Path,
    tokenizer: Tokenizer,
    *,
    batch_size: int,
    sequence_len: int,
    rank: int = 0,
    world_size: int = 1,
    num_threads: int = 1,
) -> Loader:
    """One pass over the rank's share of the validation split; ranks may get different numbers of batches."""
    source = TextSource(
        Shards(folder), "val", tokenizer, rank=rank, world_size=world_size, num_epochs=1, num_threads=num_threads
    )
    return Loader(source, batch_size=batch_size, sequence_len=sequence_len, pads=False)


def conversation_loader(
    num_conversations: int,
    render: Callable[[int], tuple[list[int], list[int]]],
    *,
    batch_size: int,
    sequence_len: int,
    rank: int = 0,
    world_size: int = 1,
    num_epochs: int | None = None,
    state: Mapping[str, Any] | None = None,
) -> Loader:
    """Batches of conversations for fine-tuning, endless unless `num_epochs` is given. `render(i)`: ids and mask."""
    source = ConversationSource(num_conversations, render, rank=rank, world_size=world_size, num_epochs=num_epochs)
    return Loader(source, batch_size=batch_size, sequence_len=sequence_len, pads=True, state=state)


def count_conversation_rows(
    num_conversations: int, render: Callable[[int], tuple[list[int], list[int]]], sequence_len: int
) -> int:
    """Rows that one pass over the conversations fills, for a run whose length is given in epochs. Renders them all."""
    source = ConversationSource(num_conversations, render, num_epochs=1)
    row_len = sequence_len + 1
    return sum(1 for _ in pad_rows(source.documents(), Buffer(clip=row_len), row_len, PackingCounts()))
