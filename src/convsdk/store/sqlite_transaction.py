"""One write transaction on SQLite: load what a batch touches, write it. No statement count depends on its size."""

import sqlite3
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from convsdk.core.fold import Evidence
from convsdk.core.inbox import Filing
from convsdk.core.model import Identifier
from convsdk.core.resolver import Known
from convsdk.core.storage import Batch, Memo, ThreadQuery
from convsdk.store.rows import (
    DELIVERY,
    FILING,
    FILING_FROM,
    HOLDING,
    MEMO,
    MESSAGE,
    RULING,
    RULING_FROM,
    decode_decision,
    filing_of,
    keys_of,
    memo_of,
    text_of,
    time_of,
)
from convsdk.store.sql_transaction import Row, SqlTransaction
from convsdk.store.tables import COLUMNS, UPSERTS

_NAMES = "(select key as place, value ->> 0 as channel, value ->> 1 as name from json_each(:names))"
KEYS = "(select value ->> 0 as kind, value ->> 1 as scope, value ->> 2 as value from json_each(:keys))"

_INSERT = {
    table: f"insert into {table} (workspace_id, {', '.join(names)}) values (?{', ?' * len(names)})"
    f" {UPSERTS.get(table, '')}"
    for table, names in ((table, [one.split()[0] for one in columns.split(", ")]) for table, columns in COLUMNS.items())
}
_REVISE = """update message set text = ?, html = ?, attachments = ?, status = ?, detail = ?
  where workspace_id = ? and id = ?"""
_GROW = """update conversation set last_at = ?, status = ?, messages = ?, unread = ?, assignee = ?,
  bot = ?, participants = ?
  where workspace_id = ? and id = ?"""

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


