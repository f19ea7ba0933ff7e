"""Tells what happened, after the commit: the notices in the store, to plugins and webhooks.

::

    store ──notices──> courier of a target ──tell──> hook or webhook
                           └──position──> store

Each target has its courier, and its position in the store, which moves on after the target has taken a notice: at
least once, and in order. What one target does not take, or takes long for, holds up no other.
"""

import asyncio
import concurrent.futures
import math
import threading
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from functools import partial
from random import random
from typing import Self

import structlog
from attrs import evolve, frozen

from convsdk.core.events import AUTOMATION_ENTERED, Notice
from convsdk.core.ports import Clock
from convsdk.core.storage import Batch, Transaction
from convsdk.errors import ConvsdkError, NotFound, PermanentError, TransientError, words_of
from convsdk.hub import Hub
from convsdk.lease import Lease
from convsdk.plugins import Plugins

STARTED = "outbox.started"
"""The type of the notice that a target is told from here on."""
GIVEN_UP = "outbox.given_up"
"""The type of the notice that a target was not told about another one."""

_OWN = "outbox."
_PAGE = 100
_SAVE_S = 1.0
_GIVE_UP = timedelta(days=3)
# What passes by itself is tried again soon; where somebody has to act first, that is no use.
_SOON_S, _SOON_MOST_S = 2.0, 3600.0
_SELDOM_S, _SELDOM_MOST_S = 60.0, 6 * 3600.0
_LONGEST_S = 86_400.0
_MENDING_S = 5.0
_REST_S = 0.05  # between two looks, however much is written meanwhile

_log = structlog.get_logger(__name__)


class Gone(PermanentError):  # noqa: N818  (the name of the HTTP status 410)
    """A target says that it is to be told nothing more."""


@frozen(kw_only=True)
class Target:
    """Somebody to tell. `events` are the types of notice that it wants, with `*` for any end.

    `tell` returns when it has taken a notice. It raises `TransientError` to be told again, `PermanentError` where
    that makes sense only once somebody has acted, and `Gone` to be told nothing more. `is_told_all`: a new target is
    told from the first notice on, not from now on.
    """

    name: str
    tell: Callable[[Notice], Awaitable[None]]
    events: tuple[str, ...] = ("*",)
    is_told_all: bool = False

    def wants(self, notice: Notice) -> bool:
        """Say whether it is to be told about `notice`."""
        if notice.type == AUTOMATION_ENTERED and not notice.may_automate:
            return False
        return any(fnmatchcase(notice.type, pattern) for pattern in self.events)


def hook_targets(plugins: Plugins) -> list[Target]:
    """Give each plugin that observes, and each that automates, as a target of its own."""
    observers, automations = (plugins.listeners(hook) for hook in ("convsdk_event", "convsdk_automations"))
    return [
        *(Target(name=f"observer/{name}", tell=partial(_aside, tell)) for name, tell in observers.items()),
        *(
            Target(name=f"automation/{name}", tell=partial(_aside, tell), events=(AUTOMATION_ENTERED,))
            for name, tell in automations.items()
        ),
    ]


def tell_again(hub: Hub, target: str, *, since: int) -> None:
    """Let the target of that name begin anew after the notice with the id `since`; 0 is before the first.

    Who tells it, in whatever process, sees that at the next look. Raises `NotFound` where nobody ever told it.
    """
    key = _key(target)
    if hub.store.checkpoint(hub.workspace, key) is None:
        raise NotFound(
            f"nobody called {target!r} was told anything yet: 'convsdk worker' says what the targets are called"
        )
    batch = Batch(checkpoints={key: str(since)})
    hub.store.transact(hub.workspace, lambda transaction: transaction.write(batch))


def _key(target: str) -> str:
    return f"outbox/{target}"


async def _aside(tell: Callable[[Notice], None], notice: Notice) -> None:
    """Call a hook in a thread of its own: one that hangs takes none from others, and the program can end."""
    done: concurrent.futures.Future[None] = concurrent.futures.Future()
    done.set_running_or_notify_cancel()

    def run() -> None:
        try:
            tell(notice)
            done.set_result(None)
        except BaseException as error:  # noqa: BLE001  (a boundary of threads: it goes to whoever waits)
            # What ends a program or a task is not for a hook to raise.
            is_usual = isinstance(error, Exception)
            done.set_exception(error if is_usual else PermanentError(f"a hook raised {type(error).__name__}"))

    threading.Thread(target=run, name="convsdk-hook", daemon=True).start()
    await asyncio.wrap_future(done)


@frozen
class _Position:
    """How far a target has come, and since when it takes nothing."""

    after: int
    failing_since: datetime | None = None

    def __str__(self) -> str:
        return f"{self.after} {self.failing_since.isoformat()}" if self.failing_since else str(self.after)

    @classmethod
    def read(cls, text: str) -> "_Position":
        after, _, since = text.partition(" ")
        return cls(int(after), datetime.fromisoformat(since) if since else None)


