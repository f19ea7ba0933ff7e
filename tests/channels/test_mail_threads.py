"""What becomes of mails together: which conversation each joins, which is the same, and what stands in review."""

from datetime import timedelta
from textwrap import fill

import pytest
from outgoing import send

from convsdk.channels.email import EmailChannel
from convsdk.channels.email.settings import EmailSettings
from convsdk.core.inbox import ConversationStatus
from convsdk.core.model import Direction, Identifier, Outcome, Trust
from convsdk.errors import Conflict
from convsdk.hub import Hub
from convsdk.testing import NOON, FakeClock, request

MAILBOX = EmailSettings(address="in-7f3a@shop.example", own=("sales@shop.example",), authserv_id="mx.shop.example")
OURS = MAILBOX.message_id("abcdefghij234567")
ASKED = "Dear Ann,\n\nthe green shoes are on their way to you\nsince Monday. Do you need anything else from us?\n"


def hub():
    """Give a hub in memory with a mailbox."""
    return Hub("memory:", channels=[EmailChannel("mail", MAILBOX)], clock=FakeClock())


def mail(number, sender, *fields, body="Hello.", is_attested=True):
    """Give a mail of `sender`, whose domain vouches for it."""
    domain = sender.rpartition("@")[2]
    results = [f"Authentication-Results: mx.shop.example; dmarc=pass header.from={domain}"] if is_attested else []
    head = (*results, f"From: {sender}", f"Message-ID: <{number}@x>", *fields)
    return "\r\n".join((*head, "", body))


def take(inbox, *mails):
    """Let mails come in one after the other, and give what became of the last."""
    for one in mails:
        received, *_ = inbox.handle("mail", request(one)).received
    return received


def answer(inbox, conversation, *, text=ASKED, status=ConversationStatus.OPEN):
    """Let us have answered in a conversation, by the mail `OURS`, which leaves it in `status`."""
    send(inbox, conversation, text, external_id=OURS, status=status)


def answered(inbox, **more):
    """Give a conversation of Ann's in which we answered her."""
    opened = take(inbox, mail(1, "ann@mail.example", "Cc: ben@work.example")).conversation
    answer(inbox, opened, **more)
    return opened


def newest(inbox, conversation):
    """Give the newest message of a conversation."""
    return inbox.messages(conversation).items[0]


def status(inbox, conversation):
    """Give whether somebody should look at a conversation."""
    return inbox.conversation(conversation).filing.status


# -- which conversation


def test_mail_that_answers_nothing_opens_a_conversation():
    """Neither its sender nor its subject makes two mails one conversation."""
    inbox = hub()

    first, second = (take(inbox, mail(n, "ann@mail.example", "Subject: Shoes")).conversation for n in (1, 2))

    assert first != second


def test_answer_joins_by_the_nearest_reference_that_is_known():
    """In-Reply-To goes before References, and those are read from the last."""
    inbox = hub()
    first = take(inbox, mail(1, "ann@mail.example")).conversation
    second = take(inbox, mail(2, "ann@mail.example")).conversation

    third = take(inbox, mail(3, "ann@mail.example", "In-Reply-To: <9@x>", "References: <2@x> <1@x>")).conversation
    fourth = take(inbox, mail(4, "ann@mail.example", "In-Reply-To: <2@x>", "References: <1@x>")).conversation

    assert (third, fourth) == (first, second)


def test_colleague_in_copy_joins_as_a_person_of_their_own():
    """Who a mail was also written to goes on in its conversation, which stays filed by who began it."""
    inbox = hub()
    opened = answered(inbox)

    received = take(inbox, mail(2, "ben@work.example", f"In-Reply-To: {OURS}"))

    filing = inbox.conversation(opened).filing
    assert received.conversation == opened
    assert filing.identifier == Identifier("email", "", "ann@mail.example")
    assert inbox.attribution("mail/<2@x>") == inbox.find("email", "ben@work.example").id
    assert inbox.conversation(opened).contact == inbox.find("email", "ann@mail.example").id


