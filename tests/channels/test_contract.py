"""The four built-in channels keep the laws that everybody's channels keep."""

import hashlib
import hmac
from pathlib import Path

import jwt

from convsdk.channels.chat import ChatChannel, ChatSettings, Form
from convsdk.channels.email import EmailChannel
from convsdk.channels.email.sending import PostmarkSending
from convsdk.channels.email.settings import EmailSettings
from convsdk.channels.js_identify import JsIdentifyChannel, JsIdentifySettings
from convsdk.channels.messenger import MessengerChannel, MessengerSettings
from convsdk.core.ports import Envelope, Secret
from convsdk.testing import NOON, ChannelContract, Golden, request

FOLDER = Path(__file__).parent
MAILS = FOLDER.parent / "mail"
SECRET = "a-secret-of-the-tests-that-is-long-enough"
OTHER_SECRET = "another-secret-of-the-tests-of-good-length"


def signed(name, signature_header, body, events):
    """Give the golden request with `body`, signed with the secret."""
    digest = hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
    headers = {signature_header: f"sha256={digest}"}
    return Golden(name=name, request=request(body, headers=headers), events=events, signed_by=(signature_header,))


def chat(name, content, events=1):
    """Give the golden request of the widget with `content`."""
    return signed(name, "X-Convsdk-Signature", request(json=content).body, events)


MESSAGE = {"type": "message", "id": "m1", "visitor": "v1", "conversation": "c1", "text": "Is the blue one in stock?"}
PHOTO = {"name": "a.png", "media_type": "image/png", "size": 3, "url": "https://files.example/a.png"}
IDENTITY = {"email": "ann@shop.example", "phone": "030 123456", "account": "Shop", "name": "Ann"}
FORM = {"type": "form", "id": "f1", "visitor": "v1", "conversation": "c1", "form": "contact", "fields": IDENTITY}


class TestChat(ChannelContract):
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
        chat("opening", {"type": "open", "id": "o1", "visitor": "v1", "conversation": "c1"}),
        chat("several", [MESSAGE | {"id": "m3"}, FORM | {"id": "f3"}], events=2),
    )

    def channel(self):
        forms = {"contact": Form(email="required", phone="required")}
        return ChatChannel("shop-chat", ChatSettings(secret=Secret(SECRET), country="DE", forms=forms))


def mail(name):
    """Give the golden mail of that file."""
    envelope = Envelope(sender="" if name == "bounce" else "ann@mail.example", recipients=("in-7f3a@shop.example",))
    return Golden(name=name, request=request((FOLDER / f"email/{name}.eml").read_bytes(), envelope=envelope), events=1)


class TestEmail(ChannelContract):
    """Inbound mail."""

    settings_cases = (
        ({"address": "nobody"}, "address"),
        ({"address": "a@shop.example", "own": ("sales@shop.example", "x")}, "own"),
        ({"address": "a@shop.example", "relays": ("x",)}, "relays"),
        ({}, "address"),
        ({"address": "a@shop.example", "sender": "x"}, "sender"),
        ({"address": "a@shop.example", "reply_line": "write above"}, "reply_line"),
    )
    secrets = (SECRET,)
    golden = (
        *map(mail, ("human", "bounce", "newsletter", "no_message_id", "gb2312", "boundary_never_used")),
        Golden(name="bounce of ours", request=request((MAILS / "class-bounce.eml").read_bytes()), events=2),
    )

    def channel(self):
        settings = EmailSettings(
            address="in-7f3a@shop.example",
            authserv_id="mx.shop.example",
            sending=PostmarkSending(token=Secret(SECRET)),
        )
        return EmailChannel("support", settings)


def webhook(name, events=1):
    """Give the golden webhook of that file."""
    return signed(name, "X-Hub-Signature-256", (FOLDER / f"messenger/{name}.json").read_bytes(), events)


HANDSHAKE = {"hub.mode": "subscribe", "hub.verify_token": OTHER_SECRET, "hub.challenge": "1158201444"}


class TestMessenger(ChannelContract):
    """Messenger's webhook."""

    secrets = (SECRET, OTHER_SECRET)
    settings_cases = (
        ({"app_secret": Secret(""), "verify_token": Secret(OTHER_SECRET)}, "app_secret"),
        ({"app_secret": Secret(SECRET), "verify_token": "not-a-secret"}, "verify_token"),
        ({"app_secret": Secret(SECRET), "verify_token": Secret(OTHER_SECRET), "contact_from": "x"}, "contact_from"),
    )
    golden = (
        *map(webhook, ("text", "attachments", "echo", "delivery", "read", "reaction", "referral", "standby")),
        *(webhook("postback", 2), webhook("batch", 3), webhook("unknown", 3)),
        Golden(
            name="handshake",
            request=request(method="GET", query=HANDSHAKE),
            events=0,
            signed_by=("hub.verify_token",),
        ),
    )

    def channel(self):
        settings = MessengerSettings(app_secret=Secret(SECRET), verify_token=Secret(OTHER_SECRET))
        return MessengerChannel("shop-page", settings)


def identification(name, **content):
    """Give the golden identification of visitor v1 with `content`."""
    return Golden(name=name, request=request(json={"id": name, "visitor": "v1", **content}), events=1)


EXPIRES = int(NOON.timestamp()) + 300
CLAIMS = {"exp": EXPIRES, "aud": "convsdk", "visitor": "v1", "sub": "u1", "email": "ann@shop.example"}
MAC = hmac.new(SECRET.encode(), f"convsdk\nv1\n{EXPIRES}\nu1".encode(), hashlib.sha256).hexdigest()


class TestJsIdentify(ChannelContract):
    """Identification by JavaScript. It verifies nobody: what is not signed well is a claim."""

    secrets = (SECRET, OTHER_SECRET)
    settings_cases = (
        ({"secrets": (Secret("a-short-one"),)}, "secrets"),
        ({"secrets": ("not-a-secret-but-a-text-of-good-length",)}, "secrets"),
        ({"secrets": (Secret("-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZI\n"),)}, "secrets"),
        ({"namespace": "x" * 256}, "namespace"),
        ({"leeway_s": -1}, "leeway_s"),
        ({"require_signature": True}, "require_signature"),
    )
    golden = (
        identification("unsigned", email="ann@shop.example", phone="+4930123456", traits={"plan": "gold"}),
        identification("by token", token=jwt.encode(CLAIMS | {"email_verified": True}, SECRET)),
        identification("by old token", token=jwt.encode(CLAIMS | {"exp": 1}, SECRET), email="ann@shop.example"),
        identification("by mac", external_id="u1", expires=EXPIRES, signature=MAC),
        identification("by no mac", external_id="u1", expires=EXPIRES, signature=f"0{MAC[1:]}"),
    )

    def channel(self):
        settings = JsIdentifySettings(secrets=(Secret(SECRET), Secret(OTHER_SECRET)), audience="convsdk")
        return JsIdentifyChannel("site", settings)
