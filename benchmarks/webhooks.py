"""Webhooks: how many signed requests a second does one process keep, each answered after its commit?

`wrk` holds 64 connections to one uvicorn process at a time, each with one request at a time. Run as a program, this
serves an app on the store at `url`, as `convsdk serve` would, and prints the port:

    webhooks.py KIND URL
"""

import hashlib
import hmac
import itertools
import json
import math
import random
import socket
import subprocess
import sys
import time
from argparse import Namespace
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import prefill
from attrs import evolve, frozen
from contestants import Name
from laps import Lap
from limit import BODY
from places import Place, PostgresqlDatabase, SqliteFile
from server import Server, spent_s

from convsdk.channels.messenger import MessengerChannel, MessengerSettings
from convsdk.core.ports import Request, Secret
from convsdk.hub import Hub
from convsdk.ingest import Ingest

CONNECTIONS = 64
WHAT = "signed webhooks, known senders"
GROUP = Name(store="", who="`create_app`, group commit", what=WHAT)
EACH = Name(store="", who="`create_app`, a commit for each request", what=WHAT)
BARE = Name(store="", who="an ASGI app that only answers", what=WHAT)
_KINDS = {"group": GROUP, "each": EACH}
_BARE = "bare"
_CHANNEL = "page"
_KEY = "key of the benchmark"
_SENDERS = 20_000
_MOST_A_SECOND = 10_000  # as many requests are made ready: more than anybody can keep
_QUIET_S = 0.1
_START_MS = 1_790_000_000_000
_numbers = itertools.count(1)


# -- what is measured


@frozen(kw_only=True)
class App:
    """An app that runs in a process of its own. `place` is where it keeps what comes (None: nowhere)."""

    name: Name
    place: Place | None
    process: int
    port: int

    def rows(self, table: str) -> int:
        """Give the number of rows of a table, once nothing is under way any more."""
        if self.place is None:
            return 0
        found, before = self.place.count(table), -1
        while found != before:
            time.sleep(_QUIET_S)
            found, before = self.place.count(table), found
        return found


def webhooks(folder: Path, options: Namespace, server: Server | None) -> dict[Name, list[Lap]]:
    """Give the rates of group commit, of a commit for each request, and of an app that keeps nothing."""
    laps: dict[Name, list[Lap]] = defaultdict(list)
    places: dict[str, Place] = {"SQLite": SqliteFile(folder / "webhooks.db")}
    if server:
        places["PostgreSQL"] = PostgresqlDatabase(server.create("convsdk_bench_webhooks"))
    senders = min(_SENDERS, options.contacts)
    with ExitStack() as opened:
        apps = [opened.enter_context(_serving(_BARE, BARE, None, folder))]
        for store, place in places.items():
            opened.callback(place.close)
            _prepare(place, contacts=options.contacts, senders=senders)
            for kind, name in _KINDS.items():
                apps.append(opened.enter_context(_serving(kind, evolve(name, store=store), place, folder)))
        for number in range(options.rounds):
            for one in apps[:: -1 if number % 2 else 1]:
                seconds = math.ceil(options.seconds)
                laps[one.name].append(_lap(one, folder, senders=senders, seconds=seconds, server=server))
    return laps


def _prepare(place: Place, *, contacts: int, senders: int) -> None:
    prefill.contacts(place, contacts)
    channel = _channel()
    with closing(Hub(place.url, channels=[channel])) as hub:
        bodies = (_body(number, sender) for sender, number in enumerate(itertools.islice(_numbers, senders)))
        requests = (Request(received_at=datetime.now(UTC), body=body) for body in bodies)
        for _progress in hub.receive_many(_CHANNEL, (event for one in requests for event in channel.parse(one))):
            pass


