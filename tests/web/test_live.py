import asyncio
import time
from contextlib import closing

import httpx
import pytest
from asgi import served
from servers import fresh_store
from visits import Browser, Shop, opened

from convsdk.errors import TransientError
from convsdk.hub import Hub
from convsdk.web import Limits
from convsdk.web.live import Stream

READY = ("ready", {})
PATIENCE_S = 20


@pytest.fixture(params=["sqlite", "postgresql"])
def two(request, tmp_path):
    """Give a shop, and a hub of another process on its store."""
    url = fresh_store(request.param, tmp_path)
    with opened(url, tmp_path) as shop, closing(Hub(url, channels=shop.hub.channels.values())) as other:
        yield shop, other


def changed(conversation):
    """Give the event that says that a conversation has something new."""
    return ("changed", {"conversation": conversation})


def live_of(shop):
    """Give the streams of a shop."""
    return shop.app.state["live"]["default"]


# -- what is told


def test_store_that_is_busy_at_first_is_followed_later(shop, monkeypatch):
    """Where the store answers only after a while, the streams that were opened before hear of what comes then."""
    browser = Browser(shop)
    browser.open()
    live = live_of(shop)
    position, failures = live._position, iter([TransientError("busy")])  # noqa: SLF001  (the moment is the point)

    def busy_at_first():
        for error in failures:
            raise error
        return position()

    monkeypatch.setattr(live, "_position", busy_at_first)
    monkeypatch.setattr("convsdk.web.live._MEND_S", 0.01)
    ear = browser.listen()
    ear.hear(1)

    conversation = browser.say("Hello")

    assert ear.hear(2) == [READY, changed(conversation)]
    ear.leave()


def test_stream_begins_at_once(shop):
    """The first event says that the stream is there; nothing on the way may keep it back."""
    browser = Browser(shop)
    browser.open()

    ear = browser.listen()

    assert (ear.status, ear.events) == (200, [READY])
    ear.leave()


def test_visitor_hears_of_their_own_message(shop):
    """What is written in one tab is told to the other."""
    browser = Browser(shop)
    browser.open()
    ear = browser.listen()

    conversation = browser.say("Hello")

    assert ear.hear(2) == [READY, changed(conversation)]
    ear.leave()


def test_visitor_hears_of_an_answer_from_another_process(two):
    """An answer that another process wrote is told soon, and read by the same request as ever."""
    shop, other = two
    browser = Browser(shop)
    conversation = browser.say("Hello")
    ear = browser.listen()
    ear.hear(2)

    other.reply(conversation, "Hi", by="Kim")

    assert ear.hear(3)[2] == changed(conversation)
    assert browser.texts() == ["Hello", "Hi"]
    ear.leave()


def test_contact_hears_of_what_they_may_read(shop):
    """Who has proven who they are hears of their conversations elsewhere; who only claims it does not."""
    mail = shop.mail("ann@shop.example")
    proven, claiming = Browser(shop), Browser(shop)
    proven.open(), claiming.open()
    proven.prove(email="ann@shop.example")
    claiming.identify(email="ann@shop.example")
    ears = [proven.listen(), claiming.listen()]

    shop.mail("ann@shop.example", "More")
    heard = ears[0].hear(2)

    assert changed(mail) in heard or shop.hub.conversations()[0].id != mail
    assert ears[1].events == [READY]
    for ear in ears:
        ear.leave()


def test_visitors_hear_nothing_of_one_another(shop):
    """What others write, and what staff note for themselves, is told to nobody else."""
    browser, other = Browser(shop), Browser(shop)
    browser.say("Mine")
    conversation = other.say("Theirs")
    ears = [browser.listen(), other.listen()]

    other.say("More")
    shop.hub.reply(conversation, "Answer", by="Kim")
    ears[1].hear(2)

    assert changed(conversation) not in ears[0].events
    for ear in ears:
        ear.leave()


