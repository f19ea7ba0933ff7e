"""The reference store: plain dictionaries, one lock. For tests, and to compare the other stores with."""

import itertools
import threading
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, MutableMapping, Sequence
from datetime import datetime
from typing import Any, TypeVar

from attrs import define, evolve, field

from convsdk.core.consent import ConsentRecord, ConsentState, Membership
from convsdk.core.events import Notice
from convsdk.core.fold import Evidence, Moment
from convsdk.core.inbox import ConversationStatus, Filing
from convsdk.core.model import Direction, Identifier, Message, Node, Ruling, RulingKind, Trust
from convsdk.core.profile import TraitClaim
from convsdk.core.resolver import Holding, Known, NewContact
from convsdk.core.storage import (
    OVERTAKEN,
    REFERENCES,
    Alias,
    Batch,
    ContactRecord,
    Delivery,
    Found,
    HintRecord,
    Memo,
    NamedTogether,
    Outgoing,
    Queue,
    Result,
    RulingRecord,
    Store,
    ThreadQuery,
    Transaction,
    Visit,
    Watermark,
    Withdrawal,
    cuts,
)
from convsdk.errors import PermanentError

Key = TypeVar("Key")
Value = TypeVar("Value")


@define
class _Tables:
    """One workspace."""

    holdings: dict[Node, Holding] = field(factory=dict)
    contacts: dict[int, NewContact] = field(factory=dict)
    roots: dict[int, int] = field(factory=dict)
    hints: dict[str, HintRecord] = field(factory=dict)
    rulings: dict[str, RulingRecord] = field(factory=dict)
    traits: dict[int, TraitClaim] = field(factory=dict)
    consents: dict[int, ConsentRecord] = field(factory=dict)
    memberships: dict[int, Membership] = field(factory=dict)
    filings: dict[int, Filing] = field(factory=dict)
    messages: dict[int, Message] = field(factory=dict)
    by_external_id: dict[tuple[str, str], int] = field(factory=dict)
    withdrawals: dict[int, Withdrawal] = field(factory=dict)
    notices: dict[int, Notice] = field(factory=dict)
    checkpoints: dict[str, str] = field(factory=dict)
    memos: dict[tuple[str, str], Memo] = field(factory=dict)
    aliases: dict[tuple[str, str], Alias] = field(factory=dict)
    deliveries: dict[int, Delivery] = field(factory=dict)
    nexts: dict[int, int | None] = field(factory=dict)
    """The message of each conversation that may go, if any."""
    ids: Iterator[int] = field(factory=lambda: itertools.count(1))

    def known(self, identifiers: Iterable[Identifier]) -> Known:
        known = Known()
        self.add_holdings(known, identifiers)
        return known

    def add_holdings(self, known: Known, identifiers: Iterable[Identifier]) -> None:
        for identifier in identifiers:
            for epoch in itertools.count():
                held = self.holdings.get(Node(identifier, epoch))
                if held is None:
                    break
                known.holdings.setdefault(held.node, held)
                if held.contact is not None:
                    known.roots.setdefault(held.contact, self.root(held.contact))

    def found(self, key: tuple[str, str]) -> Found | None:
        if key in self.by_external_id:
            return Found(message=self.messages[self.by_external_id[key]])
        alias = self.aliases.get(key)
        return Found(message=self.messages[alias.message], part=alias.part) if alias else None

    def root(self, contact: int) -> int:
        # A resting contact redirects to one that may have been merged since.
        while (root := self.roots.get(contact, contact)) != contact:
            contact = root
        return contact

    def valid_hints(self) -> Iterator[HintRecord]:
        return (record for record in self.hints.values() if not record.is_withdrawn)

    def valid_rulings(self) -> Iterator[Ruling]:
        return (record.ruling for record in self.rulings.values() if not record.is_withdrawn)

    def node(self, identifier: Identifier, moment: Moment) -> Node:
        return self.known([identifier]).epochs([identifier]).node(identifier, moment)

    def holder(self, node: Node) -> int | None:
        held = self.holdings.get(node)
        return self.root(held.contact) if held and held.is_owned and held.contact is not None else None


