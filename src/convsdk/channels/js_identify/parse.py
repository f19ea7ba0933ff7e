"""Reads what a site's JavaScript says about its visitor, and checks how much of it the site's backend has signed."""

import hashlib
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any

import jwt
import msgspec
from attrs import field, frozen
from msgspec import Meta, Struct

from convsdk.core.events import Identified
from convsdk.core.identifiers import trim
from convsdk.core.model import Claim, IdentityHint, Trait, Trust
from convsdk.core.ports import Secret
from convsdk.core.signing import hmac_of, is_same
from convsdk.errors import ParseError

_LONGEST_TOKEN = 8192
_LONGEST_VALUE = 320
_LONGEST_LIFE_S = 24 * 3600
_CONTACT_POINTS = {"email", "phone", "external_id"}

_Key = Annotated[str, Meta(min_length=1, max_length=255)]
_Value = Annotated[str, Meta(max_length=_LONGEST_VALUE)]
_Traits = Annotated[dict[Annotated[str, Meta(max_length=64)], _Value | None], Meta(max_length=50)]


class _Body(Struct, frozen=True):
    id: _Key
    visitor: _Key
    email: _Value | None = None
    external_id: _Value | None = None
    phone: _Value | None = None
    traits: _Traits | None = None
    token: str | None = None
    signature: str | None = None
    expires: int | None = None


_Moment = Annotated[int, Meta(ge=0, le=2**53)] | Annotated[float, Meta(ge=0, le=2**53)]


class _Token(Struct, frozen=True):
    exp: _Moment
    visitor: str
    nbf: _Moment = 0
    sub: _Value | None = None
    external_id: _Value | None = None
    email: _Value | None = None
    email_verified: Any = None
    name: _Value | None = None
    company: _Value | None = None
    traits: _Traits | None = None


_DECODER = msgspec.json.Decoder(_Body)


@frozen(kw_only=True)
class Keys:
    """What signatures are checked with: the secrets (any of them may have signed), the audience and the leeway."""

    secrets: Sequence[Secret]
    audience: str
    leeway_s: int


@frozen(kw_only=True)
class _Proof:
    """What a good signature says: claims and traits, each with its own trust."""

    claims: Mapping[str, tuple[str, Trust]] = field(factory=dict)
    traits: Mapping[str, str] = field(factory=dict)


class _BadSignatureError(Exception):
    """The signature proves nothing; the text says why in one word, for the log."""


def read(
    body: bytes, *, at: datetime, keys: Keys, namespace: str, require_signature: bool
) -> tuple[Identified, str | None]:
    """Give the identification in `body`, and why its signature was not believed (None: it was good, or there was none).

    Args:
        body: The raw body of the request.
        at: When it was received; expiry is checked against it.
        keys: What signatures are checked with.
        namespace: The scope of the site's user ids.
        require_signature: Whether an unsigned identification names the visitor only.

    Raises:
        ParseError: `body` is no identification.
    """
    given = _decoded(body)
    refusal = None
    try:
        proof = _proof(given, at, keys)
    except _BadSignatureError as error:
        proof, refusal = None, str(error)
    is_believed = proof is not None or not require_signature
    hint = IdentityHint(
        at=at,
        visitor=given.visitor,
        identifiers=tuple(_claims(given, proof or _Proof(), namespace)) if is_believed else (),
        traits=tuple(_traits(given, proof or _Proof())) if is_believed else (),
        how="JavaScript identification",
    )
    # Pages choose the ids, so that one visitor's would hide another's. The cookie itself is in none: ids are shown.
    browser = hashlib.sha256(given.visitor.encode()).hexdigest()[:32]
    return Identified(external_id=f"{given.id}/{browser}", hint=hint), refusal


def _decoded(body: bytes) -> _Body:
    try:
        given = _DECODER.decode(body)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        # Only the path is told: the rest of the text can quote what was sent.
        _, at, path = str(error).rpartition(" - at ")
        place = f" (at {path})" if at else ""
        raise ParseError(f"the body is no identification{place}: see the format of channel js_identify") from error
    for name, value in (("id", given.id), ("visitor", given.visitor)):
        if not value.isprintable() or not trim(value):
            raise ParseError(f"the {name} of an identification is blank or unprintable: send up to 255 characters")
    return given


def _proof(given: _Body, at: datetime, keys: Keys) -> _Proof | None:
    if not given.token and not given.signature:
        return None
    if not keys.audience:
        raise _BadSignatureError("audience")
    if given.token:
        return _token_proof(_token(given.token, keys), given.visitor, at, keys.leeway_s)
    return _signature_proof(given, at, keys)


