"""Batches of token ids, made ahead of the training step in threads, from a position that can be saved.

A resumed loader gives the rows that the uninterrupted one would have given: its state holds the source's cursor and
the places of the documents that wait for a row, which are read and tokenised again.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nanochat.data.packing import Buffer, Document, PackingCounts, fill_rows, pad_rows
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

    def to(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Inputs and targets on a device. Out of pinned memory it waits for no copy: the device orders them itself."""
        inputs, targets = (t.to(device, non_blocking=t.is_pinned()) for t in (self.inputs, self.targets))
        return inputs, targets


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
        device: torch.device | None = None,
        num_ahead: int = 4,
    ) -> None:
        """`pads`: rows are padded (pad_rows) and not cut to fill (fill_rows). `state` is one that state() gave. Batches
        for a CUDA `device` lie in pinned memory. Closes the source, also where it raises.

        Raises DataError when the state is of other data. Exact for the rank that saved it; another rank, or another
        number of ranks, goes on from the same row group without the documents that were waiting. What suits them of
        conversations is handover.py's.
        """
        self._source = source
        self._batch_size = batch_size
        self._buffer = Buffer(sequence_len + 1, clips=pads)
        self._counts = PackingCounts()
        try:
            self._fingerprint = source.fingerprint()
            if state is not None:
                self._restore(state)
        except BaseException:
            source.close()
            raise
        pack = pad_rows if pads else fill_rows
        self._rows = pack(self._documents(), self._buffer, sequence_len + 1, self._counts)
        self._state = self._snapshot()
        self._is_closed = threading.Event()
        self._device = device if device is not None and device.type == "cuda" else None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="loader", initializer=self._start_thread)
        self._ahead: deque[Future[Batch | None]] = deque()
        for _ in range(num_ahead):
            self._ahead.append(self._thread.submit(self._make_batch))

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        """Waits only if the thread is behind. Raises what reading raised, such as DataError naming a shard, as often
        as it is asked."""
        assert not self._is_closed.is_set(), "the loader is closed"
        batch = self._ahead[0].result()  # stays first where there is none, or an error
        if batch is None:
            raise StopIteration
        self._ahead.popleft()
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
        """End the threads, drop what they made ahead, close the source. Waits for what they read or tokenise at the
        moment, no longer. Twice is fine."""
        self._is_closed.set()
        self._thread.shutdown(wait=True, cancel_futures=True)
        self._source.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _documents(self) -> Iterator[Document]:
        """The source's, until the loader is closed: a batch in the making then ends at once, and nobody gets it."""
        for document in self._source.documents():
            if self._is_closed.is_set():
                return
            yield document

    def _start_thread(self) -> None:
        if self._device is not None:
            torch.cuda.set_device(self._device)  # a thread's own; else each would open a context on the first device

    def _make_batch(self) -> Batch | None:
        """In the thread. None after the last row."""
        rows = list(islice(self._rows, self._batch_size))
        if not rows:
            return None
        # numpy alone: torch would start threads for this one, beside those that train.
        row_len = len(rows[0].token_ids)
        token_ids = np.full((self._batch_size, row_len), rows[0].token_ids[0])  # (B, T + 1)
        targets = np.full((self._batch_size, row_len - 1), IGNORED)  # (B, T)
        for index, row in enumerate(rows):
            token_ids[index] = row.token_ids
            np.copyto(targets[index], row.token_ids[1:], where=row.is_target[1:])
        inputs = np.ascontiguousarray(token_ids[:, :-1])  # (B, T)
        return Batch(self._tensor(inputs), self._tensor(targets), self._snapshot())

    def _tensor(self, array: NDArray[np.int64]) -> Tensor:
        tensor = torch.from_numpy(array)
        return tensor if self._device is None else tensor.pin_memory()

    def _snapshot(self) -> dict[str, Any]:
        return {
            "fingerprint": self._fingerprint,
            "rank": self._source.rank,
            "world_size": self._source.world_size,
            "cursor": self._source.cursor(),
            "waiting": self._buffer.places(),
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
    device: torch.device | None = None,
    num_threads: int = 2,
) -> Loader:
    """Endless batches of a dataset's training split, for pretraining.

    Raises DataError, also where there are more ranks than row groups. `num_threads` tokenise; two keep up with any
    device.
    """
    source = TextSource(Shards(folder), "train", tokenizer, rank=rank, world_size=world_size, num_threads=num_threads)
    return Loader(source, batch_size=batch_size, sequence_len=sequence_len, pads=False, state=state, device=device)


def validation_loader(
    folder: Path,
    tokenizer: Tokenizer,
    *,
    batch_size: int,
    sequence_len: int,
    rank: int = 0,
    world_size: int = 1,
    device: torch.device | None = None,
    num_threads: int = 2,
) -> Loader:
    """One pass over the rank's share of the validation split; ranks may get different numbers of batches, or none."""
    source = TextSource(
        Shards(folder), "val", tokenizer, rank=rank, world_size=world_size, num_epochs=1, num_threads=num_threads
    )
    return Loader(source, batch_size=batch_size, sequence_len=sequence_len, pads=False, device=device)


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
    device: torch.device | None = None,
) -> Loader:
    """Batches of conversations for fine-tuning, endless unless `num_epochs` is given. `render(i)`: ids and mask."""
    source = ConversationSource(num_conversations, render, rank=rank, world_size=world_size, num_epochs=num_epochs)
    return Loader(source, batch_size=batch_size, sequence_len=sequence_len, pads=True, state=state, device=device)


def count_conversation_rows(
    num_conversations: int, render: Callable[[int], tuple[list[int], list[int]]], sequence_len: int
) -> int:
    """Rows that one pass over the conversations fills, for a run whose length is given in epochs. Renders them all."""
    source = ConversationSource(num_conversations, render, num_epochs=1)
    row_len = sequence_len + 1
    return sum(1 for _ in pad_rows(source.documents(), Buffer(row_len, clips=True), row_len, PackingCounts()))
