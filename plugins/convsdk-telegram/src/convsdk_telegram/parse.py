"""Reads a Telegram `Update` (https://core.telegram.org/bots/api#update), without I/O and without a clock."""

import json
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

from attrs import frozen

from convsdk.core.events import Event, MessageReceived, Noted
from convsdk.core.model import Attachment, Claim, IdentityHint, Trust, traits_of
from convsdk.core.payloads import Fields, read_fields

USER = "telegram_user"
"""The kind of identifier: a user's id, whose scope is the id of the bot that saw it."""

_LONGEST_ITEM = 4000
_MEDIA_TYPES = {
    "photo": "image/jpeg",
    "sticker": "image/webp",
    "voice": "audio/ogg",
    "audio": "audio/mpeg",
    **dict.fromkeys(("video", "video_note", "animation"), "video/mp4"),
    "document": "application/octet-stream",
}


def read_events(body: bytes, *, bot: str, chats: tuple[str, ...], received_at: datetime) -> tuple[Event, ...]:
    """Give the events in an update for `bot` (its id), in chats of the types `chats`; none of other chats.

    `received_at` dates a pressed button, of which Telegram does not say when. Raises `ParseError` on anything that is
    no update.
    """
    return tuple(_read(read_fields(body), bot=bot, chats=chats, received_at=received_at))


def _read(update: Fields, *, bot: str, chats: tuple[str, ...], received_at: datetime) -> Iterator[Event]:
    number = update.key("update_id")
    for kind, read in _READERS.items():
        if kind in update:
            fields = update.fields(kind)
            # A button can be under a message that the bot does not see: that is in no chat, and left out.
            place = fields.fields("message") if kind == "callback_query" else fields
            if place.fields("chat").text("type") in chats:
                yield read(_Item(bot=bot, update=number, fields=fields, place=place, received_at=received_at))


@frozen(kw_only=True)
class _Item:
    """One part of an update. `place` is the message that it is, or is about."""

    bot: str
    update: str
    fields: Fields
    place: Fields
    received_at: datetime

    @property
    def thread(self) -> str:
        return self.place.fields("chat").key("id")

    @property
    def message(self) -> str:
        """Give the message's external id: Telegram numbers those of each chat."""
        return f"{self.thread}/{self.place.key('message_id')}"

    def shared(self) -> dict[str, Any]:
        """Give what all events have: who, when and where."""
        at = self.fields.moment("edit_date") or self.fields.moment("date") or self.received_at
        return {"at": at, "thread": self.thread, "hint": self._hint(at)}

    def _hint(self, at: datetime) -> IdentityHint:
        user = self.fields.fields("from") or self.fields.fields("user")
        if not user:  # a channel's post, or an anonymous administrator's
            return IdentityHint(at=at, may_create=False, how="Telegram message")
        number = user.key("id")
        return IdentityHint(
            at=at,
            identifiers=(Claim(USER, number, Trust.CHANNEL, scope=self.bot), *_phones(self.fields, number)),
            traits=traits_of(Trust.CHANNEL, name=_name(user), username=user.text("username")),
            may_create="user" not in self.fields,  # who only reacts has written nothing
            how="Telegram message",
        )


def _phones(fields: Fields, user: str) -> Iterator[Claim]:
    """Give the number that is shared: attested by Telegram where it is the sender's own, and not passed on."""
    if contact := fields.fields("contact"):
        is_own = str(contact.integer("user_id")) == user and "forward_origin" not in fields
        number = contact.text("phone_number").lstrip("+ ")  # some apps leave the plus sign out
        yield Claim("phone", f"+{number}", Trust.CHANNEL if is_own else Trust.ASSERTED)


def _name(person: Fields) -> str:
    return f"{person.text('first_name')} {person.text('last_name')}".strip()


def _read_message(item: _Item) -> Event:
    fields = item.fields
    if "migrate_to_chat_id" in fields:
        moved = {"chat": fields.key("migrate_to_chat_id")}
        return Noted(external_id=item.message, kind="migrated", detail=moved, **item.shared())
    answered = fields.fields("reply_to_message")
    files, text = dict(_files(fields)), _text(fields)
    album = fields.text("media_group_id")
    # What has neither, such as a poll, is kept as it came. By a file's id, `getFile` tells where it is.
    told = {"files": list(files)} if files else {} if text else {"item": json.dumps(fields.raw)[:_LONGEST_ITEM]}
    return MessageReceived(
        external_id=item.message,
        text=text,
        references=(f"{item.thread}/{answered.key('message_id')}",) if answered else (),
        attachments=tuple(files.values()),
        detail=told | ({"media_group": album} if album else {}),
        **item.shared(),
    )


def _text(fields: Fields) -> str:
    """Give what is written, or in words what has none: the one who was shared, a place."""
    if contact := fields.fields("contact"):
        return f"{_name(contact)}: {contact.text('phone_number')}"
    if place := fields.fields("location"):
        return f"{place.number('latitude')}, {place.number('longitude')}"
    return fields.text("text") or fields.text("caption")


def _files(fields: Fields) -> Iterator[tuple[str, Attachment]]:
    for kind, media_type in _MEDIA_TYPES.items():
        # An animation comes as a document as well, for older apps; a picture comes in several sizes.
        is_double = kind == "document" and "animation" in fields
        found = fields.items("photo") if kind == "photo" else [fields.fields(kind)]
        file = max(found, key=lambda one: one.integer("file_size") or 0, default=None)
        if file and not is_double:
            name, declared = file.text("file_name") or kind, file.text("mime_type") or media_type
            yield file.key("file_id"), Attachment(name=name, media_type=declared, size=file.integer("file_size"))


def _read_press(item: _Item) -> Event:
    query, data = item.fields.key("id"), item.fields.text("data")
    buttons = item.place.fields("reply_markup").items("inline_keyboard")
    labels = [one.text("text") for one in buttons if one.text("callback_data") == data]
    block, _, choice = data.partition(":")
    return MessageReceived(
        external_id=f"callback/{query}",
        text=labels[0] if labels else data,
        references=(item.message,),
        block=block,
        choice=choice,
        detail={"callback_query": query},
        **item.shared(),
    )


def _read_change(item: _Item) -> Event:
    """Give the note of an edit, or of a reaction: of an emoji, or of none any more."""
    is_edit = "new_reaction" not in item.fields
    kind, mark = ("edited", "edit") if is_edit else ("reaction", "reaction")
    emoji = "".join(one.text("emoji") for one in item.fields.items("new_reaction"))
    return Noted(
        external_id=f"{item.message}/{mark}/{item.update}",
        kind=kind,
        text=_text(item.fields) if is_edit else emoji,
        detail={"message": item.message},
        **item.shared(),
    )


_READERS: dict[str, Callable[[_Item], Event]] = {
    **dict.fromkeys(("message", "channel_post"), _read_message),
    **dict.fromkeys(("edited_message", "edited_channel_post", "message_reaction"), _read_change),
    "callback_query": _read_press,
}
UPDATES = tuple(_READERS)
"""The updates that are read here: Telegram sends others, and no reactions, unless it is told."""
