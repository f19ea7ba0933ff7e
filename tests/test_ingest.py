import asyncio
import itertools
import random
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest
from attrs import evolve, field, frozen
from hypothesis import given, settings
from hypothesis import strategies as st

from convsdk.core.events import DeliveryStatus, MessageReceived, StatusChanged
from convsdk.core.model import Outcome, Trust
from convsdk.errors import ConfigError, PermanentError, TransientError
from convsdk.hub import Hub
from convsdk.ingest import Ingest
from convsdk.store.memory import MemoryStore
from convsdk.testing.builders import NOON, FakeClock, hint

PATIENCE_S = 20
COOKIE = "c" * 32


@frozen
class Hold:
    """A transaction that has begun waits until it may `go` on."""

    begun: threading.Event = field(factory=threading.Event)
    go: threading.Event = field(factory=threading.Event)


class WatchedHub(Hub):
    """Writes down what each transaction took and who ran it, and holds back or fails those that a test names."""

    def __init__(self, store="memory:", **settings):
        super().__init__(store, **settings)
        self.tried, self.threads, self.spans = [], [], []
        self.errors, self.holds = {}, {}
        self.ticks = itertools.count()

    def hold(self, name):
        return self.holds.setdefault(name, Hold())

    def commit(self, arrivals, **given):
        names = [one.event.external_id for one in arrivals]
        began = next(self.ticks)
        self.tried.append(names)
        self.threads.append(threading.current_thread())
        for hold in [self.holds[name] for name in names if name in self.holds]:
            hold.begun.set()
            assert hold.go.wait(PATIENCE_S), f"nobody let {names} go"
        if failing := [name for name in names if name in self.errors]:
            raise self.errors[failing[0]]
        received = super().commit(arrivals, **given)
        self.spans.append((began, next(self.ticks), names))
        return received

    @property
    def kept(self):
        return [name for _, _, names in self.spans for name in names]


def wrote(name, *, text="hello", thread="", references=(), email=None, **fields):
    """Give a message with the external id `name`, from somebody of that name unless it says otherwise."""
    return MessageReceived(
        external_id=name,
        hint=hint(email=f"{name}@shop.example" if email is None else email, trust=Trust.CHANNEL, **fields),
        at=NOON,
        text=text,
        thread=thread,
        references=references,
    )


FIRST = wrote("first")


def _until(condition):
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.001)


async def _until_in_loop(condition):
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, "it never came to that"
        await asyncio.sleep(0.001)


def _behind(hub, ingest, events, *, first=FIRST):
    """Queue `events` in order, one task each, while a transaction is under way; then give their results, in order."""

    async def run():
        hold = hub.hold(first.external_id)
        head = asyncio.create_task(ingest.receive_async("chat", [first]))
        await _until_in_loop(hold.begun.is_set)
        tasks = [asyncio.create_task(ingest.receive_async("chat", [one])) for one in events]
        await _until_in_loop(lambda: ingest.waiting == len(events))
        hold.go.set()
        await head
        return await asyncio.gather(*tasks, return_exceptions=True)

    return asyncio.run(run())


def _texts(store):
    filings = store.filings("default", identifiers=None, before=None, limit=10_000)
    found = [store.messages("default", filing.id, before=None, limit=10_000) for filing in filings]
    return sorted(one.text for messages in found for one in messages)


# -- one caller


def test_ingest_gives_what_the_hub_gives():
    """A caller gets what `Hub.receive` would have given, from a thread and from a loop, duplicates included."""
    events = [wrote("a"), wrote("b"), wrote("a")]
    expected = Hub("memory:").receive("chat", events)

    with Ingest(Hub("memory:")) as ingest:
        assert ingest.receive("chat", events) == expected
    with Ingest(Hub("memory:")) as ingest:
        assert asyncio.run(ingest.receive_async("chat", events)) == expected


def test_lone_thread_commits_by_itself():
    """A thread that finds nothing ahead of it hands nothing over, however often it comes."""
    hub = WatchedHub()

    with Ingest(hub) as ingest:
        for name in "abc":
            ingest.receive("chat", [wrote(name)])

    assert hub.threads == [threading.current_thread()] * 3


