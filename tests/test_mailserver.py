import asyncio
import json
import os
import shutil
import signal
import smtplib
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from types import SimpleNamespace

import pytest
from attrs import frozen
from click.testing import CliRunner
from structlog.testing import capture_logs

from convsdk.channels.email import EmailChannel
from convsdk.channels.email.settings import EmailSettings
from convsdk.cli import main
from convsdk.core.events import Event, MessageReceived
from convsdk.core.ports import Channel
from convsdk.errors import ConfigError, Forbidden, ParseError, TransientError
from convsdk.hub import Hub
from convsdk.mailserver import MailLimits, MailServer
from convsdk.rejects import Rejects
from convsdk.store import open_store
from convsdk.store.memory import MemoryStore
from convsdk.testing.builders import NOON, FakeClock, hint

PATIENCE_S = 20
MAIL = b"From: ann@mail.example\r\nMessage-ID: <one@mail.example>\r\nSubject: Hi\r\n\r\nWhere is my order?\r\n"
TAKEN, LATER = "250 2.0.0 OK", "451 4.3.0 Try again later"


@frozen
class DeskSettings:
    pass


class DeskChannel(Channel):
    """Takes mail as one message of its bytes, and does what it says."""

    type = "desk"
    settings = DeskSettings

    def __init__(self, name="desk", *addresses):
        super().__init__(name, DeskSettings())
        self.addresses_given = addresses or ("help@shop.example",)
        self.seen = []
        self.begun, self.go = threading.Event(), threading.Event()
        self.go.set()

    @property
    def addresses(self):
        return self.addresses_given

    def verify(self, request):
        if request.body.startswith(b"forged"):
            raise Forbidden("channel 'desk': forged")

    def parse(self, request) -> Sequence[Event]:
        self.seen.append(request)
        self.begun.set()
        assert self.go.wait(PATIENCE_S), "nobody let it go"
        if request.body.startswith(b"bug"):
            raise KeyError("Ann's own words")
        if request.body.startswith(b"garbage"):
            raise ParseError("that is garbage")
        text = request.body.decode("latin-1")
        return [MessageReceived(external_id=str(hash(text)), hint=hint(email="ann@mail.example"), at=NOON, text=text)]


class Wire:
    """A client that says what it is told to, byte for byte."""

    def __init__(self, port):
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)
        self._file = self._socket.makefile("rb")
        self.greeting = self.answer()

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        self.close()

    def close(self):
        self._file.close()
        self._socket.close()

    def send(self, data):
        self._socket.sendall(data)

    def trickle(self, duration_s):
        """Send a byte now and then."""
        end = time.monotonic() + duration_s
        while time.monotonic() < end:
            self.send(b"a")
            time.sleep(0.05)

    def answer(self):
        """Give the last line of the next answer, empty at the end."""
        line = b"   -"
        while line[3:4] == b"-":
            line = self._file.readline()
        return line.decode().rstrip("\r\n")

    def say(self, line):
        """Say a line, and give its answer."""
        self.send(line.encode() + b"\r\n")
        return self.answer()

    def begin(self, recipient="help@shop.example", hello="EHLO"):
        """Come to where the mail follows."""
        lines = (f"{hello} there", "MAIL FROM:<ann@mail.example>", f"RCPT TO:<{recipient}>", "DATA")
        return [self.say(line)[:3] for line in lines]

    def deliver(self, data):
        """Send a mail as it goes over the wire, and give the answer."""
        self.send(data + b"\r\n.\r\n")
        return self.answer()


@contextmanager
def running(folder, *channels, store=None, tls=None, **limits):
    """Run a mail server; give its ports, hub and channel."""
    channels = channels or (DeskChannel(),)
    hub = Hub(store or MemoryStore(), channels=channels)
    rejects = Rejects(folder / "rejects", capacity=2)
    started, ending = threading.Event(), asyncio.Event()
    found = SimpleNamespace(hub=hub, channel=channels[0], rejects=rejects)

    async def run():
        async with MailServer(hub, rejects=rejects, limits=MailLimits(**limits), tls=tls, clock=FakeClock()) as server:
            found.smtp = await server.listen("127.0.0.1", 0)
            found.lmtp = await server.listen("127.0.0.1", 0, is_lmtp=True)
            found.loop = asyncio.get_running_loop()
            found.server = server
            started.set()
            await ending.wait()

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    assert started.wait(PATIENCE_S)
    found.end = lambda: found.loop.call_soon_threadsafe(ending.set)
    try:
        yield found
    finally:
        if thread.is_alive():
            found.end()
        thread.join(PATIENCE_S)
        hub.close()


