"""The documents of a dataset: shards of parquet with a string column `text`, the last shard for validation.

Knows nothing of tokens (sources.py) or of where datasets lie (registry.py). Torch-free.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, cast

import pyarrow as pa
import pyarrow.parquet as pq

from nanochat.data.registry import list_shards
from nanochat.errors import DataError

Split = Literal["train", "val"]
TEXT_COLUMN = "text"


class Shards:
    """Reads a dataset's folder. Keeps one shard open at a time; one thread's own. Close it, or use it in `with`."""

    def __init__(self, folder: Path) -> None:
        """Raises DataError naming the folder or the shard when the dataset cannot be used."""
        self.folder = folder
        *train, val = list_shards(folder)
        self._paths: dict[Split, tuple[Path, ...]] = {"train": tuple(train), "val": (val,)}
        self._open: tuple[Path, pq.ParquetFile] | None = None

    def paths(self, split: Split) -> tuple[Path, ...]:
        return self._paths[split]

    def num_row_groups(self, split: Split, shard: int) -> int:
        """Row groups of the split's `shard`-th file. Raises DataError when it is corrupt or has no `text`."""
        return int(self._file(self._paths[split][shard]).num_row_groups)

    def require_row_groups(self, num_ranks: int) -> None:
        """Raises DataError where the training split has fewer than there are ranks to give one to."""
        found = 0
        for shard in range(len(self._paths["train"])):
            found += self.num_row_groups("train", shard)
            if found >= num_ranks:
                return
        raise DataError(
            f"dataset {self.folder} has {found} row groups to train on, and there are {num_ranks} ranks; train with at "
            "most as many, or write its shards with smaller row groups.",
            param="dataset",
        )

    def check_footers(self) -> None:
        """Raises DataError naming the first shard, of either split, that is no parquet with a column `text`, or the
        first null where a footer counts nulls. One that does not has its nulls found when they are read.

        Reads the footers, a third of a millisecond each, and of the rest only a row group that is said to hold nulls.
        """
        for split, paths in self._paths.items():
            for shard, path in enumerate(paths):
                for row_group in _row_groups_with_nulls(self._file(path).metadata):
                    self.read_row_group(split, shard, row_group)

    def read_row_group(self, split: Split, shard: int, row_group: int) -> list[str]:
        """The texts of one row group, in order, empty ones included. Raises DataError naming the shard."""
        path = self._paths[split][shard]
        file = self._file(path)
        try:
            column = file.read_row_group(row_group, columns=[TEXT_COLUMN], use_threads=False).column(0)
            if len(column) != file.metadata.row_group(row_group).num_rows:
                raise _corrupt(path, f"row group {row_group} has {len(column)} texts")
            if column.null_count:
                raise _without_text(path, row_group, column.is_null().index(True).as_py(), column.null_count)
            texts = cast("list[str]", column.to_pylist())  # no null among them
        except UnicodeDecodeError as exc:
            raise DataError(
                f"row group {row_group} of shard {path} holds text that is not UTF-8: {exc}. Fetch or copy the shard "
                "again, or write it as UTF-8.",
                param="dataset",
            ) from exc
        except (pa.ArrowException, OSError) as exc:
            raise _corrupt(path, exc) from exc
        return texts

    def documents(self, split: Split) -> Iterator[str]:
        """Every document that is not empty, once, in order."""
        for shard in range(len(self._paths[split])):
            for row_group in range(self.num_row_groups(split, shard)):
                yield from filter(None, self.read_row_group(split, shard, row_group))

    def fingerprint(self, split: Split) -> str:
        """Differs when a shard was added, removed, renamed or has another size: positions would mean other text."""
        names = [f"{path.name}:{path.stat().st_size}" for path in self._paths[split]]
        return hashlib.sha256("\n".join(names).encode()).hexdigest()[:16]

    def close(self) -> None:
        if self._open is not None:
            self._open[1].close()
            self._open = None

    def __enter__(self) -> "Shards":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _file(self, path: Path) -> pq.ParquetFile:
        if self._open is None or self._open[0] != path:
            self.close()
            self._open = (path, _open_shard(path))
        return self._open[1]


def _open_shard(path: Path) -> pq.ParquetFile:
    try:
        file = pq.ParquetFile(path, page_checksum_verification=True)
        groups = [file.metadata.row_group(index).num_rows for index in range(file.num_row_groups)]
    except (pa.ArrowException, OSError, UnicodeDecodeError) as exc:
        raise _corrupt(path, exc) from exc
    if sum(groups) != file.metadata.num_rows:  # a footer has no checksum
        raise _corrupt(path, f"its row groups hold {sum(groups)} rows of {file.metadata.num_rows}")
    schema = file.schema_arrow
    index = schema.get_field_index(TEXT_COLUMN)
    kind = schema.field(index).type if index >= 0 else None
    if kind is not None and (
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    ):
        return file
    file.close()
    if kind is None:
        raise DataError(
            f"shard {path} has no column {TEXT_COLUMN!r}, only {', '.join(schema.names) or 'none'}; rename the one "
            f"with the documents to {TEXT_COLUMN!r}.",
            param="dataset",
        )
    raise DataError(
        f"column {TEXT_COLUMN!r} of shard {path} holds {kind}; it must hold strings, a document each.", param="dataset"
    )


def _row_groups_with_nulls(metadata: pq.FileMetaData) -> Iterator[int]:
    """Those whose statistics say so."""
    columns = [metadata.schema.column(index).path for index in range(metadata.num_columns)]
    for row_group in range(metadata.num_row_groups):
        statistics = metadata.row_group(row_group).column(columns.index(TEXT_COLUMN)).statistics
        if statistics is not None and statistics.null_count:
            yield row_group


def _corrupt(path: Path, reason: Exception | str) -> DataError:
    return DataError(f"shard {path} cannot be read as parquet: {reason}. Fetch or copy it again.", param="dataset")


def _without_text(path: Path, row_group: int, index: int, num_nulls: int) -> DataError:
    others = f", and so are {num_nulls - 1} more of it" if num_nulls > 1 else ""
    return DataError(
        f"document {index} of row group {row_group} of shard {path} is null{others}; every row must hold text. "
        "Write the shard without such rows.",
        param="dataset",
    )