def test_task_never_commits_in_its_loop():
    """What a coroutine brings is committed in a writer thread, so that the loop goes on."""
    hub = WatchedHub()

    with Ingest(hub) as ingest:
        asyncio.run(ingest.receive_async("chat", [wrote("a")]))

    assert threading.current_thread() not in hub.threads


def test_loop_goes_on_while_its_task_waits():
    """Other tasks of the loop run while a transaction is under way."""
    hub = WatchedHub()

    async def run(ingest):
        task = asyncio.create_task(ingest.receive_async("chat", [wrote("a")]))
        await _until_in_loop(hub.hold("a").begun.is_set)
        hub.hold("a").go.set()
        return await task

    hub.hold("a")
    with Ingest(hub) as ingest:
        (received,) = asyncio.run(run(ingest))

    assert received.decision.outcome is Outcome.CREATED


def test_no_events_need_no_transaction():
    """A request without events gets an empty answer at once."""
    hub = WatchedHub()

    with Ingest(hub) as ingest:
        assert ingest.receive("chat", []) == ()
        assert asyncio.run(ingest.receive_async("chat", [])) == ()

    assert hub.tried == []


def test_bad_event_fails_in_its_caller():
    """What is wrong with an event before the store sees it never reaches the queue."""

    def amend(hint):
        raise ValueError("no such hint")

    hub = WatchedHub(amend_hint=amend)

    with Ingest(hub) as ingest:
        with pytest.raises(ValueError, match="no such hint"):
            ingest.receive("chat", [wrote("a")])
        with pytest.raises(ValueError, match="no such hint"):
            asyncio.run(ingest.receive_async("chat", [wrote("a")]))

    assert hub.tried == []


# -- many callers


def test_threads_at_once_share_a_transaction(tmp_path):
    """What 63 threads bring while one commits is in one transaction; each gets its own, and all is kept once."""
    hub = WatchedHub(f"sqlite:///{tmp_path}/shop.db")
    hold = hub.hold("0")

    with closing(hub), ThreadPoolExecutor(64) as pool, Ingest(hub) as ingest:
        first = pool.submit(ingest.receive, "chat", [wrote("0", text="0")])
        assert hold.begun.wait(PATIENCE_S)
        others = [
            pool.submit(ingest.receive, "chat", [wrote(f"{one}", text=f"{one}"), wrote(f"{one}+", text=f"{one}+")])
            for one in range(1, 64)
        ]
        _until(lambda: ingest.waiting == 126)
        hold.go.set()
        results = [first.result(), *(one.result() for one in others)]

        assert [len(one) for one in hub.tried] == [1, 126]
        assert [one.event.external_id for one in results[5]] == ["5", "5+"]
        for one in (each for result in results for each in result):
            held = hub.contact(one.decision.contact).identifiers[0].node.identifier.value
            assert held == f"{one.event.external_id}@shop.example"
        assert _texts(hub.store) == sorted(["0", *(f"{one}{end}" for one in range(1, 64) for end in ("", "+"))])


def test_tasks_at_once_share_a_transaction(tmp_path):
    """What 200 tasks bring while one commits is in one transaction, each gets its own, and all is kept once."""
    hub = WatchedHub(f"sqlite:///{tmp_path}/shop.db")

    with closing(hub), Ingest(hub) as ingest:
        results = _behind(hub, ingest, [wrote(f"{one}", text=f"{one}") for one in range(200)])

        assert [len(one) for one in hub.tried] == [1, 200]
        assert [one.event.external_id for (one,) in results] == [str(one) for one in range(200)]
        assert _texts(hub.store) == sorted(["hello", *map(str, range(200))])


def test_batch_is_limited():
    """A transaction takes up to `batch` events, and the next one goes on."""
    hub = WatchedHub()

    with Ingest(hub, batch=4) as ingest:
        _behind(hub, ingest, [wrote(f"{one}") for one in range(10)])

    assert [len(one) for one in hub.tried] == [1, 4, 4, 2]


