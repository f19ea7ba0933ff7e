"""The call of Twilio's Messages API (https://www.twilio.com/docs/messaging/api/message-resource), and its answer."""

import base64
from urllib.parse import urlencode

import httpx
import msgspec

from convsdk.core.events import DeliveryStatus
from convsdk.core.ports import Outbound, Receipt, Secret
from convsdk.errors import PermanentError, TransientError, UncertainError

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


class _Answer(msgspec.Struct):
    sid: str = ""
    code: int = 0


def build_request(message: Outbound, *, url: str, key: tuple[str, Secret], fields: dict[str, str]) -> httpx.Request:
    """Give the POST to `url` that delivers `message`, a part, with the `fields` of the channel beside its own.

    Raises `PermanentError` where Twilio would take no such message.
    """
    recipient, _, person = message.thread.partition("/")
    sender = {"From": recipient} if person else {}  # who was written to answers
    if not person and message.to.kind != "phone":
        raise PermanentError(f"{message.to} has no number: write by the channel that knows them")
    media = [file.url for file in message.attachments]
    if not all(media) or len(media) > _MOST_MEDIA:
        raise PermanentError(
            f"{message.to} was not written to: Twilio fetches up to {_MOST_MEDIA} files, each by its url"
        )
    if not message.text.strip() and not media:
        raise PermanentError(f"a message to {message.to} has neither a text nor a file: nothing was sent")
    pairs = {"To": person or message.to.value, **fields, **sender, "Body": message.text}
    content = urlencode([*pairs.items(), *(("MediaUrl", one) for one in media)])
    headers = {
        "authorization": f"Basic {base64.b64encode(f'{key[0]}:{key[1].reveal()}'.encode()).decode()}",
        "content-type": "application/x-www-form-urlencoded",
    }
    return httpx.Request("POST", url, content=content, headers=headers)


def read_receipt(response: httpx.Response, *, channel: str) -> Receipt:
    """Give the receipt with the message's SID, or raise what the answer means; no error shows the request."""
    answer, status = _answer(response), response.status_code
    if response.is_success and answer.sid:
        return Receipt(external_id=answer.sid, status=DeliveryStatus.QUEUED)
    said = f"channel {channel!r}: Twilio answered {answer.code or status}"
    if response.is_success or (response.is_server_error and not answer.code):  # what stands between said it
        raise UncertainError(f"{said} and no SID: look into its log before it is sent again")
    if status == httpx.codes.TOO_MANY_REQUESTS or response.is_server_error:
        pause = response.headers.get("retry-after", "")
        raise TransientError(said, retry_after_s=float(pause) if pause.isdecimal() else None)
    remedy = _REMEDIES.get(answer.code, "see https://www.twilio.com/docs/api/errors")
    raise PermanentError(f"{said}: {remedy}", code=str(answer.code or status))


def _answer(response: httpx.Response) -> _Answer:
    try:
        return msgspec.json.decode(response.content, type=_Answer)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return _Answer()
