"""The values of a JSONL file, a line each, with never more than one of them in memory; what is malformed is named."""

import codecs
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from nanochat.errors import DataError

# A file without line ends, or of another kind, is refused before it is in memory whole.
MAX_LINE_BYTES = 64 * 2**20


class Lines(Protocol):
    """An open file of bytes."""

    def readline(self, size: int, /) -> bytes: ...


def read_values(stream: Lines, path: Path) -> Iterator[tuple[str, Any]]:
    """Each line's place ("FILE, line N") and value. Blank lines are passed over, and a mark of the byte order.

    Raises DataError naming the place for what is no JSON in UTF-8.
    """
    number = 0
    while line := stream.readline(MAX_LINE_BYTES + 1):
        number += 1
        place = f"{path}, line {number}"
        if len(line) > MAX_LINE_BYTES:
            raise DataError(f"{place} is longer than {MAX_LINE_BYTES // 2**20} MiB; give one value a line.")
        if number == 1:
            line = line.removeprefix(codecs.BOM_UTF8)
        if line.strip():
            yield place, _parse(line, place)


def _parse(line: bytes, place: str) -> Any:
    try:
        value: Any = json.loads(line.decode())
        if b"\\ud" in line.lower():
            _require_whole_characters(value)
    except UnicodeDecodeError as exc:
        raise DataError(
            f"{place} is not UTF-8 ({exc.reason} at byte {exc.start}). Correct it, or leave it out."
        ) from exc
    except UnicodeEncodeError as exc:
        raise DataError(
            f"{place} has half of a surrogate pair, which is no character. Correct it, or leave it out."
        ) from exc
    except (ValueError, RecursionError) as exc:
        raise DataError(f"{place} is not JSON ({exc}). Correct it, or leave it out.") from exc
    return value


def _require_whole_characters(value: Any) -> None:
    """JSON can escape one half of a character, of which no bytes can be made later. Raises UnicodeEncodeError."""
    json.dumps(value, ensure_ascii=False).encode()
