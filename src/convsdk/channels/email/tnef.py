"""What Outlook packs into a winmail.dat: attachments and texts (MS-OXTNEF; the properties by MS-OXPROPS, MS-OXCDATA).

An own reader: the one library for it is LGPL, and reads what it is not needed for here, such as RTF. Each byte is
looked at once, nothing is decompressed, and what is cut off or broken ends what is read, with what came before.
"""

import struct
from collections.abc import Iterator

from attrs import define, field

from convsdk.channels.email.mime import decode

_SIGNATURE = struct.pack("<I", 0x223E9F78)
_MOST_ATTACHMENTS = 100
_MOST_PROPERTIES = 10_000

# Attributes of the stream.
_CODE_PAGE, _BODY, _MESSAGE_PROPERTIES = 0x00069007, 0x0002800C, 0x00069003
_NEW_ATTACHMENT, _TITLE, _DATA, _ATTACHMENT_PROPERTIES = 0x00069002, 0x00018010, 0x0006800F, 0x00069005
# Properties in them.
_PLAIN, _HTML = 0x1000, 0x1013
_CONTENT, _LONG_NAME, _MEDIA_TYPE, _CONTENT_ID = 0x3701, 0x3707, 0x370E, 0x3712
_STRING, _UNICODE, _BINARY, _OBJECT = 0x1E, 0x1F, 0x102, 0x0D
_MULTIPLE, _FIRST_NAMED = 0x1000, 0x8000
_SIZES = {2: 4, 3: 4, 4: 4, 5: 8, 6: 8, 7: 8, 0x0A: 4, 0x0B: 4, 0x14: 8, 0x40: 8, 0x48: 16}


@define
class Packed:
    """A file in a winmail.dat, its name and type as unsafe as they came."""

    name: str = ""
    media_type: str = ""
    content_id: str = ""
    content: bytes = field(default=b"", repr=False)


@define
class Tnef:
    """What a winmail.dat holds; texts that are not there are empty."""

    text: str = ""
    html: str = ""
    attachments: list[Packed] = field(factory=list)

    def __bool__(self) -> bool:
        return bool(self.text or self.html or self.attachments)


def unpacked(data: bytes) -> Tnef:
    """Give what `data` holds; nothing where it is no winmail.dat."""
    found = Tnef()
    charset = ""
    for attribute, value in _attributes(data) if data.startswith(_SIGNATURE) else ():
        last = found.attachments[-1] if found.attachments else Packed()
        match attribute:
            case _ if attribute == _CODE_PAGE and len(value) >= 4:  # noqa: PLR2004  (a number's bytes)
                charset = f"cp{struct.unpack_from('<I', value)[0]}"
            case _ if attribute == _BODY:
                found.text = found.text or _text(value, charset)
            case _ if attribute == _MESSAGE_PROPERTIES:
                _read_message(found, value, charset)
            case _ if attribute == _NEW_ATTACHMENT:
                if len(found.attachments) == _MOST_ATTACHMENTS:
                    break
                found.attachments.append(Packed())
            case _ if attribute == _TITLE:
                last.name = last.name or _text(value, charset)
            case _ if attribute == _DATA:
                last.content = value
            case _ if attribute == _ATTACHMENT_PROPERTIES:
                _read_attachment(last, value, charset)
    return found


def _read_message(found: Tnef, data: bytes, charset: str) -> None:
    for key, kind, value in _properties(data):
        if key == _PLAIN and kind in {_STRING, _UNICODE}:
            found.text = _string(kind, value, charset) or found.text
        if key == _HTML and kind in {_BINARY, _STRING, _UNICODE}:
            # As bytes it has a charset of its own, which is mostly UTF-8.
            found.html = decode(value) if kind == _BINARY else _string(kind, value, charset)


def _read_attachment(found: Packed, data: bytes, charset: str) -> None:
    for key, kind, value in _properties(data):
        if key == _CONTENT and kind == _BINARY:
            found.content = value
        if kind not in {_STRING, _UNICODE}:
            continue
        if key == _LONG_NAME:
            found.name = _string(kind, value, charset) or found.name
        if key == _MEDIA_TYPE:
            found.media_type = _string(kind, value, charset).lower()
        if key == _CONTENT_ID:
            found.content_id = _string(kind, value, charset)


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 6  # the signature, and a key that nobody uses
    while at + 9 <= len(data):
        attribute, length = struct.unpack_from("<II", data, at + 1)
        start = at + 9
        at = start + length + 2  # a checksum, which some programs get wrong
        if start + length > len(data):
            return
        yield attribute, data[start : start + length]


def _properties(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Give the number, kind and value of each property; those that have several values are passed over."""
    try:
        (count,) = struct.unpack_from("<I", data)
        at = 4
        for _ in range(min(count, _MOST_PROPERTIES)):
            kind, key = struct.unpack_from("<HH", data, at)
            at += 4
            if key >= _FIRST_NAMED:
                at = _past_name(data, at)
            is_sized = kind & ~_MULTIPLE in {_STRING, _UNICODE, _BINARY, _OBJECT}
            values = 1
            if is_sized or kind & _MULTIPLE:
                (values,) = struct.unpack_from("<I", data, at)
                at += 4
            if not is_sized:
                at += values * _SIZES[kind & ~_MULTIPLE]
                continue
            for _ in range(values):
                (size,) = struct.unpack_from("<I", data, at)
                if at + 4 + size > len(data):
                    return
                if values == 1:
                    yield key, kind, data[at + 4 : at + 4 + size]
                at += 4 + _padded(size)
    except (struct.error, KeyError):
        return


def _past_name(data: bytes, at: int) -> int:
    """Give where a property goes on after its name: a set's GUID, then a number or a text in UTF-16."""
    kind, size = struct.unpack_from("<II", data, at + 16)
    return at + 24 + (_padded(size) if kind else 0)


def _padded(size: int) -> int:
    return size + -size % 4


def _string(kind: int, value: bytes, charset: str) -> str:
    return _text(value, "utf-16-le" if kind == _UNICODE else charset)


def _text(value: bytes, charset: str) -> str:
    if charset == "utf-16-le":
        return decode(value[: len(value) & ~1], charset).rstrip("\0\ufffd")
    return decode(value.rstrip(b"\0"), charset)