def test_participant_brings_others_in():
    """A participant who takes somebody into a copy makes them one, and none is pushed out."""
    inbox = hub()
    opened = answered(inbox)

    take(inbox, mail(2, "ben@work.example", f"In-Reply-To: {OURS}", "Cc: cat@work.example, SALES@shop.example"))
    received = take(inbox, mail(3, "cat@work.example", "In-Reply-To: <2@x>"))

    named = [one.value for one in inbox.conversation(opened).filing.participants]
    assert received.conversation == opened
    assert named == ["ben@work.example", "cat@work.example"]


def test_stranger_with_a_leaked_reference_gets_a_conversation_that_names_the_other():
    """To know a Message-ID, or a reply address, opens nobody's conversation; staff see what it could belong to."""
    inbox = hub()
    opened = answered(inbox)
    token = MAILBOX.reply_address("abcdefghij234567")

    received = take(inbox, mail(2, "evil@x.test", f"To: {token}", f"In-Reply-To: {OURS}", "References: <1@x>"))

    assert received.conversation != opened
    assert newest(inbox, received.conversation).detail["related"] == [opened]
    assert [one.value for one in inbox.conversation(opened).filing.participants] == ["ben@work.example"]


@pytest.mark.parametrize("claimed", ["ann@mail.example", "ben@work.example"])
def test_claim_to_be_a_participant_is_not_let_into_an_attested_conversation(claimed):
    """A forged From with a leaked Message-ID gets a conversation of its own, and brings nobody in."""
    inbox = hub()
    opened = answered(inbox)

    forged = mail(2, claimed, f"In-Reply-To: {OURS}", "Cc: evil@x.test", is_attested=False)
    received = take(inbox, forged)
    follow = take(inbox, mail(3, "evil@x.test", f"In-Reply-To: {OURS}"))

    assert opened not in {received.conversation, follow.conversation}
    assert newest(inbox, received.conversation).detail["related"] == [opened]


def test_participants_of_a_claimed_conversation_go_on_in_it():
    """Where no mail server vouches for anybody, answers still find their conversation; so do attested ones."""
    inbox = hub()
    opened = take(inbox, mail(1, "ann@mail.example", "Cc: ben@work.example", is_attested=False)).conversation
    answer(inbox, opened)

    by_ann = take(inbox, mail(2, "ann@mail.example", f"In-Reply-To: {OURS}", is_attested=False))
    by_ben = take(inbox, mail(3, "ben@work.example", f"In-Reply-To: {OURS}", is_attested=False))
    attested = take(inbox, mail(4, "ann@mail.example", f"In-Reply-To: {OURS}"))

    assert [one.conversation for one in (by_ann, by_ben, attested)] == [opened] * 3
    assert not inbox.conversation(opened).filing.is_verified


def test_participant_reads_no_more_than_before():
    """To write in a conversation opens it to nobody: what Ben may read is what is filed under him."""
    inbox = hub()
    opened = answered(inbox)

    take(inbox, mail(2, "ben@work.example", f"In-Reply-To: {OURS}"))

    assert inbox.access("mail/<2@x>").readable == ()
    assert inbox.access("mail/<1@x>").readable == (opened,)


def test_answer_to_a_mail_of_ours_that_nobody_is_named_in_joins_only_for_its_readers():
    """A colleague's mail names no customer: only those it was written to go on in its conversation."""
    inbox = hub()
    opened = take(inbox, mail(1, "sales@shop.example", "To: ann@mail.example")).conversation

    stranger = take(inbox, mail(2, "evil@x.test", "In-Reply-To: <1@x>"))
    reader = take(inbox, mail(3, "ann@mail.example", "In-Reply-To: <1@x>"))

    assert (stranger.conversation == opened, reader.conversation == opened) == (False, True)


