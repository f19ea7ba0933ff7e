"""Reads the webhooks of WhatsApp's Cloud API, without I/O and without a clock.

Source: https://developers.facebook.com/documentation/business-messaging/whatsapp/webhooks/overview. A request holds
several messages and statuses; one that cannot be read is noted, and costs only itself.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
from attrs import frozen

from convsdk.core.events import DeliveryStatus, Event, MessageReceived, Noted, StatusChanged
from convsdk.core.model import Attachment, Claim, IdentityHint, Trait, Trust
from convsdk.errors import ParseError

USER = "whatsapp_user"
"""The kind of identifier: a business-scoped user id (BSUID), whose scope is the business."""

# Half of a surrogate pair and NUL, escaped: no store keeps them. Whole pairs and other escapes match first and stay.
_UNSTORABLE = re.compile(
    rb"(\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\[^u])|\\u(?:[dD][89a-fA-F][0-9a-fA-F]{2}|0000)"
)
_Object = dict[str, Any]
_Key = Annotated[str, msgspec.Meta(min_length=1, max_length=255, pattern=r"^[!-~]+$")]
_Moment = Annotated[int, msgspec.Meta(ge=0, le=253_402_300_799)]  # the end of the year 9999
_User = Annotated[str, msgspec.Meta(pattern=r"^[A-Z]{2}\.[0-9A-Za-z.]{1,140}$")]
_NUMBER = re.compile("[1-9][0-9]{6,14}")
_READ = ("text", "interactive", "button", "location")
_MEDIA = ("image", "video", "audio", "document", "sticker")
_NOTES = {
    "reaction": "reaction",
    "revoke": "deleted",
    "edit": "edited",
    "system": "system",
    "unsupported": "unsupported",
}
_LONGEST_ITEM = 4000


def read_events(body: bytes, *, business: str, received_at: datetime) -> tuple[Event, ...]:
    """Give the events in a webhook, in its order. `business` is the scope of user ids; empty: the account's id.

    Raises `ParseError` on anything that is no batch of a WhatsApp business account.
    """
    try:
        batch = msgspec.json.decode(_UNSTORABLE.sub(lambda found: found[1] or rb"\ufffd", body), type=_Object)
        if batch.get("object") != "whatsapp_business_account":
            raise ParseError("the body's 'object' is not 'whatsapp_business_account': subscribe only that here")
        entries = _part(batch, "entry", list[_Object])
        return tuple(event for entry in entries for event in _read_entry(entry, business, received_at))
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise ParseError(f"{len(body)} bytes are no batch of WhatsApp ({type(error).__name__})") from None


def _part(fields: _Object, name: str, shape: Any, default: Any = None) -> Any:  # noqa: ANN401  (JSON comes in)
    """Give the member `name`, or the default. msgspec raises `ValidationError` where it has not the `shape`."""
    return msgspec.convert(fields.get(name, default), shape)


def _read_entry(entry: _Object, business: str, received_at: datetime) -> Iterator[Event]:
    account = _part(entry, "id", _Key)
    for change in _part(entry, "changes", list[_Object]):
        value = _part(change, "value", _Object, {})
        listed = {name: _part(value, name, list[Any], []) for name in _READERS}
        if change.get("field") != "messages" or not any(listed.values()):
            yield _noted("unknown", account, received_at, change)
            continue
        number = _part(_part(value, "metadata", _Object, {}), "phone_number_id", _Key)
        people = _part(value, "contacts", list[_Object], [])
        for name, items in listed.items():
            for item in items:
                try:
                    yield _READERS[name](_Item(item, number, business or account, people))
                except (msgspec.MsgspecError, AttributeError):  # no object, or not as the documentation has it
                    yield _noted("unreadable", number, received_at, item)


def _noted(kind: str, thread: str, at: datetime, item: object) -> Noted:
    # With nobody to go by, the notes of an account share one thread instead of opening one each.
    text = json.dumps(item, sort_keys=True)
    key = hashlib.sha256(f"{thread} {text}".encode()).hexdigest()
    return Noted(external_id=f"{kind}/{key}", kind=kind, at=at, thread=thread, detail={"item": text[:_LONGEST_ITEM]})


@frozen
class _Item:
    """A message or a status, at the business's `number`, and who is named beside it."""

    fields: _Object
    number: str
    scope: str
    people: list[_Object]

    @property
    def id(self) -> str:
        return str(_part(self.fields, "id", _Key))

    @property
    def at(self) -> datetime:
        return datetime.fromtimestamp(msgspec.convert(self.fields.get("timestamp"), _Moment, strict=False), UTC)

    def shared(self) -> _Object:
        """Give what messages and notes have: who, when and where.

        A person is known by the business-scoped id and by the number, or by one of them: who has a user name may
        hide the number. Both in one hint: a number that comes with another id has changed hands.
        """
        given = _part(self.fields, "from", _Key | None)
        phone = given if given and _NUMBER.fullmatch(given) else None
        # Where there is no number, the id may stand in its place.
        user = _part(self.fields, "from_user_id" if phone or not given else "from", _User | None)
        person = next((one for one in self.people if phone and one.get("wa_id") == phone), {}) or next(
            (one for one in self.people if user and one.get("user_id") == user), {}
        )
        user = user or _part(person, "user_id", _User | None)
        claims = [Claim(USER, user, Trust.CHANNEL, scope=self.scope)] if user else []
        claims += [Claim("phone", f"+{phone}", Trust.CHANNEL)] if phone else []
        if not claims:
            raise msgspec.ValidationError("a message from nobody")
        profile = _part(person, "profile", _Object, {})
        traits = {name: _part(profile, name, str, "").strip() for name in ("name", "username")}
        hint = IdentityHint(
            at=self.at,
            identifiers=tuple(claims),
            traits=tuple(Trait(name, value, Trust.CHANNEL) for name, value in traits.items() if value),
            may_create=self.fields.get("type") not in _NOTES,
            how="WhatsApp message",
        )
        return {"at": self.at, "hint": hint, "thread": f"{self.number}/{user or phone}"}


