import base64
import hashlib
import hmac
import json
from datetime import UTC, datetime

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from convsdk.channels.js_identify import JsIdentifyChannel, JsIdentifySettings, convsdk_channels
from convsdk.core.events import Identified
from convsdk.core.model import Claim, Trait, Trust
from convsdk.core.ports import Request, Secret
from convsdk.errors import ParseError
from convsdk.hookspecs import Context

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)
EPOCH_S = int(NOW.timestamp())
SECRET = "the-newer-secret-of-thirty-two-bytes-or-more"
OLDER = "the-older-secret-of-thirty-two-bytes-or-more"
FOREIGN = "somebody-elses-secret-of-thirty-two-bytes"


def channel(**settings):
    """Give a channel with two secrets, changed by these settings."""
    plain = {"secrets": (Secret(SECRET), Secret(OLDER)), "audience": "convsdk", "namespace": "shop", "leeway_s": 10}
    return JsIdentifyChannel("site", JsIdentifySettings(**plain | settings))


def token(*, key=SECRET, algorithm="HS256", headers=None, without=(), **changes):
    """Give a good token, changed by these claims."""
    plain = {"exp": EPOCH_S + 60, "aud": "convsdk", "visitor": "v1", "sub": "u1", "email": "ann@shop.example"}
    claims = {name: value for name, value in (plain | changes).items() if name not in without}
    return jwt.encode(claims, key, algorithm=algorithm, headers=headers)


def signature(external_id="u1", *, expires=EPOCH_S + 60, visitor="v1", audience="convsdk", key=SECRET):
    """Give a good HMAC."""
    signed = f"{audience}\n{visitor}\n{expires}\n{external_id}"
    return hmac.new(key.encode(), signed.encode(), hashlib.sha256).hexdigest()


def encoded(raw):
    """Give bytes as a part of a token."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def handmade(*, header=b'{"alg":"HS256"}', also=b"", key=SECRET):
    """Give a token with this header and `also` at the end of its claims, signed by HMAC-SHA256 whatever they say."""
    good = {"exp": EPOCH_S + 60, "aud": "convsdk", "visitor": "v1", "sub": "u1"}
    signed = f"{encoded(header)}.{encoded(json.dumps(good).encode()[:-1] + also + b'}')}"
    return f"{signed}.{encoded(hmac.new(key.encode(), signed.encode(), hashlib.sha256).digest())}"


def identify(*, settings=None, body=None, **content):
    """Give the event that a channel reads out of an identification."""
    plain = {"id": "i1", "visitor": "v1"}
    raw = json.dumps(plain | content).encode() if body is None else body
    (event,) = channel(**settings or {}).parse(Request(received_at=NOW, body=raw))
    return event


def claims(event):
    """Give value and trust by kind."""
    return {claim.kind: (claim.value, claim.trust) for claim in event.hint.identifiers}


def test_plugin_brings_the_js_identify_channel():
    """The hook gives the one channel class."""
    assert convsdk_channels(Context(version="1")) == [JsIdentifyChannel]


def test_channel_holds_no_messages():
    """The channel declares that it only identifies."""
    assert JsIdentifyChannel.can.messages is False


def test_unsigned_identification_is_asserted():
    """Without a signature, every value is a claim of the visitor."""
    traits = {"name": "Ann", "plan": " ", "email": "x"}

    event = identify(email=" ann@shop.example ", external_id="u1", phone="+4930123456", traits=traits)

    assert isinstance(event, Identified)
    assert (event.external_id, event.hint.id) == (f"i1/{hashlib.sha256(b'v1').hexdigest()[:32]}", "")
    assert (event.hint.at, event.hint.visitor) == (NOW, "v1")
    assert event.hint.how == "JavaScript identification"
    assert set(event.hint.identifiers) == {
        Claim("email", "ann@shop.example", Trust.ASSERTED),
        Claim("external_id", "u1", Trust.ASSERTED, scope="shop"),
        Claim("phone", "+4930123456", Trust.ASSERTED),
    }
    assert event.hint.traits == (Trait("name", "Ann", Trust.ASSERTED),)


def test_visitors_may_choose_the_same_id():
    """Identifications of two visitors under one id are two events, and no id shows a cookie."""
    first, second = (identify(visitor=visitor).external_id for visitor in ("cookie-1", "cookie-2"))

    assert first != second
    assert "cookie" not in first


def test_token_proves_external_id_and_traits():
    """A token proves the site's user id, name and company."""
    event = identify(token=token(name="Ann", company="Shop", traits={"plan": "gold"}))

    assert Claim("external_id", "u1", Trust.PROVEN, scope="shop") in event.hint.identifiers
    assert {(one.name, one.value, one.trust) for one in event.hint.traits} == {
        ("name", "Ann", Trust.PROVEN),
        ("company", "Shop", Trust.PROVEN),
        ("plan", "gold", Trust.PROVEN),
    }


