import base64
import struct
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pace import is_linear

from convsdk.channels.email import EmailChannel, EmailSettings
from convsdk.channels.email.tnef import unpacked
from convsdk.core.ports import Request

STRING, UNICODE, BINARY, NUMBER = 0x1E, 0x1F, 0x102, 0x03


def _attribute(level, number, value):
    return struct.pack("<BII", level, number, len(value)) + value + struct.pack("<H", sum(value) & 0xFFFF)


def _property(key, kind, value, *, name=b""):
    head = struct.pack("<HH", kind, key) + name
    if kind == NUMBER:
        return head + struct.pack("<I", value)
    return head + struct.pack("<II", 1, len(value)) + value + b"\0" * (-len(value) % 4)


def _properties(*each):
    return struct.pack("<I", len(each)) + b"".join(each)


def _utf16(text):
    return f"{text}\0".encode("utf-16-le")


def _file(name, content, *properties, title=b"ORDER~1.PDF\0"):
    return (
        _attribute(2, 0x00069002, b"\1\0" + b"\0" * 12)
        + _attribute(2, 0x00018010, title)
        + _attribute(2, 0x0006800F, content)
        + _attribute(2, 0x00069005, _properties(_property(0x3707, UNICODE, _utf16(name)), *properties))
    )


def _winmail(*attributes):
    return struct.pack("<IH", 0x223E9F78, 1) + b"".join(attributes)


NAMED = b"\7" * 16 + struct.pack("<II", 1, 6) + "abc".encode("utf-16-le") + b"\0\0"
WINMAIL = _winmail(
    _attribute(1, 0x00089006, struct.pack("<I", 0x00010000)),
    _attribute(1, 0x00069007, struct.pack("<II", 1252, 0)),
    _attribute(
        1,
        0x00069003,
        _properties(
            _property(0x0017, NUMBER, 1),
            _property(0x8001, UNICODE, _utf16("x"), name=NAMED),
            _property(0x8002, NUMBER, 7, name=b"\7" * 16 + struct.pack("<II", 0, 0x8501)),
            struct.pack("<HHIII", 0x1003, 0x0050, 2, 1, 2),
            struct.pack("<HHI", 0x101E, 0x0051, 2)
            + struct.pack("<I", 2)
            + b"a\0\0\0"
            + struct.pack("<I", 2)
            + b"b\0\0\0",
            _property(0x1000, STRING, "Grüße, the chair is broken.\0".encode("cp1252")),
            _property(0x1013, BINARY, "<p>Grüße, the <b>chair</b> is broken.</p>".encode()),
        ),
    ),
    _file("Rechnung März.pdf", b"%PDF-1.7", _property(0x370E, STRING, b"application/pdf\0")),
    _file("logo.png", b"\x89PNG", _property(0x3712, UNICODE, _utf16("<logo@shop.example>"))),
    _file("", b"other", title=b"notes.txt\0"),
)


def _parse(content, *, media_type="application/ms-tnef", name="winmail.dat", text=""):
    raw = (
        b"From: Ann <ann@mail.example>\r\nMessage-ID: <1@mail.example>\r\n"
        b"Content-Type: multipart/mixed; boundary=b\r\n\r\n"
        b"--b\r\n\r\n" + text.encode() + b"\r\n"
        b"--b\r\nContent-Type: " + f"{media_type}; name={name}".encode() + b"\r\n"
        b"Content-Transfer-Encoding: base64\r\n\r\n" + base64.encodebytes(content) + b"\r\n--b--\r\n"
    )
    (event,) = EmailChannel("support", EmailSettings(address="help@shop.example")).parse(
        Request(received_at=datetime(2026, 1, 5, tzinfo=UTC), body=raw)
    )
    return event


@pytest.mark.parametrize("media_type", ["application/ms-tnef", "application/octet-stream"])
def test_attachments_come_out_of_a_winmail(media_type):
    """What Outlook packed is attached, by its long name, with its type and content id; the winmail.dat is not."""
    event = _parse(WINMAIL, media_type=media_type, text="The chair is broken.")

    assert [(one.name, one.media_type, one.content_id, one.content) for one in event.attachments] == [
        ("Rechnung März.pdf", "application/pdf", "", b"%PDF-1.7"),
        ("logo.png", "image/png", "logo@shop.example", b"\x89PNG"),
        ("notes.txt", "text/plain", "", b"other"),
    ]
    assert (event.text, event.html) == ("The chair is broken.", "<p>Grüße, the <b>chair</b> is broken.</p>")


def test_text_comes_out_of_a_winmail_where_there_is_no_other():
    """A mail that says nothing but in its winmail.dat says that."""
    assert _parse(WINMAIL).text == "Grüße, the chair is broken."


def test_names_and_types_in_a_winmail_are_made_safe():
    """What is packed is as little believed as what is attached."""
    hostile = _winmail(_file("..\\..\\autoexec.bat\r\n", b"", _property(0x370E, STRING, b"text/HTML\0")))

    (attachment,) = _parse(hostile).attachments

    assert (attachment.name, attachment.media_type) == ("autoexec.bat", "application/octet-stream")


@pytest.mark.parametrize(
    "content", [b"", b"no winmail", WINMAIL[:6], _winmail(), _winmail(_attribute(1, 0x69003, b""))]
)
def test_winmail_without_anything_in_it_is_attached_as_it_is(content):
    """Where nothing can be taken out, nothing is taken away."""
    assert [(one.name, one.content) for one in _parse(content).attachments] == [("winmail.dat", content)]


def test_winmail_that_was_cut_off_gives_what_came_before():
    """A broken end spoils nothing that is whole."""
    cut = WINMAIL[:-40]

    assert [one.name for one in unpacked(cut).attachments][:1] == ["Rechnung März.pdf"]


def test_many_attachments_in_a_winmail_are_too_many():
    """A hundred is as many as a mail may have, however it has them."""
    assert len(unpacked(_winmail(*[_file("a", b"")] * 150)).attachments) == 100
    assert "unreadable" not in _parse(_winmail(*[_file("a", b"")] * 100)).detail


@given(st.lists(st.tuples(st.integers(0, len(WINMAIL) - 1), st.binary(min_size=1, max_size=4)), max_size=8), st.data())
def test_any_winmail_can_be_read(changes, data):
    """Whatever bytes are in it, something or nothing comes out, and no error."""
    spoilt = bytearray(WINMAIL)
    for at, new in changes:
        spoilt[at : at + len(new)] = new

    found = unpacked(bytes(spoilt[: data.draw(st.integers(0, len(spoilt)))]))

    assert sum(len(one.content) for one in found.attachments) <= 2 * len(WINMAIL)


@pytest.mark.parametrize(
    "piece",
    [
        _attribute(1, 0x69003, _properties(*[_property(0x1000, STRING, b"a\0")] * 9)),
        _attribute(1, 0x69003, struct.pack("<IHHI", 0xFFFFFFFF, 0x101E, 1, 0xFFFFFFFF) + b"\0" * 400),
        _file("a", b"b"),
        b"\0" * 16,
    ],
)
def test_winmail_is_read_in_linear_time(piece):
    """What somebody made to take long takes no longer than its size."""
    assert is_linear(unpacked, lambda size: _winmail(piece * (size // len(piece))))


def test_one_large_property_set_is_read_in_linear_time():
    """Counts that promise more than there is are not believed."""
    assert is_linear(
        unpacked,
        lambda size: _winmail(_attribute(1, 0x69003, struct.pack("<IHHI", 9, 0x101E, 1, 2**32 - 1) + b"\0" * size)),
    )
