"""The e-mail channel: raw mail with its envelope in, one message with its sender out."""

from collections.abc import Sequence

from attrs import evolve

from convsdk.channels.email.incoming import Found, RawMail, Source
from convsdk.channels.email.mime import MAX_BYTES
from convsdk.channels.email.parse import parse_mail
from convsdk.channels.email.settings import EmailSettings
from convsdk.core.events import Event
from convsdk.core.ports import Capabilities, Channel, Request
from convsdk.errors import Forbidden
from convsdk.hookspecs import Context, hookimpl

_BODY_BYTES = 2 * MAX_BYTES  # a mail in base64, and a form around it


class EmailChannel(Channel):
    """Inbound mail as it came over the wire (RFC 5322), and what a provider reports on the mail that went out.

    A request with an `envelope` was taken in by a mail server or from a file of ours: its `body` is the raw mail. Any
    other is from the HTTP `source` of the settings, which has to prove itself; where there is none, it is a raw mail.
    """

    type = "email"
    settings = EmailSettings
    can = Capabilities(messages=True, attachments=True)

    def __init__(self, name: str, config: EmailSettings) -> None:
        super().__init__(name, config)
        if config.source:
            can = evolve(self.can, verifies=True, statuses=config.source.reports)
            self.can = can  # type: ignore[misc]  # of the class for all others: here the settings decide

    @property
    def is_webhook(self) -> bool:
        return self.config.source is not None

    @property
    def body_bytes(self) -> int:
        return _BODY_BYTES if self.config.source else 0

    @property
    def addresses(self) -> tuple[str, ...]:
        return (self.config.address,)

    def wants(self, request: Request) -> Sequence[str]:
        source = self._source(request)
        return source.wants(request) if source else ()

    def verify(self, request: Request) -> None:
        source = self._source(request)
        if source and not source.is_authentic(request):
            # One text for all that can be wrong.
            raise Forbidden(
                f"channel {self.name!r}: the request does not prove that it is from {source.by}: where it is, "
                "compare its secrets or keys with those of the setting source, and both clocks"
            )

    def parse(self, request: Request) -> Sequence[Event]:
        source = self._source(request)
        found = source.read(request) if source else (RawMail(raw=request.body, envelope=request.envelope),)
        return tuple(self._event(one, request) for one in found)

    def _source(self, request: Request) -> Source | None:
        source: Source | None = self.config.source
        return source if request.envelope is None else None

    def _event(self, found: Found, request: Request) -> Event:
        if not isinstance(found, RawMail):
            return found
        return parse_mail(found.raw, settings=self.config, received_at=request.received_at, envelope=found.envelope)


@hookimpl
def convsdk_channels(ctx: Context) -> list[type[Channel]]:  # noqa: ARG001  (every hook takes it)
    """Give the e-mail channel."""
    return [EmailChannel]
