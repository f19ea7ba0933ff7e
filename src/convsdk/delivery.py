"""Delivers what was queued: from the store to the platforms, by the channels that send.

::

    store ──due──> route of a channel ──send──> platform
                     └──ledger: what became of each, many in one transaction──> store

Each channel has its route: a slow platform holds up no other. Of a conversation one message goes at a time, in order.
What a worker has is marked as its own, and what it has sent as under way, before it is sent: so that another worker,
which takes over from one that died, knows which outcomes nobody knows.
"""

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from random import random
from typing import Self

import httpx
import structlog
from attrs import evolve, frozen

from convsdk.automatic import HEARD, LONGEST
from convsdk.core.model import Attachment
from convsdk.core.ports import Channel, Clock, File, Outbound, Receipt
from convsdk.core.storage import Delivery, Transaction
from convsdk.core.ways import recipient, spelling
from convsdk.errors import ConvsdkError, NotFound, PermanentError, TransientError, UncertainError, words_of
from convsdk.hub import Hub
from convsdk.lease import MARK, Presence
from convsdk.outcomes import (
    MOST_S,
    SOON_S,
    Job,
    Step,
    arrived,
    backoff_s,
    failed,
    freed,
    jobs_of,
    put_off,
    storable,
    under_way,
    unknown,
    write_down,
)
from convsdk.reports import KEPT, REPORT, SAID

_SEND_S = 600.0  # as the last resort: each transport has a patience of its own
_MENDING_S = 5.0
_TIDY_S = 3600.0
_FORWARD_S = 60.0
_OWN_DETAIL = {"token", "sent_at", "error", "error_code", "parts_done", "is_automatic", "subject", "way"}
_UNSENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol)

_log = structlog.get_logger(__name__)


class _Ledger:
    """Writes down what became of deliveries: all that comes while it writes goes into its next transaction."""

    def __init__(self, hub: Hub, owner: str, clock: Clock) -> None:
        self._hub = hub
        self._owner = owner
        self._clock = clock
        self._waiting: list[tuple[Step, asyncio.Future[bool]]] = []
        self._writing: asyncio.Task[None] | None = None

    async def write(self, step: Step) -> bool:
        """Return once `step` is on disk, and say whether its delivery is still this worker's."""
        done = asyncio.get_running_loop().create_future()
        self._waiting.append((step, done))
        if self._writing is None:
            self._writing = asyncio.create_task(self._write_all())
        return await asyncio.shield(done)

    async def end(self, most_s: float) -> bool:
        """Wait until all is written; say whether it is."""
        if self._writing is not None:
            await asyncio.wait([self._writing], timeout=most_s)
        return self._writing is None

    async def _write_all(self) -> None:
        try:
            while self._waiting:
                page, self._waiting = self._waiting, []
                await self._write_page(page)
        finally:
            self._writing = None

    async def _write_page(self, page: list[tuple[Step, asyncio.Future[bool]]]) -> None:
        steps = [step for step, _ in page]
        while True:
            try:
                are_ours = await asyncio.to_thread(self._transact, steps)
            except Exception as error:  # noqa: BLE001  (boundary: what went out is remembered until the store is back)
                _log.error("what became of messages cannot be written down", messages=len(steps), why=words_of(error))
                await asyncio.sleep(_MENDING_S)
                continue
            for (step, done), is_ours in zip(page, are_ours, strict=True):
                if step.outcome and (is_ours or step.is_fact):
                    self._hub.delivered[step.job.delivery.channel, step.outcome] += 1
                done.set_result(is_ours)
            break

    def _transact(self, steps: Sequence[Step]) -> list[bool]:
        at = self._clock()
        return self._hub.transact(lambda one: write_down(one, steps, self._owner, at))


class _Pace:
    """Lets no more than `per_s` pass in a second (None: any number), and none while the platform wants a pause."""

    def __init__(self, per_s: float | None) -> None:
        self._gap_s = 1 / per_s if per_s else 0.0
        self._next_at = 0.0
        self._paused_until = 0.0

    @property
    def is_pausing(self) -> bool:
        """Say whether the platform wants to be left alone for now."""
        return time.monotonic() < self._paused_until

    async def keep(self, closing: asyncio.Event) -> bool:
        """Wait for one's turn; say whether it is one: not in a pause, nor once `closing` is set."""
        now = time.monotonic()
        turn = max(now, self._next_at)
        self._next_at = turn + self._gap_s
        if turn > now:
            await _wait(closing, turn - now)
        return not closing.is_set() and not self.is_pausing

    def pause(self, pause_s: float) -> None:
        """Let nobody pass for so long."""
        self._paused_until = max(self._paused_until, time.monotonic() + pause_s)


