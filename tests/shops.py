"""A shop with the chat widget on its pages: the real server on a SQLite file, and what tests look at from outside."""

import socket
import threading
import time
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from html import escape
from urllib.parse import urlencode

import jwt
from litestar import Litestar, Request, Response, asgi, get
from litestar.params import FromQuery

from convsdk.channels.chat import ChatChannel, ChatSettings
from convsdk.channels.js_identify import JsIdentifyChannel, JsIdentifySettings
from convsdk.core.blocks import AskBlock, BranchBlock, Choice, ChooseBlock, EndBlock, FormBlock, HandOverBlock, SayBlock
from convsdk.core.flow import Flow
from convsdk.core.forms import Form
from convsdk.core.model import Direction
from convsdk.core.ports import Secret, Widget
from convsdk.hub import Hub
from convsdk.web import create_app
from convsdk.web.server import Server

PATIENCE_S = 15
SECRET = "0123456789abcdef0123456789abcdef"
ANN, BEN = ({"sub": f"customer-{name}", "email": f"{name}@customer.example"} for name in ("ann", "ben"))
FLOW = Flow(
    blocks=(
        SayBlock(id="hello", text="Hello! I am the shop's bot."),
        ChooseBlock(
            id="topic",
            text="What is it about?",
            choices=(
                Choice(value="order", label="My order", next="order"),
                Choice(value="human", label="A human, please", next="who"),
            ),
        ),
        AskBlock(id="order", text="Which number does your order have?", trait="order_number"),
        FormBlock(id="who", form="contact", text="How can we reach you?"),
        BranchBlock(id="people", on="agents", then="here", otherwise="away"),
        HandOverBlock(id="here", text="Somebody is with you in a minute."),
        EndBlock(id="away", text="We write to you tomorrow."),
    )
)
# As strict as a page can be: the widget needs nothing more, wherever it comes from.
_POLICY = (
    "default-src 'none'; script-src 'self' {host}; style-src 'self'; connect-src 'self' {host}; img-src 'self' blob:"
)
_PAGE = """<!doctype html><html lang="{lang}" dir="{dir}"><head><meta charset="utf-8"><title>Shop</title>
<meta name="viewport" content="width=device-width"><link rel="stylesheet" href="page.css">
<script src="page.js"></script><script async src="{src}" {attributes}></script></head>
<body><main><h1>Shop</h1><p>Plants and pots.</p><button>Buy</button></main></body></html>"""


class Shop:
    """A shop whose files are in `folder`, with its chat under `prefix` of the server.

    `clock` gives the time that the server goes by, `ahead` of the real one; `hub` is what the staff see. `script` and
    `style` are those of its pages. To browsers `elsewhere` is another site, which the chat allows or not.
    """

    def __init__(self, folder, *, prefix="", is_allowed_elsewhere=False):
        self._listening = socket.create_server(("127.0.0.1", 0))
        port = self._listening.getsockname()[1]
        self.url, self.elsewhere = (f"http://{host}:{port}" for host in ("127.0.0.1", "localhost"))
        self.prefix = prefix
        self.script, self.style = "", ""
        self.ahead = timedelta()
        widget = Widget(
            origins=(self.elsewhere,) if is_allowed_elsewhere else (),
            identify="site",
            title="Petal & Pot",
            greeting="Welcome!",
            color="#2f6b4f",
            file_bytes=100_000,
        )
        forms = {"contact": Form(email="required", phone="optional", account="removed", name="optional")}
        chat = ChatSettings(country="DE", forms=forms, widget=widget, bot=FLOW)
        site = JsIdentifySettings(secrets=(Secret(SECRET),), audience="shop")
        channels = [ChatChannel("chat", chat), JsIdentifyChannel("site", site)]
        self.hub = Hub(f"sqlite:///{folder}/shop.db", channels=channels, clock=self.clock)
        routes = self._pages()
        app = create_app(
            self.hub,
            rejects=folder / "rejects",
            files=folder / "files",
            routes=() if prefix else routes,
            clock=self.clock,
        )
        self._live = app.state.live["default"]
        whole = app
        if prefix:
            mounted = asgi(prefix, is_mount=True, copy_scope=True)(app)
            whole = Litestar([mounted, *routes], state=app.state, logging_config=None)
        self._server = Server(whole)

    def clock(self):
        """Give the present moment: the real one, but for `ahead`."""
        return datetime.now(UTC) + self.ahead

    @contextmanager
    def open(self):
        """Serve until the block ends."""
        thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._listening]})
        thread.start()
        try:
            yield self
        finally:
            self._server.should_exit = True
            thread.join()
            self._listening.close()
            self.hub.close()

    def page(self, *, host="", lang="en", direction="ltr", **attributes):
        """Give the address of a page at `host` with the widget on it, and with `attributes` of its script tag."""
        asked = {"lang": lang, "dir": direction, "channel": "chat", **attributes}
        return f"{host or self.url}/shop?{urlencode(asked)}"

    def _pages(self):
        @get("/shop", include_in_schema=False)
        async def show(request: Request) -> Response[str]:
            asked = dict(request.query_params)
            page = _PAGE.format(
                lang=asked.pop("lang"),
                dir=asked.pop("dir"),
                src=f"{self.url}{self.prefix}/widget.js",
                attributes=" ".join(f'data-{name}="{escape(value)}"' for name, value in asked.items()),
            )
            headers = {"content-security-policy": _POLICY.format(host=self.url)}
            return Response(page, media_type="text/html", headers=headers)

        @get("/page.js", include_in_schema=False)
        async def run() -> Response[str]:
            return Response(self.script, media_type="text/javascript")

        @get("/page.css", include_in_schema=False)
        async def dress() -> Response[str]:
            return Response(self.style, media_type="text/css")

        @get("/favicon.ico", status_code=204, include_in_schema=False)
        async def give_no_icon() -> None:
            """Browsers ask for it, and complain where there is none."""

        @get("/token", include_in_schema=False)
        async def sign(request: Request) -> Response[str]:
            token = self.token(request.query_params["visitor"], ANN)
            return Response(token, media_type="text/plain")

        @get("/staff/types", include_in_schema=False)
        async def type_(conversation: FromQuery[int], by: FromQuery[str]) -> None:
            await self._live.tell_of(conversation, "typing", by=by, is_typing=True)

        return [show, run, dress, give_no_icon, sign, type_]

    # -- what its staff see and do

    def conversations(self):
        """Give all conversations, the oldest first."""
        return self.hub.conversations(limit=1000)[::-1]

    def messages(self, conversation):
        """Give what was written in a conversation, the oldest first."""
        page = self.hub.messages(conversation, limit=1000)
        return [one for one in page if one.direction in {Direction.INBOUND, Direction.OUTBOUND}][::-1]

    def texts(self, conversation, direction=Direction.INBOUND):
        """Give the texts of a conversation that went one way, the oldest first."""
        return [one.text for one in self.messages(conversation) if one.direction is direction]

    def token(self, visitor, person):
        """Give the token by which the shop's backend says that `visitor` is the logged-in `person`."""
        until = int(self.clock().timestamp()) + 300
        claims = {"aud": "shop", "exp": until, "visitor": visitor, "email_verified": True, **person}
        return jwt.encode(claims, SECRET, algorithm="HS256")


