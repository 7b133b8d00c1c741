"""A deployment from its first start to its end, each test going on where the one before has stopped."""

import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from openai import AuthenticationError, OpenAI
from playwright.sync_api import Page, expect

from tests.compose.deployment import Deployment, docker, wait_until
from tests.compose.traffic import Chatter
from tests.e2e.conftest import TINY
from tests.e2e.web.chat_page import ChatPage, hold_conversation

SERVICES = ("gateway", "trainer", "worker", "inference")
# Takes longer than killing everything in turn; saves often, so that every attempt gets further.
LONG = {
    "dataset": "python-docs",
    "depth": 1,
    "max_seq_len": 128,
    "device_batch_size": 1,
    "total_batch_size": 128,
    "num_iterations": 1_000_000,
    "eval_every": 0,
    "eval_tokens": 1024,
    "save_every": 50,
    "compile": False,
}
# Each is killed while others chat and train.
VICTIMS = ("gateway", "trainer", "worker", "inference", "redis", "postgres", "prometheus")


@pytest.fixture(scope="module")
def kept() -> dict[str, Any]:
    """What one test leaves for the next: names of jobs and checkpoints."""
    return {}


def wait_for_job(deployment: Deployment, job_id: str, status: str, deadline_s: float) -> None:
    def is_so() -> bool:
        job = deployment.job(job_id)
        assert job["status"] in ("queued", "running", status), job
        return bool(job["status"] == status)

    wait_until(is_so, f"job {job_id} is {status}", deadline_s)


def test_up_makes_everything_healthy(deployment: Deployment) -> None:
    took_s = deployment.up()
    print(f"\nup, until all are healthy: {took_s:.1f} s")
    for service in (*SERVICES, "redis", "postgres", "prometheus"):
        assert deployment.is_healthy(service), service


def test_without_a_model_the_answer_says_what_to_do(deployment: Deployment) -> None:
    refused = deployment.chat()
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
    assert "train one and promote it" in refused.json()["error"]["message"]


def test_without_a_key_there_is_no_chat(deployment: Deployment) -> None:
    client = OpenAI(base_url=f"{deployment.url}/v1", api_key="wrong", max_retries=0)
    with pytest.raises(AuthenticationError, match="not known"):
        client.models.list()


def test_a_pipeline_submitted_by_rest_is_trained_and_promoted(deployment: Deployment, kept: dict[str, Any]) -> None:
    job = deployment.post("/v1/jobs", {"kind": "pipeline", "config": {"profile": "demo", "overrides": TINY}})
    wait_for_job(deployment, job["id"], "succeeded", 560.0)
    checkpoint = deployment.job(job["id"])["checkpoint"]
    deployment.post("/v1/models/nanochat/promote", {"checkpoint": checkpoint})
    wait_until(lambda: deployment.chat().status_code == 200, "a chat is answered", 120.0)
    kept.update(pipeline=job["id"], checkpoint=checkpoint)


