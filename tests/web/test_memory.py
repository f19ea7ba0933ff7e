"""The memory that requests share before it is known who sends them: a real server, and senders of all kinds."""

import asyncio
import gzip
import json
import re
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import httpx
import pytest
import uvicorn
from attrs import evolve
from cryptography.hazmat.primitives.asymmetric import ec
from providers import (
    MAIL,
    MAILGUN,
    OTHER_KEY,
    POSTMARK,
    RAW,
    SENDGRID,
    SES,
    basic,
    by_sendgrid,
    certificate,
    channel,
    inbound,
    parsed,
    posted,
    received,
    routed,
    sns,
)

from convsdk.channels.email import EmailChannel, EmailSettings
from convsdk.hub import Hub
from convsdk.memory import Memory
from convsdk.store.memory import MemoryStore
from convsdk.testing.builders import FakeClock
from convsdk.web import Limits, create_app

PATIENCE_S = 30
MIB = 1 << 20
LARGE = MAIL.replace(b"%PDF", b"x" * 2 * MIB)
SMALL = routed(MAIL.replace(b"<one@", b"<small@"))
POST = b"POST /channels/support HTTP/1.1\r\nHost: shop.example\r\n"
SAID = b"POST /widget/chat/messages HTTP/1.1\r\nHost: shop.example\r\nContent-Type: application/json\r\n"
SAID += b"Content-Length: %d\r\n\r\n"
BY_NOBODY = "whsec_bm9ib2R5LW5vYm9keS1ub2JvZHktbm9ib2R5LS0="
CONFIG = """
store = "sqlite:///shop.db"
[channels.support]
type = "email"
address = "in-7f3a@shop.example"
source = { by = "mailgun", signing_key = { env = "APP_SECRET" } }
"""


def app_of(folder, given, **limits):
    """Give the app for a channel of mail, and its hub."""
    hub = Hub(MemoryStore(), channels=[given])
    web = httpx.MockTransport(lambda _: httpx.Response(200, content=certificate()))
    folders = {"rejects": folder / "rejects", "files": folder / "files"}
    client = httpx.AsyncClient(transport=web)
    return create_app(hub, **folders, limits=Limits(**limits), client=client, clock=FakeClock()), hub


@contextmanager
def served(folder, given=None, **limits):
    """Serve a channel of mail on a port of this machine; give its place and its hub."""
    app, hub = app_of(folder, given or channel(MAILGUN), **limits)
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, http="h11", log_config=None, lifespan="off", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=[[listener]])
    thread.start()
    try:
        yield listener.getsockname(), hub
    finally:
        server.should_exit = True
        thread.join(PATIENCE_S)


def kept(folder, hub):
    """Give what is in the store or aside."""
    filings = hub.store.filings(hub.workspace, identifiers=None, before=None, limit=100)
    return [*filings, *folder.glob("rejects/**/*.json")]


def begin(place, *, announced=None):
    """Send a request up to its body, of a size that is `announced` or not."""
    wire = socket.create_connection(place, timeout=PATIENCE_S)
    size = b"Transfer-Encoding: chunked" if announced is None else b"Content-Length: %d" % announced
    wire.sendall(POST + size + b"\r\n\r\n")
    return wire


def chunk(size):
    """Give a chunk of garbage."""
    return b"%x\r\n" % size + b"a" * size + b"\r\n"


def answer(wire):
    """Give what comes until the server ends the connection."""
    with suppress(ConnectionResetError):  # where more was sent than it wanted
        return b"".join(iter(lambda: wire.recv(1000), b""))
    return b""


def has_room(place, size=2 * MIB):
    """Say whether the server asks for a body of that size."""
    with socket.create_connection(place, timeout=PATIENCE_S) as wire:
        wire.sendall(POST + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % size)
        told = wire.recv(1000)
    assert told.startswith((b"HTTP/1.1 100", b"HTTP/1.1 503")), told
    return told.startswith(b"HTTP/1.1 100")


def wait_for(condition):
    """Wait for what is about to come."""
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.01)


