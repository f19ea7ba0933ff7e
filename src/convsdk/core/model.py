"""The values that the core speaks in: identifiers, hints, decisions, contacts, conversations, messages."""

from collections.abc import Iterator
from datetime import datetime
from enum import Enum, IntEnum
from typing import Any, Generic, TypeVar

from attrs import evolve, field, frozen
from attrs.validators import instance_of, max_len, min_len


class Trust(IntEnum):
    """How well an identifier is attested; a higher one outweighs a lower one."""

    ASSERTED = 1
    """Typed or sent by somebody who proved nothing."""
    AGENT = 2
    """Entered by signed-in staff."""
    CHANNEL = 3
    """Attested by the platform: a signed webhook, a mail whose authentication is aligned with its From."""
    PROVEN = 4
    """Signed by the site's backend and stated as verified, or confirmed by a link or a code."""


class Outcome(Enum):
    """What the resolver did with a hint."""

    CREATED = "created"
    ATTACHED = "attached"
    LINKED = "linked"
    MERGED = "merged"
    CONFLICT = "conflict"
    ANONYMOUS = "anonymous"
    UNRESOLVED = "unresolved"
    DUPLICATE = "duplicate"


def _is_aware(_: object, __: object, value: datetime) -> None:
    if value.tzinfo is None:
        message = f"{value!r} has no time zone: give an aware datetime, such as datetime.now(UTC)"
        raise ValueError(message)


@frozen(order=True)
class Identifier:
    """One key by which a person can be known, in canonical form.

    `kind` names the sort of key (`email`, `phone`, `external_id`, `visitor`, `messenger_psid`, or one that a plugin
    adds), `scope` the place inside which `value` is unique (a page id, a namespace; empty where it is world-wide).
    """

    kind: str
    scope: str
    value: str

    def __str__(self) -> str:
        return f"{self.kind}:{self.scope}/{self.value}" if self.scope else f"{self.kind}:{self.value}"


@frozen(order=True)
class Node:
    """An identifier in one of its epochs: a recycled number is the same identifier held by another person."""

    identifier: Identifier
    epoch: int = 0

    def __str__(self) -> str:
        return f"{self.identifier}#{self.epoch}" if self.epoch else str(self.identifier)


@frozen
class Claim:
    """One identifier as a channel hands it over: raw value, and how well it is attested."""

    kind: str
    value: str
    trust: Trust
    scope: str = ""


@frozen
class Trait:
    """One descriptive fact about a person, such as `name` or `company`, and how well it is attested."""

    name: str = field(validator=min_len(1))
    value: str
    trust: Trust


def traits_of(trust: Trust, **values: str) -> tuple[Trait, ...]:
    """Give the traits that have a value which is not blank, each attested as well as `trust` says."""
    return tuple(Trait(name, value.strip(), trust) for name, value in values.items() if value.strip())


@frozen(kw_only=True)
class ConsentSignal:
    """Somebody's yes or no to being written to at one identifier for one purpose, with the words that they saw."""

    claim: Claim
    purpose: str
    granted: bool
    withdrawn: bool = False
    wording: str = ""
    wording_version: str = ""


@frozen(kw_only=True)
class IdentityHint:
    """What a channel says about who is talking.

    `id` is the hint's own and makes it safe to deliver twice; a channel leaves it empty, since the hub makes it from
    channel and external id. `at` is the event time; `visitor` the value of the server's cookie. `may_create` is False
    where an unknown person shall stay without a contact. `how` says in words
    how a contact that this hint creates came to be ("inbound e-mail"), `by` which member of staff entered it.
    """

    id: str = field(default="", validator=[instance_of(str), max_len(512)])
    at: datetime = field(validator=_is_aware)
    identifiers: tuple[Claim, ...] = ()
    visitor: str | None = None
    traits: tuple[Trait, ...] = ()
    consents: tuple[ConsentSignal, ...] = ()
    may_create: bool = True
    how: str = ""
    by: str | None = None


class Rule(Enum):
    """The rules of identity that a decision can name; `docs/identity.md` explains each."""

    UNUSABLE = "unusable"
    ANCHOR = "anchor"
    LINK = "link"
    NOTE = "note"
    ROLE = "role"
    EPOCH = "epoch"
    COOKIE = "cookie"
    MERGE = "merge"
    NO_CREATE = "no_create"
    ONE_ACCOUNT = "one_account"
    CANNOT_LINK = "cannot_link"
    CAP = "cap"
    BOTH_ESTABLISHED = "both_established"
    DISPLACED = "displaced"


@frozen
class Step:
    """One thing that a rule did: to which identifier (`subject`), towards which other (`other`)."""

    rule: Rule
    subject: str = ""
    other: str = ""


