"""Calls of the Cloud API that deliver a message, and what their answers mean.

Source: https://developers.facebook.com/documentation/business-messaging/whatsapp/messages/send-messages and
.../support/error-codes.
"""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

import httpx
import msgspec
from attrs import evolve

from convsdk.core.events import DeliveryStatus
from convsdk.core.ports import File, Outbound, Receipt, Secret
from convsdk.core.texts import pieces_of
from convsdk.errors import PermanentError, TransientError, UncertainError
from convsdk_whatsapp.parse import USER

MOST_TEXT = 4096
WINDOW = timedelta(hours=24)
"""How long after the person's last message anything but a template may be sent."""

_MOST_TEXT_WITH_CHOICES = 1024
_BUTTONS, _BUTTON_LABEL = 3, 20
_ROWS, _ROW_LABEL = 10, 24
_MOST_ID = 256
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


class _Error(msgspec.Struct):
    code: int = 0


class _Answer(msgspec.Struct):
    messages: list[dict[str, Any]] = []
    error: _Error = msgspec.field(default_factory=_Error)


def parts_of(message: Outbound) -> Sequence[Outbound]:
    """Give the texts, then each file, as messages of their own; choices go with the last text, a template alone."""
    if message.detail.get("template"):
        return [evolve(message, attachments=())]
    most = _MOST_TEXT_WITH_CHOICES if message.detail.get("choices") else MOST_TEXT
    texts = pieces_of(message.text, most=most) if message.text.strip() or not message.attachments else ()
    bare = evolve(message, attachments=(), detail={})
    parts = [
        *(evolve(bare, text=text) for text in texts[:-1]),
        *(evolve(bare, text=text, detail=message.detail) for text in texts[-1:]),
        *(evolve(bare, text="", attachments=(file,)) for file in message.attachments),
    ]
    return [evolve(part, token=f"{part.token}.{n}" if n else part.token) for n, part in enumerate(parts)]


def build_request(message: Outbound, *, api: str, token: Secret, number: str, list_button: str) -> httpx.Request:
    """Give the call that delivers `message`, a part. Raises `PermanentError` where WhatsApp would not take it."""
    if message.to.kind not in {USER, "phone"}:
        raise PermanentError(f"{message.to} has no WhatsApp: write by the channel that knows them")
    template = message.detail.get("template")
    if not template:
        _require_window(message)
    to = {"recipient": message.to.value} if message.to.kind == USER else {"to": message.to.value.lstrip("+")}
    content = {"template": _template(template)} if template else _content(message, list_button)
    fields = {
        "messaging_product": "whatsapp",
        "recipient_type": "individual",
        **to,
        "type": next(iter(content)),
        **content,
        "biz_opaque_callback_data": message.token,  # comes back with each status
    }
    sender = message.thread.rpartition("/")[0] or number  # who was written to answers
    headers = {"authorization": f"Bearer {token.reveal()}"}
    return httpx.Request("POST", f"{api}/{sender}/messages", json=fields, headers=headers)


def _require_window(message: Outbound) -> None:
    if message.heard_at is None:
        why = f"{message.to} has not written yet"
    elif message.at >= message.heard_at + WINDOW:
        why = f"the window of {message.to} was open until {message.heard_at + WINDOW:%Y-%m-%d %H:%M %Z}"
    else:
        return
    raise PermanentError(f"{why}: only a template can be sent, as detail['template']", code="131047")


def _template(given: Mapping[str, Any]) -> dict[str, Any]:
    """Give a template: its `name`, the code of its `language`, and its `components` as the Cloud API has them."""
    named = {"name": given["name"], "language": {"code": given["language"]}}
    return named | ({"components": given["components"]} if given.get("components") else {})


def _content(message: Outbound, list_button: str) -> dict[str, Any]:
    if message.attachments:
        return _file(message.attachments[0], message)
    if not message.text.strip():
        raise PermanentError(f"a message to {message.to} has neither a text nor a file: nothing was sent")
    choices = message.detail.get("choices") or ()
    labels = [choice["label"] for choice in choices]
    ids = [f"{message.detail.get('block', '')}:{choice['value']}" for choice in choices]
    rows = [{"id": one, "title": label} for one, label in zip(ids, labels, strict=True)]
    longest = max(map(len, labels), default=0)
    if not choices or len(choices) > _ROWS or longest > _ROW_LABEL or max(map(len, ids)) > _MOST_ID:
        text = "\n".join([message.text, *(f"- {label}" for label in labels)])
        return {"text": {"body": text, "preview_url": False}}
    kind, action = "list", {"button": list_button, "sections": [{"rows": rows}]}
    if len(choices) <= _BUTTONS and longest <= _BUTTON_LABEL:
        kind, action = "button", {"buttons": [{"type": "reply", "reply": row} for row in rows]}
    return {"interactive": {"type": kind, "body": {"text": message.text}, "action": action}}


def _file(file: File, message: Outbound) -> dict[str, Any]:
    if not file.url:
        raise PermanentError(f"{message.to} was not sent {file.name!r}: WhatsApp fetches files by their url")
    sort = file.media_type.partition("/")[0]
    kind = sort if file.media_type in {"image/jpeg", "image/png", "video/mp4"} or sort == "audio" else "document"
    return {kind: {"link": file.url} | ({"filename": file.name} if kind == "document" else {})}


def read_receipt(response: httpx.Response, *, channel: str) -> Receipt:
    """Give the receipt with WhatsApp's id, or raise what the answer means; no error shows the request."""
    answer, status = _answer(response), response.status_code
    sent = str(answer.messages[0].get("id", "")) if answer.messages else ""
    if response.is_success and sent:
        return Receipt(external_id=sent, status=DeliveryStatus.QUEUED)
    code = answer.error.code or status
    said = f"channel {channel!r}: WhatsApp answered {code}"
    if response.is_success or (response.is_server_error and not answer.error.code):  # what stands between said it
        raise UncertainError(f"{said} and no id: wait for a status of the message")
    if code in _PASSING or status == httpx.codes.TOO_MANY_REQUESTS or response.is_server_error:
        pause = response.headers.get("retry-after", "")
        raise TransientError(said, retry_after_s=float(pause) if pause.isdecimal() else None)
    raise PermanentError(f"{said}: {_REMEDIES.get(code, 'see the error codes of the Cloud API')}", code=str(code))


def _answer(response: httpx.Response) -> _Answer:
    try:
        return msgspec.json.decode(response.content, type=_Answer)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return _Answer()
