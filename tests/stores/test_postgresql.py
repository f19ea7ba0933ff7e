"""What is PostgreSQL's own: opening, rivals, lost connections, plans, texts. What all stores do is in the contract."""

import logging
import re
import shutil
import socket
import sys
import threading
import time
import traceback
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from importlib import resources
from uuid import uuid4

import psycopg
import pytest
from attrs import evolve
from servers import COMMITTED, COMMITTING, Proxy, fresh_postgresql, postgresql_url, sql

from convsdk.core.consent import ConsentState, ListState
from convsdk.core.events import MessageReceived, Notice
from convsdk.core.model import Identifier, Outcome, Trust
from convsdk.core.storage import Batch
from convsdk.errors import ConfigError, PermanentError, TransientError
from convsdk.hub import Hub
from convsdk.store import open_store, postgresql
from convsdk.testing.builders import NOON, FakeClock, hint

PASSWORD = "s3cret"
STEPS = ("0001_start.pre.sql", "0002_web.pre.sql", "0003_delivery.pre.sql", "0004_mail.pre.sql")
STEP = "0005_gone.post.sql"
OF_THE_STORE = """from pg_stat_activity where pid <> pg_backend_pid()
  and application_name = current_setting('application_name')"""


@pytest.fixture
def url():
    """Give the URL of an empty schema, whose connections can be told from all others."""
    return fresh_postgresql(synchronous_commit="off", application_name=uuid4().hex)


@pytest.fixture
def store(url):
    """Give a store at `url`."""
    with closing(open_store(url)) as store:
        yield store


@pytest.fixture
def impatient(monkeypatch):
    """Let a store wait for a rival no longer than a test may."""
    monkeypatch.setitem(postgresql._SESSION, "lock_timeout", "50ms")  # noqa: SLF001  (no setting of the product)
    monkeypatch.setattr(postgresql, "_PATIENCE_S", 0.2)


@pytest.fixture
def upgrade(monkeypatch, tmp_path):
    """Let the program have one more step."""
    folder = tmp_path / "schema" / "postgresql"
    shutil.copytree(resources.files("convsdk.store") / "schema" / "postgresql", folder)
    (folder / STEP).write_text("create table finished (at timestamptz)")
    monkeypatch.setattr(postgresql.resources, "files", lambda _: tmp_path)


def known(name, id="1"):  # noqa: A002  (as in `hint`)
    """Give a hint that attests one address."""
    return hint(id, email=f"{name}@shop.example", trust=Trust.CHANNEL)


def message(name, text="hello", *, person="ann", **fields):
    """Build a message."""
    return MessageReceived(external_id=name, hint=known(person, ""), at=NOON, text=text, **fields)


def until(is_so, seconds=30):
    """Wait until something has happened."""
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.005)


def cut(url):
    """Cut the connections of the store at `url`, and give how many there were."""
    return len(sql(url, f"select pg_terminate_backend(pid, 10000) {OF_THE_STORE}"))


def waits_for_a_lock(url):
    """Say whether a connection of the store at `url` waits for another."""
    return bool(sql(url, f"select 1 {OF_THE_STORE} and wait_event_type = 'Lock'"))


def at_each_run(store, act, *, after="load"):
    """Let `act(run)` happen in each run of each transaction's work: after its `load`, its `write`, or at its start."""
    transact, runs = store.transact, []

    def meddled(workspace, work):
        def once_more(transaction):
            runs.append(None)
            if after == "start":
                act(len(runs))
                return work(transaction)
            method = getattr(transaction, after)

            def do(*values):
                found = method(*values)
                act(len(runs))
                return found

            setattr(transaction, after, do)
            return work(transaction)

        return transact(workspace, once_more)

    store.transact = meddled
    return runs


@contextmanager
def in_another_thread(do, *values):
    """Run something in another thread meanwhile; give its future, whose result is there afterwards."""
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(do, *values)


@contextmanager
def transaction_of_another(url):
    """Give a connection of somebody else that is in a transaction."""
    with closing(psycopg.connect(url, application_name="another")) as connection:
        yield connection
        connection.rollback()


# -- opening


def server_that_asks_for_a_password():
    """Start a server that takes one connection and no password; give its port."""
    listener = socket.create_server(("127.0.0.1", 0))

    def refuse():
        with closing(listener), closing(listener.accept()[0]) as connection:
            connection.recv(10000)
            connection.sendall(b"R\0\0\0\x08\0\0\0\x03")
            connection.recv(10000)
            told = b'SFATAL\0VFATAL\0C28P01\0Mpassword authentication failed for user "me"\0\0'
            connection.sendall(b"E" + (len(told) + 4).to_bytes(4, "big") + told)

    threading.Thread(target=refuse, daemon=True).start()
    return listener.getsockname()[1]


