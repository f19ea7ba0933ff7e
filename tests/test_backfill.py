import resource
import sqlite3
import subprocess
import sys
from contextlib import closing
from datetime import timedelta
from itertools import count, islice
from pathlib import Path

import pytest

from convsdk.backfill import Parcel
from convsdk.core.events import MessageReceived
from convsdk.core.model import Outcome, Trust
from convsdk.errors import PermanentError, TransientError
from convsdk.hub import Hub
from convsdk.store import sqlite
from convsdk.testing.builders import NOON, hint


@pytest.fixture
def path(tmp_path):
    """Give where a store can be made."""
    return str(tmp_path / "shop.db")


@pytest.fixture
def hub(path):
    """Give a hub on a SQLite file."""
    with closing(Hub(f"sqlite:///{path}")) as hub:
        yield hub


def message(number, text="Hello"):
    """Build the message of that number, of one of a hundred people."""
    at = NOON + timedelta(minutes=number)
    said = hint("", at=at, email=f"p{number % 100}@shop.example", trust=Trust.CHANNEL)
    return MessageReceived(external_id=f"m{number}", hint=said, at=at, text=text)


def messages(first, last):
    """Build the messages of these numbers, the last included."""
    return [message(number) for number in range(first, last + 1)]


def read(path, statement):
    """Give the values in the first column of a statement, read past the store."""
    with closing(sqlite3.connect(path)) as connection:
        return [row[0] for row in connection.execute(statement)]


def run(path, statement):
    """Run a statement past the store."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(statement)
        connection.commit()


def poison(path):
    """Let the file refuse every message with the word poison."""
    run(path, "create trigger t before insert on message when new.text = 'poison' begin select raise(abort, 'no'); end")


def numbers(path):
    """Give the external ids of all messages in the order in which they were kept."""
    return read(path, "select external_id from message order by id")


def test_events_are_kept_batch_by_batch_as_they_are_asked_for(hub, path):
    """An endless source is read one batch at a time, and told after each batch that is on disk."""
    told = hub.receive_many("mail", map(message, count()), batch_size=30)
    before = numbers(path)

    first, second = islice(told, 2)

    assert before == []
    assert (first.done, second.done) == (30, 60)
    assert second.outcomes == {Outcome.CREATED: 60}
    assert [one.parcel.events[0].external_id for one in second.settled] == [f"m{number}" for number in range(30, 60)]
    assert [one.received[0].decision.outcome for one in second.settled] == [Outcome.CREATED] * 30
    assert len(numbers(path)) == 60


def test_named_back_fill_goes_on_where_it_ended(hub, path):
    """A second call with the name decides about nothing again, and a third finds all done."""
    next(hub.receive_many("mail", messages(1, 100), name="2019", batch_size=40))

    rest = list(hub.receive_many("mail", messages(1, 100), name="2019", batch_size=40))
    third = list(hub.receive_many("mail", messages(1, 100), name="2019"))

    assert [(one.done, one.skipped, one.position) for one in rest] == [(40, 40, "80"), (60, 40, "100")]
    assert Outcome.DUPLICATE not in rest[-1].outcomes
    assert third == []
    assert numbers(path) == [f"m{number}" for number in range(1, 101)]


def test_nameless_back_fill_begins_anew(hub, path):
    """Without a name all events are decided about again, which changes nothing."""
    list(hub.receive_many("mail", messages(1, 10)))

    (again,) = hub.receive_many("mail", messages(1, 10))

    assert again.outcomes == {Outcome.DUPLICATE: 10}
    assert len(numbers(path)) == 10
    assert read(path, "select count(*) from checkpoint") == [0]


def test_checkpoint_stands_in_the_transaction_of_its_batch(hub, path):
    """Where a batch is not kept, its checkpoint is not either; the next call goes on from the one before."""
    told = hub.receive_many("mail", messages(1, 20), name="2019", batch_size=10)
    next(told)
    run(path, "create trigger t before insert on checkpoint begin select raise(abort, 'no checkpoint'); end")

    with pytest.raises(PermanentError, match="no checkpoint"):
        next(told)

    assert len(numbers(path)) == 10
    assert hub.store.checkpoint(hub.workspace, "2019") == "10"


def test_poisoned_events_stop_no_other(hub, path):
    """What cannot be kept is given with its error, all others are kept in their order, and it is not tried again."""
    next(hub.receive_many("mail", [], batch_size=1), None)
    hub.receive("mail", [message(0)])
    poison(path)
    source = [message(number, "poison" if number in {7, 8, 50} else "Hello") for number in range(1, 61)]

    told = list(hub.receive_many("mail", source, name="2019", batch_size=20))
    again = list(hub.receive_many("mail", source, name="2019", batch_size=20))

    failed = [one for progress in told for one in progress.failed]
    assert [one.parcel.events[0].external_id for one in failed] == ["m7", "m8", "m50"]
    assert all(isinstance(one.error, PermanentError) for one in failed)
    assert told[-1].done == 60
    assert sum(told[-1].outcomes.values()) == 57
    assert numbers(path) == [f"m{number}" for number in range(61) if number not in {7, 8, 50}]
    assert again == []


def test_last_event_may_be_poisoned(hub, path):
    """The checkpoint passes a poisoned event at the very end, so that it is told once."""
    hub.receive("mail", [message(0)])
    poison(path)

    (told,) = hub.receive_many("mail", [message(1, "poison")], name="2019")

    assert len(told.failed) == 1
    assert hub.store.checkpoint(hub.workspace, "2019") == "1"


def test_value_that_no_hint_can_have_is_a_poisoned_event(hub, path):
    """An event that cannot even be prepared is reported like one that cannot be stored."""
    source = [message(1), MessageReceived(external_id="\ud800" * 300, hint=message(2).hint, at=NOON), message(3)]

    (told,) = hub.receive_many("mail", source)

    assert [one.parcel.events for one in told.failed] == [(source[1],)]
    assert numbers(path) == ["m1", "m3"]


def test_fault_of_the_store_is_not_blamed_on_events(hub):
    """Where not even an empty transaction is possible, the error is raised, and no event is given up."""
    told = hub.receive_many("mail", messages(1, 20), name="2019", batch_size=10)
    next(told)
    hub.close()

    with pytest.raises(PermanentError, match="closed"):
        next(told)


def test_busy_store_is_raised_and_the_next_call_goes_on(hub, path, monkeypatch):
    """A store that is busy ends the call at once; how long to wait is the caller's decision."""
    monkeypatch.setattr(sqlite, "_BUSY_TIMEOUT_S", 0.2)
    told = hub.receive_many("mail", messages(1, 20), name="2019", batch_size=10)
    next(told)

    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("begin immediate")
        with pytest.raises(TransientError):
            next(told)
    rest = list(hub.receive_many("mail", messages(1, 20), name="2019", batch_size=10))

    assert [(one.done, one.skipped) for one in rest] == [(10, 10)]
    assert numbers(path) == [f"m{number}" for number in range(1, 21)]


