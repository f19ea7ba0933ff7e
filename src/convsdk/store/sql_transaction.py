"""What a write transaction does alike on every SQL database; each says in its own words what it asks for."""

from abc import abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from itertools import pairwise, product
from typing import Any, ClassVar

from convsdk.core.fold import Evidence, Moment
from convsdk.core.model import Identifier, Node, Trust
from convsdk.core.resolver import Holding, Known
from convsdk.core.storage import Batch, Transaction, cuts
from convsdk.store.rows import decode_evidence, holding_of, ruling_of, stamp, text_of, time_of
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

    def __init__(self, workspace: int) -> None:
        self._workspace = workspace
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

    def forget_memos(self, kind: str, *, before: datetime) -> int:
        statement = "delete from memo where workspace_id = :workspace and kind = :kind and at < :before returning 1"
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