def broken_urls():
    """Give URLs that lead nowhere, each with what is said of it."""
    server = postgresql_url()
    name, options = f"dbname={uuid4().hex}", "options=-cbogus%3D1"
    more = "&" if "?" in server else "?"
    asking = server_that_asks_for_a_password()
    return [
        (f"postgresql://me:{PASSWORD}@127.0.0.1:1/shop", r"\(shop on 127\.0\.0\.1\).*refused"),
        (f"postgresql://me:{PASSWORD}@127.0.0.1:{asking}/shop?sslmode=disable", "password authentication failed"),
        (f"{server}{more}{name}&password={PASSWORD}", "does not exist"),
        (f"{server}{more}user=nobody-at-all&password={PASSWORD}", "nobody-at-all"),
        (f"{server}{more}{options}&password={PASSWORD}", "bogus"),
        (f"postgresql://me:{PASSWORD}@[bad", "cannot be read"),
        (f"postgresql://me:{PASSWORD}%zz@127.0.0.1/shop", "cannot be read"),
        (f"postgresql://me@127.0.0.1/shop?password={PASSWORD}&bogus=1", "cannot be read"),
        # What a password breaks that is not written with %40 or %2F.
        (f"postgresql://me:s3/{PASSWORD}@127.0.0.1/shop", "cannot be read"),
        (f"postgresql://me:{PASSWORD}/x@127.0.0.1/shop", "cannot be read"),
        (f"postgresql://me:p@{PASSWORD}@127.0.0.1/shop", "cannot be read"),
    ]


def test_url_that_leads_nowhere_is_told_without_its_password():
    """Whatever is wrong with a URL, the error says what to do, and neither it nor its causes show the password."""
    for url, told in broken_urls():
        with pytest.raises(ConfigError, match=told) as error:
            open_store(url)

        assert re.search("write postgresql://|check ", str(error.value)), error.value
        assert PASSWORD not in "".join(traceback.format_exception_only(error.value)), url
        assert PASSWORD not in f"{error.value.__cause__!r}", url


def test_store_shows_no_password(url):
    """What is printed of a store has no part of its URL in it."""
    with closing(open_store(f"{url}&password={PASSWORD}")) as store:
        assert PASSWORD not in repr(store)


def test_missing_driver_is_told(monkeypatch, url):
    """Without psycopg, the error says what to install."""
    monkeypatch.setitem(sys.modules, "psycopg", None)
    for name in ("postgresql", "postgresql_transaction"):
        monkeypatch.delitem(sys.modules, f"convsdk.store.{name}", raising=False)

    with pytest.raises(ConfigError, match=r"pip install 'convsdk\[postgresql\]'"):
        open_store(url)


def test_database_of_another_encoding_is_refused():
    """A database that cannot hold every text is left alone, and the error says how to make one that can."""
    server, name = postgresql_url(), f"latin_{uuid4().hex}"
    sql(server, f"create database {name} encoding 'LATIN1' locale 'C' template template0")
    latin = f"{server}{'&' if '?' in server else '?'}dbname={name}"

    with pytest.raises(ConfigError, match="encoding LATIN1: create the database with encoding 'UTF8'"):
        open_store(latin)

    assert sql(latin, "select to_regclass('schema_step')") == [(None,)]
    sql(server, f"drop database {name} with (force)")


def test_role_that_may_create_nothing_is_told(url):
    """The error names what the role may not do."""
    role = f"role_{uuid4().hex}"
    sql(url, f"create role {role}")
    schema = sql(url, "select current_schema()")[0][0]
    sql(url, f"grant usage on schema {schema} to {role}")

    with pytest.raises(ConfigError, match=r"permission denied for schema.*check .*may create tables"):
        open_store(url.replace("options=", f"options=-crole%3D{role}%20"))

    sql(url, f"drop owned by {role}")
    sql(url, f"drop role {role}")


def test_all_who_open_a_fresh_schema_at_once_get_a_store(url):
    """The schema is made once, by whoever comes first."""
    start = threading.Barrier(8)

    def open_with_others(number):
        start.wait()
        with closing(Hub(url)) as hub:
            return hub.resolve(known("ann", f"{number}")).contact

    with ThreadPoolExecutor(8) as pool:
        contacts = set(pool.map(open_with_others, range(8)))

    assert len(contacts) == 1
    assert sql(url, "select name from schema_step") == [(name,) for name in STEPS]


