"""Mail and reports as Amazon SES publishes them, by way of SNS.

https://docs.aws.amazon.com/sns/latest/dg/sns-verify-signature-of-message.html
https://docs.aws.amazon.com/ses/latest/dg/receiving-email-notifications-contents.html
https://docs.aws.amazon.com/ses/latest/dg/notification-contents.html
"""

import binascii
import re
from collections.abc import Iterator, Sequence
from typing import ClassVar

import msgspec
from attrs import field, frozen
from attrs.validators import deep_iterable, matches_re, min_len

from convsdk.channels.email.incoming.content import Found, RawMail, moment, name_of, read_json, report
from convsdk.channels.email.incoming.proof import is_certified, require_cryptography
from convsdk.channels.email.sending import ses_message_id
from convsdk.core.events import DeliveryStatus
from convsdk.core.ports import Envelope, Request
from convsdk.errors import ParseError

_TOPIC = re.compile(r"arn:aws[a-z-]*:sns:([a-z0-9-]{1,40}):[0-9]{12}:[A-Za-z0-9_-]{1,256}")
_CERTIFICATE = r"/SimpleNotificationService-[A-Za-z0-9]{1,64}\.pem"
# Not `a::b`, in which fsspec sees two places, nor a folder above the bucket's.
_KEY = re.compile(r"(?!.*::)(?!(?:.*/)?\.\.?(?:/|\Z))[!-~ ]{1,1024}")
_SIGNED = ("Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type")
_SIGNED_CONFIRMATION = ("Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type")
_NAMES = {
    "type": "Type",
    "message_id": "MessageId",
    "topic": "TopicArn",
    "message": "Message",
    "timestamp": "Timestamp",
    "signature": "Signature",
    "version": "SignatureVersion",
    "certificate": "SigningCertURL",
    "subject": "Subject",
    "subscribe": "SubscribeURL",
    "token": "Token",
}


class _Notice(msgspec.Struct, frozen=True, rename=_NAMES):
    """What SNS delivers, whoever published it."""

    type: str
    message_id: str
    topic: str
    message: str
    timestamp: str
    signature: str
    version: str
    certificate: str
    subject: str | None = None
    subscribe: str | None = None
    token: str | None = None

    @property
    def is_confirmation(self) -> bool:
        return self.type == "SubscriptionConfirmation"

    @property
    def signed(self) -> bytes:
        values = {name: getattr(self, attribute) for attribute, name in _NAMES.items()}
        names = _SIGNED if self.type == "Notification" else _SIGNED_CONFIRMATION
        return "".join(f"{name}\n{values[name]}\n" for name in names if values[name] is not None).encode()


class _Action(msgspec.Struct, frozen=True, rename="camel"):
    type: str = ""
    bucket_name: str = ""
    object_key: str = ""


class _Receipt(msgspec.Struct, frozen=True):
    recipients: list[str] = []
    action: _Action = _Action()


class _Header(msgspec.Struct, frozen=True):
    name: str = ""
    value: str = ""


class _Mail(msgspec.Struct, frozen=True, rename="camel"):
    message_id: str = ""
    source: str | None = None
    headers: list[_Header] = []


class _Recipient(msgspec.Struct, frozen=True, rename="camel"):
    email_address: str = ""
    diagnostic_code: str | None = None


class _Told(msgspec.Struct, frozen=True, rename="camel"):
    """What the notifications have in common that report on a mail of ours."""

    timestamp: str | None = None
    bounce_type: str = ""
    bounce_sub_type: str = ""
    bounced_recipients: list[_Recipient] = []
    complained_recipients: list[_Recipient] = []
    complaint_feedback_type: str | None = None
    reason: str = ""
    error_message: str = ""


class _Notification(msgspec.Struct, frozen=True, rename="camel"):
    notification_type: str = ""
    event_type: str = ""
    mail: _Mail = _Mail()
    receipt: _Receipt = _Receipt()
    content: str | None = None
    bounce: _Told = _Told()
    complaint: _Told = _Told()
    delivery: _Told = _Told()
    open: _Told = _Told()
    reject: _Told = _Told()
    failure: _Told = _Told()

    @property
    def kind(self) -> str:
        return self.notification_type or self.event_type


