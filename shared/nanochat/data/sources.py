"""Streams of tokenised documents that know where they stand and can go back there.

One rank's share of a dataset's text (TextSource) or of a set of conversations (ConversationSource). How documents
become rows is packing.py; reading ahead and saving the position is loader.py.
"""

import itertools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol

import numpy as np

from nanochat.data.packing import Document, Place
from nanochat.data.shards import Shards, Split
from nanochat.errors import DataError
from nanochat.tokenizer.bpe import Tokenizer

# Characters that a thread tokenises at a time: some 25 ms of work, of which closing waits for one, and long enough that
# handing it over costs nothing.
_CHUNK_CHARS = 2**17
# Chunks given to each thread ahead: the reading of a row group takes as long as a few.
_CHUNKS_AHEAD = 4


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


@dataclass(frozen=True, slots=True)
class _Chunk:
    """Texts of one row group that are tokenised together, with their numbers in it. `start` is the row group's."""

    start: _TextCursor
    texts: list[tuple[int, str]]


class TextSource:
    """One rank's documents of a split, in order, over and over (or `num_epochs` times). A place is (shard, row group,
    document). Row groups go to the ranks in turn, counted through the shards, so that none is ever without.

    Threads of its own tokenise ahead of the cursor, without the interpreter's lock. Close it.
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
        num_threads: int = 2,
    ) -> None:
        """Raises DataError where an endless source has fewer row groups than there are ranks."""
        self.rank = rank
        self.world_size = world_size
        self._shards = shards
        self._split = split
        self._tokenizer = tokenizer
        self._num_epochs = num_epochs
        self._cursor = _TextCursor()
        self._num_ahead = num_threads * _CHUNKS_AHEAD
        self._threads = ThreadPoolExecutor(num_threads, thread_name_prefix="tokenizer")
        if num_epochs is None:
            self._check_row_groups()

    def documents(self) -> Iterator[Document]:
        """Raises DataError on a bad shard, and where there is not one document to repeat."""
        chunks = self._chunks()
        ahead: deque[tuple[_Chunk, Future[list[Document]]]] = deque()
        while True:
            for chunk in itertools.islice(chunks, self._num_ahead - len(ahead)):
                ahead.append((chunk, self._threads.submit(self._tokenise, chunk)))
            if not ahead:
                break
            chunk, tokenised = ahead.popleft()
            for document in tokenised.result():
                self._cursor = replace(chunk.start, document=document.place[2] + 1)
                yield document
        if self._num_epochs is not None:
            self._cursor = _TextCursor(epoch=self._num_epochs)

    def cursor(self) -> dict[str, Any]:
        return asdict(self._cursor)

    def seek(self, cursor: dict[str, Any], *, exact: bool) -> None:
        self._cursor = _TextCursor(**cursor)
        if not exact:
            self._cursor = replace(self._cursor, document=0, first_rank=self._cursor.first_rank % self.world_size)

    def fetch(self, places: Sequence[Place]) -> list[Document]:
        """The documents at these places, in this order; each row group is read once."""
        tokenised = []
        for (shard, row_group), group in itertools.groupby(sorted(set(places)), key=lambda place: place[:2]):
            texts = self._shards.read_row_group(self._split, shard, row_group)
            start = _TextCursor(shard=shard, row_group=row_group)
            for chunk in _cut(start, [(place[2], texts[place[2]]) for place in group]):
                tokenised.append(self._threads.submit(self._tokenise, chunk))
        found = {document.place: document for future in tokenised for document in future.result()}
        return [found[place] for place in places]

    def fingerprint(self) -> str:
        return self._shards.fingerprint(self._split)

    def close(self) -> None:
        """Waits for the chunks being tokenised."""
        self._threads.shutdown(wait=True, cancel_futures=True)
        self._shards.close()

    def _check_row_groups(self) -> None:
        """Raises DataError when a rank would be without. Opens no more shards than it takes to see."""
        num_row_groups = 0
        for shard in range(len(self._shards.paths(self._split))):
            num_row_groups += self._shards.num_row_groups(self._split, shard)
            if num_row_groups >= self.world_size:
                return
        raise DataError(
            f"dataset {self._shards.folder} has {num_row_groups} row groups in its {self._split} split, and each of "
            f"the {self.world_size} ranks needs one. Start fewer ranks, or write the documents in smaller row groups.",
            param="dataset",
        )

    def _chunks(self) -> Iterator[_Chunk]:
        """The rank's texts from the cursor on, but for empty ones; runs ahead of it."""
        last_found = self._cursor.epoch
        for at in self._row_groups():
            # A rank whose row groups hold nothing gets others in the next epoch, or else the same ones for ever.
            if self._num_epochs is None and at.epoch - last_found > self.world_size:
                raise DataError(
                    f"dataset {self._shards.folder} has only empty texts in its {self._split} split for rank "
                    f"{self.rank} of {self.world_size}; put documents there.",
                    param="dataset",
                )
            texts = self._shards.read_row_group(self._split, at.shard, at.row_group)
            wanted = [(index, texts[index]) for index in range(at.document, len(texts)) if texts[index]]
            for chunk in _cut(at, wanted):
                last_found = at.epoch
                yield chunk

    def _row_groups(self) -> Iterator[_TextCursor]:
        """Each row group of the rank, from the cursor on: the first may be one in its middle."""
        at = self._cursor
        while self._num_epochs is None or at.epoch < self._num_epochs:
            for shard in range(at.shard, len(self._shards.paths(self._split))):
                num_row_groups = self._shards.num_row_groups(self._split, shard)
                for row_group in range(at.row_group, num_row_groups):
                    if (at.first_rank + row_group) % self.world_size == self.rank:
                        yield replace(at, shard=shard, row_group=row_group)
                    at = replace(at, document=0)
                first_rank = (at.first_rank + num_row_groups) % self.world_size
                at = _TextCursor(epoch=at.epoch, shard=shard + 1, first_rank=first_rank)
            at = _TextCursor(epoch=at.epoch + 1, first_rank=at.first_rank)

    def _tokenise(self, chunk: _Chunk) -> list[Document]:
        """In a thread of the pool."""
        documents = []
        for index, text in chunk.texts:
            ids = self._tokenizer.encode_array(text)
            token_ids = np.empty(1 + len(ids), dtype=np.int32)
            token_ids[0], token_ids[1:] = self._tokenizer.bos_id, ids
            documents.append(Document((chunk.start.shard, chunk.start.row_group, index), token_ids))
        return documents


def _cut(start: _TextCursor, texts: Sequence[tuple[int, str]]) -> Iterator[_Chunk]:
    """A row group's texts in chunks of about as many characters."""
    chunk: list[tuple[int, str]] = []
    num_chars = 0
    for index, text in texts:
        chunk.append((index, text))
        num_chars += len(text)
        if num_chars >= _CHUNK_CHARS:
            yield _Chunk(start, chunk)
            chunk, num_chars = [], 0
    if chunk:
        yield _Chunk(start, chunk)


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
