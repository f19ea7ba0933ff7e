import asyncio
import shutil
import subprocess
import sys
import threading
from datetime import date, timedelta
from pathlib import Path

import providers
import pytest
from attrs import evolve
from click.testing import CliRunner
from hypothesis import example, given
from hypothesis import strategies as st

from convsdk.archive import Archive
from convsdk.channels.email import EmailChannel, EmailSettings
from convsdk.cli import main
from convsdk.core.ports import Capabilities, Envelope, Headers, Request
from convsdk.errors import ConfigError, Forbidden, NotFound, ParseError, PermanentError, TransientError
from convsdk.hub import Hub
from convsdk.listening import Listening
from convsdk.mailserver import MailServer
from convsdk.rejects import Rejects
from convsdk.testing.builders import NOON, request
from convsdk.web import create_app

PATIENCE_S = 20
MAIL = (
    b"From: Ann <ann@mail.example>\r\nMessage-ID: <one@mail.example>\r\n"
    b"Content-Type: multipart/mixed; boundary=b\r\n\r\n"
    b"--b\r\n\r\nWhere is my order?\r\n"
    b"--b\r\nContent-Type: application/pdf; name=order.pdf\r\n\r\n%PDF-1.7 order\r\n--b--\r\n"
)
REQUEST = Request(
    received_at=NOON,
    body=b"\x00\xff\r\n raw",
    url="/channels/desk?a=b",
    query={"a": "b"},
    headers=Headers([("X-Sign", "one"), ("X-Sign", "two")]),
    envelope=Envelope(sender="ann@shop.example", recipients=("help@shop.example",)),
    fetched={"https://keys.example/a": b"\nkey", "https://keys.example/b": b""},
)


@pytest.fixture(params=["folder", "memory"])
def archive(request, tmp_path):
    """Give an archive on disk, and one by a protocol of fsspec's."""
    if request.param == "folder":
        return Archive(tmp_path / "archive")
    from fsspec.implementations.memory import MemoryFileSystem  # noqa: PLC0415  (takes half a second)

    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]
    return Archive("memory://shop/archive")


def _files(folder):
    return sorted(one for one in folder.rglob("*") if one.is_file())


def _support():
    return EmailChannel("support", EmailSettings(address="help@shop.example"))


def _only_message(hub):
    (conversation,) = hub.conversations()
    (message,) = hub.messages(conversation.id)
    return message


# -- contents


def test_content_comes_back(archive):
    """What was put can be got by its URL, from another process as well."""
    contents = [b"", b"\x00\xff", b"x" * 100_000]

    assert [archive.get(archive.put(one)) for one in contents] == contents


def test_same_content_is_kept_once(tmp_path):
    """The same attachment in a thousand mails takes the place of one."""
    archive = Archive(tmp_path)

    first, again, other = archive.put(b"logo"), archive.put(b"logo"), archive.put(b"order")

    assert first == again != other
    assert len(_files(tmp_path)) == 2


@pytest.mark.parametrize(
    "url", ["", "order.pdf", "archive:", "archive:" + "g" * 64, "archive:../../etc/passwd", "raw:a"]
)
def test_what_is_no_address_is_not_found(archive, url):
    """An address that no archive gave leads nowhere, and to no other file."""
    with pytest.raises(NotFound, match="is no address in an archive"):
        archive.get(url)


def test_content_that_is_not_there_is_not_found(archive):
    """An address whose content is gone says so."""
    with pytest.raises(NotFound, match="was the archive moved"):
        archive.get("archive:" + "0" * 64)


def test_spoilt_content_is_told(tmp_path):
    """A file that is not what was put there is given to nobody."""
    archive = Archive(tmp_path)
    url = archive.put(b"order")
    _files(tmp_path)[0].write_bytes(b"0rder")

    with pytest.raises(PermanentError, match="is spoilt"):
        archive.get(url)


def test_half_a_content_is_written_again(tmp_path):
    """What a crash left half written does not stand in the way of the whole."""
    archive = Archive(tmp_path)
    url = archive.put(b"order")
    _files(tmp_path)[0].write_bytes(b"ord")

    archive.put(b"order")

    assert archive.get(url) == b"order"


def test_archive_is_its_owners(tmp_path):
    """Folders and files are closed to other users of the machine, and nothing else is left behind."""
    archive = Archive(tmp_path / "a" / "archive")

    archive.put(b"order")
    archive.keep("desk", REQUEST)

    found = [*(tmp_path / "a").rglob("*"), tmp_path / "a"]
    assert {one.stat().st_mode & 0o777 for one in found if one.is_dir()} == {0o700}
    assert [one.stat().st_mode & 0o777 for one in found if one.is_file()] == [0o600, 0o600]


