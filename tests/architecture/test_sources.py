"""House rules that can be read off the sources: who reads the environment, no eval, no pickle, no vague names."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted(
    path
    for folder in ("shared/nanochat", *(f"services/{name}" for name in ("gateway", "trainer", "worker", "inference")))
    for path in (ROOT / folder).rglob("*.py")
    if "node_modules" not in path.parts and "build" not in path.parts
)
VAGUE_NAMES = {"utils", "util", "helpers", "helper", "common", "manager", "misc"}
# torchrun's RANK family; elsewhere a settings class reads.
MAY_READ_ENVIRONMENT = {"shared/nanochat/recipes/distributed.py"}
# By an unpickler that knows one name: tests/unit/checkpoint/test_pickled.py.
MAY_UNPICKLE = {"shared/nanochat/checkpoint/pickled.py"}


def nodes(path: Path) -> Iterator[tuple[ast.AST, ast.AST | None]]:
    """Every node of a file with its parent."""
    tree = ast.parse(path.read_text())
    yield tree, None
    for parent in ast.walk(tree):
        for child in ast.iter_child_nodes(parent):
            yield child, parent


def called_name(node: ast.AST) -> str:
    """`torch.load` for a call of it; empty for what is no call of a plain name."""
    return (
        ast.unparse(node.func) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute) else ""
    )


def is_environment_read(node: ast.AST, parent: ast.AST | None) -> bool:
    """os.environ and os.getenv, unless a variable is set (`os.environ[name] = value`) or all are handed on to a child
    process (`{**os.environ}`)."""
    if isinstance(node, ast.Attribute) and ast.unparse(node) in ("os.getenv", "os.environb", "os.getenvb"):
        return True
    if not (isinstance(node, ast.Attribute) and ast.unparse(node) == "os.environ"):
        return False
    is_set = isinstance(parent, ast.Subscript) and isinstance(parent.ctx, ast.Store | ast.Del)
    is_handed_on = isinstance(parent, ast.Dict) and None in parent.keys
    return not (is_set or is_handed_on)


def where(path: Path, node: ast.AST) -> str:
    return f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"


def test_there_are_sources() -> None:
    assert len(SOURCES) > 100


def test_only_settings_read_the_environment() -> None:
    found = [
        where(path, node)
        for path in SOURCES
        if str(path.relative_to(ROOT)) not in MAY_READ_ENVIRONMENT
        for node, parent in nodes(path)
        if is_environment_read(node, parent)
    ]
    assert not found


def test_environ_is_not_imported_by_another_name() -> None:
    found = [
        where(path, node)
        for path in SOURCES
        for node, _ in nodes(path)
        if isinstance(node, ast.ImportFrom) and node.module == "os"
        if {alias.name for alias in node.names} & {"environ", "getenv"}
    ]
    assert not found


def test_nothing_evaluates_or_unpickles() -> None:
    found = [where(path, node) for path in SOURCES for node, _ in nodes(path) if called_name(node) in ("eval", "exec")]
    found += [
        where(path, node)
        for path in SOURCES
        if str(path.relative_to(ROOT)) not in MAY_UNPICKLE
        for node, _ in nodes(path)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""])
        if name.split(".")[0] in ("pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib")
    ]
    assert not found


def test_torch_load_takes_weights_only() -> None:
    found = [
        where(path, node)
        for path in SOURCES
        for node, _ in nodes(path)
        if called_name(node) == "torch.load" and isinstance(node, ast.Call)
        if not any(word.arg == "weights_only" and ast.unparse(word.value) == "True" for word in node.keywords)
    ]
    assert not found


def test_no_file_has_a_vague_name() -> None:
    assert not [str(path) for path in SOURCES if path.stem in VAGUE_NAMES or path.parent.name in VAGUE_NAMES]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_module_opens_with_why_it_exists(path: Path) -> None:
    source = path.read_text()
    assert not source.strip() or ast.get_docstring(ast.parse(source))


@pytest.mark.parametrize(
    ("code", "is_read"),
    [
        ("os.environ['X']", True),
        ("os.environ.get('X')", True),
        ("'X' in os.environ", True),
        ("os.getenv('X')", True),
        ("dict(os.environ)", True),
        ("os.environ['X'] = '1'", False),
        ("start(env={**os.environ, 'X': '1'})", False),
    ],
)
def test_environment_reads_are_recognised(code: str, is_read: bool, tmp_path: Path) -> None:
    file = tmp_path / "code.py"
    file.write_text(code)
    assert any(is_environment_read(node, parent) for node, parent in nodes(file)) is is_read
