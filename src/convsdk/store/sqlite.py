"""The embedded store: one SQLite file, the standard library's driver, nothing to set up.

WAL with `synchronous=FULL`: what was acknowledged survives a power cut. A write transaction begins IMMEDIATE, because
a read that is later upgraded to a write gives busy errors that no timeout cures. The number of statements of a batch
does not depend on its size.
"""

import json
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from importlib import resources
from typing import Any

import msgspec

from convsdk.core.consent import ConsentRecord, ConsentState, ListState, Membership
from convsdk.core.events import Notice
from convsdk.core.fold import Moment
from convsdk.core.inbox import Filing
from convsdk.core.model import (
    Direction,
    Identifier,
    Message,
    Node,
    Trust,
)
from convsdk.core.profile import TraitClaim
from convsdk.core.resolver import Holding
from convsdk.core.storage import (
    ContactRecord,
    HintRecord,
    NamedTogether,
    Result,
    RulingRecord,
    Store,
    Transaction,
    Visit,
)
from convsdk.errors import ConfigError, ConvsdkError, PermanentError, TransientError
from convsdk.store.sqlite_rows import (
    BASES,
    EPOCH_AT,
    FILING,
    FILING_FROM,
    HINT,
    HOLDER_AT,
    HOLDING,
    RULING,
    RULING_FROM,
    decode_attachments,
    filing_of,
    hint_of,
    holding_of,
    keys_of,
    ruling_of,
    stamp,
    time_of,
)
from convsdk.store.sqlite_transaction import SqliteTransaction

_BUSY_TIMEOUT_S = 30


_BUSY = "is busy with another writer: try again", 1
# By SQLite's primary code (https://www.sqlite.org/rescode.html): what passes, with a pause in seconds, and what lasts.
_PASSING = {
    sqlite3.SQLITE_BUSY: _BUSY,
    sqlite3.SQLITE_LOCKED: _BUSY,
    sqlite3.SQLITE_PROTOCOL: _BUSY,
    sqlite3.SQLITE_FULL: ("has no room: free space on its disk, and try again", 10),
    sqlite3.SQLITE_IOERR: ("cannot be read or written: look at its disk (faults, space, quota), and try again", 10),
    sqlite3.SQLITE_NOMEM: ("needs more memory than there is: free some, and try again", 10),
}
_LASTING = {
    sqlite3.SQLITE_READONLY: "cannot be written to: let this user write the file and its folder, and start again",
    sqlite3.SQLITE_CANTOPEN: "cannot be opened any more: let this user write the file and its folder",
    sqlite3.SQLITE_CORRUPT: "is damaged: stop all who use it, and restore a backup (or see 'sqlite3 FILE .recover')",
    sqlite3.SQLITE_NOTADB: "is no database any more: stop all who use it, and restore a backup",
}


def _code(error: Exception) -> int:
    # An error of the driver itself has no code.
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _inode(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)  # noqa: PTH116  (a Path for each transaction costs more than the look)
    except OSError:
        return None
    return found.st_dev, found.st_ino


