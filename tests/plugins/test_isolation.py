"""A bad plugin harms nobody but itself: real distributions, a host of its own, requests over HTTP."""

import json
import socket
import subprocess
import time
from contextlib import ExitStack, contextmanager
from urllib.parse import urlsplit

import httpx
import pytest
from distributions import environment, wheel

PATIENCE_S = 60
SECRET = "s3cret+of/the=shop"
DESK = '''
"""A right channel, which brings one message with each request."""

from attrs import frozen

from convsdk.core.events import MessageReceived
from convsdk.core.model import IdentityHint
from convsdk.core.ports import Channel, Secret
from convsdk.hookspecs import hookimpl


@frozen
class Settings:
    secret: Secret = Secret("")


class Desk(Channel):
    type = "{type}"
    settings = Settings
    contract = {contract}

    def parse(self, request):
        {parse}
        hint = IdentityHint(at=request.received_at)
        number = request.body.decode()
        return [MessageReceived(external_id=number, hint=hint, at=request.received_at, text=number)]


@hookimpl
def convsdk_channels(ctx):
    {register}
    return [Desk]
'''
OBSERVER = """
from pathlib import Path
from convsdk.hookspecs import hookimpl

@hookimpl
def convsdk_event(ctx, notice):
    with Path("{name}.seen").open("a") as file:
        file.write(notice.type + "\\n")
    {act}
"""
LOGS = """
import logging
import structlog
secret = self.config.secret.reveal()
logging.basicConfig(level=logging.INFO)
logging.warning("from logging: %s", secret)
logging.getLogger("httpx").info("HTTP Request: GET https://x.example/%s", secret)
structlog.get_logger().warning("from structlog", secret=secret)
try:
    raise OSError("from a traceback: " + secret)
except OSError:
    logging.exception("it failed")
"""


def desk(name, *, contract=1, parse="pass", register="pass"):
    """Give the source of a plugin with a channel type of that name."""
    parse = parse.strip().replace("\n", "\n        ")
    return DESK.format(type=name, contract=contract, parse=parse, register=register)


SOURCES = {
    "convsdk-right": desk("right"),
    "convsdk-raises-at-import": "raise OSError('no disk')",
    "convsdk-exits-at-import": "import sys\nsys.exit('not today')",
    "convsdk-raises-at-registration": desk("unregistered", register="raise OSError('no disk')"),
    "convsdk-exits-at-registration": desk("unregistered2", register="raise SystemExit('not today')"),
    "convsdk-incompatible": desk("incompatible", contract=99),
    "convsdk-raises-in-parse": desk("raising", parse="raise OSError('no disk')"),
    "convsdk-exits-in-parse": desk("exiting", parse="raise SystemExit('not today')"),
    "convsdk-logs-its-secret": desk("telling", parse=LOGS),
    "convsdk-observer-raises": OBSERVER.format(name="raises", act="raise OSError('no disk')"),
    "convsdk-observer-exits": OBSERVER.format(name="exits", act="raise SystemExit('not today')"),
    "convsdk-observer-blocks": OBSERVER.format(name="blocks", act="import time; time.sleep(10**6)"),
    "convsdk-observer-sees": OBSERVER.format(name="sees", act="pass"),
}
CONFIG = """
store = "sqlite:///shop.db"
[channels.right]
type = "right"
[channels.raising]
type = "raising"
[channels.exiting]
type = "exiting"
[channels.telling]
type = "telling"
secret = { env = "SHOP_SECRET" }
"""
CONVSDK = ("-c", "from convsdk.cli import main; main()")


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """Give the Python of an environment with a right plugin and with every bad one that lets a host start."""
    folder = tmp_path_factory.mktemp("wheels")
    wheels = [wheel(folder, name, source) for name, source in SOURCES.items()]
    return environment(tmp_path_factory.mktemp("site") / "venv", wheels)


