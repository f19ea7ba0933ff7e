"""What a mail means: who sent it and how well that is attested, whether a person wrote it, what it says.

Pure: the raw bytes, the settings, the envelope and the time of receipt go in, one event comes out.
"""

import hashlib
import re
import unicodedata
from datetime import datetime
from typing import Any

from attrs import Attribute, field, frozen

from convsdk.channels.email.mime import (
    MAX_BYTES,
    Part,
    PastLimitError,
    leaves,
    one_line,
    plain,
    read_head,
    readable,
)
from convsdk.core.events import INBOUND_EMAIL, MessageReceived
from convsdk.core.identifiers import EmailAddress
from convsdk.core.model import Attachment, Claim, IdentityHint, Trait, Trust
from convsdk.core.ports import Envelope
from convsdk.errors import ParseError

UNREADABLE = "could not be read"
MAX_ATTACHMENTS = 100
_MAX_ID = 255
_MAX_REFERENCES = 100
_MAX_NAME = 150

_FIELD_NAME = re.compile(r"[a-z0-9-]+")
_TRACE = re.compile(r"received|return-path|delivered-to|authentication-results|x-.*|arc-.*")
_MESSAGE_ID = re.compile(r"<([^<>]++)>")
_UNSAFE_IN_NAME = re.compile(r'[<>:"|?*]')

_QUOTED = r'"(?:[^"\\]|\\.)*+"'
_FROM_TOKEN = re.compile(
    rf'(?P<quoted>{_QUOTED})|(?P<word>=\?[^?\s]++\?[bBqQ]\?[^?\s<>@"]*+\?=)|(?P<angle><[^<>"]*+(?:{_QUOTED}[^<>"]*+)?>)'
    r'|(?P<other>[^"<>(),;:\\=]++|=)',
    re.DOTALL,
)
_ADDRESS = re.compile(r'[^\s@<>()\[\]\\,;:"]++@[^\s@<>()\[\]\\,;:"]++')
_QUOTED_LOCAL = re.compile(r'\A"([^\s@<>()\[\]\\,;:"]++)"(?=@)')
_RESULT = re.compile(rf"\s*+([a-z0-9._-]++)\s*+=\s*+({_QUOTED}|[^\s;\"]++)", re.IGNORECASE | re.DOTALL)
_RESULT_END = re.compile(r"\s*+(?:;|\Z)")
_COMMENT_MARK = re.compile(rf"{_QUOTED}|\\.|[()]", re.DOTALL)

_email = EmailAddress()


def _is_address(_: object, attribute: "Attribute[Any]", value: str | tuple[str, ...]) -> None:
    for address in (value,) if isinstance(value, str) else value:
        if _email.canonical(address) is None:
            raise ValueError(
                f"{attribute.name}: {address!r} is no e-mail address: write one such as 'help@shop.example'"
            )


@frozen(kw_only=True)
class EmailSettings:
    """Settings of an e-mail channel.

    `address` is the inbound address; `own` are the business's other addresses, mail from which makes no contact;
    `authserv_id` is the name by which the business's own mail server signs Authentication-Results (RFC 8601), the
    only one that is believed. Empty: none is, and each sender is only asserted.
    """

    address: str = field(validator=_is_address)
    own: tuple[str, ...] = field(default=(), validator=_is_address)
    authserv_id: str = ""


@frozen
class Sender:
    """The one mailbox of the one From field: address as it was spelt, and display name."""

    address: str
    name: str = ""

    @property
    def key(self) -> str:
        """Give the canonical address, or the spelling where there is none."""
        return _email.canonical(self.address) or self.address.lower()


@frozen
class Kind:
    """What sort of mail it is (`human`, `list`, `automatic`, `bounce`, `own`), and by which sign."""

    name: str
    why: str