class _Route:
    """Takes to one channel what is queued for it."""

    def __init__(self, channel: Channel, means: "_Means") -> None:
        self.name = channel.name
        self.closing = asyncio.Event()
        self.woken = asyncio.Event()
        self._channel = channel
        self._means = means
        self._pace = _Pace(channel.can.max_per_s)
        self._jobs: deque[Job] = deque()
        self._running: dict[asyncio.Task[None], Job] = {}
        self._was_cut_off = False

    async def run(self) -> None:
        """Deliver until `closing`; then let what is under way end, and give the rest back."""
        try:
            await self._follow()
            jobs = list(self._jobs)
            self._jobs.clear()
            await asyncio.gather(*self._running, *(self._means.ledger.write(freed(job)) for job in jobs))
        finally:
            await self._channel.close()

    async def _follow(self) -> None:
        while not self.closing.is_set():
            self.woken.clear()
            is_full = False
            try:
                is_full = await self._fetch()
            except Exception as error:  # noqa: BLE001  (boundary: the worker loop goes on when the store is back)
                _log.error("a channel's messages wait for the store", channel=self.name, why=words_of(error))
                await _wait(self.closing, _MENDING_S)
            self._start()
            if not is_full or self._is_busy:
                await _wait(self.woken, self._means.poll_s)

    @property
    def _is_busy(self) -> bool:
        return len(self._running) >= self._means.concurrency

    async def _fetch(self) -> bool:
        """Take more of what is due, before there is nothing left to do; say whether there may be more still."""
        wanted = self._means.concurrency * 2 - len(self._jobs) - len(self._running)
        if wanted < self._means.concurrency or not self._means.presence.is_fresh or self._pace.is_pausing:
            return False
        held = {one.delivery.message for one in (*self._jobs, *self._running.values())}
        jobs = await asyncio.to_thread(self._claim, wanted, held)
        self._jobs += jobs
        return len(jobs) >= wanted

    def _claim(self, limit: int, held: Collection[int]) -> list[Job]:
        hub, at = self._means.hub, self._means.clock()
        owner = self._means.presence.owner
        was_cut_off, self._was_cut_off = self._was_cut_off, True

        def work(transaction: Transaction) -> list[Delivery]:
            # What was claimed when the store went away is this worker's, and nobody else would take it.
            ours = transaction.deliveries_of(owner) if was_cut_off else []
            astray = [one for one in ours if one.channel == self.name and one.message not in held]
            return astray + transaction.due(self.name, owner=owner, at=at, limit=limit)

        jobs = jobs_of(hub, hub.store.transact(hub.workspace, work))
        self._was_cut_off = False
        return jobs

    def _start(self) -> None:
        while self._jobs and not self._is_busy:
            job = self._jobs.popleft()
            task = asyncio.create_task(self._deliver(job))
            self._running[task] = job
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        del self._running[task]
        self.woken.set()

    async def _deliver(self, job: Job) -> None:
        try:
            step = await self._send(job)
        except Exception as error:  # noqa: BLE001  (boundary: a mistake in an adapter holds up no other message)
            _log.error("a channel failed", channel=self.name, message=job.delivery.message, why=words_of(error))
            step = self._unknown(job, error)
        if step:
            await self._means.ledger.write(step)

    async def _send(self, job: Job) -> Step | None:
        """Send what is left of a message; give how that ended, unless it is written down already."""
        at = self._means.clock()
        if job.refusal:
            return failed(job, job.refusal, at)
        try:
            parts = self._channel.parts(await self._outbound(job))
            for number in range(job.delivery.parts_done, len(parts)):
                if not await self._send_part(job, parts, number):
                    return None
        except (TransientError, *_UNSENT) as error:
            return self._put_off(job, error)
        except (UncertainError, httpx.HTTPError, OSError) as error:
            return self._unknown(job, error)
        except (ConvsdkError, httpx.InvalidURL) as error:
            code = (error.code or "") if isinstance(error, PermanentError) else ""
            return failed(job, words_of(error), self._means.clock(), code=storable(code))
        # An echo has said that the last part is there.
        is_done = job.delivery.parts_done >= len(parts)
        return arrived(job, len(parts) - 1, Receipt(), at, is_last=True) if is_done else None

    async def _send_part(self, job: Job, parts: Sequence[Outbound], number: int) -> bool:
        """Send a part and write that down; say whether the next may go."""
        if not await self._pace.keep(self.closing) or not self._means.presence.is_fresh:
            await self._means.ledger.write(freed(job))
            return False
        at = self._means.clock()
        part = evolve(parts[number], at=at)
        can = self._channel.can
        # An echo can come before the answer does.
        is_marked = can.echoes or not can.is_idempotent
        mark = under_way(job, part, number, is_echoed=can.echoes)
        if is_marked and not await self._means.ledger.write(mark):
            return False
        async with asyncio.timeout(_SEND_S):
            receipt = await self._channel.send(part, self._means.client)
        is_last = number + 1 == len(parts)
        is_ours = await self._means.ledger.write(arrived(job, number, receipt, at, is_last=is_last))
        return is_ours and not is_last

    def _put_off(self, job: Job, error: TransientError | httpx.TransportError) -> Step:
        asked_s = error.retry_after_s if isinstance(error, TransientError) else None
        pause_s = self._backoff_s(job) if asked_s is None else max(SOON_S, asked_s)
        if asked_s is not None:
            # As it was asked for: that is no failed try. Whoever is next would be told the same.
            self._pace.pause(min(pause_s, MOST_S))
        message, why = job.delivery.message, words_of(error)
        _log.warning("a message was put off", channel=self.name, message=message, why=why, retry_in_s=round(pause_s, 1))
        return put_off(job, pause_s, self._means.clock(), error=why, is_a_try=asked_s is None)

    def _backoff_s(self, job: Job) -> float:
        return backoff_s(job.delivery.tries, self._means.random())

    def _unknown(self, job: Job, error: Exception) -> Step:
        return unknown(job, self._channel.can, words_of(error), self._means.clock(), self._means.random())

    async def _outbound(self, job: Job) -> Outbound:
        message, filing = job.outgoing.message, job.outgoing.filing
        detail = message.detail or {}
        to = recipient(message, filing)
        if to is None:
            raise PermanentError(f"conversation {filing.id} is nobody's: there is no address")
        return Outbound(
            to=to,
            address=spelling(message) or (job.outgoing.address if to == filing.identifier else "") or to.value,
            text=message.text,
            html=message.html,
            subject=detail.get("subject") or filing.subject,
            token=detail.get("token", ""),
            thread=filing.thread if message.channel == filing.channel else "",
            external_id=message.external_id,
            references=job.outgoing.references,
            attachments=tuple([await asyncio.to_thread(self._file, one) for one in message.attachments]),
            heard_at=job.outgoing.heard_at,
            detail={key: value for key, value in detail.items() if key not in _OWN_DETAIL},
            is_automatic=bool(detail.get("is_automatic")),
            at=self._means.clock(),
        )

    def _file(self, attachment: Attachment) -> File:
        is_public = attachment.url.startswith(("https://", "http://"))
        archive, content = self._means.hub.archive, b""
        if archive is None and not is_public:
            raise PermanentError(
                f"the file {attachment.name!r} is in the archive, and this worker has none: give it the same one"
            )
        try:
            content = archive.get(attachment.url) if archive else b""
        except NotFound as error:
            if not is_public:
                raise PermanentError(f"the file {attachment.name!r} is not there any more: {error}") from error
        return File(
            name=attachment.name,
            media_type=attachment.media_type,
            content=content,
            url=attachment.url if is_public else "",
            content_id=attachment.content_id,
        )


