"""Workers that end by themselves, as those do that Kubernetes starts for a job each."""

import httpx
import pytest

from .conftest import Stack, wait_for


@pytest.mark.slow
def test_a_worker_for_one_job_ends_after_it_and_leaves_the_next_to_another(stack: Stack) -> None:
    first, second = stack.tokenizer_job("a"), stack.tokenizer_job("b")
    worker = stack.start_worker(NANOCHAT_WORKER_MAX_JOBS="1")
    stack.wait_status(first["id"], "succeeded")
    metrics = wait_for(lambda: attempts(stack.worker_url), what="the last job in the metrics")
    assert metrics == 'nanochat_job_attempts_total{kind="tokenizer",outcome="succeeded"} 1.0'
    assert worker.wait(30) == 0
    assert stack.job(second["id"])["status"] == "queued"
    stack.start_worker(NANOCHAT_WORKER_MAX_JOBS="1")
    assert stack.wait_status(second["id"], "succeeded")["attempt"] == 1
    assert len(stack.runs()) == 2


def test_a_worker_without_work_ends_after_its_timeout(stack: Stack) -> None:
    worker = stack.start_worker(NANOCHAT_WORKER_IDLE_TIMEOUT_S="1")
    assert worker.wait(30) == 0


def attempts(url: str) -> str | None:
    lines = httpx.get(f"{url}/metrics").text.splitlines()
    return next((line for line in lines if line.startswith("nanochat_job_attempts_total{")), None)
