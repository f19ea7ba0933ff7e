"""The embedded store: one SQLite file, the standard library's driver, nothing to set up.

WAL with `synchronous=FULL`: what was acknowledged survives a power cut. A write transaction begins IMMEDIATE, because
a read that is later upgraded to a write gives busy errors that no timeout cures. The number of statements of a batch
does not depend on its size.
"""

import json
import os
import random
import sqlite3
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from importlib import resources
from typing import Any

from convsdk.core.events import Notice
from convsdk.core.fold import Moment
from convsdk.core.inbox import Filing
from convsdk.core.model import (
    Identifier,
    Trust,
)
from convsdk.core.storage import (
    HintRecord,
    Result,
    Transaction,
)
from convsdk.errors import ConfigError, ConvsdkError, PermanentError, TransientError
from convsdk.store.reads import ALWAYS, Row, SqlReads
from convsdk.store.rows import (
    FILING,
    FILING_FROM,
    HINT,
    HINT_FROM,
    filing_of,
    hint_of,
    notice_of,
    stamp,
)
from convsdk.store.sqlite_transaction import KEYS, SqliteTransaction

_BUSY_TIMEOUT_S = 30
# SQLite itself looks for the end of another's transaction ten times a second. A process whose threads write one after
# the other leaves gaps of microseconds, and who looks so seldom may wait for ever. So look this often, and leave a gap
# that is long enough after a turn at the file.
_LOOK_S = 0.002
_GAP_S = 0.003
_TURN_S = 0.2


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


class SqliteStore(SqlReads):
    """A store in one file. Several threads and processes may use the file; one writes at a time.

    `path` is created where it is missing, and migrated where it is older. Raises `ConfigError` where it cannot be
    opened or was written by a newer version of the program, `TransientError` where another process keeps it busy.
    """

    KEYS = KEYS
    IDS = "json_each(:ids)"
    AND_THEN = "cross join"
    TEXTS = "json_each(:texts)"
    PAIRS = "(select value ->> 0 as message, value ->> 1 as conversation from json_each(:pairs))"
    BEFORE = f"""select w.message, m.external_id from {PAIRS} w cross join message m
      on m.workspace_id = :workspace and m.id in (select b.id from message b where b.workspace_id = :workspace
        and b.conversation_id = w.conversation and b.id < w.message and b.direction in ('inbound', 'outbound')
        and b.channel = (select o.channel from message o where o.workspace_id = :workspace
          and o.conversation_id = w.conversation and o.id = w.message)
        order by b.id desc limit :most)
      order by m.id"""

    def __init__(self, path: str) -> None:
        self._path = path
        self._lock = threading.RLock()
        self._workspaces: dict[str, int] = {}
        self._opened: tuple[int, int] | None = None
        self._turn_began = self._last_write = 0.0
        with ExitStack() as refused:
            try:
                self._connection = sqlite3.connect(
                    path, isolation_level=None, check_same_thread=False, timeout=0, cached_statements=256
                )
                refused.callback(self._connection.close)
                for pragma in (
                    "journal_mode = wal",
                    "synchronous = full",
                    "cache_size = -65536",
                    "temp_store = memory",
                    # The same page is written many times before it is copied into the file: with the usual 1000 pages
                    # most of the disk's time goes into copying. The log grows to about 40 MB.
                    "wal_autocheckpoint = 10000",
                ):
                    self._in_turn(f"pragma {pragma}")
                self._migrate()
            except sqlite3.Error as error:
                if _code(error) in (*_PASSING, sqlite3.SQLITE_CORRUPT):
                    raise self._error(error) from error
                raise ConfigError(
                    f"cannot open {path!r} as a store ({error}): give the path of a writable file"
                ) from error
            refused.pop_all()
        self._opened = _inode(path)

    def _in_turn(self, statement: str, values: Mapping[str, Any] | tuple[()] = ()) -> list[Row]:
        """Run a statement as soon as no other process is in its way, and give its rows."""
        end = time.monotonic() + _BUSY_TIMEOUT_S
        while True:
            try:
                return self._connection.execute(statement, values).fetchall()
            except sqlite3.OperationalError as error:
                if _code(error) != sqlite3.SQLITE_BUSY or time.monotonic() > end:
                    raise
            time.sleep(random.uniform(0, _LOOK_S))  # noqa: S311  (keeps rivals apart, guards nothing)

    def _migrate(self) -> None:
        folder = resources.files("convsdk.store").joinpath("schema", "sqlite")
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
            self._make_way()
            self._in_turn("begin immediate")
            try:
                yield
                self._check_place()
                self._connection.execute("commit")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("rollback")
                raise
            finally:
                self._last_write = time.monotonic()

    def _make_way(self) -> None:
        """Leave other processes a gap, where this one has written without any for the length of a turn."""
        now = time.monotonic()
        if now - self._last_write >= _GAP_S:
            self._turn_began = now  # they have had their gap
        elif now - self._turn_began > _TURN_S:
            time.sleep(_GAP_S)
            self._turn_began = time.monotonic()

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
                row = self._one("select id from workspace where name = :name", {"name": name})
                if row is None:
                    with self._translated(), self._writing():
                        self._connection.execute("insert or ignore into workspace (name) values (?)", (name,))
                    row = self._one("select id from workspace where name = :name", {"name": name})
                self._workspaces[name] = row[0]  # type: ignore[index]  # just inserted
            return self._workspaces[name]

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    def _all(self, statement: str, values: Mapping[str, Any]) -> list[Row]:
        with self._lock, self._translated():
            return self._in_turn(statement, values)

    def hints(self, workspace: str, identifiers: Collection[Identifier], *, limit: int) -> list[HintRecord]:
        rows = self._all(
            # The first of each class, by the index: somebody may have written a million.
            f"""with class(is_joint, trust, may_create) as (select j.value, t.value, m.value
                from json_each('[0, 1]') j, json_each(:trusts) t, json_each('[0, 1]') m)
              select {HINT} from {self._bases} cross join class s cross join {HINT_FROM}
                where h.workspace_id = b.workspace_id and h.key in (select a.key from hint a indexed by hint_anchor
                  where a.workspace_id = b.workspace_id and a.anchor_id = b.id and a.is_joint = s.is_joint
                    and a.trust = s.trust and a.may_create = s.may_create order by a.at, a.key limit :most)
              order by h.at, h.key limit :most""",
            self._named(workspace, identifiers, trusts=json.dumps([*Trust]), most=limit),
        )
        return [hint_of(row) for row in rows]

    def filings(
        self,
        workspace: str,
        *,
        identifiers: Collection[Identifier] | None,
        before: Moment | None,
        limit: int,
        is_in_review: bool = False,
    ) -> list[Filing]:
        at, key = (stamp(before[0]), before[1]) if before else (ALWAYS, "")
        asked = "" if identifiers is None else f"and c.filed_id in (select b.id from {self._bases})"
        asked += " and c.status = 'review'" if is_in_review else ""
        rows = self._all(
            f"""select {FILING} from {FILING_FROM}
              where c.workspace_id = :workspace and (c.opened_at, c.opened_by) < (:at, :hint) {asked}
              order by c.opened_at desc, c.opened_by desc limit :most""",
            self._named(workspace, identifiers or (), at=at, hint=key, most=limit),
        )
        return [filing_of(row) for row in rows]

    def notices(self, workspace: str, *, since: int, limit: int) -> list[Notice]:
        rows = self._all(
            """select id, type, version, at, payload from outbox
              where workspace_id = :workspace and id > :since order by id limit :most""",
            self._named(workspace, since=since, most=limit),
        )
        return [notice_of(row) for row in rows]
