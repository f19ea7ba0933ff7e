import subprocess
from datetime import UTC, datetime

import pytest
from pace import is_linear

from convsdk.channels.email import EmailChannel, EmailSettings
from convsdk.core.model import Trust
from convsdk.core.ports import Request

dkim = pytest.importorskip("dkim", reason="not installed: pip install '.[email]'")
from convsdk.channels.email.authenticate import stamped  # noqa: E402  (it needs the extra)

SERVER = "mx.shop.example"
MAIL = b"From: Ann <ann@mail.example>\r\nTo: in-7f3a@shop.example\r\nSubject: Hello\r\n\r\nDo you ship to Norway?\r\n"


@pytest.fixture(scope="module")
def key():
    """An RSA key: the private part as PEM, the public part as the TXT record that a domain publishes."""
    made = ("openssl", "genrsa", "-traditional", "2048")
    private = subprocess.run(made, check=True, capture_output=True).stdout
    shown = ("openssl", "rsa", "-pubout")
    public = subprocess.run(shown, input=private, check=True, capture_output=True).stdout
    return private, b"v=DKIM1; k=rsa; p=" + b"".join(public.splitlines()[1:-1])


def _signed(key, *, domain=b"mail.example", raw=MAIL, **options):
    return dkim.sign(raw, b"s1", domain, key[0], include_headers=[b"from", b"subject"], **options) + raw


def _read(raw, key, asked=None):
    def lookup(name):
        if asked is not None:
            asked.append(name)
        return key[1] if name.startswith("s1._domainkey.") else None

    channel = EmailChannel("support", EmailSettings(address="in-7f3a@shop.example", authserv_id=SERVER))
    body = stamped(raw, authserv_id=SERVER, lookup=lookup)
    (event,) = channel.parse(Request(received_at=datetime(2026, 1, 5, tzinfo=UTC), body=body))
    return event


def test_aligned_signature_attests_the_sender(key):
    """A signature of the From's domain that holds makes the sender attested, with one look into DNS."""
    asked = []

    event = _read(_signed(key), key, asked)

    assert (event.hint.identifiers[0].trust, event.detail["attested_by"]) == (Trust.CHANNEL, "dkim of mail.example")
    assert asked == ["s1._domainkey.mail.example"]
    assert event.text == "Do you ship to Norway?\n"


def test_changed_mail_is_only_asserted(key):
    """Where a signed field or the body was changed, nothing is attested."""
    signed = _signed(key)

    for changed in (signed.replace(b"Norway", b"Sweden"), signed.replace(b"ann@", b"ceo@")):
        assert _read(changed, key).hint.identifiers[0].trust is Trust.ASSERTED


def test_signature_of_another_domain_is_only_asserted(key):
    """A signature that holds says nothing about the address of another domain."""
    event = _read(_signed(key, domain=b"x.test"), key)

    assert event.hint.identifiers[0].trust is Trust.ASSERTED


def test_signature_over_a_part_of_the_body_is_only_asserted(key):
    """What was added below the signed part is not the signer's."""
    event = _read(_signed(key, length=True) + b"Pay here.\r\n", key)

    assert event.hint.identifiers[0].trust is Trust.ASSERTED


def test_results_that_the_sender_wrote_are_not_believed(key):
    """An unsigned mail gets a field too, above one that its sender wrote under our name."""
    forged = b"Authentication-Results: mx.shop.example; dmarc=pass header.from=mail.example\r\n"

    event = _read(forged + MAIL, key)

    assert event.hint.identifiers[0].trust is Trust.ASSERTED


def test_silence_of_dns_is_only_asserted(key):
    """Where nobody answers, the mail is taken in, and nothing is attested."""

    def lookup(name):
        raise TimeoutError(name)

    raw = stamped(_signed(key), authserv_id=SERVER, lookup=lookup)

    assert raw.startswith(b"Authentication-Results: mx.shop.example; dkim=temperror header.d=mail.example\r\n")


@pytest.mark.parametrize(
    "value", [b"", b"v=1", b"v=1; a=rsa-sha256; d=\xff; s=s; h=from; bh=; b=", b"d=a; d=b", b"=" * 99]
)
def test_unusable_signature_raises_nothing(key, value):
    """A signature that is none leaves the mail as it is, below a field."""
    raw = stamped(b"DKIM-Signature: " + value + b"\r\n" + MAIL, authserv_id=SERVER, lookup=lambda _: key[1])

    assert raw.endswith(MAIL)
    assert b"pass" not in raw.partition(b"\n")[0]


def test_hostile_mail_is_checked_in_linear_time(key):
    """Runs of blanks, quadratic for the library, are not handed to it."""
    raw = _signed(key, canonicalize=(b"relaxed", b"relaxed"))

    def check(blanks):
        stamped(raw + blanks, authserv_id=SERVER, lookup=lambda _: key[1])

    assert is_linear(check, lambda size: b" " * size)


def test_server_without_a_name_is_refused():
    """The name goes into a header field, so it is one."""
    with pytest.raises(ValueError, match="authserv_id"):
        stamped(MAIL, authserv_id="a\r\nb", lookup=lambda _: None)


# -- ARC: what a forwarder saw before it changed a mail

SAW = b"Authentication-Results: lists.example; dmarc=pass header.from=mail.example\r\n"


