"""What no writer of a mail can do: raise, take long, take much, or be read in two ways."""

import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import hostile_mails
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pace import is_linear

from convsdk.channels.email.mime import MAX_BYTES

PROCESSOR_S = 120
MOST_MIB = 300
SLOWEST_S = 10


@pytest.mark.skipif(sys.platform != "linux", reason="other systems count memory in other units")
@pytest.mark.parametrize("seed", [1, 2])
def test_hostile_mails_are_read_within_bounds(seed):
    """Several hundred mails by a seed raise nothing, are the same twice, and stay below 300 MiB and 10 s each."""
    out = subprocess.run(
        [sys.executable, hostile_mails.__file__, str(seed), "250"],
        check=True,
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CPU, (PROCESSOR_S, PROCESSOR_S)),
        cwd=Path(hostile_mails.__file__).parent,
    )

    told = json.loads(out.stdout)
    assert sum(told["mails"].values()) == 250
    assert told["mails"]["read"] > 100
    assert told["mib"] < MOST_MIB
    assert told["slowest_s"] < SLOWEST_S


def test_seed_gives_the_same_mails():
    """What a search has found can be found again."""
    first, again = (list(hostile_mails.mails(7, 20)) for _ in range(2))

    assert first == again
    assert first != list(hostile_mails.mails(8, 20))


@given(seed=st.integers(0, 2**32))
@settings(max_examples=100, deadline=None)
def test_any_hostile_mail_is_read_the_same_twice(seed):
    """No seed gives a mail that raises anything but ParseError, or that gives something else the second time."""
    (mail,) = hostile_mails.mails(seed, 1)

    event = hostile_mails.read(mail)

    assert event == hostile_mails.read(mail)