def bodies(server):
    """Give the bytes of each mail that came to the channel."""
    return [one.body for one in server.channel.seen]


# -- what is taken


def test_mail_is_in_the_store_when_it_is_acknowledged(tmp_path):
    """A mail to the e-mail channel's address makes a message, and its sender a contact."""
    channel = EmailChannel("mail", EmailSettings(address="Help@shop.example"))

    with running(tmp_path, channel) as server, smtplib.SMTP("127.0.0.1", server.smtp) as client:
        refused = client.sendmail("ann@mail.example", ["help@SHOP.example"], MAIL)
        (conversation,) = server.hub.conversations()
        (message,) = server.hub.messages(conversation.id).items

    assert refused == {}
    assert message.text.strip() == "Where is my order?"


def test_channel_gets_the_bytes_and_the_envelope(tmp_path):
    """A channel sees the mail as it was before the wire, who sent it, to which address, and when."""
    with running(tmp_path) as server, Wire(server.smtp) as wire:
        codes = wire.begin("Help+t0k3n@Shop.example")
        answer = wire.deliver(b"..dots\r\n...\r\n\0\xff\r\na\rb\nc")
        (request,) = server.channel.seen

    assert (codes, answer) == (["250", "250", "250", "354"], TAKEN)
    assert request.body == b".dots\r\n..\r\n\0\xff\r\na\rb\nc\r\n"
    assert request.envelope.sender == "ann@mail.example"
    assert request.envelope.recipients == ("Help+t0k3n@Shop.example",)
    assert request.received_at == NOON


def test_bounce_has_no_sender(tmp_path):
    """An empty return path is an empty sender."""
    with running(tmp_path) as server, Wire(server.smtp) as wire:
        answers = [wire.say(line) for line in ("HELO there", "MAIL FROM:<>", "RCPT TO:<help@shop.example>", "DATA")]
        wire.deliver(b"a")

    assert answers[-1].startswith("354")
    assert server.channel.seen[0].envelope.sender == ""


def test_lmtp_takes_mail(tmp_path):
    """LMTP greets otherwise, and answers once for the one recipient."""
    with running(tmp_path) as server, Wire(server.lmtp) as wire:
        wrong = wire.say("EHLO there")
        codes = wire.begin(hello="LHLO")
        answers = [wire.deliver(b"a"), wire.say("NOOP")]

    assert wrong.startswith("500")
    assert codes == ["250", "250", "250", "354"]
    assert answers == [TAKEN, "250 OK"]


@pytest.mark.parametrize("length", [999, 1001, 70_000, 1_000_000])
def test_long_line_survives(tmp_path, length):
    """A line may be as long as the mail."""
    with running(tmp_path) as server, Wire(server.smtp) as wire:
        wire.begin()
        answer = wire.deliver(b"a" * length + b"\r\nb")

    assert answer == TAKEN
    assert bodies(server) == [b"a" * length + b"\r\nb\r\n"]


def test_mail_of_nothing_is_a_mail(tmp_path):
    """The end may come at once."""
    with running(tmp_path) as server, Wire(server.smtp) as wire:
        wire.begin()
        wire.send(b".\r\n")
        answer = wire.answer()

    assert (answer, bodies(server)) == (TAKEN, [b""])


