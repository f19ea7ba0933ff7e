"""The plainest program that stores a message durably under its sender: the baseline of the benchmarks.

It looks the sender up and inserts contact, identifier, conversation, message and event, row by row, one transaction for
a batch. Nothing is validated, decided or explained. What convsdk does on top is told as a ratio to this.
"""

import json
import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from attrs import frozen

NOTICE = json.dumps({"type": "message.received", "v": 1, "data": "y" * 120})
TABLES = """
create table contact (id integer primary key, name text, created_at integer not null);
create table identifier (id integer primary key, kind text not null, value text not null, contact_id integer not null);
create table conversation (id integer primary key, identifier_id integer not null, channel text not null,
  last_at integer not null);
create table message (id integer primary key, conversation_id integer not null, channel text not null,
  external_id text not null, body text not null, created_at integer not null);
create table outbox (id integer primary key, topic text not null, payload text not null);
create unique index identifier_key on identifier (kind, value);
create index identifier_contact on identifier (contact_id);
create unique index conversation_key on conversation (identifier_id, channel);
create unique index message_key on message (channel, external_id);
create index message_conversation on message (conversation_id, id);
"""


@frozen(kw_only=True)
class Row:
    """A message and its sender; or, with an `account` and no text, an account to be joined with the sender."""

    channel: str
    external_id: str
    kind: str
    value: str
    account: str = ""
    text: str = ""


class Plain:
    """One SQLite file with the pragmas of convsdk's store."""

    def __init__(self, path: str) -> None:
        self._run = sqlite3.connect(path, isolation_level=None, cached_statements=256).execute
        for pragma in ("journal_mode = wal", "synchronous = full", "cache_size = -65536", "temp_store = memory"):
            self._run(f"pragma {pragma}").fetchall()
        for statement in TABLES.split(";\n"):
            self._run(statement)

    def store(self, rows: Iterable[Row]) -> None:
        """Store `rows` in one transaction."""
        with self._transaction():
            for row in rows:
                if row.account:
                    self._link(row)
                else:
                    self._message(row)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._run("begin immediate")
        yield
        self._run("commit")

    def _identifier(self, kind: str, value: str, contact: int) -> int | None:
        row = (kind, value, contact)
        return self._run("insert into identifier (kind, value, contact_id) values (?, ?, ?)", row).lastrowid

    def _message(self, row: Row) -> None:
        at = time.time_ns()
        found = self._run("select id from identifier where kind = ? and value = ?", (row.kind, row.value)).fetchone()
        if found is None:
            contact = self._run("insert into contact (name, created_at) values ('Ann', ?)", (at,)).lastrowid
            found = (self._identifier(row.kind, row.value, contact or 0),)
        (conversation,) = self._run(
            """insert into conversation (identifier_id, channel, last_at) values (?, ?, ?)
              on conflict (identifier_id, channel) do update set last_at = excluded.last_at returning id""",
            (found[0], row.channel, at),
        ).fetchone()
        self._run(
            "insert into message (conversation_id, channel, external_id, body, created_at) values (?, ?, ?, ?, ?)",
            (conversation, row.channel, row.external_id, row.text, at),
        )
        self._run("insert into outbox (topic, payload) values ('message.received', ?)", (NOTICE,))

    def _link(self, row: Row) -> None:
        find = "select contact_id from identifier where kind = ? and value = ?"
        (contact,) = self._run(find, (row.kind, row.value)).fetchone()
        if self._run(find, ("external_id", row.account)).fetchone() is None:
            self._identifier("external_id", row.account, contact)
        self._run("insert into outbox (topic, payload) values ('contact.identified', ?)", (NOTICE,))
