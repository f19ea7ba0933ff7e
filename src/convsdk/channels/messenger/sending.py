"""How a message becomes requests to the Send API, and what may be sent when: without I/O and without a clock.

https://developers.facebook.com/docs/messenger-platform/reference/send-api
"""

import hashlib
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

import httpx
from attrs import evolve, frozen

from convsdk.channels.messenger.graph import Graph
from convsdk.channels.messenger.platform import LONGEST_PAYLOAD, OURS, Platform, button_payload
from convsdk.core.model import Identifier
from convsdk.core.ports import File, Outbound
from convsdk.core.texts import pieces_of
from convsdk.errors import PermanentError

HANDOVERS = frozenset(
    {"pass_thread_control", "release_thread_control", "request_thread_control", "take_thread_control"}
)
"""The actions that decide which of several apps answers a person."""

_SENDER_ACTIONS = frozenset({"typing_on", "typing_off", "mark_seen"})
_REACTIONS = frozenset({"react", "unreact"})
_EXTRAS = ("quick_replies", "choices")
_WINDOW = timedelta(hours=24)
_AGENTS_WINDOW = timedelta(days=7)
_HUMAN_AGENT = "HUMAN_AGENT"
_MOST_TEMPLATE_TEXT = 640
_MOST_QUICK_REPLIES = 13
_MOST_BUTTONS = 3
_MOST_TITLE = 20
_BUTTONS = {"url": ("web_url", "url"), "payload": ("postback", "payload"), "phone": ("phone_number", "payload")}


def parts_of(message: Outbound, platform: Platform) -> tuple[Outbound, ...]:
    """Give the messages as which the platform takes one: pieces of text, each file by itself, buttons where they show.

    Quick replies go with the last, since they vanish with the next message; buttons with the end of the text.
    """
    if message.detail.get("action"):
        return (evolve(message, text="", attachments=()),)
    pieces = pieces_of(message.text, most=platform.most_text, size=platform.size) if message.text.strip() else ()
    if pieces and message.detail.get("buttons"):
        *before, last = pieces
        pieces = (*before, *pieces_of(last, most=_MOST_TEMPLATE_TEXT, size=platform.size))
    contents = [*((piece, ()) for piece in pieces), *(("", (file,)) for file in message.attachments)] or [("", ())]
    return tuple(
        evolve(
            message,
            text=text,
            attachments=files,
            token=f"{message.token}.{number}" if number else message.token,
            detail=_detail(
                message.detail, is_end=number == max(len(pieces) - 1, 0), is_last=number == len(contents) - 1
            ),
        )
        for number, (text, files) in enumerate(contents)
    )


def _detail(detail: Mapping[str, Any], *, is_end: bool, is_last: bool) -> dict[str, Any]:
    left_out = {*(() if is_end else ("buttons",)), *(() if is_last else _EXTRAS)}
    return {name: value for name, value in detail.items() if name not in left_out}


