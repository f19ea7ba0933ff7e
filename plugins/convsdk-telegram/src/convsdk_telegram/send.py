"""Calls of the Bot API that deliver a message, and what their answers mean."""

import hashlib
from collections.abc import Sequence
from typing import Any

import httpx
from attrs import evolve

from convsdk.core.ports import Outbound, Receipt
from convsdk.core.texts import pieces_of
from convsdk.errors import PermanentError, TransientError, UncertainError
from convsdk_telegram.bot import Bot, read_answer
from convsdk_telegram.parse import USER

MOST_UNITS = 4096
"""How long a text may be, in UTF-16 units, as `sendMessage` counts."""

_MOST_DATA_BYTES = 64
_MOST_PHOTO_BYTES = 10_000_000
_PHOTOS = {"image/jpeg", "image/png", "image/webp"}
_REMEDIES = {
    400: "correct the message; a chat that is not found has never written to this bot",
    401: "the bot's token is refused: copy it again from @BotFather",
    403: "the person has blocked the bot or is gone: only they can begin again",
    404: "the bot's token is unknown: copy it again from @BotFather",
    413: "the file is too large for a bot: send a link",
}


def parts_of(message: Outbound) -> Sequence[Outbound]:
    """Give the texts, then each file, as messages of their own; the buttons go with the last text."""
    texts = (
        pieces_of(message.text, most=MOST_UNITS, size=_units) if message.text.strip() or not message.attachments else ()
    )
    bare = evolve(message, attachments=(), detail={})
    parts = [
        *(evolve(bare, text=text, detail=message.detail if text is texts[-1] else {}) for text in texts),
        *(evolve(bare, text="", attachments=(file,)) for file in message.attachments),
    ]
    return [evolve(part, token=f"{part.token}.{n}" if n else part.token) for n, part in enumerate(parts)]


def _units(text: str) -> int:
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def build_request(message: Outbound, bot: Bot) -> httpx.Request:
    """Give the call that delivers `message`, a part. Raises `PermanentError` where there is nothing in it."""
    if not message.thread and message.to.kind != USER:
        raise PermanentError(f"{message.to} is no user of Telegram: write by the channel that knows them")
    fields: dict[str, Any] = {"chat_id": message.thread or message.to.value}
    if message.attachments:
        method, files = _upload(message)
        # httpx would draw a boundary: this one is unguessable as well, and the same at every try.
        boundary = hashlib.sha256(message.token.encode()).hexdigest()
        headers = {"content-type": f"multipart/form-data; boundary={boundary}"}
        return bot.call(method, data=fields, files=files, headers=headers)
    if not message.text.strip():
        raise PermanentError(f"a message to {message.to} has neither a text nor a file: nothing was sent")
    return bot.call("sendMessage", json=fields | {"text": message.text, **_keyboard(message.detail)})


def _upload(message: Outbound) -> tuple[str, dict[str, Any]]:
    file = message.attachments[0]
    is_photo = file.media_type in _PHOTOS and len(file.content) <= _MOST_PHOTO_BYTES
    name = "photo" if is_photo else "document"
    return f"send{name.capitalize()}", {name: (file.name, file.content, file.media_type)}


def _keyboard(detail: Any) -> dict[str, Any]:  # noqa: ANN401  (plain JSON values)
    """Give the choices as buttons under the message, or as keys where one is too long for a button."""
    choices = detail.get("choices") or ()
    data = [f"{detail.get('block', '')}:{choice['value']}" for choice in choices]
    if not choices:
        return {}
    if detail.get("keyboard") == "reply" or any(len(one.encode()) > _MOST_DATA_BYTES for one in data):
        keys = [[{"text": choice["label"]}] for choice in choices]
        return {"reply_markup": {"keyboard": keys, "one_time_keyboard": True, "resize_keyboard": True}}
    rows = [[{"text": choice["label"], "callback_data": one}] for choice, one in zip(choices, data, strict=True)]
    return {"reply_markup": {"inline_keyboard": rows}}


def migrated_to(response: httpx.Response) -> str:
    """Give the id of the supergroup that the chat has become, or an empty text."""
    return str(read_answer(response).parameters.get("migrate_to_chat_id", ""))


def read_receipt(response: httpx.Response, *, channel: str) -> Receipt:
    """Give the receipt, or raise what the answer means; no error shows the request."""
    answer = read_answer(response)
    sent = answer.result if isinstance(answer.result, dict) else {}
    if answer.ok and isinstance(sent.get("chat"), dict) and sent.get("message_id"):
        return Receipt(external_id=f"{sent['chat'].get('id')}/{sent['message_id']}")
    if answer.ok and answer.result is True:  # what was asked for is done, and no message
        return Receipt()
    code = answer.error_code or response.status_code
    said = f"channel {channel!r}: Telegram answered {code} {answer.description[:200]!r}"
    if response.is_success or (response.is_server_error and not answer.error_code):  # what stands between said it
        raise UncertainError(f"{said}: look into the chat before it is sent again")
    if code == httpx.codes.TOO_MANY_REQUESTS or code >= httpx.codes.INTERNAL_SERVER_ERROR:
        raise TransientError(said, retry_after_s=answer.parameters.get("retry_after"))
    raise PermanentError(f"{said}: {_REMEDIES.get(code, 'see the Bot API')}", code=str(code))
