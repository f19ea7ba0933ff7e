"""The one entry point: everything a program does with a workspace goes through a `Hub`."""

import secrets
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from attrs import evolve, frozen

from convsdk.archive import Archive, filed
from convsdk.automatic import AutomaticAnswers, due_answer
from convsdk.backfill import BATCH_SIZE, Parcel, Progress, back_fill
from convsdk.core.events import Event, MessageReceived, Noted, Notice
from convsdk.core.explain import sentences
from convsdk.core.fold import Evidence, Moment, Policy, Refusal, fold, weigh
from convsdk.core.inbox import Conversation, ConversationStatus, Filing
from convsdk.core.model import (
    Claim,
    Contact,
    Decision,
    Direction,
    HeldIdentifier,
    Identifier,
    IdentityHint,
    Message,
    Node,
    Page,
    Ruling,
    RulingKind,
    Suggestion,
    Trust,
)
from convsdk.core.ports import Channel, Clock, Request, Response
from convsdk.core.profile import Reach, TraitClaim, reach, shown_traits
from convsdk.core.resolver import Known, NewContact, cookie_contact, needs_history, refold
from convsdk.core.storage import (
    Batch,
    ContactRecord,
    HintRecord,
    Result,
    Store,
    ThreadQuery,
    Transaction,
    Withdrawal,
)
from convsdk.desk import (
    Arrival,
    Desk,
    Received,
    Stored,
    hint_of,
    is_another,
    thread_query,
    told_apart,
)
from convsdk.errors import ConfigError, Conflict, NotFound
from convsdk.inbox import Inbox, call, follow
from convsdk.replies import Bots, known_fields, reviewed
from convsdk.reports import Reports
from convsdk.store import open_store

__all__ = ["MOST_ANSWERED", "Access", "Conversation", "Handled", "Hub", "Preview", "Ruled"]

MOST_ANSWERED = 10
"""How many of a message's references are looked at for what it answers: more of them say no more."""

_Spoken = list[tuple[Moment, int | None]]
"""The visits of a cookie: when, and the contact that each spoke for."""


@frozen(kw_only=True)
class Handled:
    """What became of one request: its events, and what to answer its sender."""

    received: tuple[Received, ...]
    response: Response


@frozen(kw_only=True)
class Access:
    """What a session may read (rule 11): how far, which of its contact's conversations, and which are withheld."""

    reach: Reach
    readable: tuple[int, ...]
    withheld: tuple[int, ...]


@frozen(kw_only=True)
class Preview:
    """What a merge would give: the joined identifiers, or the rule that forbids it."""

    identifiers: tuple[Node, ...]
    refused: tuple[Refusal, ...]

    def __bool__(self) -> bool:
        return not self.refused


@frozen(kw_only=True)
class Ruled:
    """What a merge or a cannot-link came to: the contacts that the two identifiers are on now."""

    id: str
    contacts: tuple[int | None, int | None]

    @property
    def is_joined(self) -> bool:
        """Say whether the two are one contact now."""
        return self.contacts[0] is not None and self.contacts[0] == self.contacts[1]


def _names(arrival: Arrival) -> Iterator[tuple[str, str]]:
    """Give the messages that matter to an event beside their conversations: of its own id, and what it answers."""
    event = arrival.event
    if isinstance(event, MessageReceived) and event.fingerprint:
        yield arrival.channel, event.external_id
    if isinstance(event, MessageReceived | Noted):
        yield from ((arrival.channel, one) for one in event.references[:MOST_ANSWERED])


def _others(arrivals: Sequence[Arrival], stored: Stored) -> Iterator[tuple[int, MessageReceived]]:
    """Give what has the id of another message, by its place, told apart from that."""
    first: dict[tuple[str, str], Message | MessageReceived | Noted] = dict(stored)
    for place, one in enumerate(arrivals):
        if not isinstance(one.event, MessageReceived | Noted):
            continue
        known = first.setdefault((one.channel, one.event.external_id), one.event)
        if isinstance(one.event, MessageReceived) and is_another(one.event, known):
            yield place, told_apart(one.event)


def _check_follow_up(channel: Channel, mail: Channel) -> None:
    """Raise `ConfigError` where `channel` is followed up by `mail`, and that sends no mail."""
    if not mail.can.sends or not mail.addresses:
        raise ConfigError(
            f"channel {channel.name!r} is followed up by {mail.name!r}, which sends no mail: name an e-mail channel "
            f"with [channels.{mail.name}.sending], or take follow_up out"
        )


