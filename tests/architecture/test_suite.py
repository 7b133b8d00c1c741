"""How `make test` itself behaves where a process that runs tests dies."""

import re
import subprocess
import sys
from pathlib import Path

from tests.conftest import REPOSITORY

# One test of a file may end its process.
DYING = """
import os
import time

import pytest

@pytest.mark.parametrize("number", range({num_tests}))
def test_it(number):
    time.sleep(0.01)
    if number == {dies_at}:
        os._exit(0)
"""


def test_a_process_that_dies_costs_one_test_and_the_rest_is_run_to_the_end(tmp_path: Path) -> None:
    num_tests = 0
    for file in range(12):
        in_this = 1 + file % 5
        num_tests += in_this
        source = DYING.format(num_tests=in_this, dies_at=2 if file in (4, 9) else None)
        (tmp_path / f"test_{file:02}.py").write_text(source)
    command = (
        *(sys.executable, "-m", "pytest", "-p", "tests.conftest", "-p", "no:cacheprovider", "--rootdir", str(tmp_path)),
        *("-n", "2", "--dist", "loadfile", "--no-loadscope-reorder", "--quiet", str(tmp_path)),
    )
    done = subprocess.run(command, cwd=REPOSITORY, timeout=120, capture_output=True, text=True)
    assert re.search(rf"2 failed, {num_tests - 2} passed", done.stdout), done.stdout
    assert len(re.findall(r"^FAILED .*test_(04|09)\.py::test_it\[2\]", done.stdout, re.MULTILINE)) == 2
    assert done.returncode == 1
