"""What keeps a service from starting is one line of its log, and an exit status that a supervisor understands."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from nanochat.cli.ports import any_free_port

NOBODY_LISTENS = "postgresql://nanochat@127.0.0.1:1/nanochat"


def start(module: str, home: Path, **variables: str) -> tuple[int, list[dict[str, str]]]:
    """Run a service that must not come up; its exit status and its log."""
    ports = {f"NANOCHAT_{name}_PORT": str(any_free_port()) for name in ("TRAINER", "INFERENCE", "WORKER_METRICS")}
    ended = subprocess.run(
        [sys.executable, "-m", module],
        env={**os.environ, **ports, "NANOCHAT_HOME": str(home), **variables},
        capture_output=True,
        text=True,
        timeout=60,
    )
    return ended.returncode, [json.loads(line) for line in ended.stderr.splitlines()]


def test_a_trainer_waits_for_postgres_says_so_and_gives_up(home: Path) -> None:
    status, log = start(
        "nanochat_trainer",
        home,
        NANOCHAT_DATABASE_URL=NOBODY_LISTENS,
        NANOCHAT_TRAINER_DATABASE_TIMEOUT_S="3.5",
    )
    assert status == 1
    assert [line["event"] for line in log] == ["database_awaited", "trainer_cannot_start"]
    assert log[1]["reason"].startswith("waited 3.5 s for the database: the database does not answer: connection")


@pytest.mark.parametrize("module", ["nanochat_trainer", "nanochat_worker"])
def test_a_database_url_that_cannot_be_is_named(module: str, home: Path) -> None:
    status, log = start(module, home, NANOCHAT_DATABASE_URL="mongodb://x")
    assert (status, len(log)) == (1, 1)
    assert "NANOCHAT_DATABASE_URL cannot be used" in log[0]["reason"]


def test_a_worker_that_cannot_write_its_home_says_where_and_as_whom(tmp_path: Path) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.touch()
    status, log = start("nanochat_worker", in_the_way / "home")
    assert (status, len(log)) == (1, 1)
    assert f"{in_the_way / 'home'} cannot be written by user {os.getuid()}: Not a directory" in log[0]["reason"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_replica_that_shall_use_a_gpu_that_is_not_there_does_not_start(home: Path) -> None:
    status, log = start("nanochat_inference", home, NANOCHAT_INFERENCE_DEVICE="cuda")
    assert (status, len(log)) == (1, 1)
    assert "device 'cuda' cannot be used here" in log[0]["reason"]
