"""Browsers that visit a chat widget: a hub on a store, the real app over it, and what a page in a browser does."""

import asyncio
import itertools
import json
from contextlib import closing, contextmanager

import httpx
import jwt

from convsdk.channels.chat import ChatChannel, ChatSettings
from convsdk.channels.js_identify import JsIdentifyChannel, JsIdentifySettings
from convsdk.core.events import MessageReceived
from convsdk.core.model import Trust
from convsdk.core.ports import Secret, Widget
from convsdk.hub import Hub
from convsdk.testing.builders import FakeClock, hint
from convsdk.web import create_app

HOST = "https://shop.example"
OTHER_SITE = "https://blog.example"
SIGNING_SECRET = "a-secret-of-the-shop-with-32-bytes-or-more"
PATIENCE_S = 30


def shop_channels(**settings):
    """Give a chat with a widget, and identification for it; `settings` are the widget's."""
    widget = Widget(**{"origins": (OTHER_SITE,), "identify": "site", "file_bytes": 1000} | settings)
    secrets = (Secret(SIGNING_SECRET),)
    return (
        ChatChannel("chat", ChatSettings(widget=widget)),
        JsIdentifyChannel("site", JsIdentifySettings(secrets=secrets, audience="shop", namespace="shop")),
    )


class Shop:
    """A hub and the app in front of it, both with a clock that a test moves."""

    def __init__(self, url, folder, *, clock=None, channels=None, hubs=(), **settings):
        self.clock = clock or FakeClock()
        self.folder = folder
        self.hub = Hub(url, channels=channels or shop_channels(), clock=self.clock)
        folders = {"rejects": folder / "rejects", "files": folder / "files"}
        self.app = create_app(self.hub, *hubs, clock=self.clock, **folders, **settings)
        self._runner = asyncio.Runner()
        self._numbers = itertools.count(1)

    def close(self):
        """End the app and its loop, then the hub."""
        self.run(self.app.on_shutdown[-1]())
        self._runner.close()
        self.hub.close()

    def run(self, task):
        """Give the result of a coroutine, in the one loop of this shop."""

        async def patient():
            async with asyncio.timeout(PATIENCE_S):
                return await task

        return self._runner.run(patient())

    def ask(self, method, path, *, address="203.0.113.7", root_path="", host=HOST, **request):
        """Give the answer to one request, from nobody in particular."""

        async def one():
            wire = httpx.ASGITransport(self.app, client=(address, 4711), root_path=root_path)
            async with httpx.AsyncClient(transport=wire, base_url=host) as client:
                return await client.request(method, path, **request)

        return self.run(one())

    def next_id(self):
        """Give an id that was not given before."""
        return f"id-{next(self._numbers)}"

    def mail(self, email, text="A mail", *, trust=Trust.CHANNEL):
        """Take a mail in, from an address that its server has verified."""
        name = self.next_id()
        said = hint(email=email, trust=trust, at=self.clock(), how="mail")
        event = MessageReceived(external_id=f"<{name}@mail.example>", hint=said, at=self.clock(), text=text)
        (received,) = self.hub.receive("mail", [event])
        return received.conversation


@contextmanager
def opened(url, folder, **settings):
    """Give a shop, until the block ends."""
    with closing(Shop(url, folder, **settings)) as shop:
        yield shop


