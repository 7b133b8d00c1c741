"""The same with torch's own torchrun, whose sessions, signals and reports the worker relies on."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from .conftest import Stack, is_alive, make_dataset, wait_for

pytest.importorskip("torch")


@pytest.fixture
def temporary(tmp_path: Path) -> Path:
    """The services' folder for temporary files."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    return folder


@pytest.fixture
def torchrun_stack(home: Path, temporary: Path, broker_url: str) -> Iterator[Stack]:
    environment = {
        "NANOCHAT_WORKER_TORCHRUN": "torch.distributed.run",
        "NANOCHAT_WORKER_STOP_GRACE_S": "10",
        "TMPDIR": str(temporary),
    }
    stack = Stack(home=home, redis_url=broker_url, environment=environment)
    make_dataset(home / "datasets" / "d")
    (home / "tokenizers" / "t").mkdir(parents=True)
    (home / "tokenizers" / "t" / "tokenizer.json").write_text("{}")
    try:
        stack.start_trainer()
        stack.start_worker()
        yield stack
    finally:
        stack.close()


def test_a_killed_rank_is_found_in_torchruns_report_and_neither_peers_nor_files_are_left(
    torchrun_stack: Stack, temporary: Path
) -> None:
    stack = torchrun_stack
    stack.behave(pretrain={"steps": 600, "step_s": 0.1, "exit_at": [5, -9]})
    job = stack.store(kind="pretrain", config={"dataset": "d", "tokenizer": "t"}, num_processes=2)
    pids = stack.wait_running(2)
    failed = stack.wait_status(job["id"], "failed", timeout_s=60)
    assert failed["error"]["code"] == "out_of_memory"
    wait_for(lambda: not any(map(is_alive, pids)), 5, "the end of both ranks")
    assert list(temporary.iterdir()) == []


def test_cancelling_lets_ranks_stop_by_themselves_before_torchrun_is_told(torchrun_stack: Stack) -> None:
    stack = torchrun_stack
    stack.behave(pretrain={"steps": 600, "step_s": 0.1})
    job = stack.store(kind="pretrain", config={"dataset": "d", "tokenizer": "t"}, num_processes=2)
    pids = stack.wait_running(2)
    stack.post(f"/v1/jobs/{job['id']}/cancel")
    stack.wait_status(job["id"], "cancelled", timeout_s=30)
    assert not any(map(is_alive, pids))
    log = (stack.home / "jobs" / job["id"] / "log.txt").read_text()
    assert "exitcode  : 75" in log
