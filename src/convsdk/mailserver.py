"""Mail from other servers: SMTP and LMTP for the channels that have an address (RFC 5321, RFC 2033).

::

    RCPT ──> a channel's address ──DATA──> read ──> queue ──commit──> 250
     │ 550                          │ 552   │          │ 451
                                            └─> rejects ──────────────> 250

A 250 says: this is on disk, do not send it again. Either the events are in the store, or the mail is among the
rejects, where the operator can run it again. Its sender could do nothing but send the same bytes.

A transaction takes one recipient, and any other waits for the next: a mail that goes to two channels is two requests,
and LMTP would want an answer for each.
"""

import asyncio
import errno
import socket
import ssl
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from time import perf_counter
from typing import Self

import structlog
from aiosmtpd.lmtp import LMTP
from aiosmtpd.smtp import SMTP
from aiosmtpd.smtp import Envelope as Transaction
from aiosmtpd.smtp import Session as Client
from attrs import field, frozen
from attrs.validators import gt

from convsdk.core.identifiers import EmailAddress
from convsdk.core.ports import Channel, Clock, Envelope, Request
from convsdk.errors import ConfigError, ConvsdkError, Forbidden, ParseError, PermanentError, TransientError
from convsdk.hub import Hub
from convsdk.ingest import Ingest
from convsdk.memory import Memory, Share
from convsdk.rejects import Rejects

_END = b"\r\n.\r\n"
_STUFFED = b"\r\n."
_CHUNK_BYTES = 65_536
_SMALL_BYTES = 1 << 20
_ALL = 2**30  # more than a reader holds
# Of each command in one connection, so that a client which does not read its answers holds little. A sender that
# keeps its connection for long is told to come again.
_COMMANDS = {"*": 20, "MAIL": 1000, "RCPT": 1000, "DATA": 1000, "RSET": 1000, "NOOP": 1000}
_UNPARSED = (IndexError, AttributeError, ValueError, RecursionError)  # what Python's parser raises beside its own
_NULL_PATH = "<>"
_LATER = "421 4.3.2 Not now, try again later"

_email = EmailAddress()
_log = structlog.get_logger(__name__)


class Fate(StrEnum):
    """What became of a mail."""

    TAKEN = "taken"
    ASIDE = "aside"
    FORBIDDEN = "forbidden"
    UNKNOWN = "unknown"
    OVERSIZED = "oversized"
    BUSY = "busy"
    GONE = "gone"
    FAILED = "failed"


_ANSWERS = {
    Fate.TAKEN: "250 2.0.0 OK",
    Fate.ASIDE: "250 2.0.0 OK",
    Fate.FORBIDDEN: "550 5.7.1 Refused",
    Fate.UNKNOWN: "550 5.1.1 No such address",
    Fate.OVERSIZED: "552 5.3.4 Larger than SIZE allows",
    Fate.BUSY: "451 4.3.0 Try again later",
    Fate.FAILED: "451 4.3.0 Try again later",
}


@frozen(kw_only=True)
class MailLimits:
    """What may be asked of a mail server.

    `size_bytes` is how large a mail may be, `connections` how many clients may be there at once. Where the mails that
    are under way have `memory_bytes` together, the next has to come again; one of more than 1 MiB leaves a quarter of
    them to others. A client has `timeout_s` for its next command, and for a whole mail; where there are as many as may
    be, the one that was silent for longest makes room for the next after `silent_s`. `grace_s` is what it has left when
    the server shuts down.
    """

    size_bytes: int = field(default=26_214_400, validator=gt(0))
    memory_bytes: int = field(default=268_435_456, validator=gt(0))
    connections: int = field(default=50, validator=gt(0))
    timeout_s: float = field(default=300.0, validator=gt(0))
    silent_s: float = field(default=20.0, validator=gt(0))
    grace_s: float = field(default=30.0, validator=gt(0))


@frozen
class _Home:
    hub: Hub
    channel: Channel
    queue: Ingest