def test_hundreds_of_participants_are_bounded():
    """No conversation grows without end, and the first participants stay."""
    inbox = hub()
    first = take(inbox, mail(0, "ann@mail.example", "Cc: " + ", ".join(f"p{n}@x.test" for n in range(100))))

    for turn in range(1, 7):
        copies = ", ".join(f"p{turn * 100 + n}@x.test" for n in range(100))
        take(inbox, mail(turn, "ann@mail.example", "In-Reply-To: <0@x>", f"Cc: {copies}"))

    named = inbox.conversation(first.conversation).filing.participants
    assert len(named) == 500
    assert named[0].value == "p0@x.test"


# -- which are the same


def test_mail_that_comes_again_is_kept_once():
    """The same mail by another way, with other trace headers, changes nothing."""
    inbox = hub()
    first = mail(1, "ann@mail.example")

    take(inbox, first)
    again = take(inbox, f"Received: by mx2\r\n{first}")

    assert again.decision.outcome is Outcome.DUPLICATE
    assert len(inbox.conversations()) == 1


@pytest.mark.parametrize("second", [mail(1, "evil@x.test"), mail(1, "ann@mail.example", body="No!")])
@pytest.mark.parametrize("is_batch", [False, True])
def test_another_mail_with_the_same_id_is_kept_and_flagged(second, is_batch):
    """Who sends a Message-ID first hides no mail that comes later; each of the two is kept once."""
    inbox = hub()
    mails = [mail(1, "ann@mail.example"), second, second, mail(1, "ann@mail.example")]
    events = [event for one in mails for event in inbox.channel("mail").parse(request(one))]

    batches = [events] if is_batch else [[one] for one in events]
    received = [one for batch in batches for one in inbox.receive("mail", batch)]

    kept = [one for each in inbox.conversations() for one in inbox.messages(each.id)]
    assert [one.decision.outcome is Outcome.DUPLICATE for one in received] == [False, False, True, True]
    assert sorted(one.external_id.partition("#")[0] for one in kept) == ["<1@x>", "<1@x>"]
    assert [one.detail.get("same_id_as") for one in kept] in [["<1@x>", None], [None, "<1@x>"]]


@pytest.mark.parametrize("is_batch", [False, True])
def test_report_with_the_id_of_a_mail_hides_no_mail(is_batch):
    """Who sends a report under a Message-ID first hides no person's mail, which is kept once however often it comes."""
    inbox = hub()
    report = mail(1, "evil@x.test", "Content-Type: multipart/report; report-type=delivery-status; boundary=b")
    mails = [report, *[mail(1, "ann@mail.example")] * 2]
    events = [event for one in mails for event in inbox.channel("mail").parse(request(one))]

    batches = [events] if is_batch else [[one] for one in events]
    received = [one for batch in batches for one in inbox.receive("mail", batch)]

    kept = [one.text for each in inbox.conversations() for one in inbox.messages(each.id)]
    assert [one.decision.outcome is Outcome.DUPLICATE for one in received] == [False, False, True]
    assert kept.count("Hello.") == 2


def test_own_mail_that_comes_back_is_no_message():
    """What we sent and what a list sends us back of it are one mail."""
    inbox = hub()
    opened = answered(inbox)
    loop = f"From: Ann via List <list@lists.example>\r\nMessage-ID: {OURS}\r\n\r\n{ASKED}\r\n-- \r\nlist footer\r\n"

    received = take(inbox, loop)

    assert (received.decision.outcome, received.conversation) == (Outcome.DUPLICATE, opened)
    assert len(inbox.messages(opened).items) == 2
    assert len(inbox.conversations()) == 1


# -- reports


def report(kind, group, *, about=OURS, results=""):
    """Give a report on a mail of ours."""
    return (
        f"{results}Return-Path: <>\r\nFrom: MAILER-DAEMON@mail.example\r\nMessage-ID: <report@x>\r\nSubject: News\r\n"
        f"Content-Type: multipart/report; report-type={kind}; boundary=b\r\n\r\n--b\r\n\r\nLook.\r\n"
        f"--b\r\nContent-Type: message/{kind}\r\n\r\n{group}\r\n"
        f"--b\r\nContent-Type: text/rfc822-headers\r\n\r\nMessage-ID: {about}\r\n--b--\r\n"
    )


