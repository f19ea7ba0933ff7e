import hashlib
import hmac

import jwt
import pytest

from convsdk.channels.chat import ChatChannel, ChatSettings
from convsdk.channels.email import EmailChannel
from convsdk.channels.email.settings import EmailSettings
from convsdk.channels.js_identify import JsIdentifyChannel, JsIdentifySettings
from convsdk.core.model import Direction, Outcome
from convsdk.core.ports import Secret
from convsdk.hub import Hub
from convsdk.testing import NOON, FakeClock, request

SECRET = "a-secret-of-the-site-that-is-long-enough"
EXPIRES = int(NOON.timestamp()) + 300
MAILBOX = EmailSettings(
    address="in-7f3a@shop.example",
    own=("sales@shop.example",),
    relays=("form@shop.example",),
    authserv_id="mx.shop.example",
)


def hub():
    """Give a hub in memory with a chat, a mailbox, and a site that identifies its visitors."""
    channels = [
        ChatChannel("chat", ChatSettings(country="DE")),
        EmailChannel("mail", MAILBOX),
        JsIdentifyChannel("site", JsIdentifySettings(secrets=(Secret(SECRET),), audience="convsdk")),
    ]
    return Hub("memory:", channels=channels, clock=FakeClock())


def take(inbox, channel, **content):
    """Let JSON come in, and give what became of it."""
    (received,) = inbox.handle(channel, request(json={"visitor": "v1", **content})).received
    return received


def say(inbox, number, **content):
    """Let the visitor say something in the chat."""
    plain = {"type": "message", "id": f"m{number}", "conversation": "c1", "text": "Hello"}
    return take(inbox, "chat", **plain | content)


def fill_in(inbox, number, **fields):
    """Let the visitor submit the form of the chat."""
    return take(inbox, "chat", type="form", id=f"f{number}", conversation="c1", form="contact", fields=fields)


def created(inbox):
    """Give how each contact came to be, as observers are told."""
    notices = inbox.store.notices(inbox.workspace, since=0, limit=99)
    return [one.payload["how"] for one in notices if one.type == "contact.created"]


def test_submitted_form_makes_a_contact_with_the_conversation_so_far():
    """A form makes the contact, and what was said before it is theirs; a typed phone number is a note."""
    inbox = hub()
    said = say(inbox, 1)

    decision = fill_in(inbox, 1, email="ann@shop.example", phone="030 123456", account="Shop", name="Ann").decision

    contact = inbox.contact(decision.contact)
    assert (said.decision.contact, decision.outcome) == (None, Outcome.CREATED)
    assert [one.node.identifier.value for one in contact.identifiers] == ["ann@shop.example"]
    assert [one.value for one in contact.notes] == ["+4930123456"]
    assert {name: one.value for name, one in contact.traits.items()} == {"name": "Ann", "company": "Shop"}
    assert [one.id for one in inbox.conversations(contact=contact.id)] == [said.conversation]
    assert created(inbox) == ["chat form"]


def test_form_that_is_sent_back_keeps_its_conversation():
    """A form with a slip makes nobody and leaves a line in the conversation; corrected, it makes the contact."""
    inbox = hub()
    said = say(inbox, 1)

    sent_back = fill_in(inbox, 1, email="ann(at)shop.example")
    corrected = fill_in(inbox, 1, email="ann@shop.example")

    assert (sent_back.conversation, sent_back.decision.contact) == (said.conversation, None)
    assert [one.direction for one in inbox.messages(said.conversation)] == [Direction.LINE, Direction.INBOUND]
    assert corrected.decision.outcome is Outcome.CREATED


def test_message_of_another_visitor_under_the_same_id_is_kept():
    """Two visitors whose widgets count from one lose no message to each other."""
    inbox = hub()

    received = [say(inbox, 1, visitor=visitor, conversation="") for visitor in ("v1", "v2")]

    assert [one.decision.outcome for one in received] == [Outcome.ANONYMOUS] * 2
    assert len(inbox.conversations()) == 2


def test_mail_of_an_unknown_sender_makes_a_contact():
    """An unknown address becomes a contact with the conversation, and observers are told that a mail made it."""
    inbox = hub()

    (received,) = inbox.handle("mail", request("From: Ann <ann@shop.example>\r\nMessage-ID: <1@x>\r\n\r\nHi")).received

    assert received.decision.outcome is Outcome.CREATED
    assert [one.id for one in inbox.conversations(contact=received.decision.contact)] == [received.conversation]
    assert created(inbox) == ["inbound e-mail"]


