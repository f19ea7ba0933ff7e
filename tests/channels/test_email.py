import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pace import is_linear

from convsdk.channels import email
from convsdk.channels.email import EmailChannel, convsdk_channels
from convsdk.channels.email.parse import safe_name
from convsdk.channels.email.sender import read_mailbox
from convsdk.channels.email.settings import EmailSettings
from convsdk.core.events import MessageReceived, Noted
from convsdk.core.model import Trust
from convsdk.core.ports import Envelope, Request
from convsdk.errors import ParseError
from convsdk.hookspecs import Context

FOLDER = Path(email.__file__).parent / "golden"
MAILS = {file.stem: file.read_bytes() for file in sorted(FOLDER.glob("*.eml"))}
NOW = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)


def _parse(raw, envelope=None, **changed):
    wanted = {"address": "in-7f3a@shop.example", "own": ("sales@shop.example",), "authserv_id": "mx.shop.example"}
    channel = EmailChannel("support", EmailSettings(**wanted | changed))
    event, *_ = channel.parse(Request(received_at=NOW, body=raw, envelope=envelope))
    return event


def _mail(*fields, body="Hello."):
    return "\r\n".join((*fields, "", body)).encode()


def _addresses(event):
    return [claim.value for claim in event.hint.identifiers]


def test_channel_comes_in_through_the_hook():
    """The plugin brings the e-mail channel and nothing else."""
    assert convsdk_channels(Context(version="0")) == [EmailChannel]


def test_human_mail_is_read_completely():
    """Sender, subject, thread and both texts come out of an ordinary mail, at the time of receipt."""
    event = _parse(MAILS["human"])

    assert _addresses(event) == ["Ann@mail.example"]
    assert [(trait.name, trait.value, trait.trust) for trait in event.hint.traits] == [
        ("name", "Ann Müller", Trust.CHANNEL)
    ]
    assert (event.hint.may_create, event.hint.how, event.hint.id) == (True, "inbound e-mail", "")
    assert event.subject == "Wo ist mein Paket? 📦"
    assert (event.text, event.html) == ("Grüße, Ann", "<p>Grüße, <b>Ann</b></p>")
    assert event.external_id == "<one@mail.example>"
    assert event.references == ("<third@shop.example>", "<second@shop.example>", "<first@shop.example>")
    assert (event.at, event.is_automatic, event.detail["class"]) == (NOW, False, "human")
    assert event.detail["date"] == "Mon, 2 Mar 2026 09:00:00 +0000"


def test_attachments_are_listed_with_safe_names():
    """An attachment has its decoded name without folders, its type, its size and its content id."""
    pdf, logo = _parse(MAILS["human"]).attachments

    assert (pdf.name, pdf.media_type, pdf.size) == ("Rechnung €.pdf", "application/pdf", 8)
    assert (logo.name, logo.media_type, logo.content_id) == ("logo.png", "image/png", "logo@mail.example")


@pytest.mark.parametrize(
    "name", ["display_name_is_an_address", "bare_phrase_is_an_address", "encoded_word_is_an_address"]
)
def test_address_in_a_display_name_is_not_the_sender(name):
    """Only the mailbox counts, and a display name that reads as an address is not shown as a name."""
    event = _parse(MAILS[name])

    assert _addresses(event) == ["evil@x.test"]
    assert event.hint.traits == ()


@pytest.mark.parametrize("mark", ["@", "\uff20", "\ufe6b"])
def test_name_with_a_look_alike_of_an_address_is_not_shown(mark):
    """A wide or a small commercial at makes an address of a display name as the plain one does."""
    event = _parse(_mail(f"From: ceo{mark}bank.test <evil@x.test>"))

    assert _addresses(event) == ["evil@x.test"]
    assert event.hint.traits == ()


