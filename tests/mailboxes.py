"""A Dovecot of the tests' own: mailboxes that take mail by LMTP and show it by IMAP, on loopback alone."""

import os
import pwd
import shutil
import signal
import smtplib
import socket
import subprocess
import tempfile
import threading
import time
from contextlib import closing, suppress
from pathlib import Path

import pytest

PASSWORD = 'pass"word%\\1'
PATIENCE_S = 30
LMTP = Path("/usr/lib/dovecot/lmtp")  # a package of its own

CONFIG = """
base_dir = {folder}/run
log_path = {folder}/log
protocols = imap lmtp
listen = 127.0.0.1
ssl = {ssl}
{tls}
disable_plaintext_auth = no
auth_mechanisms = plain login
auth_failure_delay = 0 secs
default_internal_user = {internal}
default_internal_group = {internal_group}
default_login_user = {login}
mail_location = maildir:~/Maildir
first_valid_uid = 1
passdb {{
  driver = static
  mechanisms = plain login
  args = password={password}
}}
userdb {{
  driver = static
  args = uid={uid} gid={gid} home={folder}/mail/%u allow_all_users=yes
}}
namespace inbox {{
  inbox = yes
  separator = /
  mailbox Done {{
    auto = create
  }}
  mailbox Büro {{
    auto = create
  }}
}}
service imap-login {{
  chroot =
  inet_listener imap {{
    port = {imap}
  }}
  inet_listener imaps {{
    port = {imaps}
  }}
}}
service anvil {{
  chroot =
}}
service lmtp {{
  inet_listener lmtp {{
    port = {lmtp}
  }}
}}
service stats {{
  chroot =
}}
protocol lmtp {{
  postmaster_address = postmaster@shop.example
}}
{more}
"""

# Asks somebody else whether a token is good, and whose it is.
TOKENS = """
auth_mechanisms = xoauth2
passdb {{
  driver = oauth2
  mechanisms = xoauth2
  args = {file}
}}
"""
TOKEN_SETTINGS = """
introspection_mode = get
introspection_url = {url}?token=
username_attribute = email
active_attribute = active
active_value = true
"""


def require_dovecot():
    """Skip a test, or let it fail where the environment says so, if there is no Dovecot."""
    if not (shutil.which("dovecot") and LMTP.exists()):
        give_up = pytest.fail if "CONVSDK_TEST_REQUIRE_DOVECOT" in os.environ else pytest.skip
        give_up("there is no dovecot: apt-get install dovecot-imapd dovecot-lmtpd")


def _free_port():
    with socket.create_server(("127.0.0.1", 0)) as found:
        return found.getsockname()[1]