@pytest.mark.usefixtures("store")
def test_store_of_a_newer_release_opens_until_that_has_finished(url):
    """A `pre` step of a newer release is made for this one to run on; a `post` step takes away what this one needs."""
    sql(url, "insert into schema_step values ('0002_more.pre.sql', now())")
    open_store(url).close()

    sql(url, "insert into schema_step values ('0002_more.post.sql', now())")
    with pytest.raises(ConfigError, match=r"0002_more\.post\.sql of a newer convsdk: install that version"):
        open_store(url)


@pytest.mark.usefixtures("upgrade")
def test_upgrade_is_finished_once(url, store):
    """A `post` step is no part of opening; of all who finish, one runs it and tells of it."""
    assert sql(url, "select to_regclass('finished')") == [(None,)]
    start = threading.Barrier(4)

    def finish(_):
        start.wait()
        return store.finish_upgrade()

    with ThreadPoolExecutor(4) as pool:
        told = list(pool.map(finish, range(4)))

    assert sorted(told) == [[], [], [], [STEP]]
    assert sql(url, "select name from schema_step order by name") == [(name,) for name in (*STEPS, STEP)]
    assert sql(url, "select count(*) from finished") == [(0,)]


@pytest.mark.usefixtures("upgrade")
def test_upgrade_waits_for_another_that_migrates(url, store):
    """Steps run under a lock of the whole database."""
    with transaction_of_another(url) as another:
        another.execute("select pg_advisory_xact_lock(%s)", (postgresql._MIGRATION_LOCK,))  # noqa: SLF001  (its name)
        with in_another_thread(store.finish_upgrade) as finished:
            until(lambda: sql(url, "select 1 from pg_locks where locktype = 'advisory' and not granted"))
            assert sql(url, "select to_regclass('finished')") == [(None,)]
            another.rollback()

    assert finished.result() == [STEP]


def test_upgrade_of_a_server_that_is_gone_is_a_matter_of_configuration(url):
    """A finish that cannot connect is told like an opening that cannot."""
    with Proxy(url) as proxy:
        store = open_store(proxy.url)
    store.close()

    with pytest.raises(ConfigError, match="cannot use PostgreSQL"):
        store.finish_upgrade()


def test_closed_store_says_so(store):
    """A store that was closed answers at once, with an error of ours."""
    hub = Hub(store)
    hub.resolve(known("ann"))
    store.close()

    started = time.perf_counter()
    with pytest.raises(PermanentError, match="closed"):
        hub.find("email", "ann@shop.example")
    with pytest.raises(PermanentError, match="closed"):
        hub.resolve(known("ben", "2"))
    assert time.perf_counter() - started < 5


# -- notices


def tell(store, number, *, then=lambda: None):
    """Write one notice, and do something before that is kept; give its id."""

    def work(transaction):
        notice = Notice(id=next(transaction.new_ids()), type="t", version=1, at=NOON, payload={"number": number})
        transaction.write(Batch(notices=[notice]))
        then()
        return notice.id

    return store.transact("default", work)


def page(store, since=0, limit=1000):
    """Give the numbers of the notices after an id, and the id of the last one."""
    found = store.notices("default", since=since, limit=limit)
    return [one.payload["number"] for one in found], found[-1].id if found else since


def test_notice_of_a_slow_transaction_is_not_passed_by(url, store):
    """A reader waits for a transaction that took its ids first and ends last, and sees each notice once."""
    told, go_on = threading.Event(), threading.Event()
    tell(store, 0)

    with in_another_thread(lambda: tell(store, 1, then=lambda: (told.set(), go_on.wait(30)))) as slow:
        assert told.wait(30)
        tell(store, 2)
        while_it_runs, since = page(store)
        go_on.set()
    afterwards, _ = page(store, since)

    assert slow.result() > since
    assert while_it_runs == [0]
    assert sorted(afterwards) == [1, 2]


