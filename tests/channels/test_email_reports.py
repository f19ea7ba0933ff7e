from datetime import UTC, datetime

import pytest
from attrs import evolve

from convsdk.channels.email import EmailChannel
from convsdk.channels.email.settings import EmailSettings
from convsdk.core.events import DeliveryStatus, Noted, StatusChanged
from convsdk.core.model import Claim, Trust
from convsdk.core.ports import Envelope, Request

NOW = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
TOKEN = "abcdefghij234567"
OURS = f"<{TOKEN}@shop.example>"
REPLY_ADDRESS = f"in-7f3a+{TOKEN}@shop.example"


def report(*fields, kind="delivery-status", head=(f"Message-ID: {OURS}",), recipient="in-7f3a@shop.example"):
    """Give the request of a report with those fields about a recipient, and the header of the mail it is about."""
    lines = (
        "From: Mail Delivery System <MAILER-DAEMON@mx.mail.example>",
        "To: help@shop.example",
        "Message-ID: <bounce@mx.mail.example>",
        f"Content-Type: multipart/report; report-type={kind}; boundary=r",
        "",
        "--r",
        "",
        "See below.",
        "--r",
        f"Content-Type: message/{kind}",
        "",
        "Reporting-MTA: dns; mx.mail.example",
        "",
        *fields,
        "--r",
        "Content-Type: text/rfc822-headers",
        "",
        *head,
        "--r--",
        "",
    )
    body = "\r\n".join(lines).encode()
    return Request(received_at=NOW, body=body, envelope=Envelope(sender="", recipients=(recipient,)))


def parse(request):
    """Give the events of a mail."""
    settings = EmailSettings(address="in-7f3a@shop.example", own=("help@shop.example",))
    return EmailChannel("support", settings).parse(request)


def failure(status, *more):
    """Give the fields of a delivery that failed with that status."""
    return ("Final-Recipient: rfc822; ann@mail.example", "Action: failed", f"Status: {status}", *more)


def test_bounce_fails_its_message():
    """A bounce is a note of its own, and says what became of ours, in the words of who refused it."""
    mail, status = parse(report(*failure("5.1.1", "Diagnostic-Code: smtp; 550 5.1.1 No such user")))

    assert isinstance(mail, Noted)
    assert (mail.external_id, mail.detail["class"]) == ("<bounce@mx.mail.example>", "bounce")
    assert status == StatusChanged(
        external_id="<bounce@mx.mail.example>/status",
        status=DeliveryStatus.FAILED,
        at=NOW,
        messages=(OURS,),
        error="5.1.1 550 5.1.1 No such user",
        unreachable=Claim("email", "ann@mail.example", Trust.ASSERTED),
    )


def test_bounce_of_international_mail_fails_its_message():
    """A report on mail that went by SMTPUTF8 (RFC 6533) has types of its own, and addresses in UTF-8."""
    told = report("Final-Recipient: utf-8; änn@mail.example", "Action: failed", "Status: 5.1.1")
    body = told.body.replace(b"message/delivery", b"message/global-delivery").replace(
        b"text/rfc822-headers", b"message/global-headers"
    )

    _, status = parse(evolve(told, body=body))

    assert (status.status, status.messages) == (DeliveryStatus.FAILED, (OURS,))
    assert status.unreachable == Claim("email", "änn@mail.example", Trust.ASSERTED)


@pytest.mark.parametrize(
    ("status", "diagnostic", "is_gone"),
    [
        ("5.1.1", "550 5.1.1 no such user", True),
        ("5.1.2", "", True),
        ("5.1.3", "", True),
        ("5.1.6", "", True),
        ("5.1.10", "556 5.1.10 null MX", True),
        ("5.2.1", "550 5.2.1 disabled", True),
        ("5.0.0", "550 5.1.1 no such user", True),
        ("5.0.0", "550 no such user", False),
        ("5.1.0", "", False),
        ("5.1.8", "550 5.1.8 your domain", False),
        ("5.2.2", "552 5.2.2 full", False),
        ("5.2.3", "", False),
        ("5.3.1", "", False),
        ("5.4.4", "", False),
        ("5.7.1", "550 5.7.1 spam; see 5.1.1.1", False),
        ("4.1.1", "", False),
        ("nonsense", "", False),
    ],
)
def test_address_is_given_up_only_where_it_is_gone(status, diagnostic, is_gone):
    """What is said about mail, sender or a state that may pass says nothing about the address (RFC 3463)."""
    _, found = parse(report(*failure(status, f"Diagnostic-Code: smtp; {diagnostic}")))

    assert found.status is DeliveryStatus.FAILED
    assert (found.unreachable is not None) == is_gone