@pytest.mark.parametrize(
    "name", ["only_an_encoded_word", "encoded_word_in_address", "two_from_fields", "two_mailboxes", "two_angles"]
)
def test_ambiguous_sender_makes_no_claim(name):
    """A mail without exactly one mailbox is kept, and says nothing about a person."""
    event = _parse(MAILS[name])

    assert (event.hint.identifiers, event.hint.traits, event.hint.may_create) == ((), (), False)
    assert event.detail["review"] == "its From names no single mailbox"
    assert event.text == "Hello.\n"


@pytest.mark.parametrize(
    "fields", [("From : a@b.example", "From: c@d.example"), ("X: y", "From\t: a@b.example", "from:c@d.example")]
)
def test_from_in_the_obsolete_syntax_is_a_from_too(fields):
    """A blank before the colon, which others read over, hides no second sender."""
    event = _parse(_mail(*fields))

    assert event.detail["review"] == "its From names no single mailbox"


def test_blank_before_the_colon_is_read_over():
    """A field is what it is with a blank before its colon, and what follows a broken header is kept to the byte."""
    event = _parse(b"From : a@b.example\nSubject  : Hi\nno field\nX : y\n\nEnd.")

    assert (_addresses(event), event.subject) == (["a@b.example"], "Hi")
    assert event.text == "no field\nX : y\n\nEnd."


def test_missing_from_makes_no_claim():
    """A mail without a From field is kept without a sender."""
    event = _parse(MAILS["no_from"])

    assert event.hint.identifiers == ()
    assert event.detail["review"] == "it has no From field"


@pytest.mark.parametrize(
    ("value", "address", "name"),
    [
        ("ann@mail.example", "ann@mail.example", ""),
        ("Ann (at home (or not)) <ann@mail.example> (really)", "ann@mail.example", "Ann"),
        ('"Doe, \\"Jo\\" (x)" <jo@mail.example>', "jo@mail.example", 'Doe, "Jo" (x)'),
        ("=?utf-8?Q?Doe,_Jo?= <jo@mail.example>", "jo@mail.example", "Doe, Jo"),
        ('"john"@mail.example', "john@mail.example", ""),
        ("Ann\r\n <ann@mail.example>", "ann@mail.example", "Ann"),
    ],
)
def test_one_mailbox_is_read(value, address, name):
    """Comments, quotes, folding and encoded words around one mailbox do no harm."""
    sender = read_mailbox(value)

    assert (sender.address, sender.name) == (address, name)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "<>",
        "ann",
        "a@b@c.example",
        "ann@mail.example evil@x.test",
        "<ann@mail.example> evil@x.test",
        'x"john"@mail.example',
        '"ann@mail.example',
        "ann@mail.example (",
        "ann@mail.example)",
        "team: ann@mail.example;",
        "<@relay.test:ann@mail.example>",
        "<ann@mail.example\x00>",
        "<ann @mail.example>",
        "Doe, Ann <ann@mail.example>",
        "\udcff@mail.example",
    ],
)
def test_anything_else_is_no_mailbox(value):
    """Where programs could read two different senders, there is none."""
    assert read_mailbox(value) is None