def test_external_id_claim_goes_before_subject():
    """Where a token has both, `external_id` is the site's user id."""
    assert claims(identify(token=token(external_id="u2")))["external_id"] == ("u2", Trust.PROVEN)


@pytest.mark.parametrize(
    ("verified", "trust"),
    [
        (True, Trust.PROVEN),
        (False, Trust.ASSERTED),
        (None, Trust.ASSERTED),
        ("true", Trust.ASSERTED),
        (1, Trust.ASSERTED),
    ],
)
def test_signed_email_is_proven_only_where_verified(verified, trust):
    """A signed address is proven only where the token says that it is verified."""
    assert claims(identify(token=token(email_verified=verified)))["email"] == ("ann@shop.example", trust)


def test_plain_values_beside_a_good_token_stay_asserted():
    """What the token does not say, the page may claim; what it says, the page cannot change."""
    event = identify(token=token(email_verified=True), email="eve@evil.example", external_id="u9", phone="+4930123456")

    assert claims(event) == {
        "external_id": ("u1", Trust.PROVEN),
        "email": ("ann@shop.example", Trust.PROVEN),
        "phone": ("+4930123456", Trust.ASSERTED),
    }


@pytest.mark.parametrize("kid", [None, "2026"])
def test_token_of_an_older_secret_is_good(kid):
    """Each of the secrets may have signed, so that they can be rotated."""
    event = identify(token=token(key=OLDER, headers={"kid": kid} if kid else None))

    assert claims(event)["external_id"] == ("u1", Trust.PROVEN)


@pytest.mark.parametrize("exp", [EPOCH_S - 9, EPOCH_S - 9.5, EPOCH_S + 86_410])
def test_token_within_the_leeway_is_good(exp):
    """Clocks may differ by the leeway, at either end of a token's life, whole seconds or not."""
    assert claims(identify(token=token(exp=exp)))["external_id"] == ("u1", Trust.PROVEN)


def test_claim_that_is_there_twice_counts_as_the_last():
    """Of two claims of one name, the last counts (RFC 7519, section 4), for the visitor as for anything else."""
    twice = b',"email":"ann@shop.example","email_verified":true,"email_verified":false'

    assert claims(identify(token=handmade(also=twice)))["email"] == ("ann@shop.example", Trust.ASSERTED)
    assert claims(identify(token=handmade(also=b',"visitor":"v2"'))) == {}


def test_header_cannot_bring_a_key():
    """Only the secrets sign: what a header says about its key is not looked at, whether the token is good or not."""
    header = b'{"alg":"HS256","kid":"../../dev/null","jku":"https://evil.example","jwk":{"kty":"oct","k":"AAAA"}}'

    assert claims(identify(token=handmade(header=header)))["external_id"] == ("u1", Trust.PROVEN)
    assert [claims(identify(token=handmade(header=header, key=key))) for key in ("", "\0\0\0")] == [{}, {}]