@pytest.mark.parametrize(
    "sign", ["Auto-Submitted: auto-replied", "List-Id: <x>", "Return-Path: <>", "From: in-7f3a@shop.example"]
)
def test_mail_that_nobody_wrote_makes_no_contact(sign):
    """Automatic mail, lists, bounces and own mail stand in the inbox, and make nobody."""
    inbox = hub()
    sender = "" if sign.startswith("From") else "From: ann@shop.example\r\n"

    (received,) = inbox.handle("mail", request(f"{sender}{sign}\r\nMessage-ID: <1@x>\r\n\r\nHi")).received

    assert (received.decision.contact, created(inbox)) == (None, [])
    assert len(inbox.messages(received.conversation).items) == 1


FORWARDED = """From: sales@shop.example
Subject: Fwd: A question
Message-ID: <2@x>

---- Forwarded message ----
From: Ann <ann@mail.example>
Date: Monday
Subject: A question

Do you ship?
"""


@pytest.mark.parametrize(
    "raw", ["From: form@shop.example\nReply-To: ann@mail.example\nMessage-ID: <1@x>\n\nDo you ship?\n", FORWARDED]
)
def test_mail_that_is_passed_on_makes_a_contact_of_whom_it_is_from(raw):
    """A contact form, and a colleague who forwards, speak for a customer, who is no more than claimed."""
    inbox = hub()

    (received,) = inbox.handle("mail", request(raw)).received

    assert received.decision.contact == inbox.find("email", "ann@mail.example").id
    assert inbox.find("email", "sales@shop.example") is None
    assert not inbox.conversation(received.conversation).filing.is_verified


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ("From: ann@mail.example\nFrom: evil@x.test\n", "names no single mailbox"),
        ("Authentication-Results: mx.shop.example; dmarc=fail\nFrom: ann@mail.example\n", "DMARC failed"),
    ],
)
def test_mail_whose_sender_is_in_doubt_waits_for_review(fields, reason):
    """It stands in the inbox, says why, and neither makes a contact nor joins the conversation of one."""
    inbox = hub()
    (known,) = inbox.handle("mail", request("From: ann@mail.example\nMessage-ID: <1@x>\n\nHello")).received

    (received,) = inbox.handle("mail", request(f"{fields}In-Reply-To: <1@x>\nMessage-ID: <2@x>\n\nPay me")).received

    assert received.decision.contact is None
    assert received.conversation != known.conversation
    assert reason in inbox.messages(received.conversation).items[0].detail["review"]


CLAIMS = {"exp": EXPIRES, "aud": "convsdk", "visitor": "v1", "sub": "u1", "email": "ann@shop.example"}
MAC = hmac.new(SECRET.encode(), f"convsdk\nv1\n{EXPIRES}\nu1".encode(), hashlib.sha256).hexdigest()


@pytest.mark.parametrize(
    ("content", "keys"),
    [
        ({"token": jwt.encode(CLAIMS | {"email_verified": True}, SECRET)}, {"u1", "ann@shop.example"}),
        ({"token": jwt.encode(CLAIMS, SECRET)}, {"u1"}),
        ({"external_id": "u1", "expires": EXPIRES, "signature": MAC}, {"u1"}),
        ({"email": "ann@shop.example"}, {"ann@shop.example"}),
        ({"email": "ann@shop.example", "token": "forged"}, {"ann@shop.example"}),
    ],
)
def test_messages_of_an_identified_visitor_belong_to_the_contact(content, keys):
    """Whoever the page names, signed or not, what the visitor writes from then on is theirs."""
    inbox = hub()

    contact = take(inbox, "site", id="i1", **content).decision.contact
    said = say(inbox, 1)

    assert {one.node.identifier.value for one in inbox.contact(contact).identifiers} == keys
    assert [one.id for one in inbox.conversations(contact=contact)] == [said.conversation]


def test_unsigned_identification_does_not_join_contacts():
    """A page's unsigned word about a known address and a known account joins nobody."""
    inbox = hub()
    ann = take(inbox, "site", id="i1", token=jwt.encode(CLAIMS | {"email_verified": True}, SECRET)).decision.contact
    bob = take(inbox, "site", id="i1", visitor="v2", email="bob@shop.example").decision.contact

    said = take(inbox, "site", id="i1", visitor="v3", external_id="u1", email="bob@shop.example").decision

    assert said.absorbed == ()
    assert {inbox.contact(one).id for one in (ann, bob)} == {ann, bob}
