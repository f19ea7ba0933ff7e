import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing, contextmanager
from importlib import resources
from pathlib import Path

import pytest

from convsdk.core.events import MessageReceived
from convsdk.core.model import Identifier, Trust
from convsdk.core.storage import Batch
from convsdk.errors import ConfigError, PermanentError, TransientError
from convsdk.hub import Hub
from convsdk.store import open_store, sqlite
from convsdk.store.memory import MemoryStore
from convsdk.store.sqlite import SqliteStore
from convsdk.testing.builders import NOON, FakeClock, hint

TABLES = "select name from sqlite_master where type = 'table' and name not like 'sqlite%' order by name"
# What a plan scans that is no table: values handed in, and rows that another step has found.
FROM_MEMORY = (
    "VIRTUAL TABLE",
    "CONSTANT ROW",
    "SCAN p",
    "SCAN reach",
    "SCAN said",
    "SCAN w",
    "SCAN (subquery",
    "VALUES CLAUSE",
)


@pytest.fixture
def path(tmp_path):
    """Give where a store can be made."""
    return str(tmp_path / "shop.db")


@pytest.fixture
def impatient(monkeypatch):
    """Let a store wait for another writer no longer than a test may."""
    monkeypatch.setattr(sqlite, "_BUSY_TIMEOUT_S", 0.05)


def read(path, statement):
    """Give the rows of a statement, read past the store."""
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(statement).fetchall()


def run(path, statement):
    """Run a statement past the store."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(statement)
        connection.commit()


@contextmanager
def writing(path):
    """Hold the write lock of the file, as another process does."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("begin immediate")
        yield
        connection.execute("rollback")


def known(name, id="1"):  # noqa: A002  (as in `hint`)
    """Give a hint that attests one address."""
    return hint(id, email=f"{name}@shop.example", trust=Trust.CHANNEL)


# -- opening


def test_schema_is_applied_when_the_file_is_opened(path):
    """A fresh file has every table, and the number of the last migration."""
    with closing(SqliteStore(path)):
        pass

    tables = {name for (name,) in read(path, TABLES)}
    assert {"workspace", "identifier", "contact", "hint", "claim", "conversation", "message", "outbox"} <= tables
    assert read(path, "pragma user_version")[0][0] > 0


def test_file_of_the_first_schema_is_brought_up_to_date(path):
    """What is in an older file stays, and what came to the schema since is there as for somebody who had none of it."""
    first = resources.files("convsdk.store").joinpath("schema", "sqlite", "0001_start.sql").read_text("utf-8")
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.executescript(first)
        connection.execute("pragma user_version = 1")
        connection.execute("insert into workspace values (1, 'default', 3)")
        connection.execute(
            "insert into conversation values"
            " (1, 1, 'chat', 't', '', null, null, null, 0, '', 0, null, 'open', 1, 1, '')"
        )
        connection.execute(
            "insert into message values (1, 2, 1, 'chat', 'm1', 'inbound', 0, 'Hello', '', cast('[]' as blob), '')"
        )

    with closing(Hub(f"sqlite:///{path}")) as hub:
        hub.note(1, "An old one.", by="kim")
        (note, message) = hub.messages(1)

        assert hub.conversation(1).filing.bot == ""
        assert [(one.text, one.detail) for one in (message, note)] == [("Hello", None), ("An old one.", None)]


def test_open_of_a_current_file_migrates_nothing(path):
    """A file that is current is opened without a write, so a busy writer does not hold it up."""
    with closing(SqliteStore(path)):
        pass

    started = time.perf_counter()
    with writing(path), closing(SqliteStore(path)):
        pass

    assert time.perf_counter() - started < 1


def test_open_store_gives_the_store_of_a_url(path):
    """Schemes name stores, and a plugin can add one."""
    with closing(open_store(f"sqlite:///{path}")) as store:
        assert isinstance(store, SqliteStore)

    plugged = open_store("shelf:1", factories={"shelf": lambda _: MemoryStore()})

    assert isinstance(plugged, MemoryStore)
    assert Path(path).exists()


def test_newer_schema_is_refused(path):
    """A file that a newer version wrote is left alone, and the error says what to install."""
    run(path, "pragma user_version = 99")

    with pytest.raises(ConfigError, match=r"shop\.db' has schema 99.*install a newer version of convsdk"):
        SqliteStore(path)

    assert read(path, TABLES) == []


def test_folder_is_no_store(tmp_path):
    """The error names the path, and what to give instead."""
    with pytest.raises(ConfigError, match=f"cannot open '{tmp_path}'.*give the path of a writable file"):
        SqliteStore(str(tmp_path))


def test_garbage_is_no_store(path):
    """A file that is no database is refused, and stays as it is."""
    garbage = b"certainly no database, and long enough to be looked at. " * 20
    Path(path).write_bytes(garbage)

    with pytest.raises(ConfigError, match=f"cannot open '{path}'.*give the path of a writable file"):
        SqliteStore(path)

    assert Path(path).read_bytes() == garbage


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs a place that not even root can write to")
def test_read_only_place_is_no_store():
    """Where no file can be made, the error says so."""
    with pytest.raises(ConfigError, match=r"cannot open '/proc/shop\.db'.*give the path of a writable file"):
        SqliteStore("/proc/shop.db")


