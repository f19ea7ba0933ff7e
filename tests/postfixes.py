"""A Postfix of the tests' own, and everybody's mail server behind it, on loopback alone."""

import asyncio
import os
import shutil
import socket
import subprocess
import tempfile
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
from aiosmtpd.smtp import SMTP

PATIENCE_S = 60
POSTFIX = shutil.which("postfix", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
DAEMONS = Path("/usr/lib/postfix/sbin")

needs_postfix = pytest.mark.skipif(
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
transport_maps = {routes}
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


@contextmanager
def open_folder():
    """Give a folder that Postfix's own user can walk through."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def free_port():
    """Give a port that nobody listens at."""
    with socket.create_server(("127.0.0.1", 0)) as one:
        return one.getsockname()[1]


@asynccontextmanager
async def postfix(folder, sink, **routes):
    """Run a Postfix of its own that hands everything to the server at the port `sink`; give its port.

    `routes` are the ports of the servers of some domains, by the domain's first label.
    """
    port = free_port()
    pairs = ", ".join(f"{{ {name}.example = smtp:[127.0.0.1]:{at} }}" for name, at in routes.items())
    transport = f"inline:{{ {pairs} }}" if pairs else ""
    for name, text in {"main.cf": MAIN, "master.cf": MASTER}.items():
        told = text.format(folder=folder, sink=sink, port=f"127.0.0.1:{port}", routes=transport)
        (folder / name).write_text(told, encoding="utf-8")
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
