"""Mail and reports as Mailgun posts them.

https://documentation.mailgun.com/docs/mailgun/user-manual/receive-forward-store (a route to an URL that ends in mime)
https://documentation.mailgun.com/docs/mailgun/user-manual/webhooks/securing-webhooks
"""

from collections.abc import Sequence
from typing import ClassVar

import msgspec
from attrs import field, frozen
from attrs.validators import gt

from convsdk.channels.email.incoming.content import (
    Found,
    RawMail,
    is_json,
    moment,
    name_of,
    read_form,
    read_json,
    report,
    text_of,
)
from convsdk.channels.email.incoming.proof import is_recent
from convsdk.core.events import DeliveryStatus
from convsdk.core.ports import Envelope, Request, Secret, is_secret
from convsdk.core.signing import hmac_of, is_same
from convsdk.errors import ParseError

_HARD = "permanent"
_DEAD = {"bounce", "suppress-bounce"}


class _Signature(msgspec.Struct, frozen=True):
    timestamp: str
    token: str
    signature: str


class _Signed(msgspec.Struct, frozen=True):
    signature: _Signature


class _Status(msgspec.Struct, frozen=True):
    message: str | None = None
    description: str | None = None


class _Message(msgspec.Struct, frozen=True):
    headers: dict[str, str | None] = {}


class _Client(msgspec.Struct, frozen=True):
    bot: str | None = None


class _Event(msgspec.Struct, frozen=True, rename={"delivery_status": "delivery-status", "client_info": "client-info"}):
    event: str
    id: str
    timestamp: float | None = None
    recipient: str = ""
    severity: str = ""
    reason: str = ""
    message: _Message = _Message()
    delivery_status: _Status = _Status()
    client_info: _Client = _Client()


class _Report(msgspec.Struct, frozen=True, rename={"event": "event-data"}):
    event: _Event


@frozen(kw_only=True)
class Mailgun:
    """Settings of Mailgun: `signing_key` is the HTTP webhook signing key of the account.

    Mailgun signs a time and a token, and not the body. A signature counts for `window_s`, by default as long as
    Mailgun tries to deliver; its address has to be https, since whoever sees one could post a mail of their own.
    """

    by: ClassVar[str] = "mailgun"

    signing_key: Secret = field(validator=is_secret())
    window_s: float = field(default=43_200, validator=gt(0))

    def wants(self, request: Request) -> Sequence[str]:  # noqa: ARG002  (every source is asked)
        return ()

    def is_authentic(self, request: Request) -> bool:
        """Say whether the request has a signature by the key that is recent enough."""
        try:
            given = _signature(request)
        except ParseError:
            return False
        signed = (given.timestamp + given.token).encode("utf-8", "surrogatepass")
        is_signed = is_same(given.signature, hmac_of(signed, self.signing_key))
        return is_signed and is_recent(given.timestamp, request, window_s=self.window_s)

    def read(self, request: Request) -> Sequence[Found]:
        """Give the mail of a route, or what an event reports."""
        if is_json(request):
            return _reported(read_json(request.body, _Report).event, request)
        fields = read_form(request)
        if "body-mime" not in fields:
            raise ParseError("the form has no field body-mime: let the route's URL end in mime")
        sender = text_of(fields["sender"]) if "sender" in fields else None
        recipients = tuple(filter(None, (one.strip() for one in text_of(fields.get("recipient", b"")).split(","))))
        return (RawMail(raw=fields["body-mime"], envelope=Envelope(sender=sender, recipients=recipients)),)


def _signature(request: Request) -> _Signature:
    if is_json(request):
        return read_json(request.body, _Signed).signature
    fields = read_form(request)
    timestamp, token, signature = (text_of(fields.get(name, b"")) for name in ("timestamp", "token", "signature"))
    return _Signature(timestamp=timestamp, token=token, signature=signature)


def _reported(event: _Event, request: Request) -> Sequence[Found]:
    """Give the report; none for what says nothing of the delivery, such as a mail that is tried again."""
    is_hard = event.severity == _HARD
    statuses = {
        "delivered": DeliveryStatus.DELIVERED,
        "failed": DeliveryStatus.FAILED if is_hard else None,
        "rejected": DeliveryStatus.FAILED,
        # A program that looks at a mail has not read it.
        "opened": DeliveryStatus.READ if not event.client_info.bot else None,
        "complained": DeliveryStatus.DELIVERED,
    }
    status = statuses.get(event.event)
    if status is None:
        return ()
    words = event.delivery_status.description or event.delivery_status.message or event.reason
    is_dead = event.event == "complained" or (event.event == "failed" and is_hard and event.reason in _DEAD)
    is_good = event.event in {"delivered", "opened"}
    one = report(
        *("mailgun", event.id),
        status=status,
        at=moment(event.timestamp, otherwise=request.received_at),
        messages=name_of(event.message.headers.get("message-id") or "", otherwise=""),
        error="" if is_good else words or event.event,
        unreachable=event.recipient if is_dead else "",
    )
    return (one,)
