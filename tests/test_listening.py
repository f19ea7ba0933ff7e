import asyncio
from collections.abc import Sequence

import pytest
from attrs import frozen
from structlog.testing import capture_logs

from convsdk.core.events import Event, MessageReceived
from convsdk.core.ports import Channel, Request
from convsdk.core.storage import Batch, Memo
from convsdk.errors import ConfigError, Forbidden, ParseError, TransientError
from convsdk.hub import Hub
from convsdk.listening import Listening
from convsdk.rejects import Rejects
from convsdk.store.memory import MemoryStore
from convsdk.testing.builders import NOON, FakeClock, hint

PATIENCE_S = 20


@frozen
class PollSettings:
    pass


class Poll(Channel):
    """Asks `source`, a list of bytes, from its position on, as a long poll does, and then waits for more."""

    type = "poll"
    settings = PollSettings
    listens = True

    def __init__(self, source, name="poll"):
        super().__init__(name, PollSettings())
        self.source = source
        self.starts = 0
        self.listening = 0
        self.problems = []

    async def listen(self, feed):
        self.starts += 1
        self.listening += 1
        try:
            await self._poll(feed)
        finally:
            self.listening -= 1

    async def _poll(self, feed):
        if self.problems:
            raise self.problems.pop(0)
        number = int(await feed.position("updates") or 0)
        while True:
            for update in self.source[number:]:
                number += 1
                request = Request(received_at=feed.now(), body=update)
                await feed.deliver(request, position=("updates", str(number)))
            await asyncio.sleep(0.01)

    def verify(self, request):
        if request.body == b"forged":
            raise Forbidden("channel 'poll': forged")

    def parse(self, request) -> Sequence[Event]:
        if request.body == b"bug":
            raise KeyError("Ann's own words")
        if request.body == b"garbage":
            raise ParseError("that is garbage")
        return [
            MessageReceived(external_id=text, hint=hint(email="ann@mail.example"), at=NOON, text=text)
            for text in request.body.decode().split()
        ]


class Picky(Hub):
    """Fails to keep what it is told to fail with, and says what it was asked for."""

    def __init__(self, *channels, store=None):
        super().__init__(store or MemoryStore(), channels=channels)
        self.errors = {}

    def commit(self, arrivals, **given):
        for one in arrivals:
            if errors := self.errors.get(one.event.external_id):
                raise errors.pop()
        return super().commit(arrivals, **given)


def run(work):
    """Run a test that is a coroutine; give what its log says."""
    with capture_logs() as logs:
        asyncio.run(asyncio.wait_for(work, PATIENCE_S))
    return logs


def listening(hub, folder, **options):
    """Give what runs the channels of a hub, at once and often."""
    given = {"rejects": Rejects(folder), "random": lambda: 0.0, "lease_s": 0.2, "clock": FakeClock()}
    return Listening(hub, **given | options)


async def until(is_so):
    """Wait until something is so."""
    while not is_so():  # noqa: ASYNC110  (what a store holds tells nobody that it changed)
        await asyncio.sleep(0.01)


def texts(hub):
    """Give the texts of all messages, in the order in which they were kept."""
    found = [message for one in hub.conversations() for message in hub.messages(one.id).items]
    return [one.text for one in sorted(found, key=lambda one: one.id)]


def position(hub, channel="poll"):
    """Give how far the channel has come."""
    return hub.store.checkpoint(hub.workspace, f"listening/{channel}/updates")


def steal(hub):
    """Put another one's mark in the place of the lease."""
    batch = Batch(memos={("listening/poll", "lease"): Memo("another", NOON)})
    hub.store.transact(hub.workspace, lambda transaction: transaction.write(batch))


def test_what_is_heard_is_kept_with_its_position(tmp_path):
    """Events and position are in the store together, and the next start goes on from there."""
    channel = Poll([b"one", b"two"])
    hub = Hub(MemoryStore(), channels=[channel])

    async def work():
        async with listening(hub, tmp_path) as found:
            await until(lambda: texts(hub) == ["one", "two"])
            assert found.channels == ("poll",)
        channel.source.append(b"three")
        async with listening(hub, tmp_path):
            await until(lambda: texts(hub) == ["one", "two", "three"])

    logs = run(work())

    assert position(hub) == "3"
    assert [one["outcome"] for one in logs] == ["taken"] * 3


@pytest.mark.parametrize(
    ("update", "outcome", "why"),
    [
        (b"garbage", "aside", "that is garbage"),
        (b"bug", "aside", "channel 'poll' has a bug: KeyError at "),
        (b"forged", "forbidden", None),
    ],
)
def test_what_cannot_be_read_keeps_nothing_back(tmp_path, update, outcome, why):
    """Garbage and what a bug stumbles over are kept aside, what is forged is dropped, and the next one arrives."""
    channel = Poll([update])
    hub = Hub(MemoryStore(), channels=[channel])

    async def work():
        async with listening(hub, tmp_path):
            await until(lambda: position(hub) == "1")
            channel.source.append(b"next")
            await until(lambda: texts(hub) == ["next"])

    logs = run(work())
    rejects = [Rejects(tmp_path).read(one) for one in Rejects(tmp_path).ids()]

    assert [one["outcome"] for one in logs] == [outcome, "taken"]
    assert position(hub) == "2"
    assert [(one.body, one.error.startswith(why)) for one in rejects] == ([(update, True)] if why else [])
    assert "Ann" not in repr(logs) + repr([one.error for one in rejects])