def test_reader_of_busy_writers_sees_each_notice_once(store):
    """Four writers end their transactions in any order; a reader that pages meanwhile misses none and doubles none."""
    seen, since = [], 0

    def write(writer):
        for number in range(60):
            tell(store, f"{writer}/{number}", then=lambda: time.sleep(random_pause(writer)))

    with ThreadPoolExecutor(4) as pool:
        writers = [pool.submit(write, one) for one in range(4)]
        while not all(one.done() for one in writers):
            found, since = page(store, since, limit=3)
            seen += found
    for one in writers:
        one.result()
    while (more := page(store, since))[0]:
        seen, since = seen + more[0], more[1]

    assert Counter(seen) == Counter(f"{writer}/{number}" for writer in range(4) for number in range(60))


def random_pause(writer):
    """Give a pause that lets later transactions pass the slow ones."""
    return 0.004 if writer == 0 else 0


def test_notices_of_a_restored_dump_are_read_in_order(url, store):
    """A dump brings numbers of transactions that its new server has yet to give: once opened, they count as past."""
    for number in range(5):
        tell(store, number)
    sql(url, "update outbox set xact = ((xact::text)::bigint + 1000000000)::text::xid8")
    assert page(store)[0] == []

    with closing(open_store(url)) as reopened:
        tell(reopened, 5)

        assert page(reopened)[0] == [0, 1, 2, 3, 4, 5]
        assert page(reopened, page(reopened, limit=3)[1])[0] == [3, 4, 5]


# -- rivals


def test_lost_race_for_a_new_identifier_is_run_again(url, store):
    """Somebody else stores the same new address between load and write: the second run finds it, and nobody hears."""
    with closing(Hub(url)) as rival:
        runs = at_each_run(store, lambda run: run == 1 and rival.resolve(known("ann", "of the rival")))

        decision = Hub(store).resolve(known("ann"))

        assert len(runs) == 2
        assert decision.outcome is Outcome.ATTACHED
        assert decision.contact == rival.find("email", "ann@shop.example").id


def test_lost_race_for_a_hint_is_a_duplicate(url, store):
    """The same delivery reaches two processes: the second gives what the first decided."""
    with closing(Hub(url)) as rival:
        at_each_run(store, lambda run: run == 1 and rival.receive("chat", [message("m1")]))

        (received,) = Hub(store).receive("chat", [message("m1")])

        assert received.decision.outcome is Outcome.DUPLICATE
        assert sql(url, "select count(*) from message") == [(1,)]


def test_lost_race_in_a_batch_keeps_the_neighbours(url, store):
    """A batch that is run again is whole and once."""
    with closing(Hub(url)) as rival:
        at_each_run(store, lambda run: run == 1 and rival.resolve(known("ben", "of the rival")))
        names = ["ann", "ben", "cleo"]

        received = Hub(store).receive("chat", [message(one, person=one) for one in names])

        outcomes = [one.decision.outcome for one in received]
        assert outcomes == [Outcome.CREATED, Outcome.ATTACHED, Outcome.CREATED]
        assert sql(url, "select external_id from message order by 1") == [("ann",), ("ben",), ("cleo",)]


def test_key_that_is_always_taken_is_told(url, store):
    """A batch whose key is stored already and cannot be seen does not run for ever."""
    sql(url, "create function f() returns trigger language plpgsql as $$ begin raise unique_violation; end $$")
    sql(url, "create trigger t before insert on hint for each row execute function f()")

    runs = at_each_run(store, lambda _: None, after="start")

    with pytest.raises(PermanentError, match="nothing of this batch was written") as error:
        Hub(store).resolve(known("ann"))

    assert error.value.code == "23505"
    assert len(runs) == 8
    assert sql(url, "select count(*) from identifier") == [(0,)]


def test_race_that_is_lost_after_many_connections_is_run_again(url, store):
    """What else made work run again says nothing about the key that a rival has taken."""
    with closing(Hub(url)) as rival:

        def act(run):
            if run < 8:
                cut(url)
            elif run == 8:
                rival.resolve(known("ann", "of the rival"))

        runs = at_each_run(store, act)

        assert Hub(store).resolve(known("ann")).outcome is Outcome.ATTACHED
        assert len(runs) == 9