def test_news_are_told_together():
    """What was not sent yet is replaced by what comes of the same kind and conversation: nothing piles up."""
    stream = Stream(frozenset())

    async def listen():
        events = stream.events()
        first = await anext(events)
        for number in range(10_000):
            stream.tell("changed", conversation=number % 2)
            stream.tell("typing", conversation=1, by="Kim", is_typing=bool(number % 2))
        waiting = len(stream.news)
        found = [await anext(events) for _ in range(3)]
        await events.aclose()
        return first, waiting, found

    first, waiting, found = asyncio.run(listen())

    assert first == b"event: ready\ndata: {}\n\n"
    assert waiting == 3
    assert found == [
        b'event: changed\ndata: {"conversation":0}\n\n',
        b'event: typing\ndata: {"conversation":1,"by":"Kim","is_typing":true}\n\n',
        b'event: changed\ndata: {"conversation":1}\n\n',
    ]


def test_name_cannot_make_events(shop):
    """An agent's name with line feeds in it stays one line of data."""
    browser = Browser(shop)
    conversation = browser.say("Hello")
    ear = browser.listen()
    ear.hear(2)

    shop.run(live_of(shop).tell_of(conversation, "typing", by="Kim\n\nevent: session\ndata: {}\r\n\r", is_typing=True))
    heard = ear.hear(3)[2]

    assert heard[0] == "typing"
    assert heard[1]["by"] == "Kim\n\nevent: session\ndata: {}\r\n\r"
    ear.leave()


def test_silence_is_broken(monkeypatch):
    """Where there is nothing to tell, a comment keeps what lies between from ending the connection."""
    monkeypatch.setattr("convsdk.web.live._HEARTBEAT_S", 0.01)

    async def listen():
        events = Stream(frozenset()).events()
        found = [await anext(events) for _ in range(3)]
        await events.aclose()
        return found

    assert asyncio.run(listen())[1:] == [b":\n\n", b":\n\n"]


@pytest.mark.parametrize("how", ["reset", "proof", "somebody else"])
def test_stream_ends_with_the_session(shop, how):
    """Other tabs are told that the session is another, and hear of nothing more by the old one."""
    browser = Browser(shop)
    conversation = browser.say("Hello")
    browser.identify(email="bob@shop.example")
    ear = browser.listen()

    if how == "reset":
        browser.reset()
    elif how == "proof":
        browser.prove(email="bob@shop.example")
    else:
        browser.identify(email="ann@shop.example")
    ear.wait()
    shop.hub.reply(conversation, "Hi", by="Kim")

    assert ear.events[-1] == ("session", {})
    assert live_of(shop).open == 0


# -- how many


def test_visitor_opens_only_so_many(tmp_path):
    """Beyond the limit a visitor's stream is a 503 with a pause; one that ends makes room, and others have theirs."""
    with opened(fresh_store("sqlite", tmp_path), tmp_path, limits=Limits(visitor_streams=2)) as shop:
        browser, other = Browser(shop), Browser(shop)
        browser.open(), other.open()
        ears = [browser.listen() for _ in range(2)]

        refused = browser.get("/events")
        ears.append(other.listen())
        ears.pop(0).leave()
        ears.append(browser.listen())

        assert (refused.status_code, refused.headers["retry-after"]) == (503, "30")
        assert refused.json()["error"]["code"] == "too_many_streams"
        assert [one.status for one in ears] == [200] * 3
        for ear in ears:
            ear.leave()


def test_address_has_only_so_many(tmp_path):
    """Whoever begins many sessions gets no more streams by that, and others have theirs."""
    with opened(fresh_store("sqlite", tmp_path), tmp_path, limits=Limits(address_streams=2)) as shop:
        addresses = ["2001:db8::1", "2001:db8::2", "2001:db8::3", "2001:db8:0:1::1"]
        browsers = [Browser(shop, address=one) for one in addresses]
        for one in browsers:
            one.open()

        ears = [one.listen() for one in browsers]

        assert [one.status for one in ears] == [200, 200, 503, 200]
        for ear in ears:
            ear.leave()


