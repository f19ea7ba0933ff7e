"""The web chat: openings, messages and form submissions that the widget, or the site's own server, posts as JSON.

An opening, a message and a form::

    {"type": "open", "id": "o1", "visitor": "v1", "conversation": "c1"}

    {"type": "message", "id": "m1", "visitor": "v1", "conversation": "c1", "text": "Hello"}
    {
        "type": "form",
        "id": "f1",
        "visitor": "v1",
        "conversation": "c1",
        "form": "contact",
        "fields": {"email": "ann@shop.example", "phone": "", "account": "Shop", "name": "Ann"},
    }

Each visitor chooses the `id`s, and the same one again is a redelivery. A message can have `attachments` (`name`,
`media_type`, `size`, `url`) and an `identity` (fields as in a form). A message or form that answers a block of the bot
automation names it as `block`, and the value of the button that was pressed as `choice`. All that a visitor types is a
claim: nothing here is proof of who they are.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar

import msgspec
from attrs import asdict, evolve, field, frozen
from attrs.validators import instance_of, optional

from convsdk.channels.chat.parse import read, sent_id
from convsdk.core.events import Event, FormRejected
from convsdk.core.flow import Flow
from convsdk.core.forms import Form
from convsdk.core.ports import Capabilities, Channel, Request, Response, Secret, Widget
from convsdk.core.signing import hmac_of, require_header
from convsdk.hookspecs import Context, hookimpl

__all__ = ["ChatChannel", "ChatSettings", "Form"]

SIGNATURE = "X-Convsdk-Signature"


def _is_secret(_: object, __: object, value: Secret | None) -> None:
    # The value is not told: it may be a secret that was given as plain text.
    if value is not None and (type(value) is not Secret or not value.reveal().strip()):
        raise ValueError("secret is blank or no Secret: give one, or leave the setting out")


def _is_country(_: object, __: object, value: str) -> None:
    if not re.fullmatch("([A-Z]{2})?", value):
        raise ValueError("country is no ISO 3166 code: set it to two capital letters, such as 'DE'")


@frozen(kw_only=True)
class ChatSettings:
    """The settings of a chat channel.

    `secret`: where it is set, each request carries `X-Convsdk-Signature: sha256=` and the HMAC-SHA256 of the raw
    body in hexadecimal digits. `country`: in which national phone numbers are read. `forms`: the forms by name;
    without any, a form of any name requires the e-mail address and takes the other fields. `widget`: how the chat
    widget shows it. `bot`: the bot automation, which shows these forms. `follow_up`: the e-mail channel by which
    visitors are answered who are not there any more; empty: they read it in the widget when they come back.
    """

    secret: Secret | None = field(default=None, validator=_is_secret)
    country: str = field(default="", validator=_is_country)
    forms: Mapping[str, Form] = field(factory=dict)
    widget: Widget = field(factory=Widget)
    bot: Flow | None = field(default=None, validator=optional(instance_of(Flow)))
    follow_up: str = ""

    def __attrs_post_init__(self) -> None:
        if self.bot:
            object.__setattr__(self, "bot", evolve(self.bot, forms=self.forms))


class ChatChannel(Channel):
    """The web chat of one site."""

    contract = 1
    type = "chat"
    settings = ChatSettings
    can: ClassVar[Capabilities] = Capabilities(verifies=True, attachments=True)

    config: ChatSettings

    @property
    def is_webhook(self) -> bool:
        return self.config.secret is not None  # else anybody could post there, past all that the widget's door checks

    @property
    def widget(self) -> Widget:
        return self.config.widget

    @property
    def follow_up(self) -> str:
        return self.config.follow_up

    @property
    def forms(self) -> Mapping[str, Form]:
        return self.config.forms

    @property
    def bot(self) -> Flow | None:
        return self.config.bot

    def verify(self, request: Request) -> None:
        if self.config.secret is None:
            return
        right = f"sha256={hmac_of(request.body, self.config.secret)}"
        require_header(request, SIGNATURE, right, channel=self.name, remedy="sign the raw body")

    def parse(self, request: Request) -> Sequence[Event]:
        return read(request.body, at=request.received_at, country=self.config.country, forms=self.config.forms)

    def answer(self, events: Sequence[Event]) -> Response:
        """Give the ids that were taken (200), or what is wrong with each field of a form (422).

        Whether an address is known makes no difference to the answer.
        """
        rejected = [event for event in events if isinstance(event, FormRejected)]
        accepted = [sent_id(event) for event in events if not isinstance(event, FormRejected)]
        if not rejected:
            return _json(200, {"accepted": accepted})
        answer: dict[str, object] = {"problems": _problems(rejected)}
        return _json(422, answer | {"accepted": accepted} if accepted else answer)


def _problems(rejected: Iterable[FormRejected]) -> dict[str, list[dict[str, str]]]:
    return {sent_id(one): [asdict(problem) for problem in one.problems] for one in rejected}


def _json(status: int, content: dict[str, object] | dict[str, list[str]]) -> Response:
    return Response(status=status, body=msgspec.json.encode(content), media_type="application/json")


@hookimpl
def convsdk_channels(ctx: Context) -> Iterable[type[Channel]]:  # noqa: ARG001  (each hook takes it)
    """Give the chat channel."""
    return [ChatChannel]