@pytest.mark.parametrize("end", [b"\n.\r\n", b"\r\n.\n", b"\n.\n", b"\r.\r", b"\r\n.\r", b"\r\n\0.\r\n"])
def test_nothing_else_ends_a_mail(tmp_path, end):
    """What a careless server takes for the end smuggles no second mail in."""
    smuggled = b"a" + end + b"MAIL FROM:<boss@shop.example>\r\nRCPT TO:<help@shop.example>\r\nDATA\r\nb"

    with running(tmp_path) as server, Wire(server.smtp) as wire:
        wire.begin()
        answers = [wire.deliver(smuggled), wire.say("NOOP")]

    assert answers == [TAKEN, "250 OK"]
    assert len(bodies(server)) == 1
    assert b"boss@shop.example" in bodies(server)[0]


@pytest.mark.parametrize("size", [1, 7, 100_000])
def test_end_is_found_wherever_the_pieces_break(tmp_path, size):
    """A mail may come in pieces of any size."""
    mail = b"\r\n.\r\r\n..\r\n" + b"b" * 65_530 * (size > 7) + b"\r\n.\r\n"

    with running(tmp_path) as server, Wire(server.smtp) as wire:
        wire.begin()
        for start in range(0, len(mail), size):
            wire.send(mail[start : start + size])
        answer = wire.answer()

    assert answer == TAKEN
    assert bodies(server) == [b"\r\n\r\r\n.\r\n" + b"b" * 65_530 * (size > 7) + b"\r\n"]


def test_commands_may_come_at_once(tmp_path):
    """A client need not wait for answers, neither before a mail nor after it."""
    start = b"MAIL FROM:<ann@mail.example> BODY=8BITMIME\r\nRCPT TO:<help@shop.example>\r\nDATA\r\n"

    with running(tmp_path) as server, Wire(server.smtp) as wire:
        wire.say("EHLO there")
        wire.send(start + b"a\r\n.\r\n" + start + b"b\r\n.\r\nQUIT\r\n")
        codes = [wire.answer()[:3] for _ in range(9)]

    assert codes == ["250", "250", "354", "250"] * 2 + ["221"]
    assert bodies(server) == [b"a\r\n", b"b\r\n"]


def test_address_may_be_in_any_script(tmp_path):
    """SMTPUTF8 takes addresses that ASCII cannot write, and a domain counts in either spelling."""
    channel = DeskChannel("desk", "grüße@müller.example")

    with running(tmp_path, channel) as server, Wire(server.smtp) as wire:
        wire.say("EHLO there")
        answers = [
            wire.say("MAIL FROM:<änn@mail.example> SMTPUTF8")[:3],
            wire.say("RCPT TO:<grüße@xn--mller-kva.example>")[:3],
            wire.say("DATA")[:3],
            wire.deliver(b"a"),
        ]

    assert answers == ["250", "250", "354", TAKEN]
    assert channel.seen[0].envelope.sender == "änn@mail.example"


def test_many_clients_at_once_are_all_taken(tmp_path):
    """Each of forty clients has its mail in the store."""

    def send(number):
        with smtplib.SMTP("127.0.0.1", server.smtp, timeout=PATIENCE_S) as client:
            return client.sendmail("ann@mail.example", ["help@shop.example"], f"{number}\r\n")

    with running(tmp_path) as server:
        with ThreadPoolExecutor(40) as pool:
            refused = list(pool.map(send, range(40)))
        came = sorted(int(one) for one in bodies(server))

    assert refused == [{}] * 40
    assert came == list(range(40))


# -- what is refused


def test_unknown_recipient_is_refused_at_once(tmp_path):
    """Mail to no channel's address is not taken, and nothing else tells which there are."""
    with running(tmp_path) as server, capture_logs() as logs, Wire(server.smtp) as wire:
        wire.say("EHLO there")
        wire.say("MAIL FROM:<ann@mail.example>")
        answers = [wire.say(f"RCPT TO:<{one}>") for one in ("helper@shop.example", "help@else.example", "help", "@")]
        asked = {wire.say(f"VRFY {one}") for one in ("help@shop.example", "who@shop.example")}
        none = wire.say("DATA")

    assert [one[:9] for one in answers] == ["550 5.1.1", "550 5.1.1", "550 5.1.1", "553 5.1.3"]
    assert len(asked) == 1
    assert none.startswith("503")
    assert {(one["channel"], one["outcome"]) for one in logs} == {("(none)", "unknown")}
    assert "shop.example" not in str(logs)


