"""Calls of the Bot API, whose URLs hold the bot's token, their answers, and whether the webhook is set up."""

from collections.abc import Iterator
from typing import Any

import httpx
import msgspec
from attrs import frozen

from convsdk.core.ports import Check, Secret

UPDATES = ("message", "edited_message", "channel_post", "edited_channel_post", "callback_query", "message_reaction")
"""The updates that are read here: Telegram sends others, and no reactions, unless it is told."""


class _HiddenUrl(httpx.URL):
    """A URL with the bot's token in its path, which nothing that prints it shows: httpx logs every request's URL."""

    def __str__(self) -> str:
        return f"{self.scheme}://{self.netloc.decode('ascii')}/bot***/{self.path.rpartition('/')[2]}"

    def __repr__(self) -> str:
        return f"URL({str(self)!r})"


class Answer(msgspec.Struct):
    """What the Bot API says to a call; all blank where something else answered."""

    ok: bool = False
    result: Any = None
    error_code: int = 0
    description: str = ""
    parameters: dict[str, int] = {}


def read_answer(response: httpx.Response) -> Answer:
    """Give what a response says."""
    try:
        return msgspec.json.decode(response.content, type=Answer)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return Answer()


@frozen(kw_only=True)
class Bot:
    """A bot as the Bot API at the origin `api` knows it."""

    token: Secret
    api: str

    def call(self, method: str, **content: Any) -> httpx.Request:  # noqa: ANN401  (as httpx takes it)
        """Give the call of `method`, with a body of `json`, or of `data` and `files`."""
        request = httpx.Request("POST", self.api, **content)
        request.url = _HiddenUrl(f"{self.api}/bot{self.token.reveal()}/{method}")
        return request


def judge_webhook(answer: Answer, *, channel: str) -> Iterator[Check]:
    """Give what is right and what is not, by the answer to `getWebhookInfo`."""
    info = answer.result if isinstance(answer.result, dict) else {}
    yield Check(
        what="the bot's token is accepted", is_right=answer.ok, remedy="copy it again from @BotFather, and set it"
    )
    yield Check(
        what="the webhook is set",
        is_right=bool(info.get("url")),
        remedy=f"run 'convsdk channels connect {channel} --subscribe --callback https://.../channels/{channel}'",
    )
    fault = str(info.get("last_error_message", ""))[:200]
    yield Check(
        what="Telegram has reached the webhook",
        is_right=not fault,
        remedy=f"its last try failed ({fault}): mend that; it stands there until a later one fails otherwise",
    )