def test_many_can_put_the_same_at_once(tmp_path):
    """Threads that bring one attachment at the same time all find it kept."""
    archives = [Archive(tmp_path) for _ in range(8)]
    urls = []
    threads = [threading.Thread(target=lambda one=one: urls.append(one.put(b"x" * 50_000))) for one in archives]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(set(urls)) == 1
    assert Archive(tmp_path).get(urls[0]) == b"x" * 50_000


# -- raw requests


def test_raw_request_comes_back(archive):
    """What was kept is all that a channel looks at, to the byte and the second."""
    name = archive.keep("desk", REQUEST)

    found = archive.request(name)

    assert found.headers.all("x-sign") == ("one", "two")
    assert evolve(found, headers=REQUEST.headers) == REQUEST


@given(body=st.binary(), texts=st.lists(st.text(st.characters(codec=None), max_size=9), min_size=4, max_size=4))
@example(body=b"\n", texts=["\ud800"] * 4)
def test_any_request_can_be_kept(tmp_path_factory, body, texts):
    """Whatever bytes and characters a request has, half ones too, it is kept, and its body comes back."""
    archive = Archive(tmp_path_factory.mktemp("archive"))
    method, url, name, value = texts
    odd = Request(
        received_at=NOON,
        body=body,
        method=method,
        url=url,
        query={name: value},
        headers=Headers({name: value}),
        envelope=Envelope(sender=value, recipients=(name,)),
    )

    assert archive.request(archive.keep("desk", odd)).body == body


def test_raw_requests_are_listed_in_the_order_in_which_they_came(archive):
    """The names come by time, whatever order they were kept in, of one channel, and from a day on."""
    times = [NOON + timedelta(days=1), NOON, NOON + timedelta(microseconds=1)]
    names = [archive.keep("desk", evolve(REQUEST, received_at=at)) for at in times]
    archive.keep("fax", REQUEST)

    assert list(archive.names("desk")) == [names[1], names[2], names[0]]
    assert list(archive.names("desk", since=date(2026, 1, 2))) == [names[0]]
    assert list(archive.names("desk", since=date(2026, 1, 3))) == []
    assert list(archive.names("nobody")) == []


def test_same_request_is_kept_once(archive):
    """A request that is run again, with its own time, is no second one; a second at the same time is."""
    first, again = archive.keep("desk", REQUEST), archive.keep("desk", REQUEST)
    other = archive.keep("desk", evolve(REQUEST, body=b"other"))

    assert first == again != other
    assert sorted(archive.names("desk")) == sorted([first, other])


def test_other_files_are_nobodys_business(tmp_path):
    """What a person or a program puts beside the raw requests is passed over."""
    archive = Archive(tmp_path)
    name = archive.keep("desk", REQUEST)
    (tmp_path / "raw" / "desk" / ".DS_Store").write_bytes(b"")
    (tmp_path / name).with_name("notes.txt").write_bytes(b"")

    assert list(archive.names("desk")) == [name]


@pytest.mark.parametrize("name", ["", "raw/desk/../../../etc/passwd", "raw/desk/2026-01-01/../x", "sha256/00/0"])
def test_what_is_no_name_is_not_found(archive, name):
    """A name that no archive gave leads nowhere, and to no other file."""
    with pytest.raises(NotFound, match="no name of a raw request"):
        archive.request(name)


def test_spoilt_raw_request_is_told(tmp_path):
    """A file of which the end is missing is not run as something else."""
    archive = Archive(tmp_path)
    name = archive.keep("desk", REQUEST)
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:-3])

    with pytest.raises(PermanentError, match="is spoilt"):
        archive.request(name)


def test_channel_name_is_no_way_out(tmp_path):
    """A channel that is named like a path cannot write elsewhere."""
    with pytest.raises(ConfigError, match="no name for a folder"):
        Archive(tmp_path / "archive").keep("../elsewhere", REQUEST)


# -- places


def test_file_url_is_a_folder(tmp_path):
    """`file:` names the folder that the path does."""
    url = Archive(tmp_path / "my archive").put(b"order")

    assert Archive((tmp_path / "my archive").as_uri()).get(url) == b"order"


def test_full_disk_is_no_end(tmp_path, monkeypatch):
    """With little room left nothing is kept, and it may be tried again: the store may be on that disk."""
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)

    with pytest.raises(TransientError, match="make room") as caught:
        Archive(tmp_path).put(b"order")

    assert caught.value.retry_after_s


def test_folder_that_cannot_be_used_is_no_end(tmp_path):
    """A file where the folder should be is told as what can be mended."""
    (tmp_path / "archive").write_bytes(b"")

    with pytest.raises(TransientError, match="cannot be used as an archive"):
        Archive(tmp_path / "archive").put(b"order")


