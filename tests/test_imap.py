import asyncio
import imaplib
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest
from mailboxes import PASSWORD, TOKEN_SETTINGS, TOKENS, Dovecot, Wire
from structlog.testing import capture_logs

from convsdk.channels.email import EmailChannel
from convsdk.channels.email.settings import EmailSettings, ImapSettings
from convsdk.core.ports import Secret
from convsdk.core.storage import Batch, Memo
from convsdk.errors import TransientError
from convsdk.hub import Hub
from convsdk.listening import Listening
from convsdk.rejects import Rejects
from convsdk.store.memory import MemoryStore
from convsdk.testing.builders import NOON

pytestmark = pytest.mark.once  # a mail server's doing

PATIENCE_S = 60


@pytest.fixture(scope="module")
def shared():
    """Give a Dovecot that no test stops; each test has a mailbox of its own."""
    with Dovecot() as dovecot:
        yield dovecot


def letter(name, body=None, **fields):
    """Give a mail that is told apart by its name, which is its text as well."""
    more = "".join(f"{key}: {value}\r\n" for key, value in fields.items())
    return (
        f"From: Ann <ann@mail.example>\r\nTo: somebody@else.example\r\nMessage-ID: <{name}@mail.example>\r\n"
        f"Subject: {name}\r\n{more}\r\n{body or name}\r\n"
    ).encode()


def channel(port, *, name="mail", **settings):
    """Give an e-mail channel that reads a mailbox."""
    given = {"host": "127.0.0.1", "user": "help", "password": Secret(PASSWORD), "tls": "none", "start": "beginning"}
    imap = ImapSettings(port=port, **given | settings)
    return EmailChannel(name, EmailSettings(address="help@shop.example", imap=imap))


@contextmanager
def listening(folder, *channels, store=None, rejects=None, **options):
    """Run channels that listen; give their hub, and what ends them."""
    hub = Hub(store or MemoryStore(), channels=channels)
    started, ending = threading.Event(), asyncio.Event()
    found = SimpleNamespace(hub=hub, rejects=rejects or Rejects(folder / "rejects", capacity=20))

    async def run():
        async with Listening(hub, rejects=found.rejects, random=lambda: 0.0, **{"lease_s": 1.0} | options):
            found.loop = asyncio.get_running_loop()
            started.set()
            await ending.wait()

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    assert started.wait(PATIENCE_S)
    found.end = lambda: (found.loop.call_soon_threadsafe(ending.set), thread.join(PATIENCE_S))
    try:
        yield found
    finally:
        if thread.is_alive():
            found.end()
        assert not thread.is_alive(), "it did not end"


def texts(hub):
    """Give the texts of all messages in the store, in the order in which they were kept."""
    found = [message for one in hub.conversations(limit=10_000) for message in hub.messages(one.id, limit=10_000).items]
    return [one.text.strip() for one in sorted(found, key=lambda one: one.id)]


def until(is_so):
    """Wait until something is so."""
    end = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.02)


NUMBERS = itertools.count(1)


class Watched(EmailChannel):
    """Remembers what it is given."""

    def __init__(self, name, config):
        super().__init__(name, config)
        self.seen = []

    def parse(self, request):
        self.seen.append(request)
        return super().parse(request)


class Away(MemoryStore):
    """Takes no message while it is away."""

    is_away = True

    def transact(self, workspace, work):
        def work_if_there(transaction):
            result = work(transaction)
            if self.is_away and isinstance(result, tuple) and result:
                raise TransientError("the store is away")
            return result

        return super().transact(workspace, work_if_there)


def certificate(folder):
    """Give the files of a certificate for this machine, and its key."""
    files = folder / "cert.pem", folder / "key.pem"
    command = (
        "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1"
    )
    subprocess.run([*command.split(), "-out", files[0], "-keyout", files[1]], check=True, capture_output=True)
    return files


def stops(logs):
    """Give what the log tells of a channel that stopped listening."""
    return [one for one in logs if one["event"] == "a channel stopped listening"]


