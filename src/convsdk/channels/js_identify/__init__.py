"""Identification by JavaScript: the site knows who is logged in, and its page says so.

An identification, signed by a token that the site's backend made::

    {"id": "i1", "visitor": "v1", "email": "ann@shop.example", "token": "eyJ..."}

The token is a JWT (RFC 7519), HS256 only, with `exp`, `aud`, `visitor` (that of the body), `sub` or `external_id`, and
optionally `email`, `email_verified`, `name`, `company`, `traits`. Instead of it, `signature` can hold an HMAC-SHA256 in
hexadecimal digits, beside `external_id` and `expires` (seconds since 1970): it proves the external id only. Signed are
four lines, joined by a line feed: the audience, the visitor, `expires`, the external id. Neither is believed for longer
than a day ahead. What is not signed is a claim, and so is all of it where the signature is bad. The same `id` of the
same visitor again is a redelivery: a page that tries again with a new token takes a new one.
"""

from collections.abc import Iterable, Sequence
from typing import ClassVar

import structlog
from attrs import field, frozen
from attrs.validators import ge, max_len

from convsdk.channels.js_identify.parse import Keys, read
from convsdk.core.events import Event
from convsdk.core.ports import Capabilities, Channel, Request, Secret
from convsdk.hookspecs import Context, hookimpl

__all__ = ["JsIdentifyChannel", "JsIdentifySettings"]

_log = structlog.get_logger(__name__)

_SHORTEST_SECRET = 32
"""Bytes; RFC 7518, section 3.2: a key of HS256 is as long as its hash."""


def _are_strong(_: object, __: object, value: tuple[Secret, ...]) -> None:
    for index, secret in enumerate(value):
        if type(secret) is not Secret or len(secret.reveal().encode()) < _SHORTEST_SECRET:
            raise ValueError(f"secrets[{index}] is no Secret of {_SHORTEST_SECRET} bytes or more: make a longer one")
        # Whoever knows a public key could sign with it.
        if "-----BEGIN " in secret.reveal():
            raise ValueError(f"secrets[{index}] is a key in PEM format: make a random Secret instead")


def _can_be_met(settings: "JsIdentifySettings", _: object, value: bool) -> None:  # noqa: FBT001  (attrs calls it so)
    if value and not (settings.secrets and settings.audience):
        raise ValueError("require_signature is set, but there is nothing to check with: set secrets and audience")


@frozen(kw_only=True)
class JsIdentifySettings:
    """The settings of a channel for identification by JavaScript.

    `secrets`: any of them may sign, so that they can be rotated; each has 32 bytes or more. `audience`: for whom a
    token (its `aud`) or signature must be; without it none is believed. `namespace`: the scope of the site's user ids.
    `leeway_s`: by how many seconds clocks may differ. `require_signature`: whether what is not signed is left out.
    """

    secrets: tuple[Secret, ...] = field(default=(), validator=_are_strong)
    audience: str = ""
    namespace: str = field(default="", validator=max_len(255))
    leeway_s: int = field(default=30, validator=ge(0))
    require_signature: bool = field(default=False, validator=_can_be_met)


class JsIdentifyChannel(Channel):
    """What the pages of one site say about their visitors. It only identifies: messages come by other channels."""

    contract = 1
    type = "js_identify"
    settings = JsIdentifySettings
    can: ClassVar[Capabilities] = Capabilities(messages=False)

    config: JsIdentifySettings

    def parse(self, request: Request) -> Sequence[Event]:
        event, refusal = read(
            request.body,
            at=request.received_at,
            keys=Keys(secrets=self.config.secrets, audience=self.config.audience, leeway_s=self.config.leeway_s),
            namespace=self.config.namespace,
            require_signature=self.config.require_signature,
        )
        if refusal:
            # Neither the token, nor an address, nor the visitor's cookie: whoever reads the log could use them.
            _log.warning("signature not believed", channel=self.name, reason=refusal)
        return (event,)


@hookimpl
def convsdk_channels(ctx: Context) -> Iterable[type[Channel]]:  # noqa: ARG001  (each hook takes it)
    """Give the channel for identification by JavaScript."""
    return [JsIdentifyChannel]
