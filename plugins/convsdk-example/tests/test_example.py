"""The Example channel: what it reads, how it sends, and the laws of the kit."""

import hashlib
import hmac
import json
import tomllib
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from convsdk.core.model import Claim, Identifier, Trait, Trust
from convsdk.core.ports import File, Outbound, Receipt, Secret
from convsdk.errors import PermanentError, TransientError, UncertainError
from convsdk.testing import NOON, ChannelContract, Golden, GoldenAnswer, GoldenSend, request
from convsdk_example import ExampleChannel, ExampleSettings

HERE = Path(__file__).parent
SIGNING_SECRET = "secret-of-the-tests-that-signs"
ACCESS_TOKEN = "token-of-the-tests-that-sends"
HEADER = "X-Example-Signature"


def channel():
    """Give a configured channel."""
    settings = ExampleSettings(signing_secret=Secret(SIGNING_SECRET), access_token=Secret(ACCESS_TOKEN))
    return ExampleChannel("shop-example", settings)


def golden(name):
    """Give the signed request of a golden payload: write them from the platform's documentation."""
    body = (HERE / "golden" / f"{name}.json").read_bytes()
    signature = hmac.new(SIGNING_SECRET.encode(), body, hashlib.sha256).hexdigest()
    return request(body, headers={HEADER: signature})


def outbound(text="Yes, it is.", **fields):
    """Give an answer to Ann."""
    to = {"to": Identifier("example_person", "", "p-7001")}
    return Outbound(text=text, token="tok-1", at=NOON, **(to | fields))


class TestExampleContract(ChannelContract):
    """The laws of the kit: each failure says what is wrong, why it matters and how to mend it."""

    secrets = (SIGNING_SECRET, ACCESS_TOKEN)
    settings_cases = (
        ({"signing_secret": Secret(" "), "access_token": Secret(ACCESS_TOKEN)}, "signing_secret"),
        ({"signing_secret": Secret(SIGNING_SECRET), "access_token": ACCESS_TOKEN}, "access_token"),
    )
    golden = (
        Golden(name="text", request=golden("text"), events=1, signed_by=(HEADER,)),
        Golden(name="several", request=golden("several"), events=2, signed_by=(HEADER,)),
    )
    golden_sends = (
        GoldenSend(name="text", message=outbound(), requests=1),
        GoldenSend(name="long text", message=outbound("word " * 500), requests=2),
    )
    golden_answers = (
        GoldenAnswer(name="taken", response=httpx.Response(201, json={"id": "m-2"}), gives=Receipt(external_id="m-2")),
        GoldenAnswer(name="too many", response=httpx.Response(429), gives=TransientError),
        GoldenAnswer(name="gateway", response=httpx.Response(502), gives=UncertainError),
        GoldenAnswer(name="blocked", response=httpx.Response(403, json={"error": "blocked"}), gives=PermanentError),
    )

    def channel(self):
        return channel()


def test_entry_point_names_the_channels_module():
    """The distribution announces its module."""
    told = tomllib.loads((HERE.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]

    assert told["entry-points"]["convsdk.plugins"] == {"example": ExampleChannel.__module__}


def test_message_names_its_writer():
    """A message says who wrote it, when, and what."""
    (event,) = channel().parse(golden("text"))

    assert (event.external_id, event.text) == ("m-1001", "Is the blue one in stock?")
    assert event.at == datetime(2026, 1, 1, tzinfo=UTC)
    assert event.hint.identifiers == (Claim("example_person", "p-7001", Trust.CHANNEL),)
    assert event.hint.traits == (Trait("name", "Ann Arbor", Trust.CHANNEL),)


def test_answer_is_posted_with_its_key():
    """An answer goes to the person, with the token as the key by which a second one is known for the same."""
    call = channel().build(outbound())

    assert str(call.url) == "https://api.example.example/messages"
    assert json.loads(call.read()) == {"to": "p-7001", "text": "Yes, it is.", "key": "tok-1"}


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
        channel().build(outbound(**fields))


@pytest.mark.parametrize(("headers", "pause"), [({"retry-after": "7"}, 7), ({}, None)])
def test_limit_says_how_long_to_wait(headers, pause):
    """Where a pause is named, that is how long it is waited."""
    with pytest.raises(TransientError) as caught:
        channel().interpret(httpx.Response(429, headers=headers))

    assert caught.value.retry_after_s == pause