@frozen(kw_only=True)
class _Means:
    """What all routes of a worker share."""

    hub: Hub
    client: httpx.AsyncClient
    ledger: _Ledger
    presence: Presence
    clock: Clock
    random: Callable[[], float]
    poll_s: float
    concurrency: int


class Deliverer:
    """Delivers what is queued on the channels of `hub` that send, from its start to its end.

    ::

        async with httpx.AsyncClient() as client, Deliverer(hub, client) as deliverer:
            ...  # what this hub queues goes at once; what others queue, within poll_s

    Any number of workers may deliver from one store: each delivery is one's, and those of one that is silent for
    `lease_s` are taken over. `concurrency` is how many conversations of a channel are written to at a time. At its end
    it lets what is under way finish, for `grace_s` at most. `clock` gives the present moment, `random` numbers from 0
    to 1. The hub and the client stay open for their maker to close.
    """

    def __init__(
        self,
        hub: Hub,
        client: httpx.AsyncClient,
        *,
        clock: Clock = lambda: datetime.now(UTC),
        random: Callable[[], float] = random,
        poll_s: float = 1.0,
        lease_s: float = 30.0,
        grace_s: float = 10.0,
        concurrency: int = 16,
    ) -> None:
        self._hub = hub
        self._clock = clock
        self._grace_s = grace_s
        self._lease_s = lease_s
        self._random = random
        self._presence = Presence(hub, clock=clock, length_s=lease_s)
        self._ledger = _Ledger(hub, self._presence.owner, clock)
        means = _Means(
            hub=hub,
            client=client,
            ledger=self._ledger,
            presence=self._presence,
            clock=clock,
            random=random,
            poll_s=poll_s,
            concurrency=concurrency,
        )
        self._routes = [_Route(one, means) for one in hub.channels.values() if one.can.sends]
        self._closing = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop_waking: tuple[Callable[[], None], ...] = ()
        self._running: list[asyncio.Task[None]] = []
        self._tidied_at = self._forward_at = -math.inf

    @property
    def channels(self) -> list[str]:
        """Give the names of the channels that it delivers to."""
        return sorted(one.name for one in self._routes)

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        await self._keep_house()
        self._stop_waking = (self._hub.on_queued(self.wake), self._hub.store.listen(self.wake))
        self._running = [asyncio.create_task(one) for one in (self._watch(), *(route.run() for route in self._routes))]
        return self

    async def __aexit__(self, *_error: object) -> None:
        self._closing.set()
        for route in self._routes:
            route.closing.set()
            route.woken.set()
        _, late = await asyncio.wait(self._running, timeout=self._grace_s)
        for one in late:
            one.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        for stop in self._stop_waking:
            stop()
        self._loop = None
        if await self._ledger.end(self._grace_s):
            with suppress(ConvsdkError):  # without the store: another worker takes over
                await asyncio.to_thread(self._take_over, self._presence.owner, None)

    def wake(self) -> None:
        """Say that there is something to deliver. From any thread, and at any time."""
        if loop := self._loop:
            with suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        for route in self._routes:
            route.woken.set()

    async def _watch(self) -> None:
        while not self._closing.is_set():
            await _wait(self._closing, self._lease_s / 4)
            await self._keep_house()

    async def _keep_house(self) -> None:
        try:
            await asyncio.to_thread(self._look_after)
        except Exception as error:  # noqa: BLE001  (boundary: the worker loop goes on when the store is back)
            _log.error("a deliverer waits for the store", why=words_of(error))

    # -- in threads

    def _look_after(self) -> None:
        """Renew the mark, take over from who is gone, and now and then see to clocks and to what is too old."""
        self._presence.renew()
        for owner, mark in self._presence.gone():
            self._take_over(owner, mark)
        store, workspace, at, now = self._hub.store, self._hub.workspace, self._clock(), time.monotonic()
        if now - self._forward_at > _FORWARD_S:
            # Another host's clock may be ahead of this one's by a little: that is no clock that was set back.
            store.transact(workspace, lambda one: one.bring_forward(at + timedelta(seconds=_FORWARD_S)))
            self._forward_at = now
        if now - self._tidied_at > _TIDY_S:
            store.transact(workspace, lambda one: one.forget_memos(REPORT, before=at - KEPT))
            store.transact(workspace, lambda one: one.forget_memos(SAID, before=at - KEPT))
            store.transact(workspace, lambda one: one.forget_memos(MARK, before=at - KEPT))
            store.transact(workspace, lambda one: one.forget_memos(HEARD, before=at - LONGEST))
            self._tidied_at = now

    def _take_over(self, owner: str, mark: str | None) -> None:
        """Free the deliveries of a worker that is gone, and deal with those whose outcome nobody knows."""
        hub, at = self._hub, self._clock()

        def work(transaction: Transaction) -> None:
            deliveries = [one for one in transaction.deliveries_of(owner) if one.channel in hub.channels]
            memo = transaction.memo(MARK, owner)
            if mark is None or (memo.text if memo else "") == mark:
                write_down(transaction, [self._left_over(one, at) for one in jobs_of(hub, deliveries)], owner, at)

        hub.transact(work)

    def _left_over(self, job: Job, at: datetime) -> Step:
        if not job.delivery.is_under_way:
            return freed(job)
        can = self._hub.channels[job.delivery.channel].can
        return unknown(job, can, "the worker that sent it ended before the answer", at, self._random())


async def _wait(event: asyncio.Event, most_s: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(most_s):
            await event.wait()
