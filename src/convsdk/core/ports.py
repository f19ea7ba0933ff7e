"""What the shell must supply to the core, and a plugin to the shell: `Channel`, `Request`, `Outbound`, `Clock`."""

from __future__ import annotations

import builtins
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar

from attrs import evolve, field, frozen
from attrs.validators import ge, le, max_len, min_len

from convsdk.core.events import DeliveryStatus, Event, MessageReceived
from convsdk.core.flow import Flow
from convsdk.core.forms import Form
from convsdk.core.identifiers import IdentifierKind
from convsdk.core.model import Identifier, IdentityHint
from convsdk.core.texts import pieces_of
from convsdk.errors import PermanentError, UnsupportedError

if TYPE_CHECKING:
    import httpx
    from attrs import Attribute

_ORIGIN = re.compile(r"https?://[a-z0-9.-]+(:[0-9]{1,5})?|https?://\[[0-9a-f:]+\](:[0-9]{1,5})?")
_COLOR = re.compile(r"#[0-9a-fA-F]{6}")

Clock = Callable[[], datetime]
"""Gives the present moment, aware. A test hands in its own."""


@frozen(repr=False, eq=True)
class Secret:
    """A value that is never shown: `repr`, `str`, logs and errors print stars. `reveal()` gives it where it is used."""

    _value: str

    def reveal(self) -> str:
        """Give the secret itself, for signing or comparing and nothing else."""
        return self._value

    def __bool__(self) -> bool:
        return bool(self._value)

    def __repr__(self) -> str:
        return "Secret('***')"

    __str__ = __repr__


def is_secret(
    remedy: str = 'write { env = "NAME" }', *, pattern: str = ""
) -> Callable[[object, Attribute[Any], Secret], None]:
    """Give the validator of a field that holds a secret which is not blank, and fits the regular expression `pattern`.

    `remedy` says where to get one. The error names the field and shows nothing of what was given, as attrs' own
    validators would.
    """

    def validate(_: object, attribute: Attribute[Any], value: Secret) -> None:
        # A blank key would let everybody sign.
        is_given = type(value) is Secret and value.reveal().strip() != ""
        if not is_given or (pattern and not re.fullmatch(pattern, value.reveal(), re.ASCII)):
            raise ValueError(f"{attribute.name} must be a secret, and no blank or malformed one: {remedy}")

    return validate


class Headers(Mapping[str, str]):
    """HTTP header fields by name, in any case; of a repeated field, the first, and all by `all(name)`."""

    def __init__(self, fields: Mapping[str, str] | Iterable[tuple[str, str]] = ()) -> None:
        pairs = fields.items() if isinstance(fields, Mapping) else fields
        self._fields: dict[str, tuple[str, ...]] = {}
        for name, value in pairs:
            key = name.lower()
            self._fields[key] = (*self._fields.get(key, ()), value)

    def __getitem__(self, name: str) -> str:
        return self._fields[name.lower()][0]

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    def all(self, name: str) -> tuple[str, ...]:
        """Give every value of the field `name`, in order."""
        return self._fields.get(name.lower(), ())


@frozen(kw_only=True)
class Envelope:
    """What the mail server knew of a mail beside its content (RFC 5321): `MAIL FROM` and `RCPT TO`.

    An empty `sender` is the null return path of a program; None: nobody knows it, and the mail's Return-Path counts.
    """

    sender: str | None = ""
    recipients: tuple[str, ...] = ()


@frozen(kw_only=True)
class Request:
    """What arrived, as raw as it came. `received_at` is the only clock that a channel may look at.

    `fetched` is what stands at the addresses that the channel `wants`, by address.
    """

    received_at: datetime
    body: bytes = b""
    method: str = "POST"
    url: str = "/"
    query: Mapping[str, str] = field(factory=dict)
    headers: Headers = field(factory=Headers)
    envelope: Envelope | None = None
    fetched: Mapping[str, bytes] = field(factory=dict)

    def __repr__(self) -> str:
        # The body, the query and the headers can hold a customer's words or a signature: none of them in a log.
        return f"Request({self.method} {self.url.partition('?')[0]}, {len(self.body)} bytes)"


@frozen(kw_only=True)
class Response:
    """What to answer the sender of a request."""

    status: int = 200
    body: bytes = b""
    media_type: str = "text/plain; charset=utf-8"
    headers: tuple[tuple[str, str], ...] = ()


