"""The pages of the real stack in a real browser. What a page does in every case is tests/e2e/web's."""

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from tests.e2e.conftest import RealStack
from tests.e2e.web.chat_page import ChatPage, hold_conversation

pytestmark = pytest.mark.slow


def test_a_conversation_with_the_model_just_trained(stack: RealStack, new_page: Callable[..., Page]) -> None:
    def says_something(question: str, answer: str) -> None:
        assert answer.strip(), question

    hold_conversation(ChatPage(new_page(), stack.url), says_something)


@pytest.mark.parametrize("path", ["/train", "/models"])
def test_the_other_pages_show_what_was_trained(stack: RealStack, new_page: Callable[..., Page], path: str) -> None:
    page = new_page()
    page.goto(stack.url + path)
    (pipeline,) = stack.get("/v1/jobs?kind=pipeline")["data"]
    expect(page.get_by_text(pipeline["name"]).first).to_be_visible()
