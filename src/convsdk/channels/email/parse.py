"""A raw mail becomes events: what it says, who is talking, in answer to what, and how far that can be believed.

Pure: the raw bytes, the settings, the envelope and the time of receipt go in; a message, or what a report says of one
of ours, comes out.
"""

import hashlib
import re
from collections.abc import Sequence
from datetime import datetime
from pathlib import PurePosixPath
from typing import Any

from attrs import evolve, frozen

from convsdk.channels.email.body import (
    Section,
    forwarded_from,
    is_forward,
    split,
    split_forward,
    unrepeated,
    words_of,
)
from convsdk.channels.email.kinds import NAMELESS, REPORTED, Kind, Mail, classify, confirmation, sign_against_answer
from convsdk.channels.email.markup import written
from convsdk.channels.email.mime import (
    MAX_BYTES,
    Part,
    PastLimitError,
    leaves,
    one_line,
    opened,
    parameter,
    plain,
    read_head,
    readable,
)
from convsdk.channels.email.report import read_report, sentences, status_of
from convsdk.channels.email.sender import (
    Sender,
    Verdict,
    attest,
    find_original,
    find_sender,
    participants,
    read_mailbox,
)
from convsdk.channels.email.settings import EmailSettings
from convsdk.channels.email.threads import answered, external_id
from convsdk.channels.email.tnef import Packed, Tnef, unpacked
from convsdk.core.events import INBOUND_EMAIL, Event, MessageReceived, Noted
from convsdk.core.model import Attachment, Claim, IdentityHint, Trait, Trust
from convsdk.core.ports import Envelope
from convsdk.core.texts import media_type_of
from convsdk.errors import ParseError

UNREADABLE = "could not be read"
MAX_ATTACHMENTS = 100
_MAX_ID = 255
_MAX_NAME = 150
_MAX_SUFFIX = 20
_PIECE = 65_536

_FIELD_NAME = re.compile(r"[a-z0-9-]+")
_UNSAFE_IN_NAME = re.compile(r'[<>:"|?*]')
_DEVICE = re.compile(r"(?:con|prn|aux|nul|com\d|lpt\d)(?:\..*)?", re.IGNORECASE)
# What a browser would run if it were ever served under its own type.
_ACTIVE = re.compile(r".*[/+.-](?:html|xml|svg|xsl|[a-z]*script|x-shockwave-flash)")
_CALENDARS = {"text/calendar", "application/ics"}
_VERSIONS = "multipart/alternative"
_METHOD = re.compile(rb"^METHOD:([A-Z]{1,20})\r?$", re.MULTILINE)
_INVITATIONS = {
    "REQUEST": "invitation.ics",
    "REPLY": "invitation-answer.ics",
    "CANCEL": "invitation-cancelled.ics",
}
_ENDINGS = {
    "application/pdf": ".pdf",
    "image/gif": ".gif",
    "image/jpeg": ".jpg",
    "image/png": ".png",
    "message/rfc822": ".eml",
    "text/calendar": ".ics",
    "text/plain": ".txt",
}
_MEDIA_TYPES = {ending: media_type for media_type, ending in _ENDINGS.items()}
_PACKED = {"application/ms-tnef", "application/vnd.ms-tnef"}
_REVIEWS = {
    "missing": "it has no From field",
    "ambiguous": "its From names no single mailbox",
    "failed": "DMARC failed: the domain of its From says that it did not send it",
}


def parse_mail(
    raw: bytes, *, settings: EmailSettings, received_at: datetime, envelope: Envelope | None = None
) -> tuple[Event, ...]:
    """Give what a raw mail holds: a message, or what a report says of one of ours.

    Raises `ParseError` where the bytes have no header at all.
    """
    lines = opened(raw)
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
        whole = Attachment(name="message.eml", media_type="message/rfc822", size=len(raw), content=raw)
        body = Body(text=UNREADABLE, attachments=(whole,))
    return _events(head, body, problem, settings=settings, received_at=received_at, envelope=envelope)


