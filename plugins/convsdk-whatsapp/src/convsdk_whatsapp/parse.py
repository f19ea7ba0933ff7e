"""Reads the webhooks of WhatsApp's Cloud API, without I/O and without a clock.

Source: https://developers.facebook.com/documentation/business-messaging/whatsapp/webhooks/overview. A request holds
several messages and statuses; one that cannot be read is noted, and costs only itself.
"""

import json
import re
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

from attrs import frozen

from convsdk.core.events import DeliveryStatus, Event, MessageReceived, Noted, StatusChanged
from convsdk.core.model import Attachment, Claim, IdentityHint, Trust, traits_of
from convsdk.core.payloads import Fields, digest_of, fields_of, read_fields
from convsdk.errors import ParseError

USER = "whatsapp_user"
"""The kind of identifier: a business-scoped user id (BSUID), whose scope is the business."""

_USER = re.compile(r"[A-Z]{2}\.[0-9A-Za-z.]{1,140}")
_NUMBER = re.compile("[1-9][0-9]{6,14}")
_READ = ("text", "interactive", "button", "location")
_MEDIA = ("image", "video", "audio", "document", "sticker")
_NOTES = {"revoke": "deleted", "edit": "edited"} | {one: one for one in ("reaction", "system", "unsupported")}
_LONGEST_ITEM = 4000


def read_events(body: bytes, *, business: str, received_at: datetime) -> tuple[Event, ...]:
    """Give the events in a webhook, in its order. `business` is the scope of user ids; empty: the account's id.

    Raises `ParseError` on anything that is no batch of a WhatsApp business account.
    """
    batch = read_fields(body)
    if batch.text("object") != "whatsapp_business_account":
        raise ParseError("the body's 'object' is not 'whatsapp_business_account': subscribe only that here")
    return tuple(event for entry in batch.items("entry") for event in _read_entry(entry, business, received_at))


def _read_entry(entry: Fields, business: str, received_at: datetime) -> Iterator[Event]:
    account = entry.key("id")
    for change in entry.items("changes"):
        value = change.fields("value")
        listed = {name: value.values(name) for name in _READERS}
        if change.text("field") != "messages" or not any(listed.values()):
            yield _noted("unknown", account, received_at, change.raw)
            continue
        number = value.fields("metadata").key("phone_number_id")
        people = tuple(value.items("contacts"))
        for name, items in listed.items():
            for item in items:
                try:
                    fields = fields_of(item, path=name)
                    yield _READERS[name](_Item(fields, number, business or account, people, received_at))
                except ParseError:  # not as the documentation has it
                    yield _noted("unreadable", number, received_at, item)


def _noted(kind: str, thread: str, at: datetime, item: object) -> Noted:
    # With nobody to go by, the notes of an account share one thread instead of opening one each.
    key, told = digest_of(thread, item), json.dumps(item)[:_LONGEST_ITEM]
    return Noted(external_id=f"{kind}/{key}", kind=kind, at=at, thread=thread, detail={"item": told})


@frozen
class _Item:
    """A message or a status, at the business's `number`, and who is named beside it."""

    fields: Fields
    number: str
    scope: str
    people: tuple[Fields, ...]
    received_at: datetime

    @property
    def at(self) -> datetime:
        return self.fields.moment("timestamp") or self.received_at

    def shared(self) -> dict[str, Any]:
        """Give what messages and notes have: which, who, when and where.

        A person is known by the business-scoped id and by the number, or by one of them: who has a user name may
        hide the number. Both in one hint: a number that comes with another id has changed hands.
        """
        given = self.fields.text("from")
        phone = given if _NUMBER.fullmatch(given) else ""
        # Where there is no number, the id may stand in its place.
        user = self.fields.text("from_user_id") if phone or not given else given
        person = self._person("wa_id", phone) or self._person("user_id", user) or Fields({})
        user = user or person.text("user_id")
        if not (user or phone) or (user and not _USER.fullmatch(user)):
            raise ParseError("a message from nobody: it has neither a number nor an id of a user")
        claims = [Claim(USER, user, Trust.CHANNEL, scope=self.scope)] if user else []
        claims += [Claim("phone", f"+{phone}", Trust.CHANNEL)] if phone else []
        profile = person.fields("profile")
        hint = IdentityHint(
            at=self.at,
            identifiers=tuple(claims),
            traits=traits_of(Trust.CHANNEL, name=profile.text("name"), username=profile.text("username")),
            may_create=self.fields.text("type") not in _NOTES,
            how="WhatsApp message",
        )
        thread = f"{self.number}/{user or phone}"
        return {"external_id": self.fields.key("id"), "at": self.at, "hint": hint, "thread": thread}

    def _person(self, name: str, key: str) -> Fields | None:
        return next((one for one in self.people if key and one.text(name) == key), None)


