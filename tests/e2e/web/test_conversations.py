"""Past conversations, kept in the browser: found again, searched, renamed, deleted."""

from playwright.sync_api import expect

from tests.e2e.web.chat_page import ChatPage


def test_past_conversations_are_listed_newest_first_and_open_again(chat: ChatPage) -> None:
    chat.open().ask("apples")
    chat.new_chat()
    chat.ask("pears")
    expect(chat.conversations).to_have_text(["pears", "apples"])
    chat.conversations.nth(1).locator("button").first.click()
    expect(chat.questions).to_have_text("apples")
    chat.page.go_back()
    expect(chat.questions).to_have_text("pears")
    chat.page.reload()
    expect(chat.questions).to_have_text("pears")
    expect(chat.conversations).to_have_text(["pears", "apples"])


def test_search_looks_into_the_messages(chat: ChatPage) -> None:
    chat.open().ask("apples")
    chat.ask("and cherries")
    chat.new_chat()
    chat.ask("pears")
    chat.page.get_by_role("searchbox").fill("CHERRIES")
    expect(chat.conversations).to_have_text(["apples"])
    chat.page.get_by_role("searchbox").fill("plums")
    expect(chat.page.get_by_text("Nothing found")).to_be_visible()


def test_a_conversation_is_renamed(chat: ChatPage) -> None:
    chat.open().ask("apples")
    chat.conversations.first.hover()
    chat.page.get_by_role("button", name="Rename apples").click()
    title = chat.page.get_by_role("textbox", name="Title")
    title.fill("Fruit")
    title.press("Enter")
    expect(chat.conversations).to_have_text(["Fruit"])
    expect(chat.page).to_have_title("Fruit")
    chat.page.reload()
    expect(chat.conversations).to_have_text(["Fruit"])


def test_a_conversation_is_deleted_after_a_second_click(chat: ChatPage) -> None:
    chat.open().ask("apples")
    chat.conversations.first.hover()
    chat.page.get_by_role("button", name="Delete apples").click()
    chat.page.get_by_role("button", name="Keep").click()
    expect(chat.conversations).to_have_text(["apples"])
    chat.conversations.first.hover()
    chat.page.get_by_role("button", name="Delete apples").click()
    chat.page.get_by_role("button", name="Delete", exact=True).click()
    expect(chat.conversations).to_have_count(0)
    expect(chat.answers).to_have_count(0)
    chat.page.reload()
    expect(chat.composer).to_be_visible()
    expect(chat.conversations).to_have_count(0)


def test_all_are_deleted_from_the_settings(chat: ChatPage) -> None:
    chat.open().ask("apples")
    chat.page.on("dialog", lambda dialog: dialog.accept())
    chat.page.get_by_role("button", name="Settings").click()
    chat.page.get_by_role("button", name="Delete all").click()
    expect(chat.conversations).to_have_count(0)
    chat.page.reload()
    expect(chat.composer).to_be_visible()
    expect(chat.conversations).to_have_count(0)