class MailServer:
    """Takes mail in for the channels of `hubs`, each by its addresses, while the context lasts.

    ::

        async with MailServer(hub, rejects=Rejects(folder)) as server:
            port = await server.listen("127.0.0.1", 2525)
            await server.listen_at(Path("/run/convsdk/lmtp"))

    `tls` is what STARTTLS is offered with; `clock` gives the time at which a mail arrived. Raises `ConfigError` where
    no channel has an address, or two have the same. At the end what is under way is kept and answered; the hubs stay
    open for their maker to close.
    """

    def __init__(
        self,
        *hubs: Hub,
        rejects: Rejects,
        limits: MailLimits | None = None,
        tls: ssl.SSLContext | None = None,
        clock: Clock = lambda: datetime.now(UTC),
    ) -> None:
        found = _by_address(hubs)
        self.limits = limits or MailLimits()
        self.tls = tls
        self.is_draining = False
        self.open: set[_Connection] = set()
        self.memory = Memory(self.limits.memory_bytes, small_bytes=_SMALL_BYTES)
        self._rejects = rejects
        self._clock = clock
        self._servers: list[asyncio.Server] = []
        self._paths: list[Path] = []
        self._queues = {hub: Ingest(hub) for hub in hubs}
        self._homes = {address: _Home(hub, one, self._queues[hub]) for address, (hub, one) in found.items()}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_error: object) -> None:
        self.is_draining = True
        for server in self._servers:
            server.close()
        for path in self._paths:
            path.unlink(missing_ok=True)
        for one in tuple(self.open):
            one.part()
        if busy := [one.task for one in self.open if one.task]:
            await asyncio.wait(busy, timeout=self.limits.grace_s)
        for one in tuple(self.open):
            one.abort()
        await asyncio.gather(*(asyncio.to_thread(one.close) for one in self._queues.values()))

    @property
    def addresses(self) -> tuple[str, ...]:
        """Give the addresses that mail is taken at."""
        return tuple(sorted(self._homes))

    async def listen(self, host: str, port: int, *, is_lmtp: bool = False) -> int:
        """Listen at an address, and give the port: a free one for 0. Raises `OSError` where it cannot be had."""
        server = await asyncio.get_running_loop().create_server(self._connector(is_lmtp=is_lmtp), host, port)
        self._servers.append(server)
        found: int = server.sockets[0].getsockname()[1]
        return found

    def _connector(self, *, is_lmtp: bool) -> Callable[[], asyncio.Protocol]:
        protocol = _LmtpConnection if is_lmtp else _Connection

        def connect() -> asyncio.Protocol:
            if self.is_draining:
                return _Refusal()
            is_full = len(self.open) >= self.limits.connections and not self._make_room()
            return _Refusal() if is_full else protocol(self)

        return connect

    def _make_room(self) -> bool:
        """Send the client away that is waited for longest: those that connect and say nothing keep nobody out."""
        waited_for = [one for one in self.open if one.is_waited_for]
        silent = min(waited_for, key=lambda one: one.heard_at, default=None)
        if silent is None or asyncio.get_running_loop().time() - silent.heard_at < self.limits.silent_s:
            return False
        silent.part()
        silent.abort()
        self.open.discard(silent)
        return True

    async def listen_at(self, path: Path, *, mode: int = 0o660, is_lmtp: bool = True) -> None:
        """Listen at a Unix socket, which those may connect to whom `mode` lets write; it is removed at the end.

        Raises `OSError` where it cannot be had, such as where another server listens there.
        """
        listening = await asyncio.to_thread(_unix_socket, path, mode)
        self._servers.append(
            await asyncio.get_running_loop().create_unix_server(self._connector(is_lmtp=is_lmtp), sock=listening)
        )
        self._paths.append(path)

    def home(self, recipient: str) -> _Home | None:
        """Give where mail to `recipient` goes, which may have a subaddress (RFC 5233)."""
        key = _key(recipient)
        local, at, domain = key.rpartition("@")
        return self._homes.get(key) or self._homes.get(local.partition("+")[0] + at + domain)

    async def take(self, mail: bytes | Fate, *, sender: str, recipient: str) -> str:
        """Take a mail in, or what became of it before, and give the answer; told to the log, whatever comes of it."""
        began = perf_counter()
        home = self.home(recipient)
        fate, why = Fate.FAILED, ""
        try:
            envelope = Envelope(sender=sender, recipients=(recipient,))
            fate, why = await self._settle(home, mail, envelope)
        except asyncio.CancelledError:  # the client hung up: it sends the mail again, which may be known by then
            fate = Fate.GONE
            raise
        finally:  # a channel with a bug, too
            _tell(fate, home, why, took_s=perf_counter() - began)
        return _ANSWERS[fate]

    async def _settle(self, home: _Home | None, mail: bytes | Fate, envelope: Envelope) -> tuple[Fate, str]:
        if home is None:
            return Fate.UNKNOWN, ""
        if isinstance(mail, Fate):
            return mail, ""
        try:
            return await self._keep(home, Request(received_at=self._clock(), body=mail, envelope=envelope))
        except Forbidden as error:
            return Fate.FORBIDDEN, str(error)
        except TransientError as error:
            return Fate.BUSY, str(error)
        except ConvsdkError as error:  # such as a disk that was taken away: nothing is lost, the mail comes again
            return Fate.FAILED, str(error)

    async def _keep(self, home: _Home, request: Request) -> tuple[Fate, str]:
        try:
            # In a thread: a mail that somebody made for it takes seconds to parse.
            events = await asyncio.to_thread(home.hub.read, home.channel.name, request)
        except ParseError as error:
            return await self._set_aside(home.channel, request, error)
        try:
            await home.queue.receive_async(home.channel.name, events)
        except (PermanentError, ValueError) as error:
            return await self._set_aside(home.channel, request, error)
        return Fate.TAKEN, ""

    async def _set_aside(self, channel: Channel, request: Request, error: Exception) -> tuple[Fate, str]:
        try:
            kept = await asyncio.to_thread(self._rejects.keep, channel.name, request, error)
        except OSError as problem:
            raise TransientError(
                f"{self._rejects.folder}: what cannot be taken in cannot be kept aside either ({problem.strerror}): "
                "let the folder be written to"
            ) from problem
        return Fate.ASIDE, f"reject {kept.id}"

    # -- what the library calls

    async def handle_EHLO(self, _: SMTP, client: Client, __: Transaction, name: str, answers: list[str]) -> list[str]:
        """Tell what there is: no AUTH, which the library would offer after STARTTLS."""
        client.host_name = name
        first, *more = (one for one in answers if not one.startswith("250-AUTH"))
        return [first, "250-PIPELINING", *more]

    async def handle_RCPT(self, _: SMTP, __: Client, transaction: Transaction, address: str, ___: list[str]) -> str:
        """Let one recipient of a transaction in, if it is a channel's address."""
        if self.home(address) is None:
            _tell(Fate.UNKNOWN, None, "", took_s=0.0)
            return _ANSWERS[Fate.UNKNOWN]
        if transaction.rcpt_tos:
            return "452 4.5.3 One recipient at a time"
        transaction.rcpt_tos.append(address)
        return "250 2.1.5 OK"

    async def handle_exception(self, error: Exception) -> str:
        """Answer where there is a bug, and tell its place: its text could hold what somebody wrote."""
        at = traceback.extract_tb(error.__traceback__)[-1]
        _log.error("a mail failed", error=type(error).__name__, at=f"{at.filename}:{at.lineno}")
        return _ANSWERS[Fate.FAILED]