def test_refused_file_is_let_go(path, monkeypatch):
    """A store that cannot be opened leaves no connection behind."""
    run(path, "pragma user_version = 99")
    opened = []
    connect = sqlite3.connect

    def note(*values, **settings):
        opened.append(connect(*values, **settings))
        return opened[-1]

    monkeypatch.setattr(sqlite.sqlite3, "connect", note)
    with pytest.raises(ConfigError):
        SqliteStore(path)

    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        opened[0].execute("select 1")


@pytest.mark.usefixtures("impatient")
def test_open_of_a_fresh_file_that_is_being_written_can_be_tried_again(path):
    """Another process that is just migrating the file is no fault of its path."""
    run(path, "pragma journal_mode = wal")

    with writing(path), pytest.raises(TransientError, match=r"shop\.db' is busy with another writer: try again"):
        SqliteStore(path)

    SqliteStore(path).close()


def test_open_of_a_file_that_another_is_making_waits_for_it(path):
    """Processes that start together on a new file do not refuse one another."""
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:
        other.execute("begin immediate")
        letting_go = threading.Timer(0.1, other.rollback)
        letting_go.start()

        SqliteStore(path).close()

        letting_go.join()


def test_acknowledged_writes_survive_a_power_cut(path):
    """The journal is a write-ahead log, and each commit waits for the disk."""
    with closing(SqliteStore(path)) as store:
        journal = store._one("pragma journal_mode", ())  # noqa: SLF001  (a setting of this connection alone)
        synchronous = store._one("pragma synchronous", ())  # noqa: SLF001  (as above)

    assert journal == ("wal",)
    assert synchronous == (2,)


# -- other writers, and errors


@pytest.mark.usefixtures("impatient")
def test_lock_of_another_process_is_transient(path):
    """A writer that waits too long for another is told to try again, and when."""
    with closing(SqliteStore(path)) as store:
        hub = Hub(store, clock=FakeClock())
        hub.resolve(known("ann"))

        with writing(path), pytest.raises(TransientError, match=r"shop\.db' is busy") as error:
            hub.resolve(known("ben", "2"))

        assert error.value.retry_after_s == 1
        assert hub.find("email", "ben@shop.example") is None
        assert hub.resolve(known("ben", "2")).contact is not None


# Writes without a pause that another could use, 250 times for 20 ms.
GREEDY = """
import sys, time
from convsdk.core.storage import Batch
from convsdk.store.sqlite import SqliteStore

def work(transaction):
    transaction.write(Batch(checkpoints={"greedy": str(time.time())}))
    time.sleep(0.02)

store = SqliteStore(sys.argv[1])
for turn in range(250):
    store.transact("shop", work)
    if turn == 0:
        print("begun", flush=True)
store.transact("shop", lambda transaction: transaction.write(Batch(checkpoints={"done": "yes"})))
"""


def test_writer_gets_its_turn_beside_one_that_never_pauses(path):
    """Between two transactions of a busy process there are microseconds, and a waiting one finds them."""
    with subprocess.Popen([sys.executable, "-c", GREEDY, path], stdout=subprocess.PIPE) as greedy:
        greedy.stdout.readline()
        with closing(SqliteStore(path)) as store:
            store.transact("shop", lambda transaction: transaction.write(Batch(checkpoints={"mine": "yes"})))
            is_over = store.checkpoint("shop", "done")
        greedy.kill()

    assert is_over is None


@pytest.mark.usefixtures("impatient")
def test_lock_of_another_process_is_transient_for_a_new_workspace(path):
    """The first write of a workspace waits for its turn like any other."""
    with closing(SqliteStore(path)) as store:
        with writing(path), pytest.raises(TransientError, match="try again"):
            Hub(store).resolve(known("ann"))

        assert Hub(store).resolve(known("ann")).contact is not None


def test_two_stores_on_one_file_see_one_another(path):
    """What one process has committed, another reads, and goes on from."""
    with closing(SqliteStore(path)) as first, closing(SqliteStore(path)) as second:
        created = Hub(first).resolve(known("ann"))
        attached = Hub(second).resolve(known("ann", "2"))
        other = Hub(first).resolve(known("ben", "3"))

        assert attached.contact == created.contact
        assert Hub(second).contact(other.contact) == Hub(first).contact(other.contact)


def test_error_of_the_database_is_permanent_and_keeps_nothing(path):
    """An error that ended the transaction by itself is told with the file's name, and the store goes on."""
    with closing(SqliteStore(path)) as store:
        hub = Hub(store)
        run(path, "create trigger t before insert on hint begin select raise(rollback, 'the disk is gone'); end")

        with pytest.raises(PermanentError, match=r"shop\.db': the disk is gone; nothing of this batch was written"):
            hub.resolve(known("ann"))

        run(path, "drop trigger t")
        assert list(hub.contacts()) == []
        assert hub.resolve(known("ann")).contact is not None


