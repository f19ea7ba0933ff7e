import collections
import hashlib
import hmac
import json
import signal
import socket
import subprocess
import sys
import time
from contextlib import closing, contextmanager
from urllib.parse import urlsplit

import graph
import httpx
import pytest
from click.testing import CliRunner
from receiver import Receiver

from convsdk.cli import main
from convsdk.store import open_store

PATIENCE_S = 20
SECRET = "hunter2-hunter2"
CONFIG = """
store = "sqlite:///shop.db"
[channels.page]
type = "messenger"
app_secret = { env = "APP_SECRET" }
verify_token = { env = "APP_SECRET" }
"""


@pytest.fixture
def shop(tmp_path, monkeypatch):
    """Give a folder with a configuration in it, and work there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("APP_SECRET", SECRET)
    (tmp_path / "convsdk.toml").write_text(CONFIG, encoding="utf-8")
    return tmp_path


@contextmanager
def served(folder, *arguments):
    """Run `convsdk serve` as a user does; give the process and its URL."""
    command = [sys.executable, "-c", "from convsdk.cli import main; main()", "serve", "--port=0", "--json", *arguments]
    with (
        (folder / "log").open("w") as log,
        subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=log, text=True) as process,
    ):
        try:
            yield process, json.loads(process.stdout.readline())["url"]
        finally:
            process.kill()


def webhook(number):
    """Give the body of a webhook with one message, and the header that signs it."""
    item = {"sender": {"id": "7001"}, "recipient": {"id": "1001"}, "timestamp": 1458692752478 + number}
    entry = {"id": "1001", "messaging": [item | {"message": {"mid": f"m{number}", "text": f"hello {number}"}}]}
    body = json.dumps({"object": "page", "entry": [entry]}).encode()
    return body, sign(body)


def sign(body):
    """Give the header that signs `body`."""
    return {"X-Hub-Signature-256": f"sha256={hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()}"}


def texts(workspace="default"):
    """Give the texts of all messages in the store."""
    with closing(open_store("sqlite:///shop.db")) as store:
        filings = store.filings(workspace, identifiers=None, before=None, limit=100)
        found = [store.messages(workspace, filing.id, before=None, limit=100) for filing in filings]
        return sorted(one.text for messages in found for one in messages)


def begin(place, body, headers):
    """Send a request up to its body, and give its connection once the server asks for that."""
    wire = socket.create_connection(place, timeout=PATIENCE_S)
    fields = headers | {"Host": "shop.example", "Content-Length": len(body), "Expect": "100-continue"}
    lines = ["POST /channels/page HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items()), "", ""]
    wire.sendall("\r\n".join(lines).encode())
    assert wire.recv(1000).startswith(b"HTTP/1.1 100")
    return wire


def read_all(wire):
    """Give what comes until the server ends the connection."""
    return b"".join(iter(lambda: wire.recv(1000), b""))


def wait_until_closed(place):
    """Wait until nobody listens any more."""
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        try:
            socket.create_connection(place, timeout=PATIENCE_S).close()
        except ConnectionRefusedError:
            return
        except ConnectionResetError:
            continue
    pytest.fail("the server still listens")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_ends_the_server_after_what_is_under_way(shop, number):
    """Requests that have begun are kept and answered, no other is let in, and the program ends well."""
    with served(shop) as (process, url):
        place = (urlsplit(url).hostname, urlsplit(url).port)
        bodies = [webhook(each) for each in range(3)]
        wires = [begin(place, *each) for each in bodies]
        process.send_signal(number)
        wait_until_closed(place)
        for wire, (body, _) in zip(wires, bodies, strict=True):
            wire.sendall(body)
        answers = [read_all(wire).split(b"\r\n")[0] for wire in wires]
        status = process.wait(PATIENCE_S)
        for wire in wires:
            wire.close()

    assert answers == [b"HTTP/1.1 200 OK"] * 3
    assert status == 0
    assert texts() == ["hello 0", "hello 1", "hello 2"]
    assert not list(shop.glob("shop.db-*")), "the store was not closed"


def test_served_webhook_is_in_the_store_and_its_secrets_are_in_no_log(shop):
    """A webhook over HTTP is kept by the time of the answer; the log has a line for it, and neither query nor body."""
    body, headers = webhook(1)

    with served(shop) as (_process, url):
        answer = httpx.post(f"{url}/channels/page?token=t0k3n", content=body, headers=headers)
        kept = texts()
        refused = httpx.post(f"{url}/channels/page", content=b"nonsense")
        aside = httpx.post(f"{url}/channels/page", content=b"{}", headers=sign(b"{}"))
        ready = httpx.get(f"{url}/ready")

    log = (shop / "log").read_text()
    assert [one.status_code for one in (answer, refused, aside, ready)] == [200, 403, 200, 200]
    assert "server" not in answer.headers
    assert kept == ["hello 1"]
    assert [line.partition("outcome=")[2].split()[0] for line in log.splitlines()] == ["taken", "forbidden", "aside"]
    assert not any(word in log for word in ("t0k3n", "hello", SECRET, headers["X-Hub-Signature-256"]))
    assert CliRunner().invoke(main, ["rejects", "--json"]).stdout.count('"channel": "page"') == 1


FORUM = """
[workspaces.default]
[workspaces.forum]
[channels.forum-page]
type = "messenger"
workspace = "forum"
app_secret = { env = "APP_SECRET" }
verify_token = { env = "APP_SECRET" }
"""


def test_channels_of_all_workspaces_are_served(shop):
    """One server takes what comes for any workspace of the file, each into its own."""
    (shop / "convsdk.toml").write_text(CONFIG + FORUM, encoding="utf-8")

    with served(shop) as (_process, url):
        bodies = zip(("page", "forum-page"), map(webhook, range(2)), strict=True)
        for channel, (body, headers) in bodies:
            httpx.post(f"{url}/channels/{channel}", content=body, headers=headers).raise_for_status()

    assert (texts(), texts("forum")) == (["hello 0"], ["hello 1"])


def test_one_workspace_is_served_where_it_is_asked_for(shop):
    """With --workspace, channels of others are not there."""
    (shop / "convsdk.toml").write_text(CONFIG + FORUM, encoding="utf-8")
    body, headers = webhook(1)

    with served(shop, "--workspace=forum") as (_process, url):
        answers = [httpx.post(f"{url}/channels/{one}", content=body, headers=headers) for one in ("page", "forum-page")]

    assert [one.status_code for one in answers] == [404, 200]


def test_served_webhook_is_told_to_others(shop, monkeypatch):
    """What the server takes in it tells, signed; the signal ends it after what it is telling."""
    secret = "whsec_" + "A" * 32
    monkeypatch.setenv("CRM", secret)
    with Receiver() as receiver:
        told = f'[webhooks.crm]\nurl = "{receiver.url}"\nsecrets = [{{ env = "CRM" }}]\nstart = "beginning"\n'
        (shop / "convsdk.toml").write_text(CONFIG + told, encoding="utf-8")
        with served(shop) as (process, url):
            body, headers = webhook(1)
            httpx.post(f"{url}/channels/page", content=body, headers=headers)
            deliveries = receiver.wait_for(3)
            process.terminate()
            status = process.wait(PATIENCE_S)

    told = [one.read(secret)["type"] for one in deliveries]
    # The channel's people are looked up as well, and whoever does that says where it starts.
    assert [one for one in told if one != "outbox.started"] == ["conversation.opened", "message.received"]
    assert status == 0
    assert not list(shop.glob("shop.db-*")), "the store was not closed"


def test_server_delivers_answers(shop, monkeypatch):
    """What another program queues in the store goes by the server's own worker."""
    monkeypatch.setenv("APP_SECRET", graph.SECRET)
    monkeypatch.setenv("TOKEN", graph.TOKEN)
    with graph.Graph().served() as platform:
        page = f'pages = [{{ id = "{graph.PAGE}", token = {{ env = "TOKEN" }} }}]\ngraph_url = "{platform.url}"\n'
        (shop / "convsdk.toml").write_text(CONFIG + page, encoding="utf-8")
        with served(shop) as (_process, url):
            body, headers = platform.hear("7001", "Is it blue?")
            assert httpx.post(f"{url}/channels/page", content=body, headers=headers).is_success
            with closing(open_store("sqlite:///shop.db")) as store:
                (filing,) = store.filings("default", identifiers=None, before=None, limit=1)
            reply = CliRunner().invoke(main, ["reply", str(filing.id), "It is.", "--by", "kim"], catch_exceptions=False)
            end = time.monotonic() + PATIENCE_S
            while not platform.sent and time.monotonic() < end:
                time.sleep(0.05)

    assert reply.exit_code == 0, reply.output
    assert [one.message["text"] for one in platform.sent] == ["It is."]


