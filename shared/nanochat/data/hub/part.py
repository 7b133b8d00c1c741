"""A file while it is incomplete: .NAME.part beside its place, and .NAME.part.json with the version that it is of.

Only bytes that are provably of the version asked for are built upon: by a strong ETag that the server compares, or by
a checksum known beforehand that is compared at the end. The final name appears by one rename, after every check.
"""

import hashlib
import os
from pathlib import Path

from pydantic import ValidationError

from nanochat.data.hub.patience import TryAgain
from nanochat.files import sync, write_file
from nanochat.protocol import Strict

PART_SUFFIX = ".part"
_MAGIC = b"PAR1"


class Version(Strict):
    """What is known of the content. `etag` is a strong one, or None."""

    etag: str | None = None
    sha256: str | None = None
    size_bytes: int | None = None

    @property
    def can_be_continued(self) -> bool:
        return self.etag is not None or self.sha256 is not None


class Part:
    """One file's. Methods block: they are for a thread."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self._path = target.with_name(f".{target.name}{PART_SUFFIX}")
        self._note = target.with_name(f".{target.name}{PART_SUFFIX}.json")
        self.version = self._read_version()
        self.size_bytes = self._path.stat().st_size if self._path.exists() else 0

    def begin(self, version: Version) -> None:
        """Forget what is there. The bytes go before the note that would vouch for them."""
        self._path.write_bytes(b"")
        self.size_bytes = 0
        write_file(self._note, version.model_dump_json().encode())
        self.version = version

    def append(self, data: bytes) -> None:
        with self._path.open("ab") as file:
            file.write(data)
        self.size_bytes += len(data)

    def discard(self) -> None:
        for path in (self._path, self._note):
            path.unlink(missing_ok=True)
        self.size_bytes = 0
        self.version = Version()

    def finish(self) -> str:
        """Check the whole file and give it its name; its SHA-256. When it is wrong: keep nothing, raise TryAgain."""
        reason, sha256 = self._fault()
        if reason is not None:
            self.discard()
            raise TryAgain(f"{self.target.name} {reason}")
        sync(self._path)
        self._path.replace(self.target)
        self._note.unlink(missing_ok=True)
        sync(self.target.parent)
        return sha256

    def _fault(self) -> tuple[str | None, str]:
        expected = self.version
        size_bytes = self._path.stat().st_size
        if expected.size_bytes is not None and size_bytes != expected.size_bytes:
            return f"came with {size_bytes} bytes of {expected.size_bytes}", ""
        if not has_magic(self._path):
            return "came as something that is no parquet file", ""
        with self._path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        if expected.sha256 is not None and sha256 != expected.sha256:
            return f"came with the SHA-256 {sha256[:12]}... instead of {expected.sha256[:12]}...", sha256
        return None, sha256

    def _read_version(self) -> Version:
        try:
            return Version.model_validate_json(self._note.read_bytes())
        except (OSError, ValidationError):  # none yet, or half of one
            return Version()


def has_magic(path: Path) -> bool:
    """Begins and ends as parquet does."""
    with path.open("rb") as file:
        head = file.read(len(_MAGIC))
        file.seek(max(0, file.seek(0, os.SEEK_END) - len(_MAGIC)))
        return head == _MAGIC and file.read(len(_MAGIC)) == _MAGIC
