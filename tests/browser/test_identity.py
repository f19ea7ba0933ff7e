"""Who is logged in on the page: what a proof opens, a claim does not, and the next one in the browser never sees."""

import pytest
from shops import ANN, BEN, Visitor

from convsdk.core.events import MessageReceived
from convsdk.core.model import Trust
from convsdk.testing.builders import hint

EARLY = """
window.convsdk = function () { (convsdk.q ??= []).push(arguments); };
convsdk("identify", { token: (visitor) => fetch("/token?visitor=" + visitor).then((answer) => answer.text()) });
"""


@pytest.fixture
def mailed(shop):
    """Give the shop, to which Ann has written an e-mail that was verified."""
    by = hint(email=ANN["email"], trust=Trust.CHANNEL, at=shop.clock())
    mail = MessageReceived(external_id="m1", hint=by, at=shop.clock(), subject="Broken pot", text="It has a crack.")
    shop.hub.receive("mail", [mail])
    return shop


def begin(shop, page, text="Hello."):
    """Give a visitor who has written `text`."""
    count = len(shop.conversations())
    visitor = Visitor(page).come(shop.page()).open().sees("What is it about?").write(text)
    return visitor.waits(lambda: [shop.texts(one.id) for one in shop.conversations()[count:]], [[text]])


def log_in(shop, visitor, person):
    """Have the page prove who is logged in; give what the widget says then."""
    visitor.waits(lambda: visitor.name is not None, wanted=True)
    return visitor.identify({"token": shop.token(visitor.name, person)})


def listed(visitor):
    """Give the subjects and channels of the conversations that the browser can ask for."""
    found = visitor.page.evaluate("fetch('/widget/chat/conversations').then((answer) => answer.json())")
    return [(one["channel"], one["subject"]) for one in found["conversations"]]


def test_proof_after_load_opens_the_verified_conversations(mailed, desktop, shoot):
    """A token of the backend gives the browser a new cookie, and in the list the e-mails of who is logged in."""
    visitor = begin(mailed, desktop)
    before = visitor.cookie["value"]

    said = log_in(mailed, visitor, ANN)
    visitor.press("Conversations")
    shoot(desktop, "conversations")
    visitor.chat.get_by_role("button").filter(has_text="Broken pot").click()
    visitor.sees("It has a crack.")
    shoot(desktop, "other-conversation")
    visitor.press("Back to the current conversation").sees("Hello.")

    ann = mailed.hub.find("email", ANN["email"])
    assert said["is_proven"]
    assert visitor.cookie["value"] != before
    assert {one.contact for one in mailed.conversations()} == {ann.id}


def test_proof_spares_the_form(mailed, desktop):
    """Who has proven an address is not asked for it again, and is answered by the bot as after the form."""
    visitor = Visitor(desktop).come(mailed.page()).open().sees("What is it about?")

    log_in(mailed, visitor, ANN)
    visitor.press("A human, please").sees("We write to you tomorrow.")

    assert "How can we reach you?" not in visitor.bubbles


def test_proof_before_load_counts_once_the_chat_is_opened(mailed, desktop):
    """What a page says before the script has come waits until the visitor opens the chat, and sets no cookie."""
    mailed.script = EARLY
    visitor = Visitor(desktop).come(mailed.page())
    desktop.wait_for_timeout(300)
    before = visitor.cookie

    visitor.open().sees("What is it about?")
    visitor.waits(lambda: sorted(listed(visitor)), [("chat", ""), ("mail", "Broken pot")])

    assert before is None


def test_claim_opens_nothing(mailed, desktop):
    """An address that the page only says gives no more to read, and no other answer than an unknown one."""
    visitor = begin(mailed, desktop)

    known = visitor.identify({"email": ANN["email"]})
    shown = listed(visitor)
    unknown = visitor.identify({"email": "nobody@customer.example"})

    assert not known["is_proven"]
    assert not unknown["is_proven"]
    assert set(known) == set(unknown)
    assert shown == [("chat", "")]


def test_answer_is_counted_once_while_somebody_logs_in(shop, desktop):
    """An answer that comes just before the widget looks at its session again is one unread message."""

    def answer(route):
        shop.hub.reply(shop.conversations()[0].id, "Here I am.", by="Kim")
        route.continue_()

    visitor = begin(shop, desktop)
    visitor.waits(lambda: len(visitor.bubbles), 5).close()  # with the bot's answer
    desktop.route("**/widget/chat", answer)  # asked for once the session is another
    log_in(shop, visitor, ANN)
    desktop.wait_for_timeout(500)

    assert visitor.launcher.inner_text() == "1"


@pytest.mark.parametrize("is_reset", [True, False])
def test_next_one_in_the_browser_sees_nothing_of_the_one_before(mailed, desktop, complaints, is_reset):
    """Whether the page says that the first has logged out or not: the second is a new visitor, and another contact."""
    visitor = begin(mailed, desktop, "I am Ann.")
    log_in(mailed, visitor, ANN)
    of_ann = visitor.cookie["value"]

    if is_reset:
        desktop.evaluate("convsdk('reset')")
        visitor.waits(lambda: visitor.cookie, None)
        visitor.open()
    else:
        log_in(mailed, visitor, BEN)
    visitor.waits(lambda: "I am Ann." in visitor.bubbles, wanted=False)
    visitor.write("I am Ben.").sees("I am Ben.")
    log_in(mailed, visitor, BEN)
    visitor.waits(lambda: mailed.hub.find("email", BEN["email"]) is not None, wanted=True)

    ann, ben = (mailed.hub.find("email", one["email"]) for one in (ANN, BEN))
    assert listed(visitor) == [("chat", "")]
    assert "I am Ann." not in visitor.bubbles
    assert visitor.cookie["value"] != of_ann
    assert [[mailed.texts(one.id) for one in mailed.hub.conversations(contact=who.id)] for who in (ann, ben)] == [
        [["I am Ann."], ["It has a crack."]],
        [["I am Ben."]],
    ]
    complaints[:] = [one for one in complaints if "401" not in one]  # what was under way for Ann when Ben came


def test_proof_for_one_browser_is_nothing_in_another(mailed, new_page):
    """A token that was made for another visitor proves nothing."""
    ann, thief = begin(mailed, new_page()), begin(mailed, new_page())

    said = thief.identify({"token": mailed.token(ann.name, ANN)})

    assert not said["is_proven"]
    assert listed(thief) == [("chat", "")]
