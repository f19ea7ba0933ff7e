"""The conformance kit's contract of e-mail: golden mails, answers of a provider, and wrong settings."""

from pathlib import Path

import httpx

from convsdk.channels.email import EmailChannel
from convsdk.channels.email.sending import PostmarkSending
from convsdk.channels.email.settings import EmailSettings
from convsdk.core.model import Identifier
from convsdk.core.ports import Channel, Envelope, File, Outbound, Receipt, Secret
from convsdk.errors import PermanentError, TransientError, UncertainError
from convsdk.testing import NOON, ChannelContract, Golden, GoldenAnswer, GoldenSend, request

GOLDEN = Path(__file__).with_name("golden")
SECRET = "a-secret-of-the-tests-that-is-long-enough"


def mail(name: str) -> Golden:
    """Give the golden mail of that file."""
    envelope = Envelope(sender="" if name == "bounce" else "ann@mail.example", recipients=("in-7f3a@shop.example",))
    return Golden(name=name, request=request((GOLDEN / f"{name}.eml").read_bytes(), envelope=envelope), events=1)


PHOTO_FILE = File(name="a.png", media_type="image/png", content=b"\x89PNG", url="https://files.example/a.png")


def to_ann(text: str, *files: File) -> Outbound:
    """Give a mail to Ann."""
    to = Identifier("email", "", "ann@mail.example")
    return Outbound(to=to, text=text, token="abcdefghij234567", at=NOON, subject="Parcel", attachments=files)


class EmailContract(ChannelContract):
    """Mail, read and sent."""

    settings_cases = (
        ({"address": "nobody"}, "address"),
        ({"address": "a@shop.example", "own": ("sales@shop.example", "x")}, "own"),
        ({"address": "a@shop.example", "relays": ("x",)}, "relays"),
        ({}, "address"),
        ({"address": "a@shop.example", "sender": "x"}, "sender"),
        ({"address": "a@shop.example", "reply_line": "write above"}, "reply_line"),
    )
    secrets = (SECRET,)
    golden_sends = (
        GoldenSend(name="text", message=to_ann("Hello"), requests=1),
        GoldenSend(name="text and files", message=to_ann("See", PHOTO_FILE, PHOTO_FILE), requests=1),
    )
    golden_answers = (
        GoldenAnswer(name="taken", response=httpx.Response(200, json={"ErrorCode": 0}), gives=Receipt()),
        GoldenAnswer(name="maintenance", response=httpx.Response(422, json={"ErrorCode": 100}), gives=TransientError),
        GoldenAnswer(name="inactive", response=httpx.Response(422, json={"ErrorCode": 406}), gives=PermanentError),
        GoldenAnswer(name="too many", response=httpx.Response(429), gives=TransientError),
        GoldenAnswer(name="gateway", response=httpx.Response(504), gives=UncertainError),
    )
    golden = (
        *map(mail, ("human", "bounce", "newsletter", "no_message_id", "gb2312", "boundary_never_used")),
        Golden(name="bounce of ours", request=request((GOLDEN / "bounce_of_ours.eml").read_bytes()), events=2),
    )

    def channel(self) -> Channel:
        settings = EmailSettings(
            address="in-7f3a@shop.example",
            authserv_id="mx.shop.example",
            sending=PostmarkSending(token=Secret(SECRET)),
        )
        return EmailChannel("support", settings)
