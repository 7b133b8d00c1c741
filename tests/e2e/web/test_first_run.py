"""Before there is a model: what to do, its progress, and the chat that appears by itself. And keys."""

from playwright.sync_api import expect

from tests.e2e.web import training
from tests.e2e.web.chat_page import ChatPage
from tests.e2e.web.fake_gateway import FakeGateway

PROMOTED_TIMEOUT_MS = 15_000


def test_the_first_run_trains_a_model_and_ends_in_the_chat(chat: ChatPage, gateway: FakeGateway) -> None:
    gateway.models = []
    chat.open()
    expect(chat.page.get_by_text("make demo")).to_be_visible()
    chat.page.get_by_role("button", name="Train the demo model").click()
    expect(chat.page.get_by_text("Waiting for the worker")).to_be_visible()
    assert gateway.submitted == [{"kind": "pipeline", "config": {"profile": "demo"}}]

    parent = next(each for each in gateway.jobs.values() if each["kind"] == "pipeline")
    stages = [gateway.jobs[job_id] for job_id in parent["stages"]]
    training.begin(parent)
    training.begin(stages[0])
    training.finish(stages[0])
    training.begin(stages[1])
    training.train(stages[1], 1, 50, 200)
    expect(chat.page.get_by_text("18.3k tokens/s")).to_be_visible()
    expect(chat.page.get_by_role("progressbar", name="Progress of pretrain")).to_have_attribute("value", "25")

    parent["checkpoint"] = "demo/sft/step_000700"
    for each in (*stages[1:], parent):
        training.finish(each)
    expect(chat.composer).to_be_visible(timeout=PROMOTED_TIMEOUT_MS)
    assert gateway.promoted == ["demo/sft/step_000700"]
    assert chat.ask("hello") == "You said: hello"


def test_a_pipeline_that_another_started_is_shown_and_the_chat_appears(chat: ChatPage, gateway: FakeGateway) -> None:
    gateway.models = []
    training.begin(training.pipeline(gateway))
    chat.open()
    expect(chat.page.get_by_role("heading", name="A model is being made")).to_be_visible()
    gateway.models = [training.served("demo/sft/step_000700")]
    expect(chat.composer).to_be_visible(timeout=PROMOTED_TIMEOUT_MS)
    assert gateway.promoted == []


def test_a_failed_pipeline_says_why_and_can_be_retried(chat: ChatPage, gateway: FakeGateway) -> None:
    gateway.models = []
    parent = training.pipeline(gateway)
    parent["error"] = {"code": "worker_lost", "message": "The worker was lost.", "log_tail": []}
    training.finish(parent, "failed")
    chat.open()
    expect(chat.page.get_by_text("The worker was lost.")).to_be_visible()
    chat.page.get_by_role("button", name="Retry").click()
    expect(chat.page.get_by_text("Waiting for the worker")).to_be_visible()


def test_a_key_is_asked_for_and_kept_for_this_tab(chat: ChatPage, gateway: FakeGateway) -> None:
    gateway.keys = {"secret": "chat"}
    chat.open()
    chat.page.get_by_label("Key", exact=True).fill("wrong")
    chat.page.get_by_role("button", name="Continue").click()
    expect(chat.page.get_by_text("does not know that key")).to_be_visible()
    chat.page.get_by_label("Key", exact=True).fill("secret")
    chat.page.get_by_role("button", name="Continue").click()
    assert chat.ask("hello") == "You said: hello"
    chat.page.reload()
    assert chat.ask("again") == "You said: again"
    assert chat.page.evaluate("localStorage.getItem('nanochat.key')") is None


def test_a_key_is_remembered_when_asked_to_and_forgotten_again(chat: ChatPage, gateway: FakeGateway) -> None:
    gateway.keys = {"secret": "chat"}
    chat.open()
    chat.page.get_by_label("Key", exact=True).fill("secret")
    chat.page.get_by_label("Remember on this computer").check()
    chat.page.get_by_role("button", name="Continue").click()
    expect(chat.composer).to_be_visible()
    assert chat.page.evaluate("localStorage.getItem('nanochat.key')") == "secret"
    chat.page.get_by_role("button", name="Settings").click()
    chat.page.get_by_role("button", name="Forget").click()
    assert chat.page.evaluate("localStorage.getItem('nanochat.key')") is None


def test_a_declined_key_is_not_asked_for_again_but_can_be_entered(chat: ChatPage, gateway: FakeGateway) -> None:
    gateway.keys = {"secret": "admin"}
    chat.open()
    chat.page.get_by_role("button", name="Not now").click()
    expect(chat.page.get_by_role("alert")).to_contain_text("This key is not known.")
    chat.page.get_by_role("button", name="Enter a key").click()
    chat.page.get_by_label("Key", exact=True).fill("secret")
    chat.page.get_by_role("button", name="Continue").click()
    assert chat.ask("hello") == "You said: hello"


def test_a_chat_key_on_the_training_page_is_told_what_it_lacks(chat: ChatPage, gateway: FakeGateway) -> None:
    gateway.keys = {"secret": "chat", "master": "admin"}
    training.pipeline(gateway)
    chat.open("/train")
    chat.page.get_by_label("Key", exact=True).fill("secret")
    chat.page.get_by_role("button", name="Continue").click()
    expect(chat.page.get_by_role("alert")).to_contain_text("may chat but neither train")
    chat.page.get_by_role("button", name="Enter a key").click()
    chat.page.get_by_label("Key", exact=True).fill("master")
    chat.page.get_by_role("button", name="Continue").click()
    expect(chat.page.locator(".job-row")).to_have_count(1)
