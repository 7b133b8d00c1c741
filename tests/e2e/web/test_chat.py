"""Asking and answering: streaming, the calculator's chips, Markdown, stop, regenerate, edit, copy."""

import json
import time
from collections.abc import Callable

from playwright.sync_api import Page, expect

from tests.e2e.web.answers import answer
from tests.e2e.web.chat_page import ChatPage, hold_conversation
from tests.e2e.web.fake_gateway import FakeGateway


def test_a_full_conversation_survives_a_reload(chat: ChatPage) -> None:
    def check(question: str, text: str) -> None:
        last_words = answer(question)[0].rsplit("\n", 1)[-1].replace("*", "")
        assert last_words in text

    hold_conversation(chat, check)


def test_a_calculator_call_is_a_chip_in_the_place_of_its_span(chat: ChatPage) -> None:
    text = chat.open().ask("What is 12 + 30?")
    expect(chat.chips()).to_have_text("calculator: 12+30 → 42")
    assert text == "Let me work it out.\n\ncalculator: 12+30 → 42\nThe answer is 42."


def test_offsets_count_characters_not_utf_16_units(chat: ChatPage) -> None:
    text = chat.open().ask("emoji")
    expect(chat.chips()).to_have_text("calculator: 2+2 → 4")
    assert text.startswith("👩‍🚀 Grüße, 世界!") and text.endswith("Four 🎉")


def test_a_call_without_a_result_says_so(chat: ChatPage) -> None:
    chat.open().ask("no result")
    expect(chat.chips()).to_have_text("calculator: 1/0 → no result")


def test_earlier_calls_go_back_to_the_model_as_calls(chat: ChatPage, gateway: FakeGateway) -> None:
    chat.open().ask("What is 12 + 30?")
    chat.ask("Spell the word: cat")
    chat.ask("thanks")
    first, spelled = gateway.requests[-1]["messages"][1], gateway.requests[-1]["messages"][3]
    assert first["content"] == [
        {"type": "text", "text": "Let me work it out.\n\n"},
        {"type": "python", "text": "12+30"},
        {"type": "python_output", "text": "42"},
        {"type": "text", "text": "The answer is **42**."},
    ]
    assert spelled["content"] == "cat:c,a,t"


def test_the_request_carries_the_settings_and_asks_for_usage(chat: ChatPage, gateway: FakeGateway) -> None:
    chat.open()
    chat.page.get_by_role("button", name="Settings").click()
    chat.page.get_by_role("slider", name="Temperature").fill("0.25")
    chat.page.get_by_role("slider", name="Top-k").fill("7")
    chat.page.get_by_label("Most tokens an answer").fill("99")
    chat.page.get_by_label("System prompt").fill("Be brief.")
    chat.page.get_by_role("button", name="Close").click()
    chat.page.reload()
    chat.ask("hello")
    body = gateway.requests[-1]
    assert (body["temperature"], body["top_k"], body["max_tokens"]) == (0.25, 7, 99)
    assert body["stream"] is True and body["stream_options"] == {"include_usage": True}
    assert body["messages"][0] == {"role": "system", "content": "Be brief."}


def test_markdown_is_drawn_and_arithmetic_is_not_emphasis(chat: ChatPage) -> None:
    text = chat.open().ask("markdown")
    drawn = chat.last_answer.locator(".markdown")
    for tag in ("h2", "strong", "em", "ol > li", "table", "pre code"):
        expect(drawn.locator(tag).first).to_be_visible()
    assert "3*4*5" in text and "<b>not bold</b>" in text


def test_hostile_markdown_does_nothing(chat: ChatPage) -> None:
    text = chat.open().ask("hostile")
    drawn = chat.last_answer.locator(".markdown")
    expect(drawn.locator("img, script, style, iframe, [onclick], [onerror]")).to_have_count(0)
    assert "<script>window.pwned=1</script>" in text
    hrefs = [link.get_attribute("href") for link in drawn.locator("a").all()]
    assert set(hrefs) <= {None, "https://elsewhere.example/pixel.png", "https://example.org/"}
    drawn.get_by_text("press").click()
    assert chat.page.evaluate("window.pwned") is None


