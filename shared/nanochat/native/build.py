"""Finds a compiled library for this machine's instructions, or compiles it: once, in half a minute or so.

`python -m nanochat.native.build` compiles both ahead, beside this file; with --every-variant for all processors of this
architecture, as images need that have no compiler and do not know where they will run.
"""

import ctypes
import hashlib
import platform
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from nanochat.errors import Unavailable

SOURCES = Path(__file__).parent
# Compiled ahead; only main() writes here.
PREBUILT = SOURCES / "prebuilt"
_COMPILERS = ("c++", "g++", "clang++")
_FLAGS = ("-std=c++20", "-O3", "-ffp-contract=fast", "-fno-math-errno", "-fPIC", "-shared", "-pthread")
_TIMEOUT_S = 300.0


@dataclass(frozen=True)
class Kernels:
    """A library: its source, which includes the rest, what it costs to do `without`, flags of its own, and the `only`
    variant that it has, if it has not all.
    """

    name: str
    source: str
    without: str
    flags: tuple[str, ...] = ()
    only: str | None = None


STEP = Kernels("step", "api.cpp", "Until then models answer several times slower on a CPU.")
# Its tiles are made for 32 registers of 16 floats; with those of AVX2, torch's own operations are several times faster.
TRAINING = Kernels(
    "training", "training.cpp", "Until then models train more slowly on a CPU.", ("-fopenmp",), only="avx512"
)


@dataclass(frozen=True)
class Variant:
    """Instructions that a compiled library uses: `flags` for the compiler, `needs` as /proc/cpuinfo names them."""

    name: str
    flags: tuple[str, ...]
    needs: frozenset[str]


_AVX2 = frozenset({"avx2", "fma", "bmi2", "f16c"})
_AVX512 = _AVX2 | {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}
_AMX = frozenset({"amx_tile", "amx_int8"})
# The best first.
X86_VARIANTS = (
    Variant(
        "amx",
        ("-march=x86-64-v4", "-mavx512vnni", "-mamx-tile", "-mamx-int8"),
        _AVX512 | {"avx512_vnni", *_AMX},
    ),
    Variant("avx512vnni", ("-march=x86-64-v4", "-mavx512vnni"), _AVX512 | {"avx512_vnni"}),
    Variant("avx512", ("-march=x86-64-v4",), _AVX512),
    Variant("avx2", ("-march=x86-64-v3",), _AVX2),
    Variant("baseline", (), frozenset()),
)
OTHER_VARIANTS = (Variant("baseline", (), frozenset()),)


def variants(kernels: Kernels = STEP) -> tuple[Variant, ...]:
    """Those of this architecture, the best first."""
    found = X86_VARIANTS if platform.machine().lower() in ("x86_64", "amd64") else OTHER_VARIANTS
    return tuple(variant for variant in found if kernels.only in (None, variant.name))


def usable_variants(kernels: Kernels = STEP) -> list[Variant]:
    """Those that this machine's processor can run."""
    flags = _processor_flags()
    if flags >= _AMX and not _may_use_tiles():
        flags -= _AMX
    return [variant for variant in variants(kernels) if variant.needs <= flags]


def find_or_compile(folder: Path, kernels: Kernels = STEP) -> Path:
    """A library for this machine: one that was installed, else one in folder, compiled if it is not there.

    Raises Unavailable where there is none and no compiler, or none for this processor.
    """
    usable = usable_variants(kernels)
    if not usable:
        raise Unavailable(f"this processor has not what the kernels for {kernels.name} are made for, {kernels.only}.")
    found = next((path for variant in usable if (path := find_variant(variant, folder, kernels))), None)
    return found or compile_variant(usable[0], folder, kernels)


def find_variant(variant: Variant, folder: Path, kernels: Kernels = STEP) -> Path | None:
    """One that was installed, or one in folder."""
    places = (place / _file_name(variant, kernels) for place in (PREBUILT, folder))
    return next((path for path in places if path.is_file()), None)


def find_compiler() -> str | None:
    """A C++ compiler's path, if there is one."""
    return next((found for name in _COMPILERS if (found := shutil.which(name))), None)


def compile_variant(variant: Variant, folder: Path, kernels: Kernels = STEP) -> Path:
    """Compile into folder. Raises Unavailable with the compiler's last line."""
    compiler = find_compiler()
    if compiler is None:
        raise Unavailable("no C++ compiler (c++, g++ or clang++) is here to compile the CPU's kernels; install one.")
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / _file_name(variant, kernels)
    # Several processes may compile at once; each renames a whole file into place.
    with tempfile.TemporaryDirectory(dir=folder) as work:
        made = Path(work) / target.name
        flags = [*_FLAGS, *variant.flags, *kernels.flags]
        command = [compiler, *flags, str(SOURCES / kernels.source), "-o", str(made)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S)
        except (OSError, subprocess.TimeoutExpired) as exc:
            raise Unavailable(f"{compiler} could not compile the CPU's kernels: {exc}") from exc
        if done.returncode != 0:
            lines = done.stderr.strip().splitlines() or ["no output"]
            error = next((line for line in lines if "error" in line), lines[-1])
            raise Unavailable(f"{compiler} could not compile the CPU's kernels: {error}")
        made.replace(target)
    return target


@cache
def _source_hash() -> str:
    flags = [*_FLAGS, *(flag for each in (*X86_VARIANTS, STEP, TRAINING) for flag in each.flags)]
    digest = hashlib.sha256(" ".join(flags).encode())
    for path in sorted([*SOURCES.glob("*.h"), *SOURCES.glob("*.cpp")]):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _file_name(variant: Variant, kernels: Kernels) -> str:
    """A change of the sources or the flags is another file, so that no old library is ever taken for a new one."""
    return f"nanochat-{kernels.name}-{platform.machine().lower()}-{variant.name}-{_source_hash()}.so"


def _processor_flags() -> frozenset[str]:
    """As Linux tells them; empty elsewhere, where the baseline has to do."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return frozenset()
    found = next((line for line in lines if line.startswith("flags")), "")
    return frozenset(found.partition(":")[2].split())


@cache
def _may_use_tiles() -> bool:
    """Linux lets a process use AMX's tiles once it has asked, for all of its threads: their state is large, and signals
    must have room for it (docs.kernel.org/arch/x86/xstate.html)."""
    arch_prctl, request_permission, tile_data = 158, 0x1023, 18
    status: int = ctypes.CDLL(None).syscall(arch_prctl, request_permission, tile_data)
    return status == 0


def main(arguments: list[str]) -> int:
    is_for_all = "--every-variant" in arguments
    wanted = [
        (variant, kernels)
        for kernels in (STEP, TRAINING)
        for variant in (variants(kernels) if is_for_all else usable_variants(kernels)[:1])
    ]
    failed = []
    for variant, kernels in wanted:
        if (PREBUILT / _file_name(variant, kernels)).is_file():
            continue
        try:
            compile_variant(variant, PREBUILT, kernels)
        except Unavailable as exc:
            failed.append(kernels)
            print(f"{exc.message} {kernels.without}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
