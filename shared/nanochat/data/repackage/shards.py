"""Writes shards of parquet as nanochat reads them: zstd, a string column `text`, row groups small enough to share out,
a checksum a page."""

from pathlib import Path
from types import TracebackType
from typing import Self

import pyarrow as pa
import pyarrow.parquet as pq

from nanochat.data.shards import TEXT_COLUMN
from nanochat.files import sync

_SCHEMA = pa.schema([(TEXT_COLUMN, pa.string())])
# Row groups are what ranks share out and what a reader holds in memory.
_ROW_GROUP_DOCUMENTS = 1024
_ROW_GROUP_CHARS = 2 * 2**20


def shard_name(index: int) -> str:
    return f"shard_{index:05d}.parquet"


class ShardWriter:
    """One shard. Close it, or use it in `with`: then it is whole and on the disk."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writer = pq.ParquetWriter(path, _SCHEMA, compression="zstd", write_page_checksum=True)
        self._pending: list[str] = []
        self._pending_chars = 0

    def add(self, text: str) -> None:
        """Raises OSError."""
        self._pending.append(text)
        self._pending_chars += len(text)
        if len(self._pending) >= _ROW_GROUP_DOCUMENTS or self._pending_chars >= _ROW_GROUP_CHARS:
            self._flush()

    def close(self) -> None:
        self._flush()
        self._writer.close()
        sync(self._path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            self._writer.close()

    def _flush(self) -> None:
        if self._pending:
            column = pa.array(self._pending, type=pa.string())
            self._writer.write_table(pa.table({TEXT_COLUMN: column}), row_group_size=len(self._pending))
            self._pending, self._pending_chars = [], 0
