import asyncio
import os
import re
import sys
from contextlib import closing, suppress
from pathlib import Path

import pytest
from servers import fresh_store
from visits import OTHER_SITE, Browser, opened, shop_channels

from convsdk.channels.chat import ChatChannel, ChatSettings
from convsdk.core.ports import Widget
from convsdk.hub import Hub
from convsdk.web import Limits
from convsdk.web.files import Files


def problem(answer):
    """Give the status and the code of a refusal."""
    return answer.status_code, answer.json()["error"]["code"]


async def put(files):
    """Keep an attachment in `files`."""

    async def chunks():
        yield b"Hello"

    return await files.keep(chunks(), channel="chat", visitor="v1", name="a.txt", media_type="text/plain", most=99)


def kept(shop):
    """Give the names in the folder of attachments."""
    folder = shop.folder / "files"
    return sorted(one.name for one in folder.iterdir()) if folder.exists() else []


def test_file_can_be_sent_and_read(any_shop):
    """What was uploaded goes with a message, and comes back byte for byte."""
    browser = Browser(any_shop)
    file = browser.upload(b"\0\xff bytes", name="photo.png", media_type="image/png")

    browser.say("Look", attachments=[file.json()["id"]])
    (message,) = browser.get("/messages").json()["messages"]
    read = browser.get(f"/files/{file.json()['id']}")

    assert (file.status_code, file.json()["size"]) == (201, 8)
    (attachment,) = message["attachments"]
    assert attachment.items() >= {"name": "photo.png", "media_type": "image/png", "size": 8}.items()
    assert attachment["url"] == f"widget/chat/files/{file.json()['id']}"
    assert (read.content, read.headers["content-type"]) == (b"\0\xff bytes", "image/png")


def test_message_may_be_files_alone(shop):
    """Who sends a picture need not say anything."""
    browser = Browser(shop)
    file = browser.upload().json()["id"]

    browser.say("", attachments=[file])

    assert browser.texts() == [""]


def test_file_runs_nothing_where_it_is_shown(shop):
    """Pictures are shown, all else is saved; neither runs, loads or is taken for something else."""
    browser = Browser(shop)
    picture = browser.upload(media_type="image/png", name="a.png").json()["id"]
    text = browser.upload(b"<script>alert(1)</script>", name="a.html").json()["id"]

    shown, saved = browser.get(f"/files/{picture}"), browser.get(f"/files/{text}")

    assert shown.headers["content-disposition"].startswith("inline")
    assert saved.headers["content-disposition"] == 'attachment; filename="a.html"'
    for one in (shown, saved):
        assert one.headers["content-security-policy"] == "default-src 'none'; sandbox"
        assert one.headers["x-content-type-options"] == "nosniff"
        assert one.headers["cache-control"].startswith("private")


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("../../etc/passwd", "passwd"),
        ("..\\..\\boot.ini", "boot.ini"),
        ("/etc/passwd", "passwd"),
        ("C:\\boot.ini", "boot.ini"),
        ("..", "file"),
        ("", "file"),
        (" ", "file"),
        (".htaccess", "htaccess"),
        ("a\0b.txt", "a_b.txt"),
        ("a\r\nSet-Cookie: x=y", "a__Set-Cookie_ x_y"),
        ('a";b.txt', "a__b.txt"),
        ("\u202egnp.exe", "_gnp.exe"),
        ("Grüße.txt", "Grüße.txt"),
        ("x" * 500 + ".pdf", "x" * 146 + ".pdf"),
    ],
)
def test_name_is_one_and_no_path(shop, given, name):
    """A file's name is told without path, control characters or what would end it, and names no file here."""
    browser = Browser(shop)

    answer = browser.upload(name=given)
    read = browser.get(f"/files/{answer.json()['id']}")

    assert answer.json()["name"] == name
    assert read.status_code == 200
    assert "\n" not in read.headers["content-disposition"]
    assert all(re.fullmatch(r"[0-9a-f]{32}(\.json)?", one) for one in kept(shop))


def test_folder_is_its_owners(shop):
    """Nobody else on the machine may read what visitors send."""
    Browser(shop).upload()

    assert (shop.folder / "files").stat().st_mode & 0o777 == 0o700


# -- what is refused


