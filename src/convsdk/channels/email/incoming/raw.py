"""Mail that a program of your own posts as it is, such as a Cloudflare worker, signed by Standard Webhooks."""

from collections.abc import Sequence
from typing import ClassVar

from attrs import field, frozen
from attrs.validators import gt

from convsdk.channels.email.incoming.content import Found, RawMail, text_of
from convsdk.channels.email.incoming.proof import is_recent
from convsdk.core.ports import Envelope, Headers, Request, Secret
from convsdk.core.signing import are_signing_keys, is_signed, signing_key

_ENVELOPE = "/envelope"


@frozen(kw_only=True)
class Raw:
    """Settings of a source whose request is the raw mail (`message/rfc822`), signed by Standard Webhooks.

    Any of the `secrets` (`whsec_...`) may sign, so that they can be rotated. A signature counts for `window_s`.

    The header fields `x-envelope-from` and `x-envelope-to` (one for each recipient) are not covered by the signature
    of the body. They are believed with one of their own, `x-envelope-signature`: by the same secret, over the sender
    and the recipients, a line each without an end at the last, under the id of the request and `/envelope`. Without
    it a request that has them is refused.
    """

    by: ClassVar[str] = "raw"

    secrets: tuple[Secret, ...] = field(validator=are_signing_keys)
    window_s: float = field(default=300, validator=gt(0))

    def wants(self, request: Request) -> Sequence[str]:  # noqa: ARG002  (every source is asked)
        return ()

    def is_authentic(self, request: Request) -> bool:
        """Say whether the body, and the envelope where there is one, are signed by one of the secrets."""
        message_id, timestamp = (request.headers.get(f"webhook-{name}", "") for name in ("id", "timestamp"))
        # An envelope's signature is none of a mail.
        if message_id.endswith(_ENVELOPE) or not is_recent(timestamp, request, window_s=self.window_s):
            return False
        keys = tuple(map(signing_key, self.secrets))

        def has(name: str, signed: bytes, more: str = "") -> bool:
            given = request.headers.get(name, "")
            return is_signed(given, signed, id=message_id + more, timestamp=int(timestamp), keys=keys)

        if not has("webhook-signature", request.body):
            return False
        return not _has_envelope(request.headers) or has("x-envelope-signature", _told(request.headers), _ENVELOPE)

    def read(self, request: Request) -> Sequence[Found]:
        """Give the mail that the request is."""
        if not _has_envelope(request.headers):
            return (RawMail(raw=request.body, envelope=Envelope(sender=None)),)
        sender, *recipients = text_of(_told(request.headers)).split("\n")
        envelope = Envelope(sender=sender.strip("<> "), recipients=tuple(filter(None, recipients)))
        return (RawMail(raw=request.body, envelope=envelope),)


def _has_envelope(headers: Headers) -> bool:
    return "x-envelope-from" in headers or "x-envelope-to" in headers


def _told(headers: Headers) -> bytes:
    values = (headers.get("x-envelope-from", ""), *headers.all("x-envelope-to"))
    return "\n".join(" ".join(value.split()) for value in values).encode("latin-1", "replace")