@contextmanager
def _serving(kind: str, name: Name, place: Place | None, folder: Path) -> Iterator[App]:
    program = [sys.executable, __file__, kind, place.url if place else ""]
    with subprocess.Popen(program, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout
            yield App(name=name, place=place, process=process.pid, port=int(process.stdout.readline()))
        finally:
            process.terminate()


def _lap(app: App, folder: Path, *, senders: int, seconds: int, server: Server | None) -> Lap:
    requests = folder / "requests"
    _write_requests(requests, seconds * _MOST_A_SECOND, senders)
    rows = {table: app.rows(table) for table in ("message", "contact")}
    cpu_s, server_s = spent_s(app.process), server.cpu_s() if server else 0
    told = _wrk(app.port, requests, seconds)
    cpu_s, server_s = spent_s(app.process) - cpu_s, (server.cpu_s() if server else 0) - server_s
    assert not told["failed"], f"{app.name}: {told['failed']} requests failed"
    if app.place:
        # At the end, each connection may have one that is kept and not yet answered.
        kept = app.rows("message") - rows["message"]
        assert 0 <= kept - told["answered"] <= CONNECTIONS, f"{app.name}: {told['answered']} answers, {kept} messages"
        assert app.rows("contact") == rows["contact"], f"{app.name}: known senders were taken for new ones"
    return Lap(
        messages=told["answered"],
        wall_s=told["wall_us"] / 1e6,
        cpu_s=cpu_s,
        server_s=server_s if app.name.store == "PostgreSQL" else 0,
        p50_s=told["p50_us"] / 1e6,
    )


def _wrk(port: int, requests: Path, seconds: int) -> dict[str, int]:
    program = ["wrk", "--threads=1", f"--connections={CONNECTIONS}", f"--duration={seconds}s"]
    script = f"--script={Path(__file__).with_suffix('.lua')}"
    done = subprocess.run(
        [*program, script, f"http://127.0.0.1:{port}", "--", requests], check=True, stdout=subprocess.PIPE
    )
    return json.loads(done.stdout.splitlines()[-1])  # type: ignore[no-any-return]  # numbers, as webhooks.lua prints


# -- what is sent


def _body(number: int, sender: int) -> bytes:
    message = {"mid": f"m{number}", "text": BODY}
    item = {"sender": {"id": f"{sender}"}, "recipient": {"id": "1001"}, "timestamp": _START_MS + number}
    entry = {"id": "1001", "time": _START_MS, "messaging": [item | {"message": message}]}
    return json.dumps({"object": "page", "entry": [entry]}).encode()


def _post(body: bytes) -> bytes:
    fields = (
        f"POST /channels/{_CHANNEL} HTTP/1.1",
        "Host: shop.example",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        f"X-Hub-Signature-256: sha256={hmac.new(_KEY.encode(), body, hashlib.sha256).hexdigest()}",
    )
    return "\r\n".join((*fields, "", "")).encode() + body


def _write_requests(path: Path, requests: int, senders: int) -> None:
    pick = random.Random(requests)
    with path.open("wb") as file:
        for number in itertools.islice(_numbers, requests):
            request = _post(_body(number, pick.randrange(senders)))
            file.write(b"%d\n" % len(request) + request)


# -- who answers


def _channel() -> MessengerChannel:
    secret = Secret(_KEY)
    return MessengerChannel(
        _CHANNEL, MessengerSettings(app_secret=secret, verify_token=secret, contact_from="first_message")
    )


async def _only_answer(
    scope: MutableMapping[str, Any],
    receive: Callable[[], Awaitable[MutableMapping[str, Any]]],
    send: Callable[[MutableMapping[str, Any]], Awaitable[None]],
) -> None:
    if scope["type"] == "http":
        while (await receive()).get("more_body"):
            pass
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})


def main() -> None:
    """Serve one of the apps, and print its port."""
    import uvicorn  # noqa: PLC0415  (only who serves needs it)

    from convsdk.cli.session import log_to_stderr  # noqa: PLC0415  (as above)
    from convsdk.redaction import Redaction  # noqa: PLC0415  (as above)
    from convsdk.web import create_app  # noqa: PLC0415  (as above)

    kind, url = sys.argv[1:]
    redaction = Redaction()  # as `convsdk serve` has it
    redaction.add(_KEY)
    log_to_stderr(redaction)
    app: Any = _only_answer
    if kind != _BARE:
        hub = Hub(url, channels=[_channel()])
        app = create_app(hub, ingest=Ingest(hub, batch=1) if kind == "each" else None)
    listening = socket.create_server(("127.0.0.1", 0), backlog=2048)
    print(listening.getsockname()[1], flush=True)
    uvicorn.Server(uvicorn.Config(app, http="h11", log_config=None, access_log=False)).run(sockets=[listening])


if __name__ == "__main__":
    main()
