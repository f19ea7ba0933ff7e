"""Sending through a mail server (RFC 5321), over a few connections that stay open for the next mail.

What went wrong says what may be done: before the last dot of a mail nothing was sent, after it nobody knows until the
server says so. Needs the extra `email`.
"""

import asyncio
import base64
import contextlib
import re
import ssl
from collections.abc import Iterator

import aiosmtplib
from aiosmtplib import SMTPResponseException
from attrs import define, field

from convsdk.channels.email.compose import Letter
from convsdk.channels.email.mime import one_line
from convsdk.channels.email.outgoing import LONGEST_WORDS
from convsdk.channels.email.sending import SmtpSending
from convsdk.core.payloads import storable
from convsdk.core.ports import Receipt
from convsdk.errors import ConvsdkError, PermanentError, TransientError, UncertainError

_ENHANCED = re.compile(r"[245]\.\d{1,3}\.\d{1,3}\b")
_GO_ON = 354
_TAKEN = range(200, 300)
_REFUSED = range(400, 600)
_FIRST_PERMANENT = 500
# A server may look at a mail before it answers: RFC 5321, 4.5.3.2, gives it ten minutes, and a command five or two.
_PATIENCE = 5
# In bytes a second: what is silent while a mail is still on its way to it has not got all of it.
_SLOWEST_LINE = 128 * 1024
_DOT = re.compile(rb"^\.", re.MULTILINE)


@define(eq=False)
class _Line:
    """A connection that nobody uses, and what closes it after a while."""

    client: aiosmtplib.SMTP
    timer: asyncio.TimerHandle

    def take(self) -> bool:
        """Stop the timer, and say whether it is still open."""
        self.timer.cancel()
        return self.client.is_connected


@define(eq=False)
class _Lines:
    """The connections of one event loop."""

    loop: asyncio.AbstractEventLoop
    slots: asyncio.Semaphore
    idle: list[_Line] = field(factory=list)

    def keep(self, client: aiosmtplib.SMTP, idle_s: float) -> None:
        self.idle.append(_Line(client, self.loop.call_later(idle_s, client.close)))


@contextlib.contextmanager
def _closing(client: aiosmtplib.SMTP) -> Iterator[None]:
    """Close a connection on which something went wrong: nobody knows what the server waits for."""
    try:
        yield
    except BaseException:
        client.close()
        raise


