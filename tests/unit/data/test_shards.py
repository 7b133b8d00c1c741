"""Reading documents out of shards, and shards that hold none."""

import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nanochat.data.builtin import write_shards as write_shards_with_checksums
from nanochat.data.shards import Shards
from nanochat.errors import DataError


def test_the_last_shard_is_for_validation(write_shards: Callable[..., Path]) -> None:
    with Shards(write_shards([["a", "b", "c"], ["d"], ["e", "f"]])) as shards:
        assert list(shards.documents("train")) == ["a", "b", "c", "d"]
        assert list(shards.documents("val")) == ["e", "f"]


def test_empty_documents_are_passed_over(write_shards: Callable[..., Path]) -> None:
    with Shards(write_shards([["a", "", "b"], ["c"]])) as shards:
        assert list(shards.documents("train")) == ["a", "b"]
        assert shards.read_row_group("train", 0, 0) == ["a", ""]


def test_a_null_is_named_with_its_place(write_shards: Callable[..., Path]) -> None:
    named = r"document 1 of row group 1 of shard .*shard_00000\.parquet is null"
    with Shards(write_shards([["a", "b", "c", None], ["d"]])) as shards, pytest.raises(DataError, match=named):
        list(shards.documents("train"))


@pytest.mark.parametrize("split", ["train", "val"])
def test_footers_tell_of_a_null_before_its_row_group_is_read(write_shards: Callable[..., Path], split: str) -> None:
    bad, good = ["a", "b", None, "c", None, None], ["d"] * 6
    folder = write_shards([good, bad, good] if split == "train" else [good, good, bad])
    path = folder / ("shard_00001.parquet" if split == "train" else "shard_00002.parquet")
    with Shards(folder) as shards, pytest.raises(DataError, match="is null; every row must hold text") as caught:
        shards.check_footers()
    assert f"document 0 of row group 1 of shard {path}" in caught.value.message
    path.unlink()
    write_shards([good] * 3)
    with Shards(folder) as shards:
        shards.check_footers()


def test_nulls_of_a_row_group_are_counted(write_shards: Callable[..., Path]) -> None:
    folder = write_shards([["a", None, None, None], ["b"]], row_group_size=4)
    with Shards(folder) as shards, pytest.raises(DataError, match=r"document 1 of row group 0 .*, and so are 2 more"):
        shards.check_footers()


def test_the_nulls_of_other_columns_do_not_matter(write_shards: Callable[..., Path]) -> None:
    folder = write_shards([["a"], ["b"]])
    nested = pa.array([{"text": None, "more": [None]}, None])
    table = pa.table({"about": nested, "text": ["x", "y"], "id": pa.array([None, 1])})
    pq.write_table(table, folder / "shard_00000.parquet")
    with Shards(folder) as shards:
        shards.check_footers()
    table = table.set_column(1, "text", pa.array(["x", None]))
    pq.write_table(table, folder / "shard_00000.parquet")
    with Shards(folder) as shards, pytest.raises(DataError, match="document 1 of row group 0"):
        shards.check_footers()


def test_without_statistics_a_null_is_found_when_it_is_read(write_shards: Callable[..., Path]) -> None:
    folder = write_shards([["a"], ["b"]])
    pq.write_table(pa.table({"text": ["x", None]}), folder / "shard_00000.parquet", write_statistics=False)
    with Shards(folder) as shards:
        shards.check_footers()
        with pytest.raises(DataError, match="document 1 of row group 0"):
            list(shards.documents("train"))


def test_the_last_footer_is_looked_at_too(write_shards: Callable[..., Path]) -> None:
    folder = write_shards([["a"], ["b"], ["c"]])
    pq.write_table(pa.table({"text": [1]}), folder / "shard_00002.parquet")
    with Shards(folder) as shards, pytest.raises(DataError, match=r"shard_00002\.parquet holds int64"):
        shards.check_footers()


def test_text_that_is_not_utf8_is_named_with_its_place(write_shards: Callable[..., Path]) -> None:
    folder = write_shards([["a"], ["b"]])
    column = pa.array([b"fine", b"fine", b"caf\xe9"]).view(pa.string())  # as Latin-1 writes it
    pq.write_table(pa.table({"text": column}), folder / "shard_00000.parquet", row_group_size=2)
    named = r"row group 1 of shard .*shard_00000\.parquet holds text that is not UTF-8"
    with Shards(folder) as shards, pytest.raises(DataError, match=named):
        list(shards.documents("train"))


