"""The fake gateway that the pages talk to here. The browser is that of all end-to-end tests."""

from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, Page

from tests.e2e.browsing import watched_pages
from tests.e2e.web.chat_page import ChatPage
from tests.e2e.web.fake_gateway import FakeGateway, running


@pytest.fixture
def gateway() -> Iterator[FakeGateway]:
    with running(FakeGateway()) as gateway:
        yield gateway


@pytest.fixture
def new_page(browser: Browser, gateway: FakeGateway) -> Iterator[Callable[..., Page]]:
    """As everywhere, and asks for the gateway so that it is there until the last page is closed."""
    with watched_pages(browser) as make:
        yield make


@pytest.fixture
def chat(new_page: Callable[..., Page], gateway: FakeGateway) -> ChatPage:
    return ChatPage(new_page(), gateway.url)
