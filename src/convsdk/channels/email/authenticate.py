"""The own check of DKIM signatures (RFC 6376) and ARC chains (RFC 8617), where no mail server of the business does it.

It needs DNS, so it is for whoever takes the mail in, before the bytes are stored: its result becomes the topmost
Authentication-Results of the mail, and reading that stays pure. Needs the extra `email`.
"""

import re
from collections.abc import Callable
from typing import Any

import dkim  # type: ignore[import-untyped]  # dkimpy ships no types

from convsdk.channels.email.mime import MAX_BYTES, Part, PastLimitError, opened, read_head
from convsdk.channels.email.sender import read_results

Lookup = Callable[[str], bytes | None]
"""Gives the TXT record of a name, or None where there is none; raises OSError where nobody answers."""

_MOST_SIGNATURES = 5
_DOMAIN = re.compile(r"[a-z0-9][a-z0-9.-]{0,252}")
_MOST_SEALS = 5
_SIGNS_FROM = re.compile(r"(?:\A|;)\s*h\s*=[^;]*(?<![a-z-])from(?![a-z-])", re.IGNORECASE)
_INSTANCE = re.compile(r"\s*i\s*=\s*\d+\s*;")
_LENGTH = re.compile(r"(?:\A|;)\s*l\s*=")
_AUTHSERV_ID = re.compile(r"[A-Za-z0-9.-]{1,253}")
# The library takes time quadratic in the length of each run of blanks: half a second for this sum of squares.
_BLANKS = re.compile(rb"[ \t]{50,}+")
_MOST_WORK = 500_000_000


def stamped(raw: bytes, *, authserv_id: str, lookup: Lookup) -> bytes:
    """Give `raw` below an Authentication-Results field that says which of its signatures hold.

    Of an ARC chain that holds as a whole, it says who sealed it last (`header.d`), and for whose From that sealer saw
    DMARC pass (`header.from`): whether a sealer is believed, the channel's settings say.
    The field is there even where there is nothing to say: what a sender wrote under our name is then not the topmost.
    """
    if not _AUTHSERV_ID.fullmatch(authserv_id):
        raise ValueError(f"authserv_id is {authserv_id!r}: write the name of a server, such as 'mx.shop.example'")
    lines = opened(raw)
    head = _head_to_check(lines)
    found = [*_signatures(lines, head, lookup), *_seals(lines, head, lookup)] if head else []
    end = "\r\n" if lines.partition(b"\n")[0].endswith(b"\r") else "\n"
    return f"Authentication-Results: {authserv_id}; {'; '.join(found) or 'none'}{end}".encode() + lines


def _head_to_check(lines: bytes) -> Part | None:
    """Give the head of a mail; None where there is nothing to check in it, or too much."""
    try:
        head = read_head(lines)
    except PastLimitError:
        return None
    if not (head.all("dkim-signature") or head.all("arc-seal")) or len(lines) > MAX_BYTES:
        return None
    return head if sum(len(run[0]) ** 2 for run in _BLANKS.finditer(lines)) <= _MOST_WORK else None


def _signatures(lines: bytes, head: Part, lookup: Lookup) -> list[str]:
    signatures = head.all("dkim-signature")[:_MOST_SIGNATURES]
    results = [_result(lines, number, signature, lookup) for number, signature in enumerate(signatures)]
    return [f"dkim={result} header.d={domain}" for result, domain in results if _DOMAIN.fullmatch(domain)]


def _asked(lookup: Lookup) -> Callable[..., bytes | None]:
    def ask(name: bytes, **_: Any) -> bytes | None:  # noqa: ANN401  (the library's own arguments)
        return lookup(name.decode("ascii").rstrip("."))

    return ask


def _seals(lines: bytes, head: Part, lookup: Lookup) -> list[str]:
    """Give what the last sealer saw, where the whole chain holds, and seals the whole body and the From."""
    signatures = head.all("arc-message-signature")
    if not 0 < len(head.all("arc-seal")) == len(signatures) <= _MOST_SEALS:
        return []
    if not all(_SIGNS_FROM.search(one) and not _LENGTH.search(one) for one in signatures):
        return []
    try:
        state, seals, _ = dkim.ARC(lines).verify(dnsfunc=_asked(lookup))
    except (OSError, dkim.DKIMException, ValueError, TypeError, LookupError):
        return []
    if state != dkim.CV_Pass or seals[0]["as-domain"] != seals[0]["ams-domain"]:
        return []
    sealer = seals[0]["as-domain"].decode("ascii", "replace").lower()
    seen = _INSTANCE.sub("", seals[0]["aar-value"].decode("ascii", "replace"), count=1)
    passed = {
        properties.get("header.from", "")
        for method, result, properties in read_results(seen)[1]
        if (method, result) == ("dmarc", "pass")
    }
    domains = sorted(one for one in (sealer, *passed) if _DOMAIN.fullmatch(one))
    if len(passed) != 1 or len(domains) != 1 + len(passed):
        return []
    return [f"arc=pass header.d={sealer} header.from={passed.pop()}"]


def _result(lines: bytes, number: int, signature: str, lookup: Lookup) -> tuple[str, str]:
    """Give the result of one signature and its domain. One over a part of the body proves nothing about the rest."""
    checker = dkim.DKIM(lines)
    try:
        is_whole = checker.verify(number, dnsfunc=_asked(lookup)) and not _LENGTH.search(signature)
        result = "pass" if is_whole else "fail"
    except OSError:
        result = "temperror"
    except (dkim.DKIMException, ValueError, TypeError, LookupError):
        result = "permerror"
    return result, (checker.domain or b"").decode("ascii", "replace").lower()
