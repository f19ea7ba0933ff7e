"""One write transaction on PostgreSQL: lock and load what a batch touches, write it. No count depends on its size.

Others write at the same time, so what is read stands only under a lock, in one order for everybody:

1. the rows (epoch 0) of all identifiers that the batch names, by id;
2. where history is needed, those of all identifiers that evidence leads to: whoever would add to it must name one;
3. the conversations that the batch could add to, by id; then the names of threads that have none yet.

Each lock is a statement of its own, since what READ COMMITTED sees is as old as the statement that reads it. Rows
that two writers insert at once meet in a unique index, and the second begins anew. Values travel as one JSON text
for each statement, which costs the driver an eighth of what arrays cost it.
"""

import re
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import psycopg

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

_IDS_OF_A_BLOCK = 32  # what the sequence steps by
_IDS_OF_A_HINT = 6  # about how many one needs

QUEUED = "convsdk_queued"
"""What a transaction that queues something notifies, so that whoever delivers need not look all the time."""

KEYS = "(select r ->> 0 as kind, r ->> 1 as scope, r ->> 2 as value from jsonb_array_elements(:keys::jsonb) r)"
IDS = "(select r::bigint as value from jsonb_array_elements_text(:ids::jsonb) r)"
PAIRS = """(select (r ->> 0)::bigint as message, (r ->> 1)::bigint as conversation
  from jsonb_array_elements(:pairs::jsonb) r)"""
_NAMES = """(select r.ordinality - 1 as place, r.value ->> 0 as channel, r.value ->> 1 as name
  from jsonb_array_elements(:names::jsonb) with ordinality r)"""

_LOCK = f"""select i.id from identifier i where i.workspace_id = :workspace and i.id = any(array(
    select b.id from {KEYS} w join identifier b on b.workspace_id = :workspace and b.kind = w.kind
      and b.scope = w.scope and b.value = w.value and b.epoch = 0
    union select value from {IDS} w
  )) order by i.id for update"""
_HOLDINGS = f"""select {HOLDING}, k.root_id from {KEYS} w
  join identifier i on i.workspace_id = :workspace and i.kind = w.kind and i.scope = w.scope and i.value = w.value
  left join contact k on k.workspace_id = i.workspace_id and k.id = i.contact_id"""
_DECISIONS = """select key, decision from hint where workspace_id = :workspace
  and key = any(array(select jsonb_array_elements_text(:hints::jsonb)))"""
_REACH = f"""with recursive reach(id) as (
    select i.id from {KEYS} w join identifier i on i.workspace_id = :workspace and i.kind = w.kind
      and i.scope = w.scope and i.value = w.value and i.epoch = 0
    union
    select n.id from reach cross join lateral (
      select c.anchor_id as id from claim c where c.workspace_id = :workspace and c.identifier_id = reach.id
        and c.is_link and not c.is_withdrawn
      union all select c.identifier_id from claim c where c.workspace_id = :workspace and c.anchor_id = reach.id
        and c.is_link and not c.is_withdrawn
      union all select r.a_id from ruling r where r.workspace_id = :workspace and r.b_id = reach.id
        and r.kind = 'merge' and not r.is_withdrawn
      union all select r.b_id from ruling r where r.workspace_id = :workspace and r.a_id = reach.id
        and r.kind = 'merge' and not r.is_withdrawn) n
  ) select id from reach"""
_ANSWERED = """(select r.ordinality as place, r.value ->> 0 as query, r.value ->> 1 as channel, r.value ->> 2 as name
  from jsonb_array_elements(:references::jsonb) with ordinality r) w
  cross join lateral (
    select m.conversation_id from message m
      where m.workspace_id = :workspace and m.channel = w.channel and m.external_id = w.name
    union
    select a.conversation_id from alias a
      where a.workspace_id = :workspace and a.channel = w.channel and a.external_id = w.name) m"""
