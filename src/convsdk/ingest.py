"""Group commit in front of a `Hub`: what many callers bring at the same time is kept in one transaction.

A transaction costs a sync to disk, however little it writes. Callers wait for it, and what comes in meanwhile waits
for the next one, which takes its share of it: the longer a transaction takes, the more callers share the one after it.
No timer holds anything back.

::

    receive ──prepare──> queue ──_take──> under way ──_keep──> store
             (caller)           (a writer thread: one batch)     └──_wake──> callers

A thread that finds nothing ahead of it goes from `prepare` to the store by itself.
"""

import asyncio
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import suppress
from itertools import chain, islice
from typing import Self

from attrs import define, field

from convsdk.core.events import Event
from convsdk.desk import Arrival, Received
from convsdk.errors import ConfigError, TransientError
from convsdk.hub import Hub

# HTTP's Retry-After knows whole seconds, and a queue that was full a minute ago is worth another look.
_SHORTEST_RETRY_S, _LONGEST_RETRY_S = 1.0, 60.0
# A transaction of fewer events is hardly cheaper.
_SMALLEST_SHARE = 32
# What a batch before counts for in the measured pace, against the one after it.
_FADING = 0.75


def _touched(arrivals: Sequence[Arrival]) -> frozenset[Hashable]:
    """Give the messages, conversations and identifiers that `arrivals` name."""
    found: set[Hashable] = set()
    for one in arrivals:
        found.add(("message", one.channel, one.event.external_id))
        found.update(one.evidence.identifiers)
        if one.query:
            found.add(("thread", one.channel, one.query.thread))
            found.update(("message", one.channel, reference) for reference in one.query.references)
    return frozenset(found)


@define(eq=False)
class _Item:
    """What one caller brought, what wakes it (a lock that it waits for, or its task's future), and what came of it."""

    arrivals: tuple[Arrival, ...]
    touched: frozenset[Hashable]
    waiter: "threading.Lock | asyncio.Future[None]"  # quoted: before Python 3.13, Lock is a function
    checkpoints: Mapping[str, str] = field(factory=dict)
    received: tuple[Received, ...] = ()
    error: BaseException | None = None

    def result(self) -> tuple[Received, ...]:
        if self.error is not None:
            raise self.error
        return self.received


def _own(error: TransientError) -> TransientError:
    """Give a caller an error of its own: one that several threads raise would gather the tracebacks of all."""
    own = TransientError(str(error), retry_after_s=error.retry_after_s)
    own.__cause__ = error
    return own


def _wake(items: Sequence[_Item]) -> None:
    """Wake the callers of `items`, those of one event loop with one call."""
    tasks: dict[asyncio.AbstractEventLoop, list[asyncio.Future[None]]] = {}
    for one in items:
        if isinstance(one.waiter, asyncio.Future):
            tasks.setdefault(one.waiter.get_loop(), []).append(one.waiter)
        else:
            one.waiter.release()
    for loop, futures in tasks.items():
        with suppress(RuntimeError):  # the loop was closed meanwhile: nobody waits there
            loop.call_soon_threadsafe(_wake_tasks, futures)


def _wake_tasks(futures: Sequence[asyncio.Future[None]]) -> None:
    for one in futures:
        if not one.done():  # cancelled
            one.set_result(None)