def spam(field, unit):
    """Give a maker of mails with one long field, up to what a header may have."""
    return lambda size: b"From: a@b.example\n" + field + b": " + unit * (size * 6 // 10 // len(unit)) + b"\n\nHi\n"


def nested(size):
    """Make a mail of that size on the deepest level that is read."""
    opened = "".join(f"Content-Type: multipart/mixed; boundary=b{n}\n\n--b{n}\n" for n in range(30))
    return f"From: a@b.example\n{opened}\n".encode() + b"--b0 is no end\n" * (size // 15)


def nested_too_deep(size):
    """Make a mail of as many levels as have room."""
    opened = (f"Content-Type: multipart/mixed; boundary=b{n}\n\n--b{n}\n" for n in range(size // 52))
    return f"From: a@b.example\n{''.join(opened)}".encode()


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(spam(b"Content-Type", b'; a="b"'), id="quoted parameters"),
        pytest.param(spam(b"Subject", b"=?utf-8?q?a?= "), id="encoded words"),
        pytest.param(spam(b"References", b"<a@b> "), id="references"),
        pytest.param(nested, id="deepest level"),
        pytest.param(nested_too_deep, id="too many levels"),
    ],
)
def test_hostile_mail_costs_as_much_as_it_is_long(make):
    """Parameters, words and levels that are quadratic for the usual parsers cost four times as much for four."""
    assert is_linear(hostile_mails.read, make)


def field(name, *values, between=b", "):
    """Give a mail with one long field."""
    return b"From: a@b.example\n" + name + b": " + between.join(values) + b"\n\nHi\n"


ADDRESSES = [b'"Ann, %d" <a%d@b.example>' % (number, number) for number in range(8_000)]
PARAMETERS = [b"a=b"] * 50_000


@pytest.mark.parametrize(
    "mail",
    [
        pytest.param(field(b"To", *ADDRESSES), id="8,000 addresses in To"),
        pytest.param(field(b"Cc", *ADDRESSES), id="8,000 addresses in Cc"),
        pytest.param(field(b"Reply-To", *ADDRESSES), id="8,000 addresses in Reply-To"),
        pytest.param(field(b"X", b"y").replace(b"a@b.example", b", ".join(ADDRESSES)), id="8,000 addresses in From"),
        pytest.param(
            field(b"Content-Type", b"text/plain", *PARAMETERS, between=b";"), id="50,000 parameters of a type"
        ),
        pytest.param(
            field(b"Content-Disposition", b"attachment", *PARAMETERS, between=b";"), id="50,000 parameters of a file"
        ),
        pytest.param(nested_too_deep(5_000_000), id="almost 100,000 levels"),
        pytest.param(
            b"From: a@b.example\n" + b"Content-Type: message/rfc822\n\n" * 100_000, id="100,000 mails in mails"
        ),
    ],
)
def test_what_stalls_the_usual_parsers_takes_less_than_a_second(mail):
    """Inputs on which `email.policy.default` takes many seconds, or recurses too deep, are read at once."""
    taken_s = []
    for _ in range(3):
        began = time.process_time()
        (event,) = hostile_mails.read(mail)
        taken_s.append(time.process_time() - began)

    assert event.text in {"Hi\n", "could not be read"} or event.attachments
    assert min(taken_s) < 1


def body(kind, unit, coding=b"8bit"):
    """Give a maker of mails with a body of the same thing again and again."""
    head = b"From: a@b.example\nContent-Type: " + kind + b"\nContent-Transfer-Encoding: " + coding + b"\n\n"
    return lambda size: head + unit * ((size - len(head)) // len(unit))


def pieces(kind, unit):
    """Give a maker of mails with as many parts as are read."""
    head = b"From: a@b.example\nContent-Type: multipart/mixed; boundary=b\n\n"
    part = b"--b\nContent-Type: " + kind + b"\n\n"

    def make(size):
        return head + (part + unit * ((size - 50_000) // 500 // len(unit)) + b"\n") * 500 + b"--b--\n"

    return make


TEXT, FLOWED, HTML = b"text/plain; charset=utf-8", b"text/plain; format=flowed; delsp=yes", b"text/html; charset=utf-8"
COSTLIEST = {
    "flowed lines": body(FLOWED, b"> a \n"),
    "parts of HTML": pieces(HTML, b"<p>a"),
    "near boundaries": body(b"multipart/mixed; boundary=b", b"--bx\n"),
}
BODIES = COSTLIEST | {
    "lines": body(TEXT, b"\n"),
    "quotes": body(TEXT, b">> a\n"),
    "introductions": body(TEXT, b"On Mon, Ann wrote:\n"),
    "no UTF-8": body(TEXT, b"\xff\xed\xa0\x80"),
    "no charset": body(b"text/plain; charset=x", b"\xff\xed\xa0\x80"),
    "two charsets in turn": body(b"text/plain; charset=iso-2022-jp", b'\x1b$B$"\x1b(B'),
    "quoted-printable": body(TEXT, b"= \t", b"quoted-printable"),
    "base64": body(TEXT, b"=Y!W\n", b"base64"),
    "uuencode": body(TEXT, b"begin 644 a\n#0V%T\nend\n", b"x-uuencode"),
    "elements": body(HTML, b"<div>"),
    "open comments": body(HTML, b"<!--"),
    "open angles": body(HTML, b"<"),
    "quotes of HTML": body(HTML, b"<blockquote>a"),
    "character references": body(HTML, b"&#1;&amp;&x"),
    "parts of text": pieces(TEXT, b"a b\n"),
    "closed boundaries": body(b"multipart/mixed; boundary=b", b"--b--\n"),
}


@pytest.mark.once
@pytest.mark.parametrize("make", BODIES.values(), ids=BODIES)
def test_hostile_body_costs_as_much_as_it_is_long(make):
    """Whatever a body is full of, four times as much of it costs four times as much."""
    assert is_linear(hostile_mails.read, make)


@pytest.mark.once
@pytest.mark.parametrize("make", COSTLIEST.values(), ids=COSTLIEST)
def test_costliest_mail_at_the_limit_takes_less_than_ten_seconds(make):
    """The costliest shapes, as large as a mail may be, are read within the processor's time that a mail may take."""
    mail = make(MAX_BYTES)

    began = time.process_time()
    events = hostile_mails.read(mail)

    assert time.process_time() - began < SLOWEST_S
    assert len(mail) > MAX_BYTES - 200_000
    assert "unreadable" not in events[0].detail