_THREADED = """(select r.ordinality as place, r.value ->> 0 as query, r.value ->> 1 as channel, r.value ->> 2 as thread
  from jsonb_array_elements(:threads::jsonb) with ordinality r) w"""
_LOCK_CONVERSATIONS = f"""select 1 from conversation c where c.workspace_id = :workspace and c.id = any(array(
    select m.conversation_id from {_ANSWERED}
    union select t.id from {_THREADED}
      join conversation t on t.workspace_id = :workspace and t.channel = w.channel and t.thread = w.thread
  )) order by c.id for update"""
_CANDIDATES = f"""select w.query::integer, w.place, {FILING} from {_ANSWERED}
    join {FILING_FROM} on c.workspace_id = :workspace and c.id = m.conversation_id
  union all select w.query::integer, null, {FILING} from {_THREADED}
    join {FILING_FROM} on c.workspace_id = :workspace and c.channel = w.channel and c.thread = w.thread"""
_LOCK_NAMES = "select pg_advisory_xact_lock(:workspace, name) from unnest(:names::integer[]) name"
_BLOCKS = "select nextval('row_id') from generate_series(1, :blocks)"

_UPDATES = {
    "root": """update contact set root_id = (r ->> 1)::bigint from given, jsonb_array_elements(d -> 'root') r
      where workspace_id = :workspace and id = (r ->> 0)::bigint""",
    "revised": """update message set text = r ->> 2, html = r ->> 3, attachments = r -> 4, status = r ->> 5,
        detail = nullif(r -> 6, 'null')
      from given, jsonb_array_elements(d -> 'revised') r
      where workspace_id = :workspace and conversation_id = (r ->> 0)::bigint and id = (r ->> 1)::bigint""",
    "withdrawn hint": """update hint set is_withdrawn = (r ->> 1)::boolean
      from given, jsonb_array_elements(d -> 'withdrawn hint') r where workspace_id = :workspace and key = r ->> 0""",
    "withdrawn claim": """update claim set is_withdrawn = (r ->> 1)::boolean
      from given, jsonb_array_elements(d -> 'withdrawn claim') r where workspace_id = :workspace and key = r ->> 0""",
    "withdrawn ruling": """update ruling set is_withdrawn = (r ->> 1)::boolean
      from given, jsonb_array_elements(d -> 'withdrawn ruling') r where workspace_id = :workspace and id = r ->> 0""",
}

_NAME = re.compile(r"(?<!:):([a-z]+)")
_NUL = re.compile(r"(?<!\\)((?:\\\\)*)\\u0000")


class BeginAgain(Exception):  # noqa: N818  (no error: the transaction needs more locks than it can take in order)
    """The transaction must start anew, and lock the identifiers of these row ids first."""

    def __init__(self, locks: Collection[int]) -> None:
        super().__init__()
        self.locks = locks


@lru_cache(maxsize=512)  # statements are few: they are put together from constants
def placeholders(statement: str) -> str:
    """Give a statement with its `:names` as the driver writes them."""
    return _NAME.sub(r"%(\1)s", statement)


def without_nul(text: str) -> str:
    """Give a text, or a JSON text, with U+FFFD for each NUL, which PostgreSQL cannot hold."""
    return _NUL.sub("\\1\\\\ufffd", text) if r"\u0000" in text else text.replace("\0", "\ufffd")


def parameters(**values: Any) -> dict[str, Any]:  # noqa: ANN401  (SQL values)
    """Give the values of a statement as PostgreSQL can hold them."""
    return {name: without_nul(value) if isinstance(value, str) else value for name, value in values.items()}


@lru_cache(maxsize=512)  # as above: a batch writes to one of few sets of tables
def _writes(tables: tuple[str, ...]) -> str:
    """Give the one statement that writes rows to `tables`."""
    parts = ", ".join(f'"{table}" as ({_UPDATES.get(table) or _insert(table)})' for table in tables)
    return f"with given as (select :batch::jsonb as d), {parts} select 1"