def test_secret_that_was_taken_out_signs_no_more():
    """At the end of a rotation, tokens and HMACs of the old secret prove nothing."""
    rotated = {"secrets": (Secret(SECRET),)}
    mac = {"external_id": "u1", "expires": EPOCH_S + 60, "signature": signature(key=OLDER)}

    assert claims(identify(settings=rotated, token=token(key=OLDER))) == {}
    assert claims(identify(settings=rotated, **mac)) == {"external_id": ("u1", Trust.ASSERTED)}


def test_bad_token_is_not_made_up_for_by_a_good_hmac():
    """A request with a token stands or falls with it."""
    event = identify(token=token(key=FOREIGN), external_id="u1", expires=EPOCH_S + 60, signature=signature())

    assert claims(event) == {"external_id": ("u1", Trust.ASSERTED)}


def test_token_without_an_account_proves_its_address_only():
    """The page's word about the account is no better for standing beside a token."""
    event = identify(token=token(without=["sub"], email_verified=True), external_id="u9")

    assert claims(event) == {
        "external_id": ("u9", Trust.ASSERTED),
        "email": ("ann@shop.example", Trust.PROVEN),
    }


def unsigned_token():
    """Give a token of the algorithm `none`."""
    return jwt.encode({"exp": EPOCH_S + 60, "aud": "convsdk", "visitor": "v1", "sub": "u1"}, None, algorithm="none")


BAD_TOKENS = {
    "foreign": (token(key=FOREIGN), "signature"),
    "expired": (token(exp=EPOCH_S - 10), "expired"),
    "without expiry": (token(without=["exp"]), "claims"),
    "in milliseconds": (token(exp=(EPOCH_S + 60) * 1000), "endless"),
    "for more than a day": (token(exp=EPOCH_S + 86_411), "endless"),
    "infinite": (token(exp=1e400), "claims"),
    "not a number": (token(exp=float("nan")), "claims"),
    "huge": (token(exp=10**400), "claims"),
    "more digits than a number may have": (handmade(also=b',"exp":' + b"9" * 5000), "malformed"),
    "text as expiry": (token(exp="9999999999"), "claims"),
    "digits beyond ASCII as expiry": (token(exp="\u0661\u0667"), "claims"),
    "truth as expiry": (token(exp=True), "claims"),
    "early": (token(nbf=EPOCH_S + 11), "early"),
    "without audience": (token(without=["aud"]), "claims"),
    "other audience": (token(aud="other"), "audience"),
    "audiences": (token(aud=["convsdk", "other"]), "audience"),
    "other visitor": (token(visitor="v2"), "visitor"),
    "without visitor": (token(without=["visitor"]), "claims"),
    "surrogate visitor": (token(visitor="\ud800"), "visitor"),
    "number as subject": (token(sub=1), "malformed"),
    "other algorithm": (token(key=SECRET * 2, algorithm="HS512"), "malformed"),
    "algorithm of public keys": (handmade(header=b'{"alg":"RS256"}'), "malformed"),
    "algorithm in small letters": (handmade(header=b'{"alg":"hs256"}'), "malformed"),
    "algorithms": (handmade(header=b'{"alg":["HS256"]}'), "malformed"),
    "algorithm that is there twice": (handmade(header=b'{"alg":"HS256","alg":"none"}'), "malformed"),
    "without algorithm": (handmade(header=b"{}"), "malformed"),
    "no algorithm": (unsigned_token(), "malformed"),
    "no algorithm, signed": (handmade(header=b'{"alg":"none"}'), "malformed"),
    "no signature": (token().rpartition(".")[0] + ".", "signature"),
    "empty key": (handmade(key=""), "signature"),
    "number as key id": (handmade(header=b'{"alg":"HS256","kid":1}'), "malformed"),
    "extension": (handmade(header=b'{"alg":"HS256","crit":["exp"],"exp":1}'), "malformed"),
    "content elsewhere": (handmade(header=b'{"alg":"HS256","b64":false,"crit":["b64"]}'), "malformed"),
    "no token": ("a.b", "malformed"),
    "beyond ASCII": ("ü.ü.ü", "malformed"),
    "deep header": (handmade(header=b'{"alg":"HS256","x":' + b"[" * 5000), "malformed"),
    "long": ("x" * 9000, "malformed"),
}