def test_what_is_larger_than_a_batch_is_taken_alone():
    """A caller's events are never spread over two transactions, and such a crowd takes nobody along."""
    hub = WatchedHub()
    hold = hub.hold("first")

    with ThreadPoolExecutor(4) as pool, Ingest(hub, batch=2) as ingest:
        pool.submit(ingest.receive, "chat", [FIRST])
        assert hold.begun.wait(PATIENCE_S)
        for place, names in enumerate((["a"], ["b", "c", "d"], ["e"]), 1):
            pool.submit(ingest.receive, "chat", [wrote(name) for name in names])
            _until(lambda taken=(0, 1, 4, 5)[place]: ingest.waiting == taken)
        hold.go.set()

    assert hub.tried == [["first"], ["a"], ["b", "c", "d"], ["e"]]


@pytest.mark.parametrize(("events", "sizes"), [(200, [50, 50, 50, 50]), (70, [32, 32, 6])])
def test_writers_share_what_waits(events, sizes):
    """A writer leaves to the others that are free what they can take, unless that is little."""
    hub = WatchedHub()
    starts = [str(sum(sizes[:place])) for place in range(len(sizes))]
    holds = [hub.hold(name) for name in starts]

    async def run(ingest):
        with ingest._changed:  # noqa: SLF001  (no writer looks before all of it waits)
            tasks = [asyncio.create_task(ingest.receive_async("chat", [wrote(str(one))])) for one in range(events)]
            await asyncio.sleep(0)
        await _until_in_loop(lambda: all(hold.begun.is_set() for hold in holds))
        for hold in holds:
            hold.go.set()
        await asyncio.gather(*tasks)

    with Ingest(hub, writers=4) as ingest:
        asyncio.run(run(ingest))

    assert sorted(map(len, hub.tried), reverse=True) == sizes


def test_one_writer_takes_all_that_waits():
    """Where no other writer is free, nothing is left for one."""
    hub = WatchedHub()

    with Ingest(hub, writers=1) as ingest:
        _behind(hub, ingest, [wrote(str(one)) for one in range(100)])

    assert [len(names) for names in hub.tried] == [1, 100]


def test_loop_is_woken_once_for_each_batch():
    """The tasks of one batch and one loop are woken with one call; each other loop gets one of its own."""
    hub = WatchedHub()
    hold = hub.hold("first")
    calls = []

    def watch(name):
        loop = asyncio.get_running_loop()
        wake = loop.call_soon_threadsafe
        loop.call_soon_threadsafe = lambda *given: (calls.append(name), wake(*given))[1]

    async def run(ingest, name):
        watch(name)
        await asyncio.gather(*(ingest.receive_async("chat", [wrote(f"{name}{one}")]) for one in range(50)))

    with ThreadPoolExecutor(3) as pool, Ingest(hub) as ingest:
        pool.submit(ingest.receive, "chat", [FIRST])
        assert hold.begun.wait(PATIENCE_S)
        loops = [pool.submit(asyncio.run, run(ingest, name)) for name in "ab"]
        _until(lambda: ingest.waiting == 100)
        hold.go.set()
        for one in loops:
            one.result(PATIENCE_S)

    assert [len(one) for one in hub.tried] == [1, 100]
    assert sorted(calls) == ["a", "b"]


def test_store_says_how_many_writers_it_is_worth():
    """As many transactions run at once as the store says, where nobody says otherwise."""

    class WideStore(MemoryStore):
        writers = 3

    hub = WatchedHub(WideStore())
    holds = [hub.hold(name) for name in "abc"]

    async def run(ingest):
        tasks = []
        for name, hold in zip("abc", holds, strict=True):
            tasks.append(asyncio.create_task(ingest.receive_async("chat", [wrote(name)])))
            await _until_in_loop(hold.begun.is_set)
        tasks.append(asyncio.create_task(ingest.receive_async("chat", [wrote("d")])))
        await _until_in_loop(lambda: ingest.waiting == 1)
        begun = list(hub.tried)
        for hold in holds:
            hold.go.set()
        await asyncio.gather(*tasks)
        return begun

    with Ingest(hub) as ingest:
        assert asyncio.run(run(ingest)) == [["a"], ["b"], ["c"]]


