"""One write transaction on SQLite: load what a batch touches, write it. No statement count depends on its size."""

import sqlite3
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import pairwise, product
from typing import Any

from convsdk.core.fold import Evidence, Moment
from convsdk.core.inbox import Filing
from convsdk.core.model import (
    Identifier,
    Node,
    Ruling,
    Trust,
)
from convsdk.core.resolver import Changes, Holding, Known
from convsdk.core.storage import (
    Batch,
    ThreadQuery,
    Transaction,
    cuts,
)
from convsdk.store.rows import (
    FILING,
    FILING_FROM,
    HOLDING,
    RULING,
    RULING_FROM,
    decision_text,
    decode_decision,
    decode_evidence,
    encode,
    evidence_text,
    filing_of,
    holding_of,
    keys_of,
    row_of,
    ruling_of,
    stamp,
    text_of,
    time_of,
)

KEYS = "(select value ->> 0 as kind, value ->> 1 as scope, value ->> 2 as value from json_each(:keys))"

_FIRST, _LAST = (-(2**63), ""), (2**63 - 1, "")  # before and after every moment, as it is stored

# Columns are named, so that a later migration can add one without breaking this release.
_INSERT = {
    table: f"insert into {table} (workspace_id, {columns}) values (?{', ?' * len(columns.split(', '))})"
    for table, columns in {
        "identifier": "id, kind, scope, value, epoch, since, "
        "since_hint, contact_id, trust, is_owned, is_founder, spelling, form",
        "contact": "id, root_id, created_at, how, hint",
        "hint": "key, at, anchor_id, visitor_id, trust, may_create, "
        "is_joint, channel, how, by, conversation_id, evidence, decision",
        "claim": "identifier_id, at, key, anchor_id, trust, is_link",
        "ruling": "id, kind, a_id, b_id, at, by, reason",
        "trait": "identifier_id, id, name, value, trust, at, key",
        "consent": "identifier_id, id, purpose, state, at, key, trust, by, place, wording, wording_version",
        "membership": "contact_id, id, list, state, at, how, by",
        "withdrawal": "id, target, is_ruling, at, by, is_undone",
        "conversation": "id, channel, thread, subject, identifier_id, visitor_id, filed_id, "
        "opened_at, opened_by, last_at, trust, status, messages, unread, assignee",
        "message": "id, conversation_id, channel, external_id, direction, at, text, html, attachments, status",
        "outbox": "id, type, version, at, payload",
    }.items()
}

# How a withdrawal is written, by whether it is of a ruling.
_TAKE_BACK = {
    True: ("update ruling set is_withdrawn = ? where workspace_id = ? and id = ?",),
    False: (
        "update hint set is_withdrawn = ? where workspace_id = ? and key = ?",
        "update claim set is_withdrawn = ? where workspace_id = ? and key = ?",
    ),
}


def _asked(rows: Sequence[tuple[Any, ...]]) -> tuple[str, Sequence[Any]]:
    """Give a table of `rows` of three columns to select from, and its values.

    The statement is the same for two rows and for a thousand. One row is given as it is: JSON takes as long as the
    look-up that it is for.
    """
    if len(rows) == 1:
        return "(select ? as c0, ? as c1, ? as c2)", rows[0]
    return "(select value ->> 0 as c0, value ->> 1 as c1, value ->> 2 as c2 from json_each(?))", [text_of(rows)]


def _is_filed_as(one: Filing, other: Filing | None) -> bool:
    if other is None:
        return False
    return (one.identifier, one.visitor, one.trust) == (other.identifier, other.visitor, other.trust)


