"""From a webhook request to its answer: what is taken, what is refused, and what is kept aside.

::

    read ──> fetch what is wanted ──> challenge, verify, parse ──> queue ──commit──> 2xx
     │ 404 408 413   │ 503                   │ 403   │               │ 503
                                                     └──> rejects ───┘ 2xx

A 2xx says: this is on disk, do not send it again. Either the events are in the store, or the request is among the
rejects, where the operator can run it again. Its sender could do nothing but send the same bytes: platforms repeat
what gets any other answer for a day or more, and some then switch the webhook off, and with it all other messages.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from enum import StrEnum
from functools import cached_property
from time import perf_counter

import httpx
import structlog
from attrs import frozen

from convsdk.core.events import Event
from convsdk.core.ports import Channel, Request, Response
from convsdk.desk import Received
from convsdk.errors import ConvsdkError, Forbidden, ParseError, PermanentError, TransientError
from convsdk.fetch import Fetcher
from convsdk.hub import Hub
from convsdk.ingest import Ingest
from convsdk.memory import Share
from convsdk.patience import Bulkhead, StuckError
from convsdk.rejects import Rejects
from convsdk.web.exchange import REPAIR_S, RETRY_S, UnreadError, retry_after
from convsdk.web.metrics import NO_CHANNEL, Metrics

# Below, a hand-over to a thread costs more than it frees: checking and parsing so much takes a millisecond or two.
_LARGE_BYTES = 65_536
_SLOTS = 4  # of one channel: as many may hang, or compute without end, beside all the others

_log = structlog.get_logger(__name__)


class Fate(StrEnum):
    """What became of a request."""

    TAKEN = "taken"
    CHALLENGE = "challenge"
    ASIDE = "aside"
    FORBIDDEN = "forbidden"
    UNKNOWN = "unknown"
    OVERSIZED = "oversized"
    SLOW = "slow"
    GONE = "gone"
    BUSY = "busy"
    DRAINING = "draining"
    FAILED = "failed"


@frozen(kw_only=True)
class Settled:
    """What became of a request, what its sender is told, and what the log is told beside (`why`).

    `is_read` says whether the body was read to its end.
    """

    fate: Fate
    response: Response
    why: str = ""
    is_read: bool = True


def _later(fate: Fate, pause_s: float, *, why: str = "", is_read: bool = True) -> Settled:
    response = Response(status=503, headers=tuple(retry_after(pause_s).items()))
    return Settled(fate=fate, response=response, why=why, is_read=is_read)


class Webhooks:
    """Takes requests to channels, each into its hub by name. `ingest` is the queue to use (None: one for each).

    `client` fetches what channels want (None: one of its own). A channel that is not convsdk's own may take
    `channel_time_s` to read a request.
    """

    def __init__(
        self,
        *,
        hubs: Mapping[str, Hub],
        ingest: Ingest | None,
        rejects: Rejects,
        channel_time_s: float,
        client: httpx.AsyncClient | None = None,
    ) -> None:
        self.metrics = Metrics(
            waiting=lambda: sum(one.waiting for one in self._queues.values()), hubs=set(hubs.values())
        )
        self.is_draining = False
        self._hubs = hubs
        self._given = ingest
        self._rejects = rejects
        self._channel_time_s = channel_time_s
        self._given_client = client

    @cached_property
    def _fetcher(self) -> Fetcher:
        return Fetcher(self._given_client or self._client)

    @cached_property
    def _client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient()

    @cached_property
    def _queues(self) -> Mapping[Hub, Ingest]:
        # Not before they are needed: a server may load the app and fork, which threads do not survive.
        return {hub: self._given or Ingest(hub) for hub in set(self._hubs.values())}

    @cached_property
    def _bulkheads(self) -> Mapping[str, Bulkhead]:
        """Give one for each channel that is not ours: what may be in the code of others, no test of ours has seen."""
        channels = (hub.channels[name] for name, hub in self._hubs.items())
        foreign = (one.name for one in channels if not type(one).__module__.startswith("convsdk."))
        return {name: Bulkhead(slots=_SLOTS, most_s=self._channel_time_s) for name in foreign}

    async def drain(self) -> None:
        """Refuse what comes from now on, and return when everything that was taken is in the store."""
        self.is_draining = True
        if self._given is None:
            await asyncio.gather(*(asyncio.to_thread(one.close) for one in self._queues.values()))
        if "_client" in vars(self):
            await self._client.aclose()

    def receive(self, channel: str, events: Sequence[Event]) -> tuple[Received, ...]:
        """Keep what came by another way than a webhook. Blocks, for a thread; raises what `Ingest.receive` does."""
        if self.is_draining:
            raise TransientError("the server shuts down: try again", retry_after_s=RETRY_S)
        began = perf_counter()
        received = self._queues[self._hubs[channel]].receive(channel, events)
        self.metrics.count_commit(channel, received, took_s=perf_counter() - began)
        return received

    async def take(self, name: str, read: Callable[[], Awaitable[Request]], *, share: Share) -> Settled:
        """Take what `read` gives in through the channel `name`; counted and told to the log, whatever comes of it.

        `share` is what it has of the memory: what is fetched for it counts there too.
        """
        label = name if name in self._hubs else NO_CHANNEL
        began = perf_counter()
        settled = None
        try:
            settled = await self._settle(name, read, share)
        finally:  # a channel with a bug, too, or a sender that hung up
            self._tell(label, settled, took_s=perf_counter() - began)
        return settled

    def _tell(self, label: str, settled: Settled | None, *, took_s: float) -> None:
        fate = settled.fate if settled else Fate.FAILED
        self.metrics.count_request(label, fate)
        why = {"why": settled.why} if settled and settled.why else {}
        log = _log.error if fate is Fate.FAILED else _log.info
        log("webhook", channel=label, outcome=fate.value, duration_ms=round(took_s * 1000, 1), **why)

    async def _settle(self, name: str, read: Callable[[], Awaitable[Request]], share: Share) -> Settled:
        if self.is_draining:
            return _later(Fate.DRAINING, RETRY_S, is_read=False)
        hub = self._hubs.get(name)
        if hub is None or not hub.channels[name].is_webhook:
            return Settled(fate=Fate.UNKNOWN, response=Response(status=404), is_read=False)
        try:
            return await self._take(hub, hub.channels[name], await read(), share)
        except UnreadError as error:
            pause = {} if error.retry_after_s is None else retry_after(error.retry_after_s)
            response = Response(status=error.status, headers=tuple(pause.items()))
            return Settled(fate=Fate(error.reason), response=response, why=error.why, is_read=False)
        except Forbidden as error:
            return Settled(fate=Fate.FORBIDDEN, response=Response(status=403), why=str(error))
        except TransientError as error:
            pause_s = RETRY_S if error.retry_after_s is None else error.retry_after_s
            return _later(Fate.BUSY, pause_s, why=str(error))
        except ConvsdkError as error:  # such as a disk that was taken away: nothing is lost, the platform comes again
            return _later(Fate.FAILED, REPAIR_S, why=str(error))

    async def _take(self, hub: Hub, channel: Channel, request: Request, share: Share) -> Settled:
        if type(channel).wants is not Channel.wants:
            request = await self._fetcher.complete(channel, request, share=share)
        try:
            found = await self._read(hub, channel, request)
        except ParseError as error:
            return await self._set_aside(channel, request, error)
        if isinstance(found, Response):
            return Settled(fate=Fate.CHALLENGE, response=found)
        unkept = await self._keep(self._queues[hub], channel, found)
        if unkept is not None:
            return await self._set_aside(channel, request, unkept)
        return Settled(fate=Fate.TAKEN, response=channel.answer(found))

    async def _read(self, hub: Hub, channel: Channel, request: Request) -> Response | Sequence[Event]:
        """Give the answer to a set-up handshake, or the events of an authentic request."""

        def read() -> Response | Sequence[Event]:
            if response := channel.challenge(request):
                return response
            return hub.read(channel.name, request)

        if bulkhead := self._bulkheads.get(channel.name):
            try:
                return await bulkhead.call(read)
            except StuckError as error:
                _log.error("a channel does not come back from a request", channel=channel.name, at=error.place)
                raise TransientError("the channel does not come back", retry_after_s=REPAIR_S) from error
        # What computes for long, or waits for an archive, would keep all other requests of the process waiting.
        is_slow = len(request.body) > _LARGE_BYTES or hub.waits_to_read(channel.name)
        return await asyncio.to_thread(read) if is_slow else read()

    async def _keep(self, queue: Ingest, channel: Channel, events: Sequence[Event]) -> Exception | None:
        """Keep `events`, and give the error of one that cannot be kept: by halves, as it spoils no other."""
        began = perf_counter()
        try:
            received = await queue.receive_async(channel.name, events)
        except (PermanentError, ValueError) as error:
            if len(events) == 1:
                return error
            middle = len(events) // 2
            errors = [await self._keep(queue, channel, part) for part in (events[:middle], events[middle:])]
            return errors[0] or errors[1]
        if received:
            self.metrics.count_commit(channel.name, received, took_s=perf_counter() - began)
        return None

    async def _set_aside(self, channel: Channel, request: Request, error: Exception) -> Settled:
        try:
            kept = await asyncio.to_thread(self._rejects.keep, channel.name, request, error)
        except OSError as problem:
            raise TransientError(
                f"{self._rejects.folder}: what cannot be taken in cannot be kept aside either ({problem.strerror}): "
                "let the folder be written to",
                retry_after_s=REPAIR_S,
            ) from problem
        self.metrics.count_reject(channel.name)
        return Settled(fate=Fate.ASIDE, response=channel.answer(()), why=f"reject {kept.id}")
