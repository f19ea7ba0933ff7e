import asyncio
import threading
import time
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
from mailboxes import PASSWORD, Dovecot

from convsdk.channels.email import EmailChannel
from convsdk.channels.email.settings import EmailSettings, ImapSettings
from convsdk.core.ports import Secret
from convsdk.hub import Hub
from convsdk.listening import Listening
from convsdk.rejects import Rejects
from convsdk.store.memory import MemoryStore

PATIENCE_S = 30


@pytest.fixture(scope="module")
def shared():
    """Give a Dovecot that no test stops; each test has a mailbox of its own."""
    with Dovecot() as dovecot:
        yield dovecot


def letter(name, body=None, **fields):
    """Give a mail that is told apart by its name, which is its text as well."""
    more = "".join(f"{key}: {value}\r\n" for key, value in fields.items())
    return (
        f"From: Ann <ann@mail.example>\r\nTo: somebody@else.example\r\nMessage-ID: <{name}@mail.example>\r\n"
        f"Subject: {name}\r\n{more}\r\n{body or name}\r\n"
    ).encode()


def channel(port, *, name="mail", **settings):
    """Give an e-mail channel that reads a mailbox."""
    given = {"host": "127.0.0.1", "user": "help", "password": Secret(PASSWORD), "tls": "none", "start": "beginning"}
    imap = ImapSettings(port=port, **given | settings)
    return EmailChannel(name, EmailSettings(address="help@shop.example", imap=imap))


@contextmanager
def listening(folder, *channels, store=None, rejects=None, **options):
    """Run channels that listen; give their hub, and what ends them."""
    hub = Hub(store or MemoryStore(), channels=channels)
    started, ending = threading.Event(), asyncio.Event()
    found = SimpleNamespace(hub=hub, rejects=rejects or Rejects(folder / "rejects", capacity=20))

    async def run():
        async with Listening(hub, rejects=found.rejects, random=lambda: 0.0, **{"lease_s": 1.0} | options):
            found.loop = asyncio.get_running_loop()
            started.set()
            await ending.wait()

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    assert started.wait(PATIENCE_S)
    found.end = lambda: (found.loop.call_soon_threadsafe(ending.set), thread.join(PATIENCE_S))
    try:
        yield found
    finally:
        if thread.is_alive():
            found.end()
        assert not thread.is_alive(), "it did not end"


def texts(hub):
    """Give the texts of all messages in the store, in the order in which they were kept."""
    found = [message for one in hub.conversations(limit=10_000) for message in hub.messages(one.id).items]
    return [one.text.strip() for one in sorted(found, key=lambda one: one.id)]


def until(is_so):
    """Wait until something is so."""
    end = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.02)


def test_mail_arrives_while_the_mailbox_is_watched(shared, tmp_path):
    """What comes into the mailbox is told by IDLE, and in the store a moment later, whatever address it is for."""
    user = "watched"
    shared.deliver(letter("before"), to=user)
    with listening(tmp_path, channel(shared.imap, user=user)) as found:
        until(lambda: texts(found.hub) == ["before"])
        time.sleep(0.3)
        shared.deliver(letter("one"), to=user)
        until(lambda: texts(found.hub) == ["before", "one"])
        shared.deliver(letter("two"), letter("three"), to=user)
        until(lambda: len(texts(found.hub)) == 4)

    assert texts(found.hub) == ["before", "one", "two", "three"]
