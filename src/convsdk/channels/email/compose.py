"""A message that goes out becomes a mail: its envelope, its header and its body (RFC 5322, RFC 2045 to 2047, RFC 2231).

Pure, and the same message gives the same bytes. Header values are made ready here, encoded and folded, so that what
goes out does not depend on the release of the standard library, and so that no value can begin a field of its own.
"""

import binascii
import html
import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from email.generator import BytesGenerator
from email.header import Header
from email.message import Message
from email.policy import compat32
from email.utils import format_datetime
from functools import cached_property
from io import BytesIO
from urllib.parse import quote

from attrs import field, frozen

from convsdk.channels.email.markup import written
from convsdk.channels.email.mime import one_line
from convsdk.channels.email.parse import safe_name
from convsdk.channels.email.phrases import REPLY_SUBJECTS
from convsdk.channels.email.settings import EmailSettings
from convsdk.core.identifiers import EmailAddress, trim
from convsdk.core.payloads import storable
from convsdk.core.ports import File, Outbound
from convsdk.core.texts import media_type_of
from convsdk.errors import PermanentError

# No line of ours is longer than 78 characters unless a word is: RFC 5322, 2.1.1, allows 998.
_LONGEST_LINE = 78
_LONGEST_WORD = 60
_LONGEST_SUBJECT = 500
_LONGEST_ID = 255
_LONGEST_URL = 800
_MOST_REFERENCES = 20
_PIECE = 60
_POLICY = compat32.clone(linesep="\r\n", max_line_length=0, cte_type="8bit")

_MESSAGE_ID = re.compile(r"<[!-;=?A-~]++(?:@[!-;=?A-~]++)+>")
_ANSWER = re.compile(
    rf"\s*+(?:{REPLY_SUBJECTS})\s?(?:\[\d{{1,3}}\]|\(\d{{1,3}}\)|\^\d{{1,3}})?\s?[:\uff1a]", re.IGNORECASE
)
_CONTENT_ID = re.compile(r"[!#-;=?-~]{1,200}")
_ONE_CLICK = re.compile(r"https://[!-;=?-~]+")
_LINK = re.compile(r"https?://[^\s<>\"'\x00-\x1f]{1,2000}", re.IGNORECASE)
_AFTER_LINK = ".,;:!?)]}*_"
_PLAIN_WORDS = re.compile(r"[A-Za-z0-9 !#$%&'*+/=?^_`{|}~-]*")
_UNPLAIN = re.compile(rb"[^\t\n -~]|[ \t]$|^From |[^\n]{500}", re.MULTILINE)
_FROM = re.compile(r"^From ", re.MULTILINE)
_BODY = re.compile(r"<body\b[^<>]{0,1000}>", re.IGNORECASE)

_email = EmailAddress()


@frozen(kw_only=True)
class Letter:
    """A mail that is ready to go: whose it is, and what it says; `raw` is the whole of it.

    `return_path` is where reports about it go, empty for none. `fields` are the further header fields, by name, on one
    line each.
    """

    return_path: str
    recipient: str
    name: str
    sender: str
    reply_to: str
    subject: str
    at: datetime
    token: str
    fields: tuple[tuple[str, str], ...]
    text: str = field(repr=False)
    html: str = field(repr=False)
    files: tuple[File, ...] = ()

    @property
    def is_international(self) -> bool:
        """Say whether it can only go by SMTPUTF8 (RFC 6531): what is before the @ of an address is not ASCII."""
        return not f"{self.recipient}{self.sender}{self.reply_to}".isascii()

    @cached_property
    def raw(self) -> bytes:
        """Give the mail as it goes over the wire, with CRLF."""
        root = _body(self)
        body_fields = root.items()
        for name in list(root.keys()):
            del root[name]
        for name, value in (*self._head(), ("MIME-Version", "1.0"), *body_fields):
            root[name] = value
        return _flat(root)

    def _head(self) -> Iterator[tuple[str, str]]:
        yield "Date", format_datetime(self.at.astimezone(UTC))
        mailboxes = (
            ("From", self.name, self.sender),
            ("Reply-To", self.name, self.reply_to),
            ("To", "", self.recipient),
        )
        for name, person, address in mailboxes:
            # Bytes for the generator: it writes what is no ASCII as it is.
            yield name, _mailbox(person, address).encode().decode("ascii", "surrogateescape")
        if self.subject:
            yield "Subject", _words(self.subject, len("Subject: "))
        for name, value in self.fields:
            yield name, _folded(value, len(name) + 2)


