import asyncio
import base64
import ssl
import subprocess
import sys
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime

import httpx
import pytest
from aiosmtpd.smtp import SMTP, AuthResult
from attrs import evolve

from convsdk.channels.email import EmailChannel
from convsdk.channels.email.sending import MailgunSending, PostmarkSending, SesSending, SmtpSending
from convsdk.channels.email.settings import EmailSettings
from convsdk.config import load_config
from convsdk.core.model import Identifier
from convsdk.core.ports import File, Outbound, Receipt, Request, Secret
from convsdk.errors import ConfigError, PermanentError, TransientError, UncertainError
from convsdk.plugins import load_plugins

NOW = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
TOKEN = "abcdefghij234567"
PASSWORD = "password-of-the-tests"
PATIENCE_S = 20
REPLY_ADDRESS = f"in-7f3a+{TOKEN}@shop.example"
MESSAGE = Outbound(
    to=Identifier("email", "", "ann@mail.example"),
    text="Grüße\n.\n..\nEnde",
    token=TOKEN,
    at=NOW,
    references=("<a@mail.example>",),
)


class SmartHost:
    """Keeps what it is handed: (session, sender, recipients, content) of each mail."""

    def __init__(self, **refusals):
        self.mails = []
        self.refusals = refusals

    async def handle_RCPT(self, server, session, envelope, address, options):  # noqa: N802  (aiosmtpd's name)
        if said := self.refusals.get(address.partition("@")[0]):
            return said
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 OK"

    async def handle_DATA(self, server, session, envelope):  # noqa: N802  (aiosmtpd's name)
        self.mails.append((session, envelope.mail_from, tuple(envelope.rcpt_tos), envelope.content))
        return "250 2.0.0 OK"


class Actor:
    """A server that says its lines: for a command's first word what is answered; None: it hangs up."""

    def __init__(self, **answers):
        self.answers = {"EHLO": "250 mx.test", "DATA": "354 go on", "END": "250 OK", "QUIT": "221 bye"} | answers
        self.heard = []
        self.connections = 0

    async def act(self, reader, writer):
        self.connections += 1
        try:
            await self.play(reader, writer)
        finally:
            writer.close()

    async def play(self, reader, writer):
        is_content = False
        writer.write(b"220 mx.test\r\n")
        while line := (await reader.readline()).decode().rstrip("\r\n"):
            if is_content and line != ".":
                while not is_end(line := (await reader.readline()).decode()):
                    pass
            verb = "END" if is_content else line.partition(" ")[0].upper()
            self.heard.append("END" if is_content else line)
            answer = self.answers.get(verb, "250 OK")
            if callable(answer):
                answer = await answer(self)
            if answer is None:
                break
            is_content = verb == "DATA" and answer.startswith("354")
            writer.write(answer.encode() + b"\r\n")


def is_end(line):
    """Say whether it is the last line of a mail, or there is none left."""
    return line in {".\r\n", ""}


@asynccontextmanager
async def listening(protocol, **options):
    """Listen for SMTP on a free port, with aiosmtpd for a handler and with an actor as it is; give the port."""
    loop, tasks = asyncio.get_running_loop(), []

    def serve():
        one = SMTP(protocol, hostname="mx.test", **options)
        loop.call_soon(lambda: tasks.append(one._handler_coroutine))  # noqa: SLF001  (nothing else ends it)
        return one

    async def act(reader, writer):
        tasks.append(asyncio.current_task())
        with suppress(asyncio.CancelledError):
            await protocol.act(reader, writer)

    if isinstance(protocol, Actor):
        server = await asyncio.start_server(act, "127.0.0.1", 0)
    else:
        implicit = options.pop("implicit", None)
        server = await loop.create_server(serve, "127.0.0.1", 0, ssl=implicit)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await asyncio.sleep(0.01)  # what the client has closed is seen here a moment later
        for task in filter(None, tasks):
            task.cancel()
        await asyncio.gather(*filter(None, tasks), return_exceptions=True)
        await asyncio.sleep(0)


