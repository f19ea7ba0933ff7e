"""Meta's Graph API on this machine, as far as the Messenger Platform needs it, written from Meta's documentation.

It refuses what Meta refuses, in Meta's codes: https://developers.facebook.com/docs/messenger-platform/error-codes
"""

import asyncio
import email
import hashlib
import hmac
import json
import re
import threading
from collections import deque
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import count
from urllib.parse import parse_qs, urlsplit

import httpx
from asgi import served
from attrs import define, field, frozen
from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from convsdk.core.ports import Headers, Request

PATIENCE_S = 15
APP, SECRET = "7700", "app-secret-of-the-shop"
PAGE, TOKEN = "1001", "page-token-of-the-shop"
DAY = timedelta(days=1)
MESSAGE_KEYS = {"text", "attachment", "quick_replies", "metadata"}
REQUEST_KEYS = {"recipient", "messaging_type", "tag", "message", "sender_action", "payload", "access_token"}
ACTIONS = {"typing_on", "typing_off", "mark_seen", "react", "unreact"}
TAGS = {"HUMAN_AGENT", "ACCOUNT_UPDATE", "CONFIRMED_EVENT_UPDATE", "POST_PURCHASE_UPDATE"}
HANDOVERS = {"pass_thread_control", "take_thread_control", "request_thread_control", "release_thread_control"}
SORTS = {"image": 8_000_000, "audio": 25_000_000, "video": 25_000_000, "file": 25_000_000}