def compose(message: Outbound, settings: EmailSettings) -> Letter:
    """Give the mail that `message` becomes.

    Raises `PermanentError` where none can be made of it: the address or the token is none, a file has no content but
    an address, `list_unsubscribe` in its `detail` is no https address.
    """
    if not settings.has_token(message.token):
        raise PermanentError(
            f"a mail with token {message.token!r} could not be answered: take 16 to 64 characters of a-z and 2-7"
        )
    text = "\n".join(storable(message.text).replace("\r\n", "\n").split("\r"))
    markup = storable(message.html).replace("\r\n", "\n").replace("\r", "\n")
    reply_to = settings.reply_address(message.token)
    return Letter(
        # An automatic answer gets no answer, not even a bounce (RFC 3834, 3.3).
        return_path="" if message.is_automatic else reply_to,
        recipient=_recipient(message),
        name=one_line(settings.name),
        sender=_deliverable(settings.public_address),
        reply_to=reply_to,
        subject=_subject(message),
        at=message.at,
        token=message.token,
        fields=tuple(_fields(message, settings)),
        text=_begun(text or written(markup), settings.reply_line),
        html=_begun_html(markup or html_of(text), settings.reply_line),
        files=tuple(map(_held, message.attachments)),
    )


def _held(file: File) -> File:
    if file.url and not file.content:
        raise PermanentError(
            f"the file {file.name!r} is only at {file.url}, and a mail carries its files: attach its content"
        )
    return file


def is_shown(file: File) -> bool:
    """Say whether the HTML of its message shows a file (RFC 2392)."""
    return _CONTENT_ID.fullmatch(file.content_id) is not None


def name_of(file: File) -> str:
    """Give the name under which a file goes out."""
    return safe_name(storable(file.name)) or "attachment"


def type_of(file: File) -> str:
    """Give the type under which a file goes out.

    A mail inside a mail may not be in base64 (RFC 2046, 5.2.1): it goes as what it is, a file.
    """
    media_type = media_type_of(file.media_type)
    return "application/octet-stream" if media_type.startswith(("multipart/", "message/")) else media_type


def html_of(text: str) -> str:
    """Give a plain text as HTML: nothing in it is markup, its lines stay, web addresses can be clicked."""
    pieces, position = [], 0
    for match in _LINK.finditer(text):
        url = match[0].rstrip(_AFTER_LINK)
        pieces.append(_escaped(text[position : match.start()]))
        pieces.append(f'<a href="{html.escape(url)}">{html.escape(url)}</a>')
        position = match.start() + len(url)
    pieces.append(_escaped(text[position:]))
    return f"<div>{''.join(pieces)}</div>"


def _escaped(text: str) -> str:
    return html.escape(text, quote=False).replace("  ", " &nbsp;").replace("\n", "<br>\n")


def _begun(text: str, reply_line: str) -> str:
    return f"{reply_line}\n\n{text}" if reply_line else text


def _begun_html(markup: str, reply_line: str) -> str:
    if not reply_line:
        return markup
    line = f'<div style="color:#666;font-size:small">{html.escape(reply_line)}</div><br>\n'
    body = _BODY.search(markup[:100_000])
    at = body.end() if body else 0
    return markup[:at] + line + markup[at:]


def _recipient(message: Outbound) -> str:
    """Give the address as its owner spells it, if that is the identifier's."""
    if message.to.kind != "email" or _email.canonical(message.to.value) is None:
        raise PermanentError(f"{message.to} is no e-mail address: write to one")
    is_same = _email.canonical(message.address) == _email.canonical(message.to.value)
    return _deliverable(message.address if is_same else message.to.value)


def _deliverable(address: str) -> str:
    """Give an address with its domain in ASCII (RFC 5891), and the part before it as it is spelt."""
    local = trim(address).rpartition("@")[0]
    domain = (_email.canonical(address) or address).rpartition("@")[2]
    return f"{local}@{domain}"


def _subject(message: Outbound) -> str:
    """Give the subject; that of an answer says so once, whatever languages said it before."""
    subject = one_line(storable(message.subject))[:_LONGEST_SUBJECT].strip()
    if not message.references:
        return subject
    position = 0
    while match := _ANSWER.match(subject, position):
        position = match.end()
    return f"Re: {subject[position:].strip()}".strip()


def _fields(message: Outbound, settings: EmailSettings) -> Iterator[tuple[str, str]]:
    yield "Message-ID", settings.message_id(message.token)
    references = tuple(dict.fromkeys(_ids(message.references)))
    if references:
        yield "In-Reply-To", references[-1]
        # The first of a thread and the last ones (RFC 5322, 3.6.4, sets no limit; servers do).
        kept = (references[:1] if len(references) > _MOST_REFERENCES else ()) + references[1 - _MOST_REFERENCES :]
        yield "References", " ".join(dict.fromkeys(kept))
    if message.is_automatic:
        yield "Auto-Submitted", "auto-replied"
        yield "X-Auto-Response-Suppress", "All"
    if url := message.detail.get("list_unsubscribe"):
        if not isinstance(url, str) or len(url) > _LONGEST_URL or not _ONE_CLICK.fullmatch(url):
            raise PermanentError(f"list_unsubscribe is {url!r}: give an address that begins with https:// (RFC 8058)")
        yield "List-Unsubscribe", f"<{url}>"
        yield "List-Unsubscribe-Post", "List-Unsubscribe=One-Click"


def _ids(references: Iterable[str]) -> Iterator[str]:
    """Give the Message-IDs among external ids; one that was told apart from another (`#...`) without its mark."""
    for reference in references:
        match = _MESSAGE_ID.match(reference)
        if match and len(match[0]) <= _LONGEST_ID and reference[match.end() :][:1] in {"", "#"}:
            yield match[0]


