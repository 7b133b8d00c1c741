"""Which code and which machine: git asked in a repository made for it."""

import subprocess
from pathlib import Path

import pytest
import torch

from nanochat.recipes.environment import commit, describe_environment


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    done = subprocess.run(["git", "-C", folder, *identity, *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A committed file in a repository."""
    file = tmp_path / "code.py"
    file.write_text("a = 1\n")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "code.py")
    git(tmp_path, "commit", "-q", "-m", "one")
    return file


def test_the_commit_is_that_of_the_files_repository(source: Path) -> None:
    assert commit(source) == git(source.parent, "rev-parse", "--short=12", "HEAD")
    source.write_text("a = 2\n")
    assert commit(source) == git(source.parent, "rev-parse", "--short=12", "HEAD") + "-dirty"


def test_a_file_that_merely_lies_in_a_repository_or_in_none_has_no_commit(source: Path, tmp_path: Path) -> None:
    other = source.with_name("installed.py")
    other.write_text("")
    assert commit(other) is None
    assert commit(Path("/") / "nowhere" / "code.py") is None


def test_a_machine_is_described() -> None:
    found = describe_environment(torch.device("cpu"), num_ranks=3)
    assert found.num_ranks == 3
    assert found.num_cores >= 1 and found.memory_bytes > 2**28
    assert found.torch == torch.__version__
    assert found.device_name and found.system
