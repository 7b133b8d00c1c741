"""One file from its first byte to its final name, over as many connections as it takes.

Each attempt goes on where the last one ended, if the server can and what it has is still the same file. Attempts end
only when several in a row got no further.
"""

import logging
import re
from collections.abc import Callable
from pathlib import Path

import httpx

from nanochat.data.disk import Disk
from nanochat.data.hub.client import Hub, RemoteFile
from nanochat.data.hub.part import Part, Version
from nanochat.data.hub.patience import TryAgain
from nanochat.data.hub.threads import in_thread

log = logging.getLogger(__name__)

# Large enough that writing in a thread costs nothing, small enough that a kill loses little.
_WRITE_BYTES = 2**20
_CONTENT_RANGE = re.compile(r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)")
_SHA256 = re.compile(r"[0-9a-f]{64}")


async def fetch(
    hub: Hub, file: RemoteFile, folder: Path, disk: Disk, on_size: Callable[[int], None] = lambda size_bytes: None
) -> str:
    """Make folder/NAME the remote file, and give its SHA-256. `on_size` gets the bytes that are there, as they change.

    What has come stays for the next time when this is cancelled or fails. Raises Unavailable, DataError, NotFound,
    DiskFull, OSError.
    """
    part = await in_thread(Part, folder / file.name)
    failures, furthest = 0, part.size_bytes
    while True:
        try:
            on_size(part.size_bytes)
            with disk.full_is_said():
                await _Attempt(hub, file, part, disk, on_size).run()
                return await in_thread(part.finish)
        except TryAgain as exc:
            if part.size_bytes > furthest:
                failures, furthest = 0, part.size_bytes
            failures += 1
            if failures >= hub.throttle.patience.max_attempts:
                raise hub.unreachable(failures, exc) from exc
            log.warning(
                "download_retried",
                extra={"file": file.name, "at_byte": part.size_bytes, "attempt": failures, "reason": exc.reason},
            )
            await hub.throttle.pause(failures, exc.retry_after_s)


class _Attempt:
    """One request, and what of its answer reaches the disk."""

    def __init__(self, hub: Hub, file: RemoteFile, part: Part, disk: Disk, on_size: Callable[[int], None]) -> None:
        self._hub = hub
        self._file = file
        self._part = part
        self._disk = disk
        self._on_size = on_size

    async def run(self) -> None:
        """Raises TryAgain unless every byte has come."""
        part = self._part
        if not self._is_of_this_file(part.version):
            part.discard()
        if part.size_bytes and part.size_bytes == part.version.size_bytes:
            return  # killed between the last byte and the rename
        headers = {}
        if part.size_bytes:
            headers["range"] = f"bytes={part.size_bytes}-"
            if part.version.etag is not None:
                headers["if-range"] = part.version.etag
        async with self._hub.request(self._file.url, headers) as response:
            await in_thread(self._place, response)
            await self._receive(response)
        size_bytes = part.version.size_bytes
        if size_bytes is not None and part.size_bytes < size_bytes:
            raise TryAgain(f"the answer ended after {part.size_bytes} bytes of {size_bytes}")

    def _is_of_this_file(self, version: Version) -> bool:
        """Whether bytes of that version may be gone on with."""
        wanted = self._file
        same_sha256 = None in (wanted.sha256, version.sha256) or wanted.sha256 == version.sha256
        same_size = None in (wanted.size_bytes, version.size_bytes) or wanted.size_bytes == version.size_bytes
        is_too_long = version.size_bytes is not None and self._part.size_bytes > version.size_bytes
        return version.can_be_continued and same_sha256 and same_size and not is_too_long

    def _place(self, response: httpx.Response) -> None:
        """Where the bytes to come belong: behind those that are there, or at the beginning. Raises TryAgain."""
        part, status = self._part, response.status_code
        told = _version(response)
        if status == 200:
            part.begin(self._expected(told))
            self._on_size(0)
            return
        first, total = _content_range(response)
        fits = first == part.size_bytes and total in (None, part.version.size_bytes or total)
        is_same = None in (told.sha256, part.version.sha256) or told.sha256 == part.version.sha256
        if status == 416 or not fits or not is_same or not part.size_bytes:
            found = part.size_bytes
            part.discard()
            raise TryAgain(f"{response.url.host} cannot go on at byte {found}; it begins anew")

    def _expected(self, told: Version) -> Version:
        """What was known beforehand goes before what the answer says of itself. Raises TryAgain where they disagree."""
        size_bytes = told.size_bytes if self._file.size_bytes is None else self._file.size_bytes
        sha256 = self._file.sha256 or told.sha256
        if told.size_bytes not in (None, size_bytes):
            raise TryAgain(f"{self._file.name} is offered with {told.size_bytes} bytes of {size_bytes}")
        if told.sha256 not in (None, sha256):
            raise TryAgain(f"{self._file.name} is offered with another SHA-256 than the list of files has")
        return Version(etag=told.etag, sha256=sha256, size_bytes=size_bytes)

    async def _receive(self, response: httpx.Response) -> None:
        pending = bytearray()
        try:
            async for chunk in response.aiter_raw():
                pending += chunk
                if len(pending) >= _WRITE_BYTES:
                    data, pending = bytes(pending), bytearray()
                    await in_thread(self._write, data)
        finally:  # cut or cancelled: what has come is kept
            if pending:
                self._write(bytes(pending))

    def _write(self, data: bytes) -> None:
        part = self._part
        size_bytes = part.version.size_bytes
        if size_bytes is not None and part.size_bytes + len(data) > size_bytes:
            part.discard()
            raise TryAgain(f"{self._file.name} came with more than its {size_bytes} bytes")
        part.append(data)
        self._on_size(part.size_bytes)
        self._disk.written(len(data))


def _version(response: httpx.Response) -> Version:
    """What an answer says of the whole file. A hub tells size and SHA-256 with the redirect to where the bytes are."""
    etag = response.headers.get("etag")
    size_bytes = _number(response.headers.get("content-length")) if response.status_code == 200 else None
    sha256 = None
    for hop in (*response.history, response):
        size_bytes = _number(hop.headers.get("x-linked-size")) or size_bytes
        linked = hop.headers.get("x-linked-etag", "").strip('"')
        sha256 = linked if _SHA256.fullmatch(linked) else sha256
    is_strong = etag is not None and etag.startswith('"')
    return Version(etag=etag if is_strong else None, sha256=sha256, size_bytes=size_bytes)


def _content_range(response: httpx.Response) -> tuple[int | None, int | None]:
    """First byte and size of the whole; None for what is not said."""
    found = _CONTENT_RANGE.fullmatch(response.headers.get("content-range", ""))
    return (_number(found[1]), _number(found[3])) if found else (None, None)


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdigit() else None
