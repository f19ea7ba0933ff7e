import base64
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
from standardwebhooks import Webhook

from convsdk.core.ports import Secret
from convsdk.core.signing import are_signing_keys, is_signed, sign, signing_key

SECRET = "whsec_" + base64.b64encode(b"x" * 24).decode()
KEY = b"x" * 24
AT = datetime(2026, 1, 1, tzinfo=UTC)
STAMP = int(AT.timestamp())


def test_signature_is_that_of_the_reference_implementation():
    """Both ways agree with the package of those who wrote the specification."""
    theirs = Webhook(SECRET).sign("msg_1", AT, "body")

    assert sign(b"body", id="msg_1", timestamp=STAMP, keys=[KEY]) == theirs
    assert is_signed(f"v1a,x {theirs}", b"body", id="msg_1", timestamp=STAMP, keys=[b"y" * 24, KEY])


@pytest.mark.parametrize(
    "changed",
    [{"signature": ""}, {"signature": "v1,\udce9"}, {"body": b"b"}, {"id": "\udce9"}, {"timestamp": 1}, {"keys": []}],
)
def test_anything_else_is_not_signed(changed):
    """Another signature, body, id, time or key does not pass, and none of them is a fault."""
    right = {"signature": sign(b"body", id="msg_1", timestamp=STAMP, keys=[KEY]), "body": b"body", "id": "msg_1"}

    given = right | {"timestamp": STAMP, "keys": [KEY]} | changed

    assert not is_signed(given.pop("signature"), given.pop("body"), **given)


@pytest.mark.parametrize("text", ["", "whsec_", "whsec_!", "whsec_\u00e9", SECRET.removeprefix("whsec_")])
def test_text_that_is_no_secret_gives_no_key(text):
    """A key comes out of base64 behind the prefix, and out of nothing else."""
    assert signing_key(Secret(text)) == b""
    assert signing_key(Secret(SECRET)) == KEY


@pytest.mark.parametrize("secrets", [(), (SECRET,), (Secret(SECRET), Secret("whsec_eHh4"))])
def test_what_cannot_sign_is_told(secrets):
    """No secret, a plain text or a short one is refused with the field's name."""
    with pytest.raises(ValueError, match="secrets: "):
        are_signing_keys(None, SimpleNamespace(name="secrets"), secrets)


def test_good_secrets_pass():
    """Secrets of 24 to 64 bytes may sign."""
    are_signing_keys(None, SimpleNamespace(name="secrets"), (Secret(SECRET),))
