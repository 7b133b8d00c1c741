"""The kernels are compiled once, for what the processor can do, and an old library is never taken for a new one."""

import stat
from pathlib import Path

import pytest

from nanochat.errors import Unavailable
from nanochat.native import build
from nanochat.native.build import STEP, TRAINING, Kernels, Variant, find_or_compile, usable_variants


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """What is compiled, by a compiler that only writes its flags; none was installed."""
    calls: list[str] = []
    compiler = tmp_path / "bin" / "c++"
    compiler.parent.mkdir()
    compiler.write_text('#!/bin/sh\nwhile [ "$1" != -o ]; do shift; done\necho compiled > "$2"\n')
    compiler.chmod(compiler.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(build, "PREBUILT", tmp_path / "none")
    monkeypatch.setattr(build.shutil, "which", lambda name: calls.append(name) or str(compiler))
    return calls


def test_the_best_variant_of_the_processor_is_compiled_once(
    compiled: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    variants = (Variant("wide", ("-mwide",), frozenset({"wide"})), Variant("plain", (), frozenset()))
    monkeypatch.setattr(build, "variants", lambda kernels: variants)
    first = find_or_compile(tmp_path / "cache")
    assert ("-plain-" in first.name, first.read_text()) == (True, "compiled\n")
    assert find_or_compile(tmp_path / "cache") == first
    assert len(compiled) == 1
    monkeypatch.setattr(build, "_processor_flags", lambda: frozenset({"wide"}))
    # What is there already serves; only where nothing is, the best is compiled.
    assert find_or_compile(tmp_path / "cache") == first
    assert "-wide-" in find_or_compile(tmp_path / "another").name


def test_one_that_was_compiled_ahead_is_taken(
    compiled: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "PREBUILT", tmp_path / "ahead")
    assert build.main([]) == 0
    assert find_or_compile(tmp_path / "cache").parent == tmp_path / "ahead"
    assert build.main(["--every-variant"]) == 0
    assert len(list((tmp_path / "ahead").iterdir())) == len(build.variants()) + len(build.variants(TRAINING))


def test_what_one_library_fails_at_leaves_the_other(
    compiled: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As with a compiler that has no OpenMP."""
    monkeypatch.setattr(build, "PREBUILT", tmp_path / "ahead")
    monkeypatch.setattr(build.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(build, "_processor_flags", lambda: build.X86_VARIANTS[1].needs)
    compile_variant = build.compile_variant

    def fail_for_training(variant: Variant, folder: Path, kernels: Kernels = STEP) -> Path:
        if kernels is STEP:
            return compile_variant(variant, folder, kernels)
        raise Unavailable("no OpenMP.")

    monkeypatch.setattr(build, "compile_variant", fail_for_training)
    assert build.main([]) == 1
    assert capsys.readouterr().err == f"no OpenMP. {TRAINING.without}\n"
    assert find_or_compile(tmp_path / "cache").parent == tmp_path / "ahead"


def test_a_change_of_the_sources_is_another_library(
    compiled: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = find_or_compile(tmp_path / "cache")
    monkeypatch.setattr(build, "_source_hash", lambda: "0123456789abcdef")
    assert find_or_compile(tmp_path / "cache") != old


def test_without_a_compiler_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "PREBUILT", tmp_path / "none")
    monkeypatch.setattr(build.shutil, "which", lambda name: None)
    with pytest.raises(Unavailable, match="no C"):
        find_or_compile(tmp_path / "cache")


@pytest.mark.skipif(build.find_compiler() is None, reason="no C++ compiler is here")
def test_what_the_compiler_refuses_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "PREBUILT", tmp_path / "none")
    with pytest.raises(Unavailable, match="could not compile the CPU's kernels"):
        build.compile_variant(Variant("odd", ("-mno-such-instructions",), frozenset()), tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())


def test_a_processor_that_the_kernels_are_not_made_for_has_none(
    compiled: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(build, "_processor_flags", lambda: frozenset({"avx2", "fma", "bmi2", "f16c"}))
    with pytest.raises(Unavailable, match="kernels for training are made for, avx512"):
        find_or_compile(tmp_path, TRAINING)
    assert "-avx2-" in find_or_compile(tmp_path).name


def test_tiles_are_used_only_where_the_system_lets_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(build, "_processor_flags", lambda: build.X86_VARIANTS[0].needs)
    for may_use_tiles, best in ((True, "amx"), (False, "avx512vnni")):
        monkeypatch.setattr(build, "_may_use_tiles", lambda answer=may_use_tiles: answer)
        assert usable_variants()[0].name == best


def test_every_processor_has_a_variant() -> None:
    assert usable_variants()[-1].name == "baseline"
