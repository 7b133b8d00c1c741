"""Cancelling: at once while queued, the whole tree while running."""

from .conftest import Stack, is_alive, wait_for

LONG = {"steps": 600, "step_s": 0.1}


def test_a_queued_job_is_cancelled_at_once_and_never_runs(stack: Stack) -> None:
    job = stack.tokenizer_job("a")
    assert stack.post(f"/v1/jobs/{job['id']}/cancel").json()["status"] == "cancelled"
    stack.start_worker()
    stack.wait_status(stack.tokenizer_job("b")["id"], "succeeded")
    assert [run["job"] for run in stack.runs()] != [job["id"]]
    assert len(stack.runs()) == 1


def test_cancel_ends_the_whole_tree_even_what_ignores_sigterm(stack: Stack) -> None:
    stack.behave(tokenizer={**LONG, "ignore_term": True, "grandchild": True})
    worker = stack.start_worker()
    job = stack.tokenizer_job("a")
    pids = stack.wait_running()
    assert len(pids) == 2
    stack.post(f"/v1/jobs/{job['id']}/cancel")
    cancelled = stack.wait_status(job["id"], "cancelled", timeout_s=15)
    assert cancelled["error"] is None
    wait_for(lambda: not any(map(is_alive, pids)), 5, "the end of the tree")
    assert worker.poll() is None
    stack.behave()
    assert stack.wait_status(stack.tokenizer_job("b")["id"], "succeeded")


def test_a_cancelled_pipeline_ends_all_its_stages_and_resumes_by_retry(stack: Stack) -> None:
    stack.behave(pretrain=LONG)
    stack.start_worker()
    job = stack.submit(kind="pipeline", name="demo", config={"profile": "demo"})
    wait_for(lambda: stack.runs("pretrain"), what="the start of pretraining")
    stack.post(f"/v1/jobs/{job['id']}/cancel")
    stages = stack.wait_status(job["id"], "cancelled", timeout_s=15)["stages"]
    statuses = [stack.job(stage_id)["status"] for stage_id in stages]
    assert statuses == ["succeeded", *["cancelled"] * 4]
    stack.behave()
    stack.post(f"/v1/jobs/{job['id']}/retry")
    assert stack.wait_status(job["id"], "succeeded", "failed")["status"] == "succeeded"
    assert len(stack.runs("tokenizer")) == 1
