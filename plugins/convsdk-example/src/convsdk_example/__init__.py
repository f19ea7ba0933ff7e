"""Example: signed webhooks in, answers out."""

import hashlib
import hmac
from collections.abc import Iterable, Sequence
from typing import Any

import httpx
import msgspec
from attrs import field, frozen

from convsdk.core.events import Event
from convsdk.core.identifiers import IdentifierKind, MessagingId
from convsdk.core.ports import Capabilities, Channel, Outbound, Receipt, Request, Secret
from convsdk.errors import Forbidden, PermanentError, TransientError, UncertainError
from convsdk.hookspecs import Context, hookimpl
from convsdk_example.parse import PERSON, read_events

_HEADER = "X-Example-Signature"


def _is_secret(_: object, attribute: Any, value: Secret) -> None:  # noqa: ANN401  (attrs' own, generic)
    # attrs' own validators would print the value. An empty key would let everybody sign.
    if type(value) is not Secret or not value.reveal().strip():
        raise ValueError(f"{attribute.name} must be a secret that is not empty: copy it from Example's settings")


@frozen(kw_only=True)
class ExampleSettings:
    """What a Example channel needs to know: the secret that signs webhooks, and the token that sends."""

    signing_secret: Secret = field(validator=_is_secret)
    access_token: Secret = field(validator=_is_secret)
    api: str = "https://api.example.example"


class _Answer(msgspec.Struct):
    id: str = ""
    error: str = ""


class ExampleChannel(Channel):
    """One account at Example."""

    contract = 1
    type = "example"
    settings = ExampleSettings
    can = Capabilities(verifies=True, sends=True, max_text=2000, is_idempotent=True)
    config: ExampleSettings

    def verify(self, request: Request) -> None:
        given = request.headers.all(_HEADER)
        key = self.config.signing_secret.reveal().encode()
        expected = hmac.new(key, request.body, hashlib.sha256).hexdigest()
        sent = given[0].encode("utf-8", "replace") if len(given) == 1 else b""
        if not hmac.compare_digest(sent, expected.encode()):
            raise Forbidden(f"channel {self.name!r}: {_HEADER} is missing, repeated or wrong")

    def parse(self, request: Request) -> Sequence[Event]:
        return read_events(request.body)

    def build(self, message: Outbound) -> httpx.Request:
        if message.attachments or message.to.kind != PERSON:
            raise PermanentError(f"{message.to} was not written to: Example takes texts, for people of its own")
        content = {"to": message.to.value, "text": message.text, "key": message.token}
        headers = {"authorization": f"Bearer {self.config.access_token.reveal()}"}
        return httpx.Request("POST", f"{self.config.api}/messages", json=content, headers=headers)

    def interpret(self, response: httpx.Response) -> Receipt:
        answer, status = _answer(response), response.status_code
        if response.is_success and answer.id:
            return Receipt(external_id=answer.id)
        said = f"channel {self.name!r}: Example answered {status} {answer.error[:200]!r}"
        if status in {httpx.codes.TOO_MANY_REQUESTS, httpx.codes.SERVICE_UNAVAILABLE}:
            pause = response.headers.get("retry-after", "")
            raise TransientError(said, retry_after_s=float(pause) if pause.isdecimal() else None)
        if response.is_success or response.is_server_error:
            raise UncertainError(f"{said}: look into the conversation before it is sent again")
        raise PermanentError(f"{said}: correct the message", code=answer.error or str(status))


def _answer(response: httpx.Response) -> _Answer:
    try:
        return msgspec.json.decode(response.content, type=_Answer)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return _Answer()


@hookimpl
def convsdk_channels(ctx: Context) -> Iterable[type[Channel]]:  # noqa: ARG001  (each hook takes it)
    """Give the Example channel."""
    return [ExampleChannel]


@hookimpl
def convsdk_identifier_kinds(ctx: Context) -> Iterable[IdentifierKind]:  # noqa: ARG001  (as above)
    """Give Example's id of a person."""
    return [MessagingId(PERSON)]
