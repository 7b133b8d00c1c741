"""An archive comes back as it went in; what is cut short, changed or malicious is refused in words."""

import gzip
import io
import json
import tarfile
from pathlib import Path

import pytest

from nanochat.backup.archive import CONTENTS, FORMAT, HEAD, ArchiveWriter, unpack
from nanochat.errors import DataError

FILES = {
    "rows/jobs/000000.jsonl": b'{"id": "a"}\n',
    "home/checkpoints/r/s/model": bytes(range(256)) * 40,
    "home/e": b"",
}


def archive() -> bytes:
    stream = io.BytesIO()
    writer = ArchiveWriter(stream, {"version": "1", "schema": "0001"})
    for name, content in FILES.items():
        writer.add_bytes(name, content)
    writer.close({"damaged": {}})
    return stream.getvalue()


def forged(*entries: tuple[tarfile.TarInfo, bytes], head: bytes | None = None) -> io.BytesIO:
    """An archive with these entries, and whatever list of contents suits them."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        first = tarfile.TarInfo(HEAD)
        content = json.dumps({"format": FORMAT}).encode() if head is None else head
        first.size = len(content)
        tar.addfile(first, io.BytesIO(content))
        for info, content in entries:
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        contents = json.dumps({"files": {info.name: {} for info, _ in entries}}).encode()
        last = tarfile.TarInfo(CONTENTS)
        last.size = len(contents)
        tar.addfile(last, io.BytesIO(contents))
    stream.seek(0)
    return stream


def test_what_went_in_comes_out(tmp_path: Path) -> None:
    head, notes = unpack(io.BytesIO(archive()), tmp_path)
    assert (head["version"], head["schema"]) == ("1", "0001")
    assert notes == {"damaged": {}}
    found = {path.relative_to(tmp_path).as_posix(): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert found == FILES


def test_a_compressed_archive_is_one_too(tmp_path: Path) -> None:
    unpack(io.BytesIO(gzip.compress(archive())), tmp_path)
    assert (tmp_path / "home/checkpoints/r/s/model").stat().st_size == 10240


def test_cut_short_anywhere_it_is_refused(tmp_path: Path) -> None:
    whole = archive()
    end = whole.rindex(b'"files"')  # behind it there is only what tar adds
    for index, length in enumerate(range(0, end, 509)):
        folder = tmp_path / str(index)
        folder.mkdir()
        with pytest.raises(DataError, match=r"cut short|no backup of nanochat|is no JSON"):
            unpack(io.BytesIO(whole[:length]), folder)


def test_a_compressed_archive_cut_short_is_refused(tmp_path: Path) -> None:
    whole = gzip.compress(archive())
    with pytest.raises(DataError, match=r"cut short|no backup"):
        unpack(io.BytesIO(whole[: len(whole) // 2]), tmp_path)


def test_a_changed_byte_is_found(tmp_path: Path) -> None:
    changed = bytearray(archive())
    changed[changed.index(bytes(range(256))) + 1000] ^= 1
    with pytest.raises(DataError, match=r"model' in the backup has changed"):
        unpack(io.BytesIO(bytes(changed)), tmp_path)


@pytest.mark.parametrize(
    "name",
    ["../evil", "/etc/evil", "home/../../evil", "home//evil", "home/./evil", ".hidden", "home/.evil", "a\\b", "a/"],
)
def test_a_name_that_leaves_the_folder_is_refused(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "in" / "here"
    folder.mkdir(parents=True)
    with pytest.raises(DataError, match="no plain file below a folder"):
        unpack(forged((tarfile.TarInfo(name), b"x")), folder)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE])
def test_what_is_no_plain_file_is_refused(kind: bytes, tmp_path: Path) -> None:
    info = tarfile.TarInfo("home/link")
    info.type, info.linkname = kind, "/etc/passwd"
    with pytest.raises(DataError, match="no plain file"):
        unpack(forged((info, b"")), tmp_path)
    assert list(tmp_path.rglob("link")) == []


def test_a_file_that_comes_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="twice"):
        unpack(forged((tarfile.TarInfo("home/a"), b"1"), (tarfile.TarInfo("home/a"), b"2")), tmp_path)


def test_a_file_that_the_list_does_not_know_is_refused(tmp_path: Path) -> None:
    stream = forged((tarfile.TarInfo("home/a"), b"1"))
    changed = stream.getvalue().replace(b'{"files": {"home/a"', b'{"files": {"home/b"')
    with pytest.raises(DataError, match="does not fit"):
        unpack(io.BytesIO(changed), tmp_path)


def test_another_tar_file_is_told_from_a_backup(tmp_path: Path) -> None:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("readme.txt"))
    stream.seek(0)
    with pytest.raises(DataError, match=r"it begins with 'readme\.txt'"):
        unpack(stream, tmp_path)


def test_another_format_names_the_version_to_use(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"format 2, .* version that made it \(9\.0\)"):
        unpack(forged(head=b'{"format": 2, "version": "9.0"}'), tmp_path)
