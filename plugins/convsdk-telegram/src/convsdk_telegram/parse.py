"""Reads a Telegram `Update` (https://core.telegram.org/bots/api#update), without I/O and without a clock."""

import json
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
from attrs import frozen

from convsdk.core.events import Event, MessageReceived, Noted
from convsdk.core.model import Attachment, Claim, IdentityHint, Trait, Trust
from convsdk.errors import ParseError

USER = "telegram_user"
"""The kind of identifier: a user's id, whose scope is the id of the bot that saw it."""

# Half of a surrogate pair and NUL, escaped: no store keeps them. Whole pairs and other escapes match first and stay.
_UNSTORABLE = re.compile(
    rb"(\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\[^u])|\\u(?:[dD][89a-fA-F][0-9a-fA-F]{2}|0000)"
)
_Object = dict[str, Any]
_Id = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
_Moment = Annotated[int, msgspec.Meta(ge=0, le=253_402_300_799)]  # the end of the year 9999
_LONGEST_ITEM = 4000
_Key = Annotated[str, msgspec.Meta(min_length=1, max_length=255)]
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
    try:
        update = msgspec.json.decode(_UNSTORABLE.sub(lambda found: found[1] or rb"\ufffd", body), type=_Object)
        return tuple(_read(update, bot=bot, chats=chats, received_at=received_at))
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise ParseError(f"{len(body)} bytes are no Telegram update ({type(error).__name__})") from None


def _read(update: _Object, *, bot: str, chats: tuple[str, ...], received_at: datetime) -> Iterator[Event]:
    number = _part(update, "update_id", _Id)
    for kind, read in _READERS.items():
        if kind in update:
            fields = _part(update, kind, _Object)
            # A button can be under a message that the bot does not see: that is in no chat, and left out.
            place = _part(fields, "message", _Object, {}) if kind == "callback_query" else fields
            if _part(place, "chat", _Object, {}).get("type") in chats:
                yield read(_Item(bot=bot, update=number, fields=fields, place=place, received_at=received_at))


def _part(fields: _Object, name: str, shape: Any, default: Any = None) -> Any:  # noqa: ANN401  (JSON comes in)
    """Give the member `name`, or the default. msgspec raises `ValidationError` where it has not the `shape`."""
    return msgspec.convert(fields.get(name, default), shape)


@frozen(kw_only=True)
class _Item:
    """One part of an update. `place` is the message that it is, or is about."""

    bot: str
    update: int
    fields: _Object
    place: _Object
    received_at: datetime

    @property
    def thread(self) -> str:
        return str(_part(self.place["chat"], "id", _Id))

    @property
    def message(self) -> str:
        """Give the message's external id: Telegram numbers those of each chat."""
        return f"{self.thread}/{_part(self.place, 'message_id', _Id)}"

    def shared(self) -> _Object:
        """Give what all events have: who, when and where."""
        seconds = _part(self.fields, "edit_date", _Moment | None) or _part(self.fields, "date", _Moment | None)
        at = self.received_at if seconds is None else datetime.fromtimestamp(seconds, UTC)
        return {"at": at, "thread": self.thread, "hint": self._hint(at)}

    def _hint(self, at: datetime) -> IdentityHint:
        user = _part(self.fields, "from", _Object, {}) or _part(self.fields, "user", _Object, {})
        if not user:  # a channel's post, or an anonymous administrator's
            return IdentityHint(at=at, may_create=False, how="Telegram message")
        number = _part(user, "id", _Id)
        traits = {"name": _name(user), "username": _part(user, "username", str, "")}
        return IdentityHint(
            at=at,
            identifiers=(Claim(USER, str(number), Trust.CHANNEL, scope=self.bot), *_phones(self.fields, number)),
            traits=tuple(Trait(kind, value, Trust.CHANNEL) for kind, value in traits.items() if value),
            may_create="user" not in self.fields,  # who only reacts has written nothing
            how="Telegram message",
        )