@pytest.mark.parametrize("name", BAD_TOKENS)
def test_bad_token_counts_as_unsigned_and_is_logged(name):
    """A token that proves nothing leaves the page's plain values, and a warning without any value."""
    bad, reason = BAD_TOKENS[name]

    with capture_logs() as logs:
        event = identify(token=bad, email="eve@evil.example")

    assert claims(event) == {"email": ("eve@evil.example", Trust.ASSERTED)}
    assert logs == [{"event": "signature not believed", "channel": "site", "reason": reason, "log_level": "warning"}]


def test_deep_token_raises_nothing():
    """How deep claims may be is Python's to say, another one in each version: believed or not, they end nothing."""
    deep = handmade(also=b',"x":' + b"[" * 2500 + b"]" * 2500)

    event = identify(token=deep, email="eve@evil.example")

    assert {"email"} <= claims(event).keys() <= {"email", "external_id"}


def test_nothing_is_good_without_an_audience():
    """Where no audience is configured, neither a token nor an HMAC is believed."""
    nowhere = {"audience": ""}
    mac = {"external_id": "u1", "expires": EPOCH_S + 60, "signature": signature(audience="")}

    assert claims(identify(settings=nowhere, token=token(aud=""))) == {}
    assert claims(identify(settings=nowhere, **mac)) == {"external_id": ("u1", Trust.ASSERTED)}


def test_lone_surrogate_in_a_token_is_left_out():
    """A value of a token that is no Unicode text is left out."""
    event = identify(token=token(email="\ud800@shop.example", name="\udfff"))

    assert set(claims(event)) == {"external_id"}
    assert event.hint.traits == ()


def test_hmac_within_the_leeway_is_good():
    """The expiry of an HMAC allows for the leeway, as that of a token does."""
    event = identify(external_id="u1", expires=EPOCH_S - 9, signature=signature(expires=EPOCH_S - 9))

    assert claims(event) == {"external_id": ("u1", Trust.PROVEN)}


@pytest.mark.parametrize(("external_id", "key"), [("u1", SECRET), ("u1", OLDER), ("Zoë:7/1", SECRET)])
def test_hmac_proves_the_external_id_only(external_id, key):
    """The HMAC proves the id, whatever is in it; the rest stays a claim."""
    event = identify(
        external_id=external_id,
        email="ann@shop.example",
        expires=EPOCH_S + 60,
        signature=signature(external_id, key=key),
        traits={"name": "Ann"},
    )

    assert claims(event) == {
        "external_id": (external_id, Trust.PROVEN),
        "email": ("ann@shop.example", Trust.ASSERTED),
    }
    assert event.hint.traits == (Trait("name", "Ann", Trust.ASSERTED),)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"signature": signature(key=FOREIGN)}, "signature"),
        ({"signature": signature("u2")}, "signature"),
        ({"signature": signature(visitor="v2")}, "signature"),
        ({"signature": signature(audience="other")}, "signature"),
        ({"signature": signature().upper()}, "signature"),
        ({"signature": "ü"}, "signature"),
        ({"expires": EPOCH_S + 61}, "signature"),
        ({"expires": EPOCH_S - 10, "signature": signature(expires=EPOCH_S - 10)}, "expired"),
        ({"expires": 10**400, "signature": signature(expires=10**400)}, "endless"),
        ({"external_id": " ", "signature": signature(" ")}, "claims"),
        ({"expires": None}, "claims"),
        ({"external_id": None}, "claims"),
    ],
)
def test_bad_hmac_counts_as_unsigned_and_is_logged(changes, reason):
    """A signature that proves nothing leaves claims, and a warning without any value."""
    content = {"external_id": "u1", "expires": EPOCH_S + 60, "signature": signature()} | changes

    with capture_logs() as logs:
        event = identify(**content)

    assert {trust for _, trust in claims(event).values()} <= {Trust.ASSERTED}
    assert [log["reason"] for log in logs] == [reason]


