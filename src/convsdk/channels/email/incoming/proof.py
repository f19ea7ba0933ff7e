"""How a request proves whose it is. Each function says yes or no, and never what was wrong: a forger would learn it."""

import base64
import re
from importlib.util import find_spec
from typing import TYPE_CHECKING

from convsdk.core.ports import Request, Secret
from convsdk.core.signing import is_same

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

_SECONDS = re.compile(r"[0-9]{1,12}")


def is_recent(timestamp: str, request: Request, *, window_s: float) -> bool:
    """Say whether a time in seconds since 1970 is no more than `window_s` away from that of the receipt."""
    if not _SECONDS.fullmatch(timestamp):
        return False
    return abs(request.received_at.timestamp() - int(timestamp)) <= window_s


def has_password(request: Request, *, user: str, password: Secret) -> bool:
    """Say whether a request has HTTP's basic authentication (RFC 7617): providers take it from the URL."""
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    right = base64.b64encode(f"{user}:{password.reveal()}".encode()).decode()
    return is_same(given.strip(), right) and scheme.lower() == "basic"


def require_cryptography(what: str) -> None:
    """Raise `ValueError` where the library is missing that checks the signatures of `what`."""
    if find_spec("cryptography") is None:
        raise ValueError(f"the signatures of {what} need the extra 'email': pip install 'convsdk[email]'")


def elliptic_key(text: str) -> "EllipticCurvePublicKey":
    """Give the public key (base64 of DER, as SendGrid shows it); raise `ValueError` where it is none."""
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415  (the extra may be missing)
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey  # noqa: PLC0415  (as above)
    from cryptography.hazmat.primitives.serialization import load_der_public_key  # noqa: PLC0415  (as above)

    try:
        key = load_der_public_key(base64.b64decode(text, validate=True))
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError("it is no public key in base64") from None
    if isinstance(key, EllipticCurvePublicKey):
        return key
    raise ValueError("it is no public key of an elliptic curve")


def is_signed_by(key: "EllipticCurvePublicKey", signature: str, signed: bytes) -> bool:
    """Say whether a signature (ECDSA with SHA-256, DER in base64) over `signed` is by the owner of `key`."""
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415  (as above)
    from cryptography.hazmat.primitives.asymmetric.ec import ECDSA  # noqa: PLC0415  (as above)
    from cryptography.hazmat.primitives.hashes import SHA256  # noqa: PLC0415  (as above)

    try:
        key.verify(base64.b64decode(signature, validate=True), signed, ECDSA(SHA256()))
    except (InvalidSignature, ValueError):
        return False
    return True


def is_certified(request: Request, certificate: bytes, signature: str, signed: bytes, *, is_sha1: bool) -> bool:
    """Say whether a signature (RSA, PKCS 1) over `signed` is by the owner of an X.509 certificate that is valid now."""
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm  # noqa: PLC0415  (as above)
    from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15  # noqa: PLC0415  (as above)
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey  # noqa: PLC0415  (as above)
    from cryptography.hazmat.primitives.hashes import SHA1, SHA256  # noqa: PLC0415  (as above)
    from cryptography.x509 import load_pem_x509_certificate  # noqa: PLC0415  (as above)

    try:
        found = load_pem_x509_certificate(certificate)
        key = found.public_key()
        if not found.not_valid_before_utc <= request.received_at <= found.not_valid_after_utc:
            return False
        if not isinstance(key, RSAPublicKey):
            return False
        digest = SHA1() if is_sha1 else SHA256()  # noqa: S303  (the provider's first version of signatures)
        key.verify(base64.b64decode(signature, validate=True), signed, PKCS1v15(), digest)
    except (InvalidSignature, UnsupportedAlgorithm, ValueError):
        return False
    return True
