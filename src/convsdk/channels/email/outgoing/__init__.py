"""The ways out of an e-mail channel: a mail server, or a provider's HTTP interface."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from convsdk.channels.email.compose import Letter
from convsdk.channels.email.mime import one_line
from convsdk.core.ports import Receipt
from convsdk.errors import ConvsdkError, PermanentError, TransientError, UncertainError

_LONGEST_WORDS = 300
_UNAUTHORIZED = {401, 403}
_LATER = {408, 409, 425, 429}
# A gateway that got no answer from what is behind it: that may have taken the mail.
_UNKNOWN = {502, 504}
_FIRST_FAULT = 500


class Provider(ABC):
    """A provider that takes mail over HTTP. Pure, as `Channel.build` and `Channel.interpret` are."""

    title: str

    @abstractmethod
    def build(self, letter: Letter) -> httpx.Request:
        """Give the request that sends `letter`."""

    @abstractmethod
    def interpret(self, response: httpx.Response) -> Receipt:
        """Read the answer to that request: a receipt, or the error that a refusal is."""

    def require_ascii(self, letter: Letter) -> None:
        """Raise `PermanentError` where an address of `letter` is none that the provider writes to."""
        if letter.is_international:
            raise PermanentError(
                f"{self.title} writes to no address such as {letter.recipient!r}, with other letters than a-z before "
                "the @: send by SMTP through a server that offers SMTPUTF8"
            )

    def refusal(
        self, response: httpx.Response, *, code: str = "", words: str = "", is_passing: bool = False
    ) -> ConvsdkError:
        """Give the error that a refusal is, with the provider's code and words; `is_passing`: it says try again."""
        status = response.status_code
        said = f"{self.title} answered {status} {one_line(f'{code} {words}')[:_LONGEST_WORDS]}".strip()
        if status in _UNKNOWN:
            return UncertainError(f"{said}: whether it took the mail is not known: look for it there")
        if is_passing or status in _LATER or status >= _FIRST_FAULT:
            return TransientError(f"{said}: it is tried again", retry_after_s=_retry_after_s(response))
        remedy = "check the key and its rights" if status in _UNAUTHORIZED else "change what it names, and send again"
        return PermanentError(f"{said}: {remedy}", code=code or str(status))


def told(response: httpx.Response) -> Mapping[str, Any]:
    """Give the JSON object of an answer; an empty one where there is none."""
    try:
        found = response.json()
    except (ValueError, RecursionError):  # no JSON, or nested without end
        return {}
    return found if isinstance(found, dict) else {}


def _retry_after_s(response: httpx.Response) -> float | None:
    """Give the pause that is asked for (RFC 9110, 10.2.3): seconds, or a date, by the clock of who answered."""
    value = response.headers.get("retry-after", "").strip()
    if value.isascii() and value.isdigit():
        return float(value[:9])
    try:
        until, now = (parsedate_to_datetime(one) for one in (value, response.headers.get("date", "")))
        return max(0.0, (until - now).total_seconds())
    except (ValueError, TypeError):
        return None
