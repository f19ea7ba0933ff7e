"""The ways out of an e-mail channel: a mail server, or a provider's HTTP interface."""

from abc import ABC, abstractmethod

import httpx

from convsdk.channels.email.compose import Letter
from convsdk.channels.email.mime import one_line
from convsdk.core import answers
from convsdk.core.ports import Receipt
from convsdk.errors import ConvsdkError, PermanentError

LONGEST_WORDS = 300
_UNAUTHORIZED = {401, 403}
_IN_CONFLICT = 409  # with another request at the same moment


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
        said = f"{self.title} answered {status} {one_line(f'{code} {words}')[:LONGEST_WORDS]}".strip()
        remedy = "check the key and its rights" if status in _UNAUTHORIZED else "change what it names, and send again"
        is_passing = is_passing or status == _IN_CONFLICT
        return answers.refusal(response, said, code=code, is_passing=is_passing, remedy=remedy)
