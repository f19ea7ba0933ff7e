"""Who somebody is, as their platform tells, is looked up after the commit."""

import asyncio
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from graph import APP, PAGE, SECRET, TOKEN, Failure, Graph, RefusedError

from convsdk.channels.chat import ChatChannel, ChatSettings
from convsdk.channels.messenger import MessengerChannel, MessengerSettings, Sender
from convsdk.core.fold import Policy
from convsdk.core.identifiers import Kinds
from convsdk.core.model import Trust
from convsdk.core.ports import Headers, Request, Secret
from convsdk.errors import PermanentError, TransientError
from convsdk.hub import Hub
from convsdk.outbox import Outbox
from convsdk.profiles import profile_targets
from convsdk.testing import FakeClock
from convsdk.testing.builders import hint

NOW = datetime(2026, 1, 5, 12, tzinfo=UTC)


class Desk:
    """A hub with one Messenger page, and the platform behind it, at one moment that tests move on."""

    def __init__(self, graph, **settings):
        self.graph = graph
        self.clock = FakeClock(NOW)
        self.settings = {
            "app_secret": Secret(SECRET),
            "verify_token": Secret("x"),
            "app_id": APP,
            "contact_from": "first_message",
            "graph_url": graph.url,
            "pages": (Sender(id=PAGE, token=Secret(TOKEN)),),
        } | settings
        self.page = MessengerChannel("shop-page", MessengerSettings(**self.settings))
        kinds = Kinds(MessengerChannel.kinds)
        chat = ChatChannel("shop-chat", ChatSettings())
        self.hub = Hub("memory:", channels=[self.page, chat], policy=Policy(kinds=kinds), clock=self.clock)

    def hear(self, person="7001", text="Hello"):
        """Let somebody write; give their contact."""
        body, headers = self.graph.hear(person, text)
        request = Request(received_at=NOW, body=body, headers=Headers(headers))
        (received,) = self.hub.handle("shop-page", request).received
        return received.decision.contact

    def look_up(self, *, since=0):
        """Tell the targets what happened, once from each notice on; give the requests that were made for it."""
        before = len(self.graph.asked)

        async def run():
            async with httpx.AsyncClient() as client:
                (target,) = profile_targets(self.hub, client, clock=self.clock)
                for notice in self.hub.store.notices(self.hub.workspace, since=since, limit=100):
                    if target.wants(notice):
                        await target.tell(notice)

        asyncio.run(run())
        return self.graph.asked[before:]


@pytest.fixture
def graph():
    """Give the platform."""
    with Graph(clock=lambda: NOW).served() as platform:
        yield platform


def test_who_writes_is_looked_up(graph):
    """Who opens a conversation has name and picture afterwards, attested by the channel."""
    desk = Desk(graph)
    contact = desk.hear()

    (asked,) = desk.look_up()

    traits = desk.hub.contact(contact).traits
    assert {name: one.value for name, one in traits.items()} == {
        "name": "Ann Other",
        "picture": "https://cdn.example/ann.jpg",
    }
    assert traits["name"].trust is Trust.CHANNEL
    assert asked[0] == "GET"


def test_name_is_there_when_an_agent_makes_the_contact(graph):
    """Looking up makes nobody a contact; what it found is theirs once an agent enters them."""
    desk = Desk(graph, contact_from="manual")
    assert desk.hear() is None

    desk.look_up()

    assert not list(desk.hub.contacts())
    entry = desk.page.manual_entry(
        page=PAGE, psid="7001", by="agent-1", at=NOW, entry_id="e-1", email="ann@shop.example"
    )
    entered = desk.hub.receive("shop-page", [entry])[0].decision.contact
    assert desk.hub.contact(entered).name == "Ann Other"