def position_of(hub, user="help", folder="INBOX"):
    """Give how far a mailbox was read."""
    return hub.store.checkpoint(hub.workspace, f"listening/mail/{user}@127.0.0.1/{folder}")


def test_mail_arrives_while_the_mailbox_is_watched(shared, tmp_path):
    """What comes into the mailbox is told by IDLE, and in the store a moment later, whatever address it is for."""
    user = "watched"
    shared.deliver(letter("before"), to=user)
    with listening(tmp_path, channel(shared.imap, user=user)) as found:
        until(lambda: texts(found.hub) == ["before"])
        time.sleep(0.3)
        shared.deliver(letter("one"), to=user)
        until(lambda: texts(found.hub) == ["before", "one"])
        shared.deliver(letter("two"), letter("three"), to=user)
        until(lambda: len(texts(found.hub)) == 4)

    assert texts(found.hub) == ["before", "one", "two", "three"]


def test_channel_gets_the_bytes_and_when_they_came(shared, tmp_path):
    """A mail is read byte for byte, and has the time at which it came into the mailbox."""
    user = "bytes"
    body = "a" * 5000 + "\r\n\u00fc\r\n.\r\n\r\nend"
    shared.deliver(letter("exact", body), to=user)
    (file,) = shared.mails(user)
    at = datetime.fromtimestamp(int(file.name.partition(".")[0]), UTC)
    watched = Watched("mail", channel(shared.imap, user=user).config)
    with listening(tmp_path, watched):
        until(lambda: watched.seen)

    (request,) = watched.seen
    assert request.body == file.read_bytes().replace(b"\n", b"\r\n").replace(b"\r\r", b"\r")
    assert request.body.endswith(letter("exact", body))
    assert abs(request.received_at - at) <= timedelta(seconds=1)


def test_mailbox_without_idle_is_asked(tmp_path):
    """Where the server has no IDLE, it is asked every now and then."""
    with (
        Dovecot("imap_capability = IMAP4rev1 UIDPLUS") as dovecot,
        listening(tmp_path, channel(dovecot.imap, poll_s=0.1)) as found,
    ):
        dovecot.deliver(letter("one"))
        until(lambda: texts(found.hub) == ["one"])
        dovecot.deliver(letter("two"))
        until(lambda: texts(found.hub) == ["one", "two"])


@pytest.mark.parametrize("tls", ["implicit", "starttls"])
def test_mailbox_is_watched_over_tls(tmp_path, monkeypatch, tls):
    """With TLS from the start or by STARTTLS, mail is told by IDLE as well."""
    pair = certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(pair[0]))
    with Dovecot(certificate=pair) as dovecot:
        port = dovecot.imaps if tls == "implicit" else dovecot.imap
        with listening(tmp_path, channel(port, tls=tls)) as found:
            for name in ("one", "two", "three"):
                dovecot.deliver(letter(name))
                until(lambda name=name: texts(found.hub)[-1:] == [name])

    assert texts(found.hub) == ["one", "two", "three"]


@pytest.mark.parametrize("tls", ["implicit", "starttls"])
def test_certificate_of_others_is_refused(tmp_path, tls):
    """Who shows a certificate that nobody vouches for is told no password."""
    with Dovecot(certificate=certificate(tmp_path)) as dovecot, capture_logs() as logs:
        port = dovecot.imaps if tls == "implicit" else dovecot.imap
        with listening(tmp_path, channel(port, tls=tls)):
            until(lambda: stops(logs))
        until(lambda: "no auth attempts" in dovecot.log)
        told = dovecot.log

    assert "shows a certificate that is not to be trusted" in stops(logs)[0]["why"]
    assert "Login" not in told