class Dovecot:
    """A server with a mailbox for anybody, whose password is `PASSWORD`.

    ::

        with Dovecot() as dovecot:
            dovecot.deliver(mail, to="help")
    """

    def __init__(self, more="", certificate=None):
        require_dovecot()
        self.imap, self.imaps, self.lmtp = _free_port(), _free_port(), _free_port()
        # Below a folder that is only its owner's, whom mails belong to could not get to them.
        self.folder = Path(tempfile.mkdtemp(prefix="dovecot-"))
        self._more = more
        self._certificate = certificate
        self._process = None

    def __enter__(self):
        is_root = os.geteuid() == 0
        owner = pwd.getpwnam("nobody") if is_root else pwd.getpwuid(os.geteuid())
        own = owner.pw_name
        self.folder.chmod(0o755)
        (self.folder / "mail").mkdir()
        os.chown(self.folder / "mail", owner.pw_uid, owner.pw_gid)
        (self.folder / "conf").write_text(
            CONFIG.format(
                folder=self.folder,
                ssl="yes" if self._certificate else "no",
                tls="ssl_cert = <{}\nssl_key = <{}".format(*self._certificate) if self._certificate else "",
                internal="dovecot" if is_root else own,
                internal_group="dovecot" if is_root else str(owner.pw_gid),
                login="dovenull" if is_root else own,
                uid=owner.pw_uid,
                gid=owner.pw_gid,
                imap=self.imap,
                imaps=self.imaps if self._certificate else 0,
                lmtp=self.lmtp,
                password=PASSWORD.replace("%", "%%"),
                more=self._more,
            ),
            encoding="utf-8",
        )
        self.start()
        return self

    def __exit__(self, *_error):
        # All at once: to stop in order takes it seconds, and nobody needs what it has any more.
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(PATIENCE_S)
        shutil.rmtree(self.folder)

    @property
    def log(self):
        """Give what the server has told."""
        return (self.folder / "log").read_text() if (self.folder / "log").exists() else ""

    def start(self):
        """Start it, and wait until it takes connections."""
        self._process = subprocess.Popen(
            [shutil.which("dovecot"), "-F", "-c", self.folder / "conf"], start_new_session=True
        )
        end = time.monotonic() + PATIENCE_S
        for port in (self.imap, self.lmtp):
            while True:
                with suppress(OSError), closing(socket.create_connection(("127.0.0.1", port), 1)) as wire:
                    if wire.recv(1):
                        break
                assert time.monotonic() < end, self.log
                time.sleep(0.05)

    def stop(self):
        """Stop it, and all that it started."""
        self._process.terminate()
        self._process.wait(PATIENCE_S)

    def deliver(self, *mails, to="help", sender="ann@mail.example"):
        """Hand mails in by LMTP; they are in the mailbox when this returns."""
        with smtplib.LMTP("127.0.0.1", self.lmtp) as client:
            for mail in mails:
                client.sendmail(sender, [to], mail)

    def put(self, mail, user="help"):
        """Put a file into the mailbox, as it is."""
        self.deliver(b"Subject: so that there is a mailbox\r\n\r\n", to=user)
        (file,) = [one for one in self.mails(user) if b"so that there" in one.read_bytes()]
        file.write_bytes(mail)
        file.rename(file.with_name(file.name.partition(",")[0]))  # which says the size

    def maildir(self, user="help", folder=""):
        """Give the folder on disk of a mailbox's folder."""
        return self.folder / "mail" / user / "Maildir" / (f".{folder}" if folder else "")

    def mails(self, user="help", folder=""):
        """Give the files of the mails that are in a folder."""
        place = self.maildir(user, folder)
        return sorted(file for part in ("new", "cur") for file in (place / part).glob("*"))

    def forget_uids(self, user="help"):
        """Lose the UIDs of a mailbox, so that it gives its mails new ones, with another UIDVALIDITY."""
        for pattern in ("dovecot-uidlist", "dovecot.index*", "dovecot-uidvalidity*"):
            for file in self.maildir(user).glob(pattern):
                file.unlink()


class Wire:
    """A TCP proxy in front of a port, which cuts, stalls and garbles what the server says.

    `at` is what it waits for: `harm(bytes so far of this connection, data)` gives what to send instead, or None to
    cut. It is asked for each piece of what the server says, while there is one.
    """

    def __init__(self, port):
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.harm = None
        self.connections = 0
        self.is_stalled = False
        self._sockets = []

    def __enter__(self):
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_error):
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def cut(self):
        """Cut every connection."""
        while self._sockets:
            self._break(self._sockets.pop())

    @staticmethod
    def _break(one):
        with suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
        one.close()

    def _accept(self):
        with suppress(OSError):  # closed
            while True:
                client = self._listener.accept()[0]
                self.connections += 1
                try:
                    server = socket.create_connection(("127.0.0.1", self._target))
                except OSError:  # the server is away
                    client.close()
                    continue
                self._sockets += [client, server]
                threading.Thread(target=self._forward, args=[client, server, False], daemon=True).start()
                threading.Thread(target=self._forward, args=[server, client, True], daemon=True).start()

    def _forward(self, source, target, is_told):
        said = 0
        with suppress(OSError):  # cut
            while data := source.recv(4096):
                while self.is_stalled:
                    time.sleep(0.01)
                if is_told and self.harm:
                    data = self.harm(said, data)
                    if data is None:
                        break
                said += len(data)
                target.sendall(data)
        self._break(source)
        self._break(target)