BOUNCE = report("delivery-status", "Final-Recipient: rfc822; ann@mail.example\r\nAction: failed\r\nStatus: 5.1.1\r\n")
REPORTS = [
    (BOUNCE, "not delivered to ann@mail.example: (5.1.1)"),
    (
        report(
            "delivery-status", "Final-Recipient: rfc822; a@x\r\nAction: delayed\r\nDiagnostic-Code: smtp; 451 wait\r\n"
        ),
        "still on its way to a@x: 451 wait",
    ),
    (
        report(
            "disposition-notification",
            "Final-Recipient: rfc822;a@x\r\nDisposition: manual-action/MDN-sent-manually; displayed\r\n",
        ),
        "displayed by a@x",
    ),
    (
        report("feedback-report", "Feedback-Type: abuse\r\nOriginal-Rcpt-To: <a@x>\r\n"),
        "<a@x> complained about it: abuse",
    ),
]


@pytest.mark.parametrize(("raw", "said"), REPORTS)
def test_report_is_a_line_of_the_conversation_of_its_mail(raw, said):
    """It says what happened, opens and reopens nothing, and names nobody."""
    inbox = hub()
    opened = answered(inbox, status=ConversationStatus.COMPLETE)

    received = take(inbox, raw)

    line = newest(inbox, opened)
    assert (received.conversation, received.decision.contact) == (opened, None)
    assert (line.direction, line.text, line.detail["text"]) == (Direction.LINE, said, "Look.")
    assert (status(inbox, opened), inbox.conversation(opened).filing.unread) == (ConversationStatus.COMPLETE, 0)
    assert len(inbox.contacts().items) == 1


def unreachable(inbox, *names):
    """Give which of those at mail.example are given up."""
    return [one for one in names if inbox.unreachable(Identifier("email", "", f"{one}@mail.example"))]


@pytest.mark.parametrize(
    ("kind", "group"),
    [
        ("delivery-status", "Final-Recipient: rfc822; {}@mail.example\r\nAction: failed\r\nStatus: 5.1.1\r\n"),
        ("feedback-report", "Feedback-Type: abuse\r\nOriginal-Rcpt-To: <{}@mail.example>\r\n"),
    ],
)
def test_report_stops_mail_to_whom_our_mail_went_to_alone(kind, group):
    """Whoever has a mail of ours can write a report on it: it stops mail to them, and to nobody else."""
    inbox = hub()
    answered(inbox)
    take(inbox, mail(7, "bob@mail.example"))

    for number, name in enumerate(("bob", "ben", "eve")):
        forged = report(kind, group.format(name)).replace("<report@x>", f"<report{number}@x>")
        take(inbox, forged)
    assert unreachable(inbox, "ann", "bob", "ben", "eve") == []
    take(inbox, report(kind, group.format("Ann")))

    assert unreachable(inbox, "ann", "bob", "ben", "eve") == ["ann"]


@pytest.mark.parametrize("about", ["<unknown@x>", "<1@x>"])
def test_report_about_no_mail_of_ours_is_kept_and_nobodys_work(about):
    """It stands in a conversation that is complete from the start; a customer's Message-ID lets it into no other."""
    inbox = hub()
    opened = answered(inbox)

    received = take(inbox, BOUNCE.replace(OURS, about))

    assert received.conversation != opened
    assert status(inbox, received.conversation) is ConversationStatus.COMPLETE
    assert newest(inbox, received.conversation).detail["report"][0]["status"] == "5.1.1"
    assert newest(inbox, received.conversation).detail["subject"] == "News"


def test_report_in_a_forged_name_is_reviewed():
    """A report whose From is disowned by its domain is no news of our mail."""
    inbox = hub()
    opened = answered(inbox)

    received = take(inbox, "Authentication-Results: mx.shop.example; dmarc=fail\r\n" + BOUNCE)

    assert received.conversation != opened
    assert status(inbox, received.conversation) is ConversationStatus.REVIEW


