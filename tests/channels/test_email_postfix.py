"""A Postfix of our own as the smart host: what it makes of our mail, and the bounce that it sends."""

import asyncio
import os
import shutil
import socket
import subprocess
import tempfile
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from aiosmtpd.smtp import SMTP
from attrs import evolve

from convsdk.channels.email import EmailChannel
from convsdk.channels.email.sending import SmtpSending
from convsdk.channels.email.settings import EmailSettings
from convsdk.core.events import DeliveryStatus
from convsdk.core.model import Claim, Identifier, Trust
from convsdk.core.ports import Envelope, Outbound, Receipt, Request

NOW = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
TOKEN = "abcdefghij234567"
PATIENCE_S = 60
POSTFIX = shutil.which("postfix", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
DAEMONS = Path("/usr/lib/postfix/sbin")

pytestmark = pytest.mark.skipif(
    POSTFIX is None or not DAEMONS.is_dir() or os.geteuid() != 0,
    reason="needs Postfix, and to be root, as which alone Postfix starts: apt-get install postfix",
)

MAIN = """
compatibility_level = 3.6
queue_directory = {folder}/queue
data_directory = {folder}/data
daemon_directory = /usr/lib/postfix/sbin
command_directory = /usr/sbin
mail_owner = postfix
setgid_group = postdrop
maillog_file = {folder}/log
maillog_file_prefixes = {folder}
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
myhostname = relay.shop.example
mydestination =
mynetworks = 127.0.0.0/8
alias_maps =
relayhost = [127.0.0.1]:{sink}
smtp_tls_security_level = none
smtpd_relay_restrictions = permit_mynetworks, reject
"""
MASTER = """
{port} inet n - n - - smtpd
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
error unix - - n - - error
retry unix - - n - - error
anvil unix - - n - 1 anvil
postlog unix-dgram n - n - 1 postlogd
"""


class Internet:
    """Everybody's mail server: takes what is for anybody but `nobody`, and keeps it."""

    def __init__(self):
        self.mails = asyncio.Queue()

    async def handle_RCPT(self, server, session, envelope, address, options):  # noqa: N802  (aiosmtpd's name)
        if address.startswith("nobody@"):
            return "550 5.1.1 No such user here"
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 OK"

    async def handle_DATA(self, server, session, envelope):  # noqa: N802  (aiosmtpd's name)
        self.mails.put_nowait((envelope.mail_from, tuple(envelope.rcpt_tos), envelope.content))
        return "250 2.0.0 OK"


@pytest.fixture
def folder():
    """Give a folder that Postfix's own user can walk through."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def free_port():
    """Give a port that nobody listens at."""
    with socket.create_server(("127.0.0.1", 0)) as one:
        return one.getsockname()[1]


@asynccontextmanager
async def postfix(folder, sink):
    """Run a Postfix of its own that hands everything to the server at the port `sink`; give its port."""
    port = free_port()
    for name, text in {"main.cf": MAIN, "master.cf": MASTER}.items():
        (folder / name).write_text(text.format(folder=folder, sink=sink, port=f"127.0.0.1:{port}"), encoding="utf-8")
    (folder / "queue").mkdir()
    (folder / "data").mkdir()
    shutil.chown(folder / "data", "postfix")
    await _postfix(folder, "start")
    try:
        yield port
    finally:
        await _postfix(folder, "stop")


async def _postfix(folder, command):
    log = folder / "output"
    with log.open("wb") as output:
        done = await asyncio.to_thread(
            subprocess.run, [POSTFIX, "-c", folder, command], stdout=output, stderr=output, check=False
        )
    assert done.returncode == 0, log.read_text() + (folder / "log").read_text()


@asynccontextmanager
async def internet(host):
    """Listen as everybody's mail server; give the port."""
    server = await asyncio.get_running_loop().create_server(lambda: SMTP(host, hostname="mx.test"), "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await asyncio.sleep(0.1)


def test_postfix_takes_our_mail_and_bounces_it(folder):
    """What Postfix passes on reads as it was written, and its bounce fails the message and gives the address up."""
    settings = EmailSettings(address="in-7f3a@shop.example", sender="help@shop.example", name="Der Löwe")

    async def run():
        host = Internet()
        async with internet(host) as sink, postfix(folder, sink) as port, httpx.AsyncClient() as client:
            sending = SmtpSending(host="127.0.0.1", port=port, greeting="desk.shop.example")
            channel = EmailChannel("support", evolve(settings, sending=sending))
            receipts = [await channel.send(message(to), client) for to in ("ann@mail.example", "nobody@mail.example")]
            await channel.close()
            mails = [await asyncio.wait_for(host.mails.get(), PATIENCE_S) for _ in range(2)]
        return channel, receipts, sorted(mails, key=lambda one: one[0] == "<>")

    channel, receipts, (passed_on, bounce) = asyncio.run(run())

    assert receipts == [Receipt(), Receipt()]
    reply_address = settings.reply_address(TOKEN)
    assert passed_on[:2] == (reply_address, ("ann@mail.example",))
    (found,) = EmailChannel("other", EmailSettings(address="ann@mail.example")).parse(
        Request(received_at=NOW, body=passed_on[2])
    )
    assert found.text.endswith("Grüße\n.\n" + "ü" * 2000)
    assert found.external_id == settings.message_id(TOKEN)

    assert bounce[:2] == ("<>", (reply_address,))
    mail, status = channel.parse(
        Request(received_at=NOW, body=bounce[2], envelope=Envelope(sender="", recipients=bounce[1]))
    )
    assert mail.detail["class"] == "bounce"
    assert (status.status, status.messages) == (DeliveryStatus.FAILED, (settings.message_id(TOKEN),))
    assert "No such user here" in status.error
    assert status.unreachable == Claim("email", "nobody@mail.example", Trust.ASSERTED)


def message(to):
    """Give a message to the address."""
    text = "Grüße\n.\n" + "ü" * 2000
    return Outbound(to=Identifier("email", "", to), text=text, token=TOKEN, at=NOW)