def trimmed(event: MessageReceived, answered: str) -> MessageReceived:
    """Give a mail without what it repeats, unmarked, of the text that it answers; that stays in `sections`."""
    before = tuple(Section(*one) for one in event.detail.get("sections", ())) or (Section("reply", event.text),)
    sections = unrepeated(before, answered)
    if sections == before:
        return event
    detail = event.detail | {"sections": [[one.kind, one.text] for one in sections]}
    return evolve(event, text=words_of(sections), detail=detail)


def _events(
    head: Part, body: "Body", problem: str, *, settings: EmailSettings, received_at: datetime, envelope: Envelope | None
) -> tuple[Event, ...]:
    sender, doubt = find_sender(head)
    verdict = attest(head, sender, settings)
    doubt = doubt or ("failed" if verdict.is_failed else "")
    subject = readable(head.first("subject"))
    author, sections = _author(body, head, subject, sender, settings)
    answers = answered(head, envelope, settings)
    mail = Mail(
        head=head,
        sender=sender,
        author=author,
        settings=settings,
        received_at=received_at,
        envelope=envelope,
        answers=answers,
        text=body.text or body.html,
    )
    if mail.is_passed_on:
        verdict = Verdict()
    kind = classify(mail)
    report, reported = read_report(body.parts, settings) if kind.name in REPORTED else ({}, ())
    detail = {
        "attested_by": verdict.by,
        "review": "" if problem else _REVIEWS.get(doubt, ""),
        "sections": [[one.kind, one.text] for one in sections] if {one.kind for one in sections} - {"reply"} else [],
        "unreadable": problem,
    }
    told = {key: value for key, value in (_told(mail, kind) | detail | report).items() if value}
    references = tuple(dict.fromkeys((*reported, *answers)))
    # What a report in a forged name says of our mails is looked at first, as all that is in doubt.
    if kind.name in REPORTED and not problem and doubt != "failed":
        told |= {"subject": subject}
        text = words_of(sections)
        noted = _noted(head, kind, text=text, told=told, references=references, received_at=received_at)
        status = status_of(noted, settings)
        return (noted, status) if status else (noted,)
    external = external_id(head)
    return (
        MessageReceived(
            external_id=external,
            hint=_hint(None if doubt or problem else author, kind, verdict.trust, received_at),
            at=received_at,
            text=words_of(sections),
            html=body.html,
            subject=subject,
            thread=external,
            references=references,
            attachments=body.attachments,
            is_automatic=kind.name != "human",
            detail=told,
            participants=tuple(Claim("email", one, Trust.ASSERTED) for one in told.get("participants", ())),
            review=told.get("review", ""),
            fingerprint=_fingerprint(head, sender, body),
        ),
    )


def _noted(
    head: Part, kind: Kind, *, text: str, told: dict[str, Any], references: tuple[str, ...], received_at: datetime
) -> Noted:
    """Give what a report says as a line of the conversation of the mail that it is about."""
    name, said = sentences(kind.name, told.get("report", ()))
    return Noted(
        external_id=external_id(head),
        kind=name,
        at=received_at,
        text=said or text,
        detail=told | {"text": text},
        references=references,
    )


def _told(mail: Mail, kind: Kind) -> dict[str, Any]:
    """Give what the header tells beside the fields of a message."""
    is_asked = mail.settings.automatic_answer is not None and kind.name == "human"
    return {
        "class": kind.name,
        "why": kind.why,
        "from": mail.sender.address if mail.sender else "",
        "passed_on_for": mail.author.address if mail.author and mail.is_passed_on else "",
        "participants": participants(mail.head, mail.settings),
        "date": readable(mail.head.first("date"))[:100],
        "no_automatic_answer": sign_against_answer(mail) if is_asked else "",
        "confirmation": confirmation(mail) if kind.name == "confirmation" else {},
    }