class Browser:
    """A browser with a page of the shop, or of another `site`: keeps what a browser keeps, sends what it sends."""

    def __init__(self, shop, *, channel="chat", site=None, address="203.0.113.7", keep=True):
        self.shop = shop
        self.channel = channel
        self.site = site
        self.address = address
        self.keep = keep
        self.cookies = httpx.Cookies()
        self.token = None

    @property
    def cookie(self):
        """Give the value of the cookie, if there is one."""
        return self.cookies.get(f"__Host-convsdk-{self.channel}")

    def send(self, method, path, **request):
        """Give the answer to one request of the page."""
        where = "cross-site" if self.site else "same-origin"
        fields = {"Sec-Fetch-Site": where}
        if self.site or method != "GET":
            fields["Origin"] = self.site or HOST
        if self.token:
            fields["Authorization"] = f"Bearer {self.token}"
        if self.cookies and not self.site:
            fields["Cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        answer = self.shop.ask(
            method,
            f"/widget/{self.channel}{path}",
            address=self.address,
            headers=fields | request.pop("headers", {}),
            **request,
        )
        if not self.site:
            self.cookies.extract_cookies(answer)
        return answer

    def get(self, path="", **query):
        """Give the answer to a request that reads."""
        return self.send("GET", path, params=query)

    def post(self, path, **body):
        """Give the answer to a request that writes, with the token of the session kept as a page does."""
        answer = self.send("POST", path, json=body)
        if answer.status_code == 200:
            content = answer.json()
            session = content.get("session", content)
            self.token = session.get("token") or self.token
        return answer

    def open(self, **body):
        """Open the chat."""
        return self.post("/session", **{"is_open": True, "keep": self.keep} | body)

    def say(self, text, **more):
        """Write a message; give the conversation."""
        answer = self.post("/messages", **{"id": self.shop.next_id(), "text": text} | more)
        assert answer.status_code == 200, answer.text
        return answer.json()["conversation"]

    def submit(self, **fields):
        """Fill a form in."""
        return self.post("/forms", id=self.shop.next_id(), form="contact", fields=fields)

    def identify(self, **said):
        """Say who is there, without proof."""
        return self.post("/identity", **{"id": self.shop.next_id()} | said)

    def prove(self, **claims):
        """Say who is there, with a token that the site's backend made for this browser."""
        return self.identify(token=self.signed(**claims))

    def signed(self, **claims):
        """Give what the site's backend would sign."""
        seconds = int(self.shop.clock().timestamp())
        whole = {"aud": "shop", "exp": seconds + 300, "visitor": self.session()["visitor"], "email_verified": True}
        return jwt.encode(whole | claims, SIGNING_SECRET, algorithm="HS256")

    def session(self):
        """Give what the page knows of its session, or None."""
        return self.get().json()["session"]

    def upload(self, content=b"Hello", *, name="hello.txt", media_type="text/plain"):
        """Give the answer to an upload."""
        return self.send("POST", "/files", params={"name": name}, content=content, headers={"Content-Type": media_type})

    def reset(self):
        """Log out."""
        self.token = None if (answer := self.send("DELETE", "/session")).status_code == 204 else self.token
        return answer

    def conversations(self):
        """Give the ids of the conversations that the page can list."""
        answer = self.get("/conversations")
        return [one["id"] for one in answer.json()["conversations"]] if answer.status_code == 200 else []

    def texts(self, conversation=None):
        """Give the texts that the page can read."""
        answer = self.get("/messages", **({} if conversation is None else {"conversation": conversation}))
        return [one["text"] for one in answer.json()["messages"]] if answer.status_code == 200 else None

    def listen(self):
        """Open an event stream, and give it once it has begun or was refused."""
        return self.listen_all(1)[0]

    def listen_all(self, count):
        """Open so many event streams at once."""
        ears = [Ear(self) for _ in range(count)]

        async def begin():
            await asyncio.gather(*(one.begin() for one in ears))

        self.shop.run(begin())
        return ears


class Ear:
    """An event stream that a browser has open, driven as a server would drive the app."""

    def __init__(self, browser):
        self.status = None
        self._shop = browser.shop
        self._received = b""
        self._is_asked = False
        self._gone = asyncio.Event()
        self._changed = asyncio.Event()
        fields = {"host": "shop.example"}
        if browser.token:
            fields["authorization"] = f"Bearer {browser.token}"
        elif browser.cookies:
            fields["cookie"] = "; ".join(f"{name}={value}" for name, value in browser.cookies.items())
        path = f"/widget/{browser.channel}/events"
        self._scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "GET",
            "scheme": "https",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "headers": [(name.encode(), value.encode()) for name, value in fields.items()],
            "client": (browser.address, 4711),
        }

    async def begin(self):
        """Ask for it, and wait until something comes."""
        self._task = asyncio.create_task(self._shop.app(self._scope, self._receive, self._send))
        self._task.add_done_callback(lambda _: self._changed.set())
        await self._until(lambda: self._received or self.is_over)

    @property
    def events(self):
        """Give what has come, each as its name and its data; a heartbeat is an empty name."""
        found = []
        for frame in self._received.decode().split("\n\n")[:-1]:
            lines = dict(line.partition(": ")[::2] for line in frame.splitlines())
            found.append((lines.get("event", ""), json.loads(lines.get("data", "null"))))
        return found

    @property
    def is_over(self):
        """Say whether the server has ended it."""
        return self._task.done()

    def hear(self, count):
        """Give the events, once there are that many."""
        self._shop.run(self._until(lambda: len(self.events) >= count))
        return self.events

    def wait(self):
        """Wait until the server ends it."""
        self._shop.run(self._until(lambda: self.is_over))

    def leave(self):
        """Go away, as a browser does whose page is closed."""
        self._gone.set()
        self.wait()

    async def _until(self, condition):
        while not condition():
            self._changed.clear()
            await self._changed.wait()

    async def _receive(self):
        if not self._is_asked:
            self._is_asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message):
        if message["type"] == "http.response.start":
            self.status = message["status"]
        elif not message.get("more_body"):
            self._gone.set()  # as a server says to an app that goes on listening
        self._received += message.get("body", b"")
        self._changed.set()
