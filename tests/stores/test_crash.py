"""A writer is killed again and again. This file is the test and, run as a script, the writer that is killed."""

import os
import random
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import chain, count, pairwise

from convsdk.core.events import MessageReceived
from convsdk.core.fold import Policy, fold, weigh
from convsdk.core.model import Claim, Identifier, IdentityHint, Outcome, Ruling, RulingKind, Trust
from convsdk.hub import Hub
from convsdk.store.sqlite import SqliteStore

if __name__ != "__main__":  # the writer, which starts many times, needs no pytest
    import pytest

    pytestmark = pytest.mark.once  # a disk's and the system's doing

KILLS = min(50, int(25 * float(os.environ.get("CONVSDK_TEST_FAULT_SECONDS", "2"))))
ANN = Identifier("email", "", "ann@shop.example")
POLICY = Policy()

# What a step does, by its number modulo 8. The others receive one message.
BATCH, REDELIVERY, MERGE, UNMERGE = 2, 4, 5, 7

STORED = """
select m.external_id from message m
join conversation c on c.workspace_id = m.workspace_id and c.id = m.conversation_id
join hint h on h.workspace_id = m.workspace_id and h.key = m.channel || '/' || m.external_id
where h.conversation_id = c.id and length(h.decision) > 0
"""


def newcomer(step):
    """Give the address that first writes in a step."""
    return Identifier("email", "", f"new{step}@shop.example")


def moment(step, place=0):
    """Give the event time of a message: its own, and in order."""
    return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=step, seconds=place)


def message(step, place, *, email="", phone="", visitor=None):
    """Give one message, with whom it names attested by the channel."""
    at = moment(step, place)
    claims = [Claim(kind, value, Trust.CHANNEL) for kind, value in (("email", email), ("phone", phone)) if value]
    hint = IdentityHint(id=f"shop/{step}.{place}", at=at, identifiers=tuple(claims), visitor=visitor)
    return MessageReceived(external_id=f"{step}.{place}", hint=hint, at=at, text="Is the blue one in stock?")


@cache
def messages(step):
    """Give what is first received in a step, always the same."""
    phone, visitor = f"+1415555{step // 16:04}", f"cookie-{step // 16}"
    if step % 8 in {MERGE, UNMERGE}:
        return ()
    if step % 8 == BATCH:
        return (
            message(step, 0, email=newcomer(step).value),
            message(step, 1, email=ANN.value, visitor=visitor),
            message(step, 2, phone=phone),
            message(step, 3, email=f"ben{step}@shop.example", phone=phone),
            message(step, 4, visitor=visitor),
        )
    return (message(step, 0, email=(newcomer(step) if step % 2 else ANN).value),)


def perform(hub, step):
    """Do what a step does, in one transaction."""
    if step % 8 == MERGE:
        hub.merge(ANN, newcomer(step - 2), by="kim", merge_id=f"merge-{step}", at=moment(step))
    elif step % 8 == UNMERGE:
        hub.unmerge(f"merge-{step - 2}", by="kim")
    else:
        hub.receive("shop", (*messages(step), *(messages(step - 2) if step % 8 == REDELIVERY else ())))


@cache
def evidence(step):
    """Give what the messages of a step attest."""
    return [weigh(one.hint, POLICY) for one in messages(step)]


def expected(steps):
    """Give the messages and the contacts after so many steps, all evidence folded anew."""
    merges = [
        Ruling(id=f"merge-{step}", kind=RulingKind.MERGE, a=ANN, b=newcomer(step - 2), at=moment(step), by="kim")
        for step in range(MERGE, steps, 8)
        if step + UNMERGE - MERGE >= steps
    ]
    partition = fold([one for step in range(steps) for one in evidence(step)], merges, POLICY)
    names = [one.external_id for step in range(steps) for one in messages(step)]
    return sorted(names), {frozenset(map(str, nodes)) for nodes in partition.contacts()}


def found(hub, path):
    """Give the messages that stand in the file with their hint, decision and conversation, and the contacts."""
    contacts = hub.store.contacts(hub.workspace, after=0, limit=100_000)
    with closing(sqlite3.connect(path)) as connection:
        names = [name for (name,) in connection.execute(STORED)]
    return sorted(names), {frozenset(str(held.node) for held in one.holdings) for one in contacts}


def rows(path):
    """Give every row of the file, once SQLite finds it sound."""
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("pragma integrity_check").fetchall() == [("ok",)]
        tables = [name for (name,) in connection.execute("select name from sqlite_schema where type = 'table'")]
        return {table: connection.execute(f"select * from {table}").fetchall() for table in tables}  # noqa: S608


class Writer:
    """A process that performs steps until it is killed."""

    def __init__(self, path):
        command = [sys.executable, __file__, str(path)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def run(self, step, seconds):
        """Let it perform from `step` on, kill it after `seconds`, and give the step after the last acknowledged."""
        with self._process as process:
            process.stdout.readline()
            process.stdin.write(b"%d\n" % step)
            process.stdin.flush()
            time.sleep(seconds)
            process.kill()
            acknowledged = process.stdout.read().split()
        return int(acknowledged[-1]) + 1 if acknowledged else step


def survived(path, done):
    """Check the file after a kill, and give how many steps are in it: `done`, or the one in flight as well."""
    with closing(Hub(SqliteStore(str(path)))) as hub:
        state = found(hub, path)
        done += state != expected(done)
        assert state == expected(done)

        before = rows(path)
        again = hub.receive("shop", [one for step in range(max(0, done - 50), done) for one in messages(step)])
        assert {one.decision.outcome for one in again} <= {Outcome.DUPLICATE}
        assert rows(path) == before
    return done


def test_killed_writer_loses_nothing_that_it_acknowledged(tmp_path):
    """After each kill the file is sound and holds every step that was acknowledged, whole and once."""
    path, done = tmp_path / "shop.db", 0
    # A process takes longer to start than to be killed, so the next one starts while this one's file is checked.
    writers = pairwise(chain((Writer(path) for _ in range(KILLS)), [None]))

    for writer, _ in writers:
        acknowledged = writer.run(done, seconds=random.random() ** 2 / 5)  # noqa: S311  (pytest-randomly seeds it)

        done = survived(path, acknowledged)

    assert done > KILLS


def test_writer_killed_while_it_creates_the_file_can_start_again(tmp_path):
    """A kill during the first migration leaves a file that opens."""
    paths = [tmp_path / f"{number}.db" for number in range(8)]

    for path in paths:
        acknowledged = Writer(path).run(0, seconds=random.random() / 100)  # noqa: S311  (as above)

        survived(path, acknowledged)


def write(path):
    """Perform steps from the one asked for on, and acknowledge each once it is committed."""
    os.write(1, b"ready\n")
    first = int(sys.stdin.readline())
    hub = Hub(SqliteStore(str(path)))
    # A checkpoint every few steps, so that some kills fall into one.
    hub.store._connection.execute("pragma wal_autocheckpoint = 50")  # noqa: SLF001  (no setting of the product)
    for step in count(first):
        perform(hub, step)
        os.write(1, b"%d\n" % step)


if __name__ == "__main__":
    write(sys.argv[1])
