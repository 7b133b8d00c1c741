"""General English that every machine with Python has: docstrings, help topics, the descriptions of packages.

Files are parsed, never imported. Gives clean documents in an order that depends on the installation alone; writing
them as a dataset is builtin.py.
"""

import ast
import inspect
import re
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path

# Source read at most, in bytes of the standard library and of packages: parsing takes about a second for 4 MB.
_MAX_STDLIB_BYTES = 12_000_000
_MAX_PACKAGE_BYTES = 8_000_000
_MAX_FILE_BYTES = 400_000  # larger ones are tables and generated code

_MAX_DOCUMENT_CHARS = 1000  # small models have short rows, and what does not fit in a row is thrown away
_MIN_DOCUMENT_CHARS = 60
_MIN_PARAGRAPH_WORDS = 5
_MIN_PROSE_RATIO = 0.94  # letters, spaces and sentence marks among a paragraph's characters

_SKIPPED_FOLDERS = frozenset(
    {"test", "tests", "testing", "_vendor", "_vendored", "site-packages", "dist-packages", "idle_test", "pydoc_data"}
)
_PROSE = re.compile(r"[A-Za-z ,.;:'\"()?!-]")
_NOT_PROSE = re.compile(
    r">>>|\.\.\. |^\s*[|+=#*~^-]{3,}|^\s*[|$@<]|::\s*$|^\s*\.\. |[{}\\]|\|\s|https?://", re.MULTILINE
)
_MARKUP = (
    (re.compile(r":[a-z:+-]+:`~?([^`<]+)(?:<[^`]*>)?`"), r"\1"),  # :class:`Name`
    (re.compile(r"`{1,2}([^`]+)`{1,2}_{0,2}"), r"\1"),  # ``name`` and `link`_
    (re.compile(r"!?\[([^\]]+)\]\([^)]*\)"), r"\1"),  # [text](address)
    (re.compile(r"(?<!\w)(\*{1,2})(\S(?:.*?\S)?)\1(?!\w)"), r"\2"),  # *emphasis*
)


def documents() -> Iterator[str]:
    """Clean documents of 60 to about 1000 characters, no paragraph twice."""
    seen: set[str] = set()
    for text in _raw_texts():
        new = [paragraph for paragraph in dict.fromkeys(_paragraphs(text)) if paragraph not in seen]
        seen.update(new)
        yield from _cut(new)


def _raw_texts() -> Iterator[str]:
    stdlib = Path(sysconfig.get_path("stdlib"))
    packages = sorted({Path(sysconfig.get_path(name)) for name in ("purelib", "platlib")})
    yield from _help_topics(stdlib / "pydoc_data" / "topics.py")
    for folder in packages:
        yield from map(_description, sorted(folder.glob("*.dist-info/METADATA")))
    yield from _docstrings([stdlib], _MAX_STDLIB_BYTES)
    yield from _docstrings(packages, _MAX_PACKAGE_BYTES)


def _help_topics(path: Path) -> Iterator[str]:
    """The strings of pydoc's topics, which are sections of the language reference."""
    tree = _parse(path)
    for node in ast.walk(tree) if tree else ():
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def _description(path: Path) -> str:
    """The long description of an installed package: what follows the headers of METADATA."""
    return path.read_text(encoding="utf-8", errors="ignore").partition("\n\n")[2]


def _docstrings(folders: list[Path], max_bytes: int) -> Iterator[str]:
    """Docstrings of modules, classes and functions, files in order of their names until `max_bytes` are read."""
    for folder in folders:
        for path in _sources(folder):
            max_bytes -= path.stat().st_size
            if max_bytes < 0:
                return
            tree = _parse(path)
            if tree is not None:
                yield from _docstrings_below(tree)


def _docstrings_below(node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[str]:
    """The node's and those of what is defined directly in it: walking every expression takes three times as long."""
    yield ast.get_docstring(node) or ""
    for child in node.body:
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _docstrings_below(child)


def _sources(folder: Path) -> Iterator[Path]:
    """Python files below a folder in order, without tests, vendored copies and giants."""
    for path in sorted(folder.iterdir()):
        if path.is_dir() and not path.is_symlink() and path.name not in _SKIPPED_FOLDERS:
            yield from _sources(path)
        elif path.suffix == ".py" and path.is_file() and path.stat().st_size <= _MAX_FILE_BYTES:
            yield path


def _parse(path: Path) -> ast.Module | None:
    """None for a file that is missing or not Python of this version: it is only one source of text less."""
    try:
        with warnings.catch_warnings(action="ignore"):
            return ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError):
        return None


def _paragraphs(text: str) -> Iterator[str]:
    """The paragraphs of prose, each on one line and without markup."""
    for block in re.split(r"\n\s*\n", inspect.cleandoc(text)):
        if _NOT_PROSE.search(block):
            continue
        for pattern, replacement in _MARKUP:
            block = pattern.sub(replacement, block)
        line = " ".join(block.split())
        is_sentence = line[-1:] in ".?!:" and len(line.split()) >= _MIN_PARAGRAPH_WORDS and line[0].isalpha()
        if is_sentence and len(_PROSE.findall(line)) >= _MIN_PROSE_RATIO * len(line):
            yield line


def _cut(paragraphs: list[str]) -> Iterator[str]:
    """Paragraphs as documents of at most _MAX_DOCUMENT_CHARS, unless one paragraph alone is longer."""
    document = ""
    for paragraph in paragraphs:
        if document and len(document) + len(paragraph) + 2 > _MAX_DOCUMENT_CHARS:
            yield document
            document = ""
        document = f"{document}\n\n{paragraph}" if document else paragraph
    if len(document) >= _MIN_DOCUMENT_CHARS:
        yield document
