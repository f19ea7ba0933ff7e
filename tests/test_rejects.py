import json
import os
from pathlib import Path

import pytest
from attrs import evolve
from hypothesis import example, given
from hypothesis import strategies as st

from convsdk.core.ports import Envelope, Headers, Request
from convsdk.errors import NotFound, ParseError, TransientError
from convsdk.rejects import Rejects
from convsdk.testing.builders import NOON

WRONG = ParseError("that is garbage")
REQUEST = Request(
    received_at=NOON,
    body=b"\x00\xff raw",
    url="https://shop.example/channels/desk?a=b",
    query={"a": "b"},
    headers=Headers([("X-Sign", "one"), ("X-Sign", "two")]),
    envelope=Envelope(sender="ann@shop.example", recipients=("help@shop.example",)),
)


def test_reject_gives_the_request_back(tmp_path):
    """What is kept aside is all that a channel looks at, to the byte and the second."""
    kept = Rejects(tmp_path).keep("desk", REQUEST, WRONG)

    found = Rejects(tmp_path).read(kept.id)

    assert (found.channel, found.error) == ("desk", "that is garbage")
    assert dict(found.request().headers) == {"x-sign": "one"}
    assert found.request().headers.all("x-sign") == ("one", "two")
    assert evolve(found.request(), headers=REQUEST.headers) == REQUEST


@given(body=st.binary(), texts=st.lists(st.text(st.characters(codec=None), max_size=9), min_size=4, max_size=4))
@example(body=b"", texts=["\ud800"] * 4)
def test_any_request_can_be_kept(tmp_path_factory, body, texts):
    """Whatever bytes and characters a request has, half ones too, it is kept, and its body comes back."""
    rejects = Rejects(tmp_path_factory.mktemp("rejects"))
    method, url, name, value = texts
    request = Request(
        received_at=NOON, body=body, method="GET", url=url, query={name: value}, headers=Headers({name: value})
    )

    kept = rejects.keep("desk", request, ParseError(method))

    assert rejects.read(kept.id).body == body


def test_reject_is_for_its_owner_only(tmp_path):
    """Folder and file are closed to other users, and no half-written file is left."""
    rejects = Rejects(tmp_path / "a" / "rejects")

    kept = rejects.keep("desk", REQUEST, WRONG)

    assert rejects.folder.stat().st_mode & 0o777 == 0o700
    assert rejects.path(kept.id).stat().st_mode & 0o777 == 0o600
    assert [one.name for one in rejects.folder.iterdir()] == [f"{kept.id}.json"]


def test_reject_shows_nothing_personal(tmp_path):
    """The `repr` of a reject, which may get into a log, has neither body nor headers, address or error."""
    kept = Rejects(tmp_path).keep("desk", REQUEST, WRONG)

    assert not any(word in repr(kept) for word in ("raw", "X-Sign", "two", "a=b", "ann@", "garbage"))


def test_same_request_is_the_same_reject(tmp_path):
    """Another time and other headers make no other reject; another channel, method, query or body does."""
    rejects = Rejects(tmp_path)
    same = evolve(REQUEST, received_at=NOON.replace(year=2027), headers=Headers())
    others = [evolve(REQUEST, **one) for one in ({"method": "GET"}, {"query": {"a": "c"}}, {"body": b""})]

    first, again = (rejects.keep("desk", one, WRONG).id for one in (REQUEST, same))
    different = {rejects.keep("desk", one, WRONG).id for one in others} | {rejects.keep("fax", REQUEST, WRONG).id}

    assert again == first
    assert len(different - {first}) == 4


def test_folder_that_is_full_takes_nothing_new(tmp_path):
    """Beyond its capacity a folder refuses another request, and takes one that it has."""
    rejects = Rejects(tmp_path, capacity=1)
    rejects.keep("desk", REQUEST, WRONG)

    with pytest.raises(TransientError, match=r"1 rejects of channel 'desk'.*convsdk rejects") as refusal:
        rejects.keep("desk", evolve(REQUEST, body=b""), WRONG)

    assert refusal.value.retry_after_s == 60
    assert rejects.keep("desk", REQUEST, WRONG).id in set(rejects.ids())


def test_channel_that_is_noisy_leaves_room_for_others(tmp_path):
    """Each channel may have as many rejects as the capacity says, whatever others have."""
    rejects = Rejects(tmp_path, capacity=1)
    rejects.keep("desk", REQUEST, WRONG)

    other = rejects.keep("fax", REQUEST, WRONG)

    assert other.id in set(rejects.ids())


def test_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    """A file is there whole or not at all: what breaks before the rename changes nothing."""
    rejects = Rejects(tmp_path)
    kept = rejects.keep("desk", REQUEST, WRONG)

    def fail(_number):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space"):
        rejects.keep("desk", REQUEST, ParseError("another"))

    assert rejects.read(kept.id).error == "that is garbage"
    assert len(list(tmp_path.iterdir())) == 1


def test_file_and_folder_are_synced(tmp_path, monkeypatch):
    """The content is on disk before it gets its name, and its name before `keep` returns."""
    steps = []
    sync, replace = os.fsync, Path.replace
    monkeypatch.setattr(
        os, "fsync", lambda number: (steps.append(str(Path(f"/proc/self/fd/{number}").readlink())), sync(number))
    )
    monkeypatch.setattr(Path, "replace", lambda self, target: (steps.append("named"), replace(self, target)))

    Rejects(tmp_path).keep("desk", REQUEST, WRONG)

    assert steps[0].endswith(".tmp")
    assert steps[1:] == ["named", str(tmp_path)]


@pytest.mark.parametrize("name", ["0" * 24, "../secret", "", "0" * 23])
def test_reject_that_is_not_there_is_told(tmp_path, name):
    """An id that names none, or a way out of the folder, finds nothing."""
    (tmp_path / "secret.json").write_text("{}")
    rejects = Rejects(tmp_path / "rejects")
    rejects.folder.mkdir()

    with pytest.raises(NotFound, match="holds no reject"):
        rejects.read(name)


def test_spoilt_file_is_told_and_others_are_nobodys_business(tmp_path):
    """A file that is no reject is told by its name; what has another name is left alone."""
    (tmp_path / f"{'0' * 24}.json").write_text(json.dumps({"id": 1}))
    (tmp_path / "mail.json").write_text("{}")
    rejects = Rejects(tmp_path)

    assert list(rejects.ids()) == ["0" * 24]
    with pytest.raises(ParseError, match=f"{'0' * 24}.json is no reject"):
        rejects.read("0" * 24)


def test_removed_reject_is_gone(tmp_path):
    """What was taken in after all is removed, once or twice."""
    rejects = Rejects(tmp_path)
    kept = rejects.keep("desk", REQUEST, WRONG)

    for _ in range(2):
        rejects.remove(kept)

    assert list(rejects.ids()) == []
