"""The format of a mail, read without trust: header fields, parts, charsets, encoded words. Knows no people.

The standard library's compat32 parser reads each block of header fields. The tree of parts is walked here, since the
library recurses on nested multiparts; its parameters and encoded words take quadratic time on hostile input, so they
are read here as well. Everything in this module takes time linear in the size of the mail.
"""

import binascii
import re
from collections.abc import Iterator
from email.parser import BytesHeaderParser
from email.policy import compat32
from encodings.aliases import aliases
from functools import cached_property
from urllib.parse import unquote_to_bytes

from attrs import evolve, field, frozen

from convsdk.core.payloads import storable

MAX_BYTES = 25 * 1024 * 1024
MAX_HEADER_BYTES = 256 * 1024
MAX_FIELDS = 1_000
MAX_DEPTH = 30
MAX_PARTS = 500
# Each level of nesting is searched for its boundary; this keeps the sum linear. Real mail nests three levels.
MAX_SEARCHED_BYTES = 8 * MAX_BYTES

_HEADER_END = re.compile(rb"\n\r?\n")
_BLANK_BEFORE_COLON = re.compile(rb"^([!-9;-~]++)([ \t]++):", re.MULTILINE)
_BLANK_LINE = re.compile(rb"\r?\n")
_PARAMETER = re.compile(r';\s*+([^\s=;"]++)\s*+=\s*+("(?:[^"\\]|\\.)*+"?|[^;]*+)', re.DOTALL)
_ENCODED_WORD = re.compile(r"=\?([^?\s]*+)\?([qQbB])\?([^?]*+)\?=")
_MEDIA_TYPE = re.compile(r"\s*+([a-z0-9!#$&^_.+-]{1,100})/([a-z0-9!#$&^_.+-]{1,100})\s*+(?:;|$)")
_SIGNATURE_LINE = "-- "
_MESSAGE_ID = re.compile(r"<([^<>]++)>")
_LONGEST_ID = 255

# What mail programs say, and what they mean by it (WHATWG Encoding): the wider set that contains the named one.
_MEANT = {
    "ascii": "utf_8_sig",
    "utf_8": "utf_8_sig",
    "latin_1": "cp1252",
    "iso_8859_8_i": "iso8859_8",
    "iso8859_9": "cp1254",
    "iso8859_11": "cp874",
    "tis_620": "cp874",
    "windows_874": "cp874",
    "big5": "cp950",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "x_gbk": "gb18030",
    "euc_kr": "cp949",
    "shift_jis": "cp932",
    "windows_31j": "cp932",
    "x_sjis": "cp932",
    "iso2022_jp": "iso2022_jp_ext",
    "cp50220": "iso2022_jp_ext",
    "cp50221": "iso2022_jp_ext",
}
# What else such mail holds: signs that JIS X 0208 lacks and JIS X 0213 has in their places, those of Hong Kong.
_WIDER = {"iso2022_jp_ext": "iso2022_jp_2004", "euc_jp": "euc_jis_2004", "cp950": "big5hkscs"}
_JIS_X_0208, _JIS_X_0213 = b"\x1b$B", b"\x1b$(Q"
# A closed list: a name out of a mail must neither import a module nor reach a codec that is no charset.
_NO_CHARSETS = {"base64_codec", "bz2_codec", "hex_codec", "quopri_codec", "rot_13", "uu_codec", "zlib_codec", "mbcs"}
_CHARSETS = (frozenset(aliases.values()) | {"koi8_u", "cp874", "utf_8_sig"}) - _NO_CHARSETS
# Only where the header names none. What can be read in it is no UTF-16, whatever it says.
_META = re.compile(
    rb"<meta\b[^<>]{0,200}?\bcharset\s*=\s*[\"']?\s*((?!utf-?(?:16|32))[a-z0-9_.:-]{1,40})", re.IGNORECASE
)
_WITHIN = 1_024
# A letter that was cut in two, at the end or by a program on the way, leaves this many others to each broken one.
_FEW = 4


class PastLimitError(Exception):
    """The mail is larger, deeper or in more pieces than is read; the text says which limit it is."""