@frozen(kw_only=True)
class Ses:
    """Settings of Amazon SES: the `topics` (ARNs) that are believed, and the `buckets` that mail may lie in.

    A mail comes inside the notification (a rule's SNS action, up to 150 KB), or lies in a bucket (its S3 action, of
    any size), from where it is fetched. The subscription of an allowed topic is confirmed by itself.
    """

    by: ClassVar[str] = "ses"

    topics: tuple[str, ...] = field(validator=[min_len(1), deep_iterable(matches_re(_TOPIC))])
    buckets: tuple[str, ...] = field(default=(), validator=deep_iterable(matches_re(r"[a-z0-9][a-z0-9.-]{1,62}")))

    def __attrs_post_init__(self) -> None:
        require_cryptography("Amazon SNS")

    def wants(self, request: Request) -> Sequence[str]:
        """Give the address of the certificate; of an authentic request, also that of its mail or confirmation."""
        notice = self._notice(request)
        if notice is None:
            return ()
        first = (notice.certificate,)
        if not self._is_signed(request, notice):
            return first
        if notice.is_confirmation:
            host = re.escape(_host(notice.topic))
            link = notice.subscribe or ""
            return (*first, link) if re.fullmatch(rf"https://{host}/\?[!-~]{{1,2000}}", link) else first
        try:
            stored = self._stored_at(read_json(notice.message, _Notification))
        except ParseError:
            return first
        return (*first, stored) if stored else first

    def is_authentic(self, request: Request) -> bool:
        """Say whether SNS signed the request, and it is of a topic that is allowed."""
        notice = self._notice(request)
        return notice is not None and self._is_signed(request, notice)

    def _notice(self, request: Request) -> _Notice | None:
        """Give what SNS delivers where its topic is allowed and its certificate is at SNS, in the topic's region."""
        try:
            notice = read_json(request.body, _Notice)
        except ParseError:
            return None
        if notice.topic not in self.topics:
            return None
        at_sns = rf"https://{re.escape(_host(notice.topic))}{_CERTIFICATE}"
        return notice if re.fullmatch(at_sns, notice.certificate) else None

    @staticmethod
    def _is_signed(request: Request, notice: _Notice) -> bool:
        certificate = request.fetched.get(notice.certificate)
        if certificate is None or notice.version not in {"1", "2"}:
            return False
        return is_certified(request, certificate, notice.signature, notice.signed, is_sha1=notice.version == "1")

    def _stored_at(self, told: _Notification) -> str:
        """Give the address of a mail that lies in a bucket of ours; empty for what does not."""
        action = told.receipt.action
        if told.kind != "Received" or action.type != "S3" or told.content is not None:
            return ""
        if action.bucket_name not in self.buckets or not _KEY.fullmatch(action.object_key):
            return ""
        return f"s3://{action.bucket_name}/{action.object_key}"

    def read(self, request: Request) -> Sequence[Found]:
        """Give the mail that came in, or what is reported; nothing for what is about the subscription."""
        notice = read_json(request.body, _Notice)
        if notice.type != "Notification":
            return ()
        told = read_json(notice.message, _Notification)
        if told.kind == "Received":
            return (self._mail(told, request),)
        return tuple(_reported(told, notice, request))

    def _mail(self, told: _Notification, request: Request) -> RawMail:
        envelope = Envelope(sender=told.mail.source, recipients=tuple(told.receipt.recipients))
        if told.content is not None:
            return RawMail(raw=_raw(told.content), envelope=envelope)
        at = self._stored_at(told)
        if at not in request.fetched:
            raise ParseError(
                "the notification has no mail in it, and names none in a bucket of ours: use an SNS action, or an S3 "
                "action with its bucket in the setting buckets"
            )
        return RawMail(raw=request.fetched[at], envelope=envelope)


def _host(topic: str) -> str:
    """Give the host of SNS in the region of a topic, whose ARN was checked."""
    partition = topic.split(":")[1]
    return f"sns.{_region(topic)}.amazonaws.com{'.cn' if partition == 'aws-cn' else ''}"


def _region(topic: str) -> str:
    found = _TOPIC.fullmatch(topic)
    return found[1] if found else ""


def _raw(content: str) -> bytes:
    # Every mail has a colon in it, and base64 has none: the encoding of the action need not be configured twice.
    if ":" in content:
        return content.encode()
    try:
        return binascii.a2b_base64(content)
    except (binascii.Error, ValueError):
        return content.encode()


def _reported(told: _Notification, notice: _Notice, request: Request) -> Iterator[Found]:
    """Give the reports, one for each recipient that is named; none for what says nothing of the delivery."""
    own = next((one.value for one in told.mail.headers if one.name.lower() == "message-id"), "")
    # A topic is told of mails of its own region.
    messages = name_of(own, otherwise=ses_message_id(told.mail.message_id, _region(notice.topic)))
    for number, (status, about, error, unreachable) in enumerate(_statuses(told)):
        yield report(
            *("ses", notice.message_id, str(number)),
            status=status,
            at=moment(about.timestamp or notice.timestamp, otherwise=request.received_at),
            messages=messages,
            error=error,
            unreachable=unreachable,
        )


def _statuses(told: _Notification) -> Iterator[tuple[DeliveryStatus, _Told, str, str]]:
    bounce, complaint = told.bounce, told.complaint
    match told.kind:
        case "Delivery":
            yield DeliveryStatus.DELIVERED, told.delivery, "", ""
        case "Open":
            yield DeliveryStatus.READ, told.open, "", ""
        case "Reject":
            yield DeliveryStatus.FAILED, told.reject, told.reject.reason or "rejected", ""
        case "Rendering Failure":
            yield DeliveryStatus.FAILED, told.failure, told.failure.error_message or "rendering failure", ""
        case "Complaint":
            words = complaint.complaint_feedback_type or "complaint"
            for one in complaint.complained_recipients or [_Recipient()]:
                yield DeliveryStatus.DELIVERED, complaint, words, one.email_address
        case "Bounce":
            is_dead = bounce.bounce_type == "Permanent"
            for one in bounce.bounced_recipients or [_Recipient()]:
                words = one.diagnostic_code or f"{bounce.bounce_type} {bounce.bounce_sub_type}"
                yield DeliveryStatus.FAILED, bounce, words, one.email_address if is_dead else ""