@pytest.mark.parametrize("media_type", ["text/html", "image/svg+xml", "application/x-sh", "", "text/plain/html", "*/*"])
def test_other_types_are_refused(shop, media_type):
    """A type that is not on the channel's list is a 415, and makes neither file nor session."""
    browser = Browser(shop)

    answer = browser.upload(media_type=media_type)

    assert problem(answer) == (415, "file_type")
    assert (kept(shop), browser.cookie) == ([], None)


def test_type_is_read_whatever_its_spelling(shop):
    """Parameters and capitals make no other type."""
    answer = Browser(shop).upload(media_type="Text/PLAIN; charset=utf-8")

    assert answer.json()["media_type"] == "text/plain"


def test_file_that_is_too_large_leaves_nothing(shop):
    """A byte too many is a 413, announced or not, and nothing of it stays; the largest is taken."""
    browser = Browser(shop)
    pulled = []

    async def endless():
        for number in range(1000):
            pulled.append(number)
            yield b"x" * 100

    largest = browser.upload(b"x" * 1000)
    before = kept(shop)
    refused = [browser.upload(b"x" * 1001), browser.upload(endless())]

    assert largest.status_code == 201
    assert [problem(one) for one in refused] == [(413, "too_large")] * 2
    assert refused[0].headers["connection"] == "close"
    assert len(pulled) == 11
    assert kept(shop) == before


def test_file_that_drips_leaves_nothing(tmp_path):
    """An upload has its time as a whole; what did not come in it is a 408, and nothing stays."""
    with opened(fresh_store("sqlite", tmp_path), tmp_path, limits=Limits(file_time_s=0.05)) as shop:

        async def drip():
            while True:
                yield b"x"
                await asyncio.sleep(0.001)

        answer = Browser(shop).upload(drip())

        assert problem(answer) == (408, "slow")
        assert kept(shop) == []


def test_channel_can_take_no_files(tmp_path):
    """Where the largest file has no bytes, none is taken, and the page is told so."""
    chat = ChatChannel("chat", ChatSettings(widget=Widget(file_bytes=0)))
    with opened(fresh_store("sqlite", tmp_path), tmp_path, channels=[chat]) as shop:
        answer, config = Browser(shop).upload(b""), Browser(shop).get().json()

    assert problem(answer) == (415, "file_type")
    assert config["attachments"] == {"max_bytes": 0, "types": []}


# -- who may read


def test_file_of_another_cannot_be_sent(any_shop):
    """An id that somebody else uploaded, or nobody, is the same 404, and the message is not taken."""
    theirs = Browser(any_shop).upload().json()["id"]
    browser = Browser(any_shop)
    browser.open()

    other, none = (browser.post("/messages", id="m", text="x", attachments=[one]) for one in (theirs, "0" * 32))

    assert (other.status_code, other.text.replace(theirs, "")) == (404, none.text.replace("0" * 32, ""))
    assert browser.texts() == []


@pytest.mark.parametrize("number", ["0" * 32, "..", "%2e%2e", "x", "%00", "0" * 31 + "g", "A" * 32, "0" * 32 + ".json"])
def test_what_is_no_file_is_not_found(shop, number):
    """An id that names no upload is a 404, whatever it would be as a path."""
    browser = Browser(shop)
    file = browser.upload().json()["id"]

    answers = [browser.get(f"/files/{one}") for one in (number, f"{file}.json", f"..%2ffiles%2f{file}")]

    assert answers[0].status_code in {404, 200 if number in {"..", "%2e%2e"} else 404}
    assert [one.status_code for one in answers[1:]] == [404, 404]
    assert not any(b"Hello" in one.content for one in answers)


def test_file_is_read_by_who_may_read_its_message(any_shop):
    """The visitor, and their contact once that is proven; nobody else, whatever they claim or know."""
    sender, contact, stranger, nobody = (Browser(any_shop) for _ in range(4))
    for one in (sender, contact, stranger):
        one.open()
    sender.prove(email="ann@shop.example")
    file = sender.upload().json()["id"]
    unsent = sender.upload().json()["id"]
    sender.say("Look", attachments=[file])
    stranger.identify(email="ann@shop.example")
    before = contact.get(f"/files/{file}").status_code

    contact.prove(email="ann@shop.example")

    assert before == 404
    assert [one.get(f"/files/{file}").status_code for one in (sender, contact, stranger, nobody)] == [
        200,
        200,
        404,
        401,
    ]
    assert [one.get(f"/files/{unsent}").status_code for one in (sender, contact)] == [200, 404]


