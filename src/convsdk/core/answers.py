"""What a platform's answer over HTTP means: what it says, how long to wait, and which error a refusal is."""

from __future__ import annotations

from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from convsdk.core.payloads import Fields, read_fields
from convsdk.errors import ParseError, PermanentError, TransientError, UncertainError

if TYPE_CHECKING:
    import httpx

_LONGEST_PAUSE_S = 86_400.0
_LONGEST_DIGITS = 9
# Not taken, and may be later (RFC 9110, 15; RFC 6585, 4; RFC 8470, 5.2): 408, 425, 429, and a platform that is busy.
_LATER = frozenset({408, 425, 429, 503})
_FIRST_FAULT = 500


def read_answer(response: httpx.Response) -> Fields:
    """Give the JSON object of an answer, leniently: an empty one where there is none, and no member raises."""
    try:
        return Fields(read_fields(response.content).raw, is_lenient=True)
    except ParseError:
        return Fields({}, is_lenient=True)


def asked_pause(response: httpx.Response) -> float | None:
    """Give the seconds that `Retry-After` asks to wait (RFC 9110, 10.2.3), a day at most; None where it asks nothing.

    A date counts from the answer's own `Date`: there is no clock here.
    """
    given = response.headers.get("retry-after", "").strip()
    if given.isascii() and given.isdigit():
        return min(float(given[:_LONGEST_DIGITS]), _LONGEST_PAUSE_S)
    try:
        pause = (_moment(given) - _moment(response.headers.get("date", ""))).total_seconds()
    except (ValueError, TypeError, OverflowError):
        return None
    return min(max(pause, 0.0), _LONGEST_PAUSE_S)


def _moment(given: str) -> datetime:
    return parsedate_to_datetime(given)


def refusal(
    response: httpx.Response,
    said: str,
    *,
    code: object = "",
    is_passing: bool = False,
    remedy: str = "correct the message",
    retry_after_s: float | None = None,
) -> TransientError | UncertainError | PermanentError:
    """Give the error that an answer stands for which confirms nothing; every channel over HTTP decides alike.

    ======================================  =======================================================================
    the answer                              the error
    ======================================  =======================================================================
    `is_passing`: by its code, it passes    `TransientError`
    408, 425, 429, 503                      `TransientError`
    a fault (5xx), with a code              `TransientError`: the platform itself says that it did not take it
    a fault without one                     `UncertainError`: what stands between lost sight of it
    a success without a code                `UncertainError`: it confirms nothing that can be read
    a success with a code                   `PermanentError`, with `remedy`: of platforms that always answer 200
    the same, which may have happened       `UncertainError`: hand over no `code` for it, and name it in `said`
    any other                               `PermanentError`, with `remedy`
    ======================================  =======================================================================

    Args:
        response: The answer.
        said: What happened to what, such as `channel 'desk': the Desk answered 400`; no secret, and nothing of the
            request.
        code: The platform's own code; empty or the number 0 is none, as where a platform says 0 for success.
        is_passing: Whether that code is one to try again.
        remedy: What to do, where trying again is no use.
        retry_after_s: The pause, where the platform names it elsewhere than in `Retry-After`.
    """
    status = response.status_code
    if not (is_passing or status in _LATER or code) and (response.is_success or status >= _FIRST_FAULT):
        return UncertainError(f"{said}: whether it was taken is not known: look for it there before it is sent again")
    if is_passing or status in _LATER or status >= _FIRST_FAULT:
        pause = asked_pause(response) if retry_after_s is None else retry_after_s
        return TransientError(f"{said}: it is tried again", retry_after_s=pause)
    return PermanentError(f"{said}: {remedy}", code=str(code or status))
