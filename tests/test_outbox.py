import asyncio
import itertools
import math
import threading
import time
from contextlib import closing
from datetime import timedelta
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from servers import STORES, fresh_store
from structlog.testing import capture_logs

from convsdk.core.consent import ConsentState
from convsdk.core.events import Notice
from convsdk.core.storage import Batch, Memo
from convsdk.errors import NotFound, PermanentError, TransientError
from convsdk.hub import Hub
from convsdk.outbox import Gone, Outbox, Target, hook_targets, tell_again
from convsdk.store.memory import MemoryStore
from convsdk.testing.builders import NOON, FakeClock

PATIENCE_S = 30
BUSY = TransientError("busy")
REFUSED = PermanentError("refused")


class Taker:
    """Takes notices down, once it has raised its `errors`, one for each time that it is told."""

    def __init__(self, name="taker", errors=(), **fields):
        self.taken = []
        self.asked = 0
        self.errors = list(errors)
        self.target = Target(name=name, tell=self.tell, **{"is_told_all": True} | fields)

    async def tell(self, notice):
        self.asked += 1
        if self.errors and (error := self.errors.pop(0)):
            raise error
        self.taken.append(notice)

    @property
    def numbers(self):
        return [one.payload["number"] for one in self.taken if one.type == "kit"]


class FlakyStore(MemoryStore):
    """Writes nothing while it `is_away`, and counts what it is asked to write."""

    is_away = False
    writes = 0

    def transact(self, workspace, work):
        self.writes += 1
        if self.is_away:
            raise TransientError("the store is away")
        return super().transact(workspace, work)


def write(hub, *numbers, kind="kit", at=NOON, **payload):
    """Write a notice for each of `numbers`."""

    def work(transaction):
        ids = transaction.new_ids()
        notices = [Notice(id=next(ids), type=kind, at=at, payload={"number": one} | payload) for one in numbers]
        transaction.write(Batch(notices=notices))

    hub.store.transact(hub.workspace, work)


def consent(hub):
    """Write a notice as the hub itself does."""
    hub.record_consent("email", "ann@shop.example", "news", ConsentState.DENIED, by="kim")


def types(hub):
    """Give the type of each notice."""
    return [one.type for one in hub.store.notices(hub.workspace, since=0, limit=1000)]


def advance(hub, *takers, clock=FakeClock(), times=1):  # noqa: B008  (a clock that stands still)
    """Let an outbox that has just been started tell; give the pauses that it asks for."""
    outbox = Outbox(hub, [one.target for one in takers], clock=clock, random=lambda: 1.0)

    async def go():
        return [await outbox.advance() for _ in range(times)]

    return asyncio.run(go())


async def until(is_so):
    """Wait until something is so."""
    async with asyncio.timeout(PATIENCE_S):
        while not is_so():  # noqa: ASYNC110  (what it looks at tells nobody that it has changed)
            await asyncio.sleep(0.005)


def in_order(numbers):
    """Give numbers in the order in which each came first."""
    return list(dict.fromkeys(numbers))


async def play(hub, takers, steps):
    """Write, tell, start anew and lose the store as `steps` say; then tell until all have taken everything."""
    clock, numbers = FakeClock(), itertools.count()

    def start():
        return Outbox(hub, [one.target for one in takers], clock=clock, random=lambda: 0.5)

    outbox = start()
    for step, size in steps:
        if step == "write" and not hub.store.is_away:
            write(hub, *itertools.islice(numbers, size))
        if step == "tell":
            clock.advance(seconds=size)
            await asyncio.gather(outbox.advance(), return_exceptions=True)
        if step == "start":
            outbox = start()
        if step == "store":
            hub.store.is_away = not hub.store.is_away
    hub.store.is_away = False
    while await outbox.advance():
        clock.advance(seconds=1)


STEPS = st.one_of(
    st.tuples(st.just("write"), st.integers(1, 120)),
    st.tuples(st.just("tell"), st.integers(0, 18_000)),  # all of them together: not enough to give up
    st.tuples(st.sampled_from(["start", "store"]), st.just(0)),
)
ERRORS = st.lists(st.sampled_from([None, None, BUSY, REFUSED, TransientError("later", retry_after_s=30)]), max_size=8)