def test_parcel_is_kept_whole_or_not_at_all(hub, path):
    """Events of one parcel share a transaction, their fate, and a position that is the caller's."""
    hub.receive("mail", [message(0)])
    poison(path)
    source = [
        Parcel(events=(message(1), message(2)), position="page 2", origin="a.json"),
        Parcel(events=(message(3), message(4, "poison")), position="page 3", origin="b.json"),
        Parcel(events=(), position="page 4"),
    ]

    (told,) = hub.receive_many("mail", source, name="export")

    assert [one.parcel.origin for one in told.failed] == ["b.json"]
    assert (told.done, told.position) == (4, "page 4")
    assert numbers(path) == ["m0", "m1", "m2"]
    assert hub.store.checkpoint(hub.workspace, "export") == "page 4"


def test_name_of_another_source_is_refused(hub):
    """A position that is no number cannot say how many events to pass over."""
    list(hub.receive_many("mail", [Parcel(events=(), position="page 4")], name="export"))

    with pytest.raises(ValueError, match="'page 4' is no number of events"):
        next(hub.receive_many("mail", [message(1)], name="export"))


def test_batch_of_no_events_is_refused(hub):
    """The mistake is told by the call, and not once the result is read."""
    with pytest.raises(ValueError, match="give 1 or more"):
        hub.receive_many("mail", [], batch_size=0)


def test_long_texts_make_a_batch_smaller(hub):
    """A batch ends at a number of characters, too, so that long mails do not fill the memory."""
    source = (message(number, "x" * 6_000_000) for number in range(4))

    assert [one.done for one in hub.receive_many("mail", source)] == [3, 4]


def peak(path, events):
    """Give the peak of memory in MiB of a process that back-fills so many events of 4 kB."""
    command = [sys.executable, __file__, str(path), str(events)]
    return float(subprocess.run(command, capture_output=True, check=True).stdout)


@pytest.mark.once
def test_memory_does_not_grow_with_the_number_of_events(tmp_path):
    """28 MB more of events take no more than a few MiB of memory more."""
    small, large = (peak(tmp_path / f"{events}.db", events) for events in (2000, 9000))

    assert large - small < 12


def back_fill(path, events):
    """Back-fill a file, and print the peak of memory in MiB."""
    hub = Hub(f"sqlite:///{path}")
    # The cache of pages grows with the file up to its bound, which is another's question.
    hub.store._connection.execute("pragma cache_size = -2000")  # noqa: SLF001  (no setting of the product)
    source = (message(number, f"{number:04}" * 1000) for number in range(events))
    for _ in hub.receive_many("mail", source, name="2019"):
        pass
    hub.close()
    print(peak_of_this_process())  # noqa: T201  (what the test reads)


def peak_of_this_process():
    """Give the peak of memory in MiB; Linux counts what the parent had before it started this, but not here."""
    status = Path("/proc/self/status")
    if status.exists():
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if "VmHWM" in line) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2


if __name__ == "__main__":
    back_fill(sys.argv[1], int(sys.argv[2]))