@pytest.mark.parametrize("size", ["writers", "batch", "capacity"])
def test_size_below_one_is_refused(size):
    """An ingest that could take nothing in is a mistake in the configuration."""
    with pytest.raises(ConfigError, match=f"{size} = 0"):
        Ingest(Hub("memory:"), **{size: 0})


# -- what goes wrong


@pytest.mark.parametrize("place", range(5))
def test_poison_fails_alone(tmp_path, place):
    """An event that the store cannot write fails for its caller; what shared its transaction is kept, in order."""
    hub = WatchedHub(f"sqlite:///{tmp_path}/shop.db")
    events = [wrote(f"{one}", text=f"{one}") for one in range(5)]
    events[place] = wrote("poison", text="\ud800")  # half a character, which UTF-8 cannot hold

    with closing(hub), Ingest(hub) as ingest:
        results = _behind(hub, ingest, events)

        assert isinstance(results.pop(place), PermanentError)
        assert [one.event.external_id for (one,) in results] == hub.kept[1:]
        assert _texts(hub.store) == sorted([str(one) for one in range(5) if one != place] + ["hello"])


def test_each_poison_gives_its_caller_its_own_error():
    """Two events that fail in one batch fail each in its own way."""
    hub = WatchedHub()
    hub.errors = {"b": ValueError("b"), "d": KeyError("d")}

    with Ingest(hub) as ingest:
        results = _behind(hub, ingest, [wrote(name) for name in "abcd"])

    assert results[1] is hub.errors["b"]
    assert results[3] is hub.errors["d"]
    assert hub.kept == ["first", "a", "c"]


class OddError(BaseException):
    """What no program should raise."""


@pytest.mark.parametrize("error", [StopIteration(), OddError(), asyncio.CancelledError(), MemoryError()])
def test_writer_survives_any_error(error):
    """Whatever the store raises, the other callers get their results, and the writer goes on."""
    hub = WatchedHub()
    hub.errors = {"bad": error}

    with Ingest(hub) as ingest:
        bad, good = _behind(hub, ingest, [wrote("bad"), wrote("good")])
        (later,) = asyncio.run(ingest.receive_async("chat", [wrote("later")]))

    assert isinstance(bad, BaseException)
    assert good[0].decision.outcome is later.decision.outcome is Outcome.CREATED


def test_busy_store_is_told_to_every_caller_at_once():
    """A store out of reach is tried once; every caller gets an error of its own, with the store's as its cause."""
    hub = WatchedHub()
    busy = hub.errors["b"] = TransientError("the store is busy", retry_after_s=7)

    with Ingest(hub) as ingest:
        results = _behind(hub, ingest, [wrote(name) for name in "abc"])

    assert hub.tried == [["first"], ["a", "b", "c"]]
    assert [str(one) for one in results] == ["the store is busy"] * 3
    assert [(one.retry_after_s, one.__cause__) for one in results] == [(7, busy)] * 3
    assert len({id(one) for one in [busy, *results]}) == 4


def test_store_that_goes_away_while_poison_is_sought_is_left_alone():
    """What is not decided yet gets the store's error; what was kept before stays."""
    hub = WatchedHub()
    hub.errors = {"poison": ValueError("poison"), "c": TransientError("the store is busy")}

    with Ingest(hub) as ingest:
        results = _behind(hub, ingest, [wrote(name) for name in ("a", "poison", "c", "d", "e", "f", "g", "h")])

    assert hub.kept == ["first", "a"]
    assert results[1] is hub.errors["poison"]
    assert all(isinstance(one, TransientError) for one in results[2:])
    assert hub.tried[-1] == ["c", "d"]


