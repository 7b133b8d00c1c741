"""A uniformly random order of more documents than fit into memory.

Each document goes to a bucket on the disk, drawn at random; then each bucket is read and shuffled by itself, one that
is too large for that by buckets of its own. That is sorting by a random number, its leading digit first. The order
depends on the seed and on the order in which documents come, and on nothing else.
"""

import random
import struct
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

Pieces = tuple[str, ...]  # of one document

NUM_BUCKETS = 64
MAX_BUCKET_BYTES = 32 * 2**20
_BUFFER_BYTES = 2**17
_COUNT = struct.Struct("<I")


class BucketShuffle:
    """`add` every document, then `drain` once. Holds NUM_BUCKETS files open; memory is a bucket and the buffers."""

    def __init__(
        self,
        folder: Path,
        seed: str,
        *,
        num_buckets: int = NUM_BUCKETS,
        max_bucket_bytes: int = MAX_BUCKET_BYTES,
        on_written: Callable[[int], None] = lambda num_bytes: None,
    ) -> None:
        """Makes the folder. `on_written` gets the bytes of each document written; what it raises ends the shuffle."""
        folder.mkdir()
        self._folder = folder
        self._seed = seed
        self._random = random.Random(seed)
        self._max_bucket_bytes = max_bucket_bytes
        self._on_written = on_written
        self._paths = [folder / f"{index:03d}" for index in range(num_buckets)]
        self._files = [path.open("wb", buffering=_BUFFER_BYTES) for path in self._paths]
        self._num_documents = [0] * num_buckets

    def add(self, pieces: Sequence[str]) -> None:
        """Raises OSError."""
        index = self._random.randrange(len(self._files))
        file = self._files[index]
        encoded = [piece.encode() for piece in pieces]
        file.write(_COUNT.pack(len(encoded)))
        for piece in encoded:
            file.write(_COUNT.pack(len(piece)))
            file.write(piece)
        self._num_documents[index] += 1
        self._on_written(sum(map(len, encoded)))

    def drain(self) -> Iterator[list[Pieces]]:
        """The documents in their new order, a memoryful at a time; what has been given is off the disk."""
        self.close()
        for index, path in enumerate(self._paths):
            # One document is in order, however large it is.
            if path.stat().st_size <= self._max_bucket_bytes or self._num_documents[index] <= 1:
                with path.open("rb") as file:
                    documents = list(_read(file))
                path.unlink()
                self._random.shuffle(documents)
                if documents:
                    yield documents
            else:
                yield from self._finer(path, index)
        self._folder.rmdir()

    def close(self) -> None:
        for file in self._files:
            file.close()

    def _finer(self, path: Path, index: int) -> Iterator[list[Pieces]]:
        inner = BucketShuffle(
            path.with_suffix(".buckets"),
            f"{self._seed}/{index}",
            num_buckets=len(self._paths),
            max_bucket_bytes=self._max_bucket_bytes,
            on_written=self._on_written,
        )
        try:
            with path.open("rb") as file:
                for pieces in _read(file):
                    inner.add(pieces)
            path.unlink()
            yield from inner.drain()
        finally:
            inner.close()


def _read(file: BinaryIO) -> Iterator[Pieces]:
    while header := file.read(_COUNT.size):
        pieces = []
        for _ in range(_COUNT.unpack(header)[0]):
            (size,) = _COUNT.unpack(file.read(_COUNT.size))
            pieces.append(file.read(size).decode())
        yield tuple(pieces)
