"""A download from its beginning to its end: which shards come, in which order, and what it refuses."""

import asyncio
import errno
import os
import time
from pathlib import Path

import pytest

from nanochat.data.disk import Disk
from nanochat.data.hub.download import DownloadProgress
from nanochat.data.hub.part import Part
from nanochat.errors import Conflict, DataError, DiskFull, NotFound, Unavailable
from nanochat.files import locked
from tests.unit.data.hub.conftest import Download
from tests.unit.data.hub.fake_hub import FakeHub, Fault, parquet_like
from tests.unit.data.hub.on_disk import FIRST, VALIDATION, assert_right, leftovers, names


async def test_all_shards_come_as_they_are(hub: FakeHub, folder: Path, get: Download) -> None:
    progress = DownloadProgress()
    dataset = await get(progress=progress)
    assert_right(hub, folder, *hub.files)
    assert [path.name for path in dataset.shards] == list(hub.files)
    assert leftovers(folder) == []
    assert progress.num_shards == progress.num_shards_done == 4
    assert progress.done_bytes == progress.total_bytes == sum(map(len, hub.files.values()))


async def test_some_shards_are_so_many_for_training_and_the_last_one(hub: FakeHub, folder: Path, get: Download) -> None:
    await get(num_shards=1)
    assert_right(hub, folder, FIRST, VALIDATION)


async def test_the_validation_shard_has_come_before_any_other_is_asked_for(
    hub: FakeHub, folder: Path, get: Download
) -> None:
    hub.faults[VALIDATION] = [Fault(cut_after=100_000), Fault(status=500)]
    await get()
    assert [served.name for served in hub.served[:3]] == [VALIDATION] * 3
    assert VALIDATION not in [served.name for served in hub.served[3:]]


async def test_what_is_there_and_right_is_not_fetched_again(hub: FakeHub, folder: Path, get: Download) -> None:
    await get(num_shards=1)
    hub.served.clear()
    await get(num_shards=2)
    assert [served.name for served in hub.served] == ["shard_00001.parquet"]


async def test_shards_that_somebody_copied_there_are_told_by_their_checksum(
    hub: FakeHub, folder: Path, get: Download
) -> None:
    folder.mkdir(parents=True)
    (folder / FIRST).write_bytes(hub.files[FIRST])
    (folder / VALIDATION).write_bytes(parquet_like(len(hub.files[VALIDATION]), seed=99))  # another one of this size
    await get(num_shards=1)
    assert [served.name for served in hub.served] == [VALIDATION]
    assert_right(hub, folder, FIRST, VALIDATION)


async def test_a_shard_that_changed_on_the_disk_is_fetched_again(hub: FakeHub, folder: Path, get: Download) -> None:
    await get(num_shards=1)
    damaged = bytearray(hub.files[FIRST])
    damaged[1000] ^= 1
    (folder / FIRST).write_bytes(damaged)
    os.utime(folder / FIRST, (1, 1))
    await get(num_shards=1)
    assert_right(hub, folder, FIRST, VALIDATION)


async def test_a_shard_that_the_hub_has_replaced_is_replaced_here(hub: FakeHub, folder: Path, get: Download) -> None:
    await get(num_shards=2)
    hub.files["shard_00001.parquet"] = parquet_like(300_001, seed=77)
    await get(num_shards=1)  # fewer are asked for now, but the folder shall not be of two versions
    assert_right(hub, folder, FIRST, "shard_00001.parquet", VALIDATION)


async def test_too_little_room_is_said_before_the_first_byte(hub: FakeHub, folder: Path, get: Download) -> None:
    needed = len(hub.files[FIRST]) + len(hub.files[VALIDATION])
    folder.mkdir(parents=True)
    with pytest.raises(DiskFull, match=r"2 shards.*0\.00 GB are free"):
        await get(num_shards=1, disk=Disk(folder, reserve_bytes=100, free=lambda _: needed + 99))
    assert hub.served == []
    await get(num_shards=1, disk=Disk(folder, reserve_bytes=100, free=lambda _: needed + 100))


