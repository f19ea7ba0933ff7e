"""What is new, told at once: one look at the notices of the store for any number of event streams.

A stream says that there is something, and never what: whoever listens reads it from the store, by the same request as
one that asks every few seconds. So nothing is lost or doubled where a stream breaks, a notice comes late, or another
process wrote.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from typing import Any

import msgspec
import structlog
from attrs import define, field

from convsdk.errors import ConvsdkError
from convsdk.hub import Hub
from convsdk.web.attendance import Attendance

_LOOK_S = 0.5
_MEND_S = 2.0
_HEARTBEAT_S = 15.0  # proxies end what is silent for a minute
_PAGE = 500
# Where several processes write, a notice can come after one with a higher id. To tell of one twice does no harm.
_LATE = 1000
_log = structlog.get_logger(__name__)

Key = tuple[str, str] | int
"""What a stream wants to hear of: a thread, as channel and name, or a conversation."""


@define(eq=False)
class Stream:
    """One open event stream: what it wants to hear of, and what was not sent to it yet."""

    keys: frozenset[Key]
    news: dict[str, dict[str, Any]] = field(factory=dict)
    told: asyncio.Event = field(factory=asyncio.Event)
    is_over: bool = False

    def tell(self, event: str, **data: Any) -> None:  # noqa: ANN401  (plain JSON values)
        """Have an event sent. One of the same kind and conversation that was not sent yet is replaced by it."""
        self.news[f"{event} {data.get('conversation', '')}"] = {"event": event, **data}
        self.told.set()

    async def events(self) -> AsyncIterator[bytes]:
        """Give what is to be sent, as it comes, in the format of server-sent events."""
        yield b"event: ready\ndata: {}\n\n"
        while not self.is_over:
            try:
                async with asyncio.timeout(_HEARTBEAT_S):
                    await self.told.wait()
            except TimeoutError:
                yield b":\n\n"
                continue
            self.told.clear()
            news, self.news = self.news, {}
            for data in news.values():
                event = data.pop("event")
                yield b"event: %b\ndata: %b\n\n" % (event.encode(), msgspec.json.encode(data))
                if event == "session":  # whoever listens may hear of something else now, or of nothing
                    return


class Live:
    """The event streams of one hub's visitors. Everything but `wake` belongs to the event loop."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._streams: defaultdict[Key, set[Stream]] = defaultdict(set)
        self._open = 0
        self._is_closed = False
        self._tail: asyncio.Task[None] | None = None
        self._attendance = Attendance(hub)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._woken = asyncio.Event()
        self._thread = lru_cache(maxsize=10_000)(self._find_thread)  # a conversation stays in its thread

    @property
    def open(self) -> int:
        """Give how many streams are open."""
        return self._open

    def listening(self, key: Key) -> int:
        """Give how many streams want to hear of `key`: whether a visitor is there."""
        return len(self._streams.get(key, ()))

    @contextmanager
    def listen(self, keys: Iterable[Key]) -> Iterator[Stream]:
        """Open a stream that hears of `keys`, until the block ends."""
        stream = Stream(frozenset(keys), is_over=self._is_closed)
        for key in stream.keys:
            self._streams[key].add(stream)
        self._open += 1
        self._attend(stream)
        if self._tail is None:
            self._loop = asyncio.get_running_loop()
            self._tail = self._loop.create_task(self._follow())
        try:
            yield stream
        finally:
            self._open -= 1
            for key in stream.keys:
                self._streams[key].discard(stream)
                if not self._streams[key]:
                    del self._streams[key]
            self._attend(stream)

    def _attend(self, stream: Stream) -> None:
        """Note who is there of those that a stream speaks for: whoever reads a thread, and not who may read it too."""
        for key in stream.keys:
            if isinstance(key, tuple) and key[0] in self._hub.channels:
                self._attendance.note(key, is_here=key in self._streams)

    def tell(self, key: Key, event: str, **data: Any) -> None:  # noqa: ANN401  (plain JSON values)
        """Tell all who want to hear of `key`."""
        for stream in self._streams.get(key, ()):
            stream.tell(event, **data)

    async def tell_of(self, conversation: int, event: str, **data: Any) -> None:  # noqa: ANN401  (as above)
        """Tell all who may read a conversation: such as `tell_of(7, "typing", by="Kim", is_typing=True)`."""
        thread = await asyncio.to_thread(self._thread, conversation)
        for key in (conversation, thread):
            if key is not None:
                self.tell(key, event, conversation=conversation, **data)

    def wake(self) -> None:
        """Have the notices looked at now. May be called from any thread."""
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop was closed meanwhile: nobody listens
                self._loop.call_soon_threadsafe(self._woken.set)

    def close(self) -> None:
        """End all streams; those who listen come again, or ask."""
        self._is_closed = True
        self._attendance.close()
        for streams in self._streams.values():
            for stream in streams:
                stream.is_over = True
                stream.told.set()

    async def _follow(self) -> None:
        """Tell the streams of what the store has new, until none is open."""
        position: int | None = None
        try:
            while self._open and not self._is_closed:
                try:
                    if position is None:
                        position = await asyncio.to_thread(self._position)
                    position = await self._look(position)
                except ConvsdkError as error:  # whoever listens asks again by and by, whatever becomes of this
                    _log.warning("event streams wait for the store", why=str(error))
                    await asyncio.sleep(_MEND_S)
        finally:
            self._tail = None

    async def _look(self, position: int) -> int:
        self._woken.clear()
        notices = await asyncio.to_thread(self._hub.store.notices, self._hub.workspace, since=position, limit=_PAGE)
        for conversation in dict.fromkeys(one.payload.get("conversation") for one in notices):
            if conversation is not None:
                await self.tell_of(conversation, "changed")
        if len(notices) < _PAGE:
            with suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_S):
                    await self._woken.wait()
        return notices[-1].id if notices else position

    def _find_thread(self, conversation: int) -> tuple[str, str] | None:
        filing = self._hub.store.filing(self._hub.workspace, conversation)
        return (filing.channel, filing.thread) if filing else None

    def _position(self) -> int:
        # Ids rise: one that is taken now is above those of all that has ended.
        newest = self._hub.store.transact(self._hub.workspace, lambda transaction: next(transaction.new_ids()))
        return max(0, newest - _LATE)
