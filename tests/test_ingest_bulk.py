import json
import random
import sqlite3
import subprocess
import sys
import time
import tracemalloc
from collections import Counter
from contextlib import closing

import pytest
from click.testing import CliRunner

from convsdk.cli import intake, main, screen, sources
from convsdk.cli.screen import Pace
from convsdk.cli.sources import Sources
from convsdk.rejects import Rejects

CONFIG = """
store = "sqlite:///shop.db"
[channels.mail]
type = "email"
address = "help@shop.example"
authserv_id = "mx.shop.example"
[channels.chat]
type = "chat"
"""
SMALL_BATCHES = "from convsdk.cli import intake, main; intake.BATCH_SIZE = 100; main()"


@pytest.fixture
def shop(tmp_path, monkeypatch):
    """Give a folder with a configuration in it, and work there."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "convsdk.toml").write_text(CONFIG, encoding="utf-8")
    return tmp_path


def bulk(*files, channel="mail", status=0, stdin=None):
    """Ingest in bulk, and give the result."""
    arguments = ["ingest", "--bulk", channel, *map(str, files)]
    result = CliRunner().invoke(main, arguments, input=stdin)
    assert result.exit_code == status, result.output + repr(result.exception)
    return result


def mail(number, text="Hello"):
    """Build the mail of that number, of one of fifty senders."""
    return (
        "Authentication-Results: mx.shop.example; dmarc=pass header.from=a.example\n"
        f"From: <p{number % 50}@a.example>\nTo: help@shop.example\nMessage-ID: <{number}@a.example>\n\n{text}\n"
    ).encode()


def mbox(*mails):
    """Build an mbox."""
    return b"".join(b"From x@a.example Mon Jan 12 09:00:00 2026\n" + one + b"\n" for one in mails)


def box(path, numbers, **more):
    """Write an mbox of the mails with these numbers."""
    path.write_bytes(mbox(*(mail(number, **more) for number in numbers)))
    return path


def read(statement, path="shop.db"):
    """Give the first column of a statement on the store's file."""
    with closing(sqlite3.connect(path)) as connection:
        return [row[0] for row in connection.execute(statement)]


def kept():
    """Give the numbers of all mails in the store, as they were kept."""
    ids = read("select external_id from message order by id")
    return [int(one.strip("<").partition("@")[0]) for one in ids]


def poison(word):
    """Let the store refuse every message with a word in it."""
    assert CliRunner().invoke(main, ["migrate"]).exit_code == 0
    with closing(sqlite3.connect("shop.db")) as connection:
        connection.execute(
            f"create trigger t before insert on message when new.text like '%{word}%' "
            "begin select raise(abort, 'it is poisoned'); end"
        )
        connection.commit()


# -- killed and run again


