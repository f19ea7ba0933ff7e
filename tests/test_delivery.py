"""How an answer is delivered, and what becomes of it: the queue in a store, real HTTP to a server on this machine."""

import asyncio
import json
from contextlib import asynccontextmanager, closing

import httpx
import pytest
from posts import PostChannel, PostSettings, message
from receiver import Receiver
from servers import STORES, fresh_store

from convsdk.core.model import Direction, Identifier
from convsdk.delivery import Deliverer
from convsdk.hub import Hub
from convsdk.store import open_store
from convsdk.testing.builders import NOON, FakeClock

ANN = Identifier("email", "", "ann@shop.example")


@pytest.fixture(params=STORES)
def store(request, tmp_path):
    """Give an empty store of each kind that ships."""
    with closing(open_store(fresh_store(request.param, tmp_path))) as store:
        yield store


def named(name):
    """Give the answer of a server that calls the message so."""
    return f"HTTP/1.1 200 OK\r\nx-id: {name}\r\ncontent-length: 0\r\n\r\n".encode()


def refused(code, *fields):
    """Give the answer of a server that does not take it."""
    head = "".join(f"{field}\r\n" for field in fields)
    return f"HTTP/1.1 {code} No\r\n{head}content-length: 0\r\n\r\n".encode()


BROKEN = b""
"""What a server answers that closes the connection instead."""


def shop(store, url="http://127.0.0.1:9/", channel=PostChannel, **options):
    """Give a hub with a channel that posts to `url`."""
    return Hub(store, channels=[channel("post", PostSettings(url=url))], clock=FakeClock(), **options)


def later(hub, **time):
    """Move the hub's clock on."""
    hub._clock.advance(**time)  # noqa: SLF001  (the hub's own clock)


def asked(hub, who="ann"):
    """Let somebody write; give the conversation."""
    (received,) = hub.receive("post", [message(f"in/{who}", who)])
    return received.conversation


def last(hub, conversation):
    """Give the newest outbound message of a conversation."""
    return next(one for one in hub.messages(conversation) if one.direction is Direction.OUTBOUND)


def told(hub, *types):
    """Give the notices of these types."""
    return [one for one in hub.store.notices(hub.workspace, since=0, limit=1000) if one.type in types]


@asynccontextmanager
async def delivering(hub, **options):
    """Deliver meanwhile."""
    given = {"clock": hub._clock, "poll_s": 0.01, "random": lambda: 1.0} | options  # noqa: SLF001  (the hub's own clock)
    async with httpx.AsyncClient() as client, Deliverer(hub, client, **given) as deliverer:
        yield deliverer


async def until(condition, most_s=10):
    """Wait until `condition` holds."""
    async with asyncio.timeout(most_s):
        while not (found := await asyncio.to_thread(condition)):  # noqa: ASYNC110  (in a store, nothing tells us)
            await asyncio.sleep(0.01)
    return found


def deliver(hub, condition, **options):
    """Deliver until `condition` holds."""

    async def work():
        async with delivering(hub, **options):
            return await until(condition)

    return asyncio.run(work())


def is_now(hub, conversation, *statuses):
    """Give a condition: the newest answer has one of `statuses`."""
    return lambda: last(hub, conversation).status in statuses


def test_an_answer_is_delivered_with_all_there_is_to_it(store):
    """The platform gets words, address and what was said before; the message is sent, and observers hear of it."""
    with Receiver(named("their/1")) as receiver:
        hub = shop(store, receiver.url)
        conversation = asked(hub)
        external_id = hub.reply(
            conversation, "Hello!", by="kim", html="<p>Hello!</p>", subject="Hi", detail={"buttons": [1]}
        )
        assert last(hub, conversation).status == "queued"

        deliver(hub, is_now(hub, conversation, "sent"))

    (posted,) = receiver.deliveries
    sent = json.loads(posted.body)
    token = sent.pop("token")
    assert len(token) == 26
    assert external_id == f"out/{token}"
    assert sent == {
        "to": "email:ann@shop.example",
        "address": "ann@shop.example",
        "text": "Hello!",
        "html": "<p>Hello!</p>",
        "subject": "Hi",
        "thread": "ann",
        "external_id": external_id,
        "references": ["in/ann"],
        "files": [],
        "heard_at": NOON.isoformat(),
        "detail": {"buttons": [1], "by": "kim"},
        "is_automatic": False,
    }
    assert hub.store.message(hub.workspace, "post", "their/1") == last(hub, conversation)
    moved = told(hub, "message.sent", "message.status_changed")
    assert [(one.type, one.payload.get("status")) for one in moved] == [
        ("message.sent", None),
        ("message.status_changed", "sent"),
    ]


def test_a_long_answer_goes_on_where_it_stopped(store):
    """Parts that arrived are not sent again, not after an error, nor after it was given up and queued anew."""
    words = " ".join(["word"] * 24)
    answers = [named("p/0"), refused(429, "retry-after: 60"), named("p/1"), refused(400), named("p/2")]
    with Receiver(*answers) as receiver:
        hub = shop(store, receiver.url)
        conversation = asked(hub)
        hub.reply(conversation, words, by="kim")

        deliver(hub, lambda: len(receiver.deliveries) == 2)
        later(hub, seconds=61)
        deliver(hub, is_now(hub, conversation, "failed"))
        failed = last(hub, conversation)
        assert (failed.detail["error"], failed.detail["error_code"]) == ("the server answered 400", "400")
        hub.retry(failed)
        deliver(hub, is_now(hub, conversation, "sent"))

    tokens = [json.loads(one.body)["token"] for one in receiver.deliveries]
    first = tokens[0]
    assert tokens == [first, f"{first}.1", f"{first}.1", f"{first}.2", f"{first}.2"]
    assert {hub.store.message(hub.workspace, "post", f"p/{n}").id for n in range(3)} == {failed.id}
    assert "error" not in last(hub, conversation).detail