def test_stop_in_mid_answer_keeps_what_arrived_and_frees_the_server(chat: ChatPage, gateway: FakeGateway) -> None:
    chat.open().send("forever")
    expect(chat.last_answer).to_contain_text("word 3")
    chat.stop_button.click()
    expect(chat.last_answer).to_contain_text("Stopped")
    expect(chat.last_answer).to_contain_text("word 3")
    until(lambda: gateway.num_running == 0 and gateway.num_left == 1)
    assert "You said" in chat.ask("go on")
    assert gateway.requests[-1]["messages"][1]["content"].startswith("word 0")


def test_escape_stops(chat: ChatPage) -> None:
    chat.open().send("forever")
    expect(chat.last_answer).to_contain_text("word 1")
    chat.page.keyboard.press("Escape")
    expect(chat.last_answer).to_contain_text("Stopped")


def test_a_reload_in_mid_answer_keeps_what_arrived(chat: ChatPage) -> None:
    chat.open().send("forever")
    expect(chat.last_answer).to_contain_text("word 60", timeout=20_000)
    chat.page.reload()
    expect(chat.last_answer).to_contain_text("word 1")
    expect(chat.last_answer).to_contain_text("Stopped")


def test_regenerate_asks_again_and_drops_what_followed(chat: ChatPage, gateway: FakeGateway) -> None:
    chat.open().ask("first")
    chat.ask("second")
    chat.answers.first.hover()
    chat.answers.first.get_by_role("button", name="Regenerate").click()
    expect(chat.answers).to_have_count(1)
    assert chat.wait_for_answer() == "You said: first"
    assert [message["content"] for message in gateway.requests[-1]["messages"]] == ["first"]


def test_edit_replaces_the_question_and_what_followed(chat: ChatPage, gateway: FakeGateway) -> None:
    chat.open().ask("first")
    chat.ask("second")
    chat.questions.first.hover()
    chat.questions.first.get_by_role("button", name="Edit").click()
    editor = chat.page.get_by_role("textbox", name="Edit message")
    expect(editor).to_be_focused()
    editor.fill("better")
    editor.press("Enter")
    expect(chat.questions).to_have_count(1)
    assert chat.wait_for_answer() == "You said: better"
    assert [message["content"] for message in gateway.requests[-1]["messages"]] == ["better"]


def test_copy_gives_the_message_as_received_and_a_code_block_alone(
    new_page: Callable[..., Page], gateway: FakeGateway
) -> None:
    chat = ChatPage(new_page(permissions=["clipboard-read", "clipboard-write"]), gateway.url).open()
    chat.ask("What is 12 + 30?")
    chat.last_answer.get_by_role("button", name="Copy").click()
    expect(chat.last_answer.get_by_role("button", name="Copied")).to_be_visible()
    assert chat.page.evaluate("navigator.clipboard.readText()") == answer("What is 12 + 30?")[0]
    chat.ask("markdown")
    chat.last_answer.locator(".code-copy").click()
    expect(chat.last_answer.locator(".code-copy")).to_have_text("Copied")
    assert chat.page.evaluate("navigator.clipboard.readText()").startswith("def square(x):\n    return")


def test_enter_sends_and_shift_enter_breaks_the_line(chat: ChatPage) -> None:
    chat.open().composer.fill("one")
    chat.composer.press("Shift+Enter")
    chat.composer.press_sequentially("two")
    expect(chat.questions).to_have_count(0)
    chat.composer.press("Enter")
    expect(chat.questions).to_have_text("one\ntwo")
    expect(chat.composer).to_have_value("")