def test_deadlock_is_run_again(url, store):
    """A transaction that PostgreSQL ends so that another can go on is run again, once in effect."""
    hub = Hub(store)
    ann, ben = (hub.resolve(known(name, name)).contact for name in ("ann", "ben"))
    batch = [message("1", person="ann"), message("2", person="ben")]
    lock = "select 1 from identifier where value = %s for update"
    runs = at_each_run(store, lambda _: None, after="start")
    with transaction_of_another(url) as another:
        another.execute("set deadlock_timeout = '1min'")  # so that it is not this one
        another.execute(lock, ("ben@shop.example",))
        with in_another_thread(hub.receive, "chat", batch) as received:
            until(lambda: waits_for_a_lock(url))
            another.execute(lock, ("ann@shop.example",))
            another.rollback()

    assert [one.decision.contact for one in received.result()] == [ann, ben]
    assert len(runs) == 2
    assert sql(url, "select count(*) from message") == [(2,)]


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("setting", ["lock_timeout", "statement_timeout"])
def test_wait_for_a_rival_that_takes_too_long_can_be_tried_again(url, monkeypatch, setting):
    """Who waits too long hears when to come again, and nothing is kept."""
    monkeypatch.setitem(postgresql._SESSION, "lock_timeout", "10s")  # noqa: SLF001  (no setting of the product)
    monkeypatch.setitem(postgresql._SESSION, setting, "50ms")  # noqa: SLF001  (as above)
    with closing(Hub(url)) as hub:
        hub.resolve(known("ann"))
        with transaction_of_another(url) as another:
            another.execute("select 1 from identifier for update")

            with pytest.raises(TransientError, match=r"cannot do it now .* try again") as error:
                hub.receive("chat", [message("1"), message("2", person="ben")])

        assert error.value.retry_after_s == 5
        assert sql(url, "select count(*) from message") == [(0,)]
        assert hub.find("email", "ben@shop.example") is None
        assert len(hub.receive("chat", [message("1"), message("2", person="ben")])) == 2


def test_crossed_batches_lock_in_one_order(url):
    """Batches that name the same people in any order wait for one another, and never in a circle."""
    counted = "select pg_stat_get_db_deadlocks(oid) from pg_database where datname = current_database()"
    before = sql(url, counted)
    people = [f"p{number}" for number in range(6)]

    def write(writer):
        for number in range(25):
            turned = people[number % 6 :] + people[: number % 6]
            order = turned if (writer + number) % 2 else turned[::-1]
            hub.receive("chat", [message(f"{writer}/{number}/{one}", person=one) for one in order])

    with closing(Hub(url)) as hub, ThreadPoolExecutor(4) as pool:
        for _ in pool.map(write, range(4)):
            pass

    assert sql(url, "select count(*) from message") == [(600,)]
    until(lambda: not sql(url, f"select 1 {OF_THE_STORE}"))  # a connection that ends has told its figures
    assert sql(url, counted) == before


# -- lost connections


def receive(hub):
    """Take a message in, and check what is said of it."""
    (received,) = hub.receive("chat", [message("m9", person="ben")])
    assert received.decision.outcome is Outcome.CREATED


def record_consent(hub):
    """Record a consent."""
    hub.record_consent("email", "ann@shop.example", "news", ConsentState.GRANTED, by="kim")


def set_list(hub):
    """Put a contact on a list."""
    hub.set_list(hub.find("email", "ann@shop.example").id, "news", ListState.SUBSCRIBED, how="form")


def note(hub):
    """Write a note."""
    hub.note(hub.conversations()[0].id, "note", by="kim")


def merge(hub):
    """Merge two contacts."""
    ruled = hub.merge(*(Identifier("email", "", f"{name}@shop.example") for name in ("ann", "cleo")), by="kim")
    assert ruled.is_joined


WRITES = {
    receive: "select count(*) from message where external_id = 'm9'",
    record_consent: "select count(*) from consent",
    set_list: "select count(*) from membership",
    note: "select count(*) from message where direction = 'note'",
    merge: "select count(*) from ruling",
}
each_write = pytest.mark.parametrize("write", WRITES, ids=lambda write: write.__name__)


@contextmanager
def shop(url):
    """Give a hub on which every one of `WRITES` can be done."""
    with closing(Hub(url)) as hub:
        hub.receive("chat", [message("m1"), message("m2", person="cleo")])
    with closing(Hub(url)) as hub:  # with fresh connections
        yield hub


@each_write
def test_idle_connections_that_were_cut_are_not_noticed(url, write):
    """The server has ended the connections that wait for work: the next call gets another."""
    with shop(url) as hub:
        hub.contacts()
        assert cut(url) > 0

        write(hub)

    assert sql(url, WRITES[write]) == [(1,)]


@each_write
@pytest.mark.parametrize("after", ["start", "write"])
def test_connection_that_is_cut_under_work_is_replaced(url, write, after):
    """Work whose connection is lost is run again from the start, and takes effect once."""
    with shop(url) as hub:
        runs = at_each_run(hub.store, lambda run: run == 1 and cut(url), after=after)

        write(hub)

        assert len(runs) > 1
    assert sql(url, WRITES[write]) == [(1,)]


