"""A benchmark comes whole: a file a split, one being enough."""

from pathlib import Path

import pytest

from nanochat.errors import DataError
from tests.unit.data.hub.conftest import Download
from tests.unit.data.hub.fake_hub import FakeHub, parquet_like


async def test_every_split_comes_under_its_own_name(hub: FakeHub, folder: Path, get: Download) -> None:
    splits = {f"{split}-00000-of-00001.parquet" for split in ("train", "validation", "test")}
    hub.files = {f"main/{name}": parquet_like(3000) for name in splits} | {"other/x.parquet": parquet_like(3000)}
    dataset = await get(source="hf://acme/text/main", is_benchmark=True)
    assert {path.name for path in dataset.shards} == splits == {path.name for path in folder.glob("*.parquet")}


async def test_one_file_is_enough(hub: FakeHub, get: Download) -> None:
    hub.files = {"test.parquet": parquet_like(3000)}
    assert [path.name for path in (await get(is_benchmark=True)).shards] == ["test.parquet"]


async def test_a_part_of_it_cannot_be_asked_for(get: Download) -> None:
    with pytest.raises(DataError, match="num_shards is 2; a benchmark comes whole"):
        await get(2, is_benchmark=True)