def test_protocol_that_is_not_installed_says_what_to_install():
    """What it takes to reach a place is told at the start, with the package's name."""
    with pytest.raises(ConfigError, match=r"sftp.*paramiko"):
        Archive("sftp://host/archive")
    with pytest.raises(ConfigError, match="no place for an archive"):
        Archive("nonsense://host/archive")


def test_missing_extra_says_so():
    """Without fsspec a folder works, and a URL says what to install."""
    code = """if True:
        import sys
        sys.modules["fsspec"] = None
        from convsdk.archive import Archive
        Archive("here")
        try:
            Archive("s3://ann:secret@bucket/mail")
        except Exception as error:
            print(type(error).__name__, error)
    """

    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout

    assert told.startswith("ConfigError s3://***@bucket/mail needs the extra 'archive'")
    assert "pip install 'convsdk[archive]'" in told


@pytest.fixture
def bucket(monkeypatch):
    """Give the URL of a bucket on an S3 server of our own."""
    from boto3 import client  # noqa: PLC0415  (takes a second; only who needs it waits)
    from moto.server import ThreadedMotoServer  # noqa: PLC0415  (as above)

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, "test")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        client("s3").create_bucket(Bucket="mail")
        yield "s3://mail"
    finally:
        server.stop()


def test_bucket_is_an_archive(bucket):
    """On S3 everything is as in a folder, and a bucket that is not there is told, not made."""
    archive = Archive(f"{bucket}/archive")

    url, names = archive.put(b"order"), [archive.keep("desk", evolve(REQUEST, body=body)) for body in (b"a", b"b")]

    assert (archive.get(url), archive.put(b"order")) == (b"order", url)
    assert list(Archive(f"{bucket}/archive").names("desk")) == sorted(names)
    assert archive.request(names[0]).body == b"a"
    with pytest.raises(NotFound):
        archive.get("archive:" + "0" * 64)
    with pytest.raises(TransientError, match=r"s3://nobody/x did not .*FileNotFoundError"):
        Archive("s3://nobody/x").put(b"order")


def test_place_that_fails_is_no_end(monkeypatch):
    """Whatever a file system raises comes out as an error of this project, without the other's text."""
    from fsspec.implementations.memory import MemoryFileSystem  # noqa: PLC0415  (takes half a second)

    def fail(*_, **__):
        raise RuntimeError("key AKIA-secret is refused")

    archive = Archive("memory://away")
    monkeypatch.setattr(MemoryFileSystem, "info", fail)

    with pytest.raises(TransientError, match=r"memory://away did not .*\(RuntimeError\)") as caught:
        archive.put(b"order")

    assert "AKIA" not in str(caught.value)


# -- a hub with an archive


@pytest.mark.parametrize("url", ["memory:", "sqlite"])
def test_mail_is_archived_before_it_is_parsed(tmp_path, url):
    """The message names its raw request, and its attachment the content; neither is in the database."""
    store = url if url == "memory:" else f"sqlite:///{tmp_path}/shop.db"
    archive = Archive(tmp_path / "archive")
    hub = Hub(store, channels=[_support()], archive=archive)
    arrived = request(MAIL, envelope=Envelope(sender="ann@mail.example", recipients=("help@shop.example",)))

    hub.handle("support", arrived)

    message = _only_message(hub)
    (attachment,) = message.attachments
    assert archive.request(message.detail["raw"]).body == MAIL
    assert archive.request(message.detail["raw"]).envelope == arrived.envelope
    assert (archive.get(attachment.url), attachment.size) == (b"%PDF-1.7 order", 14)
    assert attachment.content is None
    hub.close()
    assert not any(b"JVBERi" in one.read_bytes() or b"%PDF" in one.read_bytes() for one in tmp_path.glob("shop.db*"))


def test_mail_that_cannot_be_parsed_stays_in_the_archive(tmp_path):
    """What this release cannot read, the next one may."""
    archive = Archive(tmp_path)
    hub = Hub("memory:", channels=[_support()], archive=archive)

    with pytest.raises(ParseError):
        hub.handle("support", request(b"no mail"))

    assert [archive.request(one).body for one in archive.names("support")] == [b"no mail"]


def test_without_an_archive_contents_go_nowhere():
    """The message is kept, and what its attachments held is dropped."""
    hub = Hub("memory:", channels=[_support()])

    hub.handle("support", request(MAIL))

    message = _only_message(hub)
    assert [(one.name, one.url, one.content) for one in message.attachments] == [("order.pdf", "", None)]
    assert "raw" not in message.detail


class _Signed(EmailChannel):
    """Refuses what is not signed, and keeps no raw requests."""

    can = Capabilities(verifies=True, attachments=True)
    is_webhook = True

    def verify(self, request):
        if "x-sign" not in request.headers:
            raise Forbidden("not signed")