def test_file_of_another_channel_is_read_by_its_contact(tmp_path):
    """What was sent to one chat can be read in the other by who may read its message; no other hub's can."""
    both = [*shop_channels(), ChatChannel("sales", ChatSettings(widget=Widget(identify="site")))]
    other_hub = Hub("memory:", workspace="other", channels=[ChatChannel("other", ChatSettings())])
    with (
        closing(other_hub),
        opened(fresh_store("sqlite", tmp_path), tmp_path, channels=both, hubs=[other_hub]) as shop,
    ):
        chat, sales, other = (Browser(shop, channel=one) for one in ("chat", "sales", "other"))
        for one in (chat, sales):
            one.open()
            one.prove(email="ann@shop.example")
        file = chat.upload().json()["id"]
        chat.say("Look", attachments=[file])
        other.say("Same numbers, other people")

        assert [one.get(f"/files/{file}").status_code for one in (chat, sales, other)] == [200, 200, 404]


def test_file_is_lost_with_the_session(shop):
    """After a log-out the next visitor of the browser cannot read it, and a proof that lapsed opens it no more."""
    browser = Browser(shop)
    file = browser.upload().json()["id"]
    browser.say("Look", attachments=[file])

    browser.reset()
    browser.open()

    assert browser.get(f"/files/{file}").status_code == 404


def test_file_is_taken_from_nobody_who_could_not_send_it(shop):
    """A page that holds its token begins a session first: nothing is kept for one that it would not learn of."""
    answer = Browser(shop, site=OTHER_SITE).upload()

    assert problem(answer) == (401, "no_session")
    assert kept(shop) == []


def test_page_of_another_site_reads_by_token(shop):
    """Where there is no cookie, a file is read with the token that reads the message."""
    browser = Browser(shop, site=OTHER_SITE)
    browser.open()
    file = browser.upload().json()["id"]

    assert browser.get(f"/files/{file}").content == b"Hello"


def test_file_without_its_notes_is_none(tmp_path):
    """An upload that ended in the middle of it, by a crash, is not there."""
    (tmp_path / ("0" * 32)).write_bytes(b"half")

    assert Files(tmp_path).find("0" * 32) is None


def age(shop):
    """Let two days pass for all attachments, and have the app look at them anew."""
    for path in (shop.folder / "files").iterdir():
        os.utime(path, (0, 0))
    return Files(shop.folder / "files")


def test_file_that_was_never_sent_is_removed_after_a_day(shop):
    """What somebody uploaded and left behind takes no room for ever; what was sent stays."""
    browser = Browser(shop)
    left, sent = (browser.upload().json()["id"] for _ in range(2))
    browser.say("Look", attachments=[sent])
    files = age(shop)

    asyncio.run(put(files))

    assert (files.find(left), files.path(left).exists()) == (None, False)
    assert files.find(sent).is_sent
    assert browser.get(f"/files/{sent}").status_code == 200


def test_kill_between_message_and_file_loses_no_file(shop, monkeypatch):
    """A message that was kept keeps its file, though the program ended before it was noted where that stands."""
    browser = Browser(shop)
    file = browser.upload().json()["id"]
    with monkeypatch.context() as patch:
        patch.setattr(Files, "place", lambda *_: sys.exit())
        with suppress(SystemExit):
            browser.post("/messages", id="m1", text="Look", attachments=[file])
    files = age(shop)

    asyncio.run(put(files))
    unplaced = files.find(file)
    again = browser.post("/messages", id="m1", text="Look", attachments=[file])

    assert (unplaced.is_sent, unplaced.conversation) == (True, None)
    assert files.find(file).conversation == again.json()["conversation"]


def test_file_and_its_notes_are_synced(tmp_path, monkeypatch):
    """The bytes are on disk before the notes that make them an attachment, and the notes before the answer."""
    synced, sync = [], os.fsync
    monkeypatch.setattr(
        os, "fsync", lambda number: (synced.append(Path(f"/proc/self/fd/{number}").readlink().name), sync(number))
    )

    file = asyncio.run(put(Files(tmp_path)))

    assert synced[0] == file.id
    assert synced[1].endswith(".tmp")
    assert synced[2] == tmp_path.name


def test_disk_that_takes_no_file_is_told_to_come_again(shop, monkeypatch):
    """A full disk is no mistake of the visitor's, and leaves nothing half there."""
    browser = Browser(shop)
    browser.open()

    def fail(_path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("convsdk.web.files.sync", fail)
    answer = browser.upload()

    assert problem(answer) == (503, "busy")
    assert kept(shop) == []
