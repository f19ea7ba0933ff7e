"""Telegram: a bot's webhook in, and its answers out, by the Bot API (https://core.telegram.org/bots/api)."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import httpx
from attrs import evolve, field, frozen
from attrs.validators import deep_iterable, in_, min_len

from convsdk.core.answers import read_answer, refusal
from convsdk.core.events import Event, MessageReceived
from convsdk.core.identifiers import MessagingId
from convsdk.core.payloads import Fields
from convsdk.core.ports import Capabilities, Channel, Check, Outbound, Receipt, Request, Response, Secret, is_secret
from convsdk.core.signing import require_header
from convsdk.core.texts import utf16_units
from convsdk.hookspecs import Context, hookimpl
from convsdk_telegram.parse import UPDATES, USER, read_events

_CHATS = ("private", "group", "supergroup", "channel")
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


@frozen(kw_only=True)
class TelegramSettings:
    """What a bot needs to know.

    `token` is the bot's own, from @BotFather; `secret_token` the one that `setWebhook` was told. `chats` are the types
    of chat that are read: private ones, unless groups and channels are named. `api` is the origin of the Bot API.
    """

    token: Secret = field(validator=is_secret("copy it from @BotFather", pattern=r"\d{3,20}:[\w-]{30,100}"))
    secret_token: Secret = field(validator=is_secret("choose 16 to 256 of a-z, 0-9 and _", pattern=r"[\w-]{16,256}"))
    chats: tuple[str, ...] = field(default=("private",), validator=[min_len(1), deep_iterable(in_(_CHATS))])
    api: str = "https://api.telegram.org"


class TelegramChannel(Channel):
    """One bot."""

    contract = 1
    type = "telegram"
    settings = TelegramSettings
    kinds = (MessagingId(USER),)
    can = Capabilities(
        **dict.fromkeys(("verifies", "sends", "attachments", "reactions", "sends_files_apart"), True),
        max_text=4096,
        text_size=utf16_units,
        max_per_s=30,
    )
    config: TelegramSettings

    def verify(self, request: Request) -> None:
        right = self.config.secret_token.reveal()
        require_header(request, "X-Telegram-Bot-Api-Secret-Token", right, channel=self.name)

    def parse(self, request: Request) -> Sequence[Event]:
        bot = self.config.token.reveal().partition(":")[0]
        return read_events(request.body, bot=bot, chats=self.config.chats, received_at=request.received_at)

    def answer(self, events: Sequence[Event]) -> Response:
        """End the wait that Telegram shows at a button that was pressed: a webhook may be answered with a call."""
        for event in events:
            if isinstance(event, MessageReceived) and (query := event.detail.get("callback_query")):
                call = {"method": "answerCallbackQuery", "callback_query_id": query}
                return Response(body=json.dumps(call).encode(), media_type="application/json")
        return Response()

    def build(self, message: Outbound) -> httpx.Request:
        message.require_kind(message.to.kind if message.thread else USER)
        message.require_content()
        fields: dict[str, Any] = {"chat_id": message.thread or message.to.value}
        if message.attachments:
            method, content = _file(message, fields)
            return self._call(method, **content)
        return self._call("sendMessage", json=fields | {"text": message.text, **_keyboard(message)})

    def _call(self, method: str, **content: Any) -> httpx.Request:  # noqa: ANN401  (as httpx takes it)
        request = httpx.Request("POST", self.config.api, **content)
        request.url = _HiddenUrl(f"{self.config.api}/bot{self.config.token.reveal()}/{method}")
        return request

    def interpret(self, response: httpx.Response) -> Receipt:
        answer = read_answer(response)
        sent, code = answer.fields("result"), answer.integer("error_code") or 0
        if answer.flag("ok") and (number := sent.key("message_id")):
            return Receipt(external_id=f"{sent.fields('chat').key('id')}/{number}")
        if answer.flag("ok") and answer.flag("result"):  # what was asked for is done, and no message
            return Receipt()
        told = f"{code or response.status_code} {answer.text('description')[:200]!r}"
        raise refusal(
            response,
            f"channel {self.name!r}: Telegram answered {told}",
            code=code,
            remedy=_REMEDIES.get(code, "see the Bot API"),
            retry_after_s=answer.fields("parameters").number("retry_after"),
        )

    async def send(self, message: Outbound, client: httpx.AsyncClient) -> Receipt:
        response = await self.exchange(message, client)
        # A group may have become a supergroup, which nothing was sent to yet.
        if moved := read_answer(response).fields("parameters").key("migrate_to_chat_id"):
            response = await self.exchange(evolve(message, thread=moved), client)
        return self.interpret(response)

    def checks(self) -> Sequence[httpx.Request]:
        return [self._call("getWebhookInfo")]

    def judge(self, responses: Sequence[httpx.Response]) -> Sequence[Check]:
        return [check for one in responses for check in self._judge(read_answer(one))]

    def _judge(self, answer: Fields) -> Iterator[Check]:
        webhook = answer.fields("result")
        fault = webhook.text("last_error_message")[:200]
        connect = f"run 'convsdk channels connect {self.name} --subscribe --callback https://.../channels/{self.name}'"
        mend = f"its last try failed ({fault}): mend that; it stands there until a later one fails otherwise"
        yield Check(what="the bot's token is accepted", is_right=answer.flag("ok"), remedy=_REMEDIES[401])
        yield Check(what="the webhook is set", is_right=bool(webhook.text("url")), remedy=connect)
        yield Check(what="Telegram has reached the webhook", is_right=not fault, remedy=mend)

    def subscribe(self, callback: str = "") -> Sequence[httpx.Request]:
        """Give the call that sets the webhook, with the updates that are read; none without an address for it."""
        webhook = {"url": callback, "secret_token": self.config.secret_token.reveal(), "allowed_updates": UPDATES}
        return [self._call("setWebhook", json=webhook)] if callback else []


class _HiddenUrl(httpx.URL):
    """A URL with the bot's token in its path, which nothing that prints it shows: httpx logs every request's URL."""

    def __str__(self) -> str:
        return f"{self.scheme}://{self.netloc.decode('ascii')}/bot***/{self.path.rpartition('/')[2]}"

    def __repr__(self) -> str:
        return f"URL({str(self)!r})"


def _file(message: Outbound, fields: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    file = message.attachments[0]
    is_photo = file.media_type in _PHOTOS and len(file.content) <= _MOST_PHOTO_BYTES
    name = "photo" if is_photo else "document"
    method = f"send{name.capitalize()}"
    if file.url and not file.content:  # Telegram fetches it
        return method, {"json": fields | {name: file.url}}
    # httpx would draw a boundary: this one is unguessable as well, and the same at every try.
    boundary = hashlib.sha256(message.token.encode()).hexdigest()
    headers = {"content-type": f"multipart/form-data; boundary={boundary}"}
    return method, {"data": fields, "files": {name: (file.name, file.content, file.media_type)}, "headers": headers}


def _keyboard(message: Outbound) -> dict[str, Any]:
    """Give the choices as buttons under the message, or as keys where one is too long for a button."""
    if not message.choices:
        return {}
    longest = max(len(choice.payload.encode()) for choice in message.choices)
    if message.detail.get("keyboard") == "reply" or longest > _MOST_DATA_BYTES:
        keys = [[{"text": choice.label}] for choice in message.choices]
        return {"reply_markup": {"keyboard": keys, "one_time_keyboard": True, "resize_keyboard": True}}
    buttons = [[{"text": choice.label, "callback_data": choice.payload}] for choice in message.choices]
    return {"reply_markup": {"inline_keyboard": buttons}}


@hookimpl
def convsdk_channels(ctx: Context) -> Iterable[type[Channel]]:  # noqa: ARG001  (each hook takes it)
    """Give the Telegram channel."""
    return [TelegramChannel]