@pytest.mark.parametrize(
    ("done", "more", "left", "moved"),
    [
        ({"done": "leave"}, "", 3, 0),
        ({"done": "seen"}, "", 3, 0),
        ({"done": "move", "move_to": "B\u00fcro"}, "", 0, 3),
        ({"done": "move", "move_to": "B\u00fcro"}, "imap_capability = IMAP4rev1 UIDPLUS", 0, 3),
        ({"done": "delete"}, "", 0, 0),
        # Nobody may remove what others have marked: it stays, marked.
        ({"done": "delete"}, "imap_capability = IMAP4rev1", 3, 0),
    ],
)
def test_mail_is_done_with_after_the_commit(tmp_path, done, more, left, moved):
    """A mail that was kept is left, marked, moved or deleted, as the settings say."""
    flag = {"leave": "", "seen": "S", "delete": "T"}.get(done["done"])
    with Dovecot(more) as dovecot:
        dovecot.deliver(letter("one"), letter("two"))
        with listening(tmp_path, channel(dovecot.imap, poll_s=0.1, **done)) as found:
            until(lambda: len(texts(found.hub)) == 2)
            dovecot.deliver(letter("three"))
            until(lambda: len(texts(found.hub)) == 3)
            until(lambda: [one.name.partition(":2,")[2] for one in dovecot.mails()] == [flag] * left)
            until(lambda: len(dovecot.mails(folder="B&APw-ro")) == moved)


def test_mail_from_before_the_first_start_can_be_left_alone(tmp_path):
    """With "now", what was there is neither read nor moved: not later either, and not under new UIDs."""
    settings = {"start": "now", "done": "move", "move_to": "Done"}
    with Dovecot() as dovecot:
        dovecot.deliver(letter("old"), letter("older"))
        time.sleep(1.1)  # the server's dates have whole seconds
        with listening(tmp_path, channel(dovecot.imap, **settings), store=MemoryStore()) as found:
            until(lambda: position_of(found.hub))
            dovecot.deliver(letter("new"))
            until(lambda: texts(found.hub) == ["new"])
            until(lambda: len(dovecot.mails()) == 2)
            dovecot.stop()
            dovecot.forget_uids()
            dovecot.start()
            dovecot.deliver(letter("newer"))
            until(lambda: texts(found.hub) == ["new", "newer"])
            until(lambda: len(dovecot.mails(folder="Done")) == 2)
            until(lambda: len(dovecot.mails()) == 2)  # the server copies before it removes
            left = [file.read_text().splitlines()[-1] for file in dovecot.mails()]

    assert sorted(left) == ["old", "older"]


def test_mail_that_is_put_into_the_folder_later_is_read_whatever_its_date(tmp_path):
    """With "now", a mail that somebody moves into the folder after the first start is new in it, however old it is."""
    with Dovecot() as dovecot, imaplib.IMAP4("127.0.0.1", dovecot.imap) as client:
        dovecot.deliver(letter("old"))
        client.login("help", PASSWORD)
        with listening(tmp_path, channel(dovecot.imap, start="now")) as found:
            until(lambda: position_of(found.hub))
            client.append("INBOX", "", imaplib.Time2Internaldate(time.time() - 3600), letter("out of the spam folder"))
            until(lambda: texts(found.hub) == ["out of the spam folder"])


def cut_once(part):
    """Give a harm that cuts the first connection that says `part`."""
    state = {"is_done": False}

    def harm(_said, data):
        if part in data and not state["is_done"]:
            state["is_done"] = True
            return None
        return data

    return harm


def garble_once(part, other):
    """Give a harm that says something else, once."""
    state = {"is_done": False}

    def harm(_said, data):
        if part in data and not state["is_done"]:
            state["is_done"] = True
            return data.replace(part, other)
        return data

    return harm


