"""The documents of files and folders, one after the other, with never more than one (or one batch) in memory.

    *.jsonl *.ndjson          a line is an object with the text under `column`
    *.txt *.text *.md         a file is a document; a very long one is several
    *.parquet                 a row is a document, its text in `column`
    ....gz ....zst            any but parquet, compressed

What is malformed is named by file and line (row, byte). Knows nothing of what becomes of the documents.
"""

import codecs
import gzip
import io
import logging
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, cast

import pyarrow as pa
import pyarrow.parquet as pq

from nanochat.data.jsonl import read_values
from nanochat.errors import DataError

log = logging.getLogger(__name__)

LINES = (".jsonl", ".ndjson")
PLAIN = (".txt", ".text", ".md")
PARQUET = ".parquet"
COMPRESSED = (".gz", ".zst")

# Bounds memory: a text that is longer becomes several documents.
MAX_TEXT_CHARS = 16 * 2**20
_CHUNK_BYTES = 2**20
_BATCH_ROWS = 256
# Of a key in an error message. Keys are a stranger's: their control characters are shown, not sent to a terminal.
_SHOWN_CHARS = 40
# For the room that a shuffle needs: text packs to a third or so, rarely to less than a fifth.
_UNPACKED_RATIO = 5


class Documents:
    """Of a file, or of all files below a folder in the order of their paths. Iterate once."""

    def __init__(self, source: Path, column: str = "text") -> None:
        """Raises DataError when nothing there can be read."""
        self.files = _find_files(source)
        self.total_bytes = sum(path.stat().st_size for path in self.files)
        self._column = column
        self._done_bytes = 0
        self._raw: IO[bytes] | None = None

    @property
    def bytes_read(self) -> int:
        """Of the files as they lie on the disk, up to total_bytes."""
        return self._done_bytes + (self._raw.tell() if self._raw is not None and not self._raw.closed else 0)

    def unpacked_bytes(self) -> int:
        """About how much text there is. Raises DataError naming a parquet file that is corrupt or lacks the column."""
        return sum(self._unpacked_bytes(path) for path in self.files)

    def __iter__(self) -> Iterator[str]:
        """Raises DataError naming file and place."""
        for path in self.files:
            kind = _kind(path)
            with path.open("rb") as self._raw:
                if kind == PARQUET:
                    yield from self._rows(path)
                else:
                    try:
                        yield from self._lines(path) if kind in LINES else self._texts(path)
                    except (OSError, EOFError, zlib.error, pa.ArrowException) as exc:
                        raise DataError(f"{path} cannot be read: {exc}. Copy or pack it again.") from exc
            self._done_bytes += path.stat().st_size

    def _lines(self, path: Path) -> Iterator[str]:
        for place, found in read_values(self._unpacked(path), path):
            yield self._text_of(found, place)

    def _text_of(self, found: object, place: str) -> str:
        column = self._column
        if not isinstance(found, dict):
            raise _malformed(place, f"is no JSON object but {type(found).__name__}")
        if column not in found:
            keys = ", ".join(ascii(key)[:_SHOWN_CHARS] for key in list(found)[:8]) or "none"
            raise _malformed(place, f"has no key {column!r}, only {keys}; name the right one as column")
        text = found[column]
        if not isinstance(text, str):
            raise _malformed(place, f"has {type(text).__name__} under {column!r}, not a string")
        return text

    def _texts(self, path: Path) -> Iterator[str]:
        stream = self._unpacked(path)
        decode = codecs.getincrementaldecoder("utf-8-sig")().decode
        text, num_bytes = "", 0
        while True:
            chunk = stream.read(_CHUNK_BYTES)
            try:
                text += decode(chunk, not chunk)
            except UnicodeDecodeError as exc:
                raise DataError(
                    f"{path} is not UTF-8: {exc.reason} near byte {num_bytes + exc.start}. Convert it, or leave it out."
                ) from exc
            num_bytes += len(chunk)
            if not chunk:
                yield _with_plain_line_ends(text)
                return
            if len(text) > MAX_TEXT_CHARS:
                cut = text.rfind("\n\n", MAX_TEXT_CHARS // 2)
                cut = cut if cut >= 0 else text.rfind("\n", MAX_TEXT_CHARS // 2)
                cut = cut if cut >= 0 else len(text) - 1  # -1: a \r whose \n has not come yet
                yield _with_plain_line_ends(text[:cut])
                text = text[cut:]

    def _rows(self, path: Path) -> Iterator[str]:
        row = 0
        try:
            with self._parquet(path) as file:
                for batch in file.iter_batches(_BATCH_ROWS, columns=[self._column], use_threads=False):
                    column = batch.column(0)
                    if column.null_count:
                        index = row + column.is_null().index(pa.scalar(True)).as_py()
                        raise DataError(f"row {index} of {path} is null; every row must hold text. Leave it out.")
                    yield from cast("list[str]", column.to_pylist())
                    row += len(column)
        except UnicodeDecodeError as exc:
            raise DataError(f"{path} holds text that is not UTF-8, near row {row}: {exc.reason}.") from exc
        except (pa.ArrowException, OSError) as exc:
            raise _corrupt(path, exc) from exc

    def _parquet(self, path: Path) -> pq.ParquetFile:
        file = pq.ParquetFile(path, page_checksum_verification=True)
        schema = file.schema_arrow
        index = schema.get_field_index(self._column)
        kind = schema.field(index).type if index >= 0 else None
        if kind is None:
            file.close()
            names = ", ".join(schema.names) or "none"
            raise DataError(f"{path} has no column {self._column!r}, only {names}; name the right one as column.")
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)):
            file.close()
            raise DataError(f"column {self._column!r} of {path} holds {kind}; it must hold strings, a document each.")
        return file

    def _unpacked(self, path: Path) -> io.BufferedIOBase:
        raw = cast("io.BufferedReader", self._raw)
        if path.suffix.lower() == ".gz":
            return gzip.GzipFile(fileobj=raw)
        if path.suffix.lower() == ".zst":
            return io.BufferedReader(cast("io.RawIOBase", pa.CompressedInputStream(raw, "zstd")), _CHUNK_BYTES)
        return raw

    def _unpacked_bytes(self, path: Path) -> int:
        if _kind(path) != PARQUET:
            return path.stat().st_size * (_UNPACKED_RATIO if path.suffix.lower() in COMPRESSED else 1)
        try:
            with self._parquet(path) as file:
                index = file.schema_arrow.get_field_index(self._column)
                groups = (file.metadata.row_group(group) for group in range(file.num_row_groups))
                return sum(group.column(index).total_uncompressed_size for group in groups)
        except (pa.ArrowException, OSError) as exc:
            raise _corrupt(path, exc) from exc


