"""WhatsApp: a business's webhook in, and its answers out, by Meta's Cloud API.

Source: https://developers.facebook.com/documentation/business-messaging/whatsapp/messages/send-messages and
.../support/error-codes.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any

import httpx
from attrs import evolve, field, frozen
from attrs.validators import matches_re

from convsdk.core.answers import read_answer, refusal
from convsdk.core.events import DeliveryStatus, Event
from convsdk.core.identifiers import MessagingId
from convsdk.core.ports import Capabilities, Channel, Outbound, Receipt, Request, Response, Secret, is_secret, parts_of
from convsdk.core.signing import hmac_of, is_same, require_header
from convsdk.errors import Forbidden, PermanentError
from convsdk.hookspecs import Context, hookimpl
from convsdk_whatsapp.parse import USER, read_events

WINDOW = timedelta(hours=24)
"""How long after the person's last message anything but a template may be sent."""

_DASHBOARD = "copy it from the app's dashboard at Meta"
_MOST_TEXT_WITH_CHOICES = 1024
_BUTTONS, _BUTTON_LABEL = 3, 20
_ROWS, _ROW_LABEL, _ROW_ID = 10, 24, 256
_PICTURES_AND_FILMS = {"image/jpeg", "image/png", "video/mp4"}
_PASSING = {1, 2, 4, 80007, 130429, 131000, 131016, 131048, 131056, 133004}
_REMEDIES = {
    10: "the access token lacks a permission: whatsapp_business_messaging",
    190: "the access token is refused or has expired: make one of a system user, which does not expire",
    368: "the account is restricted: see the Business Manager",
    131026: "the person cannot be reached by WhatsApp: use another channel",
    131030: "a test number writes to numbers of its list only: add this one",
    131042: "the account's payment method does not work: see the Business Manager",
    131047: "the window is closed: send a template",
    131049: "WhatsApp holds back marketing to this person: do not repeat it",
    131050: "the person has stopped marketing messages: respect it",
    132001: "there is no such template in that language: see the Business Manager",
}


@frozen(kw_only=True)
class WhatsAppSettings:
    """What a business's numbers need to know.

    `app_secret` signs webhooks, `verify_token` is the one chosen for the set-up handshake, `access_token` sends.
    `phone_number_id` is the number that writes first. `business` is the portfolio's id, the scope of user ids: give it
    where several accounts share it. `list_button` opens a list of choices, in your customers' language.
    """

    app_secret: Secret = field(validator=is_secret(_DASHBOARD))
    verify_token: Secret = field(validator=is_secret(_DASHBOARD))
    access_token: Secret = field(validator=is_secret(_DASHBOARD))
    phone_number_id: str = field(validator=matches_re("[0-9]{5,30}"))
    business: str = field(default="", validator=matches_re("[0-9]{0,30}"))
    list_button: str = field(default="Choose", validator=matches_re(".{1,20}"))
    api: str = "https://graph.facebook.com/v23.0"