@pytest.mark.parametrize("sign", ["Auto-Submitted: auto-replied", "Precedence: bulk", "X-Autoreply: yes"])
def test_program_reopens_no_conversation(sign):
    """An automatic answer is kept in the conversation that it answers, which stays complete."""
    inbox = hub()
    opened = answered(inbox, status=ConversationStatus.COMPLETE)

    # A bulk mark says nothing on an answer to a mail of ours: it is on one to a mail of Ann's.
    reference = "<1@x>" if "bulk" in sign else OURS
    received = take(inbox, mail(2, "ann@mail.example", sign, f"In-Reply-To: {reference}"))

    assert received.conversation == opened
    assert status(inbox, opened) is ConversationStatus.COMPLETE


def test_person_reopens_a_conversation_whatever_exchange_put_on_the_mail():
    """X-Auto-Response-Suppress is on what people write, too."""
    inbox = hub()
    opened = answered(inbox, status=ConversationStatus.COMPLETE)

    take(inbox, mail(2, "ann@mail.example", "X-Auto-Response-Suppress: All", f"In-Reply-To: {OURS}"))

    assert status(inbox, opened) is ConversationStatus.OPEN


# -- review


DOUBTS = [
    "From: ann@mail.example\r\nFrom: evil@x.test\r\n",
    "From: ann@mail.example, evil@x.test\r\n",
    "Subject: Nobody\r\n",
    "Authentication-Results: mx.shop.example; dmarc=fail\r\nFrom: ann@mail.example\r\n",
]


@pytest.mark.parametrize("fields", DOUBTS)
def test_mail_in_doubt_stands_in_the_queue(fields):
    """It is kept, names nobody, says why, and is what the queue gives."""
    inbox = hub()
    opened = answered(inbox)

    received = take(inbox, f"{fields}Message-ID: <2@x>\r\nIn-Reply-To: {OURS}\r\n\r\nPay me")

    assert [one.id for one in inbox.review_queue()] == [received.conversation] != [opened]
    assert (received.decision.contact, inbox.conversation(received.conversation).contact) == (None, None)
    assert newest(inbox, received.conversation).detail["review"]
    assert newest(inbox, received.conversation).detail["related"] == [opened]


def test_nothing_joins_a_conversation_in_review():
    """Neither an attested answer nor another mail in doubt is mixed with what nobody has looked at."""
    inbox = hub()
    doubt = take(inbox, "From: a@x.test, b@x.test\r\nMessage-ID: <1@x>\r\n\r\nHi").conversation

    attested = take(inbox, mail(2, "evil@x.test", "In-Reply-To: <1@x>")).conversation
    another = take(inbox, "From: a@x.test, b@x.test\r\nMessage-ID: <3@x>\r\nIn-Reply-To: <1@x>\r\n\r\nHi").conversation

    assert len({doubt, attested, another}) == 3
    assert {one.id for one in inbox.review_queue()} == {doubt, another}


def test_observers_and_automations_are_told_of_the_doubt():
    """What tells of a mail in doubt says so, and no automation hears of it."""
    inbox = hub()

    take(inbox, DOUBTS[0] + "Message-ID: <2@x>\r\n\r\nPay me")

    told = inbox.store.notices(inbox.workspace, since=0, limit=9)
    assert {one.type: one.may_automate for one in told} == {"conversation.opened": False, "message.received": False}


def test_staff_say_whose_a_mail_in_doubt_is():
    """It is filed under the address that they name, as their entry, and is in the inbox from then on."""
    inbox = hub()
    doubt = take(inbox, DOUBTS[1] + "Message-ID: <2@x>\r\n\r\nPay me").conversation

    reviewed = inbox.review(doubt, sender="Ann@Mail.example", by="kim")

    assert (reviewed.filing.status, reviewed.filing.trust) == (ConversationStatus.OPEN, Trust.AGENT)
    assert reviewed.contact == inbox.find("email", "ann@mail.example").id
    assert newest(inbox, doubt).text == "attributed to ann@mail.example by kim"
    assert inbox.review_queue() == []


