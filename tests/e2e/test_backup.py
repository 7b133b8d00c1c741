"""A deployment that trains and serves is backed up, lost, and restored: jobs, model and answers are what they were."""

from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import RealStack, wait_until
from tests.e2e.test_processes import log_of, submit, wait_for_checkpoint

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

QUESTION = {
    "model": "nanochat",
    "messages": [{"role": "user", "content": "What is 317 + 468?"}],
    "temperature": 0,
    "max_tokens": 40,
}


def answer(stack: RealStack) -> str:
    return str(stack.post("/v1/chat/completions", QUESTION)["choices"][0]["message"]["content"])


def ended_jobs(stack: RealStack) -> dict[str, Any]:
    return {job["id"]: job for job in stack.get("/v1/jobs?limit=100")["data"] if job["status"] == "succeeded"}


def test_a_deployment_comes_back_with_nothing_lost(stack: RealStack, tmp_path: Path) -> None:
    file = tmp_path / "nanochat.tar"
    running = submit(stack, next(iter((stack.home / "tokenizers").iterdir())).name)
    wait_for_checkpoint(stack, running)
    try:
        made = stack.run("backup", str(file))
        assert made.returncode == 0, made.stderr
        jobs, checkpoints = ended_jobs(stack), stack.get("/v1/checkpoints")["data"]
        said, models = answer(stack), stack.get("/v1/models")["data"]
    finally:
        stack.post(f"/v1/jobs/{running}/cancel")

    # What is left of it is the file alone: another home, other ports.
    (tmp_path / "new-machine").mkdir()
    new = RealStack(tmp_path / "new-machine", "restore", str(file))
    try:
        assert new.process.wait(60) == 0, new.output
        assert "every byte verified" in new.output
        new.start("up")
        new.wait_for_output("nanochat is up", 120.0)
        wait_until(lambda: new.get("/v1/models")["data"], "the model is served", 60.0)
        assert new.get("/v1/models")["data"] == models
        assert answer(new) == said
        assert ended_jobs(new) == jobs
        # Of the job that was running nothing is compared: it may have gone on already, and removed older checkpoints.
        name = stack.job(running)["name"]
        kept = {one["id"] for one in new.get("/v1/checkpoints")["data"]}
        finished = {one["id"] for one in checkpoints if not one["id"].startswith(f"{name}/")}
        assert finished and kept >= finished
        # The lease of the job that was running is nobody's here: it runs out, and the job goes on from its checkpoint.
        wait_until(lambda: "resuming" in log_of(new, running), "the job that was running goes on", 120.0)
        new.post(f"/v1/jobs/{running}/cancel")
    finally:
        new.close()
