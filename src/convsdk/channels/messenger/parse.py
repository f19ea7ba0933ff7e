"""Reads what Messenger and Instagram send to a webhook, without I/O and without a clock.

The shape is Meta's "Webhook Events Reference" of the Messenger Platform
(https://developers.facebook.com/docs/messenger-platform/reference/webhook-events). A request holds several entries
(one for each page or account) and an entry several items; each item is decoded by itself, so that a bad one costs only
itself.
"""

import hashlib
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

import msgspec
from attrs import evolve, frozen

from convsdk.channels.messenger.platform import OURS, Platform, pressed
from convsdk.core.events import DeliveryStatus, Event, MessageReceived, Noted, StatusChanged
from convsdk.core.model import Attachment, Claim, Direction, IdentityHint, Trust
from convsdk.errors import ParseError

Shape = TypeVar("Shape")

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
    """One item of a batch, of the page or account `page`.

    `person` is the id of whom it is about, scoped by `page`, or the `user_ref` of a plugin (`scoped_id` is empty then).
    """

    platform: Platform
    page: str
    person: str = ""
    scoped_id: str = ""
    at: datetime
    fields: dict[str, Any]
    is_outbound: bool = False
    is_standby: bool = False
    may_create: bool

    @property
    def thread(self) -> str:
        return f"{self.page}/{self.person}" if self.person else self.page

    def hint(self, *, has_written: bool) -> IdentityHint:
        kind = self.platform.kind
        claims = (Claim(kind, self.scoped_id, Trust.CHANNEL, scope=self.page),) if self.scoped_id else ()
        how = f"{self.platform.name} message"
        return IdentityHint(at=self.at, identifiers=claims, may_create=self.may_create and has_written, how=how)

    def key(self, kind: str) -> str:
        """Give an external id for what has none of its own: the same at every delivery, in whatever batch."""
        return _key(self.page, self.person, self.fields.get("timestamp"), kind, self.fields)


def read_events(body: bytes, *, platform: Platform, received_at: datetime, may_create: bool) -> tuple[Event, ...]:
    """Give the events that the body of a webhook request of `platform` holds, in its order.

    `may_create`: whether an unknown person who writes becomes a contact. An item that cannot be read becomes a
    `Noted` of kind `unreadable`, one of a kind not known here a `Noted` of kind `unknown`; both keep it in `detail`.

    Raises:
        ParseError: the body is no JSON object of the platform's events.
    """
    blank = _Item(platform=platform, page="", at=received_at, fields={}, may_create=may_create)
    return tuple(event for entry in _entries(body, platform) for event in _read_entry(entry, blank))


def _entries(body: bytes, platform: Platform) -> list[msgspec.Raw]:
    try:
        document = _decode_object(body)
    except _MalformedError:
        document = _decode_envelope(_HALF_PAIR.sub(lambda found: found[1] or rb"\ufffd", body))
    try:
        if _decode(document.get("object", b"null"), str) != platform.object:
            raise ParseError(
                f"the body's 'object' is not {platform.object!r}: "
                f"subscribe this webhook to {platform.name}'s events only"
            )
        return _decode(document.get("entry", b"null"), list[msgspec.Raw])
    except _MalformedError:
        raise ParseError("the body is no batch of events: 'object' must be a text and 'entry' a list") from None


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


def _read_entry(raw: msgspec.Raw, blank: _Item) -> Iterator[Event]:
    try:
        entry = _decode_object(raw)
        page = _identifier(_decode_item(entry["id"]))
        batches = {name: _decode(entry[name], list[msgspec.Raw]) for name in _LISTS if name in entry}
    except (_MalformedError, KeyError):
        yield _note("unreadable", "", blank.at, _keep(raw))
        return
    blank = evolve(blank, page=page, at=_entry_time(entry) or blank.at)
    if not batches:
        yield _note("unknown", page, blank.at, _keep(raw))
    for name, items in batches.items():
        for each in items:
            yield from _read_item(each, evolve(blank, is_standby=name == "standby"))


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


