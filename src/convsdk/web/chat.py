"""What visitors can do and see through the chat widget. Nothing here knows of HTTP; methods block, for a thread.

A visitor reads what their own session wrote or received; after a proven identification also the verified
conversations of their contact; after one that is only claimed nothing more (rule 11). No answer tells whether an
address is known.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Annotated, Any, Literal

import msgspec
from attrs import asdict, evolve, field, frozen
from msgspec import Meta

from convsdk.core.bot import BotState, Expects, expects
from convsdk.core.events import Event, FormRejected, Identified, MessageReceived, Noted
from convsdk.core.fold import Policy
from convsdk.core.inbox import Filing
from convsdk.core.model import Attachment, Direction, IdentityHint, Message, Trust
from convsdk.core.ports import Channel, Clock, Request
from convsdk.core.profile import Reach
from convsdk.desk import Received
from convsdk.errors import NotFound, ParseError, UnsupportedError
from convsdk.hub import Hub
from convsdk.web.files import File, Files
from convsdk.web.visitors import Session, Visitors

_PAGE = 50
_MOST_CONVERSATIONS = 50
_LAST_CHARACTERS = 200
# A page says who is there whenever it is loaded: the same thing is not written down each time.
_FRESH = timedelta(hours=1)
_SHOWN = {Direction.INBOUND, Direction.OUTBOUND}  # notes and lines are for staff
FILE = "file:"
"""Begins the address of an attachment that is kept here."""

_Id = Annotated[str, Meta(min_length=1, max_length=200)]
_Name = Annotated[str, Meta(max_length=255)]
_Value = Annotated[str, Meta(max_length=320)]

Receive = Callable[[str, Sequence[Event]], tuple[Received, ...]]


@frozen(kw_only=True)
class Visit:
    """A browser as it comes: the token that it has, and the session that this opens, if any."""

    channel: Channel
    token: str = field(default="", repr=False)
    session: Session | None = None


@frozen(kw_only=True)
class Said:
    """A message as the widget sends it: `id` is the browser's own, the same when it tries again.

    `attachments` are ids of files that it uploaded. `block` is the block of the bot automation that it answers, and
    `choice` the value of the button that was pressed.
    """

    id: _Id
    text: Annotated[str, Meta(max_length=10_000)] = ""
    attachments: Annotated[tuple[_Id, ...], Meta(max_length=20)] = ()
    block: _Name = ""
    choice: _Name = ""


@frozen(kw_only=True)
class Submitted:
    """A form as the widget sends it, with the values by field."""

    id: _Id
    form: _Name = ""
    block: _Name = ""
    fields: Annotated[dict[str, Any], Meta(max_length=50)]


@frozen(kw_only=True)
class Introduced:
    """What a page says of its visitor, and what proves it; the channel for identification says what each means."""

    id: _Id
    email: _Value | None = None
    external_id: _Value | None = None
    phone: _Value | None = None
    name: _Value | None = None
    company: _Value | None = None
    traits: Annotated[dict[_Name, _Value], Meta(max_length=50)] = field(factory=dict)
    token: Annotated[str, Meta(max_length=8192)] | None = field(default=None, repr=False)
    signature: _Value | None = field(default=None, repr=False)
    expires: int | None = None


@frozen(kw_only=True)
class Seen:
    """A message as its visitor sees it. `client_id` is the id that this browser gave it.

    `is_mail`: it went by e-mail, or came so.
    """

    id: int
    client_id: str | None
    sender: Literal["visitor", "agent", "bot"]
    by: str | None
    at: datetime
    text: str
    attachments: tuple[Attachment, ...]
    detail: Mapping[str, Any] | None
    is_mail: bool = False


@frozen(kw_only=True)
class History:
    """Some messages of a conversation, the oldest first, and whether there are more on the side that was asked for."""

    conversation: int | None
    messages: tuple[Seen, ...] = ()
    has_more: bool = False


@frozen(kw_only=True)
class Entry:
    """A conversation in the list of those that a visitor may read."""

    filing: Filing
    is_own: bool
    unread: int
    last: str


class Chat:
    """The chat of one hub's visitors. `receive` keeps events, `clock` gives the present moment."""

    def __init__(self, hub: Hub, *, receive: Receive, files: Files, clock: Clock) -> None:
        self.visitors = Visitors(hub, clock=clock)
        self._hub = hub
        self._receive = receive
        self._files = files
        self._clock = clock

    def now(self) -> datetime:
        """Give the present moment."""
        return self._clock()

    def visit(self, channel: Channel, token: str) -> Visit:
        """Give the visit of a browser with that token."""
        session = self.visitors.find(channel.name, token) if token else None
        return Visit(channel=channel, token=token if session else "", session=session)

    def begin(self, visit: Visit) -> Visit:
        """Give the visit with a session: its own, or a new one."""
        if visit.session:
            return visit
        token, session = self.visitors.make(visit.channel.name)
        return evolve(visit, token=token, session=session)

    # -- what a visitor does

    def open(self, visit: Visit) -> None:
        """Say that the visitor opened the chat. Where a bot automation begins with that, it does."""
        session = _session(visit)
        if visit.channel.bot is None or visit.channel.bot.trigger.on != "open":
            return
        if not self._threads(session):
            self._take(visit, "open", {"id": "opened"})

    def say(self, visit: Visit, said: Said) -> None:
        """Keep what the visitor wrote.

        Raises `ParseError` where it cannot be read, and `NotFound` where an attachment was not uploaded by them.
        """
        files = [self._own_file(visit, number) for number in said.attachments]
        described = [{"name": one.name, "media_type": one.media_type, "size": one.size} for one in files]
        # Before the message: one that is kept shall not lose what came with it, where this program ends in between.
        files = [self._files.send(one) for one in files]
        received = self._take(visit, "message", {**asdict(said), "attachments": described}, files=files)
        kept = self._hub.store.hint(self._hub.workspace, received.decision.hint) if files else None
        if kept and kept.conversation is not None:  # of the first try, where this is another
            for file in files:
                self._files.place(file, kept.conversation)

    def submit(self, visit: Visit, submitted: Submitted) -> FormRejected | None:
        """Keep a form that the visitor filled in; give what is wrong with it, if anything."""
        event = self._take(visit, "form", asdict(submitted, recurse=False)).event
        return event if isinstance(event, FormRejected) else None

    def identify(self, visit: Visit, said: Introduced) -> Visit:
        """Take what the page says of who is there, and give the visit as it is from now on.

        A proof gives the browser a new token, so that whoever knew the old one reads nothing of what comes. Somebody
        else than before is a new visitor, who sees nothing of the one before.
        """
        session = _session(visit)
        event = self._identification(visit, said)
        if _is_known(session, event.hint, self._clock()):
            return visit
        if _is_somebody_else(session, event.hint, self._hub.policy):
            self.visitors.end(visit.channel.name, visit.token)
            visit = self.begin(evolve(visit, token="", session=None))
            session = _session(visit)
        hint = evolve(event.hint, visitor=session.visitor)
        (received,) = self._receive(visit.channel.name, [evolve(event, hint=hint, thread=session.visitor)])
        key = received.decision.hint
        # An id that comes again is the hint that came with it first, whatever is said under it now.
        is_proof = _is_proof(hint) and self._hub.access(key).reach is Reach.CONTACT
        change = partial(_introduce, hint=hint, proof=key if is_proof else "")
        if not is_proof:
            changed = self.visitors.change(visit.channel.name, visit.token, change)
            return evolve(visit, session=changed or session)
        token, session = self.visitors.rotate(visit.channel.name, visit.token, change) or (visit.token, session)
        return evolve(visit, token=token, session=session)

    def _identification(self, visit: Visit, said: Introduced) -> Identified:
        widget = visit.channel.widget
        if widget is None or not widget.identify:
            raise UnsupportedError(f"channel {visit.channel.name!r} takes no identification: set its widget's identify")
        reader = self._hub.channel(widget.identify)
        # A token is made for the name that the page knows, which nobody can write under.
        given = {name: value for name, value in asdict(said).items() if value is not None}
        named = {name: given.pop(name) for name in ("name", "company") if name in given}
        traits = {**named, **given.pop("traits", {})}
        events = self._parse(reader, {**given, "traits": traits, "visitor": _session(visit).public})
        found = next((one for one in events if isinstance(one, Identified)), None)
        if found is None:
            raise ParseError(f"channel {reader.name!r} gave no identification")
        # It is kept under the chat's name, since it also says whose the conversation there is.
        return evolve(found, external_id=f"{reader.name}/{found.external_id}")

    def reset(self, visit: Visit) -> None:
        """End the session: the visitor logged out, or wants nothing kept."""
        if visit.session:
            self.visitors.end(visit.channel.name, visit.token)

    def read(self, visit: Visit, conversation: int, message: int) -> None:
        """Remember that the visitor has seen a conversation up to a message."""
        session = _session(visit)
        if session.read.get(conversation, 0) < message and conversation in self.readable(session):
            change = partial(_see, conversation=conversation, message=message)
            self.visitors.change(visit.channel.name, visit.token, change)

    # -- what a visitor sees

    def current(self, visit: Visit) -> int | None:
        """Give the conversation that the visitor writes in."""
        threads = self._threads(visit.session) if visit.session else []
        newest = max(threads, key=lambda one: (one.last_at, one.id), default=None)
        return newest.id if newest else None

    def readable(self, session: Session) -> dict[int, bool]:
        """Give the conversations that a session may read, and whether each is its own."""
        found = {one.id: True for one in self._threads(session)}
        if session.is_proven(self._clock()):
            readable = self._hub.access(session.proof).readable
            found |= {one: False for one in readable if one not in found}
        return found

    def entries(self, visit: Visit) -> list[Entry]:
        """Give the conversations that the visitor may read, the newest first."""
        session = _session(visit)
        readable = self.readable(session)
        newest = sorted(readable, reverse=True)[:_MOST_CONVERSATIONS]
        entries = [self._entry(session, number, is_own=readable[number]) for number in newest]
        return sorted(entries, key=lambda one: (one.filing.last_at, one.filing.id), reverse=True)

    def _entry(self, session: Session, number: int, *, is_own: bool) -> Entry:
        shown = [one for one in self._hub.messages(number) if one.direction in _SHOWN]
        return Entry(
            filing=self._hub.conversation(number).filing,
            is_own=is_own,
            unread=_unread(shown, session.read.get(number, 0)),
            last=shown[0].text[:_LAST_CHARACTERS] if shown else "",
        )

    def unread(self, visit: Visit) -> int:
        """Give how many messages of the visitor's own conversations were not seen."""
        session = _session(visit)
        return sum(_unread(self._hub.messages(one.id), session.read.get(one.id, 0)) for one in self._threads(session))

    def history(
        self, visit: Visit, conversation: int | None, *, before: int | None = None, after: int | None = None
    ) -> History:
        """Give messages of a conversation (None: the one that the visitor writes in).

        Raises `NotFound` for one that the visitor may not read, as for one that is not there.
        """
        session = _session(visit)
        number = self.current(visit) if conversation is None else conversation
        if number is None:
            return History(conversation=None)
        readable = self.readable(session)
        if number not in readable:
            raise NotFound(f"no conversation {number} for this visitor: list those that there are")
        page = self._hub.messages(number, before=before, after=after, limit=_PAGE)
        while page.next is not None and not any(one.direction in _SHOWN for one in page):  # all of it is for staff
            before, after = (page.next, None) if after is None else (None, page.next)
            page = self._hub.messages(number, before=before, after=after, limit=_PAGE)
        shown = [one for one in page if one.direction in _SHOWN]
        return History(
            conversation=number,
            messages=tuple(self._seen(one, is_own=readable[number]) for one in reversed(shown)),
            has_more=page.next is not None,
        )

    def _seen(self, message: Message, *, is_own: bool) -> Seen:
        channel = self._hub.channels.get(message.channel)
        return _seen(message, is_own=is_own, is_mail=bool(channel and channel.addresses))

    def expects(self, visit: Visit, conversation: int | None) -> Expects | None:
        """Give what the bot automation waits for in a conversation, if it does."""
        filing = next((one for one in self._threads(_session(visit)) if one.id == conversation), None)
        if filing is None or filing.assignee or not filing.bot or visit.channel.bot is None:
            return None
        return expects(visit.channel.bot, msgspec.json.decode(filing.bot, type=BotState))

    def file(self, visit: Visit, number: str) -> File:
        """Give an attachment that the visitor may read; raise `NotFound` for every other."""
        session = _session(visit)
        file = self._files.find(number)
        is_here = file is not None and file.channel in self._hub.channels  # another hub's conversations have ids too
        if file and is_here and (file.visitor == session.visitor or file.conversation in self.readable(session)):
            return file
        raise NotFound(f"no file {number!r} for this visitor")

    # -- inside

    def _threads(self, session: Session) -> list[Filing]:
        return self._hub.store.thread(self._hub.workspace, session.channel, session.visitor, limit=_MOST_CONVERSATIONS)

    def _take(self, visit: Visit, kind: str, said: Mapping[str, Any], *, files: Sequence[File] = ()) -> Received:
        session = _session(visit)
        whose = {"visitor": session.visitor, "conversation": session.visitor}
        event = next(iter(self._parse(visit.channel, {**said, **whose, "type": kind})), None)
        if not isinstance(event, MessageReceived | Identified | FormRejected | Noted) or event.hint is None:
            raise ParseError(f"channel {visit.channel.name!r} cannot read a {kind} of its widget")
        event = evolve(event, hint=session.speaks(event.hint))
        if isinstance(event, MessageReceived):
            event = evolve(event, attachments=tuple(map(_attachment, files)))
        (received,) = self._receive(visit.channel.name, [event])
        return received

    def _parse(self, channel: Channel, said: Mapping[str, Any]) -> Sequence[Event]:
        # The channel reads what a visitor says, as it does what comes by its webhook: there is one reader of it.
        return channel.parse(Request(received_at=self._clock(), body=msgspec.json.encode(said)))

    def _own_file(self, visit: Visit, number: str) -> File:
        file = self._files.find(number)
        if file is None or (file.channel, file.visitor) != (visit.channel.name, _session(visit).visitor):
            raise NotFound(f"no file {number!r} of this visitor: upload it first")
        return file