def post(place, given):
    """Give the answer to a provider's request."""
    url = f"http://127.0.0.1:{place[1]}/channels/support"
    return httpx.post(url, content=given.body, headers=dict(given.headers), timeout=PATIENCE_S)


def test_requests_share_the_memory(tmp_path):
    """What finds it full comes again, announced or not; a small one gets in, and all once there is room."""
    with served(tmp_path, memory_bytes=3 * MIB) as (place, hub):
        with begin(place) as first, begin(place) as second:
            first.sendall(chunk(2 * MIB))
            wait_for(lambda: not has_room(place))
            announced = post(place, routed(LARGE))
            second.sendall(chunk(MIB + 1))
            unannounced = answer(second)
            small = post(place, SMALL)
            first.sendall(b"0\r\n\r\n")
            first_told = first.recv(1000)
        wait_for(lambda: has_room(place))
        again = post(place, routed(LARGE))

    assert (announced.status_code, announced.content) == (503, b"")
    assert (announced.headers["retry-after"], announced.headers["connection"]) == ("5", "close")
    assert unannounced.startswith(b"HTTP/1.1 503") or unannounced == b""
    assert first_told.startswith(b"HTTP/1.1 403")
    assert (small.status_code, again.status_code) == (200, 200)
    assert len(kept(tmp_path, hub)) == 2


class BrokenChannel(EmailChannel):
    """Has a bug."""

    def verify(self, request):
        raise KeyError(request.method)


@pytest.mark.parametrize(
    ("end", "told"),
    [
        ("hangs up", b""),
        ("is slow", b"HTTP/1.1 408"),
        ("is forged", b"HTTP/1.1 403"),
        ("is no HTTP", b"HTTP/1.1 400"),
        ("meets a bug", b"HTTP/1.1 500"),
    ],
)
def test_memory_is_given_back_whatever_becomes_of_a_request(tmp_path, end, told):
    """A sender that hangs up or waits too long, a forger, garbage and a bug leave room for the next."""
    kind = BrokenChannel if end == "meets a bug" else EmailChannel
    given = kind("support", EmailSettings(address="in-7f3a@shop.example", source=MAILGUN))
    limits = {"memory_bytes": 3 * MIB, "file_time_s": 1.0 if end == "is slow" else PATIENCE_S}
    last = {"hangs up": b"", "is slow": b"1\r\na\r\n", "is no HTTP": b"zz\r\n"}.get(end, b"0\r\n\r\n")
    with served(tmp_path, given, **limits) as (place, hub):
        with begin(place) as wire:
            wire.sendall(chunk(2 * MIB))
            wait_for(lambda: not has_room(place))
            wire.sendall(last)
            found = b"" if end == "hangs up" else wire.recv(1000)
        wait_for(lambda: has_room(place))

    assert found.startswith(told)
    assert kept(tmp_path, hub) == []


def test_memory_of_a_cancelled_request_is_given_back(tmp_path):
    """A host that cancels a request gets its memory back."""
    app, _ = app_of(tmp_path, channel(MAILGUN), memory_bytes=3 * MIB)
    scope = {"type": "http", "http_version": "1.1", "method": "POST", "scheme": "http", "path": "/channels/support"}
    scope |= {"raw_path": b"/channels/support", "query_string": b"", "headers": [], "asgi": {"version": "3.0"}}

    async def run():
        is_read, messages = asyncio.Event(), iter([{"type": "http.request", "body": LARGE, "more_body": True}])

        async def receive():
            for message in messages:
                return message
            is_read.set()
            await asyncio.Event().wait()
            return None

        async def send(_):
            pass

        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://shop.example") as client:

            async def ask():
                given = routed(LARGE)
                found = await client.post("/channels/support", content=given.body, headers=dict(given.headers))
                return found.status_code

            under_way = asyncio.create_task(app(scope, receive, send))
            await asyncio.wait_for(is_read.wait(), PATIENCE_S)
            before = await ask()
            under_way.cancel()
            await asyncio.wait([under_way])
            return before, await ask()

    assert asyncio.run(run()) == (503, 200)


