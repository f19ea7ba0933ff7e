"""The e-mail channel: raw mail with its envelope in, one message with its sender out, and answers back as mail."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import httpx
from attrs import evolve

from convsdk.channels.email.compose import compose
from convsdk.channels.email.incoming import Found, RawMail, Source
from convsdk.channels.email.mime import MAX_BYTES
from convsdk.channels.email.outgoing import Provider
from convsdk.channels.email.outgoing.mailgun import Mailgun
from convsdk.channels.email.outgoing.postmark import Postmark
from convsdk.channels.email.outgoing.ses import Ses
from convsdk.channels.email.parse import parse_mail, trimmed
from convsdk.channels.email.sending import MailgunSending, PostmarkSending, Sending, SesSending, SmtpSending
from convsdk.channels.email.settings import EmailSettings
from convsdk.core.events import Event, MessageReceived
from convsdk.core.model import Direction
from convsdk.core.ports import AutomaticAnswer, Capabilities, Channel, Feed, Outbound, Receipt, Request
from convsdk.errors import ConfigError, Forbidden, UnsupportedError
from convsdk.hookspecs import Context, hookimpl

if TYPE_CHECKING:
    from convsdk.channels.email.outgoing.smtp import Relay

_BODY_BYTES = 2 * MAX_BYTES  # a mail in base64, and a form around it


class EmailChannel(Channel):
    """Inbound mail as it came over the wire (RFC 5322), and what a provider reports on the mail that went out.

    A request with an `envelope` was taken in by a mail server or from a file of ours: its `body` is the raw mail. Any
    other is from the HTTP `source` of the settings, which has to prove itself; where there is none, it is a raw mail.

    It answers where its settings say how (`sending`): an instance without that declares so in its own `can`. A mail
    that is sent again has the same Message-ID, by which its recipient knows it; through Amazon SES it has another.
    """

    contract = 1
    type = "email"
    settings = EmailSettings
    can = Capabilities(messages=True, sends=True, attachments=True, statuses=True, is_idempotent=True, keeps_raw=True)

    def __init__(self, name: str, config: EmailSettings) -> None:
        super().__init__(name, config)
        sending = config.sending
        can = evolve(
            self.can,
            verifies=config.source is not None,
            sends=sending is not None,
            is_idempotent=not isinstance(sending, SesSending | None),
        )
        self.can = can  # type: ignore[misc]  # what this one can do depends on its settings
        self._relay = _relay(name, sending) if isinstance(sending, SmtpSending) else None
        self._provider = _provider(sending)

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
        """Give each mail, with what it says of a message of ours where it is a report on one, and other reports."""
        source = self._source(request)
        found = source.read(request) if source else (RawMail(raw=request.body, envelope=request.envelope),)
        return tuple(event for one in found for event in self._events(one, request))

    def _source(self, request: Request) -> Source | None:
        source: Source | None = self.config.source
        return source if request.envelope is None else None

    def _events(self, found: Found, request: Request) -> Sequence[Event]:
        if not isinstance(found, RawMail):
            return (found,)
        return parse_mail(found.raw, settings=self.config, received_at=request.received_at, envelope=found.envelope)

    @property
    def listens(self) -> bool:
        return self.config.imap is not None

    def automatic_answer(self, event: MessageReceived) -> AutomaticAnswer | None:
        is_from_a_person = event.detail.get("class") == "human" and not event.is_automatic and event.hint.identifiers
        if event.direction is not Direction.INBOUND or not is_from_a_person or event.detail.get("no_automatic_answer"):
            return None
        answer: AutomaticAnswer | None = self.config.automatic_answer
        return answer

    def trim(self, event: MessageReceived, answered: str) -> MessageReceived:
        return trimmed(event, answered)

    def outbound_id(self, token: str) -> str:
        return str(self.config.message_id(token))

    def parts(self, message: Outbound) -> Sequence[Outbound]:
        if not message.choices:
            return super().parts(message)
        # The HTML is made of the text then: what was given has no line for the choices.
        return super().parts(evolve(message, text=message.spelt_out, html=""))

    def build(self, message: Outbound) -> httpx.Request:
        if self._provider is None:
            raise UnsupportedError(
                f"channel {self.name!r} sends nothing over HTTP: set its sending, by mailgun, postmark or ses"
            )
        return self._provider.build(compose(message, self.config))

    def interpret(self, response: httpx.Response) -> Receipt:
        if self._provider is None:
            return super().interpret(response)
        return self._provider.interpret(response)

    async def send(self, message: Outbound, client: httpx.AsyncClient) -> Receipt:
        if self._relay is None:
            return await super().send(message, client)
        return await self._relay.send(compose(message, self.config))

    async def close(self) -> None:
        if self._relay is not None:
            await self._relay.close()

    async def listen(self, feed: Feed) -> None:
        if self.config.imap is None:
            await super().listen(feed)
        try:
            from convsdk.channels.email.imap import listen  # noqa: PLC0415  (the extra may be missing)
        except ImportError as error:
            raise ConfigError(
                f"channel {self.name!r}: imap needs the extra 'email' ({error}): pip install 'convsdk[email]'"
            ) from error
        await listen(self.config.imap, feed)


def _relay(channel: str, sending: SmtpSending) -> Relay:
    try:
        from convsdk.channels.email.outgoing.smtp import Relay  # noqa: PLC0415  (its library is an extra)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"sending by smtp needs a library that is not there ({error.name}), and channel {channel!r} sends so: "
            "install convsdk[email]"
        ) from None
    return Relay(sending)


def _provider(sending: Sending | None) -> Provider | None:
    match sending:
        case MailgunSending():
            return Mailgun(sending)
        case PostmarkSending():
            return Postmark(sending)
        case SesSending():
            return Ses(sending)
    return None


@hookimpl
def convsdk_channels(ctx: Context) -> list[type[Channel]]:  # noqa: ARG001  (every hook takes it)
    """Give the e-mail channel."""
    return [EmailChannel]