@pytest.mark.parametrize(
    "harm",
    [
        cut_once(b"FETCH (UID"),
        cut_once(b"BODY[]"),
        cut_once(b"middle"),
        cut_once(b"SEARCH"),
        cut_once(b"OK Idle completed"),
        cut_once(b"+ idling"),
        garble_once(b"BODY[]", b"\xff\0]{{{"),
        garble_once(b"FETCH (UID", b"\xff\xfe (UID x"),
        garble_once(b"* SEARCH", b"* SEARCH nine"),
        garble_once(b"OK Search", b"NO Search"),
        garble_once(b"+ idling", b"- idling"),
        garble_once(b"UIDVALIDITY", b"UIDVALIDITY x"),
        garble_once(b"RFC822.SIZE ", b"RFC822.SIZE -"),
    ],
)
def test_broken_connection_loses_and_doubles_nothing(shared, tmp_path, harm):
    """Wherever the connection breaks, or the server talks nonsense, each mail is there once."""
    user = f"broken{next(NUMBERS)}"
    names = [f"mail {number}" for number in range(12)]
    shared.deliver(*(letter(name, f"{name}\r\n" + "middle\r\n" * 2000 * (name == "mail 5")) for name in names), to=user)
    with Wire(shared.imap) as wire:
        wire.harm = harm
        with listening(tmp_path, channel(wire.port, user=user, idle_s=0.3, timeout_s=2.0)) as found:
            until(lambda: len(texts(found.hub)) == 12)
            until(lambda: wire.connections > 1)
            shared.deliver(letter("last"), to=user)
            until(lambda: len(texts(found.hub)) == 13)

    assert [text.partition("\n")[0].strip() for text in texts(found.hub)] == [*names, "last"]


def test_mail_that_is_told_with_the_answer_to_idle_is_seen(shared, tmp_path):
    """What was read together with the answer to IDLE does not wait until the server says more."""
    held, is_holding = [], threading.Event()

    def join(_said, data):
        """Send the answer to IDLE with what is said next."""
        if data.startswith(b"+ idling"):
            held.append(data)
            is_holding.set()
            return b""
        joined = b"".join((*held, data))
        held.clear()
        return joined

    with Wire(shared.imap) as wire:
        wire.harm = join
        with listening(tmp_path, channel(wire.port, user="joined")) as found:
            assert is_holding.wait(PATIENCE_S)
            shared.deliver(letter("one"), to="joined")
            until(lambda: texts(found.hub) == ["one"])


def test_server_that_says_nothing_is_left(shared, tmp_path):
    """A connection that is dead, and nobody said so, is noticed when IDLE is renewed, and made anew."""
    with (
        Wire(shared.imap) as wire,
        capture_logs() as logs,
        listening(tmp_path, channel(wire.port, user="silent", idle_s=0.5, timeout_s=0.5)) as found,
    ):
        shared.deliver(letter("one"), to="silent")
        until(lambda: texts(found.hub) == ["one"])
        wire.is_stalled = True
        shared.deliver(letter("two"), to="silent")
        until(lambda: stops(logs))
        wire.is_stalled = False
        until(lambda: texts(found.hub) == ["one", "two"])

    assert "said nothing for 0.5 s" in stops(logs)[0]["why"]


def test_server_that_was_away_is_found_again(tmp_path):
    """A server that is started again is read on, from where it was left."""
    with Dovecot() as dovecot, listening(tmp_path, channel(dovecot.imap)) as found:
        dovecot.deliver(letter("one"))
        until(lambda: texts(found.hub) == ["one"])
        dovecot.stop()
        time.sleep(1)
        dovecot.start()
        dovecot.deliver(letter("two"))
        until(lambda: texts(found.hub) == ["one", "two"])


def test_new_uids_lose_and_double_nothing(tmp_path):
    """Where the server gives all mails new UIDs, all are read again, and each is known by its Message-ID."""
    with Dovecot() as dovecot, capture_logs() as logs, listening(tmp_path, channel(dovecot.imap)) as found:
        dovecot.deliver(*(letter(f"mail {number}") for number in range(5)))
        until(lambda: len(texts(found.hub)) == 5)
        before = position_of(found.hub)
        dovecot.stop()
        dovecot.forget_uids()
        time.sleep(1)  # or its UIDVALIDITY, a time in seconds, could be the same
        dovecot.start()
        dovecot.deliver(letter("after"))
        until(lambda: sum(one["event"] == "heard" for one in logs) == 11)
        after = position_of(found.hub)

    assert before.split()[0] != after.split()[0]
    assert sorted(texts(found.hub)) == ["after", *(f"mail {number}" for number in range(5))]