def _session(visit: Visit) -> Session:
    if visit.session is None:
        raise NotFound("this browser has no session: open the chat first")
    return visit.session


def _is_proof(hint: IdentityHint) -> bool:
    return any(one.trust is Trust.PROVEN for one in hint.identifiers)


def _is_known(session: Session, hint: IdentityHint, at: datetime) -> bool:
    """Say whether a page says what is known of its visitor already, and proves no more than was proven just now."""
    if _is_proof(hint) and (session.proven_at is None or at >= session.proven_at + _FRESH):
        return False
    return (session.claims, session.traits) == (hint.identifiers, hint.traits)


def _is_somebody_else(session: Session, hint: IdentityHint, policy: Policy) -> bool:
    before, now = ({one.kind: policy.canonical(one) for one in claims} for claims in (session.claims, hint.identifiers))
    common = next((kind for kind in ("external_id", "email", "phone") if kind in before and kind in now), None)
    return common is not None and before[common] != now[common]


def _introduce(session: Session, *, hint: IdentityHint, proof: str) -> Session:
    """Give the session as it knows what its page says; a claim takes nothing from what was proven."""
    if proof:
        return evolve(session, claims=hint.identifiers, traits=hint.traits, proof=proof, proven_at=hint.at)
    return session if session.is_proven(hint.at) else evolve(session, claims=hint.identifiers, traits=hint.traits)


def _see(session: Session, *, conversation: int, message: int) -> Session:
    # Another tab may have come further meanwhile.
    return evolve(session, read=session.read | {conversation: max(message, session.read.get(conversation, 0))})


def _attachment(file: File) -> Attachment:
    return Attachment(name=file.name, media_type=file.media_type, size=file.size, url=FILE + file.id)


def _unread(messages: Iterable[Message], seen: int) -> int:
    return sum(one.direction is Direction.OUTBOUND and one.id > seen for one in messages)


def _seen(message: Message, *, is_own: bool, is_mail: bool) -> Seen:
    is_inbound = message.direction is Direction.INBOUND
    # What a channel told of an inbound message is for staff.
    detail = {} if is_inbound else message.detail or {}
    is_bot = "block" in detail
    return Seen(
        id=message.id,
        client_id=message.external_id.rpartition("/")[0] if is_own and is_inbound and not is_mail else None,
        sender="visitor" if is_inbound else "bot" if is_bot else "agent",
        by=detail.get("by"),
        at=message.at,
        text=message.text,
        attachments=message.attachments,
        detail=detail if is_bot else None,
        is_mail=is_mail,
    )
