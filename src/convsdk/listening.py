"""Runs the channels that listen: sources of requests that are no webhooks, such as a mailbox.

::

    channel.listen ──feed.deliver──> verify, parse ──> queue ──commit──> events and position in the store
                                          └─> rejects ───┘

A source is read on only after the commit, so that what was read and not kept is read again.
"""

import asyncio
import time
import traceback
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from random import random
from typing import Self, TypeVar

import structlog

from convsdk.core.events import Event
from convsdk.core.ports import Channel, Clock, Feed, Request
from convsdk.errors import ConvsdkError, Forbidden, ParseError, PermanentError, TransientError
from convsdk.hub import Hub
from convsdk.ingest import Ingest
from convsdk.lease import Lease
from convsdk.rejects import Rejects

# What passes by itself is tried again soon; where somebody has to act first, that is no use.
_SOON_S, _SOON_MOST_S = 1.0, 60.0
_SELDOM_S, _SELDOM_MOST_S = 60.0, 3600.0
_FINE_S = 60.0  # who listened for so long, or heard something, fails for the first time again

_Result = TypeVar("_Result")

_log = structlog.get_logger(__name__)


class Listening:
    """Runs every channel of `hubs` that listens, while the context lasts; what it cannot read goes to `rejects`.

    ::

        async with Listening(hub, rejects=Rejects(folder)) as listening:
            print(listening.channels)

    A channel that fails is started again, later each time. Of several processes with one store, one runs a channel;
    another takes over when that one ends, or is silent for `lease_s`. At the end, what is being delivered is kept,
    for `grace_s` at most. `clock` gives the present moment, `random` numbers from 0 to 1. The hubs stay open for
    their maker to close.
    """

    def __init__(
        self,
        *hubs: Hub,
        rejects: Rejects,
        clock: Clock = lambda: datetime.now(UTC),
        random: Callable[[], float] = random,
        lease_s: float = 30.0,
        grace_s: float = 30.0,
    ) -> None:
        self._closing = asyncio.Event()
        found = [(hub, channel) for hub in hubs for channel in hub.channels.values() if channel.listens]
        self._queues = {hub: Ingest(hub) for hub, _ in found}
        self._listeners = [
            _Listener(
                channel,
                _Feed(hub, channel, queue=self._queues[hub], rejects=rejects, clock=clock, random=random),
                Lease(hub, f"listening/{channel.name}", clock=clock, length_s=lease_s),
                random=random,
                look_s=lease_s / 10,
                grace_s=grace_s,
            )
            for hub, channel in found
        ]
        self._running: list[asyncio.Task[None]] = []

    @property
    def channels(self) -> tuple[str, ...]:
        """Give the names of the channels that listen."""
        return tuple(sorted(one.channel.name for one in self._listeners))

    async def __aenter__(self) -> Self:
        self._running = [asyncio.create_task(one.run(self._closing)) for one in self._listeners]
        return self

    async def __aexit__(self, *_error: object) -> None:
        self._closing.set()
        await asyncio.gather(*self._running)
        await asyncio.gather(*(asyncio.to_thread(one.close) for one in self._queues.values()))


class _Feed(Feed):
    """What one channel hands in: kept with its position, however often that has to be tried."""

    def __init__(
        self,
        hub: Hub,
        channel: Channel,
        *,
        queue: Ingest,
        rejects: Rejects,
        clock: Clock,
        random: Callable[[], float],
    ) -> None:
        self.heard = 0
        self.ending = asyncio.Event()
        self._hub = hub
        self._channel = channel
        self._queue = queue
        self._rejects = rejects
        self._clock = clock
        self._random = random

    def now(self) -> datetime:
        return self._clock()

    async def position(self, name: str) -> str | None:
        return await self._insist(
            lambda: asyncio.to_thread(self._hub.store.checkpoint, self._hub.workspace, self._key(name))
        )

    async def deliver(self, request: Request, *, position: tuple[str, str] | None = None) -> None:
        began = time.perf_counter()

        async def work() -> None:
            self._tell(*await self._take(request, self._checkpoints(position)), began)

        await self._insist(work)

    async def set_aside(self, request: Request, why: str, *, position: tuple[str, str] | None = None) -> None:
        began = time.perf_counter()

        async def work() -> None:
            kept = await self._reject(request, ParseError(why), self._checkpoints(position))
            self._tell("aside", f"{kept}: {why}", began)

        await self._insist(work)

    async def move(self, position: tuple[str, str]) -> None:
        await self._insist(lambda: self._keep((), self._checkpoints(position)))

    def _key(self, name: str) -> str:
        return f"listening/{self._channel.name}/{name}"

    def _checkpoints(self, position: tuple[str, str] | None) -> Mapping[str, str]:
        return {self._key(position[0]): position[1]} if position else {}

    def _tell(self, outcome: str, why: str, began: float) -> None:
        self.heard += 1
        took_ms = round((time.perf_counter() - began) * 1000, 1)
        more = {"why": why} if why else {}
        _log.info("heard", channel=self._channel.name, outcome=outcome, duration_ms=took_ms, **more)

    async def _insist(self, work: Callable[[], Awaitable[_Result]]) -> _Result:
        """Do `work`, again where it did not work now; who is cancelled meanwhile ends after it."""
        task = asyncio.ensure_future(self._repeat(work))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            try:
                await asyncio.wait({task})
            finally:
                task.cancel()
            if not task.cancelled():
                task.exception()  # it was told to the log
            raise

    async def _repeat(self, work: Callable[[], Awaitable[_Result]]) -> _Result:
        tries = 0
        while True:
            try:
                return await work()
            except TransientError as error:
                pause_s = _pause(error, tries, self._random())
                _log.warning(
                    "what was heard waits", channel=self._channel.name, why=str(error), retry_in_s=round(pause_s, 1)
                )
                tries += 1
                if await _is_set(self.ending, within_s=pause_s):
                    raise

    async def _take(self, request: Request, checkpoints: Mapping[str, str]) -> tuple[str, str]:
        try:
            # In a thread: what somebody made for it takes seconds to parse.
            events = await asyncio.to_thread(_read, self._hub, self._channel, request)
        except Forbidden as error:
            await self._keep((), checkpoints)
            return "forbidden", str(error)
        except ParseError as error:
            return "aside", await self._reject(request, error, checkpoints)
        unkept = await self._keep(events, checkpoints)
        if unkept is None:
            return "taken", ""
        return "aside", await self._reject(request, unkept, checkpoints)

    async def _keep(self, events: Sequence[Event], checkpoints: Mapping[str, str]) -> Exception | None:
        """Keep `events` with `checkpoints`; give the error of one that cannot be kept, of which the rest is kept."""
        try:
            await self._queue.receive_async(self._channel.name, events, checkpoints=checkpoints)
        except (PermanentError, ValueError) as error:
            if not events:
                raise
            if len(events) == 1:
                return error
            middle = len(events) // 2
            errors = [await self._keep(part, {}) for part in (events[:middle], events[middle:])]
            return errors[0] or errors[1]
        return None

    async def _reject(self, request: Request, error: Exception, checkpoints: Mapping[str, str]) -> str:
        try:
            kept = await asyncio.to_thread(self._rejects.keep, self._channel.name, request, error)
        except OSError as problem:
            raise TransientError(
                f"{self._rejects.folder}: what cannot be taken in cannot be kept aside either ({problem.strerror}): "
                "let the folder be written to"
            ) from problem
        await self._keep((), checkpoints)
        return f"reject {kept.id}"


