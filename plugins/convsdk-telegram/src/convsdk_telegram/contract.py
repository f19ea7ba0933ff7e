"""What the conformance kit runs on: golden payloads from the documentation, and how each is read and sent."""

from pathlib import Path
from typing import Any

import httpx

from convsdk.core.model import Identifier
from convsdk.core.ports import Channel, File, Outbound, Receipt, Request, Secret
from convsdk.errors import PermanentError, TransientError, UncertainError
from convsdk.testing import NOON, ChannelContract, Golden, GoldenAnswer, GoldenSend, request
from convsdk_telegram import TelegramChannel, TelegramSettings

GOLDEN = Path(__file__).with_name("golden")
TOKEN = "110201543:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw9"
SECRET_TOKEN = "chosen-for-the-webhook-of-the-shop"
HEADER = "X-Telegram-Bot-Api-Secret-Token"


def channel(**settings: Any) -> TelegramChannel:
    """Give a configured channel."""
    secrets: dict[str, Any] = {"token": Secret(TOKEN), "secret_token": Secret(SECRET_TOKEN)}
    return TelegramChannel("shop-bot", TelegramSettings(**(secrets | settings)))


def webhook(body: bytes | str) -> Request:
    """Give the request with that body, with the secret token."""
    return request(body, headers={HEADER: SECRET_TOKEN})


def golden_request(name: str) -> Request:
    """Give the request of a golden payload."""
    return webhook((GOLDEN / f"{name}.json").read_bytes())


def outbound(text: str = "Yes, it is.", **fields: Any) -> Outbound:
    """Give a message to Ann."""
    to: dict[str, Any] = {"to": Identifier("telegram_user", "110201543", "7001"), "thread": "7001"}
    return Outbound(text=text, token="tok-1", at=NOON, **(to | fields))


def refusal(code: int, description: str = "x", **parameters: int) -> httpx.Response:
    """Give Telegram's answer to a call that it does not carry out."""
    return httpx.Response(
        code, json={"ok": False, "error_code": code, "description": description, "parameters": parameters}
    )


SAID = {"ok": True, "result": {"message_id": 1366, "chat": {"id": 7001, "type": "private"}, "date": 1}}
PICTURE = File(name="a.png", media_type="image/png", content=b"PNG")


class TelegramContract(ChannelContract):
    """The laws of the kit."""

    secrets = (TOKEN, SECRET_TOKEN)
    signs_body = False
    settings_cases = (
        ({"token": Secret("no-token"), "secret_token": Secret(SECRET_TOKEN)}, "token"),
        ({"token": Secret(TOKEN), "secret_token": Secret("short")}, "secret_token"),
        ({"token": TOKEN, "secret_token": Secret(SECRET_TOKEN)}, "token"),
        ({"token": Secret(TOKEN), "secret_token": Secret(SECRET_TOKEN), "chats": ("secret",)}, "chats"),
    )
    golden = tuple(
        Golden(name=name, request=golden_request(name), events=events, signed_by=(HEADER,))
        for name, events in (
            ("text", 1),
            ("reply", 1),
            ("edited", 1),
            ("callback", 1),
            ("album_first", 1),
            ("album_second", 1),
            ("document", 1),
            ("contact_own", 1),
            ("reaction", 1),
            ("group", 0),
            ("poll", 0),
        )
    )
    golden_sends = (
        GoldenSend(name="text", message=outbound(), requests=1),
        GoldenSend(name="long text", message=outbound("word " * 2000), requests=3),
        GoldenSend(name="files", message=outbound(attachments=(PICTURE, PICTURE)), requests=3),
        GoldenSend(
            name="choices", message=outbound(detail={"choices": [{"value": "order", "label": "My order"}]}), requests=1
        ),
    )
    golden_answers = (
        GoldenAnswer(name="sent", response=httpx.Response(200, json=SAID), gives=Receipt(external_id="7001/1366")),
        GoldenAnswer(name="flood", response=refusal(429, retry_after=3), gives=TransientError),
        GoldenAnswer(name="busy", response=httpx.Response(503), gives=TransientError),
        GoldenAnswer(name="blocked", response=refusal(403), gives=PermanentError),
        GoldenAnswer(name="unreadable", response=httpx.Response(200), gives=UncertainError),
    )

    def channel(self) -> Channel:
        return channel()
