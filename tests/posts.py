"""A channel that posts JSON to a server on this machine: one sort for each way to know a message that comes twice."""

import asyncio
import json
from contextlib import closing
from datetime import UTC, datetime, timedelta

import httpx
from attrs import evolve, field, frozen

from convsdk.core.events import DeliveryStatus, MessageReceived, StatusChanged
from convsdk.core.model import Claim, Direction, IdentityHint, Trust
from convsdk.core.ports import Capabilities, Channel, Receipt, Request, Secret
from convsdk.delivery import Deliverer
from convsdk.errors import PermanentError, TransientError, UncertainError
from convsdk.hub import Hub
from convsdk.testing.builders import NOON, hint

LEASE_S = 0.3


@frozen(kw_only=True)
class PostSettings:
    """Where the server is."""

    url: str
    secret: Secret = field(factory=lambda: Secret("s3cret"))


class PostChannel(Channel):
    """Sends to a server that knows a token again."""

    type = "post"
    settings = PostSettings
    can = Capabilities(sends=True, statuses=True, is_idempotent=True, max_text=40)

    def parse(self, request: Request):
        """Give the events of a list of (kind, fields)."""
        return [_event(one) for one in json.loads(request.body)]

    def build(self, message):
        """Give the request, with all that there is to the message."""
        told = {
            "token": message.token,
            "to": str(message.to),
            "address": message.address,
            "text": message.text,
            "html": message.html,
            "subject": message.subject,
            "thread": message.thread,
            "external_id": message.external_id,
            "references": message.references,
            "files": [(one.name, one.content.decode(), one.url) for one in message.attachments],
            "heard_at": message.heard_at.isoformat() if message.heard_at else None,
            "detail": message.detail,
            "is_automatic": message.is_automatic,
        }
        headers = {"authorization": self.config.secret.reveal()}
        return httpx.Request("POST", self.config.url, json=told, headers=headers)

    def interpret(self, response):
        """Read the answer by its status; a name that the server gave stands in a header."""
        if response.is_success:
            return Receipt(external_id=response.headers.get("x-id", ""))
        words = f"the server answered {response.status_code}"
        if response.status_code in {429, 503}:
            asked = response.headers.get("retry-after")
            raise TransientError(words, retry_after_s=float(asked) if asked else None)
        if response.status_code == 504:
            raise UncertainError(words)
        raise PermanentError(words, code=str(response.status_code))


class EchoingChannel(PostChannel):
    """Sends to a server that tells of each message which it took."""

    type = "echoing"
    can = Capabilities(sends=True, statuses=True, echoes=True, max_text=40)


class ForgetfulChannel(PostChannel):
    """Sends to a server that takes everything for new, and tells nothing."""

    type = "forgetful"
    can = Capabilities(sends=True, statuses=True, max_text=40)


class AcceptingChannel(ForgetfulChannel):
    """Sends to a server that accepts everything, and reports later what became of it."""

    type = "accepting"

    def interpret(self, response):
        """Read the answer by its status: what was taken is to be sent."""
        return evolve(super().interpret(response), status=DeliveryStatus.QUEUED)


def channels(url):
    """Give a channel of each sort."""
    kinds = {"post": PostChannel, "echoing": EchoingChannel, "forgetful": ForgetfulChannel}
    return [kind(name, PostSettings(url=f"{url}/{name}")) for name, kind in kinds.items()]


def deliver_until_killed(store, url, ahead_s):
    """Deliver until killed, by a clock that is ahead."""

    async def run():
        with closing(Hub(store, channels=channels(url))) as hub:
            options = {
                "poll_s": 0.02,
                "lease_s": LEASE_S,
                "clock": lambda: datetime.now(UTC) + timedelta(seconds=ahead_s),
            }
            async with httpx.AsyncClient() as client, Deliverer(hub, client, **options):
                await asyncio.sleep(3600)

    asyncio.run(run())


def _event(given):
    return {"status": status, "message": message, "echo": echo}[given.pop("kind")](**given)


def status(name, *messages, to=DeliveryStatus.DELIVERED, at=NOON, **fields):
    """Give a report."""
    return StatusChanged(external_id=name, status=to, at=at, messages=messages, **fields)


def message(name, who="ann", at=NOON, **fields):
    """Give a message that somebody wrote, in a thread of their own."""
    said = hint(email=f"{who}@shop.example", trust=Trust.CHANNEL, at=at)
    return MessageReceived(external_id=name, hint=said, at=at, text=name, thread=who, **fields)


def echo(name, token="", who="ann", at: datetime = NOON):
    """Give the echo of a message of ours."""
    claims = (Claim("email", f"{who}@shop.example", Trust.CHANNEL),)
    said = IdentityHint(at=at, identifiers=claims, may_create=False)
    detail = {"token": token} if token else {}
    return MessageReceived(
        external_id=name, hint=said, at=at, text="echo", thread=who, direction=Direction.OUTBOUND, detail=detail
    )