def test_second_recipient_comes_again(tmp_path):
    """A transaction takes one recipient; smtplib tells the other, which a mail server sends again."""
    channels = DeskChannel("desk", "help@shop.example"), DeskChannel("till", "till@shop.example")

    with running(tmp_path, *channels) as server, smtplib.SMTP("127.0.0.1", server.smtp) as client:
        refused = client.sendmail("ann@mail.example", ["help@shop.example", "till@shop.example"], "a\r\n")
        rest = client.sendmail("ann@mail.example", list(refused), "a\r\n")

    assert refused == {"till@shop.example": (452, b"4.5.3 One recipient at a time")}
    assert rest == {}
    assert [len(one.seen) for one in channels] == [1, 1]


def test_mail_that_is_announced_too_large_is_not_sent(tmp_path):
    """SIZE is told, and what says to be larger is refused before it comes."""
    with running(tmp_path, size_bytes=1000) as server, smtplib.SMTP("127.0.0.1", server.smtp) as client:
        with pytest.raises(smtplib.SMTPSenderRefused) as refused:
            client.sendmail("ann@mail.example", ["help@shop.example"], b"a" * 1001)
        size = client.esmtp_features["size"]

    assert (refused.value.smtp_code, size) == (552, "1000")


@pytest.mark.parametrize(("size", "answer"), [(98, "250 2.0.0"), (99, "552 5.3.4"), (1_000_000, "552 5.3.4")])
def test_mail_that_turns_out_too_large_is_refused(tmp_path, size, answer):
    """Size is counted as it comes; the next mail is another matter."""
    with running(tmp_path, size_bytes=100) as server, Wire(server.smtp) as wire:
        wire.begin()
        answers = [wire.deliver(b"a" * size), *wire.begin(), wire.deliver(b"b")]

    assert answers[0].startswith(answer)
    assert answers[1:] == ["250", "250", "250", "354", TAKEN]


def test_large_mails_share_the_memory(tmp_path):
    """What finds the memory full comes again; a small mail gets in nevertheless, and so does all once there is room."""
    large = b"a" * 2_000_000
    with running(tmp_path, memory_bytes=3_000_000) as server, Wire(server.smtp) as first, Wire(server.smtp) as second:
        first.begin()
        first.send(large)
        end = time.monotonic() + PATIENCE_S
        while server.server.memory.held_bytes < 1_500_000:  # some of it is still on its way
            assert time.monotonic() < end, "it is not read"
            time.sleep(0.01)
        second.begin()
        crowded = second.deliver(large)
        second.begin()
        small = second.deliver(b"small")
        whole = first.deliver(b"end")
        second.begin()
        again = second.deliver(large)

    assert [one[:9] for one in (crowded, small, whole, again)] == ["451 4.3.0", "250 2.0.0", "250 2.0.0", "250 2.0.0"]


def test_mail_that_is_not_authentic_is_refused(tmp_path):
    """Where the channel refuses, so does the server."""
    with running(tmp_path) as server, Wire(server.smtp) as wire:
        wire.begin()
        answer = wire.deliver(b"forged")

    assert answer == "550 5.7.1 Refused"
    assert list(server.rejects.ids()) == []


@pytest.mark.parametrize(
    "line",
    [
        b"\0\0\0", b"\xff\xfe", b"", b"GET / HTTP/1.1", b"AUTH PLAIN AGEAYg==", b"MAIL FROM:<", b'MAIL FROM:<"',
        b"MAIL FROM:<" + b"(" * 400 + b">", b"MAIL FROM:<a@b> SIZE=-1", b"RCPT TO:<help@shop.example>", b"DATA",
        b"MAIL FROM:<a@b> AUTH=<>", b"a" * 200_000, b"VRFY \xff", b"STARTTLS", b"HELP \xff", b"BDAT 1 LAST", b"EXPN a",
    ],
)  # fmt: skip
def test_garbage_is_answered_and_forgotten(tmp_path, line):
    """Whatever a client says, it gets an answer, and a mail afterwards is taken."""
    with running(tmp_path) as server, Wire(server.smtp) as wire, capture_logs() as logs:
        wire.say("EHLO there")
        wire.send(line + b"\r\n")
        answer = wire.answer()
        codes = [wire.say("RSET")[:3], *wire.begin()]
        taken = wire.deliver(b"a")

    assert answer[:1] in "45" or answer.startswith("252")
    assert (codes, taken) == (["250", "250", "250", "250", "354"], TAKEN)
    assert [one["outcome"] for one in logs] == ["taken"]