@pytest.mark.parametrize(
    ("results", "trust"),
    [
        ("mx.shop.example; dmarc=pass header.from=mail.example", Trust.CHANNEL),
        ("MX.shop.example 1; dkim=pass header.d=mail.example", Trust.CHANNEL),
        ("mx.shop.example; dkim=fail header.d=mail.example; dkim=pass header.d=Mail.Example", Trust.CHANNEL),
        ("mx.shop.example; dkim=pass header.i=@mail.example header.s=s1", Trust.CHANNEL),
        ("mx.shop.example; dkim=pass header.d=x.test header.i=@mail.example", Trust.ASSERTED),
        ("mx.shop.example; dkim=pass header.i=ann@mail.example.x.test", Trust.ASSERTED),
        ("mx.shop.example; dkim=pass header.d=example", Trust.ASSERTED),
        ("mx.shop.example; dkim=pass header.d=il.example", Trust.ASSERTED),
        ("mx.shop.example; dkim=pass header.d=sub.mail.example", Trust.ASSERTED),
        ("mx.shop.example; dmarc=pass header.from=x.test", Trust.ASSERTED),
        ("mx.shop.example; spf=pass (dmarc=pass header.from=mail.example) smtp.mailfrom=x.test", Trust.ASSERTED),
        ('mx.shop.example; spf=fail reason="; dmarc=pass header.from=mail.example"', Trust.ASSERTED),
        ("mx.shop.example; dmarc=pass header.from=mail.example (", Trust.ASSERTED),
        ("mx.shop.example.evil.test; dmarc=pass header.from=mail.example", Trust.ASSERTED),
        ("mx.shop.example; none", Trust.ASSERTED),
    ],
)
def test_trust_follows_the_authentication_of_the_from_domain(results, trust):
    """Only a pass that is aligned with the From, by the own mail server, attests the sender."""
    event = _parse(_mail(f"Authentication-Results: {results}", "From: ann@mail.example"))

    assert event.hint.identifiers[0].trust is trust


def test_sender_whose_domain_disowns_the_mail_is_reviewed():
    """Where DMARC failed, nothing is claimed about a person, whatever signed the mail."""
    results = (
        "Authentication-Results: mx.shop.example; dmarc=fail header.from=mail.example; dkim=pass header.d=mail.example"
    )

    event = _parse(_mail(results, "From: Ann <ann@mail.example>"))

    assert (event.hint.identifiers, event.hint.traits, event.hint.may_create) == ((), (), False)
    assert (event.detail["from"], "DMARC" in event.detail["review"]) == ("ann@mail.example", True)


def test_subdomain_of_the_signing_domain_is_attested():
    """A signature of the parent domain vouches for its subdomains."""
    results = "Authentication-Results: mx.shop.example; dkim=pass header.d=mail.example"

    event = _parse(_mail(results, "From: ann@sub.mail.example"))

    assert event.hint.identifiers[0].trust is Trust.CHANNEL


def test_only_the_topmost_results_of_the_own_server_count():
    """Results that the sender put below those of the own server are not believed."""
    event = _parse(
        _mail(
            "Authentication-Results: other.example; dmarc=pass header.from=mail.example",
            "Authentication-Results: mx.shop.example; dmarc=none header.from=mail.example",
            "Authentication-Results: mx.shop.example; dmarc=pass header.from=mail.example",
            "From: ann@mail.example",
        )
    )

    assert event.hint.identifiers[0].trust is Trust.ASSERTED


@pytest.mark.parametrize(
    "own", ["mx.shop.example; spf=pass smtp.helo=a(b", "mx.shop.example; spf=pass smtp.helo=a)b", "mx.shop.example;;;"]
)
def test_results_that_cannot_be_read_give_way_to_none_below(own):
    """Where a sender manages to spoil what the own server wrote, results below it are believed no more than else."""
    forged = "Authentication-Results: mx.shop.example; dmarc=pass header.from=mail.example"

    event = _parse(_mail(f"Authentication-Results: {own}", forged, "From: ann@mail.example"))

    assert event.hint.identifiers[0].trust is Trust.ASSERTED


def test_no_results_are_believed_without_a_configured_server():
    """Without `authserv_id`, every sender is only asserted."""
    event = _parse(MAILS["human"], authserv_id="")

    assert event.hint.identifiers[0].trust is Trust.ASSERTED


@pytest.mark.parametrize(
    ("name", "kind", "claims"),
    [
        ("automatic_answer", "automatic", ["ann@mail.example"]),
        ("newsletter", "list", ["news@mail.example"]),
        ("list", "list", ["bob@mail.example"]),
        ("own", "own", []),
    ],
)
def test_mail_that_no_person_sent_makes_no_contact(name, kind, claims):
    """Automatic, list and own mail create nobody, and own mail names nobody."""
    event = _parse(MAILS[name])

    assert (event.detail["class"], event.is_automatic, event.hint.may_create) == (kind, True, False)
    assert _addresses(event) == claims
    assert event.hint.traits == ()
    assert event.detail["why"]


