"""One connection to a folder of a mailbox by IMAP (RFC 3501), as far as reading it takes. Everything here blocks."""

import imaplib
import re
import selectors
import socket
import ssl
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

from attrs import frozen
from imap_tools.errors import ImapToolsError
from imap_tools.mailbox import BaseMailBox
from imap_tools.utils import encode_folder

from convsdk.channels.email.mime import MAX_BYTES, MAX_HEADER_BYTES
from convsdk.channels.email.settings import ImapSettings
from convsdk.errors import ConfigError, ConvsdkError, TransientError

# What the library and this module raise beside their own, where a server says what no server should.
GARBLED = (imaplib.IMAP4.error, ImapToolsError, OSError, EOFError, ValueError, LookupError, TypeError, AttributeError)
# What a server refuses for now (RFC 5530).
_LATER = {"UNAVAILABLE", "INUSE", "LIMIT", "SERVERBUG", "CONTACTADMIN"}
_CODE = re.compile(rb"\[([A-Z][A-Z-]{1,30})")
_UID = re.compile(rb"[( ]UID (\d+)")
_SIZE = re.compile(rb"RFC822\.SIZE (\d+)")
_DATE = re.compile(rb'INTERNALDATE "([^"]+)"')
_QUOTED = re.compile(rb'BODY\[[A-Z]*\](?:<0>)? (?:"((?:[^"\\]|\\.)*)"|NIL)')


@frozen(kw_only=True)
class Entry:
    """What a mailbox says of a mail before it is fetched. `at` is when it came into the mailbox, if it says so."""

    uid: int
    size: int
    at: datetime | None


class _Client(imaplib.IMAP4):
    """imaplib's connection, with TLS where it is asked for, and a line that cuts it from another thread."""

    def __init__(self, settings: ImapSettings, lifelines: list[socket.socket]) -> None:
        self._settings = settings
        self._lifelines = lifelines
        super().__init__(settings.host, settings.port_used, settings.timeout_s)

    def _create_socket(self, timeout: float | None) -> socket.socket:
        plain = socket.create_connection((self._settings.host, self._settings.port_used), timeout)
        self._lifelines.append(plain.dup())  # the socket itself goes into TLS, and is another one then
        if self._settings.tls != "implicit":
            return plain
        return ssl.create_default_context().wrap_socket(plain, server_hostname=self._settings.host)


class _Box(BaseMailBox):
    def __init__(self, client: imaplib.IMAP4) -> None:
        self._given = client
        super().__init__()

    def _get_mailbox_client(self) -> imaplib.IMAP4:
        return self._given


