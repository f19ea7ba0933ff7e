"""Facebook Messenger: signed webhooks in; contacts by an agent's entry or, where set so, at the first message."""

import hashlib
import hmac
import re
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Literal

from attrs import field, frozen

from convsdk.channels.messenger.parse import PSID, read_events
from convsdk.core.events import Event, Identified
from convsdk.core.identifiers import EmailAddress, IdentifierKind, MessagingId
from convsdk.core.model import Claim, IdentityHint, Trait, Trust
from convsdk.core.ports import Capabilities, Channel, Request, Response, Secret
from convsdk.errors import Forbidden
from convsdk.hookspecs import Context, hookimpl

_SIGNATURE_HEADER = "X-Hub-Signature-256"
_SIGNATURE = re.compile(r"sha256=([0-9a-f]{64})", re.ASCII)
_CONTACT_FROM = ("manual", "first_message")


def _is_secret(_: object, attribute: Any, value: Secret) -> None:  # noqa: ANN401  (attrs' own, generic)
    # attrs' own validators would print the value. An empty key would let everybody sign.
    if type(value) is not Secret or not value.reveal().strip():
        message = f"{attribute.name} must be a secret that is not empty: copy it from the app's dashboard at Meta"
        raise ValueError(message)


def _is_way(_: object, attribute: Any, value: object) -> None:  # noqa: ANN401  (as above)
    if value not in _CONTACT_FROM:
        message = f'{attribute.name} must be "manual" or "first_message", not {value!r}'
        raise ValueError(message)


@frozen(kw_only=True)
class MessengerSettings:
    """What a Messenger channel needs to know.

    `app_secret` is the app's own, which signs webhooks; `verify_token` the one chosen for the set-up handshake.
    `contact_from` says when a person becomes a contact: "manual" (an agent enters them) or "first_message".
    """

    app_secret: Secret = field(validator=_is_secret)
    verify_token: Secret = field(validator=_is_secret)
    contact_from: Literal["manual", "first_message"] = field(default="manual", validator=_is_way)


class MessengerChannel(Channel):
    """One Meta app's webhook, for any number of its pages."""

    type = "messenger"
    settings = MessengerSettings
    can = Capabilities(
        verifies=True, challenges=True, messages=True, attachments=True, reactions=True, statuses=True, echoes=True
    )
    config: MessengerSettings

    def challenge(self, request: Request) -> Response | None:
        if request.method.upper() != "GET" or request.query.get("hub.mode") != "subscribe":
            return None
        if not _is_same(request.query.get("hub.verify_token", ""), self.config.verify_token.reveal()):
            raise Forbidden(f"channel {self.name!r}: the handshake's verify token is not the configured one")
        return Response(body=request.query.get("hub.challenge", "").encode("utf-8", "replace"))

    def verify(self, request: Request) -> None:
        given = request.headers.all(_SIGNATURE_HEADER)
        signature = _SIGNATURE.fullmatch(given[0]) if len(given) == 1 else None
        if signature is None:
            raise Forbidden(f"channel {self.name!r}: {_SIGNATURE_HEADER} is missing, repeated or malformed")
        expected = hmac.new(self.config.app_secret.reveal().encode(), request.body, hashlib.sha256).hexdigest()
        if not _is_same(signature[1], expected):
            raise Forbidden(f"channel {self.name!r}: {_SIGNATURE_HEADER} does not match the body")

    def parse(self, request: Request) -> Sequence[Event]:
        return read_events(
            request.body,
            received_at=request.received_at,
            may_create=self.config.contact_from == "first_message",
        )

    def manual_entry(
        self,
        *,
        page: str,
        psid: str,
        by: str,
        at: datetime,
        entry_id: str,
        email: str = "",
        phone: str = "",
        name: str = "",
        company: str = "",
    ) -> Identified:
        """Give the event for what an agent typed into the visitor details of a Messenger conversation.

        It goes to `Hub.receive` under this channel's name, and makes the contact or joins the one that is known.
        `by` names the agent, `entry_id` is the caller's id of this entry (sending it twice changes nothing), `at` an
        aware datetime. Fields that are left blank say nothing.

        Raises:
            ValueError: the entry has no id, person or agent, or its address is none; the text names the field.
        """
        for field_name, value in (("page", page), ("psid", psid), ("by", by), ("entry_id", entry_id)):
            if not value.strip():
                raise ValueError(f"{field_name} of a manual entry is blank: give it")
        if email.strip() and EmailAddress().canonical(email) is None:
            raise ValueError(f"email of a manual entry is {email!r}, which is no e-mail address: correct it")
        points = (("email", email), ("phone", phone))
        traits = (("name", name), ("company", company))
        hint = IdentityHint(
            at=at,
            identifiers=(
                Claim(PSID, psid, Trust.CHANNEL, scope=page),
                *(Claim(kind, value.strip(), Trust.AGENT) for kind, value in points if value.strip()),
            ),
            traits=tuple(Trait(kind, value.strip(), Trust.AGENT) for kind, value in traits if value.strip()),
            how="manual entry",
            by=by,
        )
        return Identified(external_id=entry_id, thread=f"{page}/{psid}", hint=hint)


def _is_same(given: str, wanted: str) -> bool:
    # As bytes: compare_digest refuses other texts than ASCII, and a request can hold anything.
    return hmac.compare_digest(given.encode("utf-8", "surrogatepass"), wanted.encode("utf-8", "surrogatepass"))


@hookimpl
def convsdk_channels(ctx: Context) -> Iterable[type[Channel]]:  # noqa: ARG001
    """Give the Messenger channel."""
    return [MessengerChannel]


@hookimpl
def convsdk_identifier_kinds(ctx: Context) -> Iterable[IdentifierKind]:  # noqa: ARG001
    """Give the page-scoped id."""
    return [MessagingId(PSID)]
