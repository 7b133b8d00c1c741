"""Downloads from a hub that cuts, stalls and sends away, or that are ended: what is gone on with."""

import asyncio
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from nanochat.data.hub.download import DownloadProgress
from nanochat.data.hub.part import Part
from nanochat.data.hub.patience import Patience
from nanochat.errors import DeadlineExceeded, Unavailable
from tests.unit.data.hub.conftest import Download
from tests.unit.data.hub.fake_hub import FakeHub, Fault, parquet_like
from tests.unit.data.hub.on_disk import FIRST, VALIDATION, assert_right, leftovers, names


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