def _read_message(item: _Item) -> Event:
    kind = _part(item.fields, "type", _Key)
    if kind in _NOTES:
        return _read_note(item, kind)
    content = _part(item.fields, kind, _Object, {})
    answered = _part(_part(item.fields, "context", _Object | None) or {}, "id", _Key | None)
    text, data = _words(item.fields)
    block, _, choice = data.partition(":")
    return MessageReceived(
        external_id=item.id,
        text=text,
        block=block,
        choice=choice,
        references=(answered,) if answered else (),
        attachments=(_attachment(kind, content),) if kind in _MEDIA else (),
        detail={"type": kind} | _told(kind, item.fields),
        **item.shared(),
    )


def _told(kind: str, fields: _Object) -> _Object:
    """Give a file's id, by which the Graph API tells where it is; and as it came what is not read here."""
    if kind in _MEDIA:
        return {"files": [_part(_part(fields, kind, _Object), "id", _Key)]}
    return {} if kind in _READ else {"item": json.dumps(fields)[:_LONGEST_ITEM]}


def _read_note(item: _Item, kind: str) -> Event:
    content = _part(item.fields, kind, _Object, {})
    about = _part(content, "message_id" if kind == "reaction" else "original_message_id", str, "")
    edited = _part(content, "message", _Object, {})
    text = _words(edited)[0] if edited else _part(content, "emoji", str, "") or _part(content, "body", str, "")
    detail = {"message": about} if about else {}
    return Noted(external_id=item.id, kind=_NOTES[kind], text=text, detail=detail, **item.shared())


def _words(message: _Object) -> tuple[str, str]:
    """Give what a message says, and what the button stands for that was pressed."""
    kind = _part(message, "type", _Key)
    content = _part(message, kind, _Object, {})
    if kind == "interactive":  # the reply to a button, or to a row of a list
        reply = _part(content, _part(content, "type", str), _Object)
        return _part(reply, "title", str, "") or _part(reply, "body", str, ""), _part(reply, "id", str, "")
    if kind == "button":  # the quick reply of a template
        return _part(content, "text", str), _part(content, "payload", str, "")
    if kind == "location":
        named = [_part(content, name, str, "") for name in ("name", "address")]
        place = [str(_part(content, name, float)) for name in ("latitude", "longitude")]
        return ", ".join(filter(None, named + place)), ""
    return _part(content, "body" if kind == "text" else "caption", str, ""), ""


def _attachment(kind: str, content: _Object) -> Attachment:
    media_type = _part(content, "mime_type", str, "").partition(";")[0] or "application/octet-stream"
    return Attachment(name=_part(content, "filename", str, "") or kind, media_type=media_type)


def _read_status(item: _Item) -> Event:
    status = _part(item.fields, "status", _Key)
    errors = _part(item.fields, "errors", list[_Object], [])
    told = [f"{_part(one, 'code', int)}: {_part(one, 'title', str, '')}" for one in errors]
    token = _part(item.fields, "biz_opaque_callback_data", str, "")
    try:
        reached = DeliveryStatus(status)
    except ValueError:
        raise msgspec.ValidationError("a status that is not known here") from None
    return StatusChanged(
        external_id=f"{item.id}/{status}",
        status=reached,
        at=item.at,
        # Also as the message was called before it was sent: the answer with WhatsApp's id may never have come.
        messages=(item.id, *((f"out/{token}",) if token else ())),
        error="; ".join(told)[:500],
    )


_READERS: dict[str, Callable[[_Item], Event]] = {"messages": _read_message, "statuses": _read_status}
