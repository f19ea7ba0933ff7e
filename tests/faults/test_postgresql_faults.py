"""A PostgreSQL server, or the processes that write to it, killed in the middle.

This file is the tests and, run as a script, one of the writers. `workload.py` beside it says what they do.
"""

import contextlib
import importlib.util
import itertools
import json
import logging
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from uuid import uuid4

import psutil
import pytest

sys.path.append(str(Path(__file__).parent.parent))  # as a script, it finds what tests share
from servers import COMMITTING, Proxy, fresh_postgresql, own_server, sql

from convsdk.core.model import Claim, Outcome, Trust
from convsdk.errors import TransientError
from convsdk.hub import Hub
from convsdk.ingest import Ingest
from convsdk.store import postgresql

pytestmark = pytest.mark.once  # a server's doing

_spec = importlib.util.spec_from_file_location("workload", Path(__file__).with_name("workload.py"))
workload = sys.modules.setdefault("workload", importlib.util.module_from_spec(_spec))
_spec.loader.exec_module(workload)

SECONDS = float(os.environ.get("CONVSDK_TEST_FAULT_SECONDS", "2"))
LEAST_KILLS = 2
LONG_S = 30  # no test waits for that long unless something is wrong


class Server:
    """A server of the test's own, which it may kill."""

    def __init__(self, folder):
        self._server = own_server(folder)
        self.url = self._server.get_uri()

    def kill(self):
        """Kill all of its processes at once, as a power cut does."""
        postmaster = psutil.Process(self._server.get_postmaster_info().pid)
        processes = [postmaster, *postmaster.children()]
        for one in processes:
            with contextlib.suppress(psutil.NoSuchProcess):  # it has ended by itself
                one.kill()
        psutil.wait_procs(processes, timeout=LONG_S)

    def start(self):
        """Start it again; it recovers from its log."""
        self._server.ensure_postgres_running()


@pytest.fixture(scope="module")
def server():
    """Give a server that a test may kill, running."""
    return Server(tempfile.mkdtemp())  # tmp_path is closed to the user that the server runs as


@pytest.fixture(autouse=True)
def _impatient(monkeypatch, caplog):
    """Let a store wait for a server that is away no longer than a test may."""
    caplog.set_level(logging.CRITICAL, "psycopg.pool")  # it tells of each attempt
    monkeypatch.setattr(postgresql, "_PATIENCE_S", 0.3)
    monkeypatch.setattr(postgresql, "_CONNECT_TIMEOUT_S", 1)


def until(is_so):
    """Wait until something has happened."""
    end = time.monotonic() + LONG_S
    while not is_so():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.01)


def stored(url):
    """Give the external ids of all messages, sorted."""
    return sorted(name for (name,) in sql(url, "select external_id from message"))


class Insistent:
    """A thread that sends messages, each again while it is told to try again, and notes what was acknowledged."""

    def __init__(self, name, receive):
        self.acknowledged, self.refused, self.errors = {}, 0, []
        self._name, self._receive, self._random = name, receive, random.Random(name)  # noqa: S311  (sample data)
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def end(self):
        """Let it send the last message, and wait for that."""
        self._is_over.set()
        self._thread.join(LONG_S)
        assert not self._thread.is_alive()

    def _run(self):
        number = 0
        while not self._is_over.is_set() and not self.errors:
            number += 1
            self._send(f"{self._name}.{number}")

    def _send(self, name):
        named = self._random.sample(workload.WORLD, self._random.choice((1, 1, 2)))
        claims = tuple(Claim(one.kind, one.value, Trust.CHANNEL) for one in named)
        said = workload.message(name, workload.DAY_ZERO, claims)
        while True:
            try:
                (received,) = self._receive(workload.CHANNEL, [said])
            except TransientError:
                self.refused += 1
                time.sleep(0.02)
            except BaseException as error:  # noqa: BLE001  (every other error is what is looked for)
                self.errors.append(error)
                return
            else:
                self.acknowledged[name] = received.decision.hint
                return


def test_server_that_is_killed_keeps_what_it_acknowledged(server):
    """Through kills and restarts nobody hears but "try again"; what is sent again until it is taken is there once."""
    url = fresh_postgresql(server.url)
    end = time.monotonic() + SECONDS
    with contextlib.ExitStack() as stack:
        hub, queued = (stack.enter_context(closing(Hub(url, policy=workload.POLICY))) for _ in range(2))
        ingest = stack.enter_context(Ingest(queued))
        writers = [Insistent(f"hub-{number}", hub.receive) for number in range(4)]
        writers += [Insistent(f"ingest-{number}", ingest.receive) for number in range(4)]

        def all_go_on():
            before = {one: len(one.acknowledged) for one in writers}
            until(lambda: all(len(one.acknowledged) > before[one] + 3 or one.errors for one in writers))

        kills = 0
        while kills < LEAST_KILLS or time.monotonic() < end:
            all_go_on()
            refused = sum(one.refused for one in writers)
            server.kill()
            if kills == 0:  # away for long enough that callers hear of it
                until(lambda: sum(one.refused for one in writers) > refused)  # noqa: B023  (used at once)
            server.start()
            kills += 1
        all_go_on()
        for one in writers:
            one.end()

    assert [error for one in writers for error in one.errors] == []
    told = {name: key for one in writers for name, key in one.acknowledged.items()}
    assert stored(url) == sorted(told)
    workload.verify(url, workload.Acknowledged(messages=told))