def _token(token: str, keys: Keys) -> _Token:
    if len(token) > _LONGEST_TOKEN:
        raise _BadSignatureError("malformed")
    for secret in keys.secrets:
        try:
            return msgspec.convert(_payload(token, secret, keys.audience), _Token)
        except (jwt.InvalidSignatureError, jwt.InvalidKeyError):
            continue  # another secret may have signed it: secrets are rotated
        except jwt.InvalidAudienceError as error:
            raise _BadSignatureError("audience") from error
        except (jwt.MissingRequiredClaimError, msgspec.ValidationError) as error:
            raise _BadSignatureError("claims") from error
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError) as error:
            raise _BadSignatureError("malformed") from error
    raise _BadSignatureError("signature")


def _payload(token: str, secret: Secret, audience: str) -> dict[str, Any]:
    return jwt.decode(
        token,
        secret.reveal(),
        algorithms=["HS256"],
        audience=audience,
        # The library would look at the clock; `_token_proof` compares with the time of receipt instead.
        options={
            "require": ["exp", "aud"],
            "strict_aud": True,
            "verify_exp": False,
            "verify_nbf": False,
            "verify_iat": False,
        },
    )


def _token_proof(token: _Token, visitor: str, at: datetime, leeway_s: int) -> _Proof:
    _check_expiry(token.exp, at, leeway_s)
    if at.timestamp() < token.nbf - leeway_s:
        raise _BadSignatureError("early")
    # A token that was stolen, or is shared by mistake, is worth nothing in another browser.
    if not token.visitor.isprintable() or not is_same(token.visitor, visitor):
        raise _BadSignatureError("visitor")
    claims = {}
    if external_id := _clean(token.external_id) or _clean(token.sub):
        claims["external_id"] = (external_id, Trust.PROVEN)
    if email := _clean(token.email):
        claims["email"] = (email, Trust.PROVEN if token.email_verified is True else Trust.ASSERTED)
    named = {"name": token.name, "company": token.company}
    return _Proof(claims=claims, traits=_clean_traits((token.traits or {}) | {k: v for k, v in named.items() if v}))


def _signature_proof(given: _Body, at: datetime, keys: Keys) -> _Proof:
    external_id = _clean(given.external_id)
    if given.external_id is None or external_id is None or given.expires is None:
        raise _BadSignatureError("claims")
    # The external id comes last: it alone may hold a line feed, so that no two ways to fill the lines are one text.
    signed = f"{keys.audience}\n{given.visitor}\n{given.expires}\n{given.external_id}".encode()
    if not sum(is_same(given.signature or "", hmac_of(signed, secret)) for secret in keys.secrets):  # all are compared
        raise _BadSignatureError("signature")
    _check_expiry(given.expires, at, keys.leeway_s)
    return _Proof(claims={"external_id": (external_id, Trust.PROVEN)})


def _check_expiry(expires: float, at: datetime, leeway_s: int) -> None:
    if at.timestamp() >= expires + leeway_s:
        raise _BadSignatureError("expired")
    # A backend that counts in milliseconds would sign for ever, and nobody would notice.
    if expires > at.timestamp() + _LONGEST_LIFE_S + leeway_s:
        raise _BadSignatureError("endless")


def _claims(given: _Body, proof: _Proof, namespace: str) -> Iterator[Claim]:
    plain = {"external_id": given.external_id, "email": given.email, "phone": given.phone}
    asserted = {kind: (value, Trust.ASSERTED) for kind, one in plain.items() if (value := _clean(one))}
    for kind, (value, trust) in (asserted | dict(proof.claims)).items():
        yield Claim(kind, value, trust, scope=namespace if kind == "external_id" else "")


def _traits(given: _Body, proof: _Proof) -> Iterator[Trait]:
    plain = _clean_traits(given.traits or {})
    yield from (Trait(name, value, Trust.PROVEN) for name, value in proof.traits.items())
    yield from (Trait(name, value, Trust.ASSERTED) for name, value in plain.items() if name not in proof.traits)


def _clean_traits(given: Mapping[str, str | None]) -> dict[str, str]:
    pairs = ((_clean(name), _clean(value)) for name, value in given.items())
    # An address is an identifier with rules of its own, never a trait.
    return {name: value for name, value in pairs if name and value and name.lower() not in _CONTACT_POINTS}


def _clean(value: str | None) -> str | None:
    # A token's JSON is read by `json`, which lets lone surrogates (Cs) pass.
    text = trim(value or "")
    if any(unicodedata.category(character) in {"Cc", "Cs"} for character in text):
        return None
    return text or None
