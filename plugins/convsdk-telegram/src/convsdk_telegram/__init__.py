"""Telegram: a bot's webhook in, and its answers out, by the Bot API (https://core.telegram.org/bots/api)."""

import hmac
import re
from collections.abc import Iterable, Sequence
from typing import Any

import httpx
import msgspec
from attrs import evolve, field, frozen

from convsdk.core.events import Event, MessageReceived
from convsdk.core.identifiers import IdentifierKind, MessagingId
from convsdk.core.ports import Capabilities, Channel, Check, Outbound, Receipt, Request, Response, Secret
from convsdk.errors import Forbidden
from convsdk.hookspecs import Context, hookimpl
from convsdk_telegram.bot import UPDATES, Bot, judge_webhook, read_answer
from convsdk_telegram.parse import USER, read_events
from convsdk_telegram.send import MOST_UNITS, build_request, migrated_to, parts_of, read_receipt

_HEADER = "X-Telegram-Bot-Api-Secret-Token"
_CHATS = ("private", "group", "supergroup", "channel")


def _fits(pattern: str, remedy: str) -> Any:  # noqa: ANN401  (attrs' validators are generic)
    def validate(_: object, attribute: Any, value: Secret) -> None:  # noqa: ANN401  (as above)
        # attrs' own validators would print the value.
        if type(value) is not Secret or not re.fullmatch(pattern, value.reveal(), re.ASCII):
            raise ValueError(f"{attribute.name} is missing or no such token: {remedy}")

    return validate


def _are_chats(_: object, __: object, value: tuple[str, ...]) -> None:
    if not value or not set(value) <= set(_CHATS):
        raise ValueError(f"chats must be some of {', '.join(_CHATS)}, not {value!r}")


@frozen(kw_only=True)
class TelegramSettings:
    """What a bot needs to know.

    `token` is the bot's own, from @BotFather; `secret_token` the one that `setWebhook` was told. `chats` are the types
    of chat that are read: private ones, unless groups and channels are named. `api` is the origin of the Bot API.
    """

    token: Secret = field(validator=_fits(r"\d{3,20}:[\w-]{30,100}", "copy it from @BotFather"))
    secret_token: Secret = field(validator=_fits(r"[\w-]{16,256}", "16 to 256 letters, digits, '-' and '_'"))
    chats: tuple[str, ...] = field(default=("private",), validator=_are_chats)
    api: str = "https://api.telegram.org"


class TelegramChannel(Channel):
    """One bot."""

    contract = 1
    type = "telegram"
    settings = TelegramSettings
    can = Capabilities(verifies=True, sends=True, attachments=True, reactions=True, max_text=MOST_UNITS, max_per_s=30)
    config: TelegramSettings

    def verify(self, request: Request) -> None:
        given = request.headers.all(_HEADER)
        sent = given[0].encode("utf-8", "surrogatepass") if len(given) == 1 else b""
        if not hmac.compare_digest(sent, self.config.secret_token.reveal().encode()):
            raise Forbidden(f"channel {self.name!r}: {_HEADER} is missing or not what setWebhook was told")

    def parse(self, request: Request) -> Sequence[Event]:
        bot = self.config.token.reveal().partition(":")[0]
        return read_events(request.body, bot=bot, chats=self.config.chats, received_at=request.received_at)

    def answer(self, events: Sequence[Event]) -> Response:
        """End the wait that Telegram shows at a button that was pressed: a webhook may be answered with a call."""
        for event in events:
            if isinstance(event, MessageReceived) and (query := event.detail.get("callback_query")):
                call = {"method": "answerCallbackQuery", "callback_query_id": query}
                return Response(body=msgspec.json.encode(call), media_type="application/json")
        return Response()

    @property
    def _bot(self) -> Bot:
        return Bot(token=self.config.token, api=self.config.api)

    def parts(self, message: Outbound) -> Sequence[Outbound]:
        return parts_of(message)

    def build(self, message: Outbound) -> httpx.Request:
        return build_request(message, self._bot)

    def interpret(self, response: httpx.Response) -> Receipt:
        return read_receipt(response, channel=self.name)

    async def send(self, message: Outbound, client: httpx.AsyncClient) -> Receipt:
        response = await client.send(self.build(message))
        if moved := migrated_to(response):  # a group that has become a supergroup, which nothing was sent to yet
            response = await client.send(self.build(evolve(message, thread=moved)))
        return self.interpret(response)

    def checks(self) -> Sequence[httpx.Request]:
        return [self._bot.call("getWebhookInfo")]

    def judge(self, responses: Sequence[httpx.Response]) -> Sequence[Check]:
        return [check for one in responses for check in judge_webhook(read_answer(one), channel=self.name)]

    def subscribe(self, callback: str = "") -> Sequence[httpx.Request]:
        """Give the call that sets the webhook, with the updates that are read; none without an address for it."""
        webhook = {"url": callback, "secret_token": self.config.secret_token.reveal(), "allowed_updates": UPDATES}
        return [self._bot.call("setWebhook", json=webhook)] if callback else []


@hookimpl
def convsdk_channels(ctx: Context) -> Iterable[type[Channel]]:  # noqa: ARG001  (each hook takes it)
    """Give the Telegram channel."""
    return [TelegramChannel]


@hookimpl
def convsdk_identifier_kinds(ctx: Context) -> Iterable[IdentifierKind]:  # noqa: ARG001  (as above)
    """Give the id of a user as a bot sees it."""
    return [MessagingId(USER)]