def test_half_a_mail_is_none(tmp_path):
    """Where the connection is cut before the end nothing is kept."""
    with running(tmp_path) as server:
        for half in (b"", b"a", b"a\r\n.", b"a\r\n.\r"):
            with Wire(server.smtp) as wire:
                wire.begin()
                wire.send(half)
        with Wire(server.smtp) as wire:
            wire.begin()
            wire.deliver(b"whole")

    assert bodies(server) == [b"whole\r\n"]


# -- what is kept aside, and what comes again


def test_what_cannot_be_parsed_is_kept_aside_and_acknowledged(tmp_path):
    """A mail that cannot be read is among the rejects with its envelope, and its sender may forget it."""
    with running(tmp_path) as server, Wire(server.smtp) as wire:
        wire.begin()
        answer = wire.deliver(b"garbage \xff\0")
        (found,) = map(server.rejects.read, server.rejects.ids())

    assert answer == TAKEN
    assert (found.channel, found.body) == ("desk", b"garbage \xff\0\r\n")
    assert found.request().envelope.recipients == ("help@shop.example",)


def test_full_rejects_let_mail_come_again(tmp_path):
    """What cannot be kept aside either is not acknowledged."""
    with running(tmp_path) as server, Wire(server.smtp) as wire:
        answers = []
        for number in range(3):
            wire.begin()
            answers.append(wire.deliver(b"garbage %d" % number))

    assert answers == [TAKEN, TAKEN, LATER]


class BusyStore(MemoryStore):
    def transact(self, workspace, work):
        raise TransientError("the store is busy")


def test_busy_store_lets_mail_come_again(tmp_path):
    """What the store cannot take now is not acknowledged."""
    with running(tmp_path, store=BusyStore()) as server, Wire(server.smtp) as wire, capture_logs() as logs:
        wire.begin()
        answer = wire.deliver(b"a")

    assert answer == LATER
    assert [(one["outcome"], one["why"]) for one in logs] == [("busy", "the store is busy")]


def test_bug_is_told_by_its_place_alone(tmp_path):
    """A channel with a bug loses no mail, and no words of a mail are in the log."""
    with running(tmp_path) as server, Wire(server.smtp) as wire, capture_logs() as logs:
        wire.begin()
        answer = wire.deliver(b"bug")
        codes = wire.begin()

    assert answer == LATER
    assert codes == ["250", "250", "250", "354"]
    assert [one["event"] for one in logs] == ["mail", "a mail failed"]
    assert (logs[0]["outcome"], logs[1]["error"]) == ("failed", "KeyError")
    assert "test_mailserver.py:" in logs[1]["at"]
    assert "Ann" not in str(logs)


# -- limits and the end


def test_slow_client_is_cut_off(tmp_path):
    """A byte now and then puts nothing off."""
    with running(tmp_path, timeout_s=0.5) as server, Wire(server.smtp) as wire:
        wire.begin()
        began = time.monotonic()
        with pytest.raises(OSError, match=r"Broken pipe|reset"):
            wire.trickle(PATIENCE_S)

    assert time.monotonic() - began < PATIENCE_S
    assert bodies(server) == []


def test_client_that_asks_without_end_is_sent_away(tmp_path):
    """No client keeps its place by saying nothing many times."""
    with running(tmp_path) as server, Wire(server.smtp) as wire:
        answers = [wire.say("VRFY a") for _ in range(21)]

    assert answers[-1].startswith("421")


def test_number_of_clients_is_limited(tmp_path):
    """There is room for so many; who leaves makes some."""
    with running(tmp_path, connections=2) as server:
        with Wire(server.smtp), Wire(server.lmtp), Wire(server.smtp) as third:
            refused = third.greeting
        is_let_in = finds_room(server)

    assert refused == "421 4.3.2 Not now, try again later"
    assert is_let_in


