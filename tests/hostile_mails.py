"""Mails that nobody writes, made of those in `tests/mail` by a seed: the same seed gives the same mails.

``python tests/hostile_mails.py SEED COUNT`` reads so many and tells what came of them, for a longer search than that of
the tests.
"""

import json
import random
import sys
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from convsdk.channels.email.parse import parse_mail
from convsdk.channels.email.settings import EmailSettings
from convsdk.core.events import MessageReceived, Noted
from convsdk.core.ports import Envelope
from convsdk.errors import ParseError

FOLDER = Path(__file__).with_name("mail")
SETTINGS = EmailSettings(
    address="in-7f3a@shop.example",
    own=("sales@shop.example",),
    relays=("form@shop.example",),
    authserv_id="mx.shop.example",
)
AT = datetime(2026, 1, 5, tzinfo=UTC)
LARGEST = 3_000_000

_TOKENS = (
    *(b"From: ", b"From: sales@shop.example\r\n", b"To: in-7f3a+abcdefghij234567@shop.example\r\n", b"Sender: a\r\n"),
    *(b"Content-Type: ", b"multipart/mixed; boundary=", b"multipart/report; report-type=delivery-status; boundary=b"),
    *(
        b"message/rfc822\r\n\r\n",
        b"text/html; charset=",
        b"utf-16",
        b"utf-7",
        b"idna",
        b"unicode_escape",
        b"hz",
        b"gbk",
    ),
    *(b"Content-Transfer-Encoding: base64\r\n", b"Content-Transfer-Encoding: quoted-printable\r\n", b"=?utf-8?q?=00?="),
    *(b"=?", b"?=", b"=?gb18030?b?", b"\r\n", b"\n", b"\r", b"\r\n\r\n", b"\0", b"\xff", b"\xed\xa0\x80", b"\x1b$B"),
    *(b"--b", b"--b--", b"\r\n--", b"<", b">", b"@", b"(", b")", b'"', b"\\", b";", b",", b"=", b" ", b"\t", b">> "),
    *(b"<div>", b"<blockquote>", b"<!--", b"<style>", b"&#xD800;", b"&#0;", b"<a href=", b"</div>", b"<![CDATA["),
    *(b"On Mon, Ann wrote:\n", b"-----Original Message-----\n", b"##- x -##\n", b"-- \n", b"Fwd: ", b"a@b.example, "),
    *(b"filename*0*=utf-8''%00", b";a=", b"References: <", b"dmarc=pass", b"X: y\r\n", b"In-Reply-To: <a@b> <c"),
)


def mails(seed, count):
    """Give `count` mails by that seed."""
    chance = random.Random(seed)  # noqa: S311  (the same at every run)
    sound = [file.read_bytes() for file in sorted(FOLDER.glob("*.eml"))]
    for _ in range(count):
        mail = chance.choice(sound)
        for _ in range(chance.randint(1, 6)):
            mail = chance.choice(_CHANGES)(chance, mail, sound)[:LARGEST]
        yield mail


def _span(chance, mail):
    start = chance.randint(0, len(mail))
    return start, min(len(mail), start + chance.choice((1, 8, 60, 400, 5_000)))


def _cut(chance, mail, _):
    start, end = _span(chance, mail)
    return mail[:start] + mail[end:]


def _put_in(chance, mail, _):
    start, end = _span(chance, mail)
    return mail[:start] + chance.choice(_TOKENS) + mail[chance.choice((start, end)) :]


def _repeat(chance, mail, _):
    start, end = _span(chance, mail)
    unit = chance.choice((mail[start:end], chance.choice(_TOKENS), chance.choice(_TOKENS) + chance.choice(_TOKENS)))
    times = chance.choice((3, 40, 2_000, 50_000))
    return mail[:start] + unit * min(times, 1_000_000 // (len(unit) or 1)) + mail[start:]


def _cross(chance, mail, sound):
    other = chance.choice(sound)
    return mail[: chance.randint(0, len(mail))] + other[chance.randint(0, len(other)) :]


def _spoil(chance, mail, _):
    spoilt = bytearray(mail)
    for _ in range(chance.choice((1, 10, 100)) if spoilt else 0):
        spoilt[chance.randrange(len(spoilt))] = chance.randrange(256)
    return bytes(spoilt)


def _end_lines(chance, mail, _):
    return mail.replace(b"\r\n", b"\n").replace(b"\n", chance.choice((b"\r\n", b"\r", b"\n\r", b"\n\n")))


def _wrap(chance, mail, _):
    depth = chance.choice((1, 3, 29, 31, 400))
    kinds = ("multipart/mixed", "multipart/alternative", "multipart/related", "multipart/report")
    for level in range(depth):
        boundary = f"b{level}" if chance.random() < 0.9 else "b"
        kind = chance.choice(kinds)
        mail = f"From: a@b.example\r\nContent-Type: {kind}; boundary={boundary}\r\n\r\n--{boundary}\r\n".encode() + mail
    return mail


def _enclose(chance, mail, sound):
    other = chance.choice(sound)
    head = b"From: sales@shop.example\r\nSubject: Fwd: x\r\nContent-Type: multipart/mixed; boundary=q\r\n\r\n--q\r\n"
    return head + b"Content-Type: message/rfc822\r\n\r\n" + mail + b"\r\n--q\r\n\r\n" + other + b"\r\n--q--\r\n"


_CHANGES = (_cut, _put_in, _put_in, _repeat, _cross, _spoil, _end_lines, _wrap, _enclose)


def read(mail, envelope=None):
    """Give the events of a mail, none where it is none; whatever else is raised is a mistake of the parser."""
    try:
        return parse_mail(mail, settings=SETTINGS, received_at=AT, envelope=envelope)
    except ParseError:
        return ()


def main(seed, count):
    """Read mails by that seed, twice each, and tell what came of them."""
    told, slowest_s = Counter(), 0.0
    for number, mail in enumerate(mails(seed, count)):
        envelope = (None, Envelope(), Envelope(sender=None, recipients=("in-7f3a+abcdefghij234567@shop.example",)))
        began = time.process_time()
        events = read(mail, envelope[number % 3])
        slowest_s = max(slowest_s, time.process_time() - began)
        if events != read(mail, envelope[number % 3]):
            raise SystemExit(f"mail {number} of seed {seed} gives something else the second time")
        msgspec.json.encode(events)
        details = [one.detail for one in events if isinstance(one, MessageReceived | Noted)]
        told["none" if not events else "unreadable" if "unreadable" in details[0] else "read"] += 1
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    mib = int(status["VmHWM"].split()[0]) // 1024
    print(json.dumps({"mails": told, "mib": mib, "slowest_s": round(slowest_s, 2)}))  # noqa: T201  (what it is for)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
