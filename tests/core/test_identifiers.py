import pytest
from hypothesis import given
from hypothesis import strategies as st

from convsdk.core.identifiers import (
    FORM_VERSION,
    EmailAddress,
    ExternalId,
    Kinds,
    MessagingId,
    Opaque,
    PhoneNumber,
    Visitor,
    has_mixed_scripts,
    is_placeholder,
    trim,
)

KINDS = [EmailAddress(), PhoneNumber(), ExternalId("external_id"), MessagingId("psid"), Visitor("visitor")]

# Text that looks like an address or a number far more often than arbitrary text does.
_LOCAL = st.text(st.sampled_from("aZkK.+_-üÄßİéσς'\u0301\u200b\u212a\uff11"), min_size=1, max_size=12)
_DOMAIN = st.text(st.sampled_from("bQ-.1ü。ßｅé\u200dx"), min_size=1, max_size=12)
ADDRESSES = st.builds("{}@{}.{}".format, _LOCAL, _DOMAIN, st.sampled_from(["de", "EXAMPLE", "xn--p1ai", "рф", "c"]))
NUMBERS = st.text(st.sampled_from("0123456789+-() /.x\u0664\uff19"), max_size=24)


@given(st.sampled_from(KINDS), st.one_of(st.text(), ADDRESSES, NUMBERS), st.sampled_from([None, "DE", "US", "??"]))
def test_canonical_form_is_total_and_idempotent(kind, text, country):
    """Any text gives a key or None, and the key of a key is the key itself, in any country."""
    key = kind.canonical(text, country=country)

    assert key is None or (key and kind.canonical(key, country=country) == key == kind.canonical(key))


@given(st.one_of(st.text(), ADDRESSES))
def test_helpers_are_total(text):
    """Trimming twice is trimming once, and no text upsets the flags for people."""
    trimmed = trim(text)

    assert trim(trimmed) == trimmed
    assert has_mixed_scripts(text) in {True, False}
    assert isinstance(EmailAddress().loose(text), str)
    assert EmailAddress().is_role(text) in {True, False}


def test_form_has_a_version():
    """The first form is version 1; a change of any canonical form must raise it."""
    assert FORM_VERSION == 1


@pytest.mark.parametrize(
    ("text", "trimmed"),
    [
        (" \t\r\n\f\va b\u00a0\u00ad", "a b"),
        ("\u200b\u200c\u200d\u200e\u200f\u2060\ufeffa", "a"),
        ("e\u0301", "\u00e9"),
        ("a\u200bb", "a\u200bb"),
        ("\ufb01", "\ufb01"),
    ],
)
def test_edges_are_trimmed_and_text_is_composed(text, trimmed):
    """Blanks and zero-width characters go from the edges only, and NFC is not NFKC."""
    assert trim(text) == trimmed


@pytest.mark.parametrize(
    "text", ["null", "UNDEFINED", "N/A", "[object Object]", "0", "000-00", "+0 0", "-", "", "Test"]
)
def test_words_for_no_value_are_placeholders(text):
    """What programs and people write where they have no value is known, in any ASCII case."""
    assert is_placeholder(text)


@pytest.mark.parametrize("text", ["1", "u0", "nullable", "test2", "null@shop.example"])
def test_values_are_no_placeholders(text):
    """Only the whole value counts."""
    assert not is_placeholder(text)


# -- ids that somebody else issued


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("Ab9", "Ab9"),
        (" a b\u200b", "a b"),
        ("x" * 255, "x" * 255),
        ("x" * 256, None),
        ("", None),
        (" ", None),
        ("null", None),
        ("a\x00b", None),
        ("a\u00a0b", None),
        ("e\u0301", "\u00e9"),
    ],
)
def test_opaque_ids_keep_their_case(text, key):
    """An issued id is taken exactly, as long as it is short, printable and no placeholder."""
    assert Opaque("badge").canonical(text) == key


def test_opaque_id_has_no_roles_and_no_looser_key():
    """Only mailboxes are read by several people, and an id has no likely duplicates."""
    kind = ExternalId("external_id")

    assert not kind.is_role("info")
    assert kind.loose("a.b+c") == "a.b+c"


# -- e-mail


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("ann@shop.example", "ann@shop.example"),
        (" Ann.Lee+x@Shop.EXAMPLE\u200b", "ann.lee+x@shop.example"),
        ("o'neil!#$%&*/=?^_`{|}~-@x.example", "o'neil!#$%&*/=?^_`{|}~-@x.example"),
        ("Ann@B\u00fccher.example", "ann@xn--bcher-kva.example"),
        ("ann@fa\u00df.de", "ann@xn--fa-hia.de"),
        ("a@b\u3002com", "a@b.com"),
        ("ann@XN--BCHER-KVA.de", "ann@xn--bcher-kva.de"),
        ("\u00c4NN@x.example", "\u00c4nn@x.example"),
        ("\u212a@x.example", "k@x.example"),
        ("\uff2b@x.example", "\uff2b@x.example"),
        ("a@127.0.0.1", "a@127.0.0.1"),
        ("a" * 64 + "@x.de", "a" * 64 + "@x.de"),
        (
            "a@" + ".".join(["b" * 62] * 3) + "." + "c" * 61 + ".de",
            "a@" + ".".join(["b" * 62] * 3) + "." + "c" * 61 + ".de",
        ),
    ],
)
def test_usable_address_gets_its_key(text, key):
    """The domain becomes a lower-case A-label, of the local part ASCII letters alone become small."""
    assert EmailAddress().canonical(text) == key


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ann",
        "@x.example",
        "ann@",
        "a@b",
        "a@\u00fc",
        "ann@x.example.",
        "a@b@c.de",
        "a b@x.de",
        "a\u2003b@\u00fc.de",
        "a\u200bb@x.de",
        "a..b@x.de",
        ".a@\u00fc.de",
        "a@-x.de",
        "a@xn--zz--99.example",
        "a@\u00fc_.de",
        '"a b"@\u00fc.de',
        "a" * 65 + "@x.de",
        "a@" + ".".join(["b" * 63] * 4) + ".de",
        "a@" + "b" * 64 + ".de",
        "\u00fc" * 300 + "@xxxxxxxxxxxxxxxx.com.de",
        "null",
        "Test@Test.com",
        "ann@nul\x00l.de",
    ],
)
def test_unusable_address_gets_no_key(text):
    """What no mail could reach, or what stands for no address, identifies nobody."""
    assert EmailAddress().canonical(text) is None


