"""Mail and reports as Postmark posts them.

https://postmarkapp.com/developer/webhooks/inbound-webhook (with the raw mail included in the JSON)
https://postmarkapp.com/developer/webhooks/webhooks-overview
"""

from collections.abc import Sequence
from typing import ClassVar

import msgspec
from attrs import field, frozen
from attrs.validators import min_len

from convsdk.channels.email.incoming.content import Found, RawMail, moment, name_of, read_json, report
from convsdk.channels.email.incoming.proof import has_password
from convsdk.core.events import DeliveryStatus
from convsdk.core.ports import Envelope, Request, Secret, is_secret
from convsdk.errors import ParseError

_DEAD = {"HardBounce", "BadEmailAddress", "SpamNotification"}
# What comes back in answer to a mail that did arrive, or may still.
_NO_FAILURES = {"Transient", "AutoResponder", "ChallengeVerification", "AddressChange", "Subscribe", "Unsubscribe"}


def _spelt(name: str) -> str:
    words = name.split("_")
    return "".join(word.upper() if word == "id" else word.capitalize() for word in words)


class _Document(msgspec.Struct, frozen=True, rename=_spelt):
    """What all of Postmark's webhooks post: each has some of this."""

    record_type: str = "Inbound"
    message_id: str = ""
    raw_email: str | None = None
    original_recipient: str = ""
    recipient: str = ""
    email: str = ""
    id: int | str = ""
    type: str = ""
    description: str | None = None
    details: str | None = None
    inactive: bool = False
    delivered_at: str | None = None
    bounced_at: str | None = None
    received_at: str | None = None


@frozen(kw_only=True)
class Postmark:
    """Settings of Postmark, which signs nothing: its URL has the `user` and the `password`, and has to be https."""

    by: ClassVar[str] = "postmark"

    password: Secret = field(validator=is_secret())
    user: str = field(default="postmark", validator=min_len(1))

    def wants(self, request: Request) -> Sequence[str]:  # noqa: ARG002  (every source is asked)
        return ()

    def is_authentic(self, request: Request) -> bool:
        """Say whether the request has the user and the password."""
        return has_password(request, user=self.user, password=self.password)

    def read(self, request: Request) -> Sequence[Found]:
        """Give the mail that came in, or what an event reports."""
        document = read_json(request.body, _Document)
        if document.record_type != "Inbound":
            return _reported(document, request)
        if document.raw_email is None:
            raise ParseError("the document has no RawEmail: have the raw email content included in the JSON payload")
        recipients = tuple(filter(None, (document.original_recipient,)))
        # Postmark does not say who the envelope's sender was.
        envelope = Envelope(sender=None, recipients=recipients)
        return (RawMail(raw=document.raw_email.encode("utf-8", "surrogatepass"), envelope=envelope),)


def _reported(document: _Document, request: Request) -> Sequence[Found]:
    kind, messages = document.record_type, name_of("", otherwise=document.message_id)
    words = document.details or document.description or document.type
    if kind == "Delivery":
        status, time, error, dead = DeliveryStatus.DELIVERED, document.delivered_at, "", ""
    elif kind == "Open":
        status, time, error, dead = DeliveryStatus.READ, document.received_at, "", ""
    elif kind == "SpamComplaint":
        status, time, error, dead = DeliveryStatus.DELIVERED, document.bounced_at, words, document.email
    elif kind == "Bounce" and document.type not in _NO_FAILURES:
        is_dead = document.inactive or document.type in _DEAD
        status, time, error = DeliveryStatus.FAILED, document.bounced_at, words
        dead = document.email if is_dead else ""
    else:
        return ()
    one = report(
        *("postmark", kind, str(document.id) or document.message_id, document.recipient or document.email, time or ""),
        status=status,
        at=moment(time, otherwise=request.received_at),
        messages=messages,
        error=error,
        unreachable=dead,
    )
    return (one,)