def test_bounce_is_no_message_and_nobodys():
    """A report is a line of the conversation of the mail that it is about, and says nothing about a person."""
    event = _parse(MAILS["bounce"])

    assert isinstance(event, Noted)
    assert (event.kind, event.hint, event.detail["class"]) == ("bounce", None, "bounce")


@pytest.mark.parametrize(
    ("field", "kind"),
    [
        ("Auto-Submitted: no", "human"),
        ("Auto-Submitted: auto-generated", "automatic"),
        ("X-Autoreply: yes", "automatic"),
        ("X-Autorespond: Away", "automatic"),
        ("Precedence: auto_reply", "automatic"),
        ("Precedence: Bulk", "list"),
        ("Precedence: junk", "list"),
        ("List-Id: <x.example>", "list"),
        ("X-Auto-Response-Suppress: All", "human"),
        ("Return-Path: <>", "bounce"),
    ],
)
def test_each_sign_of_a_program_is_known(field, kind):
    """Each header field that programs mark their mail with decides the class."""
    event = _parse(_mail(field, "From: ann@mail.example"))

    assert event.detail["class"] == kind


def test_null_return_path_of_the_envelope_is_a_bounce():
    """The envelope of a bounce has no sender, and outweighs the header."""
    raw = _mail("Return-Path: <ann@mail.example>", "From: ann@mail.example")

    assert _parse(raw, Envelope(sender="")).detail["class"] == "bounce"
    assert _parse(raw, Envelope(sender="ann@mail.example")).detail["class"] == "human"


def test_charsets_are_read_as_they_are_meant():
    """Mail that names too small a charset, an unknown one, or none is still text."""
    latin = _parse(MAILS["latin1_lies"])

    assert latin.text == "It costs 5 € – really\n"  # noqa: RUF001  (the dash is the fact under test)
    assert (latin.subject, latin.hint.traits[0].value) == ("café", "René")
    assert _parse(MAILS["gb2312"]).text == "镕你好\n"
    assert _parse(MAILS["unknown_charset"]).text == "Grüße\n"


@pytest.mark.parametrize(
    "charset", ["idna", "unicode_escape", "zlib", "rot13", "utf-7", "antigravity", "\x00", "x" * 999]
)
def test_strange_charset_reaches_no_codec(charset):
    """A name that is no charset is passed over, and no surrogate comes out of one that is."""
    raw = _mail("From: a@b.example", f'Content-Type: text/plain; charset="{charset}"', body="Hi +2AA- there")

    event = _parse(raw)

    assert event.text.startswith("Hi ")
    event.text.encode()


def test_line_that_is_no_field_begins_the_body():
    """A header that breaks off is kept up to there, whatever charset it names, and the rest is text."""
    raw = b'From: a@b.example\nContent-Type: text/plain; charset="\x00"\nno field \xff\nSubject: x\n\nEnd.'

    event = _parse(raw)

    assert (event.text, event.subject) == ("no field ÿ\nSubject: x\n\nEnd.", "")


def test_mail_without_message_id_keeps_its_id_on_another_way():
    """The id made from the content does not depend on what mail servers add or how they end lines."""
    raw = MAILS["no_message_id"]

    event = _parse(raw)
    added = b"Received: by b\nX-Other: 1\nDelivered-To: c\nReceived-SPF: pass\nEnvelope-To: c\nDelivery-Date: now\n"
    again = _parse(added + b"DKIM-Signature: v=1\nList-Id: <d>\n" + raw.replace(b"\r\n", b"\n"))

    assert event.external_id.startswith("sha256:")
    assert again.external_id == event.external_id
    assert _parse(raw + b"!").external_id != event.external_id