class Relay:
    """The mail server that takes what a channel sends."""

    def __init__(self, sending: SmtpSending) -> None:
        self._sending = sending
        self._where = f"mail server {sending.host}:{sending.port_used}"
        self._lines: _Lines | None = None

    async def send(self, letter: Letter) -> Receipt:
        """Hand `letter` over to the server; an empty receipt says that it has it.

        Raises `TransientError` where it has not (4xx, no connection), `PermanentError` where it never will (5xx), with
        its enhanced status code (RFC 3463), and `UncertainError` where the connection ended behind the last dot.
        """
        lines = self._of_this_loop()
        async with lines.slots:
            with self._told():
                client = await self._begun(lines, letter)
                with _closing(client):
                    await self._handed_over(client, letter)
            lines.keep(client, self._sending.idle_s)
        return Receipt()

    async def close(self) -> None:
        """Close the connections that nobody uses."""
        lines = self._of_this_loop()
        while lines.idle:
            line = lines.idle.pop()
            if line.take():
                with contextlib.suppress(aiosmtplib.SMTPException, OSError):
                    await line.client.quit(timeout=1)
            line.client.close()

    def _of_this_loop(self) -> _Lines:
        loop = asyncio.get_running_loop()
        lines = self._lines
        if lines is None or lines.loop is not loop:
            lines = self._lines = _Lines(loop, asyncio.Semaphore(self._sending.connections))
        return lines

    async def _begun(self, lines: _Lines, letter: Letter) -> aiosmtplib.SMTP:
        """Give a connection on which the server has taken the sender: an open one, if it still is, else a new one."""
        while lines.idle:
            line = lines.idle.pop()
            if not line.take():
                continue
            # The server has closed it, or takes no second mail: a new one will tell.
            with contextlib.suppress(aiosmtplib.SMTPException, OSError), _closing(line.client):
                await self._mail_from(line.client, letter)
                return line.client
        client = await self._connected()
        with _closing(client):
            await client.ehlo()
            await self._mail_from(client, letter)
        return client

    async def _connected(self) -> aiosmtplib.SMTP:
        sending = self._sending
        client = aiosmtplib.SMTP(
            hostname=sending.host,
            port=sending.port_used,
            username=sending.user or None,
            password=sending.password.reveal() if sending.password else None,
            local_hostname=sending.greeting or None,
            timeout=sending.timeout_s,
            use_tls=sending.tls_used == "implicit",
            start_tls=sending.tls_used == "starttls",
            tls_context=self._tls() if sending.tls_used != "none" else None,
        )
        await client.connect()
        return client

    def _tls(self) -> ssl.SSLContext:
        try:
            return ssl.create_default_context(cafile=self._sending.ca_file or None)
        except OSError as error:
            raise PermanentError(f"ca_file {self._sending.ca_file!r} cannot be used ({error}): name another") from None

    async def _mail_from(self, client: aiosmtplib.SMTP, letter: Letter) -> None:
        options = []
        if letter.is_international:
            if not client.supports_extension("smtputf8"):
                raise PermanentError(
                    f"{self._where} offers no SMTPUTF8, which {letter.recipient!r} needs: send through one that does"
                )
            options += ["SMTPUTF8", "BODY=8BITMIME"]
        if client.supports_extension("size"):
            options.append(f"SIZE={len(letter.raw)}")
        if client.supports_extension("dsn"):
            options += ["RET=HDRS", f"ENVID={letter.token}"]
        await client.mail(letter.return_path, options=options, encoding="utf-8")

    async def _handed_over(self, client: aiosmtplib.SMTP, letter: Letter) -> None:
        notify = "FAILURE,DELAY" if letter.return_path else "NEVER"
        options = [f"NOTIFY={notify}"] if client.supports_extension("dsn") else []
        await client.rcpt(letter.recipient, options=options, encoding="utf-8")
        # Not by `data()`, which does not say whether the connection ended before the content or behind it.
        begun = await client.execute_command(b"DATA")
        if begun.code != _GO_ON or client.protocol is None:
            raise aiosmtplib.SMTPDataError(begun.code, begun.message)
        patience_s = _PATIENCE * self._sending.timeout_s + len(letter.raw) / _SLOWEST_LINE
        try:
            client.protocol.write(_DOT.sub(b"..", letter.raw) + b".\r\n")
            answer = await client.protocol.read_response(timeout=patience_s)
        except (aiosmtplib.SMTPException, OSError) as error:
            raise self._unsaid(letter, error) from None
        if answer.code in _REFUSED:
            raise aiosmtplib.SMTPDataError(answer.code, answer.message)
        if answer.code not in _TAKEN:  # the first digit decides: RFC 5321, 4.2
            raise self._unsaid(letter, f"{answer.code} {answer.message}")

    def _unsaid(self, letter: Letter, said: object) -> UncertainError:
        return UncertainError(
            f"{self._where} did not say whether it took the mail to {letter.recipient} ({self._words(said)}): "
            "look for it in its log"
        )

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Turn the library's errors into ours."""
        try:
            yield
        except SMTPResponseException as error:
            raise self._refusal(error.code, self._words(error.message)) from None
        except (aiosmtplib.SMTPException, OSError) as error:
            raise TransientError(
                f"{self._where} cannot be used ({self._words(error)}): nothing was sent, and it is tried again; check "
                "host, port, tls and user"
            ) from None

    def _refusal(self, code: int, words: str) -> ConvsdkError:
        enhanced = _ENHANCED.match(words)
        said = f"{self._where} answered {code} {words}"
        if code < _FIRST_PERMANENT:
            return TransientError(f"{said}: it is tried again")
        named = enhanced[0] if enhanced else str(code)
        return PermanentError(f"{said}: change what it names, and send again", code=named)

    def _words(self, said: object) -> str:
        """Give what was said on one line, without the password: a server may repeat what it was told."""
        words = one_line(storable(str(said)))
        if password := self._sending.password.reveal():
            # RFC 4616: how it is sent. A server may quote that as well.
            sent = base64.b64encode(f"\0{self._sending.user}\0{password}".encode()).decode("ascii")
            for secret in (sent, base64.b64encode(password.encode()).decode("ascii"), password):
                words = words.replace(secret, "***")
        return words[:LONGEST_WORDS]