def parse_mail(
    raw: bytes, *, settings: EmailSettings, received_at: datetime, envelope: Envelope | None = None
) -> MessageReceived:
    """Give the message that a raw mail holds; raise `ParseError` where the bytes have no header at all."""
    lines = raw.removeprefix(b"\xef\xbb\xbf").lstrip(b"\r\n")
    if b"\n" not in lines:
        lines = lines.replace(b"\r", b"\n")
    problem, head = "", Part(raw=lines, fields=(), start=0, end=len(lines))
    try:
        head = read_head(lines)
    except PastLimitError as error:
        problem = str(error)
    if not problem and not any(_FIELD_NAME.fullmatch(name) for name, _ in head.fields):
        raise ParseError(f"{len(raw)} bytes without any header field are no mail: hand over the raw message (RFC 5322)")
    body = Body()
    try:
        body = Body() if problem else read_body(head, len(raw))
    except PastLimitError as error:
        problem = str(error)
    if problem:
        whole = Attachment(name="message.eml", media_type="message/rfc822", size=len(raw))
        body = Body(text=UNREADABLE, attachments=(whole,))
    return _event(head, body, problem, settings=settings, received_at=received_at, envelope=envelope)


def _event(
    head: Part, body: "Body", problem: str, *, settings: EmailSettings, received_at: datetime, envelope: Envelope | None
) -> MessageReceived:
    sender, doubt = find_sender(head)
    kind = classify(head, sender, settings, envelope)
    trust, because = attest(head, sender, settings.authserv_id)
    is_human = kind.name == "human"
    names_person = sender is not None and not problem and kind.name not in {"bounce", "own"}
    detail = {
        "class": kind.name,
        "why": kind.why,
        "sender": doubt,
        "from": sender.address if sender else "",
        "attested_by": because,
        "date": readable(head.first("date"))[:100],
        "unreadable": problem,
    }
    hint = IdentityHint(
        at=received_at,
        identifiers=(Claim("email", sender.address, trust),) if sender and names_person else (),
        traits=(Trait("name", sender.name, trust),) if sender and sender.name and names_person and is_human else (),
        may_create=is_human and names_person,
        how=INBOUND_EMAIL if is_human else "",
    )
    return MessageReceived(
        external_id=external_id(head),
        hint=hint,
        at=received_at,
        text=body.text,
        html=body.html,
        subject=readable(head.first("subject")),
        references=references(head),
        attachments=body.attachments,
        is_automatic=not is_human,
        detail={key: value for key, value in detail.items() if value},
    )


def find_sender(head: Part) -> tuple[Sender | None, str]:
    """Give the sender, or None and what is wrong with it: `missing` or `ambiguous`."""
    values = head.all("from")
    if not values:
        return None, "missing"
    sender = read_mailbox(values[0]) if len(values) == 1 else None
    return sender, "" if sender else "ambiguous"


def read_mailbox(value: str) -> Sender | None:
    """Give the mailbox of a raw From value, or None unless it is exactly one (RFC 5322, 3.4).

    The raw value is read before anything in it is decoded, so that an encoded word is never an address. A quoted
    text is only ever a display name or, unneeded, around a local part.
    """
    text = _without_comments(re.sub(r"\r?\n(?=[ \t])", "", value))
    if text is None or not text.strip() or re.search(r"[\x00-\x08\x0a-\x1f\x7f]", text):
        return None
    phrase, angle, position = [], "", 0
    while position < len(text):
        match = _FROM_TOKEN.match(text, position)
        if not match or (angle and match[0].strip()):
            return None
        position = match.end()
        if match["angle"]:
            angle = match[0]
            continue
        phrase.append(_unquoted(match[0]) if match["quoted"] else match[0])
    address = _address(angle[1:-1] if angle else text)
    if address is None:
        return None
    return Sender(address, _display_name("".join(phrase)) if angle else "")


def _without_comments(text: str) -> str | None:
    """Give `text` with each comment as a blank; None where the brackets do not pair."""
    kept, depth, position = [], 0, 0
    scanner = re.compile(r"\\.|[()]", re.DOTALL)
    while match := (scanner if depth else _COMMENT_MARK).search(text, position):
        if not depth:
            kept.append(text[position : match.end() - (match[0] in "()")])
        depth += {"(": 1, ")": -1}.get(match[0], 0)
        if depth < 0:
            return None
        if match[0] == ")":
            kept.append("" if depth else " ")
        position = match.end()
    return None if depth else "".join((*kept, text[position:]))


def _unquoted(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text[1:-1], flags=re.DOTALL)


def _address(text: str) -> str | None:
    spelling = _QUOTED_LOCAL.sub(r"\1", text.strip(), count=1)
    if len(spelling) > 320 or "=?" in spelling or not _ADDRESS.fullmatch(spelling):  # noqa: PLR2004
        return None
    try:
        address = spelling.encode("utf-8", "surrogateescape").decode("utf-8")
    except UnicodeError:
        return None
    return address if address.isprintable() else None


