"""Example: signed webhooks in, answers out."""

from collections.abc import Iterable, Sequence

import httpx
from attrs import field, frozen

from convsdk.core.answers import read_answer, refusal
from convsdk.core.events import Event
from convsdk.core.identifiers import MessagingId
from convsdk.core.ports import Capabilities, Channel, Outbound, Receipt, Request, Secret, is_secret
from convsdk.core.signing import hmac_of, require_header
from convsdk.errors import PermanentError
from convsdk.hookspecs import Context, hookimpl
from convsdk_example.parse import PERSON, read_events

_REMEDY = "copy it from Example's settings"


@frozen(kw_only=True)
class ExampleSettings:
    """What a Example channel needs to know: the secret that signs webhooks, and the token that sends."""

    signing_secret: Secret = field(validator=is_secret(_REMEDY))
    access_token: Secret = field(validator=is_secret(_REMEDY))
    api: str = "https://api.example.example"


class ExampleChannel(Channel):
    """One account at Example."""

    contract = 1
    type = "example"
    settings = ExampleSettings
    kinds = (MessagingId(PERSON),)
    can = Capabilities(verifies=True, sends=True, max_text=2000, is_idempotent=True)
    config: ExampleSettings

    def verify(self, request: Request) -> None:
        # In hex, by SHA-256; where a platform signs in base64, with `encoding="base64"` besides.
        right = hmac_of(request.body, self.config.signing_secret)
        require_header(request, "X-Example-Signature", right, channel=self.name)

    def parse(self, request: Request) -> Sequence[Event]:
        return read_events(request.body, received_at=request.received_at)

    def build(self, message: Outbound) -> httpx.Request:
        message.require_kind(PERSON)
        message.require_content()
        if message.attachments:
            raise PermanentError(f"{message.to} was not written to: Example takes texts only")
        content: dict[str, object] = {"to": message.to.value, "text": message.text, "key": message.token}
        if message.choices:
            content["buttons"] = [{"label": one.label, "sends": one.payload} for one in message.choices]
        headers = {"authorization": f"Bearer {self.config.access_token.reveal()}"}
        return httpx.Request("POST", f"{self.config.api}/messages", json=content, headers=headers)

    def interpret(self, response: httpx.Response) -> Receipt:
        answer = read_answer(response)
        if response.is_success and (sent := answer.key("id")):
            return Receipt(external_id=sent)
        code = answer.text("error")[:200]
        said = f"channel {self.name!r}: Example answered {response.status_code} {code!r}"
        # A fault (5xx) with a code counts as "did not happen", and it is sent again: leave out a code that can also
        # stand for what Example took.
        raise refusal(response, said, code=code)


@hookimpl
def convsdk_channels(ctx: Context) -> Iterable[type[Channel]]:
    """Give the Example channel."""
    return [ExampleChannel]
