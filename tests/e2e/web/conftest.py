"""A real Chromium, pages that must stay free of errors, and the fake gateway they talk to."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, sync_playwright

from nanochat_gateway.routes_pages import STATIC
from tests.e2e.web.chat_page import ChatPage
from tests.e2e.web.fake_gateway import FakeGateway, running

CHROMIUM = Path("/usr/bin/chromium")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
DEADLINE_MS = 10_000
# The browser reports every refused request; those are what the page's own error messages are for.
EXPECTED_MESSAGES = re.compile(r"Failed to load resource: the server responded with a status of 4\d\d|status of 503")


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    if not CHROMIUM.exists():
        pytest.skip(f"no {CHROMIUM}: make system-deps installs it")
    if not (STATIC / "index.html").is_file():
        pytest.skip("the web application is not built: make web")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), headless=True, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def gateway() -> Iterator[FakeGateway]:
    with running(FakeGateway()) as gateway:
        yield gateway


@pytest.fixture
def new_page(browser: Browser, gateway: FakeGateway) -> Iterator[Callable[..., Page]]:
    """Makes pages in contexts of their own; at the end none may have reported an error or asked another server.

    Asks for the gateway so that it is there until the last page is closed.
    """
    contexts: list[BrowserContext] = []
    complaints: list[str] = []

    def heard(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and not EXPECTED_MESSAGES.search(message.text):
            complaints.append(message.text)

    def make(**options: object) -> Page:
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 800}, "locale": "en-GB", **options})
        context.set_default_timeout(DEADLINE_MS)
        contexts.append(context)
        page = context.new_page()
        page.on("console", heard)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: complaints.extend(elsewhere(request.url)))
        return page

    yield make
    for context in contexts:
        context.close()
    assert complaints == []


@pytest.fixture
def chat(new_page: Callable[..., Page], gateway: FakeGateway) -> ChatPage:
    return ChatPage(new_page(), gateway.url)


def elsewhere(url: str) -> list[str]:
    return [] if url.startswith("http://127.0.0.1:") else [f"asked for {url}"]
