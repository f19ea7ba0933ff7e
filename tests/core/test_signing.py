import base64
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
from standardwebhooks import Webhook

from convsdk.core.ports import Headers, Request, Secret
from convsdk.core.signing import are_signing_keys, hmac_of, is_same, is_signed, require_header, sign, signing_key
from convsdk.errors import Forbidden

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


@pytest.mark.parametrize(
    ("how", "signature"),
    [
        ({}, "f7bc83f430538424b13298e6aa6fb143ef4d59a14946175997479dbc2d1a3cd8"),
        ({"encoding": "base64"}, "97yD9DBThCSxMpjmqm+xQ+9NWaFJRhdZl0edvC0aPNg="),
        ({"digest": "sha1", "encoding": "base64"}, "3nybhbi3iqa8ino29wqQcBydtNk="),
    ],
)
def test_signature_is_that_of_the_published_example(how, signature):
    """The signatures of "The quick brown fox jumps over the lazy dog" by "key" are well known."""
    assert hmac_of(b"The quick brown fox jumps over the lazy dog", Secret("key"), **how) == signature


@pytest.mark.parametrize("other", ["", "abd", "abcd", "\ud800", "äbc"])
def test_texts_are_the_same_or_not(other):
    """Whatever is in a request can be compared."""
    assert is_same("abc", "abc")
    assert is_same("\ud800", "\ud800")
    assert not is_same(other, "abc")


def knock(*values):
    """Give a request with that many header fields."""
    return Request(received_at=AT, headers=Headers([("X-Desk", value) for value in values]))


@pytest.mark.parametrize("right", [("abc",), ("abc", "old"), ("old", "abc")])
def test_header_with_one_of_the_right_values_passes(right):
    """Any of several will do, as where a secret is replaced."""
    require_header(knock("abc"), "x-desk", *right, channel="desk")


@pytest.mark.parametrize("values", [(), ("abd",), ("abc", "abc"), ("",), ("abc ",), ("\ud800",)])
def test_header_that_proves_nothing_is_refused(values):
    """A header that is missing, repeated or wrong is forbidden, in one text that names the channel and the remedy."""
    with pytest.raises(Forbidden) as caught:
        require_header(knock(*values), "X-Desk", "abc", channel="desk", remedy="look")

    assert str(caught.value) == "channel 'desk': X-Desk is missing, repeated or wrong: look"


def test_nothing_is_right_where_there_is_nothing_to_compare():
    """Without a right value everything is refused."""
    with pytest.raises(Forbidden, match="compare the secret"):
        require_header(knock(""), "X-Desk", channel="desk")
