"""Puts documents into rows of fixed length, best fit first, so that few tokens are padded or thrown away.

Both ways fill a row with the largest document that still fits. When none fits, pretraining cuts the shortest one to
fill the row (fill_rows), fine-tuning leaves the rest of the row empty (pad_rows). Knows nothing of where documents
come from (sources.py) or of batches (loader.py).
"""

import heapq
from collections import defaultdict, deque
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Where a document can be read again: counts that mean something to its source.
Place = tuple[int, ...]

BUFFER_SIZE = 1000


@dataclass(frozen=True, slots=True)
class Document:
    """Token ids of one document, BOS first, (n,) int32. `is_target` (n,) marks those to be learned; None: all.

    `num_cut` counts the tokens behind these that were not kept, since no row takes them.
    """

    place: Place
    token_ids: NDArray[np.int32]
    is_target: NDArray[np.bool_] | None = None
    num_cut: int = 0

    def __len__(self) -> int:
        """Tokens of the whole document."""
        return len(self.token_ids) + self.num_cut

    def cut(self, max_len: int) -> "Document":
        """The document with its first `max_len` tokens, copied so that the others' memory is given back."""
        if len(self.token_ids) <= max_len:
            return self
        is_target = None if self.is_target is None else self.is_target[:max_len].copy()
        return Document(self.place, self.token_ids[:max_len].copy(), is_target, len(self) - max_len)


@dataclass(frozen=True, slots=True)
class Row:
    """`token_ids` (row_len,) int64; `is_target` (row_len,) says which count in the loss when predicted."""

    token_ids: NDArray[np.int64]
    is_target: NDArray[np.bool_]


@dataclass(slots=True)
class PackingCounts:
    """What became of the tokens so far; `num_truncated` counts documents that lost their end."""

    num_tokens: int = 0
    num_discarded: int = 0
    num_padding: int = 0
    num_truncated: int = 0

    @property
    def discarded_ratio(self) -> float:
        """Share of the documents' tokens that stand in no row."""
        total = self.num_tokens + self.num_discarded
        return self.num_discarded / total if total else 0.0


class Buffer:
    """Documents waiting for a row, found by length; of equally long ones the oldest goes first.

    Those that fit a row stand in a queue for each length, and the bits of one integer tell which queues hold any: the
    largest that fits is the highest bit below a position, a few machine words away however many wait. Longer ones
    stand in a heap, O(log n), or, with `clips`, count as long as a row, which they fill. Of a document no more than
    `row_len` tokens are held.
    """

    def __init__(self, row_len: int, *, clips: bool = False) -> None:
        self._row_len = row_len
        self._clips = clips
        self._fitting: defaultdict[int, deque[int]] = defaultdict(deque)  # length -> arrivals
        self._lengths = 0  # bit n: a document of n tokens waits
        self._longer: list[tuple[int, int]] = []  # a heap of (length, arrival)
        self._documents: dict[int, Document] = {}  # by arrival, in its order
        self._num_arrived = 0

    def add(self, document: Document) -> None:
        assert len(document), "a document has its BOS at least"
        length = min(len(document), self._row_len) if self._clips else len(document)
        arrival, self._num_arrived = self._num_arrived, self._num_arrived + 1
        self._documents[arrival] = document.cut(self._row_len)
        if length > self._row_len:
            heapq.heappush(self._longer, (length, arrival))
        else:
            self._fitting[length].append(arrival)
            self._lengths |= 1 << length

    def take_largest(self, max_len: int) -> Document | None:
        """The longest document of at most `max_len` tokens, a row's length or less; None when there is none."""
        fitting = self._lengths & ((2 << max_len) - 1)
        return self._take(fitting.bit_length() - 1) if fitting else None

    def take_shortest(self) -> Document:
        if self._lengths:
            return self._take((self._lengths & -self._lengths).bit_length() - 1)
        _, arrival = heapq.heappop(self._longer)
        return self._documents.pop(arrival)

    def places(self) -> list[Place]:
        """Where the waiting documents come from, oldest first: added again in this order, they come out the same."""
        return [document.place for document in self._documents.values()]

    def __len__(self) -> int:
        return len(self._documents)

    def _take(self, length: int) -> Document:
        queue = self._fitting[length]
        arrival = queue.popleft()
        if not queue:
            del self._fitting[length]
            self._lengths ^= 1 << length
        return self._documents.pop(arrival)


def fill_rows(
    documents: Iterator[Document], buffer: Buffer, row_len: int, counts: PackingCounts, size: int = BUFFER_SIZE
) -> Iterator[Row]:
    """Rows without padding: whole documents, and where none fits the shortest one cut to fill the row, its rest lost.

    Each row begins with BOS, as each document does. Holds at most `size` documents. When the documents end, the last
    row is filled up with tokens that are no targets.
    """
    while _refill(buffer, documents, size):
        row = _RowBuilder(row_len, counts)
        while row.space and _refill(buffer, documents, size):
            row.put(buffer.take_largest(row.space) or buffer.take_shortest())
        yield row.finish()


def pad_rows(
    documents: Iterator[Document], buffer: Buffer, row_len: int, counts: PackingCounts, size: int = BUFFER_SIZE
) -> Iterator[Row]:
    """Rows of whole documents, the rest of each row padding that is no target.

    The buffer clips: a longer document keeps its first tokens and is counted. Holds at most `size` documents.
    """
    while _refill(buffer, documents, size):
        row = _RowBuilder(row_len, counts)
        while document := buffer.take_largest(row.space):
            row.put(document)
            if not row.space or not _refill(buffer, documents, size):
                break
        yield row.finish()


def _refill(buffer: Buffer, documents: Iterator[Document], size: int) -> bool:
    """Fill the buffer as far as the documents go. False when there is nothing left at all."""
    while len(buffer) < size:
        document = next(documents, None)
        if document is None:
            break
        buffer.add(document)
    return len(buffer) > 0


class _RowBuilder:
    """A row being filled from the left. What is not filled repeats the first document's BOS and is no target."""

    def __init__(self, row_len: int, counts: PackingCounts) -> None:
        self.space = row_len
        self._token_ids = np.zeros(row_len, dtype=np.int64)
        self._is_target = np.zeros(row_len, dtype=np.bool_)
        self._counts = counts

    def put(self, document: Document) -> None:
        start = len(self._token_ids) - self.space
        num_kept = min(len(document.token_ids), self.space)
        self._token_ids[start : start + num_kept] = document.token_ids[:num_kept]
        self._is_target[start : start + num_kept] = (
            True if document.is_target is None else document.is_target[:num_kept]
        )
        self.space -= num_kept
        self._counts.num_tokens += num_kept
        self._counts.num_discarded += len(document) - num_kept
        self._counts.num_truncated += num_kept < len(document)

    def finish(self) -> Row:
        if self.space:
            self._token_ids[-self.space :] = self._token_ids[0]
            self._counts.num_padding += self.space
        return Row(self._token_ids, self._is_target)
