from datetime import UTC, datetime

import pytest
from attrs import evolve

from convsdk.channels.email import EmailChannel
from convsdk.channels.email.settings import EmailSettings
from convsdk.core.events import Noted
from convsdk.core.model import Direction
from convsdk.core.ports import AutomaticAnswer, Channel, Envelope, Request

NOW = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
ANSWER = AutomaticAnswer(text="We have it.")
SETTINGS = EmailSettings(
    address="in-7f3a@shop.example", own=("sales@shop.example",), relays=("form@shop.example",), automatic_answer=ANSWER
)


def read(*fields, settings=SETTINGS, sender="ann@mail.example"):
    """Give the channel and what it reads of a mail with those fields; those that it does not name are a person's."""
    given = {"From": "Ann <ann@mail.example>", "To": "in-7f3a@shop.example", "Message-ID": "<a@mail.example>"}
    given |= dict(field.split(": ", 1) for field in fields)
    body = "".join(f"{name}: {value}\r\n" for name, value in given.items()) + "\r\nHello."
    channel = EmailChannel("support", settings)
    envelope = Envelope(sender=sender, recipients=("in-7f3a@shop.example",))
    event, *_ = channel.parse(Request(received_at=NOW, body=body.encode(), envelope=envelope))
    return channel, event


@pytest.mark.parametrize(
    "field",
    [
        "To: Shop <In-7F3A@shop.example>",
        "To: ann@mail.example, in-7f3a+abcdefghij234567@shop.example",
        "To: sales@shop.example",
        "Cc: sales@shop.example",
        "From: nora.replyson@mail.example",
    ],
)
def test_person_who_addresses_us_is_answered(field):
    """Whoever names one of our addresses in To or Cc is told at once."""
    channel, event = read(field)

    assert channel.automatic_answer(event) == ANSWER


@pytest.mark.parametrize(
    ("field", "why"),
    [
        ("To: undisclosed-recipients:;", "it names no address of ours in To or Cc"),
        ("To: bob@mail.example", "it names no address of ours in To or Cc"),
        ("From: no-reply@mail.example", "nobody reads what its From gets"),
        ("From: donotreply+7@mail.example", "nobody reads what its From gets"),
        ("From: do_not_reply@mail.example", "nobody reads what its From gets"),
        ("From: messages-noreply@mail.example", "nobody reads what its From gets"),
        ("From: news-request@mail.example", "nobody reads what its From gets"),
        ("X-Auto-Response-Suppress: DR, AutoReply", "it asks for no automatic answer"),
    ],
)
def test_person_who_expects_no_answer_gets_none(field, why):
    """A copy that was not meant for us, a sender that nobody reads and a wish for silence are respected."""
    channel, event = read(field)

    assert event.detail["class"] == "human"
    assert event.detail["no_automatic_answer"] == why
    assert channel.automatic_answer(event) is None


def test_what_a_form_passes_on_is_not_answered():
    """Anybody can type somebody else's address into a form."""
    channel, event = read("From: form@shop.example", "Reply-To: ann@mail.example")

    assert event.detail["passed_on_for"] == "ann@mail.example"
    assert channel.automatic_answer(event) is None


@pytest.mark.parametrize(
    ("field", "kind"),
    [
        ("Auto-Submitted: auto-replied", "automatic"),
        ("List-Id: <news.mail.example>", "list"),
        ("Precedence: bulk", "list"),
        ("From: sales@shop.example", "own"),
    ],
)
def test_program_is_not_answered(field, kind):
    """Neither programs and lists are answered, nor we ourselves: that could go on without end."""
    channel, event = read(field)

    assert event.detail["class"] == kind
    assert channel.automatic_answer(event) is None


@pytest.mark.parametrize("given", [("From: MAILER-DAEMON@mail.example",), ()])
def test_bounce_is_no_message_to_answer(given):
    """What the mail system says, or what has no return path, is a note about a mail of ours."""
    _, event = read(*given, sender="" if not given else "ann@mail.example")

    assert isinstance(event, Noted)


def test_sender_in_doubt_is_not_answered():
    """Where nobody can say who wrote, nobody is written to."""
    channel, event = read("From: ann@mail.example, bob@mail.example")

    assert channel.automatic_answer(event) is None


def test_our_own_answer_is_not_answered():
    """What went out elsewhere and is echoed asks for nothing."""
    channel, event = read()

    assert channel.automatic_answer(evolve(event, direction=Direction.OUTBOUND)) is None


def test_channel_without_an_answer_gives_none():
    """Nobody is told anything unless the settings say what; nor is a mail looked at for it."""
    channel, event = read("To: bob@mail.example", settings=evolve(SETTINGS, automatic_answer=None))

    assert channel.automatic_answer(event) is None
    assert Channel.automatic_answer(channel, event) is None
    assert "no_automatic_answer" not in event.detail


@pytest.mark.parametrize(
    ("given", "told"), [({"text": ""}, "text"), ({"subject": "x" * 201}, "subject"), ({"again_after_days": 0}, "again")]
)
def test_unusable_answer_is_refused(given, told):
    """An answer says something, and not again at once."""
    with pytest.raises(ValueError, match=told):
        AutomaticAnswer(**{"text": "We have it."} | given)