def test_address_that_was_written_to_is_given_up():
    """Where a server has passed the mail on, the report names both addresses: ours is the original one."""
    _, found = parse(report("Original-Recipient: rfc822; Ann@old.example", *failure("5.1.1")))

    assert found.unreachable.value == "Ann@old.example"


@pytest.mark.parametrize("action", ["delayed", "relayed", "expanded", "odd", ""])
def test_report_of_something_else_moves_nothing(action):
    """A delay is not the end, and a mail that was passed on is no more than sent."""
    assert len(parse(report("Final-Recipient: rfc822; ann@mail.example", f"Action: {action}", "Status: 4.4.1"))) == 1


def test_delivery_is_reported():
    """A report of success says delivered."""
    _, found = parse(report("Final-Recipient: rfc822; ann@mail.example", "Action: delivered", "Status: 2.1.5"))

    assert (found.status, found.error, found.unreachable) == (DeliveryStatus.DELIVERED, "", None)


def test_failure_counts_more_than_a_delivery():
    """Of several recipients, the one that was not reached decides."""
    delivered = ("Final-Recipient: rfc822; b@mail.example", "Action: delivered", "Status: 2.1.5", "")

    _, found = parse(report(*delivered, *failure("5.1.1")))

    assert (found.status, found.unreachable.value) == (DeliveryStatus.FAILED, "ann@mail.example")


def test_first_of_several_failures_is_told():
    """A list or a forwarder can have several recipients behind our one: the first that failed is named."""
    other = ("Final-Recipient: rfc822; b@mail.example", "Action: failed", "Status: 5.2.2")

    _, found = parse(report(*failure("5.1.1"), "", *other))

    assert found.error == "5.1.1"


@pytest.mark.parametrize(
    ("disposition", "statuses"),
    [
        ("manual-action/MDN-sent-manually; displayed", [DeliveryStatus.READ]),
        ("automatic-action/MDN-sent-automatically; Displayed/error", [DeliveryStatus.READ]),
        ("manual-action/MDN-sent-manually; deleted", []),
    ],
)
def test_receipt_says_read_where_it_was_displayed(disposition, statuses):
    """A mail that was deleted unread was not read (RFC 8098)."""
    fields = (f"Original-Message-ID: {OURS}", f"Disposition: {disposition}")

    _, *found = parse(report(*fields, kind="disposition-notification", head=()))

    assert [(one.status, one.messages) for one in found] == [(status, (OURS,)) for status in statuses]


@pytest.mark.parametrize(
    ("fields", "address"),
    [
        (("Feedback-Type: abuse", "Original-Rcpt-To: <Ann@mail.example>"), "Ann@mail.example"),
        (("Feedback-Type: Abuse",), None),
    ],
)
def test_complaint_is_of_a_mail_that_arrived(fields, address):
    """Who complains has got the mail, and gets no more of them, where the report says who it is (RFC 5965)."""
    _, found = parse(report(*fields, kind="feedback-report"))

    assert (found.status, found.messages, found.error) == (DeliveryStatus.DELIVERED, (OURS,), "complaint: abuse")
    assert found.unreachable == (address and Claim("email", address, Trust.ASSERTED))


@pytest.mark.parametrize("given", [{"kind": "not-spam"}, {"head": ("Message-ID: <other@mail.example>",)}])
def test_other_feedback_moves_nothing(given):
    """That a mail is no spam after all is no complaint, and one about somebody else's mail is not ours."""
    kind = given.pop("kind", "abuse")
    fields = (f"Feedback-Type: {kind}", "Original-Rcpt-To: ann@mail.example")

    assert len(parse(report(*fields, kind="feedback-report", **given))) == 1


@pytest.mark.parametrize(
    "given",
    [
        {"head": ("Message-ID: <0102@eu-west-1.amazonses.com>", f"Reply-To: Shop <{REPLY_ADDRESS}>")},
        {"head": (), "recipient": REPLY_ADDRESS.upper()},
    ],
)
def test_message_is_found_by_its_reply_address(given):
    """Where a provider has replaced the Message-ID, or no header came back, the address for answers names it."""
    _, found = parse(report(*failure("5.1.1"), **given))

    assert found.messages == (OURS,)


def test_report_on_a_mail_of_somebody_else_says_nothing():
    """A bounce of a mail that this channel has not sent moves no message."""
    assert len(parse(report(*failure("5.1.1"), head=("Message-ID: <other@mail.example>",)))) == 1


def test_answer_that_quotes_a_report_is_none():
    """Only a report is one: fields in the text of a person's mail say nothing."""
    request = report(*failure("5.1.1"))
    body = request.body.replace(b"multipart/report", b"multipart/mixed").replace(b"MAILER-DAEMON", b"ann")

    (mail,) = parse(Request(received_at=NOW, body=body))

    assert mail.detail["class"] == "human"