@each_write
def test_connection_that_is_lost_after_the_commit_does_nothing_twice(url, write):
    """The server has committed, and its answer is lost: the caller gets the result of that run."""
    with Proxy(url) as proxy, shop(proxy.url) as hub:
        proxy.cut_at = COMMITTED
        runs = at_each_run(hub.store, lambda _: None, after="start")

        write(hub)

        assert proxy.was_cut.is_set()
        assert len(runs) == 1
    assert sql(url, WRITES[write]) == [(1,)]


@each_write
def test_connection_that_is_lost_before_the_commit_loses_nothing(url, write):
    """The commit never reached the server: the work is run again."""
    with Proxy(url) as proxy, shop(proxy.url) as hub:
        proxy.cut_at = COMMITTING
        runs = at_each_run(hub.store, lambda _: None, after="start")

        write(hub)

        assert proxy.was_cut.is_set()
        assert len(runs) == 2
    assert sql(url, WRITES[write]) == [(1,)]


def test_connection_that_is_idle_for_too_long_is_replaced():
    """A server that ends idle sessions is no reason for an error."""
    url = fresh_postgresql(idle_session_timeout="50ms", application_name=uuid4().hex)
    with closing(Hub(url)) as hub:
        hub.resolve(known("ann"))
        hub.contacts()  # after a pipeline, PostgreSQL 18 does not count the time
        until(lambda: not sql(url, f"select 1 {OF_THE_STORE}"))

        assert hub.find("email", "ann@shop.example") is not None
        until(lambda: not sql(url, f"select 1 {OF_THE_STORE}"))
        assert hub.resolve(known("ann", "2")).outcome is Outcome.ATTACHED


def test_transaction_that_slept_for_too_long_is_run_again(url, monkeypatch):
    """A process that was stopped in the middle of its work comes back to a cut connection, and begins anew."""
    has_end = sql(url, "select current_setting('server_version_num')::int >= 170000")[0][0]
    monkeypatch.setitem(postgresql._SESSION_SINCE, 170000, {"transaction_timeout": "50ms"})  # noqa: SLF001  (no setting)
    with closing(Hub(url)) as hub:
        hub.resolve(known("ann"))
        # Before PostgreSQL 17, somebody has to end it by hand.
        asked = "select 1" if has_end else "select pg_terminate_backend(pid)"
        holding = f"{asked} {OF_THE_STORE} and xact_start is not null"
        runs = at_each_run(hub.store, lambda run: run == 1 and until(lambda: not sql(url, holding)))

        assert hub.resolve(known("ben", "2")).outcome is Outcome.CREATED
        assert len(runs) == 2


def test_server_that_stays_away_is_told_and_comes_back(url, monkeypatch, caplog):
    """A call ends in time with an error that says to try again; when the server is back, so is the store."""
    caplog.set_level(logging.CRITICAL, "psycopg.pool")  # it tells of each attempt
    monkeypatch.setattr(postgresql, "_PATIENCE_S", 0.2)
    monkeypatch.setattr(postgresql, "_CONNECT_TIMEOUT_S", 0.5)
    with Proxy(url) as proxy:
        hub = Hub(proxy.url)
        hub.resolve(known("ann"))
        port = int(re.search(r"127\.0\.0\.1:(\d+)", proxy.url)[1])

    with pytest.raises(TransientError, match="try again") as error:
        hub.resolve(known("ben", "2"))
    assert error.value.retry_after_s == 5

    with Proxy(url, port) as proxy, closing(hub):
        until(lambda: answers(hub))
        assert hub.resolve(known("ben", "2")).outcome is Outcome.CREATED


def answers(hub):
    """Say whether the store of a hub can be reached."""
    try:
        return hub.find("email", "ann@shop.example") is not None
    except TransientError:
        return False


# -- what a statement reads


def test_new_store_does_not_read_all_of_itself_for_each_batch(url, store):
    """A back-fill of a fresh store costs the same for each message, long before autovacuum has looked at its tables."""
    read = "select sum(idx_tup_read) from pg_stat_user_indexes where schemaname = current_schema()"
    said = [message(f"m{number}", person=f"p{number}") for number in range(3000)]
    for _ in Hub(store).receive_many("shop", said[:2500], batch_size=100):
        pass
    store.close()  # a connection that ends has told its figures
    until(lambda: not sql(url, f"select 1 {OF_THE_STORE}"))
    before = sql(url, read)[0][0]

    with closing(Hub(url)) as hub:
        for _ in hub.receive_many("shop", said[2500:], batch_size=100):
            pass
    until(lambda: not sql(url, f"select 1 {OF_THE_STORE}"))

    assert sql(url, read)[0][0] - before < 500 * 30