def _read_message(item: _Item) -> Event:
    kind, content = _content(item.fields)
    if kind in _NOTES:
        return _read_note(item, kind)
    answered, (text, data) = item.fields.fields("context").text("id"), _words(kind, content)
    block, _, choice = data.partition(":")
    # By a file's id, the Graph API tells where it is; what is not read here is kept as it came.
    files = [content] if kind in _MEDIA else []
    media_type = content.text("mime_type").partition(";")[0] or "application/octet-stream"
    rest = {} if kind in _READ else {"item": json.dumps(item.fields.raw)[:_LONGEST_ITEM]}
    return MessageReceived(
        text=text,
        block=block,
        choice=choice,
        references=(answered,) if answered else (),
        attachments=tuple(Attachment(name=one.text("filename") or kind, media_type=media_type) for one in files),
        detail={"type": kind} | ({"files": [one.key("id") for one in files]} if files else rest),
        **item.shared(),
    )


def _content(message: Fields) -> tuple[str, Fields]:
    kind = message.key("type")
    return kind, message.fields(kind) if kind in (*_READ, *_MEDIA, *_NOTES) else Fields({})


def _read_note(item: _Item, kind: str) -> Event:
    content = item.fields.fields(kind)
    about = content.text("message_id" if kind == "reaction" else "original_message_id")
    edited = content.fields("message")
    text = _words(*_content(edited))[0] if edited else content.text("emoji") or content.text("body")
    return Noted(kind=_NOTES[kind], text=text, detail={"message": about} if about else {}, **item.shared())


def _words(kind: str, content: Fields) -> tuple[str, str]:
    """Give what a message says, and what the button stands for that was pressed."""
    if kind == "interactive":  # the reply to a button, or to a row of a list
        reply = content.fields(content.key("type"))
        return reply.text("title") or reply.text("body"), reply.text("id")
    if kind == "button":  # the quick reply of a template
        return content.text("text"), content.text("payload")
    if kind == "location":
        named = [content.text("name"), content.text("address")]
        place = [content.number("latitude"), content.number("longitude")]
        return ", ".join(str(one) for one in named + place if one not in ("", None)), ""
    return content.text("body" if kind == "text" else "caption"), ""


def _read_status(item: _Item) -> Event:
    message, status = item.fields.key("id"), item.fields.key("status")
    told = [f"{one.integer('code')}: {one.text('title')}" for one in item.fields.items("errors")]
    token = item.fields.text("biz_opaque_callback_data")
    if status not in {one.value for one in DeliveryStatus}:
        raise ParseError("a status that is not known here")
    return StatusChanged(
        external_id=f"{message}/{status}",
        status=DeliveryStatus(status),
        at=item.at,
        # Also as the message was called before it was sent: the answer with WhatsApp's id may never have come.
        messages=(message, *((f"out/{token}",) if token else ())),
        error="; ".join(told)[:500],
    )


_READERS: dict[str, Callable[[_Item], Event]] = {"messages": _read_message, "statuses": _read_status}