def run(python, *arguments, cwd):
    """Give the JSON lines that a command of the program writes."""
    command = [python, *CONVSDK, *arguments, "--json"]
    environ = {"SHOP_SECRET": SECRET}
    done = subprocess.run(command, cwd=cwd, env=environ, capture_output=True, text=True, timeout=PATIENCE_S, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


@contextmanager
def served(python, folder):
    """Run `convsdk serve` as a user does, with the log in the file `log`; give its URL."""
    (folder / "convsdk.toml").write_text(CONFIG, encoding="utf-8")
    command = [python, *CONVSDK, "serve", "--port=0", "--json"]
    with (
        (folder / "log").open("w") as log,
        subprocess.Popen(
            command, cwd=folder, stdout=subprocess.PIPE, stderr=log, text=True, env={"SHOP_SECRET": SECRET}
        ) as process,
    ):
        try:
            yield json.loads(process.stdout.readline())["url"]
        finally:
            process.kill()


def seen(folder, name):
    """Give the types of the notices that the observer of that name was told."""
    path = folder / f"{name}.seen"
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


def post_until(url, is_enough):
    """Send messages to the right channel until that is so: an observer is told what comes once it is found."""
    end = time.monotonic() + PATIENCE_S
    while not is_enough():
        assert time.monotonic() < end, "not within the time"
        assert httpx.post(f"{url}/channels/right", content=f"{time.monotonic_ns()}").status_code == 200
        time.sleep(0.2)


@pytest.mark.parametrize(
    ("distribution", "reason", "fix"),
    [
        ("convsdk-raises-at-import", "it cannot be imported: OSError: no disk at ", "reinstall or update"),
        ("convsdk-exits-at-import", "it cannot be imported: SystemExit: not today at ", "reinstall or update"),
        ("convsdk-raises-at-registration", "it fails in convsdk_channels: OSError: no disk at ", "update"),
        ("convsdk-exits-at-registration", "it fails in convsdk_channels: SystemExit: not today at ", "update"),
        ("convsdk-incompatible", "channel class Desk is for contract 99, and this convsdk knows", "update convsdk"),
    ],
)
def test_bad_plugin_is_told_with_what_to_do(python, tmp_path, distribution, reason, fix):
    """`convsdk plugins` says of a plugin that is left out why, and how to mend it."""
    told = {one["distribution"]: one for one in run(python, "plugins", cwd=tmp_path)}

    found = told[f"{distribution} 1.0"]
    assert found["state"] == "broken"
    assert found["reason"].startswith(reason)
    assert found["fix"].startswith(fix)
    assert told["convsdk-right 1.0"]["state"] == "loaded"


def test_host_serves_beside_bad_plugins(python, tmp_path):
    """A host with all of them starts and takes messages in, and a channel that fails fails alone, each time."""
    with served(python, tmp_path) as url, httpx.Client(base_url=url, timeout=PATIENCE_S) as client:
        answers = {
            name: [client.post(f"/channels/{name}", content=f"{name} {number}").status_code for number in range(2)]
            for name in ("right", "raising", "exiting", "telling")
        }
        answers["right"].append(client.post("/channels/right", content="right at last").status_code)

    told = run(python, "conversations", cwd=tmp_path)
    assert answers == {"right": [200, 200, 200], "raising": [500, 500], "exiting": [500, 500], "telling": [200, 200]}
    assert sorted(one["channel"] for one in told) == ["right"] * 3 + ["telling"] * 2


def test_observers_fail_alone(python, tmp_path):
    """An observer that raises, exits or never comes back keeps the notices from nobody else."""
    with served(python, tmp_path) as url:
        post_until(url, lambda: all(seen(tmp_path, name) for name in ("blocks", "raises", "exits", "sees")))
        before = {name: len(seen(tmp_path, name)) for name in ("raises", "exits", "sees")}
        post_until(url, lambda: all(len(seen(tmp_path, name)) > count for name, count in before.items()))

    assert len(seen(tmp_path, "blocks")) == 1


def test_log_shows_no_secret_of_a_plugin_that_logs_it(python, tmp_path):
    """Whatever a plugin logs, and by whatever library, its secret is masked in it."""
    with served(python, tmp_path) as url:
        assert httpx.post(f"{url}/channels/telling", content="one").status_code == 200

    log = (tmp_path / "log").read_text(encoding="utf-8")
    assert SECRET not in log
    for line in (
        "from logging: ***",
        "HTTP Request: GET https://x.example/***",
        'secret=*** event="from structlog"',
        "OSError: from a traceback: ***",
    ):
        assert line in log


def test_configured_channel_of_a_broken_plugin_is_an_error(python, tmp_path):
    """A host whose own channel is missing does not start, and says which plugin is to blame and why."""
    (tmp_path / "convsdk.toml").write_text('[channels.shop]\ntype = "incompatible"\n', encoding="utf-8")

    done = subprocess.run(
        [python, *CONVSDK, "serve"], cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )

    assert done.returncode == 2
    assert "convsdk-incompatible" in done.stderr
    assert "is for contract 99" in done.stderr


def test_host_serves_beside_plugins_that_never_come_back(tmp_path):
    """An import that blocks costs the start ten seconds, and a parse that blocks its own channel alone."""
    sources = {
        "convsdk-blocks-at-import": "import time\ntime.sleep(10**6)\n",
        "convsdk-blocks-in-parse": desk("raising", parse="import time; time.sleep(10**6)"),
        "convsdk-right": desk("right"),
        "convsdk-exiting": desk("exiting"),
        "convsdk-telling": desk("telling"),
    }
    python = environment(tmp_path / "venv", [wheel(tmp_path, name, source) for name, source in sources.items()])

    with served(python, tmp_path) as url, ExitStack() as open_:
        stuck = [open_.enter_context(started(f"{url}/channels/raising")) for _ in range(5)]
        right = [httpx.post(f"{url}/channels/right", content=f"{number}").status_code for number in range(3)]
        answers = [one.recv(12) for one in stuck]
        log = (tmp_path / "log").read_text(encoding="utf-8")
    told = {one["distribution"]: one for one in run(python, "plugins", cwd=tmp_path)}

    assert right == [200, 200, 200]
    assert answers == [b"HTTP/1.1 503"] * 5
    assert "a channel does not come back from a request" in log
    assert "convsdk_blocks_in_parse.py:" in log
    found = told["convsdk-blocks-at-import 1.0"]
    assert found["reason"].startswith("it cannot be imported: StuckError: nothing came back within 10 s at ")
    assert "convsdk_blocks_at_import.py:2" in found["reason"]
    assert found["fix"].endswith("or uninstall it")


def started(url):
    """Send a request, and leave its answer for later."""
    parts = urlsplit(url)
    wire = socket.create_connection((parts.hostname, parts.port), timeout=PATIENCE_S)
    wire.sendall(f"POST {parts.path} HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n1".encode())
    return wire