class Hook:
    """The webhook of `channel`: verifies what is posted, and keeps its events in `told`, one list for each request."""

    def __init__(self, channel):
        self.told = []
        self._channel = channel
        self._changed = threading.Condition()
        self.app = Starlette(routes=[Route("/", self._take, methods=["POST"])])

    async def _take(self, request):
        given = Request(received_at=datetime.now(UTC), body=await request.body(), headers=Headers(request.headers))
        self._channel.verify(given)
        with self._changed:
            self.told.append(self._channel.parse(given))
            self._changed.notify_all()
        return Response()

    def wait_for(self, count):
        """Give the events of each request, once there were so many."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.told) >= count, PATIENCE_S), self.told
            return list(self.told)


class RefusedError(Exception):
    """Meta says no, with a code and words of its own."""

    def __init__(self, code, words, subcode=None, *, status=400, headers=None, is_transient=False):
        super().__init__(words)
        self.status = status
        self.headers = headers or {}
        subcodes = {} if subcode is None else {"error_subcode": subcode}
        kind = "OAuthException" if code in {10, 190, 200} else "GraphMethodException"
        self.error = {"message": words, "type": kind, "code": code, **subcodes, "fbtrace_id": "Bq1"}
        if is_transient:
            self.error["is_transient"] = True


@frozen
class Failure:
    """What the next request meets: `at` it ("before") or once it was carried out ("after"), an error or no answer."""

    refused: RefusedError | None = None
    at: str = "before"


@define
class Person:
    """Somebody: when they last wrote, and what they show of themselves."""

    heard_at: datetime | None = None
    profile: dict = field(factory=lambda: {"name": "Ann Other", "profile_pic": "https://cdn.example/ann.jpg"})
    is_unreachable: bool = False
    owner: str = APP


@frozen
class Sent:
    """A message that arrived at a person."""

    mid: str
    page: str
    person: str
    message: dict
    tag: str = ""
    file: bytes | None = None


class Graph:
    """The platform with one page and its people; `url` is where it is once `served`.

    `clock` gives its time. `latency_s` is how long it takes for each request, `failures` what the next ones meet, and
    `most_per_s` how many a second it takes. It tells `webhook_url` what happens, each thing `copies` times; an echo of
    what was sent comes at once, deliveries and reads when asked for. `asked` are all requests, as (method, address).
    """

    def __init__(self, *, is_instagram=False, clock=lambda: datetime.now(UTC)):
        self.is_instagram = is_instagram
        self.clock = clock
        self.people = {}
        self.tokens = {PAGE: TOKEN}
        self.scopes = ["pages_messaging", "pages_manage_metadata", "instagram_basic", "instagram_manage_messages"]
        self.has_human_agent = True
        self.subscribed = {}
        self.subscriptions = []
        self.latency_s = 0.0
        self.failures = deque()
        self.most_per_s = None
        self.webhook_url = ""
        self.copies = 1
        self.sent = []
        self.actions = []
        self.asked = []
        self.url = ""
        self._taken_at = deque()
        self._numbers = count(1)

    @contextmanager
    def served(self):
        """Answer on a port of this machine."""
        route = Route("/{path:path}", self._answer, methods=["GET", "POST", "DELETE"])
        with served(Starlette(routes=[route])) as self.url:
            yield self

    # -- what people do

    def hear(self, person, text="Hello", *, page=PAGE, **more):
        """Let somebody write; their window opens, and the webhook is told. Give its body and header fields."""
        self.people.setdefault((page, person), Person()).heard_at = self.clock()
        return self._tell(page, self._item(page, person, message={"mid": self._mid(), "text": text, **more}))

    def answer_elsewhere(self, person, text, *, page=PAGE):
        """Let the page answer somebody in its own inbox."""
        item = self._item(page, person, message={"mid": self._mid(), "is_echo": True, "app_id": 26390203, "text": text})
        item["sender"], item["recipient"] = item["recipient"], item["sender"]
        return self._tell(page, item)

    def read(self, person, *, page=PAGE):
        """Let somebody read all that they got."""
        watermark = int(self.clock().timestamp() * 1000)
        return self._tell(page, self._item(page, person, read={"watermark": watermark}))

    def deliver(self, *mids, person, page=PAGE):
        """Report messages as delivered."""
        report = {"mids": list(mids), "watermark": int(self.clock().timestamp() * 1000)}
        return self._tell(page, self._item(page, person, delivery=report))

    # -- what it answers

    async def _answer(self, request):
        body = await request.body()
        self.asked.append((request.method, str(request.url)))
        if self.latency_s:
            await asyncio.sleep(self.latency_s)
        failure = self.failures.popleft() if self.failures else Failure(at="never")
        try:
            if failure.at == "before":
                self._fail(failure)
            answer = await self._carry_out(request, body)
            if failure.at == "after":
                self._fail(failure)
        except RefusedError as refused:
            return JSONResponse({"error": refused.error}, refused.status, headers=refused.headers)
        except ConnectionError:
            return Response(status_code=502)
        return JSONResponse(answer)

    def _fail(self, failure):
        raise failure.refused or ConnectionError

    async def _carry_out(self, request, body):
        fields, file = self._fields(request, body)
        token = request.headers.get("authorization", "").removeprefix("Bearer ") or fields.get("access_token", "")
        version, _, path = request.path_params["path"].partition("/")
        if not re.fullmatch(r"v\d+\.\d+", version):
            raise RefusedError(2500, f"Unknown path components: /{version}")
        self._limit()
        if not path and "batch" in fields:
            return await self._batch(fields["batch"], token)
        return await self._operate(request.method, path, fields, token, file)

    def _fields(self, request, body):
        kind = request.headers.get("content-type", "")
        fields = dict(request.query_params)
        if kind.startswith("multipart/form-data"):
            form = email.message_from_bytes(f"content-type: {kind}\r\n\r\n".encode() + body)
            parts = {one.get_param("name", header="content-disposition"): one for one in form.get_payload()}
            file = parts.pop("filedata", None)
            values = {name: one.get_payload(decode=True).decode() for name, one in parts.items()}
            read = {name: json.loads(one) if one[:1] in "{[" else one for name, one in values.items()}
            return fields | read, (file.get_content_type(), file.get_payload(decode=True)) if file else None
        if body and kind.startswith("application/json"):
            return fields | json.loads(body), None
        return fields | {name: one[0] for name, one in parse_qs(body.decode()).items()}, None

    def _limit(self):
        now = asyncio.get_running_loop().time()
        while self._taken_at and now - self._taken_at[0] > 1:
            self._taken_at.popleft()
        if self.most_per_s is not None and len(self._taken_at) >= self.most_per_s:
            usage = json.dumps({"77": [{"type": "messenger", "call_count": 100, "estimated_time_to_regain_access": 1}]})
            raise RefusedError(
                613, "Calls to this api have exceeded the rate limit.", headers={"X-Business-Use-Case-Usage": usage}
            )
        self._taken_at.append(now)

    async def _batch(self, operations, token):
        if token != f"{APP}|{SECRET}":
            raise RefusedError(190, "Invalid OAuth access token signature.", status=400)
        answers = []
        for one in operations:
            parts = urlsplit(one["relative_url"])
            given = {name: each[0] for name, each in parse_qs(f"{parts.query}&{one.get('body', '')}").items()}
            path = parts.path.partition("/")[2]
            try:
                answer = await self._operate(one["method"], path, given, given.get("access_token", token), None)
                answers.append({"code": 200, "body": json.dumps(answer)})
            except RefusedError as refused:
                answers.append({"code": refused.status, "body": json.dumps({"error": refused.error})})
        return answers

    async def _operate(self, method, path, fields, token, file):
        if path == "debug_token":
            return {"data": self._debug(fields["input_token"])}
        if path == f"{APP}/subscriptions":
            return self._subscriptions(method, fields)
        page = self._page(token, fields)
        node, _, edge = path.partition("/")
        if not edge:
            return self._profile(page, node, fields)
        if node not in {page, "me"}:
            raise RefusedError(100, f"Unsupported post request. Object with ID '{node}' does not exist", 33)
        if edge == "subscribed_apps":
            return self._subscribed_apps(method, page, fields)
        if edge == "messages" and method == "POST":
            return await self._message(page, fields, file)
        if edge in HANDOVERS and method == "POST":
            return self._hand_over(page, edge, fields)
        raise RefusedError(2500, f"Unknown path components: /{edge}")

    def _page(self, token, fields):
        page = next((page for page, known in self.tokens.items() if known == token), None)
        if page is None:
            raise RefusedError(190, f"Malformed access token {token}", status=401)
        proof = hmac.new(SECRET.encode(), token.encode(), hashlib.sha256).hexdigest()
        if fields.pop("appsecret_proof", None) != proof:
            raise RefusedError(100, "Invalid appsecret_proof provided in the API argument")
        return page

    # -- messages

    async def _message(self, page, fields, file):
        if extra := set(fields) - REQUEST_KEYS:
            raise RefusedError(100, f"Unexpected key {min(extra)!r} on param")
        person = self._recipient(page, fields)
        psid = fields["recipient"]["id"]
        if ("message" in fields) == ("sender_action" in fields):
            raise RefusedError(100, "Cannot send both message and state at the same time.", 2018052)
        tag = self._window(person, fields)
        if "sender_action" in fields:
            if fields["sender_action"] not in ACTIONS:
                raise RefusedError(100, "Param sender_action must be one of {TYPING_ON, TYPING_OFF, MARK_SEEN}")
            self.actions.append((fields["sender_action"], psid))
            return {"recipient_id": psid}
        message = fields["message"]
        self._check_message(message, file)
        sent = Sent(self._mid(), page, psid, message, tag, file and file[1])
        self.sent.append(sent)
        self._echo(sent)
        return {"recipient_id": psid, "message_id": sent.mid}

    def _recipient(self, page, fields):
        person = self.people.get((page, fields.get("recipient", {}).get("id")))
        if person is None:
            raise RefusedError(100, "No matching user found", 2018001)
        if person.is_unreachable:
            raise RefusedError(551, "This person isn't available right now.", 1545041)
        if person.owner != APP:
            raise RefusedError(10, "(#10) Application is not the thread owner.", 2018300)
        return person

    def _window(self, person, fields):
        kind, tag = fields.get("messaging_type", "RESPONSE"), fields.get("tag", "")
        if kind not in {"RESPONSE", "UPDATE", "MESSAGE_TAG"} or (kind == "MESSAGE_TAG") != bool(tag):
            raise RefusedError(100, "Param messaging_type must be one of {RESPONSE, UPDATE, MESSAGE_TAG}")
        if tag and (tag not in TAGS or (self.is_instagram and tag != "HUMAN_AGENT")):
            raise RefusedError(100, "Param tag must be one of the message tags")
        if tag == "HUMAN_AGENT" and not self.has_human_agent:
            raise RefusedError(10, "Your application is not approved for the Human Agent feature", 2018276)
        allowed = DAY if not tag else 7 * DAY if tag == "HUMAN_AGENT" else None
        if allowed and (person.heard_at is None or self.clock() - person.heard_at >= allowed):
            raise RefusedError(10, "This message is sent outside of allowed window.", 2018278)
        return tag

    def _check_message(self, message, file):
        if extra := set(message) - (MESSAGE_KEYS - ({"metadata"} if self.is_instagram else set())):
            raise RefusedError(100, f"Unexpected key {min(extra)!r} on param 'message'")
        if ("text" in message) == ("attachment" in message):
            raise RefusedError(100, "Must provide exactly one of 'text' and 'attachment'")
        self._check_text(message.get("text", "x"), 2_000)
        if len(message.get("metadata", "")) > 1_000:
            raise RefusedError(100, "Length of param message[metadata] must be less than or equal to 1000")
        replies = message.get("quick_replies", [])
        if "quick_replies" in message and not 1 <= len(replies) <= 13:
            raise RefusedError(100, "Param message[quick_replies] has too many elements.")
        for one in replies:
            self._check_button(one, "content_type")
        if "attachment" in message:
            self._check_attachment(message["attachment"], file)

    def _check_text(self, text, most):
        size = len(text.encode()) if self.is_instagram else len(text.encode("utf-16-le")) // 2
        most = min(most, 1_000) if self.is_instagram else most
        if not text.strip() or size > most:
            raise RefusedError(100, f"Length of param message[text] must be less than or equal to {most}")

    def _check_button(self, one, kind):
        if kind not in one or not 0 < len(one.get("title", "")) <= 20:
            raise RefusedError(100, "Param title must be a non-empty string of at most 20 characters")
        if len(one.get("payload", "")) > 1_000 or not (one.get("payload") or one.get("url")):
            raise RefusedError(100, "Param payload must be a non-empty string of at most 1000 characters")

    def _check_attachment(self, attachment, file):
        if attachment["type"] == "template":
            payload = attachment["payload"]
            self._check_text(payload["text"], 640)
            if payload["template_type"] != "button" or not 1 <= len(payload["buttons"]) <= 3:
                raise RefusedError(100, "Param buttons must be 1 to 3")
            for one in payload["buttons"]:
                self._check_button(one, "type")
            return
        sort, url = attachment["type"], attachment["payload"].get("url")
        if sort not in SORTS or bool(url) == bool(file) or (url and not url.startswith("https://")):
            raise RefusedError(100, "(#100) Failed to fetch the file from the url", 2018008)
        if file and (self.is_instagram or len(file[1]) > SORTS[sort]):
            raise RefusedError(100, "Attachment size exceeds allowable limit", 2018074)
        if file and sort != "file" and not file[0].startswith(sort):
            raise RefusedError(100, "Upload attachment failure.", 2018047)

    def _hand_over(self, page, edge, fields):
        person = self.people[page, fields["recipient"]["id"]]
        if edge == "pass_thread_control":
            person.owner = str(fields["target_app_id"])
        if edge == "take_thread_control":
            person.owner = APP
        return {"success": True}

    # -- profiles and the set-up

    def _profile(self, page, node, fields):
        person = self.people.get((page, node))
        if person is None:
            raise RefusedError(100, f"Object with ID '{node}' does not exist, cannot be loaded", 33)
        known = {name: person.profile[name] for name in fields["fields"].split(",") if name in person.profile}
        return {**known, "id": node}

    def _debug(self, token):
        page = next((page for page, known in self.tokens.items() if known == token), None)
        if page is None:
            return {"is_valid": False, "scopes": [], "error": {"code": 190, "message": "The access token is expired"}}
        known = {"app_id": APP, "type": "PAGE", "profile_id": page, "is_valid": True, "expires_at": 0}
        return known | {"scopes": self.scopes}

    def _subscribed_apps(self, method, page, fields):
        if method == "POST":
            self.subscribed[page] = fields["subscribed_fields"].split(",")
            return {"success": True}
        if page not in self.subscribed:
            return {"data": []}
        return {"data": [{"id": APP, "name": "Shop", "subscribed_fields": self.subscribed[page]}]}

    def _subscriptions(self, method, fields):
        if method == "GET":
            return {"data": self.subscriptions}
        wanted = [{"name": one, "version": "v25.0"} for one in fields["fields"].split(",")]
        made = {"object": fields["object"], "callback_url": fields["callback_url"], "active": True, "fields": wanted}
        self.subscriptions = [*(one for one in self.subscriptions if one["object"] != made["object"]), made]
        return {"success": True}

    # -- webhooks

    def _mid(self):
        return f"m_{next(self._numbers)}"

    def _item(self, page, person, **content):
        at = int(self.clock().timestamp() * 1000)
        return {"sender": {"id": person}, "recipient": {"id": page}, "timestamp": at, **content}

    def _echo(self, sent):
        kept = {name: sent.message[name] for name in ("text", "metadata") if name in sent.message}
        echo = {"mid": sent.mid, "is_echo": True, "app_id": int(APP), **kept}
        item = self._item(sent.page, sent.person, message=echo)
        item["sender"], item["recipient"] = item["recipient"], item["sender"]
        if self.webhook_url:
            # Not in the way of the answer, which it may well overtake.
            threading.Thread(target=self._tell, args=[sent.page, item], daemon=True).start()

    def _tell(self, page, item):
        at = int(self.clock().timestamp() * 1000)
        kind = "instagram" if self.is_instagram else "page"
        body = json.dumps({"object": kind, "entry": [{"id": page, "time": at, "messaging": [item]}]}).encode()
        signature = hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
        headers = {"content-type": "application/json", "x-hub-signature-256": f"sha256={signature}"}
        for _ in range(self.copies if self.webhook_url else 0):
            httpx.post(self.webhook_url, content=body, headers=headers, timeout=PATIENCE_S)
        return body, headers
