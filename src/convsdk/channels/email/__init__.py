"""The e-mail channel: raw mail with its envelope in, a message with its sender out, or what a report says of ours."""

from collections.abc import Sequence

from convsdk.channels.email.parse import parse_mail, trimmed
from convsdk.channels.email.settings import EmailSettings
from convsdk.core.events import Event, MessageReceived
from convsdk.core.ports import Capabilities, Channel, Request
from convsdk.hookspecs import Context, hookimpl


class EmailChannel(Channel):
    """Inbound mail as it came over the wire (RFC 5322): `body` of a request is the raw message."""

    type = "email"
    settings = EmailSettings
    can = Capabilities(messages=True, attachments=True)

    @property
    def addresses(self) -> tuple[str, ...]:
        return (self.config.address,)

    def parse(self, request: Request) -> Sequence[Event]:
        return parse_mail(
            request.body, settings=self.config, received_at=request.received_at, envelope=request.envelope
        )

    def trim(self, event: MessageReceived, answered: str) -> MessageReceived:
        return trimmed(event, answered)


@hookimpl
def convsdk_channels(ctx: Context) -> list[type[Channel]]:  # noqa: ARG001  (every hook takes it)
    """Give the e-mail channel."""
    return [EmailChannel]