class Visitor:
    """Somebody who uses the chat on a page."""

    def __init__(self, page):
        page.set_default_timeout(PATIENCE_S * 1000)
        self.page = page
        self.chat = page.locator("convsdk-chat")
        self.launcher = self.chat.locator(".launcher")
        self.dialog = page.get_by_role("dialog")
        self.input = self.chat.locator("textarea")
        self.log = page.get_by_role("log")

    def come(self, address):
        """Come to a page, and wait until the chat is there."""
        self.page.goto(address)
        self.launcher.wait_for(state="attached")
        return self

    def open(self):
        """Open the chat."""
        self.launcher.click()
        self.dialog.wait_for()
        return self

    def close(self):
        """Close the chat."""
        self.dialog.locator(".minimise").click()
        self.dialog.wait_for(state="hidden")
        return self

    def write(self, text):
        """Write a message."""
        self.input.fill(text)
        self.input.press("Enter")
        return self

    def attach(self, *files):
        """Choose files to attach, and wait until they are uploaded or refused."""
        self.chat.locator("input[type=file]").set_input_files(
            [{"name": name, "mimeType": media_type, "buffer": content} for name, media_type, content in files]
        )
        return self.waits(
            lambda: [self.chat.locator(f".files {one}").count() for one in ("li", "progress")], [len(files), 0]
        )

    def press(self, name):
        """Press the button of that name."""
        self.chat.get_by_role("button", name=name, exact=True).click()
        return self

    def sees(self, *texts):
        """Wait until each of `texts` is there, once."""
        for text in texts:
            self.log.get_by_text(text, exact=True).wait_for()
        return self

    def waits(self, look, wanted):
        """Wait until `look()` gives `wanted`."""
        end = time.monotonic() + PATIENCE_S
        while (found := look()) != wanted:
            assert time.monotonic() < end, f"{found!r} instead of {wanted!r}"
            self.page.wait_for_timeout(50)  # other than time.sleep it lets what the browser says come in
        return self

    @property
    def bubbles(self):
        """Give the texts of the messages, as they are shown."""
        return self.log.locator(".bubble").all_inner_texts()

    @property
    def cookie(self):
        """Give the cookie of the chat, or None."""
        return next((one for one in self.page.context.cookies() if "convsdk" in one["name"]), None)

    @property
    def name(self):
        """Give the public id by which the page knows its visitor."""
        return self.page.evaluate("convsdk('visitor')")

    def identify(self, person):
        """Have the page say who is logged in, and give what the widget says then."""
        return self.page.evaluate(
            """(person) => new Promise((resolve, reject) => {
                convsdk("on", "identified", resolve);
                convsdk("on", "error", reject);
                convsdk("identify", person);
            })""",
            person,
        )
