"""Mails over SMTP into a server of its own process, which keeps each in a SQLite file before it says 250.

The client speaks plain SMTP over connections that it keeps, and waits for each answer. A lap that measured anything
else than mails that were all kept stops: the messages in the file are counted.
"""

import asyncio
import itertools
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import structlog
from attrs import frozen
from server import spent_s

from convsdk.archive import Archive
from convsdk.channels.email import EmailChannel
from convsdk.hub import Hub
from convsdk.mailserver import MailServer
from convsdk.rejects import Rejects

# Of each command in one connection the server takes a thousand.
_MOST_IN_ONE = 900
_numbers = itertools.count()


@frozen(kw_only=True)
class Post:
    """A running server: its port, its process, its store."""

    port: int
    process: int
    store: Path

    def kept(self) -> int:
        """Give how many messages are in the store."""
        with sqlite3.connect(self.store) as connection:
            (count,) = connection.execute("select count(*) from message").fetchone()
        return int(count)


@contextmanager
def post(program: Path, *, has_archive: bool) -> Iterator[Post]:
    """Run `program --serve` with a fresh store, and an archive if it is to have one."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, program, "--serve", folder, *(["--archive"] if has_archive else [])]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True)
        assert process.stdout
        try:
            yield Post(port=int(process.stdout.readline()), process=process.pid, store=Path(folder, "shop.db"))
        finally:
            process.communicate()


async def serve(channel: EmailChannel, folder: Path, *, has_archive: bool) -> None:
    """Take mail in until the standard input ends."""
    archive = Archive(folder / "archive") if has_archive else None
    hub = Hub(f"sqlite:///{folder}/shop.db", channels=[channel], archive=archive)
    with (folder / "log").open("w", encoding="utf-8") as log:  # nobody reads the standard output to its end
        structlog.configure(logger_factory=structlog.PrintLoggerFactory(log))
        async with MailServer(hub, rejects=Rejects(folder / "rejects")) as server:
            print(await server.listen("127.0.0.1", 0), flush=True)
            await asyncio.to_thread(sys.stdin.read)
    hub.close()


def on_the_wire(raw: bytes) -> bytes:
    """Give a mail as DATA has it, with an id of its own, so that no two are one."""
    mail = b"Message-ID: <%d@bench.example>\n" % next(_numbers) + raw.rstrip()
    lines = mail.replace(b"\r\n", b"\n").split(b"\n")
    return b"\r\n".join(b"." + one if one.startswith(b".") else one for one in lines) + b"\r\n.\r\n"


def lap(server: Post, mails: Sequence[bytes], *, to: str, clients: int) -> tuple[float, float]:
    """Send `mails`, each client its share; give the mails a second, and the server's processor time for each in µs."""
    letters = [on_the_wire(one) for one in mails]
    before, before_s, failed = server.kept(), spent_s(server.process), []
    ready = threading.Barrier(clients + 1)

    def send(share: Sequence[bytes]) -> None:
        try:
            _send(server.port, share, to, ready)
        except Exception as error:  # noqa: BLE001  (it is raised below, where somebody sees it)
            failed.append(error)
            ready.abort()

    threads = [threading.Thread(target=send, args=[letters[one::clients]]) for one in range(clients)]
    for one in threads:
        one.start()
    ready.wait()
    started = time.perf_counter()
    for one in threads:
        one.join()
    took_s = time.perf_counter() - started
    if failed:
        raise failed[0]
    if (kept := server.kept() - before) != len(letters):
        raise RuntimeError(f"{len(letters)} mails were sent, and {kept} kept")
    return len(letters) / took_s, 1e6 * (spent_s(server.process) - before_s) / len(letters)


def _send(port: int, letters: Sequence[bytes], to: str, ready: threading.Barrier) -> None:
    if len(letters) > _MOST_IN_ONE:
        raise ValueError(f"{len(letters)} mails are too many for one connection: at most {_MOST_IN_ONE} a client")
    with socket.create_connection(("127.0.0.1", port)) as wire, wire.makefile("rb") as answers:
        wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        _expect(answers, b"220")
        _say(wire, answers, b"EHLO bench.example\r\n", b"250")
        ready.wait()
        for one in letters:
            _say(wire, answers, b"MAIL FROM:<ann@mail.example>\r\n", b"250")
            _say(wire, answers, b"RCPT TO:<%s>\r\n" % to.encode(), b"250")
            _say(wire, answers, b"DATA\r\n", b"354")
            _say(wire, answers, one, b"250")


def _say(wire: socket.socket, answers, line: bytes, code: bytes) -> None:  # noqa: ANN001  (a file of the socket)
    wire.sendall(line)
    _expect(answers, code)


def _expect(answers, code: bytes) -> None:  # noqa: ANN001  (as above)
    line = b"   -"
    while line[3:4] == b"-":
        line = answers.readline()
    if not line.startswith(code):
        raise RuntimeError(f"the server said {line!r} where {code!r} was due")