def test_number_of_a_lost_transaction_that_another_got_after_a_crash_is_no_commit(server):
    """A server that crashes gives numbers again: the next transaction of that number is not taken for ours."""
    url = fresh_postgresql(server.url)
    sql(server.url, "alter system set wal_writer_delay = '10s'")  # so that nothing but a commit brings it to disk
    server.kill()
    server.start()
    claims = (Claim("email", "ann@shop.example", Trust.CHANNEL),)
    said = workload.message("lost", workload.DAY_ZERO, claims)
    with Proxy(url) as proxy, closing(Hub(proxy.url)) as hub, closing(Hub(url)) as other:
        number_of_work = []
        transact = hub.store.transact

        def watched(workspace, work):
            def noting(transaction):
                number = transaction.number
                transaction.number = lambda: number_of_work.append(number()) or number_of_work[-1]
                return work(transaction)

            return transact(workspace, noting)

        hub.store.transact = watched
        hub.store.checkpoint(hub.workspace, "")  # it knows its workspace

        def crash():
            server.kill()
            server.start()
            for turn in range(40):  # others take the next numbers
                until(lambda: is_taken(other, f"other-{turn}"))  # noqa: B023  (used at once)

        proxy.at_cut = crash
        proxy.cut_at = COMMITTING
        until(lambda: is_taken(hub, "lost", said))

    sql(server.url, "alter system reset wal_writer_delay")
    assert len(number_of_work) > 1
    status = sql(url, "select pg_xact_status(%s::xid8)", number_of_work[0])
    assert status == [("committed",)], "the number was not given again: this test shows nothing"
    assert "lost" in stored(url)


def is_taken(hub, name, said=None):
    """Send a message; say whether it was taken, and not to be tried again."""
    try:
        hub.receive(workload.CHANNEL, [said or workload.message(name, workload.DAY_ZERO, ())])
    except TransientError:
        return False
    return True


# -- writers that are killed


class Told(dict):
    """Notes what was acknowledged, and prints it at once."""

    def __setitem__(self, name, key):
        super().__setitem__(name, key)
        os.write(1, f"{json.dumps([name, key])}\n".encode())  # in one piece, whatever other threads write


def write_for_ever(url, name, seed):
    """Do things at random in several threads, and print each message that was acknowledged."""
    with closing(Hub(url, policy=workload.POLICY)) as hub:

        def write(writer):
            try:
                while True:
                    writer.step()
            finally:
                traceback.print_exc()
                os._exit(1)

        for number in range(workload.THREADS):
            writer = workload.Writer(hub, f"{name}-{number}", f"{seed}/{number}")
            writer.messages = Told()
            threading.Thread(target=write, args=[writer], daemon=True).start()
        threading.Event().wait()


def killed_after(url, name, count, seed):
    """Run a writer process, kill it after so many acknowledged messages, and give all that it has acknowledged."""
    command = [sys.executable, __file__, url, name, str(seed)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        lines = [process.stdout.readline() for _ in range(count)]
        process.send_signal(signal.SIGKILL)
        lines += process.stdout.read().splitlines(keepends=True)
    assert process.returncode == -signal.SIGKILL, "it ended by itself"
    return dict(json.loads(one) for one in lines if one.endswith(b"\n"))


def test_writers_that_are_killed_leave_nothing_half_done():
    """After kills of whole processes, what they acknowledged is there, all of it agrees, and no lock is left."""
    url = fresh_postgresql(synchronous_commit="off", application_name=uuid4().hex)
    seed, told, end = random.randrange(10**9), {}, time.monotonic() + SECONDS  # noqa: S311  (pytest-randomly seeds it)
    with closing(Hub(url)) as hub:
        hub.contacts()
    for number in itertools.count():
        if number >= LEAST_KILLS and time.monotonic() > end:
            break
        with ThreadPoolExecutor(3) as pool:  # each is killed while others go on
            for one in [
                pool.submit(killed_after, url, f"{number}-{count}", count, f"{seed}/{number}/{count}")
                for count in (5, 15, 25)
            ]:
                told |= one.result()

    of_the_dead = """select 1 from pg_stat_activity where pid <> pg_backend_pid()
      and application_name = current_setting('application_name')"""
    until(lambda: not sql(url, of_the_dead))
    workload.verify(url)
    assert told.keys() <= set(stored(url))
    with closing(Hub(url, policy=workload.POLICY)) as hub:
        for name, key in told.items():
            assert hub.store.hint(hub.workspace, key) is not None, name
        claims = tuple(Claim(one.kind, one.value, Trust.ASSERTED) for one in workload.WORLD)
        (received,) = hub.receive(workload.CHANNEL, [workload.message("last", workload.DAY_ZERO, claims)])
        assert received.decision.outcome is not Outcome.DUPLICATE


if __name__ == "__main__":
    write_for_ever(*sys.argv[1:])