def test_attachments_bring_what_they_hold():
    """Each attachment has its bytes; past a limit, the one there is has the whole mail."""
    unreadable = _parts(101, "image/png")

    assert [(len(one.content), one.content[:4]) for one in _parse(MAILS["human"]).attachments] == [
        (one.size, start) for one, start in zip(_parse(MAILS["human"]).attachments, (b"%PDF", b"\x89PNG"), strict=True)
    ]
    assert [one.content for one in _parse(unreadable).attachments] == [unreadable]


def test_two_copies_of_a_mail_have_one_fingerprint():
    """What mail servers add, and how they encode, does not tell two copies apart; another sender or text does."""
    fields = ("From: Ann <ann@mail.example>", "Message-ID: <one@mail.example>")

    first = _parse(_mail(*fields, body="Yes, please."))
    copy = _parse(
        _mail("Received: by b", *fields, "Content-Transfer-Encoding: quoted-printable", body="Yes, =\r\nplease.")
    )
    others = [_parse(_mail(*fields, body="No.")), _parse(_mail("From: evil@x.test", fields[1], body="Yes, please."))]

    assert copy.fingerprint == first.fingerprint
    assert all(one.fingerprint != first.fingerprint for one in others)


def test_answer_by_address_or_by_id_names_the_same_message():
    """The reply address and the Message-ID that a message goes out with are made of one token."""
    config = EmailSettings(address="In-7f3a@shop.example")
    token = "abcdefghij234567"

    by_address = _parse(_mail("From: a@b.example", f"To: {config.reply_address(token)}"))
    by_id = _parse(_mail("From: a@b.example", f"In-Reply-To: {config.message_id(token)}"))

    assert by_address.references == by_id.references == (f"<{token}@shop.example>",)
    assert config.is_own_id(config.message_id(token))
    assert config.is_own(config.reply_address(token))


def test_multipart_without_its_boundary_keeps_its_text():
    """A body whose boundary never occurs is shown as it is."""
    assert _parse(MAILS["boundary_never_used"]).text == "Still here.\n"


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("../../etc/passwd", "passwd"),
        ("C:\\temp\\a.exe", "a.exe"),
        ("..", ""),
        ("a\x00\u202eb.txt", "ab.txt"),
        ('a<>:"|?*.txt', "a_______.txt"),
        ("x" * 300 + ".pdf", "x" * 146 + ".pdf"),
    ],
)
def test_file_name_is_made_safe(name, safe):
    """A name has no folders, controls, direction marks or reserved characters, and an end."""
    assert safe_name(name) == safe


def _nested(depth):
    opened = "".join(f"Content-Type: multipart/mixed; boundary=b{n}\n\n--b{n}\n" for n in range(depth))
    return f"From: a@b.example\nSubject: deep\n{opened}\nEnd.\n".encode()


def _parts(count, kind="text/plain"):
    part = f"--b\nContent-Type: {kind}\n\nx\n"
    return f"From: a@b.example\nContent-Type: multipart/mixed; boundary=b\n\n{part * count}--b--\n".encode()


def _spam(field, unit, before=b"From: a@b.example\n"):
    """Give a maker of mails with one long field, at most as long as a header may be."""
    return lambda size: before + field + b": " + unit * (size * 6 // 10 // len(unit)) + b"\n\nHi\n"


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(_nested(31), id="31 levels"),
        pytest.param(_nested(5_000), id="5,000 levels"),
        pytest.param(_parts(501), id="501 parts"),
        pytest.param(_parts(101, "image/png"), id="101 attachments"),
        pytest.param(b"From: a@b.example\n" + b"X: y\n" * 1_000 + b"\nHi", id="1,001 fields"),
        pytest.param(b"From: a@b.example\nX: " + b"y" * 262_144 + b"\n\nHi", id="header over 256 KiB"),
        pytest.param(b"From: a@b.example\n\n" + b"y" * 25 * 1024 * 1024, id="over 25 MB"),
    ],
)
def test_mail_past_a_limit_is_kept_without_a_contact(raw):
    """A mail that is too large, deep or fragmented becomes a message that says so, with the mail attached."""
    event = _parse(raw)

    assert event.text == "could not be read"
    assert (event.hint.identifiers, event.hint.may_create) == ((), False)
    assert event.attachments[0].size == len(raw)
    assert event.detail["unreadable"]