def channel(port, **sending):
    """Give a channel that sends to the server at the port."""
    given = {"host": "127.0.0.1", "port": port, "greeting": "desk.shop.example", "timeout_s": PATIENCE_S}
    settings = EmailSettings(
        address="in-7f3a@shop.example", sender="help@shop.example", sending=SmtpSending(**given | sending)
    )
    return EmailChannel("support", settings)


async def sent(one, *messages):
    """Send each message by the channel, and close it."""
    async with httpx.AsyncClient() as client:
        try:
            return [await one.send(message, client) for message in messages or (MESSAGE,)]
        finally:
            await one.close()


def deliver(server, *messages, options=None, **sending):
    """Send each message to the server, and give the receipts."""

    async def run():
        async with listening(server, **options or {}) as port:
            return await sent(channel(port, **sending), *messages)

    return asyncio.run(run())


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """Give a server's context with a certificate that openssl has made, and the file that says it is good."""
    folder = tmp_path_factory.mktemp("tls")
    files = ["-keyout", folder / "key.pem", "-out", folder / "cert.pem"]
    names = ["-subj", "/CN=mx.test", "-addext", "subjectAltName=IP:127.0.0.1"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *names, *files]
    subprocess.run(command, check=True, capture_output=True)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return context, str(folder / "cert.pem")


def knows(server, session, envelope, mechanism, given):
    """Let the one user of the tests in, as aiosmtpd asks."""
    return AuthResult(success=(given.login, given.password) == (b"shop", PASSWORD.encode()))


def test_mail_reaches_the_smart_host():
    """What arrives is what was composed, with the address with the token as its sender; it reads back as an answer."""
    host = SmartHost()

    (receipt,) = deliver(host)

    ((_, sender, recipients, content),) = host.mails
    assert receipt == Receipt()
    assert (sender, recipients) == (REPLY_ADDRESS, ("ann@mail.example",))
    (found,) = EmailChannel("other", EmailSettings(address="ann@mail.example")).parse(
        Request(received_at=NOW, body=content)
    )
    assert found.text.endswith("Grüße\n.\n..\nEnde")
    assert (found.external_id, found.references) == (f"<{TOKEN}@shop.example>", ("<a@mail.example>",))


def test_lines_of_one_dot_arrive():
    """A line that begins with a dot does not end the mail, in plain text that is not encoded either."""
    host = SmartHost()

    deliver(host, evolve(MESSAGE, text="one\n.\n.two"))

    assert b"one\r\n.\r\n.two\r\n" in host.mails[0][3]


def test_automatic_answer_has_no_return_path():
    """Nobody can answer it, not even by a bounce."""
    host = SmartHost()

    deliver(host, evolve(MESSAGE, is_automatic=True))

    assert host.mails[0][1] == "<>"


def test_connection_stays_open_for_the_next_mail():
    """Mails one after the other go over one connection."""
    host = SmartHost()

    deliver(host, MESSAGE, MESSAGE, MESSAGE)

    assert len({id(session) for session, *_ in host.mails}) == 1


def test_no_more_connections_are_opened_than_allowed():
    """Mails at the same time share the connections that there may be."""
    host = SmartHost()

    async def run():
        async with listening(host) as port:
            one = channel(port, connections=2)
            async with httpx.AsyncClient() as client:
                await asyncio.gather(*(one.send(MESSAGE, client) for _ in range(10)))
            await one.close()

    asyncio.run(run())

    assert len(host.mails) == 10
    assert len({id(session) for session, *_ in host.mails}) == 2


@pytest.mark.parametrize("farewell", [None, "421 4.4.2 timeout"])
def test_connection_that_the_server_has_closed_is_replaced(farewell):
    """A server that hangs up between two mails, silently or with a farewell, gets the second by a new connection."""

    async def once(actor):
        return "250 OK" if sum(line.startswith("MAIL") for line in actor.heard) != 2 else farewell

    actor = Actor(MAIL=once)

    assert deliver(actor, MESSAGE, MESSAGE) == [Receipt(), Receipt()]
    assert (actor.connections, actor.heard.count("END")) == (2, 2)