def test_what_is_announced_holds_no_memory(tmp_path):
    """Who announces much and sends nothing keeps nobody out."""
    with served(tmp_path, memory_bytes=3 * MIB) as (place, _), ExitStack() as wires:
        for _ in range(20):
            wires.enter_context(begin(place, announced=2 * MIB)).sendall(b"a")
        told = post(place, routed(LARGE)).status_code

    assert told == 200


@pytest.mark.parametrize(
    "path", ["/nowhere", "/health", "/widget.js", "/metrics", "/channels/none", "/widget/none/session", "/%ff/%00"]
)
def test_body_that_nobody_wants_is_not_read_to_its_end(tmp_path, path):
    """The answer ends the connection, however much was still to come."""
    with served(tmp_path) as (place, _), socket.create_connection(place, timeout=PATIENCE_S) as wire:
        wire.sendall(f"POST {path} HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 1000000000\r\n\r\n".encode())
        told = answer(wire)

    assert told[:12] in {b"HTTP/1.1 404", b"HTTP/1.1 405", b"HTTP/1.1 415"}
    assert b"connection: close" in told.lower()


def test_packed_body_counts_as_it_came(tmp_path):
    """No body is unpacked, so that a small one cannot become a large one: it is authentic as it came, or not."""
    packed = routed(MAIL)
    packed = evolve(
        packed, body=gzip.compress(packed.body), headers=dict(packed.headers) | {"Content-Encoding": "gzip"}
    )
    with served(tmp_path) as (place, hub):
        told = post(place, packed).status_code

    assert (told, kept(tmp_path, hub)) == (403, [])


@pytest.mark.parametrize(
    "head",
    [
        b"GET /" + b"a" * 300_000,
        b"GET /channels/support HTTP/1.1\r\nx: " + b"a" * 300_000,
        b"GET /channels/support HTTP/1.1\r\n" + b"x: a\r\n" * 50_000,
        b"GET /channels/\xff\xfe HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /channels/support HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET /channels/support HTTP/1.1\r\nHost: a\xff\r\n\r\n",
        b"POST /channels/support HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        b"POST /channels/support HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"POST /channels/support HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"GET /widget/chat/messages?before=" + b"9" * 30 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /channels/support%0d%0aX-Evil:%201 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /widget/%ed%a0%80/events HTTP/1.1\r\nHost: a\r\n\r\n",
    ],
    ids=lambda head: repr(head[:60])[2:-1],
)
def test_garbage_is_refused_without_harm(tmp_path, head):
    """Whatever comes as HTTP, its sender is told that it is to blame, and the next one is served."""
    with served(tmp_path) as (place, _):
        with socket.create_connection(place, timeout=PATIENCE_S) as wire:
            with suppress(OSError):  # it was refused amid what it says
                wire.sendall(head)
            told = b""
            with suppress(ConnectionResetError):
                told = wire.recv(1000)
        after = post(place, SMALL).status_code

    assert told.startswith(b"HTTP/1.1 4") or told == b""
    assert b"x-evil" not in told.lower()
    assert after == 200


def test_share_grows_and_shrinks():
    """What one has itself does not stand in its way; what it gives back is there for others."""
    memory = Memory(100, small_bytes=10)
    with memory.share() as one, memory.share() as other:
        found = [one.has_room(1000)]
        one.hold(70)
        found += [one.has_room(1000), other.has_room(11)]
        one.hold(20)
        found += [other.has_room(55), other.has_room(56)]

    assert (found, memory.held_bytes) == ([True, True, False, True, False], 0)


def test_small_ones_stay_within_the_memory_too():
    """A large one leaves a quarter to small ones, and these get no more than there is."""
    memory = Memory(100, small_bytes=10)
    with ExitStack() as stack:
        shares = [stack.enter_context(memory.share()) for _ in range(20)]
        shares[0].hold(75)
        admitted = []
        for one in shares[1:]:
            if one.has_room(10):
                one.hold(10)
                admitted.append(one)

    assert len(admitted) == 2


