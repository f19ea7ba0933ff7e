import json
import shutil
from datetime import date, timedelta
from pathlib import Path

import pytest
from attrs import evolve
from click.testing import CliRunner
from outgoing import send

from convsdk.archive import Archive
from convsdk.channels.email import EmailChannel, EmailSettings
from convsdk.cli import main
from convsdk.core.inbox import ConversationStatus
from convsdk.core.model import Direction, Message
from convsdk.core.storage import Batch
from convsdk.errors import ConfigError, ParseError
from convsdk.hub import Hub
from convsdk.reread import Fate, Reread, reread
from convsdk.testing.builders import NOON, request

MAIL = (
    b"From: Ann <ann@mail.example>\r\nMessage-ID: <%d@mail.example>\r\n"
    b"Content-Type: multipart/mixed; boundary=b\r\n\r\n"
    b"--b\r\n\r\nWhere is my order?\r\n"
    b"--b\r\nContent-Type: application/pdf; name=order.pdf\r\n\r\n%%PDF-1.7 order\r\n--b--\r\n"
)


class NextEmailChannel(EmailChannel):
    """The channel of a later release: it reads more, or other things."""

    mark = ""

    def parse(self, request):
        if self.mark:
            return [evolve(one, fingerprint=self.mark + one.fingerprint) for one in super().parse(request)]
        if b"<4@" in request.body:
            raise ParseError("no mail any more")
        return [
            evolve(event, text=event.text.upper(), detail=event.detail | {"pages": 2})
            for event in super().parse(request)
        ]


def _channel(kind=EmailChannel):
    return kind("support", EmailSettings(address="help@shop.example"))


@pytest.fixture(params=["memory", "sqlite"])
def hubs(request, tmp_path):
    """Give the hub of today, and that of a later release, on one store and one archive."""
    archive = Archive(tmp_path / "archive")
    today = Hub(
        "memory:" if request.param == "memory" else f"sqlite:///{tmp_path}/shop.db",
        channels=[_channel()],
        archive=archive,
    )
    yield today, Hub(today.store, channels=[_channel(NextEmailChannel)], archive=archive)
    today.close()


def _take(hub, *numbers, at=NOON):
    for number in numbers:
        hub.handle("support", request(MAIL % number, received_at=at + timedelta(days=number)))


def _messages(hub):
    return [one for each in hub.conversations() for one in hub.messages(each.id)]


def _fates(hub, **options):
    return [one.fate for one in reread(hub, "support", **options)]


def test_message_is_renewed_and_stays_where_it_is(hubs):
    """Text and detail are those of today's code; id, conversation, time and status are those of before."""
    today, later = hubs
    _take(today, 1)
    (before,) = _messages(today)
    today.store.transact("default", lambda one: one.write(Batch(revised=[evolve(before, status="seen")])))

    (told,) = reread(later, "support")

    (after,) = _messages(later)
    assert told == Reread(
        name=before.detail["raw"], fate=Fate.RENEWED, external_id="<1@mail.example>", fields=("text", "detail")
    )
    assert after == evolve(before, text="WHERE IS MY ORDER?", status="seen", detail=before.detail | {"pages": 2})


def test_second_run_changes_nothing(hubs):
    """What is as it would be read is left alone."""
    today, later = hubs
    _take(today, 1, 2)

    assert _fates(today) == [Fate.UNCHANGED] * 2
    assert _fates(later) == [Fate.RENEWED] * 2
    assert _fates(later) == [Fate.UNCHANGED] * 2


