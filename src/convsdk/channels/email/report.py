"""What another program reports on a mail of ours: not delivered, displayed, complained about."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from convsdk.channels.email.mime import Part, PastLimitError, one_line, plain, read_head
from convsdk.channels.email.threads import message_ids

_MACHINE = {"message/delivery-status", "message/disposition-notification", "message/feedback-report"}
_RETURNED = {"message/rfc822", "text/rfc822-headers", "message/rfc822-headers"}
_BLANK_LINE = re.compile(rb"\n\r?\n")
_MOST_GROUPS = 100
_LONGEST = 500
_MOST_LINES = 20
_TOLD = {"final-recipient", "action", "status", "diagnostic-code", "disposition", "feedback-type", "original-rcpt-to"}


def read_report(parts: Sequence[Part]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Give what a report tells of each recipient (RFC 3464, 8098, 5965), and the ids of the mail it is about."""
    told: list[dict[str, str]] = []
    ids: list[str] = []
    for part in parts:
        if part.media_type in _MACHINE:
            for group in _groups(part):
                told.append({key: _value(one) for key, one in group.fields if key in _TOLD})
                ids += message_ids(group.first("original-message-id"))
        if part.media_type in _RETURNED:
            ids += [one for head in _heads(part.content()) for one in message_ids(head.first("message-id"))]
    return ({"report": [one for one in told if one]} if any(told) else {}), tuple(dict.fromkeys(ids))


def sentences(kind: str, report: Sequence[Mapping[str, str]]) -> tuple[str, str]:
    """Give what a report of the sort `kind` is about, in one word, and what it says for people, one line for each."""
    lines = [_SAID[kind](one) for one in report if one.keys() & {"action", "disposition", "feedback-type"}]
    actions = {one.get("action", "").lower() for one in report} - {""}
    name = kind if kind != "bounce" or "failed" in actions or not actions else _WORDS.get(min(actions), (kind, ""))[0]
    return name, "\n".join(lines[:_MOST_LINES])


def _bounced(one: Mapping[str, str]) -> str:
    action = one.get("action", "").lower()
    said = _WORDS.get(action, ("", f"{action} for"))[1]
    why = " ".join(filter(None, (one.get("diagnostic-code", ""), f"({one['status']})" if "status" in one else "")))
    return f"{said} {one.get('final-recipient', 'somebody')}{': ' if why else ''}{why}"


def _disposed(one: Mapping[str, str]) -> str:
    # `manual-action/MDN-sent-manually; displayed`
    return f"{one.get('disposition', '').rpartition(';')[2].strip()} by {one.get('final-recipient', 'somebody')}"


def _complained(one: Mapping[str, str]) -> str:
    return f"{one.get('original-rcpt-to', 'somebody')} complained about it: {one.get('feedback-type', 'abuse')}"


_WORDS = {
    "failed": ("bounce", "not delivered to"),
    "delayed": ("delay", "still on its way to"),
    "delivered": ("delivery", "delivered to"),
    "relayed": ("delivery", "passed on, without further news, for"),
    "expanded": ("delivery", "passed on to several for"),
}
_SAID: Mapping[str, Callable[[Mapping[str, str]], str]] = {
    "bounce": _bounced,
    "disposition": _disposed,
    "feedback": _complained,
}


def _groups(part: Part) -> Iterator[Part]:
    for block in _BLANK_LINE.split(part.content(), _MOST_GROUPS)[:_MOST_GROUPS]:
        yield from _heads(block.lstrip(b"\r\n"))


def _heads(data: bytes) -> Iterator[Part]:
    try:
        yield read_head(data)
    except PastLimitError:
        return


def _value(raw: str) -> str:
    # `rfc822; ann@mail.example` and `smtp; 550 5.1.1 ...`: the type says nothing that the field does not.
    return one_line(plain(re.sub(r"\A\s*(?:rfc822|smtp|utf-8)\s*;", "", raw, flags=re.IGNORECASE)))[:_LONGEST]
