"""A download against a hub that cuts, refuses, lies and stalls: what is on the disk, and what crossed the wire."""

import asyncio
import errno
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from nanochat.data.disk import Disk
from nanochat.data.hub.download import DownloadProgress
from nanochat.data.hub.part import Part
from nanochat.data.hub.patience import Patience
from nanochat.errors import Conflict, DataError, DeadlineExceeded, DiskFull, NotFound, Unavailable
from nanochat.files import locked
from tests.unit.data.hub.conftest import Download
from tests.unit.data.hub.fake_hub import FakeHub, Fault, parquet_like

VALIDATION = "shard_00003.parquet"
FIRST = "shard_00000.parquet"


def names(folder: Path) -> list[str]:
    """Those of shards; nothing incomplete is among them."""
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if ".part" in path.name)


def assert_right(hub: FakeHub, folder: Path, *expected: str) -> None:
    assert names(folder) == sorted(expected)
    for name in expected:
        assert (folder / name).read_bytes() == hub.files[name]


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


async def test_a_cut_connection_goes_on_at_the_byte_it_was_cut_at(hub: FakeHub, folder: Path, get: Download) -> None:
    hub.faults[FIRST] = [Fault(cut_after=50_000), Fault(cut_after=100_000), Fault(cut_after=70_000)]
    await get(num_shards=1)
    assert_right(hub, folder, FIRST, VALIDATION)
    assert [served.first for served in hub.served if served.name == FIRST] == [0, 50_000, 150_000, 220_000]
    assert hub.bytes_sent(FIRST) == len(hub.files[FIRST])


async def test_attempts_that_get_further_are_never_too_many(hub: FakeHub, folder: Path, get: Download) -> None:
    hub.faults[FIRST] = [Fault(cut_after=20_000)] * 12
    await get(num_shards=1, patience=Patience(max_attempts=2, first_pause_s=0.0))
    assert hub.bytes_sent(FIRST) == len(hub.files[FIRST])


async def test_attempts_that_get_no_further_end_in_an_error_that_says_why(
    hub: FakeHub, folder: Path, get: Download
) -> None:
    hub.faults[VALIDATION] = [Fault(cut_after=1000), *[Fault(status=503)] * 3]
    with pytest.raises(Unavailable, match=r"3 attempts.*answered 503.*NANOCHAT_HUB_URL"):
        await get()
    assert names(folder) == []
    assert Part(folder / VALIDATION).size_bytes == 1000  # for the next start


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
async def test_answers_of_the_moment_are_asked_again(hub: FakeHub, folder: Path, get: Download, status: int) -> None:
    hub.faults[FIRST] = [Fault(status=status), Fault(status=status)]
    hub.api_faults = [Fault(status=status)]
    await get(num_shards=1)
    assert_right(hub, folder, FIRST, VALIDATION)


