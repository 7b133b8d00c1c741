"""Downloads from a hub that lies: no wrong byte ever gets a shard's name."""

from pathlib import Path

import pytest

from nanochat.errors import Unavailable
from tests.unit.data.hub.conftest import Download
from tests.unit.data.hub.fake_hub import FakeHub, Fault, parquet_like
from tests.unit.data.hub.on_disk import FIRST, VALIDATION, assert_right, leftovers


async def test_wrong_bytes_of_the_right_length_never_get_the_name(hub: FakeHub, folder: Path, get: Download) -> None:
    wrong = parquet_like(len(hub.files[FIRST]), seed=5)
    hub.faults[FIRST] = [Fault(body=wrong)]
    await get(num_shards=1)
    assert_right(hub, folder, FIRST, VALIDATION)
    hub.files[FIRST] = parquet_like(300_000, seed=6)
    hub.faults[FIRST] = [Fault(body=wrong)] * 3
    with pytest.raises(Unavailable, match="SHA-256"):
        await get(num_shards=1)
    assert leftovers(folder) == []  # nothing of it is gone on with


@pytest.mark.parametrize("size", [1000, 299_999, 300_002, 400_000])
async def test_a_wrong_length_is_noticed(hub: FakeHub, folder: Path, get: Download, size: int) -> None:
    hub.has_checksums = False
    hub.faults[FIRST] = [Fault(body=parquet_like(size))]
    await get(num_shards=1)
    assert_right(hub, folder, FIRST, VALIDATION)
    hub.faults["shard_00001.parquet"] = [Fault(body=parquet_like(size))] * 3
    with pytest.raises(Unavailable, match="is offered with"):
        await get(num_shards=2)
    assert_right(hub, folder, FIRST, VALIDATION)


async def test_a_page_in_place_of_a_shard_is_noticed_without_checksums(
    hub: FakeHub, folder: Path, get: Download
) -> None:
    hub.has_checksums = False
    hub.faults[VALIDATION] = [Fault(body=b"<html>" + b" " * 299_997)]  # as long as the shard
    await get(num_shards=1)
    assert_right(hub, folder, FIRST, VALIDATION)


async def test_a_server_that_ignores_ranges_starts_over(hub: FakeHub, folder: Path, get: Download) -> None:
    hub.faults[FIRST] = [Fault(cut_after=200_000), Fault(ignore_range=True)]
    await get(num_shards=1)
    assert_right(hub, folder, FIRST, VALIDATION)
    assert [served.first for served in hub.served if served.name == FIRST] == [0, 0]


async def test_a_server_that_gives_another_range_than_asked_for_is_not_believed(
    hub: FakeHub, folder: Path, get: Download
) -> None:
    hub.has_checksums = False
    hub.faults[FIRST] = [Fault(cut_after=200_000), Fault(wrong_range=True)]
    await get(num_shards=1)
    assert_right(hub, folder, FIRST, VALIDATION)


async def test_a_file_that_changes_between_attempts_starts_anew(hub: FakeHub, folder: Path, get: Download) -> None:
    """Same length, no checksum told: only the ETag says that the bytes there are another file's."""
    hub.has_checksums = False
    hub.faults[VALIDATION] = [Fault(cut_after=200_000), *[Fault(status=500)] * 3]
    with pytest.raises(Unavailable):
        await get(num_shards=1)
    hub.files[VALIDATION] = parquet_like(300_003, seed=42)
    await get(num_shards=1)
    assert_right(hub, folder, FIRST, VALIDATION)
    last = [served for served in hub.served if served.name == VALIDATION][-1]
    assert (last.headers["range"], last.first, last.sent) == ("bytes=200000-", 0, 300_003)


@pytest.mark.parametrize("etag", [None, 'W/"weak"'])
async def test_without_etag_or_checksum_nothing_is_gone_on_with(
    hub: FakeHub, folder: Path, get: Download, etag: str | None
) -> None:
    hub.has_checksums, hub.has_etags = False, etag is not None
    hub.etags[FIRST] = etag or ""
    hub.faults[FIRST] = [Fault(cut_after=200_000)]
    await get(num_shards=1)
    assert_right(hub, folder, FIRST, VALIDATION)
    assert [served.first for served in hub.served if served.name == FIRST] == [0, 0]


async def test_with_a_checksum_alone_it_is_gone_on_with(hub: FakeHub, folder: Path, get: Download) -> None:
    hub.has_etags = False
    hub.faults[FIRST] = [Fault(cut_after=200_000)]
    await get(num_shards=1)
    assert_right(hub, folder, FIRST, VALIDATION)
    assert [served.first for served in hub.served if served.name == FIRST] == [0, 200_000]