def _sealed(key, raw, *, domain=b"lists.example", server=b"lists.example", **options):
    fields = {"include_headers": [b"from", b"subject"]} | options
    return b"".join(dkim.arc_sign(raw, b"s1", domain, key[0], server, **fields)) + raw


def _attested(raw, key, *, trusted=("lists.example",)):
    settings = EmailSettings(address="in-7f3a@shop.example", authserv_id=SERVER, trusted_sealers=trusted)
    body = stamped(raw, authserv_id=SERVER, lookup=lambda name: key[1] if name.startswith("s1.") else None)
    (event,) = EmailChannel("support", settings).parse(Request(received_at=datetime(2026, 1, 5, tzinfo=UTC), body=body))
    return event.hint.identifiers[0].trust, event.detail.get("attested_by", "")


def test_what_a_trusted_sealer_saw_attests_the_sender(key):
    """A list that changed a mail and sealed what it saw of it before is believed, where the settings say so."""
    sealed = _sealed(key, SAW + MAIL.replace(b"Norway?", b"Norway?\r\n-- \r\nall mailing list"))

    assert _attested(sealed, key) == (Trust.CHANNEL, "arc of lists.example")
    assert _attested(sealed, key, trusted=("Lists.Example",)) == (Trust.CHANNEL, "arc of lists.example")


def test_sealer_that_nobody_trusts_attests_nothing(key):
    """Anybody can seal what they like."""
    sealed = _sealed(key, SAW + MAIL)

    assert _attested(sealed, key, trusted=()) == (Trust.ASSERTED, "")
    assert _attested(sealed, key, trusted=("shop.example",)) == (Trust.ASSERTED, "")


def test_mail_that_was_changed_behind_the_seal_is_only_asserted(key):
    """Body, From and what the sealer saw are sealed."""
    sealed = _sealed(key, SAW + MAIL)
    seen = sealed.partition(b"ARC-Authentication-Results")[2]
    assert seen

    for old, new in ((b"Norway", b"Sweden"), (b"Ann <ann@", b"Ann <ceo@"), (b"dmarc=pass", b"dmarc=fail")):
        assert _attested(sealed.replace(old, new), key) == (Trust.ASSERTED, "")


@pytest.mark.parametrize(
    "saw",
    [
        b"dmarc=fail header.from=mail.example",
        b"dmarc=pass header.from=x.test",
        b"dkim=pass header.d=mail.example",
        b"dmarc=pass",
        b"dmarc=pass header.from=mail.example; dmarc=pass header.from=x.test",
        b"none",
    ],
)
def test_only_a_pass_for_the_domain_of_the_from_counts(key, saw):
    """What the sealer saw of another domain, or saw fail, attests nobody."""
    raw = b"Authentication-Results: lists.example; " + saw + b"\r\n" + MAIL

    assert _attested(_sealed(key, raw), key) == (Trust.ASSERTED, "")


def test_only_the_last_sealer_counts(key):
    """A trusted sealer below one that nobody trusts has not seen what came after it."""
    first = _sealed(key, SAW + MAIL)
    said = b"Authentication-Results: x.test; arc=pass; dmarc=pass header.from=mail.example\r\n"

    second = _sealed(key, said + first, domain=b"x.test", server=b"x.test")

    assert _attested(second, key) == (Trust.ASSERTED, "")
    assert _attested(second, key, trusted=("x.test",)) == (Trust.CHANNEL, "arc of x.test")


@pytest.mark.parametrize(
    "value", [b"", b"i=1", b"i=99999999; cv=pass", b"i=x; d=\xff", b"i=1; a=; b=; cv=none; d=; s="]
)
def test_unusable_seal_raises_nothing(key, value):
    """A chain that is none leaves the mail as it is, below a field."""
    names = (b"ARC-Seal", b"ARC-Message-Signature", b"ARC-Authentication-Results")
    raw = b"".join(b"%b: %b; h=from\r\n" % (name, value) for name in names) + MAIL

    stamped_raw = stamped(raw, authserv_id=SERVER, lookup=lambda _: key[1])

    assert stamped_raw == b"Authentication-Results: mx.shop.example; none\r\n" + raw


def test_failed_dmarc_of_a_sealed_mail_is_no_doubt():
    """What the trusted sealer saw goes before what DMARC says of the changed mail."""
    results = b"Authentication-Results: mx.shop.example; dmarc=fail; arc=pass header.d=lists.example header.from="
    settings = EmailSettings(address="in-7f3a@shop.example", authserv_id=SERVER, trusted_sealers=("lists.example",))

    for domain, trust in ((b"mail.example", [Trust.CHANNEL]), (b"x.test", [])):
        request = Request(received_at=datetime(2026, 1, 5, tzinfo=UTC), body=results + domain + b"\r\n" + MAIL)
        (event,) = EmailChannel("support", settings).parse(request)
        assert [one.trust for one in event.hint.identifiers] == trust


def test_sealer_that_is_no_domain_is_refused():
    """A slip in the settings is named, and trusts nobody."""
    with pytest.raises(ValueError, match="trusted_sealers: 'lists' is no domain"):
        EmailSettings(address="in-7f3a@shop.example", trusted_sealers=("lists",))