def test_forged_request_is_not_archived(tmp_path):
    """What is not authentic takes no place on the disk."""
    channel = _Signed("support", _support().config)
    channel.can = Capabilities(verifies=True, attachments=True, keeps_raw=True)
    hub = Hub("memory:", channels=[channel], archive=Archive(tmp_path / "archive"))

    with pytest.raises(Forbidden):
        hub.handle("support", request(MAIL))

    assert not (tmp_path / "archive").exists()


def test_channel_that_keeps_no_raw_requests_still_keeps_attachments(tmp_path):
    """Only a channel that asks for it has its requests archived."""
    archive = Archive(tmp_path)
    hub = Hub("memory:", channels=[_Signed("support", _support().config)], archive=archive)

    hub.handle("support", request(MAIL, headers={"X-Sign": "a"}))

    assert list(archive.names("support")) == []
    assert archive.get(_only_message(hub).attachments[0].url) == b"%PDF-1.7 order"


def test_mail_by_smtp_is_archived(tmp_path):
    """The mail server archives what it takes, with its envelope, before it says 250; a full archive is told as 451."""
    archive = Archive(tmp_path / "archive")
    hub = Hub("memory:", channels=[_support()], archive=archive)

    async def run():
        async with MailServer(hub, rejects=Rejects(tmp_path / "rejects"), clock=lambda: NOON) as server:
            taken = await server.take(MAIL, sender="ann@mail.example", recipient="help@shop.example")
            shutil.rmtree(tmp_path / "archive")
            (tmp_path / "archive").write_bytes(b"")
            return taken, await server.take(MAIL, sender="ann@mail.example", recipient="help@shop.example")

    taken, failed = asyncio.run(run())

    assert (taken[:3], failed[:3]) == ("250", "451")
    assert _only_message(hub).detail["raw"].startswith("raw/support/2026-01-01/120000.000000-")


def test_mail_by_http_is_archived(tmp_path):
    """The web app archives what its channel wants archived."""
    archive = Archive(tmp_path / "archive")
    hub = Hub("memory:", channels=[providers.channel(providers.RAW)], archive=archive)
    app = create_app(hub, rejects=tmp_path / "rejects", files=tmp_path / "files", clock=lambda: NOON)
    posted = providers.posted(MAIL)
    from litestar.testing import TestClient  # noqa: PLC0415  (takes half a second)

    with TestClient(app) as client:
        answer = client.post("/channels/support", content=MAIL, headers=dict(posted.headers))

    assert answer.status_code == 200
    assert archive.request(_only_message(hub).detail["raw"]).body == MAIL


class _Mailbox(EmailChannel):
    """Finds one mail in its mailbox."""

    listens = True

    async def listen(self, feed):
        await feed.deliver(request(MAIL), position=("inbox", "1"))
        self.done.set()
        await asyncio.Event().wait()


def test_mail_that_was_listened_for_is_archived(tmp_path):
    """What a source brings is archived like what is sent."""
    archive = Archive(tmp_path / "archive")
    channel = _Mailbox("support", _support().config)
    hub = Hub("memory:", channels=[channel], archive=archive)

    async def run():
        channel.done = asyncio.Event()
        async with Listening(hub, rejects=Rejects(tmp_path / "rejects"), lease_s=1):
            await asyncio.wait_for(channel.done.wait(), PATIENCE_S)

    asyncio.run(run())

    assert archive.request(_only_message(hub).detail["raw"]).body == MAIL


def test_command_line_archives_beside_the_store(tmp_path, monkeypatch):
    """What is ingested is archived in the folder that is configured, `archive` where none is."""
    monkeypatch.chdir(tmp_path)
    Path("mail.eml").write_bytes(MAIL)
    channel = '[channels.support]\ntype = "email"\naddress = "help@shop.example"\n'

    for line, folder in (("", "archive"), ('archive = "kept"\n', "kept"), ('archive = ""\n', None)):
        Path("convsdk.toml").write_text(line + channel, "utf-8")
        shutil.rmtree("archive", ignore_errors=True)
        shutil.rmtree("kept", ignore_errors=True)

        result = CliRunner().invoke(main, ["ingest", "support", "mail.eml", "--store", "sqlite:///shop.db"])

        assert result.exit_code == 0, result.output
        assert [name for name in ("archive", "kept") if Path(name).exists()] == ([folder] if folder else [])


def test_wrong_archive_is_a_mistake_in_the_configuration(tmp_path, monkeypatch):
    """A place that is no text is told with its line."""
    monkeypatch.chdir(tmp_path)
    Path("convsdk.toml").write_text("archive = 7\n", "utf-8")

    result = CliRunner().invoke(main, ["check"])

    assert "convsdk.toml:1: archive is a number: give a folder or a URL" in result.output