def _read_item(raw: msgspec.Raw, blank: _Item) -> Iterator[Event]:
    try:
        fields = _object(_decode_item(raw))
        item = _with_person(evolve(blank, fields=fields, at=_moment(fields.get("timestamp")) or blank.at))
    except _MalformedError:
        yield _note("unreadable", blank.page, blank.at, _keep(raw))
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
    scoped_id = _identifier(side["id"]) if "id" in side else ""
    if scoped_id == item.page:
        raise _MalformedError
    # The chat plugin's checkbox names a browser, not a person: enough to keep its messages in one thread.
    person = scoped_id or (_identifier(side["user_ref"]) if "user_ref" in side else "")
    return evolve(item, person=person, scoped_id=scoped_id, is_outbound=is_outbound)


def _read_message(item: _Item, message: dict[str, Any]) -> Iterator[Event]:
    if message.get("is_deleted") is True:
        mid = _identifier(message.get("mid"))
        yield _noted(item, "deleted", text=f"message {mid} was deleted", detail=message)
        return
    quoted = _optional_object(message, "reply_to")
    detail = {name: value for name, value in message.items() if name not in {"mid", "text", "referral"}}
    metadata = _text(message.get("metadata"))
    if item.is_outbound and metadata.startswith(OURS):
        detail["token"] = metadata.removeprefix(OURS)
    yield _message(
        item,
        message,
        text=_text(message.get("text")),
        attachments=tuple(_attachments(message.get("attachments"))),
        references=(_identifier(quoted["mid"]),) if "mid" in quoted else (),
        detail=detail,
        button=_optional_object(message, "quick_reply").get("payload"),
    )
    yield from _inner_referral(item, message)


def _read_postback(item: _Item, postback: dict[str, Any]) -> Iterator[Event]:
    inner = {name: value for name, value in postback.items() if name not in {"mid", "referral"}}
    text, button = _text(postback.get("title")), postback.get("payload")
    yield _message(item, postback, text=text, detail={"postback": inner}, button=button)
    yield from _inner_referral(item, postback)


def _message(
    item: _Item,
    source: dict[str, Any],
    *,
    text: str,
    detail: dict[str, Any],
    attachments: tuple[Attachment, ...] = (),
    references: tuple[str, ...] = (),
    button: object = None,
) -> MessageReceived:
    if not item.person:
        raise _MalformedError
    block, choice = pressed(button)
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
        block=block,
        choice=choice,
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
    kind = "reaction_removed" if reaction.get("action") == "unreact" else "reaction"
    yield _noted(item, kind, text=text, detail=reaction)


def _read_edit(item: _Item, edit: dict[str, Any]) -> Iterator[Event]:
    yield _noted(item, "edited", text=_text(edit.get("text")), detail=edit | {"mid": _identifier(edit.get("mid"))})


def _read_optin(item: _Item, optin: dict[str, Any]) -> Iterator[Event]:
    yield _noted(item, "optin", text=_text(optin.get("title")) or _text(optin.get("ref")), detail=optin)


def _read_as(kind: str, told: str, item: _Item, content: dict[str, Any]) -> Iterator[Event]:
    """Give a note of `kind`; `told` is its text, with names of members of the content in braces."""
    known = {name: str(content.get(name) or "nobody") for name in re.findall(r"{(\w+)}", told)}
    yield _noted(item, kind, text=told.format(**known), detail=content)


def _noted(item: _Item, kind: str, *, text: str = "", detail: dict[str, Any]) -> Noted:
    return Noted(
        external_id=item.key(kind),
        kind=kind,
        at=item.at,
        hint=item.hint(has_written=False) if item.scoped_id else None,
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
    named = [report["mid"]] if "mid" in report else _list(report.get("mids"))  # Instagram names the one message read
    messages = tuple(map(_identifier, named))
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
    "message_edit": _read_edit,
    "optin": _read_optin,
    # Who of several apps answers a person ("handover protocol"), and what Meta holds against the page.
    **{
        kind: partial(_read_as, kind, told)
        for kind, told in {
            "pass_thread_control": "app {previous_owner_app_id} passed the thread to app {new_owner_app_id}",
            "take_thread_control": "app {new_owner_app_id} took the thread from app {previous_owner_app_id}",
            "request_thread_control": "app {requested_owner_app_id} asks for the thread",
            "app_roles": "the roles of apps changed",
            "policy_enforcement": "Meta enforces a policy: {action}",
            "account_linking": "account {status}",
        }.items()
    },
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