class _Courier:
    """Tells one target what there is, one notice after the other."""

    def __init__(self, hub: Hub, target: Target, *, clock: Clock, random: Callable[[], float]) -> None:
        self.closing = asyncio.Event()
        self._hub = hub
        self._target = target
        self._clock = clock
        self._random = random
        self._key = _key(target.name)
        self._position = _Position(0)
        self._stored: str | None = None
        self._saved_at = 0.0
        self._tries = 0
        self._tried_at: datetime | None = None  # the notice that is next, first
        self._is_stopped = False

    async def advance(self) -> float:
        """Tell all that is there; give how many seconds to leave the target alone, where it did not take something."""
        if self._is_stopped:
            return math.inf
        await asyncio.to_thread(self._load)
        pause_s, is_more = 0.0, True
        while is_more and not pause_s and not self.closing.is_set():
            page = await asyncio.to_thread(
                self._hub.store.notices, self._hub.workspace, since=self._position.after, limit=_PAGE
            )
            is_more = len(page) == _PAGE
            pause_s = await self._pass_on(page)
        return pause_s

    async def _pass_on(self, page: list[Notice]) -> float:
        is_worth_saving = len(page) == _PAGE  # to read past the rest again costs less than to write it down
        try:
            for notice in page:
                if self.closing.is_set():
                    break
                if self._target.wants(notice):
                    is_worth_saving = True
                    if pause_s := await self._tell(notice):
                        return pause_s
                self._position = evolve(self._position, after=notice.id)
                if is_worth_saving and time.monotonic() - self._saved_at > _SAVE_S:
                    await asyncio.to_thread(self._save)
        finally:
            if is_worth_saving:
                await asyncio.to_thread(self._save)
        return 0.0

    async def _tell(self, notice: Notice) -> float:
        """Give the pause that a target needs which did not take `notice`; 0 where it is done with."""
        self._tried_at = self._tried_at or self._clock()
        try:
            await self._target.tell(notice)
        except Gone as error:
            self._is_stopped = True
            _log.error("a target is told nothing more until the next start", target=self._target.name, why=str(error))
            return math.inf
        except (TransientError, PermanentError) as error:
            return await self._put_off(notice, error)
        self._position = evolve(self._position, failing_since=None)
        self._tries, self._tried_at = 0, None
        return 0.0

    async def _put_off(self, notice: Notice, error: TransientError | PermanentError) -> float:
        now = self._clock()
        since = self._position.failing_since or now
        self._position = evolve(self._position, failing_since=since)
        # Each has its days. Those of an old one, which a back-fill wrote, begin with the failing.
        if now - max(since, min(notice.at, self._tried_at or now)) >= _GIVE_UP:
            self._position = evolve(self._position, after=notice.id)
            self._tried_at = None
            await asyncio.to_thread(self._give_up, notice, error)
            return 0.0
        pause_s = self._pause(error)
        _log.warning(
            "a target did not take a notice",
            target=self._target.name,
            notice=notice.id,
            why=str(error),
            retry_in_s=round(pause_s, 1),
        )
        return pause_s

    def _pause(self, error: TransientError | PermanentError) -> float:
        if isinstance(error, TransientError) and error.retry_after_s is not None:
            # As it was asked for, which is no failed try; in this order, what is no number is a short one.
            return min(max(_SOON_S, error.retry_after_s), _LONGEST_S)
        first, most = (_SELDOM_S, _SELDOM_MOST_S) if isinstance(error, PermanentError) else (_SOON_S, _SOON_MOST_S)
        whole = min(first * 2.0 ** min(self._tries, 32), most)
        self._tries += 1
        return whole * (0.5 + self._random() / 2)  # not all at once, where a receiver of many comes back

    # -- in threads

    def _load(self) -> None:
        """Take the stored position up, where it is not the one that was saved last: somebody has moved it."""
        stored = self._hub.store.checkpoint(self._hub.workspace, self._key)
        if stored is None and not self._target.is_told_all:
            stored = self._start()
        if stored is not None and stored != self._stored:
            self._position, self._stored = _Position.read(stored), stored

    def _start(self) -> str:
        """Begin at a notice that says so: only the id of one that is there tells in every store what comes after."""

        def work(transaction: Transaction) -> str:
            number = next(transaction.new_ids())
            started = Notice(id=number, type=STARTED, at=self._clock(), payload={"target": self._target.name})
            transaction.write(Batch(notices=[started], checkpoints={self._key: str(number)}))
            return str(number)

        return self._hub.store.transact(self._hub.workspace, work)

    def _save(self, notices: Iterable[Notice] = ()) -> None:
        store, workspace, position = self._hub.store, self._hub.workspace, str(self._position)
        told = list(notices)
        if position == self._stored or store.checkpoint(workspace, self._key) != self._stored:
            return

        def work(transaction: Transaction) -> None:
            ids = transaction.new_ids()
            batch = Batch(notices=[evolve(one, id=next(ids)) for one in told], checkpoints={self._key: position})
            transaction.write(batch)

        store.transact(workspace, work)
        self._stored, self._saved_at = position, time.monotonic()

    def _give_up(self, notice: Notice, error: ConvsdkError) -> None:
        target = self._target.name
        _log.error("a target was not told about a notice", target=target, notice=notice.id, why=str(error))
        payload = {"target": target, "notice": notice.id, "type": notice.type, "why": str(error)}
        # Of its own notices only the log hears: two targets that take nothing would else fill the store.
        own = notice.type.startswith(_OWN)
        self._save([] if own else [Notice(type=GIVEN_UP, at=self._clock(), payload=payload)])