def test_server_can_leave_the_telling_to_workers(shop, monkeypatch):
    """With --no-outbox nothing is told."""
    monkeypatch.setenv("CRM", "whsec_" + "A" * 32)
    with Receiver() as receiver:
        told = f'[webhooks.crm]\nurl = "{receiver.url}"\nsecrets = [{{ env = "CRM" }}]\nstart = "beginning"\n'
        (shop / "convsdk.toml").write_text(CONFIG + told, encoding="utf-8")
        with served(shop, "--no-outbox") as (_process, url):
            body, headers = webhook(1)
            httpx.post(f"{url}/channels/page", content=body, headers=headers)
            time.sleep(2.5)  # longer than the outbox would take

    assert receiver.deliveries == []


def test_body_without_an_end_is_cut_off(shop):
    """A sender that goes on beyond the limit gets a 413 and no more attention."""
    with served(shop) as (_process, url):
        with socket.create_connection((urlsplit(url).hostname, urlsplit(url).port), timeout=PATIENCE_S) as wire:
            wire.sendall(b"POST /channels/page HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
            chunk = b"10000\r\n" + b"a" * 65_536 + b"\r\n"
            with pytest.raises(OSError, match=r"Broken pipe|reset"):
                collections.deque((wire.sendall(chunk) for _ in range(100_000)), maxlen=0)
        health = httpx.get(f"{url}/health")

    assert health.status_code == 200
    assert "outcome=oversized" in (shop / "log").read_text()


def test_header_fields_without_an_end_are_cut_off(shop):
    """Header fields have a limit, too."""
    with served(shop) as (_process, url):
        with socket.create_connection((urlsplit(url).hostname, urlsplit(url).port), timeout=PATIENCE_S) as wire:
            wire.sendall(b"GET /health HTTP/1.1\r\nHost: a\r\n")
            field = b"A: " + b"a" * 10_000 + b"\r\n"
            with pytest.raises(OSError, match=r"Broken pipe|reset"):
                collections.deque((wire.sendall(field) for _ in range(100_000)), maxlen=0)
        health = httpx.get(f"{url}/health")

    assert health.status_code == 200


def test_port_in_use_is_told(shop):
    """A port that somebody else has is named, with the remedy."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = CliRunner().invoke(main, ["serve", "--port", str(port)])

    assert result.exit_code == 2
    assert f"127.0.0.1:{port} cannot be listened on (Address already in use): end what does" in result.stderr


def test_missing_extra_is_told(shop, monkeypatch):
    """Without the extra, the error says how to install it."""
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.delitem(sys.modules, "convsdk.web.server", raising=False)  # another test may have imported it

    result = CliRunner().invoke(main, ["serve"])

    assert result.exit_code == 2
    assert "pip install 'convsdk[web]'" in result.stderr


def test_nothing_to_serve_is_told(shop):
    """A file, or a workspace, without channels is a mistake, and no server."""
    (shop / "convsdk.toml").write_text("[workspaces.default]", encoding="utf-8")

    results = [CliRunner().invoke(main, ["serve", *more]) for more in ([], ["--workspace", "default"])]

    assert [one.exit_code for one in results] == [2, 2]
    assert "no channel is configured to serve: add [channels.NAME]" in results[0].stderr
    assert "workspace 'default' has no channel to serve: add [channels.NAME]" in results[1].stderr


def test_demo_shop_knows_who_is_logged_in(tmp_path):
    """The demo has pages with the widget, and its backend signs who is there, so that the chat believes it."""
    with served(tmp_path, "--demo") as (_, url), httpx.Client(base_url=url, follow_redirects=True) as browser:
        page = browser.get("/")
        script = browser.get("/widget.js")
        widget = browser.get("/widget/shop-chat").json()
        begun = browser.post("/widget/shop-chat/session", json={"keep": False}).json()
        token = browser.get("/demo/token", params={"visitor": begun["visitor"]}).text
        known = {"authorization": f"Bearer {begun['token']}"}
        named = browser.post("/widget/shop-chat/identity", json={"id": "i1", "token": token}, headers=known).json()
        nowhere = [browser.get(f"/demo/{name}").status_code for name in ("other.html", "..%2fwidget.js", "%2e%2e")]

    assert (page.url.path, page.status_code) == ("/demo/", 200)
    assert "widget.js" in page.text
    assert script.headers["content-type"].startswith("text/javascript")
    assert widget["title"] == "Petal & Pot"
    assert [begun["is_proven"], named["is_proven"]] == [False, True]
    assert nowhere == [404, 404, 404]


def test_open_event_stream_does_not_hold_up_the_end(tmp_path):
    """Streams have no end of their own: the server ends them, and not after its grace."""
    with served(tmp_path, "--demo") as (process, url), httpx.Client(base_url=url, timeout=PATIENCE_S) as browser:
        token = browser.post("/widget/shop-chat/session", json={"keep": False}).json()["token"]
        known = {"authorization": f"Bearer {token}"}
        with browser.stream("GET", "/widget/shop-chat/events", headers=known) as stream:
            lines = stream.iter_lines()
            first = next(lines)
            process.send_signal(signal.SIGTERM)
            rest = list(lines)

        assert first == "event: ready"
        assert rest[-1] == ""
        assert process.wait(PATIENCE_S) == 0
