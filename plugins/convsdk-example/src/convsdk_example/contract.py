"""What the conformance kit runs on: golden payloads from Example's documentation, and how each is read and sent.

`convsdk check-channel example` finds it by its entry point, and so do the tests.
"""

import hashlib
import hmac
from pathlib import Path

import httpx
from attrs import evolve

from convsdk.core.model import Identifier
from convsdk.core.ports import Channel, File, Outbound, Receipt, Request, Secret
from convsdk.errors import PermanentError, TransientError, UncertainError
from convsdk.testing import NOON, ChannelContract, Golden, GoldenAnswer, GoldenSend, request
from convsdk_example import ExampleChannel, ExampleSettings

GOLDEN = Path(__file__).with_name("golden")
SIGNING_SECRET = "secret-of-the-tests-that-signs"
ACCESS_TOKEN = "token-of-the-tests-that-sends"
HEADER = "X-Example-Signature"
CHOICES = {
    "block": "topic",
    "choices": [{"value": "order", "label": "My order"}, {"value": "other", "label": "Something else"}],
}
"""What a bot automation asks, in the `detail` of its message; a press sends back `topic:order`, or `topic:other`."""


def channel() -> ExampleChannel:
    """Give a configured channel."""
    settings = ExampleSettings(signing_secret=Secret(SIGNING_SECRET), access_token=Secret(ACCESS_TOKEN))
    return ExampleChannel("shop-example", settings)


def golden_request(name: str) -> Request:
    """Give the signed request of a golden payload: write them from the platform's documentation."""
    body = (GOLDEN / f"{name}.json").read_bytes()
    signature = hmac.new(SIGNING_SECRET.encode(), body, hashlib.sha256).hexdigest()
    return request(body, headers={HEADER: signature})


def outbound(text: str = "Yes, it is.", *files: File) -> Outbound:
    """Give an answer to Ann."""
    to = Identifier("example_person", "", "p-7001")
    return Outbound(to=to, text=text, token="tok-1", at=NOON, attachments=files)


class ExampleContract(ChannelContract):
    """The laws of the kit: each failure says what is wrong, why it matters and how to mend it."""

    secrets = (SIGNING_SECRET, ACCESS_TOKEN)
    settings_cases = (
        ({"signing_secret": Secret(" "), "access_token": Secret(ACCESS_TOKEN)}, "signing_secret"),
        ({"signing_secret": Secret(SIGNING_SECRET), "access_token": ACCESS_TOKEN}, "access_token"),
    )
    golden = (
        Golden(name="text", request=golden_request("text"), events=1, signed_by=(HEADER,)),
        Golden(name="several", request=golden_request("several"), events=2, signed_by=(HEADER,)),
    )
    golden_sends = (
        GoldenSend(name="text", message=outbound(), requests=1),
        GoldenSend(name="long text", message=outbound("word " * 500), requests=2),
        GoldenSend(name="choices", message=evolve(outbound("What is it about?"), detail=CHOICES), requests=1),
    )
    golden_answers = (
        GoldenAnswer(name="taken", response=httpx.Response(201, json={"id": "m-2"}), gives=Receipt(external_id="m-2")),
        GoldenAnswer(name="too many", response=httpx.Response(429), gives=TransientError),
        GoldenAnswer(name="gateway", response=httpx.Response(502), gives=UncertainError),
        GoldenAnswer(name="blocked", response=httpx.Response(403, json={"error": "blocked"}), gives=PermanentError),
    )

    def channel(self) -> Channel:
        return channel()