def _display_name(phrase: str) -> str:
    name = readable(phrase)[:_MAX_NAME].strip(" '\"")
    # A name that reads as an address, be its @ a wide or a small one, would be shown as if it were the sender's.
    return "" if "@" in unicodedata.normalize("NFKC", name) else name


def attest(head: Part, sender: Sender | None, authserv_id: str) -> tuple[Trust, str]:
    """Give how well the From address is attested, and by what.

    Only the topmost Authentication-Results of `authserv_id` counts: whoever sends a mail can put others below it.
    """
    if sender is None or not authserv_id:
        return Trust.ASSERTED, ""
    domain = sender.key.rpartition("@")[2]
    results = next(
        (found for found in map(_results, head.all("authentication-results")) if found[0] == authserv_id.lower()), None
    )
    if results is None or any(method == "dmarc" and result == "fail" for method, result, _ in results[1]):
        return Trust.ASSERTED, ""
    for method, result, properties in results[1]:
        if result != "pass":
            continue
        if method == "dmarc" and _domain(properties.get("header.from", "")) == domain:
            return Trust.CHANNEL, "dmarc"
        # Some servers, Google's among them, name the signing identity (`i=`), which is inside the signing domain.
        signer = _domain(properties.get("header.d") or properties.get("header.i", "").rpartition("@")[2])
        if method == "dkim" and signer and (domain == signer or domain.endswith("." + signer)):
            return Trust.CHANNEL, f"dkim of {signer}"
    return Trust.ASSERTED, ""


def _domain(text: str) -> str:
    return (_email.canonical(f"x@{text}") or "").rpartition("@")[2]


def _results(value: str) -> tuple[str, list[tuple[str, str, dict[str, str]]]]:
    """Give the authserv-id and (method, result, properties) of each result (RFC 8601, 2.2); none where malformed.

    What is malformed keeps its name: skipped, it would make room for the results that a sender put below it.
    """
    text = _without_comments(value)
    authority, _, rest = (text or value).partition(";")
    name = (authority.split() or [""])[0].strip('"').lower()
    if text is None:
        return name, []
    found: list[tuple[str, str, dict[str, str]]] = []
    position, is_new = 0, True
    while position < len(rest):
        match = _RESULT.match(rest, position)
        end = _RESULT_END.match(rest, match.end() if match else position)
        if not match and not end:
            return name, []
        if match:
            key, result = match[1].lower(), match[2].strip('"').lower()
            if is_new:
                found.append((key, result, {}))
            found[-1][2].setdefault(key, result)
        is_new = end is not None
        position = end.end() if end else match.end() if match else len(rest)
    return name, found


def classify(head: Part, sender: Sender | None, settings: EmailSettings, envelope: Envelope | None) -> Kind:
    """Give what sort of mail it is; the first sign counts, in the order own, bounce, automatic, list."""
    if sender and sender.key in {_email.canonical(address) for address in (settings.address, *settings.own)}:
        return Kind("own", "its From is an address of this business")
    if sign := _sign_of_bounce(head, sender, envelope):
        return Kind("bounce", sign)
    if sign := _sign_of_program(head):
        return Kind("automatic", sign)
    if sign := _sign_of_list(head):
        return Kind("list", sign)
    return Kind("human", "nothing says that a program sent it")


def _sign_of_bounce(head: Part, sender: Sender | None, envelope: Envelope | None) -> str:
    if head.media_type == "multipart/report":
        return "it is a multipart/report"
    if sender and sender.key.partition("@")[0] in {"mailer-daemon", "postmaster"}:
        return "its From is the mail system"
    is_null = not envelope.sender.strip("<> ") if envelope else head.first("return-path").split() == ["<>"]
    return "its return path is empty" if is_null else ""


def _sign_of_program(head: Part) -> str:
    """Give the sign by which an automatic answer is known (RFC 3834, 5, and what came before it)."""
    submitted = _token(head, "auto-submitted")
    if submitted not in {"", "no"}:
        return f"Auto-Submitted is {submitted}"
    for name in ("x-autoreply", "x-autorespond"):
        if head.all(name) and _token(head, name) != "no":
            return f"it has {name}"
    return "Precedence is auto_reply" if _token(head, "precedence") == "auto_reply" else ""


