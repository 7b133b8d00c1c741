"""Files of text become a dataset: read, split, shuffled, written; the last shard for validation.

Twice through the text: onto the disk in random order, and from there into shards, so that memory is bounded whatever
the size. A document is in one split as a whole, though its pieces are documents of their own afterwards.
"""

import logging
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from nanochat.data.disk import Disk
from nanochat.data.repackage.documents import Documents
from nanochat.data.repackage.shards import ShardWriter, shard_name
from nanochat.data.repackage.shuffle import MAX_BUCKET_BYTES, BucketShuffle, Pieces
from nanochat.data.repackage.splitting import split_document
from nanochat.errors import Conflict, DataError
from nanochat.files import locked, sync

log = logging.getLogger(__name__)

DEFAULT_MAX_DOCUMENT_CHARS = 30_000  # about what the longest context trained here holds
# About 100 MB on the disk, as the public datasets have.
_SHARD_CHARS = 250_000_000
# Of a small dataset a tenth is for validation.
_MIN_TRAINING_SHARDS = 9


@dataclass(kw_only=True)
class Counts:
    """What has become of the documents. `num_documents` are those written, pieces of long ones included."""

    num_read: int = 0
    num_empty: int = 0
    num_split: int = 0
    num_documents: int = 0
    num_chars: int = 0
    num_shards: int = 0

    def as_values(self) -> dict[str, float]:
        return {name: float(value) for name, value in vars(self).items()}


@dataclass(frozen=True, kw_only=True)
class Repackaging:
    """What is to be made. `num_shards` are for training (None: about 250 million characters each)."""

    source: Path
    target: Path
    num_shards: int | None = None
    column: str = "text"
    max_document_chars: int = DEFAULT_MAX_DOCUMENT_CHARS
    seed: int = 0
    max_bucket_bytes: int = MAX_BUCKET_BYTES


def repackage(
    job: Repackaging,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    *,
    disk: Disk | None = None,
) -> Counts:
    """Make the folder `target`, whole or not at all.

    `on_progress` gets bytes done and in all, after each document; what it raises ends the work, and nothing remains.
    Raises DataError naming file and place, Conflict when the target is there, DiskFull, OSError.
    """
    target = job.target
    _check_free(target)
    documents = Documents(job.source, job.column)
    work = target.with_name(f".{target.name}.repackaging")
    with locked(work, wait=False):
        try:
            _clear(work)  # of a killed one
            disk = disk or Disk(work)
            disk.require(documents.unpacked_bytes(), f"shuffling {job.source}")
            with disk.full_is_said():
                counts = _Run(job, documents, work, disk, on_progress).run()
                with locked(target.parent):
                    _check_free(target)
                    (work / "shards").rename(target)
                    sync(target.parent)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    log.info("dataset_repackaged", extra={"folder": str(target), **vars(counts)})
    return counts