def test_staff_dismiss_a_mail_in_doubt():
    """It stays on record under nobody, and complete."""
    inbox = hub()
    doubt = take(inbox, DOUBTS[1] + "Message-ID: <2@x>\r\n\r\nPay me").conversation

    reviewed = inbox.review(doubt, sender="", by="kim")

    assert (reviewed.filing.status, reviewed.contact) == (ConversationStatus.COMPLETE, None)
    assert inbox.contacts().items == ()
    assert inbox.review_queue() == []


def test_review_is_decided_once():
    """Who comes second is told so; an address that is none decides nothing."""
    inbox = hub()
    doubt = take(inbox, DOUBTS[1] + "Message-ID: <2@x>\r\n\r\nPay me").conversation

    with pytest.raises(ValueError, match="no usable e-mail address"):
        inbox.review(doubt, sender="sales", by="kim")
    inbox.review(doubt, sender="", by="kim")

    with pytest.raises(Conflict, match="is in no review"):
        inbox.review(doubt, sender="ann@mail.example", by="lee")


def test_queue_comes_in_pages():
    """Each mail in doubt stands once in the pages, the newest first."""
    inbox = hub()
    opened = []
    for number in range(5):
        at = NOON + timedelta(minutes=number)
        raw = f"{DOUBTS[1]}Message-ID: <{number}@x>\r\n\r\nHi"
        opened.append(inbox.handle("mail", request(raw, received_at=at)).received[0].conversation)

    first = inbox.review_queue(limit=3)
    second = inbox.review_queue(before=first[-1].filing.opened, limit=3)

    assert [one.id for one in (*first, *second)] == opened[::-1]


# -- what an answer repeats


@pytest.mark.parametrize(
    "body",
    [
        f"No, thanks.\n\n{ASKED}",
        f"No, thanks.\n\nAm 05-01 schr=eb Shop <in-7f3a@shop.example>\n{ASKED}",
        f"Shop 2026-01-05 10:00:\n\n{ASKED}\nNo, thanks.\n",
        f"No, thanks.\n\n2026 in-7f3a@shop.example\n{fill(ASKED, 40)}\n",
        "No, thanks.\n\nOn 5 Jan 2026 <in-7f3a@shop.example>\nDo you need anything else from us?\n",
    ],
)
def test_what_an_answer_repeats_of_our_text_is_quoted(body):
    """Without a mark, with lines broken anew, and below or above a mangled introduction, our own words are known."""
    inbox = hub()
    opened = answered(inbox)

    take(inbox, mail(2, "ann@mail.example", f"In-Reply-To: {OURS}", body=body))

    kept = newest(inbox, opened)
    assert kept.text == "No, thanks."
    assert "".join(text for _, text in kept.detail["sections"]) == body


@pytest.mark.parametrize(
    "body",
    [
        ASKED,
        "Yes:\ndo you need anything else from us?\n",
        "What do you mean by this?\nthe green shoes are on their way to you\nI ordered red ones.\n",
        "No.\n",
    ],
)
def test_words_that_only_happen_to_be_ours_stay(body):
    """Nothing is taken away where nothing would be left, between two answers, or where it is some words only."""
    inbox = hub()
    opened = answered(inbox)

    take(inbox, mail(2, "ann@mail.example", f"In-Reply-To: {OURS}", body=body))

    assert newest(inbox, opened).text == body


def test_only_the_text_of_a_mail_of_ours_is_looked_for():
    """What a customer repeats of their own mail stays."""
    inbox = hub()
    opened = take(inbox, mail(1, "ann@mail.example", body=ASKED)).conversation

    take(inbox, mail(2, "ann@mail.example", "In-Reply-To: <1@x>", body=f"Well?\n\n{ASKED}"))

    assert newest(inbox, opened).text == f"Well?\n\n{ASKED}"