def test_interrupt_of_a_committing_thread_leaves_nothing_stuck():
    """Ctrl-C in a caller that commits by itself is that caller's; what waits behind it is kept."""
    hub = WatchedHub()
    hub.errors["a"] = KeyboardInterrupt()
    hold = hub.hold("a")

    with ThreadPoolExecutor(2) as pool, Ingest(hub) as ingest:
        stopped = pool.submit(ingest.receive, "chat", [wrote("a")])
        assert hold.begun.wait(PATIENCE_S)
        behind_it = pool.submit(ingest.receive, "chat", [wrote("b")])
        _until(lambda: ingest.waiting == 1)
        hold.go.set()

        assert isinstance(stopped.exception(PATIENCE_S), KeyboardInterrupt)
        assert behind_it.result(PATIENCE_S)
        assert ingest.receive("chat", [wrote("c")])

    assert hub.kept == ["b", "c"]


@pytest.fixture
def interruptible():
    """Have SIGINT raise KeyboardInterrupt, which it does not in a program that a shell started in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_interrupt_of_a_waiting_thread_takes_its_events_back():
    """Ctrl-C in a caller whose events wait still means that they were never brought."""
    hub = WatchedHub()
    hold = hub.hold("a")

    def interrupt(ingest):
        _until(lambda: ingest.waiting == 1)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    with ThreadPoolExecutor(2) as pool, Ingest(hub) as ingest:
        pool.submit(ingest.receive, "chat", [wrote("a")])
        assert hold.begun.wait(PATIENCE_S)
        pool.submit(interrupt, ingest)
        with pytest.raises(KeyboardInterrupt):
            ingest.receive("chat", [wrote("b")])
        assert ingest.waiting == 0
        hold.go.set()

    assert hub.kept == ["a"]


def test_task_that_is_cancelled_while_it_waits_takes_its_events_back():
    """What no transaction has taken yet is dropped with its task; what one has taken is kept."""
    hub = WatchedHub()
    hold = hub.hold("taken")

    async def run(ingest):
        taken = asyncio.create_task(ingest.receive_async("chat", [wrote("taken")]))
        await _until_in_loop(hold.begun.is_set)
        waits, stays = (asyncio.create_task(ingest.receive_async("chat", [wrote(name)])) for name in ("waits", "stays"))
        await _until_in_loop(lambda: ingest.waiting == 2)
        waits.cancel()
        taken.cancel()
        cancelled = await asyncio.gather(waits, taken, return_exceptions=True)
        left = ingest.waiting
        hold.go.set()
        await stays
        return cancelled, left

    with Ingest(hub) as ingest:
        cancelled, left = asyncio.run(run(ingest))

    assert [type(one) for one in cancelled] == [asyncio.CancelledError] * 2
    assert left == 1
    assert hub.kept == ["taken", "stays"]


def test_task_that_is_cancelled_once_taken_keeps_nobody_waiting():
    """The others of its batch and loop are woken, and what it brought is kept."""
    hub = WatchedHub()
    first, taken = hub.hold("first"), hub.hold("a")

    async def run(ingest):
        tasks = [asyncio.create_task(ingest.receive_async("chat", [FIRST]))]
        await _until_in_loop(first.begun.is_set)
        tasks += [asyncio.create_task(ingest.receive_async("chat", [wrote(name)])) for name in "ab"]
        await _until_in_loop(lambda: ingest.waiting == 2)
        first.go.set()
        await _until_in_loop(taken.begun.is_set)
        tasks[1].cancel()
        await asyncio.wait([tasks[1]])
        taken.go.set()
        done, _ = await asyncio.wait(tasks, timeout=PATIENCE_S)
        return [one in done for one in tasks], tasks[1].cancelled()

    with Ingest(hub) as ingest:
        assert asyncio.run(run(ingest)) == ([True] * 3, True)

    assert hub.tried == [["first"], ["a", "b"]]
    assert hub.kept == ["first", "a", "b"]


def test_loop_that_was_closed_meanwhile_stops_no_writer():
    """A transaction whose callers are gone is kept, and the next one is taken."""
    hub = WatchedHub()
    hold = hub.hold("a")
    loop = asyncio.new_event_loop()

    with Ingest(hub) as ingest:
        task = loop.create_task(ingest.receive_async("chat", [wrote("a")]))
        loop.run_until_complete(_until_in_loop(hold.begun.is_set))
        loop.close()
        hold.go.set()
        asyncio.run(ingest.receive_async("chat", [wrote("b")]))
        task.get_coro().close()
        task._log_destroy_pending = False  # noqa: SLF001  (asyncio would log what this test is about)

    assert hub.kept == ["a", "b"]


# -- a full queue


def _fill(hub, ingest, events, then):
    """Queue `events` behind a transaction under way, give what `then` does, and let all go."""
    hold = hub.hold("first")
    with ThreadPoolExecutor(len(events) + 1) as pool:
        pool.submit(ingest.receive, "chat", [FIRST])
        assert hold.begun.wait(PATIENCE_S)
        for one in events:
            pool.submit(ingest.receive, "chat", one)
        try:
            _until(lambda: ingest.waiting == sum(len(one) for one in events))
            return then()
        finally:
            hold.go.set()


def _refusal(ingest, count=1):
    with pytest.raises(TransientError) as refused:
        ingest.receive("chat", [wrote(f"refused {one}") for one in range(count)])
    return refused.value


def test_full_queue_refuses_at_once():
    """Past its capacity, counted in events, the queue takes nothing, and says when to come again."""
    hub = WatchedHub()

    with Ingest(hub, capacity=4) as ingest:
        error = _fill(hub, ingest, [[wrote("a"), wrote("b")], [wrote("c")]], lambda: _refusal(ingest, 2))
        ingest.receive("chat", [wrote("later")])

    assert str(error) == (
        "the queue is full (3 of 4 events wait for the store): nothing was taken, hand the events in again in 1 s"
    )
    assert error.retry_after_s == 1
    assert sorted(hub.kept) == ["a", "b", "c", "first", "later"]


def test_full_queue_refuses_a_task_too():
    """A coroutine is refused like a thread."""
    hub = WatchedHub()

    with Ingest(hub, capacity=1) as ingest, pytest.raises(TransientError, match="the queue is full"):
        _fill(hub, ingest, [[wrote("a")]], lambda: asyncio.run(ingest.receive_async("chat", [wrote("b")])))


@pytest.mark.parametrize(("one_s", "writers", "retry_after_s"), [(0.001, 1, 1), (2, 1, 6), (2, 2, 3), (1000, 1, 60)])
def test_refusal_says_how_long_the_queue_takes(one_s, writers, retry_after_s):
    """The pause is what the waiting events take at the measured pace, between one second and one minute."""
    clock = FakeClock()

    class SlowHub(WatchedHub):
        def commit(self, arrivals, **given):
            clock.advance(seconds=one_s * len(arrivals))
            return super().commit(arrivals, **given)

    hub = SlowHub()
    with Ingest(hub, writers=writers, capacity=3, timer=lambda: clock().timestamp()) as ingest:
        asyncio.run(ingest.receive_async("chat", [wrote("measured"), wrote("measured too")]))
        # One conversation: a second writer has nothing to take.
        events = [[evolve(wrote(name), hint=FIRST.hint)] for name in "abc"]
        error = _fill(hub, ingest, events, lambda: _refusal_of_one_more(ingest))

    assert error.retry_after_s == pytest.approx(retry_after_s)


def _refusal_of_one_more(ingest):
    with pytest.raises(TransientError) as refused:
        ingest.receive("chat", [evolve(wrote("refused"), hint=FIRST.hint)])
    return refused.value


def test_what_is_larger_than_the_queue_gets_in_when_nothing_waits():
    """A request is never refused for ever."""
    hub = WatchedHub()

    with Ingest(hub, capacity=1) as ingest:
        _fill(hub, ingest, [[wrote("a"), wrote("b")]], lambda: _refusal(ingest))

    assert hub.kept == ["first", "a", "b"]


# -- the end


def _is_closed(ingest):
    try:
        ingest.receive("chat", [wrote("too late")])
    except TransientError as error:
        return "closed" in str(error)
    return False


def test_close_waits_for_everything_that_was_taken():
    """After `close` all that waited is in the store, one transaction after the other; the threads are gone."""
    hub = WatchedHub()
    before = set(threading.enumerate())
    ingest = Ingest(hub, batch=2)
    writers = set(threading.enumerate()) - before
    closers = ThreadPoolExecutor(2)

    def close():
        closing = [closers.submit(ingest.close) for _ in range(2)]
        _until(lambda: ingest._is_closed)  # noqa: SLF001  (nothing else tells, short of trying)
        assert _is_closed(ingest)
        with pytest.raises(TransientError, match="closed"):
            asyncio.run(ingest.receive_async("chat", [wrote("too late")]))
        return closing

    with closers:
        for one in _fill(hub, ingest, [[wrote(name)] for name in "abcde"], close):
            one.result(PATIENCE_S)
    ingest.close()

    assert hub.kept[0] == "first"
    assert sorted(hub.kept[1:]) == ["a", "b", "c", "d", "e"]
    assert len(writers) == 1
    assert not any(one.is_alive() for one in writers)
    assert hub.receive("chat", [wrote("a")])[0].decision.outcome is Outcome.DUPLICATE


def test_close_waits_for_a_thread_that_commits_by_itself():
    """A hub can be closed after its ingest: no caller is in a transaction any more."""
    hub = WatchedHub()
    hold = hub.hold("a")
    ingest = Ingest(hub)

    with ThreadPoolExecutor(2) as pool:
        pool.submit(ingest.receive, "chat", [wrote("a")])
        assert hold.begun.wait(PATIENCE_S)
        closed = pool.submit(lambda: (ingest.close(), list(hub.kept))[1])
        with pytest.raises(TimeoutError):
            closed.result(timeout=0.2)
        hold.go.set()

        assert closed.result(PATIENCE_S) == ["a"]


# -- order


STATUS = StatusChanged(external_id="a", status=DeliveryStatus.READ, at=NOON)
RELATED = {
    "one thread": (wrote("a", thread="t"), wrote("b", thread="t")),
    "one sender": (wrote("a", email="ann@shop.example"), wrote("b", email="ann@shop.example", thread="t")),
    "one cookie": (wrote("a", email="", visitor=COOKIE), wrote("b", visitor=COOKIE, thread="t")),
    "one message": (wrote("a"), evolve(wrote("b"), external_id="a")),
    "one message, without a conversation": (wrote("a"), STATUS),
    "an answer": (wrote("a", thread="t"), wrote("b", thread="u", references=("x", "a"))),
    "two answers": (wrote("a", thread="t", references=("x",)), wrote("b", thread="u", references=("x",))),
}


def _bring_in_a_thread(ingest, event):
    return ingest.receive("chat", [event])


def _bring_in_a_task(ingest, event):
    return asyncio.run(ingest.receive_async("chat", [event]))


both_ways = pytest.mark.parametrize("bring", [_bring_in_a_thread, _bring_in_a_task], ids=["thread", "task"])


@pytest.mark.parametrize("pair", RELATED.values(), ids=RELATED)
@both_ways
def test_what_may_be_one_conversation_is_never_under_way_twice(pair, bring):
    """With writers to spare, the second waits for the first, and what has nothing to do with them overtakes it."""
    hub = WatchedHub()
    hold = hub.hold("a")

    with ThreadPoolExecutor(4) as pool, Ingest(hub, writers=3) as ingest:
        pool.submit(bring, ingest, pair[0])
        assert hold.begun.wait(PATIENCE_S)
        pool.submit(bring, ingest, pair[1])
        try:
            _until(lambda: ingest.waiting == 1)
            bring(ingest, wrote("other", thread="other"))
            assert ingest.waiting == 1
        finally:
            hold.go.set()

    assert [names for _, _, names in hub.spans] == [["other"], [pair[0].external_id], [pair[1].external_id]]


@both_ways
def test_nobody_overtakes_what_was_passed_over(bring):
    """What touches an item that is passed over waits behind it, even where it touches nothing under way."""
    hub = WatchedHub()
    hold = hub.hold("a")

    with ThreadPoolExecutor(4) as pool, Ingest(hub, writers=3) as ingest:
        pool.submit(bring, ingest, wrote("a", thread="t"))
        assert hold.begun.wait(PATIENCE_S)
        try:
            pool.submit(bring, ingest, wrote("b", thread="t", visitor=COOKIE))
            _until(lambda: ingest.waiting == 1)
            pool.submit(bring, ingest, wrote("c", thread="u", visitor=COOKIE))
            _until(lambda: ingest.waiting == 2)
            bring(ingest, wrote("other"))
            assert ingest.waiting == 2
        finally:
            hold.go.set()

    assert hub.kept == ["other", "a", "b", "c"]


def test_one_conversation_shares_a_transaction():
    """Messages of one conversation that wait together are kept together, in order."""
    hub = WatchedHub()

    with Ingest(hub, writers=3) as ingest:
        _behind(hub, ingest, [wrote(name, thread="t") for name in "abc"], first=wrote("first", thread="t"))

    assert hub.tried == [["first"], ["a", "b", "c"]]


class RestlessHub(WatchedHub):
    """Each transaction takes a while, another one each time."""

    def __init__(self, seed):
        super().__init__()
        self.random = random.Random(seed)  # noqa: S311  (no secret)

    def commit(self, arrivals, **given):
        time.sleep(self.random.random() / 500)
        return super().commit(arrivals, **given)


def _out_of_order(events, spans):
    """Give the pairs of related events that were not kept one after the other, in the order in which they came."""
    span = {name: (began, ended, names.index(name)) for began, ended, names in spans for name in names}
    pairs = [
        (span[one.external_id], span[two.external_id])
        for one, two in itertools.combinations(events, 2)
        if one.thread == two.thread or one.external_id in two.references
    ]
    return [(one, two) for one, two in pairs if not (one[1] < two[0] or (one[:2] == two[:2] and one[2] < two[2]))]


def test_checkpoints_are_kept_in_order_with_their_events():
    """A position is written with the events that it stands behind, the later one last, and without events as well."""
    hub = WatchedHub()
    given = [({"a": "1"}, "one"), ({"a": "2", "b": "1"}, "two"), ({"b": "2"}, None)]

    async def run():
        with Ingest(hub, writers=2) as ingest:
            hold = hub.hold(FIRST.external_id)
            head = asyncio.create_task(ingest.receive_async("chat", [FIRST]))
            await _until_in_loop(hold.begun.is_set)
            tasks = [
                asyncio.create_task(
                    ingest.receive_async("chat", [wrote(name)] if name else [], checkpoints=checkpoints)
                )
                for checkpoints, name in given
            ]
            await asyncio.sleep(0)
            hold.go.set()
            await asyncio.gather(head, *tasks)

    asyncio.run(run())

    assert [hub.store.checkpoint("default", name) for name in "ab"] == ["2", "2"]


def test_checkpoint_is_not_kept_without_its_events():
    """Where events cannot be kept, their position does not move, and that of others does."""
    hub = WatchedHub()
    hub.errors["bad"] = ValueError("no")

    async def run():
        with Ingest(hub) as ingest:
            tasks = [
                ingest.receive_async("chat", [wrote(name)], checkpoints={name: "1"}) for name in ("good", "bad", "fine")
            ]
            return await asyncio.gather(*tasks, return_exceptions=True)

    results = asyncio.run(run())

    assert isinstance(results[1], ValueError)
    assert [hub.store.checkpoint("default", name) for name in ("good", "bad", "fine")] == ["1", None, "1"]


@settings(max_examples=15)
@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 30)), max_size=60),
    st.integers(1, 8),
    st.integers(0, 2**32),
)
def test_order_of_a_conversation_is_kept_by_any_number_of_writers(drawn, batch, seed):
    """What is related is kept in the order in which it came, whatever the traffic and however the writers run."""
    events = [
        wrote(f"{place}", thread=f"t{thread}", references=(f"{place - back}",))
        if back
        else wrote(f"{place}", thread=f"t{thread}")
        for place, (thread, back) in enumerate(drawn)
    ]
    hub = RestlessHub(seed)

    async def run():
        with Ingest(hub, writers=4, batch=batch) as ingest:
            await asyncio.gather(*(ingest.receive_async("chat", [one]) for one in events))

    asyncio.run(run())

    assert sorted(hub.kept) == sorted(one.external_id for one in events)
    assert _out_of_order(events, hub.spans) == []
