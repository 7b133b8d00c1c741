"""Room on the disk: asked for before much is written, and watched while it is.

A disk that is full to the last byte takes the database and the logs down with it, so some of it is left alone.
"""

import errno
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from nanochat.errors import DiskFull

RESERVE_BYTES = 256 * 2**20
_LOOK_EVERY_BYTES = 32 * 2**20
_FULL = (errno.ENOSPC, errno.EDQUOT)


def free_bytes(folder: Path) -> int:
    """Of the file system that the folder is on. Raises OSError."""
    return shutil.disk_usage(folder).free


class Disk:
    """One folder's. `free` is asked anew each time."""

    def __init__(
        self, folder: Path, reserve_bytes: int = RESERVE_BYTES, free: Callable[[Path], int] = free_bytes
    ) -> None:
        self._folder = folder
        self._reserve_bytes = reserve_bytes
        self._free = free
        self._unwatched_bytes = 0

    def require(self, needed_bytes: int, what: str) -> None:
        """Raises DiskFull unless so much can be written and the reserve is still there."""
        free = self._free(self._folder)
        if needed_bytes + self._reserve_bytes > free:
            raise DiskFull(
                f"{what} needs {gigabytes(needed_bytes)} in {self._folder}, where {gigabytes(free)} are free and "
                f"{gigabytes(self._reserve_bytes)} are left alone. Make room, take less, or move NANOCHAT_HOME."
            )

    def written(self, num_bytes: int) -> None:
        """To be told after each write; looks at the disk now and then. Raises DiskFull once the reserve is touched."""
        self._unwatched_bytes += num_bytes
        if self._unwatched_bytes >= _LOOK_EVERY_BYTES:
            self._unwatched_bytes = 0
            if self._free(self._folder) < self._reserve_bytes:
                raise self._full()

    @contextmanager
    def full_is_said(self) -> Iterator[None]:
        """The system's own "no space left", whoever writes, as DiskFull."""
        try:
            yield
        except OSError as exc:
            if exc.errno in _FULL:
                raise self._full() from exc
            raise

    def _full(self) -> DiskFull:
        return DiskFull(
            f"the disk of {self._folder} is full. Make room there and start again: what is whole stays, and what has "
            "begun goes on."
        )


def gigabytes(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:.2f} GB"