def test_garbage_goes_to_the_rejects_and_the_next_one_arrives(tmp_path):
    """What cannot be read is kept aside as it is, and keeps nothing back."""
    with Dovecot() as dovecot:
        dovecot.deliver(letter("one"))
        dovecot.put(b"no field at all\n")
        with listening(tmp_path, channel(dovecot.imap, done="delete")) as found:
            until(lambda: texts(found.hub) == ["one"] and list(found.rejects.ids()))
            dovecot.deliver(letter("two"))
            until(lambda: texts(found.hub) == ["one", "two"])
            until(lambda: not dovecot.mails())

    (reject,) = map(found.rejects.read, found.rejects.ids())
    assert reject.body == b"no field at all\r\n"


def test_large_mail_is_told_and_left(tmp_path):
    """Of a mail that is larger than any that is read, the header is kept aside with its size, and the mail stays."""
    with Dovecot() as dovecot:
        dovecot.deliver(letter("one"))
        dovecot.put(letter("large", "a" * 76 + "\r\n" + "b" * 26 * 1024 * 1024))
        dovecot.deliver(letter("two"))
        with listening(tmp_path, channel(dovecot.imap, done="move", move_to="Done")) as found:
            until(lambda: texts(found.hub) == ["one", "two"])
            until(lambda: len(dovecot.mails(folder="Done")) == 2 and list(found.rejects.ids()))
            left = dovecot.mails()

    (reject,) = map(found.rejects.read, found.rejects.ids())
    assert len(left) == 1
    assert b"Message-ID: <large@mail.example>" in reject.body
    assert len(reject.body) < 1000
    assert "bytes, and 26214400 are read" in reject.error


def test_refused_login_is_told_without_the_password(shared, tmp_path):
    """A wrong password is named as such, tried again seldom, and stands in no log."""
    secret = "not the one"
    with (
        Wire(shared.imap) as wire,
        capture_logs() as logs,
        listening(tmp_path, channel(wire.port, password=Secret(secret))),
    ):
        until(lambda: stops(logs))
        time.sleep(1)

    (stop,) = stops(logs)
    assert "refuses the login (AUTHENTICATIONFAILED): correct user and password" in stop["why"]
    assert stop["retry_in_s"] >= 30
    assert wire.connections == 1
    assert secret not in repr(logs)


class Tokens(BaseHTTPRequestHandler):
    """Says whether a token is good, as the server asks it to."""

    good = "good-token"

    def do_GET(self):
        is_good = f"token={self.good}&" in self.path
        body = json.dumps({"active": "true", "email": "help"} if is_good else {"active": "false"}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """Tell nobody."""


def test_token_is_read_at_each_login(tmp_path):
    """A token that ran out is refused without a word of it, and a new one in its file is taken without a restart."""
    file = tmp_path / "token"
    file.write_text("stale-token\n")
    settings = tmp_path / "oauth2.conf"
    tmp_path.chmod(0o755)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Tokens)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    settings.write_text(TOKEN_SETTINGS.format(url=f"http://127.0.0.1:{server.server_port}/"))
    by_token = {"password": Secret(""), "token_file": str(file)}
    with closing(server.socket), Dovecot(TOKENS.format(file=settings)) as dovecot, capture_logs() as logs:
        dovecot.deliver(letter("one"))
        with listening(tmp_path, channel(dovecot.imap, **by_token)):
            until(lambda: stops(logs))
        file.write_text("good-token\n")
        with listening(tmp_path, channel(dovecot.imap, **by_token)) as found:
            until(lambda: texts(found.hub) == ["one"])
        server.shutdown()

    assert "refuses the login" in stops(logs)[0]["why"]
    assert "correct user and token" in stops(logs)[0]["why"]
    assert "stale" not in repr(logs)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"password": Secret("")}, "give one of password, token and token_file"),
        ({"token": Secret("a")}, "give one of password, token and token_file"),
        ({"host": "imap.shop.example"}, "without TLS, anybody on the way reads the password"),
        ({"done": "move"}, 'done = "move" and move_to, another folder than folder, go together'),
        ({"move_to": "Done"}, 'done = "move" and move_to'),
        ({"done": "move", "move_to": "INBOX"}, "another folder than folder"),
        ({"user": "help\r\nA1 LOGOUT"}, "user: there is a line end"),
        ({"password": Secret("a\nb")}, "password: there is a line end"),
        ({"idle_s": 1800.0}, "idle_s"),
        ({"poll_s": 0.0}, "poll_s"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings, told):
    """What could not work, or would tell a password to everybody, is named, and no secret with it."""
    with pytest.raises(ValueError, match=re.escape(told)):
        channel(143, **settings)


