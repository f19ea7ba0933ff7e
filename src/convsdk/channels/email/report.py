"""What another program reports on a mail of ours: not delivered, displayed, complained about."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from convsdk.channels.email.mime import Part, PastLimitError, message_ids, one_line, plain, read_head
from convsdk.channels.email.settings import EmailSettings
from convsdk.core.events import DeliveryStatus, Noted, StatusChanged
from convsdk.core.model import Claim, Trust

# Those with `global` are the same, about mail that went by SMTPUTF8 (RFC 6533).
_MACHINE = {
    "message/delivery-status",
    "message/disposition-notification",
    "message/feedback-report",
    "message/global-delivery-status",
    "message/global-disposition-notification",
}
_RETURNED = {
    "message/rfc822",
    "text/rfc822-headers",
    "message/rfc822-headers",
    "message/global",
    "message/global-headers",
}
_BLANK_LINE = re.compile(rb"\n\r?\n")
_MOST_GROUPS = 100
_LONGEST = 500
_MOST_LINES = 20
_TOLD = {"final-recipient", "action", "status", "diagnostic-code", "disposition", "feedback-type", "original-rcpt-to"}
_TOLD |= {"original-recipient"}
_STATUS = re.compile(r"(?<![\d.])[245]\.\d{1,3}\.\d{1,3}(?![\d.])")
_UNTOLD = "5.0.0"
# RFC 3463, and RFC 7505 for the last: no such mailbox, no such domain, no address at all, moved without a new address,
# disabled, takes no mail. All else with a 5 says something about the mail (5.6, 5.7), about its sender (5.1.7, 5.1.8)
# or about a state that may pass, such as a full mailbox (5.2.2), a full system (5.3.1) or a route (5.4).
_GONE = {"5.1.1", "5.1.2", "5.1.3", "5.1.6", "5.2.1", "5.1.10"}


_STRONGEST_FIRST = (DeliveryStatus.FAILED, DeliveryStatus.READ, DeliveryStatus.DELIVERED)


def status_of(noted: Noted, settings: EmailSettings) -> StatusChanged | None:
    """Give how far a message of ours has come, as far as a report says so; else None.

    A delay says nothing new: the server goes on trying. A bounce in words alone says nothing that a program can read.
    """
    message = next(filter(settings.is_own_id, noted.references), "")
    groups = noted.detail.get("report", [])
    if noted.detail["class"] == "feedback":
        return _complaint(noted, groups, message)
    told = {status: group for group in reversed(groups) if (status := _reported(group))}
    status = next((one for one in _STRONGEST_FIRST if one in told), None)
    if status is None or not message:
        return None
    group = told[status]
    is_failed = status is DeliveryStatus.FAILED
    address = group.get("original-recipient") or group.get("final-recipient", "")
    return StatusChanged(
        external_id=f"{noted.external_id}/status",
        status=status,
        at=noted.at,
        messages=(message,),
        error=one_line(f"{group.get('status', '')} {group.get('diagnostic-code', '')}") if is_failed else "",
        # Anybody who has our mail could have written this.
        unreachable=Claim("email", address, Trust.ASSERTED) if is_failed and address and _is_gone(group) else None,
    )


def _complaint(noted: Noted, groups: Sequence[Mapping[str, str]], message: str) -> StatusChanged | None:
    """Give that somebody who got a message of ours wants no more of them (RFC 5965)."""
    complained = next((one for one in groups if one.get("feedback-type", "").strip().lower() == "abuse"), None)
    if complained is None or not message:
        return None
    address = complained.get("original-rcpt-to", "").strip("<> ")
    return StatusChanged(
        external_id=f"{noted.external_id}/status",
        status=DeliveryStatus.DELIVERED,
        at=noted.at,
        messages=(message,),
        error="complaint: abuse",
        unreachable=Claim("email", address, Trust.ASSERTED) if address else None,
    )


def _reported(group: Mapping[str, str]) -> DeliveryStatus | None:
    # `relayed` and `expanded` are no more than sent (RFC 3464, 2.3.3).
    actions = {"failed": DeliveryStatus.FAILED, "delivered": DeliveryStatus.DELIVERED}
    # `manual-action/MDN-sent-manually; displayed` (RFC 8098, 3.2.6).
    if group.get("disposition", "").rpartition(";")[2].partition("/")[0].strip().lower() == "displayed":
        return DeliveryStatus.READ
    return actions.get(group.get("action", "").strip().lower())


def _is_gone(group: Mapping[str, str]) -> bool:
    """Say whether a failure means that nobody will ever be reached at the address."""
    status = _STATUS.search(group.get("status", ""))
    if status is None or status[0] == _UNTOLD:
        # Servers put 5.0.0 where they pass on what another one said, which may say more.
        status = _STATUS.search(group.get("diagnostic-code", ""))
    return status is not None and status[0] in _GONE


def read_report(parts: Sequence[Part], settings: EmailSettings) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Give what a report tells of each recipient (RFC 3464, 8098, 5965), and the ids of the mail it is about."""
    told: list[dict[str, str]] = []
    ids: list[str] = []
    for part in parts:
        if part.media_type in _MACHINE:
            for group in _groups(part):
                told.append({key: _value(one) for key, one in group.fields if key in _TOLD})
                ids += message_ids(group.first("original-message-id"))
        if part.media_type in _RETURNED:
            ids += [one for head in _heads(part.content()) for one in _ids(head, settings)]
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


def _ids(head: Part, settings: EmailSettings) -> Iterator[str]:
    yield from message_ids(head.first("message-id"))
    # A provider may have put an id of its own in place of ours; where answers go to, it leaves.
    yield from map(settings.message_id, settings.reply_tokens(plain(head.first("reply-to"))))


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
