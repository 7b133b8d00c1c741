"""Makes the datasets that need no network, on first use, out of text that the machine already has.

Two processes at once, or a kill in the middle, leave a whole dataset or none. What the text is: python_docs.py.
"""

import logging
import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from nanochat.data import python_docs
from nanochat.data.registry import BUILTIN_DATASETS, Dataset, list_shards
from nanochat.data.shards import TEXT_COLUMN
from nanochat.errors import DataError
from nanochat.files import locked, new_folder

log = logging.getLogger(__name__)

_NUM_SHARDS = 8  # the last one, an eighth of the documents, is the validation split
_ROW_GROUP_DOCUMENTS = 128
_MIN_DOCUMENTS = 1000
_SHUFFLE_SEED = 0

_DOCUMENTS: dict[str, Callable[[], Iterator[str]]] = {"python-docs": python_docs.documents}
assert set(_DOCUMENTS) == set(BUILTIN_DATASETS)


def prepare(dataset: Dataset) -> Dataset:
    """The dataset, made now if it is a built-in one not made yet: under ten seconds. Others come back as they are.

    Raises DataError when this Python brings too little text, and OSError.
    """
    if not dataset.must_be_built:
        return dataset
    with locked(dataset.folder.parent):
        if not dataset.folder.exists():  # another process may have made it while this one waited
            start = time.monotonic()
            documents = sorted(_DOCUMENTS[dataset.name]())
            if len(documents) < _MIN_DOCUMENTS:
                raise DataError(
                    f"dataset {dataset.name!r} found {len(documents)} documents on this machine and needs "
                    f"{_MIN_DOCUMENTS}: Python was installed without its sources. Name another dataset.",
                    param="dataset",
                )
            random.Random(_SHUFFLE_SEED).shuffle(documents)
            with new_folder(dataset.folder) as folder:
                write_shards(folder, documents, _NUM_SHARDS)
            took_s = round(time.monotonic() - start, 1)
            log.info("dataset_built", extra={"dataset": dataset.name, "documents": len(documents), "took_s": took_s})
    return Dataset(name=dataset.name, folder=dataset.folder, shards=list_shards(dataset.folder))


def write_shards(folder: Path, documents: Sequence[str], num_shards: int) -> None:
    """Write the documents as shards of about equal numbers, in order: shard_00000.parquet and so on. Raises OSError."""
    size = -(-len(documents) // num_shards)
    for index in range(num_shards):
        _write_shard(folder / f"shard_{index:05d}.parquet", documents[index * size : (index + 1) * size])


def _write_shard(path: Path, documents: Iterable[str]) -> None:
    table = pa.table({TEXT_COLUMN: pa.array(documents, type=pa.string())})
    pq.write_table(table, path, row_group_size=_ROW_GROUP_DOCUMENTS, compression="zstd", write_page_checksum=True)