class _Connection(SMTP):
    """One client, as the library talks to it; but a mail is read by this project's own way.

    The library's refuses lines of over 1,000 bytes, and takes an object for each line, however short.
    """

    line_length_limit = _CHUNK_BYTES  # of its reader

    def __init__(self, server: MailServer) -> None:
        super().__init__(
            server,
            data_size_limit=server.limits.size_bytes,
            enable_SMTPUTF8=True,
            hostname=socket.gethostname(),
            ident="ESMTP",
            tls_context=server.tls,
            timeout=server.limits.timeout_s,
            command_call_limit=_COMMANDS,
            loop=asyncio.get_running_loop(),
        )
        del self._smtp_methods["AUTH"]
        self._server = server
        self._is_busy = False
        self.is_waited_for = True
        self.heard_at = self.loop.time()
        server.open.add(self)

    @property
    def task(self) -> "asyncio.Task[None] | None":
        """Give what runs until the client is gone."""
        return self._handler_coroutine

    def connection_lost(self, error: Exception | None) -> None:
        self._server.open.discard(self)
        super().connection_lost(error)

    def data_received(self, data: bytes) -> None:
        self.heard_at = self.loop.time()
        super().data_received(data)

    def part(self) -> None:
        """Send the client away, unless it is sending a mail."""
        if self.transport is not None and not self.transport.is_closing() and not self._is_busy:
            self._writer.write(_LATER.encode() + b"\r\n")
            self._writer.close()

    def abort(self) -> None:
        """Hang up."""
        transport = self._original_transport or self.transport  # below TLS, where there is any
        if isinstance(transport, asyncio.WriteTransport):
            transport.abort()

    def _timeout_cb(self) -> None:
        self.abort()  # to close would be to wait until the client has read everything

    def _getaddr(self, arg: str) -> tuple[str | None, str | None]:
        try:
            address, rest = super()._getaddr(arg)
        except _UNPARSED:
            return None, None
        return address and address.encode("utf-8", "surrogateescape").decode("utf-8", "replace"), rest

    async def smtp_VRFY(self, arg: str | None) -> None:  # noqa: ARG002  (the library's signature)
        """Tell nothing of any address; the library would repeat it."""
        await self.push("252 2.5.0 Send a mail, and see")

    async def smtp_DATA(self, arg: str | None) -> None:
        """Take a mail."""
        if await self.check_helo_needed():
            return
        transaction = self.envelope
        if transaction is None or not transaction.rcpt_tos:
            await self.push("503 5.5.1 Error: need RCPT command")
            return
        if arg:
            await self.push("501 5.5.4 Syntax: DATA")
            return
        self._is_busy = True
        try:
            await self.push("354 End data with <CR><LF>.<CR><LF>")
            with self._server.memory.share() as share:
                mail = await self._read_mail(share)
                sender = (transaction.mail_from or "").replace(_NULL_PATH, "")
                self.is_waited_for = False
                await self.push(await self._server.take(mail, sender=sender, recipient=transaction.rcpt_tos[0]))
        finally:
            self.is_waited_for = True
            self.heard_at = self.loop.time()
            self.envelope = self._create_envelope()
            self._is_busy = False
        if self._server.is_draining:
            self.part()

    async def _read_mail(self, share: Share) -> bytes | Fate:
        """Give the mail that follows, which ends where CR LF . CR LF says so and nowhere else, or why there is none."""
        # The line end of the command is the one before the mail: put back, so that an empty mail ends like any other.
        self._reader.feed_data(b"\r\n" + await self._reader.read(_ALL))
        mail, is_ended, refused = bytearray(), False, None
        while not is_ended:
            try:
                mail += await self._reader.readuntil(_END)
                is_ended = True
            except asyncio.LimitOverrunError as error:
                mail += await self._reader.read(error.consumed)
            refused = refused or self._refused(len(mail), share)
            if refused:
                mail.clear()
            share.hold(len(mail))
        if refused:
            return refused
        del mail[-len(b".\r\n") :]
        return bytes(mail.replace(_STUFFED, b"\r\n").removeprefix(b"\r\n"))

    def _refused(self, size: int, share: Share) -> Fate | None:
        """Give why no more of a mail is kept of which that much has come, or None."""
        if size > self._server.limits.size_bytes + len(_END):
            return Fate.OVERSIZED
        return None if share.has_room(size) else Fate.BUSY


