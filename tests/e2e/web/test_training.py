"""The pages for training and models: live progress, curves, logs, and what can be done there."""

import json
import re
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.e2e.web import training
from tests.e2e.web.chat_page import ChatPage
from tests.e2e.web.fake_gateway import FakeGateway


@pytest.fixture
def pretrain(gateway: FakeGateway) -> dict[str, Any]:
    """The running second stage of a pipeline, 40 steps in."""
    parent = training.pipeline(gateway)
    first, second = (gateway.jobs[job_id] for job_id in parent["stages"][:2])
    for each in (parent, first, second):
        training.begin(each)
    training.finish(first)
    training.train(second, 1, 40, 200)
    parent["progress"].update(step=1, num_steps=4, ratio=0.3)
    return second


@pytest.fixture
def page(chat: ChatPage) -> Page:
    return chat.page


def test_a_running_pipeline_is_followed_live(page: Page, gateway: FakeGateway, pretrain: dict[str, Any]) -> None:
    page.goto(f"{gateway.url}/train")
    expect(page.locator(".job-row")).to_contain_text("18.3k tokens/s")
    expect(page.get_by_role("progressbar", name="Progress of demo", exact=True)).to_have_attribute("value", "30")
    curve = page.get_by_role("img", name="train loss: from")
    expect(curve).to_have_attribute("aria-label", curve_to(40))
    expect(page.get_by_role("img", name="val bpb: from")).to_be_visible()
    expect(page.get_by_label("Log")).to_contain_text("step 40/200")
    training.train(pretrain, 41, 90, 200)
    expect(curve).to_have_attribute("aria-label", curve_to(90))
    expect(page.get_by_label("Log")).to_contain_text("step 90/200")
    expect(page.locator(".tiles").first).to_contain_text("90 of 200")
    for each in (pretrain, gateway.jobs[pretrain["parent_id"]]):
        training.finish(each)
    expect(page.locator(".job-row")).to_contain_text("succeeded")


def test_a_stage_can_be_looked_at_alone(page: Page, gateway: FakeGateway, pretrain: dict[str, Any]) -> None:
    page.goto(f"{gateway.url}/train#{pretrain['parent_id']}")
    expect(page.get_by_role("button", name="pretrain")).to_have_attribute("aria-pressed", "true")
    page.get_by_role("button", name="tokenizer").click()
    expect(page.get_by_role("button", name="tokenizer")).to_have_attribute("aria-pressed", "true")
    expect(page.get_by_label("Log")).to_have_text("No log yet.")


def test_an_evaluation_shows_accuracies_and_a_log_to_read(page: Page, gateway: FakeGateway) -> None:
    each = training.job("evaluate", "exam", "running")
    each["metrics"] = {"spelling_accuracy": 0.98, "spelling_count": 100.0, "spelling_stderr": 0.014}
    gateway.jobs[each["id"]] = each
    told = {"time": "2026-11-22T17:49:12+00:00", "level": "warning", "service": "recipe", "event": "done", "n": 3}
    training.tell(each, "log", lines=[json.dumps(told), "plain text", "{no json"])
    page.goto(f"{gateway.url}/train")
    expect(page.locator(".tiles").last).to_have_text("spelling accuracy98.0% of 100")
    shown = re.compile(r"^\d\d:49:12 WARNING done n=3\nplain text\n{no json$")
    expect(page.get_by_label("Log")).to_have_text(shown)


def test_a_running_job_is_cancelled_and_retried(page: Page, gateway: FakeGateway, pretrain: dict[str, Any]) -> None:
    page.goto(f"{gateway.url}/train")
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator(".job-row")).to_contain_text("cancelled")
    page.get_by_role("button", name="Retry").click()
    expect(page.locator(".job-row")).to_contain_text("queued")


def test_a_runs_report_opens_in_a_tab_of_its_own(page: Page, gateway: FakeGateway, pretrain: dict[str, Any]) -> None:
    page.goto(f"{gateway.url}/train#{pretrain['parent_id']}")
    with page.expect_popup() as opened:
        page.get_by_role("button", name="Report").click()
    expect(opened.value.get_by_role("heading", name="Run demo")).to_be_visible()


