"""Reads the forms that Twilio posts: messages that came in, and reports on those that went out.

Source: https://www.twilio.com/docs/messaging/guides/webhook-request and .../guides/track-outbound-message-status.
"""

import re
from collections.abc import Iterator, Mapping
from datetime import datetime

from convsdk.core.events import ConsentSignalled, DeliveryStatus, Event, MessageReceived, StatusChanged
from convsdk.core.model import Attachment, Claim, ConsentSignal, IdentityHint, Trust, traits_of
from convsdk.core.payloads import read_form, storable
from convsdk.errors import ParseError

ADDRESS = "twilio_address"
"""The kind of identifier of a sender without a number (a short code, a WhatsApp user id), scoped by the account."""

_MOST_FILES = 1000
_SID = re.compile(r"(SM|MM)[0-9a-f]{32}")
_ADDRESS = re.compile(r"[ -~]{1,200}")
_NUMBER = re.compile(r"(?:(?:whatsapp|rcs):)?(\+[1-9][0-9]{6,14})")
_STATUSES = {
    **dict.fromkeys(("accepted", "scheduled", "queued", "sending"), DeliveryStatus.QUEUED),
    "sent": DeliveryStatus.SENT,
    "delivered": DeliveryStatus.DELIVERED,
    "read": DeliveryStatus.READ,
    **dict.fromkeys(("undelivered", "failed", "canceled"), DeliveryStatus.FAILED),
}
# What Twilio itself acts upon, where the account has not set words of its own: then it says so in OptOutType. YES is
# left out, which answers many a question.
_WORDS = {
    **dict.fromkeys(("stop", "stopall", "unsubscribe", "cancel", "end", "quit", "revoke", "optout"), "STOP"),
    **dict.fromkeys(("start", "unstop"), "START"),
}
FAILURES = {
    "30003": "the handset cannot be reached",
    "30004": "the message is blocked",
    "30005": "the number is unknown",
    "30006": "a landline, or a carrier that cannot be reached",
    "30007": "filtered by the carrier",
    "30008": "the carrier gives no reason",
    "21610": "they have said STOP",
    "63016": "outside WhatsApp's window: send a template",
}
"""What the codes of failed messages mean; more are at https://www.twilio.com/docs/api/errors."""


def read_events(body: bytes, *, purposes: tuple[str, ...], at: datetime) -> tuple[Event, ...]:
    """Give the events in a form. An opt-out word withdraws from `purposes`; `at`, since Twilio names no time."""
    form = {name: storable(value) for name, value in reversed(read_form(body))}
    sid = form.get("MessageSid", "")
    if not _SID.fullmatch(sid):
        raise ParseError("a form of Twilio without a usable MessageSid: point the message webhook here, no other")
    if status := form.get("MessageStatus"):
        return (_status(sid, status, form, at),)
    return tuple(_message(sid, form, purposes, at))


def _status(sid: str, status: str, form: Mapping[str, str], at: datetime) -> Event:
    if status not in _STATUSES:
        raise ParseError(f"message {sid} has a status that is not known here")
    code = form.get("ErrorCode", "")[:20]
    error = f"{code}: {FAILURES.get(code, 'see the errors of Twilio')}" if code not in {"", "0"} else ""
    return StatusChanged(external_id=f"{sid}/{status}", status=_STATUSES[status], at=at, messages=(sid,), error=error)


def _message(sid: str, form: Mapping[str, str], purposes: tuple[str, ...], at: datetime) -> Iterator[Event]:
    sender, recipient = form.get("From", ""), form.get("To", "")
    if not _ADDRESS.fullmatch(sender) or not _ADDRESS.fullmatch(recipient):
        raise ParseError(f"message {sid} names no sender or recipient")
    number = _NUMBER.fullmatch(sender)
    claim = (
        Claim("phone", number[1], Trust.CHANNEL)
        if number
        else Claim(ADDRESS, sender, Trust.CHANNEL, scope=form.get("AccountSid", "")[:64])
    )
    block, _, choice = form.get("ButtonPayload", "").partition(":")
    answered = form.get("OriginalRepliedMessageSid", "")
    yield MessageReceived(
        external_id=sid,
        hint=IdentityHint(
            at=at,
            identifiers=(claim,),
            traits=traits_of(Trust.CHANNEL, name=form.get("ProfileName", "")),
            how="WhatsApp message" if sender.startswith("whatsapp:") else "SMS",
        ),
        at=at,
        text=form.get("Body", ""),
        # The number that was written to answers, and a WhatsApp address is another thread than the same phone's SMS.
        thread=f"{recipient}/{sender}",
        references=(answered,) if _SID.fullmatch(answered) else (),
        attachments=tuple(_attachments(form)),
        block=block,
        choice=choice,
    )
    words = form.get("Body", "")
    kind = form.get("OptOutType", "") or _WORDS.get(words.strip().lower(), "")
    for purpose in purposes if kind in {"STOP", "START"} else ():
        signal = ConsentSignal(
            claim=claim, purpose=purpose, granted=kind == "START", withdrawn=kind == "STOP", wording=words[:200]
        )
        yield ConsentSignalled(external_id=f"{sid}/{purpose}", at=at, signal=signal)


def _attachments(form: Mapping[str, str]) -> Iterator[Attachment]:
    for number in range(_MOST_FILES):
        if not (url := form.get(f"MediaUrl{number}")):
            return
        media_type = form.get(f"MediaContentType{number}") or "application/octet-stream"
        yield Attachment(name=f"{media_type.partition('/')[0]}-{number + 1}", media_type=media_type, url=url)