def _mailbox(name: str, address: str) -> str:
    if not name:
        return address
    # An @ in a name reads as if it were the address, to people and to some filters.
    if _PLAIN_WORDS.fullmatch(name) and "=?" not in name and "  " not in name:
        return f"{name}\n <{address}>" if len(name) + len(address) > _LONGEST_WORD else f"{name} <{address}>"
    if name.isascii() and "=?" not in name:
        quoted = re.sub(r'(["\\])', r"\\\1", name)
        return f'"{quoted}"\n <{address}>'
    return f"{Header(name, 'utf-8', maxlinelen=_LONGEST_LINE, header_name='Reply-To').encode()}\n <{address}>"


def _words(text: str, used: int) -> str:
    """Give an unstructured value, encoded where it has to be (RFC 2047), and folded."""
    is_plain = text.isascii() and "=?" not in text and all(len(word) <= _LONGEST_WORD for word in text.split(" "))
    if is_plain:
        return _folded(text, used)
    return Header(text, "utf-8", maxlinelen=_LONGEST_LINE, header_name="x" * (used - 2)).encode()


def _folded(value: str, used: int) -> str:
    """Give words with single blanks between them on lines of 78 characters, as far as they allow."""
    lines = [""]
    for word in value.split(" "):
        if lines[-1] and used + len(lines[-1]) + len(word) >= _LONGEST_LINE:
            lines.append("")
            used = 0
        lines[-1] += f" {word}" if lines[-1] or len(lines) > 1 else word
    return "\n".join(lines)


def _body(letter: Letter) -> Message:
    """Give the tree of parts: what is attached beside the text and its HTML, what the HTML shows beside that."""
    shown = list(filter(is_shown, letter.files))
    attached = [one for one in letter.files if not is_shown(one)]
    page = _text(letter.html, "html")
    if shown:
        page = _multipart("related", letter.token, (page, *map(_file, shown)))
    body = _multipart("alternative", letter.token, (_text(letter.text, "plain"), page))
    return _multipart("mixed", letter.token, (body, *map(_file, attached))) if attached else body


def _multipart(subtype: str, token: str, parts: Iterable[Message]) -> Message:
    # "=_" stands in neither base64 nor quoted-printable, and nobody can write the token before it went out.
    root = _part({"Content-Type": f'multipart/{subtype};\n boundary="=_{subtype[:3]}_{token}"'})
    for part in parts:
        root.attach(part)
    return root


def _text(text: str, subtype: str) -> Message:
    data = text.encode()
    is_plain = not _UNPLAIN.search(data)
    charset = "us-ascii" if is_plain else "utf-8"
    encoding, payload = ("7bit", text) if is_plain else _shorter(data)
    content_type = f"text/{subtype}; charset={charset}"
    return _part({"Content-Type": content_type, "Content-Transfer-Encoding": encoding}, payload)


def _shorter(data: bytes) -> tuple[str, str]:
    # Servers that keep mail in one file put a > before a From at the start of a line, which breaks signatures.
    quoted = _FROM.sub("=46rom ", binascii.b2a_qp(data, istext=True).decode("ascii"))
    coded = _base64(data)
    return ("quoted-printable", quoted) if len(quoted) <= len(coded) else ("base64", coded)


def _base64(data: bytes) -> str:
    return "".join(
        binascii.b2a_base64(data[start : start + _PIECE - 3]).decode("ascii")
        for start in range(0, len(data), _PIECE - 3)
    )


def _file(file: File) -> Message:
    fields = {"Content-Type": type_of(file), "Content-Transfer-Encoding": "base64"}
    if is_shown(file):
        fields["Content-ID"] = f"<{file.content_id}>"
    shown = "inline" if is_shown(file) else "attachment"
    fields["Content-Disposition"] = f"{shown}{_parameter('filename', name_of(file))}"
    return _part(fields, _base64(file.content))


def _parameter(name: str, value: str) -> str:
    """Give a parameter, encoded and in pieces where it has to be (RFC 2231)."""
    if value.isascii() and len(value) <= _PIECE and not re.search(r"[\"\\%]|=\?", value):
        return f';\n {name}="{value}"'
    coded = "utf-8''" + quote(value, safe="")
    pieces = re.findall(rf"(?:%[0-9A-F]{{2}}|.){{1,{_PIECE // 3}}}", coded)
    if len(pieces) == 1:
        return f";\n {name}*={coded}"
    return "".join(f";\n {name}*{number}*={piece}" for number, piece in enumerate(pieces))


def _part(fields: dict[str, str], payload: str | None = None) -> Message:
    part = Message(policy=_POLICY)
    for name, value in fields.items():
        part[name] = value
    if payload is not None:
        part.set_payload(payload)
    return part


def _flat(root: Message) -> bytes:
    out = BytesIO()
    BytesGenerator(out, mangle_from_=False, policy=_POLICY).flatten(root)
    return out.getvalue()
