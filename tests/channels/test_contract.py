"""The built-in channels keep the laws that everybody's channels keep."""

import hashlib
import hmac
import json
from datetime import timedelta
from pathlib import Path

import httpx
import jwt
from attrs import evolve

from convsdk.channels.chat import ChatChannel, ChatSettings, Form
from convsdk.channels.email import EmailChannel
from convsdk.channels.email.sending import PostmarkSending
from convsdk.channels.email.settings import EmailSettings
from convsdk.channels.js_identify import JsIdentifyChannel, JsIdentifySettings
from convsdk.channels.messenger import InstagramChannel, InstagramSettings, MessengerChannel, MessengerSettings, Sender
from convsdk.core.model import Identifier
from convsdk.core.ports import Envelope, File, Outbound, Receipt, Secret
from convsdk.errors import PermanentError, TransientError, UncertainError
from convsdk.testing import NOON, ChannelContract, Golden, GoldenAnswer, GoldenSend, request

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


PHOTO_FILE = File(name="a.png", media_type="image/png", content=b"\x89PNG", url="https://files.example/a.png")


def to_ann_by_mail(text, **fields):
    """Give a mail to Ann."""
    to = Identifier("email", "", "ann@mail.example")
    return Outbound(to=to, text=text, token="abcdefghij234567", at=NOON, subject="Parcel", **fields)


class TestEmail(ChannelContract):
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
        GoldenSend(name="text", message=to_ann_by_mail("Hello"), requests=1),
        GoldenSend(name="text and files", message=to_ann_by_mail("See", attachments=(PHOTO_FILE,) * 2), requests=1),
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


APP = {"app_secret": Secret(SECRET), "verify_token": Secret(OTHER_SECRET)}
TOKEN = "page-token-of-the-tests"
PROOF = hmac.new(SECRET.encode(), TOKEN.encode(), hashlib.sha256).hexdigest()


def post(url, **content):
    """Give the request that the Graph API gets, as its documentation has it."""
    headers = {"authorization": f"Bearer {TOKEN}", "content-type": "application/json"}
    return httpx.Request("POST", url, headers=headers, content=json.dumps(content | {"appsecret_proof": PROOF}))


def to_ann(kind, text, **fields):
    """Give a message to Ann, who wrote an hour ago."""
    ann = Identifier(kind, "1001", "7001")
    return Outbound(to=ann, text=text, token="tok", at=NOON, heard_at=NOON - timedelta(hours=1), **fields)


def refused(status, code, **more):
    """Give an answer that says no."""
    return httpx.Response(status, json={"error": {"message": "No.", "type": "OAuthException", "code": code, **more}})


ANSWERS = (
    GoldenAnswer(
        name="taken",
        response=httpx.Response(200, json={"recipient_id": "7001", "message_id": "m_1"}),
        gives=Receipt(external_id="m_1"),
    ),
    GoldenAnswer(name="shown", response=httpx.Response(200, json={"recipient_id": "7001"}), gives=Receipt()),
    GoldenAnswer(name="try again", response=refused(500, 1200), gives=TransientError),
    GoldenAnswer(name="too many", response=refused(400, 613), gives=TransientError),
    GoldenAnswer(name="token expired", response=refused(401, 190), gives=PermanentError),
    GoldenAnswer(name="window closed", response=refused(400, 10, error_subcode=2018278), gives=PermanentError),
    GoldenAnswer(name="done perhaps", response=refused(500, 1, error_subcode=1357046), gives=UncertainError),
    GoldenAnswer(name="gateway", response=httpx.Response(502), gives=UncertainError),
)