@frozen(kw_only=True)
class Capabilities:
    """What a channel can do, declared once; the runtime reads it, and the conformance kit checks it both ways.

    `verifies`: refuses what is not authentic. `challenges`: answers a set-up handshake. `messages`: its requests can
    hold messages (False for a channel that only identifies). `sends`: can answer. `attachments`, `reactions`,
    `statuses`, `echoes`: its requests can hold them. `max_text`: how long one outbound text may be (None: no limit), as
    `text_size` measures it: in characters, or by `utf16_units` or `utf8_bytes` of `convsdk.core.texts`.
    `sends_files_apart`: each file is a message of its own, instead of all going with the last text.
    `max_per_s`: how many messages a second the platform takes (None: any number). `is_idempotent`: a message that is
    sent again with the same token arrives once, or is known by its recipient for the same; a platform that only gives
    the token back, and delivers twice, is not. `keeps_raw`: its requests are archived as they arrived, before they are
    parsed, where there is an archive.
    """

    verifies: bool = False
    challenges: bool = False
    messages: bool = True
    sends: bool = False
    attachments: bool = False
    reactions: bool = False
    statuses: bool = False
    echoes: bool = False
    max_text: int | None = None
    text_size: Callable[[str], int] = len
    sends_files_apart: bool = False
    max_per_s: float | None = None
    is_idempotent: bool = False
    keeps_raw: bool = False


def _are_origins(_: object, __: object, value: tuple[str, ...]) -> None:
    for origin in value:
        if not _ORIGIN.fullmatch(origin):
            raise ValueError(f"{origin!r} is no origin: write it as 'https://shop.example', without a path")


def _is_color(_: object, __: object, value: str) -> None:
    if not _COLOR.fullmatch(value):
        raise ValueError(f"{value!r} is no colour in hexadecimal digits: write one such as '#0b57d0'")


@frozen(kw_only=True)
class Widget:
    """How the chat widget shows a channel, and on which pages.

    `origins` are those of the pages that may, beside the app's own. `identify` names the channel that reads what the
    page says about its visitor (empty: it may say nothing). `title`, `greeting` and `color` are what visitors see.
    `file_bytes` is how large an attachment may be (0: none are taken), and `file_types` its media types.
    """

    origins: tuple[str, ...] = field(default=(), validator=_are_origins)
    identify: str = ""
    title: str = field(default="", validator=max_len(100))
    greeting: str = field(default="", validator=max_len(1000))
    color: str = field(default="#0b57d0", validator=_is_color)
    file_bytes: int = field(default=10_485_760, validator=[ge(0), le(104_857_600)])
    # Nothing that a browser would run, such as HTML or SVG.
    file_types: tuple[str, ...] = (
        "image/png",
        "image/jpeg",
        "image/gif",
        "image/webp",
        "application/pdf",
        "text/plain",
    )


@frozen(kw_only=True)
class AutomaticAnswer:
    """What people are told at once when they write; not before `again_after_days` (at most 365) have passed since.

    An empty `subject` is that of what they wrote.
    """

    text: str = field(validator=min_len(1))
    subject: str = field(default="", validator=max_len(200))
    again_after_days: int = field(default=7, validator=[ge(1), le(365)])


@frozen(kw_only=True)
class File:
    """A file to send: its bytes, and where the platform can fetch it, if it can.

    `content_id` is the name by which the HTML of the message shows it (`cid:`), where it does.
    """

    name: str
    media_type: str
    content: bytes = field(repr=False)
    url: str = ""
    content_id: str = ""


@frozen(kw_only=True)
class Choice:
    """One of the answers that a message offers: what it shows, and the `payload` that a press of it sends back.

    The payload is the block of the bot automation and the value that the choice has there, with a colon between.
    """

    label: str
    payload: str


