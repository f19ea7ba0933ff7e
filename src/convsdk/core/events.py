"""What happened: the events that a channel reads out of a request, and the notices that go out after a commit."""

from datetime import datetime
from enum import Enum
from typing import Any

from attrs import field, frozen

from convsdk.core.model import Attachment, Claim, ConsentSignal, Direction, IdentityHint


@frozen(kw_only=True)
class MessageReceived:
    """Somebody wrote something, or (`direction` outbound) an answer that was given elsewhere is echoed.

    `external_id` is the platform's id of the message, the same at every redelivery. `thread` is the platform's key
    of the conversation; where there is none, the conversation is found by who wrote. `references` are external ids
    of earlier messages that this one answers, the nearest first. `block` is the block of the bot automation that it
    answers, and `choice` the value of the button that was pressed there. `participants` are who else it was written
    to: their answers belong to the conversation. `review` says why a person has to look at who wrote (empty: nobody
    has to). `fingerprint` is the same for two copies of the message: one with the same id and another fingerprint is
    another message. Empty: ids of this channel are never given twice.
    """

    external_id: str
    hint: IdentityHint
    at: datetime
    text: str = ""
    html: str = ""
    subject: str = ""
    thread: str = ""
    references: tuple[str, ...] = ()
    attachments: tuple[Attachment, ...] = ()
    direction: Direction = Direction.INBOUND
    is_automatic: bool = False
    detail: dict[str, Any] = field(factory=dict)
    block: str = ""
    choice: str = ""
    participants: tuple[Claim, ...] = ()
    review: str = ""
    fingerprint: str = ""


@frozen(kw_only=True)
class Identified:
    """Somebody said, or a site stated, who is there; nothing was written.

    `block` is the block of the bot automation that it answers, where it is a form.
    """

    external_id: str
    hint: IdentityHint
    thread: str = ""
    block: str = ""


@frozen(kw_only=True)
class FieldProblem:
    """What is wrong with one field of a submitted form, in words for the visitor, and a code for a program."""

    field: str
    code: str
    message: str


@frozen(kw_only=True)
class FormRejected:
    """A form was submitted that cannot be taken: the conversation stays, and each field's problem goes back."""

    external_id: str
    hint: IdentityHint
    problems: tuple[FieldProblem, ...]
    thread: str = ""
    block: str = ""


class DeliveryStatus(Enum):
    """How far an outbound message has come."""

    QUEUED = "queued"
    SENT = "sent"
    DELIVERED = "delivered"
    READ = "read"
    FAILED = "failed"


@frozen(kw_only=True)
class StatusChanged:
    """A platform reports on outbound messages: those named, or all of `thread` up to `watermark`.

    `error` is why in the platform's own words. `unreachable` is an identifier that can no longer be written to: it
    does not exist any more, or its owner complained. Where the platform itself says so, its trust is CHANNEL; what
    anybody could have written is ASSERTED, and is believed only of whom one of `messages` went to.
    """

    external_id: str
    status: DeliveryStatus
    at: datetime
    messages: tuple[str, ...] = ()
    thread: str = ""
    watermark: datetime | None = None
    error: str = ""
    unreachable: Claim | None = None


@frozen(kw_only=True)
class ConsentSignalled:
    """A yes or no to being written to, apart from any message (an opt-out word, an unsubscribe link)."""

    external_id: str
    at: datetime
    signal: ConsentSignal


@frozen(kw_only=True)
class Noted:
    """Something else that belongs in the thread: a reaction, a referral, a bounce. `kind` names it in snake case.

    `references` are the external ids of the messages of ours that it is about, where a program reports on them: it is
    then a line of their conversation, whoever sent the report.
    """

    external_id: str
    kind: str
    at: datetime
    hint: IdentityHint | None = None
    thread: str = ""
    text: str = ""
    detail: dict[str, Any] = field(factory=dict)
    references: tuple[str, ...] = ()


Event = MessageReceived | Identified | FormRejected | StatusChanged | ConsentSignalled | Noted
"""What a channel can read out of a request."""


AUTOMATION_ENTERED = "automation.entered"
"""The type of the notice that somebody put a contact into an automation."""

INBOUND_EMAIL = "inbound e-mail"
"""How a contact came to be that an inbound e-mail created."""


@frozen(kw_only=True)
class Notice:
    """Something that happened, as observers and webhooks are told after the commit.

    `type` is dotted (`contact.created`), `version` that of the payload's shape, `payload` plain JSON values, `at`
    the event time. At least once, with a stable `id` (0 before it is stored).
    """

    type: str
    at: datetime
    payload: dict[str, Any]
    version: int = 1
    id: int = 0

    @property
    def may_automate(self) -> bool:
        """Say whether an automation may hear of it: of no contact that an inbound e-mail created, nor what is in doubt.

        An automation that answers mail could else answer another one, without end, or whoever a forger named.
        """
        return self.payload.get("how") != INBOUND_EMAIL and not self.payload.get("review")