def test_event_that_cannot_be_kept_spoils_no_other(tmp_path):
    """Of several events in one request, the rest is kept, and the request is kept aside, once for all."""
    hub = Picky(Poll([b"one two three four", b"next"]))
    hub.errors["three"] = [ValueError("no")] * 9

    async def work():
        async with listening(hub, tmp_path):
            await until(lambda: position(hub) == "2")

    run(work())

    assert texts(hub) == ["one", "two", "four", "next"]
    assert len(list(Rejects(tmp_path).ids())) == 1


def test_store_that_is_away_loses_nothing(tmp_path):
    """What the store cannot take now is handed in again, before anything that follows."""
    hub = Picky(Poll([b"one", b"two"]))
    hub.errors["one"] = [TransientError("the store is away")] * 2

    async def work():
        async with listening(hub, tmp_path):
            await until(lambda: texts(hub) == ["one", "two"])

    logs = run(work())

    assert [one["event"] for one in logs] == ["what was heard waits"] * 2 + ["heard"] * 2


def test_end_does_not_wait_for_a_store_that_is_away(tmp_path):
    """What cannot be kept at the end is kept at the next start."""
    hub = Picky(Poll([b"one"]))
    hub.errors["one"] = [TransientError("the store is away", retry_after_s=60)]

    async def work():
        with capture_logs() as logs:
            async with listening(hub, tmp_path):
                await until(lambda: logs)
        assert position(hub) is None
        async with listening(hub, tmp_path):
            await until(lambda: texts(hub) == ["one"])

    run(work())


def test_folder_for_rejects_that_is_full_loses_nothing(tmp_path):
    """Where garbage cannot be kept aside, it waits."""
    hub = Hub(MemoryStore(), channels=[Poll([b"garbage", b"next"])])

    async def work():
        with capture_logs() as logs:
            async with listening(hub, tmp_path, rejects=Rejects(tmp_path, capacity=0)):
                await until(lambda: logs)
        assert "holds 0 rejects of channel 'poll'" in logs[0]["why"]

    run(work())

    assert position(hub) is None


@pytest.mark.parametrize(
    ("problem", "why", "pause_s"),
    [
        (TransientError("not now"), "not now", 0.5),
        (TransientError("not now", retry_after_s=2), "not now", 2),
        (ConfigError("wrong password"), "wrong password", 30),
        (KeyError("Ann's own words"), "KeyError at ", 30),
    ],
)
def test_channel_that_fails_is_started_again(tmp_path, problem, why, pause_s):
    """What passes is tried again soon, and what somebody has to see to seldom; the log tells nobody's words."""
    channel = Poll([b"one"])
    channel.problems = [problem]
    hub = Hub(MemoryStore(), channels=[channel])

    async def work():
        with capture_logs() as logs:
            async with listening(hub, tmp_path):
                await until(lambda: logs)
                if pause_s < 1:
                    await until(lambda: texts(hub) == ["one"])
        assert logs[0]["why"].startswith(why)
        assert logs[0]["retry_in_s"] == pause_s
        assert "Ann" not in repr(logs)

    run(work())


def test_channel_that_keeps_failing_is_started_less_and_less(tmp_path):
    """Each failure in a row doubles the pause."""
    channel = Poll([])
    channel.problems = [TransientError("not now")] * 2
    hub = Hub(MemoryStore(), channels=[channel])

    async def work():
        async with listening(hub, tmp_path):
            await until(lambda: channel.starts == 3)

    logs = run(work())

    assert [one["retry_in_s"] for one in logs] == [0.5, 1.0]


def test_one_of_two_listens_and_the_other_takes_over(tmp_path):
    """With one store, a channel runs once; it goes on elsewhere when the first one ends."""
    store, source = MemoryStore(), [b"one"]
    here, there = Poll(source), Poll(source)
    hubs = [Hub(store, channels=[one]) for one in (here, there)]

    async def work():
        async with listening(hubs[1], tmp_path):
            await until(lambda: there.listening)
            async with listening(hubs[0], tmp_path):
                await until(lambda: texts(hubs[0]) == ["one"])
                await asyncio.sleep(0.5)
                assert here.starts == 0
        source.append(b"two")
        async with listening(hubs[0], tmp_path):
            await until(lambda: texts(hubs[0]) == ["one", "two"])

    logs = run(work())

    assert (here.starts, there.starts, here.listening, there.listening) == (1, 1, 0, 0)
    assert len(logs) == 2


def test_who_lost_the_lease_stops(tmp_path):
    """Whose lease another one has taken, since it hung, ends what it runs."""
    channel = Poll([])
    hub = Hub(MemoryStore(), channels=[channel])

    async def work():
        async with listening(hub, tmp_path):
            await until(lambda: channel.listening)
            steal(hub)
            await until(lambda: not channel.listening)
            await until(lambda: channel.listening)  # nobody renews the other's

    run(work())

    assert channel.starts == 2