@frozen(kw_only=True)
class Outbound:
    """A message to deliver, or a part of one.

    `to` is who it goes to, `address` how that was spelt. `token` is unguessable, and the same at every try: 26
    characters of a-z and 2-7; of each part but the first, those with `.1`, `.2` and so on behind them. Where a platform
    wants a UUID as its key, `uuid.uuid5(namespace, token)` is one, in a namespace of the adapter's own. `external_id`
    is what `Channel.outbound_id` gave for the message. `thread` is the platform's key of the conversation, and
    `references` are the external ids of its messages, the one that is answered last. `at` is the time of this try, and
    `heard_at` when the person last wrote. `detail` is what more there is to it, such as buttons. `is_automatic`: no
    person wrote it.
    """

    to: Identifier
    text: str
    token: str
    at: datetime
    address: str = ""
    html: str = ""
    subject: str = ""
    thread: str = ""
    external_id: str = ""
    references: tuple[str, ...] = ()
    attachments: tuple[File, ...] = ()
    heard_at: datetime | None = None
    detail: Mapping[str, Any] = field(factory=dict)
    is_automatic: bool = False

    @property
    def choices(self) -> tuple[Choice, ...]:
        """Give the answers that it offers, in order; raise `PermanentError` where they are malformed."""
        block = self.detail.get("block", "")
        given = self.detail.get("choices") or ()
        are_choices = isinstance(given, list | tuple) and all(
            isinstance(one, Mapping) and isinstance(one.get("label"), str) and "value" in one for one in given
        )
        if not are_choices:
            raise PermanentError(f"the choices for {self.to} are no tables: give each a label and a value")
        return tuple(Choice(label=one["label"], payload=f"{block}:{one['value']}") for one in given)

    @property
    def spelt_out(self) -> str:
        """Give the text with a line for each choice: for where there are no buttons, or none that have room."""
        return "\n".join([self.text, *(f"- {choice.label}" for choice in self.choices)])

    def is_within(self, window: timedelta) -> bool:
        """Say whether the person last wrote less than `window` before this try."""
        return self.heard_at is not None and self.at < self.heard_at + window

    def require_kind(self, *kinds: str) -> None:
        """Raise `PermanentError` where it goes to an identifier of another kind."""
        if self.to.kind not in kinds:
            raise PermanentError(
                f"{self.to} is no {' or '.join(kinds)}, so nothing was sent: write by the channel that knows them"
            )

    def require_content(self) -> None:
        """Raise `PermanentError` where there is nothing in it."""
        if not self.text.strip() and not self.attachments:
            raise PermanentError(f"a message to {self.to} has neither a text nor a file: nothing was sent: give it one")


def parts_of(message: Outbound, can: Capabilities) -> tuple[Outbound, ...]:
    """Give the messages, in order, as which a platform that `can` do so much takes `message`.

    Its text in pieces of `can.max_text`, and the files with the last or, where it `can.sends_files_apart`, each behind
    them. The `choices` of its `detail` go with the last text alone. Each part has a token of its own, the same at every
    try.
    """
    texts = pieces_of(message.text, most=can.max_text, size=can.text_size) if can.max_text else (message.text,)
    beside, apart = ((), message.attachments) if can.sends_files_apart else (message.attachments, ())
    if apart and not message.text.strip():
        texts = ()
    detail = {name: value for name, value in message.detail.items() if name != "choices"}
    plain = evolve(message, attachments=(), detail=detail)
    parts = [
        *(evolve(plain, text=text) for text in texts[:-1]),
        *(evolve(message, text=text, attachments=beside) for text in texts[-1:]),
        *(evolve(plain, text="", attachments=(file,)) for file in apart),
    ]
    return tuple(
        evolve(one, token=f"{one.token}.{number}" if number else one.token) for number, one in enumerate(parts)
    )


@frozen(kw_only=True)
class Receipt:
    """What a platform said to a delivery: its own id of the message (empty: it names none), and how far it has come."""

    external_id: str = ""
    status: DeliveryStatus = DeliveryStatus.SENT


@frozen(kw_only=True)
class Check:
    """One thing that has to be right at a channel's platform: what it is, whether it is so, and what to do if not."""

    what: str
    is_right: bool
    remedy: str = ""


class Feed(ABC):
    """Where a channel that listens hands in what it hears, as the shell supplies it to `Channel.listen`.

    A position is a name and a value of the channel's own: how far it has come in a source, such as a mailbox. Names
    of other channels are others.
    """

    @abstractmethod
    def now(self) -> datetime:
        """Give the present moment, aware: the `received_at` of what names no time of its own."""

    @abstractmethod
    async def position(self, name: str) -> str | None:
        """Give the value that was kept last under `name`; None before the first."""

    @abstractmethod
    async def deliver(self, request: Request, *, position: tuple[str, str] | None = None) -> None:
        """Take `request` in, as `verify` and `parse` read it, and keep `position` in the transaction of its events.

        When this returns, both are on disk. What cannot be read is kept aside, what is not authentic is dropped, and
        the position moves on all the same. Where the store is away, this waits until it is back, however long; it
        raises `TransientError` only where the program ends meanwhile, and nothing is kept then.
        """

    @abstractmethod
    async def set_aside(self, request: Request, why: str, *, position: tuple[str, str] | None = None) -> None:
        """Keep `request` among the rejects for the reason `why`, as something that cannot be read, and `position`."""

    @abstractmethod
    async def move(self, position: tuple[str, str]) -> None:
        """Keep `position` alone."""