@pytest.mark.parametrize("stops", ["before a word", "amid a mail"])
def test_silent_client_makes_room(tmp_path, stops):
    """Where there is none, who said nothing for longest has to go; one whose mail is being kept is not meant."""
    channel = DeskChannel()
    channel.go.clear()
    with (
        running(tmp_path, channel, connections=2, silent_s=0.01) as server,
        Wire(server.smtp) as kept,
        Wire(server.smtp) as silent,
    ):
        kept.begin()
        kept.send(b"a\r\n.\r\n")
        assert channel.begun.wait(PATIENCE_S)
        if stops == "amid a mail":
            silent.begin()
            silent.send(b"Dear")
        is_let_in = finds_room(server)
        with suppress(ConnectionResetError):
            assert silent.answer() in {"421 4.3.2 Not now, try again later", ""}
        channel.go.set()
        answer = kept.answer()

    assert is_let_in
    assert answer == TAKEN


def finds_room(server):
    """Say whether a client is let in, sooner or later."""
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        with Wire(server.smtp) as wire:
            if wire.greeting.startswith("220"):
                return True
    return False


def test_what_is_under_way_at_the_end_is_answered(tmp_path):
    """A mail that is being sent is taken; who is not sending is sent away, and nobody is let in."""
    with running(tmp_path) as server, Wire(server.smtp) as busy, Wire(server.smtp) as idle:
        busy.begin()
        busy.send(b"a")
        idle.say("EHLO there")
        server.end()
        parting = [idle.answer(), idle.answer()]
        with pytest.raises(ConnectionRefusedError):
            Wire(server.smtp)
        answers = [busy.deliver(b"b"), busy.answer(), busy.answer()]

    assert parting == ["421 4.3.2 Not now, try again later", ""]
    assert answers == [TAKEN, "421 4.3.2 Not now, try again later", ""]
    assert bodies(server) == [b"ab\r\n"]


def test_mail_that_is_being_kept_at_the_end_is_answered(tmp_path):
    """What has come as a whole is kept first."""
    channel = DeskChannel()
    channel.go.clear()

    with running(tmp_path, channel) as server, Wire(server.lmtp) as wire:
        wire.begin(hello="LHLO")
        wire.send(b"a\r\n.\r\n")
        assert channel.begun.wait(PATIENCE_S)
        server.end()
        time.sleep(0.1)
        channel.go.set()
        answers = [wire.answer(), wire.answer(), wire.answer()]

    assert answers == [TAKEN, "421 4.3.2 Not now, try again later", ""]


def test_who_never_ends_does_not_hold_up_the_end(tmp_path):
    """The grace is short."""
    with running(tmp_path, grace_s=0.2) as server, Wire(server.smtp) as wire:
        wire.begin()
        wire.send(b"a")
        server.end()
        answer = wire.answer()

    assert (answer, bodies(server)) == ("", [])


def test_starttls_is_offered_where_there_is_a_certificate(tmp_path):
    """A client may ask for TLS, and is offered no AUTH then either."""
    with running(tmp_path, tls=certificate(tmp_path)) as server, smtplib.SMTP("127.0.0.1", server.smtp) as client:
        client.starttls()
        client.ehlo()
        refused = client.sendmail("ann@mail.example", ["help@shop.example"], b"a\r\n" * 100_000)
        features = set(client.esmtp_features)

    assert refused == {}
    assert features == {"size", "8bitmime", "smtputf8", "pipelining", "help"}
    assert bodies(server) == [b"a\r\n" * 100_000]


@pytest.mark.parametrize("said", [b"no hello of TLS\r\n", b""])
def test_tls_that_does_not_begin_gives_its_place_back(tmp_path, said):
    """A client that asks for TLS and says something else, or hangs up, is gone."""
    with running(tmp_path, tls=certificate(tmp_path), connections=1) as server:
        with Wire(server.smtp) as wire:
            wire.say("EHLO there")
            answer = wire.say("STARTTLS")
            wire.send(said)
        is_let_in = finds_room(server)

    assert answer.startswith("220")
    assert is_let_in


