"""A tar file that says what belongs in it: the first entry names the format, the last one every other with its SHA-256.

So a file that was cut short, or changed, is found out. It is written and read as a stream, which passes through a pipe.
Reading takes plain files alone, by names that stay below the folder given: no links, no devices, no owners, nothing
absolute. What is saved is the business of home.py and rows.py.
"""

import hashlib
import io
import json
import re
import tarfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, Self, cast

from nanochat.errors import DataError

FORMAT = 1
HEAD = "nanochat-backup.json"
CONTENTS = "contents.json"
_BLOCK_BYTES = 1 << 20
_MAX_JSON_BYTES = 256 << 20
# Every part begins with a letter or a digit, so that none is empty, `.`, `..` or hidden.
_NAME = re.compile(r"[A-Za-z0-9][^/\\\0]*(/[A-Za-z0-9_][^/\\\0]*)*")


class ArchiveWriter:
    """Entries go into the stream as they are added. Without close() the archive is incomplete, and reads as such.

    Used in `with`, as tarfile writes once more into what it still holds when it is collected.
    """

    def __init__(self, stream: BinaryIO, head: Mapping[str, Any]) -> None:
        self._sink = _Sink(stream)
        stream_of_tar = cast(BinaryIO, self._sink)  # tarfile only writes to it
        self._tar = tarfile.open(fileobj=stream_of_tar, mode="w|", format=tarfile.PAX_FORMAT)  # noqa: SIM115
        self._contents: dict[str, dict[str, Any]] = {}
        self.add_bytes(HEAD, _json({"format": FORMAT, **head}))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._sink.is_closed = True

    @property
    def size_bytes(self) -> int:
        """Of the entries so far."""
        return sum(entry["size_bytes"] for entry in self._contents.values())

    def add_bytes(self, name: str, content: bytes) -> None:
        self.add_file(name, io.BytesIO(content), len(content))

    def add_file(self, name: str, file: BinaryIO, size_bytes: int) -> str:
        """Copy as many bytes from an open file; gives their SHA-256. Raises OSError where it has fewer."""
        assert name not in self._contents, f"{name} is in the archive already"
        entry, hashed = tarfile.TarInfo(name), _Hashed(file)
        entry.size = size_bytes
        self._tar.addfile(entry, hashed)
        sha256 = hashed.digest.hexdigest()
        self._contents[name] = {"size_bytes": size_bytes, "sha256": sha256}
        return sha256

    def close(self, notes: Mapping[str, Any]) -> None:
        """Write the list of contents, with what else the reader should know."""
        contents = dict(self._contents)
        self.add_bytes(CONTENTS, _json({**notes, "files": contents}))
        self._tar.close()


def unpack(stream: BinaryIO, folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Write the archive's files below an empty folder; gives its head and its notes.

    Every byte is compared with the list of contents. gzip and its like are undone. Raises DataError on what is no
    whole backup, OSError where the folder's disk is full.
    """
    found: dict[str, dict[str, Any]] = {}
    head: dict[str, Any] = {}
    notes: dict[str, Any] | None = None
    try:
        with tarfile.open(fileobj=stream, mode="r|*") as tar:
            for entry in tar:
                if not found:
                    head = _read_head(tar, entry)
                elif entry.name == CONTENTS:
                    notes = _read_json(tar, entry)
                    break
                found[entry.name] = _write(tar, entry, folder)
    except (tarfile.TarError, EOFError, zlib.error) as exc:
        if not found:
            raise DataError(f"this is no backup of nanochat ({exc}); give a file that `nanochat backup` made.") from exc
        raise DataError(_cut_short(found)) from exc
    if notes is None:
        raise DataError(_cut_short(found) if found else "this is no backup of nanochat: it is empty.")
    _compare(found, notes.pop("files"))
    return head, notes


def _read_head(tar: tarfile.TarFile, entry: tarfile.TarInfo) -> dict[str, Any]:
    if entry.name != HEAD:
        raise DataError(f"this is no backup of nanochat: it begins with {entry.name!r}, not with {HEAD!r}.")
    head = _read_json(tar, entry)
    if head.get("format") != FORMAT:
        raise DataError(
            f"this backup has format {head.get('format')}, this version reads format {FORMAT}; "
            f"restore it with the version that made it ({head.get('version')})."
        )
    return head


def _write(tar: tarfile.TarFile, entry: tarfile.TarInfo, folder: Path) -> dict[str, Any]:
    """Copy one entry's bytes below the folder; its size and digest."""
    if entry.name == HEAD:
        return {}
    if not entry.isreg() or not _NAME.fullmatch(entry.name):
        raise DataError(f"the backup holds {entry.name!r}, which is no plain file below a folder; it is not restored.")
    source = tar.extractfile(entry)
    assert source is not None, "a plain file has content"
    path, hashed = folder / entry.name, _Hashed(source)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with path.open("xb") as file:
            while block := hashed.read(_BLOCK_BYTES):
                file.write(block)
    except FileExistsError as exc:
        raise DataError(f"the backup holds {entry.name!r} twice; it is not restored.") from exc
    return {"size_bytes": entry.size, "sha256": hashed.digest.hexdigest()}


def _compare(found: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    missing = [name for name in expected if name not in found]
    strange = [name for name in found if name not in expected]
    if missing or strange:
        raise DataError(f"the backup's list of contents does not fit: {(missing or strange)[0]!r} is amiss.")
    for name, entry in expected.items():
        if name != HEAD and found[name] != entry:
            raise DataError(f"{name!r} in the backup has changed since it was written (its SHA-256 differs).")


def _read_json(tar: tarfile.TarFile, entry: tarfile.TarInfo) -> dict[str, Any]:
    source = tar.extractfile(entry) if entry.isreg() and entry.size <= _MAX_JSON_BYTES else None
    try:
        values = json.loads(source.read()) if source else None
    except ValueError as exc:
        raise DataError(f"{entry.name!r} in the backup is no JSON ({exc}); the file has changed.") from exc
    if not isinstance(values, dict):
        raise DataError(f"{entry.name!r} in the backup is no JSON object; the file has changed.")
    return values


def _cut_short(found: Mapping[str, Any]) -> str:
    last = list(found)[-1] if found else "its beginning"
    return f"the backup is cut short after {last!r}; nothing was restored. Copy it again, or take an older one."


def _json(values: Mapping[str, Any]) -> bytes:
    return (json.dumps(values, indent=1) + "\n").encode()


class _Sink:
    """A stream until it is closed, and nothing afterwards."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.is_closed = False

    def write(self, block: bytes) -> int:
        return len(block) if self.is_closed else self._stream.write(block)


class _Hashed:
    """A file that remembers the digest of what was read from it."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self.digest = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        block: bytes = self._file.read(size)
        self.digest.update(block)
        return block
