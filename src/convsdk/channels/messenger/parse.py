"""Reads what Messenger and Instagram send to a webhook, without I/O and without a clock.

The shape is Meta's "Webhook Events Reference" of the Messenger Platform
(https://developers.facebook.com/docs/messenger-platform/reference/webhook-events). A request holds several entries
(one for each page or account) and an entry several items; each item is read by itself, so that a bad one costs only
itself.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from functools import partial
from typing import Any
from urllib.parse import unquote, urlsplit

from attrs import evolve, frozen

from convsdk.channels.messenger.platform import OURS, Platform, pressed
from convsdk.core.events import DeliveryStatus, Event, MessageReceived, Noted, StatusChanged
from convsdk.core.model import Attachment, Claim, Direction, IdentityHint, Trust
from convsdk.core.payloads import Fields, digest_of, fields_of, read_fields
from convsdk.errors import ParseError

_MILLISECOND = timedelta(milliseconds=1)
_LISTS = ("messaging", "standby")

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
    fields: Fields
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
        return _key(self.page, self.person, self.fields.raw.get("timestamp"), kind, self.fields.raw)


def read_events(body: bytes, *, platform: Platform, received_at: datetime, may_create: bool) -> tuple[Event, ...]:
    """Give the events that the body of a webhook request of `platform` holds, in its order.

    `may_create`: whether an unknown person who writes becomes a contact. An item that cannot be read becomes a
    `Noted` of kind `unreadable`, one of a kind not known here a `Noted` of kind `unknown`; both keep it in `detail`.

    Raises:
        ParseError: the body is no JSON object of the platform's events.
    """
    batch = read_fields(body)
    if batch.text("object") != platform.object:
        raise ParseError(
            f"the body's 'object' is not {platform.object!r}: subscribe this webhook to {platform.name}'s events only"
        )
    if "entry" not in batch:
        raise ParseError("the body has no 'entry': it is no batch of events")
    blank = _Item(platform=platform, page="", at=received_at, fields=Fields({}), may_create=may_create)
    return tuple(event for entry in batch.values("entry") for event in _read_entry(entry, blank))


def _key(page: str, person: str, timestamp: object, kind: str, item: object) -> str:
    return f"{kind}/{digest_of(page, person, timestamp, kind, item)}"


def _read_entry(value: object, blank: _Item) -> Iterator[Event]:
    try:
        entry = fields_of(value, path="entry")
        page = entry.key("id")
        batches = {name: entry.values(name) for name in _LISTS if name in entry}
    except ParseError:
        yield _note("unreadable", "", blank.at, value)
        return
    blank = evolve(blank, page=page, at=entry.moment("time", unit=_MILLISECOND) or blank.at)
    if not batches:
        yield _note("unknown", page, blank.at, value)
    for name, items in batches.items():
        for each in items:
            yield from _read_item(each, evolve(blank, is_standby=name == "standby"))


def _note(kind: str, page: str, at: datetime, content: object) -> Noted:
    # With nobody to go by, the notes of a page share one thread instead of opening one each.
    return Noted(
        external_id=_key(page, "", None, kind, content), kind=kind, at=at, thread=page, detail={"item": content}
    )


def _read_item(value: object, blank: _Item) -> Iterator[Event]:
    try:
        fields = fields_of(value, path="item")
        at = fields.moment("timestamp", unit=_MILLISECOND) or blank.at
        item = _with_person(evolve(blank, fields=fields, at=at))
    except ParseError:
        yield _note("unreadable", blank.page, blank.at, value)
        return
    kind = next((name for name in _READERS if name in fields), None)
    if kind is None:
        yield _noted(item, "unknown", detail={"item": value})
        return
    try:
        # A list, so that an item gives either all of its events or is told as unreadable.
        events = list(_READERS[kind](item, fields_of(fields.raw[kind], path=kind)))
    except ParseError:
        events = [_noted(item, "unreadable", detail={"item": value})]
    yield from events


def _with_person(item: _Item) -> _Item:
    """Find who this is about: the side that is not the page. An echo comes from the page and is about its recipient."""
    message = item.fields.raw.get("message")
    sender, recipient = item.fields.fields("sender"), item.fields.fields("recipient")
    is_echo = isinstance(message, dict) and message.get("is_echo") is True
    is_outbound = is_echo or ("id" in sender and sender.key("id") == item.page)
    side = recipient if is_outbound else sender
    scoped_id = side.key("id") if "id" in side else ""
    if scoped_id == item.page:
        raise ParseError("the page writes to itself, so nobody is there to write to")
    # The chat plugin's checkbox names a browser, not a person: enough to keep its messages in one thread.
    person = scoped_id or (side.key("user_ref") if "user_ref" in side else "")
    return evolve(item, person=person, scoped_id=scoped_id, is_outbound=is_outbound)


def _read_message(item: _Item, message: Fields) -> Iterator[Event]:
    if message.flag("is_deleted"):
        yield _noted(item, "deleted", text=f"message {message.key('mid')} was deleted", detail=message.raw)
        return
    quoted = message.fields("reply_to")
    detail = {name: value for name, value in message.raw.items() if name not in {"mid", "text", "referral"}}
    metadata = message.text("metadata")
    if item.is_outbound and metadata.startswith(OURS):
        detail["token"] = metadata.removeprefix(OURS)
    yield _message(
        item,
        message,
        text=message.text("text"),
        attachments=tuple(_attachments(message)),
        references=(quoted.key("mid"),) if "mid" in quoted else (),
        detail=detail,
        button=message.fields("quick_reply").raw.get("payload"),
    )
    yield from _inner_referral(item, message)


def _read_postback(item: _Item, postback: Fields) -> Iterator[Event]:
    inner = {name: value for name, value in postback.raw.items() if name not in {"mid", "referral"}}
    text, button = postback.text("title"), postback.raw.get("payload")
    yield _message(item, postback, text=text, detail={"postback": inner}, button=button)
    yield from _inner_referral(item, postback)


def _message(
    item: _Item,
    source: Fields,
    *,
    text: str,
    detail: dict[str, Any],
    attachments: tuple[Attachment, ...] = (),
    references: tuple[str, ...] = (),
    button: object = None,
) -> MessageReceived:
    if not item.person:
        raise ParseError("a message from nobody: it names neither a sender nor a recipient")
    block, choice = pressed(button)
    return MessageReceived(
        external_id=source.key("mid") if "mid" in source else item.key("message"),
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


def _inner_referral(item: _Item, source: Fields) -> Iterator[Event]:
    for place in (source, item.fields):
        if "referral" in place:
            yield from _read_referral(item, fields_of(place.raw["referral"], path="referral"))
            return


def _read_referral(item: _Item, referral: Fields) -> Iterator[Event]:
    yield _noted(item, "referral", text=referral.text("ref"), detail=referral.raw)


def _read_reaction(item: _Item, reaction: Fields) -> Iterator[Event]:
    text = reaction.text("emoji") or reaction.text("reaction")
    kind = "reaction_removed" if reaction.raw.get("action") == "unreact" else "reaction"
    yield _noted(item, kind, text=text, detail=reaction.raw)


def _read_edit(item: _Item, edit: Fields) -> Iterator[Event]:
    yield _noted(item, "edited", text=edit.text("text"), detail={**edit.raw, "mid": edit.key("mid")})


def _read_optin(item: _Item, optin: Fields) -> Iterator[Event]:
    yield _noted(item, "optin", text=optin.text("title") or optin.text("ref"), detail=optin.raw)


def _read_as(kind: str, told: str, item: _Item, content: Fields) -> Iterator[Event]:
    """Give a note of `kind`; `told` is its text, with names of members of the content in braces."""
    known = {name: str(content.raw.get(name) or "nobody") for name in re.findall(r"{(\w+)}", told)}
    yield _noted(item, kind, text=told.format(**known), detail=content.raw)


def _noted(item: _Item, kind: str, *, text: str = "", detail: Mapping[str, Any]) -> Noted:
    return Noted(
        external_id=item.key(kind),
        kind=kind,
        at=item.at,
        hint=item.hint(has_written=False) if item.scoped_id else None,
        thread=item.thread,
        text=text,
        detail={**detail, **({"standby": True} if item.is_standby else {})},
    )


def _read_delivery(item: _Item, report: Fields) -> Iterator[Event]:
    yield _status(item, report, DeliveryStatus.DELIVERED)


def _read_read(item: _Item, report: Fields) -> Iterator[Event]:
    yield _status(item, report, DeliveryStatus.READ)


def _status(item: _Item, report: Fields, status: DeliveryStatus) -> StatusChanged:
    watermark = report.moment("watermark", unit=_MILLISECOND)
    # Instagram names the one message that was read.
    messages = (report.key("mid"),) if "mid" in report else report.keys("mids")
    if not item.person or not (watermark or messages):
        raise ParseError("a report on nothing: it names no person, or neither messages nor a time")
    return StatusChanged(
        external_id=item.key(status.value),
        status=status,
        at=item.at,
        messages=messages,
        thread=item.thread,
        watermark=watermark,
    )


_READERS: dict[str, Callable[[_Item, Fields], Iterator[Event]]] = {
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


def _attachments(message: Fields) -> Iterator[Attachment]:
    for attachment in message.items("attachments"):
        payload = attachment.fields("payload")
        kind = attachment.text("type") or "file"
        url = payload.text("url") or attachment.text("url")
        title = payload.text("title") or attachment.text("title")
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
