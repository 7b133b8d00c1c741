"""A user's own text and conversations, named by their folders: every stage over REST, then a chat with the result."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import RealStack, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SIZES = {"device_batch_size": 2, "total_batch_size": 1024, "eval_tokens": 2048, "compile": False}


@pytest.fixture
def text_stack(tmp_path: Path, test_data: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RealStack]:
    monkeypatch.setenv("NANOCHAT_DATA_ROOTS", f"{test_data / 'pretrain'}:{test_data / 'sft'}")
    stack = RealStack(tmp_path, "up")
    try:
        stack.wait_for_output("nanochat is up at", 120.0)
        yield stack
    finally:
        stack.close()


def run_job(stack: RealStack, kind: str, **config: Any) -> tuple[Any, list[Any]]:
    """The job once it has succeeded, and what it looked like while it ran."""
    job_id = stack.post("/v1/jobs", {"kind": kind, "config": config})["id"]
    seen = []

    def is_done() -> bool:
        job = stack.job(job_id)
        assert job["status"] in ("queued", "running", "succeeded"), job
        if job["status"] == "running":
            seen.append(job)
        return bool(job["status"] == "succeeded")

    wait_until(is_done, f"the {kind} job has succeeded", 240.0)
    return stack.job(job_id), seen


def test_own_text_becomes_a_model_to_chat_with(text_stack: RealStack, test_data: Path) -> None:
    stack, folder = text_stack, str(test_data / "pretrain")
    tokenizer, _ = run_job(stack, "tokenizer", dataset=folder, vocab_size=4096, max_chars=4_000_000)

    base, seen = run_job(
        stack,
        "pretrain",
        dataset=folder,
        tokenizer=tokenizer["id"],
        depth=4,
        head_dim=64,
        max_seq_len=512,
        num_iterations=12,
        eval_every=4,
        **SIZES,
    )
    # Readable while it ran, not only afterwards.
    assert any(0 < job["progress"]["ratio"] < 1 for job in seen)
    assert any("train_loss" in job["metrics"] and "val_bpb" in job["metrics"] for job in seen)
    losses = [point["value"] for point in stack.get(f"/v1/jobs/{base['id']}/metrics")["series"]["train_loss"]]
    assert losses[-1] < losses[0]
    assert 0 < base["metrics"]["val_bpb"] < 8

    mixture = [{"file": str(test_data / "sft")}]
    chat, _ = run_job(stack, "sft", checkpoint=base["id"], mixture=mixture, num_iterations=3, **SIZES)
    judged, _ = run_job(
        stack, "evaluate", checkpoint=chat["id"], evals=["bpb", "chat"], max_per_task=2, eval_tokens=2048
    )
    assert {"val_bpb", "spelling_accuracy", "counting_accuracy"} <= judged["metrics"].keys()

    stack.post("/v1/models/nanochat/promote", {"checkpoint": chat["id"]})
    question = {"messages": [{"role": "user", "content": "Who are you?"}], "max_tokens": 5, "model": "nanochat"}
    answer = stack.post("/v1/chat/completions", question)
    assert answer["usage"]["completion_tokens"] > 0
    (model,) = stack.get("/v1/models")["data"]
    assert model["nanochat"]["checkpoint"] == chat["checkpoint"]