async def test_a_disk_that_fills_up_on_the_way_stops_it_before_it_is_full(
    hub: FakeHub, folder: Path, get: Download, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nanochat.data.disk._LOOK_EVERY_BYTES", 100_000)
    answers = iter([10**9, 10**9])  # before the start and once on the way; then there is less than the reserve
    disk = Disk(folder, reserve_bytes=1000, free=lambda _: next(answers, 999))
    hub.files[VALIDATION] = parquet_like(3_000_000)
    with pytest.raises(DiskFull, match="Make room there and start again"):
        await get(num_shards=1, disk=disk)
    assert names(folder) == []
    hub.served.clear()
    await get(num_shards=1)  # there is room again
    assert_right(hub, folder, FIRST, VALIDATION)
    assert hub.bytes_sent(VALIDATION) < 3_000_000


async def test_the_systems_no_space_left_is_a_sentence(
    hub: FakeHub, folder: Path, get: Download, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(part: Part, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Part, "append", full)
    with pytest.raises(DiskFull, match="is full"):
        await get(num_shards=1)
    assert names(folder) == []


async def test_a_hub_that_cannot_be_reached_is_named(folder: Path, get: Download, hub: FakeHub) -> None:
    with pytest.raises(Unavailable, match=r"http://127\.0\.0\.1:1 .* 3 attempts.*ConnectError"):
        await get(url="http://127.0.0.1:1")
    assert names(folder) == []


async def test_an_answer_that_is_no_hubs_is_refused(hub: FakeHub, folder: Path, get: Download) -> None:
    hub.api_faults = [Fault(body=b"<html>welcome</html>")]
    with pytest.raises(DataError, match="is not a hub's"):
        await get()


@pytest.mark.parametrize(("status", "token", "said"), [(401, "", "wants a token"), (403, "mine", "does not accept")])
async def test_a_gated_dataset_says_what_to_do_and_never_the_token(
    hub: FakeHub, folder: Path, get: Download, status: int, token: str, said: str
) -> None:
    hub.api_faults = [Fault(status=status)]
    with pytest.raises(DataError, match=rf"{said}.*NANOCHAT_HUB_TOKEN") as raised:
        await get(token=token)
    assert "mine" not in str(raised.value)


async def test_a_dataset_that_is_not_there_is_named(hub: FakeHub, folder: Path, get: Download) -> None:
    with pytest.raises(NotFound, match="acme/nothing"):
        await get(source="hf://acme/nothing")


async def test_two_downloads_into_one_folder_are_refused(hub: FakeHub, folder: Path, get: Download) -> None:
    with locked(folder), pytest.raises(Conflict, match="another process"):
        await get()


async def test_shards_of_something_else_are_never_mixed_with(hub: FakeHub, folder: Path, get: Download) -> None:
    folder.mkdir(parents=True)
    (folder / "zebra.parquet").write_bytes(parquet_like(100))
    with pytest.raises(DataError, match=r"zebra\.parquet.*another name"):
        await get(num_shards=1)
    (folder / "zebra.parquet").unlink()
    await get(num_shards=1)
    with pytest.raises(DataError, match="holds shards of hf://acme/text"):
        await get(num_shards=1, source="hf://acme/text@other")


async def test_more_shards_than_there_are_are_refused(hub: FakeHub, folder: Path, get: Download) -> None:
    with pytest.raises(DataError, match=r"num_shards is 4; hf://acme/text has 3 for training"):
        await get(num_shards=4)


async def test_one_shard_alone_is_refused(hub: FakeHub, folder: Path, get: Download) -> None:
    hub.files = {FIRST: hub.files[FIRST]}
    with pytest.raises(DataError, match="has one shard"):
        await get()


async def test_shards_come_side_by_side(hub: FakeHub, folder: Path, get: Download) -> None:
    """Three are on their way at once: each is held up until all have begun."""
    for name in list(hub.files)[:3]:
        hub.faults[name] = [Fault(stall_after=1000)]
    running = asyncio.ensure_future(get(num_parallel=3))
    deadline = time.monotonic() + 20
    while sum(served.sent == 1000 for served in hub.served) < 3:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)
    hub.released.set()
    await running
    assert_right(hub, folder, *hub.files)