def _hint(author: Sender | None, kind: Kind, trust: Trust, received_at: datetime) -> IdentityHint:
    """Give who is talking; a mail that is to be reviewed, or that no person sent, says nothing about one."""
    is_human = kind.name == "human"
    named = author if kind.name not in NAMELESS else None
    return IdentityHint(
        at=received_at,
        identifiers=(Claim("email", named.address, trust),) if named else (),
        traits=(Trait("name", named.name, trust),) if named and named.name and is_human else (),
        may_create=is_human and named is not None,
        how=INBOUND_EMAIL if is_human else "",
    )


def _author(
    body: "Body", head: Part, subject: str, sender: Sender | None, settings: EmailSettings
) -> tuple[Sender | None, tuple[Section, ...]]:
    """Give who speaks in a mail and what they say: its sender, or whom an own address passed it on for."""
    is_told = is_forward(subject)
    sections = split(body.text, is_forward=is_told)
    if sender is None or not settings.is_own(sender.address):
        return sender, sections
    if settings.is_relay(sender.address) and (original := find_original(head, settings)):
        return original, sections
    author, forwarded = _forwarded(body, is_told=is_told)
    if author is None or settings.is_own(author.address):
        return sender, sections
    return author, forwarded


def _forwarded(body: "Body", *, is_told: bool) -> tuple[Sender | None, tuple[Section, ...]]:
    """Give the sender of what a mail forwards, and the sections: the forwarder's note, then what was sent."""
    sections = split_forward(body.text, is_told=is_told)
    if sections:
        *above, rest = sections
        return read_mailbox(forwarded_from(above[-1].text)), (*above, *split(rest.text))
    attached = next((part for part in body.parts if part.media_type == "message/rfc822"), None)
    if attached is None:
        return None, ()
    try:
        inner = read_head(attached.content().lstrip(b"\r\n"))
        note = (Section("note", body.text),) if body.text else ()
        return find_sender(inner)[0], (*note, *split(read_body(inner, 0).text))
    except PastLimitError:
        return None, ()


@frozen(kw_only=True)
class Body:
    """What a mail holds: its text (made of its HTML where it has no other), HTML, attachments, and all its parts."""

    text: str = ""
    html: str = ""
    attachments: tuple[Attachment, ...] = ()
    attached: tuple[Part, ...] = ()
    parts: tuple[Part, ...] = ()


def read_body(head: Part, size: int) -> Body:
    """Give the texts and attachments of a mail; raise `PastLimitError` where it is too large or in too many pieces."""
    if size > MAX_BYTES:
        raise PastLimitError(f"it has more than {MAX_BYTES} bytes")
    texts: dict[str, list[str]] = {"text/plain": [], "text/html": []}
    attached: list[tuple[Part, str]] = []
    is_below_html = False
    parts = tuple(leaves(head))
    for part in parts:
        # A multipart without its delimiters still says something.
        media_type = "text/plain" if part.media_type.startswith("multipart/") else part.media_type
        if media_type in texts and part.disposition != "attachment" and not part.file_name:
            texts[media_type].append(part.text())
            # Another version of the same goes beside HTML, and what a list puts below it says something else.
            is_below_html |= not texts["text/plain"] and part.within != _VERSIONS
            continue
        attached.append((part, media_type))
    if len(attached) > MAX_ATTACHMENTS:
        raise PastLimitError(f"it has more than {MAX_ATTACHMENTS} attachments")
    packed = [unpacked(part.content()) if _is_packed(part, media_type) else Tnef() for part, media_type in attached]
    for media_type, name in (("text/plain", "text"), ("text/html", "html")):
        if not "".join(texts[media_type]).strip():
            texts[media_type] += [getattr(one, name) for one in packed]
    text, markup = ("\n".join(one for one in found if one.strip()) or "".join(found) for found in texts.values())
    if markup and (is_below_html or not text.strip()):
        text = "\n".join(filter(str.strip, (written(markup), text)))
    return Body(
        text=text,
        html=markup,
        attachments=_attachments(attached, packed),
        attached=tuple(part for part, _ in attached),
        parts=parts,
    )


