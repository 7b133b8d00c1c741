"""Remembers which shards of a folder were seen to be right, so that a terabyte is not hashed anew at every start.

.downloaded.jsonl, a line a shard, the last one counts. A shard that was written since, or of which nothing is
remembered, is looked at again.
"""

import hashlib
from pathlib import Path

from pydantic import ValidationError

from nanochat.data.hub.client import RemoteFile
from nanochat.data.hub.part import has_magic
from nanochat.protocol import Strict

LEDGER = ".downloaded.jsonl"


class _Entry(Strict):
    name: str
    size_bytes: int
    sha256: str
    mtime_ns: int
    source: str
    commit: str


class Ledger:
    """One folder's. Methods block: they are for a thread."""

    def __init__(self, folder: Path, source: str, commit: str) -> None:
        self._folder = folder
        self._source = source
        self._commit = commit
        self._entries: dict[str, _Entry] = {}
        path = folder / LEDGER
        for line in path.read_bytes().splitlines() if path.exists() else []:
            try:
                entry = _Entry.model_validate_json(line)
            except ValidationError:  # half a line of a killed process
                continue
            self._entries[entry.name] = entry

    def other_source(self) -> str | None:
        """Where shards that are still there came from, if that was elsewhere."""
        for entry in self._entries.values():
            if entry.source != self._source and (self._folder / entry.name).exists():
                return entry.source
        return None

    def is_right(self, file: RemoteFile) -> bool:
        """Whether the shard is there and is the hub's: by its checksum where the hub tells one, else by its size."""
        path = self._folder / file.name
        if not path.is_file():
            return False
        found = path.stat()
        if file.size_bytes not in (None, found.st_size):
            return False
        known = self._entries.get(file.name)
        if known is not None and (known.size_bytes, known.mtime_ns) == (found.st_size, found.st_mtime_ns):
            return file.sha256 in (None, known.sha256)
        if (file.size_bytes is None and file.sha256 is None) or not has_magic(path):
            return False  # nothing to tell it by
        with path.open("rb") as opened:
            sha256 = hashlib.file_digest(opened, "sha256").hexdigest()
        if file.sha256 not in (None, sha256):
            return False
        self.add(file.name, sha256)
        return True

    def add(self, name: str, sha256: str) -> None:
        found = (self._folder / name).stat()
        entry = _Entry(
            name=name,
            size_bytes=found.st_size,
            sha256=sha256,
            mtime_ns=found.st_mtime_ns,
            source=self._source,
            commit=self._commit,
        )
        self._entries[name] = entry
        with (self._folder / LEDGER).open("a", encoding="utf-8") as file:
            file.write(entry.model_dump_json() + "\n")