def _unchanged(hint: IdentityHint) -> IdentityHint:
    return hint


class Hub(Inbox):
    """One workspace, ready to work with: its store, its channels, its rules.

    ::

        hub = Hub("sqlite:///shop.db")
        decision = hub.resolve(
            IdentityHint(id="1", at=now, identifiers=(Claim("email", "ann@shop.example", Trust.AGENT),))
        )
        print(hub.contact(decision.contact).name)

    `store` is a URL or an open store, `channels` the configured channels, `policy` the rules of identity,
    `amend_hint` what plugins add to a hint, `archive` where attachments and raw requests are kept (None: nowhere),
    `clock` the present moment. Create as many hubs as you like; several on one store see the same data. Methods may be
    called from any thread.
    """

    def __init__(
        self,
        store: Store | str,
        *,
        workspace: str = "default",
        channels: Iterable[Channel] = (),
        policy: Policy | None = None,
        amend_hint: Callable[[IdentityHint], IdentityHint] = _unchanged,
        archive: Archive | None = None,
        clock: Clock = lambda: datetime.now(UTC),
    ) -> None:
        self.archive = archive
        self.delivered: Counter[tuple[str, str]] = Counter()
        """How many deliveries this hub's workers ended or put off, by channel and "sent", "failed" or "put_off"."""
        self._queue_followers: list[Callable[[], None]] = []
        self._followers: list[Callable[[], None]] = []
        self.store = open_store(store) if isinstance(store, str) else store
        self.workspace = workspace
        self.channels: Mapping[str, Channel] = {channel.name: channel for channel in channels}
        for channel in self.channels.values():
            if channel.widget and channel.widget.identify:
                self.channel(channel.widget.identify)
            if channel.follow_up:
                _check_follow_up(channel, self.channel(channel.follow_up))
        self._flows = {name: channel.bot for name, channel in self.channels.items() if channel.bot}
        self.policy = policy or Policy()
        self._amend_hint = amend_hint
        self._clock = clock

    def close(self) -> None:
        """Close the store."""
        self.store.close()

    def transact(self, work: Callable[[Transaction], Result]) -> Result:
        """Run `work` as `Store.transact` does, and wake those who follow what this hub writes."""
        result = self.store.transact(self.workspace, work)
        call(self._followers)
        return result

    def on_written(self, wake: Callable[[], None]) -> Callable[[], None]:
        """Have `wake` called, from any thread, whenever this hub has written something; give what ends that."""
        return follow(self._followers, wake)

    # -- in: requests, events, hints

    def channel(self, name: str) -> Channel:
        """Give the configured channel `name`; raise `ConfigError` where there is none."""
        if name not in self.channels:
            known = ", ".join(sorted(self.channels)) or "none"
            raise ConfigError(f"no channel {name!r} is configured (there are: {known}): add [channels.{name}]")
        return self.channels[name]

    def handle(self, channel: str, request: Request) -> Handled:
        """Take one request in: check that it is authentic, read its events, keep them, and give the answer.

        Raises `Forbidden` where it is not authentic and `ParseError` where it cannot be read; nothing is kept then.
        """
        adapter = self.channel(channel)
        if response := adapter.challenge(request):
            return Handled(received=(), response=response)
        events = self.read(channel, request)
        return Handled(received=self.receive(channel, events), response=adapter.answer(events))

    def read(self, channel: str, request: Request) -> tuple[Event, ...]:
        """Give the events of an authentic request to `channel`, ready for `receive`; whatever takes one in calls this.

        With an archive, the request is in it before it is parsed, if its channel `keeps_raw`, and stays there whatever
        comes of it; a message's `detail["raw"]` names it. What the attachments hold is there as well, each under its
        `url`. Raises `Forbidden` and `ParseError` as the channel does, and `TransientError` where the archive cannot
        keep it.
        """
        adapter = self.channel(channel)
        adapter.verify(request)
        raw = self.archive.keep(channel, request) if self.archive and adapter.can.keeps_raw else ""
        put = self.archive.put if self.archive else None
        return tuple(filed(event, raw=raw, put=put) for event in adapter.parse(request))

    def waits_to_read(self, channel: str) -> bool:
        """Say whether `read` can wait for a disk or the network, so that an event loop leaves it to a thread."""
        can = self.channel(channel).can
        return self.archive is not None and (can.keeps_raw or can.attachments)

    def receive(self, channel: str, events: Sequence[Event]) -> tuple[Received, ...]:
        """Keep `events` of `channel`, all in one transaction, and give what became of each, in order.

        An event that was received before (same channel, same external id) changes nothing and gives the first
        decision, marked as a duplicate.
        """
        return self.commit(self.prepare(channel, events))

    def prepare(self, channel: str, events: Sequence[Event]) -> tuple[Arrival, ...]:
        """Give `events` of `channel` as `commit` takes them: what can be known of each without the store."""
        return tuple(self._arrival(channel, event) for event in events)

    def _arrival(self, channel: str, event: Event) -> Arrival:
        hint = self._amend_hint(hint_of(channel, event))
        evidence = weigh(hint, self.policy)
        query = thread_query(channel, event, evidence)
        return Arrival(channel=channel, event=event, hint=hint, evidence=evidence, query=query)

    def commit(
        self, arrivals: Sequence[Arrival], *, checkpoints: Mapping[str, str] | None = None
    ) -> tuple[Received, ...]:
        """Keep `arrivals`, of any channels, all in one transaction, and give what became of each, in order.

        `checkpoints` are positions by the name of a long work, written in that transaction as well.
        """
        bots = self._bots(arrivals) if self._flows else None

        def work(transaction: Transaction) -> tuple[tuple[Received, ...], bool] | None:
            known = self._load(transaction, [one.evidence for one in arrivals])
            asked = [one.query for one in arrivals if one.query]
            found = iter(transaction.candidates(asked) if asked else [])
            names = {name for one in arrivals for name in _names(one)}
            reports = Reports(transaction, self.policy, [(one.channel, one.event) for one in arrivals], sending, names)
            stored = reports.stored
            others.clear()
            others.update(_others(arrivals, stored))
            if others:  # they get an id of their own, under which they may be known already
                return None
            answers = AutomaticAnswers(transaction, due, at) if due else None
            desk = Desk(transaction, self.policy, known, bots, reports, answers=answers)
            received = tuple(
                desk.take(self._trimmed(one, stored), next(found) if one.query else []) for one in arrivals
            )
            desk.batch.checkpoints.update(checkpoints or {})
            transaction.write(desk.end())
            return received, bool(desk.batch.deliveries)

        at = self._clock()
        answerable = {
            one.evidence.hint: due_answer(self.channels.get(one.channel), one.event, one.evidence, at)
            for one in arrivals
        }
        due = {hint: one for hint, one in answerable.items() if one}
        others: dict[int, MessageReceived] = {}
        sending = {name for name, channel in self.channels.items() if channel.can.sends}
        if (done := self.transact(work)) is not None:
            received, is_going_on = done
            if is_going_on:  # an echo was waited for
                call(self._queue_followers)
            return received
        apart = [
            self._arrival(one.channel, others[place]) if place in others else one for place, one in enumerate(arrivals)
        ]
        return self.commit(apart, checkpoints=checkpoints)

    def _trimmed(self, arrival: Arrival, stored: Stored) -> Arrival:
        event, channel = arrival.event, self.channels.get(arrival.channel)
        if not isinstance(event, MessageReceived) or channel is None:
            return arrival
        answered = (stored.get((arrival.channel, one)) for one in event.references)
        ours = next((one for one in answered if one and one.direction is Direction.OUTBOUND), None)
        return evolve(arrival, event=channel.trim(event, ours.text)) if ours else arrival

    def _bots(self, arrivals: Sequence[Arrival]) -> Bots:
        """Give the bot automations, and what those of `arrivals` may know."""
        proven = [one for one in arrivals if one.channel in self._flows and one.evidence.trust is Trust.PROVEN]
        return Bots(
            flows=self._flows,
            has_agents=bool(self.on_duty()),
            known={one.evidence.hint: self._known_fields(one.evidence) for one in proven},
            how_made=lambda contact: self.contact(contact).how,
        )

    def _known_fields(self, evidence: Evidence) -> dict[str, str]:
        """Give what the contact of a proven hint has of a form's fields: nothing that was only claimed."""
        number = self.store.find(self.workspace, evidence.anchor) if evidence.anchor else None
        if number is None:
            return {}
        return known_fields(self.contact(number))

    def receive_many(
        self, channel: str, events: Iterable[Event | Parcel], *, name: str = "", batch_size: int = BATCH_SIZE
    ) -> Iterator[Progress]:
        """Keep any number of `events` of `channel`, in batches, and give after each how far that has come.

        Nothing is read or written but as the result is iterated, and no more than one batch is in memory::

            for progress in hub.receive_many("mail", events, name="import of 2019"):
                print(progress.done, progress.outcomes)
                for one in progress.failed:
                    print(one.parcel.events, one.error)

        An event that cannot be kept stops no other: it is found by halving its batch, and given in `failed`. With a
        `name`, each batch's transaction writes a checkpoint: a later call with that name and the same events, after a
        crash or an error, passes over those that were dealt with. Raises `TransientError` where the store is busy or
        full; it does not wait, since how long is the caller's decision. All batches before are kept then: call again.
        """
        if batch_size < 1:
            raise ValueError(f"a batch of {batch_size} events cannot be kept: give 1 or more")
        checkpoint = self.store.checkpoint(self.workspace, name) if name else None

        def keep(parcels: Sequence[Parcel], position: str) -> tuple[Received, ...]:
            arrivals = self.prepare(channel, [event for one in parcels for event in one.events])
            return self.commit(arrivals, checkpoints={name: position} if name else None)

        return back_fill(keep, events, checkpoint=checkpoint, batch_size=batch_size)

    def resolve(self, hint: IdentityHint) -> Decision:
        """Decide about one hint that comes with no message. `hint.id` is needed, and makes a second call harmless."""
        return self.resolve_many([hint])[0]

    def resolve_many(self, hints: Sequence[IdentityHint]) -> list[Decision]:
        """Decide about several hints in one transaction, in order."""
        if nameless := [hint for hint in hints if not hint.id]:
            raise ValueError(f"{nameless[0]!r} has no id: give one that is the same at every delivery")
        amended = [self._amend_hint(hint) for hint in hints]
        evidence = [weigh(hint, self.policy) for hint in amended]

        def work(transaction: Transaction) -> list[Decision]:
            desk = Desk(transaction, self.policy, self._load(transaction, evidence))
            decisions = [desk.decide(hint, one) for hint, one in zip(amended, evidence, strict=True)]
            transaction.write(desk.batch)
            return decisions

        return self.transact(work)

    def _load(self, transaction: Transaction, evidence: Sequence[Evidence]) -> Known:
        known = transaction.load(evidence)
        if any(needs_history(one, known, self.policy) for one in evidence if one.hint not in known.decisions):
            # Hints of one batch can touch one another: with one that needs the past, all that link get theirs.
            known.repeats.clear()
            transaction.load_history(known, {one for each in evidence for one, _ in each.attested}, evidence)
        return known

    # -- staff: merge, keep apart, take back

    def merge(
        self,
        a: int | Identifier,
        b: int | Identifier,
        *,
        by: str,
        reason: str = "",
        merge_id: str = "",
        at: datetime | None = None,
    ) -> Ruled:
        """Join two contacts, given by contact id or identifier. Nothing is moved, and `unmerge` takes it back exactly.

        Where a rule forbids it (two accounts, a recorded "not the same person", the cap) they stay apart, and
        `is_joined` is False; the request stays on record as a suggestion. `merge_id` makes a second call harmless.
        """
        return self._rule(RulingKind.MERGE, a, b, by=by, reason=reason, ruling_id=merge_id, at=at)

    def cannot_link(
        self,
        a: int | Identifier,
        b: int | Identifier,
        *,
        by: str,
        reason: str = "",
        ruling_id: str = "",
        at: datetime | None = None,
    ) -> Ruled:
        """Record that two identifiers belong to two people. It outweighs all evidence until it is taken back."""
        return self._rule(RulingKind.CANNOT_LINK, a, b, by=by, reason=reason, ruling_id=ruling_id, at=at)

    def unmerge(self, merge: str, *, by: str) -> None:
        """Take the merge (or cannot-link) with the id `merge` back. Every message returns to its own side."""
        self._withdraw(merge, by=by, is_undone=False, record=self.store.ruling(self.workspace, merge), what="merge")

    def withdraw(self, hint: str, *, by: str) -> None:
        """Take a hint's evidence back, as if it had never been given; what it said stays on record."""
        self._withdraw(hint, by=by, is_undone=False, record=self.store.hint(self.workspace, hint), what="hint")

    def restore(self, target: str, *, by: str) -> None:
        """Undo a withdrawal: the hint, merge or cannot-link with the id `target` counts again."""
        hint, ruling = self.store.hint(self.workspace, target), self.store.ruling(self.workspace, target)
        record = hint if hint and (hint.is_withdrawn or not ruling) else ruling
        self._withdraw(target, by=by, is_undone=True, record=record, what="withdrawal")

    def preview_merge(self, a: int | Identifier, b: int | Identifier) -> Preview:
        """Give what `merge(a, b)` would do, and do nothing."""
        now = self._clock()
        moment = (now, "preview")
        ruling = Ruling(
            id="preview",
            kind=RulingKind.MERGE,
            a=self._point(a, moment),
            b=self._point(b, moment),
            at=now,
            by="preview",
        )
        known = self.transact(lambda transaction: self._history(transaction, [ruling.a, ruling.b]))
        known.add_ruling(ruling)
        partition = fold(*known.within(known.scope([ruling.a, ruling.b])), self.policy)
        node = partition.epochs.node(ruling.a, (ruling.at, ruling.id))
        return Preview(
            identifiers=tuple(sorted(partition.by_node.get(node, ()))),
            refused=tuple(one for one in partition.refusals if one.link.source == ruling.id),
        )

    def _rule(
        self,
        kind: RulingKind,
        a: int | Identifier,
        b: int | Identifier,
        *,
        by: str,
        reason: str,
        ruling_id: str,
        at: datetime | None,
    ) -> Ruled:
        moment = (at or self._clock(), ruling_id or secrets.token_hex(8))
        ruling = Ruling(
            id=moment[1],
            kind=kind,
            a=self._point(a, moment),
            b=self._point(b, moment),
            at=moment[0],
            by=by,
            reason=reason,
        )
        if kind is RulingKind.CANNOT_LINK and ruling.a == ruling.b:
            raise Conflict(f"{ruling.a} cannot be kept apart from itself: name two identifiers")
        if self.store.ruling(self.workspace, ruling.id) is None:

            def work(transaction: Transaction) -> None:
                known = self._history(transaction, [ruling.a, ruling.b])
                if ruling.id not in known.rulings:
                    known.add_ruling(ruling)
                    self._refold(transaction, known, Batch(rulings=[ruling]), at=ruling.at, source=ruling.id)

            self.transact(work)
        a_now, b_now = (self.store.find(self.workspace, one, moment) for one in (ruling.a, ruling.b))
        return Ruled(id=ruling.id, contacts=(a_now, b_now))

    def _withdraw(self, target: str, *, by: str, is_undone: bool, record: Any, what: str) -> None:  # noqa: ANN401  (a hint's or a ruling's record)
        if record is None:
            raise NotFound(f"no {what} {target!r} in workspace {self.workspace!r}: see 'convsdk explain' for its id")
        if record.is_withdrawn is not is_undone:
            return
        named = (
            [one for one, _ in record.evidence.attested]
            if isinstance(record, HintRecord)
            else [record.ruling.a, record.ruling.b]
        )
        is_ruling = not isinstance(record, HintRecord)
        withdrawal = Withdrawal(target=target, is_ruling=is_ruling, at=self._clock(), by=by, is_undone=is_undone)

        def work(transaction: Transaction) -> None:
            transaction.write(Batch(withdrawals=[withdrawal]))
            known = self._history(transaction, named)
            self._refold(transaction, known, Batch(), at=withdrawal.at, source=target)

        self.transact(work)

    def _history(self, transaction: Transaction, identifiers: Collection[Identifier]) -> Known:
        known = transaction.load([])
        transaction.load_history(known, identifiers)
        return known

    def _refold(self, transaction: Transaction, known: Known, batch: Batch, *, at: datetime, source: str) -> None:
        ids = transaction.new_ids()
        origin = NewContact(id=0, at=at, how="separated", hint=source)
        before = {node: known.contact(node) for node in known.holdings}
        batch.changes = refold(known, self.policy, ids, origin=origin)
        known.apply(batch.changes)
        moved = {contact: known.contact(node) for node, contact in before.items() if contact != known.contact(node)}
        for old, new in moved.items():
            kind = "contact.merged" if new is not None and old is not None and new < old else "contact.unmerged"
            if old is not None:
                payload = {"contact": new, "former": old, "because": source}
                batch.notices.append(Notice(id=next(ids), type=kind, at=at, payload=payload))
        transaction.write(batch)

    def _point(self, who: int | Identifier, moment: Moment) -> Identifier:
        if isinstance(who, Identifier):
            if who.kind == "visitor":
                raise Conflict(f"{who} says which browser, never which person: name an identifier of the person")
            return who
        if record := self.store.contact(self.workspace, who):
            for held in record.holdings:
                # A number that has changed hands would lead to its holder of today.
                if self.store.find(self.workspace, held.node.identifier, moment) == record.id:
                    return held.node.identifier
        raise NotFound(f"no contact {who} in workspace {self.workspace!r}: see 'convsdk contacts'")

    # -- out: contacts, conversations, reasons

    def contact(self, contact: int) -> Contact:
        """Give the contact that the id leads to now: an id from before a merge redirects."""
        record = self.store.contact(self.workspace, contact)
        if record is None:
            raise NotFound(f"no contact {contact} in workspace {self.workspace!r}: see 'convsdk contacts'")
        return self._contact(record)

    def contacts(self, *, after: int = 0, limit: int = 50) -> Page[Contact]:
        """Give a page of contacts by id, those after the cursor `after`."""
        records = self.store.contacts(self.workspace, after=after, limit=limit)
        following = records[-1].id if len(records) == limit else None
        return Page(tuple(self._contact(record) for record in records), following)

    def find(self, kind: str, value: str, *, scope: str = "") -> Contact | None:
        """Give the contact that an identifier leads to, in any spelling, or None."""
        identifier = self.policy.canonical(Claim(kind, value, Trust.AGENT, scope))
        contact = self.store.find(self.workspace, identifier) if identifier else None
        return self.contact(contact) if contact else None

    def _contact(self, record: ContactRecord) -> Contact:
        identifiers = {held.node.identifier for held in record.holdings}
        visitors = self._own_cookies(record.id, identifiers)
        claims = [*self._traits(record, identifiers), *self._cookie_traits(record.id, visitors)]
        notes = self.store.named_together(self.workspace, identifiers)
        return Contact(
            id=record.id,
            created_at=record.created_at,
            how=record.how,
            identifiers=tuple(
                HeldIdentifier(
                    node=held.node,
                    trust=held.trust or Trust.ASSERTED,
                    spelling=held.spelling or held.node.identifier.value,
                )
                for held in record.holdings
            ),
            visitors=tuple(one.value for one in visitors),
            notes=tuple(sorted({one.b.identifier for one in notes if one.contacts == (record.id, None)})),
            traits=shown_traits(claims, is_verified=any((one.trust or 0) > Trust.ASSERTED for one in record.holdings)),
            redirects=tuple(one for one in record.members if one != record.id),
        )

    def _traits(self, record: ContactRecord, identifiers: Collection[Identifier]) -> Iterator[TraitClaim]:
        recycled = {held.node.identifier for held in record.holdings if held.node.epoch}
        # Whoever holds the first epoch and is found today holds the only one.
        recycled |= {one for one in identifiers if self.store.find(self.workspace, one) != record.id}
        for claim in self.store.traits(self.workspace, identifiers):
            moment = (claim.at, claim.hint)
            if (
                claim.identifier not in recycled
                or self.store.find(self.workspace, claim.identifier, moment) == record.id
            ):
                yield claim

    def _cookie_traits(self, contact: int, cookies: Mapping[Identifier, _Spoken]) -> Iterator[TraitClaim]:
        """Give what was said under cookies while they were this contact's, as said once it was known whose they are."""
        for cookie, spoken in cookies.items():
            known_at = min(at for (at, _), who in spoken if who == contact)
            for claim in self.store.traits(self.workspace, [cookie]):
                if cookie_contact(spoken, (claim.at, claim.hint), self.policy) == contact:
                    yield evolve(claim, at=max(claim.at, known_at))

    def _own_cookies(self, contact: int, identifiers: Collection[Identifier]) -> dict[Identifier, _Spoken]:
        """Give the cookies that spoke for this contact and for no other, with all that each spoke for."""
        cookies = {one: self._spoken(one) for one in self.store.visitors(self.workspace, identifiers)}
        return {
            one: spoken for one, spoken in cookies.items() if {who for _, who in spoken if who is not None} == {contact}
        }

    def _spoken(self, visitor: Identifier) -> _Spoken:
        visits = self.store.visits(self.workspace, visitor)
        return [
            (one.moment, None if one.anchor is None or self.policy.is_role(one.anchor) else one.contact)
            for one in visits
        ]

    def attribution(self, hint: str) -> int | None:
        """Give the contact under which what came with the hint is shown now, or None for nobody."""
        evidence = self._hint(hint).evidence
        return self._attribute(evidence.anchor, evidence.visitor, evidence.moment)

    def _attribute(
        self, identifier: Identifier | None, visitor: Identifier | None, moment: tuple[datetime, str]
    ) -> int | None:
        if identifier is not None:
            return self.store.find(self.workspace, identifier, moment)
        return cookie_contact(self._spoken(visitor), moment, self.policy) if visitor else None

    def _hint(self, hint: str) -> HintRecord:
        record = self.store.hint(self.workspace, hint)
        if record is None:
            raise NotFound(f"no hint {hint!r} in workspace {self.workspace!r}: it is 'channel/external id'")
        return record

    def conversations(
        self, *, contact: int | None = None, before: tuple[datetime, str] | None = None, limit: int = 50
    ) -> list[Conversation]:
        """Give conversations, the newest first, of one contact or of all.

        `before` is the cursor: the `filing.opened` of the last one that was given.
        """
        named: set[Identifier] | None = None
        if contact is not None:
            record = self.store.contact(self.workspace, contact)
            if record is None:
                raise NotFound(f"no contact {contact} in workspace {self.workspace!r}: see 'convsdk contacts'")
            contact = record.id
            named = {held.node.identifier for held in record.holdings}
            named.update(self.store.visitors(self.workspace, named))
        found: list[Conversation] = []
        while len(found) < limit:
            filings = self.store.filings(self.workspace, identifiers=named, before=before, limit=limit)
            shown = map(self._conversation, filings)
            found += (one for one in shown if contact is None or one.contact == contact)
            if len(filings) < limit:
                break
            before = filings[-1].opened
        return found[:limit]

    def review_queue(self, *, before: Moment | None = None, limit: int = 50) -> list[Conversation]:
        """Give the conversations in which staff must say whose they are, the newest first; `review` decides.

        `before` is the cursor: the `filing.opened` of the last one that was given.
        """
        filings = self.store.filings(self.workspace, identifiers=None, before=before, limit=limit, is_in_review=True)
        return [self._conversation(one) for one in filings]

    def conversation(self, conversation: int) -> Conversation:
        """Give one conversation, under the contact that it is on now."""
        filing = self.store.filing(self.workspace, conversation)
        if filing is None:
            raise NotFound(
                f"no conversation {conversation} in workspace {self.workspace!r}: see 'convsdk conversations'"
            )
        return self._conversation(filing)

    def _conversation(self, filing: Filing) -> Conversation:
        return Conversation(filing=filing, contact=self._attribute(filing.identifier, filing.visitor, filing.opened))

    def messages(
        self, conversation: int, *, before: int | None = None, after: int | None = None, limit: int = 50
    ) -> Page[Message]:
        """Give messages of a conversation, the newest first; the cursor goes back in time, or with `after` forth."""
        messages = self.store.messages(self.workspace, conversation, before=before, after=after, limit=limit)
        is_full = len(messages) == limit
        return Page(tuple(messages), messages[-1 if after is None else 0].id if is_full else None)

    def suggestions(self, contact: int | None = None) -> list[Suggestion]:
        """Give the pairs of contacts that may be one person, of one contact or of all: for a human to look at."""
        identifiers, record = None, None
        if contact is not None:
            record = self.store.contact(self.workspace, contact)
            identifiers = {held.node.identifier for held in record.holdings} if record else set()
        found: dict[tuple[int, int], Suggestion] = {}
        for one in self.store.named_together(self.workspace, identifiers):
            first, second = one.contacts
            # An identifier that has changed hands brings pairs of its other holders.
            is_asked = contact is None or (record is not None and record.id in one.contacts)
            if not is_asked or first is None or second is None:
                continue
            if any(self.policy.is_role(node.identifier) for node in (one.a, one.b)):
                continue
            pair = (min(first, second), max(first, second))
            if one.trust is Trust.ASSERTED and self._are_kept_apart(*pair):
                continue
            found.setdefault(
                pair, Suggestion(contacts=pair, because=(one.a, one.b), trust=one.trust, evidence=one.source)
            )
        return list(found.values())

    def _are_kept_apart(self, a: int, b: int) -> bool:
        sides = [self.store.contact(self.workspace, one) for one in (a, b)]
        left, right = ({held.node.identifier for held in side.holdings} if side else set() for side in sides)
        return any(
            record.ruling.kind is RulingKind.CANNOT_LINK
            and not record.is_withdrawn
            and ({record.ruling.a, record.ruling.b} & left and {record.ruling.a, record.ruling.b} & right)
            for record in self.store.rulings(self.workspace, left)
        )

    def explain(self, contact: int, *, limit: int = 100) -> list[str]:
        """Give, in plain sentences, why these identifiers are one person, and why others are not."""
        record = self.store.contact(self.workspace, contact)
        if record is None:
            raise NotFound(f"no contact {contact} in workspace {self.workspace!r}: see 'convsdk contacts'")
        identifiers = {held.node.identifier for held in record.holdings}
        named = self.store.named_together(self.workspace, identifiers)
        return sentences(
            record,
            self.store.hints(self.workspace, identifiers, limit=limit),
            self.store.rulings(self.workspace, identifiers),
            [one for one in named if record.id in one.contacts],
        )

    def access(self, hint: str) -> Access:
        """Give what the session that sent the hint may read now. A claim opens nothing, whatever it is filed under."""
        record = self._hint(hint)
        proof = evolve(record.evidence, trust=Trust.ASSERTED) if record.is_withdrawn else record.evidence
        how_far = reach(proof, self.policy)
        contact = self.attribution(hint)
        if how_far is not Reach.CONTACT or contact is None:
            return Access(reach=how_far, readable=self._own_conversation(record), withheld=())
        readable: list[int] = []
        withheld: list[int] = []
        for one in self.conversations(contact=contact, limit=1000):
            is_own = record.evidence.visitor is not None and one.filing.visitor == record.evidence.visitor
            (readable if one.filing.is_verified or is_own else withheld).append(one.id)
        return Access(reach=how_far, readable=tuple(readable), withheld=tuple(withheld))

    def _own_conversation(self, record: HintRecord) -> tuple[int, ...]:
        """Give the conversation of a hint, unless it is somebody else's, in which its sender only takes part."""
        filing = self.store.filing(self.workspace, record.conversation) if record.conversation else None
        if filing is None:
            return ()
        anchor, visitor = record.evidence.anchor, record.evidence.visitor
        is_own = filing.identifier in {None, anchor} or (visitor is not None and filing.visitor == visitor)
        return (filing.id,) if is_own else ()

    # -- review

    def review(self, conversation: int, *, sender: str, by: str) -> Conversation:
        """Decide whose a conversation in review is: of the e-mail address `sender`, or (empty) nobody's, and done with.

        It counts as an entry by staff (`Trust.AGENT`): the conversation is filed under that address, and open. Raises
        `Conflict` where it is not in review, and `ValueError` where `sender` is no usable address.
        """
        filing = self.conversation(conversation).filing
        hint = IdentityHint(
            id=f"review/{conversation}",
            at=self._clock(),
            identifiers=(Claim("email", sender, Trust.AGENT),) if sender else (),
            by=by,
            how="review",
        )
        evidence = weigh(hint, self.policy)
        if sender and evidence.anchor is None:
            raise ValueError(f"{sender!r} is no usable e-mail address: nothing was decided")

        def work(transaction: Transaction) -> None:
            known = self._load(transaction, [evidence])
            (found,) = transaction.candidates([ThreadQuery(channel=filing.channel, thread=filing.thread)])
            locked = next(one for _, one in found if one.id == conversation)
            if locked.status is not ConversationStatus.REVIEW:
                raise Conflict(f"conversation {conversation} is in no review: see 'convsdk review'")
            desk = Desk(transaction, self.policy, known)
            desk.decide(hint, evidence, locked.channel, conversation)
            transaction.write(reviewed(desk.batch, locked, evidence, by=by, ids=transaction.new_ids()))

        self.transact(work)
        return self.conversation(conversation)