def _fingerprint(head: Part, sender: Sender | None, body: Body) -> str:
    """Give a value that two mails share where sender and content are the same, however they were encoded.

    It is stored, and is part of ids: made in another way, it would tell copies of one mail apart.
    """
    who = sender.key if sender else " ".join(map(plain, head.all("from")))
    digest = hashlib.sha256(f"{who}\0".encode())
    # In pieces: the words of 25 MB at once are half a gigabyte. Without blanks, so that it is the same in any pieces.
    for start in range(0, len(body.text), _PIECE):
        digest.update("".join(body.text[start : start + _PIECE].split()).encode())
    for content in (part.content() for part in body.attached) if body.parts else (head.raw,):
        digest.update(hashlib.sha256(content).digest())
    return digest.hexdigest()


def _is_packed(part: Part, media_type: str) -> bool:
    return media_type in _PACKED or part.file_name.lower() == "winmail.dat"


def _attachments(attached: Sequence[tuple[Part, str]], packed: Sequence[Tnef]) -> tuple[Attachment, ...]:
    """Give the attachments, and what is packed in one in its place."""
    found: list[Attachment] = []
    for (part, media_type), inner in zip(attached, packed, strict=True):
        found += [_unpacked(one, len(found) + at) for at, one in enumerate(inner.attachments, 1)]
        if not inner.attachments:
            found.append(_attachment(part, media_type, len(found) + 1))
    if len(found) > MAX_ATTACHMENTS:
        raise PastLimitError(f"it has more than {MAX_ATTACHMENTS} attachments")
    return tuple(found)


def _unpacked(one: Packed, number: int) -> Attachment:
    name = safe_name(one.name)
    known = _MEDIA_TYPES.get(PurePosixPath(name).suffix.lower(), "application/octet-stream")
    media_type = media_type_of(one.media_type, known)
    return Attachment(
        name=name or f"attachment-{number}{_ENDINGS.get(media_type, '')}",
        media_type="application/octet-stream" if _ACTIVE.fullmatch(media_type) else media_type,
        size=len(one.content),
        content_id=one_line(one.content_id).strip("<> ")[:_MAX_ID],
        content=one.content,
    )


def _attachment(part: Part, media_type: str, number: int) -> Attachment:
    content = part.content()
    return Attachment(
        name=_name(part, media_type, content) or f"attachment-{number}{_ENDINGS.get(media_type, '')}",
        media_type="application/octet-stream" if _ACTIVE.fullmatch(media_type) else media_type,
        size=len(content),
        content_id=one_line(plain(part.first("content-id"))).strip("<> ")[:_MAX_ID],
        content=content,
    )


def _name(part: Part, media_type: str, content: bytes) -> str:
    if media_type in _CALENDARS:
        found = _METHOD.search(content, 0, 10_000)
        method = parameter(part.first("content-type"), "method").upper() or (found[1].decode() if found else "")
        if method in _INVITATIONS:
            return _INVITATIONS[method]
    return safe_name(part.file_name)


def safe_name(name: str) -> str:
    """Give a file name without folders, controls and what a file system minds; empty where none is left."""
    last = re.split(r"[/\\]", one_line(name))[-1]
    last = _UNSAFE_IN_NAME.sub("_", last).strip(". ")
    if _DEVICE.fullmatch(last):
        last = f"_{last}"
    stem, dot, suffix = last.rpartition(".")
    if len(last) <= _MAX_NAME or not dot or len(suffix) > _MAX_SUFFIX:
        return last[:_MAX_NAME].strip(". ")
    return f"{stem[: _MAX_NAME - len(suffix) - 1].strip('. ')}.{suffix}"
