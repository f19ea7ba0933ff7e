"""What the conformance kit runs on: golden payloads from the documentation, and how each is read and sent."""

import base64
import hashlib
import hmac
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx

from convsdk.core.events import DeliveryStatus
from convsdk.core.model import Identifier
from convsdk.core.ports import Channel, File, Outbound, Receipt, Request, Secret
from convsdk.errors import PermanentError, TransientError, UncertainError
from convsdk.testing import NOON, ChannelContract, Golden, GoldenAnswer, GoldenSend, request
from convsdk_twilio import TwilioChannel, TwilioSettings

GOLDEN = Path(__file__).with_name("golden")
AUTH_TOKEN = "12345678901234567890123456789012"
API_KEY = f"SK{'b2' * 16}"
API_SECRET = "secret-of-the-key-that-sends"
ACCOUNT = f"AC{'a1' * 16}"
URL = "https://help.shop.example/channels/shop-sms"
HEADER = "X-Twilio-Signature"
SETTINGS: dict[str, Any] = {
    "account_sid": ACCOUNT,
    "auth_token": Secret(AUTH_TOKEN),
    "api_key": API_KEY,
    "api_secret": Secret(API_SECRET),
    "sender": "+4930123456",
    "public_url": URL,
}


def channel(**settings: Any) -> TwilioChannel:
    """Give a configured channel."""
    return TwilioChannel("shop-sms", TwilioSettings(**(SETTINGS | settings)))


def golden_request(name: str) -> Request:
    """Give the request of a golden form, a field on each line, signed for the URL as seen from outside."""
    lines = (GOLDEN / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    fields = [(field, value) for field, _, value in (line.partition("=") for line in lines)]
    signed = URL + "".join(f"{field}{value}" for field, value in sorted(fields))
    digest = hmac.new(AUTH_TOKEN.encode(), signed.encode(), hashlib.sha1).digest()
    headers = {HEADER: base64.b64encode(digest).decode()}
    return request(urlencode(fields), headers=headers, url="http://10.0.0.7:8000/channels/shop-sms")


def outbound(text: str = "Yes, it is.", **fields: Any) -> Outbound:
    """Give a message to Ann."""
    to: dict[str, Any] = {"to": Identifier("phone", "", "+4915112345678")}
    return Outbound(text=text, token="tok-1", at=NOON, **(to | fields))


FILE = File(name="a.png", media_type="image/png", content=b"", url="https://files.shop.example/a.png")


class TwilioContract(ChannelContract):
    """The laws of the kit."""

    secrets = (AUTH_TOKEN, API_SECRET)
    settings_cases = tuple(
        (SETTINGS | wrong, name)
        for wrong, name in (
            ({"account_sid": "me"}, "account_sid"),
            ({"auth_token": Secret(" ")}, "auth_token"),
            ({"api_key": "me"}, "api_key"),
            ({"api_secret": API_SECRET}, "api_secret"),
            ({"sender": "Shop & Co"}, "sender"),
            ({"public_url": "help.shop.example"}, "public_url"),
            ({"public_url": "https://help.shop.example:99999/"}, "public_url"),
            ({"public_url": "https://[::1/channels/shop-sms"}, "public_url"),
        )
    )
    golden = tuple(
        Golden(name=name, request=golden_request(name), events=events, signed_by=(HEADER,))
        for name, events in (
            ("sms", 1),
            ("mms", 1),
            ("stop", 2),
            ("start", 2),
            ("whatsapp", 1),
            ("whatsapp_button", 1),
            ("short_code", 1),
            ("delivered", 1),
            ("undelivered", 1),
        )
    )
    golden_sends = (
        GoldenSend(name="text", message=outbound(), requests=1),
        GoldenSend(name="long text", message=outbound("word " * 400), requests=2),
        GoldenSend(name="pictures", message=outbound(attachments=(FILE, FILE)), requests=1),
    )
    golden_answers = (
        GoldenAnswer(
            name="queued",
            response=httpx.Response(201, json={"sid": f"SM{'3' * 32}"}),
            gives=Receipt(external_id=f"SM{'3' * 32}", status=DeliveryStatus.QUEUED),
        ),
        GoldenAnswer(name="too many", response=httpx.Response(429, json={"code": 20429}), gives=TransientError),
        GoldenAnswer(name="busy", response=httpx.Response(503), gives=TransientError),
        GoldenAnswer(name="said STOP", response=httpx.Response(400, json={"code": 21610}), gives=PermanentError),
        GoldenAnswer(name="unreadable", response=httpx.Response(201), gives=UncertainError),
    )

    def channel(self) -> Channel:
        return channel()