def test_many_small_bodies_stay_within_the_memory(tmp_path):
    """Senders of as much as any request may have, who then wait, are refused when there are many; a page's as well."""
    with served(tmp_path, memory_bytes=4 * MIB) as (place, _), ExitStack() as wires:
        held = [wires.enter_context(begin(place)) for _ in range(5)]
        for one in held[:4]:
            one.sendall(chunk(MIB - 1000))
        wait_for(lambda: not has_room(place, MIB - 200))
        held[4].sendall(chunk(MIB - 1000))
        refused = answer(held[4])
        page = wires.enter_context(socket.create_connection(place, timeout=PATIENCE_S))
        page.sendall(SAID % MIB)
        refused_page = answer(page)
        tiny = post(place, SMALL)

    assert refused.startswith(b"HTTP/1.1 503") or refused == b""
    assert refused_page.startswith(b"HTTP/1.1 503")
    assert (b"retry-after: 5" in refused_page, b"connection: close" in refused_page) == (True, True)
    assert tiny.status_code == 200


FORGED = {
    "raw": (RAW, lambda raw: posted(raw, secret=BY_NOBODY)),
    "mailgun": (MAILGUN, lambda raw: routed(raw, signature="0" * 64)),
    "postmark": (POSTMARK, lambda raw: evolve(inbound(raw.decode()), headers=basic(password="guess"))),
    "ses": (SES, lambda raw: sns(received(raw.decode()), key=OTHER_KEY)),
    "sendgrid": (SENDGRID, lambda raw: by_sendgrid(*parsed(raw), key=ec.generate_private_key(ec.SECP256R1()))),
}


@pytest.mark.parametrize("source", FORGED)
def test_forged_mail_of_any_size_is_refused_and_not_kept(tmp_path, source):
    """At every source, a small one and a large one are answered 403, and nothing of them is kept."""
    settings, forge = FORGED[source]
    with served(tmp_path, channel(settings)) as (place, hub):
        told = [post(place, forge(mail)) for mail in (MAIL, LARGE)]
        garbage = [post(place, evolve(forge(MAIL), body=body)) for body in (b"", b"\0\xff", b"{" * 99_999)]

    assert [(one.status_code, one.content) for one in told] == [(403, b"")] * 2
    assert [(one.status_code, one.content) for one in garbage] == [(403, b"")] * 3
    assert kept(tmp_path, hub) == []


@contextmanager
def running(folder):
    """Run `convsdk serve` as a user does; give the process and its place."""
    command = [
        sys.executable,
        "-c",
        "from convsdk.cli import main; main()",
        "serve",
        "--port=0",
        "--json",
        "--memory=128",
    ]
    with (
        (folder / "log").open("w") as log,
        subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=log, text=True) as process,
    ):
        try:
            yield process, ("127.0.0.1", int(json.loads(process.stdout.readline())["url"].rpartition(":")[2]))
        finally:
            process.kill()


def peak_mib(process):
    """Give the most memory that a process ever had."""
    return int(re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{process.pid}/status").read_text())[1]) // 1024


@pytest.mark.once
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system tells no peak of a process's memory")
def test_many_large_requests_stay_within_the_memory(tmp_path, monkeypatch):
    """Bodies of 100 MB, a gigabyte together and announced or not, take no more than the bound and a little."""
    monkeypatch.setenv("APP_SECRET", "a-secret-of-the-tests")
    (tmp_path / "convsdk.toml").write_text(CONFIG, encoding="utf-8")
    with running(tmp_path) as (process, place), ExitStack() as wires:
        before = peak_mib(process)
        announced = [wires.enter_context(begin(place, announced=100_000_000)) for _ in range(10)]
        told = [one.recv(1000)[:12] for one in announced]
        senders = [wires.enter_context(begin(place)) for _ in range(20)]
        for _ in range(45):
            for one in senders:
                with suppress(OSError):  # it was refused
                    one.sendall(chunk(MIB))
        health = httpx.get(f"http://127.0.0.1:{place[1]}/health", timeout=PATIENCE_S)
        grown = peak_mib(process) - before

    assert told == [b"HTTP/1.1 413"] * 10
    assert health.status_code == 200
    assert 80 < grown < 128 + 100