@pytest.mark.parametrize("port", [0, 65536, -1])
def test_port_that_is_none_is_refused(port):
    """A port is a port."""
    with pytest.raises(ValueError, match=f"{port} is no port"):
        channel(port)


def test_port_is_the_usual_one_unless_it_is_given():
    """Implicit TLS has a port of its own."""
    ports = [channel(None, tls=tls).config.imap.port_used for tls in ("implicit", "starttls")]

    assert ports == [993, 143]


def test_missing_folder_is_told(shared, tmp_path):
    """A folder that is not there is named."""
    with capture_logs() as logs, listening(tmp_path, channel(shared.imap, folder="Nowhere")):
        until(lambda: stops(logs))

    assert "does not open its folder 'Nowhere': create it" in stops(logs)[0]["why"]


def test_mail_waits_for_the_store(shared, tmp_path):
    """While the store is away, nothing is passed over, and nothing moved."""
    store = Away()
    user = "waiting"
    shared.deliver(letter("one"), letter("two"), to=user)
    with (
        capture_logs() as logs,
        listening(tmp_path, channel(shared.imap, user=user, done="delete"), store=store) as found,
    ):
        until(lambda: any(one["event"] == "what was heard waits" for one in logs))
        left = len(shared.mails(user))
        store.is_away = False
        until(lambda: texts(found.hub) == ["one", "two"])
        until(lambda: not shared.mails(user))

    assert left == 2


# -- as a program

CONFIG = """store = "sqlite:///shop.db"
[channels.mail]
type = "email"
address = "help@shop.example"
[channels.mail.imap]
host = "127.0.0.1"
port = {port}
user = "help"
password = {{ env = "MAILBOX" }}
tls = "none"
start = "beginning"
"""
PROGRAM = "from convsdk.cli import main; main()"
# The log's line is written after the commit and before the move.
DYING = (
    "import os, structlog; structlog.configure = lambda **_: None;"
    "structlog.configure_once(processors=[lambda *_: os.kill(os.getpid(), 9)]);"
)


@contextmanager
def reading(folder, port, *more, program=PROGRAM, command="mail"):
    """Run a command as a user does, once it is ready; give the process."""
    (folder / "convsdk.toml").write_text("\n".join((CONFIG.format(port=port), *more)), encoding="utf-8")
    environ = os.environ | {"MAILBOX": PASSWORD}
    arguments = ["--port=0"] if command == "serve" else []
    with (
        (folder / "log").open("a") as log,
        subprocess.Popen(
            [sys.executable, "-c", program, command, "--json", *arguments],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=environ,
        ) as process,
    ):
        try:
            assert json.loads(process.stdout.readline())
            yield process
        finally:
            process.kill()


def kept(folder):
    """Give the texts of all messages in the store of a folder, sorted."""
    with closing(Hub(f"sqlite:///{folder}/shop.db")) as hub:
        return sorted(texts(hub))