def test_a_job_of_no_run_has_no_report(page: Page, gateway: FakeGateway) -> None:
    exam = training.job("evaluate", "exam", "running")
    gateway.jobs[exam["id"]] = exam
    page.goto(f"{gateway.url}/train#{exam['id']}")
    expect(page.get_by_role("button", name="Cancel")).to_be_visible()
    expect(page.get_by_role("button", name="Report")).to_have_count(0)


def test_a_failed_job_shows_why(page: Page, gateway: FakeGateway) -> None:
    broken = training.job("pretrain", "first-try", "failed")
    tail = ["ValueError: total_batch_size is 1000"]
    broken["error"] = {"code": "exit_code", "message": "The run ended with exit code 1.", "log_tail": tail}
    gateway.jobs[broken["id"]] = broken
    page.goto(f"{gateway.url}/train#{broken['id']}")
    expect(page.get_by_role("alert")).to_contain_text("The run ended with exit code 1. exit_code")
    expect(page.get_by_role("alert")).to_contain_text("total_batch_size is 1000")


def test_a_pipeline_is_started_by_its_profile(page: Page, gateway: FakeGateway) -> None:
    page.goto(f"{gateway.url}/train")
    expect(page.get_by_text("Nothing was trained yet")).to_be_visible()
    page.get_by_role("button", name="New job").click()
    page.get_by_label("Profile").fill("grand")
    page.get_by_role("button", name="Start").click()
    expect(page.get_by_role("alert")).to_contain_text("there is cpu, demo")
    page.get_by_label("Profile").fill("demo")
    page.get_by_role("button", name="Start").click()
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(page.locator(".job-row")).to_contain_text("queued")


def test_a_job_is_started_from_its_json(page: Page, gateway: FakeGateway) -> None:
    page.goto(f"{gateway.url}/train")
    page.get_by_role("button", name="New job").click()
    page.get_by_role("radio", name="Single job").check()
    page.get_by_label("Kind").select_option("tokenizer")
    source = page.get_by_role("textbox", name="Job")
    source.fill("{")
    page.get_by_role("button", name="Start").click()
    expect(page.get_by_role("alert")).to_contain_text("This is no JSON")
    source.fill('{"kind": "tokenizer", "name": "mine", "config": {"vocab_size": 512}}')
    page.get_by_role("button", name="Start").click()
    expect(page.locator(".job-row")).to_contain_text("mine")
    assert gateway.submitted == [{"kind": "tokenizer", "name": "mine", "config": {"vocab_size": 512}}]


def test_a_checkpoint_is_promoted_and_taken_back(page: Page, gateway: FakeGateway) -> None:
    gateway.promoted = ["demo/sft/step_000700"]
    gateway.checkpoints = [
        training.checkpoint("demo", "sft", 700, val_bpb=0.53),
        training.checkpoint("demo", "pretrain", 200, val_bpb=1.94),
    ]
    page.goto(f"{gateway.url}/models")
    served = page.get_by_role("region", name="Served model")
    expect(served).to_contain_text("demo/sft/step_000700")
    expect(page.locator(".checkpoint").first).to_contain_text("serving")
    page.get_by_role("button", name="Promote demo/pretrain/step_000200").click()
    expect(served).to_contain_text("demo/pretrain/step_000200")
    expect(page.get_by_role("status").get_by_text("Now serving demo/pretrain/step_000200.")).to_be_visible()
    page.get_by_role("button", name="Roll back").click()
    expect(served).to_contain_text("demo/sft/step_000700")


def test_a_broken_checkpoint_says_why_it_is_not_served(page: Page, gateway: FakeGateway) -> None:
    gateway.checkpoints = [training.checkpoint("broken", "sft", 10)]
    page.goto(f"{gateway.url}/models")
    page.get_by_role("button", name="Promote broken/sft/step_000010").click()
    expect(page.get_by_role("status")).to_contain_text("another SHA-256")


def curve_to(step: int) -> re.Pattern[str]:
    return re.compile(rf"at step {step}$")
