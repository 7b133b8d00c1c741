"""Rows of a benchmark's data as they are published: JSONL or parquet, a file or a folder of files."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from nanochat.errors import DataError
from nanochat.tasks.base import Row

_BATCH_ROWS = 1024


def read_rows(path: Path) -> Iterator[Row]:
    """Every row of a path, in order of file name and row. Blank lines are passed over.

    Raises DataError naming the path where there is nothing to read, file and line (or row) for what is no object.
    """
    for file in _files(path):
        try:
            yield from _parquet(file) if file.suffix == ".parquet" else _jsonl(file)
        except OSError as exc:
            reason = exc.strerror or exc
            raise DataError(f"{file} cannot be read: {reason}. Check the file and its permissions.") from exc


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise DataError(f"{path} is no file or folder; put the benchmark's data there, as .jsonl or .parquet.")
    for suffix in (".jsonl", ".parquet"):
        if files := sorted(file for file in path.iterdir() if file.suffix == suffix and file.is_file()):
            return files
    raise DataError(f"{path} holds no .jsonl or .parquet file; put the benchmark's data there.")


def _jsonl(file: Path) -> Iterator[Row]:
    with file.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            place = f"{file}, line {number}"
            try:
                values: Any = json.loads(line.decode("utf-8"))
            except UnicodeDecodeError as exc:
                raise DataError(f"{place}: byte {exc.start} is not UTF-8; save the file as UTF-8.") from exc
            except (ValueError, RecursionError) as exc:
                raise DataError(f"{place} is not JSON ({exc}); give one object a line.") from exc
            if not isinstance(values, dict):
                raise DataError(f"{place} is a {type(values).__name__}; give one object a line.")
            yield Row(place=place, values=values)


def _parquet(file: Path) -> Iterator[Row]:
    number = 0
    try:
        with pq.ParquetFile(file) as parquet:
            for batch in parquet.iter_batches(batch_size=_BATCH_ROWS, use_threads=False):
                for values in batch.to_pylist():
                    number += 1
                    yield Row(place=f"{file}, row {number}", values=values)
    except (pa.ArrowException, UnicodeDecodeError) as exc:
        raise DataError(f"{file} is no sound parquet file ({exc}); fetch or copy it again.") from exc