class SqliteTransaction(Transaction):
    """One transaction of one workspace, on a connection that has begun it."""

    def __init__(self, connection: sqlite3.Connection, workspace: int) -> None:
        self._run = connection.execute
        self._run_many = connection.executemany
        self._workspace = workspace
        self._base: dict[Identifier, int] = {}
        self._filings: dict[int, Filing] = {}
        self._ids: Iterator[int] | None = None
        self._spent = 0

    def load(self, evidence: Sequence[Evidence]) -> Known:
        known = Known()
        self._load_holdings(known, {one for each in evidence for one in each.identifiers})
        hints = text_of([one.hint for one in evidence])
        rows = self._run(
            "select key, decision from hint where workspace_id = ? and key in (select value from json_each(?))",
            (self._workspace, hints),
        )
        known.decisions = {key: decode_decision(decision) for key, decision in rows}
        self._load_repeats(known, evidence)
        return known

    def _load_holdings(self, known: Known, identifiers: Collection[Identifier]) -> None:
        asked, values = _asked([(one.kind, one.scope, one.value) for one in identifiers])
        rows = self._run(
            f"""select {HOLDING}, k.root_id from {asked} w
              cross join identifier i on i.workspace_id = ? and i.kind = w.c0 and i.scope = w.c1 and i.value = w.c2
              left join contact k on k.workspace_id = i.workspace_id and k.id = i.contact_id""",
            (*values, self._workspace),
        )
        self._take_holdings(known, rows)

    def _take_holdings(self, known: Known, rows: Iterable[tuple[Any, ...]]) -> None:
        for *row, root in rows:
            held = holding_of(tuple(row))
            known.holdings.setdefault(held.node, held)
            if held.contact is not None:
                known.roots.setdefault(held.contact, root)
            if held.node.epoch == 0:
                self._base[held.node.identifier] = held.id

    def _load_repeats(self, known: Known, evidence: Sequence[Evidence]) -> None:
        joint = {one.hint: one for one in evidence if one.links}
        named = [
            (one.hint, stamp(one.at), self._base.get(identifier))
            for one in joint.values()
            for identifier, _ in one.attested
        ]
        if not named:
            return
        said: dict[str, list[Evidence | None]] = {hint: [] for hint in joint}
        for hint, last in self._run(
            """select w.value ->> 0, (select h.evidence from (
                select * from (select at, key from claim where workspace_id = :workspace
                  and identifier_id = w.value ->> 2 and is_link and not is_withdrawn
                  and (at, key) <= (w.value ->> 1, w.value ->> 0) order by at desc, key desc limit 1)
                union all
                select * from (select at, key from claim where workspace_id = :workspace
                  and anchor_id = w.value ->> 2 and is_link and not is_withdrawn
                  and (at, key) <= (w.value ->> 1, w.value ->> 0) order by at desc, key desc limit 1)
                order by at desc, key desc limit 1
              ) said join hint h on h.workspace_id = :workspace and h.key = said.key)
              from json_each(:named) w""",
            {"workspace": self._workspace, "named": text_of(named)},
        ):
            said[hint].append(decode_evidence(last) if last else None)
        known.repeats = {
            hint
            for hint, lasts in said.items()
            if all(last is not None and last.attested == joint[hint].attested for last in lasts)
        }

    def load_history(self, known: Known, identifiers: Collection[Identifier], pending: Sequence[Evidence] = ()) -> None:
        values = {"workspace": self._workspace, "keys": keys_of(identifiers)}
        rows = self._run(
            f"""with recursive reach(id) as (
                select i.id from {KEYS} w cross join identifier i
                  on i.workspace_id = :workspace and i.kind = w.kind and i.scope = w.scope and i.value = w.value
                  and i.epoch = 0
                union
                select c.anchor_id from reach cross join claim c
                  on c.workspace_id = :workspace and c.identifier_id = reach.id
                  where c.is_link and not c.is_withdrawn
                union
                select c.identifier_id from reach cross join claim c
                  on c.workspace_id = :workspace and c.anchor_id = reach.id
                  where c.is_link and not c.is_withdrawn
                union
                select r.a_id from reach cross join ruling r on r.workspace_id = :workspace and r.b_id = reach.id
                  where r.kind = 'merge' and not r.is_withdrawn
                union
                select r.b_id from reach cross join ruling r on r.workspace_id = :workspace and r.a_id = reach.id
                  where r.kind = 'merge' and not r.is_withdrawn
              ) select id from reach""",
            values,
        )
        reached = [number for (number,) in rows]
        values["reached"] = text_of(reached)
        rows = self._run(
            f"""select {HOLDING}, k.root_id from json_each(:reached) w
              cross join identifier b on b.workspace_id = :workspace and b.id = w.value
              cross join identifier i
                on i.workspace_id = :workspace and i.kind = b.kind and i.scope = b.scope and i.value = b.value
              left join contact k on k.workspace_id = i.workspace_id and k.id = i.contact_id""",
            values,
        )
        self._take_holdings(known, rows)
        joint = [
            decode_evidence(evidence)
            for (evidence,) in self._run(
                """select h.evidence from hint h where h.workspace_id = :workspace and not h.is_withdrawn and h.key in
                  (select c.key from json_each(:reached) w cross join claim c
                    on c.workspace_id = :workspace and c.anchor_id = w.value and c.is_link)""",
                values,
            )
        ]
        for evidence in joint:
            known.add(evidence)
        self._load_alone(known, reached, cuts((*joint, *pending)))
        for row in self._run(
            f"""select {RULING} from {RULING_FROM} where r.workspace_id = :workspace and not r.is_withdrawn
              and r.a_id in (select value from json_each(:reached))
              and r.b_id in (select value from json_each(:reached))""",
            values,
        ):
            known.add_ruling(ruling_of(row).ruling)

    def _load_alone(self, known: Known, reached: list[int], moments: dict[Identifier, list[Moment]]) -> None:
        names = {number: identifier for identifier, number in self._base.items()}
        stretches = [
            (number, trust, may_create, *start, *end)
            for number in reached
            for start, end in pairwise(
                [_FIRST, *((stamp(at), key) for at, key in moments.get(names[number], ())), _LAST]
            )
            for trust, may_create in product(Trust, (0, 1))
        ]
        # One look into the index for each, however many messages somebody has written.
        for number, at, key, trust, may_create in self._run(
            """select s.value ->> 0, h.at, h.key, h.trust, h.may_create from json_each(:stretches) s
              cross join hint h on h.workspace_id = :workspace and h.key = (
                select a.key from hint a indexed by hint_anchor
                where a.workspace_id = :workspace and a.anchor_id = s.value ->> 0 and a.is_joint = 0
                  and a.trust = s.value ->> 1 and a.may_create = s.value ->> 2 and not a.is_withdrawn
                  and (a.at, a.key) >= (s.value ->> 3, s.value ->> 4) and (a.at, a.key) < (s.value ->> 5, s.value ->> 6)
                order by a.at, a.key limit 1)""",
            {"workspace": self._workspace, "stretches": text_of(stretches)},
        ):
            anchor, is_creating = names[number], bool(may_create)
            known.add(Evidence(hint=key, at=time_of(at), anchor=anchor, trust=Trust(trust), may_create=is_creating))

    def candidates(self, queries: Sequence[ThreadQuery]) -> list[list[tuple[str, Filing]]]:
        found: list[list[tuple[str, Filing]]] = [[] for _ in queries]
        references = [
            (place, one.channel, reference) for place, one in enumerate(queries) for reference in one.references
        ]
        if references:
            for place, reference, *row in self._run(
                f"""select w.value ->> 0, w.value ->> 2, {FILING} from json_each(:references) w
                  cross join message m on m.workspace_id = :workspace and m.channel = w.value ->> 1
                    and m.external_id = w.value ->> 2
                  cross join {FILING_FROM}
                  where c.workspace_id = :workspace and c.id = m.conversation_id
                  order by w.key""",
                {"workspace": self._workspace, "references": text_of(references)},
            ):
                found[place].append((reference, self._filing(row)))
        asked, values = _asked([(place, one.channel, one.thread) for place, one in enumerate(queries)])
        threaded: list[list[tuple[str, Filing]]] = [[] for _ in queries]
        for place, *row in self._run(
            f"""select w.c0, {FILING} from {asked} w
              cross join {FILING_FROM} where c.workspace_id = ? and c.channel = w.c1 and c.thread = w.c2""",
            (*values, self._workspace),
        ):
            threaded[place].append(("", self._filing(row)))
        for answering, others in zip(found, threaded, strict=True):
            answering.extend(sorted(others, key=lambda one: one[1].id, reverse=True))
        return found

    def _filing(self, row: Sequence[Any]) -> Filing:
        filing = filing_of(row)
        self._filings[filing.id] = filing
        return filing

    def new_ids(self) -> Iterator[int]:
        if self._ids is None:
            (first,) = self._run("select next_id from workspace where id = ?", (self._workspace,)).fetchone()
            self._spent = first
            self._ids = self._count()
        return self._ids

    def _count(self) -> Iterator[int]:
        while True:
            self._spent += 1
            yield self._spent - 1

    def write(self, batch: Batch) -> None:
        # Nearly every batch is messages of known people alone, and has nothing for half of this.
        if batch.changes.holdings or batch.changes.contacts or batch.changes.roots:
            self._write_changes(batch.changes)
        self._find_bases(batch)
        self._write_hints(batch)
        if batch.rulings:
            self._write_rulings(batch.rulings)
        if batch.traits or batch.consents or batch.memberships or batch.withdrawals:
            self._write_said(batch)
        self._write_inbox(batch)
        if self._ids is not None:
            self._run("update workspace set next_id = ? where id = ?", (self._spent, self._workspace))
        for name, position in batch.checkpoints.items():
            self._run("replace into checkpoint values (?, ?, ?)", (self._workspace, name, position))

    def _write_changes(self, changes: Changes) -> None:
        self._many(
            _INSERT["identifier"]
            + """ on conflict (workspace_id, id) do update set since = excluded.since, since_hint = excluded.since_hint,
                contact_id = excluded.contact_id, trust = excluded.trust, is_owned = excluded.is_owned,
                is_founder = excluded.is_founder""",
            map(row_of, changes.holdings.values()),
        )
        self._base.update({held.node.identifier: held.id for held in changes.holdings.values() if not held.node.epoch})
        self._many(
            _INSERT["contact"],
            ((one.id, one.id, stamp(one.at), one.how, one.hint) for one in changes.contacts),
        )
        if changes.roots:
            self._run_many(
                "update contact set root_id = ? where workspace_id = ? and id = ?",
                [(root, self._workspace, contact) for contact, root in changes.roots.items()],
            )

    def _find_bases(self, batch: Batch) -> None:
        """Make sure that everything the batch speaks of has its row: a consent can be about somebody unknown."""
        named = {
            *(one for record in batch.hints for one in record.evidence.identifiers),
            *(one.identifier for one in batch.traits),
            *(one.identifier for one in batch.consents),
            *(one for ruling in batch.rulings for one in (ruling.a, ruling.b)),
            *(one for filing in batch.filings.values() for one in (filing.identifier, filing.visitor) if one),
        }
        missing = named - self._base.keys()
        if missing:
            self._load_holdings(Known(), missing)
            ids = self.new_ids()
            unknown = sorted(missing - self._base.keys())
            self._base.update(zip(unknown, ids, strict=False))
            self._many(_INSERT["identifier"], (row_of(Holding(id=self._base[one], node=Node(one))) for one in unknown))

    def _write_hints(self, batch: Batch) -> None:
        self._many(
            _INSERT["hint"],
            (
                (
                    record.evidence.hint,
                    stamp(record.evidence.at),
                    self._base[record.evidence.anchor] if record.evidence.anchor else None,
                    self._base[record.evidence.visitor] if record.evidence.visitor else None,
                    record.evidence.trust,
                    record.evidence.may_create,
                    bool(record.evidence.links),
                    record.channel,
                    record.how,
                    record.by,
                    record.conversation,
                    evidence_text(record.evidence),
                    decision_text(record.decision),
                )
                for record in batch.hints
            ),
        )
        self._many(
            _INSERT["claim"],
            (
                (
                    self._base[other],
                    stamp(record.evidence.at),
                    record.evidence.hint,
                    self._base[record.evidence.anchor],
                    trust,
                    is_link,
                )
                for record in batch.hints
                if record.evidence.anchor
                for is_link, pairs in ((True, record.evidence.links), (False, record.evidence.notes))
                for other, trust in pairs
            ),
        )

    def _write_rulings(self, rulings: Iterable[Ruling]) -> None:
        self._many(
            _INSERT["ruling"],
            (
                (one.id, one.kind.value, self._base[one.a], self._base[one.b], stamp(one.at), one.by, one.reason)
                for one in rulings
            ),
        )

    def _write_said(self, batch: Batch) -> None:
        ids = self.new_ids()
        self._many(
            _INSERT["trait"],
            (
                (self._base[one.identifier], next(ids), one.name, one.value, one.trust, stamp(one.at), one.hint)
                for one in batch.traits
            ),
        )
        self._many(
            _INSERT["consent"],
            (
                (
                    self._base[one.identifier],
                    next(ids),
                    one.purpose,
                    one.state.value,
                    stamp(one.at),
                    one.hint,
                    one.trust,
                    one.by,
                    one.where,
                    one.wording,
                    one.wording_version,
                )
                for one in batch.consents
            ),
        )
        self._many(
            _INSERT["membership"],
            (
                (one.contact, next(ids), one.list, one.state.value, stamp(one.at), one.how, one.by)
                for one in batch.memberships
            ),
        )
        self._many(
            _INSERT["withdrawal"],
            ((next(ids), one.target, one.is_ruling, stamp(one.at), one.by, one.is_undone) for one in batch.withdrawals),
        )
        for is_ruling, statements in _TAKE_BACK.items():
            marks = [
                (not one.is_undone, self._workspace, one.target)
                for one in batch.withdrawals
                if one.is_ruling is is_ruling
            ]
            for statement in statements if marks else ():
                self._run_many(statement, marks)

    def _write_inbox(self, batch: Batch) -> None:
        self._write_filings(batch.filings.values())
        self._many(
            _INSERT["message"],
            (
                (
                    one.id,
                    one.conversation,
                    one.channel,
                    one.external_id,
                    one.direction.value,
                    stamp(one.at),
                    one.text,
                    one.html,
                    encode(one.attachments),
                    one.status,
                )
                for one in batch.messages
            ),
        )
        self._many(
            _INSERT["outbox"],
            ((one.id, one.type, one.version, stamp(one.at), encode(one.payload)) for one in batch.notices),
        )

    def _write_filings(self, filings: Collection[Filing]) -> None:
        # The upsert below writes to an index, changed or not. Nearly every message only goes on in its conversation.
        grown: list[Filing] = []
        others: list[Filing] = []
        for one in filings:
            (grown if _is_filed_as(one, self._filings.get(one.id)) else others).append(one)
        if grown:
            self._run_many(
                """update conversation set last_at = ?, status = ?, messages = ?, unread = ?, assignee = ?
                  where workspace_id = ? and id = ?""",
                [
                    (
                        stamp(one.last_at),
                        one.status.value,
                        one.messages,
                        one.unread,
                        one.assignee,
                        self._workspace,
                        one.id,
                    )
                    for one in grown
                ],
            )
        self._many(
            _INSERT["conversation"]
            + """ on conflict (workspace_id, id) do update set identifier_id = excluded.identifier_id,
                visitor_id = excluded.visitor_id, filed_id = excluded.filed_id, last_at = excluded.last_at,
                trust = excluded.trust, status = excluded.status, messages = excluded.messages,
                unread = excluded.unread, assignee = excluded.assignee""",
            (
                (
                    one.id,
                    one.channel,
                    one.thread,
                    one.subject,
                    self._base[one.identifier] if one.identifier else None,
                    self._base[one.visitor] if one.visitor else None,
                    self._base[one.identifier or one.visitor] if one.identifier or one.visitor else None,  # type: ignore[index]  # mypy does not narrow `or`
                    stamp(one.opened[0]),
                    one.opened[1],
                    stamp(one.last_at),
                    one.trust,
                    one.status.value,
                    one.messages,
                    one.unread,
                    one.assignee,
                )
                for one in others
            ),
        )

    def _many(self, statement: str, rows: Iterable[tuple[Any, ...]]) -> None:
        # A message writes to half of the tables: the other statements are not even looked up.
        if owned := [(self._workspace, *row) for row in rows]:
            self._run_many(statement, owned)
