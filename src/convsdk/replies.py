"""What is said back in a conversation, by an agent or by its bot automation: as what one transaction writes."""

import base64
import secrets
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any

import msgspec
import structlog
from attrs import evolve, field, frozen

from convsdk.core.bot import BotState, Turn, advance
from convsdk.core.events import AUTOMATION_ENTERED, DeliveryStatus, Event, Identified, MessageReceived, Noted, Notice
from convsdk.core.flow import Effect, Enter, Facts, Flow, Given, HandOver, Learn, Say
from convsdk.core.fold import Evidence
from convsdk.core.inbox import ConversationStatus, Filing
from convsdk.core.model import Attachment, Contact, Direction, IdentityHint, Message, Trust
from convsdk.core.profile import TraitClaim
from convsdk.core.storage import Batch, Delivery, Memo, Transaction
from convsdk.core.ways import Way
from convsdk.errors import Conflict
from convsdk.reports import sent_notice, status_changed, told_of

OPENED = "chat_opened"
"""The kind of `Noted` that says that a visitor opened the chat."""

DUTY = ("duty", "agents")
"""The kind and key of the memo that says who is there to answer."""

_TRAITS = {"account": "company", "name": "name"}
_log = structlog.get_logger(__name__)


@frozen(kw_only=True)
class Bots:
    """The bot automations of a hub's channels, and what they may know of the moment.

    `known` is what the contacts of proven hints have of a form's fields, `how_made` gives how a contact came to be.
    """

    flows: Mapping[str, Flow] = field(factory=dict)
    has_agents: bool = False
    known: Mapping[str, Mapping[str, str]] = field(factory=dict)
    how_made: Callable[[int], str] = field(default=lambda _: "")


def duty_at(memo: Memo | None, at: datetime) -> dict[str, datetime]:
    """Give who is there to answer at a moment, and until when."""
    known = msgspec.json.decode(memo.text, type=dict[str, datetime]) if memo else {}
    return {agent: until for agent, until in known.items() if until > at}


def known_fields(contact: Contact) -> dict[str, str]:
    """Give what a contact has of a form's fields: nothing that was only claimed."""
    held = {one.node.identifier.kind: one.spelling for one in contact.identifiers if one.trust > Trust.ASSERTED}
    described = {
        name: contact.traits[trait].value
        for name, trait in _TRAITS.items()
        if trait in contact.traits and contact.traits[trait].trust > Trust.ASSERTED
    }
    return {name: value for name, value in (held | described).items() if name in {"email", "phone", *_TRAITS}}


@frozen(kw_only=True)
class Said:
    """What is answered in a conversation, and who says it (empty: the channel); with `is_automatic`, no person does."""

    text: str
    by: str = ""
    html: str = ""
    attachments: tuple[Attachment, ...] = ()
    detail: Mapping[str, Any] = field(factory=dict)
    is_automatic: bool = False


def new_token() -> str:
    """Give a token that nobody guesses: 26 characters of a-z and 2-7, which a mail address can hold in any case."""
    return base64.b32encode(secrets.token_bytes(17)).decode().lower()[:26]


def answer(
    filing: Filing,
    said: Said,
    way: Way,
    *,
    at: datetime,
    external_id: str,
    ids: Iterator[int],
    token: str = "",
    batch: Batch | None = None,
) -> Batch:
    """Give what is written, with `batch`, when somebody answers: the first agent who does takes the conversation.

    With a `token` it is queued, to be delivered; without, it is read where it stands.
    """
    talk = Talk(Batch() if batch is None else batch, filing, at=at, ids=ids)
    detail = {**said.detail, **({"by": said.by} if said.by else {})} | _way_detail(filing, way)
    if token:
        detail |= {"token": token} | ({"is_automatic": True} if said.is_automatic else {})
        talk.queue(said, way, external_id=external_id, detail=detail)
    else:
        talk.send(said.text, external_id=external_id, detail=detail, html=said.html, attachments=said.attachments)
    if not said.is_automatic:
        talk.filing = evolve(talk.filing, unread=0)
    if not said.is_automatic and not filing.assignee:
        talk.assign(said.by)
    return talk.end()


def _way_detail(filing: Filing, way: Way) -> dict[str, dict[str, str]]:
    """Give what a message keeps of its way, where there was another."""
    if not way.why:
        return {}
    told = {"channel": way.channel, "why": way.why}
    is_mail = way.to is not None and way.channel != filing.channel
    return {"way": told | ({"to": way.to.value, "address": way.spelling} if is_mail and way.to else {})}