class WhatsAppChannel(Channel):
    """The numbers of one app's WhatsApp business accounts."""

    contract = 1
    type = "whatsapp"
    settings = WhatsAppSettings
    kinds = (MessagingId(USER),)
    can = Capabilities(
        **dict.fromkeys(("verifies", "challenges", "sends", "attachments", "reactions", "statuses"), True),
        max_text=4096,
        text_size=len,
        sends_files_apart=True,
        max_per_s=80,
    )
    config: WhatsAppSettings

    def challenge(self, request: Request) -> Response | None:
        if request.method.upper() != "GET" or request.query.get("hub.mode") != "subscribe":
            return None
        if not is_same(request.query.get("hub.verify_token", ""), self.config.verify_token.reveal()):
            raise Forbidden(f"channel {self.name!r}: the handshake's verify token is not the configured one")
        return Response(body=request.query.get("hub.challenge", "").encode("utf-8", "replace"))

    def verify(self, request: Request) -> None:
        right = f"sha256={hmac_of(request.body, self.config.app_secret)}"
        require_header(request, "X-Hub-Signature-256", right, channel=self.name)

    def parse(self, request: Request) -> Sequence[Event]:
        return read_events(request.body, business=self.config.business, received_at=request.received_at)

    def parts(self, message: Outbound) -> Sequence[Outbound]:
        """Give the parts: a template goes alone, and a text with buttons may be less long."""
        if message.detail.get("template"):
            return [evolve(message, attachments=())]
        if "interactive" in _content(evolve(message, attachments=()), self.config.list_button):
            return parts_of(message, evolve(self.can, max_text=_MOST_TEXT_WITH_CHOICES))
        return parts_of(evolve(message, text=message.spelt_out, detail={**message.detail, "choices": ()}), self.can)

    def build(self, message: Outbound) -> httpx.Request:
        message.require_kind(USER, "phone")
        template = message.detail.get("template")
        if not template:
            message.require_content()
            _require_window(message)
        sender, _, person = message.thread.rpartition("/")  # who was written to answers, and the number as it wrote
        key, whom = ("recipient", "") if message.to.kind == USER else ("to", person)
        content = _template(template) if template else _content(message, self.config.list_button)
        fields = {
            "messaging_product": "whatsapp",
            "recipient_type": "individual",
            key: whom or message.to.value.lstrip("+"),
            "type": next(iter(content)),
            **content,
            "biz_opaque_callback_data": message.token,  # comes back with each status
        }
        url = f"{self.config.api}/{sender or self.config.phone_number_id}/messages"
        headers = {"authorization": f"Bearer {self.config.access_token.reveal()}"}
        return httpx.Request("POST", url, json=fields, headers=headers)

    def interpret(self, response: httpx.Response) -> Receipt:
        answer = read_answer(response)
        sent = next((one.key("id") for one in answer.items("messages")), "")
        if response.is_success and sent:
            return Receipt(external_id=sent, status=DeliveryStatus.QUEUED)
        code = answer.fields("error").integer("code") or 0
        said = f"channel {self.name!r}: WhatsApp answered {code or response.status_code}"
        remedy = _REMEDIES.get(code, "see the error codes of the Cloud API")
        raise refusal(response, said, code=code, is_passing=code in _PASSING, remedy=remedy)


def _require_window(message: Outbound) -> None:
    if not message.is_within(WINDOW):
        heard = message.heard_at
        why = f"'s window was open until {heard + WINDOW:%Y-%m-%d %H:%M %Z}" if heard else " has not written yet"
        raise PermanentError(f"{message.to}{why}: only a template can be sent, as detail['template']", code="131047")


def _template(given: object) -> dict[str, Any]:
    """Give a template: its `name`, the code of its `language`, and its `components` as the Cloud API has them."""
    if not isinstance(given, Mapping) or not {"name", "language"} <= given.keys():
        raise PermanentError("nothing was sent: give the template its name and its language")
    return {"template": {**given, "language": {"code": given["language"]}}}


def _content(message: Outbound, list_button: str) -> dict[str, Any]:
    if message.attachments:
        return _file(message)
    rows = [{"id": choice.payload, "title": choice.label} for choice in message.choices]
    longest = max((len(row["title"]) for row in rows), default=0)
    if not 0 < len(rows) <= _ROWS or longest > _ROW_LABEL or any(len(row["id"]) > _ROW_ID for row in rows):
        return {"text": {"body": message.spelt_out, "preview_url": False}}
    kind, action = "list", {"button": list_button, "sections": [{"rows": rows}]}
    if len(rows) <= _BUTTONS and longest <= _BUTTON_LABEL:
        kind, action = "button", {"buttons": [{"type": "reply", "reply": row} for row in rows]}
    return {"interactive": {"type": kind, "body": {"text": message.text}, "action": action}}


def _file(message: Outbound) -> dict[str, Any]:
    file = message.attachments[0]
    if not file.url:
        raise PermanentError(f"{message.to} was not sent {file.name!r}: WhatsApp fetches files by their url")
    sort = file.media_type.partition("/")[0]
    kind = sort if file.media_type in _PICTURES_AND_FILMS or sort == "audio" else "document"
    return {kind: {"link": file.url} | ({"filename": file.name} if kind == "document" else {})}


@hookimpl
def convsdk_channels(ctx: Context) -> Iterable[type[Channel]]:  # noqa: ARG001  (each hook takes it)
    """Give the WhatsApp channel."""
    return [WhatsAppChannel]
