import pytest
from hypothesis import given
from hypothesis import strategies as st

from convsdk.core.texts import media_type_of, pieces_of, unescaped, utf8_bytes, utf16_units

FAMILY = "\U0001f469\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466"


def test_short_text_is_one_piece_as_it_is():
    """A text that fits stays as it was written, blanks and all."""
    assert pieces_of(" so \n", most=5) == (" so \n",)


def test_text_is_cut_at_blanks():
    """Words stay whole, and the blank at a cut goes."""
    assert pieces_of("one two three", most=8) == ("one two", "three")


def test_text_of_blanks_is_one_empty_piece():
    """There is always a piece."""
    assert pieces_of("   ", most=2) == ("",)


def test_word_that_is_too_long_is_cut():
    """A word longer than a piece goes on in the next, and what follows goes with its end."""
    assert pieces_of("so abcdefgh i", most=3) == ("so", "abc", "def", "gh", "i")


@pytest.mark.parametrize(
    ("text", "most", "first"),
    [
        (FAMILY * 2, 8, FAMILY),
        ("\U0001f1e9\U0001f1ea\U0001f1eb\U0001f1f7", 3, "\U0001f1e9\U0001f1ea"),
        ("a\u0301a\u0301", 3, "a\u0301"),
        ("\U0001f44b\U0001f3fd\U0001f44b\U0001f3fd", 3, "\U0001f44b\U0001f3fd"),
        ("\u1112\u1161\u11ab\u1112\u1161\u11ab", 4, "\u1112\u1161\u11ab"),
    ],
    ids=["family", "flag", "accent", "skin tone", "hangul"],
)
def test_what_a_reader_sees_as_one_is_not_cut(text, most, first):
    """An emoji, a flag, a letter with its accent and a syllable stay whole."""
    assert pieces_of(text, most=most)[0] == first


def test_text_is_measured_in_units_and_bytes():
    """An emoji is two units of UTF-16 and four bytes of UTF-8; half of one is measured as well."""
    assert [utf16_units(one) for one in ("a", "é", "😀", "\ud83d")] == [1, 1, 2, 1]
    assert [utf8_bytes(one) for one in ("a", "é", "😀", "\ud83d")] == [1, 2, 4, 3]


def test_cluster_that_is_too_large_is_cut_after_all():
    """The limit holds whatever the text."""
    assert pieces_of(FAMILY, most=3) == (FAMILY[:3], FAMILY[3:6], FAMILY[6:])


@given(
    st.text(alphabet=st.characters(exclude_categories=["Cs"])),
    st.integers(2, 12),
    st.sampled_from(["utf-8", "utf-16-le"]),
)
def test_no_piece_is_over_the_limit_and_no_character_is_lost(text, most, encoding):
    """Whatever the text and the measure, the pieces fit and say all of it but blanks."""
    most *= 4

    def size(piece):
        return len(piece.encode(encoding))

    pieces = pieces_of(text, most=most, size=size)

    assert all(size(piece) <= most for piece in pieces)
    assert "".join("".join(pieces).split()) == "".join(text.split())
    assert len(pieces) == 1 or all(piece.strip() for piece in pieces)


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("a &lt; b &amp;amp; c", "a < b &amp; c"),
        ("&#128512;", "\U0001f600"),
        ("x&#99999999999;y", "x\ufffdy"),
        ("none", "none"),
    ],
)
def test_character_references_are_read(written, read):
    """Each stands for its character, once; a number that is too long for one is a replacement."""
    assert unescaped(written) == read


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Image/PNG; charset=x", "image/png"),
        ("application/vnd.ms-excel", "application/vnd.ms-excel"),
        ("image/png\r\nX: y", "application/octet-stream"),
        (".a/b", "application/octet-stream"),
        ("png", "application/octet-stream"),
        ("", "application/octet-stream"),
    ],
)
def test_media_type_is_plain(text, found):
    """Parameters go, and what is no media type is that of any bytes."""
    assert media_type_of(text) == found


def test_media_type_falls_back_on_what_is_known():
    """Whoever knows better says so."""
    assert media_type_of("nonsense", "image/png") == "image/png"