class _LmtpConnection(_Connection, LMTP):
    pass


class _Refusal(asyncio.Protocol):
    """Sends a client away for which there is no room."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if isinstance(transport, asyncio.WriteTransport):
            transport.write(_LATER.encode() + b"\r\n")
            transport.close()


def _tell(fate: Fate, home: _Home | None, why: str, *, took_s: float) -> None:
    label = home.channel.name if home else "(none)"
    log = _log.error if fate is Fate.FAILED else _log.info
    log("mail", channel=label, outcome=fate.value, duration_ms=round(took_s * 1000, 1), **({"why": why} if why else {}))


def _unix_socket(path: Path, mode: int) -> socket.socket:
    """Give a socket at `path`, in the place of one that nobody listens at any more."""
    with socket.socket(socket.AF_UNIX) as caller, suppress(FileNotFoundError, ConnectionRefusedError):
        caller.connect(str(path))
        raise OSError(errno.EADDRINUSE, "address already in use")
    if path.exists() and not path.is_socket():
        raise OSError(errno.EEXIST, "there is a file in its place")
    # Under another name until it has its mode: between the two, anybody could connect.
    unready = path.with_name(f"{path.name}.new")
    unready.unlink(missing_ok=True)
    listening = socket.socket(socket.AF_UNIX)
    try:
        listening.bind(str(unready))
        unready.chmod(mode)
        listening.listen()
        unready.replace(path)
    except OSError:
        listening.close()
        raise
    return listening


def _by_address(hubs: Sequence[Hub]) -> Mapping[str, tuple[Hub, Channel]]:
    found: dict[str, tuple[Hub, Channel]] = {}
    for hub in hubs:
        for channel in hub.channels.values():
            for address in channel.addresses:
                _, other = found.setdefault(_key(address), (hub, channel))
                if other is not channel:
                    raise ConfigError(
                        f"channels {other.name!r} and {channel.name!r} have the same address {address!r}: "
                        "give each its own"
                    )
    if not found:
        raise ConfigError('no channel has a mail address: add [channels.NAME] with type = "email" and address')
    return found


def _key(address: str) -> str:
    return _email.canonical(address) or address.lower()