@frozen(kw_only=True)
class Part:
    """One part of a mail: its header fields (lower-case name, raw value) and where in `raw` its content is.

    `within` is the type of the multipart that it is in, as far as `leaves` gave it.
    """

    raw: bytes = field(repr=False)
    fields: tuple[tuple[str, str], ...]
    start: int
    end: int
    within: str = ""

    def all(self, name: str) -> tuple[str, ...]:
        """Give the raw values of every field `name`, from the top."""
        return self._values.get(name, ())

    def first(self, name: str) -> str:
        """Give the raw value of the topmost field `name`, or an empty text."""
        return self.all(name)[0] if name in self._values else ""

    @cached_property
    def _values(self) -> dict[str, tuple[str, ...]]:
        found: dict[str, list[str]] = {}
        for name, value in self.fields:
            found.setdefault(name, []).append(value)
        return {name: tuple(values) for name, values in found.items()}

    @cached_property
    def media_type(self) -> str:
        """Give the declared type in lower case; plain text where none, or nothing usable, is declared."""
        match = _MEDIA_TYPE.match(self.first("content-type").lower())
        return f"{match[1]}/{match[2]}" if match else "text/plain"

    @property
    def disposition(self) -> str:
        """Give `attachment`, `inline`, or what else is declared, in lower case."""
        return self.first("content-disposition").partition(";")[0].strip().lower()

    @property
    def file_name(self) -> str:
        """Give the declared file name, decoded but as unsafe as it came."""
        return parameter(self.first("content-disposition"), "filename") or parameter(self.first("content-type"), "name")

    def content(self) -> bytes:
        """Give the content with its transfer encoding undone; what cannot be undone is given as it is."""
        data = self.raw[self.start : self.end]
        # Some programs end it with a semicolon.
        match self.first("content-transfer-encoding").strip("; \t\r\n").lower():
            case "base64":
                return _from_base64(data)
            case "quoted-printable":
                return binascii.a2b_qp(data)
        return data

    def text(self) -> str:
        """Give the content as text with plain newlines, and paragraphs that were broken to be joined (RFC 3676) so."""
        told, data = self.first("content-type"), self.content()
        charset = parameter(told, "charset")
        if not charset and self.media_type == "text/html" and (named := _META.search(data, 0, _WITHIN)):
            charset = named[1].decode("ascii")
        text = decode(data, charset).replace("\r\n", "\n").replace("\r", "\n")
        if self.media_type != "text/plain" or parameter(told, "format").lower() != "flowed":
            return text
        return _joined(text, is_blank_added=parameter(told, "delsp").lower() == "yes")


def _joined(text: str, *, is_blank_added: bool) -> str:
    """Give a flowed text with its paragraphs in one line each; a quote stays apart from another of another depth."""
    lines: list[str] = []
    open_depth = -1  # of the quote that the last line goes on in; -1: it does not
    for line in text.split("\n"):
        content = line.lstrip(">")
        depth = len(line) - len(content)
        content = content.removeprefix(" ")
        is_signature = content == _SIGNATURE_LINE
        if depth == open_depth and not is_signature:
            lines.append(content)
        else:
            lines += ["\n", ">" * depth, " " if depth else "", content]
        is_open = content.endswith(" ") and not is_signature
        open_depth = depth if is_open else -1
        if is_open and is_blank_added:
            lines.append(lines.pop()[:-1])
    return "".join(lines[1:])


def opened(raw: bytes) -> bytes:
    """Give `raw` from its first field on; a mail whose lines end in bare carriage returns gets newlines."""
    lines = raw.removeprefix(b"\xef\xbb\xbf").lstrip(b"\r\n")
    return lines if b"\n" in lines else lines.replace(b"\r", b"\n")