@frozen(kw_only=True)
class Sending:
    """Builds the requests of one channel."""

    graph: Graph
    platform: Platform

    def request(self, message: Outbound) -> httpx.Request:
        """Give the request that delivers a part; raise `PermanentError` where the platform would not take it."""
        self._require_known(message.to)
        action = message.detail.get("action")
        if action in HANDOVERS:
            app, note = (str(message.detail.get(name, "")) for name in ("app", "note"))
            return self.handover(message.to, action, app=app, note=note)
        permission = self._permission(message)
        to = {"recipient": {"id": message.to.value}}
        if action:
            return self._post(message.to, to | self._action(message, action))
        content = self._content(message)
        upload = next((one for one in message.attachments if not one.url), None)
        return self._post(message.to, to | permission | {"message": content}, upload, message.token)

    def handover(self, to: Identifier, action: str, *, app: str = "", note: str = "") -> httpx.Request:
        """Give the request that takes, passes (to `app`), requests or releases the thread of a person.

        `note` goes along to the other app. https://developers.facebook.com/docs/messenger-platform/handover-protocol
        """
        self._require_known(to)
        if (action == "pass_thread_control") != bool(app):
            raise self._refused(
                to, f"{action} names {'an' if app else 'no'} app", "name the app's id for pass_thread_control only"
            )
        content = {"recipient": {"id": to.value}} | ({"target_app_id": app} if app else {})
        return self._post(to, content | ({"metadata": note} if note else {}), edge=action)

    def _post(
        self,
        to: Identifier,
        content: Mapping[str, Any],
        file: File | None = None,
        token: str = "",
        edge: str = "messages",
    ) -> httpx.Request:
        # Instagram's edge is the token's own page or account; the id of an Instagram account is not the page's.
        node = to.scope if self.platform.object == "page" else "me"
        boundary = hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
        return self.graph.post(f"{node}/{edge}", content, sender=to.scope, file=file, boundary=boundary)

    def _require_known(self, to: Identifier) -> None:
        if to.kind != self.platform.kind:
            raise self._refused(to, f"{to.kind} is no {self.platform.kind}", "send by the channel that knows them")

    def _refused(self, to: Identifier, why: str, remedy: str) -> PermanentError:
        return PermanentError(f"channel {self.graph.channel!r} cannot write to {to}: {why}: {remedy}")

    # -- when

    def _permission(self, message: Outbound) -> dict[str, str]:
        """Give what says why the message may be sent now; raise where it may not."""
        tag = message.detail.get("tag") or _HUMAN_AGENT
        if tag not in self.platform.tags:
            known = ", ".join(sorted(self.platform.tags))
            raise self._refused(message.to, f"{self.platform.name} knows no tag {tag!r}", f"take one of {known}")
        if tag != _HUMAN_AGENT:
            return {"messaging_type": "MESSAGE_TAG", "tag": tag}
        if message.heard_at is None:
            raise self._refused(
                message.to,
                f"they never wrote, and {self.platform.name} lets nobody be written to first",
                "wait until they write, or use another way",
            )
        if message.is_within(_WINDOW):
            return {"messaging_type": "RESPONSE"}
        is_agents = bool(message.detail.get("by")) and not message.is_automatic
        if is_agents and self.graph.settings.human_agent:
            if message.is_within(_AGENTS_WINDOW):
                return {"messaging_type": "MESSAGE_TAG", "tag": _HUMAN_AGENT}
            raise self._closed(message, message.heard_at + _AGENTS_WINDOW, "7 days")
        raise self._closed(message, message.heard_at + _WINDOW, "24 hours", is_open_to_agents=True)

    def _closed(
        self, message: Outbound, until: datetime, length: str, *, is_open_to_agents: bool = False
    ) -> PermanentError:
        remedy = "wait until they write again, or use another way"
        if is_open_to_agents and message.is_within(_AGENTS_WINDOW):
            is_set = self.graph.settings.human_agent
            way = "" if is_set else ", once Meta has let the app do so and human_agent = true is set"
            remedy = f"let an agent answer, who has 7 days{way}; or {remedy}"
        return self._refused(
            message.to,
            f"the {length} in which {self.platform.name} lets them be answered ended at {until:%Y-%m-%d %H:%M %Z}",
            remedy,
        )

    # -- what

    def _action(self, message: Outbound, action: object) -> dict[str, Any]:
        if action in _SENDER_ACTIONS:
            return {"sender_action": action}
        mid = message.detail.get("mid")
        if action not in _REACTIONS or not isinstance(mid, str):
            known = ", ".join(sorted(_SENDER_ACTIONS | HANDOVERS))
            raise self._refused(
                message.to, f"{action!r} is no action", f"take one of {known}, or react or unreact with a mid"
            )
        reaction = {"reaction": str(message.detail.get("reaction") or "love")} if action == "react" else {}
        return {"sender_action": action, "payload": {"message_id": mid, **reaction}}

    def _content(self, message: Outbound) -> dict[str, Any]:
        content: dict[str, Any]
        if message.attachments and message.detail.get("buttons"):
            raise self._refused(message.to, "there are buttons and no text", "give the message a text")
        if message.attachments:
            content = {"attachment": self._attachment(message, message.attachments[0])}
        elif not message.text.strip():
            raise self._refused(message.to, "the message is empty", "give it a text or an attachment")
        elif self.platform.size(message.text) > self.platform.most_text:
            raise self._refused(message.to, "the text is too long for one message", "send what parts() gives")
        elif message.detail.get("buttons"):
            content = {"attachment": {"type": "template", "payload": self._template(message)}}
        else:
            content = {"text": message.text}
        if replies := list(self._quick_replies(message)):
            content["quick_replies"] = replies
        # Instagram brings no metadata back: an echo is known there by the id that the answer gave.
        return content | ({"metadata": f"{OURS}{message.token}"} if self.platform.has_metadata else {})

    def _attachment(self, message: Outbound, file: File) -> dict[str, Any]:
        sort = self.platform.sort_of(file.media_type)
        if sort is None:
            raise self._refused(
                message.to,
                f"{self.platform.name} takes no {file.media_type!r} ({file.name!r})",
                "send a link to it in the text",
            )
        most = self.platform.most_bytes[sort]
        if len(file.content) > most:
            raise self._refused(
                message.to,
                f"{file.name!r} has {len(file.content)} bytes, and {self.platform.name} takes {most} of a {sort}",
                "send a smaller one, or a link to it in the text",
            )
        if file.url:
            return {"type": sort, "payload": {"url": file.url}}
        if not self.platform.has_uploads:
            raise self._refused(
                message.to,
                f"{self.platform.name} fetches files itself, and {file.name!r} has no address",
                "give the file a url that everybody can read, or send a link to it in the text",
            )
        return {"type": sort, "payload": {}}

    def _template(self, message: Outbound) -> dict[str, Any]:
        given = self._list(message, "buttons")
        if len(given) > _MOST_BUTTONS:
            raise self._refused(message.to, f"there are {len(given)} buttons", f"give {_MOST_BUTTONS} or fewer")
        if self.platform.size(message.text) > _MOST_TEMPLATE_TEXT:
            raise self._refused(message.to, "the text is too long for one with buttons", "send what parts() gives")
        buttons = [self._button(message, one) for one in given]
        return {"template_type": "button", "text": message.text, "buttons": buttons}

    def _button(self, message: Outbound, given: Mapping[str, Any]) -> dict[str, str]:
        name = next((one for one in _BUTTONS if isinstance(given.get(one), str)), None)
        if name is None or not isinstance(given.get("title"), str) or len(given[name]) > LONGEST_PAYLOAD:
            raise self._refused(message.to, f"{given!r} is no button", "give a title, and a url, payload or phone")
        kind, key = _BUTTONS[name]
        return {"type": kind, "title": _title(given["title"]), key: given[name]}

    def _quick_replies(self, message: Outbound) -> Iterator[dict[str, str]]:
        given, choices = (self._list(message, name) for name in ("quick_replies", "choices"))
        if len(given) + len(choices) > _MOST_QUICK_REPLIES:
            raise self._refused(
                message.to,
                f"there are {len(given) + len(choices)} quick replies",
                f"give {_MOST_QUICK_REPLIES} or fewer",
            )
        block = str(message.detail.get("block", ""))
        for one in choices:
            title, value = str(one.get("label", "")), str(one.get("value", ""))
            yield self._quick_reply(message, {"title": title, "payload": button_payload(block, value)})
        for one in given:
            yield self._quick_reply(message, one)

    def _quick_reply(self, message: Outbound, given: Mapping[str, Any]) -> dict[str, str]:
        title, payload = given.get("title"), given.get("payload", given.get("title"))
        if not isinstance(title, str) or not title.strip() or not isinstance(payload, str):
            raise self._refused(message.to, f"{given!r} is no quick reply", "give a title and a payload")
        if len(payload) > LONGEST_PAYLOAD:
            raise self._refused(message.to, "a payload is too long", f"give {LONGEST_PAYLOAD} characters or fewer")
        image = {"image_url": given["image_url"]} if isinstance(given.get("image_url"), str) else {}
        return {"content_type": "text", "title": _title(title), "payload": payload} | image

    def _list(self, message: Outbound, name: str) -> list[Mapping[str, Any]]:
        given = message.detail.get(name) or []
        if not isinstance(given, list | tuple) or not all(isinstance(one, Mapping) for one in given):
            raise self._refused(message.to, f"{name} is no list of tables", "give one table for each")
        return list(given)


def _title(text: str) -> str:
    """Give what fits on a button."""
    return text if len(text) <= _MOST_TITLE else f"{pieces_of(text, most=_MOST_TITLE - 1)[0]}…"
