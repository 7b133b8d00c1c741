"""Jobs of kind dataset: downloaded or repackaged, stopped, killed, gone on with, and trained on."""

import json
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nanochat.data.hub.part import Part
from nanochat.data.shards import Shards
from nanochat.protocol.jobs import RunSpec
from nanochat.protocol.progress import Metric, Progress
from nanochat.recipes.stop import EXIT_STOPPED, StopSignal
from tests.unit.data.hub.fake_hub import FakeHub, Fault, parquet_like

from .conftest import Workshop


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeHub]:
    fake = FakeHub()
    for index in range(3):
        path = tmp_path / "shard.parquet"
        texts = [f"shard {index}, document {number}: " + "so many words " * 20 for number in range(200)]
        pq.write_table(pa.table({"text": texts}), path, write_page_checksum=True, compression="none")
        fake.files[f"shard_{index:05d}.parquet"] = path.read_bytes()
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NANOCHAT_HUB_URL", fake.url)
    yield fake
    fake.close()


def spec(workshop: Workshop, name: str, **config: Any) -> RunSpec:
    return workshop.spec("dataset", name, {"name": name, **config})


def test_a_downloaded_dataset_can_be_trained_on(workshop: Workshop, hub: FakeHub) -> None:
    ran = workshop.run(spec(workshop, "fetched", source="hf://acme/text"))
    assert ran.result.output == "fetched"
    assert ran.result.values == {"num_shards": 3, "size_bytes": sum(map(len, hub.files.values()))}
    last = [line for line in ran.lines if isinstance(line, Progress)][-1]
    assert last.step == last.num_steps == sum(map(len, hub.files.values()))
    assert [line for line in ran.lines if isinstance(line, Metric)][-1].values == {
        "num_shards_done": 3,
        "num_shards": 3,
    }
    tokenizer = workshop.tokenizer("fetched-tok", dataset="fetched")
    assert workshop.run(tokenizer).result.output == "fetched-tok"


def test_a_corrupt_shard_of_a_download_is_named_when_it_is_read(workshop: Workshop, hub: FakeHub) -> None:
    """The hub itself has it: checksum and length are right."""
    spoilt = bytearray(hub.files["shard_00000.parquet"])
    spoilt[4:200] = bytes(196)
    hub.files["shard_00000.parquet"] = bytes(spoilt)
    workshop.run(spec(workshop, "spoilt", source="hf://acme/text"))
    failure = workshop.run(workshop.tokenizer("spoilt-tok", dataset="spoilt")).failure
    assert failure.code == "data_error" and "shard_00000.parquet cannot be read" in failure.message


def test_a_stopped_download_goes_on_at_the_next_attempt(workshop: Workshop, hub: FakeHub) -> None:
    hub.files["shard_00000.parquet"] = parquet_like(3_000_000)
    hub.faults["shard_00000.parquet"] = [Fault(stall_after=2_500_000)]
    job = spec(workshop, "stopped", source="hf://acme/text", num_shards=1)
    folder = workshop.home / "datasets" / "stopped"
    process = workshop.start(job)
    wait_for_bytes(process, folder / "shard_00000.parquet", 1_000_000)
    process.send_signal(signal.SIGTERM)
    assert workshop.finish(job, process).exit_code == EXIT_STOPPED
    kept = Part(folder / "shard_00000.parquet").size_bytes
    assert kept == 2_500_000  # what had come is all on the disk
    hub.served.clear()
    assert workshop.run(job).result.output == "stopped"
    assert [(served.name, served.first) for served in hub.served] == [("shard_00000.parquet", kept)]


def test_a_killed_download_goes_on_at_the_next_attempt(workshop: Workshop, hub: FakeHub) -> None:
    content = hub.files["shard_00001.parquet"] = parquet_like(3_000_000)
    hub.faults["shard_00001.parquet"] = [Fault(stall_after=2_500_000)]
    job = spec(workshop, "killed", source="hf://acme/text")
    folder = workshop.home / "datasets" / "killed"
    process = workshop.start(job)
    wait_for_bytes(process, folder / "shard_00001.parquet", 1_000_000)
    process.kill()
    process.communicate()
    kept = Part(folder / "shard_00001.parquet").size_bytes
    assert not (folder / "shard_00001.parquet").exists()
    hub.served.clear()
    assert workshop.run(job).result.output == "killed"
    assert (folder / "shard_00001.parquet").read_bytes() == content
    assert hub.bytes_sent("shard_00001.parquet") == len(content) - kept


def wait_for_bytes(process: subprocess.Popen[str], path: Path, size_bytes: int) -> None:
    deadline = time.monotonic() + 60
    while Part(path).size_bytes < size_bytes:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_hub_that_cannot_be_reached_fails_the_job_and_leaves_no_shard(
    workshop: Workshop, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NANOCHAT_HUB_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("NANOCHAT_HUB_MAX_ATTEMPTS", "1")
    failure = workshop.run(spec(workshop, "away", source="hf://acme/text")).failure
    assert failure.code == "unavailable" and "http://127.0.0.1:1" in failure.message
    assert not list((workshop.home / "datasets" / "away").glob("*.parquet"))


def test_text_is_repackaged_as_a_job(workshop: Workshop, tmp_path: Path) -> None:
    source = tmp_path / "texts.jsonl"
    source.write_text("".join(json.dumps({"text": f"text number {index}"}) + "\n" for index in range(500)))
    ran = workshop.run(spec(workshop, "packed", source=str(source), num_shards=2))
    assert ran.result.output == "packed"
    assert (ran.result.values["num_read"], ran.result.values["num_shards"]) == (500, 3)
    with Shards(workshop.home / "datasets" / "packed") as shards:
        assert len(list(shards.documents("train"))) + len(list(shards.documents("val"))) == 500


def test_repackaging_that_is_stopped_leaves_nothing(workshop: Workshop, tmp_path: Path) -> None:
    source = tmp_path / "texts.jsonl"
    source.write_text("".join(json.dumps({"text": f"text number {index}"}) + "\n" for index in range(50)))
    stop = StopSignal()
    stop.is_set = True
    assert workshop.run(spec(workshop, "halted", source=str(source)), stop).exit_code == EXIT_STOPPED
    assert not [path for path in (workshop.home / "datasets").iterdir() if "halted" in path.name]
