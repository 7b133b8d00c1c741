"""The chat page as a person uses it, by what is seen and named on it; works against any gateway.

`hold_conversation` is the flow that the real stack is tested with too.
"""

import re
from collections.abc import Callable

from playwright.sync_api import Locator, Page, expect

ANSWER_TIMEOUT_MS = 60_000


class ChatPage:
    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.url = url

    def open(self, path: str = "/") -> "ChatPage":
        self.page.goto(self.url + path)
        return self

    @property
    def composer(self) -> Locator:
        return self.page.get_by_role("textbox", name="Message", exact=True)

    @property
    def questions(self) -> Locator:
        return self.page.get_by_role("article", name="You")

    @property
    def answers(self) -> Locator:
        return self.page.get_by_role("article", name="nanochat")

    @property
    def last_answer(self) -> Locator:
        return self.answers.last

    @property
    def conversations(self) -> Locator:
        return self.page.get_by_role("complementary", name="Conversations").locator("li")

    @property
    def stop_button(self) -> Locator:
        return self.page.get_by_role("button", name="Stop", exact=True)

    def send(self, text: str) -> None:
        self.composer.fill(text)
        self.page.get_by_role("button", name="Send", exact=True).click()

    def ask(self, text: str) -> str:
        """Send, wait for the whole answer, and give back its text."""
        self.composer.wait_for()  # the page has read what it keeps
        num_answers = self.answers.count()
        self.send(text)
        expect(self.answers).to_have_count(num_answers + 1)
        return self.wait_for_answer()

    def wait_for_answer(self) -> str:
        """Wait until nothing is being answered, and give back the last answer's text."""
        expect(self.last_answer).to_have_attribute("aria-busy", "false", timeout=ANSWER_TIMEOUT_MS)
        return self.last_answer.locator(".markdown").inner_text()

    def new_chat(self) -> None:
        self.page.get_by_role("button", name="New chat").first.click()
        expect(self.answers).to_have_count(0)

    def chips(self) -> Locator:
        return self.last_answer.locator(".calc")


def hold_conversation(chat: ChatPage, check: Callable[[str, str], None]) -> None:
    """Ask three things in one chat, reload, go on, and find it again in the list.

    `check(question, answer)` judges an answer; raises if it is wrong.
    """
    chat.open()
    expect(chat.composer).to_be_visible(timeout=ANSWER_TIMEOUT_MS)
    for question in ("Spell the word: garden", "What is 12 + 30?", "How many r are in strawberry?"):
        check(question, chat.ask(question))
    expect(chat.questions).to_have_count(3)
    chat.page.reload()
    expect(chat.questions).to_have_count(3)
    expect(chat.answers).to_have_count(3)
    check("What is 7 * 8?", chat.ask("What is 7 * 8?"))
    chat.new_chat()
    check("What is 5 + 6?", chat.ask("What is 5 + 6?"))
    expect(chat.conversations).to_have_count(2)
    chat.conversations.filter(has_text=re.compile("garden")).locator("button").first.click()
    expect(chat.questions).to_have_count(4)