def plans(url, statements):
    """Give the nodes of the generic plan of each statement, as the store's connections make it."""
    with closing(psycopg.connect(url, autocommit=True)) as connection:
        postgresql._configure(connection)  # noqa: SLF001  (the plans are those of its settings)
        for statement in statements:
            names = list(dict.fromkeys(re.findall(r"%\((\w+)\)s", statement)))
            numbered = re.sub(r"%\((\w+)\)s", lambda found: f"${names.index(found[1]) + 1}", statement)  # noqa: B023  (used at once)
            connection.execute(f"prepare asked as {numbered}".encode(), prepare=False)
            values = f"({', '.join(['null'] * len(names))})" if names else ""
            told = connection.execute(f"explain (format json) execute asked{values}".encode(), prepare=False)
            yield statement, list(nodes(told.fetchone()[0][0]["Plan"]))
            connection.execute("deallocate asked", prepare=False)


def nodes(plan):
    """Give a plan's node, and all under it."""
    yield plan
    for one in plan.get("Plans", ()):
        yield from nodes(one)


def tour(hub):
    """Use all that a hub can do."""
    ann, bob = (
        hub.resolve(hint(name, email=f"{name}@shop.example", phone=phone, visitor=name * 16, trust=Trust.CHANNEL))
        for name, phone in (("ann", "+4930123456"), ("bob", "+4930123457"))
    )
    hub.receive("chat", [message("m1")])
    (received,) = hub.receive("chat", [message("m2", references=("m1",))])
    list(hub.receive_many("chat", [message("m3")], name="import"))
    ruled = hub.merge(ann.contact, bob.contact, by="kim")
    hub.preview_merge(ann.contact, bob.contact)
    hub.unmerge(ruled.id, by="kim")
    hub.cannot_link(Identifier("email", "", "bob@shop.example"), Identifier("email", "", "new@shop.example"), by="kim")
    hub.withdraw("bob", by="kim")
    hub.restore("bob", by="kim")
    hub.resolve(hint("both", email="ann@shop.example", phone="+4930123457", trust=Trust.PROVEN))
    hub.contact(ann.contact)
    hub.contacts()
    hub.explain(ann.contact)
    hub.suggestions(ann.contact)
    hub.conversations()
    hub.conversations(contact=ann.contact)
    hub.messages(received.conversation)
    hub.note(received.conversation, "note", by="kim")
    record_consent(hub)
    set_list(hub)
    hub.on_list(ann.contact, "news")
    hub.may_write(Identifier("email", "", "ann@shop.example"), "news", list_name="news")
    hub.attribution("ann")
    hub.access("ann")
    hub.store.notices(hub.workspace, since=0, limit=10)


def test_no_statement_reads_a_whole_workspace(url, store, monkeypatch):
    """Every look-up and every write goes by a selective index, as soon as a store is more than tiny."""
    hub = Hub(store, clock=FakeClock())
    people = [
        hint(f"{one}", email=f"p{one}@shop.example", phone=f"+49301{one:06}", visitor=f"c{one}", trust=Trust.CHANNEL)
        for one in range(2000)
    ]
    said = [MessageReceived(external_id=one.id, hint=evolve(one, id=""), at=NOON, text="hi") for one in people]
    for _ in hub.receive_many("shop", said):
        pass
    for rows in (
        "trait select i.workspace_id, i.id, i.id, 'name', 'Ann', 2, 0, 'shop/1' from identifier i",
        "consent select i.workspace_id, i.id, i.id, 'x', 'granted', 0, 'shop/1', 2, '', '', '', '' from identifier i",
        "membership select c.workspace_id, c.id, c.id, 'news', 'subscribed', 0, '', '' from contact c",
        "ruling select i.workspace_id, i.id::text, 'merge', i.id, i.id + 1, 0, '', '' from identifier i",
        "withdrawal select i.workspace_id, i.id, i.id::text, true, 0, '', false from identifier i",
    ):
        sql(url, f"insert into {rows}")
    sql(url, "analyze")
    ran, execute = {}, psycopg.Connection.execute

    def noted(connection, statement, *values, **settings):
        ran[statement] = None
        return execute(connection, statement, *values, **settings)

    with monkeypatch.context() as patch:
        patch.setattr(psycopg.Connection, "execute", noted)
        tour(hub)
    asked = [one for one in ran if "%(workspace)s" in one]
    assert len(asked) > 40

    for statement, found in plans(url, asked):
        for node in found:
            table = node.get("Relation Name")
            assert node["Node Type"] != "Seq Scan", (table, statement)
            condition = node.get("Index Cond", "")
            is_whole = re.fullmatch(r"\(+(\w+\.)?workspace_id = [^()]+\)+", condition)
            assert not is_whole, (condition, statement, found)
            assert condition or "Index" not in node["Node Type"], (table, statement)


