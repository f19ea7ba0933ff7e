"""Calls code of others that may never come back, and goes on without it once it has taken too long.

Nothing in Python can end such a call. It keeps its thread, and that keeps the process neither from working nor from
its end.
"""

import asyncio
import sys
import sysconfig
import traceback
from collections.abc import Callable
from concurrent.futures import Future
from contextvars import copy_context
from threading import Thread
from typing import Generic, TypeVar

Result = TypeVar("Result")
_STANDARD_LIBRARY = sysconfig.get_path("stdlib")


class StuckError(Exception):
    """A call has not come back in time; `place` is the file and line where it is, as far as that is known."""

    def __init__(self, most_s: float, place: str = "") -> None:
        super().__init__(f"nothing came back within {most_s:g} s")
        self.place = place


def place_in(stack: traceback.StackSummary, *, beside: tuple[str, ...] = ()) -> str:
    """Give the innermost file and line of a stack, not counting Python's own files and those that begin so."""
    beside = (*beside, __file__, "<frozen ")
    for frame in reversed(stack):
        is_standard = frame.filename.startswith(_STANDARD_LIBRARY) and "-packages" not in frame.filename
        if not is_standard and not frame.filename.startswith(beside):
            return f"{frame.filename}:{frame.lineno}"
    return ""


def call_within(act: Callable[[], Result], most_s: float) -> Result:
    """Give what `act` gives, or raise what it raises; raise `StuckError` where it takes more than `most_s`."""
    call = _Call(act)
    try:
        return call.outcome.result(most_s)
    except TimeoutError:
        if call.outcome.done():  # its own
            raise
        raise StuckError(most_s, call.place()) from None


class Bulkhead:
    """Makes calls beside an event loop, `slots` at a time: one that never comes back keeps its slot, and no other.

    `most_s` is how long a call may take, and how long it may wait for a slot.
    """

    def __init__(self, *, slots: int, most_s: float) -> None:
        self._slots = asyncio.Semaphore(slots)
        self._most_s = most_s
        self._unstuck = slots

    async def call(self, act: Callable[[], Result]) -> Result:
        """Give what `act` gives, or raise what it raises; raise `StuckError` where it is stuck, or those before it."""
        # Where every slot is stuck, to wait for one would only gather more who wait.
        try:
            await asyncio.wait_for(self._slots.acquire(), self._most_s if self._unstuck else 0)
        except TimeoutError:
            raise StuckError(self._most_s) from None
        call = _Call(act)
        ended = asyncio.wrap_future(call.outcome)
        ended.add_done_callback(self._release)
        # Whoever waits can be cancelled: that ends neither the call nor its hold on the slot.
        if await asyncio.wait([ended], timeout=self._most_s) == (set(), {ended}):
            self._unstuck -= 1
            ended.add_done_callback(self._unstick)
            raise StuckError(self._most_s, call.place())
        return ended.result()

    def _release(self, ended: asyncio.Future[Result]) -> None:
        ended.exception()  # seen, though nobody may wait for it any more
        self._slots.release()

    def _unstick(self, _ended: asyncio.Future[Result]) -> None:
        self._unstuck += 1


class _Call(Generic[Result]):
    """One call in a thread of its own: its `outcome`, and where it is."""

    def __init__(self, act: Callable[[], Result]) -> None:
        self.outcome: Future[Result] = Future()
        self._act = act
        self._thread = Thread(target=copy_context().run, args=[self._run], name="convsdk-patience", daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:  # there is none left: its slot is given back as that of any other
            self.outcome.set_exception(error)

    def place(self) -> str:
        """Give where the call is now; empty where it has ended."""
        frame = sys._current_frames().get(self._thread.ident or 0)  # noqa: SLF001  (the interpreter's only way)
        return place_in(traceback.extract_stack(frame)) if frame else ""

    def _run(self) -> None:
        self.outcome.set_running_or_notify_cancel()
        try:
            result = self._act()
        except StopIteration as error:  # no future can hold one
            self.outcome.set_exception(RuntimeError(f"it raised {error!r}"))
        except BaseException as error:  # noqa: BLE001  (it belongs to whoever waits, whatever it is)
            self.outcome.set_exception(error)
        else:
            self.outcome.set_result(result)
