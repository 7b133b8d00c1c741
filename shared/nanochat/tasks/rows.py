"""Rows of a benchmark's data as they are published: JSONL or parquet, some files a split."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from nanochat.data.jsonl import read_values
from nanochat.errors import DataError
from nanochat.tasks.base import Row

_BATCH_ROWS = 1024


def read_files(files: Iterable[Path]) -> Iterator[Row]:
    """Every row of some files, in order. Blank lines are passed over.

    Raises DataError naming file and line (or row) for what is no object.
    """
    for file in files:
        try:
            yield from _parquet(file) if file.suffix == ".parquet" else _jsonl(file)
        except OSError as exc:
            reason = exc.strerror or exc
            raise DataError(f"{file} cannot be read: {reason}. Check the file and its permissions.") from exc


def _jsonl(file: Path) -> Iterator[Row]:
    with file.open("rb") as stream:
        for place, values in read_values(stream, file):
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