def test_mail_at_the_limits_is_read():
    """Thirty levels and a hundred attachments are still read."""
    assert _parse(_nested(30)).text == "End.\n"
    assert len(_parse(_parts(100, "image/png")).attachments) == 100


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(_spam(b"To", b"a@b.example, "), id="addresses"),
        pytest.param(_spam(b"From", b"a@b.example, ", b""), id="senders"),
        pytest.param(_spam(b"Content-Type", b"text/plain; a=b"), id="many parameters"),
        pytest.param(_spam(b"Content-Type", b";a="), id="bare parameters"),
        pytest.param(_spam(b"Cc", b'"'), id="quotes in addresses"),
        pytest.param(_spam(b"Cc", "\u00fc@\u00fc.example, ".encode()), id="international addresses"),
        pytest.param(_spam(b"Cc", b"a@b.example, " * 20 + b"\nCc: "), id="many fields of addresses"),
        pytest.param(_spam(b"List-Post", b"<mailto:"), id="list addresses"),
        pytest.param(_spam(b"Delivered-To", b"in-7f3a+"), id="open reply addresses"),
        pytest.param(_spam(b"Sender", b'"\\" ('), id="quotes"),
        pytest.param(_spam(b"Content-Type", b";"), id="semicolons"),
        pytest.param(_spam(b"Content-Type", b';a="'), id="open quotes"),
        pytest.param(_spam(b"Content-Disposition", b";filename*1*=a"), id="parameters"),
        pytest.param(_spam(b"Subject", b"=?a?q?"), id="open words"),
        pytest.param(_spam(b"Subject", b"=?a?q?a?="), id="words"),
        pytest.param(_spam(b"Subject", b" \t"), id="blanks"),
        pytest.param(_spam(b"References", b"<"), id="open ids"),
        pytest.param(_spam(b"Message-ID", b"<a"), id="open id"),
        pytest.param(_spam(b"Authentication-Results", b"mx.shop.example;(a"), id="comments"),
        pytest.param(_spam(b"Authentication-Results", b'mx.shop.example;a="'), id="results"),
        pytest.param(_spam(b"From", b"(", b""), id="brackets in From"),
        pytest.param(_spam(b"From", b'"\\"', b""), id="quotes in From"),
        pytest.param(_spam(b"From", b"=?a?q?", b""), id="words in From"),
        pytest.param(_spam(b"From", b"a@b.example <", b""), id="angles in From"),
        pytest.param(
            lambda size: b"From: a@b.c\nContent-Type: multipart/mixed; boundary=b\n\n" + b"--bx\n" * (2 * size),
            id="near boundaries",
        ),
    ],
)
def test_hostile_mail_takes_linear_time(make):
    """Input that is quadratic for the usual parsers costs four times as much for four times the length."""

    def read(raw):
        assert isinstance(_parse(raw), MessageReceived)

    assert is_linear(read, make)