def _insert(table: str) -> str:
    columns = [column.split(" ") for column in COLUMNS[table].split(", ")]
    reads = {"text": "r ->> {}", "jsonb": "nullif(r -> {}, 'null')"}
    values = ", ".join(
        reads.get(kind, f"(r ->> {{}})::{kind}").format(place) for place, (_, kind) in enumerate(columns)
    )
    return (
        f"insert into {table} (workspace_id, {', '.join(name for name, _ in columns)})"
        f" select :workspace, {values} from given, jsonb_array_elements(d -> '{table}') r {UPSERTS.get(table, '')}"
    )


class PostgresqlTransaction(SqlTransaction):
    """One transaction of one workspace, on a connection in pipeline mode: what is not needed yet is not waited for.

    `locks` are row ids of identifiers to lock at once, as `BeginAgain` gave them.
    """

    LAST_SAID = """select w.place, (select h.evidence from (
        (select at, key from claim where workspace_id = :workspace and identifier_id = w.id and is_link
          and not is_withdrawn and (at, key) <= (w.at, w.hint) order by at desc, key desc limit 1)
        union all
        (select at, key from claim where workspace_id = :workspace and anchor_id = w.id and is_link
          and not is_withdrawn and (at, key) <= (w.at, w.hint) order by at desc, key desc limit 1)
        order by at desc, key desc limit 1
      ) said join hint h on h.workspace_id = :workspace and h.key = said.key)
      from (select (r ->> 0)::integer as place, r ->> 1 as hint, (r ->> 2)::bigint as at, (r ->> 3)::bigint as id
        from jsonb_array_elements(:named::jsonb) r) w"""
    REACHED = f"""select {HOLDING}, k.root_id from {IDS} w
      join identifier b on b.workspace_id = :workspace and b.id = w.value
      join identifier i on i.workspace_id = :workspace and i.kind = b.kind and i.scope = b.scope and i.value = b.value
      left join contact k on k.workspace_id = i.workspace_id and k.id = i.contact_id"""
    JOINT = f"""select h.evidence from hint h where h.workspace_id = :workspace and not h.is_withdrawn
      and h.key = any(array(select c.key from {IDS} w
        join claim c on c.workspace_id = :workspace and c.anchor_id = w.value and c.is_link))"""
    RULINGS = f"""select {RULING} from {IDS} w join {RULING_FROM} on r.workspace_id = :workspace and r.a_id = w.value
      where not r.is_withdrawn and r.b_id = any(array(select value from {IDS} v))"""
    # One look into the index for each, however many messages somebody has written.
    ALONE = """select s.id, h.at, h.key, h.trust, h.may_create
      from (select (r ->> 0)::bigint as id, (r ->> 1)::integer as trust, (r ->> 2)::boolean as may_create,
          (r ->> 3)::bigint as since, r ->> 4 as since_key, (r ->> 5)::bigint as until, r ->> 6 as until_key
        from jsonb_array_elements(:stretches::jsonb) r) s
      cross join lateral (select a.at, a.key, a.trust, a.may_create from hint a
        where a.workspace_id = :workspace and a.anchor_id = s.id and not a.is_joint and a.trust = s.trust
          and a.may_create = s.may_create and not a.is_withdrawn
          and (a.at, a.key) >= (s.since, s.since_key) and (a.at, a.key) < (s.until, s.until_key)
        order by a.at, a.key limit 1) h"""

    IDS = IDS
    AMONG = "= any(array({}))"
    AND_THEN = "join"
    LOCKED = "for update of d"
    DUE = f"""update delivery d set owner = :owner where d.workspace_id = :workspace and d.message_id = any(array(
        select n.message_id from delivery n where n.workspace_id = :workspace and n.channel = :channel and n.is_next
          and n.owner = '' and n.due_at <= :at order by n.due_at, n.message_id limit :most for update skip locked))
      returning {DELIVERY}"""
    FOUND = f"""select w.place, f.part, {MESSAGE} from {_NAMES} w cross join lateral (
        select n.conversation_id, n.id, 0 as part, 0 as rank from message n
          where n.workspace_id = :workspace and n.channel = w.channel and n.external_id = w.name
        union all
        select a.conversation_id, a.message_id, a.part, 1 from alias a
          where a.workspace_id = :workspace and a.channel = w.channel and a.external_id = w.name) f
      join message m on m.workspace_id = :workspace and m.conversation_id = f.conversation_id and m.id = f.id
      order by m.id, f.rank for update of m"""
    SENT_UNTIL = f"""select w.place, {MESSAGE} from (select (r ->> 0)::integer as place, r ->> 1 as channel,
        r ->> 2 as thread, (r ->> 3)::bigint as until, r ->> 4 as status
        from jsonb_array_elements(:marks::jsonb) r) w
      join conversation c on c.workspace_id = :workspace and c.channel = w.channel and c.thread = w.thread
      join message m on m.workspace_id = :workspace and m.conversation_id = c.id and m.status = w.status
        and m.direction = 'outbound' and m.status in ('sent', 'delivered') and m.at <= w.until
      order by m.id for update of m"""

    def __init__(self, connection: psycopg.Connection[Any], workspace: int, locks: Collection[int]) -> None:
        super().__init__(workspace)
        self._connection = connection
        self._wanted = locks
        self._held: set[int] = set()
        self._ids = self._count()
        self._blocks: psycopg.Cursor[Any] | None = None
        connection.execute("begin isolation level read committed")
        self._opened = connection.execute("select pg_current_xact_id()::text")

    def number(self) -> str:
        """Give the transaction's number, by which its outcome can be asked for after the connection is lost."""
        return str(self._opened.fetchone()[0])  # type: ignore[index]  # it has one row

    def _ask(self, statement: str, **values: Any) -> psycopg.Cursor[Any]:  # noqa: ANN401  (SQL values)
        return self._connection.execute(placeholders(statement), parameters(workspace=self._workspace, **values))

    def load(self, evidence: Sequence[Evidence]) -> Known:
        named = {one for each in evidence for one in each.identifiers}
        locked = self._ask(_LOCK, keys=keys_of(named), ids=text_of(list(self._wanted)))
        holdings = self._holdings(named)
        decisions = self._ask(_DECISIONS, hints=text_of([one.hint for one in evidence]))
        self._blocks = self._ask_for_ids(len(evidence) * _IDS_OF_A_HINT)
        known = Known()
        self._held.update(number for (number,) in locked)
        self._take_holdings(known, holdings)
        if unlocked := set(self._base.values()) - self._held:  # somebody inserted them between the two statements
            raise BeginAgain(self._held | unlocked)
        hints = {without_nul(one.hint): one.hint for one in evidence}
        known.decisions = {hints[key]: decode_decision(decision) for key, decision in decisions}
        self._load_repeats(known, evidence)
        return known

    def _holdings(self, identifiers: Collection[Identifier]) -> psycopg.Cursor[Any]:
        return self._ask(_HOLDINGS, keys=keys_of(identifiers))

    def _reach(self, identifiers: Collection[Identifier]) -> list[int]:
        """Lock all that evidence leads to, until no more has come to it."""
        keys = keys_of(identifiers)
        while True:
            reached = {number for (number,) in self._ask(_REACH, keys=keys)}
            more = reached - self._held
            if not more:
                return sorted(reached)
            # Waiting is safe only in order of id; else others could wait for us.
            is_in_order = not self._held or min(more) > max(self._held)
            statement = """select 1 from identifier where workspace_id = :workspace
              and id = any(array(select value from {ids} w)) order by id for update {wait}"""
            statement = statement.format(ids=IDS, wait="" if is_in_order else "nowait")
            try:
                self._ask(statement, ids=text_of(sorted(more))).fetchall()
            except psycopg.errors.LockNotAvailable:
                raise BeginAgain(self._held | more) from None
            self._held |= more

    def candidates(self, queries: Sequence[ThreadQuery]) -> list[list[tuple[str, Filing]]]:
        found: list[list[tuple[str, Filing]]] = [[] for _ in queries]
        self._load_candidates(dict(enumerate(queries)), found)
        # A conversation that is there is locked; where there is none, whoever would open it locks the thread's name.
        empty = {place: queries[place] for place, one in enumerate(found) if not one}
        if empty:
            self._lock_names(f"{one.channel}\0{one.thread}" for one in empty.values())
            self._load_candidates(empty, found)
        return found

    def _load_candidates(self, queries: Mapping[int, ThreadQuery], found: list[list[tuple[str, Filing]]]) -> None:
        threads = [(place, one.channel, one.thread) for place, one in queries.items()]
        references = [(place, one.channel, name) for place, one in queries.items() for name in one.references]
        asked = {"threads": text_of(threads), "references": text_of(references)}
        self._ask(_LOCK_CONVERSATIONS, **asked)
        rows = self._ask(_CANDIDATES, **asked).fetchall()
        # Answers first, in the order of the references; then the thread, the newest first.
        for query, place, *row in sorted(rows, key=lambda row: (row[1] or len(references) + 1, -row[2])):
            found[query].append((references[place - 1][2] if place else "", filing_of(row)))

    def memo(self, kind: str, key: str) -> Memo | None:
        self._lock_names([f"memo\0{kind}\0{key}"])
        return memo_of(self._ask(MEMO, kind=kind, key=key).fetchone())

    def memos(self, kind: str, keys: Collection[str]) -> dict[str, Memo]:
        self._lock_names(f"memo\0{kind}\0{key}" for key in keys)
        asked = {without_nul(key): key for key in keys}
        rows = self._ask(
            """select key, text, at from memo where workspace_id = :workspace and kind = :kind
              and key = any(array(select jsonb_array_elements_text(:keys::jsonb)))""",
            kind=kind,
            keys=text_of(sorted(keys)),
        )
        return {asked[key]: Memo(text, time_of(at)) for key, text, at in rows}

    def _lock_conversations(self, conversations: Collection[int]) -> None:
        self._ask(
            f"""select 1 from conversation c where c.workspace_id = :workspace
              and c.id = any(array(select value from {IDS} w)) order by c.id for update""",
            ids=text_of(sorted(conversations)),
        )

    def _lock_names(self, names: Iterable[str]) -> None:
        """Lock what may not be there yet, by its name; a lock that others take as well by chance does no harm."""
        numbers = {zlib.crc32(without_nul(name).encode()) - 2**31 for name in names}
        self._ask(_LOCK_NAMES, names=sorted(numbers))

    def new_ids(self) -> Iterator[int]:
        return self._ids

    def _ask_for_ids(self, count: int) -> psycopg.Cursor[Any]:
        return self._ask(_BLOCKS, blocks=1 + count // _IDS_OF_A_BLOCK)

    def _count(self) -> Iterator[int]:
        while True:
            blocks = self._blocks or self._ask_for_ids(1)
            self._blocks = None
            for (first,) in blocks:
                yield from range(first, first + _IDS_OF_A_BLOCK)

    def _write(self, rows: Mapping[str, Sequence[Row]], batch: Batch) -> None:
        created = {one.id for one in batch.changes.contacts}
        marks = [(one.target, not one.is_undone, one.is_ruling) for one in batch.withdrawals]
        updates = {
            "root": [(contact, root) for contact, root in batch.changes.roots.items() if contact not in created],
            "withdrawn hint": [one for one in marks if not one[2]],
            "withdrawn claim": [one for one in marks if not one[2]],
            "withdrawn ruling": [one for one in marks if one[2]],
        }
        written = {**rows, **{table: found for table, found in updates.items() if found}}
        if written:
            self.has_written = True
            self._ask(_writes(tuple(written)), batch=text_of(written))
        if any(not one.owner for one in batch.deliveries.values()):
            self._ask(f"notify {QUEUED}")
