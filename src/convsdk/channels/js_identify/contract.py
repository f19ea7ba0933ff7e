"""The conformance kit's contract of identification by JavaScript: its golden requests, and wrong settings."""

import hashlib
import hmac

import jwt

from convsdk.channels.js_identify import JsIdentifyChannel, JsIdentifySettings
from convsdk.core.ports import Channel, Secret
from convsdk.testing import NOON, ChannelContract, Golden, request

SECRET = "a-secret-of-the-tests-that-is-long-enough"
OTHER_SECRET = "another-secret-of-the-tests-of-good-length"


def identification(name: str, **content: object) -> Golden:
    """Give the golden identification of visitor v1 with `content`."""
    return Golden(name=name, request=request(json={"id": name, "visitor": "v1", **content}), events=1)


EXPIRES = int(NOON.timestamp()) + 300
CLAIMS = {"exp": EXPIRES, "aud": "convsdk", "visitor": "v1", "sub": "u1", "email": "ann@shop.example"}
MAC = hmac.new(SECRET.encode(), f"convsdk\nv1\n{EXPIRES}\nu1".encode(), hashlib.sha256).hexdigest()


class JsIdentifyContract(ChannelContract):
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

    def channel(self) -> Channel:
        settings = JsIdentifySettings(secrets=(Secret(SECRET), Secret(OTHER_SECRET)), audience="convsdk")
        return JsIdentifyChannel("site", settings)
