"""The embedded store: one SQLite file, the standard library's driver, nothing to set up.

WAL with `synchronous=FULL`: what was acknowledged survives a power cut. A write transaction begins IMMEDIATE, because
a read that is later upgraded to a write gives busy errors that no timeout cures. The number of statements of a batch
does not depend on its size.
"""

import json
import sqlite3
import threading
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from importlib import resources
from typing import Any, TypeVar

import msgspec

from convsdk.core.consent import ConsentRecord, ConsentState, ListState, Membership
from convsdk.core.events import Notice
from convsdk.core.fold import Evidence, Moment
from convsdk.core.identifiers import FORM_VERSION
from convsdk.core.inbox import ConversationStatus, Filing
from convsdk.core.model import (
    Attachment,
    Decision,
    Direction,
    Identifier,
    Message,
    Node,
    Ruling,
    RulingKind,
    Trust,
)
from convsdk.core.profile import TraitClaim
from convsdk.core.resolver import Holding, Known
from convsdk.core.storage import (
    Batch,
    ContactRecord,
    HintRecord,
    NamedTogether,
    RulingRecord,
    Store,
    ThreadQuery,
    Transaction,
    Visit,
    cuts,
)
from convsdk.errors import ConfigError, ConvsdkError, PermanentError, TransientError

Value = TypeVar("Value")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_BUSY_TIMEOUT_S = 30

_encode = msgspec.json.Encoder().encode
_decode_evidence = msgspec.json.Decoder(Evidence).decode
_decode_decision = msgspec.json.Decoder(Decision).decode
_decode_attachments = msgspec.json.Decoder(tuple[Attachment, ...]).decode

_HOLDING = (
    "i.id, i.kind, i.scope, i.value, i.epoch, i.since, i.since_hint, i.contact_id, i.trust, i.is_owned, i.is_founder,"
    " i.spelling"
)
_FILING = """c.id, c.channel, c.thread, c.opened_at, c.opened_by, c.last_at, c.subject,
  n.kind, n.scope, n.value, v.kind, v.scope, v.value, c.trust, c.status, c.messages, c.unread, c.assignee"""
_FILING_FROM = """conversation c
  left join identifier n on n.workspace_id = c.workspace_id and n.id = c.identifier_id
  left join identifier v on v.workspace_id = c.workspace_id and v.id = c.visitor_id"""
_HINT = "h.id, h.evidence, h.decision, h.channel, h.how, h.by, h.conversation_id, h.is_withdrawn"
_RULING = "r.id, r.kind, a.kind, a.scope, a.value, b.kind, b.scope, b.value, r.at, r.by, r.reason, r.is_withdrawn"
_RULING_FROM = """ruling r
  join identifier a on a.workspace_id = r.workspace_id and a.id = r.a_id
  join identifier b on b.workspace_id = r.workspace_id and b.id = r.b_id"""

# The epoch that an identifier (the row `base`) was in at a moment, and the contact that it is on: for correlated use.
_EPOCH_AT = """(select e.epoch from identifier e
  where e.workspace_id = {base}.workspace_id and e.kind = {base}.kind and e.scope = {base}.scope
    and e.value = {base}.value and (e.epoch = 0 or (e.since, e.since_hint) <= ({at}, {key}))
  order by e.epoch desc limit 1)"""
_HOLDER_AT = (
    """(select k.root_id from identifier e
  join contact k on k.workspace_id = e.workspace_id and k.id = e.contact_id
  where e.workspace_id = {base}.workspace_id and e.kind = {base}.kind and e.scope = {base}.scope
    and e.value = {base}.value and e.is_owned and e.epoch = """
    + _EPOCH_AT
    + ")"
)

