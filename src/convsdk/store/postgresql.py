"""The store for several processes and hosts: PostgreSQL 14 or newer, by psycopg 3.

READ COMMITTED, one short transaction for a batch, on a connection in pipeline mode. What others do to a transaction
(a deadlock, a lost race, a lost connection) is met by running it again; an outcome that the connection took with it is
asked for by a token that the transaction wrote, so that nothing takes effect twice.
"""

import itertools
import json
import random
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Any
from uuid import uuid4

import psycopg
from psycopg import errors
from psycopg.conninfo import conninfo_to_dict
from psycopg.types.string import TextLoader
from psycopg_pool import ConnectionPool, PoolClosed, PoolTimeout

from convsdk.core.events import Notice
from convsdk.core.fold import Moment
from convsdk.core.inbox import Filing
from convsdk.core.model import Identifier, Trust
from convsdk.core.storage import HintRecord, Result, Transaction
from convsdk.errors import ConfigError, ConvsdkError, PermanentError, TransientError
from convsdk.store.postgresql_transaction import (
    IDS,
    KEYS,
    PAIRS,
    QUEUED,
    BeginAgain,
    PostgresqlTransaction,
    parameters,
    placeholders,
)
from convsdk.store.reads import ALWAYS, Row, SqlReads
from convsdk.store.rows import FILING, FILING_FROM, HINT, HINT_FROM, filing_of, hint_of, notice_of, stamp

_OLDEST_SERVER = 140000  # 14, as libpq counts
_CONNECT_TIMEOUT_S = 10
_LISTEN_S = 5.0
_PATIENCE_S = 15  # how long a call is run again before its caller hears of it
_FIRST_PAUSE_S = 0.004
_LONGEST_PAUSE_S = 0.5
_CONNECTION_EXCEPTION = "08"  # a class of codes, which poolers and proxies use
_DOUBLES_AT = 8  # so many lost races for one key are none: it is stored already
_MIGRATION_LOCK = 0x636F6E7673646B  # "convsdk"

# All that is asked for is found by a key. Without figures (a fresh table, a bulk load) the planner would read tables
# whole, and keep that plan.
_SESSION = {
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "enable_material": "off",
    "jit": "off",
    "plan_cache_mode": "force_generic_plan",
    "statement_timeout": "30s",
    "lock_timeout": "10s",
    "idle_in_transaction_session_timeout": "60s",
}
# In a pipeline a transaction that waits for its client does not count as idle, but from 17 on it can have an end.
_SESSION_SINCE = {170000: {"transaction_timeout": "60s"}}

# Of a table that it takes for tiny, the planner reads a whole workspace. Autovacuum knows better only after a minute,
# which a back-fill does not wait for: so a store has new tables looked at after so many transactions of its own.
_LOOKS_AT = frozenset({8, 32, 128, 512})
_TINY = """select quote_ident(relname) from pg_class
  where relnamespace = current_schema()::regnamespace and relkind = 'r' and reltuples < 1000 order by relname"""

# A restored dump brings numbers of transactions along that its new server has yet to give: see notices().
_MEND_RESTORED = """update outbox set xact = '0' where xact > pg_current_xact_id() and workspace_id in (
  select w.id from workspace w cross join lateral (select o.xact from outbox o where o.workspace_id = w.id
    order by o.xact desc limit 1) o where o.xact >= pg_snapshot_xmax(pg_current_snapshot()))"""

# What tells whether a transaction was kept. Its number alone does not: after a crash the server gives numbers again.
_MARK = """insert into last_transaction (workspace_id, slot, token) values (%(workspace)s, %(slot)s, %(token)s)
  on conflict (workspace_id, slot) do update set token = excluded.token, at = excluded.at"""
_IS_MARKED = (
    "select 1 from last_transaction where workspace_id = %(workspace)s and slot = %(slot)s and token = %(token)s"
)
_FORGET_MARKS = "delete from last_transaction where at < now() - interval '1 day'"  # of programs that have ended