class Ingest:
    """A bounded queue in front of `hub`, and the threads that empty it: one transaction for many callers.

    ::

        with Ingest(hub) as ingest:
            received = ingest.receive("chat", events)  # from any thread
            received = await ingest.receive_async("chat", events)  # from any event loop

    `writers` is how many transactions run at once (the store's own number if None), `batch` how many events one
    takes, `capacity` how many may wait. `timer` gives seconds, and measures how fast the queue empties. Raises
    `ConfigError` for a size below one.

    What two callers bring is kept in the order in which it came, where it names the same conversation, message or
    identifier. Anything else may overtake. Close it before the hub, which it leaves open.
    """

    def __init__(
        self,
        hub: Hub,
        *,
        writers: int | None = None,
        batch: int = 256,
        capacity: int = 10_000,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        self._hub = hub
        self._writers = hub.store.writers if writers is None else writers
        self._batch = batch
        self._capacity = capacity
        self._timer = timer
        for name, size in (("writers", self._writers), ("batch", batch), ("capacity", capacity)):
            if size < 1:
                raise ConfigError(f"{name} = {size}: give an ingest at least 1")
        # Guards everything below; told of when a writer, or `close`, can have something to do.
        self._changed = threading.Condition()
        self._queue: OrderedDict[_Item, None] = OrderedDict()
        self._waiting = 0
        self._under_way: dict[int, frozenset[Hashable]] = {}  # what each thread that commits just now touches
        self._is_closed = False
        self._drained, self._drained_s = 0.0, 0.0
        self._threads = [
            threading.Thread(target=self._write, name=f"convsdk-ingest-{number}", daemon=True)
            for number in range(1, self._writers + 1)
        ]
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    @property
    def waiting(self) -> int:
        """Give how many events wait for a transaction."""
        return self._waiting

    def close(self) -> None:
        """Take nothing more, and return when everything that was taken is in the store. May be called again.

        In a coroutine: `await asyncio.to_thread(ingest.close)`.
        """
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._queue and not self._under_way)
        for thread in self._threads:
            thread.join()

    # -- for callers

    def receive(self, channel: str, events: Sequence[Event]) -> tuple[Received, ...]:
        """Keep `events` as `Hub.receive` does, all in one transaction, which they may share with other callers'.

        Returns after the commit. Raises what `Hub.receive` raises for these events, and `TransientError` where the
        store is out of reach, the queue is full (with `retry_after_s`), or this ingest is closed; nothing of
        `events` is kept then. A caller that is interrupted while its events wait takes them back.
        """
        arrivals = self._hub.prepare(channel, events)
        if not arrivals:
            return ()
        lock = threading.Lock()
        lock.acquire()
        item = _Item(arrivals, _touched(arrivals), lock)
        try:
            if self._admit(item, may_start=True):
                return self._hub.commit(arrivals)
            lock.acquire()
        finally:
            self._leave(item)
        return item.result()

    async def receive_async(
        self, channel: str, events: Sequence[Event], *, checkpoints: Mapping[str, str] | None = None
    ) -> tuple[Received, ...]:
        """Keep `events` as `receive` does, and let the event loop go on meanwhile.

        `checkpoints` are written in their transaction, as by `Hub.commit`, and in the order in which they come here.
        A task that is cancelled while its events wait takes them back; once a transaction has begun they are kept.
        """
        arrivals = self._hub.prepare(channel, events)
        told = dict(checkpoints or {})
        if not arrivals and not told:
            return ()
        woken = asyncio.get_running_loop().create_future()
        item = _Item(arrivals, _touched(arrivals) | {("checkpoint", name) for name in told}, woken, told)
        try:
            self._admit(item, may_start=False)
            await woken
        finally:
            self._leave(item)
        return item.result()

    def _admit(self, item: _Item, *, may_start: bool) -> bool:
        """Queue `item`, or, where nothing is ahead of it and it `may_start`, say True: it is under way then."""
        with self._changed:
            if self._is_closed:
                raise TransientError("this ingest is closed: hand the events in again when the program is back")
            is_free = len(self._under_way) < self._writers
            is_alone = all(item.touched.isdisjoint(one) for one in self._under_way.values())
            if may_start and is_free and is_alone and not self._queue:
                self._under_way[threading.get_ident()] = item.touched
                return True
            # What is larger than the queue would never get in: it does where nothing waits.
            if self._queue and self._waiting + len(item.arrivals) > self._capacity:
                raise self._full()
            self._queue[item] = None
            self._waiting += len(item.arrivals)
            if is_free:
                self._changed.notify()
            return False

    def _full(self) -> TransientError:
        one_s = self._drained_s / self._drained / self._writers if self._drained else 0.0
        retry_after_s = min(max(self._waiting * one_s, _SHORTEST_RETRY_S), _LONGEST_RETRY_S)
        return TransientError(
            f"the queue is full ({self._waiting} of {self._capacity} events wait for the store): "
            f"nothing was taken, hand the events in again in {retry_after_s:.0f} s",
            retry_after_s=retry_after_s,
        )

    def _leave(self, item: _Item) -> None:
        """End what this thread has under way, and take back what still waits: whatever the caller was stopped by."""
        # Mostly there is neither, and no lock is needed to see it: it cannot become true any more.
        if item in self._queue or threading.get_ident() in self._under_way:
            with self._changed:
                self._remove(item)
                self._end()

    def _remove(self, item: _Item) -> None:
        if item in self._queue:
            del self._queue[item]
            self._waiting -= len(item.arrivals)

    def _end(self) -> None:
        self._under_way.pop(threading.get_ident(), None)
        if self._queue or self._is_closed:
            self._changed.notify_all()

    # -- in the writer threads

    def _write(self) -> None:
        while batch := self._take():
            began = self._timer()
            self._keep(batch)
            took_s = self._timer() - began
            with self._changed:
                self._drained = self._drained * _FADING + sum(len(one.arrivals) for one in batch)
                self._drained_s = self._drained_s * _FADING + took_s
                self._end()
            _wake(batch)

    def _take(self) -> list[_Item]:
        """Wait for the next batch, and take it; nothing comes after an empty one."""
        with self._changed:
            while not (batch := self._pick()):
                if self._is_closed and not self._queue:
                    return []
                self._changed.wait()
            self._under_way[threading.get_ident()] = frozenset().union(*(one.touched for one in batch))
            for one in batch:
                self._remove(one)
            return batch

    def _pick(self) -> list[_Item]:
        """Give what may be taken now, the oldest first: nothing that touches what is under way or passed over."""
        free = self._writers - len(self._under_way)
        if free < 1:
            return []
        # What waits is shared out: while one writer waits for its database, another can get on with the rest.
        most = min(self._batch, max(_SMALLEST_SHARE, -(-self._waiting // free)))
        untouchable: set[Hashable] = set().union(*self._under_way.values())
        picked: list[_Item] = []
        events = passed_over = 0
        for one in self._queue:
            if passed_over == self._batch:  # one conversation fills the queue: looking at all of it takes too long
                break
            if not untouchable.isdisjoint(one.touched):
                untouchable |= one.touched
                passed_over += 1
                continue
            events += len(one.arrivals)
            if picked and events > most:
                break
            picked.append(one)
        return picked

    def _keep(self, batch: list[_Item]) -> None:
        """Commit `batch`, or, where an item spoils it, all of it but that item: by halves, in order."""
        parts = [batch]
        while parts:
            part = parts.pop()
            try:
                arrivals = [arrival for one in part for arrival in one.arrivals]
                checkpoints = {name: value for one in part for name, value in one.checkpoints.items()}
                received = iter(self._hub.commit(arrivals, checkpoints=checkpoints))
                for one in part:
                    one.received = tuple(islice(received, len(one.arrivals)))
            except TransientError as error:  # no item's fault, and the store has enough to do
                for one in chain(part, *parts):
                    one.error = _own(error)
                return
            except BaseException as error:  # noqa: BLE001  (the worker's loop: whatever it is, it goes to its caller)
                if len(part) == 1:
                    part[0].error = error
                else:
                    half = len(part) // 2
                    parts += [part[half:], part[:half]]
