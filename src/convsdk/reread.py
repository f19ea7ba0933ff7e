"""Reads archived requests again, with the code and the settings of today: what was stored is renewed, not repeated.

::

    archive ──parse──> known: text, HTML, attachments and detail anew; whose it is and where it stands, as it was
                   └─> missing: taken in as any other
"""

from collections.abc import Iterator
from datetime import date
from enum import StrEnum
from typing import Any

import msgspec
from attrs import evolve, frozen

from convsdk.archive import Archive, filed
from convsdk.core.events import Event, MessageReceived, Noted
from convsdk.core.model import Direction, Message
from convsdk.core.storage import Batch, Transaction
from convsdk.desk import detail_of, hint_of, is_another, told_apart
from convsdk.errors import ConfigError, ParseError, PermanentError
from convsdk.hub import MOST_ANSWERED, Hub

_FIELDS = ("text", "html", "attachments", "detail")


class Fate(StrEnum):
    """What became of an event that was read again."""

    UNCHANGED = "unchanged"
    RENEWED = "renewed"
    NEW = "new"
    COPY = "copy"
    """Another raw request is that of the message, or the message is one of ours: nothing is done."""
    UNREADABLE = "unreadable"


@frozen(kw_only=True)
class Reread:
    """What became of one event of the raw request `name`: which `fields` of its message changed, or why it is none."""

    name: str
    fate: Fate
    external_id: str = ""
    fields: tuple[str, ...] = ()
    problem: str = ""


def reread(hub: Hub, channel: str, *, since: date | None = None, is_dry: bool = False) -> Iterator[Reread]:
    """Read the archived requests to `channel` again, from a day (UTC) on, and give what became of each event.

    Nothing is read but as the result is iterated, one request at a time. A second run changes nothing. With `is_dry`
    nothing is written at all. Raises `ConfigError` where there is no archive, and `TransientError` where the store or
    the archive is away: what was given is done by then.
    """
    adapter = hub.channel(channel)
    if hub.archive is None:
        raise ConfigError("there is no archive, so nothing can be read again: set archive to a folder or a URL")
    for name in hub.archive.names(channel, since=since):
        try:
            events = adapter.parse(hub.archive.request(name))
        except (ParseError, PermanentError) as error:
            yield Reread(name=name, fate=Fate.UNREADABLE, problem=str(error))
            continue
        put = Archive.url if is_dry else hub.archive.put
        for event in events:
            yield _settle(hub, channel, name, filed(event, raw=name, put=put), is_dry=is_dry)


def _settle(hub: Hub, channel: str, name: str, event: Event, *, is_dry: bool) -> Reread:
    if not isinstance(event, MessageReceived | Noted) or not (stored := _stored(hub, channel, name, event)):
        return _take(hub, channel, name, event, is_dry=is_dry)
    if isinstance(event, MessageReceived):
        event = _trimmed(hub, channel, event)
    told = Reread(name=name, external_id=event.external_id, fate=Fate.UNCHANGED)
    is_own = stored.direction is (event.direction if isinstance(event, MessageReceived) else Direction.LINE)
    if not is_own or _raw(stored) not in {"", name}:
        return evolve(told, fate=Fate.COPY)
    renewed = _renewed(stored, event)
    changed = tuple(one for one in _FIELDS if _plain(getattr(stored, one)) != _plain(getattr(renewed, one)))
    if not changed:
        return told
    if not is_dry:
        _write(hub, channel, stored.external_id, event)
    return evolve(told, fate=Fate.RENEWED, fields=changed)


def _stored(hub: Hub, channel: str, name: str, event: MessageReceived | Noted) -> Message | None:
    """Give the message that an event is, under its id or the one by which it was told apart."""
    first = hub.store.message(hub.workspace, channel, event.external_id)
    if isinstance(event, Noted) or first is None or _raw(first) == name or not is_another(event, first):
        return first
    return hub.store.message(hub.workspace, channel, told_apart(event).external_id)


def _take(hub: Hub, channel: str, name: str, event: Event, *, is_dry: bool) -> Reread:
    is_known = hub.store.hint(hub.workspace, hint_of(channel, event).id) is not None
    if not is_known and not is_dry:
        hub.receive(channel, [event])
    return Reread(name=name, external_id=event.external_id, fate=Fate.UNCHANGED if is_known else Fate.NEW)


def _write(hub: Hub, channel: str, external_id: str, event: MessageReceived | Noted) -> None:
    key = (channel, external_id)

    def work(transaction: Transaction) -> None:
        # Once more, and locked: its status can have changed meanwhile.
        if (found := transaction.found([key]).get(key)) is not None:
            transaction.write(Batch(revised=[_renewed(found.message, event)]))

    hub.store.transact(hub.workspace, work)


def _trimmed(hub: Hub, channel: str, event: MessageReceived) -> MessageReceived:
    answered = (hub.store.message(hub.workspace, channel, one) for one in event.references[:MOST_ANSWERED])
    ours = next((one for one in answered if one and one.direction is Direction.OUTBOUND), None)
    return hub.channel(channel).trim(event, ours.text) if ours else event


def _renewed(stored: Message, event: MessageReceived | Noted) -> Message:
    related = (stored.detail or {}).get("related", ())
    if isinstance(event, Noted):
        return evolve(stored, text=event.text, detail=detail_of(event, related))
    one = event if stored.external_id == event.external_id else told_apart(event)
    return evolve(stored, text=one.text, html=one.html, attachments=one.attachments, detail=detail_of(one, related))


def _raw(message: Message) -> str:
    return str((message.detail or {}).get("raw", ""))


def _plain(value: Any) -> Any:  # noqa: ANN401  (any JSON value)
    """Give a value as it comes back from a store: a tuple in it as a list."""
    return msgspec.to_builtins(value, str_keys=True)
