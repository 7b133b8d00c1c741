"""Pictures of the pages, to look at and for the README: python -m tests.e2e.web.screenshots FOLDER

Wide and phone, light and dark, against the fake gateway. Names of scenes after the folder draw only those.
docs/chat.png is chat-wide-light.png.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page

from tests.e2e.browsing import launched
from tests.e2e.web import training
from tests.e2e.web.chat_page import ChatPage
from tests.e2e.web.fake_gateway import FakeGateway, running

DEVICES: dict[str, dict[str, Any]] = {
    "wide": {"viewport": {"width": 1280, "height": 800}},
    "phone": {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True},
}
SCENES: dict[str, Callable[[Page, FakeGateway], None]] = {}


def scene(draw: Callable[[Page, FakeGateway], None]) -> Callable[[Page, FakeGateway], None]:
    SCENES[draw.__name__] = draw
    return draw


@scene
def chat(page: Page, gateway: FakeGateway) -> None:
    talk = ChatPage(page, gateway.url)
    for earlier in ("Good morning!", "What is 12 + 30?", "Who are you?"):
        talk.open().ask(earlier)
    talk.open().ask("Spell the word: lighthouse")
    talk.ask("How many r are in strawberry?")
    talk.ask("What is 128 * 7?")
    page.mouse.move(0, 0)
    page.wait_for_timeout(300)  # the button's colour fades


@scene
def welcome(page: Page, gateway: FakeGateway) -> None:
    ChatPage(page, gateway.url).open().composer.wait_for()


@scene
def markdown(page: Page, gateway: FakeGateway) -> None:
    talk = ChatPage(page, gateway.url).open()
    talk.ask("markdown")
    page.get_by_role("button", name="Copy").last.scroll_into_view_if_needed()


@scene
def streaming(page: Page, gateway: FakeGateway) -> None:
    talk = ChatPage(page, gateway.url).open()
    talk.ask("What is 128 * 7?")
    gateway.context_chars = 100
    talk.send("forever")
    page.get_by_text("word 3", exact=True).wait_for()


@scene
def failed(page: Page, gateway: FakeGateway) -> None:
    talk = ChatPage(page, gateway.url).open()
    talk.ask("Spell the word: lighthouse")
    talk.ask("break off")
    gateway.num_refusals = 1
    talk.ask("busy")


@scene
def first_run(page: Page, gateway: FakeGateway) -> None:
    gateway.models = []
    page.goto(gateway.url)
    page.get_by_text("no model yet").wait_for()


@scene
def under_way(page: Page, gateway: FakeGateway) -> None:
    gateway.models = []
    put_jobs(gateway)
    page.goto(gateway.url)
    page.get_by_text("A model is being made").wait_for()


@scene
def train(page: Page, gateway: FakeGateway) -> None:
    put_jobs(gateway)
    page.goto(f"{gateway.url}/train")
    page.get_by_text("step 120/200").wait_for(state="attached")


@scene
def train_open(page: Page, gateway: FakeGateway) -> None:
    parent = put_jobs(gateway)
    page.goto(f"{gateway.url}/train#{parent['id']}")
    page.get_by_text("step 120/200").wait_for()
    page.wait_for_timeout(500)


@scene
def train_failed(page: Page, gateway: FakeGateway) -> None:
    put_jobs(gateway)
    broken = next(each for each in gateway.jobs.values() if each["status"] == "failed")
    page.goto(f"{gateway.url}/train#{broken['id']}")
    page.get_by_text("exit_code").wait_for()


@scene
def new_job(page: Page, gateway: FakeGateway) -> None:
    page.goto(f"{gateway.url}/train")
    page.get_by_role("button", name="New job").click()
    page.get_by_role("radio", name="Single job").check()
    page.wait_for_timeout(300)


@scene
def models(page: Page, gateway: FakeGateway) -> None:
    gateway.checkpoints = [
        training.checkpoint("demo", "sft", 700, train_loss=0.412, val_bpb=0.531),
        training.checkpoint("demo", "pretrain", 200, train_loss=2.31, val_bpb=1.94),
        training.checkpoint("first-try-with-a-long-name", "sft", 300, train_loss=0.71),
    ]
    page.goto(f"{gateway.url}/models")
    page.get_by_text("Promote").first.wait_for()


@scene
def settings(page: Page, gateway: FakeGateway) -> None:
    chat(page, gateway)
    page.get_by_role("button", name="Settings").click()
    page.wait_for_timeout(300)


@scene
def drawer(page: Page, gateway: FakeGateway) -> None:
    chat(page, gateway)
    opener = page.get_by_role("button", name="Conversations")
    if opener.is_visible():
        opener.click()
        page.wait_for_timeout(300)


@scene
def key(page: Page, gateway: FakeGateway) -> None:
    gateway.keys = {"secret": "admin"}
    page.goto(gateway.url)
    page.get_by_text("Remember").wait_for()
    page.wait_for_timeout(300)


def put_jobs(gateway: FakeGateway) -> dict[str, Any]:
    """An old failed job, and a pipeline in the middle of its second stage."""
    broken = training.job("pretrain", "first-try", "failed")
    broken["error"] = {
        "code": "exit_code",
        "message": "The run ended with exit code 1.",
        "log_tail": ["Traceback (most recent call last):", "ValueError: total_batch_size is 1000"],
    }
    gateway.jobs[broken["id"]] = broken
    parent = training.pipeline(gateway)
    first, second = (gateway.jobs[job_id] for job_id in parent["stages"][:2])
    training.begin(parent)
    training.begin(first)
    training.finish(first)
    training.begin(second)
    for last in range(10, 121, 10):
        training.train(second, last - 9, last, 200)
    parent["progress"].update(step=1, num_steps=4, ratio=0.4)
    return parent


def draw_all(browser: Browser, folder: Path, names: list[str]) -> None:
    for name, draw in SCENES.items():
        for device, options in DEVICES.items() if not names or name in names else ():
            for scheme in ("light", "dark"):
                context = browser.new_context(**options, color_scheme=scheme, device_scale_factor=2)
                with running(FakeGateway()) as gateway:
                    page = context.new_page()
                    draw(page, gateway)
                    page.screenshot(path=folder / f"{name}-{device}-{scheme}.png")
                    context.close()


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.mkdir(parents=True, exist_ok=True)
    with launched() as chromium:
        draw_all(chromium, target, sys.argv[2:])