@given(steps=st.lists(STEPS, max_size=12), errors=st.tuples(ERRORS, ERRORS))
def test_every_target_is_told_everything_in_order_whatever_fails_when(steps, errors):
    """Targets fail, the store is away, processes end: each notice comes, and none before an earlier one."""
    hub = Hub(FlakyStore())
    takers = [Taker(f"taker{place}", each) for place, each in enumerate(errors)]

    with capture_logs():
        asyncio.run(play(hub, takers, steps))

    for taker in takers:
        assert in_order(taker.numbers) == [*range(types(hub).count("kit"))]
        assert all(after <= before + 1 for before, after in itertools.pairwise(taker.numbers)), "one was passed over"


@pytest.mark.parametrize("kind", STORES)
def test_new_target_is_told_of_what_comes_from_now_on(kind, tmp_path):
    """Nothing from before it began, everything after, and the store says when that was."""
    with closing(Hub(fresh_store(kind, tmp_path))) as hub:
        new, old = Taker("new", is_told_all=False), Taker("old")
        write(hub, 1, 2)
        advance(hub, new, old)
        write(hub, 3, 4)
        advance(hub, new, old)

        assert (new.numbers, old.numbers) == ([3, 4], [1, 2, 3, 4])
        assert [one.payload for one in new.taken if one.type == "outbox.started"] == []
        assert [one.payload for one in old.taken if one.type == "outbox.started"] == [{"target": "new"}]


@pytest.mark.parametrize("kind", STORES)
def test_target_that_takes_nothing_holds_up_no_other(kind, tmp_path):
    """Each target has its own position, over many pages, and one that comes back is told the rest."""
    with closing(Hub(fresh_store(kind, tmp_path))) as hub:
        slow, quick = Taker("slow", [BUSY, None, None, BUSY]), Taker("quick")
        write(hub, *range(250))

        advance(hub, slow, quick)
        assert (slow.numbers, quick.numbers) == ([], [*range(250)])
        advance(hub, slow, quick)
        assert (slow.numbers, quick.numbers) == ([0, 1], [*range(250)])
        advance(hub, slow, quick)
        assert (slow.numbers, quick.numbers) == ([*range(250)], [*range(250)])


def test_target_is_told_only_what_it_wants():
    """The types that a target names count, with a star for any end."""
    hub, taker = Hub("memory:"), Taker(events=("contact.*", "automation.entered"))
    for kind in ("contact.created", "conversation.opened", "automation.entered", "contact.merged", "automation.left"):
        write(hub, 1, kind=kind)

    advance(hub, taker)

    assert [one.type for one in taker.taken] == ["contact.created", "automation.entered", "contact.merged"]


def test_automation_hears_of_no_contact_that_a_mail_made():
    """Neither a webhook nor a hook is told that such a contact entered an automation; the others come."""
    heard = []
    plugins = SimpleNamespace(listeners=lambda hook: {"greets": heard.append})
    hub, taker = Hub("memory:"), Taker()
    write(hub, 1, kind="automation.entered", how="inbound e-mail")
    write(hub, 2, kind="automation.entered", how="chat form")
    outbox = Outbox(hub, [taker.target, *hook_targets(plugins)])

    async def go():
        await outbox.advance()
        write(hub, 3, kind="automation.entered", how="inbound e-mail")
        write(hub, 4, kind="automation.entered", how="chat form")
        await outbox.advance()

    asyncio.run(go())

    assert [one.payload["number"] for one in taker.taken if one.type == "automation.entered"] == [2, 4]
    assert {one.payload["number"] for one in heard if one.type == "automation.entered"} == {4}


def test_pauses_grow_up_to_an_hour_and_begin_anew_after_success():
    """Twice as long each time, cut by chance to no less than half; what was taken ends that."""
    hub, taker = Hub("memory:"), Taker(errors=[BUSY] * 14 + [None, BUSY])
    write(hub, 1)
    outbox = Outbox(hub, [taker.target], clock=FakeClock(), random=iter([1.0, 0.0] * 8).__next__)

    async def go():
        pauses = [await outbox.advance() for _ in range(15)]
        write(hub, 2)
        return pauses, await outbox.advance()

    pauses, after = asyncio.run(go())

    assert pauses == [2, 2, 8, 8, 32, 32, 128, 128, 512, 512, 2048, 1800, 3600, 1800, 0]
    assert after == 2