@pytest.mark.parametrize("kind", [pa.large_string(), pa.string_view()])
def test_every_kind_of_string_column_is_read(write_shards: Callable[..., Path], kind: pa.DataType) -> None:
    folder = write_shards([["a"], ["b"]])
    table = pa.table({"id": [1, 2], "text": pa.array(["x", "y"], type=kind)})
    pq.write_table(table, folder / "shard_00000.parquet")
    with Shards(folder) as shards:
        assert list(shards.documents("train")) == ["x", "y"]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (pa.table({"content": ["x"], "id": [1]}), "no column 'text', only content, id"),
        (pa.table({"text": [1, 2]}), "holds int64; it must hold strings"),
        (pa.table({"text": [["x"]]}), "it must hold strings"),
    ],
)
def test_a_shard_without_texts_is_named(write_shards: Callable[..., Path], table: pa.Table, message: str) -> None:
    folder = write_shards([["a"], ["b"], ["c"]])
    pq.write_table(table, folder / "shard_00001.parquet")
    with Shards(folder) as shards, pytest.raises(DataError, match=message) as caught:
        list(shards.documents("train"))
    assert "shard_00001.parquet" in caught.value.message


@pytest.mark.parametrize("spoil", [lambda c: c[:4] + b"\xff" * (len(c) - 8) + c[-4:], lambda c: c[:60] + c[-4:]])
def test_a_corrupt_shard_is_named(write_shards: Callable[..., Path], spoil: Callable[[bytes], bytes]) -> None:
    folder = write_shards([["a"] * 50, ["b"]])
    path = folder / "shard_00000.parquet"
    path.write_bytes(spoil(path.read_bytes()))
    with Shards(folder) as shards, pytest.raises(DataError, match=r"shard_00000\.parquet cannot be read as parquet"):
        list(shards.documents("train"))


def test_damaged_pages_behind_a_good_footer_are_named(write_shards: Callable[..., Path]) -> None:
    folder = write_shards([[f"document {i}" for i in range(200)], ["b"]], row_group_size=200)
    path = folder / "shard_00000.parquet"
    content = bytearray(path.read_bytes())
    content[4:40] = b"\xff" * 36
    path.write_bytes(content)
    with Shards(folder) as shards, pytest.raises(DataError, match=r"shard_00000\.parquet"):
        list(shards.documents("train"))


def test_no_damaged_byte_of_a_shard_with_checksums_is_read(tmp_path: Path) -> None:
    """Whatever is wrong is an error that names the shard, never other text, and nothing else than a DataError."""
    rng = random.Random(0)
    documents = [" ".join(rng.choices(["alpha", "beta", "gamma", "delta"], k=20)) for _ in range(64)]
    write_shards_with_checksums(tmp_path, documents, 2)
    path, expected = tmp_path / "shard_00000.parquet", documents[:32]
    content = path.read_bytes()
    num_refused = 0
    for _ in range(300):
        damaged = bytearray(content)
        start = rng.randrange(4, len(content) - 4)
        damaged[start : start + 3] = rng.randbytes(3)
        path.write_bytes(damaged)
        try:
            with Shards(tmp_path) as shards:
                assert list(shards.documents("train")) == expected, f"bytes {start} to {start + 2}"
        except DataError as exc:
            assert "shard_00000.parquet" in exc.message
            num_refused += 1
    assert num_refused > 100  # some bytes say nothing of the text: names, versions, statistics


def test_the_fingerprint_tells_a_changed_dataset(write_shards: Callable[..., Path]) -> None:
    before = Shards(write_shards([["a"], ["b"]])).fingerprint("train")
    assert Shards(write_shards([["a"], ["b"]])).fingerprint("train") == before
    assert Shards(write_shards([["a much longer text"], ["b"]])).fingerprint("train") != before
    assert Shards(write_shards([["a"], ["b"], ["c"]])).fingerprint("train") != before


def test_a_single_shard_says_that_two_are_needed(write_shards: Callable[..., Path]) -> None:
    with pytest.raises(DataError, match="needs two"):
        Shards(write_shards([["a"]]))


def test_shards_are_read_without_torch() -> None:
    script = "import sys, nanochat.data.shards; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