class SqliteStore(Store):
    """A store in one file. Several threads and processes may use the file; one writes at a time.

    `path` is created where it is missing, and migrated where it is older. Raises `ConfigError` where it cannot be
    opened or was written by a newer version of the program, `TransientError` where another process keeps it busy.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._lock = threading.RLock()
        self._workspaces: dict[str, int] = {}
        self._opened: tuple[int, int] | None = None
        with ExitStack() as refused:
            try:
                self._connection = sqlite3.connect(
                    path, isolation_level=None, check_same_thread=False, timeout=_BUSY_TIMEOUT_S, cached_statements=256
                )
                refused.callback(self._connection.close)
                self._write_ahead()
                for pragma in (
                    "synchronous = full",
                    "cache_size = -65536",
                    "temp_store = memory",
                ):
                    self._connection.execute(f"pragma {pragma}").fetchall()
                self._migrate()
            except sqlite3.Error as error:
                if _code(error) in (*_PASSING, sqlite3.SQLITE_CORRUPT):
                    raise self._error(error) from error
                raise ConfigError(
                    f"cannot open {path!r} as a store ({error}): give the path of a writable file"
                ) from error
            refused.pop_all()
        self._opened = _inode(path)

    def _write_ahead(self) -> None:
        # SQLite does not wait for this lock: processes that make a file at the same time would refuse one another.
        end = time.monotonic() + _BUSY_TIMEOUT_S
        while True:
            try:
                self._connection.execute("pragma journal_mode = wal").fetchall()
                return
            except sqlite3.OperationalError as error:
                if _code(error) != sqlite3.SQLITE_BUSY or time.monotonic() > end:
                    raise
            time.sleep(0.01)

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
                self._check_place()
                self._connection.execute("commit")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("rollback")
                raise

    def _check_place(self) -> None:
        # SQLite would go on with a file that nobody finds any more, and all that is acknowledged would end with it.
        if self._opened is not None and _inode(self._path) != self._opened:
            raise ConfigError(
                f"{self._path!r} was deleted or replaced while it was in use; nothing of this batch was written: "
                "put it back with its -wal file, or start again on what is there now"
            )

    def transact(self, workspace: str, work: Callable[[Transaction], Result]) -> Result:
        number = self._workspace(workspace)
        with self._translated(), self._writing():
            return work(SqliteTransaction(self._connection, number))

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, UnicodeEncodeError) as error:  # the second: half a character, which UTF-8 cannot hold
            raise self._error(error) from error

    def _error(self, error: Exception) -> ConvsdkError:
        if _code(error) in _PASSING:
            told, pause_s = _PASSING[_code(error)]
            return TransientError(f"{self._path!r} {told}", retry_after_s=pause_s)
        if _code(error) in _LASTING:
            with suppress(sqlite3.Error):
                # The page as it was read stays in memory otherwise, and a file that was mended is never seen.
                self._connection.execute("pragma shrink_memory")
            return ConfigError(f"{self._path!r} {_LASTING[_code(error)]} ({error})")
        return PermanentError(f"{self._path!r}: {error}; nothing of this batch was written", code=type(error).__name__)

    def _workspace(self, name: str) -> int:
        with self._lock:
            if name not in self._workspaces:
                row = self._one("select id from workspace where name = ?", (name,))
                if row is None:
                    with self._translated(), self._writing():
                        self._connection.execute("insert or ignore into workspace (name) values (?)", (name,))
                    row = self._one("select id from workspace where name = ?", (name,))
                self._workspaces[name] = row[0]  # type: ignore[index]  # just inserted
            return self._workspaces[name]

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    def _all(self, statement: str, values: dict[str, Any] | tuple[Any, ...]) -> list[tuple[Any, ...]]:
        with self._lock, self._translated():
            return self._connection.execute(statement, values).fetchall()

    def _one(self, statement: str, values: dict[str, Any] | tuple[Any, ...]) -> tuple[Any, ...] | None:
        return next(iter(self._all(statement, values)), None)

    def contact(self, workspace: str, contact: int) -> ContactRecord | None:
        number = self._workspace(workspace)
        # A resting contact redirects to one that may have been merged since.
        row = self._one(
            """with recursive way(id) as (
                select :contact union
                select c.root_id from way cross join contact c on c.workspace_id = :workspace and c.id = way.id
              ) select c.id from way cross join contact c
                on c.workspace_id = :workspace and c.id = way.id and c.root_id = c.id""",
            {"workspace": number, "contact": contact},
        )
        return self._records(number, [row[0]])[0] if row else None

    def contacts(self, workspace: str, *, after: int, limit: int) -> list[ContactRecord]:
        number = self._workspace(workspace)
        rows = self._all(
            """select id from contact c where workspace_id = :workspace and id > :after and root_id = id and exists (
                select 1 from contact k join identifier i on i.workspace_id = k.workspace_id and i.contact_id = k.id
                where k.workspace_id = c.workspace_id and k.root_id = c.id and i.is_owned)
              order by id limit :most""",
            {"workspace": number, "after": after, "most": limit},
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
            f"""select {HOLDING}, k.root_id from contact k
              join identifier i on i.workspace_id = k.workspace_id and i.contact_id = k.id
              where k.workspace_id = ? and k.root_id in (select value from json_each(?)) and i.is_owned
              order by i.id""",
            (number, asked),
        ):
            holdings[root].append(holding_of(tuple(row)))
        return [
            ContactRecord(
                id=root,
                created_at=time_of(created[root][0]),
                how=created[root][1],
                holdings=tuple(holdings[root]),
                members=tuple(members[root]),
            )
            for root in roots
        ]

    def find(self, workspace: str, identifier: Identifier, moment: Moment | None = None) -> int | None:
        at, key = (stamp(moment[0]), moment[1]) if moment else (2**62, "")
        row = self._one(
            f"""select {HOLDER_AT.format(base="b", at=":at", key=":hint")} from identifier b
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
        return {"workspace": self._workspace(workspace), "keys": keys_of(identifiers), **more}

    def traits(self, workspace: str, identifiers: Collection[Identifier]) -> list[TraitClaim]:
        rows = self._all(
            f"""select b.kind, b.scope, b.value, t.name, t.value, t.trust, t.at, t.key from {BASES}
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
                at=time_of(row[6]),
                hint=row[7],
            )
            for row in rows
        ]

    def visitors(self, workspace: str, identifiers: Collection[Identifier]) -> list[Identifier]:
        rows = self._all(
            f"""select distinct v.kind, v.scope, v.value from {BASES}
              join hint h on h.workspace_id = b.workspace_id and h.anchor_id = b.id
              join identifier v on v.workspace_id = h.workspace_id and v.id = h.visitor_id
              where not h.is_withdrawn order by 1, 2, 3""",
            self._named(workspace, identifiers),
        )
        return [Identifier(*row) for row in rows]

    def visits(self, workspace: str, visitor: Identifier) -> list[Visit]:
        rows = self._all(
            f"""select h.at, h.key, a.kind, a.scope, a.value, {HOLDER_AT.format(base="a", at="h.at", key="h.key")}
              from {BASES} join hint h on h.workspace_id = b.workspace_id and h.visitor_id = b.id
              left join identifier a on a.workspace_id = h.workspace_id and a.id = h.anchor_id
              where not h.is_withdrawn""",
            self._named(workspace, [visitor]),
        )
        return [
            Visit(moment=(time_of(at), key), anchor=Identifier(*anchor) if anchor[0] else None, contact=contact)
            for at, key, *anchor, contact in rows
        ]

    def named_together(self, workspace: str, identifiers: Collection[Identifier] | None) -> list[NamedTogether]:
        # Two branches, each by its own index: with an `or`, every claim of the workspace would be read.
        asked = f"(select b.id from {BASES})"
        sides = ("true",) if identifiers is None else (f"{{a}} in {asked}", f"{{b}} in {asked}")
        named = " union ".join(
            f"""select anchor_id as a, identifier_id as b, at, key as source, trust from claim
              where workspace_id = :workspace and not is_withdrawn and {side.format(a="anchor_id", b="identifier_id")}
            union select a_id, b_id, at, id, null from ruling
              where workspace_id = :workspace and kind = 'merge' and not is_withdrawn
              and {side.format(a="a_id", b="b_id")}"""
            for side in sides
        )
        rows = self._all(
            f"""select * from (
              select w.at, w.source, w.trust,
                a.kind, a.scope, a.value, {EPOCH_AT.format(base="a", at="w.at", key="w.source")},
                {HOLDER_AT.format(base="a", at="w.at", key="w.source")} as first,
                z.kind, z.scope, z.value, {EPOCH_AT.format(base="z", at="w.at", key="w.source")},
                {HOLDER_AT.format(base="z", at="w.at", key="w.source")} as second
              from ({named}) w
              join identifier a on a.workspace_id = :workspace and a.id = w.a
              join identifier z on z.workspace_id = :workspace and z.id = w.b
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
            f"select {HINT} from hint h where workspace_id = ? and key = ?",
            (self._workspace(workspace), hint),
        )
        return hint_of(row) if row else None

    def hints(self, workspace: str, identifiers: Collection[Identifier], *, limit: int) -> list[HintRecord]:
        rows = self._all(
            # The first of each class, by the index: somebody may have written a million.
            f"""with class(is_joint, trust, may_create) as (select j.value, t.value, m.value
                from json_each('[0, 1]') j, json_each(:trusts) t, json_each('[0, 1]') m)
              select {HINT} from {BASES} cross join class s cross join hint h on h.workspace_id = b.workspace_id
                and h.key in (select a.key from hint a indexed by hint_anchor
                  where a.workspace_id = b.workspace_id and a.anchor_id = b.id and a.is_joint = s.is_joint
                    and a.trust = s.trust and a.may_create = s.may_create order by a.at, a.key limit :most)
              order by h.at, h.key limit :most""",
            self._named(workspace, identifiers, trusts=json.dumps([*Trust]), most=limit),
        )
        return [hint_of(row) for row in rows]

    def rulings(self, workspace: str, identifiers: Collection[Identifier]) -> list[RulingRecord]:
        rows = self._all(
            f"""select {RULING} from {RULING_FROM} where r.workspace_id = :workspace and r.id in (
              select a.id from {BASES} join ruling a on a.workspace_id = b.workspace_id and a.a_id = b.id
              union select a.id from {BASES} join ruling a on a.workspace_id = b.workspace_id and a.b_id = b.id
              ) order by r.at, r.id""",
            self._named(workspace, identifiers),
        )
        return [ruling_of(row) for row in rows]

    def ruling(self, workspace: str, ruling: str) -> RulingRecord | None:
        row = self._one(
            f"select {RULING} from {RULING_FROM} where r.workspace_id = ? and r.id = ?",
            (self._workspace(workspace), ruling),
        )
        return ruling_of(row) if row else None

    def consents(self, workspace: str, identifiers: Collection[Identifier]) -> list[ConsentRecord]:
        rows = self._all(
            f"""select b.kind, b.scope, b.value, t.purpose, t.state, t.at, t.key, t.trust, t.by, t.place, t.wording,
                t.wording_version
              from {BASES} join consent t on t.workspace_id = b.workspace_id and t.identifier_id = b.id
              left join hint h on h.workspace_id = t.workspace_id and h.key = t.key
              where t.state <> 'granted' or h.is_withdrawn is not 1
              order by t.at, t.key""",
            self._named(workspace, identifiers),
        )
        return [
            ConsentRecord(
                identifier=Identifier(*row[:3]),
                purpose=row[3],
                state=ConsentState(row[4]),
                at=time_of(row[5]),
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
            Membership(contact=row[0], list=row[1], state=ListState(row[2]), at=time_of(row[3]), how=row[4], by=row[5])
            for row in rows
        ]

    def filings(
        self, workspace: str, *, identifiers: Collection[Identifier] | None, before: Moment | None, limit: int
    ) -> list[Filing]:
        at, key = (stamp(before[0]), before[1]) if before else (2**62, "")
        asked = "" if identifiers is None else f"and c.filed_id in (select b.id from {BASES})"
        rows = self._all(
            f"""select {FILING} from {FILING_FROM}
              where c.workspace_id = :workspace and (c.opened_at, c.opened_by) < (:at, :hint) {asked}
              order by c.opened_at desc, c.opened_by desc limit :most""",
            self._named(workspace, identifiers or (), at=at, hint=key, most=limit),
        )
        return [filing_of(row) for row in rows]

    def filing(self, workspace: str, conversation: int) -> Filing | None:
        row = self._one(
            f"select {FILING} from {FILING_FROM} where c.workspace_id = ? and c.id = ?",
            (self._workspace(workspace), conversation),
        )
        return filing_of(row) if row else None

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
                at=time_of(row[5]),
                text=row[6],
                html=row[7],
                attachments=decode_attachments(row[8]),
                status=row[9],
            )
            for row in rows
        ]

    def checkpoint(self, workspace: str, name: str) -> str | None:
        row = self._one(
            "select position from checkpoint where workspace_id = ? and name = ?", (self._workspace(workspace), name)
        )
        return row[0] if row else None

    def notices(self, workspace: str, *, since: int, limit: int) -> list[Notice]:
        rows = self._all(
            "select id, type, version, at, payload from outbox where workspace_id = ? and id > ? order by id limit ?",
            (self._workspace(workspace), since, limit),
        )
        return [
            Notice(id=row[0], type=row[1], version=row[2], at=time_of(row[3]), payload=msgspec.json.decode(row[4]))
            for row in rows
        ]
