"""Every store that ships passes `StoreContract`."""

from contextlib import contextmanager

import psycopg
import pytest
from servers import fresh_postgresql

from convsdk.store import open_store
from convsdk.store.memory import MemoryStore
from convsdk.store.sqlite import SqliteStore
from convsdk.testing.store_contract import DurableStoreContract, StoreContract


class TestMemoryStore(StoreContract):
    def open(self):
        return MemoryStore()


class CountingConnection:
    """Passes everything on to a connection, and notes what it is asked to run."""

    def __init__(self, connection, ran):
        self._connection = connection
        self._ran = ran

    def __getattr__(self, name):
        return getattr(self._connection, name)

    def execute(self, statement, *values):
        self._ran.append(statement)
        return self._connection.execute(statement, *values)

    def executemany(self, statement, *values):
        self._ran.append(statement)
        return self._connection.executemany(statement, *values)


class TestSqliteStore(DurableStoreContract):
    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path):
        self.folder = tmp_path

    def open(self):
        return SqliteStore(str(self.folder / "shop.db"))

    def reopen(self, store):
        store.close()
        return self.open()

    @contextmanager
    def statements(self, store):
        # A prepared statement that runs for many rows is one: a trace callback would tell of each row.
        ran = []
        connection = store._connection  # noqa: SLF001  (nowhere else can they be counted)
        store._connection = CountingConnection(connection, ran)  # noqa: SLF001  (as above)
        yield ran
        store._connection = connection  # noqa: SLF001  (as above)


class TestPostgresqlStore(DurableStoreContract):
    def open(self):
        self.url = fresh_postgresql(synchronous_commit="off")  # what survives a power cut is another test's question
        return open_store(self.url)

    def reopen(self, store):
        store.close()
        return open_store(self.url)

    @contextmanager
    def statements(self, store):
        ran = []
        execute = psycopg.Connection.execute

        def note(connection, statement, *values, **settings):
            ran.append(statement)
            return execute(connection, statement, *values, **settings)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(psycopg.Connection, "execute", note)
            yield ran