def test_connection_that_nobody_uses_is_closed():
    """After a while without a mail the connection is given back."""

    class Watching(Actor):
        gone = None

        async def play(self, reader, writer):
            await super().play(reader, writer)
            self.gone.set()

    actor = Watching()

    async def run():
        actor.gone = asyncio.Event()
        async with listening(actor) as port, httpx.AsyncClient() as client:
            await channel(port, idle_s=0.01).send(MESSAGE, client)
            await asyncio.wait_for(actor.gone.wait(), PATIENCE_S)

    asyncio.run(run())

    assert actor.heard[-1] == "END"


def test_starttls_and_password_are_used(certificate):
    """The connection is encrypted before anybody says who they are."""
    host = SmartHost()
    options = {"tls_context": certificate[0], "require_starttls": True, "authenticator": knows, "auth_required": True}

    deliver(host, options=options, tls="starttls", ca_file=certificate[1], user="shop", password=Secret(PASSWORD))

    ((session, *_),) = host.mails
    assert session.ssl is not None
    assert session.authenticated


def test_tls_from_the_start(certificate):
    """A server that speaks TLS at once is spoken to so."""
    host = SmartHost()

    deliver(host, options={"implicit": certificate[0]}, tls="implicit", ca_file=certificate[1])

    assert len(host.mails) == 1


def test_server_without_starttls_gets_nothing():
    """Somebody on the way could have taken the offer out of its answer."""
    actor = Actor()

    with pytest.raises(TransientError, match="STARTTLS extension not supported"):
        deliver(actor, tls="starttls")

    assert not any(line.startswith("MAIL") for line in actor.heard)


@pytest.mark.parametrize("how", ["starttls", "implicit"])
def test_unknown_certificate_gets_nothing(certificate, how):
    """A server that cannot show whose it is gets no mail."""
    host = SmartHost()
    options = {"implicit": certificate[0]} if how == "implicit" else {"tls_context": certificate[0]}

    with pytest.raises(TransientError, match="certificate"):
        deliver(host, options=options, tls=how)

    assert host.mails == []


def test_missing_certificates_are_told():
    """A file that is not there is named."""
    with pytest.raises(PermanentError, match=r"ca_file 'none\.pem' cannot be used"):
        deliver(SmartHost(), tls="implicit", ca_file="none.pem")


@pytest.mark.parametrize("quoted", [PASSWORD, base64.b64encode(f"\0shop\0{PASSWORD}".encode()).decode()])
def test_wrong_password_is_told_without_it(quoted):
    """What the server says about it is told; the password is not, even if the server repeats what it was sent."""
    actor = Actor(EHLO="250-mx.test\r\n250 AUTH PLAIN", AUTH=f"535 5.7.8 {'no ' * 90}{quoted}")

    with pytest.raises(PermanentError, match=r"535 5\.7\.8 no no") as refused:
        deliver(actor, user="shop", password=Secret(PASSWORD))

    assert refused.value.code == "5.7.8"
    assert quoted[:5] not in str(refused.value)


@pytest.mark.parametrize(
    ("answers", "error", "code"),
    [
        ({"MAIL": "451 4.3.0 later"}, TransientError, None),
        ({"RCPT": "450 4.2.0 greylisted"}, TransientError, None),
        ({"RCPT": "550-5.1.1 no such\r\n550 5.1.1 user"}, PermanentError, "5.1.1"),
        ({"RCPT": "550 no such user"}, PermanentError, "550"),
        ({"DATA": "554 5.5.1 no"}, PermanentError, "5.5.1"),
        ({"END": "552 5.3.4 too big"}, PermanentError, "5.3.4"),
        ({"END": "421 4.3.2 shutting down"}, TransientError, None),
        ({"EHLO": "554 5.7.1 blocked"}, PermanentError, "5.7.1"),
    ],
)
def test_refusal_says_whether_to_try_again(answers, error, code):
    """A 4xx is tried again, a 5xx is not; the code and the server's words are kept on one line."""
    with pytest.raises(error, match=next(iter(answers.values())).rpartition(" ")[2]) as refused:
        deliver(Actor(**answers))

    assert getattr(refused.value, "code", None) == code
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("verb", ["EHLO", "MAIL", "RCPT", "DATA"])
def test_connection_that_ends_before_the_mail_is_tried_again(verb):
    """Until the content is sent, nothing was."""
    with pytest.raises(TransientError):
        deliver(Actor(**{verb: None}))


