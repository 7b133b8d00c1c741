"""Processes that are killed or stopped in the middle of pretraining: what is left, and what goes on."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.e2e.conftest import RealStack, is_gone, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

LONG_PRETRAIN = {
    "dataset": "python-docs",
    "depth": 1,
    "max_seq_len": 128,
    "device_batch_size": 1,
    "total_batch_size": 128,
    "num_iterations": 1200,
    "eval_every": 0,
    "eval_tokens": 1024,
    "save_every": 50,
    "compile": False,
}


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., RealStack]]:
    started: list[RealStack] = []

    def start_one(*arguments: str) -> RealStack:
        started.append(RealStack(tmp_path, *arguments))
        return started[-1]

    yield start_one
    for stack in started:
        stack.close()


def trained_tokenizer(stack: RealStack) -> str:
    config = {"dataset": "python-docs", "vocab_size": 300, "max_chars": 100_000}
    job_id = str(stack.post("/v1/jobs", {"kind": "tokenizer", "config": config})["id"])
    wait_until(lambda: stack.job(job_id)["status"] == "succeeded", "the tokenizer is trained", 120.0)
    return job_id


def submit(stack: RealStack, tokenizer: str, **config: Any) -> str:
    body = {"kind": "pretrain", "config": {**LONG_PRETRAIN, "tokenizer": tokenizer, **config}}
    return str(stack.post("/v1/jobs", body)["id"])


def wait_for_checkpoint(stack: RealStack, job_id: str) -> None:
    def is_saved() -> bool:
        job = stack.job(job_id)
        assert job["status"] in ("queued", "running"), job
        return bool(job["checkpoint"])

    wait_until(is_saved, "a first checkpoint is written", 120.0)


def log_of(stack: RealStack, job_id: str) -> str:
    return (stack.home / "jobs" / job_id / "log.txt").read_text()


def ranks(processes: list[psutil.Process]) -> list[psutil.Process]:
    found = []
    for process in processes:
        try:
            if "nanochat.recipes" in process.cmdline():
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found


def test_kill_9_of_the_worker_leaves_no_rank_and_the_job_goes_on_from_its_checkpoint(
    start: Callable[..., RealStack],
) -> None:
    stack = start("up")
    stack.wait_for_output("nanochat is up", 120.0)
    job_id = submit(stack, trained_tokenizer(stack))
    wait_for_checkpoint(stack, job_id)
    worker = stack.state.services["worker"]
    family = psutil.Process(worker.pid).children(recursive=True)
    assert ranks(family)
    os.kill(worker.pid, signal.SIGKILL)

    wait_until(lambda: all(is_gone(process) for process in family), "no rank of the killed worker is alive", 60.0)

    def is_settled() -> bool:
        job = stack.job(job_id)
        return bool(job["status"] == "failed" or (job["status"] == "running" and job["attempt"] == 2))

    wait_until(is_settled, "the job is failed or running again", 60.0)
    job = stack.job(job_id)
    if job["status"] == "failed":
        assert job["error"]["code"] == "worker_lost"
        stack.post(f"/v1/jobs/{job_id}/retry")
    wait_until(lambda: "resuming" in log_of(stack, job_id), "it goes on from its checkpoint", 120.0)
    stack.post(f"/v1/jobs/{job_id}/cancel")
    wait_until(lambda: stack.job(job_id)["status"] == "cancelled", "the job is cancelled", 60.0)
    wait_until(lambda: not ranks(stack.processes()), "its ranks are gone", 30.0)


def test_ctrl_c_in_mid_training_leaves_no_process_and_the_next_start_goes_on(start: Callable[..., RealStack]) -> None:
    stack = start("up")
    stack.wait_for_output("nanochat is up", 120.0)
    job_id = submit(stack, trained_tokenizer(stack), num_iterations=150)
    wait_for_checkpoint(stack, job_id)
    processes = stack.processes()
    assert ranks(processes)

    assert stack.interrupt() == 0
    assert [process for process in processes if not is_gone(process)] == []

    stack.start("up")
    stack.wait_for_output("nanochat is up", 120.0)
    wait_until(lambda: stack.job(job_id)["status"] == "succeeded", "the job ends", 120.0)
    assert "resuming" in log_of(stack, job_id)
    down = stack.run("down")
    assert down.stdout.strip() == "stopped"
    assert stack.process.wait(10) == 0


def test_kill_9_of_the_stack_leaves_no_process(start: Callable[..., RealStack]) -> None:
    stack = start("up")
    stack.wait_for_output("nanochat is up", 120.0)
    processes = stack.processes()
    assert len(processes) >= 5
    stack.process.kill()
    stack.process.wait()
    wait_until(lambda: all(is_gone(process) for process in processes), "every process has ended", 60.0)