def test_pause_that_was_asked_for_is_kept_and_is_no_failed_try():
    """Retry-After counts as it is, and the next pause of our own is the first."""
    hub = Hub("memory:")
    taker = Taker(errors=[TransientError("later", retry_after_s=30), TransientError("later", retry_after_s=0), BUSY])
    write(hub, 1)

    assert advance(hub, taker, times=4) == [30, 2, 2, 0]


@pytest.mark.parametrize(("asked_s", "pause_s"), [(float("nan"), 2), (-5, 2), (1e300, 86_400), (float("inf"), 86_400)])
def test_pause_that_a_plugin_asks_for_is_one_that_ends(asked_s, pause_s):
    """It is no shorter than our own first one, and no longer than a day, whatever a hook raises."""
    hub = Hub("memory:")
    taker = Taker(errors=[TransientError("later", retry_after_s=asked_s)])
    write(hub, 1)

    assert advance(hub, taker, times=1) == [pause_s]


def test_refusal_is_tried_again_seldom():
    """What somebody has to mend is asked for after a minute, later every six hours."""
    hub, taker = Hub("memory:"), Taker(errors=[REFUSED] * 12)
    write(hub, 1)

    assert advance(hub, taker, times=12)[::11] == [60, 6 * 3600]


def test_notice_is_given_up_after_three_days_and_found_again():
    """The log and a notice name what a target was not told; the next one has days of its own."""
    hub, clock = Hub("memory:"), FakeClock()
    taker = Taker(errors=[REFUSED] * 3)
    write(hub, 1)
    write(hub, 2, at=NOON + timedelta(days=2))

    with capture_logs() as logs:
        advance(hub, taker, clock=clock)
        clock.advance(days=3)
        (pause_s,) = advance(hub, taker, clock=clock)
    advance(hub, taker, clock=clock)

    given_up = [one for one in taker.taken if one.type == "outbox.given_up"]
    first = hub.store.notices(hub.workspace, since=0, limit=1)[0].id
    assert pause_s > 0
    assert taker.numbers == [2]
    assert [one.payload for one in given_up] == [{"target": "taker", "notice": first, "type": "kit", "why": "refused"}]
    assert [one["notice"] for one in logs if one["log_level"] == "error"] == [first]


def test_failing_goes_on_counting_over_restarts():
    """A program that is started anew every day gives up as late as one that runs on."""
    hub, clock, taker = Hub("memory:"), FakeClock(), Taker(errors=[REFUSED] * 4)
    write(hub, 1, at=NOON - timedelta(days=2000))

    for _ in range(4):
        advance(hub, taker, clock=clock)
        clock.advance(days=1)

    assert types(hub) == ["kit", "outbox.given_up"]


def test_time_that_a_notice_claims_keeps_nobody_waiting():
    """An event from the future, by a clock that is wrong, is given up as late as any other."""
    hub, clock, taker = Hub("memory:"), FakeClock(), Taker(errors=[REFUSED] * 2)
    write(hub, 1, at=NOON + timedelta(days=40_000))
    outbox = Outbox(hub, [taker.target], clock=clock)

    async def go():
        await outbox.advance()
        clock.advance(days=3)
        await outbox.advance()

    asyncio.run(go())

    assert types(hub) == ["kit", "outbox.given_up"]


def test_giving_up_the_outbox_s_own_notices_writes_no_more():
    """Two targets that take nothing do not go on telling each other so."""
    hub, clock = Hub("memory:"), FakeClock()
    takers = [Taker(name, [REFUSED] * 100) for name in ("a", "b")]
    write(hub, 1)

    for _ in range(20):
        advance(hub, *takers, clock=clock)
        clock.advance(days=4)

    assert types(hub) == ["kit", "outbox.given_up", "outbox.given_up"]


def test_target_that_is_gone_is_left_alone_until_the_next_start():
    """A 410 is said in the log, stops this target and no other, and loses nothing."""
    hub, gone, other = Hub("memory:"), Taker("gone", [Gone("it answered 410")]), Taker("other")
    write(hub, 1)

    with capture_logs() as logs:
        pauses = advance(hub, gone, other, times=3)
    assert (gone.asked, other.numbers, pauses) == (1, [1], [math.inf] * 3)
    assert [(one["target"], one["why"]) for one in logs] == [("gone", "it answered 410")]

    advance(hub, gone, other)
    assert gone.numbers == [1]