class _Listener:
    """Runs one channel while this process has its lease."""

    def __init__(
        self,
        channel: Channel,
        feed: _Feed,
        lease: Lease,
        *,
        random: Callable[[], float],
        look_s: float,
        grace_s: float,
    ) -> None:
        self.channel = channel
        self._feed = feed
        self._lease = lease
        self._random = random
        self._look_s = look_s
        self._grace_s = grace_s

    async def run(self, closing: asyncio.Event) -> None:
        """Listen until `closing` is set."""
        is_ours, task = False, None
        while not closing.is_set():
            is_ours = await self._hold(is_ours=is_ours)
            if task and (not is_ours or task.done()):
                await self._end(task)
                task = None
            if is_ours and task is None:
                self._feed.ending.clear()
                task = asyncio.create_task(self._listen())
            await _is_set(closing, within_s=self._look_s)
        if task:
            await self._end(task)
        await self._release()

    async def _hold(self, *, is_ours: bool) -> bool:
        try:
            return await asyncio.to_thread(self._lease.hold)
        except Exception as error:  # noqa: BLE001  (boundary: the worker loop goes on when the store is back)
            _log.error("a channel that listens waits for the store", channel=self.channel.name, why=_told(error))
            return is_ours

    async def _release(self) -> None:
        try:
            await asyncio.to_thread(self._lease.release)
        except Exception as error:  # noqa: BLE001  (boundary, as above: another process will wait for a while)
            _log.error("a channel that listens ends without the store", channel=self.channel.name, why=_told(error))

    async def _listen(self) -> None:
        tries = 0
        while True:
            began, heard = time.monotonic(), self._feed.heard
            try:
                await self.channel.listen(self._feed)
                tries, pause_s = 0, _pause(None, 0, self._random())
            except Exception as error:  # noqa: BLE001  (boundary: the worker loop outlives a channel's mistakes)
                is_anew = self._feed.heard > heard or time.monotonic() - began > _FINE_S
                tries = 0 if is_anew else tries
                pause_s = _pause(error, tries, self._random())
                tries += 1
                _log.warning(
                    "a channel stopped listening",
                    channel=self.channel.name,
                    why=_told(error),
                    retry_in_s=round(pause_s, 1),
                )
            await asyncio.sleep(pause_s)

    async def _end(self, task: "asyncio.Task[None]") -> None:
        self._feed.ending.set()
        task.cancel()
        _, late = await asyncio.wait({task}, timeout=self._grace_s)
        if late:
            task.cancel()  # once more: the first one waits for what is being kept
            await asyncio.wait({task}, timeout=self._look_s)


def _read(hub: Hub, channel: Channel, request: Request) -> Sequence[Event]:
    try:
        return hub.read(channel.name, request)
    except ConvsdkError:
        raise
    except Exception as error:
        # Boundary: a source is read in order, so that a mistake of the channel's would keep back all that follows.
        raise ParseError(f"channel {channel.name!r} has a bug: {_place(error)}") from error


def _place(error: BaseException) -> str:
    at = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} at {at.filename}:{at.lineno}"


def _told(error: Exception) -> str:
    # Of an error that is not ours, the text can hold anybody's words.
    return str(error) if isinstance(error, ConvsdkError) else _place(error)


def _pause(error: Exception | None, tries: int, chance: float) -> float:
    if isinstance(error, TransientError) and error.retry_after_s is not None:
        return max(error.retry_after_s, _SOON_S)
    is_soon = error is None or isinstance(error, TransientError)
    first, most = (_SOON_S, _SOON_MOST_S) if is_soon else (_SELDOM_S, _SELDOM_MOST_S)
    return min(first * 2.0 ** min(tries, 32), most) * (0.5 + chance / 2)  # not all at once, where a server comes back


async def _is_set(event: asyncio.Event, *, within_s: float) -> bool:
    try:
        async with asyncio.timeout(within_s):
            await event.wait()
    except TimeoutError:
        return False
    return True