def test_person_is_looked_up_once_in_thirty_days(graph):
    """However many notices are told, and told again, one person is asked for once, and after 30 days anew."""
    desk = Desk(graph)
    contact = desk.hear()
    desk.look_up()

    assert desk.look_up() == []
    graph.people[PAGE, "7001"].profile = {"name": "Ann Third"}
    desk.clock.advance(days=29)
    assert desk.look_up() == []
    desk.clock.advance(days=1)
    assert len(desk.look_up()) == 1

    assert desk.hub.contact(contact).name == "Ann Third"


def test_second_look_changes_nothing(graph, monkeypatch):
    """A process that ends after it asked asks again, and what it is told changes nothing."""
    desk = Desk(graph)
    desk.hear()
    monkeypatch.setattr("convsdk.profiles._EVERY", timedelta(0))
    desk.look_up()
    (who,) = desk.hub.store.contacts(desk.hub.workspace, after=0, limit=1)
    before = desk.hub.store.hints(desk.hub.workspace, [one.node.identifier for one in who.holdings], limit=10)

    assert desk.look_up()

    after = desk.hub.store.hints(desk.hub.workspace, [one.node.identifier for one in who.holdings], limit=10)
    assert after == before


def test_passing_error_is_told_to_be_tried_again(graph):
    """A limit that was met passes, and the next try finds the profile."""
    desk = Desk(graph)
    desk.hear()
    graph.failures.append(Failure(RefusedError(4, "Application request limit reached")))

    with pytest.raises(TransientError):
        desk.look_up()

    assert len(desk.look_up()) == 1


def test_expired_token_waits_for_a_new_one(graph):
    """Where the token has expired nobody is passed over: somebody has to act first."""
    desk = Desk(graph)
    desk.hear()
    graph.failures.append(Failure(RefusedError(190, "Session has expired", 463)))

    with pytest.raises(PermanentError, match="new access token"):
        desk.look_up()


def test_platform_that_is_away_is_asked_again(graph):
    """No answer is an error that passes, and shows neither address nor token."""
    desk = Desk(graph, graph_url="http://127.0.0.1:9")
    desk.hear()

    with pytest.raises(TransientError, match="ConnectError") as refusal:
        desk.look_up()

    assert refusal.value.__cause__ is None
    assert refusal.value.__suppress_context__


def test_person_without_a_profile_is_not_asked_for_again(graph):
    """Who shows nothing is left alone for as long."""
    desk = Desk(graph)
    desk.hear()
    graph.people.clear()

    assert len(desk.look_up()) == 1
    assert desk.look_up() == []


def test_others_are_not_asked_for(graph):
    """Neither a contact without an identifier of the channel nor another channel's conversation is looked up."""
    desk = Desk(graph)
    desk.hub.resolve(hint("1", email="ann@shop.example"))
    desk.hub.receive("shop-chat", ChatChannel("shop-chat", ChatSettings()).parse(OPENING))

    assert desk.look_up() == []


def test_contact_that_was_made_by_hand_is_looked_up(graph):
    """Somebody whom an agent enters before they write here is looked up as their contact is made."""
    desk = Desk(graph)
    graph.hear("7001")
    entry = desk.page.manual_entry(page=PAGE, psid="7001", by="agent-1", at=NOW, entry_id="e-1")
    contact = desk.hub.receive("shop-page", [entry])[0].decision.contact

    desk.look_up()

    assert desk.hub.contact(contact).name == "Ann Other"


def test_outbox_tells_it(graph):
    """It is a target as any other, which begins with what happens from then on."""
    desk = Desk(graph)

    async def run():
        async with httpx.AsyncClient() as client:
            outbox = Outbox(desk.hub, profile_targets(desk.hub, client, clock=desk.clock), clock=desk.clock)
            await outbox.advance()
            contact = await asyncio.to_thread(desk.hear)
            await outbox.advance()
            return contact

    contact = asyncio.run(run())

    assert desk.hub.contact(contact).name == "Ann Other"


OPENING = Request(
    received_at=NOW, body=b'{"type": "message", "id": "m1", "visitor": "v1", "conversation": "c1", "text": "Hi"}'
)