def queue_again(transaction: Transaction, message: Message, at: datetime) -> None:
    """Queue a message that failed once more; its parts that arrived are not sent again."""
    delivery = Delivery(
        message=message.id, conversation=message.conversation, channel=message.channel, due_at=at, put_off_at=at
    )
    is_waiting = bool(transaction.hold([delivery]))
    found = transaction.found([(message.channel, message.external_id)]).get((message.channel, message.external_id))
    if found is None or is_waiting or found.message.status != DeliveryStatus.FAILED.value:
        status = found.message.status if found else "not there"
        raise Conflict(f"message {message.id} has not failed: it is {status!r}, and was not sent again")
    detail = dict(found.message.detail or {})
    delivery = evolve(delivery, parts_done=detail.pop("parts_done", 0))
    detail = {key: value for key, value in detail.items() if key not in {"error", "error_code", "sent_at"}}
    queued = evolve(found.message, status=DeliveryStatus.QUEUED.value, detail=detail)
    notice = status_changed(queued, at, id=next(transaction.new_ids()))
    transaction.write(Batch(revised=[queued], notices=[notice], deliveries={message.id: delivery}))


def reviewed(batch: Batch, filing: Filing, evidence: Evidence, *, by: str, ids: Iterator[int]) -> Batch:
    """Give `batch` with what is written when `by` has said whose a conversation in review is, or nobody's."""
    anchor = evidence.anchor
    filing = evolve(
        filing,
        identifier=anchor,
        trust=evidence.trust if anchor else None,
        status=ConversationStatus.OPEN if anchor else ConversationStatus.COMPLETE,
    )
    talk = Talk(batch, filing, at=evidence.at, ids=ids)
    said = f"attributed to {anchor.value}" if anchor else "dismissed"
    talk.note(f"{said} by {by}", external_id=f"review/{filing.id}")
    talk.notify("conversation.reviewed", by=by)
    return talk.end()


def run_bot(
    bots: Bots,
    event: Event,
    filing: Filing,
    evidence: Evidence,
    contact: int | None,
    *,
    batch: Batch,
    ids: Iterator[int],
) -> None:
    """Let the bot automation of a conversation go on, where an event is one for it, and write what it does."""
    given = _given(event)
    flow = bots.flows.get(filing.channel)
    if given is None or flow is None or filing.assignee:  # people answer: it says no more
        return
    state = msgspec.json.decode(filing.bot, type=BotState) if filing.bot else None
    if state is None and not _is_new(filing):  # it is older than the bot
        return
    facts = Facts(
        at=evidence.at,
        has_agents=bots.has_agents,
        is_known=contact is not None,
        is_proven=evidence.trust is Trust.PROVEN,
        known=bots.known.get(evidence.hint, {}),
    )
    if isinstance(event, Identified):
        filing = _with_form(batch, filing, event.hint, evidence, ids)
    turn = advance(flow, state, given, facts)
    if turn.state is None or turn == Turn(state=state):
        return
    talk = Talk(batch, evolve(filing, bot=msgspec.json.encode(turn.state).decode()), at=evidence.at, ids=ids)
    for number, effect in enumerate(turn.effects):
        _carry_out(talk, effect, evidence, contact, bots, external_id=f"bot/{evidence.hint}/{number}")
    talk.end()


def _with_form(batch: Batch, filing: Filing, hint: IdentityHint, evidence: Evidence, ids: Iterator[int]) -> Filing:
    """Give the conversation with a line that says what was filled in; the values are on the contact."""
    named = dict.fromkeys([*(one.kind for one in hint.identifiers), *(one.name for one in hint.traits)])
    talk = Talk(batch, filing, at=evidence.at, ids=ids)
    talk.note(f"form filled in: {', '.join(named)}", external_id=f"form/{evidence.hint}")
    talk.end()
    return talk.filing


def _is_new(filing: Filing) -> bool:
    """Say whether there is no more than one message, and perhaps a line that says that the chat was opened."""
    return filing.unread <= 1 and filing.messages - filing.unread <= 1


def _given(event: Event) -> Given | None:
    if isinstance(event, MessageReceived) and event.direction is Direction.INBOUND and not event.is_automatic:
        return Given(kind="message", text=event.text, choice=event.choice, block=event.block)
    if isinstance(event, Identified) and event.block:
        return Given(kind="form", block=event.block)
    if isinstance(event, Noted) and event.kind == OPENED:
        return Given(kind="opened")
    return None


