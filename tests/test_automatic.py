"""Automatic answers, from the mail that comes in to what is queued, on each store that ships."""

import threading
from contextlib import closing
from datetime import timedelta

import pytest
from attrs import evolve
from outgoing import send
from servers import STORES, fresh_store

from convsdk.channels.email import EmailChannel
from convsdk.channels.email.sending import SmtpSending
from convsdk.channels.email.settings import EmailSettings
from convsdk.core.events import DeliveryStatus, StatusChanged
from convsdk.core.inbox import ConversationStatus
from convsdk.core.model import Claim, Direction, Trust
from convsdk.core.ports import AutomaticAnswer, Envelope, Request
from convsdk.hub import Hub
from convsdk.ingest import Ingest
from convsdk.store import open_store
from convsdk.testing.builders import NOON, FakeClock

SETTINGS = EmailSettings(
    address="in-7f3a@shop.example",
    sending=SmtpSending(host="127.0.0.1", port=9),
    automatic_answer=AutomaticAnswer(text="We have it.", again_after_days=7),
)


@pytest.fixture(params=STORES)
def url(request, tmp_path):
    """Give an empty store of each kind that ships, by its URL."""
    return fresh_store(request.param, tmp_path)


@pytest.fixture
def hub(url):
    """Give a hub with a mail channel that answers by itself."""
    with closing(shop(url)) as found:
        yield found


def shop(store, settings=SETTINGS, *others):
    """Give a hub with that mail channel, and others."""
    channels = [EmailChannel("support", settings), *(EmailChannel(*one) for one in others)]
    return Hub(store, channels=channels, clock=FakeClock())


def later(hub, **time):
    """Move the hub's clock on."""
    hub._clock.advance(**time)  # noqa: SLF001  (the hub's own clock)


def mail(number, *fields, sender="ann@mail.example", at=NOON):
    """Give the request of a mail of a person to us."""
    given = (f"From: {sender}", "To: in-7f3a@shop.example", f"Message-ID: <{number}@mail.example>", "Subject: Shoes")
    head = dict(one.split(": ", 1) for one in (*given, *fields))
    body = "".join(f"{name}: {value}\r\n" for name, value in head.items()) + "\r\nWhere are they?\r\n"
    envelope = Envelope(sender=sender, recipients=("in-7f3a@shop.example",))
    return Request(received_at=at, body=body.encode(), envelope=envelope)


def take(hub, number, *fields, channel="support", **given):
    """Take a mail in now; give its conversation."""
    now = hub._clock()  # noqa: SLF001  (the hub's own clock)
    (received, *_) = hub.handle(channel, mail(number, *fields, **{"at": now, **given})).received
    return received.conversation


def answers(hub, conversation=None):
    """Give the automatic answers, of all conversations or of one."""
    conversations = [conversation] if conversation else [one.id for one in hub.conversations()]
    messages = [one for number in conversations for one in hub.messages(number, limit=100)]
    return [one for one in messages if (one.detail or {}).get("is_automatic")]


def waiting(hub, message):
    """Give the delivery of a message, if there is one."""
    return hub.store.transact(hub.workspace, lambda one: one.deliveries([message.id])).get(message.id)


def test_who_writes_is_told_at_once(hub):
    """The answer is queued in the conversation in the transaction that took the mail in, and is nobody's work."""
    woken = []
    hub.on_queued(lambda: woken.append(True))

    conversation = take(hub, 1)

    (answer,) = answers(hub)
    assert (answer.conversation, answer.direction, answer.text) == (conversation, Direction.OUTBOUND, "We have it.")
    assert (answer.status, answer.detail["subject"], waiting(hub, answer).channel) == ("queued", "Shoes", "support")
    assert answer.external_id == SETTINGS.message_id(answer.detail["token"])
    filing = hub.conversation(conversation).filing
    assert (filing.assignee, filing.unread, filing.status) == ("", 1, ConversationStatus.OPEN)
    assert woken


def test_nobody_is_told_twice_in_a_window(hub):
    """The window is the sender's, whatever they write about; after it they are told again."""
    take(hub, 1)
    take(hub, 2)
    take(hub, 3, sender="Ann@MAIL.example")
    take(hub, 4, sender="bob@mail.example")
    assert len(answers(hub)) == 2

    later(hub, days=7, seconds=-1)
    take(hub, 5)
    assert len(answers(hub)) == 2
    later(hub, seconds=1)
    take(hub, 6)

    assert len(answers(hub)) == 3


def test_mails_of_one_transaction_are_answered_once(hub):
    """What a group commit takes in together is looked at one after the other."""
    events = [event for number in range(5) for event in hub.read("support", mail(number))]

    hub.receive("support", events)

    assert len(answers(hub)) == 1


def test_mail_that_comes_again_is_not_answered_again(hub):
    """A redelivery changes nothing, even when the window is over."""
    take(hub, 1)
    later(hub, days=8)

    take(hub, 1)

    assert len(answers(hub)) == 1


def test_who_heard_from_an_agent_is_not_told(hub):
    """A person's answer counts for the window as an automatic one does; one that a program gave does not."""
    now = hub._clock()  # noqa: SLF001  (the hub's own clock)
    conversation = take(hub, 1, at=now - timedelta(hours=2))
    hub.reply(conversation, "They left.", by="Kim", is_automatic=True)
    take(hub, 2, "In-Reply-To: <1@mail.example>", sender="bob@mail.example")
    hub.reply(conversation, "They left.", by="Kim")

    take(hub, 3, "In-Reply-To: <1@mail.example>")

    assert [one.text for one in answers(hub, conversation)] == ["They left."]
    later(hub, days=7)
    take(hub, 4, "In-Reply-To: <1@mail.example>")
    assert [one.text for one in answers(hub, conversation)] == ["We have it.", "They left."]