class TestMessenger(ChannelContract):
    """Messenger's webhook and Send API."""

    secrets = (SECRET, OTHER_SECRET, TOKEN)
    settings_cases = (
        (APP | {"app_secret": Secret("")}, "app_secret"),
        (APP | {"verify_token": "not-a-secret"}, "verify_token"),
        (APP | {"contact_from": "x"}, "contact_from"),
        (APP | {"app_id": "shop"}, "app_id"),
        (APP | {"api_version": "25"}, "api_version"),
        (APP | {"graph_url": "http://graph.example"}, "graph_url"),
        (APP | {"graph_url": "https://user:word@graph.example"}, "graph_url"),
        (APP | {"graph_url": "https://["}, "graph_url"),
        (APP | {"graph_url": "https://graph.example#"}, "graph_url"),
        (APP | {"graph_url": "https://graph.example/?"}, "graph_url"),
        (APP | {"graph_url": "https://graph.\nexample"}, "graph_url"),
        (APP | {"graph_url": "https://graph. example"}, "graph_url"),
        (APP | {"human_agent": "yes"}, "human_agent"),
        (APP | {"profile_fields": ("Name&",)}, "profile_fields"),
        (APP | {"pages": ("1001",)}, "pages"),
        (APP | {"pages": (Sender(id="1", token=Secret("a")), Sender(id="1", token=Secret("b")))}, "pages"),
    )
    golden_sends = (
        GoldenSend(
            name="text",
            message=to_ann("messenger_psid", "Hello"),
            requests=[
                post(
                    "https://graph.facebook.com/v25.0/1001/messages",
                    recipient={"id": "7001"},
                    messaging_type="RESPONSE",
                    message={"text": "Hello", "metadata": "convsdk/tok"},
                )
            ],
        ),
        GoldenSend(name="long text", message=to_ann("messenger_psid", "word " * 500), requests=2),
        GoldenSend(
            name="text and files",
            message=to_ann("messenger_psid", "See", attachments=(PHOTO_FILE, evolve(PHOTO_FILE, url=""))),
            requests=3,
        ),
        GoldenSend(
            name="typing",
            message=to_ann("messenger_psid", "", detail={"action": "typing_on"}),
            requests=[
                post(
                    "https://graph.facebook.com/v25.0/1001/messages",
                    recipient={"id": "7001"},
                    sender_action="typing_on",
                )
            ],
        ),
    )
    golden_answers = ANSWERS
    golden = (
        *map(webhook, ("text", "attachments", "echo", "delivery", "read", "reaction", "referral", "standby")),
        *(webhook("postback", 2), webhook("batch", 3), webhook("unknown", 3), webhook("handover", 4)),
        *map(webhook, ("edit", "optin", "unreact")),
        Golden(
            name="handshake",
            request=request(method="GET", query=HANDSHAKE),
            events=0,
            signed_by=("hub.verify_token",),
        ),
    )

    def channel(self):
        pages = (Sender(id="1001", token=Secret(TOKEN)),)
        return MessengerChannel("shop-page", MessengerSettings(pages=pages, **APP))


def gram(name, events=1):
    """Give the golden webhook of Instagram in that file."""
    return signed(name, "X-Hub-Signature-256", (FOLDER / f"instagram/{name}.json").read_bytes(), events)


class TestInstagram(ChannelContract):
    """Instagram's webhook and Send API."""

    secrets = (SECRET, OTHER_SECRET, TOKEN)
    settings_cases = (
        ({"app_secret": Secret(""), "verify_token": Secret(OTHER_SECRET)}, "app_secret"),
        (APP | {"accounts": ["1001"]}, "accounts"),
    )
    golden = (
        *map(gram, ("text", "story_reply", "story_mention", "ice_breaker", "echo", "deleted", "reaction", "seen")),
        Golden(
            name="handshake",
            request=request(method="GET", query=HANDSHAKE),
            events=0,
            signed_by=("hub.verify_token",),
        ),
    )
    golden_sends = (
        GoldenSend(
            name="text",
            message=to_ann("instagram_igsid", "Hello"),
            requests=[
                post(
                    "https://graph.facebook.com/v25.0/me/messages",
                    recipient={"id": "7001"},
                    messaging_type="RESPONSE",
                    message={"text": "Hello"},
                )
            ],
        ),
        GoldenSend(name="long text", message=to_ann("instagram_igsid", "über " * 250), requests=2),
        GoldenSend(
            name="text and file", message=to_ann("instagram_igsid", "See", attachments=(PHOTO_FILE,)), requests=2
        ),
    )
    golden_answers = ANSWERS

    def channel(self):
        accounts = (Sender(id="1001", token=Secret(TOKEN)),)
        return InstagramChannel("shop-gram", InstagramSettings(accounts=accounts, **APP))


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
