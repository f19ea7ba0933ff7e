"""Whole stories of visitors, from the page to the store."""

import time
from datetime import timedelta

import pytest
from playwright.sync_api import expect
from shops import Visitor

from convsdk.core.model import Direction

DAY_S = 86_400


@pytest.mark.parametrize("device", ["desktop", "mobile"])
def test_anonymous_visitor_becomes_a_contact_with_the_whole_conversation(shop, request, complaints, shoot, device):
    """Bot, buttons, question, form, hand-over and an agent's answer: all of it ends on one contact."""
    shop.hub.be_on_duty("kim", shop.clock() + timedelta(hours=1))
    page = request.getfixturevalue(device)
    visitor = Visitor(page).come(shop.page())

    visitor.open().sees("Welcome!", "Hello! I am the shop's bot.", "What is it about?")
    visitor.press("My order").sees("Which number does your order have?").write("4711").sees("How can we reach you?")
    email = page.get_by_label("E-mail address")
    email.fill("ann@customer")
    email.press("Enter")
    expect(page.get_by_text("Please enter an e-mail address.")).to_be_visible()
    expect(email).to_be_focused()
    expect(email).to_have_attribute("aria-invalid", "true")
    email.fill("Ann@Customer.example")
    page.get_by_label("Name").fill("Ann")
    page.get_by_label("Name").press("Enter")
    visitor.sees("Somebody is with you in a minute.")
    (conversation,) = shop.conversations()
    shop.hub.reply(conversation.id, "Your pot is on its way.", by="Kim")
    visitor.sees("Your pot is on its way.")
    shoot(page, f"story-{device}")

    contact = shop.hub.find("email", "ann@customer.example")
    assert contact.name == "Ann"
    assert contact.traits["order_number"].value == "4711"
    assert [one.id for one in shop.hub.conversations(contact=contact.id)] == [conversation.id]
    assert shop.texts(conversation.id) == ["My order", "4711"]
    assert shop.texts(conversation.id, Direction.OUTBOUND) == [
        "Hello! I am the shop's bot.",
        "What is it about?",
        "Which number does your order have?",
        "How can we reach you?",
        "Somebody is with you in a minute.",
        "Your pot is on its way.",
    ]
    assert [one for one in complaints if "422" not in one] == []
    complaints.clear()


def test_answer_is_there_within_two_seconds_and_counted_while_the_chat_is_closed(shop, desktop):
    """What an agent writes is shown at once; on a closed chat the badge counts it until it is seen."""
    visitor = Visitor(desktop).come(shop.page()).open().sees("What is it about?").write("Is anybody there?")
    visitor.waits(lambda: shop.texts(shop.conversations()[0].id), ["Is anybody there?"])
    conversation = shop.conversations()[0].id

    begun = time.monotonic()
    shop.hub.reply(conversation, "I am.", by="Kim")
    visitor.sees("I am.")
    took_s = time.monotonic() - begun
    visitor.close()
    shop.hub.reply(conversation, "Are you?", by="Kim")
    expect(visitor.launcher).to_have_accessible_name("Open chat. Unread messages: 1")
    expect(visitor.launcher).to_have_text("1")
    desktop.reload()
    expect(visitor.launcher).to_have_accessible_name("Open chat. Unread messages: 1")
    visitor.open().sees("Are you?").close()
    expect(visitor.launcher).to_have_accessible_name("Open chat")
    desktop.reload()
    expect(visitor.launcher).to_have_accessible_name("Open chat")

    assert took_s < 2


def test_form_shows_what_was_given_however_late_its_answer_comes(shop, desktop):
    """What the visitor filled in stays in sight, also where what follows is heard of before the form's answer."""

    def delay(route):
        answer = route.fetch()
        desktop.wait_for_timeout(700)
        route.fulfill(response=answer)

    visitor = Visitor(desktop).come(shop.page()).open().press("A human, please").sees("How can we reach you?")
    desktop.route("**/forms", delay)
    desktop.get_by_label("Phone number").fill("030 1234567")
    desktop.get_by_label("E-mail address").fill("ann@customer.example")
    desktop.get_by_label("E-mail address").press("Enter")

    visitor.sees("We write to you tomorrow.", "ann@customer.example", "030 1234567")
    expect(visitor.input).to_be_focused()


def test_visitor_who_comes_back_on_day_29_goes_on_and_gives_an_address(shop, new_page):
    """The session and its cookie live 30 days from the last visit; an address puts what was written before under it."""
    visitor = Visitor(new_page()).come(shop.page()).open().sees("What is it about?").press("A human, please")
    visitor.sees("How can we reach you?")
    left = visitor.cookie
    visitor.page.close()
    shop.ahead = timedelta(days=29)
    context = visitor.page.context
    context.add_cookies([left | {"expires": left["expires"] - 29 * DAY_S}])  # its clock did not move

    again = Visitor(context.new_page()).come(shop.page()).sees("How can we reach you?")
    again.page.get_by_label("E-mail address").fill("ann@customer.example")
    again.page.get_by_label("E-mail address").press("Enter")
    again.sees("We write to you tomorrow.")

    (conversation,) = shop.conversations()
    contact = shop.hub.find("email", "ann@customer.example")
    assert conversation.contact == contact.id
    assert shop.texts(conversation.id) == ["A human, please"]
    assert abs(left["expires"] - time.time() - 30 * DAY_S) < 60
    assert again.cookie["value"] == left["value"]
    assert abs(again.cookie["expires"] - time.time() - 30 * DAY_S) < 60


def test_visitor_who_comes_back_on_day_31_is_a_new_one(shop, desktop):
    """After 30 days the server knows the session no more, even where the browser has kept its cookie."""
    visitor = Visitor(desktop).come(shop.page()).open().sees("What is it about?").write("I am Ann.")
    visitor.waits(lambda: shop.texts(shop.conversations()[0].id), ["I am Ann."])
    left = visitor.cookie["value"]
    desktop.goto("about:blank")
    shop.ahead = timedelta(days=31)

    visitor.come(shop.page()).open().sees("What is it about?").write("Hello.")
    visitor.waits(lambda: [shop.texts(one.id) for one in shop.conversations()], [["I am Ann."], ["Hello."]])

    assert "I am Ann." not in visitor.bubbles
    assert visitor.cookie["value"] != left