def test_what_became_of_a_message_is_kept(hubs):
    """Two mails of one id stay two, what an answer repeats of our text stays a quote, and what is related is named."""
    today, _ = hubs
    asked = "Your shoes are on their way to you since Monday."
    _take(today, 1)
    (first,) = _messages(today)
    send(today, first.conversation, asked, external_id="<ours@shop.example>", status=ConversationStatus.OPEN)
    head = "Message-ID: <1@mail.example>\r\nIn-Reply-To: <ours@shop.example>\r\n\r\n"
    for sender in ("ann", "eve"):
        raw = f"From: {sender}@mail.example\r\n{head}No.\r\n\r\n{asked}\r\n"
        today.handle("support", request(raw, received_at=NOON + timedelta(days=2)))
    before = _messages(today)

    assert _fates(today) == [Fate.UNCHANGED] * 3
    assert _messages(today) == before
    assert sorted(one.text for one in before) == sorted(["Where is my order?", asked, "No.", "No."])
    assert [one.detail["related"] for one in before if one.detail and "related" in one.detail] == [[first.conversation]]


def test_missing_message_is_taken_in(hubs):
    """A store that was lost, or a mail that no release could read before, comes back out of the archive."""
    today, _ = hubs
    _take(today, 1, 2)
    fresh = Hub("memory:", channels=[_channel()], archive=today.archive)

    assert _fates(fresh) == [Fate.NEW] * 2
    assert [one.text for one in _messages(fresh)] == [one.text for one in _messages(today)]
    assert _fates(fresh) == [Fate.UNCHANGED] * 2


def test_dry_run_writes_nothing(hubs, tmp_path):
    """What would change is told, and neither store nor archive is touched."""
    today, later = hubs
    _take(today, 1)
    before = _messages(today)
    shutil.rmtree(tmp_path / "archive" / "sha256")
    fresh = Hub("memory:", channels=[_channel()], archive=today.archive)

    assert _fates(later, is_dry=True) == [Fate.RENEWED]
    assert _fates(fresh, is_dry=True) == [Fate.NEW]
    assert (_messages(later), _messages(fresh)) == (before, [])
    assert not (tmp_path / "archive" / "sha256").exists()


def test_second_copy_of_a_mail_changes_nothing(hubs):
    """Of a mail that came twice, the copy that the message names is read again, and only that."""
    today, later = hubs
    _take(today, 1)
    _take(today, 1, at=NOON + timedelta(hours=1))

    assert _fates(later) == [Fate.RENEWED, Fate.COPY]
    assert _fates(later) == [Fate.UNCHANGED, Fate.COPY]


def test_two_mails_with_one_id_are_each_renewed(hubs):
    """A mail that was told apart from another one with its id stays apart, and flagged."""
    today, later = hubs
    _take(today, 1)
    forged = (MAIL % 1).replace(b"my order", b"my money")
    today.handle("support", request(forged, received_at=NOON + timedelta(days=2)))

    assert _fates(today) == [Fate.UNCHANGED] * 2
    assert _fates(later) == [Fate.RENEWED] * 2
    assert sorted(one.text for one in _messages(later)) == ["WHERE IS MY MONEY?", "WHERE IS MY ORDER?"]
    assert sorted((one.detail or {}).get("same_id_as", "") for one in _messages(later)) == ["", "<1@mail.example>"]
    assert _fates(later) == [Fate.UNCHANGED] * 2


def test_another_fingerprint_makes_no_third_mail(hubs):
    """A release that tells copies apart in another way takes nothing in that is there, under whatever id."""
    today, later = hubs
    _take(today, 1)
    today.handle("support", request((MAIL % 1).replace(b"my order", b"my money"), received_at=NOON + timedelta(days=2)))
    later.channel("support").mark = "other"

    assert Fate.NEW not in _fates(later)
    assert len(_messages(later)) == 2


def test_message_of_ours_is_left_alone(hubs):
    """A mail that came back to us, by the id of one that we sent, does not overwrite what we said."""
    today, later = hubs
    _take(today, 1)
    (first,) = _messages(today)
    ours = Message(
        id=first.id + 1000,
        conversation=first.conversation,
        channel="support",
        external_id="<2@mail.example>",
        direction=Direction.OUTBOUND,
        at=NOON,
        text="It is on its way.",
    )
    today.store.transact("default", lambda one: one.write(Batch(messages=[ours])))
    back = (MAIL % 2).replace(b"Ann <ann@mail.example>", b"help@shop.example")
    today.archive.keep("support", request(back, received_at=NOON + timedelta(days=2)))

    assert _fates(later) == [Fate.RENEWED, Fate.COPY]
    assert [one.text for one in _messages(later) if one.direction is Direction.OUTBOUND] == ["It is on its way."]