def certificate(folder):
    """Give a context with a certificate that openssl has made."""
    files = ["-keyout", folder / "key.pem", "-out", folder / "cert.pem"]
    made = ["-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=shop.example", *files]
    subprocess.run(["openssl", "req", *made], check=True, capture_output=True)  # noqa: S607  (wherever it is)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return context


def test_server_without_an_address_is_none(tmp_path):
    """There has to be a channel that takes mail."""
    with pytest.raises(ConfigError, match="no channel has a mail address"):
        MailServer(Hub(MemoryStore()), rejects=Rejects(tmp_path))


def test_two_channels_cannot_have_one_address(tmp_path):
    """A mail has one way to go."""
    channels = DeskChannel("desk", "help@shop.example"), DeskChannel("till", "Help@SHOP.example")

    with pytest.raises(ConfigError, match="channels 'desk' and 'till' have the same address"):
        MailServer(Hub(MemoryStore(), channels=channels), rejects=Rejects(tmp_path))


# -- the command

CONFIG = 'store = "sqlite:///shop.db"\n[channels.mail]\ntype = "email"\naddress = "help@shop.example"\n'
PROGRAM = "from convsdk.cli import main; main()"
# The log's line is written after the commit and before the answer.
DYING = (
    "import os, structlog; structlog.configure = lambda **_: None;"
    "structlog.configure_once(processors=[lambda *_: os.kill(os.getpid(), 9)]);"
)


@contextmanager
def serving(folder, *options, program=PROGRAM):
    """Run `convsdk mail` as a user does; give the process and what it says first."""
    (folder / "convsdk.toml").write_text(CONFIG, encoding="utf-8")
    command = [sys.executable, "-c", program, "mail", "--json", *options]
    with (
        (folder / "log").open("a") as log,
        subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=log, text=True) as process,
    ):
        try:
            yield process, json.loads(process.stdout.readline())
        finally:
            process.kill()


@contextmanager
def served(folder, program=PROGRAM):
    """Run `convsdk mail` on free ports; give the process and the ports for SMTP and LMTP."""
    with serving(folder, "--smtp=127.0.0.1:0", "--lmtp=127.0.0.1:0", program=program) as (process, facts):
        yield process, *(int(facts[one].rpartition(":")[2]) for one in ("smtp", "lmtp"))


def texts(folder):
    """Give the texts of all messages in the store."""
    with closing(open_store(f"sqlite:///{folder}/shop.db")) as store:
        filings = store.filings("default", identifiers=None, before=None, limit=100)
        found = [store.messages("default", filing.id, before=None, limit=100) for filing in filings]
        return [one.text.strip() for messages in found for one in messages]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_ends_the_command_after_what_is_under_way(tmp_path, number):
    """A mail that has begun is kept and answered, the program ends well, and its log has nothing of the mail."""
    with served(tmp_path) as (process, smtp, _lmtp), Wire(smtp) as wire:
        wire.say("SECRET-WORD")
        wire.begin()
        wire.send(MAIL[:20])
        process.send_signal(number)
        time.sleep(0.2)
        answer = wire.deliver(MAIL[20:])
        status = process.wait(PATIENCE_S)

    log = (tmp_path / "log").read_text()
    assert (answer, status) == (TAKEN, 0)
    assert texts(tmp_path) == ["Where is my order?"]
    assert "channel=mail outcome=taken" in log
    assert not any(word in log for word in ("ann@", "help@", "order", "SECRET", "127.0.0.1"))
    assert not list(tmp_path.glob("shop.db-*")), "the store was not closed"


def test_mail_that_was_kept_and_not_answered_is_known_again(tmp_path):
    """A kill between commit and answer makes the sender send again, and the message is there once."""
    with served(tmp_path, DYING + PROGRAM) as (process, _smtp, lmtp), Wire(lmtp) as wire:
        wire.begin(hello="LHLO")
        first = wire.deliver(MAIL)
        status = process.wait(PATIENCE_S)
    kept = texts(tmp_path)
    with served(tmp_path) as (_process, _smtp, lmtp), Wire(lmtp) as wire:
        wire.begin(hello="LHLO")
        second = wire.deliver(MAIL)

    assert (first, status, second) == ("", -signal.SIGKILL, TAKEN)
    assert kept == texts(tmp_path) == ["Where is my order?"]


