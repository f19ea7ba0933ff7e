"""The conformance kit's contracts of Messenger and Instagram: golden webhooks and calls, and wrong settings."""

import hashlib
import hmac
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx

from convsdk.channels.messenger import InstagramChannel, InstagramSettings, MessengerChannel, MessengerSettings, Sender
from convsdk.core.model import Identifier
from convsdk.core.ports import Channel, File, Outbound, Receipt, Secret
from convsdk.errors import PermanentError, TransientError, UncertainError
from convsdk.testing import NOON, ChannelContract, Golden, GoldenAnswer, GoldenSend, request

HERE = Path(__file__).parent
HEADER = "X-Hub-Signature-256"
SECRET = "a-secret-of-the-tests-that-is-long-enough"
OTHER_SECRET = "another-secret-of-the-tests-of-good-length"
PHOTO = File(name="a.png", media_type="image/png", content=b"\x89PNG", url="https://files.example/a.png")
DATA = File(name="a.png", media_type="image/png", content=b"\x89PNG")


def webhook(name: str, events: int = 1, *, folder: str = "golden") -> Golden:
    """Give the golden webhook of that file, signed with the app's secret."""
    body = (HERE / folder / f"{name}.json").read_bytes()
    signature = f"sha256={hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()}"
    return Golden(name=name, request=request(body, headers={HEADER: signature}), events=events, signed_by=(HEADER,))


def gram(name: str) -> Golden:
    """Give the golden webhook of Instagram in that file."""
    return webhook(name, folder="golden_instagram")


HANDSHAKE = {"hub.mode": "subscribe", "hub.verify_token": OTHER_SECRET, "hub.challenge": "1158201444"}


APP: dict[str, Any] = {"app_secret": Secret(SECRET), "verify_token": Secret(OTHER_SECRET)}
TOKEN = "page-token-of-the-tests"
PROOF = hmac.new(SECRET.encode(), TOKEN.encode(), hashlib.sha256).hexdigest()


def post(url: str, **content: object) -> httpx.Request:
    """Give the request that the Graph API gets, as its documentation has it."""
    headers = {"authorization": f"Bearer {TOKEN}", "content-type": "application/json"}
    return httpx.Request("POST", url, headers=headers, content=json.dumps(content | {"appsecret_proof": PROOF}))


def to_ann(kind: str, text: str, *files: File, **detail: object) -> Outbound:
    """Give a message to Ann, who wrote an hour ago."""
    ann = Identifier(kind, "1001", "7001")
    heard_at = NOON - timedelta(hours=1)
    return Outbound(to=ann, text=text, token="tok", at=NOON, heard_at=heard_at, attachments=files, detail=detail)


def refused(status: int, code: int, **more: int) -> httpx.Response:
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


class MessengerContract(ChannelContract):
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
            message=to_ann("messenger_psid", "See", PHOTO, DATA),
            requests=3,
        ),
        GoldenSend(
            name="typing",
            message=to_ann("messenger_psid", "", action="typing_on"),
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

    def channel(self) -> Channel:
        pages = (Sender(id="1001", token=Secret(TOKEN)),)
        return MessengerChannel("shop-page", MessengerSettings(pages=pages, **APP))


class InstagramContract(ChannelContract):
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
        GoldenSend(name="text and file", message=to_ann("instagram_igsid", "See", PHOTO), requests=2),
    )
    golden_answers = ANSWERS

    def channel(self) -> Channel:
        accounts = (Sender(id="1001", token=Secret(TOKEN)),)
        return InstagramChannel("shop-gram", InstagramSettings(accounts=accounts, **APP))
