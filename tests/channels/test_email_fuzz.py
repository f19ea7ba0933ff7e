"""What no writer of a mail can do: raise, take long, take much, or be read in two ways."""

import json
import resource
import subprocess
import sys
from pathlib import Path

import hostile_mails
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pace import is_linear

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
