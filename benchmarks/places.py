"""Where a contestant keeps its rows: an SQLite file or a PostgreSQL database, looked at behind the contestant's back.

A place counts rows and shows the tables, so that a benchmark can check what was stored, and a prefill can multiply what
the product itself has written. Nothing here knows the columns of a table.
"""

import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from attrs import frozen

Row = tuple[Any, ...]


@frozen
class Column:
    """A column of a table, by name and type as the database writes it."""

    name: str
    type: str

    @property
    def is_id(self) -> bool:
        """Say whether the column holds ids that the store gives out, if it holds numbers."""
        return self.name != "workspace_id" and (self.name == "id" or self.name.endswith("_id"))


class Place(ABC):
    """A database. `url` is what a `Hub` opens."""

    url: str

    @abstractmethod
    def ask(self, statement: str) -> list[Row]:
        """Give the rows of a query, in a transaction of its own."""

    @abstractmethod
    def columns(self, table: str) -> tuple[Column, ...]:
        """Give the columns of a table that can be written."""

    @abstractmethod
    def tables(self) -> tuple[str, ...]:
        """Give the names of the tables."""

    @abstractmethod
    def readable(self, column: Column) -> str:
        """Give the expression that reads a column as a number or text."""

    @abstractmethod
    def written(self, expression: str, column: Column, value: object) -> str:
        """Give the expression that writes text, put together in SQL, where `value` was read."""

    @abstractmethod
    def filling(self, rows: Iterable[Row]) -> AbstractContextManager[Callable[[str], object]]:
        """Give what runs a statement at full speed, with `rows` in a temporary table `fill`, until the block ends.

        A row is its number, then the address, name and time (as JSON and as a column has it) of a letter.
        """

    def close(self) -> None:  # noqa: B027  (a file is closed after each look)
        """Let go of the database."""

    def count(self, table: str) -> int:
        """Give the number of rows of a table."""
        return int(self.ask(f"select count(*) from {table}")[0][0])


FILL = "create temporary table fill (k bigint primary key, address text, marker text, moment text, stamp bigint)"


class SqliteFile(Place):
    """A file of SQLite."""

    def __init__(self, path: str | Path) -> None:
        self.path = str(path)
        self.url = f"sqlite:///{path}"

    def ask(self, statement: str) -> list[Row]:
        connection = sqlite3.connect(self.path)
        try:
            return connection.execute(statement).fetchall()
        finally:
            connection.close()

    def tables(self) -> tuple[str, ...]:
        rows = self.ask("select name from sqlite_schema where type = 'table' and name not like 'sqlite%'")
        return tuple(name for (name,) in rows)

    def columns(self, table: str) -> tuple[Column, ...]:
        return tuple(Column(row[1], row[2]) for row in self.ask(f"pragma table_info({table})"))

    def readable(self, column: Column) -> str:
        return column.name

    def written(self, expression: str, column: Column, value: object) -> str:  # noqa: ARG002  (PostgreSQL needs it)
        return f"cast({expression} as blob)" if isinstance(value, bytes) else expression

    @contextmanager
    def filling(self, rows: Iterable[Row]) -> Iterator[Callable[[str], object]]:
        connection = sqlite3.connect(self.path, isolation_level=None)
        run = connection.execute
        for pragma in ("journal_mode = off", "synchronous = off", "cache_size = -500000"):
            run(f"pragma {pragma}").fetchall()
        # Indexes are built at the end; what the planner believes of them goes with them, and is put back.
        indexes = run("select name, sql from sqlite_schema where type = 'index' and sql is not null").fetchall()
        beliefs = run("select tbl, idx, stat from sqlite_stat1").fetchall()
        run("begin")
        for name, _ in indexes:
            run(f"drop index {name}")
        run(FILL)
        connection.executemany("insert into fill values (?, ?, ?, ?, ?)", rows)
        yield run
        for _, index in indexes:
            run(index)
        run("delete from sqlite_stat1")
        connection.executemany("insert into sqlite_stat1 values (?, ?, ?)", beliefs)
        run("commit")
        run("pragma journal_mode = wal").fetchall()
        connection.close()


class PostgresqlDatabase(Place):
    """A database of PostgreSQL; its schema is the one that has a table `message`."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._connected: Any = None

    @property
    def _connection(self) -> Any:  # noqa: ANN401  (psycopg is imported by who uses it)
        import psycopg  # noqa: PLC0415  (only who measures PostgreSQL needs it)

        if self._connected is None:
            self._connected = psycopg.connect(self.url, autocommit=True)
            found = self._connected.execute("select schemaname from pg_tables where tablename = 'message'").fetchone()
            if found:
                self._connected.execute(f"set search_path to {found[0]}")
        return self._connected

    def close(self) -> None:
        """Let go of the database, so that it can be copied or dropped."""
        if self._connected is not None:
            self._connected.close()
        self._connected = None

    def ask(self, statement: str) -> list[Row]:
        return self._connection.execute(statement).fetchall()  # type: ignore[no-any-return]  # rows of psycopg

    def tables(self) -> tuple[str, ...]:
        return tuple(
            name for (name,) in self.ask("select tablename from pg_tables where schemaname = current_schema()")
        )

    def columns(self, table: str) -> tuple[Column, ...]:
        rows = self.ask(
            f"""select attname, format_type(atttypid, null) from pg_attribute where attrelid = '{table}'::regclass
              and attnum > 0 and not attisdropped and attgenerated = '' order by attnum"""
        )
        return tuple(Column(name, kind) for name, kind in rows)

    def readable(self, column: Column) -> str:
        read = {"bytea": "convert_from({}, 'UTF8')", "json": "{}::text", "jsonb": "{}::text"}
        return read.get(column.type, "{}").format(f'"{column.name}"')

    def written(self, expression: str, column: Column, value: object) -> str:  # noqa: ARG002  (SQLite needs it)
        if column.type == "bytea":
            return f"convert_to({expression}, 'UTF8')"
        return f"({expression})::{column.type}"

    @contextmanager
    def filling(self, rows: Iterable[Row]) -> Iterator[Callable[[str], object]]:
        run = self._connection.execute
        run("set session_replication_role = replica")  # nobody is told of each row, and no reference is looked up
        indexes = self.ask(
            """select indexrelid::regclass::text, pg_get_indexdef(indexrelid) from pg_index
              join pg_class c on c.oid = indrelid and c.relnamespace = current_schema()::regnamespace
              where not exists (select from pg_constraint where conindid = indexrelid)"""
        )
        for name, _ in indexes:
            run(f"drop index {name}")
        run(FILL)
        with self._connection.cursor() as cursor, cursor.copy("copy fill from stdin") as copy:
            for row in rows:
                copy.write_row(row)
        yield run
        for _, index in indexes:
            run(index)
        run("drop table fill")
        run("set session_replication_role = origin")
        run("vacuum analyze")
        run("checkpoint")


def named(url: str, database: str) -> str:
    """Give the URL of another database on the same server."""
    return urlsplit(url)._replace(path=f"/{database}").geturl()
