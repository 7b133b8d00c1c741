"""Compiles what test_variants.py asks for in the seconds that other tests only wait: whatever wants a core goes first.

python -m tests.numerics.native.ahead FOLDER
"""

import fcntl
import os
import sys
from pathlib import Path

from nanochat.native import build
from nanochat.native.build import Variant


def compiled(variant: Variant, folder: Path) -> Path:
    """Its library in `folder`. Who asks while another process compiles it waits for that. Raises Unavailable."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{variant.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return build.find_variant(variant, folder) or build.compile_variant(variant, folder)


def main(folder: Path) -> None:
    os.nice(10)  # a tenth of a core where two are busy: enough that nobody waits long for what it has begun
    if build.find_compiler() is not None:
        for variant in build.usable_variants():
            compiled(variant, folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