@pytest.mark.skipif(not shutil.which("swaks"), reason="swaks is not installed")
@pytest.mark.parametrize("protocol", ["ESMTP", "LMTP"])
def test_swaks_delivers(tmp_path, protocol):
    """A client of others finds the protocol as it should be."""
    with running(tmp_path) as server:
        port = server.lmtp if protocol == "LMTP" else server.smtp
        command = ["swaks", "--server", f"127.0.0.1:{port}", "--protocol", protocol, "--to", "help@shop.example"]
        subprocess.run([*command, "--from", "ann@mail.example"], check=True, capture_output=True, env=os.environ)

    assert b"test" in bodies(server)[0]


@pytest.mark.parametrize("mode", ["0660", "600"])
def test_lmtp_is_spoken_at_a_unix_socket(tmp_path, monkeypatch, mode):
    """Who the mode of the socket lets in hands mail in as by TCP; what a dead server left is no hindrance."""
    monkeypatch.chdir(tmp_path)
    place = tmp_path / "lmtp"
    with closing(socket.socket(socket.AF_UNIX)) as dead:
        dead.bind(str(place))
    with serving(tmp_path, f"--lmtp=unix:{place}", f"--socket-mode={mode}") as (process, facts):
        found = oct(place.stat().st_mode & 0o777)
        with smtplib.LMTP(str(place)) as client:
            refused = client.sendmail("ann@mail.example", ["help@shop.example"], MAIL)
        again = CliRunner().invoke(main, ["mail", f"--lmtp=unix:{place}"])
        process.terminate()
        status = process.wait(PATIENCE_S)

    assert facts["lmtp"] == f"unix:{place}"
    assert found == oct(int(mode, 8))
    assert (refused, status, texts(tmp_path)) == ({}, 0, ["Where is my order?"])
    assert "lmtp cannot be listened on (address already in use): end what does" in again.stderr
    assert not list(tmp_path.glob("lmtp*"))


def test_file_in_the_place_of_a_socket_is_left(tmp_path):
    """A path that somebody mistook is not written over."""
    place = tmp_path / "letter.txt"
    place.write_text("Dear Ann")

    async def run():
        async with MailServer(Hub(MemoryStore(), channels=[DeskChannel()]), rejects=Rejects(tmp_path)) as server:
            await server.listen_at(place)

    with pytest.raises(OSError, match="there is a file in its place"):
        asyncio.run(run())

    assert place.read_text() == "Dear Ann"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "there is nowhere to listen: give --smtp HOST:PORT"),
        (["--lmtp=unix:"], "'unix:' is no place to listen"),
        (["--lmtp=unix:lmtp", "--socket-mode=rw"], "'rw' is no mode of a file: write one such as 0660"),
        (["--smtp=2525"], "'2525' is no place to listen: write HOST:PORT"),
        (["--lmtp=127.0.0.1:99999"], "'127.0.0.1:99999' is no place to listen"),
        (["--smtp=127.0.0.1:0", "--tls-cert=convsdk.toml"], "convsdk.toml and its key cannot be used"),
    ],
)
def test_command_tells_what_it_needs(tmp_path, monkeypatch, arguments, told):
    """What is missing or wrong is named, with a remedy."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "convsdk.toml").write_text(CONFIG, encoding="utf-8")

    result = CliRunner().invoke(main, ["mail", *arguments])

    assert result.exit_code == 2
    assert told in " ".join(result.stderr.replace("\u2502", "").split())


def test_command_tells_of_a_place_that_is_taken(tmp_path, monkeypatch):
    """Two cannot listen at one place."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "convsdk.toml").write_text(CONFIG, encoding="utf-8")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        result = CliRunner().invoke(main, ["mail", f"--lmtp=127.0.0.1:{taken.getsockname()[1]}"])

    assert result.exit_code == 2
    assert "cannot be listened on (address already in use): end what does, or give another --lmtp" in result.stderr
