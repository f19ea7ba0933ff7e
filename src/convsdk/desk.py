"""What becomes of the events of one transaction: whose each is, its conversation, and what is to be written."""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

from attrs import evolve, frozen

from convsdk.automatic import AutomaticAnswers
from convsdk.core.consent import (
    ConsentRecord,
    state_of,
)
from convsdk.core.events import (
    ConsentSignalled,
    DeliveryStatus,
    Event,
    FormRejected,
    Identified,
    MessageReceived,
    Noted,
    Notice,
    StatusChanged,
)
from convsdk.core.fold import Evidence, Policy
from convsdk.core.inbox import ConversationStatus, Filing, choose
from convsdk.core.model import (
    Decision,
    Direction,
    Identifier,
    IdentityHint,
    Message,
    Outcome,
    Trust,
)
from convsdk.core.profile import TraitClaim
from convsdk.core.resolver import Known, decide
from convsdk.core.storage import Batch, HintRecord, ThreadQuery, Transaction
from convsdk.replies import Bots, run_bot
from convsdk.reports import Reports

# A hint's id takes 512 characters, the channel's name among them; a Message-ID can have more.
_LONGEST_EXTERNAL_ID = 255
_MOST_RELATED = 10

Stored = Mapping[tuple[str, str], Message]
"""Messages by channel and external id."""


@frozen(kw_only=True)
class Arrival:
    """An event, ready to be taken in: its hint, what that attests, and which conversations it could belong to."""

    channel: str
    event: Event
    hint: IdentityHint
    evidence: Evidence
    query: ThreadQuery | None


@frozen(kw_only=True)
class Received:
    """What became of one event: what was decided about its person, and the conversation that it is in."""

    event: Event
    decision: Decision
    conversation: int | None


def hint_of(channel: str, event: Event) -> IdentityHint:
    """Give the hint of an event, under an id that is the same at every delivery.

    An event without a person gets an empty hint, which makes its redelivery known.
    """
    external_id = event.external_id
    if len(external_id) > _LONGEST_EXTERNAL_ID:
        external_id = f"sha256:{hashlib.sha256(external_id.encode()).hexdigest()}"
    said = _said(event)
    # Written out: `evolve` takes twice as long, and this runs once for every event.
    return IdentityHint(
        id=f"{channel}/{external_id}",
        at=said.at,
        identifiers=said.identifiers,
        visitor=said.visitor,
        traits=said.traits,
        consents=said.consents,
        may_create=said.may_create,
        how=said.how,
        by=said.by,
    )


def _said(event: Event) -> IdentityHint:
    if isinstance(event, StatusChanged):
        return IdentityHint(at=event.at, may_create=False)
    if isinstance(event, ConsentSignalled):
        return IdentityHint(at=event.at, identifiers=(event.signal.claim,), consents=(event.signal,), may_create=False)
    if isinstance(event, Noted) and event.hint is None:
        return IdentityHint(at=event.at, may_create=False)
    assert event.hint is not None  # noqa: S101  (for the type checker: every other event has one)
    return event.hint


def told_apart(event: MessageReceived) -> MessageReceived:
    """Give a message whose id another one has already as a second one, flagged."""
    external_id = f"{event.external_id}#{event.fingerprint[:16]}"
    return evolve(event, external_id=external_id, detail=event.detail | {"same_id_as": event.external_id})


def is_another(event: Event, first: Message | MessageReceived | Noted | None) -> bool:
    """Say whether an event is another message than `first`, which has its id. Our own, come back, is none."""
    if first is None or not isinstance(event, MessageReceived) or not event.fingerprint:
        return False
    if isinstance(first, Noted) or (isinstance(first, Message) and first.direction is Direction.LINE):
        return True
    if isinstance(first, MessageReceived):
        return event.fingerprint != first.fingerprint
    if first.direction is Direction.OUTBOUND:
        return not event.is_automatic
    return bool(event.fingerprint != (first.detail or {}).get("fingerprint", event.fingerprint))


def consent_changed(record: ConsentRecord, *, id: int) -> Notice:  # noqa: A002  (the field's name)
    """Give the notice that tells of a consent record."""
    payload = {"identifier": str(record.identifier), "purpose": record.purpose, "state": record.state.value}
    return Notice(id=id, type="consent.changed", at=record.at, payload=payload)


