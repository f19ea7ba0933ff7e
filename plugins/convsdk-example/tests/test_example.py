"""The Example channel: what it reads, how it sends, and the laws of the kit."""

import json
import tomllib
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from attrs import evolve

from convsdk.core.model import Claim, Identifier, Trait, Trust
from convsdk.core.ports import File
from convsdk.errors import PermanentError, TransientError
from convsdk_example import ExampleChannel
from convsdk_example.contract import CHOICES, ExampleContract, channel, golden_request, outbound


class TestExampleContract(ExampleContract):
    """The laws of the kit: each failure says what is wrong, why it matters and how to mend it."""


def test_entry_point_names_the_channels_module():
    """The distribution announces its module, and the contract of its channel type."""
    told = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))

    points = told["project"]["entry-points"]

    assert points["convsdk.plugins"] == {"example": ExampleChannel.__module__}
    assert points["convsdk.contracts"] == {"example": "convsdk_example.contract:ExampleContract"}


def test_message_names_its_writer():
    """A message says who wrote it, when, and what."""
    (event,) = channel().parse(golden_request("text"))

    assert (event.external_id, event.text) == ("m-1001", "Is the blue one in stock?")
    assert event.at == datetime(2026, 1, 1, tzinfo=UTC)
    assert event.hint.identifiers == (Claim("example_person", "p-7001", Trust.CHANNEL),)
    assert event.hint.traits == (Trait("name", "Ann Arbor", Trust.CHANNEL),)


def test_answer_is_posted_with_its_key():
    """An answer goes to the person, with the token as the key by which a second one is known for the same."""
    call = channel().build(outbound())

    assert str(call.url) == "https://api.example.example/messages"
    assert json.loads(call.read()) == {"to": "p-7001", "text": "Yes, it is.", "key": "tok-1"}


def test_choice_comes_back_as_it_was_offered():
    """A button sends back the block and the value of its choice, and a press of it is read as both."""
    call = channel().build(evolve(outbound(), detail=CHOICES))
    _, press = channel().parse(golden_request("several"))

    assert json.loads(call.read())["buttons"][0] == {"label": "My order", "sends": "topic:order"}
    assert (press.text, press.block, press.choice) == ("My order", "topic", "order")


@pytest.mark.parametrize(
    "fields",
    [
        {"attachments": (File(name="a.png", media_type="image/png", content=b"PNG"),)},
        {"to": Identifier("phone", "", "+4930123456")},
    ],
)
def test_what_cannot_be_sent_is_refused(fields):
    """A file, and somebody whom Example does not know, are refused before anything is sent."""
    with pytest.raises(PermanentError):
        channel().build(evolve(outbound(), **fields))


@pytest.mark.parametrize(("headers", "pause"), [({"retry-after": "7"}, 7), ({}, None)])
def test_limit_says_how_long_to_wait(headers, pause):
    """Where a pause is named, that is how long it is waited."""
    with pytest.raises(TransientError) as caught:
        channel().interpret(httpx.Response(429, headers=headers))

    assert caught.value.retry_after_s == pause