CONTRACT = 1
"""The number of the contract between the host and an adapter: of `Channel`, the events and the hooks.

It rises when an adapter that was right would no longer be. The host takes this one and the one before.
"""


class Channel(ABC):
    """One conversational surface. Subclass it, set the class attributes, write `parse`; add `build` if it can answer.

    `verify` and `parse` are pure functions of the settings and the request: no network, no clock, no database.
    An instance is one configured channel: `name` is what the configuration calls it, `config` its settings, an
    instance of the attrs class `settings`. `kinds` are the kinds of identifier that come with it: the platform's own
    ids of people, as `MessagingId("desk_person")`. Leave the `id` of hints empty: the hub makes it from channel and
    external id. `contract` is the number of the contract that it was written for, `CONTRACT` of that day: write the
    number itself, since the constant would follow the host.
    """

    contract: ClassVar[int] = 1  # of a class that names none
    type: ClassVar[str]
    settings: ClassVar[builtins.type]
    kinds: ClassVar[tuple[IdentifierKind, ...]] = ()
    can: ClassVar[Capabilities] = Capabilities()  # an instance may have its own, where its settings decide

    def __init__(self, name: str, config: Any) -> None:  # noqa: ANN401  (an instance of `settings`)
        self.name = name
        self.config = config

    def __repr__(self) -> str:
        return f"<{self.type} channel {self.name!r}>"

    @property
    def is_webhook(self) -> bool:
        """Say whether it takes requests over HTTP by itself; where not, it is left to the chat widget."""
        return True

    @property
    def body_bytes(self) -> int:
        """Give how large a request may be, where it may be larger than the app takes by default; else 0."""
        return 0

    @property
    def addresses(self) -> tuple[str, ...]:
        """Give the addresses that it takes mail at; none, as mostly, where it takes none."""
        return ()

    @property
    def listens(self) -> bool:
        """Say whether it fetches requests by itself, with `listen`, instead of being sent them."""
        return False

    @property
    def widget(self) -> Widget | None:
        """Give how the chat widget shows this channel; None, as mostly, where it does not."""
        return None

    @property
    def follow_up(self) -> str:
        """Give the name of the e-mail channel by which its visitors are answered when they are gone; empty: none."""
        return ""

    @property
    def forms(self) -> Mapping[str, Form]:
        """Give the forms that its bot automation can ask for, by name."""
        return {}

    @property
    def bot(self) -> Flow | None:
        """Give the bot automation that talks to its visitors, if any."""
        return None

    def wants(self, request: Request) -> Sequence[str]:  # noqa: ARG002  (for those who override it)
        """Give the addresses of what `verify` and `parse` need besides, such as a certificate or a stored mail.

        Those of one place that the settings or the platform's documentation name, and of no other: the request is not
        verified yet. They are fetched before, and stand in `request.fetched`. It is asked again with what was fetched
        until it wants nothing more, so that what only an authentic request may lead to can wait for the certificate.
        Raises nothing: of what cannot be read, it wants nothing.
        """
        return ()

    def verify(self, request: Request) -> None:  # noqa: B027  (a channel with nothing to verify says so in `can`)
        """Raise `Forbidden` where the request is not authentic. Fail closed, compare in constant time."""

    @abstractmethod
    def parse(self, request: Request) -> Sequence[Event]:
        """Give the events that the request holds, in order; raise `ParseError`, and nothing else, on garbage."""

    def trim(self, event: MessageReceived, answered: str) -> MessageReceived:  # noqa: ARG002  (for those who override it)
        """Give `event`, which answers a message of ours with the text `answered`, without what it repeats of that.

        Pure, in linear time; what is left out stays in `detail`, and a message never becomes empty by it.
        """
        return event

    def challenge(self, request: Request) -> Response | None:  # noqa: ARG002  (for those who override it)
        """Answer the platform's set-up handshake, or give None where the request is none."""
        return None

    def answer(self, events: Sequence[Event]) -> Response:  # noqa: ARG002  (for those who override it)
        """Give what the sender is told once `events` are committed: an empty 200, unless the platform wants more."""
        return Response()

    def automatic_answer(self, event: MessageReceived) -> AutomaticAnswer | None:  # noqa: ARG002  (as above)
        """Give what whoever wrote `event` is told at once, or None where nobody may be, as mostly.

        Pure: the hub keeps how often somebody is told, and asks for no message that is automatic, old or in review.
        """
        return None

    async def listen(self, feed: Feed) -> None:  # noqa: ARG002  (for those who override it)
        """Hand what comes in from a source that sends no requests, such as a mailbox, to `feed`, until cancelled.

        It runs in one process at a time, mostly: what two hear is told apart by external ids. It raises
        `TransientError` where it is to be started again soon, and `ConfigError` or `PermanentError` where somebody
        has to act first, so that it is started again seldom. Whatever blocks belongs in a thread.
        """
        raise UnsupportedError(f"channel {self.name!r} of type {self.type!r} does not listen: it is sent its requests")

    def outbound_id(self, token: str) -> str:
        """Give the external id of a message that is to be sent, before it is; the platform's own comes as well."""
        return f"out/{token}"

    def parts(self, message: Outbound) -> Sequence[Outbound]:
        """Give the messages, in order, as which the platform takes `message`: see `parts_of`, by what it `can`."""
        return parts_of(message, self.can)

    def build(self, message: Outbound) -> httpx.Request:
        """Give the HTTP request that delivers `message`, a part.

        Raises `PermanentError` where the platform would not take it, with what to do about it.
        """
        raise UnsupportedError(
            f"channel {self.name!r} of type {self.type!r} cannot answer: {message.to} was not written to"
        )

    def interpret(self, response: httpx.Response) -> Receipt:
        """Read the platform's answer: a receipt, or `TransientError` or `PermanentError` with its code.

        It reads the answers to `subscribe` as well: one that succeeds names no message, and is a receipt all the same.
        """
        raise UnsupportedError(f"channel {self.name!r} of type {self.type!r} cannot answer, so {response!r} is not its")

    async def send(self, message: Outbound, client: httpx.AsyncClient) -> Receipt:
        """Deliver `message`, a part, with a request by `client`; a transport that is not HTTP overrides it.

        Raises `TransientError` where it can be tried again, `UncertainError` where nobody knows whether it arrived,
        and `PermanentError` where trying again is no use; what httpx raises is told apart by who calls this.
        """
        return self.interpret(await self.exchange(message, client))

    async def exchange(self, message: Outbound, client: httpx.AsyncClient) -> httpx.Response:
        """Give the platform's answer to the request that delivers `message`: for a `send` that has to look at it."""
        request = self.build(message)
        # A request that the client did not make has none of its time-outs, and would wait for ever.
        request.extensions = {"timeout": client.timeout.as_dict(), **request.extensions}
        # Whatever the client does else: a redirect would take the message and its secrets to anywhere.
        return await client.send(request, follow_redirects=False)

    async def close(self) -> None:  # noqa: B027  (most channels keep nothing)
        """Give back what it keeps open from one `send` to the next, such as connections; it may be used again."""

    def profile_request(self, who: Identifier) -> httpx.Request | None:  # noqa: ARG002  (for those who override it)
        """Give the request that asks the platform who `who` is; None where it cannot tell of such an identifier."""
        return None

    def profile(
        self,
        who: Identifier,  # noqa: ARG002  (for those who override it)
        response: httpx.Response,  # noqa: ARG002  (as above)
        *,
        at: datetime,  # noqa: ARG002  (as above)
    ) -> IdentityHint | None:
        """Read the answer to `profile_request`, of the moment `at`: traits at CHANNEL trust; None for no news.

        A name that stands for nobody ("Facebook User") is none. Leave the hint's `id` empty. Raises `TransientError`
        where it can be asked again, and `PermanentError` where somebody has to act first.
        """
        return None

    def checks(self) -> Sequence[httpx.Request]:
        """Give the requests that find out whether the platform is set up for this channel; none, where it cannot."""
        return ()

    def judge(self, responses: Sequence[httpx.Response]) -> Sequence[Check]:  # noqa: ARG002  (for those who override it)
        """Give what is right and what is not, by the answers to `checks`; no secret is in it."""
        return ()

    def subscribe(self, callback: str = "") -> Sequence[httpx.Request]:  # noqa: ARG002  (for those who override it)
        """Give the requests that let the platform send its webhooks, to the address `callback` where that is given."""
        return ()