class Mailbox:
    """One connection to a folder. Every method but `cut` and `close` blocks, and belongs in a thread."""

    def __init__(self, settings: ImapSettings) -> None:
        self.validity = 0
        self.can_idle = False
        self._settings = settings
        self._lifelines: list[socket.socket] = []
        self._is_cut = False
        self._is_empty = False
        self._client: imaplib.IMAP4 | None = None

    def __str__(self) -> str:
        return f"mailbox {self._settings.user!r} at {self._settings.host}:{self._settings.port_used}"

    # -- the connection

    def open(self) -> None:
        """Connect, log in and open the folder."""
        try:
            client = self._connect()
            if not self._is_cut:
                self._log_in(client)
                self._select(client)
        finally:
            if self._is_cut:  # while it connected, and nobody else knows of it
                self.close()

    def _connect(self) -> imaplib.IMAP4:
        settings = self._settings
        try:
            self._client = client = _Client(settings, self._lifelines)
            if settings.tls == "starttls":
                client.starttls(ssl.create_default_context())
        except ssl.SSLCertVerificationError as error:
            raise ConfigError(
                f"{self} shows a certificate that is not to be trusted ({error.verify_message}): "
                "correct its host, or let SSL_CERT_FILE name the authority that signed it"
            ) from error
        except OSError as error:
            raise TransientError(f"{self} cannot be reached ({error.strerror or type(error).__name__})") from error
        return client

    def cut(self) -> None:
        """End what waits for the server, in whatever thread."""
        self._is_cut = True
        for one in self._lifelines:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the connection, without a word."""
        self.cut()
        if self._client is not None:
            with suppress(OSError):
                self._client.shutdown()
        while self._lifelines:
            self._lifelines.pop().close()

    def _log_in(self, client: imaplib.IMAP4) -> None:
        box, settings = _Box(client), self._settings
        try:
            if token := self._token():
                box.xoauth2(settings.user, token, None)
            elif (settings.user + settings.password.reveal()).isascii():
                box.login(settings.user, settings.password.reveal(), None)
            else:
                box.login_utf8(settings.user, settings.password.reveal(), None)
        except imaplib.IMAP4.abort:
            raise
        except (imaplib.IMAP4.error, ImapToolsError) as error:
            raise self._refused(error) from None  # what it holds can repeat what was sent
        client._get_capabilities()  # noqa: SLF001  (after a login there are more, and no other call asks)

    def _token(self) -> str:
        file = self._settings.token_file
        if not file:
            return self._settings.token.reveal()
        try:
            return Path(file).read_text("utf-8").strip()
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"token_file {file} cannot be read ({type(error).__name__}): write the token there"
            ) from error

    def _refused(self, error: Exception) -> ConvsdkError:
        found = _CODE.search(str(error).encode())
        code = found[1].decode() if found else ""
        said = f" ({code})" if code else ""
        if code in _LATER:
            return TransientError(f"{self} refuses the login for now{said}")
        what = "token" if self._settings.token or self._settings.token_file else "password"
        return ConfigError(f"{self} refuses the login{said}: correct user and {what}, or allow IMAP for it")

    def _select(self, client: imaplib.IMAP4) -> None:
        folder, is_read_only = self._settings.folder, self._settings.done == "leave"
        for name, read_only in ((self._settings.move_to, True), (folder, is_read_only)):
            try:
                is_open = not name or client.select(_encoded(name).decode(), read_only)[0] == "OK"
            except imaplib.IMAP4.readonly:
                is_open = False
            if not is_open:
                raise ConfigError(f"{self} does not open its folder {name!r}: create it, allow it, or name another")
        self._is_empty = client.response("EXISTS")[1] == [b"0"]
        self.validity = max(_numbers(client.response("UIDVALIDITY")[1]), default=0)
        self.can_idle = "IDLE" in client.capabilities

    @property
    def _open(self) -> imaplib.IMAP4:
        if self._client is None:
            raise TransientError(f"{self} is not connected")
        return self._client

    # -- what is in the folder

    def last_uid(self) -> int:
        """Give the UID of the last mail that is there; 0 for an empty folder."""
        return 0 if self._is_empty else max(_numbers(self._ask("SEARCH", "UID", "*")), default=0)

    def uids_after(self, uid: int) -> list[int]:
        """Give the UIDs above `uid`, in order: numbers alone, however many there are."""
        client = self._open
        changed = client.untagged_responses.pop("UIDVALIDITY", None)
        if changed and _numbers(changed)[-1:] != [self.validity]:
            raise TransientError(f"{self} has given its mails new UIDs")
        # What is told from here on may not be among what is found: it has to be looked for again.
        client.untagged_responses.clear()
        # The last mail is always found by `*`, whatever its UID.
        return sorted(one for one in _numbers(self._ask("SEARCH", "UID", f"{uid + 1}:*")) if one > uid)

    def entries(self, uids: Sequence[int]) -> list[Entry]:
        """Give what is said of the mails with these UIDs, in order; those that were removed are left out."""
        found = {}
        for line in map(_line, self._ask("FETCH", _set(uids), "(UID RFC822.SIZE INTERNALDATE)")):
            uid, size, at = (pattern.search(line) for pattern in (_UID, _SIZE, _DATE))
            if uid and size:
                found[int(uid[1])] = Entry(uid=int(uid[1]), size=int(size[1]), at=_moment(at[1]) if at else None)
        self._require_removed([one for one in uids if one not in found])
        return [found[one] for one in uids if one in found]

    def _require_removed(self, uids: Sequence[int]) -> None:
        """Raise where one of the mails that nothing was said of is there all the same: it would be passed over."""
        if uids and set(uids).intersection(_numbers(self._ask("SEARCH", "UID", _set(uids)))):
            raise TransientError(f"{self} has mails in folder {self._settings.folder!r} that it does not give")

    def mail(self, uid: int) -> bytes | None:
        """Give a mail, byte for byte; None where it was removed. Of one that is too large, a byte too many."""
        return self._body(uid, f"BODY.PEEK[]<0.{MAX_BYTES + 1}>")

    def header(self, uid: int) -> bytes | None:
        """Give the header of a mail, as far as it is read."""
        return self._body(uid, f"BODY.PEEK[HEADER]<0.{MAX_HEADER_BYTES}>")

    def _body(self, uid: int, what: str) -> bytes | None:
        for one in self._ask("FETCH", str(uid), f"(UID {what})"):
            head = one[0] if isinstance(one, tuple) else one
            if head is None or b"BODY[" not in head:
                continue  # somebody changed a flag meanwhile
            if isinstance(one, tuple):
                return one[1]
            if short := _QUOTED.search(head):
                return re.sub(rb"\\(.)", rb"\1", short[1] or b"")
        self._require_removed([uid])
        return None

    def _ask(self, command: str, *arguments: str) -> Sequence[bytes | tuple[bytes, bytes] | None]:
        status, data = self._open.uid(command, *arguments)
        if status != "OK":
            raise TransientError(f"{self} refuses {command}")
        return data

    # -- what comes after

    def finish(self, first: int, last: int) -> None:
        """Do what is to be done with the mails from UID `first` to `last`, as far as they are there."""
        uids = [one for one in _numbers(self._ask("SEARCH", "UID", f"{first}:{last}")) if first <= one <= last]
        if not uids:
            return
        chosen = _set(uids)
        if self._settings.done == "seen":
            self._ask("STORE", chosen, "+FLAGS.SILENT", r"(\Seen)")
            return
        if self._settings.done == "move":
            if "MOVE" in self._open.capabilities:
                self._ask("MOVE", chosen, _encoded(self._settings.move_to).decode())
                return
            self._ask("COPY", chosen, _encoded(self._settings.move_to).decode())
        self._ask("STORE", chosen, "+FLAGS.SILENT", r"(\Deleted)")
        if "UIDPLUS" in self._open.capabilities:  # else all that anybody has marked would go, so it stays marked
            self._ask("EXPUNGE", chosen)

    # -- waiting

    def idle(self) -> None:
        """Wait until the server tells of something new, or for `idle_s` (RFC 2177)."""
        client = self._open
        if "EXISTS" in client.untagged_responses:
            return
        tag = client._command("IDLE")  # noqa: SLF001  (before Python 3.14, imaplib has no IDLE)
        while client._get_response() is not None:  # noqa: SLF001  (as above)
            if client.tagged_commands[tag]:  # (as above)
                raise TransientError(f"{self} refuses IDLE")
        if "EXISTS" not in client.untagged_responses and not self._has_read_ahead(client):
            with selectors.DefaultSelector() as selector:
                selector.register(client.sock, selectors.EVENT_READ)
                selector.select(self._settings.idle_s)
        client.send(b"DONE\r\n")
        client._command_complete("IDLE", tag)  # noqa: SLF001  (as above)

    def _has_read_ahead(self, client: imaplib.IMAP4) -> bool:
        """Say whether there is something to read above the socket: in TLS, or in the file that is read from."""
        file: Any = getattr(client, "_file", None) or client.file  # its name in new and in old releases of Python
        client.sock.settimeout(0)
        try:
            return bool(file.peek(1))
        except ssl.SSLWantReadError:
            return False
        finally:
            client.sock.settimeout(self._settings.timeout_s)


def _encoded(folder: str) -> bytes:
    encoded: bytes = encode_folder(folder)
    return encoded


def _set(uids: Iterable[int]) -> str:
    return ",".join(map(str, uids))


def _line(item: bytes | tuple[bytes, bytes] | None) -> bytes:
    return item[0] if isinstance(item, tuple) else item or b""


def _numbers(data: Iterable[bytes | tuple[bytes, bytes] | None]) -> list[int]:
    return [int(word) for item in data for word in _line(item).split()]


def _moment(text: bytes) -> datetime | None:
    try:
        return parsedate_to_datetime(text.decode("ascii", "replace").strip()).astimezone(UTC)
    except (ValueError, OverflowError):
        return None