@pytest.mark.parametrize("bad", [None, token(key=FOREIGN)])
def test_required_signature_leaves_the_visitor_only(bad):
    """Where a signature is required, a bad or missing one identifies nobody."""
    content = {"email": "eve@evil.example", "traits": {"name": "Eve"}, "token": bad}

    event = identify(settings={"require_signature": True}, **content)

    assert (event.hint.visitor, event.hint.identifiers, event.hint.traits) == ("v1", (), ())


def test_required_signature_is_met_by_a_good_token():
    """Where a signature is required, a good one identifies."""
    event = identify(settings={"require_signature": True}, token=token())

    assert claims(event)["external_id"] == ("u1", Trust.PROVEN)


@pytest.mark.parametrize(
    "settings",
    [
        {"secrets": (Secret("short"),)},
        {"secrets": ("a-secret-that-is-long-enough-but-plain-text",)},
        {"leeway_s": -1},
        {"namespace": "x" * 256},
        {"secrets": (Secret("-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQ\n-----END PUBLIC KEY-----"),)},
        {"require_signature": True, "secrets": ()},
        {"require_signature": True, "audience": ""},
    ],
)
def test_unusable_setting_is_refused(settings):
    """A settings error names its field and holds no secret."""
    with pytest.raises(ValueError, match=next(iter(settings))) as caught:
        channel(**settings)

    assert "'short'" not in str(caught.value)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff",
        b"[]",
        b"[" * 100_000,
        b'{"id":"i","visitor":"v","traits":' + b'{"a":' * 100_000,
        b'{"id":"i"}',
        b'{"id":"i","visitor":""}',
        b'{"id":"i","visitor":" "}',
        b'{"id":"i\\n","visitor":"v"}',
        b'{"id":"i","visitor":"\\ud800"}',
        b'{"id":"i","visitor":"v","email":1}',
        b'{"id":"i","visitor":"v","expires":1e400}',
        b'{"id":"i","visitor":"v","expires":' + b"9" * 5000 + b"}",
        b'{"id":"i","visitor":"v","unknown":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
)
def test_anything_else_is_a_parse_error(body):
    """A body that is no identification is a parse error."""
    with pytest.raises(ParseError):
        identify(body=body)


tokens = st.text() | st.binary().map(lambda raw: base64.urlsafe_b64encode(raw).decode() + ".e30.x")
contents = st.fixed_dictionaries(
    {"id": st.text(min_size=1, max_size=9), "visitor": st.text(min_size=1, max_size=9)},
    optional={
        "email": st.text() | st.none(),
        "external_id": st.text(),
        "phone": st.text(),
        "token": tokens,
        "signature": st.text(),
        "expires": st.integers(),
        "traits": st.dictionaries(st.text(), st.text()),
    },
)


@given(body=st.binary() | contents.map(lambda content: json.dumps(content).encode()))
def test_any_bytes_give_an_event_or_a_parse_error(body):
    """Parsing is total and deterministic, nothing unsigned is proven, and all of it can be stored as UTF-8."""
    with capture_logs():
        try:
            event = identify(body=body)
        except ParseError:
            return
        again = identify(body=body)

    assert repr(event).encode()
    assert event == again
    assert all(claim.trust is Trust.ASSERTED for claim in event.hint.identifiers)


@given(
    claims_=st.dictionaries(
        st.sampled_from(["exp", "nbf", "sub", "email", "name", "traits", "visitor"]),
        st.none() | st.text() | st.integers() | st.floats(),
    )
)
def test_any_signed_claims_give_an_event(claims_):
    """Whatever the site signs, the identification is read."""
    with capture_logs():
        event = identify(token=jwt.encode({"exp": EPOCH_S + 60, "aud": "convsdk", "visitor": "v1"} | claims_, SECRET))

    assert event.hint.visitor == "v1"
