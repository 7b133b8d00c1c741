"""Begins to compile for test_variants.py as soon as it is known that it will run, where several processes run tests."""

import os
import signal
import subprocess
import sys
from contextlib import suppress

import pytest

from tests.conftest import REPOSITORY

COMPILING: pytest.StashKey["subprocess.Popen[bytes]"] = pytest.StashKey()


def pytest_collection_finish(session: pytest.Session) -> None:
    is_wanted = any(item.path.name == "test_variants.py" for item in session.items)
    is_first = getattr(session.config, "workerinput", {}).get("workerid") == "gw0"  # of pytest-xdist's processes
    if is_wanted and is_first and (cache := getattr(session.config, "cache", None)):
        command = [sys.executable, "-m", "tests.numerics.native.ahead", str(cache.mkdir("native"))]
        session.config.stash[COMPILING] = subprocess.Popen(
            command, cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )


def pytest_sessionfinish(session: pytest.Session) -> None:
    compiling = session.config.stash.get(COMPILING, None)
    if compiling is not None:
        with suppress(ProcessLookupError):
            os.killpg(compiling.pid, signal.SIGKILL)
        compiling.wait()
