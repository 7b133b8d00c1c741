"""Small datasets written to disk, and a tokenizer whose tokens are bytes: a document of n ASCII letters has n + 1."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nanochat.tokenizer.bpe import Tokenizer

WriteShards = Callable[..., Path]


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return Tokenizer([bytes([byte]) for byte in range(256)])


@pytest.fixture
def write_shards(tmp_path: Path) -> WriteShards:
    """write_shards([["a", "b"], ["c"]], row_group_size=1) writes a shard for each list; gives the folder."""

    def write(shards: Sequence[Sequence[str | None]], row_group_size: int = 2, name: str = "dataset") -> Path:
        folder = tmp_path / name
        folder.mkdir(parents=True, exist_ok=True)
        for index, texts in enumerate(shards):
            table = pa.table({"text": pa.array(texts, type=pa.string())})
            pq.write_table(table, folder / f"shard_{index:05d}.parquet", row_group_size=row_group_size)
        return folder

    return write
