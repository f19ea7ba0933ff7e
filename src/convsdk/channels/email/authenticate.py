"""The own check of DKIM signatures (RFC 6376), where no mail server of the business makes one.

It needs DNS, so it is for whoever takes the mail in, before the bytes are stored: its result becomes the topmost
Authentication-Results of the mail, and reading that stays pure. Needs the extra `email`.
"""

import re
from collections.abc import Callable
from typing import Any

import dkim  # type: ignore[import-untyped]  # dkimpy ships no types

from convsdk.channels.email.mime import MAX_BYTES, PastLimitError, opened, read_head

Lookup = Callable[[str], bytes | None]
"""Gives the TXT record of a name, or None where there is none; raises OSError where nobody answers."""

_MOST_SIGNATURES = 5
_DOMAIN = re.compile(r"[a-z0-9][a-z0-9.-]{0,252}")
_LENGTH = re.compile(r"(?:\A|;)\s*l\s*=")
_AUTHSERV_ID = re.compile(r"[A-Za-z0-9.-]{1,253}")
# The library takes time quadratic in the length of each run of blanks: half a second for this sum of squares.
_BLANKS = re.compile(rb"[ \t]{50,}+")
_MOST_WORK = 500_000_000


def stamped(raw: bytes, *, authserv_id: str, lookup: Lookup) -> bytes:
    """Give `raw` below an Authentication-Results field that says which of its signatures hold.

    The field is there even where there is nothing to say: what a sender wrote under our name is then not the topmost.
    """
    if not _AUTHSERV_ID.fullmatch(authserv_id):
        raise ValueError(f"authserv_id is {authserv_id!r}: write the name of a server, such as 'mx.shop.example'")
    lines = opened(raw)
    found = [f"dkim={result} header.d={domain}" for result, domain in _results(lines, lookup)]
    end = "\r\n" if lines.partition(b"\n")[0].endswith(b"\r") else "\n"
    return f"Authentication-Results: {authserv_id}; {'; '.join(found) or 'none'}{end}".encode() + lines


def _results(lines: bytes, lookup: Lookup) -> list[tuple[str, str]]:
    try:
        signatures = read_head(lines).all("dkim-signature")[:_MOST_SIGNATURES]
    except PastLimitError:
        return []
    if not signatures or len(lines) > MAX_BYTES:
        return []
    if sum(len(run[0]) ** 2 for run in _BLANKS.finditer(lines)) > _MOST_WORK:
        return []
    results = [_result(lines, number, signature, lookup) for number, signature in enumerate(signatures)]
    return [(result, domain) for result, domain in results if _DOMAIN.fullmatch(domain)]


def _result(lines: bytes, number: int, signature: str, lookup: Lookup) -> tuple[str, str]:
    """Give the result of one signature and its domain. One over a part of the body proves nothing about the rest."""
    checker = dkim.DKIM(lines)

    def ask(name: bytes, **_: Any) -> bytes | None:  # noqa: ANN401  (the library's own arguments)
        return lookup(name.decode("ascii").rstrip("."))

    try:
        is_whole = checker.verify(number, dnsfunc=ask) and not _LENGTH.search(signature)
        result = "pass" if is_whole else "fail"
    except OSError:
        result = "temperror"
    except (dkim.DKIMException, ValueError, TypeError, LookupError):
        result = "permerror"
    return result, (checker.domain or b"").decode("ascii", "replace").lower()