@pytest.mark.parametrize("answer", [None, "what?", "99 what", "354 go on"])
def test_connection_that_ends_behind_the_mail_leaves_it_open(answer):
    """Once the last dot is sent, the server may have the mail, whatever became of its answer."""
    with pytest.raises(UncertainError, match=r"ann@mail\.example"):
        deliver(Actor(END=answer))


def test_mail_is_taken_whatever_the_rest_of_the_code_is():
    """The first digit decides (RFC 5321, 4.2): who says 251 behind the mail has it, and is not sent it again."""
    assert deliver(Actor(END="251 forwarded")) == [Receipt()]


def test_server_that_never_answers_leaves_it_open():
    """A server that takes the mail and is silent is not waited for without end."""

    async def silence(actor):
        await asyncio.sleep(PATIENCE_S)

    with pytest.raises(UncertainError):
        deliver(Actor(END=silence), timeout_s=0.4)


class Narrow(Actor):
    """Takes the content as slowly as a line of some megabits a second does."""

    async def play(self, reader, writer):
        writer.write(b"220 mx.test\r\n")
        while line := await reader.readline():
            if line == b"DATA\r\n":
                writer.write(b"354 go on\r\n")
                end = b""
                while not end.endswith(b"\r\n.\r\n") and (data := await reader.read(65_536)):
                    end = (end + data)[-5:]
                    await asyncio.sleep(0.02)
            writer.write(b"250 OK\r\n")


def test_large_mail_has_the_time_that_it_takes_on_its_way():
    """A server that says nothing while a large mail is on a slow line is not silent: it has not all of it yet."""
    file = File(name="a.bin", media_type="application/octet-stream", content=bytes(3_000_000))

    assert deliver(Narrow(), evolve(MESSAGE, attachments=(file,)), timeout_s=0.1) == [Receipt()]


def test_nobody_there_is_tried_again():
    """A server that is down comes back."""

    async def run():
        async with listening(SmartHost()) as port:
            pass
        await sent(channel(port))

    with pytest.raises(TransientError, match=r"127\.0\.0\.1:\d+ cannot be used"):
        asyncio.run(run())


def test_server_is_asked_for_reports_that_name_the_message():
    """Where the server offers it (RFC 3461), reports come for a failure and a delay, and hold header and token."""
    actor = Actor(EHLO="250-mx.test\r\n250-SIZE 100000\r\n250 DSN")

    deliver(actor, MESSAGE, evolve(MESSAGE, is_automatic=True))

    mails, recipients = ([line for line in actor.heard if line.startswith(verb)] for verb in ("MAIL", "RCPT"))
    assert mails[0].startswith(f"MAIL FROM:<{REPLY_ADDRESS}> SIZE=")
    assert mails[0].endswith(f" RET=HDRS ENVID={TOKEN}")
    assert mails[1].startswith("MAIL FROM:<> SIZE=")
    assert recipients == [
        "RCPT TO:<ann@mail.example> NOTIFY=FAILURE,DELAY",
        "RCPT TO:<ann@mail.example> NOTIFY=NEVER",
    ]


def test_international_address_goes_by_smtputf8():
    """An address in other letters goes to a server that takes it, and to no other."""
    message = evolve(MESSAGE, to=Identifier("email", "", "änn@mail.example"))
    host = SmartHost()

    deliver(host, message, options={"enable_SMTPUTF8": True})

    assert host.mails[0][2] == ("änn@mail.example",)
    with pytest.raises(PermanentError, match="offers no SMTPUTF8"):
        deliver(Actor(), message)