@frozen(kw_only=True)
class Decision:
    """What the resolver did with one hint, and why. Stored with the hint, so that `explain` can answer later.

    `contact` is the contact's id at that moment (None: nobody), `absorbed` the contacts that were merged into it,
    `refused` the links that a rule refused, `suggested` the pairs that a human should look at, `displaced` the
    earlier hints whose links had to give way, `unusable` the kinds whose values were discarded.
    """

    hint: str
    outcome: Outcome
    contact: int | None = None
    steps: tuple[Step, ...] = ()
    absorbed: tuple[int, ...] = ()
    refused: tuple[Step, ...] = ()
    suggested: tuple[tuple[str, str], ...] = ()
    displaced: tuple[str, ...] = ()
    unusable: tuple[str, ...] = ()

    def as_replayed(self) -> "Decision":
        """Give the first decision as the answer to a second delivery: the same, but marked as a duplicate."""
        return evolve(self, outcome=Outcome.DUPLICATE)


class RulingKind(Enum):
    """What staff can decide about two identifiers."""

    MERGE = "merge"
    CANNOT_LINK = "cannot_link"


@frozen(kw_only=True)
class Ruling:
    """A decision by staff about two identifiers. `id` is the caller's, unique in the workspace, safe to send twice."""

    id: str
    kind: RulingKind
    a: Identifier
    b: Identifier
    at: datetime = field(validator=_is_aware)
    by: str
    reason: str = ""


@frozen(kw_only=True)
class Suggestion:
    """Maybe one person: two contacts that evidence speaks of together, but that no rule may join.

    `because` is the pair of identifiers that were named together, `evidence` the id of the hint or merge that did.
    """

    contacts: tuple[int, int]
    because: tuple[Node, Node]
    trust: Trust | None
    evidence: str


@frozen(kw_only=True)
class ShownTrait:
    """The value of a trait that a contact's profile shows, and where it comes from."""

    value: str
    trust: Trust
    is_verified: bool
    hint: str
    at: datetime

    def __str__(self) -> str:
        return self.value if self.is_verified else f"{self.value} (unverified)"


@frozen(kw_only=True)
class HeldIdentifier:
    """An identifier on a contact's profile, how well it is attested, and how it was spelt (for sending to it)."""

    node: Node
    trust: Trust
    spelling: str


@frozen(kw_only=True)
class Contact:
    """A contact as it is read: its identifiers, traits and cookies, and the older ids that redirect to it."""

    id: int
    created_at: datetime
    how: str
    identifiers: tuple[HeldIdentifier, ...]
    visitors: tuple[str, ...] = ()
    notes: tuple[Identifier, ...] = ()
    traits: dict[str, ShownTrait] = field(factory=dict)
    redirects: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        """Give what a list calls this contact: the name, else the first identifier."""
        if "name" in self.traits:
            return str(self.traits["name"])
        return str(self.identifiers[0].node) if self.identifiers else f"contact {self.id}"


class Direction(Enum):
    """Which way a message went."""

    INBOUND = "inbound"
    OUTBOUND = "outbound"
    NOTE = "note"
    """Written by staff for staff; never leaves."""
    LINE = "line"
    """Something that happened in the thread: a reaction, a form that was sent back."""


@frozen(kw_only=True)
class Attachment:
    """A file that came with a message: described here, its bytes kept elsewhere (`url`) or nowhere yet.

    `content` is the bytes as a channel hands them over; they are never stored with the message.
    """

    name: str
    media_type: str = "application/octet-stream"
    size: int | None = None
    url: str = ""
    content_id: str = ""
    content: bytes | None = field(default=None, repr=False)


def _described(attachments: tuple[Attachment, ...]) -> tuple[Attachment, ...]:
    """Give attachments without what they hold, which goes into no store."""
    for one in attachments:
        if one.content is not None:
            return tuple(evolve(each, content=None) for each in attachments)
    return attachments


@frozen(kw_only=True)
class Message:
    """One inbound or outbound message, unique by channel and external id.

    `detail` is what more there is to it, as plain JSON values: who wrote it (`by`), the `block` of a bot automation
    that it came from and what that shows, or what its channel told of it. Of a `Noted`, its kind is `noted`.
    """

    id: int
    conversation: int
    channel: str
    external_id: str
    direction: Direction
    at: datetime
    text: str
    html: str = ""
    attachments: tuple[Attachment, ...] = field(default=(), converter=_described)
    status: str = ""
    detail: dict[str, Any] | None = None


Item = TypeVar("Item")


@frozen
class Page(Generic[Item]):
    """Some items of a longer list, and the cursor that asks for the ones after them (None: there are none)."""

    items: tuple[Item, ...]
    next: int | None = None

    def __iter__(self) -> Iterator[Item]:
        return iter(self.items)