def test_a_full_context_drops_the_oldest_exchange_and_says_so(chat: ChatPage, gateway: FakeGateway) -> None:
    chat.open().ask("first " * 20)
    chat.ask("second " * 20)
    gateway.context_chars = len(json.dumps(gateway.requests[-1]["messages"])) + 20
    assert chat.ask("third") == "You said: third"
    assert gateway.requests[-1]["messages"][0]["content"].startswith("second")
    expect(chat.page.get_by_text("Context full")).to_be_visible()
    num_requests = len(gateway.requests)
    chat.ask("fourth")
    assert gateway.requests[num_requests]["messages"][0]["content"].startswith("second"), (
        "it is not tried in vain again"
    )


def test_a_single_question_that_is_too_long_says_what_to_do(chat: ChatPage, gateway: FakeGateway) -> None:
    gateway.context_chars = 10
    chat.open().send("much too long")
    expect(chat.page.get_by_role("alert")).to_contain_text("the model takes 512")


def test_an_answer_cut_by_the_context_makes_room_for_the_next_question(chat: ChatPage, gateway: FakeGateway) -> None:
    chat.open().ask("first")
    chat.ask("be long")
    expect(chat.last_answer).to_contain_text("Cut off: the context is full")
    chat.ask("next")
    assert gateway.requests[-1]["messages"][0]["content"] == "be long"


def test_a_refused_question_can_be_retried(chat: ChatPage, gateway: FakeGateway) -> None:
    gateway.num_refusals = 1
    chat.open().send("hello")
    expect(chat.page.get_by_role("alert")).to_contain_text("All slots are taken.")
    chat.page.get_by_role("button", name="Retry").click()
    assert chat.wait_for_answer() == "You said: hello"
    expect(chat.page.get_by_role("alert")).to_have_count(0)


def test_a_question_without_an_answer_is_left_out_of_the_history(chat: ChatPage, gateway: FakeGateway) -> None:
    gateway.num_refusals = 1
    chat.open().send("lost")
    expect(chat.page.get_by_role("alert")).to_be_visible()
    chat.ask("found")
    assert gateway.requests[-1]["messages"] == [{"role": "user", "content": "found"}]


def test_an_answer_that_breaks_keeps_its_text_and_says_why(chat: ChatPage) -> None:
    chat.open().send("fail")
    expect(chat.page.get_by_role("alert")).to_contain_text("The engine stopped.")
    expect(chat.last_answer).to_contain_text("You said: fail")
    chat.send("break off")
    expect(chat.page.get_by_role("alert").last).to_contain_text("the connection was lost")


def test_scrolling_up_is_left_alone_until_one_comes_back(chat: ChatPage) -> None:
    chat.open().ask("long page")
    chat.send("forever")
    expect(chat.last_answer).to_contain_text("word 5")
    place = "document.querySelector('.transcript').scrollTop"
    chat.page.locator(".transcript").hover()
    chat.page.mouse.wheel(0, -900)
    to_end = chat.page.get_by_role("button", name="To the end")
    expect(to_end).to_be_visible()
    before = chat.page.evaluate(place)
    expect(chat.last_answer).to_contain_text("word 60", timeout=20_000)
    assert chat.page.evaluate(place) == before
    to_end.click()
    expect(to_end).to_have_count(0)
    chat.stop_button.click()
    rest = "(b => b.scrollHeight - b.scrollTop - b.clientHeight)(document.querySelector('.transcript'))"
    until(lambda: chat.page.evaluate(rest) < 2)


def test_an_answer_goes_on_while_another_page_is_looked_at(chat: ChatPage) -> None:
    chat.open().send("forever")
    expect(chat.last_answer).to_contain_text("word 1")
    chat.page.get_by_role("link", name="Models").click()
    expect(chat.page.get_by_role("heading", name="Models")).to_be_visible()
    chat.page.get_by_role("link", name="Chat", exact=True).click()
    expect(chat.last_answer).to_contain_text("word 30", timeout=20_000)
    expect(chat.stop_button).to_be_visible()


def until(is_so: Callable[[], bool], deadline_s: float = 10.0) -> None:
    end = time.monotonic() + deadline_s
    while not is_so():
        assert time.monotonic() < end, "it does not come about"
        time.sleep(0.02)