def test_connection_is_given_back_in_another_loop():
    """A channel can be used in one event loop after the other."""
    host = SmartHost()
    one = None

    async def run():
        nonlocal one
        async with listening(host) as port:
            one = one or channel(port)
            one = EmailChannel("support", evolve(one.config, sending=evolve(one.config.sending, port=port)))
            await sent(one)

    asyncio.run(run())
    asyncio.run(run())

    assert len(host.mails) == 2


def test_missing_library_is_told(monkeypatch):
    """A channel that is to send by SMTP without the extra is refused at the start, with the remedy."""
    monkeypatch.delitem(sys.modules, "convsdk.channels.email.outgoing.smtp", raising=False)
    monkeypatch.setitem(sys.modules, "aiosmtplib", None)

    with pytest.raises(ConfigError, match=r"install convsdk\[email\]"):
        channel(25)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"host": "mail server"}, "host"),
        ({"host": "mail..example"}, "host"),
        ({"host": f"{'a' * 64}.example"}, "host"),
        ({"port": 70_000}, "port"),
        ({"greeting": "a b"}, "greeting"),
        ({"user": "shop"}, "password"),
        ({"password": Secret("x")}, "user"),
        ({"tls": "none", "user": "shop", "password": Secret("x")}, "tls"),
        ({"connections": 0}, "connections"),
        ({"idle_s": 0.0}, "idle_s"),
        ({"timeout_s": 0.0}, "timeout_s"),
    ],
)
def test_unusable_setting_is_refused(given, told):
    """What could not work, or would send a password in the clear, is refused with the setting's name."""
    with pytest.raises(ValueError, match=told):
        SmtpSending(**{"host": "mail.shop.example"} | given)


def test_port_and_tls_fit_one_another():
    """TLS is required but on this machine, and each has its usual port."""
    found = [
        SmtpSending(**given)
        for given in (
            {"host": "mail.shop.example"},
            {"host": "mail.shop.example", "tls": "implicit"},
            {"host": "localhost"},
            {"host": "mail.shop.example", "tls": "none", "port": 2525},
        )
    ]

    assert [(one.tls_used, one.port_used) for one in found] == [
        ("starttls", 587),
        ("implicit", 465),
        ("none", 25),
        ("none", 2525),
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('by = "smtp"\nhost = "mail.shop.example"\nuser = "shop"\npassword = { env = "KEY" }', SmtpSending),
        ('by = "mailgun"\ndomain = "mg.shop.example"\nkey = { env = "KEY" }\nregion = "eu"', MailgunSending),
        ('by = "postmark"\ntoken = { env = "KEY" }', PostmarkSending),
        ('by = "ses"\nregion = "eu-west-1"\nkey_id = "AKIDEXAMPLE000000000"\nsecret_key = { env = "KEY" }', SesSending),
    ],
)
def test_each_way_is_read_from_the_file(tmp_path, text, expected):
    """A channel of the file sends by what its table says, with a secret from the environment."""
    file = tmp_path / "convsdk.toml"
    address = '[channels.support]\ntype = "email"\naddress = "in-7f3a@shop.example"\n'
    file.write_text(f"{address}[channels.support.sending]\n{text}\n", encoding="utf-8")

    found = load_config(file, load_plugins(), environ={"KEY": PASSWORD}).channels["support"]

    assert type(found.config.sending) is expected
    assert found.can.sends
    assert PASSWORD not in repr(found.config)


def test_password_that_would_go_in_the_clear_is_told(tmp_path):
    """The file's line is named, and the password is not."""
    file = tmp_path / "convsdk.toml"
    text = (
        '[channels.support]\ntype = "email"\naddress = "a@shop.example"\n[channels.support.sending]\nby = "smtp"\n'
        'host = "mail.shop.example"\ntls = "none"\nuser = "shop"\npassword = { env = "KEY" }\n'
    )
    file.write_text(text, encoding="utf-8")

    with pytest.raises(ConfigError, match=r"toml:4: channel 'support': sending: tls: anybody") as refused:
        load_config(file, load_plugins(), environ={"KEY": PASSWORD})

    assert PASSWORD not in str(refused.value)