@pytest.mark.once
def test_killed_run_goes_on_where_it_was(shop):
    """Killed again and again, it ends with each mail once, and decides about none a second time."""
    box(shop / "box.mbox", range(3000))
    command = [sys.executable, "-c", SMALL_BATCHES, "ingest", "--bulk", "mail", "box.mbox", "--json"]
    outcomes, kills, is_done = Counter(), 0, False

    while not is_done:
        with subprocess.Popen(command, cwd=shop, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
            # A full pipe stops it: it cannot end before it is killed.
            told = [process.stdout.readline() for _ in range(100 if kills < 4 else 10_000)]
            if kills < 4:
                time.sleep(random.random() / 20)  # noqa: S311  (pytest-randomly seeds it)
                process.kill()
                kills += 1
            else:
                is_done = process.wait() == 0
            told += process.stdout.readlines()
        outcomes.update(json.loads(line)["outcome"] for line in told if line.endswith(b"}\n"))

    assert kills == 4
    assert outcomes["duplicate"] == 0
    assert kept() == list(range(3000))
    assert len(read("select key from hint")) == 3000


def test_second_run_has_nothing_to_do(shop):
    """What is done is passed over, and told so."""
    box(shop / "box.mbox", range(30))

    first, second = bulk("box.mbox"), bulk("box.mbox")

    assert first.stdout == "30 events: 30 created\n"
    assert second.stdout == "0 events: nothing\n"
    assert "going on from the checkpoint" in second.stderr


def test_box_that_has_grown_goes_on_with_what_is_new(shop):
    """Mails that were added since are taken in, and no other."""
    box(shop / "box.mbox", range(30))
    bulk("box.mbox")
    with (shop / "box.mbox").open("ab") as file:
        file.write(mbox(mail(30), mail(31)))

    assert bulk("box.mbox").stdout == "2 events: 2 created\n"
    assert kept() == list(range(32))


@pytest.mark.parametrize("changed", ["old.mbox", "new.mbox"])
def test_files_that_have_changed_are_begun_anew(shop, changed):
    """Where what was taken in before is not the same any more, all is read again: nothing is lost, nothing doubled."""
    box(shop / "old.mbox", range(10))
    box(shop / "new.mbox", range(10, 20))
    bulk("old.mbox", "new.mbox")
    box(shop / changed, range(15, 25))

    result = bulk("old.mbox", "new.mbox")

    assert "the files have changed since they were taken in: all are read from the start" in result.stderr
    assert "5 created" in result.stdout
    assert sorted(kept()) == list(range(25))


@pytest.mark.parametrize("name", ["box.mbox", "a.eml"])
def test_mail_that_was_half_written_is_read_again(shop, name):
    """Where the last mail has grown, it was not all there: the files are read anew, and the whole of it is kept."""
    whole = mbox(mail(1), mail(2)) if name == "box.mbox" else mail(2)
    (shop / name).write_bytes(whole[:-4])
    bulk(name)
    (shop / name).write_bytes(whole)

    result = bulk(name)

    assert "the files have changed" in result.stderr
    assert "1 attached" in result.stdout


def test_checkpoint_is_of_one_channel_and_its_files(shop):
    """Other files, or the same files in another order, begin at their own start."""
    box(shop / "a.mbox", range(10))
    box(shop / "b.mbox", range(10, 20))
    bulk("a.mbox")

    result = bulk("b.mbox", "a.mbox")

    assert result.stdout == "20 events: 10 created, 10 duplicate\n"


def test_standard_input_has_no_checkpoint(shop):
    """What cannot be read again from a position is known again by its ids."""
    content = mbox(*map(mail, range(10)))

    first, second = (bulk("-", stdin=content) for _ in range(2))

    assert first.stdout == "10 events: 10 created\n"
    assert second.stdout == "10 events: 10 duplicate\n"


# -- what cannot be taken


def test_poisoned_and_unreadable_mails_stop_no_other(shop):
    """Their bytes are kept aside and they are told once; all others are taken."""
    poison("poison")
    mails = [mail(number) for number in range(250)]
    mails[7], mails[100], mails[249] = mail(7, "poison"), b"\x00 nonsense\n", mail(249, "more poison")
    (shop / "box.mbox").write_bytes(mbox(*mails))

    first, second = bulk("box.mbox", "absent.mbox", status=1), bulk("box.mbox", "absent.mbox", status=1)

    assert kept() == [number for number in range(250) if number not in {7, 100, 249}]
    told = sorted(line.partition(":")[0] for line in first.stderr.splitlines())
    assert told == ["absent.mbox", "box.mbox#101", "box.mbox#250", "box.mbox#8"]
    rejects = Rejects(shop / "rejects")
    assert sorted(rejects.read(one).body for one in rejects.ids()) == sorted([mails[7], mails[100], mails[249]])
    assert [line for line in second.stderr.splitlines() if line.startswith("box.mbox")] == []


def test_box_that_is_missing_at_first_is_not_passed_over(shop):
    """A file that could not be read is read by the next run."""
    box(shop / "there.mbox", range(10, 20))
    bulk("late.mbox", "there.mbox", status=1)
    box(shop / "late.mbox", range(10))

    bulk("late.mbox", "there.mbox")

    assert sorted(kept()) == list(range(20))


def test_mail_that_is_too_long_is_told_and_passed_over(shop, monkeypatch):
    """It is not held in memory: it stays where it is, and its neighbours are taken."""
    monkeypatch.setattr(sources, "LONGEST", 5000)
    monkeypatch.setattr(sources, "_BLOCK", 1000)
    (shop / "box.mbox").write_bytes(mbox(mail(1), mail(2, "x" * 20_000), mail(3)))
    (shop / "long.eml").write_bytes(mail(4, "x" * 20_000))

    result = bulk("box.mbox", "long.eml", status=1)

    assert kept() == [1, 3]
    assert result.stderr.count("bytes are too many for one request") == 2
    assert not (shop / "rejects").exists()


def test_busy_store_is_waited_for(shop, monkeypatch):
    """Where another writer is in the way, the command goes on once that has ended."""
    box(shop / "box.mbox", range(30))
    bulk("box.mbox")
    box(shop / "more.mbox", range(30, 60))
    monkeypatch.setattr("convsdk.store.sqlite._BUSY_TIMEOUT_S", -1)  # the store itself does not wait
    with closing(sqlite3.connect("shop.db", isolation_level=None)) as other:
        other.execute("begin immediate")
        monkeypatch.setattr(intake.time, "sleep", lambda seconds: other.rollback())

        result = bulk("more.mbox")

    assert "is busy with another writer: try again (again in 1 s)" in result.stderr
    assert kept() == list(range(60))


def test_busy_store_is_given_up_after_some_time(shop, monkeypatch):
    """Where the other writer does not end, the command does, and says that it can be run again."""
    box(shop / "box.mbox", range(30))
    bulk("box.mbox")
    box(shop / "more.mbox", range(30, 60))
    pauses = []
    monkeypatch.setattr("convsdk.store.sqlite._BUSY_TIMEOUT_S", -1)  # the store itself does not wait
    monkeypatch.setattr(intake.time, "sleep", pauses.append)
    with closing(sqlite3.connect("shop.db", isolation_level=None)) as other:
        other.execute("begin immediate")

        result = bulk("more.mbox", status=2)

    assert pauses == [1, 2, 5, 10, 20]
    assert "the same command goes on from there" in result.stderr
    assert bulk("more.mbox").stdout == "30 events: 10 attached, 20 created\n"


# -- where the bytes come from


def test_folders_and_lines_are_taken(shop):
    """A Maildir, a folder with mails in it, and a file with a request in each line are cut into what they hold."""
    for number, place in enumerate(("box/cur/a:2,S", "box/new/b", "box/tmp/c", "mails/d.eml", "mails/e.txt")):
        (shop / place).parent.mkdir(parents=True, exist_ok=True)
        (shop / place).write_bytes(mail(number))
    chats = [{"type": "message", "id": f"c{each}", "visitor": "v" * 32, "text": "Hi"} for each in range(3)]
    (shop / "chats.jsonl").write_text("\n".join([*map(json.dumps, chats[:2]), "", json.dumps(chats[2])]))

    bulk("box", "mails")
    told = bulk("chats.jsonl", channel="chat")

    assert told.stdout.startswith("3 events")
    assert sorted(read("select external_id from message where channel = 'mail'")) == [
        f"<{number}@a.example>" for number in (0, 1, 3)
    ]
    assert bulk("box", "mails").stdout == "0 events: nothing\n"


def test_mail_that_comes_into_a_folder_is_not_passed_over(shop):
    """A folder goes on by name; a mail whose name stands before the checkpoint makes it begin anew."""
    (shop / "mails").mkdir()
    for number in (1, 3):
        (shop / "mails" / f"{number}.eml").write_bytes(mail(number))
    bulk("mails")
    (shop / "mails" / "2.eml").write_bytes(mail(2))

    bulk("mails")

    assert sorted(kept()) == [1, 2, 3]


@pytest.mark.parametrize("block", [1, 7, 64, 1_000_000])
def test_mails_are_cut_the_same_wherever_a_block_ends(tmp_path, monkeypatch, block):
    """Every mail has the bytes that were put in, and each position leads to the rest of them."""
    monkeypatch.setattr(sources, "_BLOCK", block)
    mails = [mail(1), mail(2, ">From here\nFromage"), mail(3, "\n\n"), mail(4)]
    path = tmp_path / "box.mbox"
    path.write_bytes(mbox(*mails))

    with Sources([str(path)]) as found:
        pieces = list(found.pieces())
        for number, piece in enumerate(pieces, 1):
            assert found.go_on(piece.position)
            assert [one.body for one in found.pieces()] == mails[number:]
            assert found.read == path.stat().st_size

    assert [one.body for one in pieces] == mails
    assert [one.place.read() for one in pieces] == mails
    assert {one.received_at.isoformat() for one in pieces} == {"2026-01-12T09:00:00+00:00"}


@pytest.mark.once
@pytest.mark.parametrize(("mails", "characters"), [(10_000, 10), (2, 5_000_000)])
def test_box_of_any_size_takes_little_memory(tmp_path, monkeypatch, mails, characters):
    """No table of all mails is made, and a mail that is too long is not held: a block or two is all."""
    monkeypatch.setattr(sources, "_BLOCK", 100_000)
    monkeypatch.setattr(sources, "LONGEST", 200_000)
    path = box(tmp_path / "box.mbox", range(mails), text="x" * characters)
    tracemalloc.start()

    with Sources([str(path)]) as found:
        number = sum(1 for _ in found.pieces())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert number == mails
    assert peak < 1_500_000


# -- what is told


def test_progress_is_told_in_lines_where_no_terminal_is(shop, monkeypatch):
    """A line says how far it is, how fast, and what is left; without --bulk there is none."""
    box(shop / "box.mbox", range(30))
    monkeypatch.setattr(screen, "Pace", lambda total: Pace(total, every_s=0))

    result = bulk("box.mbox")
    plain = CliRunner().invoke(main, ["ingest", "mail", "box.mbox"])

    assert result.stderr.startswith("into mail: 100%, 30 events, ")
    assert plain.stderr == ""


def test_pace_is_that_of_this_run(monkeypatch):
    """What an earlier run has taken in counts as done, and not as fast."""
    now = iter([0.0, 10.0, 20.0, 20.0, 20.0])
    pace = Pace(1000, clock=lambda: next(now), every_s=15)

    told = [pace.told(500, 0), pace.told(600, 400)]

    assert told == ["50%, 0 events, 0 events/s, ? left", "60%, 400 events, 20 events/s, 0:01:20 left"]
    assert pace.is_due()