def read_head(raw: bytes, start: int = 0, end: int | None = None) -> Part:
    """Give the part that fills `raw` from `start` to `end`; raise `PastLimitError` where its header is too large."""
    end = len(raw) if end is None else end
    blank = _BLANK_LINE.match(raw, start, end)
    if blank:
        return Part(raw=raw, fields=(), start=blank.end(), end=end)
    separator = _HEADER_END.search(raw, start, end)
    head_end, content = (separator.start() + 1, separator.end()) if separator else (end, end)
    if head_end - start > MAX_HEADER_BYTES:
        raise PastLimitError(f"its header has more than {MAX_HEADER_BYTES} bytes")
    # Obsolete syntax (RFC 5322, 4.5) that the library drops and others read: `From : a@b.example` is a From.
    lines = _BLANK_BEFORE_COLON.sub(rb"\1:\2", raw[start:head_end])
    message = BytesHeaderParser(policy=compat32).parsebytes(lines)
    fields = tuple((name.lower(), str(value)) for name, value in message.raw_items())
    if len(fields) > MAX_FIELDS:
        raise PastLimitError(f"its header has more than {MAX_FIELDS} fields")
    # A line that is no field ends the header: the library hands that line and the rest back, byte for character.
    # Without its declared charset, since the library would decode the rest by it, and raise on a strange name.
    del message["content-type"], message["content-transfer-encoding"]
    rest = len(str(message.get_payload()))
    return Part(raw=raw, fields=fields, start=head_end - rest if rest else content, end=end)


def inner_parts(part: Part) -> list[Part]:
    """Give the parts that a multipart holds directly, none of another part; raise `PastLimitError` as `read_head`."""
    boundary = _boundary(part)
    return [read_head(part.raw, *span) for span in _inner(part, boundary)] if boundary else []


def leaves(root: Part) -> Iterator[Part]:
    """Give the parts that are no multiparts, in order; raise `PastLimitError` where there are too many or too deep."""
    waiting = [(root, 0)]
    parts = searched = 0
    while waiting:
        part, depth = waiting.pop()
        boundary = _boundary(part)
        searched += part.end - part.start if boundary else 0
        if searched > MAX_SEARCHED_BYTES:
            raise PastLimitError("its parts are nested too often for their size")
        inner = _inner(part, boundary) if boundary else []
        if not inner:
            yield part
            continue
        parts += len(inner)
        if parts > MAX_PARTS:
            raise PastLimitError(f"it has more than {MAX_PARTS} parts")
        if depth >= MAX_DEPTH:
            raise PastLimitError(f"its parts are nested more than {MAX_DEPTH} levels deep")
        found = (read_head(part.raw, *span) for span in reversed(inner))
        waiting.extend((evolve(one, within=part.media_type), depth + 1) for one in found)


def _boundary(part: Part) -> bytes:
    if not part.media_type.startswith("multipart/"):
        return b""
    value = _parameters(part.first("content-type")).get("boundary", "")
    return value.rstrip().encode("utf-8", "surrogateescape")


def _inner(part: Part, boundary: bytes) -> list[tuple[int, int]]:
    """Give where the content of a multipart's parts starts and ends (RFC 2046, 5.1.1); the last may lack its end."""
    delimiter = re.compile(rb"\n--" + re.escape(boundary) + rb"(--)?[ \t]*+\r?(?=\n|\Z)")
    raw, spans, open_at = part.raw, [], -1
    # The newline before the first delimiter may be the one that ends the header.
    for match in delimiter.finditer(raw, max(part.start - 1, 0), part.end):
        if open_at >= 0:
            before = match.start() - (raw[match.start() - 1 : match.start()] == b"\r")
            spans.append((open_at, max(before, open_at)))
        open_at = -1 if match[1] else min(match.end() + 1, part.end)
        if match[1] or len(spans) > MAX_PARTS:
            break
    if open_at >= 0:
        spans.append((open_at, part.end))
    return spans


def _from_base64(data: bytes) -> bytes:
    try:
        return binascii.a2b_base64(data + b"==")
    except binascii.Error:
        return data


def decode(data: bytes, charset: str = "") -> str:
    """Give `data` as text: in its declared charset, else UTF-8, else cp1252. Holds no surrogate and no NUL.

    A few broken letters spoil neither of the first two.
    """
    name = re.sub(r"[^a-z0-9]+", "_", charset[:40].lower()).strip("_")
    name = aliases.get(name, name)
    name = _MEANT.get(name, name)
    for candidate in (name, _WIDER.get(name, ""), "utf_8_sig"):
        if candidate not in _CHARSETS:
            continue
        wide = data.replace(_JIS_X_0208, _JIS_X_0213) if candidate == "iso2022_jp_2004" else data
        try:
            return storable(wide.decode(candidate))
        except UnicodeError:
            continue
    return storable(_mended(data, name) or _mended(data, "utf_8_sig") or data.decode("cp1252", "replace"))