def _phones(fields: _Object, user: int) -> Iterator[Claim]:
    """Give the number that is shared: attested by Telegram where it is the sender's own, and not passed on."""
    if contact := _part(fields, "contact", _Object, {}):
        is_own = contact.get("user_id") == user and "forward_origin" not in fields
        number = _part(contact, "phone_number", str).lstrip("+ ")  # some apps leave the plus sign out
        yield Claim("phone", f"+{number}", Trust.CHANNEL if is_own else Trust.ASSERTED)


def _name(person: _Object) -> str:
    return f"{_part(person, 'first_name', str, '')} {_part(person, 'last_name', str, '')}".strip()


def _read_message(item: _Item) -> Event:
    fields = item.fields
    if "migrate_to_chat_id" in fields:
        moved = {"chat": str(_part(fields, "migrate_to_chat_id", _Id))}
        return Noted(external_id=item.message, kind="migrated", detail=moved, **item.shared())
    answered = _part(fields, "reply_to_message", _Object, {})
    files, text = dict(_files(fields)), _text(fields)
    album = _part(fields, "media_group_id", str, "")
    # What has neither, such as a poll, is kept as it came. By a file's id, `getFile` tells where it is.
    told = {"files": list(files)} if files else {} if text else {"item": json.dumps(fields)[:_LONGEST_ITEM]}
    return MessageReceived(
        external_id=item.message,
        text=text,
        references=(f"{item.thread}/{_part(answered, 'message_id', _Id)}",) if answered else (),
        attachments=tuple(files.values()),
        detail=told | ({"media_group": album} if album else {}),
        **item.shared(),
    )


def _text(fields: _Object) -> str:
    """Give what is written, or in words what has none: the one who was shared, a place."""
    if contact := _part(fields, "contact", _Object, {}):
        return f"{_name(contact)}: {_part(contact, 'phone_number', str)}"
    if place := _part(fields, "location", dict[str, float], {}):
        return f"{place.get('latitude')}, {place.get('longitude')}"
    return str(_part(fields, "text", str, "") or _part(fields, "caption", str, ""))


def _files(fields: _Object) -> Iterator[tuple[str, Attachment]]:
    photos = _part(fields, "photo", list[_Object], [])  # one picture in several sizes
    largest = {"photo": max(photos, key=lambda one: _part(one, "file_size", int, 0))} if photos else {}
    for kind, media_type in _MEDIA_TYPES.items():
        # An animation comes as a document as well, for older apps.
        is_double = kind == "document" and "animation" in fields
        if not is_double and (file := _part(fields | largest, kind, _Object | None)):
            yield (
                _part(file, "file_id", _Key),
                Attachment(
                    name=_part(file, "file_name", str, kind) or kind,
                    media_type=_part(file, "mime_type", str, media_type) or media_type,
                    size=_part(file, "file_size", _Id | None),
                ),
            )


def _read_edit(item: _Item) -> Event:
    return Noted(
        external_id=f"{item.message}/edit/{item.update}",
        kind="edited",
        text=_text(item.fields),
        detail={"message": item.message},
        **item.shared(),
    )


def _read_press(item: _Item) -> Event:
    query, data = _part(item.fields, "id", _Key), _part(item.fields, "data", str, "")
    rows = _part(_part(item.place, "reply_markup", _Object, {}), "inline_keyboard", list[list[_Object]], [])
    labels = [_part(one, "text", str, "") for row in rows for one in row if one.get("callback_data") == data]
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


def _read_reaction(item: _Item) -> Event:
    kinds = _part(item.fields, "new_reaction", list[_Object], [])
    return Noted(
        external_id=f"{item.message}/reaction/{item.update}",
        kind="reaction",
        text="".join(_part(one, "emoji", str, "") for one in kinds),
        detail={"message": item.message},
        **item.shared(),
    )


_READERS: dict[str, Callable[[_Item], Event]] = {
    **dict.fromkeys(("message", "channel_post"), _read_message),
    **dict.fromkeys(("edited_message", "edited_channel_post"), _read_edit),
    "callback_query": _read_press,
    "message_reaction": _read_reaction,
}
