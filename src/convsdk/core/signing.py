"""Signatures: what proves a request that comes in, and Standard Webhooks for what goes out and comes in.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Iterable, Sequence
from typing import Any, Literal

from convsdk.core.ports import Request, Secret
from convsdk.errors import Forbidden

PREFIX = "whsec_"
_KEY_BYTES = range(24, 65)


def is_same(given: str, right: str) -> bool:
    """Compare two texts in constant time, whatever is in them."""
    # As bytes: compare_digest refuses other texts than ASCII, and a request can hold anything.
    return hmac.compare_digest(given.encode("utf-8", "surrogatepass"), right.encode("utf-8", "surrogatepass"))


def hmac_of(
    signed: bytes,
    key: Secret,
    *,
    digest: Literal["sha1", "sha256", "sha512"] = "sha256",
    encoding: Literal["hex", "base64"] = "hex",
) -> str:
    """Give the signature of `signed` by `key` (RFC 2104), as a header field has it."""
    found = hmac.digest(key.reveal().encode("utf-8", "surrogatepass"), signed, digest)
    return found.hex() if encoding == "hex" else base64.b64encode(found).decode()


def require_header(
    request: Request,
    header: str,
    *right: str,
    channel: str,
    remedy: str = "if the platform did send it, compare the secret with the one there",
) -> None:
    """Raise `Forbidden` unless `header` is there once, and one of the texts that are `right`.

    Compares in constant time. The refusal tells the operator the `channel` and the `remedy`, and a forger nothing.
    """
    given = request.headers.all(header)
    if len(given) != 1 or not sum(is_same(given[0], one) for one in right):  # all are compared
        raise Forbidden(f"channel {channel!r}: {header} is missing, repeated or wrong: {remedy}")


def sign(body: bytes, *, id: str, timestamp: int, keys: Iterable[bytes]) -> str:  # noqa: A002  (the spec's name)
    """Give the header `webhook-signature`: a signature by each of `keys`, so that either of two will do."""
    signed = f"{id}.{timestamp}.".encode("utf-8", "surrogatepass") + body
    digests = (hmac.new(key, signed, hashlib.sha256).digest() for key in keys)
    return " ".join(f"v1,{base64.b64encode(digest).decode()}" for digest in digests)


def is_signed(signature: str, body: bytes, *, id: str, timestamp: int, keys: Iterable[bytes]) -> bool:  # noqa: A002  (as above)
    """Say whether one of the signatures in the header's value is by one of `keys`; takes as long whichever it is."""
    given = [one.encode("utf-8", "surrogatepass") for one in signature.split()[:10]]
    right = [one.encode() for one in sign(body, id=id, timestamp=timestamp, keys=keys).split()]
    return sum(hmac.compare_digest(one, other) for one in given for other in right) > 0  # all are compared


def signing_key(secret: Secret) -> bytes:
    """Give the bytes that a secret `whsec_...` stands for; none where it is no such secret."""
    prefix, text = secret.reveal()[: len(PREFIX)], secret.reveal()[len(PREFIX) :]
    try:
        return base64.b64decode(text, validate=True) if prefix == PREFIX else b""
    except (binascii.Error, ValueError):  # a ValueError where it is not even ASCII
        return b""


def are_signing_keys(_: object, attribute: Any, value: Sequence[Any]) -> None:  # noqa: ANN401  (attrs' own)
    """Raise `ValueError` where a field holds no secret to sign with, or one that is too short or too long."""
    if not value:
        raise ValueError(f'{attribute.name}: there is nothing to sign with: give [{{ env = "NAME" }}]')
    for index, secret in enumerate(value):
        if not isinstance(secret, Secret) or len(signing_key(secret)) not in _KEY_BYTES:
            raise ValueError(
                f"{attribute.name}: {attribute.name}[{index}] is no {PREFIX} with 24 to 64 bytes in base64: make one "
                f"with 'echo {PREFIX}$(openssl rand -base64 32)'"
            )
