"""An answer goes out on Messenger and comes back as its echo and its reports: the hub, the queue and the platform."""

import asyncio
import time
from datetime import UTC, datetime

import httpx
import pytest
from asgi import served
from graph import APP, PAGE, PATIENCE_S, SECRET, TOKEN, Failure, Graph, RefusedError
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route

from convsdk.channels.messenger import InstagramChannel, MessengerChannel, Sender
from convsdk.core.fold import Policy
from convsdk.core.identifiers import Kinds
from convsdk.core.model import Direction
from convsdk.core.ports import Headers, Request, Secret
from convsdk.delivery import Deliverer
from convsdk.hub import Hub


@pytest.fixture(params=[MessengerChannel, InstagramChannel])
def channel(request):
    """Give the class of each channel of the platform."""
    return request.param


@pytest.fixture
def graph(channel):
    """Give the platform."""
    with Graph(is_instagram=channel is InstagramChannel).served() as platform:
        yield platform


@pytest.fixture
def hub(channel, graph, tmp_path):
    """Give a hub with one page or account, whose webhook the platform posts to."""
    senders = {"accounts" if channel is InstagramChannel else "pages": (Sender(id=PAGE, token=Secret(TOKEN)),)}
    settings = channel.settings(
        app_id=APP, app_secret=Secret(SECRET), verify_token=Secret("x"), graph_url=graph.url, **senders
    )
    kinds = Kinds(channel.kinds)
    inbox = Hub(
        f"sqlite:///{tmp_path}/shop.db",
        channels=[channel("shop-page", settings)],
        policy=Policy(kinds=kinds),
    )

    async def take(request):
        given = Request(received_at=datetime.now(UTC), body=await request.body(), headers=Headers(request.headers))
        await asyncio.to_thread(inbox.handle, "shop-page", given)
        return Response()

    with served(Starlette(routes=[Route("/", take, methods=["POST"])])) as graph.webhook_url:
        yield inbox
    inbox.close()


def outbound(hub, conversation):
    """Give the outbound messages of a conversation."""
    return [one for one in hub.messages(conversation) if one.direction is Direction.OUTBOUND]


def deliver(hub, is_done):
    """Deliver what is queued until `is_done`."""

    async def run():
        async with httpx.AsyncClient() as client, Deliverer(hub, client):
            until = time.monotonic() + PATIENCE_S
            while not await asyncio.to_thread(is_done):
                assert time.monotonic() < until, "it is not done"
                await asyncio.sleep(0.02)

    asyncio.run(run())


def test_answer_arrives_once_and_is_followed(graph, hub):
    """An answer of several parts arrives once; its echoes are no messages of their own, and it is read in the end."""
    graph.copies = 2
    graph.hear("7001")
    (conversation,) = hub.conversations()
    hub.reply(conversation.id, "word " * 500, by="agent-1")

    deliver(hub, lambda: outbound(hub, conversation.id)[0].status != "queued")
    graph.read("7001")

    (answer,) = outbound(hub, conversation.id)
    assert " ".join(one.message["text"] for one in graph.sent).split() == ["word"] * 500
    assert answer.status == "read"


def test_answer_whose_receipt_is_lost_is_known_by_its_echo(graph, hub):
    """Where the answer to the request is lost, the echo tells that the message arrived, and it is not sent again."""
    graph.hear("7001")
    (conversation,) = hub.conversations()
    graph.failures.append(Failure(at="after"))
    hub.reply(conversation.id, "Yes, it is.", by="agent-1")

    deliver(hub, lambda: outbound(hub, conversation.id)[0].status in {"sent", "delivered"})

    assert len(graph.sent) == 1
    assert len(outbound(hub, conversation.id)) == 1


def test_refusal_is_shown_with_metas_words(graph, hub):
    """What Meta refuses for good is failed, with its code and words."""
    graph.hear("7001")
    (conversation,) = hub.conversations()
    graph.failures.append(Failure(RefusedError(551, "This person isn't available right now.", 1545041)))
    hub.reply(conversation.id, "Yes, it is.", by="agent-1")

    deliver(hub, lambda: outbound(hub, conversation.id)[0].status == "failed")

    (answer,) = outbound(hub, conversation.id)
    assert answer.detail["error_code"] == "551/1545041"
    assert "isn't available" in answer.detail["error"]


def test_answer_from_the_pages_own_inbox_is_a_message(graph, hub):
    """What somebody answers in Meta's own inbox is an outbound message of the conversation, and is not delivered."""
    graph.hear("7001")
    (conversation,) = hub.conversations()

    graph.answer_elsewhere("7001", "We are on it.")

    (answer,) = outbound(hub, conversation.id)
    assert (answer.text, graph.sent) == ("We are on it.", [])