def _find_files(source: Path) -> list[Path]:
    if source.is_file():
        if _kind(source) is None:
            raise DataError(f"{source} is none of {_kinds()}; rename it to say which one it is.")
        return [source]
    if not source.is_dir():
        raise DataError(f"{source} is no file and no folder; name a file or a folder of {_kinds()}.")
    found: list[Path] = []
    others: list[Path] = []
    for path in sorted(_below(source)):
        (found if _kind(path) is not None and path.is_file() else others).append(path)
    if not found:
        raise DataError(f"{source} holds no file of {_kinds()}.")
    if others:
        log.warning("files_left_out", extra={"count": len(others), "first": str(others[0]), "taken": _kinds()})
    return found


def _below(source: Path) -> Iterator[Path]:
    """All that is no folder, hidden ones left out. A link to a folder is not followed: inside, what it leads to is met
    anyway. Raises DataError for a link that leads outside, OSError for a folder that cannot be listed."""
    root = source.resolve()
    for folder, names, files in os.walk(source, onerror=_raise):
        names[:] = [name for name in names if not name.startswith(".")]
        for path in (Path(folder, name) for name in [*names, *files] if not name.startswith(".")):
            if path.is_symlink() and path.exists() and not path.resolve().is_relative_to(root):
                raise DataError(
                    f"{path} leads to {path.resolve()}, outside the folder; copy what is there, or remove the link."
                )
            if not path.is_dir():
                yield path


def _raise(error: OSError) -> None:
    raise error


def _kind(path: Path) -> str | None:
    """The suffix that says how to read it; None: nobody knows."""
    path = path.with_name(path.name.lower())
    is_compressed = path.suffix in COMPRESSED
    suffix = Path(path.stem).suffix if is_compressed else path.suffix
    allowed = (*LINES, *PLAIN) if is_compressed else (*LINES, *PLAIN, PARQUET)
    return suffix if suffix in allowed else None


def _kinds() -> str:
    names = ", ".join(f"*{suffix}" for suffix in (*LINES, *PLAIN, PARQUET))
    return f"{names} (but for parquet, also {' or '.join(COMPRESSED)})"


def _with_plain_line_ends(text: str) -> str:
    return text.replace("\r\n", "\n")


def _malformed(place: str, what: str) -> DataError:
    return DataError(f"{place} {what}. Correct it, or leave it out.")


def _corrupt(path: Path, reason: Exception) -> DataError:
    return DataError(f"{path} cannot be read as parquet: {reason}. Fetch or copy it again.")