def test_unreadable_request_stops_no_other(hubs):
    """What cannot be read any more, or is spoilt, is told, and the next one is read."""
    today, later = hubs
    _take(today, 3, 4, 5)
    spoilt = next(today.archive.names("support"))
    (Path(today.archive.shown) / spoilt).write_bytes(b"")

    told = list(reread(later, "support"))

    assert [one.fate for one in told] == [Fate.UNREADABLE, Fate.UNREADABLE, Fate.RENEWED]
    assert ("spoilt" in told[0].problem, told[1].problem) == (True, "no mail any more")


def test_report_names_its_raw_request(hubs):
    """A line that a report became is read again like a message."""
    today, _ = hubs
    bounce = (Path(__file__).parent / "mail" / "class-bounce.eml").read_bytes()
    today.handle("support", request(bounce, received_at=NOON))

    assert set(_fates(today)) == {Fate.UNCHANGED}
    (line,) = _messages(today)
    assert today.archive.request(line.detail["raw"]).body == bounce
    today.store.transact("default", lambda one: one.write(Batch(revised=[evolve(line, text="?")])))
    assert Fate.RENEWED in _fates(today)
    assert _messages(today) == [line]


def test_attachment_of_before_there_was_an_archive_gets_its_address(hubs):
    """A message that was stored without what its attachments hold has it afterwards."""
    today, _ = hubs
    _take(today, 1)
    (before,) = _messages(today)
    bare = evolve(
        before, attachments=tuple(evolve(one, url="") for one in before.attachments), detail={"class": "human"}
    )
    today.store.transact("default", lambda one: one.write(Batch(revised=[bare])))

    assert [one.fields for one in reread(today, "support")] == [("attachments", "detail")]
    assert _messages(today) == [before]


def test_reading_begins_at_a_day(hubs):
    """Only what came from that day on is read again."""
    today, later = hubs
    _take(today, 1, 2, 3)

    assert [one.external_id for one in reread(later, "support", since=date(2026, 1, 3))] == [
        "<2@mail.example>",
        "<3@mail.example>",
    ]


def test_without_an_archive_nothing_can_be_read_again():
    """Whoever asks for it is told what to set."""
    with pytest.raises(ConfigError, match="there is no archive"):
        list(reread(Hub("memory:", channels=[_channel()]), "support"))


def test_command_tells_what_changed_in_figures(tmp_path, monkeypatch):
    """The figures are of events and fields; unreadable ones are told and make the exit status 1."""
    monkeypatch.chdir(tmp_path)
    setting = '[channels.support]\ntype = "email"\naddress = "help@shop.example"\n'
    Path("convsdk.toml").write_text(setting, "utf-8")
    for number in (1, 2):
        Path(f"{number}.eml").write_bytes(MAIL % number)

    def run(*arguments):
        return CliRunner().invoke(main, list(arguments))

    assert run("ingest", "support", "1.eml", "2.eml").exit_code == 0
    Path("convsdk.toml").write_text(f'{setting}own = ["ann@mail.example"]\n', "utf-8")

    told = [run("reread", "support", "--dry-run"), *(run("reread", "support") for _ in range(2))]
    none = run("reread", "support", "--since", "2999-01-01")
    Archive("archive").keep("support", request(b"no mail"))
    failed = run("reread", "support", "--json")

    assert [one.output for one in told] == [
        "2 events (dry run): 2 renewed; detail of 2\n",
        "2 events: 2 renewed; detail of 2\n",
        "2 events: 2 unchanged\n",
    ]
    assert none.output == "0 events: nothing\n"
    assert failed.exit_code == 1
    assert sorted(json.loads(line)["fate"] for line in failed.stdout.splitlines()) == ["unchanged"] * 2 + ["unreadable"]
