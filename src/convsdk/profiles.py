"""Asks a channel's platform who somebody is, after the commit: a name, a picture, whatever it attests.

A profile is looked up when a conversation opens or a contact comes to be, once in thirty days for each person. What it
says goes to the hub as a hint that makes no contact and, as long as the profile stays the same, changes nothing twice.
"""

import asyncio
import hashlib
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from functools import partial

import httpx
import msgspec
from attrs import evolve

from convsdk.core.events import Notice
from convsdk.core.model import Identifier, IdentityHint
from convsdk.core.ports import Channel, Clock
from convsdk.core.storage import Batch, Memo, Transaction
from convsdk.errors import NotFound, TransientError
from convsdk.hub import Hub
from convsdk.outbox import Target

_MEMO = "profile"
_OPENED, _CREATED = "conversation.opened", "contact.created"
_EVERY = timedelta(days=30)
_ANSWER_S = 20.0


def profile_targets(hub: Hub, client: httpx.AsyncClient, *, clock: Clock = lambda: datetime.now(UTC)) -> list[Target]:
    """Give a target for each channel of `hub` whose platform can be asked who somebody is.

    `client` asks. One of each channel, so that a platform that is down or wants a new token holds up no other.
    """
    return [
        Target(
            name=f"profiles/{channel.name}",
            tell=partial(_look_up, hub, channel, client, clock),
            events=(_OPENED, _CREATED),
        )
        for channel in hub.channels.values()
        if type(channel).profile_request is not Channel.profile_request
    ]


async def _look_up(hub: Hub, channel: Channel, client: httpx.AsyncClient, clock: Clock, notice: Notice) -> None:
    for who in await asyncio.to_thread(_people, hub, channel, notice):
        request = channel.profile_request(who)
        if request is None or not await asyncio.to_thread(_is_due, hub, who, clock()):
            continue
        response = await _ask(channel, client, request)
        hint = channel.profile(who, response, at=clock())
        await asyncio.to_thread(_keep, hub, channel, who, hint, clock())


def _people(hub: Hub, channel: Channel, notice: Notice) -> list[Identifier]:
    """Give the identifiers that a notice is about, as far as they can be the channel's."""
    if notice.type == _OPENED:
        filing = hub.store.filing(hub.workspace, notice.payload["conversation"])
        return [filing.identifier] if filing and filing.identifier and filing.channel == channel.name else []
    try:
        contact = hub.contact(notice.payload["contact"])
    except NotFound:
        return []
    return [one.node.identifier for one in contact.identifiers]


async def _ask(channel: Channel, client: httpx.AsyncClient, request: httpx.Request) -> httpx.Response:
    try:
        async with asyncio.timeout(_ANSWER_S):
            return await client.send(request, follow_redirects=False)
    except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as error:
        # Without its cause, which has the request and its token.
        raise TransientError(f"channel {channel.name!r} got no profile ({type(error).__name__})") from None


def _is_due(hub: Hub, who: Identifier, now: datetime) -> bool:
    memo = hub.store.memo(hub.workspace, _MEMO, _key(who))
    return memo is None or now - memo.at >= _EVERY


def _keep(hub: Hub, channel: Channel, who: Identifier, hint: IdentityHint | None, now: datetime) -> None:
    if hint is not None:
        hub.resolve(evolve(hint, id=_hint_id(channel, who, hint)))
    batch = Batch(memos={(_MEMO, _key(who)): Memo(channel.name, now)})

    def work(transaction: Transaction) -> None:
        transaction.write(batch)

    hub.store.transact(hub.workspace, work)


def _key(who: Identifier) -> str:
    return _digest((who.kind, who.scope, who.value))


def _hint_id(channel: Channel, who: Identifier, hint: IdentityHint) -> str:
    """Give an id that is the same for what the same profile says in the same month.

    A process that ends between asking and noting asks again. Of a profile that changes to and fro, the last counts.
    """
    said = _digest((_key(who), *((one.name, one.value) for one in hint.traits)))
    return f"{channel.name}/profile/{hint.at:%Y-%m}/{said}"


def _digest(parts: Iterable[object]) -> str:
    return hashlib.sha256(msgspec.json.encode(list(parts))).hexdigest()
