"""The conformance kit's contract of the web chat: its golden requests, and wrong settings."""

import hashlib
import hmac
from typing import Any

from convsdk.channels.chat import ChatChannel, ChatSettings, Form
from convsdk.core.ports import Channel, Secret
from convsdk.testing import ChannelContract, Golden, request

SECRET = "a-secret-of-the-tests-that-is-long-enough"
HEADER = "X-Convsdk-Signature"


def chat(name: str, content: object, events: int = 1) -> Golden:
    """Give the golden request of the widget with `content`, signed with the secret."""
    body = request(json=content).body
    signature = f"sha256={hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()}"
    return Golden(name=name, request=request(body, headers={HEADER: signature}), events=events, signed_by=(HEADER,))


WHERE: dict[str, Any] = {"visitor": "v1", "conversation": "c1"}
MESSAGE = {"type": "message", "id": "m1", "text": "Is the blue one in stock?", **WHERE}
PHOTO = {"name": "a.png", "media_type": "image/png", "size": 3, "url": "https://files.example/a.png"}
IDENTITY = {"email": "ann@shop.example", "phone": "030 123456", "account": "Shop", "name": "Ann"}
FORM = {"type": "form", "id": "f1", "form": "contact", "fields": IDENTITY, **WHERE}


class ChatContract(ChannelContract):
    """The web chat."""

    secrets = (SECRET,)
    settings_cases = (
        ({"secret": Secret(" ")}, "secret"),
        ({"secret": "not-a-secret"}, "secret"),
        ({"country": "Germany"}, "country"),
    )
    golden = (
        chat("message", MESSAGE),
        chat("message with all", MESSAGE | {"id": "m2", "attachments": [PHOTO], "identity": IDENTITY}),
        chat("form", FORM),
        chat("form sent back", FORM | {"id": "f2", "fields": {"phone": "1", "shoe": "42"}}),
        chat("answer to a block", MESSAGE | {"id": "m4", "block": "topic", "choice": "order"}),
        chat("opening", {"type": "open", "id": "o1", **WHERE}),
        chat("several", [MESSAGE | {"id": "m3"}, FORM | {"id": "f3"}], events=2),
    )

    def channel(self) -> Channel:
        forms = {"contact": Form(email="required", phone="required")}
        return ChatChannel("shop-chat", ChatSettings(secret=Secret(SECRET), country="DE", forms=forms))