def thread_query(channel: str, event: Event, evidence: Evidence) -> ThreadQuery | None:
    """Give the question which conversations an event could belong to; None where it belongs to none."""
    if isinstance(event, ConsentSignalled):
        return None
    if isinstance(event, StatusChanged):
        return _query_of_report(channel, event)
    thread = event.thread or str(evidence.anchor or evidence.visitor or event.external_id)
    references = event.references if isinstance(event, MessageReceived | Noted) else ()
    return ThreadQuery(channel=channel, thread=thread, references=references)


def _query_of_report(channel: str, event: StatusChanged) -> ThreadQuery | None:
    """Ask for the conversations of the messages that a report is about, where it has to be about whom they went to."""
    if event.unreachable is None or event.unreachable.trust > Trust.ASSERTED or not event.messages:
        return None
    return ThreadQuery(channel=channel, thread=event.external_id, references=event.messages)


class Desk:
    """Takes the events of one transaction, one after the other, and gathers what is to be written."""

    def __init__(
        self,
        transaction: Transaction,
        policy: Policy,
        known: Known,
        bots: Bots | None = None,
        reports: Reports | None = None,
        *,
        answers: AutomaticAnswers | None = None,
    ) -> None:
        self.batch = Batch()
        self._answers = answers
        self._reports = reports
        self._policy = policy
        self._bots = bots or Bots()
        self._known = known
        self._stored: Stored = reports.stored if reports else {}
        self._ids = transaction.new_ids()
        self._by_message: dict[tuple[str, str], int] = {}
        self._opened: dict[tuple[str, str], list[int]] = {}

    def take(self, arrival: Arrival, candidates: Sequence[tuple[str, Filing]]) -> Received:
        event, evidence = arrival.event, arrival.evidence
        if evidence.hint in self._known.decisions:
            return Received(event=event, decision=self._known.decisions[evidence.hint].as_replayed(), conversation=None)
        if self._reports and isinstance(event, MessageReceived):
            ours = self._reports.echo(arrival.channel, event, self.batch, self._ids)
            if ours and event.direction is Direction.OUTBOUND:
                decision = self.decide(arrival.hint, evidence, arrival.channel, ours.conversation)
                return Received(event=event, decision=decision, conversation=ours.conversation)
        if (ours := self._stored.get((arrival.channel, event.external_id))) and ours.direction is Direction.OUTBOUND:
            decision = Decision(hint=evidence.hint, outcome=Outcome.DUPLICATE)
            return Received(event=event, decision=decision, conversation=ours.conversation)
        filing = self._file(arrival, candidates)
        decision = self.decide(arrival.hint, evidence, arrival.channel, filing.id if filing else None)
        if filing and isinstance(event, MessageReceived):
            told = {"conversation": filing.id, "direction": event.direction.value}
            self._notify("message.received", event.at, **told, **_doubt(event))
        # What comes by mail says nothing to the bot of a chat.
        if filing and filing.channel == arrival.channel and self._bots.flows and not _doubt(event):
            run_bot(self._bots, event, filing, evidence, decision.contact, batch=self.batch, ids=self._ids)
        if filing and self._answers:
            self._answers.give(evidence, self.batch.filings[filing.id], self.batch, self._ids)
        return Received(event=event, decision=decision, conversation=filing.id if filing else None)

    def decide(
        self, hint: IdentityHint, evidence: Evidence, channel: str = "", conversation: int | None = None
    ) -> Decision:
        decision, changes = decide(evidence, self._known, self._policy, self._ids, how=hint.how)
        if decision.outcome is Outcome.DUPLICATE:
            return decision
        self._known.decisions[evidence.hint] = decision
        self._known.apply(changes)
        self.batch.changes.holdings.update(changes.holdings)
        self.batch.changes.roots.update(changes.roots)
        self.batch.changes.contacts += changes.contacts
        self.batch.hints.append(
            HintRecord(
                evidence=evidence,
                decision=decision,
                channel=channel,
                how=hint.how,
                by=hint.by or "",
                conversation=conversation,
            )
        )
        self._keep_traits(hint, evidence)
        self._keep_consents(hint, evidence, channel)
        self._tell(hint, decision, {one.id for one in changes.contacts})
        return decision

    def _keep_traits(self, hint: IdentityHint, evidence: Evidence) -> None:
        about = evidence.anchor or evidence.visitor
        if about:
            self.batch.traits += [
                TraitClaim(
                    identifier=about, name=one.name, value=one.value, trust=one.trust, at=hint.at, hint=evidence.hint
                )
                for one in hint.traits
                if one.value.strip()
            ]

    def _keep_consents(self, hint: IdentityHint, evidence: Evidence, channel: str) -> None:
        for signal in hint.consents:
            identifier = self._policy.canonical(signal.claim)
            if identifier is None:
                continue
            record = ConsentRecord(
                identifier=identifier,
                purpose=signal.purpose,
                state=state_of(signal, signal.claim.trust),
                at=hint.at,
                hint=evidence.hint,
                trust=signal.claim.trust,
                by=hint.by or "",
                where=channel,
                wording=signal.wording,
                wording_version=signal.wording_version,
            )
            self.batch.consents.append(record)
            self.batch.notices.append(consent_changed(record, id=next(self._ids)))

    def _tell(self, hint: IdentityHint, decision: Decision, created: Collection[int]) -> None:
        if decision.outcome is Outcome.CREATED or decision.contact in created:
            self._notify("contact.created", hint.at, contact=decision.contact, how=hint.how)
        if decision.outcome is Outcome.LINKED:
            self._notify("contact.identified", hint.at, contact=decision.contact, hint=decision.hint)
        for absorbed in decision.absorbed:
            self._notify("contact.merged", hint.at, contact=decision.contact, former=absorbed, because=decision.hint)
        for first, second in decision.suggested:
            self._notify("suggestion.opened", hint.at, identifiers=[first, second], because=decision.hint)

    def _file(self, arrival: Arrival, candidates: Sequence[tuple[str, Filing]]) -> Filing | None:
        event, evidence, query = arrival.event, arrival.evidence, arrival.query
        if isinstance(event, StatusChanged):
            if self._reports:
                told = [one for reference, one in candidates if reference]
                self._reports.take(arrival.channel, event, told, self.batch, self._ids)
            return None
        if query is None or isinstance(event, ConsentSignalled):
            return None
        answered, threaded = self._candidates(query, candidates)
        filing = self._choose(event, evidence, answered, threaded)
        if isinstance(event, Identified):
            return self._name(filing, evidence) if filing else None
        related = [] if filing in answered else list(dict.fromkeys(one.id for one in answered))[:_MOST_RELATED]
        if filing is None:
            filing = self._open(event, evidence, query)
        return self._write_message(event, evidence, filing, related, query.channel)

    def _choose(
        self, event: Event, evidence: Evidence, answered: Sequence[Filing], threaded: Sequence[Filing]
    ) -> Filing | None:
        if _doubt(event):
            return None
        if isinstance(event, Noted) and event.references:
            # A report is about a message of ours, whoever sends it: nobody's answer is one.
            return next((one for one in answered if one.id in self._conversations_of(event.references)), None)
        return choose(answered, threaded, evidence)

    def _conversations_of(self, references: Collection[str]) -> set[int]:
        """Give the conversations in which we sent any of the messages `references`."""
        return {
            one.conversation
            for (_, name), one in self._stored.items()
            if name in references and one.direction is Direction.OUTBOUND
        }

    def _candidates(
        self, query: ThreadQuery, stored: Sequence[tuple[str, Filing]]
    ) -> tuple[list[Filing], list[Filing]]:
        """Give `stored` as the events before have left it: what is answered, and the thread, newest first."""
        answering = {reference: one for reference, one in stored if reference}
        for reference in query.references:
            if (number := self._by_message.get((query.channel, reference))) is not None:
                answering[reference] = self.batch.filings[number]
        answered = [answering[reference] for reference in query.references if reference in answering]
        opened = [self.batch.filings[one] for one in reversed(self._opened.get((query.channel, query.thread), ()))]
        threaded = [one for reference, one in stored if not reference]
        return self._as_left(answered), self._as_left((*opened, *threaded))

    def _as_left(self, filings: Sequence[Filing]) -> list[Filing]:
        return [self.batch.filings.get(one.id, one) for one in filings]

    def _name(self, filing: Filing, evidence: Evidence) -> Filing:
        if filing.identifier is None and evidence.anchor is not None:
            filing = evolve(filing, identifier=evidence.anchor, trust=evidence.trust)
            self.batch.filings[filing.id] = filing
        return filing

    def _open(self, event: MessageReceived | FormRejected | Noted, evidence: Evidence, query: ThreadQuery) -> Filing:
        at = evidence.at
        filing = Filing(
            id=next(self._ids),
            channel=query.channel,
            thread=query.thread,
            opened=evidence.moment,
            last_at=at,
            subject=event.subject if isinstance(event, MessageReceived) else "",
            visitor=evidence.visitor,
            status=_first_status(event),
        )
        self._opened.setdefault((query.channel, query.thread), []).append(filing.id)
        self._notify("conversation.opened", at, conversation=filing.id, channel=query.channel, **_doubt(event))
        return filing

    def _write_message(
        self,
        event: MessageReceived | FormRejected | Noted,
        evidence: Evidence,
        filing: Filing,
        related: Sequence[int],
        channel: str,
    ) -> Filing:
        """Write what came by `channel`, which need not be that of the conversation: a chat is answered by mail, too."""
        was_complete = filing.status is ConversationStatus.COMPLETE
        direction = event.direction if isinstance(event, MessageReceived) else Direction.LINE
        filing = filing.with_message(
            evidence,
            evidence.at,
            direction,
            is_automatic=isinstance(event, MessageReceived) and event.is_automatic,
            participants=self._participants(event),
        )
        self.batch.filings[filing.id] = filing
        self._by_message[channel, event.external_id] = filing.id
        if was_complete and filing.messages > 1 and filing.status is ConversationStatus.OPEN:
            self._notify("conversation.reopened", evidence.at, conversation=filing.id)
        message = Message(
            id=next(self._ids),
            conversation=filing.id,
            channel=channel,
            external_id=event.external_id,
            direction=direction,
            at=event.at if isinstance(event, MessageReceived | Noted) else evidence.at,
            text=event.text if isinstance(event, MessageReceived | Noted) else _problems(event),
            html=event.html if isinstance(event, MessageReceived) else "",
            attachments=event.attachments if isinstance(event, MessageReceived) else (),
            status=self._status(event, channel) if isinstance(event, MessageReceived) else "",
            detail=detail_of(event, related),
        )
        self.batch.messages.append(message)
        if self._reports and direction is Direction.OUTBOUND:
            self._reports.know(message)
        return filing

    def _status(self, event: MessageReceived, channel: str) -> str:
        if event.direction is not Direction.OUTBOUND:
            return "received"
        report = self._reports.overtook(channel, event) if self._reports else None
        return (report.status if report else DeliveryStatus.SENT).value

    def end(self) -> Batch:
        """Give all that is to be written."""
        if self._reports:
            self._reports.end(self.batch)
        return self.batch

    def _participants(self, event: Event) -> tuple[Identifier, ...]:
        if not isinstance(event, MessageReceived):
            return ()
        return tuple(one for claim in event.participants if (one := self._policy.canonical(claim)))

    def _notify(self, kind: str, at: datetime, **payload: Any) -> None:  # noqa: ANN401  (plain JSON values)
        self.batch.notices.append(Notice(id=next(self._ids), type=kind, at=at, payload=payload))


def _doubt(event: Event) -> dict[str, str]:
    """Give what tells observers that a person has to look first; nothing, where nobody has to."""
    return {"review": event.review} if isinstance(event, MessageReceived) and event.review else {}


def _first_status(event: Event) -> ConversationStatus:
    if _doubt(event):
        return ConversationStatus.REVIEW
    # What no person did, such as a report about a mail that is not known, is kept, and nobody's work.
    is_work = not isinstance(event, Noted) or event.hint is not None
    return ConversationStatus.OPEN if is_work else ConversationStatus.COMPLETE


def detail_of(event: MessageReceived | FormRejected | Noted, related: Sequence[int]) -> dict[str, Any] | None:
    """Give the detail of an event's message; `related` are the conversations that it answers, and is in none of."""
    if isinstance(event, FormRejected):
        return None
    if isinstance(event, Noted):
        return event.detail | {"noted": event.kind}
    more = {"fingerprint": event.fingerprint, "related": list(related)}
    return event.detail | {key: value for key, value in more.items() if value} or None


def _problems(event: FormRejected) -> str:
    return "form sent back: " + ", ".join(f"{one.field} {one.code}" for one in event.problems)
