import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import closing, contextmanager
from email import message_from_bytes

import pytest
from aiosmtpd.controller import Controller
from click.testing import CliRunner
from receiver import Receiver

from convsdk.cli import main
from convsdk.core.events import DeliveryStatus, StatusChanged
from convsdk.core.model import Claim, Trust
from convsdk.hub import Hub
from convsdk.testing.builders import NOON, hint

PATIENCE_S = 60
SECRET = "whsec_" + "A" * 32
CONFIG = """
store = "sqlite:///shop.db"
[workspaces.default]
[workspaces.other]
[webhooks.crm]
url = "{url}"
secrets = [{{ env = "CRM" }}]
events = ["contact.*"]
start = "beginning"
[webhooks.other]
url = "{url}/of/another"
workspace = "other"
secrets = [{{ env = "CRM" }}]
start = "beginning"
"""


@pytest.fixture
def shop(tmp_path, monkeypatch):
    """Give a folder with a store in it, which has one contact, and work there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CRM", SECRET)
    hub = Hub("sqlite:///shop.db")
    hub.resolve(hint("1", email="ann@shop.example"))
    hub.close()
    return tmp_path


@contextmanager
def working(folder, *arguments):
    """Run `convsdk worker` as a user does; give the process and what it says first."""
    command = [sys.executable, "-c", "from convsdk.cli import main; main()", "worker", "--json", *arguments]
    with (
        (folder / "log").open("w") as log,
        subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=log, text=True, env=os.environ) as process,
    ):
        try:
            yield process, json.loads(process.stdout.readline())
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_worker_tells_its_workspace_s_webhooks_until_a_signal(shop, number):
    """A contact is told to the webhook that wants it, signed; a signal ends the program well."""
    with Receiver() as receiver:
        (shop / "convsdk.toml").write_text(CONFIG.format(url=receiver.url), encoding="utf-8")
        with working(shop) as (process, said):
            (delivery,) = receiver.wait_for(1)
            process.send_signal(number)
            status = process.wait(PATIENCE_S)
        again = CliRunner().invoke(main, ["events", "--workspace", "default", "--again", "webhook/crm"])
        with working(shop):
            deliveries = receiver.wait_for(2)

    assert said == {"default": ["webhook/crm"], "other": ["webhook/other"]}
    assert delivery.read(SECRET)["type"] == "contact.created"
    assert status == 0
    assert again.exit_code == 0
    assert {one.headers["webhook-id"] for one in deliveries} == {delivery.headers["webhook-id"]}
    assert not any(word in (shop / "log").read_text() for word in (SECRET, receiver.url))


MAIL = b"""From: Ann <ann@mail.example>
To: in-7f3a@shop.example
Message-ID: <1@mail.example>
Subject: Where is it?

Where is it?
"""
SENDING = """
store = "sqlite:///shop.db"
[channels.support]
type = "email"
address = "in-7f3a@shop.example"
sender = "help@shop.example"
[channels.support.sending]
by = "smtp"
host = "127.0.0.1"
port = {port}
"""


class SmartHost:
    """Takes mails."""

    def __init__(self):
        self.mails = []
        self.came = threading.Event()

    async def handle_DATA(self, server, session, envelope):  # noqa: N802  (aiosmtpd's name)
        self.mails.append((tuple(envelope.rcpt_tos), message_from_bytes(envelope.content)))
        self.came.set()
        return "250 2.0.0 OK"


def told(*arguments):
    """Run a command, and give what it says."""
    result = CliRunner().invoke(main, [*arguments, "--json"])
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_an_answer_is_mailed_by_a_worker_of_its_own(shop):
    """What `reply` queues, `worker` delivers, in the thread of the mail that it answers."""
    host = SmartHost()
    with closing(socket.create_server(("127.0.0.1", 0))) as place:
        port = place.getsockname()[1]
    server = Controller(host, hostname="127.0.0.1", port=port)
    server.start()
    try:
        (shop / "convsdk.toml").write_text(SENDING.format(port=port), encoding="utf-8")
        (shop / "mail.eml").write_bytes(MAIL)
        told("ingest", "support", "mail.eml")
        (talk,) = told("conversations")
        (answer,) = told("reply", str(talk["id"]), "It is on its way.", "--by", "kim")
        with working(shop) as (_, said):
            assert host.came.wait(PATIENCE_S)
            said_at_last = until(lambda: told("messages", str(talk["id"])), "sent")
    finally:
        server.stop()

    assert said == {"default": ["channel/support"]}
    ((recipients, mail),) = host.mails
    assert recipients == ("ann@mail.example",)
    assert mail["in-reply-to"] == "<1@mail.example>"
    assert answer["message"] in said_at_last
    refused = CliRunner().invoke(main, ["retry", "support", answer["message"]])
    assert (refused.exit_code, "has not failed: it is 'sent'" in refused.stderr) == (2, True)


def until(look, word, most_s=PATIENCE_S):
    """Look until `word` is there; give what was seen."""
    end = time.monotonic() + most_s
    while word not in (seen := json.dumps(look())):
        assert time.monotonic() < end, seen
        time.sleep(0.05)
    return seen


def test_an_address_can_be_asked_about_and_lifted(shop):
    """What takes no messages says since when and why, until somebody lifts it."""
    report = StatusChanged(
        external_id="b",
        status=DeliveryStatus.FAILED,
        at=NOON,
        error="no such mailbox",
        unreachable=Claim("email", "ann@shop.example", Trust.CHANNEL),
    )
    (shop / "convsdk.toml").write_text('store = "sqlite:///shop.db"')
    with closing(Hub("sqlite:///shop.db")) as hub:
        hub.receive("support", [report])

    (stopped,) = told("reachable", "email:ann@shop.example")
    (lifted,) = told("reachable", "email:ann@shop.example", "--lift")

    assert (stopped["reachable"], stopped["why"], stopped["channel"]) == (False, "no such mailbox", "support")
    assert lifted["reachable"] is True
    assert told("reachable", "email:ann@shop.example") == [lifted]
    assert CliRunner().invoke(main, ["reachable", "1"]).exit_code == 2
    assert CliRunner().invoke(main, ["retry", "support", "none"]).exit_code == 2


def test_nobody_to_tell_is_told(shop):
    """A worker without targets is a mistake."""
    result = CliRunner().invoke(main, ["worker"])

    assert result.exit_code == 2
    assert "there is nobody to tell: add [webhooks.NAME], or install a plugin" in result.stderr
