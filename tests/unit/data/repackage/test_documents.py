"""What is read of which files, and what is wrong with them, by file and line."""

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nanochat.data import jsonl
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
    assert list(Documents(write(tmp_path / "b.jsonl", b"\xef\xbb\xbf\r\n" + lines("x").encode()))) == ["x"]
    assert list(Documents(write(tmp_path / "a.txt", b"\xef\xbb\xbfx"))) == ["x"]


def test_names_in_capitals_say_the_same(tmp_path: Path) -> None:
    write(tmp_path / "A.TXT", "1")
    (tmp_path / "B.JSONL.GZ").write_bytes(gzip.compress(lines("2").encode()))
    assert list(Documents(tmp_path)) == ["1", "2"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b'{"text": "x"', "is not JSON"),
        (b'["text"]', "is no JSON object but list"),
        (b'{"content": "x"}', "has no key 'text', only 'content'"),
        (b'{"\\u001b[2J": 1, "' + b"k" * 10**6 + b'": 1}', "only '\\x1b[2J', 'kkkk"),
        (b'{"\\ud800": 1}', "half of a surrogate pair"),
        (b'{"text": null}', "has NoneType under 'text'"),
        (b'{"text": "\\ud800"}', "half of a surrogate pair"),
        (b'{"text": "\xff"}', "is not UTF-8"),
        (b"[" * 100_000, "is not JSON"),
        (b"NaN", "no JSON object but float"),
    ],
)
def test_a_malformed_line_is_named_by_file_and_line(tmp_path: Path, line: bytes, said: str) -> None:
    path = write(tmp_path / "a.jsonl", lines("good", "good").encode() + line + b"\n" + lines("good").encode())
    with pytest.raises(DataError) as raised:
        list(Documents(path))
    assert str(raised.value).startswith(f"{path}, line 3 ") and said in str(raised.value)
    assert len(str(raised.value)) < 500 and str(raised.value).isprintable()


def test_a_line_without_end_is_refused_before_it_is_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsonl, "MAX_LINE_BYTES", 1000)
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


def test_a_packed_file_with_other_bytes_in_its_middle_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl.gz", lines("x") * 1000)
    content = bytearray(path.read_bytes())
    content[20:40] = b"\xff" * 20
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.jsonl\.gz cannot be read: .*decompressing"):
        list(Documents(path))


def test_what_is_no_source_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.txt")
    for path in (tmp_path / "none", tmp_path / "pipe.txt"):
        with pytest.raises(DataError, match="is no file and no folder"):
            Documents(path)
    with pytest.raises(DataError, match="is none of"):
        Documents(write(tmp_path / "a.docx", "x"))
    with pytest.raises(DataError, match="holds no file of"):
        Documents(tmp_path)


def test_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    outside = write(tmp_path / "outside.txt", "secret")
    folder = tmp_path / "in"
    write(folder / "a.txt", "x")
    for target in (outside, tmp_path):  # of a folder, a link is not passed over without a word
        (folder / "b.txt").symlink_to(target)
        with pytest.raises(DataError, match="outside the folder"):
            Documents(folder)
        (folder / "b.txt").unlink()


def test_links_in_a_circle_and_pipes_are_left_out_and_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path / "sub" / "a.txt", "x")
    (tmp_path / "sub" / "up").symlink_to(tmp_path)
    (tmp_path / "self.txt").symlink_to("self.txt")
    (tmp_path / "nowhere.txt").symlink_to("nothing")
    os.mkfifo(tmp_path / "pipe.txt")
    assert list(Documents(tmp_path)) == ["x"]
    assert caplog.records[0].__dict__["count"] == 3


def test_a_folder_that_cannot_be_listed_is_not_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "sub" / "a.txt", "x")
    scan = os.scandir

    def refuse(path: Any) -> Any:
        if str(path).endswith("sub"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(PermissionError):
        Documents(tmp_path)
