"""What HTTP sources hand over: raw mails and reports, and how the forms and JSON that carry them are read."""

import hashlib
from datetime import UTC, datetime
from typing import TypeVar
from urllib.parse import unquote_to_bytes

import msgspec
from attrs import field, frozen

from convsdk.channels.email.mime import PastLimitError, inner_parts, message_ids, parameter, read_head
from convsdk.core.events import DeliveryStatus, StatusChanged
from convsdk.core.model import Claim, Trust
from convsdk.core.payloads import storable
from convsdk.core.ports import Envelope, Request
from convsdk.errors import ParseError

_MOST_FIELDS = 500
_LONGEST_ID = 255
_LONGEST_ERROR = 500
_FIRST = datetime(1971, 1, 1, tzinfo=UTC)
_T = TypeVar("_T")


@frozen(kw_only=True)
class RawMail:
    """A mail as it came over the wire, and its envelope."""

    raw: bytes = field(repr=False)
    envelope: Envelope | None


Found = RawMail | StatusChanged
"""What a request of an HTTP source can hold."""


def is_json(request: Request) -> bool:
    """Say whether a request declares its body to be JSON."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower() == "application/json"


def read_json(body: bytes | str, shape: type[_T]) -> _T:
    """Give what stands in a JSON document, as `shape`; raise `ParseError` where it is something else."""
    try:
        return msgspec.json.decode(body, type=shape)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        told = str(error) if isinstance(error, msgspec.ValidationError) else "it is no JSON"
        raise ParseError(f"the provider's document cannot be read: {told}") from None


def read_form(request: Request) -> dict[str, bytes]:
    """Give the fields of a form (RFC 7578, or percent-encoded) to the byte; of a repeated one, the first."""
    declared = " ".join(request.headers.get("content-type", "").split())
    if declared.partition(";")[0].strip().lower() == "application/x-www-form-urlencoded":
        return _read_percents(request.body)
    try:
        form = read_head(b"Content-Type: %s\r\n\r\n" % declared.encode("ascii", "replace") + request.body)
        parts = inner_parts(form)
    except PastLimitError as error:
        raise ParseError(f"the form cannot be read: {error}") from None
    if not parts:
        raise ParseError("the body is no form: let the provider post the raw mail as one")
    fields: dict[str, bytes] = {}
    for part in parts:
        fields.setdefault(parameter(part.first("content-disposition"), "name"), part.raw[part.start : part.end])
    return fields


def _read_percents(body: bytes) -> dict[str, bytes]:
    fields: dict[str, bytes] = {}
    for pair in body.split(b"&", _MOST_FIELDS)[:_MOST_FIELDS]:
        name, _, value = pair.replace(b"+", b" ").partition(b"=")
        fields.setdefault(unquote_to_bytes(name).decode("utf-8", "replace"), unquote_to_bytes(value))
    return fields


def text_of(value: bytes) -> str:
    """Give a field of a form as text that can be stored."""
    return storable(value.decode("utf-8", "replace"))


def moment(value: str | float | None, *, otherwise: datetime) -> datetime:
    """Give a provider's time, in ISO 8601 or in seconds since 1970 (UTC); `otherwise` where it is none, or is to come.

    Where a provider does not know a time, it writes the first one that it can.
    """
    try:
        if isinstance(value, str):
            found = datetime.fromisoformat(value)
            found = found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)
        else:
            found = datetime.fromtimestamp(value or 0, UTC)
    except (ValueError, OverflowError, OSError):
        return otherwise
    return found if _FIRST <= found <= otherwise else otherwise


def name_of(message_id: str, *, otherwise: str) -> tuple[str, ...]:
    """Give what a report names a message of ours by: its Message-ID, where it is given, else the provider's id."""
    own = message_ids(message_id)
    names = own[:1] or [storable(otherwise)[:_LONGEST_ID]]
    return tuple(filter(None, names))


def report(
    *identity: str,
    status: DeliveryStatus,
    at: datetime,
    messages: tuple[str, ...],
    error: str = "",
    unreachable: str = "",
) -> StatusChanged:
    """Give what a provider reports on a message of ours.

    `identity` tells this report from all others, the provider's name first. `error` is the provider's words, and
    `unreachable` the address that can no longer be written to.
    """
    return StatusChanged(
        external_id=_key(identity),
        status=status,
        at=at,
        messages=messages,
        error=storable(" ".join(error.split()))[:_LONGEST_ERROR],
        unreachable=Claim("email", storable(unreachable), Trust.CHANNEL) if unreachable else None,
    )


def _key(identity: tuple[str, ...]) -> str:
    joined = storable("/".join(identity))
    if len(joined) <= _LONGEST_ID:
        return joined
    return f"{identity[0]}/sha256:{hashlib.sha256(joined.encode()).hexdigest()}"
