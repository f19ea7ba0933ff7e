"""What a write transaction does alike on every SQL database; each says in its own words what it asks for."""

from abc import abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from itertools import pairwise, product
from typing import Any, ClassVar

from convsdk.core.fold import Evidence, Moment
from convsdk.core.model import Identifier, Message, Node, Trust
from convsdk.core.resolver import Holding, Known
from convsdk.core.storage import Batch, Delivery, Found, Transaction, Watermark, cuts
from convsdk.store.rows import (
    DELIVERY,
    decode_evidence,
    delivery_of,
    holding_of,
    message_of,
    ruling_of,
    stamp,
    text_of,
    time_of,
)
from convsdk.store.tables import named_in, rows_in

Row = Sequence[Any]
_FIRST, _LAST = (-(2**63), ""), (2**63 - 1, "")  # before and after every moment, as it is stored


class SqlTransaction(Transaction):
    """One transaction of one workspace. Values of a statement are named; lists of them go in as JSON."""

    LAST_SAID: ClassVar[str]
    """For each place, hint, moment and row id of `:named`: the place, and the last joint evidence on that row."""
    REACHED: ClassVar[str]
    """All epochs of the identifiers with the row ids `:ids`."""
    JOINT: ClassVar[str]
    """The joint evidence on the row ids `:ids`."""
    RULINGS: ClassVar[str]
    """The rulings between the row ids `:ids`."""
    ALONE: ClassVar[str]
    """The first lone hint in each of `:stretches`: row id, trust, may_create, and two moments, each with a hint."""

    DUE: ClassVar[str]
    """Makes the deliveries of `:channel` that are due `:at` and nobody's `:owner`'s, up to `:most`, and gives them."""
    FOUND: ClassVar[str]
    """The messages of the names `:names`, their own or aliases: channel, name, part, message."""
    SENT_UNTIL: ClassVar[str]
    """The messages of the watermarks `:marks` (place, channel, thread, until, status): place, message."""
    IDS: ClassVar[str]
    """Gives the ids of the JSON `:ids` as rows of (value)."""
    AMONG: ClassVar[str]
    """Says that something is among what a query `{}` gives."""
    AND_THEN: ClassVar[str]
    """A join that begins with its left side."""
    LOCKED: ClassVar[str] = ""
    """What ends a statement that locks the rows of `d`."""

    def __init__(self, workspace: int) -> None:
        self._workspace = workspace
        self.has_written = False
        self._base: dict[Identifier, int] = {}

    @abstractmethod
    def _ask(self, statement: str, **values: Any) -> Iterable[Row]:  # noqa: ANN401  (SQL values)
        """Run a statement, and give its rows."""

    @abstractmethod
    def _holdings(self, identifiers: Collection[Identifier]) -> Iterable[Row]:
        """Give all epochs of `identifiers`."""

    @abstractmethod
    def _reach(self, identifiers: Collection[Identifier]) -> list[int]:
        """Give the row ids of all that evidence leads to from `identifiers`."""

    @abstractmethod
    def _write(self, rows: Mapping[str, Sequence[Row]], batch: Batch) -> None:
        """Write `rows` into their tables, and the roots and the withdrawals of `batch`."""

    def _take_holdings(self, known: Known, rows: Iterable[Row]) -> None:
        for *row, root in rows:
            held = holding_of(row)
            known.holdings.setdefault(held.node, held)
            if held.contact is not None:
                known.roots.setdefault(held.contact, root)
            if held.node.epoch == 0:
                self._base[held.node.identifier] = held.id

    def _load_repeats(self, known: Known, evidence: Sequence[Evidence]) -> None:
        joint = [one for one in evidence if one.links]
        if not joint:
            return
        named = [
            (place, one.hint, stamp(one.at), self._base.get(identifier))
            for place, one in enumerate(joint)
            for identifier, _ in one.attested
        ]
        said: list[list[Evidence | None]] = [[] for _ in joint]
        for place, last in self._ask(self.LAST_SAID, named=text_of(named)):
            said[place].append(decode_evidence(last) if last else None)
        known.repeats = {
            one.hint
            for one, lasts in zip(joint, said, strict=True)
            if all(last is not None and last.attested == one.attested for last in lasts)
        }

    def due(self, channel: str, *, owner: str, at: datetime, limit: int) -> list[Delivery]:
        asked = {"channel": channel, "owner": owner, "at": stamp(at), "most": limit}
        self.has_written = True
        claimed = [delivery_of(row) for row in self._ask(self.DUE, **asked)]
        return sorted(claimed, key=lambda one: (one.due_at, one.message))

    def bring_forward(self, at: datetime) -> None:
        self.has_written = True
        self._ask(
            """update delivery set due_at = :at, put_off_at = :at
              where workspace_id = :workspace and due_at > :at and put_off_at > :at""",
            at=stamp(at),
        )

    def deliveries_of(self, owner: str) -> list[Delivery]:
        statement = f"select {DELIVERY} from delivery d where d.workspace_id = :workspace and d.owner = :owner"
        found = [delivery_of(row) for row in self._ask(statement, owner=owner)]
        return [one for one in self.hold(found).values() if one.owner == owner]

    def hold(self, deliveries: Sequence[Delivery]) -> dict[int, Delivery]:
        self._lock_conversations({one.conversation for one in deliveries})
        return self.deliveries([one.message for one in deliveries])

    def deliveries(self, messages: Collection[int]) -> dict[int, Delivery]:
        among = self.AMONG.format(f"select value from {self.IDS} w")
        rows = self._ask(
            f"""select {DELIVERY} from delivery d where d.workspace_id = :workspace and d.message_id {among}
              order by d.message_id {self.LOCKED}""",
            ids=text_of(sorted(messages)),
        )
        return {one.message: one for one in map(delivery_of, rows)}

    def found(self, external_ids: Collection[tuple[str, str]]) -> dict[tuple[str, str], Found]:
        asked = sorted(set(external_ids))
        found: dict[tuple[str, str], Found] = {}
        if asked:
            # A message's own id comes first, and counts.
            for place, part, *row in self._ask(self.FOUND, names=text_of(asked)):
                found.setdefault(asked[place], Found(message=message_of(row), part=part))
        return found

    def sent_until(self, watermarks: Sequence[Watermark]) -> list[list[Message]]:
        found: list[list[Message]] = [[] for _ in watermarks]
        marks = [
            (place, one.channel, one.thread, stamp(one.until), status)
            for place, one in enumerate(watermarks)
            for status in one.statuses
        ]
        for place, *row in self._ask(self.SENT_UNTIL, marks=text_of(marks)) if marks else ():
            found[place].append(message_of(row))
        return [sorted(each, key=lambda one: one.id) for each in found]

    def _lock_conversations(self, conversations: Collection[int]) -> None:
        """Lock these conversations, where others could change them."""

    def forget_memos(self, kind: str, *, before: datetime) -> int:
        statement = "delete from memo where workspace_id = :workspace and kind = :kind and at < :before returning 1"
        self.has_written = True
        return len(list(self._ask(statement, kind=kind, before=stamp(before))))

    def load_history(self, known: Known, identifiers: Collection[Identifier], pending: Sequence[Evidence] = ()) -> None:
        reached = self._reach(identifiers)
        ids = text_of(reached)
        holdings, evidence, rulings = (self._ask(one, ids=ids) for one in (self.REACHED, self.JOINT, self.RULINGS))
        self._take_holdings(known, holdings)
        joint = [decode_evidence(one) for (one,) in evidence]
        for one in joint:
            known.add(one)
        for row in rulings:
            known.add_ruling(ruling_of(row).ruling)
        self._load_alone(known, reached, cuts((*joint, *pending)))

    def _load_alone(self, known: Known, reached: Iterable[int], moments: Mapping[Identifier, list[Moment]]) -> None:
        names = {number: identifier for identifier, number in self._base.items()}
        stretches = [
            (number, trust, may_create, *start, *end)
            for number in reached
            for start, end in pairwise(
                [_FIRST, *((stamp(at), key) for at, key in moments.get(names[number], ())), _LAST]
            )
            for trust, may_create in product(Trust, (False, True))
        ]
        for number, at, key, trust, may_create in self._ask(self.ALONE, stretches=text_of(stretches)):
            anchor, is_creating = names[number], bool(may_create)
            known.add(Evidence(hint=key, at=time_of(at), anchor=anchor, trust=Trust(trust), may_create=is_creating))

    def write(self, batch: Batch) -> None:
        holdings = batch.changes.holdings
        self._base.update({node.identifier: held.id for node, held in holdings.items() if not node.epoch})
        if missing := named_in(batch) - self._base.keys():
            self._take_holdings(Known(), self._holdings(missing))
            # Somebody unknown, of whom a consent or a merge speaks.
            for one, number in zip(sorted(missing - self._base.keys()), self.new_ids(), strict=False):
                self._base[one] = number
                holdings[Node(one)] = Holding(id=number, node=Node(one))
        self._write(rows_in(batch, self._base, self.new_ids), batch)
        if batch.deliveries or batch.ended:
            self._call_up(batch)

    def _call_up(self, batch: Batch) -> None:
        """Take away what has ended, and let the next of its conversation go, where none goes already."""
        conversations = {one.conversation for one in batch.deliveries.values()}
        if batch.ended:
            among = self.AMONG.format(f"select value from {self.IDS} w")
            gone = self._ask(
                f"""delete from delivery where workspace_id = :workspace and message_id {among}
                  returning conversation_id""",
                ids=text_of(sorted(batch.ended)),
            )
            conversations.update(number for (number,) in gone)
        firsts = self.AMONG.format(
            f"""select min(d.message_id) from {self.IDS} w {self.AND_THEN} delivery d
              on d.workspace_id = :workspace and d.conversation_id = w.value
              group by d.conversation_id having sum(case when d.is_next then 1 else 0 end) = 0"""
        )
        self.has_written = True
        self._ask(
            f"""update delivery set is_next = true, due_at = case when due_at < :at then :at else due_at end
              where workspace_id = :workspace and message_id {firsts}""",
            ids=text_of(sorted(conversations)),
            at=max((stamp(one) for one in batch.ended.values()), default=0),
        )