def test_the_openai_client_chats_with_it(deployment: Deployment) -> None:
    client = OpenAI(base_url=f"{deployment.url}/v1", api_key=deployment.admin_key, max_retries=0)
    stream = client.chat.completions.create(
        model="nanochat",
        messages=[{"role": "user", "content": "What is 317 + 468?"}],
        max_tokens=16,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    assert chunks[-1].usage is not None and chunks[-1].usage.completion_tokens > 0
    assert client.models.list().data[0].id == "nanochat"


def test_the_browser_chats_with_it_and_shows_the_training(
    deployment: Deployment, new_page: Callable[..., Page], kept: dict[str, Any]
) -> None:
    chat = ChatPage(new_page(), deployment.url).open()
    chat.page.get_by_label("Key", exact=True).fill(deployment.admin_key)
    chat.page.get_by_role("button", name="Continue").click()
    hold_conversation(chat, lambda question, answer: None)
    chat.page.goto(f"{deployment.url}/train")
    expect(chat.page.get_by_text("pipeline").first).to_be_visible()
    chat.page.goto(f"{deployment.url}/models")
    expect(chat.page.get_by_text(kept["checkpoint"]).first).to_be_visible()


def test_two_replicas_and_two_workers_are_found_by_gateway_and_prometheus(deployment: Deployment) -> None:
    deployment.up("--scale", "inference=2", "--scale", "worker=2")
    wait_until(lambda: deployment.get("/stats")["total_workers"] == 2, "the gateway has found both replicas", 120.0)
    wait_until(lambda: deployment.get("/stats")["available_workers"] == 2, "both serve the model", 180.0)

    def are_up() -> bool:
        found = [labels["service"] for labels, value in deployment.query("up") if value == 1.0]
        expected = ["gateway", "inference", "inference", "trainer", "worker", "worker"]
        return sorted(name for name in found if name in SERVICES) == expected

    wait_until(are_up, "Prometheus scrapes every replica", 180.0)
    for _ in range(8):
        assert deployment.chat().status_code == 200

    def have_both_worked() -> bool:
        return len(deployment.query("nanochat_generation_tokens_total > 0")) == 2

    wait_until(have_both_worked, "both replicas have answered", 120.0)


def test_a_replica_less_is_noticed(deployment: Deployment) -> None:
    with Chatter(deployment) as chatter:
        wait_until(lambda: chatter.num_answered() >= 2, "chats are answered", 120.0)
        deployment.up("--scale", "inference=1", "--scale", "worker=1")
        wait_until(lambda: deployment.get("/stats")["total_workers"] == 1, "the gateway has noticed", 120.0)
        before = chatter.num_answered()
        wait_until(lambda: chatter.num_answered() >= before + 3, "chats go on", 120.0)
    print(f"\nwhile one of two replicas was stopped: {dict(chatter.outcomes)}")
    assert set(chatter.outcomes) == {"200"}, chatter.bodies


def test_killed_one_after_the_other_everything_comes_back_by_itself(
    deployment: Deployment, kept: dict[str, Any]
) -> None:
    tokenizer = deployment.job(deployment.job(kept["pipeline"])["stages"][0])["output"]
    long = deployment.post("/v1/jobs", {"kind": "pretrain", "name": "long", "config": {**LONG, "tokenizer": tokenizer}})
    kept["long"] = long["id"]
    wait_until(lambda: deployment.job(long["id"])["checkpoint"], "the long job has a checkpoint", 360.0)
    for service in VICTIMS:
        with Chatter(deployment) as chatter:
            wait_until(lambda chatter=chatter: chatter.num_answered() >= 2, "chats are answered", 180.0)
            started = time.monotonic()
            is_back = deployment.crash(service)
            wait_until(is_back, f"{service} is back and healthy", 720.0)
            before = chatter.num_answered()
            wait_until(lambda c=chatter, b=before: c.num_answered() >= b + 2, "chats are answered again", 720.0)
        print(f"\n{service} killed: back in {time.monotonic() - started:.0f} s, {dict(chatter.outcomes)}")
        # Refusals say what is away; nothing hangs, nothing is answered wrongly.
        assert set(chatter.outcomes) <= {"200", "503", "502", "500", "no answer"}, chatter.bodies
        assert deployment.job(kept["pipeline"])["status"] == "succeeded"
        _runs_again(deployment, long["id"])


def _runs_again(deployment: Deployment, job_id: str) -> None:
    """It is running and gets further; or it has ended with a word that says why, and goes on when retried."""

    def has_word() -> bool:
        job = deployment.job(job_id)
        if job["status"] == "failed":
            assert job["error"]["code"] == "worker_lost", job
            deployment.post(f"/v1/jobs/{job_id}/retry")
        return bool(job["status"] == "running")

    wait_until(has_word, "the job runs again", 240.0)
    step = deployment.job(job_id)["progress"]["step"]
    wait_until(lambda: deployment.job(job_id)["progress"]["step"] != step, "the job gets further", 270.0)


def test_the_killed_workers_job_went_on_from_its_checkpoint(deployment: Deployment, kept: dict[str, Any]) -> None:
    log = deployment.ask("GET", f"/v1/jobs/{kept['long']}/logs").text
    assert "resuming" in log
    deployment.post(f"/v1/jobs/{kept['long']}/cancel")
    wait_for_job(deployment, kept["long"], "cancelled", 60.0)


def test_docker_kill_is_a_stop_by_hand_and_up_brings_it_back(deployment: Deployment) -> None:
    deployment.do("kill", "gateway")
    assert not deployment.is_healthy("gateway")
    deployment.up()
    wait_until(lambda: deployment.chat().status_code == 200, "a chat is answered", 180.0)


def test_down_and_up_again_finds_everything(deployment: Deployment, kept: dict[str, Any]) -> None:
    jobs = {job["id"]: job["status"] for job in deployment.get("/v1/jobs?limit=100")["data"]}
    deployment.do("down", timeout_s=180.0)
    started = time.monotonic()
    deployment.up()
    wait_until(lambda: deployment.chat().status_code == 200, "a chat is answered", 180.0)
    print(f"\nup with a ready model, until the first answer: {time.monotonic() - started:.1f} s")
    assert {job["id"]: job["status"] for job in deployment.get("/v1/jobs?limit=100")["data"]} == jobs
    assert deployment.get("/v1/models")["data"][0]["nanochat"]["checkpoint"] == kept["checkpoint"]
    long_ago = 'count_over_time(nanochat_jobs{status="succeeded"}[1h])'
    wait_until(lambda: deployment.query(long_ago), "Prometheus remembers", 120.0)
    assert max(value for _, value in deployment.query(long_ago)) > 10


def test_another_volume_of_checkpoints_is_said_and_the_right_one_is_taken_up_again(
    deployment: Deployment, kept: dict[str, Any], tmp_path: Path
) -> None:
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(json.dumps({"volumes": {"home": {"name": f"{deployment.project}_another"}}}))
    deployment.do("down", timeout_s=180.0)
    deployment.up(files=("compose.yaml", str(wrong)))
    try:
        reason = f"checkpoint {kept['checkpoint']} could not be loaded"
        wait_until(lambda: reason in _refusal(deployment), "the checkpoint is named", 120.0)
    finally:
        deployment.do("down", timeout_s=180.0, files=("compose.yaml", str(wrong)))
        docker("volume", "rm", f"{deployment.project}_another")
    deployment.up()
    wait_until(lambda: deployment.chat().status_code == 200, "a chat is answered", 180.0)


def _refusal(deployment: Deployment) -> str:
    return str(deployment.chat().json().get("error", {}).get("message"))


def test_the_demos_service_sees_that_a_model_is_served_and_ends(deployment: Deployment) -> None:
    output = deployment.do("--profile", "demo", "run", "--rm", "-T", "demo", timeout_s=120.0)
    assert "is served already" in output


def test_containers_can_write_nothing_but_what_they_must(deployment: Deployment) -> None:
    for service in SERVICES:
        for folder in ("/app", "/usr", "/data"):
            refused = deployment.run("exec", "-T", service, "python", "-c", f"open('{folder}/x', 'w')")
            assert re.search("Read-only file system|Permission denied", refused.stderr), (service, folder, refused)