class _MemoryTransaction(Transaction):
    def __init__(self, tables: _Tables) -> None:
        self._tables = tables
        self._undo: list[Callable[[], object]] = []

    def load(self, evidence: Sequence[Evidence]) -> Known:
        known = self._tables.known(one for each in evidence for one in each.identifiers)
        known.decisions = {
            one.hint: self._tables.hints[one.hint].decision for one in evidence if one.hint in self._tables.hints
        }
        known.repeats = {one.hint for one in evidence if one.links and self._is_repeat(one)}
        return known

    def _is_repeat(self, evidence: Evidence) -> bool:
        joint = [one.evidence for one in self._tables.valid_hints() if one.evidence.links]
        earlier = sorted((one for one in joint if one.moment <= evidence.moment), key=lambda one: one.moment)
        for identifier, _ in evidence.attested:
            about = [one.attested for one in earlier if identifier in dict(one.attested)]
            if not about or about[-1] != evidence.attested:
                return False
        return True

    def load_history(self, known: Known, identifiers: Collection[Identifier], pending: Sequence[Evidence] = ()) -> None:
        joint = [record.evidence for record in self._tables.valid_hints() if record.evidence.links]
        rulings = list(self._tables.valid_rulings())
        reached = self._reached(joint, rulings, identifiers)
        found = [evidence for evidence in joint if evidence.anchor in reached]
        for evidence in found:
            known.add(evidence)
        for ruling in rulings:
            if ruling.a in reached and ruling.b in reached:
                known.add_ruling(ruling)
        moments = cuts((*found, *pending))
        for identifier in reached:
            for evidence in self._alone(identifier, moments.get(identifier, [])):
                known.add(evidence)
        self._tables.add_holdings(known, sorted(reached))

    def _reached(
        self, joint: Iterable[Evidence], rulings: Iterable[Ruling], identifiers: Iterable[Identifier]
    ) -> set[Identifier]:
        edges: dict[Identifier, set[Identifier]] = defaultdict(set)
        named = [[one for one, _ in evidence.attested] for evidence in joint]
        named += [[one.a, one.b] for one in rulings if one.kind is RulingKind.MERGE]
        for together in named:
            for identifier in together:
                edges[identifier].update(together)
        reached: set[Identifier] = set()
        ahead = list(identifiers)
        while ahead:
            identifier = ahead.pop()
            if identifier not in reached:
                reached.add(identifier)
                ahead.extend(edges[identifier])
        return reached

    def _alone(self, identifier: Identifier, moments: list[Moment]) -> Iterable[Evidence]:
        first: dict[tuple[int, Trust, bool], Evidence] = {}
        records = (one.evidence for one in self._tables.valid_hints() if one.evidence.anchor == identifier)
        for evidence in sorted(records, key=lambda one: one.moment):
            if not evidence.links:
                stretch = bisect_right(moments, evidence.moment)
                first.setdefault((stretch, evidence.trust, evidence.may_create), evidence)
        return first.values()

    def candidates(self, queries: Sequence[ThreadQuery]) -> list[list[tuple[str, Filing]]]:
        return [self._candidates(query) for query in queries]

    def _candidates(self, query: ThreadQuery) -> list[tuple[str, Filing]]:
        tables = self._tables
        answered = [
            (one, tables.filings[found.message.conversation])
            for one in query.references
            if (found := tables.found((query.channel, one)))
        ]
        newest = sorted(tables.filings.values(), key=lambda one: one.id, reverse=True)
        threaded = [("", one) for one in newest if (one.channel, one.thread) == (query.channel, query.thread)]
        return answered + threaded

    def due(self, channel: str, *, owner: str, at: datetime, limit: int) -> list[Delivery]:
        tables = self._tables
        free = [
            one
            for one in map(tables.deliveries.__getitem__, filter(None, tables.nexts.values()))
            if one.channel == channel and not one.owner and one.due_at <= at
        ]
        claimed = [evolve(one, owner=owner) for one in sorted(free, key=lambda one: (one.due_at, one.message))[:limit]]
        self._put_all(tables.deliveries, {one.message: one for one in claimed})
        return claimed

    def bring_forward(self, at: datetime) -> None:
        late = [one for one in self._tables.deliveries.values() if one.put_off_at > at and one.due_at > at]
        self._put_all(self._tables.deliveries, {one.message: evolve(one, due_at=at, put_off_at=at) for one in late})

    def deliveries_of(self, owner: str) -> list[Delivery]:
        return [one for one in self._tables.deliveries.values() if one.owner == owner]

    def hold(self, deliveries: Sequence[Delivery]) -> dict[int, Delivery]:
        return self.deliveries([one.message for one in deliveries])

    def deliveries(self, messages: Collection[int]) -> dict[int, Delivery]:
        return {one: self._tables.deliveries[one] for one in messages if one in self._tables.deliveries}

    def found(self, external_ids: Collection[tuple[str, str]]) -> dict[tuple[str, str], Found]:
        return {key: found for key in external_ids if (found := self._tables.found(key))}

    def sent_until(self, watermarks: Sequence[Watermark]) -> list[list[Message]]:
        return [self._sent_until(one) for one in watermarks]

    def _sent_until(self, mark: Watermark) -> list[Message]:
        filings = self._tables.filings.values()
        threaded = {one.id for one in filings if (one.channel, one.thread) == (mark.channel, mark.thread)}
        return [
            one
            for _, one in sorted(self._tables.messages.items())
            if one.conversation in threaded
            and one.direction is Direction.OUTBOUND
            and one.status in mark.statuses
            and one.at <= mark.until
        ]

    def memo(self, kind: str, key: str) -> Memo | None:
        return self._tables.memos.get((kind, key))

    def memos(self, kind: str, keys: Collection[str]) -> dict[str, Memo]:
        return {key: memo for key in keys if (memo := self.memo(kind, key))}

    def forget_memos(self, kind: str, *, before: datetime) -> int:
        memos = self._tables.memos
        old = {key: memo for key, memo in memos.items() if key[0] == kind and memo.at < before}
        self._undo.append(lambda: memos.update(old))
        for key in old:
            del memos[key]
        return len(old)

    def new_ids(self) -> Iterator[int]:
        return self._tables.ids

    def write(self, batch: Batch) -> None:
        tables = self._tables
        for record in batch.hints:
            self._refuse_double(tables.hints, record.evidence.hint)
            self._put(tables.hints, record.evidence.hint, record)
        for message in batch.messages:
            key = (message.channel, message.external_id)
            self._refuse_double(tables.by_external_id, key)
            self._put(tables.by_external_id, key, message.id)
            self._put(tables.messages, message.id, message)
        for table, values in (
            (tables.holdings, batch.changes.holdings),
            (tables.contacts, {one.id: one for one in batch.changes.contacts}),
            (tables.roots, batch.changes.roots),
            (tables.rulings, {one.id: RulingRecord(ruling=one) for one in batch.rulings}),
            (tables.filings, batch.filings),
            (tables.notices, {one.id: one for one in batch.notices}),
            (tables.checkpoints, batch.checkpoints),
            (tables.memos, batch.memos),
        ):
            self._put_all(table, values)
        self._put_all(tables.aliases, {key: one for key, one in batch.aliases.items() if key not in tables.aliases})
        for message in batch.revised:
            self._put(tables.messages, message.id, message)
        self._write_deliveries(batch)
        for withdrawal in batch.withdrawals:
            self._withdraw(withdrawal)
        self._append(tables.traits, batch.traits)
        self._append(tables.consents, batch.consents)
        self._append(tables.memberships, batch.memberships)

    def _write_deliveries(self, batch: Batch) -> None:
        tables = self._tables
        for delivery in batch.deliveries.values():
            self._put(tables.deliveries, delivery.message, delivery)
            if not tables.nexts.get(delivery.conversation):
                self._put(tables.nexts, delivery.conversation, delivery.message)
        for message, at in batch.ended.items():
            if message in tables.deliveries:
                conversation = self._take(tables.deliveries, message).conversation
                if tables.nexts[conversation] == message:
                    self._call_up(conversation, at)

    def _call_up(self, conversation: int, at: datetime) -> None:
        tables = self._tables
        waiting = [one for one in tables.deliveries.values() if one.conversation == conversation]
        following = min(waiting, key=lambda one: one.message, default=None)
        self._put(tables.nexts, conversation, following.message if following else None)
        if following:
            self._put(tables.deliveries, following.message, evolve(following, due_at=max(following.due_at, at)))

    def _withdraw(self, withdrawal: Withdrawal) -> None:
        self._append(self._tables.withdrawals, [withdrawal])
        is_withdrawn = not withdrawal.is_undone
        table: MutableMapping[str, Any] = self._tables.rulings if withdrawal.is_ruling else self._tables.hints
        self._put(table, withdrawal.target, evolve(table[withdrawal.target], is_withdrawn=is_withdrawn))

    def _refuse_double(self, table: Mapping[Key, object], key: Key) -> None:
        if key in table:
            raise PermanentError(f"{key!r} is stored already; nothing of this batch was written")

    def _append(self, table: MutableMapping[int, Value], records: Iterable[Value]) -> None:
        for record in records:
            self._put(table, len(table), record)

    def _put_all(self, table: MutableMapping[Any, Any], values: Mapping[Any, Any]) -> None:
        for key, value in values.items():
            self._put(table, key, value)

    def _put(self, table: MutableMapping[Key, Value], key: Key, value: Value) -> None:
        if key in table:
            old = table[key]
            self._undo.append(lambda: table.__setitem__(key, old))
        else:
            self._undo.append(lambda: table.pop(key))
        table[key] = value

    def _take(self, table: MutableMapping[Key, Value], key: Key) -> Value:
        value = table.pop(key)
        self._undo.append(lambda: table.__setitem__(key, value))
        return value

    def roll_back(self) -> None:
        while self._undo:
            self._undo.pop()()