class Outbox:
    """Tells `targets` about the notices of `hub`, from its start to its end.

    ::

        async with Outbox(hub, hook_targets(plugins)):
            ...  # what this hub writes is told at once; what others write, within poll_s

    Of several processes with one store, one tells; another takes over when
    that one ends, or is silent for `lease_s`. At its end it lets what is under way finish, for `grace_s` at most.
    `clock` gives the present moment, `random` numbers from 0 to 1. The hub stays open for its maker to close.
    """

    def __init__(
        self,
        hub: Hub,
        targets: Iterable[Target],
        *,
        clock: Clock = lambda: datetime.now(UTC),
        random: Callable[[], float] = random,
        poll_s: float = 1.0,
        lease_s: float = 30.0,
        grace_s: float = 10.0,
    ) -> None:
        self._hub = hub
        self._couriers = [_Courier(hub, target, clock=clock, random=random) for target in targets]
        self._poll_s = poll_s
        self._grace_s = grace_s
        self._lease = Lease(hub, "outbox", clock=clock, length_s=lease_s)
        self._woken = {courier: asyncio.Event() for courier in self._couriers}
        self._closing = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._running: asyncio.Task[None] | None = None
        self._stop_waking: Callable[[], None] = lambda: None

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._stop_waking = self._hub.on_written(self.wake)
        self._running = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_error: object) -> None:
        self._stop_waking()
        self._closing.set()
        if self._running:
            await self._running
        self._loop = None

    async def advance(self) -> float:
        """Tell every target what is there now, once; give the seconds until one that did not take it wants it again.

        For a program that has no place for a task, such as a job that runs every minute. It takes no lease.
        """
        pauses = await asyncio.gather(*(one.advance() for one in self._couriers))
        return min((one for one in pauses if one), default=0.0)

    def wake(self) -> None:
        """Say that there is something to tell. From any thread, and at any time."""
        if loop := self._loop:
            with suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        for event in self._woken.values():
            event.set()

    async def _run(self) -> None:
        following: list[asyncio.Task[None]] = []
        is_ours = False
        while not self._closing.is_set():
            try:
                is_ours = await asyncio.to_thread(self._lease.hold)
            except Exception as error:  # noqa: BLE001  (boundary: the worker loop goes on when the store is back)
                _log.error("the outbox waits for the store", why=words_of(error))
            if is_ours and not following:
                following = [asyncio.create_task(self._follow(one)) for one in self._couriers]
            if not is_ours:
                await self._end(following)
                following = []
            await _wait(self._closing, self._poll_s)
        await self._end(following)
        try:
            await asyncio.to_thread(self._lease.release)
        except Exception as error:  # noqa: BLE001  (boundary, as above: another process will wait for a while)
            _log.error("the outbox ends without the store", why=words_of(error))

    async def _follow(self, courier: _Courier) -> None:
        while not courier.closing.is_set():
            self._woken[courier].clear()
            try:
                pause_s = await courier.advance()
            except Exception as error:  # noqa: BLE001  (boundary: the worker loop outlives the store, and our mistakes)
                _log.error("the outbox could not go on", why=words_of(error))
                pause_s = _MENDING_S
            await _wait(courier.closing, pause_s or _REST_S)
            if not pause_s:
                await _wait(self._woken[courier], self._poll_s)

    async def _end(self, following: list[asyncio.Task[None]]) -> None:
        if not following:
            return
        for courier in self._couriers:
            courier.closing.set()
        self._wake()
        _, late = await asyncio.wait(following, timeout=self._grace_s)
        for one in late:
            one.cancel()
        await asyncio.gather(*following, return_exceptions=True)
        for courier in self._couriers:
            courier.closing.clear()


async def _wait(event: asyncio.Event, most_s: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(most_s):
            await event.wait()
