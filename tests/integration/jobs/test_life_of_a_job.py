"""From POST /v1/jobs to its end, through Redis, a worker, a supervisor and ranks."""

import re
from itertools import pairwise

import httpx

from .conftest import Stack, make_dataset, wait_for


def test_a_job_runs_and_shows_progress_metrics_log_and_output(stack: Stack) -> None:
    stack.start_worker()
    job = stack.tokenizer_job("words")
    done = stack.wait_status(job["id"], "succeeded", "failed")
    assert done["status"] == "succeeded", done
    assert done["output"] == "words"
    assert done["attempt"] == 1
    assert done["progress"]["ratio"] == 1.0
    assert done["metrics"] == {"train_loss": 1 / 3, "score": 0.5}
    series = httpx.get(f"{stack.url}/v1/jobs/{job['id']}/metrics").json()["series"]
    assert [point["step"] for point in series["train_loss"]] == [0, 1, 2]
    assert "tokenizer rank 0 attempt 1" in httpx.get(f"{stack.url}/v1/jobs/{job['id']}/logs").text
    events = httpx.get(f"{stack.url}/v1/jobs/{job['id']}/events").text
    assert [line for line in events.splitlines() if '"status":' in line][-1].count("succeeded") == 1
    assert "event: log" in events


def test_a_pipeline_runs_its_stages_in_order_and_ends_with_their_results(stack: Stack) -> None:
    stack.start_worker()
    job = stack.submit(kind="pipeline", name="demo", config={"profile": "demo"})
    done = stack.wait_status(job["id"], "succeeded", "failed")
    assert done["status"] == "succeeded", done
    assert [run["kind"] for run in stack.runs()] == ["tokenizer", "pretrain", "sft", "evaluate", "report"]
    assert done["checkpoint"] == "demo/sft/step_000003"
    assert done["progress"]["step"] == 5
    assert done["progress"]["ratio"] == 1.0
    stages = [stack.job(stage_id) for stage_id in done["stages"]]
    assert stages[1]["config"]["tokenizer"] == stages[0]["id"]
    assert all(earlier["finished_at"] <= later["started_at"] for earlier, later in pairwise(stages))


def test_a_failed_stage_fails_the_pipeline_and_says_why(stack: Stack) -> None:
    stack.behave(pretrain={"fail_at": 1})
    stack.start_worker()
    job = stack.submit(kind="pipeline", name="demo", config={"profile": "demo"})
    failed = stack.wait_status(job["id"], "succeeded", "failed")
    stages = [stack.job(stage_id) for stage_id in failed["stages"]]
    assert [stage["status"] for stage in stages] == ["succeeded", *["failed"] * 4]
    assert stages[1]["error"]["code"] == "data_error"
    assert stages[2]["error"]["code"] == "predecessor_failed"
    assert failed["error"]["code"] == "data_error"
    assert stages[1]["id"] in failed["error"]["message"]
    assert "the shard is broken" in failed["error"]["message"]
    assert any("pretrain rank 0" in line for line in failed["error"]["log_tail"])

    stack.behave()
    assert stack.post(f"/v1/jobs/{job['id']}/retry").status_code == 200
    assert stack.wait_status(job["id"], "succeeded", "failed")["status"] == "succeeded"
    assert [run["kind"] for run in stack.runs()] == ["tokenizer", "pretrain", "pretrain", "sft", "evaluate", "report"]


def test_a_crash_says_its_exit_code_and_its_last_words(stack: Stack) -> None:
    stack.behave(tokenizer={"exit_at": [1, 3]})
    stack.start_worker()
    error = stack.wait_status(stack.tokenizer_job("a")["id"], "failed")["error"]
    assert error["code"] == "exit_code"
    assert "exit code 3" in error["message"]
    assert "the last words" in error["log_tail"]


def test_a_rank_killed_by_the_system_is_called_out_of_memory(stack: Stack) -> None:
    stack.behave(tokenizer={"exit_at": [1, -9]})
    stack.start_worker()
    error = stack.wait_status(stack.tokenizer_job("a")["id"], "failed")["error"]
    assert error["code"] == "out_of_memory"


def test_a_deadline_ends_the_run(stack: Stack) -> None:
    stack.behave(tokenizer={"steps": 1000, "step_s": 0.1})
    stack.start_worker()
    job = stack.tokenizer_job("a", deadline_s=1.0)
    error = stack.wait_status(job["id"], "failed", timeout_s=20)["error"]
    assert error["code"] == "deadline_exceeded"


def test_several_ranks_are_started_for_several_processes(stack: Stack) -> None:
    make_dataset(stack.home / "datasets" / "d")
    (stack.home / "tokenizers" / "t").mkdir(parents=True)
    (stack.home / "tokenizers" / "t" / "tokenizer.json").write_text("{}")
    stack.start_worker()
    job = stack.store(kind="pretrain", config={"dataset": "d", "tokenizer": "t"}, num_processes=2)
    assert stack.wait_status(job["id"], "succeeded", "failed")["status"] == "succeeded"
    assert len(stack.runs()) == 2


def test_a_running_job_shows_in_the_workers_metrics(stack: Stack) -> None:
    stack.behave(tokenizer={"steps": 600, "step_s": 0.1})
    stack.start_worker()
    job = stack.tokenizer_job("shown")
    series = 'nanochat_train_loss{job_name="shown",kind="tokenizer"}'
    wait_for(lambda: series in httpx.get(f"{stack.worker_url}/metrics").text, what="the gauge")
    text = httpx.get(f"{stack.worker_url}/metrics").text
    assert "nanochat_worker_jobs_running 1.0" in text
    assert 'nanochat_job_silence_seconds{job_name="shown",kind="tokenizer"}' in text
    memory_bytes = re.search(r"^nanochat_runs_resident_memory_bytes (.+)$", text, re.MULTILINE)
    assert memory_bytes and float(memory_bytes[1]) > 1e6
    stack.post(f"/v1/jobs/{job['id']}/cancel")
    stack.wait_status(job["id"], "cancelled")
    ended = 'nanochat_job_attempts_total{kind="tokenizer",outcome="cancelled"} 1.0'
    wait_for(lambda: ended in httpx.get(f"{stack.worker_url}/metrics").text, what="the count")
    text = httpx.get(f"{stack.worker_url}/metrics").text
    assert 'nanochat_job_silence_seconds{job_name="shown"' not in text
    assert "nanochat_runs_resident_memory_bytes 0.0" in text
    assert httpx.get(f"{stack.worker_url}/nothing").status_code == 404
