"""Phone and desktop, light and dark, keyboard and names: usable in every one."""

from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.e2e.web import training
from tests.e2e.web.chat_page import ChatPage
from tests.e2e.web.fake_gateway import FakeGateway

PHONE: dict[str, Any] = {"viewport": {"width": 360, "height": 740}, "is_mobile": True, "has_touch": True}
LIGHT, DARK = "rgb(250, 250, 248)", "rgb(20, 22, 20)"


@pytest.fixture
def phone(new_page: Callable[..., Page], gateway: FakeGateway) -> ChatPage:
    return ChatPage(new_page(**PHONE), gateway.url)


def assert_nothing_sticks_out(page: Page) -> None:
    assert page.evaluate("document.documentElement.scrollWidth") <= page.viewport_size["width"]
    too_wide = """[...document.querySelectorAll('button, a, p, h1, h2, input, textarea, .markdown')]
        .filter(e => e.checkVisibility({visibilityProperty: true}) && !e.closest('.visually-hidden'))
        .filter(e => e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML.slice(0, 80))"""
    assert page.evaluate(too_wide) == []


def test_a_phone_scrolls_only_upright_on_every_page(phone: ChatPage, gateway: FakeGateway) -> None:
    gateway.checkpoints = [training.checkpoint("a-run-with-a-very-long-name-indeed", "sft", 700, val_bpb=0.9)]
    training.pipeline(gateway)
    phone.open().ask("markdown")
    phone.ask("What is 12345678901234567890 * 98765432109876543210?")
    assert_nothing_sticks_out(phone.page)
    for path, name in (("/train", "Training"), ("/models", "Models")):
        phone.open(path)
        expect(phone.page.get_by_role("heading", name=name)).to_be_visible()
        expect(phone.page.locator(".job-row, .checkpoint").first).to_be_visible()
        assert_nothing_sticks_out(phone.page)


def test_dialogs_fit_a_phone(phone: ChatPage) -> None:
    dialog = phone.open("/train").page.get_by_role("dialog")
    hidden = "dialog => dialog.scrollWidth - dialog.clientWidth"
    phone.page.get_by_role("button", name="New job").click()
    phone.page.get_by_role("radio", name="Single job").check()
    assert dialog.evaluate(hidden) == 0
    phone.page.keyboard.press("Escape")
    phone.page.get_by_role("button", name="Settings").click()
    assert dialog.evaluate(hidden) == 0


def test_the_drawer_opens_and_closes(phone: ChatPage) -> None:
    phone.open().ask("apples")
    phone.page.get_by_role("button", name="New chat").last.click()
    phone.ask("pears")
    expect(phone.conversations.first).not_to_be_visible()
    phone.page.get_by_role("button", name="Conversations").click()
    expect(phone.conversations).to_have_text(["pears", "apples"])
    phone.conversations.nth(1).locator("button").first.click()
    expect(phone.questions).to_have_text("apples")
    expect(phone.conversations.first).not_to_be_visible()
    phone.page.get_by_role("button", name="Conversations").click()
    phone.page.keyboard.press("Escape")
    expect(phone.conversations.first).not_to_be_visible()


def test_enter_breaks_the_line_on_a_touch_keyboard(phone: ChatPage) -> None:
    phone.open().composer.fill("one")
    phone.composer.press("Enter")
    phone.composer.press_sequentially("two")
    phone.page.get_by_role("button", name="Send").tap()
    expect(phone.questions).to_have_text("one\ntwo")


def test_fields_are_large_enough_that_ios_does_not_zoom(phone: ChatPage) -> None:
    phone.open().page.get_by_role("button", name="Settings").click()
    sizes = """[...document.querySelectorAll('textarea, input:not([type=range], [type=radio])')]
        .map(e => getComputedStyle(e).fontSize)"""
    assert set(phone.page.evaluate(sizes)) == {"16px"}


def test_the_theme_follows_the_system_until_one_is_chosen(new_page: Callable[..., Page], gateway: FakeGateway) -> None:
    chat = ChatPage(new_page(color_scheme="dark"), gateway.url).open()
    body = chat.page.locator("body")
    expect(body).to_have_css("background-color", DARK)
    chat.page.emulate_media(color_scheme="light")
    expect(body).to_have_css("background-color", LIGHT)
    chat.page.get_by_role("button", name="Settings").click()
    chat.page.get_by_role("radio", name="Dark").check()
    expect(body).to_have_css("background-color", DARK)
    chat.page.reload()
    expect(chat.composer).to_be_visible()
    expect(body).to_have_css("background-color", DARK)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground(new_page: Callable[..., Page], gateway: FakeGateway, scheme: str) -> None:
    """WCAG AA, 4.5 to 1, of the text colours on the grounds they stand on."""
    page = new_page(color_scheme=scheme)
    page.goto(gateway.url)
    ratio = """([ink, ground]) => {
        const style = getComputedStyle(document.documentElement);
        const light = name => {
            const digits = style.getPropertyValue(name).trim().slice(1);
            const value = parseInt(digits.length == 3 ? digits.replace(/./g, '$&$&') : digits, 16);
            const [r, g, b] = [value >> 16, value >> 8 & 255, value & 255].map(c => c / 255)
                .map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
            return 0.2126 * r + 0.7152 * g + 0.0722 * b + 0.05;
        };
        const [a, b] = [light(ink), light(ground)];
        return Math.max(a, b) / Math.min(a, b);
    }"""
    expect(page.get_by_role("textbox", name="Message")).to_be_visible()
    pairs = [(ink, ground) for ink in ("--ink", "--ink-2") for ground in ("--bg", "--surface", "--surface-2")]
    pairs += [("--ink-3", "--bg"), ("--ink-3", "--surface"), ("--accent", "--bg"), ("--accent-ink", "--accent")]
    pairs += [("--ink", "--accent-soft"), ("--calc-ink", "--calc-bg"), ("--danger", "--surface")]
    weak = {f"{ink} on {ground}": page.evaluate(ratio, [ink, ground]) for ink, ground in pairs}
    assert {pair: value for pair, value in weak.items() if value < 4.5} == {}


def test_every_control_has_a_name(chat: ChatPage, gateway: FakeGateway) -> None:
    training.pipeline(gateway)
    gateway.checkpoints = [training.checkpoint("demo", "sft", 700)]
    nameless = """[...document.querySelectorAll('button, a, input, textarea, select')]
        .filter(e => !(e.ariaLabel || e.textContent.trim() || e.labels?.length)).map(e => e.outerHTML)"""
    chat.open().ask("markdown")
    for path in ("/", "/train", "/models"):
        chat.open(path)
        expect(chat.page.get_by_role("navigation")).to_be_visible()
        assert chat.page.evaluate(nameless) == []


def test_the_answer_is_told_to_a_screen_reader_once_it_is_whole(chat: ChatPage) -> None:
    told = chat.open().page.locator(".transcript-frame [aria-live=polite]")
    chat.send("forever")
    expect(told).to_have_text("Answering")
    chat.stop_button.click()
    expect(told).to_contain_text("word 0")
