"""Who is measured: the limit, one call of the Hub for each message, group commit with many callers, Django.

All store the same messages for the same senders in databases that hold the same contacts. What a web framework would
hand over (a parsed event, an address) is made outside the clock, which runs from there to the commit.
"""

import asyncio
import itertools
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any, Protocol

from attrs import frozen
from places import Place
from prefill import CHANNEL, NOW, mail

from convsdk.core.events import MessageReceived
from convsdk.core.model import Outcome
from convsdk.desk import Received
from convsdk.hub import Hub
from convsdk.ingest import Ingest

_numbers = itertools.count(1)


@frozen(kw_only=True)
class Name:
    """What a row of figures is called: the store, who was measured, doing what."""

    store: str
    who: str
    what: str = ""


class Contestant(ABC):
    """A program that stores messages in its own place. `portion` messages are made ready at a time."""

    def __init__(self, name: Name, place: Place, *, portion: int) -> None:
        self.name = name
        self.place = place
        self.portion = portion

    @abstractmethod
    def prepare(self, senders: Sequence[str]) -> Any:  # noqa: ANN401  (each takes what it gave)
        """Give a message of each sender as `take` wants them."""

    @abstractmethod
    def take(self, ready: Any) -> list[float]:  # noqa: ANN401  (each takes what it gave)
        """Store what is ready, durably; give the seconds of each call."""

    def check(self, *, is_new: bool) -> None:  # noqa: B027  (most have nothing to say but what they stored)
        """Stop where the last messages were not taken as those of known, or of new, senders."""

    def close(self) -> None:  # noqa: B027  (most have nothing to close)
        """Let go of files and connections."""


class LimitStore(Protocol):
    """What limit.py measures."""

    def store(self, senders: list[str], now: int) -> None:
        """Store one message of each sender, in one transaction."""


class Limit(Contestant):
    """The least work that does it, as limit.py does it: `size` messages to a transaction."""

    def __init__(self, store: LimitStore, name: Name, place: Place, *, size: int, portion: int) -> None:
        super().__init__(name, place, portion=portion)
        self._store = store
        self._size = size

    def prepare(self, senders: Sequence[str]) -> list[list[str]]:
        return [list(senders[at : at + self._size]) for at in range(0, len(senders), self._size)]

    def take(self, ready: list[list[str]]) -> list[float]:
        return [_seconds(self._store.store, batch, next(_numbers)) for batch in ready]


class Ours(Contestant):
    """The Hub, with everything that it decides and explains."""

    def __init__(self, hub: Hub, name: Name, place: Place, *, portion: int) -> None:
        super().__init__(name, place, portion=portion)
        self._hub = hub
        self._received: list[tuple[Received, ...]] = []

    def prepare(self, senders: Sequence[str]) -> list[MessageReceived]:
        self._received.clear()
        numbers = list(itertools.islice(_numbers, len(senders)))
        return [
            mail(sender, f"m{number:013d}", NOW + timedelta(milliseconds=number))
            for sender, number in zip(senders, numbers, strict=True)
        ]

    def check(self, *, is_new: bool) -> None:
        outcomes = {one.decision.outcome for received in self._received for one in received}
        assert outcomes == {Outcome.CREATED if is_new else Outcome.ATTACHED}, (self.name, outcomes)


class OneByOne(Ours):
    """A transaction for each message."""

    def take(self, ready: list[MessageReceived]) -> list[float]:
        return [_seconds(self._one, event) for event in ready]

    def _one(self, event: MessageReceived) -> None:
        self._received.append(self._hub.receive(CHANNEL, [event]))


class Tasks(Ours):
    """Group commit: many asyncio tasks, each with one message at a time."""

    def __init__(self, hub: Hub, name: Name, place: Place, *, portion: int, callers: int) -> None:
        super().__init__(hub, name, place, portion=portion)
        self._ingest = Ingest(hub)
        self._callers = callers
        self._runner = asyncio.Runner()

    def take(self, ready: list[MessageReceived]) -> list[float]:
        return self._runner.run(self._take(iter(ready)))

    async def _take(self, ready: Iterator[MessageReceived]) -> list[float]:
        calls = await asyncio.gather(*(self._caller(ready) for _ in range(self._callers)))
        return list(itertools.chain(*calls))

    async def _caller(self, ready: Iterator[MessageReceived]) -> list[float]:
        return [await self._call(event) for event in ready]

    async def _call(self, event: MessageReceived) -> float:
        start = time.perf_counter()
        self._received.append(await self._ingest.receive_async(CHANNEL, [event]))
        return time.perf_counter() - start

    def close(self) -> None:
        self._ingest.close()
        self._runner.close()


class Threads(Ours):
    """Group commit: many threads, each with one message at a time."""

    def __init__(self, hub: Hub, name: Name, place: Place, *, portion: int, callers: int) -> None:
        super().__init__(hub, name, place, portion=portion)
        self._ingest = Ingest(hub)
        self._crowd = Crowd(callers)

    def take(self, ready: list[MessageReceived]) -> list[float]:
        return self._crowd.call(self._one, ready)

    def _one(self, event: MessageReceived) -> None:
        self._received.append(self._ingest.receive(CHANNEL, [event]))

    def close(self) -> None:
        self._ingest.close()
        self._crowd.close()


class Orm(Protocol):
    """What peers/django_orm.py does, which is imported only where Django is installed."""

    def store(self, sender: str, external_id: str, now: int) -> None:
        """Store one message in a transaction of its own."""

    def close(self) -> None:
        """Close the connection of this thread."""


class Django(Contestant):
    """The Django ORM as people write it: a transaction for each message, from one caller or several."""

    def __init__(self, orm: Orm, name: Name, place: Place, *, portion: int, callers: int = 1) -> None:
        super().__init__(name, place, portion=portion)
        self._orm = orm
        self._crowd = Crowd(callers)

    def prepare(self, senders: Sequence[str]) -> list[tuple[str, str, int]]:
        return [(sender, f"d{number}", number) for sender, number in zip(senders, _numbers, strict=False)]

    def take(self, ready: list[tuple[str, str, int]]) -> list[float]:
        return self._crowd.call(lambda message: self._orm.store(*message), ready)

    def close(self) -> None:
        self._crowd.each(self._orm.close)
        self._crowd.close()


class Crowd:
    """Several threads that work off one list; one caller is the thread that asks."""

    def __init__(self, callers: int) -> None:
        self._callers = callers
        self._pool = ThreadPoolExecutor(callers) if callers > 1 else None

    def call(self, work: Callable[[Any], object], items: Iterable[Any]) -> list[float]:
        """Do `work` with every item; give the seconds of each."""
        left = iter(items)
        return list(itertools.chain(*self.each(lambda: [_seconds(work, item) for item in left])))

    def each(self, work: Callable[[], Any]) -> list[Any]:
        """Do `work` once in every thread."""
        if self._pool is None:
            return [work()]
        return [one.result() for one in [self._pool.submit(work) for _ in range(self._callers)]]

    def close(self) -> None:
        """End the threads."""
        if self._pool is not None:
            self._pool.shutdown()


def _seconds(call: Callable[..., object], *given: object) -> float:
    start = time.perf_counter()
    call(*given)
    return time.perf_counter() - start
