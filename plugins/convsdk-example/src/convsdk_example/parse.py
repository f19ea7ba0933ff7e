"""Reads what Example sends to a webhook, without I/O and without a clock."""

from datetime import datetime

from convsdk.core.events import Event, MessageReceived
from convsdk.core.model import Claim, IdentityHint, Trust, traits_of
from convsdk.core.payloads import Fields, read_fields

PERSON = "example_person"
"""The kind of identifier: Example's id of a person."""


def read_events(body: bytes, *, received_at: datetime) -> tuple[Event, ...]:
    """Give the events in the body of a webhook, in its order; raise `ParseError` on anything else."""
    return tuple(_read_message(message, received_at) for message in read_fields(body).items("messages"))


def _read_message(message: Fields, received_at: datetime) -> Event:
    person = message.fields("person")
    at = message.moment("sent_at") or received_at
    hint = IdentityHint(
        at=at,
        # Claim no more than Example attests: what a person merely typed is `Trust.ASSERTED`.
        identifiers=(Claim(PERSON, person.key("id"), Trust.CHANNEL),),
        traits=traits_of(Trust.CHANNEL, name=person.text("name")),
        how="Example message",
    )
    block, _, choice = message.text("button").partition(":")  # what `build` gave it to send back
    return MessageReceived(
        external_id=message.key("id"),
        hint=hint,
        at=at,
        text=message.text("text"),
        thread=person.key("id"),
        block=block,
        choice=choice,
    )