def _mended(data: bytes, charset: str) -> str:
    """Give `data` in a charset but for a few broken letters; nothing where it is hardly in that."""
    text = data.decode(charset, "replace") if charset in _CHARSETS else ""
    letters, broken = len(text) - len(text.encode("ascii", "ignore")), text.count("\ufffd")
    return text if letters > _FEW * broken else ""


def plain(value: str) -> str:
    """Give a raw header value as text without decoding its encoded words."""
    if value.isascii() and "\0" not in value:
        return value
    return decode(value.encode("utf-8", "surrogateescape"))


def readable(value: str) -> str:
    """Give a raw header value for people: encoded words decoded (RFC 2047), on one line, without controls."""
    if "=?" not in value:
        return one_line(plain(value))
    pieces: list[tuple[str, list[bytes]]] = []
    position = 0
    for match in _ENCODED_WORD.finditer(value):
        between = value[position : match.start()]
        if between.strip() or not pieces:
            pieces.append(("", [between.encode("utf-8", "surrogateescape")]))
        _append_word(pieces, *match.groups())
        position = match.end()
    pieces.append(("", [value[position:].encode("utf-8", "surrogateescape")]))
    return one_line("".join(decode(b"".join(data), charset) for charset, data in pieces))


def _append_word(pieces: list[tuple[str, list[bytes]]], charset: str, encoding: str, word: str) -> None:
    data = word.encode("utf-8", "surrogateescape")
    charset = charset.partition("*")[0].lower() or "utf-8"
    decoded = _from_base64(data) if encoding in "bB" else binascii.a2b_qp(data, header=True)
    if pieces[-1][0] != charset:
        pieces.append((charset, []))
    # Programs split a letter between two words: they are decoded together.
    pieces[-1][1].append(decoded)


def one_line(text: str) -> str:
    """Give `text` on one line, with single blanks and without controls and invisible direction marks."""
    return " ".join("".join(c for c in text if c.isprintable() or c.isspace()).split())


def message_ids(value: str) -> list[str]:
    """Give the ids in a raw value, each in angle brackets, without blanks and controls."""
    text = plain(value)
    bare = text.split()
    ids = _MESSAGE_ID.findall(text) or (bare if len(bare) == 1 else [])
    cleaned = ("".join(c for c in one.strip("<>") if c.isprintable() and not c.isspace()) for one in ids)
    return [f"<{one}>" for one in cleaned if one and len(one) <= _LONGEST_ID]


def _parameters(value: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for match in _PARAMETER.finditer(value):
        content = match[2].strip()
        if content.startswith('"'):
            content = re.sub(r"\\(.)", r"\1", content[1:].removesuffix('"'), flags=re.DOTALL)
        found.setdefault(match[1].lower(), content)
    return found


def parameter(value: str, name: str) -> str:
    """Give the parameter `name` of a raw header value, decoded by RFC 2231 or, as is common, by RFC 2047."""
    if ";" not in value:
        return ""
    found = _parameters(value)
    if name in found and f"{name}*" not in found:
        return readable(found[name])
    keys = [f"{name}*"] if f"{name}*" in found else []
    while not keys or keys[0] != f"{name}*":
        key = next((key for key in (f"{name}*{len(keys)}*", f"{name}*{len(keys)}") if key in found), "")
        if not key:
            break
        keys.append(key)
    if not keys:
        return ""
    pieces = [_piece(found[key], is_encoded=key.endswith("*")) for key in keys]
    charset, quote, rest = pieces[0].partition(b"'")
    if keys[0].endswith("*") and quote:
        pieces[0] = rest.partition(b"'")[2]
        return one_line(decode(b"".join(pieces), charset.decode("ascii", "replace")))
    return one_line(decode(b"".join(pieces)))


def _piece(value: str, *, is_encoded: bool) -> bytes:
    data = value.encode("utf-8", "surrogateescape")
    return unquote_to_bytes(data) if is_encoded else data
