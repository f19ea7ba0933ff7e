"""The app inside other programs, as docs/web.md says: real hosts, over real HTTP."""

import asyncio
import hashlib
import hmac
import re
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import litestar
import pytest
import uvicorn
from attrs import frozen
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from convsdk.core.events import MessageReceived
from convsdk.core.model import Trust
from convsdk.core.ports import Channel
from convsdk.errors import Forbidden
from convsdk.hub import Hub
from convsdk.store import open_store
from convsdk.testing.builders import NOON, hint
from convsdk.web import create_app

PATIENCE_S = 20
PAGE = Path(__file__).parents[2] / "docs/web.md"
PREFIX = "/conversations"
HOSTS = ["FastAPI", "Starlette", "Litestar", "Django"]

each_host = pytest.mark.parametrize("host", HOSTS)


@frozen
class DeskSettings:
    pass


class DeskChannel(Channel):
    """Takes a text as a message, from who signs the address that it posts to."""

    type = "desk"
    settings = DeskSettings

    def verify(self, request):
        if request.headers.get("x-sign") != sign(request.url)["X-Sign"]:
            raise Forbidden("channel 'desk': forged")

    def parse(self, request):
        text = request.body.decode()
        sender = hint(email="ann@shop.example", trust=Trust.CHANNEL)
        return [MessageReceived(external_id=text, hint=sender, at=NOON, text=text)]


def sign(url):
    """Give the header that signs `url`."""
    return {"X-Sign": hmac.new(b"secret", url.encode(), hashlib.sha256).hexdigest()}


@pytest.fixture(autouse=True)
def django_settings(monkeypatch):
    """Let Django find its settings where the tests have them."""
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "django_site")


@pytest.fixture
def hub(tmp_path):
    """Give a hub with a desk, on a file."""
    with closing(Hub(f"sqlite:///{tmp_path}/shop.db", channels=[DeskChannel("desk", DeskSettings())])) as one:
        yield one


@pytest.fixture
def webhooks(hub, tmp_path):
    """Give the app to mount."""
    return create_app(hub, rejects=tmp_path / "rejects")


def documented(host, webhooks):
    """Give the host's app that the documentation's lines make, with a page of its own beside them."""
    block = re.search(rf"^### {host}\n.*?^```python\n(.*?)^```$", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    namespace = {"webhooks": webhooks}
    exec(block[1], namespace)  # noqa: S102  (running the project's own documentation is the point)
    if host == "Django":
        return namespace["application"]
    app = namespace["app"]
    if host == "Litestar":
        app.register(litestar.get("/own", media_type="text/plain", sync_to_thread=False)(own))
    else:
        app.router.routes.append(Route("/own", lambda _: PlainTextResponse(own())))
    return app


def own() -> str:
    """Give the host's own page."""
    return "own"


@contextmanager
def served(app):
    """Run a host on a port of its own; give the server and its URL. Ends it as a signal does."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(uvicorn.Config(app, log_config=None))
        thread = threading.Thread(target=server.run, args=[[listening]])
        thread.start()
        try:
            yield server, f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(PATIENCE_S)
            assert not thread.is_alive(), "the server does not end"


def post(url, text, *, signed=None):
    """Give the answer to a message whose sender signs `signed`, or else the address."""
    return httpx.post(url, content=text, headers=sign(signed or url), timeout=PATIENCE_S)


def texts(folder):
    """Give the texts of all messages in the file, as another program reads it."""
    with closing(open_store(f"sqlite:///{folder}/shop.db")) as store:
        filings = store.filings("default", identifiers=None, before=None, limit=100)
        found = [store.messages("default", filing.id, before=None, limit=100) for filing in filings]
    return sorted(one.text for messages in found for one in messages)


def is_draining(webhooks):
    """Say whether the app has heard of the shutdown."""

    async def ask():
        async with httpx.AsyncClient(transport=httpx.ASGITransport(webhooks), base_url="http://a") as client:
            return (await client.get("/ready")).status_code == 503

    return asyncio.run(ask())


@each_host
def test_host_serves_the_app_and_itself(host, webhooks, tmp_path):
    """Under its prefix the app takes webhooks and says what is not there; the host's own pages are beside it."""
    app = documented(host, webhooks)

    with served(app) as (_server, url):
        taken = post(f"{url}{PREFIX}/channels/desk?a=%2F&b=%C3%A9", "hello")
        health, page = httpx.get(f"{url}{PREFIX}/health"), httpx.get(f"{url}/own")
        paths = ["/channels/desk", "/health", f"{PREFIX}/own", f"{PREFIX}/channels/fax", f"{PREFIX}more/health"]
        absent = [httpx.get(url + path).status_code for path in paths]

    assert (taken.status_code, health.text, page.text) == (200, "ok\n", "own")
    assert absent == [404] * len(paths)
    assert texts(tmp_path) == ["hello"]


@each_host
def test_signature_covers_the_prefix(host, webhooks, tmp_path):
    """A channel sees the address that its platform posts to: who signs another one is refused."""
    app = documented(host, webhooks)

    with served(app) as (_server, url):
        refused = post(f"{url}{PREFIX}/channels/desk", "hello", signed=f"{url}/channels/desk")

    assert refused.status_code == 403
    assert texts(tmp_path) == []


def bare(host, webhooks):
    """Give a host that mounts the app and does no more."""
    if host == "FastAPI":
        app = FastAPI()
        app.mount(PREFIX, webhooks)
        return app
    if host == "Starlette":
        return Starlette(routes=[Mount(PREFIX, app=webhooks)])
    return litestar.Litestar([litestar.asgi(PREFIX, is_mount=True, copy_scope=True)(webhooks)], logging_config=None)


@pytest.mark.parametrize(("host", "is_told"), [(one, True) for one in HOSTS] + [(one, False) for one in HOSTS[:3]])
def test_shutdown_of_the_host_loses_nothing(host, is_told, hub, webhooks, tmp_path):
    """A host ends after what is under way, which is kept; as documented it lets the app know, a bare mount does not."""
    app = documented(host, webhooks) if is_told else bare(host, webhooks)
    commit, begun, go = hub.commit, threading.Event(), threading.Event()

    def held(arrivals, **options):
        begun.set()
        assert go.wait(PATIENCE_S), "nobody let it go"
        return commit(arrivals, **options)

    hub.commit = held
    with ThreadPoolExecutor(1) as elsewhere, served(app) as (server, url):
        under_way = elsewhere.submit(post, f"{url}{PREFIX}/channels/desk", "hello")
        assert begun.wait(PATIENCE_S)
        server.should_exit = True
        go.set()
        answer = under_way.result()

    assert answer.status_code == 200
    assert texts(tmp_path) == ["hello"]
    assert is_draining(webhooks) is is_told
