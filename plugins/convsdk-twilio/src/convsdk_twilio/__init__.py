"""Twilio: SMS and MMS in by signed forms, answers out by the Messages API; WhatsApp by Twilio as well."""

import base64
import hashlib
import hmac
import re
from collections.abc import Iterable, Sequence
from typing import Any
from urllib.parse import urlsplit

import httpx
from attrs import evolve, field, frozen
from attrs.validators import matches_re

from convsdk.core.events import Event
from convsdk.core.identifiers import IdentifierKind, MessagingId
from convsdk.core.ports import Capabilities, Channel, Outbound, Receipt, Request, Response, Secret
from convsdk.errors import Forbidden, ParseError
from convsdk.hookspecs import Context, hookimpl
from convsdk_twilio.parse import ADDRESS, read_events, read_form
from convsdk_twilio.segments import is_gsm7, segments
from convsdk_twilio.send import build_request, read_receipt

__all__ = ["TwilioChannel", "TwilioSettings", "is_gsm7", "segments"]

_HEADER = "X-Twilio-Signature"
_EMPTY = Response(body=b'<?xml version="1.0" encoding="UTF-8"?><Response/>', media_type="application/xml")


def _is_secret(_: object, attribute: Any, value: Secret) -> None:  # noqa: ANN401  (attrs' own, generic)
    # attrs' own validators would print the value. An empty key would let everybody sign.
    if type(value) is not Secret or not value.reveal().strip():
        raise ValueError(f"{attribute.name} must be a secret that is not empty: copy it from Twilio's console")


@frozen(kw_only=True)
class TwilioSettings:
    """What a number or a messaging service at Twilio needs to know.

    `public_url` is the webhook's URL as Twilio calls it, which is signed: a proxy may show another to the program.
    `auth_token` signs; `api_key` and `api_secret` are a key made for sending. `sender` is who writes first: a number,
    a `whatsapp:` address, or the SID of a messaging service. `purposes` are the consents that STOP withdraws.
    """

    account_sid: str = field(validator=matches_re("AC[0-9a-f]{32}"))
    auth_token: Secret = field(validator=_is_secret)
    api_key: str = field(validator=matches_re("SK[0-9a-f]{32}"))
    api_secret: Secret = field(validator=_is_secret)
    sender: str = field(validator=matches_re(r"MG[0-9a-f]{32}|(whatsapp:)?\+[1-9][0-9]{6,14}|[0-9]{3,8}"))
    public_url: str = field(validator=matches_re(r"https?://[^\s?#]+"))
    purposes: tuple[str, ...] = ("marketing",)
    api: str = "https://api.twilio.com"


class TwilioChannel(Channel):
    """The numbers of one account that share a webhook."""

    contract = 1
    type = "twilio"
    settings = TwilioSettings
    can = Capabilities(verifies=True, sends=True, attachments=True, statuses=True, max_text=1600)
    config: TwilioSettings

    def verify(self, request: Request) -> None:
        given = request.headers.all(_HEADER)
        try:
            form = sorted(set(read_form(request.body)))
        except ParseError:
            form = []
        sent = given[0].encode("utf-8", "replace") if len(given) == 1 and form else b""
        if not any(hmac.compare_digest(sent, self._sign(url, form)) for url in self._urls(request)):
            raise Forbidden(
                f"channel {self.name!r}: {_HEADER} is missing or wrong, or public_url is not what Twilio calls"
            )

    def _urls(self, request: Request) -> Iterable[str]:
        """Give the URL as Twilio may have signed it: with its port and without, as its own libraries do."""
        _, mark, query = request.url.partition("?")
        parts = urlsplit(self.config.public_url)
        host = re.sub(r":[0-9]+$", "", parts.netloc)
        for netloc in {parts.netloc, host, f"{host}:{parts.port or (443 if parts.scheme == 'https' else 80)}"}:
            yield f"{parts._replace(netloc=netloc).geturl()}{mark}{query}"

    def _sign(self, url: str, form: Iterable[tuple[str, str]]) -> bytes:
        """Sign as https://www.twilio.com/docs/usage/security says: the URL, then each field by name and value."""
        signed = url + "".join(f"{name}{value}" for name, value in form)
        key = self.config.auth_token.reveal().encode()
        return base64.b64encode(hmac.new(key, signed.encode("utf-8", "replace"), hashlib.sha1).digest())

    def parse(self, request: Request) -> Sequence[Event]:
        return read_events(request.body, purposes=self.config.purposes, at=request.received_at)

    def answer(self, events: Sequence[Event]) -> Response:  # noqa: ARG002  (whatever it was, nothing is said at once)
        """Give the empty TwiML: Twilio would send any other text to the person."""
        return _EMPTY

    def parts(self, message: Outbound) -> Sequence[Outbound]:
        """Give the parts of a text that ends with the choices, a line for each: there are no buttons in an SMS."""
        labels = [f"- {choice['label']}" for choice in message.detail.get("choices") or ()]
        return super().parts(evolve(message, text="\n".join([message.text, *labels])))

    def build(self, message: Outbound) -> httpx.Request:
        config = self.config
        sender = "MessagingServiceSid" if config.sender.startswith("MG") else "From"
        return build_request(
            message,
            url=f"{config.api}/2010-04-01/Accounts/{config.account_sid}/Messages.json",
            key=(config.api_key, config.api_secret),
            fields={sender: config.sender, "StatusCallback": config.public_url},
        )

    def interpret(self, response: httpx.Response) -> Receipt:
        return read_receipt(response, channel=self.name)


@hookimpl
def convsdk_channels(ctx: Context) -> Iterable[type[Channel]]:  # noqa: ARG001  (each hook takes it)
    """Give the Twilio channel."""
    return [TwilioChannel]


@hookimpl
def convsdk_identifier_kinds(ctx: Context) -> Iterable[IdentifierKind]:  # noqa: ARG001  (as above)
    """Give the address of a sender who has no number."""
    return [MessagingId(ADDRESS)]
