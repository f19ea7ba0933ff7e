"""Mail and reports as SendGrid posts them.

https://www.twilio.com/docs/sendgrid/for-developers/parsing-email/setting-up-the-inbound-parse-webhook (the raw mail)
https://www.twilio.com/docs/sendgrid/for-developers/tracking-events/getting-started-event-webhook-security-features
"""

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, ClassVar

import msgspec
from attrs import field, frozen
from attrs.validators import min_len

from convsdk.channels.email.incoming.content import (
    Found,
    RawMail,
    is_json,
    moment,
    name_of,
    read_form,
    read_json,
    report,
)
from convsdk.channels.email.incoming.proof import (
    elliptic_key,
    has_password,
    is_signed_by,
    require_cryptography,
)
from convsdk.core.events import DeliveryStatus, StatusChanged
from convsdk.core.ports import Envelope, Request, Secret, is_secret
from convsdk.errors import ParseError

_HEADER = "x-twilio-email-event-webhook-"
_DROPPED_AS_DEAD = {"bounced address", "spam reporting address", "invalid"}


class _Envelope(msgspec.Struct, frozen=True, rename={"sender": "from"}):
    sender: str | None = None
    to: list[str] = []


class _Event(msgspec.Struct, frozen=True, rename={"smtp_id": "smtp-id"}):
    event: str = ""
    sg_event_id: str = ""
    sg_message_id: str = ""
    smtp_id: str = ""
    email: str = ""
    timestamp: float | None = None
    reason: str | None = None
    response: str | None = None
    type: str | None = None
    sg_machine_open: bool = False


def _are_public_keys(_: object, attribute: Any, value: tuple[str, ...]) -> None:  # noqa: ANN401  (attrs' own)
    if value:
        require_cryptography("SendGrid")
    for index, key in enumerate(value):
        try:
            elliptic_key(key)
        except ValueError as error:
            raise ValueError(f"{attribute.name}: {attribute.name}[{index}]: {error}: copy it from SendGrid") from None


def _is_password(instance: object, attribute: Any, value: Secret | None) -> None:  # noqa: ANN401  (as above)
    if value is not None:
        is_secret()(instance, attribute, value)


@frozen(kw_only=True)
class SendGrid:
    """Settings of SendGrid: `public_keys` of signed webhooks, the `user` and `password` in its URL, or both.

    A request with a signature needs one by any of the keys; one without needs the password, and is refused where none
    is set. The inbound parse webhook signs where a security policy is attached to it.
    """

    by: ClassVar[str] = "sendgrid"

    public_keys: tuple[str, ...] = field(default=(), validator=_are_public_keys)
    password: Secret | None = field(default=None, validator=_is_password)
    user: str = field(default="sendgrid", validator=min_len(1))

    def __attrs_post_init__(self) -> None:
        if not self.public_keys and self.password is None:
            raise ValueError("public_keys and password are missing: give at least one of them")

    @cached_property
    def _keys(self) -> tuple[Any, ...]:  # the library may be missing, and attrs makes a field's annotation of this
        return tuple(map(elliptic_key, self.public_keys))

    def wants(self, request: Request) -> Sequence[str]:  # noqa: ARG002  (every source is asked)
        return ()

    def is_authentic(self, request: Request) -> bool:
        """Say whether the request is signed by one of the keys, or, without any signature, has the password."""
        signature = request.headers.get(f"{_HEADER}signature", "")
        if not signature and self.password is not None:
            return has_password(request, user=self.user, password=self.password)
        timestamp = request.headers.get(f"{_HEADER}timestamp", "")
        signed = timestamp.encode("utf-8", "surrogatepass") + request.body
        return any(is_signed_by(key, signature, signed) for key in self._keys)

    def read(self, request: Request) -> Sequence[Found]:
        """Give the mail that came in, or what the events report."""
        if is_json(request):
            return tuple(_reported(read_json(request.body, list[_Event]), request))
        fields = read_form(request)
        if "email" not in fields:
            raise ParseError("the form has no field email: let SendGrid post the raw, full MIME message")
        told = read_json(fields["envelope"], _Envelope) if "envelope" in fields else _Envelope()
        return (RawMail(raw=fields["email"], envelope=Envelope(sender=told.sender, recipients=tuple(told.to))),)


def _reported(events: Sequence[_Event], request: Request) -> Iterator[StatusChanged]:
    for event in events:
        status = _status(event)
        if status is None:
            continue
        is_good = event.event in {"delivered", "open"}
        yield report(
            *("sendgrid", event.sg_event_id or f"{event.event}/{event.sg_message_id}/{event.timestamp}"),
            status=status,
            at=moment(event.timestamp, otherwise=request.received_at),
            # What follows the first dot names the machine that sent it.
            messages=name_of(event.smtp_id, otherwise=event.sg_message_id.partition(".")[0]),
            error="" if is_good else event.reason or event.response or event.event,
            unreachable=event.email if _is_dead(event) else "",
        )


def _status(event: _Event) -> DeliveryStatus | None:
    """Give how far a mail has come; None where the event does not say, or a program opened it."""
    statuses = {
        "delivered": DeliveryStatus.DELIVERED,
        "open": None if event.sg_machine_open else DeliveryStatus.READ,
        "bounce": DeliveryStatus.FAILED,
        "dropped": DeliveryStatus.FAILED,
        "spamreport": DeliveryStatus.DELIVERED,
    }
    return statuses.get(event.event)


def _is_dead(event: _Event) -> bool:
    if event.event == "bounce":
        return event.type != "blocked"  # a server that refuses today may take the next one
    if event.event == "dropped":
        return (event.reason or "").lower() in _DROPPED_AS_DEAD
    return event.event == "spamreport"