async def test_retry_after_is_waited_for_by_everyone(
    hub: FakeHub, folder: Path, get: Download, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock stands still but for sleeping, so that how long was waited is known without waiting."""
    slept: list[float] = []
    real_sleep, now = asyncio.sleep, [1000.0]

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += seconds
        await real_sleep(0)

    # That module's names alone: servers of other tests sleep in this process, too.
    monkeypatch.setattr("nanochat.data.hub.patience.asyncio", SimpleNamespace(sleep=sleep))
    monkeypatch.setattr("nanochat.data.hub.patience.time", SimpleNamespace(monotonic=lambda: now[0]))
    hub.faults[VALIDATION] = [Fault(status=429, headers={"retry-after": "7"})]
    await get(num_shards=1)
    assert sum(slept) == pytest.approx(7.0)


async def test_a_server_that_asks_to_wait_for_hours_is_not_waited_for(
    hub: FakeHub, folder: Path, get: Download
) -> None:
    hub.faults[VALIDATION] = [Fault(status=429, headers={"retry-after": "86400"})]
    with pytest.raises(Unavailable, match="asks to wait for 86400 s"):
        await get()


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


async def test_a_stalled_connection_is_made_anew(hub: FakeHub, folder: Path, get: Download) -> None:
    hub.faults[FIRST] = [Fault(stall_after=120_000)]
    await get(num_shards=1, stall_timeout_s=0.2)
    assert_right(hub, folder, FIRST, VALIDATION)
    assert hub.bytes_sent(FIRST) == len(hub.files[FIRST])


async def test_a_deadline_ends_it_and_keeps_what_came(hub: FakeHub, folder: Path, get: Download) -> None:
    hub.faults[FIRST] = [Fault(stall_after=120_000)]
    with pytest.raises(DeadlineExceeded, match="1 of 2 shards are there"):
        await get(num_shards=1, deadline_s=0.5)
    assert names(folder) == [VALIDATION]
    assert Part(folder / FIRST).size_bytes == 120_000


async def test_a_cancelled_download_keeps_what_came(hub: FakeHub, folder: Path, get: Download) -> None:
    hub.faults[FIRST] = [Fault(stall_after=120_000)]
    progress = DownloadProgress()
    running = asyncio.ensure_future(get(num_shards=1, progress=progress))
    while not any(served.name == FIRST and served.sent == 120_000 for served in hub.served):
        await asyncio.sleep(0.01)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    kept = Part(folder / FIRST).size_bytes
    hub.served.clear()
    await get(num_shards=1)
    assert [(served.name, served.first) for served in hub.served] == [(FIRST, kept)]
    assert_right(hub, folder, FIRST, VALIDATION)


async def test_a_write_is_over_when_the_cancelled_download_is(
    hub: FakeHub, folder: Path, get: Download, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it would go on into a file that the next download has begun with."""
    begun, may_end = threading.Event(), threading.Event()
    append = Part.append

    def slow(part: Part, data: bytes) -> None:
        begun.set()
        may_end.wait(10)
        append(part, data)

    monkeypatch.setattr(Part, "append", slow)
    hub.files[VALIDATION] = parquet_like(3_000_000)
    hub.faults[VALIDATION] = [Fault(stall_after=1_500_000)]
    running = asyncio.ensure_future(get(num_shards=1))
    assert await asyncio.to_thread(begun.wait, 10)
    running.cancel()
    await asyncio.sleep(0.05)
    assert not running.done()
    may_end.set()
    await asyncio.wait([running])
    size_bytes = Part(folder / VALIDATION).size_bytes
    assert size_bytes >= 2**20
    assert (folder / f".{VALIDATION}.part").read_bytes() == hub.files[VALIDATION][:size_bytes]


async def test_after_kill_9_only_the_rest_crosses_the_wire(hub: FakeHub, folder: Path, get: Download) -> None:
    """3.5 MB come before the stall, of which at most the last write's 1 MiB had not reached the disk."""
    content = hub.files[FIRST] = parquet_like(5_000_000)
    hub.faults[FIRST] = [Fault(stall_after=3_500_000)]
    code = (
        "import asyncio, pathlib, sys\n"
        "from nanochat.data.hub.download import download\n"
        "from nanochat.protocol.hub import HubReference\n"
        "from nanochat.settings import HubSettings\n"
        "url, folder = sys.argv[1:]\n"
        "source = HubReference.parse('hf://acme/text')\n"
        "asyncio.run(download(source, pathlib.Path(folder), 1, HubSettings(url=url)))\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, hub.url, str(folder)]) as process:
        while Part(folder / FIRST).size_bytes < 2_000_000:
            assert process.poll() is None
            await asyncio.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    kept = Part(folder / FIRST).size_bytes
    assert names(folder) == [VALIDATION]
    hub.served.clear()
    await get(num_shards=1)
    assert_right(hub, folder, FIRST, VALIDATION)
    assert [(served.name, served.first, served.sent) for served in hub.served] == [(FIRST, kept, len(content) - kept)]


async def test_a_kill_between_the_last_byte_and_the_name_costs_no_byte(
    hub: FakeHub, folder: Path, get: Download, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Part, "finish", lambda part: (_ for _ in ()).throw(MemoryError))
        with pytest.raises(MemoryError):
            await get(num_shards=1)
    assert names(folder) == []
    hub.served.clear()
    await get(num_shards=1)
    assert VALIDATION not in [served.name for served in hub.served]
    assert_right(hub, folder, FIRST, VALIDATION)


async def test_an_unfinished_file_without_its_note_is_not_gone_on_with(
    hub: FakeHub, folder: Path, get: Download
) -> None:
    folder.mkdir(parents=True)
    (folder / f".{FIRST}.part").write_bytes(b"of some other time")
    (folder / f".{VALIDATION}.part").write_bytes(b"PAR1 and so on")
    (folder / f".{VALIDATION}.part.json").write_text('{"etag": "\\"of ano')
    (folder / ".renamed.parquet.part").write_bytes(b"nobody will go on with this")
    await get(num_shards=1)
    assert_right(hub, folder, FIRST, VALIDATION)
    assert leftovers(folder) == []


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
