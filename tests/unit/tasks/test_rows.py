"""Rows from JSONL and parquet, and what is wrong with bad files."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nanochat.errors import DataError
from nanochat.tasks.rows import read_files

ROWS = [{"question": "Was?", "n": 1}, {"question": "Qui?", "n": 2}, {"question": "なに?", "n": 3}]


def test_jsonl_and_parquet_give_the_same_rows_and_tell_their_places(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps(row) + "\n" for row in ROWS))
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "a.parquet", row_group_size=2)
    lines, rows = list(read_files([tmp_path / "a.jsonl"])), list(read_files([tmp_path / "a.parquet"]))
    assert [row.values for row in lines] == [row.values for row in rows] == ROWS
    assert lines[1].place.endswith("a.jsonl, line 3") and rows[2].place.endswith("a.parquet, row 3")


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.jsonl", b'{"a": 1}\n{', "a.jsonl, line 2 is not JSON"),
        ("a.jsonl", b"[1]", "a.jsonl, line 1 is a list"),
        ("a.jsonl", b'{"a": "\xff"}', "a.jsonl, line 1 is not UTF-8"),
        ("a.jsonl", b"[" * 100_000, "a.jsonl, line 1 is not JSON"),
        ("a.parquet", b"PAR1 and nothing more", "a.parquet is no sound parquet file"),
    ],
)
def test_a_bad_file_is_named_with_its_line(tmp_path: Path, name: str, content: bytes, reason: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=reason):
        list(read_files([tmp_path / name]))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere.jsonl cannot be read: No such file"):
        list(read_files([tmp_path / "nowhere.jsonl"]))
