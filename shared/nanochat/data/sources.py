"""Streams of tokenised documents that know where they stand and can go back there.

One rank's share of a dataset's text (TextSource) or of a set of conversations (ConversationSource). How documents
become rows is packing.py; reading ahead and saving the position is loader.py.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol

import numpy as np

from nanochat.data.packing import Document, Place
from nanochat.data.shards import Shards, Split
from nanochat.errors import DataError
from nanochat.tokenizer.bpe import Tokenizer

# Documents tokenised at a time: enough to keep the threads of a batch busy, few enough to start soon.
_ENCODE_BATCH = 64


class Source(Protocol):
    """What the loader needs of a stream. `documents()` moves the cursor; a cursor is JSON and names the next document.

    `seek` with `exact=False` is for another rank than the one that saved the cursor: it goes to the start of the
    smallest unit that all ranks agree on.
    """

    rank: int
    world_size: int

    def documents(self) -> Iterator[Document]: ...
    def cursor(self) -> dict[str, Any]: ...
    def seek(self, cursor: dict[str, Any], *, exact: bool) -> None: ...
    def fetch(self, places: Sequence[Place]) -> list[Document]: ...
    def fingerprint(self) -> str: ...
    def close(self) -> None: ...


@dataclass(frozen=True, kw_only=True)
class _TextCursor:
    """The next document. `first_rank` is the rank that gets row group 0 of the shard."""

    epoch: int = 0
    shard: int = 0
    row_group: int = 0
    document: int = 0
    first_rank: int = 0


class TextSource:
    """One rank's documents of a split, in order, over and over (or `num_epochs` times). A place is (shard, row group,
    document). Row groups go to the ranks in turn, counted through the shards, so that none is ever without.
    """

    def __init__(
        self,
        shards: Shards,
        split: Split,
        tokenizer: Tokenizer,
        *,
        rank: int = 0,
        world_size: int = 1,
        num_epochs: int | None = None,
        num_threads: int = 1,
    ) -> None:
        self.rank = rank
        self.world_size = world_size
        self._shards = shards
        self._split = split
        self._tokenizer = tokenizer
        self._num_epochs = num_epochs
        self._num_threads = num_threads
        self._cursor = _TextCursor()
        self._num_empty_epochs = 0

    def documents(self) -> Iterator[Document]:
        """Raises DataError on a bad shard, and where there is not one document to repeat."""
        while self._num_epochs is None or self._cursor.epoch < self._num_epochs:
            self._num_empty_epochs += 1
            for shard in range(self._cursor.shard, len(self._shards.paths(self._split))):
                yield from self._shard(shard)
            # With fewer row groups than ranks a rank is without in some epochs, but never in this many.
            if self._num_epochs is None and self._num_empty_epochs > self.world_size:
                raise DataError(f"dataset {self._shards.folder} has no document in its {self._split} split.")
            self._cursor = replace(self._cursor, epoch=self._cursor.epoch + 1, shard=0)

    def cursor(self) -> dict[str, Any]:
        return asdict(self._cursor)

    def seek(self, cursor: dict[str, Any], *, exact: bool) -> None:
        self._cursor = _TextCursor(**cursor)
        if not exact:
            self._cursor = replace(self._cursor, document=0, first_rank=self._cursor.first_rank % self.world_size)

    def fetch(self, places: Sequence[Place]) -> list[Document]:
        """The documents at these places, in this order; each row group is read once."""
        found: dict[Place, Document] = {}
        for (shard, row_group), group in itertools.groupby(sorted(set(places)), key=lambda place: place[:2]):
            texts = self._shards.read_row_group(self._split, shard, row_group)
            found |= {place: self._document(place, self._tokenizer.encode(texts[place[2]])) for place in group}
        return [found[place] for place in places]

    def fingerprint(self) -> str:
        return self._shards.fingerprint(self._split)

    def close(self) -> None:
        self._shards.close()

    def _shard(self, shard: int) -> Iterator[Document]:
        """The rank's documents of a shard from the cursor on; leaves the cursor at the next shard."""
        num_row_groups = self._shards.num_row_groups(self._split, shard)
        for row_group in range(self._cursor.row_group, num_row_groups):
            if (self._cursor.first_rank + row_group) % self.world_size == self.rank:
                yield from self._row_group(shard, row_group)
            self._cursor = replace(self._cursor, shard=shard, row_group=row_group + 1, document=0)
        first_rank = (self._cursor.first_rank + num_row_groups) % self.world_size
        self._cursor = replace(self._cursor, shard=shard + 1, row_group=0, document=0, first_rank=first_rank)

    def _row_group(self, shard: int, row_group: int) -> Iterator[Document]:
        texts = self._shards.read_row_group(self._split, shard, row_group)
        indices = [index for index in range(self._cursor.document, len(texts)) if texts[index]]
        for start in range(0, len(indices), _ENCODE_BATCH):
            batch = indices[start : start + _ENCODE_BATCH]
            rows = self._tokenizer.encode_batch([texts[index] for index in batch], num_threads=self._num_threads)
            for index, ids in zip(batch, rows, strict=True):
                self._num_empty_epochs = 0
                self._cursor = replace(self._cursor, shard=shard, row_group=row_group, document=index + 1)
                yield self._document((shard, row_group, index), ids)

    def _document(self, place: Place, ids: list[int]) -> Document:
        return Document(place, np.array([self._tokenizer.bos_id, *ids], dtype=np.int32))


class ConversationSource:
    """One rank's conversations, rendered, in order, over and over (or `num_epochs` times). A place is (index,).

    `render(i)` gives ids and mask of conversation i, as tokenizer.chat.render does. They go to the ranks in turn.
    """

    def __init__(
        self,
        num_conversations: int,
        render: Callable[[int], tuple[list[int], list[int]]],
        *,
        rank: int = 0,
        world_size: int = 1,
        num_epochs: int | None = None,
    ) -> None:
        """Raises DataError when there are none."""
        if num_conversations < 1:
            raise DataError("the mixture holds no conversation; add a task or a file that has some.", param="mixture")
        self.rank = rank
        self.world_size = world_size
        self._num_conversations = num_conversations
        self._render = render
        self._num_epochs = num_epochs
        self._position = 0  # counted over all ranks and epochs

    def documents(self) -> Iterator[Document]:
        """Raises InvalidRequest when a conversation's roles are out of order."""
        end = None if self._num_epochs is None else self._num_epochs * self._num_conversations
        while end is None or self._position < end:
            position = self._position
            self._position += 1
            if position % self.world_size == self.rank:
                yield self._document((position % self._num_conversations,))

    def cursor(self) -> dict[str, Any]:
        return {"epoch": self._position // self._num_conversations, "position": self._position}

    def seek(self, cursor: dict[str, Any], *, exact: bool) -> None:
        """A position is every rank's, so `exact` makes no difference."""
        self._position = cursor["position"]

    def fetch(self, places: Sequence[Place]) -> list[Document]:
        return [self._document(place) for place in places]

    def fingerprint(self) -> str:
        return f"{self._num_conversations} conversations"

    def close(self) -> None:
        """Holds nothing open."""

    def _document(self, place: Place) -> Document:
        ids, mask = self._render(place[0])
        return Document(place, np.array(ids, dtype=np.int32), np.array(mask, dtype=np.bool_))
