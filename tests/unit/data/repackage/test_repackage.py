"""From files of text to a dataset: nothing lost, nothing twice, in random order, whole or not at all."""

import errno
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from nanochat.data.disk import Disk
from nanochat.data.repackage import shards as shard_module
from nanochat.data.repackage.repackage import Repackaging, repackage
from nanochat.data.repackage.shuffle import BucketShuffle
from nanochat.data.shards import Shards
from nanochat.errors import Conflict, DataError, DiskFull

SMALL_BUCKETS = 4000  # bytes: 64 buckets of a few hundred kB of text need buckets of their own


def write_jsonl(path: Path, texts: list[str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


@pytest.fixture
def texts() -> list[str]:
    return [f"Document {index}. " + "word " * (index % 90) for index in range(3000)]


@pytest.fixture
def source(tmp_path: Path, texts: list[str]) -> Path:
    write_jsonl(tmp_path / "source" / "a.jsonl", texts[:1000])
    write_jsonl(tmp_path / "source" / "b.jsonl", texts[1000:])
    return tmp_path / "source"


def documents(folder: Path, split: str = "both") -> list[str]:
    with Shards(folder) as shards:
        train, val = list(shards.documents("train")), list(shards.documents("val"))
    return {"train": train, "val": val, "both": train + val}[split]


@pytest.mark.parametrize("max_bucket_bytes", [SMALL_BUCKETS, 2**25])
def test_every_document_comes_once_and_the_order_is_new(
    source: Path, tmp_path: Path, texts: list[str], max_bucket_bytes: int
) -> None:
    target = tmp_path / "made"
    counts = repackage(Repackaging(source=source, target=target, max_bucket_bytes=max_bucket_bytes))
    found = documents(target)
    assert Counter(found) == Counter(texts)
    moved = [abs(texts.index(text) - place) for place, text in enumerate(found[:300])]
    assert sum(moved) / len(moved) > 700  # a third of 3000 in the mean, were it drawn at random
    assert (counts.num_read, counts.num_documents, counts.num_shards) == (3000, 3000, 10)
    assert sorted(path.name for path in target.iterdir()) == [f"shard_{index:05d}.parquet" for index in range(10)]
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "made", "source"]


def test_shards_are_of_about_equal_size_with_checksums_and_zstd(source: Path, tmp_path: Path) -> None:
    repackage(Repackaging(source=source, target=tmp_path / "made", num_shards=4))
    files = [pq.ParquetFile(path) for path in sorted((tmp_path / "made").glob("*.parquet"))]
    assert len(files) == 5
    sizes = [sum(len(text) for text in file.read().column("text").to_pylist()) for file in files]
    assert max(sizes) - min(sizes) < 0.02 * sum(sizes)
    for file in files:
        assert file.metadata.row_group(0).column(0).compression == "ZSTD"
    path = sorted((tmp_path / "made").glob("*.parquet"))[0]
    content = path.read_bytes()
    for place in range(200, len(content) // 2, len(content) // 40):  # zstd alone does not notice each of them
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with pytest.raises(DataError, match="cannot be read as parquet"):
            documents(tmp_path / "made")


def test_the_same_seed_gives_the_same_bytes_and_another_one_another_order(source: Path, tmp_path: Path) -> None:
    def make(name: str, seed: int) -> list[bytes]:
        repackage(Repackaging(source=source, target=tmp_path / name, seed=seed, max_bucket_bytes=SMALL_BUCKETS))
        return [path.read_bytes() for path in sorted((tmp_path / name).glob("*.parquet"))]

    first = make("a", 0)
    assert make("b", 0) == first
    assert make("c", 1) != first


def test_long_documents_are_split_empty_ones_dropped_and_both_counted(tmp_path: Path) -> None:
    book = "\n\n".join(f"Paragraph {index} of the book." for index in range(200))
    source = write_jsonl(tmp_path / "a.jsonl", ["", " \n", book, *["short"] * 20])
    counts = repackage(Repackaging(source=source, target=tmp_path / "made", max_document_chars=500))
    found = documents(tmp_path / "made")
    assert max(map(len, found)) <= 500
    assert all(text == "short" or text.startswith("Paragraph") for text in found)
    assert (counts.num_read, counts.num_empty, counts.num_split) == (23, 2, 1)
    assert counts.num_documents == len(found)


def test_a_document_is_in_one_split_as_a_whole(tmp_path: Path) -> None:
    books = ["\n\n".join(f"Book {book}, paragraph {index}." for index in range(40)) for book in range(50)]
    source = write_jsonl(tmp_path / "a.jsonl", books)
    repackage(
        Repackaging(source=source, target=tmp_path / "made", max_document_chars=100, max_bucket_bytes=SMALL_BUCKETS)
    )

    def books_of(split: str) -> set[str]:
        return {text.split(",")[0] for text in documents(tmp_path / "made", split)}

    assert books_of("val") and not books_of("val") & books_of("train")
    assert len(books_of("val") | books_of("train")) == 50


def test_few_documents_make_few_shards_or_an_error_where_a_number_was_asked_for(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "a.jsonl", ["one", "two", "three " * 100])
    assert repackage(Repackaging(source=source, target=tmp_path / "made")).num_shards <= 3
    assert sorted(documents(tmp_path / "made")) == ["one", "three " * 100, "two"]
    with pytest.raises(DataError, match="num_shards is 8"):
        repackage(Repackaging(source=source, target=tmp_path / "other", num_shards=8))
    alone = write_jsonl(tmp_path / "b.jsonl", ["one", ""])
    with pytest.raises(DataError, match=r"has 1 documents with text \(1 are empty\)"):
        repackage(Repackaging(source=alone, target=tmp_path / "other"))
    assert not (tmp_path / "other").exists()


def test_asked_for_shards_are_all_made_and_none_is_empty(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "a.jsonl", ["x" * 10_000, *["y"] * 7])
    counts = repackage(Repackaging(source=source, target=tmp_path / "made", num_shards=5))
    rows = [pq.ParquetFile(path).metadata.num_rows for path in sorted((tmp_path / "made").glob("*.parquet"))]
    assert counts.num_shards == len(rows) == 6
    assert min(rows) >= 1 and sum(rows) == 8


def test_a_malformed_line_leaves_nothing_behind(tmp_path: Path, source: Path) -> None:
    with (source / "b.jsonl").open("a") as file:
        file.write("{oops\n")
    with pytest.raises(DataError, match=r"b\.jsonl, line 2001 is not JSON"):
        repackage(Repackaging(source=source, target=tmp_path / "made"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]


def test_a_folder_that_is_there_is_not_written_into(tmp_path: Path, source: Path) -> None:
    (tmp_path / "made").mkdir()
    with pytest.raises(Conflict, match="exists already"):
        repackage(Repackaging(source=source, target=tmp_path / "made"))
    assert list((tmp_path / "made").iterdir()) == []


def test_too_little_room_is_said_before_anything_is_read(tmp_path: Path, source: Path) -> None:
    size = sum(path.stat().st_size for path in source.iterdir())
    with pytest.raises(DiskFull, match="shuffling"):
        repackage(
            Repackaging(source=source, target=tmp_path / "made"),
            lambda done, total: pytest.fail("it began"),
            disk=Disk(tmp_path, reserve_bytes=0, free=lambda _: size - 1),
        )


def test_a_disk_that_is_full_on_the_way_leaves_nothing_behind(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: object, text: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shard_module.ShardWriter, "add", full)
    with pytest.raises(DiskFull, match="is full"):
        repackage(Repackaging(source=source, target=tmp_path / "made"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]


def test_progress_goes_up_to_its_end(tmp_path: Path, source: Path) -> None:
    seen: list[tuple[int, int]] = []
    repackage(Repackaging(source=source, target=tmp_path / "made"), lambda done, total: seen.append((done, total)))
    done = [step for step, _ in seen]
    assert done == sorted(done) and done[-1] == seen[-1][1] and len({total for _, total in seen}) == 1


def test_a_killed_run_is_cleared_by_the_next(tmp_path: Path, source: Path, texts: list[str]) -> None:
    code = (
        "import os, pathlib, signal, sys\n"
        "from nanochat.data.repackage.repackage import Repackaging, repackage\n"
        "source, target = map(pathlib.Path, sys.argv[1:])\n"
        "def kill(done, total):\n"
        "    if done > 0.7 * total: os.kill(os.getpid(), signal.SIGKILL)\n"
        "repackage(Repackaging(source=source, target=target), kill)\n"
    )
    target = tmp_path / "made"
    assert subprocess.run([sys.executable, "-c", code, str(source), str(target)], check=False).returncode == -9
    assert not target.exists() and (tmp_path / ".made.repackaging").exists()
    repackage(Repackaging(source=source, target=target))
    assert Counter(documents(target)) == Counter(texts)
    assert not (tmp_path / ".made.repackaging").exists()


def test_a_shuffle_holds_a_bucket_at_a_time_however_much_there_is(tmp_path: Path) -> None:
    shuffle = BucketShuffle(tmp_path / "buckets", "seed", num_buckets=4, max_bucket_bytes=1000)
    for index in range(2000):
        shuffle.add((f"{index:06d}" * 3,))
    sizes: list[int] = []

    def drained() -> Iterator[str]:
        for documents in shuffle.drain():
            sizes.append(sum(len(piece) + 8 for pieces in documents for piece in pieces))
            yield from (pieces[0] for pieces in documents)

    assert len(set(drained())) == 2000
    assert max(sizes) <= 1000
    assert not (tmp_path / "buckets").exists()


def test_a_document_larger_than_a_bucket_passes(tmp_path: Path) -> None:
    shuffle = BucketShuffle(tmp_path / "buckets", "seed", num_buckets=2, max_bucket_bytes=100)
    for index in range(4):
        shuffle.add((str(index) * 5000,))
    assert sorted(pieces[0][0] for documents in shuffle.drain() for pieces in documents) == ["0", "1", "2", "3"]


def test_each_order_of_four_documents_is_as_likely_as_any_other(tmp_path: Path) -> None:
    """24 orders, 100 times each in the mean; 5 standard deviations are about 50."""
    seen: Counter[str] = Counter()
    for seed in range(2400):
        shuffle = BucketShuffle(tmp_path / "buckets", f"s/{seed}", num_buckets=2, max_bucket_bytes=20)
        for letter in "abcd":
            shuffle.add((letter,))
        seen["".join(pieces[0] for documents in shuffle.drain() for pieces in documents)] += 1
    assert len(seen) == 24 and min(seen.values()) > 50 and max(seen.values()) < 150
