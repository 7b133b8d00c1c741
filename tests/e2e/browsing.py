"""A real Chromium, and pages that must stay free of errors and ask no other server."""

import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, sync_playwright

from nanochat_gateway.routes_pages import STATIC

ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
DEADLINE_MS = 10_000
# The browser reports every refused request; those are what the page's own error messages are for.
EXPECTED_MESSAGES = re.compile(r"Failed to load resource: the server responded with a status of 4\d\d|status of 503")


@contextmanager
def launched(pages_are_built: bool = True) -> Iterator[Browser]:
    """Skips the test where there is no Chromium or no built application; `pages_are_built`: here, not in an image."""
    executable = shutil.which("chromium") or shutil.which("chromium-browser")
    if executable is None:
        pytest.skip("no chromium: make system-deps installs it")
    if pages_are_built and not (STATIC / "index.html").is_file():
        pytest.skip("the web application is not built: make web")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, headless=True, args=ARGUMENTS)
        yield browser
        browser.close()


@contextmanager
def watched_pages(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Makes pages in contexts of their own; at the end none may have reported an error or asked another server."""
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


def elsewhere(url: str) -> list[str]:
    return [] if url.startswith("http://127.0.0.1:") else [f"asked for {url}"]