_Race = errors.DeadlockDetected | errors.SerializationFailure | errors.LockNotAvailable
_Later = (
    errors.DiskFull
    | errors.OutOfMemory
    | errors.TooManyConnections
    | errors.QueryCanceled
    | errors.ReadOnlySqlTransaction  # a primary that has just stepped down, or is short of disk
    | PoolTimeout
)
# The server has ended the connection: it goes down, or has waited too long for us.
_Ended = (
    errors.AdminShutdown
    | errors.CrashShutdown
    | errors.CannotConnectNow
    | errors.IdleSessionTimeout
    | errors.IdleInTransactionSessionTimeout
    | errors.TransactionTimeout
)


class PostgresqlStore(SqlReads):
    """A store in a PostgreSQL database. Any number of processes on any hosts may use it.

    `url` is a connection URI as libpq reads it, `postgresql://user@host/shop`; tables are made in the first schema of
    its `search_path`. `connections` is the most that one process opens. Raises `ConfigError` where the database cannot
    be reached or used, or was written by a newer version of the program.
    """

    KEYS = KEYS
    IDS = IDS
    AND_THEN = "join"
    TEXTS = "(select r as value from jsonb_array_elements_text(:texts::jsonb) r)"
    PAIRS = PAIRS
    BEFORE = f"""select w.message, b.external_id from {PAIRS} w cross join lateral (
        select m.id, m.external_id from message m where m.workspace_id = :workspace
          and m.conversation_id = w.conversation and m.id < w.message and m.direction in ('inbound', 'outbound')
          and m.channel = (select o.channel from message o where o.workspace_id = :workspace
            and o.conversation_id = w.conversation and o.id = w.message)
        order by m.id desc limit :most) b
      order by b.id"""
    writers = 3

    def __init__(self, url: str, *, connections: int = 8) -> None:
        self._place = _place(url)
        self._workspaces: dict[str, int] = {}
        self._transactions = itertools.count(1)
        self._slots: list[str] = []  # rows of last_transaction that no transaction of this store uses just now
        try:
            self._url = url
            self._pool = ConnectionPool(
                url,
                min_size=1,
                max_size=connections,
                kwargs={
                    "autocommit": True,
                    "prepare_threshold": 0,
                    "client_encoding": "utf8",
                    "connect_timeout": _CONNECT_TIMEOUT_S,
                },
                configure=_configure,
                timeout=_CONNECT_TIMEOUT_S,
                # Whoever asks next begins anew: else the pauses of a long outage would outlast it.
                reconnect_timeout=_CONNECT_TIMEOUT_S,
                open=False,
            )
        except psycopg.Error as error:
            raise self._unusable(error) from error
        # One connection of its own first: the pool would not tell why it gets none.
        with self._owner() as connection:
            self._check(connection)
            self._migrate(connection, "pre")
            connection.execute(_MEND_RESTORED)
            connection.execute(_FORGET_MARKS)
        self._pool.open()

    @contextmanager
    def _owner(self) -> Iterator[psycopg.Connection[Any]]:
        try:
            with psycopg.connect(self._url, autocommit=True, connect_timeout=_CONNECT_TIMEOUT_S) as connection:
                yield connection
        except psycopg.Error as error:
            raise self._unusable(error) from error

    def _unusable(self, error: psycopg.Error) -> ConfigError:
        return ConfigError(
            f"cannot use {self._place} as a store: {_told(error)}; check that the server runs, that the URL names it, "
            "and that its user may create tables there"
        )

    def _check(self, connection: psycopg.Connection[Any]) -> None:
        if connection.info.server_version < _OLDEST_SERVER:
            raise ConfigError(f"{self._place} is PostgreSQL {connection.info.server_version // 10000}: 14 is needed")
        if (encoding := connection.info.parameter_status("server_encoding")) != "UTF8":
            raise ConfigError(f"{self._place} has encoding {encoding}: create the database with encoding 'UTF8'")

    # -- migrations

    def finish_upgrade(self) -> list[str]:
        with self._owner() as connection:
            return self._migrate(connection, "post")

    def _migrate(self, connection: psycopg.Connection[Any], part: str) -> list[str]:
        steps = _steps()
        done = _steps_done(connection)
        if newer := sorted(name for name in done - steps.keys() if name.endswith(".post.sql")):
            raise ConfigError(f"{self._place} has the step {newer[0]} of a newer convsdk: install that version")
        wanted = [name for name in sorted(steps) if name.endswith(f".{part}.sql")]
        if done.issuperset(wanted):
            return []
        with connection.transaction():
            connection.execute("select pg_advisory_xact_lock(%s)", (_MIGRATION_LOCK,))
            connection.execute(
                "create table if not exists schema_step (name text primary key, at timestamptz not null)"
            )
            missing = [name for name in wanted if name not in _steps_done(connection)]
            for name in missing:
                connection.execute(steps[name].read_bytes(), prepare=False)
                connection.execute("insert into schema_step values (%s, now())", (name,))
        return missing

    # -- running statements

    def transact(self, workspace: str, work: Callable[[Transaction], Result]) -> Result:
        number = self._workspace(workspace)
        locks: Collection[int] = ()

        def attempt() -> Result:
            nonlocal locks
            try:
                return self._transact(number, work, locks)
            except BeginAgain as again:
                locks = again.locks
                raise

        return self._insist(attempt)

    def _transact(self, workspace: int, work: Callable[[Transaction], Result], locks: Collection[int]) -> Result:
        slot = self._take_slot()
        mark = {"workspace": workspace, "slot": slot, "token": uuid4().hex}
        ended: list[tuple[str, Result]] = []
        try:
            with self._pool.connection() as connection, _pipeline(connection):
                transaction = PostgresqlTransaction(connection, workspace, locks)
                result = work(transaction)
                if transaction.has_written:
                    connection.execute(_MARK, mark)
                ended.append((transaction.number(), result))
                connection.execute("commit")
        except psycopg.Error as error:
            # The answer to the commit was lost with the connection: what it was, only the server knows.
            if ended and _is_lost(error) and self._insist(lambda: self._has_committed(ended[0][0], mark)):
                return ended[0][1]
            raise
        finally:
            self._slots.append(slot)
        if next(self._transactions) in _LOOKS_AT:
            self._look_at_new_tables()
        return result

    def _look_at_new_tables(self) -> None:
        # What was asked for is kept already: this may fail, and waits for nobody.
        with suppress(psycopg.Error), self._pool.connection() as connection, connection.cursor() as cursor:
            for (table,) in cursor.execute(_TINY).fetchall():
                cursor.execute(f"analyze (skip_locked) {table}".encode(), prepare=False)

    def _take_slot(self) -> str:
        try:
            return self._slots.pop()
        except IndexError:
            return uuid4().hex

    def _has_committed(self, number: str, mark: Mapping[str, Any]) -> bool:
        """Say whether the transaction of that number, which left `mark`, was kept, once it has ended."""
        with self._pool.connection() as connection:
            try:
                row = connection.execute("select pg_xact_status(%s::xid8)", (number,)).fetchone()
            except errors.InvalidParameterValue:  # in the future: another server has taken over, without it
                return False
            if row == ("in progress",):
                raise errors.LockNotAvailable
            return row == ("committed",) and connection.execute(_IS_MARKED, mark).fetchone() is not None

    def _insist(self, attempt: Callable[[], Result]) -> Result:
        """Run `attempt` until it ends well, its error is one that stays, or time is up."""
        deadline = time.monotonic() + _PATIENCE_S
        doubles, pause = 0, _FIRST_PAUSE_S
        while True:
            try:
                return attempt()
            except (psycopg.Error, PoolTimeout, BeginAgain, UnicodeEncodeError) as error:
                doubles += isinstance(error, errors.UniqueViolation)
                if not _may_pass(error, doubles) or time.monotonic() > deadline:
                    raise self._error(error) from error
                if isinstance(error, psycopg.Error) and _is_lost(error):
                    self._pool.check()  # the others may be gone with it
                # Who only needs more locks waits for them in order the next time, and rivals for nothing else.
                longest = 0.0 if isinstance(error, BeginAgain) else pause
            time.sleep(random.uniform(0, longest))  # noqa: S311  (keeps rivals apart, guards nothing)
            pause = min(_LONGEST_PAUSE_S, pause * 2)

    def _error(self, error: Exception) -> ConvsdkError:
        told = _told(error)
        if isinstance(error, BeginAgain | _Race | _Later) or (isinstance(error, psycopg.Error) and _is_lost(error)):
            return TransientError(f"{self._place} cannot do it now ({told}): try again", retry_after_s=5)
        code = (isinstance(error, psycopg.Error) and error.sqlstate) or type(error).__name__
        return PermanentError(f"{self._place}: {told}; nothing of this batch was written", code=code)

    def _all(self, statement: str, values: Mapping[str, Any]) -> list[Row]:
        given = parameters(**values)

        def attempt() -> list[Row]:
            with self._pool.connection() as connection:
                return connection.execute(placeholders(statement), given).fetchall()

        return self._insist(attempt)

    def _workspace(self, name: str) -> int:
        if name not in self._workspaces:
            named = {"name": name}
            row = self._one("select id from workspace where name = :name", named) or self._one(
                # The update changes nothing, but gives the row that a rival has just made.
                """insert into workspace (name) values (:name)
                  on conflict (name) do update set name = excluded.name returning id""",
                named,
            )
            self._workspaces[name] = row[0]  # type: ignore[index]  # found or made
        return self._workspaces[name]

    def close(self) -> None:
        self._pool.close()

    def listen(self, wake: Callable[[], None]) -> Callable[[], None]:
        ending = threading.Event()

        def run() -> None:
            while not ending.is_set():
                try:
                    with psycopg.connect(self._url, autocommit=True, connect_timeout=_CONNECT_TIMEOUT_S) as connection:
                        connection.execute(f"listen {QUEUED}")
                        while not ending.is_set():
                            wake()  # what was queued before it listened would else wait
                            for _ in connection.notifies(timeout=_LISTEN_S, stop_after=1):
                                wake()
                except psycopg.Error:
                    ending.wait(_LISTEN_S)

        threading.Thread(target=run, name="convsdk-listen", daemon=True).start()
        return ending.set

    # -- what PostgreSQL reads in its own way: with a branch for each identifier, by the index

    def hints(self, workspace: str, identifiers: Collection[Identifier], *, limit: int) -> list[HintRecord]:
        rows = self._all(
            # The first are chosen before they are read: of more than eight tables, the planner orders no joins.
            f"""select {HINT} from (select s.key from {self._bases}
                cross join (values (false), (true)) j(is_joint) cross join (values (false), (true)) m(may_create)
                cross join unnest(:trusts::integer[]) t(trust)
                cross join lateral (select a.at, a.key from hint a where a.workspace_id = b.workspace_id
                  and a.anchor_id = b.id and a.is_joint = j.is_joint and a.trust = t.trust
                  and a.may_create = m.may_create order by a.at, a.key limit :most) s
                order by s.at, s.key limit :most) f
              join {HINT_FROM} on h.workspace_id = :workspace and h.key = f.key
              order by h.at, h.key""",
            self._named(workspace, identifiers, trusts=list(map(int, Trust)), most=limit),
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
        state = "and t.status = 'review'" if is_in_review else ""
        page = f"""(select t.id from conversation t where t.workspace_id = :workspace {{of}} {state}
          and (t.opened_at, t.opened_by) < (:at, :hint) order by t.opened_at desc, t.opened_by desc limit :most) t"""
        asked = (
            page.format(of="")
            if identifiers is None
            else f"{self._bases} cross join lateral {page.format(of='and t.filed_id = b.id')}"
        )
        rows = self._all(
            f"""select {FILING} from {asked} join {FILING_FROM} on c.workspace_id = :workspace and c.id = t.id
              order by c.opened_at desc, c.opened_by desc limit :most""",
            self._named(workspace, identifiers or (), at=at, hint=key, most=limit),
        )
        return [filing_of(row) for row in rows]

    def notices(self, workspace: str, *, since: int, limit: int) -> list[Notice]:
        # A transaction can end after one that took later ids. So they are read in the order of transactions, and
        # only where none that is older still runs: no reader passes a notice by that comes later.
        rows = self._all(
            """select o.id, o.type, o.version, o.at, o.payload from outbox o
              where o.workspace_id = :workspace and o.xact < pg_snapshot_xmin(pg_current_snapshot())
                and (o.xact, o.id) > (coalesce((select s.xact from outbox s where s.workspace_id = :workspace
                  and s.id <= :since order by s.id desc limit 1), '0'::xid8), :since)
              order by o.xact, o.id limit :most""",
            self._named(workspace, since=since, most=limit),
        )
        return [notice_of(row) for row in rows]


def _configure(connection: psycopg.Connection[Any]) -> None:
    connection.adapters.register_loader("jsonb", TextLoader)  # read into classes of ours, not into dictionaries
    settings = dict(_SESSION)
    for version, more in _SESSION_SINCE.items():
        settings |= more if connection.info.server_version >= version else {}
    connection.execute("select set_config(key, value, false) from jsonb_each_text(%s::jsonb)", (json.dumps(settings),))


@contextmanager
def _pipeline(connection: psycopg.Connection[Any]) -> Iterator[None]:
    with connection.pipeline() as pipeline:
        try:
            yield
        except BaseException:
            with suppress(psycopg.Error):
                pipeline.sync()  # else the driver logs that it lets go of what was still under way
            raise


def _may_pass(error: Exception, doubles: int) -> bool:
    if isinstance(error, errors.UniqueViolation):
        return doubles < _DOUBLES_AT
    return isinstance(error, BeginAgain | _Race) or (isinstance(error, psycopg.Error) and _is_lost(error))


def _is_lost(error: psycopg.Error) -> bool:
    """Say whether the connection is gone, or the server takes none now."""
    if isinstance(error, _Ended) or (error.sqlstate or "").startswith(_CONNECTION_EXCEPTION):
        return True
    if isinstance(error, PoolClosed | PoolTimeout):
        return False
    # Without a code from the server, the connection broke under the statement.
    return isinstance(error, psycopg.OperationalError) and error.sqlstate is None


def _told(error: Exception) -> str:
    if isinstance(error, BeginAgain):
        return "others write about the same people"
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _place(url: str) -> str:
    try:
        parts = conninfo_to_dict(url)
    except psycopg.Error:
        parts = None  # its text repeats the URL, password included
    # Where a password ends early, the rest of it would be shown as a host, a port or a database.
    if parts is None or not _is_plain(parts):
        raise ConfigError(
            "the store's URL cannot be read: write postgresql://user:password@host:5432/shop, "
            "with %40 for @, %2F for /, %3A for : and so on in user and password"
        )
    host, name = parts.get("host") or "this machine", parts.get("dbname") or parts.get("user") or "the default database"
    return f"PostgreSQL ({name} on {host})"


def _is_plain(parts: Mapping[str, Any]) -> bool:
    ports = str(parts.get("port") or "").split(",")
    named = f"{parts.get('host') or ''}{parts.get('dbname') or ''}"
    return "@" not in named and all(not port or port.isdecimal() for port in ports)


def _steps() -> dict[str, Traversable]:
    folder = resources.files("convsdk.store").joinpath("schema", "postgresql")
    return {step.name: step for step in folder.iterdir() if step.name.endswith(".sql")}


def _steps_done(connection: psycopg.Connection[Any]) -> set[str]:
    (table,) = connection.execute("select to_regclass('schema_step')").fetchone() or (None,)
    return {name for (name,) in connection.execute("select name from schema_step")} if table else set()
