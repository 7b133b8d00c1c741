"""The dataset that needs no network: made once, whole, and the same each time."""

import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from nanochat.data import builtin, python_docs
from nanochat.data.registry import Dataset, resolve_dataset
from nanochat.data.shards import Shards
from nanochat.errors import DataError


@pytest.fixture(scope="module")
def texts() -> list[str]:
    """What a fifth of the sources gives; all of them take some seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(python_docs, "_MAX_STDLIB_BYTES", 3_000_000)
        patch.setattr(python_docs, "_MAX_PACKAGE_BYTES", 1_000_000)
        return list(python_docs.documents())


def unbuilt(home: Path) -> Dataset:
    return resolve_dataset("python-docs", home, [home / "datasets"])


def some_documents() -> Iterator[str]:
    for index in range(2000):
        yield f"This is sentence number {index} of the documentation."


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(builtin._DOCUMENTS, "python-docs", some_documents)


def test_python_brings_plenty_of_prose(texts: list[str]) -> None:
    assert sum(map(len, texts)) > 300_000
    letters = sum(char.isalpha() or char in " \n" for text in texts for char in text)
    assert letters > 0.93 * sum(map(len, texts))


def test_documents_suit_short_rows_and_repeat_no_paragraph(texts: list[str]) -> None:
    assert sum(len(text) > 1000 for text in texts) < 0.02 * len(texts)
    paragraphs = [paragraph for text in texts for paragraph in text.split("\n\n")]
    assert len(set(paragraphs)) == len(paragraphs)


def test_code_tables_and_markup_are_left_out() -> None:
    text = """Return the :class:`~mod.Name` of ``x`` as *one* `link`_.

    >>> code(1)
    2

    Example of the thing, which is given here::

    | a table | of things |
    +---------+-----------+

    The second paragraph
    spans two lines.

    {"x": [1, 2, 3]} is a literal, not a sentence.
    """
    assert list(python_docs._paragraphs(text)) == [
        "Return the mod.Name of x as one link.",
        "The second paragraph spans two lines.",
    ]


def test_files_that_are_no_python_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text("def (")
    (tmp_path / "null.py").write_bytes(b"x = 1\0")
    (tmp_path / "latin.py").write_bytes(b'"""caf\xe9"""')
    (tmp_path / "good.py").write_text(
        '"""Module."""\nclass A:\n    """Class."""\n    def f(self):\n        """Method."""\n'
    )
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_x.py").write_text('"""Not this one."""')
    assert list(python_docs._docstrings([tmp_path], 10_000)) == ["Module.", "Class.", "Method."]


@pytest.mark.usefixtures("quick")
def test_it_is_made_on_first_use_and_kept(home: Path) -> None:
    dataset = builtin.prepare(unbuilt(home))
    assert not dataset.must_be_built
    again = unbuilt(home)
    assert again == dataset
    assert builtin.prepare(again) is again
    with Shards(dataset.folder) as shards:
        train, val = set(shards.documents("train")), set(shards.documents("val"))
    assert train | val == set(some_documents())
    assert not train & val
    assert len(val) == 2000 // 8


@pytest.mark.usefixtures("quick")
def test_two_homes_get_the_same_files(tmp_path: Path) -> None:
    folders = [builtin.prepare(unbuilt(tmp_path / name)).folder for name in "ab"]
    contents = [[path.read_bytes() for path in sorted(folder.iterdir())] for folder in folders]
    assert contents[0] == contents[1]


def test_two_processes_at_once_make_one_dataset(home: Path) -> None:
    script = f"""
        import pathlib, sys
        from nanochat.data import builtin
        from nanochat.data.registry import resolve_dataset
        home = pathlib.Path({str(home)!r})
        made = []
        def documents():
            made.append(1)
            yield from (f"Sentence {{i}} of the documentation." for i in range(2000))
        builtin._DOCUMENTS["python-docs"] = documents
        dataset = resolve_dataset("python-docs", home, [home / "datasets"])
        assert dataset.must_be_built
        print("ready", flush=True)
        sys.stdin.readline()
        dataset = builtin.prepare(dataset)
        assert len(dataset.shards) == 8
        print(len(made))
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    processes = [subprocess.Popen(command, text=True, **pipes) for _ in range(2)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"  # both have found it missing
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    num_made = [process.communicate(timeout=60)[0].strip() for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert sorted(num_made) == ["0", "1"]
    assert sorted(path.name for path in (home / "datasets").iterdir()) == [".lock", "python-docs"]


def test_too_little_text_says_so_and_leaves_nothing(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(builtin._DOCUMENTS, "python-docs", lambda: iter(["One document."]))
    with pytest.raises(DataError, match="found 1 documents"):
        builtin.prepare(unbuilt(home))
    assert unbuilt(home).must_be_built


@pytest.mark.usefixtures("quick")
def test_a_disk_error_leaves_nothing_half_written(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, documents: object) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(builtin, "_write_shard", full)
        with pytest.raises(OSError, match="No space"):
            builtin.prepare(unbuilt(home))
    assert [path.name for path in (home / "datasets").iterdir()] == [".lock"]
    assert len(builtin.prepare(unbuilt(home)).shards) == 8
