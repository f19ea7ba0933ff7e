"""WhatsApp: a business's webhook in, and its answers out, by Meta's Cloud API."""

import hashlib
import hmac
from collections.abc import Iterable, Sequence
from typing import Any

import httpx
from attrs import field, frozen
from attrs.validators import matches_re

from convsdk.core.events import Event
from convsdk.core.identifiers import IdentifierKind, MessagingId
from convsdk.core.ports import Capabilities, Channel, Outbound, Receipt, Request, Response, Secret
from convsdk.errors import Forbidden
from convsdk.hookspecs import Context, hookimpl
from convsdk_whatsapp.parse import USER, read_events
from convsdk_whatsapp.send import MOST_TEXT, build_request, parts_of, read_receipt

_HEADER = "X-Hub-Signature-256"


def _is_secret(_: object, attribute: Any, value: Secret) -> None:  # noqa: ANN401  (attrs' own, generic)
    # attrs' own validators would print the value. An empty key would let everybody sign.
    if type(value) is not Secret or not value.reveal().strip():
        raise ValueError(
            f"{attribute.name} must be a secret that is not empty: copy it from the app's dashboard at Meta"
        )


@frozen(kw_only=True)
class WhatsAppSettings:
    """What a business's numbers need to know.

    `app_secret` signs webhooks, `verify_token` is the one chosen for the set-up handshake, `access_token` sends.
    `phone_number_id` is the number that writes first. `business` is the portfolio's id, the scope of user ids: give it
    where several accounts share it. `list_button` opens a list of choices, in your customers' language.
    """

    app_secret: Secret = field(validator=_is_secret)
    verify_token: Secret = field(validator=_is_secret)
    access_token: Secret = field(validator=_is_secret)
    phone_number_id: str = field(validator=matches_re("[0-9]{5,30}"))
    business: str = field(default="", validator=matches_re("[0-9]{0,30}"))
    list_button: str = field(default="Choose", validator=matches_re(".{1,20}"))
    api: str = "https://graph.facebook.com/v23.0"


class WhatsAppChannel(Channel):
    """The numbers of one app's WhatsApp business accounts."""

    contract = 1
    type = "whatsapp"
    settings = WhatsAppSettings
    can = Capabilities(
        **dict.fromkeys(("verifies", "challenges", "sends", "attachments", "reactions", "statuses"), True),
        max_text=MOST_TEXT,
        max_per_s=80,
    )
    config: WhatsAppSettings

    def challenge(self, request: Request) -> Response | None:
        if request.method.upper() != "GET" or request.query.get("hub.mode") != "subscribe":
            return None
        if not _is_same(request.query.get("hub.verify_token", ""), self.config.verify_token.reveal()):
            raise Forbidden(f"channel {self.name!r}: the handshake's verify token is not the configured one")
        return Response(body=request.query.get("hub.challenge", "").encode("utf-8", "replace"))

    def verify(self, request: Request) -> None:
        given = request.headers.all(_HEADER)
        signature = hmac.new(self.config.app_secret.reveal().encode(), request.body, hashlib.sha256).hexdigest()
        if len(given) != 1 or not _is_same(given[0], f"sha256={signature}"):
            raise Forbidden(f"channel {self.name!r}: {_HEADER} is missing, repeated or wrong")

    def parse(self, request: Request) -> Sequence[Event]:
        return read_events(request.body, business=self.config.business, received_at=request.received_at)

    def parts(self, message: Outbound) -> Sequence[Outbound]:
        return parts_of(message)

    def build(self, message: Outbound) -> httpx.Request:
        return build_request(
            message,
            api=self.config.api,
            token=self.config.access_token,
            number=self.config.phone_number_id,
            list_button=self.config.list_button,
        )

    def interpret(self, response: httpx.Response) -> Receipt:
        return read_receipt(response, channel=self.name)


def _is_same(given: str, wanted: str) -> bool:
    # As bytes: compare_digest refuses other texts than ASCII, and a request can hold anything.
    return hmac.compare_digest(given.encode("utf-8", "surrogatepass"), wanted.encode("utf-8", "surrogatepass"))


@hookimpl
def convsdk_channels(ctx: Context) -> Iterable[type[Channel]]:  # noqa: ARG001  (each hook takes it)
    """Give the WhatsApp channel."""
    return [WhatsAppChannel]


@hookimpl
def convsdk_identifier_kinds(ctx: Context) -> Iterable[IdentifierKind]:  # noqa: ARG001  (as above)
    """Give the id of a user as a business sees it."""
    return [MessagingId(USER)]
