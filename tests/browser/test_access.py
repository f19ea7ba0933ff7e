"""The widget for everybody: by keyboard, by screen reader, in the dark, from right to left, in German."""

import pytest
from playwright.sync_api import expect
from shops import ANN, Visitor

from convsdk.core.events import MessageReceived
from convsdk.core.model import Trust
from convsdk.testing.builders import hint


def test_everything_is_done_by_keyboard(shop, desktop):
    """Tab reaches all of it, Enter opens, presses and sends, Escape closes and gives the focus back."""
    visitor = Visitor(desktop).come(shop.page())
    keys = desktop.keyboard

    desktop.get_by_role("button", name="Buy").focus()
    keys.press("Tab")
    expect(visitor.launcher).to_be_focused()
    keys.press("Enter")
    expect(visitor.input).to_be_focused()
    visitor.sees("What is it about?")
    topic = visitor.chat.get_by_role("button", name="My order")
    for _ in range(10):
        keys.press("Shift+Tab")
        if topic.evaluate("(button) => button.getRootNode().activeElement === button"):
            break
    keys.press("Enter")
    visitor.sees("Which number does your order have?")
    expect(visitor.input).to_be_focused()
    keys.type("4711")
    keys.press("Shift+Enter")
    keys.type("or 4712")
    keys.press("Enter")
    visitor.sees("How can we reach you?")
    visitor.waits(lambda: shop.texts(shop.conversations()[0].id), ["My order", "4711\nor 4712"])
    keys.press("Escape")
    expect(visitor.dialog).to_be_hidden()
    expect(visitor.launcher).to_be_focused()


def test_screen_readers_hear_names_and_news(shop, desktop):
    """Each part has its name, new messages are read out, and a problem is tied to its field."""
    visitor = Visitor(desktop).come(shop.page())
    expect(visitor.launcher).to_have_accessible_name("Open chat")
    expect(visitor.launcher).to_have_attribute("aria-expanded", "false")

    visitor.open().sees("What is it about?")

    expect(visitor.dialog).to_have_accessible_name("Petal & Pot")
    expect(visitor.log).to_have_accessible_name("Messages")
    expect(visitor.log).to_have_attribute("aria-live", "polite")
    expect(visitor.input).to_have_accessible_name("Write a message…")
    expect(visitor.launcher).to_have_attribute("aria-expanded", "true")
    expect(visitor.chat.get_by_role("group", name="What is it about?").get_by_role("button")).to_have_count(2)
    for name in ("Attach a file", "Send"):
        expect(visitor.dialog.get_by_role("button", name=name)).to_be_visible()
    visitor.press("A human, please").sees("How can we reach you?")
    email = desktop.get_by_label("E-mail address")
    email.press("Enter")
    expect(email).to_have_accessible_description("Please fill this in.")
    expect(email).to_have_attribute("required", "")


ARABIC = """
window.convsdk = function () { (convsdk.q ??= []).push(arguments); };
convsdk("init", { channel: "chat", lang: "ar", texts: { open: "افتح المحادثة", conversations: "المحادثات" } });
"""


def states(visitor, shop):
    """Lead a visitor through all that the chat can show, and give the name of each state."""
    yield "closed"
    visitor.open().sees("What is it about?")
    yield "opened"
    visitor.press("A human, please").sees("How can we reach you?")
    email = visitor.page.get_by_label("E-mail address")
    email.press("Enter")
    expect(visitor.page.get_by_text("Please fill this in.")).to_be_visible()
    yield "form"
    email.fill(ANN["email"])
    email.press("Enter")
    visitor.sees("We write to you tomorrow.")
    (conversation,) = shop.conversations()
    shop.hub.reply(conversation.id, "See https://shop.example/pots\nThey are new.", by="Kim")
    visitor.sees("Kim").write("Thank you!").sees("Thank you!")
    expect(visitor.log.get_by_text("Sending…")).to_have_count(0)
    yield "answered"
    by = hint(email=ANN["email"], trust=Trust.CHANNEL, at=shop.clock())
    mail = MessageReceived(external_id="m1", hint=by, at=shop.clock(), subject="Broken pot", text="It has a crack.")
    shop.hub.receive("mail", [mail])
    visitor.identify({"token": shop.token(visitor.name, ANN)})
    visitor.chat.locator(".menu").click()
    visitor.chat.get_by_text("Broken pot").wait_for()
    yield "conversations"
    visitor.chat.get_by_text("Broken pot").click()
    visitor.sees("It has a crack.")
    yield "another"
    with visitor.page.expect_response("**/messages?"):
        visitor.close()
    shop.hub.reply(conversation.id, "And they are green.", by="Kim")
    expect(visitor.launcher).to_have_text("1")
    yield "unread"


@pytest.mark.parametrize("look", ["desktop", "mobile", "dark", "right-to-left"])
def test_no_state_violates_a_rule_of_accessibility(shop, request, violations, shoot, look):
    """axe-core finds nothing wrong with anything that the chat shows, in any of its looks."""
    page = request.getfixturevalue("mobile" if look == "mobile" else "desktop")
    page.emulate_media(color_scheme="dark" if look == "dark" else "light")
    shop.script = ARABIC if look == "right-to-left" else ""
    visitor = Visitor(page).come(shop.page(channel="") if shop.script else shop.page())

    found = {}
    for state in states(visitor, shop):
        shoot(page, f"{state}-{look}")
        found[state] = violations(page)

    assert found == {state: [] for state in found}


def test_page_from_right_to_left_has_the_chat_at_the_left(shop, desktop):
    """With an Arabic dictionary the chat is mirrored; each message goes the way of its own letters."""
    shop.script = ARABIC
    visitor = Visitor(desktop).come(shop.page(lang="ar", direction="rtl", channel=""))
    expect(visitor.launcher).to_have_accessible_name("افتح المحادثة")
    visitor.open().sees("What is it about?")

    box = visitor.launcher.bounding_box()
    visitor.write("مرحبا").sees("مرحبا")

    assert box["x"] < 100
    assert visitor.dialog.evaluate("(dialog) => getComputedStyle(dialog).direction") == "rtl"
    question = visitor.log.get_by_text("What is it about?").first  # the bot asks again: that was none of its choices
    assert question.evaluate("(text) => getComputedStyle(text).direction") == "ltr"


def test_german_page_has_german_texts(shop, desktop, shoot):
    """The language of the page is that of the chat."""
    visitor = Visitor(desktop).come(shop.page(lang="de-AT"))
    expect(visitor.launcher).to_have_accessible_name("Chat öffnen")

    visitor.open().press("A human, please")
    desktop.get_by_label("E-Mail-Adresse").press("Enter")

    expect(desktop.get_by_text("Bitte ausfüllen.")).to_be_visible()
    expect(visitor.input).to_have_accessible_name("Nachricht schreiben…")
    expect(visitor.dialog.get_by_text("Heute")).to_be_visible()
    shoot(desktop, "german")