# -- texts


def test_nul_becomes_a_sign_that_can_be_stored(store):
    """PostgreSQL has no NUL: what has one is kept with U+FFFD in its place, and found by its own name again."""
    hub = Hub(store)

    first = hub.receive("chat", [message("m\0", "a\0b \\u0000 \\\0", thread="t\0"), message("m2", person="ben")])
    again = hub.receive("chat", [message("m\0"), message("m2", person="ben")])
    answer = hub.receive("chat", [message("m3", thread="t\0")])

    (shown,) = (one.text for one in hub.messages(first[0].conversation).items if one.external_id == "m\ufffd")
    assert shown == "a\ufffdb \\u0000 \\\ufffd"
    assert [one.decision.outcome for one in again] == [Outcome.DUPLICATE, Outcome.DUPLICATE]
    assert answer[0].conversation == first[0].conversation
    assert store.find("default", Identifier("email", "", "a\0b")) is None
    assert hub.note(first[0].conversation, "n\0", by="k\0") > 0


def test_half_a_character_is_told(store):
    """A lone surrogate is no text: it stops what it came with, and nothing else."""
    hub = Hub(store)
    events = [message("m1"), message("m2", "\ud800", person="ben"), message("m3", person="cleo")]

    with pytest.raises(PermanentError, match="surrogates not allowed"):
        hub.receive("chat", events)
    progress = list(hub.receive_many("chat", events))

    assert [one.parcel.events[0].external_id for each in progress for one in each.failed] == ["m2"]
    for ask in (
        lambda: store.find("default", Identifier("email", "", "\ud800")),
        lambda: store.hint("default", "\ud800"),
        lambda: store.checkpoint("\ud800", "x"),
        lambda: hub.receive("chat", [message("\ud800")]),
    ):
        with pytest.raises(PermanentError):
            ask()


def test_text_of_any_size_is_kept(store):
    """Five megabytes come back as they went in, and so does what needs four bytes a character."""
    text = "Grüße 🦊𝄞 " * 500_000
    hub = Hub(store)

    (received,) = hub.receive("chat", [message("m1", text)])

    assert hub.messages(received.conversation).items[0].text == text


def letters(count, seed):
    """Give so many characters of four bytes each that no compression makes shorter."""
    state = seed
    found = []
    for _ in range(count):
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        found.append(chr(0x20000 + (state >> 33) % 0xA6D0))
    return "".join(found)


def test_longest_keys_of_the_core_fit_an_index(store):
    """A hint's id of 512 characters, an account and a cookie at their limits are kept at four bytes a character."""
    hub = Hub(store)
    named = hint(letters(512, 1), account=letters(255, 2), visitor=letters(64, 3), trust=Trust.PROVEN)

    decision = hub.resolve(named)
    (received,) = hub.receive("chat", [message(letters(512, 4), thread=letters(512, 5))])

    assert hub.find("external_id", letters(255, 2)).id == decision.contact
    assert hub.resolve(named).outcome is Outcome.DUPLICATE
    assert hub.messages(received.conversation).items[0].external_id == letters(512, 4)


@pytest.mark.parametrize("field", ["name", "thread"])
def test_key_that_fits_no_index_stops_nothing_else(store, field):
    """A row of an index holds 2,700 bytes: a longer name is told as it is, and what came with it is kept."""
    hub = Hub(store)
    long = message(letters(900, 6)) if field == "name" else message("m2", thread=letters(900, 6))
    events = [message("m1"), long, message("m3", person="cleo")]

    with pytest.raises(PermanentError, match=r"index row size .* exceeds.*nothing of this batch was written"):
        hub.receive("chat", events)
    progress = list(hub.receive_many("chat", events))

    assert [one.parcel.events for each in progress for one in each.failed] == [(long,)]
    assert len(hub.contacts().items) == 2
