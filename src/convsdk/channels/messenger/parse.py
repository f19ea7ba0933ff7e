"""Reads what Messenger sends to a webhook, without I/O and without a clock.

The shape is Meta's "Webhook Events Reference" of the Messenger Platform
(https://developers.facebook.com/docs/messenger-platform/reference/webhook-events). A request holds several entries
(one for each page) and an entry several items; each item is decoded by itself, so that a bad one costs only itself.
"""

import hashlib
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

import msgspec
from attrs import evolve, frozen

from convsdk.core.events import DeliveryStatus, Event, MessageReceived, Noted, StatusChanged
from convsdk.core.model import Attachment, Claim, Direction, IdentityHint, Trust
from convsdk.errors import ParseError

Shape = TypeVar("Shape")

PSID = "messenger_psid"
"""The kind of identifier: a page-scoped id, whose scope is the id of the page."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LAST_MS = 253_402_300_799_999  # the end of the year 9999
_LONGEST_ID = 255
_DEEPEST = 32
_LONGEST_INTEGER_BITS = 63  # what the stores and most JSON readers can hold
_LISTS = ("messaging", "standby")

# Half of a surrogate pair, escaped: no text has one, but whoever cuts a text between two UTF-16 units sends it. Whole
# pairs and other escapes match first and are kept.
_HALF_PAIR = re.compile(
    rb"(\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\[^u])|\\u[dD][89a-fA-F][0-9a-fA-F]{2}", re.DOTALL
)

# Messenger names the sort of an attachment, not its media type; the URL's ending tells more.
_MEDIA_TYPES = {
    "jpg": "image/jpeg",
    "jpeg": "image/jpeg",
    "png": "image/png",
    "gif": "image/gif",
    "webp": "image/webp",
    "mp4": "video/mp4",
    "mov": "video/quicktime",
    "mp3": "audio/mpeg",
    "m4a": "audio/mp4",
    "aac": "audio/aac",
    "ogg": "audio/ogg",
    "wav": "audio/wav",
    "pdf": "application/pdf",
    "txt": "text/plain",
}
_LINKS = {"fallback", "location"}  # what their URL leads to is a web page


class _MalformedError(ValueError):
    """A part of the request is not what the reference says."""


@frozen(kw_only=True)
class _Item:
    """One item of a batch. `person` is the PSID, or the `user_ref` of a plugin (`psid` is empty then)."""

    page: str
    person: str = ""
    psid: str = ""
    at: datetime
    fields: dict[str, Any]
    is_outbound: bool = False
    is_standby: bool = False
    may_create: bool

    @property
    def thread(self) -> str:
        return f"{self.page}/{self.person}" if self.person else self.page

    def hint(self, *, has_written: bool) -> IdentityHint:
        claims = (Claim(PSID, self.psid, Trust.CHANNEL, scope=self.page),) if self.psid else ()
        return IdentityHint(
            at=self.at, identifiers=claims, may_create=self.may_create and has_written, how="Messenger message"
        )

    def key(self, kind: str) -> str:
        """Give an external id for what has none of its own: the same at every delivery, in whatever batch."""
        return _key(self.page, self.person, self.fields.get("timestamp"), kind, self.fields)


def read_events(body: bytes, *, received_at: datetime, may_create: bool) -> tuple[Event, ...]:
    """Give the events that the body of a webhook request holds, in its order.

    `may_create`: whether an unknown person who writes becomes a contact. An item that cannot be read becomes a
    `Noted` of kind `unreadable`, one of a kind not known here a `Noted` of kind `unknown`; both keep it in `detail`.

    Raises:
        ParseError: the body is no JSON object of a page's events.
    """
    return tuple(event for entry in _entries(body) for event in _read_entry(entry, received_at, may_create=may_create))


def _entries(body: bytes) -> list[msgspec.Raw]:
    try:
        document = _decode_object(body)
    except _MalformedError:
        document = _decode_envelope(_HALF_PAIR.sub(lambda found: found[1] or rb"\ufffd", body))
    try:
        if _decode(document.get("object", b"null"), str) != "page":
            raise ParseError("the body's 'object' is not 'page': subscribe this webhook to the events of a Page only")
        return _decode(document.get("entry", b"null"), list[msgspec.Raw])
    except _MalformedError:
        raise ParseError("the body is no batch of a page: 'object' must be a text and 'entry' a list") from None


def _decode_envelope(body: bytes) -> dict[str, msgspec.Raw]:
    try:
        return _decode_object(body)
    except _MalformedError as error:
        raise ParseError(f"the body is no JSON object that can be read ({type(error.__cause__).__name__})") from None


def _decode_object(raw: bytes | msgspec.Raw) -> dict[str, msgspec.Raw]:
    return _decode(raw, dict[str, msgspec.Raw])


def _decode(raw: bytes | msgspec.Raw, shape: type[Shape]) -> Shape:
    try:
        return msgspec.json.decode(raw, type=shape)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise _MalformedError from error


def _decode_item(raw: msgspec.Raw) -> Any:  # noqa: ANN401  (JSON comes in)
    return _clean(_decode(raw, object))


def _clean(value: Any, depth: int = 0) -> Any:  # noqa: ANN401  (JSON comes in)
    """Give `value` as every store can keep it: no NUL, no integer past 64 bits, not nested without end."""
    if depth > _DEEPEST:
        raise _MalformedError
    if isinstance(value, str):
        return value.replace("\0", "\ufffd")
    if isinstance(value, int) and value.bit_length() > _LONGEST_INTEGER_BITS:
        return str(value)
    if isinstance(value, list):
        return [_clean(each, depth + 1) for each in value]
    if isinstance(value, dict):
        return {_clean(name): _clean(each, depth + 1) for name, each in value.items()}
    return value


def _keep(raw: msgspec.Raw) -> Any:  # noqa: ANN401  (JSON goes out)
    """Give what can be kept of something unreadable: its JSON value, else its text."""
    try:
        return _decode_item(raw)
    except _MalformedError:
        return bytes(raw).decode("utf-8", "replace").replace("\0", "\ufffd")


def _key(page: str, person: str, timestamp: object, kind: str, item: object) -> str:
    canonical = msgspec.json.encode([page, person, timestamp, kind, item], order="deterministic")
    return f"{kind}/{hashlib.sha256(canonical).hexdigest()}"


def _read_entry(raw: msgspec.Raw, received_at: datetime, *, may_create: bool) -> Iterator[Event]:
    try:
        entry = _decode_object(raw)
        page = _identifier(_decode_item(entry["id"]))
        batches = {name: _decode(entry[name], list[msgspec.Raw]) for name in _LISTS if name in entry}
    except (_MalformedError, KeyError):
        yield _note("unreadable", "", received_at, _keep(raw))
        return
    at = _entry_time(entry) or received_at
    if not batches:
        yield _note("unknown", page, at, _keep(raw))
    for name, items in batches.items():
        for each in items:
            yield from _read_item(each, page, at, is_standby=name == "standby", may_create=may_create)


def _entry_time(entry: dict[str, msgspec.Raw]) -> datetime | None:
    try:
        return _moment(_decode_item(entry["time"]))
    except (_MalformedError, KeyError):
        return None


def _note(kind: str, page: str, at: datetime, content: object) -> Noted:
    # With nobody to go by, the notes of a page share one thread instead of opening one each.
    return Noted(
        external_id=_key(page, "", None, kind, content), kind=kind, at=at, thread=page, detail={"item": content}
    )


def _read_item(
    raw: msgspec.Raw, page: str, entry_at: datetime, *, is_standby: bool, may_create: bool
) -> Iterator[Event]:
    try:
        fields = _object(_decode_item(raw))
        item = _Item(
            page=page,
            at=_moment(fields.get("timestamp")) or entry_at,
            fields=fields,
            is_standby=is_standby,
            may_create=may_create,
        )
        item = _with_person(item)
    except _MalformedError:
        yield _note("unreadable", page, entry_at, _keep(raw))
        return
    kind = next((name for name in _READERS if name in fields), None)
    if kind is None:
        yield _noted(item, "unknown", detail={"item": fields})
        return
    try:
        # A list, so that an item gives either all of its events or is told as unreadable.
        events = list(_READERS[kind](item, _object(fields[kind])))
    except _MalformedError:
        events = [_noted(item, "unreadable", detail={"item": fields})]
    yield from events


def _with_person(item: _Item) -> _Item:
    """Find who this is about: the side that is not the page. An echo comes from the page and is about its recipient."""
    message = item.fields.get("message")
    sender, recipient = (_optional_object(item.fields, name) for name in ("sender", "recipient"))
    is_echo = isinstance(message, dict) and message.get("is_echo") is True
    is_outbound = is_echo or ("id" in sender and _identifier(sender["id"]) == item.page)
    side = recipient if is_outbound else sender
    psid = _identifier(side["id"]) if "id" in side else ""
    if psid == item.page:
        raise _MalformedError
    # The chat plugin's checkbox names a browser, not a person: enough to keep its messages in one thread.
    person = psid or (_identifier(side["user_ref"]) if "user_ref" in side else "")
    return evolve(item, person=person, psid=psid, is_outbound=is_outbound)


def _read_message(item: _Item, message: dict[str, Any]) -> Iterator[Event]:
    quoted = _optional_object(message, "reply_to")
    yield _message(
        item,
        message,
        text=_text(message.get("text")),
        attachments=tuple(_attachments(message.get("attachments"))),
        references=(_identifier(quoted["mid"]),) if "mid" in quoted else (),
        detail={name: value for name, value in message.items() if name not in {"mid", "text", "referral"}},
    )
    yield from _inner_referral(item, message)


def _read_postback(item: _Item, postback: dict[str, Any]) -> Iterator[Event]:
    inner = {name: value for name, value in postback.items() if name not in {"mid", "referral"}}
    yield _message(item, postback, text=_text(postback.get("title")), detail={"postback": inner})
    yield from _inner_referral(item, postback)


def _message(
    item: _Item,
    source: dict[str, Any],
    *,
    text: str,
    detail: dict[str, Any],
    attachments: tuple[Attachment, ...] = (),
    references: tuple[str, ...] = (),
) -> MessageReceived:
    if not item.person:
        raise _MalformedError
    return MessageReceived(
        external_id=_identifier(source["mid"]) if "mid" in source else item.key("message"),
        hint=item.hint(has_written=not item.is_outbound),
        at=item.at,
        text=text,
        thread=item.thread,
        references=references,
        attachments=attachments,
        direction=Direction.OUTBOUND if item.is_outbound else Direction.INBOUND,
        detail=detail | ({"standby": True} if item.is_standby else {}),
    )


def _inner_referral(item: _Item, source: dict[str, Any]) -> Iterator[Event]:
    for place in (source, item.fields):
        if "referral" in place:
            yield from _read_referral(item, _object(place["referral"]))
            return


def _read_referral(item: _Item, referral: dict[str, Any]) -> Iterator[Event]:
    yield _noted(item, "referral", text=_text(referral.get("ref")), detail=referral)


def _read_reaction(item: _Item, reaction: dict[str, Any]) -> Iterator[Event]:
    text = _text(reaction.get("emoji")) or _text(reaction.get("reaction"))
    yield _noted(item, "reaction", text=text, detail=reaction)


def _noted(item: _Item, kind: str, *, text: str = "", detail: dict[str, Any]) -> Noted:
    return Noted(
        external_id=item.key(kind),
        kind=kind,
        at=item.at,
        hint=item.hint(has_written=False) if item.psid else None,
        thread=item.thread,
        text=text,
        detail=detail | ({"standby": True} if item.is_standby else {}),
    )


def _read_delivery(item: _Item, report: dict[str, Any]) -> Iterator[Event]:
    yield _status(item, report, DeliveryStatus.DELIVERED)


def _read_read(item: _Item, report: dict[str, Any]) -> Iterator[Event]:
    yield _status(item, report, DeliveryStatus.READ)


def _status(item: _Item, report: dict[str, Any], status: DeliveryStatus) -> StatusChanged:
    watermark = _moment(report.get("watermark"))
    messages = tuple(_identifier(mid) for mid in _list(report.get("mids")))
    if not item.person or not (watermark or messages):
        raise _MalformedError
    return StatusChanged(
        external_id=item.key(status.value),
        status=status,
        at=item.at,
        messages=messages,
        thread=item.thread,
        watermark=watermark,
    )


_READERS: dict[str, Callable[[_Item, dict[str, Any]], Iterator[Event]]] = {
    "message": _read_message,
    "postback": _read_postback,
    "reaction": _read_reaction,
    "delivery": _read_delivery,
    "read": _read_read,
    "referral": _read_referral,
}


def _attachments(value: object) -> Iterator[Attachment]:
    for each in _list(value):
        attachment = _object(each)
        payload = _optional_object(attachment, "payload")
        kind = _text(attachment.get("type")) or "file"
        url = _text(payload.get("url")) or _text(attachment.get("url"))
        title = _text(payload.get("title")) or _text(attachment.get("title"))
        yield Attachment(name=title or _file_name(url) or kind, media_type=_media_type(kind, url), url=url)


def _media_type(kind: str, url: str) -> str:
    if kind in _LINKS:
        return "text/html"
    return _MEDIA_TYPES.get(_file_name(url).rpartition(".")[2].lower(), "application/octet-stream")


def _file_name(url: str) -> str:
    try:
        name = unquote(urlsplit(url).path).rpartition("/")[2]
    except ValueError:  # such as a bracket that opens an IPv6 address and never closes
        return ""
    return name.replace("\0", "\ufffd")


def _moment(value: object) -> datetime | None:
    """Give the time for milliseconds since 1970; None for anything else."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= len(str(_LAST_MS)):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _LAST_MS:
        return None
    return _EPOCH + timedelta(milliseconds=value)


def _identifier(value: object) -> str:
    """Give an id as text. Meta writes them as texts, and elsewhere as numbers."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str) or not value.strip() or len(value) > _LONGEST_ID:
        raise _MalformedError
    return value


def _object(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _MalformedError
    return value


def _optional_object(fields: dict[str, Any], name: str) -> dict[str, Any]:
    value = fields.get(name)
    return {} if value is None else _object(value)


def _list(value: object) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise _MalformedError
    return value


def _text(value: object) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise _MalformedError
    return value
