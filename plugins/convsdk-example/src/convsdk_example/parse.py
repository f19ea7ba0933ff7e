"""Reads what Example sends to a webhook, without I/O and without a clock."""

import re
from datetime import UTC, datetime
from typing import Annotated

import msgspec

from convsdk.core.events import Event, MessageReceived
from convsdk.core.model import Claim, IdentityHint, Trait, Trust
from convsdk.errors import ParseError

PERSON = "example_person"
"""The kind of identifier: Example's id of a person."""

_UNSTORABLE = re.compile("[\0\ud800-\udfff]")
_Id = Annotated[str, msgspec.Meta(pattern="^[!-~]{1,200}$")]
_Seconds = Annotated[int, msgspec.Meta(ge=0, le=253_402_300_799)]  # the end of the year 9999


class _Person(msgspec.Struct):
    id: _Id
    name: str = ""


class _Message(msgspec.Struct):
    id: _Id
    sent_at: _Seconds
    person: _Person
    text: str = ""


class _Webhook(msgspec.Struct):
    messages: list[_Message]


def read_events(body: bytes) -> tuple[Event, ...]:
    """Give the events in the body of a webhook, in its order; raise `ParseError` on anything else."""
    try:
        webhook = msgspec.json.decode(body, type=_Webhook)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        # What it held is not told: it is somebody's words.
        raise ParseError(f"{len(body)} bytes are no webhook of Example ({type(error).__name__})") from None
    return tuple(map(_read_message, webhook.messages))


def _read_message(message: _Message) -> Event:
    at = datetime.fromtimestamp(message.sent_at, UTC)
    name = _storable(message.person.name).strip()
    hint = IdentityHint(
        at=at,
        # Claim no more than Example attests: what a person merely typed is `Trust.ASSERTED`.
        identifiers=(Claim(PERSON, message.person.id, Trust.CHANNEL),),
        traits=(Trait("name", name, Trust.CHANNEL),) if name else (),
        how="Example message",
    )
    return MessageReceived(
        external_id=message.id, hint=hint, at=at, text=_storable(message.text), thread=message.person.id
    )


def _storable(text: str) -> str:
    """Give `text` without what no store keeps."""
    return _UNSTORABLE.sub("\ufffd", text)
