"""What is read of which files, and what is wrong with them, by file and line."""

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nanochat.data.repackage import documents
from nanochat.data.repackage.documents import Documents
from nanochat.errors import DataError


def write(path: Path, content: bytes | str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = content.encode() if isinstance(content, str) else content
    if path.suffix == ".gz":
        content = gzip.compress(content)
    if path.suffix == ".zst":
        with pa.CompressedOutputStream(str(path), "zstd") as file:
            file.write(content)
        return path
    path.write_bytes(content)
    return path


def lines(*texts: str) -> str:
    return "".join(json.dumps({"text": text, "id": 1}) + "\n" for text in texts)


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_jsonl_and_text_are_read_packed_or_not(tmp_path: Path, suffix: str) -> None:
    assert list(Documents(write(tmp_path / f"a.jsonl{suffix}", lines("one\n", "", "둘")))) == ["one\n", "", "둘"]
    assert list(Documents(write(tmp_path / f"a.txt{suffix}", "line\r\nline 둘"))) == ["line\nline 둘"]


def test_a_folder_is_read_in_the_order_of_its_paths_and_other_files_are_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path / "b.jsonl", lines("3", "4") + "\n  \n")
    write(tmp_path / "a" / "x.txt", "1")
    write(tmp_path / "a" / "y.md", "2")
    write(tmp_path / "cover.png", "no text")
    write(tmp_path / ".hidden.txt", "no")
    pq.write_table(pa.table({"text": ["5", "6"]}), tmp_path / "c.parquet")
    found = Documents(tmp_path)
    assert list(found) == ["1", "2", "3", "4", "5", "6"]
    assert found.bytes_read == found.total_bytes
    [record] = caplog.records
    assert (record.message, record.__dict__["count"]) == ("files_left_out", 1)


def test_another_column_can_be_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '{"body": "x", "text": 3}')
    assert list(Documents(path, "body")) == ["x"]


def test_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    assert list(Documents(write(tmp_path / "a.jsonl", b"\xef\xbb\xbf" + lines("x").encode()))) == ["x"]
    assert list(Documents(write(tmp_path / "a.txt", b"\xef\xbb\xbfx"))) == ["x"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b'{"text": "x"', "is no JSON"),
        (b'["text"]', "is no JSON object but list"),
        (b'{"content": "x"}', "has no key 'text', only content"),
        (b'{"text": null}', "has NoneType under 'text'"),
        (b'{"text": "\\ud800"}', "half of a surrogate pair"),
        (b'{"text": "\xff"}', "is not UTF-8"),
        (b"[" * 100_000, "is no JSON"),
        (b"NaN", "no JSON object but float"),
    ],
)
def test_a_malformed_line_is_named_by_file_and_line(tmp_path: Path, line: bytes, said: str) -> None:
    path = write(tmp_path / "a.jsonl", lines("good", "good").encode() + line + b"\n" + lines("good").encode())
    with pytest.raises(DataError) as raised:
        list(Documents(path))
    assert str(raised.value).startswith(f"{path}, line 3 ") and said in str(raised.value)


def test_a_line_without_end_is_refused_before_it_is_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "MAX_LINE_BYTES", 1000)
    with pytest.raises(DataError, match="line 2 is longer"):
        list(Documents(write(tmp_path / "a.jsonl", lines("x", "y" * 2000))))


def test_a_very_long_text_becomes_several_documents_between_paragraphs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(documents, "MAX_TEXT_CHARS", 1000)
    monkeypatch.setattr(documents, "_CHUNK_BYTES", 37)
    text = "".join(f"Paragraph {index} 가나다 " * 5 + "\r\n\r\n" for index in range(100))
    found = list(Documents(write(tmp_path / "a.txt", text)))
    assert len(found) > 5 and max(map(len, found)) < 1100
    assert "".join("".join(found).split()) == "".join(text.split())
    assert all(document.lstrip().startswith("Paragraph") for document in found if document.strip())


def test_text_that_is_not_utf_8_is_named_with_the_place(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.txt is not UTF-8.*near byte 5"):
        list(Documents(write(tmp_path / "a.txt", b"hallo\xff")))


def spoil_parquet(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[4:60] = bytes(56)
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"body": ["x"]}, "has no column 'text', only body"),
        ({"text": [1]}, "holds int64"),
        ({"text": ["x", None]}, "row 1 of"),
        (None, "cannot be read as parquet"),
    ],
)
def test_parquet_that_cannot_be_used_is_named(tmp_path: Path, table: Any, said: str) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table(table or {"text": ["x" * 100]}), path, write_page_checksum=True)
    if table is None:
        spoil_parquet(path)
    with pytest.raises(DataError, match=said) as raised:
        list(Documents(path))
    assert str(path) in str(raised.value)


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_a_packed_file_that_was_cut_short_is_named(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"a.jsonl{suffix}", lines(*(f"text {index * 7919}" for index in range(5000))))
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(DataError, match=r"a\.jsonl.* (cannot be read|line)"):
        list(Documents(path))


def test_what_is_no_source_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        Documents(tmp_path / "none")
    with pytest.raises(DataError, match="is none of"):
        Documents(write(tmp_path / "a.docx", "x"))
    with pytest.raises(DataError, match="holds no file of"):
        Documents(tmp_path)


def test_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    outside = write(tmp_path / "outside.txt", "secret")
    folder = tmp_path / "in"
    write(folder / "a.txt", "x")
    (folder / "b.txt").symlink_to(outside)
    with pytest.raises(DataError, match="outside the folder"):
        Documents(folder)