def _carry_out(
    talk: "Talk", effect: Effect, evidence: Evidence, contact: int | None, bots: Bots, *, external_id: str
) -> None:
    if isinstance(effect, Say):
        talk.send(effect.text, external_id=external_id, detail=effect.detail)
    elif isinstance(effect, Learn):
        talk.learn(effect, evidence)
    elif isinstance(effect, Enter):
        if contact is not None:
            is_new = any(one.id == contact for one in talk.batch.changes.contacts)
            how = talk.batch.hints[-1].how if is_new else bots.how_made(contact)
            talk.notify(AUTOMATION_ENTERED, automation=effect.automation, contact=contact, how=how)
    elif isinstance(effect, HandOver):
        if effect.reason:
            _log.error("a bot automation gave up", conversation=talk.filing.id, reason=effect.reason)
        talk.notify("conversation.handed_over", to=effect.to)
        if effect.to:
            talk.assign(effect.to)


class Talk:
    """Gathers in `batch` what is said in one conversation at one moment."""

    def __init__(self, batch: Batch, filing: Filing, *, at: datetime, ids: Iterator[int]) -> None:
        self.batch = batch
        self.filing = filing
        self._at = at
        self._ids = ids

    def send(self, text: str, *, external_id: str, detail: dict[str, Any], **fields: Any) -> None:  # noqa: ANN401  (a message's fields)
        sent = DeliveryStatus.SENT.value
        message = self._write(Direction.OUTBOUND, text, external_id=external_id, status=sent, detail=detail, **fields)
        self.batch.notices.append(sent_notice(message, self._at, id=next(self._ids)))

    def queue(self, said: Said, way: Way, *, external_id: str, detail: dict[str, Any]) -> None:
        if way.to is not None and way.channel != self.filing.channel:
            self.filing = self.filing.written_to(way.to)
        message = self._write(
            Direction.OUTBOUND,
            said.text,
            external_id=external_id,
            status=DeliveryStatus.QUEUED.value,
            detail=detail,
            html=said.html,
            attachments=said.attachments,
            channel=way.channel,
        )
        self.notify("message.queued", **told_of(message))
        self.batch.deliveries[message.id] = Delivery(
            message=message.id,
            conversation=self.filing.id,
            channel=way.channel,
            due_at=self._at,
            put_off_at=self._at,
        )

    def assign(self, to: str, *, by: str = "") -> None:
        self.filing = evolve(self.filing, assignee=to)
        who = f" by {by}" if by else ""
        self.line(f"assigned to {to or 'nobody'}{who}", kind="assigned")
        self.notify("conversation.assigned", assignee=to, **({"by": by} if by else {}))

    def line(self, text: str, *, kind: str) -> None:
        """Add a line that says what was done."""
        self.note(text, external_id=f"{kind}/{next(self._ids)}")

    def note(self, text: str, *, external_id: str) -> None:
        """Add a line under an id that makes a second one harmless."""
        self._write(Direction.LINE, text, external_id=external_id)

    def learn(self, said: Learn, evidence: Evidence) -> None:
        about = evidence.anchor or evidence.visitor or self.filing.identifier
        if about is not None:
            claim = TraitClaim(
                identifier=about,
                name=said.trait,
                value=said.value,
                trust=Trust.ASSERTED,
                at=self._at,
                hint=evidence.hint,
            )
            self.batch.traits.append(claim)

    def notify(self, kind: str, **payload: Any) -> None:  # noqa: ANN401  (plain JSON values)
        told = {"conversation": self.filing.id} | payload
        self.batch.notices.append(Notice(id=next(self._ids), type=kind, at=self._at, payload=told))

    def end(self) -> Batch:
        self.batch.filings[self.filing.id] = self.filing
        return self.batch

    def _write(self, direction: Direction, text: str, **fields: Any) -> Message:  # noqa: ANN401  (a message's fields)
        fields = {"channel": self.filing.channel} | fields
        number, conversation = next(self._ids), self.filing.id
        message = Message(id=number, conversation=conversation, direction=direction, at=self._at, text=text, **fields)
        self.batch.messages.append(message)
        last_at = max(self.filing.last_at, self._at)
        self.filing = evolve(self.filing, messages=self.filing.messages + 1, last_at=last_at)
        return message