class SqliteTransaction(SqlTransaction):
    """One transaction of one workspace, on a connection that has begun it."""

    LAST_SAID = """select w.value ->> 0, (select h.evidence from (
        select * from (select at, key from claim where workspace_id = :workspace
          and identifier_id = w.value ->> 3 and is_link and not is_withdrawn
          and (at, key) <= (w.value ->> 2, w.value ->> 1) order by at desc, key desc limit 1)
        union all
        select * from (select at, key from claim where workspace_id = :workspace
          and anchor_id = w.value ->> 3 and is_link and not is_withdrawn
          and (at, key) <= (w.value ->> 2, w.value ->> 1) order by at desc, key desc limit 1)
        order by at desc, key desc limit 1
      ) said join hint h on h.workspace_id = :workspace and h.key = said.key)
      from json_each(:named) w"""
    REACHED = f"""select {HOLDING}, k.root_id from json_each(:ids) w
      cross join identifier b on b.workspace_id = :workspace and b.id = w.value
      cross join identifier i
        on i.workspace_id = :workspace and i.kind = b.kind and i.scope = b.scope and i.value = b.value
      left join contact k on k.workspace_id = i.workspace_id and k.id = i.contact_id"""
    JOINT = """select h.evidence from hint h where h.workspace_id = :workspace and not h.is_withdrawn and h.key in
      (select c.key from json_each(:ids) w cross join claim c
        on c.workspace_id = :workspace and c.anchor_id = w.value and c.is_link)"""
    RULINGS = f"""select {RULING} from {RULING_FROM} where r.workspace_id = :workspace and not r.is_withdrawn
      and r.a_id in (select value from json_each(:ids)) and r.b_id in (select value from json_each(:ids))"""
    # One look into the index for each, however many messages somebody has written.
    ALONE = """select s.value ->> 0, h.at, h.key, h.trust, h.may_create from json_each(:stretches) s
      cross join hint h on h.workspace_id = :workspace and h.key = (
        select a.key from hint a indexed by hint_anchor
        where a.workspace_id = :workspace and a.anchor_id = s.value ->> 0 and a.is_joint = 0
          and a.trust = s.value ->> 1 and a.may_create = s.value ->> 2 and not a.is_withdrawn
          and (a.at, a.key) >= (s.value ->> 3, s.value ->> 4) and (a.at, a.key) < (s.value ->> 5, s.value ->> 6)
        order by a.at, a.key limit 1)"""

    IDS = "json_each(:ids)"
    AMONG = "in ({})"
    AND_THEN = "cross join"
    DUE = f"""update delivery as d set owner = :owner where workspace_id = :workspace and message_id in (
        select n.message_id from delivery n where n.workspace_id = :workspace and n.channel = :channel and n.is_next
          and n.owner = '' and n.due_at <= :at order by n.due_at, n.message_id limit :most)
      returning {DELIVERY.replace("d.", "")}"""
    FOUND = f"""select w.place, 0, {MESSAGE} from {_NAMES} w
        cross join message m on m.workspace_id = :workspace and m.channel = w.channel and m.external_id = w.name
      union all select w.place, a.part, {MESSAGE} from {_NAMES} w
        cross join alias a on a.workspace_id = :workspace and a.channel = w.channel and a.external_id = w.name
        cross join message m on m.workspace_id = :workspace and m.id = a.message_id"""
    SENT_UNTIL = f"""select w.value ->> 0, {MESSAGE} from json_each(:marks) w
      cross join conversation c
        on c.workspace_id = :workspace and c.channel = w.value ->> 1 and c.thread = w.value ->> 2
      cross join message m on m.workspace_id = :workspace and m.conversation_id = c.id and m.status = w.value ->> 4
        and m.direction = 'outbound' and m.status in ('sent', 'delivered') and m.at <= w.value ->> 3"""

    def __init__(self, connection: sqlite3.Connection, workspace: int) -> None:
        super().__init__(workspace)
        self._run = connection.execute
        self._run_many = connection.executemany
        self._filings: dict[int, Filing] = {}
        self._ids: Iterator[int] | None = None
        self._spent = 0

    def _ask(self, statement: str, **values: Any) -> sqlite3.Cursor:  # noqa: ANN401  (SQL values)
        return self._run(statement, {"workspace": self._workspace, **values})

    def load(self, evidence: Sequence[Evidence]) -> Known:
        known = Known()
        self._take_holdings(known, self._holdings({one for each in evidence for one in each.identifiers}))
        rows = self._run(
            "select key, decision from hint where workspace_id = ? and key in (select value from json_each(?))",
            (self._workspace, text_of([one.hint for one in evidence])),
        )
        known.decisions = {key: decode_decision(decision) for key, decision in rows}
        self._load_repeats(known, evidence)
        return known

    def _holdings(self, identifiers: Collection[Identifier]) -> sqlite3.Cursor:
        asked, values = _asked([(one.kind, one.scope, one.value) for one in identifiers])
        return self._run(
            f"""select {HOLDING}, k.root_id from {asked} w
              cross join identifier i on i.workspace_id = ? and i.kind = w.c0 and i.scope = w.c1 and i.value = w.c2
              left join contact k on k.workspace_id = i.workspace_id and k.id = i.contact_id""",
            (*values, self._workspace),
        )

    def _reach(self, identifiers: Collection[Identifier]) -> list[int]:
        rows = self._ask(
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
            keys=keys_of(identifiers),
        )
        return [number for (number,) in rows]

    def candidates(self, queries: Sequence[ThreadQuery]) -> list[list[tuple[str, Filing]]]:
        found: list[list[tuple[str, Filing]]] = [[] for _ in queries]
        references = [
            (place, one.channel, reference) for place, one in enumerate(queries) for reference in one.references
        ]
        if references:
            for place, reference, *row in self._run(
                f"""select w.value ->> 0, w.value ->> 2, {FILING} from json_each(:references) w
                  cross join {FILING_FROM}
                  where c.workspace_id = :workspace and c.id = coalesce(
                    (select m.conversation_id from message m where m.workspace_id = :workspace
                      and m.channel = w.value ->> 1 and m.external_id = w.value ->> 2),
                    (select a.conversation_id from alias a where a.workspace_id = :workspace
                      and a.channel = w.value ->> 1 and a.external_id = w.value ->> 2))
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

    def memo(self, kind: str, key: str) -> Memo | None:
        return memo_of(self._ask(MEMO, kind=kind, key=key).fetchone())

    def memos(self, kind: str, keys: Collection[str]) -> dict[str, Memo]:
        rows = self._ask(
            """select key, text, at from memo where workspace_id = :workspace and kind = :kind
              and key in (select value from json_each(:keys))""",
            kind=kind,
            keys=text_of(sorted(keys)),
        )
        return {key: Memo(text, time_of(at)) for key, text, at in rows}

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

    def _write(self, rows: Mapping[str, Sequence[Row]], batch: Batch) -> None:
        for table, found in rows.items():
            left = self._grow(found, batch.filings) if table == "conversation" else found
            if table == "revised":
                self._run_many(_REVISE, [(*row[2:], self._workspace, row[1]) for row in left])
            elif left:
                self._run_many(_INSERT[table], [(self._workspace, *row) for row in left])
        if batch.changes.roots:
            self._run_many(
                "update contact set root_id = ? where workspace_id = ? and id = ?",
                [(root, self._workspace, contact) for contact, root in batch.changes.roots.items()],
            )
        for is_ruling in {one.is_ruling for one in batch.withdrawals}:
            marks = [
                (not one.is_undone, self._workspace, one.target)
                for one in batch.withdrawals
                if one.is_ruling is is_ruling
            ]
            for statement in _TAKE_BACK[is_ruling]:
                self._run_many(statement, marks)
        if self._ids is not None:
            self._run("update workspace set next_id = ? where id = ?", (self._spent, self._workspace))

    def _grow(self, rows: Sequence[Row], filings: Mapping[int, Filing]) -> list[Row]:
        """Update the conversations that only got longer, and give the rows of the others.

        An upsert writes to the indexes, changed or not, and nearly every message only goes on in its conversation.
        """
        is_grown = {row[0]: _is_filed_as(filings[row[0]], self._filings.get(row[0])) for row in rows}
        # last_at, and all after trust
        grown = [(row[9], *row[11:], self._workspace, row[0]) for row in rows if is_grown[row[0]]]
        if grown:
            self._run_many(_GROW, grown)
        return [row for row in rows if not is_grown[row[0]]]
