"""Whether Meta is set up for a channel: its tokens and permissions, and the subscriptions of the app and its pages.

https://developers.facebook.com/docs/graph-api/reference/debug_token and /docs/graph-api/webhooks/subscriptions-edge
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import httpx
import msgspec
from attrs import frozen

from convsdk.channels.messenger.graph import Graph
from convsdk.channels.messenger.platform import Platform
from convsdk.core.ports import Check

_MOST_SENDERS = 20  # a batch has room for 50 operations, and each of these takes two


@frozen(kw_only=True)
class Setup:
    """The set-up of one channel at Meta."""

    graph: Graph
    platform: Platform

    def requests(self) -> Iterator[httpx.Request]:
        """Give the requests whose answers `judge` reads."""
        app = self.graph.settings.app_id
        for senders in self._groups():
            asked = [self.graph.reading(f"{app}/subscriptions")]
            for sender in senders:
                token = self.graph.token(sender).reveal()
                asked.append(self.graph.reading("debug_token", input_token=token))
                asked.append(self.graph.reading(f"{self._node(sender)}/subscribed_apps", sender))
            yield self.graph.batch(asked)

    def _groups(self) -> list[tuple[str, ...]]:
        """Give the pages or accounts in groups that one batch has room for, one at least; none without the app's id."""
        senders = tuple(self.graph.settings.tokens)
        starts = range(0, max(len(senders), 1), _MOST_SENDERS)
        return [senders[start : start + _MOST_SENDERS] for start in starts] if self.graph.settings.app_id else []

    def subscriptions(self, callback: str) -> Iterator[httpx.Request]:
        """Give the requests that subscribe the pages and, with the address of its webhook, the app."""
        settings = self.graph.settings
        fields = {"subscribed_fields": ",".join(self.platform.page_fields)}
        if callback and settings.app_id:
            app = {
                "object": self.platform.object,
                "callback_url": callback,
                "fields": ",".join(self.platform.fields),
                "verify_token": settings.verify_token.reveal(),
            }
            yield self.graph.post(f"{settings.app_id}/subscriptions", app, sender=None)
        for sender in settings.tokens:
            yield self.graph.post(f"{self._node(sender)}/subscribed_apps", fields, sender=sender)

    def judge(self, responses: Sequence[httpx.Response]) -> Iterator[Check]:
        """Give what is right and what is not, by the answers to `requests`."""
        settings = self.graph.settings
        if not settings.app_id:
            yield Check(what="app_id is set", is_right=False, remedy="add app_id, which is on the app's dashboard")
            return
        yield Check(
            what="there is somewhere to send from",
            is_right=bool(settings.tokens),
            remedy='add { id = "PAGE ID", token = { env = "NAME" } } for each page or account',
        )
        for number, (senders, response) in enumerate(zip(self._groups(), responses, strict=True)):
            answers = _answers(response)
            if len(answers) != 1 + 2 * len(senders):
                yield Check(what="Meta answers", is_right=False, remedy=str(self.graph.error(response)))
                return
            app, *others = answers
            yield from () if number else self._judge_app(app)
            for sender, token, page in zip(senders, others[::2], others[1::2], strict=True):
                yield from self._judge_token(sender, token)
                yield from self._judge_page(sender, page)

    def _judge_app(self, answer: dict[str, Any]) -> Iterator[Check]:
        what = f"the app is subscribed to {self.platform.object!r}"
        if "error" in answer:
            yield self._failed(what, answer)
            return
        found = next((one for one in _tables(answer.get("data")) if one.get("object") == self.platform.object), {})
        remedy = "subscribe it with --subscribe --callback URL, or on the app's dashboard under Webhooks"
        if not found or found.get("active") is False:
            yield Check(what=what, is_right=False, remedy=remedy)
            return
        yield Check(what=f"{what}, at {found.get('callback_url', 'an address that it keeps to itself')}", is_right=True)
        has = {one if isinstance(one, str) else one.get("name") for one in _items(found.get("fields"))}
        yield _complete(
            f"the app's subscription to {self.platform.object!r}", "field", self.platform.fields, has, remedy
        )

    def _judge_token(self, sender: str, answer: dict[str, Any]) -> Iterator[Check]:
        what = f"the token of {sender} is valid"
        said = answer.get("data")
        if not isinstance(said, dict):
            yield self._failed(what, answer)
            return
        if said.get("is_valid") is not True:
            yield self._failed(what, said)
            return
        yield Check(what=f"{what}{_end(said.get('expires_at'))}", is_right=True)
        yield Check(
            what=f"the token of {sender} is for the app {self.graph.settings.app_id}",
            is_right=str(said.get("app_id")) == self.graph.settings.app_id,
            remedy="correct app_id, or make the token with this app",
        )
        if self.platform.object == "page":
            yield Check(
                what=f"the token of {sender} is that page's own",
                is_right=said.get("type") == "PAGE" and str(said.get("profile_id")) == sender,
                remedy="make a page access token for this page, no user's token and no other page's",
            )
        remedy = "let the app ask for them when the page is connected (Facebook Login), and make a new token"
        has = set(map(str, _items(said.get("scopes"))))
        yield _complete(f"the token of {sender}", "permission", self.platform.permissions, has, remedy)

    def _judge_page(self, sender: str, answer: dict[str, Any]) -> Iterator[Check]:
        what = f"{sender} is subscribed to the app"
        if "error" in answer:
            yield self._failed(what, answer)
            return
        apps = _tables(answer.get("data"))
        found = next((one for one in apps if str(one.get("id")) == self.graph.settings.app_id), None)
        remedy = "subscribe it with --subscribe"
        yield Check(what=what, is_right=found is not None, remedy=remedy)
        if found is not None:
            has = set(map(str, _items(found.get("subscribed_fields"))))
            yield _complete(f"the subscription of {sender}", "field", self.platform.page_fields, has, remedy)

    def _failed(self, what: str, answer: dict[str, Any]) -> Check:
        error = answer.get("error")
        words = str(error.get("message", "")) if isinstance(error, dict) else ""
        said = self.graph.masked(" ".join(words.split()))[:300] or "no reason"
        return Check(
            what=what, is_right=False, remedy=f"Meta gives {said!r}: make a new token and set it, or try again"
        )

    def _node(self, sender: str) -> str:
        return sender if self.platform.object == "page" else "me"


def _complete(what: str, noun: str, wanted: Sequence[str], has: Iterable[object], remedy: str) -> Check:
    missing = [one for one in wanted if one not in set(has)]
    if not missing:
        return Check(what=f"{what} has every {noun}", is_right=True)
    return Check(what=f"{what} lacks {', '.join(missing)}", is_right=False, remedy=remedy)


def _end(expires_at: object) -> str:
    if not isinstance(expires_at, int) or not 0 < expires_at < 2**33:
        return ", without end"
    return f", until {datetime.fromtimestamp(expires_at, UTC):%Y-%m-%d %H:%M} UTC"


def _answers(response: httpx.Response) -> list[dict[str, Any]]:
    """Give what the operations of a batch were answered; an error for one that cannot be read, none for no batch."""
    try:
        found = msgspec.json.decode(response.content, type=list[dict[str, Any] | None])
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return []
    return [_body(one) for one in found] if response.is_success else []


def _body(answer: dict[str, Any] | None) -> dict[str, Any]:
    try:
        return msgspec.json.decode(str((answer or {}).get("body")), type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return {"error": {"message": "an answer that cannot be read"}}


def _items(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _tables(value: object) -> list[dict[str, Any]]:
    return [one for one in _items(value) if isinstance(one, dict)]