def give_lease_back(folder):
    """Do what a process that was killed did not: the next one would wait for half a minute."""
    batch = Batch(memos={("listening/mail", "lease"): Memo("", NOON)})
    with closing(Hub(f"sqlite:///{folder}/shop.db")) as hub:
        hub.store.transact("default", lambda transaction: transaction.write(batch))


def high_water_kib(process):
    """Give how much memory a process has had at most."""
    status = Path(f"/proc/{process}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1])


def heard(folder):
    """Give how many mails the log tells of."""
    return (folder / "log").read_text().count("event=heard")


@pytest.mark.parametrize("command", ["mail", "serve"])
def test_command_reads_the_mailbox_until_a_signal(tmp_path, command):
    """Both programs read it, SIGTERM ends them well and at once, and the log has nothing of mail or password."""
    with Dovecot() as dovecot, reading(tmp_path, dovecot.imap, command=command) as process:
        dovecot.deliver(letter("one"))
        until(lambda: heard(tmp_path) == 1)
        process.terminate()
        status = process.wait(PATIENCE_S)

    log = (tmp_path / "log").read_text()
    assert status == 0
    assert kept(tmp_path) == ["one"]
    assert "channel=mail outcome=taken" in log
    assert not any(word in log for word in (PASSWORD, "ann@", "Traceback"))
    assert not list(tmp_path.glob("shop.db-*")), "the store was not closed"


def test_mail_that_was_kept_and_not_moved_is_moved_later(tmp_path):
    """A kill between commit and move leaves the mail where it was: the next start moves it, and reads it no more."""
    move = 'done = "move"', 'move_to = "Done"'
    with Dovecot() as dovecot:
        dovecot.deliver(letter("one"))
        with reading(tmp_path, dovecot.imap, *move, program=DYING + PROGRAM) as process:
            status = process.wait(PATIENCE_S)
        after_kill = kept(tmp_path), len(dovecot.mails()), len(dovecot.mails(folder="Done"))
        give_lease_back(tmp_path)
        with reading(tmp_path, dovecot.imap, *move):
            until(lambda: len(dovecot.mails(folder="Done")) == 1)

    assert status == -signal.SIGKILL
    assert after_kill == (["one"], 1, 0)
    assert kept(tmp_path) == ["one"]
    assert heard(tmp_path) == 0


def test_two_processes_read_one_mailbox_once(tmp_path):
    """Of two processes one reads; the other goes on where it ended, and each mail is read once."""
    with (
        Dovecot() as dovecot,
        reading(tmp_path, dovecot.imap, 'done = "delete"') as one,
        reading(tmp_path, dovecot.imap, 'done = "delete"') as two,
    ):
        dovecot.deliver(*(letter(f"{number:03}") for number in range(40)))
        until(lambda: heard(tmp_path) > 5)
        one.terminate()
        statuses = [one.wait(PATIENCE_S)]
        dovecot.deliver(*(letter(f"{number:03}") for number in range(40, 60)))
        until(lambda: not dovecot.mails())
        two.terminate()
        statuses.append(two.wait(PATIENCE_S))

    assert statuses == [0, 0]
    assert kept(tmp_path) == [f"{number:03}" for number in range(60)]
    assert heard(tmp_path) == 60


def test_memory_does_not_grow_with_the_mailbox(tmp_path):
    """60 MB of mail are read with what a few of them take."""
    with Dovecot() as dovecot:
        dovecot.put(letter("0"))
        (first,) = dovecot.mails()
        for number in range(200):
            file = first.with_name(f"{number + 1}.many")
            # As attachments: texts are in the store, whose own cache may grow to 64 MB.
            file.write_bytes(letter(f"{number}", "sixteen letters " * 19_000, **{"Content-Type": "application/pdf"}))
            os.chown(file, first.stat().st_uid, first.stat().st_gid)
        first.unlink()
        with reading(tmp_path, dovecot.imap) as process:
            until(lambda: heard(tmp_path) >= 30)
            early = high_water_kib(process.pid)
            until(lambda: heard(tmp_path) == 200)
            late = high_water_kib(process.pid)

    assert late - early < 16 * 1024