class MemoryStore(Store):
    """Keeps everything in this process and forgets it with it."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._workspaces: dict[str, _Tables] = defaultdict(_Tables)

    def transact(self, workspace: str, work: Callable[[Transaction], Result]) -> Result:
        with self._lock:
            transaction = _MemoryTransaction(self._workspaces[workspace])
            try:
                return work(transaction)
            except BaseException:
                transaction.roll_back()
                raise

    def close(self) -> None:
        self._workspaces.clear()

    def contact(self, workspace: str, contact: int) -> ContactRecord | None:
        with self._lock:
            tables = self._workspaces[workspace]
            return self._record(tables, tables.root(contact)) if contact in tables.contacts else None

    def _record(self, tables: _Tables, root: int) -> ContactRecord:
        members = tuple(sorted(one for one in tables.contacts if tables.root(one) == root))
        held = (one for one in tables.holdings.values() if one.is_owned and one.contact in members)
        created = tables.contacts[root]
        return ContactRecord(
            id=root,
            created_at=created.at,
            how=created.how,
            holdings=tuple(sorted(held, key=lambda one: one.id)),
            members=members,
        )

    def contacts(self, workspace: str, *, after: int, limit: int) -> list[ContactRecord]:
        with self._lock:
            tables = self._workspaces[workspace]
            owners = {tables.holder(node) for node in tables.holdings} - {None}
            return [self._record(tables, one) for one in sorted(one for one in owners if one and one > after)[:limit]]

    def find(self, workspace: str, identifier: Identifier, moment: Moment | None = None) -> int | None:
        with self._lock:
            tables = self._workspaces[workspace]
            epochs = tables.known([identifier]).epochs([identifier])
            last = Node(identifier, len(epochs.starts.get(identifier, ())))
            return tables.holder(epochs.node(identifier, moment) if moment else last)

    def traits(self, workspace: str, identifiers: Collection[Identifier]) -> list[TraitClaim]:
        with self._lock:
            tables = self._workspaces[workspace]
            return [
                claim
                for claim in tables.traits.values()
                if claim.identifier in identifiers and not tables.hints[claim.hint].is_withdrawn
            ]

    def visitors(self, workspace: str, identifiers: Collection[Identifier]) -> list[Identifier]:
        with self._lock:
            evidence = [record.evidence for record in self._workspaces[workspace].valid_hints()]
            return sorted({one.visitor for one in evidence if one.visitor and one.anchor in identifiers})

    def visits(self, workspace: str, visitor: Identifier) -> list[Visit]:
        with self._lock:
            tables = self._workspaces[workspace]
            evidence = [record.evidence for record in tables.valid_hints() if record.evidence.visitor == visitor]
            return [
                Visit(
                    moment=one.moment,
                    anchor=one.anchor,
                    contact=tables.holder(tables.node(one.anchor, one.moment)) if one.anchor else None,
                )
                for one in evidence
            ]

    def named_together(self, workspace: str, identifiers: Collection[Identifier] | None) -> list[NamedTogether]:
        with self._lock:
            tables = self._workspaces[workspace]
            named: list[tuple[Identifier, Identifier, Moment, Trust | None]] = [
                (record.evidence.anchor, other, record.evidence.moment, trust)
                for record in tables.valid_hints()
                if record.evidence.anchor
                for other, trust in (*record.evidence.links, *record.evidence.notes)
            ] + [
                (one.a, one.b, (one.at, one.id), None) for one in tables.valid_rulings() if one.kind is RulingKind.MERGE
            ]
            found = []
            for a, b, moment, trust in sorted(named, key=lambda one: (one[2], one[0], one[1])):
                nodes = tables.node(a, moment), tables.node(b, moment)
                contacts = tables.holder(nodes[0]), tables.holder(nodes[1])
                is_asked = identifiers is None or a in identifiers or b in identifiers
                if is_asked and (contacts[0] != contacts[1] or contacts[0] is None):
                    found.append(
                        NamedTogether(a=nodes[0], b=nodes[1], contacts=contacts, trust=trust, source=moment[1])
                    )
            return found

    def hint(self, workspace: str, hint: str) -> HintRecord | None:
        with self._lock:
            return self._workspaces[workspace].hints.get(hint)

    def hints(self, workspace: str, identifiers: Collection[Identifier], *, limit: int) -> list[HintRecord]:
        with self._lock:
            records = [one for one in self._workspaces[workspace].hints.values() if one.evidence.anchor in identifiers]
            return sorted(records, key=lambda one: one.evidence.moment)[:limit]

    def rulings(self, workspace: str, identifiers: Collection[Identifier]) -> list[RulingRecord]:
        with self._lock:
            records = self._workspaces[workspace].rulings.values()
            named = [one for one in records if one.ruling.a in identifiers or one.ruling.b in identifiers]
            return sorted(named, key=lambda one: (one.ruling.at, one.ruling.id))

    def ruling(self, workspace: str, ruling: str) -> RulingRecord | None:
        with self._lock:
            return self._workspaces[workspace].rulings.get(ruling)

    def consents(self, workspace: str, identifiers: Collection[Identifier]) -> list[ConsentRecord]:
        with self._lock:
            tables = self._workspaces[workspace]
            withdrawn = {hint for hint, record in tables.hints.items() if record.is_withdrawn}
            found = (
                one
                for one in tables.consents.values()
                if one.identifier in identifiers and not (one.state is ConsentState.GRANTED and one.hint in withdrawn)
            )
            return sorted(found, key=lambda one: one.order)

    def memberships(self, workspace: str, contacts: Collection[int]) -> list[Membership]:
        with self._lock:
            records = self._workspaces[workspace].memberships.values()
            return sorted((one for one in records if one.contact in contacts), key=lambda one: one.at)

    def filings(
        self,
        workspace: str,
        *,
        identifiers: Collection[Identifier] | None,
        before: Moment | None,
        limit: int,
        is_in_review: bool = False,
    ) -> list[Filing]:
        with self._lock:
            found = [
                one
                for one in self._workspaces[workspace].filings.values()
                if (identifiers is None or (one.identifier or one.visitor) in identifiers)
                and (before is None or one.opened < before)
                and (not is_in_review or one.status is ConversationStatus.REVIEW)
            ]
            return sorted(found, key=lambda one: one.opened, reverse=True)[:limit]

    def filing(self, workspace: str, conversation: int) -> Filing | None:
        with self._lock:
            return self._workspaces[workspace].filings.get(conversation)

    def thread(self, workspace: str, channel: str, thread: str, *, limit: int) -> list[Filing]:
        with self._lock:
            filings = self._workspaces[workspace].filings.values()
            found = [one for one in filings if (one.channel, one.thread) == (channel, thread)]
            return sorted(found, key=lambda one: one.id, reverse=True)[:limit]

    def messages(
        self, workspace: str, conversation: int, *, before: int | None = None, after: int | None = None, limit: int
    ) -> list[Message]:
        with self._lock:
            found = sorted(
                (
                    one
                    for one in self._workspaces[workspace].messages.values()
                    if one.conversation == conversation
                    and (before is None or one.id < before)
                    and (after is None or one.id > after)
                ),
                key=lambda one: one.id,
                reverse=True,
            )
            return found[:limit] if after is None else found[-limit:]

    def message(self, workspace: str, channel: str, external_id: str) -> Message | None:
        with self._lock:
            found = self._workspaces[workspace].found((channel, external_id))
            return found.message if found else None

    def outgoing(self, workspace: str, deliveries: Sequence[Delivery]) -> list[Outgoing]:
        with self._lock:
            tables = self._workspaces[workspace]
            asked = sorted(one.message for one in deliveries if one.message in tables.messages)
            return [self._outgoing(tables, tables.messages[one]) for one in asked]

    def _outgoing(self, tables: _Tables, message: Message) -> Outgoing:
        filing = tables.filings[message.conversation]
        talk = [one for _, one in sorted(tables.messages.items()) if one.conversation == filing.id]
        before = [
            one.external_id
            for one in talk
            if one.id < message.id
            and one.channel == message.channel
            and one.direction in {Direction.INBOUND, Direction.OUTBOUND}
        ]
        heard = [one.at for one in talk if one.direction is Direction.INBOUND]
        known = tables.known([filing.identifier] if filing.identifier else [])
        return Outgoing(
            message=message,
            filing=filing,
            address=max(known.holdings.values(), key=lambda one: one.node).spelling if known.holdings else "",
            references=tuple(before[-REFERENCES:]),
            heard_at=max(heard[-OVERTAKEN:], default=None),
        )

    def owners(self, workspace: str) -> list[str]:
        with self._lock:
            return sorted({one.owner for one in self._workspaces[workspace].deliveries.values() if one.owner})

    def queues(self, workspace: str) -> dict[str, Queue]:
        with self._lock:
            tables, found = self._workspaces[workspace], defaultdict[str, list[datetime]](list)
            for one in tables.deliveries.values():
                found[one.channel].append(tables.messages[one.message].at)
            return {channel: Queue(len(times), min(times)) for channel, times in found.items()}

    def memos(self, workspace: str, kind: str, keys: Collection[str]) -> dict[str, Memo]:
        with self._lock:
            kept = self._workspaces[workspace].memos
            return {key: kept[kind, key] for key in keys if (kind, key) in kept}

    def memo(self, workspace: str, kind: str, key: str) -> Memo | None:
        with self._lock:
            return self._workspaces[workspace].memos.get((kind, key))

    def checkpoint(self, workspace: str, name: str) -> str | None:
        with self._lock:
            return self._workspaces[workspace].checkpoints.get(name)

    def notices(self, workspace: str, *, since: int, limit: int) -> list[Notice]:
        with self._lock:
            found = [one for one in self._workspaces[workspace].notices.values() if one.id > since]
            return sorted(found, key=lambda one: one.id)[:limit]
