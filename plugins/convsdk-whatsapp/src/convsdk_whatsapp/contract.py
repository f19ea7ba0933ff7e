"""What the conformance kit runs on: golden payloads from the documentation, and how each is read and sent."""

import hashlib
import hmac
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx

from convsdk.core.events import DeliveryStatus
from convsdk.core.model import Identifier
from convsdk.core.ports import Channel, File, Outbound, Receipt, Request, Secret
from convsdk.errors import PermanentError, TransientError, UncertainError
from convsdk.testing import NOON, ChannelContract, Golden, GoldenAnswer, GoldenSend, request
from convsdk_whatsapp import WhatsAppChannel, WhatsAppSettings

GOLDEN = Path(__file__).with_name("golden")
APP_SECRET = "app-secret-of-the-shop"
VERIFY_TOKEN = "tökén-of-the-shop"
ACCESS_TOKEN = "EAAG-access-token-of-the-system-user"
HEADER = "X-Hub-Signature-256"
SETTINGS: dict[str, Any] = {
    "app_secret": Secret(APP_SECRET),
    "verify_token": Secret(VERIFY_TOKEN),
    "access_token": Secret(ACCESS_TOKEN),
    "phone_number_id": "106540352242922",
}


def channel(**settings: Any) -> WhatsAppChannel:
    """Give a configured channel."""
    return WhatsAppChannel("shop-whatsapp", WhatsAppSettings(**(SETTINGS | settings)))


def signed(body: bytes) -> Request:
    """Give the request with that body, signed with the app's secret."""
    digest = hmac.new(APP_SECRET.encode(), body, hashlib.sha256).hexdigest()
    return request(body, headers={HEADER: f"sha256={digest}"})


def golden_request(name: str) -> Request:
    """Give the request of a golden payload."""
    return signed((GOLDEN / f"{name}.json").read_bytes())


HANDSHAKE = {"hub.mode": "subscribe", "hub.verify_token": VERIFY_TOKEN, "hub.challenge": "1158201444"}


def outbound(text: str = "Yes, it is.", **fields: Any) -> Outbound:
    """Give a message to Ann, who wrote an hour ago."""
    to = Identifier("phone", "", "+4915112345678")
    heard_at = NOON - timedelta(hours=1)
    usual: dict[str, Any] = {"to": to, "text": text, "token": "tok-1", "at": NOON, "heard_at": heard_at}
    return Outbound(**(usual | fields))


def choices(number: int, label: str = "Option {}") -> dict[str, Any]:
    """Give the detail of a block with so many choices."""
    return {"block": "topic", "choices": [{"value": f"v{n}", "label": label.format(n)} for n in range(number)]}


def refusal(code: int) -> httpx.Response:
    """Give WhatsApp's answer to what it does not send."""
    return httpx.Response(400, json={"error": {"code": code, "message": "x", "error_data": {"details": "y"}}})


FILE = File(name="a.png", media_type="image/png", content=b"", url="https://files.shop.example/a.png")
TEMPLATE = {"template": {"name": "order_sent", "language": "de"}}
ACCEPTED = {"messaging_product": "whatsapp", "messages": [{"id": "wamid.new", "message_status": "accepted"}]}


class WhatsAppContract(ChannelContract):
    """The laws of the kit."""

    secrets = (APP_SECRET, VERIFY_TOKEN, ACCESS_TOKEN)
    settings_cases = tuple(
        (SETTINGS | wrong, name)
        for wrong, name in (
            ({"app_secret": Secret("")}, "app_secret"),
            ({"verify_token": VERIFY_TOKEN}, "verify_token"),
            ({"access_token": Secret(" ")}, "access_token"),
            ({"phone_number_id": "+4930123456"}, "phone_number_id"),
            ({"business": "shop"}, "business"),
            ({"list_button": "x" * 21}, "list_button"),
        )
    )
    golden = (
        *(
            Golden(name=name, request=golden_request(name), events=events, signed_by=(HEADER,))
            for name, events in (
                ("text", 1),
                ("image", 1),
                ("list_reply", 1),
                ("reaction", 1),
                ("edited", 1),
                ("unsupported", 1),
                ("failed", 1),
                ("batch", 3),
                ("account", 1),
            )
        ),
        Golden(
            name="handshake", request=request(method="GET", query=HANDSHAKE), events=0, signed_by=("hub.verify_token",)
        ),
    )

    golden_sends = (
        GoldenSend(name="text", message=outbound(), requests=1),
        GoldenSend(name="long text", message=outbound("word " * 1000), requests=2),
        GoldenSend(name="files", message=outbound(attachments=(FILE, FILE)), requests=3),
        GoldenSend(name="choices", message=outbound("word " * 300, detail=choices(3)), requests=2),
        GoldenSend(name="template", message=outbound("", detail=TEMPLATE, heard_at=None), requests=1),
    )
    golden_answers = (
        GoldenAnswer(
            name="accepted",
            response=httpx.Response(200, json=ACCEPTED),
            gives=Receipt(external_id="wamid.new", status=DeliveryStatus.QUEUED),
        ),
        GoldenAnswer(name="over the limit", response=refusal(130429), gives=TransientError),
        GoldenAnswer(name="cannot be reached", response=refusal(131026), gives=PermanentError),
        GoldenAnswer(name="unreadable", response=httpx.Response(200), gives=UncertainError),
    )

    def channel(self) -> Channel:
        return channel()
