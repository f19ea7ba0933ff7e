import asyncio
import time
from contextlib import closing

import pytest
from servers import fresh_store
from visits import PATIENCE_S, Browser, opened

from convsdk.channels.chat import ChatChannel, ChatSettings
from convsdk.channels.email import EmailChannel
from convsdk.channels.email.sending import PostmarkSending
from convsdk.channels.email.settings import EmailSettings
from convsdk.core.ports import Secret
from convsdk.errors import TransientError
from convsdk.hub import Hub
from convsdk.web import Limits


@pytest.fixture(autouse=True)
def hasty(monkeypatch):
    """Let nobody be waited for who may come back, nor the store."""
    monkeypatch.setattr("convsdk.web.attendance._GATHER_S", 0.01)
    monkeypatch.setattr("convsdk.web.attendance._MEND_S", 0.01)


def settles(condition):
    """Say whether `condition` comes to hold."""
    end = time.monotonic() + PATIENCE_S
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    return condition()


def is_present(shop, hub, conversation):
    """Say whether the visitor is there, once the app had a moment for it."""
    shop.run(_moment())
    return hub.is_present(conversation)


async def _moment():
    await asyncio.sleep(0.02)


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_another_process_knows_who_has_the_chat_open(kind, tmp_path):
    """From the opening of the stream to its end; whoever only wrote is not there."""
    url = fresh_store(kind, tmp_path)
    with opened(url, tmp_path) as shop, closing(Hub(url, channels=shop.hub.channels.values(), clock=shop.clock)) as hub:
        browser = Browser(shop)
        conversation = browser.say("Hello")
        assert not is_present(shop, hub, conversation)

        ear = browser.listen()
        assert settles(lambda: is_present(shop, hub, conversation))

        ear.leave()
        assert settles(lambda: not is_present(shop, hub, conversation))


def test_who_is_there_is_shown_anew_before_it_is_forgotten(shop, monkeypatch):
    """A stream that stays open for an hour has a visitor for an hour."""
    monkeypatch.setattr("convsdk.web.attendance._RENEW_S", 0.01)
    browser = Browser(shop)
    conversation = browser.say("Hello")
    ear = browser.listen()
    assert settles(lambda: is_present(shop, shop.hub, conversation))

    shop.clock.advance(seconds=3600)

    assert settles(lambda: is_present(shop, shop.hub, conversation))
    ear.leave()


@pytest.mark.once
def test_many_who_come_at_once_are_one_write(tmp_path, monkeypatch):
    """A thousand streams cost the store no more transactions than one: here, fifty come and go with four at most."""
    with opened(fresh_store("sqlite", tmp_path), tmp_path, limits=Limits(streams=100)) as shop:
        browsers = [Browser(shop, address=f"203.0.113.{number}") for number in range(50)]
        conversations = [one.say("Hello") for one in browsers]
        monkeypatch.setattr("convsdk.web.attendance._GATHER_S", 0.3)
        written = []
        show = shop.hub.show_presence
        monkeypatch.setattr(
            shop.hub, "show_presence", lambda seen, gone, *, by: (written.append(len(seen)), show(seen, gone, by=by))
        )

        ears = [one.listen() for one in browsers]
        assert settles(lambda: all(is_present(shop, shop.hub, one) for one in conversations))
        for ear in ears:
            ear.leave()

        assert settles(lambda: not any(is_present(shop, shop.hub, one) for one in conversations))
        assert sum(written) == 50
        assert len(written) <= 10


def test_store_that_is_away_is_told_later(shop, monkeypatch):
    """Whoever came meanwhile is there once it answers."""
    browser = Browser(shop)
    conversation = browser.say("Hello")
    show, failures = shop.hub.show_presence, iter([TransientError("busy")])

    def busy_at_first(*said, **more):
        for error in failures:
            raise error
        show(*said, **more)

    monkeypatch.setattr(shop.hub, "show_presence", busy_at_first)

    ear = browser.listen()

    assert settles(lambda: is_present(shop, shop.hub, conversation))
    ear.leave()


def test_widget_marks_what_went_by_mail(tmp_path):
    """A visitor who comes back sees what they were sent, and that it was by e-mail; never to which address."""
    mail = EmailSettings(address="in@channel.example", sending=PostmarkSending(token=Secret("t")))
    channels = [ChatChannel("chat", ChatSettings(follow_up="support")), EmailChannel("support", mail)]
    with opened(fresh_store("sqlite", tmp_path), tmp_path, channels=channels) as shop:
        browser = Browser(shop)
        conversation = browser.say("Hello")
        browser.submit(email="ann@shop.example")
        shop.hub.reply(conversation, "By mail", by="Kim")
        shop.hub.reply(conversation, "Here", by="Kim", way="chat")
        shop.hub.note(conversation, "For staff", by="Kim")

        answer = browser.get("/messages")

        shown = [(one["text"], one["is_mail"]) for one in answer.json()["messages"]]
        assert shown == [("Hello", False), ("By mail", True), ("Here", False)]
        assert "ann@" not in answer.text