def test_closed_store_says_so(path):
    """A store that was closed answers with an error of ours."""
    store = SqliteStore(path)
    hub = Hub(store)
    hub.resolve(known("ann"))
    store.close()

    with pytest.raises(PermanentError, match="closed"):
        hub.find("email", "ann@shop.example")
    with pytest.raises(PermanentError, match="closed"):
        hub.resolve(known("ben", "2"))


def test_empty_batch_uses_no_id(path):
    """A transaction that asks for no ids gives none away."""
    with closing(SqliteStore(path)) as store:

        def take(transaction):
            number = next(transaction.new_ids())
            transaction.write(Batch())
            return number

        first = store.transact("shop", take)
        store.transact("shop", lambda transaction: transaction.write(Batch()))

        assert store.transact("shop", take) == first + 1


# -- schema


@pytest.fixture
def file(path):
    """Give a file with the schema in it."""
    SqliteStore(path).close()
    return path


def columns(file, index):
    """Give the columns of an index, in order."""
    return [name for _, _, name in read(file, f"pragma index_info('{index}')")]


def tables(file):
    """Give the names of all tables but that of the workspaces itself."""
    return [name for (name,) in read(file, TABLES) if name != "workspace"]


def test_every_primary_key_leads_with_the_workspace(file):
    """What one workspace asks for never walks over another's rows."""
    for table in tables(file):
        key = sorted((place, name) for _, name, *_, place in read(file, f"pragma table_info('{table}')") if place)

        assert key[0] == (1, "workspace_id"), table
        assert len(key) > 1, table


def test_every_index_leads_with_the_workspace(file):
    """An index is read for one workspace at a time."""
    found = read(file, "select name from sqlite_master where type = 'index' and tbl_name <> 'workspace'")

    assert found
    for (index,) in found:
        assert columns(file, index)[0] == "workspace_id", index


def test_no_column_of_a_unique_index_can_be_null(file):
    """Two nulls are different to SQLite: a unique index over one would let doubles in."""
    for table in tables(file):
        is_required = {name: bool(required) for _, name, _, required, *_ in read(file, f"pragma table_info('{table}')")}
        for _, index, is_unique, *_ in read(file, f"pragma index_list('{table}')"):
            assert not is_unique or all(is_required[name] for name in columns(file, index)), index


def test_identifiers_are_never_deleted(path):
    """A withdrawal empties a contact and leaves the row of its identifier, with its id, for what comes back."""
    with closing(SqliteStore(path)) as store:
        hub = Hub(store)
        hub.resolve(known("ann"))
        before = read(path, "select id, kind, value from identifier")

        hub.withdraw("1", by="kim")

        assert hub.find("email", "ann@shop.example") is None
        assert read(path, "select id, kind, value from identifier") == before


# -- what a statement reads


class PlanningConnection:
    """Passes everything on to a connection, and notes the plan of each statement."""

    def __init__(self, connection):
        self._connection = connection
        self.plans = {}

    def __getattr__(self, name):
        return getattr(self._connection, name)

    def execute(self, statement, values=()):
        if statement.lstrip().startswith(("select", "with", "update")):
            plan = self._connection.execute(f"explain query plan {statement}", values)
            self.plans[statement] = [detail for *_, detail in plan]
        return self._connection.execute(statement, values)

    def executemany(self, statement, rows):
        for row in rows:
            self.execute(statement, row)


def test_no_statement_reads_a_whole_workspace(path):
    """Every look-up goes by a selective index: what it costs does not grow with what others have stored."""
    with closing(SqliteStore(path)) as store:
        planning = store._connection = PlanningConnection(store._connection)  # noqa: SLF001  (nowhere else is it seen)
        hub = Hub(store, clock=FakeClock())
        ann, bob = (
            hub.resolve(hint(name, email=f"{name}@shop.example", phone=phone, visitor=name * 16, trust=Trust.CHANNEL))
            for name, phone in (("ann", "+4930123456"), ("bob", "+4930123457"))
        )
        message = MessageReceived(external_id="m2", hint=known("ann", ""), at=NOON, text="hello", references=("m1",))
        (received,) = hub.receive("chat", [message])
        ruled = hub.merge(ann.contact, bob.contact, by="kim")
        hub.unmerge(ruled.id, by="kim")
        hub.withdraw("bob", by="kim")
        hub.explain(ann.contact)
        hub.suggestions(ann.contact)
        hub.conversations(contact=ann.contact)
        hub.messages(received.conversation)
        hub.may_write(Identifier("email", "", "ann@shop.example"), "news", list_name="news")
        hub.attribution("ann")

    assert len(planning.plans) > 30
    for statement, details in planning.plans.items():
        for detail in details:
            is_scan = detail.startswith("SCAN") and not any(one in detail for one in FROM_MEMORY)
            assert not is_scan, (detail, statement)
            assert not detail.endswith("(workspace_id=?)"), (detail, statement)