def test_placeholder_in_wide_letters_is_none():
    """A placeholder stays one in whichever letters its domain is spelt."""
    assert EmailAddress().canonical("test@t\uff45st.com") is None


@pytest.mark.parametrize("key", ["info@x.de", "support+de@x.de", "no-reply@x.de"])
def test_role_mailbox_is_known_by_its_name(key):
    """A mailbox that several people read is known by its local part, whatever its tag."""
    assert EmailAddress().is_role(key)


@pytest.mark.parametrize("key", ["ann@info.de", "info.ann@x.de", "ann+info@x.de"])
def test_personal_mailbox_is_no_role(key):
    """A role's name in any other place says nothing."""
    assert not EmailAddress().is_role(key)


@pytest.mark.parametrize(
    ("key", "loose"),
    [
        ("a.b+x@gmail.com", "ab@gmail.com"),
        ("a.b@googlemail.com", "ab@gmail.com"),
        ("a.b+x@shop.example", "a.b@shop.example"),
        ("+x@shop.example", "+x@shop.example"),
        ("..@gmail.com", "..@gmail.com"),
    ],
)
def test_loose_key_drops_tag_and_gmail_dots(key, loose):
    """Spellings that reach one mailbox look alike under the looser key."""
    assert EmailAddress().loose(key) == loose


# -- phone


@pytest.mark.parametrize(
    ("text", "country", "key"),
    [
        ("+49 30 123456", None, "+4930123456"),
        ("030 123456", "DE", "+4930123456"),
        ("0049 30 123456", "DE", "+4930123456"),
        ("+49 (0)30 123456", "US", "+4930123456"),
        ("+39 06 1234567", None, "+39061234567"),
        ("1-800-FLOWERS", "US", "+18003569377"),
        ("tel:+4930123456", None, "+4930123456"),
        ("+49 30 123456" + " " * 51, None, "+4930123456"),
        ("+4930" + "-" * 53 + "123456", None, "+4930123456"),
        ("+52 1 55 1234 5678", None, "+525512345678"),
        ("+52 55 1234 5678", None, "+525512345678"),
        ("+1 521 555 1234", None, "+15215551234"),
        ("030 123456", None, None),
        ("030 123456", "??", None),
        ("", "DE", None),
        ("0000000", "DE", None),
        ("+49 30 123456 ext. 5", None, None),
        ("+49" + "1" * 20, None, None),
        ("call me", "DE", None),
        ("+4930" + "-" * 54 + "123456", None, None),
    ],
)
def test_number_becomes_e164(text, country, key):
    """A national number needs its country, and one with an extension is nobody's own."""
    assert PhoneNumber().canonical(text, country=country) == key


@pytest.mark.parametrize(("text", "country"), [("253-0000", "US"), ("12", "DE")])
def test_number_without_area_code_gets_no_key(text, country):
    """A number that can be dialled only within one town is many people's, so it identifies nobody."""
    assert PhoneNumber().canonical(text, country=country) is None


# -- what kinds say about a person


@pytest.mark.parametrize(
    ("name", "rank", "facts"),
    [
        # is_contact_point, is_account, is_single, establishes
        ("external_id", 0, (False, True, True, True)),
        ("psid", 1, (False, True, False, False)),
        ("email", 2, (True, False, False, True)),
        ("phone", 3, (True, False, False, True)),
        ("visitor", 9, (False, False, False, False)),
    ],
)
def test_kinds_say_what_they_are(name, rank, facts):
    """How much a kind says about a person decides anchors, epochs, caps and merges."""
    kind = Kinds([MessagingId("psid")])[name]

    assert kind.name == name
    assert kind.anchor_rank == rank
    assert (kind.is_contact_point, kind.is_account, kind.is_single, kind.establishes) == facts


def test_plugin_brings_a_kind():
    """A kind of a plugin stands beside the built-in ones, and can take the place of one."""
    own = Opaque("email")

    kinds = Kinds([Opaque("badge"), own])

    assert "badge" in kinds
    assert "fax" not in kinds
    assert kinds.get("fax") is None
    assert kinds.get("email") is own is kinds["email"]


@pytest.mark.parametrize(
    ("key", "is_mixed"),
    [
        ("ann2@shop.example", False),
        ("ann@r\u0430ypal.com", True),
        ("ann@xn--ypal-43d9g.com", True),
        ("\u0430nn@shop.example", True),
        ("\u0430\u043d\u044f@shop.example", False),
        ("ann@xn--a.com", False),
        ("\u0430nn@xn--a.com", True),
        ("r\u0430ypal", True),
        ("+4930123456", False),
    ],
)
def test_look_alikes_are_flagged(key, is_mixed):
    """Letters of two scripts in one part are a flag; each part is judged for itself."""
    assert has_mixed_scripts(key) is is_mixed