def test_target_can_be_told_again():
    """Told to begin anew, a target hears all of it again, also from an outbox that runs."""
    hub, taker = Hub("memory:"), Taker()
    write(hub, 1, 2, 3)
    second = hub.store.notices(hub.workspace, since=0, limit=2)[1].id
    outbox = Outbox(hub, [taker.target])

    async def go():
        await outbox.advance()
        tell_again(hub, "taker", since=second)
        await outbox.advance()

    asyncio.run(go())

    assert taker.numbers == [1, 2, 3, 3]
    with pytest.raises(NotFound, match="nobody called 'tacker'"):
        tell_again(hub, "tacker", since=0)


def test_target_can_be_told_again_while_it_is_told():
    """Whoever asks for that in the middle of a page is heard: the position that was asked for stands."""
    hub, taker = Hub("memory:"), Taker()
    write(hub, 1, 2, 3)

    async def tell(notice):
        await taker.tell(notice)
        if taker.asked == 3:
            tell_again(hub, "taker", since=0)

    outbox = Outbox(hub, [Target(name="taker", tell=tell, is_told_all=True)])

    async def go():
        await outbox.advance()
        await outbox.advance()

    asyncio.run(go())

    assert taker.numbers == [1, 2, 3, 1, 2, 3]


def test_position_is_written_down_only_where_that_is_worth_it():
    """Not for a few notices that a target does not want, nor again for a target that still takes nothing."""
    hub = Hub(FlakyStore())
    choosy, failing = Taker("choosy", events=("none",)), Taker("failing", [BUSY] * 3)
    write(hub, *range(50))

    hub.store.writes = 0
    advance(hub, choosy, times=3)
    assert hub.store.writes == 0
    advance(hub, failing, times=3)
    assert hub.store.writes == 1

    write(hub, *range(50))
    advance(hub, choosy)
    assert hub.store.checkpoint(hub.workspace, "outbox/choosy") is not None


def hooked(tell, *, hook="convsdk_event"):
    """Give what stands for plugins of which one has that hook."""
    return SimpleNamespace(listeners=lambda asked: {"desk": tell} if asked == hook else {})


@pytest.mark.parametrize("is_ours", [True, False])
def test_running_outbox_tells_at_once_what_is_written(is_ours):
    """What its hub writes need not wait for the next look; whoever writes past it says so."""
    hub, taker = Hub("memory:"), Taker()

    async def go():
        async with Outbox(hub, [taker.target], poll_s=0.05) as outbox:
            await until(lambda: hub.store.memo(hub.workspace, "outbox", "lease"))
            await asyncio.sleep(0.2)
            outbox._poll_s = 60  # noqa: SLF001  (what a test cannot wait for)
            await asyncio.sleep(0.2)
            if is_ours:
                await asyncio.to_thread(consent, hub)
            else:
                write(hub, 1)
                await asyncio.to_thread(outbox.wake)
            await until(lambda: taker.taken)
            outbox._poll_s = 0.05  # noqa: SLF001  (as above)

    asyncio.run(go())


@pytest.mark.parametrize("error", [KeyboardInterrupt, asyncio.CancelledError, GeneratorExit])
def test_hook_ends_neither_the_program_nor_its_courier(error):
    """What a hook should never raise is a failure like any other."""
    hub = Hub("memory:")

    def tell(notice):
        raise error

    outbox = Outbox(hub, hook_targets(hooked(tell)), random=lambda: 1.0)

    async def go():
        await outbox.advance()
        write(hub, 1)
        return await outbox.advance()

    assert asyncio.run(go()) == 60


def test_hanging_hook_holds_up_neither_others_nor_the_end():
    """A plugin that never returns keeps nobody from anything, and no thread of theirs."""
    hub, taker, hang = Hub("memory:"), Taker(), threading.Event()
    hanging = [hooked(lambda notice: hang.wait(PATIENCE_S)) for _ in range(50)]
    targets = [*(one for plugins in hanging for one in hook_targets(plugins)), taker.target]
    began = time.monotonic()

    async def go():
        async with Outbox(hub, targets, poll_s=0.01, grace_s=0.1):
            await until(lambda: hub.store.checkpoint(hub.workspace, "outbox/observer/desk"))
            write(hub, 1)
            await until(lambda: taker.numbers == [1])

    asyncio.run(go())
    hang.set()

    assert time.monotonic() - began < PATIENCE_S