# Columns are named, so that a later migration can add one without breaking this release.
_INSERT = {
    table: f"insert into {table} (workspace_id, {columns}) values (?{', ?' * len(columns.split(', '))})"
    for table, columns in {
        "identifier": "id, kind, scope, value, epoch, since, "
        "since_hint, contact_id, trust, is_owned, is_founder, spelling, form",
        "contact": "id, root_id, created_at, how, hint",
        "hint": "id, key, at, anchor_id, visitor_id, trust, may_create, "
        "is_joint, channel, how, by, conversation_id, evidence, decision",
        "claim": "identifier_id, at, hint_id, key, anchor_id, trust, is_link",
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
    True: ("update ruling set is_withdrawn = ?1 where workspace_id = ?2 and id = ?3",),
    False: (
        "update hint set is_withdrawn = ?1 where workspace_id = ?2 and key = ?3",
        """update claim set is_withdrawn = ?1 where workspace_id = ?2
          and hint_id = (select id from hint where workspace_id = ?2 and key = ?3)""",
    ),
}


def _stamp(at: datetime) -> int:
    return (at - _EPOCH) // _MICROSECOND


def _time(stamp: int) -> datetime:
    return _EPOCH + timedelta(microseconds=stamp)


def _keys(identifiers: Iterable[Identifier]) -> str:
    return json.dumps([(one.kind, one.scope, one.value) for one in identifiers])


_KEYS = "(select value ->> 0 as kind, value ->> 1 as scope, value ->> 2 as value from json_each(:keys))"

# The immutable rows of the identifiers asked for, as `b`.
_BASES = f"""{_KEYS} w cross join identifier b
  on b.workspace_id = :workspace and b.kind = w.kind and b.scope = w.scope and b.value = w.value and b.epoch = 0"""


def _holding(row: tuple[Any, ...]) -> Holding:
    number, kind, scope, value, epoch, since, since_hint, contact, trust, is_owned, is_founder, spelling = row
    return Holding(
        id=number,
        node=Node(Identifier(kind, scope, value), epoch),
        since=None if since is None else (_time(since), since_hint),
        contact=contact,
        trust=None if trust is None else Trust(trust),
        is_owned=bool(is_owned),
        is_founder=bool(is_founder),
        spelling=spelling,
    )


def _holding_row(held: Holding) -> tuple[Any, ...]:
    since = (None, None) if held.since is None else (_stamp(held.since[0]), held.since[1])
    identifier = held.node.identifier
    return (
        held.id,
        identifier.kind,
        identifier.scope,
        identifier.value,
        held.node.epoch,
        *since,
        held.contact,
        held.trust,
        held.is_owned,
        held.is_founder,
        held.spelling,
        FORM_VERSION,
    )


def _filing(row: tuple[Any, ...]) -> Filing:
    number, channel, thread, opened_at, opened_by, last_at, subject = row[:7]
    trust, status, messages, unread, assignee = row[13:18]
    return Filing(
        id=number,
        channel=channel,
        thread=thread,
        opened=(_time(opened_at), opened_by),
        last_at=_time(last_at),
        subject=subject,
        identifier=Identifier(*row[7:10]) if row[7] is not None else None,
        visitor=Identifier(*row[10:13]) if row[10] is not None else None,
        trust=None if trust is None else Trust(trust),
        status=ConversationStatus(status),
        messages=messages,
        unread=unread,
        assignee=assignee,
    )


def _hint(row: tuple[Any, ...]) -> HintRecord:
    number, evidence, decision, channel, how, by, conversation, is_withdrawn = row
    return HintRecord(
        id=number,
        evidence=_decode_evidence(evidence),
        decision=_decode_decision(decision),
        channel=channel,
        how=how,
        by=by,
        conversation=conversation,
        is_withdrawn=bool(is_withdrawn),
    )


def _ruling(row: tuple[Any, ...]) -> RulingRecord:
    ruling = Ruling(
        id=row[0],
        kind=RulingKind(row[1]),
        a=Identifier(*row[2:5]),
        b=Identifier(*row[5:8]),
        at=_time(row[8]),
        by=row[9],
        reason=row[10],
    )
    return RulingRecord(ruling=ruling, is_withdrawn=bool(row[11]))


class _SqliteTransaction(Transaction):
    def __init__(self, connection: sqlite3.Connection, workspace: int) -> None:
        self._run = connection.execute
        self._run_many = connection.executemany
        self._workspace = workspace
        self._base: dict[Identifier, int] = {}
        self._ids: Iterator[int] | None = None
        self._spent = 0

    def load(self, evidence: Sequence[Evidence]) -> Known:
        known = Known()
        self._load_holdings(known, {one for each in evidence for one in each.identifiers})
        hints = json.dumps([one.hint for one in evidence])
        rows = self._run(
            "select key, decision from hint where workspace_id = ? and key in (select value from json_each(?))",
            (self._workspace, hints),
        )
        known.decisions = {key: _decode_decision(decision) for key, decision in rows}
        self._load_repeats(known, evidence)
        return known

    def _load_holdings(self, known: Known, identifiers: Collection[Identifier]) -> None:
        rows = self._run(
            f"""select {_HOLDING}, k.root_id from {_KEYS} w
              cross join identifier i
                on i.workspace_id = :workspace and i.kind = w.kind and i.scope = w.scope and i.value = w.value
              left join contact k on k.workspace_id = i.workspace_id and k.id = i.contact_id""",
            {"workspace": self._workspace, "keys": _keys(identifiers)},
        )
        self._take_holdings(known, rows)

    def _take_holdings(self, known: Known, rows: Iterable[tuple[Any, ...]]) -> None:
        for *row, root in rows:
            held = _holding(tuple(row))
            known.holdings.setdefault(held.node, held)
            if held.contact is not None:
                known.roots.setdefault(held.contact, root)
            if held.node.epoch == 0:
                self._base[held.node.identifier] = held.id

    def _load_repeats(self, known: Known, evidence: Sequence[Evidence]) -> None:
        joint = {one.hint: one for one in evidence if one.links}
        named = [
            (one.hint, _stamp(one.at), self._base.get(identifier))
            for one in joint.values()
            for identifier, _ in one.attested
        ]
        if not named:
            return
        said: dict[str, list[Evidence | None]] = {hint: [] for hint in joint}
        for hint, last in self._run(
            """select w.value ->> 0, (select h.evidence from (
                select * from (select at, key, hint_id from claim where workspace_id = :workspace
                  and identifier_id = w.value ->> 2 and is_link and not is_withdrawn
                  and (at, key) <= (w.value ->> 1, w.value ->> 0) order by at desc, key desc limit 1)
                union all
                select * from (select at, key, hint_id from claim where workspace_id = :workspace
                  and anchor_id = w.value ->> 2 and is_link and not is_withdrawn
                  and (at, key) <= (w.value ->> 1, w.value ->> 0) order by at desc, key desc limit 1)
                order by at desc, key desc limit 1
              ) c join hint h on h.workspace_id = :workspace and h.id = c.hint_id)
              from json_each(:named) w""",
            {"workspace": self._workspace, "named": json.dumps(named)},
        ):
            said[hint].append(_decode_evidence(last) if last else None)
        known.repeats = {
            hint
            for hint, lasts in said.items()
            if all(last is not None and last.attested == joint[hint].attested for last in lasts)
        }

    def load_history(self, known: Known, identifiers: Collection[Identifier], pending: Sequence[Evidence] = ()) -> None:
        values = {"workspace": self._workspace, "keys": _keys(identifiers)}
        self._run("create temp table if not exists reached (id integer primary key)")
        self._run("delete from reached")
        self._run(
            f"""insert into reached
              with recursive reach(id) as (
                select i.id from {_KEYS} w cross join identifier i
                  on i.workspace_id = :workspace and i.kind = w.kind and i.scope = w.scope and i.value = w.value
                  and i.epoch = 0
                union
                select c.anchor_id from reach join claim c on c.workspace_id = :workspace and c.identifier_id = reach.id
                  where c.is_link and not c.is_withdrawn
                union
                select c.identifier_id from reach join claim c on c.workspace_id = :workspace and c.anchor_id = reach.id
                  where c.is_link and not c.is_withdrawn
                union
                select r.a_id from reach join ruling r on r.workspace_id = :workspace and r.b_id = reach.id
                  where r.kind = 'merge' and not r.is_withdrawn
                union
                select r.b_id from reach join ruling r on r.workspace_id = :workspace and r.a_id = reach.id
                  where r.kind = 'merge' and not r.is_withdrawn
              ) select id from reach""",
            values,
        )
        rows = self._run(
            f"""select {_HOLDING}, k.root_id from reached w
              cross join identifier b on b.workspace_id = :workspace and b.id = w.id
              cross join identifier i
                on i.workspace_id = :workspace and i.kind = b.kind and i.scope = b.scope and i.value = b.value
              left join contact k on k.workspace_id = i.workspace_id and k.id = i.contact_id""",
            values,
        )
        self._take_holdings(known, rows)
        joint = [
            _decode_evidence(evidence)
            for (evidence,) in self._run(
                """select h.evidence from hint h where h.workspace_id = :workspace and not h.is_withdrawn and h.id in
                  (select c.hint_id from reached w join claim c
                    on c.workspace_id = :workspace and c.anchor_id = w.id and c.is_link)""",
                values,
            )
        ]
        for evidence in joint:
            known.add(evidence)
        self._load_alone(known, cuts((*joint, *pending)))
        for row in self._run(
            f"""select {_RULING} from {_RULING_FROM} where r.workspace_id = :workspace and not r.is_withdrawn
              and r.a_id in (select id from reached) and r.b_id in (select id from reached)""",
            values,
        ):
            known.add_ruling(_ruling(row).ruling)

    def _load_alone(self, known: Known, moments: dict[Identifier, list[Moment]]) -> None:
        places = [
            (self._base[identifier], _stamp(at), key)
            for identifier, cut in moments.items()
            if identifier in self._base
            for at, key in cut
        ]
        # The least time with the greatest key is a moment inside the stretch, whichever rows the two come from.
        for row in self._run(
            """select i.kind, i.scope, i.value, min(h.at), max(h.key), max(h.trust), max(h.may_create),
                (select count(*) from json_each(:places) w where w.value ->> 0 = h.anchor_id
                  and (w.value ->> 1, w.value ->> 2) <= (h.at, h.key)) as number
              from reached r
              cross join hint h indexed by hint_anchor on h.workspace_id = :workspace and h.anchor_id = r.id
              join identifier i on i.workspace_id = h.workspace_id and i.id = h.anchor_id
              where not h.is_joint and not h.is_withdrawn group by h.anchor_id, number""",
            {"workspace": self._workspace, "places": json.dumps(places)},
        ):
            anchor = Identifier(*row[:3])
            alone = Evidence(hint=row[4], at=_time(row[3]), anchor=anchor, trust=Trust(row[5]), may_create=bool(row[6]))
            known.add(alone, key=f"alone {anchor} {row[7]}")

    def candidates(self, queries: Sequence[ThreadQuery]) -> list[list[Filing]]:
        asked = [(place, one.channel, one.thread) for place, one in enumerate(queries)]
        found: list[list[Filing]] = [[] for _ in queries]
        references = [
            (place, one.channel, reference) for place, one in enumerate(queries) for reference in one.references
        ]
        if references:
            for place, *row in self._run(
                f"""select w.value ->> 0, {_FILING} from json_each(:references) w
                  cross join message m on m.workspace_id = :workspace and m.channel = w.value ->> 1
                    and m.external_id = w.value ->> 2
                  cross join {_FILING_FROM}
                  where c.workspace_id = :workspace and c.id = m.conversation_id
                  order by w.key""",
                {"workspace": self._workspace, "references": json.dumps(references)},
            ):
                found[place].append(_filing(tuple(row)))
        for place, *row in self._run(
            f"""select w.value ->> 0, {_FILING} from json_each(:asked) w cross join {_FILING_FROM}
              where c.workspace_id = :workspace and c.channel = w.value ->> 1 and c.thread = w.value ->> 2
              order by w.key, c.id desc""",
            {"workspace": self._workspace, "asked": json.dumps(asked)},
        ):
            found[place].append(_filing(tuple(row)))
        return found

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

    def is_stored(self, channel: str, external_ids: Collection[str]) -> set[str]:
        rows = self._run(
            """select external_id from message
              where workspace_id = ? and channel = ? and external_id in (select value from json_each(?))""",
            (self._workspace, channel, json.dumps(sorted(external_ids))),
        )
        return {external_id for (external_id,) in rows}

    def write(self, batch: Batch) -> None:
        self._write_changes(batch)
        self._find_bases(batch)
        self._write_hints(batch)
        self._write_said(batch)
        self._write_inbox(batch)
        for is_ruling, statements in _TAKE_BACK.items():
            marks = [
                (not one.is_undone, self._workspace, one.target)
                for one in batch.withdrawals
                if one.is_ruling is is_ruling
            ]
            for statement in statements:
                self._run_many(statement, marks)
        if self._ids is not None:
            self._run("update workspace set next_id = ? where id = ?", (self._spent, self._workspace))

    def _write_changes(self, batch: Batch) -> None:
        changes = batch.changes
        self._many(
            _INSERT["identifier"]
            + """ on conflict (workspace_id, id) do update set since = excluded.since, since_hint = excluded.since_hint,
                contact_id = excluded.contact_id, trust = excluded.trust, is_owned = excluded.is_owned,
                is_founder = excluded.is_founder""",
            map(_holding_row, changes.holdings.values()),
        )
        self._base.update({held.node.identifier: held.id for held in changes.holdings.values() if not held.node.epoch})
        self._many(
            _INSERT["contact"],
            ((one.id, one.id, _stamp(one.at), one.how, one.hint) for one in changes.contacts),
        )
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
            self._many(
                _INSERT["identifier"], (_holding_row(Holding(id=self._base[one], node=Node(one))) for one in unknown)
            )

    def _write_hints(self, batch: Batch) -> None:
        self._many(
            _INSERT["hint"],
            (
                (
                    record.id,
                    record.evidence.hint,
                    _stamp(record.evidence.at),
                    self._base.get(record.evidence.anchor) if record.evidence.anchor else None,
                    self._base.get(record.evidence.visitor) if record.evidence.visitor else None,
                    record.evidence.trust,
                    record.evidence.may_create,
                    bool(record.evidence.links),
                    record.channel,
                    record.how,
                    record.by,
                    record.conversation,
                    _encode(record.evidence),
                    _encode(record.decision),
                )
                for record in batch.hints
            ),
        )
        self._many(
            _INSERT["claim"],
            (
                (
                    self._base[other],
                    _stamp(record.evidence.at),
                    record.id,
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
        self._many(
            _INSERT["ruling"],
            (
                (one.id, one.kind.value, self._base[one.a], self._base[one.b], _stamp(one.at), one.by, one.reason)
                for one in batch.rulings
            ),
        )

    def _write_said(self, batch: Batch) -> None:
        ids = self.new_ids() if batch.traits or batch.consents or batch.memberships or batch.withdrawals else iter(())
        self._many(
            _INSERT["trait"],
            (
                (self._base[one.identifier], next(ids), one.name, one.value, one.trust, _stamp(one.at), one.hint)
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
                    _stamp(one.at),
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
                (one.contact, next(ids), one.list, one.state.value, _stamp(one.at), one.how, one.by)
                for one in batch.memberships
            ),
        )
        self._many(
            _INSERT["withdrawal"],
            (
                (next(ids), one.target, one.is_ruling, _stamp(one.at), one.by, one.is_undone)
                for one in batch.withdrawals
            ),
        )

    def _write_inbox(self, batch: Batch) -> None:
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
                    _stamp(one.opened[0]),
                    one.opened[1],
                    _stamp(one.last_at),
                    one.trust,
                    one.status.value,
                    one.messages,
                    one.unread,
                    one.assignee,
                )
                for one in batch.filings.values()
            ),
        )
        self._many(
            _INSERT["message"],
            (
                (
                    one.id,
                    one.conversation,
                    one.channel,
                    one.external_id,
                    one.direction.value,
                    _stamp(one.at),
                    one.text,
                    one.html,
                    _encode(one.attachments),
                    one.status,
                )
                for one in batch.messages
            ),
        )
        self._many(
            _INSERT["outbox"],
            ((one.id, one.type, one.version, _stamp(one.at), _encode(one.payload)) for one in batch.notices),
        )

    def _many(self, statement: str, rows: Iterable[tuple[Any, ...]]) -> None:
        self._run_many(statement, ((self._workspace, *row) for row in rows))


class SqliteStore(Store):
    """A store in one file. Several threads and processes may use the file; one writes at a time.

    `path` is created where it is missing, and migrated where it is older. Raises `ConfigError` where it cannot be
    opened or was written by a newer version of the program.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._lock = threading.RLock()
        try:
            self._connection = sqlite3.connect(
                path, isolation_level=None, check_same_thread=False, timeout=_BUSY_TIMEOUT_S, cached_statements=256
            )
            for pragma in ("journal_mode = wal", "synchronous = full", "cache_size = -65536", "temp_store = memory"):
                self._connection.execute(f"pragma {pragma}").fetchall()
            self._migrate()
        except sqlite3.Error as error:
            raise ConfigError(f"cannot open {path!r} as a store ({error}): give the path of a writable file") from error
        self._workspaces: dict[str, int] = {}

    def _migrate(self) -> None:
        folder = resources.files("convsdk.store").joinpath("schema")
        steps = sorted((one for one in folder.iterdir() if one.name.endswith(".sql")), key=lambda one: one.name)
        run = self._connection.execute
        if run("pragma user_version").fetchone()[0] == len(steps):
            return
        with self._writing():
            (version,) = run("pragma user_version").fetchone()
            if version > len(steps):
                raise ConfigError(
                    f"{self._path!r} has schema {version}, and this convsdk knows only {len(steps)}: "
                    "install a newer version of convsdk"
                )
            for number, step in enumerate(steps[version:], version + 1):
                for statement in step.read_text("utf-8").split(";\n"):
                    run(statement)
                run(f"pragma user_version = {number}")

    @contextmanager
    def _writing(self) -> Iterator[None]:
        with self._lock:
            self._connection.execute("begin immediate")
            try:
                yield
                self._connection.execute("commit")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("rollback")
                raise

    @contextmanager
    def transaction(self, workspace: str) -> Iterator[Transaction]:
        number = self._workspace(workspace)
        try:
            with self._writing():
                yield _SqliteTransaction(self._connection, number)
        except sqlite3.Error as error:
            raise self._error(error) from error

    def _error(self, error: sqlite3.Error) -> ConvsdkError:
        if isinstance(error, sqlite3.OperationalError) and "locked" in str(error):
            return TransientError(f"{self._path!r} is busy with another writer: try again", retry_after_s=1)
        return PermanentError(f"{self._path!r}: {error}; nothing of this batch was written", code=type(error).__name__)

    def _workspace(self, name: str) -> int:
        with self._lock:
            if name not in self._workspaces:
                row = self._one("select id from workspace where name = ?", (name,))
                if row is None:
                    with self._writing():
                        self._connection.execute("insert or ignore into workspace (name) values (?)", (name,))
                    row = self._one("select id from workspace where name = ?", (name,))
                self._workspaces[name] = row[0]  # type: ignore[index]  # just inserted
            return self._workspaces[name]

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    def _all(self, statement: str, values: dict[str, Any] | tuple[Any, ...]) -> list[tuple[Any, ...]]:
        with self._lock:
            try:
                return self._connection.execute(statement, values).fetchall()
            except sqlite3.Error as error:
                raise self._error(error) from error

    def _one(self, statement: str, values: dict[str, Any] | tuple[Any, ...]) -> tuple[Any, ...] | None:
        return next(iter(self._all(statement, values)), None)

    def contact(self, workspace: str, contact: int) -> ContactRecord | None:
        number = self._workspace(workspace)
        row = self._one("select root_id from contact where workspace_id = ? and id = ?", (number, contact))
        return self._records(number, [row[0]])[0] if row else None

    def contacts(self, workspace: str, *, after: int, limit: int) -> list[ContactRecord]:
        number = self._workspace(workspace)
        rows = self._all(
            """select id from contact c where workspace_id = ?1 and id > ?2 and root_id = id
              and exists (select 1 from contact k join identifier i on i.workspace_id = ?1 and i.contact_id = k.id
                where k.workspace_id = ?1 and k.root_id = c.id and i.is_owned)
              order by id limit ?3""",
            (number, after, limit),
        )
        return self._records(number, [root for (root,) in rows])

    def _records(self, number: int, roots: list[int]) -> list[ContactRecord]:
        asked = json.dumps(roots)
        members: dict[int, list[int]] = {root: [] for root in roots}
        created: dict[int, tuple[int, str]] = {}
        for contact, root, at, how in self._all(
            """select id, root_id, created_at, how from contact
              where workspace_id = ? and root_id in (select value from json_each(?)) order by id""",
            (number, asked),
        ):
            members[root].append(contact)
            created[contact] = (at, how)
        holdings: dict[int, list[Holding]] = {root: [] for root in roots}
        for *row, root in self._all(
            f"""select {_HOLDING}, k.root_id from contact k
              join identifier i on i.workspace_id = k.workspace_id and i.contact_id = k.id
              where k.workspace_id = ? and k.root_id in (select value from json_each(?)) and i.is_owned
              order by i.id""",
            (number, asked),
        ):
            holdings[root].append(_holding(tuple(row)))
        return [
            ContactRecord(
                id=root,
                created_at=_time(created[root][0]),
                how=created[root][1],
                holdings=tuple(holdings[root]),
                members=tuple(members[root]),
            )
            for root in roots
        ]

    def find(self, workspace: str, identifier: Identifier, moment: Moment | None = None) -> int | None:
        at, key = (_stamp(moment[0]), moment[1]) if moment else (2**62, "")
        row = self._one(
            f"""select {_HOLDER_AT.format(base="b", at=":at", key=":hint")} from identifier b
              where b.workspace_id = :workspace and b.kind = :kind and b.scope = :scope and b.value = :value
              and b.epoch = 0""",
            {
                "workspace": self._workspace(workspace),
                "kind": identifier.kind,
                "scope": identifier.scope,
                "value": identifier.value,
                "at": at,
                "hint": key,
            },
        )
        return row[0] if row else None

    def _named(self, workspace: str, identifiers: Iterable[Identifier], **more: Any) -> dict[str, Any]:  # noqa: ANN401  (SQL values)
        return {"workspace": self._workspace(workspace), "keys": _keys(identifiers), **more}

    def traits(self, workspace: str, identifiers: Collection[Identifier]) -> list[TraitClaim]:
        rows = self._all(
            f"""select b.kind, b.scope, b.value, t.name, t.value, t.trust, t.at, t.key from {_BASES}
              join trait t on t.workspace_id = b.workspace_id and t.identifier_id = b.id
              join hint h on h.workspace_id = t.workspace_id and h.key = t.key
              where not h.is_withdrawn""",
            self._named(workspace, identifiers),
        )
        return [
            TraitClaim(
                identifier=Identifier(*row[:3]),
                name=row[3],
                value=row[4],
                trust=Trust(row[5]),
                at=_time(row[6]),
                hint=row[7],
            )
            for row in rows
        ]

    def visitors(self, workspace: str, identifiers: Collection[Identifier]) -> list[Identifier]:
        rows = self._all(
            f"""select distinct v.kind, v.scope, v.value from {_BASES}
              join hint h on h.workspace_id = b.workspace_id and h.anchor_id = b.id
              join identifier v on v.workspace_id = h.workspace_id and v.id = h.visitor_id
              where not h.is_withdrawn order by 1, 2, 3""",
            self._named(workspace, identifiers),
        )
        return [Identifier(*row) for row in rows]

    def visits(self, workspace: str, visitor: Identifier) -> list[Visit]:
        rows = self._all(
            f"""select h.at, h.key, a.kind, a.scope, a.value, {_HOLDER_AT.format(base="a", at="h.at", key="h.key")}
              from {_BASES} join hint h on h.workspace_id = b.workspace_id and h.visitor_id = b.id
              left join identifier a on a.workspace_id = h.workspace_id and a.id = h.anchor_id
              where not h.is_withdrawn""",
            self._named(workspace, [visitor]),
        )
        return [
            Visit(moment=(_time(at), key), anchor=Identifier(*anchor) if anchor[0] else None, contact=contact)
            for at, key, *anchor, contact in rows
        ]

    def named_together(self, workspace: str, identifiers: Collection[Identifier] | None) -> list[NamedTogether]:
        asked = f"(select b.id from {_BASES})"
        among = "" if identifiers is None else f"where w.a in {asked} or w.b in {asked}"
        rows = self._all(
            f"""select * from (
              select w.at, w.source, w.trust,
                a.kind, a.scope, a.value, {_EPOCH_AT.format(base="a", at="w.at", key="w.source")},
                {_HOLDER_AT.format(base="a", at="w.at", key="w.source")} as first,
                z.kind, z.scope, z.value, {_EPOCH_AT.format(base="z", at="w.at", key="w.source")},
                {_HOLDER_AT.format(base="z", at="w.at", key="w.source")} as second
              from (
                select anchor_id as a, identifier_id as b, at, key as source, trust from claim
                  where workspace_id = :workspace and not is_withdrawn
                union all
                select a_id, b_id, at, id, null from ruling
                  where workspace_id = :workspace and kind = 'merge' and not is_withdrawn
              ) w
              join identifier a on a.workspace_id = :workspace and a.id = w.a
              join identifier z on z.workspace_id = :workspace and z.id = w.b
              {among}
            ) where first is not second or first is null order by 1, 2, 4, 5, 6, 9, 10, 11""",
            self._named(workspace, identifiers or ()),
        )
        return [
            NamedTogether(
                a=Node(Identifier(*row[3:6]), row[6]),
                b=Node(Identifier(*row[8:11]), row[11]),
                contacts=(row[7], row[12]),
                trust=None if row[2] is None else Trust(row[2]),
                source=row[1],
            )
            for row in rows
        ]

    def hint(self, workspace: str, hint: str) -> HintRecord | None:
        row = self._one(
            f"select {_HINT} from hint h where workspace_id = ? and key = ?",
            (self._workspace(workspace), hint),
        )
        return _hint(row) if row else None

    def hints(self, workspace: str, identifiers: Collection[Identifier], *, limit: int) -> list[HintRecord]:
        rows = self._all(
            f"""select {_HINT} from {_BASES} join hint h on h.workspace_id = b.workspace_id and h.anchor_id = b.id
              order by h.at, h.key limit :most""",
            self._named(workspace, identifiers, most=limit),
        )
        return [_hint(row) for row in rows]

    def rulings(self, workspace: str, identifiers: Collection[Identifier]) -> list[RulingRecord]:
        rows = self._all(
            f"""select {_RULING} from {_RULING_FROM} where r.workspace_id = :workspace
              and (r.a_id in (select b.id from {_BASES}) or r.b_id in (select b.id from {_BASES}))
              order by r.at, r.id""",
            self._named(workspace, identifiers),
        )
        return [_ruling(row) for row in rows]

    def ruling(self, workspace: str, ruling: str) -> RulingRecord | None:
        row = self._one(
            f"select {_RULING} from {_RULING_FROM} where r.workspace_id = ? and r.id = ?",
            (self._workspace(workspace), ruling),
        )
        return _ruling(row) if row else None

    def consents(self, workspace: str, identifiers: Collection[Identifier]) -> list[ConsentRecord]:
        rows = self._all(
            f"""select b.kind, b.scope, b.value, t.purpose, t.state, t.at, t.key, t.trust, t.by, t.place, t.wording,
                t.wording_version
              from {_BASES} join consent t on t.workspace_id = b.workspace_id and t.identifier_id = b.id
              order by t.at, t.key""",
            self._named(workspace, identifiers),
        )
        return [
            ConsentRecord(
                identifier=Identifier(*row[:3]),
                purpose=row[3],
                state=ConsentState(row[4]),
                at=_time(row[5]),
                hint=row[6],
                trust=Trust(row[7]),
                by=row[8],
                where=row[9],
                wording=row[10],
                wording_version=row[11],
            )
            for row in rows
        ]

    def memberships(self, workspace: str, contacts: Collection[int]) -> list[Membership]:
        rows = self._all(
            """select contact_id, list, state, at, how, by from membership
              where workspace_id = ? and contact_id in (select value from json_each(?)) order by at, id""",
            (self._workspace(workspace), json.dumps(sorted(contacts))),
        )
        return [
            Membership(contact=row[0], list=row[1], state=ListState(row[2]), at=_time(row[3]), how=row[4], by=row[5])
            for row in rows
        ]

    def filings(
        self, workspace: str, *, identifiers: Collection[Identifier] | None, before: Moment | None, limit: int
    ) -> list[Filing]:
        at, key = (_stamp(before[0]), before[1]) if before else (2**62, "")
        asked = "" if identifiers is None else f"and c.filed_id in (select b.id from {_BASES})"
        rows = self._all(
            f"""select {_FILING} from {_FILING_FROM}
              where c.workspace_id = :workspace and (c.opened_at, c.opened_by) < (:at, :hint) {asked}
              order by c.opened_at desc, c.opened_by desc limit :most""",
            self._named(workspace, identifiers or (), at=at, hint=key, most=limit),
        )
        return [_filing(row) for row in rows]

    def filing(self, workspace: str, conversation: int) -> Filing | None:
        row = self._one(
            f"select {_FILING} from {_FILING_FROM} where c.workspace_id = ? and c.id = ?",
            (self._workspace(workspace), conversation),
        )
        return _filing(row) if row else None

    def messages(self, workspace: str, conversation: int, *, before: int | None, limit: int) -> list[Message]:
        rows = self._all(
            """select id, conversation_id, channel, external_id, direction, at, text, html, attachments, status
              from message where workspace_id = ? and conversation_id = ? and id < ? order by id desc limit ?""",
            (self._workspace(workspace), conversation, 2**62 if before is None else before, limit),
        )
        return [
            Message(
                id=row[0],
                conversation=row[1],
                channel=row[2],
                external_id=row[3],
                direction=Direction(row[4]),
                at=_time(row[5]),
                text=row[6],
                html=row[7],
                attachments=_decode_attachments(row[8]),
                status=row[9],
            )
            for row in rows
        ]

    def notices(self, workspace: str, *, since: int, limit: int) -> list[Notice]:
        rows = self._all(
            "select id, type, version, at, payload from outbox where workspace_id = ? and id > ? order by id limit ?",
            (self._workspace(workspace), since, limit),
        )
        return [
            Notice(id=row[0], type=row[1], version=row[2], at=_time(row[3]), payload=msgspec.json.decode(row[4]))
            for row in rows
        ]