def test_each_channel_has_its_own_answer(url):
    """Who was told by one channel is told by another, and nothing by one that sends nothing or says nothing."""
    others = (
        ("sales", evolve(SETTINGS, automatic_answer=AutomaticAnswer(text="Hi!", subject="Got it"))),
        ("mute", evolve(SETTINGS, sending=None)),
        ("silent", evolve(SETTINGS, automatic_answer=None)),
    )
    with closing(shop(url, SETTINGS, *others)) as hub:
        for number, channel in enumerate(("support", "sales", "mute", "silent")):
            take(hub, number, channel=channel)

        told = {(one.channel, one.text, one.detail["subject"]) for one in answers(hub)}

    assert told == {("support", "We have it.", "Shoes"), ("sales", "Hi!", "Got it")}


@pytest.mark.parametrize("off", [timedelta(hours=1, seconds=1), -timedelta(hours=1, seconds=1), timedelta(days=900)])
def test_only_what_just_came_is_answered(hub, off):
    """What is loaded or read again years later is kept, and nobody is written to."""
    take(hub, 1, at=NOON - off)

    assert answers(hub) == []
    take(hub, 2, at=NOON - off / abs(off / timedelta(hours=1)))
    assert len(answers(hub)) == 1


@pytest.mark.parametrize("date", ["Tue, 30 Dec 2025 11:59:00 +0000", "Tue, 30 Dec 2014 11:59:00 -0000"])
def test_old_mail_that_is_loaded_now_is_not_answered(hub, date):
    """A file knows no other time of arrival than now; its Date says when it was written."""
    conversation = take(hub, 1, f"Date: {date}")

    assert hub.messages(conversation).items[0].detail["no_automatic_answer"] == "it was written days before it came"
    assert answers(hub) == []


@pytest.mark.parametrize("date", ["Thu, 01 Jan 2026 12:00:00 +0000", "Thu, 1 Jan 2099 00:00:00", "yesterday", "1 Jan"])
def test_date_of_today_or_none_is_answered(hub, date):
    """A date that says nothing stands in nobody's way."""
    take(hub, 1, f"Date: {date}")

    assert len(answers(hub)) == 1


def test_mail_in_review_is_not_answered(hub):
    """Whose sender is in doubt may have written nothing."""
    conversation = take(hub, 1, "From: ann@mail.example, bob@mail.example")

    assert hub.conversation(conversation).filing.status is ConversationStatus.REVIEW
    assert answers(hub) == []


def test_who_cannot_be_reached_is_not_written_to(hub):
    """A mailbox that bounced gets nothing until somebody lifts that."""
    claim = Claim("email", "ann@mail.example", Trust.CHANNEL)
    report = StatusChanged(external_id="s", status=DeliveryStatus.FAILED, at=NOON, messages=("m",), unreachable=claim)
    hub.receive("support", [report])

    take(hub, 1)

    assert answers(hub) == []
    hub.make_reachable(hub.policy.canonical(claim))
    take(hub, 2)
    assert len(answers(hub)) == 1


def test_participant_is_not_told(hub):
    """What is sent in a conversation goes to whom it is filed by, who has written nothing just now."""
    conversation = take(hub, 1, "Cc: bob@mail.example", at=NOON - timedelta(days=1))

    joined = take(hub, 2, "In-Reply-To: <1@mail.example>", sender="bob@mail.example")

    assert joined == conversation
    assert answers(hub) == []


def test_completed_conversation_stays_so_when_a_program_answers(hub):
    """An out-of-office answer to our answer is kept, reopens nothing, and is not answered."""
    conversation = take(hub, 1, at=NOON - timedelta(days=1))
    send(hub, conversation, "They left.", external_id="<ours@x>", status=ConversationStatus.COMPLETE)

    joined = take(hub, 2, "In-Reply-To: <ours@x>", "Auto-Submitted: auto-replied")

    assert joined == conversation
    assert hub.conversation(conversation).filing.status is ConversationStatus.COMPLETE
    assert answers(hub) == []


@pytest.mark.parametrize("kind", STORES[1:])
def test_processes_that_take_mails_in_at_once_send_one_answer(kind, tmp_path):
    """Hubs with connections of their own, each with another mail of the same people, write to each of them once."""
    url = fresh_store(kind, tmp_path)
    people = [f"p{number}@mail.example" for number in range(10)]
    with closing(shop(open_store(url))) as first, closing(shop(open_store(url))) as second:
        start = threading.Barrier(2)

        def work(hub, name):
            with Ingest(hub) as ingest:
                start.wait()
                for sender in people if name == "a" else reversed(people):
                    ingest.receive("support", hub.read("support", mail(f"{name}{sender}", sender=sender)))

        threads = [threading.Thread(target=work, args=one) for one in ((first, "a"), (second, "b"))]
        for one in threads:
            one.start()
        for one in threads:
            one.join()

        told = [first.conversation(one.conversation).filing.identifier.value for one in answers(first)]
        assert len(list(first.conversations())) == 20

    assert sorted(told) == sorted(people)
