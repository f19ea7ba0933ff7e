"""Which visitors are there, told to the store: what other processes choose the way of an answer by."""

import asyncio
import secrets
import time
from contextlib import suppress

import structlog

from convsdk.errors import ConvsdkError
from convsdk.hub import Hub

_RENEW_S = 30.0  # a sign of life that is lost does no harm: each holds for 75 seconds
_GATHER_S = 2.0  # whoever goes to the next page is back by then
_MEND_S = 2.0
_TIDY_S = 3600.0
_log = structlog.get_logger(__name__)

Place = tuple[str, str]


class Attendance:
    """Shows the visitors of one hub who are here, all in one write: when somebody comes or goes, and now and then.

    Everything belongs to the event loop. Who is here when the process ends is no more after the time that a sign of
    life holds: they come to another process meanwhile.
    """

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._name = secrets.token_hex(8)
        self._here: set[Place] = set()
        self._moved = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._is_closed = False
        self._tidied_at = -_TIDY_S

    def note(self, place: Place, *, is_here: bool) -> None:
        """Note that somebody came to a place, or that nobody is left there."""
        (self._here.add if is_here else self._here.discard)(place)
        self._moved.set()
        if self._task is None and not self._is_closed:
            self._task = asyncio.get_running_loop().create_task(self._tell())

    def close(self) -> None:
        """Tell no more."""
        self._is_closed = True
        self._moved.set()

    async def _tell(self) -> None:
        """Tell the store who is here, until nobody is."""
        shown: set[Place] = set()
        renewed_at = time.monotonic()
        try:
            while (self._here or shown) and not self._is_closed:
                self._moved.clear()
                here, is_due = set(self._here), time.monotonic() - renewed_at >= _RENEW_S
                try:
                    await asyncio.to_thread(self._show, here if is_due else here - shown, shown - here)
                except ConvsdkError as error:  # the next answer goes by mail as well, and nothing is lost
                    _log.warning("who is here waits for the store", why=str(error))
                    await asyncio.sleep(_MEND_S)
                    continue
                shown, renewed_at = here, time.monotonic() if is_due else renewed_at
                await self._wait(renewed_at + _RENEW_S - time.monotonic())
        finally:
            self._task = None

    async def _wait(self, most_s: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(most_s):
                await self._moved.wait()
                await asyncio.sleep(_GATHER_S)

    def _show(self, seen: set[Place], gone: set[Place]) -> None:
        if seen or gone:
            self._hub.show_presence(seen, gone, by=self._name)
        if time.monotonic() - self._tidied_at >= _TIDY_S:
            self._tidied_at = time.monotonic()
            self._hub.forget_presence()