_MEMORY = """
from datetime import UTC, datetime
from pathlib import Path
from convsdk.channels.email.parse import parse_mail
from convsdk.channels.email.settings import EmailSettings
words = b"ab cd " * (25 * 1024 * 1024 // 6 - 100) + "\U0001f4e6".encode()
raw = b"From: a@b.example\\nContent-Type: text/plain; charset=utf-8\\n\\n" + words
(event,) = parse_mail(raw, settings=EmailSettings(address="in@shop.example"), received_at=datetime.now(UTC))
assert len(event.text) > len(raw) - 100
# Not getrusage(), whose peak is that of the tests, too, which this process was forked from.
status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
print(int(status["VmHWM"].split()[0]) // 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems count memory in other units")
def test_largest_mail_takes_less_than_300_mib():
    """A mail at the limit, in the costliest kind of text, is read in bounded memory."""
    out = subprocess.run([sys.executable, "-c", _MEMORY], check=True, capture_output=True).stdout

    assert int(out) < 300


@pytest.mark.parametrize("raw", [b"", b"\r\n\r\n", b"no header here", b"GET / HTTP/1.1\r\nHost: x\r\n", b'{"a": 1}'])
def test_bytes_without_a_header_are_no_mail(raw):
    """What has no header field at all is refused, so that the bytes are kept aside."""
    with pytest.raises(ParseError, match="no mail"):
        _parse(raw)


@pytest.mark.parametrize("changed", [{"address": "nobody"}, {"own": ("sales@shop.example", "x")}])
def test_wrong_setting_is_named(changed):
    """An address that is none is refused with the name of its setting."""
    with pytest.raises(ValueError, match=next(iter(changed))):
        EmailSettings(**{"address": "a@shop.example"} | changed)


def _check(raw):
    try:
        event = _parse(raw)
    except ParseError:
        return
    assert event == _parse(raw)
    text = json.dumps(attrs.asdict(event), default=str, ensure_ascii=False)
    text.encode()
    assert "\\u0000" not in text


@given(raw=st.binary(max_size=400))
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_read_or_refused(raw):
    """No bytes raise anything but ParseError, and the answer can be stored and is the same again."""
    _check(raw)


_PIECES = [
    *(b"From: ", b"Subject: ", b"Content-Type: ", b"multipart/mixed; boundary=b", b"text/plain; charset=", b"utf-16"),
    *(
        b"Content-Transfer-Encoding: base64",
        b"Content-Disposition: attachment; filename*0*=",
        b"utf-8''%ff",
        b"--b",
        b"--",
    ),
    *(
        b"=?utf-8?b?",
        b"=?x?q?=ff=00",
        b"?=",
        b"<",
        b">",
        b"@",
        b"a",
        b'"',
        b"\\",
        b"(",
        b")",
        b",",
        b";",
        b"=",
        b"\x00",
    ),
    *(b"\xff", b"\xed\xa0\x80", b"\r", b"\n", b"\r\n", b"\r\n\r\n", b" ", b"Authentication-Results: mx.shop.example;"),
    *(b"dmarc=pass header.from=", b"Message-ID: ", b"References: ", b"Date: ", b"To: ", b"Reply-To: ", b"List-Post: "),
    *(b"text/html", b"<div>", b"<blockquote type=cite>", b"<!--", b"&#0;", b"Subject: Fwd: x", b"sales@shop.example"),
    *(b"multipart/report; report-type=delivery-status; boundary=b", b"message/delivery-status", b"message/rfc822"),
    *(b"From: Ann <ann@a.example>\nSent: x\nTo: y\n\n", b"---- Forwarded message ----", b"text/calendar", b"> a\n"),
]


@given(
    sender=st.sampled_from((b"a@b.example", b"sales@shop.example\nSubject: Fwd: x")),
    pieces=st.lists(st.sampled_from(_PIECES), max_size=60),
)
@settings(max_examples=300, deadline=None)
def test_any_pieces_of_mail_are_read_or_refused(sender, pieces):
    """No order of the tokens of mail, a stranger's or our own, raises anything but ParseError."""
    _check(b"From: " + sender + b"\n" + b"".join(pieces))


@given(
    raw=st.sampled_from(sorted(MAILS.values())),
    cuts=st.lists(st.tuples(st.integers(0, 1500), st.integers(0, 30), st.sampled_from(_PIECES)), max_size=6),
)
@settings(max_examples=300, deadline=None)
def test_any_mutated_mail_is_read_or_refused(raw, cuts):
    """No damage to a real mail raises anything but ParseError."""
    for position, length, piece in cuts:
        raw = raw[:position] + piece + raw[position + length :]

    _check(raw)
