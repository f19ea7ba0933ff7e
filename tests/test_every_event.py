"""What observers get to hear, from what happens in the hub to a webhook's receiver."""

import asyncio
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
from receiver import Receiver
from servers import fresh_store

from convsdk.config import WebhookConfig
from convsdk.core.consent import ConsentState
from convsdk.core.events import DeliveryStatus, Identified, MessageReceived, StatusChanged
from convsdk.core.model import Claim, IdentityHint, Trust
from convsdk.core.ports import Capabilities, Channel, Receipt, Secret
from convsdk.delivery import Deliverer
from convsdk.hub import Hub
from convsdk.outbox import Outbox, Target
from convsdk.webhook import Webhook

SECRET = f"whsec_{'A' * 32}"
START = datetime.now(UTC).replace(microsecond=0)
TOLD = {
    "contact.created": {"contact", "how"},
    "contact.identified": {"contact", "hint"},
    "contact.merged": {"contact", "former", "because"},
    "contact.unmerged": {"contact", "former", "because"},
    "suggestion.opened": {"identifiers", "because"},
    "message.received": {"conversation", "direction"},
    "message.queued": {"conversation", "message", "external_id", "channel"},
    "message.sent": {"conversation", "message", "external_id", "channel", "direction"},
    "message.status_changed": {"conversation", "message", "external_id", "channel", "status"},
    "conversation.opened": {"conversation", "channel"},
    "conversation.assigned": {"conversation", "assignee"},
    "conversation.completed": {"conversation", "by"},
    "conversation.reopened": {"conversation"},
    "consent.changed": {"identifier", "purpose", "state"},
}


class Pager(Channel):
    """A channel that sends."""

    type = "pager"
    settings = dict
    can = Capabilities(sends=True, is_idempotent=True, statuses=True)

    def parse(self, request):
        return []

    def build(self, message):
        return httpx.Request("POST", "https://pager.example/", json={"text": message.text})

    def interpret(self, response):
        return Receipt(external_id=response.json()["id"])


def wrote(number, *claims, visitor=None, channel_text="Hello"):
    """Give a message by whom `claims` name."""
    said = IdentityHint(at=START + timedelta(seconds=number), identifiers=claims, visitor=visitor, how="page")
    return MessageReceived(external_id=f"m{number}", hint=said, at=said.at, text=channel_text)


def live_through_everything(hub):
    """Let happen whatever there is an event for; give the conversation."""
    ann = Claim("email", "ann@shop.example", Trust.CHANNEL)
    (received,) = hub.receive("desk", [wrote(1, ann)])
    phone = Claim("phone", "+4930901820", Trust.CHANNEL)
    identified = IdentityHint(at=START + timedelta(seconds=2), identifiers=(ann, phone))
    hub.receive("desk", [Identified(external_id="i2", hint=identified)])
    hub.receive("desk", [wrote(3, Claim("email", "bob@shop.example", Trust.CHANNEL))])
    typed = Claim("email", "bob@shop.example", Trust.ASSERTED)
    hub.receive("desk", [wrote(4, ann, typed)])
    ruled = hub.merge(hub.find("email", "ann@shop.example").id, hub.find("email", "bob@shop.example").id, by="kim")
    hub.unmerge(ruled.id, by="kim")
    hub.reply(received.conversation, "Hi!", by="kim")
    asyncio.run(_deliver(hub))
    delivered = StatusChanged(
        external_id="s5", status=DeliveryStatus.DELIVERED, at=START + timedelta(seconds=5), messages=("p-1",)
    )
    hub.receive("desk", [delivered])
    hub.complete(received.conversation, by="kim")
    hub.receive("desk", [wrote(6, ann)])
    hub.record_consent("email", "ann@shop.example", "marketing", ConsentState.WITHDRAWN, by="ann")
    return received.conversation


async def _deliver(hub):
    platform = httpx.MockTransport(lambda request: httpx.Response(200, json={"id": "p-1"}))
    async with (
        asyncio.timeout(30),
        httpx.AsyncClient(transport=platform) as client,
        Deliverer(hub, client, poll_s=0.01),
    ):
        while hub.store.message(hub.workspace, "desk", "p-1") is None:  # noqa: ASYNC110  (in a store, nothing tells us)
            await asyncio.sleep(0.01)


async def _tell(hub, url):
    config = WebhookConfig(url=url, secrets=(Secret(SECRET),))
    async with httpx.AsyncClient() as client:
        crm = Webhook("crm", config, client=client, workspace=hub.workspace)
        await Outbox(hub, [Target(name="webhook/crm", tell=crm.tell, is_told_all=True)]).advance()


def test_observers_hear_of_everything_that_happens(tmp_path):
    """Every event reaches a webhook's receiver, signed, with what its documentation says of it."""
    with closing(Hub(fresh_store("sqlite", tmp_path), channels=[Pager("desk", {})])) as hub, Receiver() as receiver:
        live_through_everything(hub)
        asyncio.run(_tell(hub, receiver.url))
        posted = [one.read(SECRET) for one in receiver.deliveries]

    told = {one["type"]: one["data"] for one in reversed(posted)}
    assert {kind: set(told.get(kind, ())) >= keys for kind, keys in TOLD.items()} == dict.fromkeys(TOLD, True)
    assert told["contact.created"]["how"] == "page"
    assert told["message.sent"]["external_id"] == told["message.queued"]["external_id"]


def test_documentation_names_every_event():
    """docs/events.md has each type that is told."""
    text = (Path(__file__).parents[1] / "docs" / "events.md").read_text(encoding="utf-8")

    assert [one for one in TOLD if f"`{one}`" not in text] == []