class _Run:
    def __init__(
        self, job: Repackaging, documents: Documents, work: Path, disk: Disk, on_progress: Callable[[int, int], None]
    ) -> None:
        self._job = job
        self._documents = documents
        self._work = work
        self._disk = disk
        self._on_progress = on_progress
        self._counts = Counts()
        self._random = random.Random(f"pieces/{job.seed}")
        self._num_written = 0
        self._chars_written = 0

    def run(self) -> Counts:
        shuffle = BucketShuffle(
            self._work / "buckets",
            f"order/{self._job.seed}",
            max_bucket_bytes=self._job.max_bucket_bytes,
            on_written=self._disk.written,
        )
        try:
            self._spread(shuffle)
            self._gather(shuffle.drain())
        finally:
            shuffle.close()
        return self._counts

    def _spread(self, shuffle: BucketShuffle) -> None:
        """Every document, in pieces, to its bucket. Raises DataError when there are too few."""
        counts, total = self._counts, 2 * self._documents.total_bytes
        for text in self._documents:
            counts.num_read += 1
            pieces = list(split_document(text, self._job.max_document_chars))
            counts.num_empty += not pieces
            counts.num_split += len(pieces) > 1
            if pieces:
                shuffle.add(pieces)
                counts.num_documents += len(pieces)
                counts.num_chars += sum(map(len, pieces))
            self._on_progress(self._documents.bytes_read, total)
        num_whole = counts.num_read - counts.num_empty
        if num_whole < 2:
            raise DataError(
                f"{self._job.source} has {num_whole} documents with text ({counts.num_empty} are empty); two are "
                "needed: one to train on and one to validate with."
            )

    def _gather(self, order: Iterator[list[Pieces]]) -> None:
        """The documents in their new order: first the validation shard, then the others."""
        folder = self._work / "shards"
        folder.mkdir()
        counts, asked = self._counts, self._job.num_shards
        num_shards = asked or max(_MIN_TRAINING_SHARDS, -(-counts.num_chars // _SHARD_CHARS))
        validation = folder / "validation"
        rest = self._validation(order, validation, counts.num_chars / (num_shards + 1))
        num_left = counts.num_documents - self._num_written
        if asked is not None and num_left < asked:
            raise DataError(
                f"num_shards is {asked}, and {self._job.source} has {num_left} documents for training; ask for fewer."
            )
        num_shards = min(num_shards, num_left)
        self._training(rest, folder, num_shards)
        validation.rename(folder / shard_name(num_shards))
        counts.num_shards = num_shards + 1
        sync(folder)

    def _validation(self, order: Iterator[list[Pieces]], path: Path, num_chars: float) -> Iterator[list[Pieces]]:
        """Write whole documents until there are so many characters, at least one and never all; gives the others.

        Stops before that where the shards asked for would else find too little.
        """
        may_take = self._counts.num_read - self._counts.num_empty - 1
        num_spare = self._counts.num_documents - (self._job.num_shards or 1)
        with ShardWriter(path) as shard:
            for documents in order:
                taken = chars = 0
                while taken < min(len(documents), may_take) and self._chars_written + chars < num_chars:
                    num_spare -= len(documents[taken])
                    if num_spare < 0 and self._chars_written + chars:
                        may_take = taken
                        break
                    chars += sum(map(len, documents[taken]))
                    taken += 1
                may_take -= taken
                for text in self._mixed(documents[:taken]):
                    shard.add(text)
                if taken < len(documents):
                    return chain([documents[taken:]], order)
        raise AssertionError("one document is always left")

    def _training(self, order: Iterator[list[Pieces]], folder: Path, num_shards: int) -> None:
        """So many shards of about equal size, none empty."""
        first_char, num_left = self._chars_written, self._counts.num_documents - self._num_written
        num_chars = self._counts.num_chars - first_char
        texts = (text for documents in order for text in self._mixed(documents))
        text = next(texts)
        for index in range(num_shards):
            num_later = num_shards - 1 - index
            end = num_chars * (index + 1) / num_shards
            with ShardWriter(folder / shard_name(index)) as shard:
                while True:
                    shard.add(text)
                    num_left -= 1
                    following = next(texts, None)
                    if following is None:
                        return
                    text = following
                    # This one was counted in _mixed already.
                    is_full = self._chars_written - len(text) - first_char >= end
                    if num_later and (is_full or num_left <= num_later):
                        break

    def _mixed(self, documents: list[Pieces]) -> Iterator[str]:
        """The pieces of the documents, so that those of a book are not all in a row."""
        texts = [piece for pieces in documents for piece in pieces]
        self._random.shuffle(texts)
        total = self._documents.total_bytes
        for text in texts:
            self._num_written += 1
            self._chars_written += len(text)
            self._disk.written(len(text))
            self._on_progress(total + total * self._chars_written // self._counts.num_chars, 2 * total)
            yield text


def _check_free(target: Path) -> None:
    if target.exists():
        raise Conflict(f"{target} exists already; choose another name, or remove it.", param="name")


def _clear(folder: Path) -> None:
    """But for the lock that is held."""
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