def test_process_has_only_so_many(tmp_path):
    """Beyond the limit of the process every further stream is a 503."""
    with opened(fresh_store("sqlite", tmp_path), tmp_path, limits=Limits(streams=2)) as shop:
        browsers = [Browser(shop) for _ in range(3)]
        for one in browsers:
            one.open()
        ears = [one.listen() for one in browsers[:2]]

        assert browsers[2].get("/events").status_code == 503
        for ear in ears:
            ear.leave()


def test_limit_holds_for_those_that_come_at_once(tmp_path):
    """Streams that are asked for in the same moment do not slip through together."""
    with opened(fresh_store("sqlite", tmp_path), tmp_path, limits=Limits(visitor_streams=3)) as shop:
        browser = Browser(shop)
        browser.open()

        ears = browser.listen_all(20)

        assert live_of(shop).open == 3
        assert sum(bool(one.events) and not one.is_over for one in ears) == 3
        for ear in ears:
            ear.leave()


def test_stream_needs_a_session(shop):
    """Who has no session has nothing to hear of."""
    assert Browser(shop).get("/events").status_code == 401


# -- the end


def test_shutdown_ends_all_streams(shop):
    """When the server shuts down, streams end by themselves, and one that comes then ends at once."""
    browser = Browser(shop)
    browser.open()
    ears = [browser.listen() for _ in range(3)]

    live_of(shop).close()
    for ear in ears:
        ear.wait()
    late = browser.listen()
    late.wait()

    assert all(one.is_over for one in ears)
    assert (late.status, late.events, live_of(shop).open) == (200, [READY], 0)


def test_nothing_is_left_behind_when_the_client_goes(shop):
    """A page that is closed leaves neither a stream nor, once it was the last, a task."""
    browser = Browser(shop)
    browser.open()
    ears = [browser.listen() for _ in range(5)]

    for ear in ears:
        ear.leave()

    async def others():
        while tasks := asyncio.all_tasks() - {asyncio.current_task()} - shop_tasks():
            await asyncio.wait(tasks)
        return live_of(shop)

    live = shop.run(others())
    assert live.open == 0
    assert live._tail is None  # noqa: SLF001  (the task is the point)
    assert not live._streams  # noqa: SLF001  (as are the keys)


def shop_tasks():
    """Give the tasks that wait for the others, in `Shop.run`."""
    return {one for one in asyncio.all_tasks() if "patient" in repr(one)}


def test_stream_goes_on_when_the_store_does(shop):
    """A store that does not answer for a while ends no stream; what was new is told afterwards."""
    browser = Browser(shop)
    conversation = browser.say("Hello")
    ear = browser.listen()
    ear.hear(2)

    shop.hub.reply(conversation, "Hi", by="Kim")

    assert ear.hear(3)[2] == changed(conversation)
    ear.leave()


def test_client_that_hangs_up_is_noticed(tmp_path):
    """Over a real connection, too, a stream comes at once, and ends when its client goes."""
    shop = Shop(fresh_store("sqlite", tmp_path), tmp_path)
    with closing(shop), served(shop.app) as url, httpx.Client(base_url=url, timeout=PATIENCE_S) as client:
        token = client.post("/widget/chat/session", json={"keep": False}).json()["token"]
        headers = {"Authorization": f"Bearer {token}"}
        with client.stream("GET", "/widget/chat/events", headers=headers) as stream:
            lines = stream.iter_lines()
            first = next(lines)
            client.post("/widget/chat/messages", json={"id": "1", "text": "Hello"}, headers=headers)
            heard = [next(lines) for _ in range(4)]
            assert live_of(shop).open == 1

        end = time.monotonic() + PATIENCE_S
        while live_of(shop).open and time.monotonic() < end:
            time.sleep(0.01)

        assert (first, heard[2]) == ("event: ready", "event: changed")
        assert stream.headers["content-type"].startswith("text/event-stream")
        assert stream.headers["cache-control"] == "no-store"
        assert live_of(shop).open == 0
