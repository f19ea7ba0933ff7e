"""Calls that do not come back: who waits for them goes on, and they keep nothing but what they have."""

import asyncio
import threading
from contextvars import ContextVar

import pytest

from convsdk.patience import Bulkhead, StuckError, call_within

PATIENCE_S = 10
WHO = ContextVar("who", default="nobody")


@pytest.fixture
def go():
    """Give what lets go of every call that waits for it, at the end at the latest."""
    event = threading.Event()
    yield event
    event.set()


def failing(error):
    """Give a call that raises that."""

    def fail():
        raise error

    return fail


async def in_bulkhead(act):
    """Make one call in a bulkhead."""
    return await Bulkhead(slots=1, most_s=PATIENCE_S).call(act)


WAYS = {
    "alone": lambda act: call_within(act, PATIENCE_S),
    "in a bulkhead": lambda act: asyncio.run(in_bulkhead(act)),
}


@pytest.fixture(params=WAYS)
def call(request):
    """Give each way to make a call."""
    return WAYS[request.param]


def test_what_comes_back_is_given(call):
    """With what was known where it was called, from a thread of its own."""
    WHO.set("kim")

    assert call(lambda: (WHO.get(), threading.current_thread().daemon)) == ("kim", True)


@pytest.mark.parametrize("error", [ValueError("no"), TimeoutError("its own"), SystemExit(3)])
def test_what_is_raised_is_raised(call, error):
    """Though it be a time-out of its own."""
    with pytest.raises(type(error)) as raised:
        call(failing(error))

    assert raised.value.args == error.args


def test_end_of_an_iteration_is_an_error(call):
    """It would be lost on the way, and the call would seem stuck."""
    with pytest.raises(RuntimeError, match="StopIteration"):
        call(failing(StopIteration()))


def test_stuck_call_is_left_with_its_place(go):
    """The innermost place outside of the standard library says where to look."""
    with pytest.raises(StuckError, match=r"within 0\.05 s") as raised:
        call_within(go.wait, 0.05)
    with pytest.raises(StuckError) as deeper:
        call_within(lambda: go.wait(), 0.05)  # noqa: PLW0108  (a place in this file)

    assert raised.value.place == ""
    assert deeper.value.place.startswith(f"{__file__}:")


def test_stuck_calls_keep_their_slots_and_no_other(go):
    """While one is stuck the other slot does the work; with both stuck nobody waits; what comes back frees its slot."""

    async def work():
        bulkhead = Bulkhead(slots=2, most_s=0.2)
        outcomes = [await outcome(bulkhead, go.wait)]
        outcomes += [await outcome(bulkhead, lambda: "done") for _ in range(5)]
        outcomes.append(await outcome(bulkhead, go.wait))
        async with asyncio.timeout(PATIENCE_S):  # a tenth of what they would wait
            outcomes += [await outcome(bulkhead, lambda: "never") for _ in range(500)]
            go.set()
            while await outcome(bulkhead, lambda: "done") != "done":  # noqa: ASYNC110  (in a thread, nothing tells us)
                await asyncio.sleep(0.01)
        return outcomes

    assert asyncio.run(work()) == ["stuck", *["done"] * 5, "stuck", *["stuck"] * 500]


async def outcome(bulkhead, act):
    """Give what a call gives, or that it is stuck."""
    try:
        return await bulkhead.call(act)
    except StuckError:
        return "stuck"


def test_call_without_a_thread_gives_its_slot_back(monkeypatch):
    """Where the system has no thread left, that is an error, and the next call is made once it has one."""

    class NoThread(threading.Thread):
        def start(self):
            raise RuntimeError("can't start new thread")

    async def work():
        bulkhead = Bulkhead(slots=1, most_s=PATIENCE_S)
        with monkeypatch.context() as patch:
            patch.setattr("convsdk.patience.Thread", NoThread)
            with pytest.raises(RuntimeError, match="new thread"):
                await bulkhead.call(lambda: "never")
        return await bulkhead.call(lambda: "done")

    assert asyncio.run(work()) == "done"


def test_who_is_cancelled_leaves_the_slot_to_the_call(go):
    """A sender that hangs up does not let another call begin beside the one that still runs."""
    begun, running = threading.Event(), []

    def act():
        running.append(1)
        begun.set()
        go.wait(PATIENCE_S)
        running.pop()

    async def work():
        bulkhead = Bulkhead(slots=1, most_s=PATIENCE_S)
        first = asyncio.create_task(bulkhead.call(act))
        await asyncio.to_thread(begun.wait, PATIENCE_S)
        first.cancel()
        second = asyncio.create_task(bulkhead.call(lambda: len(running)))
        done, _ = await asyncio.wait([second], timeout=0.1)
        go.set()
        return done, await second

    assert asyncio.run(work()) == (set(), 0)