def _sign_of_list(head: Part) -> str:
    precedence = _token(head, "precedence")
    if precedence in {"bulk", "list", "junk"}:
        return f"Precedence is {precedence}"
    name = next(
        (name for name in ("list-id", "list-unsubscribe", "mailing-list", "x-mailing-list") if head.all(name)), ""
    )
    return f"it has {name}" if name else ""


def _token(head: Part, name: str) -> str:
    """Give the first word of a field in lower case, without parameters and comments."""
    return one_line(plain(re.split(r"[;(]", head.first(name), maxsplit=1)[0])).lower()[:40]


@frozen(kw_only=True)
class Body:
    """What a mail says: its first plain and its first HTML text, and everything else as attachments."""

    text: str = ""
    html: str = ""
    attachments: tuple[Attachment, ...] = ()


def read_body(head: Part, size: int) -> Body:
    """Give the texts and attachments of a mail; raise `PastLimitError` where it is too large or in too many pieces."""
    if size > MAX_BYTES:
        raise PastLimitError(f"it has more than {MAX_BYTES} bytes")
    texts: dict[str, str] = {}
    attachments: list[Attachment] = []
    for part in leaves(head):
        # A multipart without its delimiters still says something.
        media_type = "text/plain" if part.media_type.startswith("multipart/") else part.media_type
        is_text = media_type in {"text/plain", "text/html"} and part.disposition != "attachment" and not part.file_name
        if is_text and media_type not in texts:
            texts[media_type] = part.text()
            continue
        if is_text and not part.text().strip():
            continue
        if len(attachments) == MAX_ATTACHMENTS:
            raise PastLimitError(f"it has more than {MAX_ATTACHMENTS} attachments")
        attachments.append(_attachment(part, media_type, len(attachments) + 1))
    return Body(text=texts.get("text/plain", ""), html=texts.get("text/html", ""), attachments=tuple(attachments))


def _attachment(part: Part, media_type: str, number: int) -> Attachment:
    return Attachment(
        name=safe_name(part.file_name) or f"attachment-{number}",
        media_type=media_type,
        size=len(part.content()),
        content_id=one_line(plain(part.first("content-id"))).strip("<> ")[:_MAX_ID],
    )


def safe_name(name: str) -> str:
    """Give a file name without folders, controls and characters that a file system minds; empty where none is left."""
    last = re.split(r"[/\\]", one_line(name))[-1]
    last = _UNSAFE_IN_NAME.sub("_", last).strip(". ")
    stem, dot, suffix = last.rpartition(".")
    if len(last) <= _MAX_NAME or not dot or len(suffix) > 20:  # noqa: PLR2004
        return last[:_MAX_NAME].strip(". ")
    return f"{stem[: _MAX_NAME - len(suffix) - 1].strip('. ')}.{suffix}"


def external_id(head: Part) -> str:
    """Give the Message-ID, or a hash of what does not change on the way where there is none usable."""
    found = _message_ids(head.first("message-id"))
    if found:
        return found[0]
    digest = hashlib.sha256()
    for name, value in head.fields:
        if not _TRACE.fullmatch(name):
            digest.update(f"{name}:{' '.join(value.split())}\n".encode("utf-8", "surrogateescape"))
    digest.update(head.raw[head.start : head.end].replace(b"\r\n", b"\n"))
    return f"sha256:{digest.hexdigest()}"


def _message_ids(value: str) -> list[str]:
    text = plain(value)
    bare = text.split()
    ids = _MESSAGE_ID.findall(text) or (bare if len(bare) == 1 else [])
    cleaned = ("".join(c for c in one.strip("<>") if c.isprintable() and not c.isspace()) for one in ids)
    return [f"<{one}>" for one in cleaned if one and len(one) <= _MAX_ID]


def references(head: Part) -> tuple[str, ...]:
    """Give the ids that a mail answers, the nearest first: In-Reply-To, then References from the last."""
    answered = (*_message_ids(head.first("in-reply-to")), *reversed(_message_ids(head.first("references"))))
    return tuple(dict.fromkeys(answered))[:_MAX_REFERENCES]
