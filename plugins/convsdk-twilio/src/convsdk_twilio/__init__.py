"""Twilio: SMS and MMS in by signed forms, answers out by the Messages API; WhatsApp by Twilio as well."""

import base64
import re
from collections.abc import Iterable, Sequence
from typing import Any
from urllib.parse import urlencode, urlsplit

import httpx
from attrs import evolve, field, frozen
from attrs.validators import matches_re

from convsdk.core.answers import read_answer, refusal
from convsdk.core.events import DeliveryStatus, Event
from convsdk.core.identifiers import MessagingId
from convsdk.core.payloads import read_form
from convsdk.core.ports import Capabilities, Channel, Outbound, Receipt, Request, Response, Secret, is_secret
from convsdk.core.signing import hmac_of, require_header
from convsdk.errors import ParseError, PermanentError
from convsdk.hookspecs import Context, hookimpl
from convsdk_twilio.parse import ADDRESS, read_events
from convsdk_twilio.segments import is_gsm7, segments

__all__ = ["TwilioChannel", "TwilioSettings", "is_gsm7", "segments"]

_EMPTY = Response(body=b'<?xml version="1.0" encoding="UTF-8"?><Response/>', media_type="application/xml")
_CONSOLE = "copy it from Twilio's console"
_MOST_MEDIA = 10
_REMEDIES = {
    20003: "api_key or api_secret is refused: make a new key in the console",
    21211: "the number is none: correct it",
    21408: "the account may not write to that country: allow it in the console's geo permissions",
    21606: "the sender may not write there: use a number of this account",
    21610: "they have said STOP: only their START opens it again",
    21614: "the number is no mobile's: use another channel",
    63016: "WhatsApp's window is closed: send a template",
}


def _is_address(_: object, attribute: Any, value: str) -> None:  # noqa: ANN401  (attrs' own)
    try:
        port = urlsplit(value).port
    except ValueError:
        port = 0
    if port == 0:
        raise ValueError(f"{attribute.name} is no web address: write it as Twilio's console has it")


@frozen(kw_only=True)
class TwilioSettings:
    """What a number or a messaging service at Twilio needs to know.

    `public_url` is the webhook's URL as Twilio calls it, which is signed: a proxy may show another to the program.
    `auth_token` signs; `api_key` and `api_secret` are a key made for sending. `sender` is who writes first: a number,
    a `whatsapp:` address, or the SID of a messaging service. `purposes` are the consents that STOP withdraws.
    """

    account_sid: str = field(validator=matches_re("AC[0-9a-f]{32}"))
    auth_token: Secret = field(validator=is_secret(_CONSOLE))
    api_key: str = field(validator=matches_re("SK[0-9a-f]{32}"))
    api_secret: Secret = field(validator=is_secret(_CONSOLE))
    sender: str = field(validator=matches_re(r"MG[0-9a-f]{32}|(whatsapp:)?\+[1-9][0-9]{6,14}|[0-9]{3,8}"))
    public_url: str = field(validator=[matches_re(r"https?://[^\s?#]+"), _is_address])
    purposes: tuple[str, ...] = ("marketing",)
    api: str = "https://api.twilio.com"


class TwilioChannel(Channel):
    """The numbers of one account that share a webhook."""

    contract = 1
    type = "twilio"
    settings = TwilioSettings
    kinds = (MessagingId(ADDRESS),)
    can = Capabilities(verifies=True, sends=True, attachments=True, statuses=True, max_text=1600)
    config: TwilioSettings

    def verify(self, request: Request) -> None:
        try:
            form = sorted(set(read_form(request.body)))
        except ParseError:
            form = []
        right = [self._sign(url, form) for url in self._urls(request)] if form else []
        remedy = "if Twilio did send it, compare public_url with the URL that it calls, and auth_token"
        require_header(request, "X-Twilio-Signature", *right, channel=self.name, remedy=remedy)

    def _urls(self, request: Request) -> Iterable[str]:
        """Give the URL as Twilio may have signed it: with its port and without, as its own libraries do."""
        _, mark, query = request.url.partition("?")
        parts = urlsplit(self.config.public_url)
        host = re.sub(r":[0-9]+$", "", parts.netloc)
        for netloc in {parts.netloc, host, f"{host}:{parts.port or (443 if parts.scheme == 'https' else 80)}"}:
            yield f"{parts._replace(netloc=netloc).geturl()}{mark}{query}"

    def _sign(self, url: str, form: Iterable[tuple[str, str]]) -> str:
        """Sign as https://www.twilio.com/docs/usage/security says: the URL, then each field by name and value."""
        signed = url + "".join(f"{name}{value}" for name, value in form)
        return hmac_of(signed.encode("utf-8", "replace"), self.config.auth_token, digest="sha1", encoding="base64")

    def parse(self, request: Request) -> Sequence[Event]:
        return read_events(request.body, purposes=self.config.purposes, at=request.received_at)

    def answer(self, events: Sequence[Event]) -> Response:  # noqa: ARG002  (whatever it was, nothing is said at once)
        """Give the empty TwiML: Twilio would send any other text to the person."""
        return _EMPTY

    def parts(self, message: Outbound) -> Sequence[Outbound]:
        """Give the parts of a text that ends with the choices: there are no buttons in an SMS."""
        return super().parts(evolve(message, text=message.spelt_out))

    def build(self, message: Outbound) -> httpx.Request:
        """Give the call of https://www.twilio.com/docs/messaging/api/message-resource."""
        config = self.config
        recipient, _, person = message.thread.partition("/")
        message.require_kind(message.to.kind if person else "phone")
        message.require_content()
        media = [file.url for file in message.attachments]
        if not all(media) or len(media) > _MOST_MEDIA:
            raise PermanentError(
                f"{message.to} was not written to: Twilio fetches up to {_MOST_MEDIA} files, each by its url"
            )
        kind = "MessagingServiceSid" if config.sender.startswith("MG") else "From"
        pairs = {
            "To": person or message.to.value,
            kind: config.sender,
            "StatusCallback": config.public_url,
            **({"From": recipient} if person else {}),  # who was written to answers
            "Body": message.text,
        }
        key = base64.b64encode(f"{config.api_key}:{config.api_secret.reveal()}".encode()).decode()
        return httpx.Request(
            "POST",
            f"{config.api}/2010-04-01/Accounts/{config.account_sid}/Messages.json",
            content=urlencode([*pairs.items(), *(("MediaUrl", one) for one in media)]),
            headers={"authorization": f"Basic {key}", "content-type": "application/x-www-form-urlencoded"},
        )

    def interpret(self, response: httpx.Response) -> Receipt:
        answer = read_answer(response)
        if response.is_success and (sid := answer.key("sid")):
            return Receipt(external_id=sid, status=DeliveryStatus.QUEUED)
        code = answer.integer("code") or 0
        told = f"channel {self.name!r}: Twilio answered {code or response.status_code}"
        remedy = _REMEDIES.get(code, "see https://www.twilio.com/docs/api/errors")
        raise refusal(response, told, code=code, remedy=remedy)


@hookimpl
def convsdk_channels(ctx: Context) -> Iterable[type[Channel]]:  # noqa: ARG001  (each hook takes it)
    """Give the Twilio channel."""
    return [TwilioChannel]