def test_end_lets_what_is_under_way_finish():
    """A delivery that has begun is finished and noted; none is begun any more."""
    hub, told, begun = Hub("memory:"), [], asyncio.Event()

    async def tell(notice):
        begun.set()
        await asyncio.sleep(0.1)
        told.append(notice.id)

    async def go():
        async with Outbox(hub, [Target(name="slow", tell=tell, is_told_all=True)], poll_s=0.01):
            await begun.wait()

    write(hub, 1, 2)
    asyncio.run(go())

    assert len(told) == 1
    assert hub.store.checkpoint(hub.workspace, "outbox/slow") == str(told[0])


def test_end_does_not_wait_for_a_target_that_hangs():
    """What was not taken when the time for that is over is told again at the next start."""
    hub, told, taker = Hub("memory:"), [], Taker()
    write(hub, 1)

    async def tell(notice):
        told.append(notice)
        await asyncio.sleep(PATIENCE_S * 10)

    async def go():
        async with Outbox(hub, [Target(name="taker", tell=tell, is_told_all=True)], poll_s=0.01, grace_s=0.05):
            await until(lambda: told)

    asyncio.run(go())
    advance(hub, taker)

    assert taker.taken == told


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_of_two_processes_one_tells_and_the_other_takes_over(kind, tmp_path):
    """Nothing is told twice while both run; when the one that tells ends, the other goes on at once."""
    url = fresh_store(kind, tmp_path)
    hubs, takers = [Hub(url), Hub(url)], [Taker(), Taker()]
    outboxes = [Outbox(hub, [taker.target], poll_s=0.02) for hub, taker in zip(hubs, takers, strict=True)]

    async def go():
        async with outboxes[1]:
            async with outboxes[0]:
                for number in range(20):
                    write(hubs[0], number)
                    await asyncio.sleep(0.01)
                await until(lambda: sum(len(one.taken) for one in takers) >= 20)
                assert sorted(takers[0].numbers + takers[1].numbers) == [*range(20)]
            write(hubs[0], 20)
            await until(lambda: 20 in takers[1].numbers)

    asyncio.run(go())
    for one in hubs:
        one.close()

    assert not (takers[0].taken and takers[1].numbers[:-1])


def test_process_that_died_is_taken_over_from():
    """A holder that is silent for as long as the lease is replaced."""
    hub, taker = Hub("memory:"), Taker()
    write(hub, 1)
    dead = Batch(memos={("outbox", "lease"): Memo("dead", NOON)})
    hub.store.transact(hub.workspace, lambda transaction: transaction.write(dead))

    async def go():
        async with Outbox(hub, [taker.target], poll_s=0.01, lease_s=0.3):
            await asyncio.sleep(0.2)
            assert taker.numbers == []
            await until(lambda: taker.numbers == [1])

    asyncio.run(go())


def test_lease_is_renewed_as_long_as_it_is_held():
    """The mark in the store changes again and again, and is taken away at the end."""
    hub, marks = Hub("memory:"), set()

    def is_renewed():
        marks.add(hub.store.memo(hub.workspace, "outbox", "lease"))
        return len(marks) > 4

    async def go():
        async with Outbox(hub, [Taker().target], poll_s=0.01, lease_s=0.1):
            await until(is_renewed)

    asyncio.run(go())

    assert hub.store.memo(hub.workspace, "outbox", "lease").text == ""


def test_outbox_outlives_a_store_that_is_away(monkeypatch):
    """While the store cannot be written to nothing is lost, and telling goes on when it is back."""
    monkeypatch.setattr("convsdk.outbox._MENDING_S", 0.05)
    hub, taker = Hub(FlakyStore()), Taker()

    async def go():
        async with Outbox(hub, [taker.target], poll_s=0.01):
            write(hub, 1)
            await until(lambda: taker.numbers)
            write(hub, 2)
            hub.store.is_away = True
            await asyncio.sleep(0.2)
            hub.store.is_away = False
            write(hub, 3)
            await until(lambda: 3 in taker.numbers)

    with capture_logs():
        asyncio.run(go())

    assert in_order(taker.numbers) == [1, 2, 3]
