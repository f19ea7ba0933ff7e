import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pace import is_linear

from convsdk.channels.email.body import REPLY_LINE, Section, is_forward, split, split_forward, unrepeated, words_of
from convsdk.channels.email.markup import written
from convsdk.channels.email.phrases import LANGUAGES

_LINES = (
    *(
        "Hello",
        "",
        " ",
        "> quoted",
        ">",
        "-- ",
        "--",
        "Sent from my iPhone",
        "From: Ann <ann@a.example>",
        "Sent: today",
    ),
    *("To: Bob", "Subject: x", "On 5 January 2026, Ann wrote:", "Ann <ann@a.example>", "wrote:", REPLY_LINE),
    *("-----Original Message-----", "---------- Forwarded message ---------", "_" * 20, "a" * 500, "\u2028", "x\r"),
)
_MARKUP = (
    *("<div>", "</div>", "<p>", "</p>", "<br>", "<blockquote type=cite>", "</blockquote>", "<pre>", "</pre>", "text\n"),
    *("<div class='gmail_signature'>", "<div id=divRplyFwdMsg>", "<!--", "-->", "<script>", "</script>", "<", ">", "&"),
    *("&#0;", "&#xd800;", "&#99999999999;", '"', "'", "<a b='", "<li>", "<div style='display:none'>", "\u00a0", "\0"),
)


@given(lines=st.lists(st.sampled_from(_LINES), max_size=30), is_forwarded=st.booleans())
@settings(max_examples=300, deadline=None)
def test_sections_joined_are_the_text(lines, is_forwarded):
    """Nothing is lost or made up, and some of it is always the writer's own, unless the text is blank."""
    text = "\n".join(lines)

    sections = split(text, is_forward=is_forwarded)

    assert "".join(one.text for one in sections) == text
    assert bool(words_of(sections).strip()) == bool(text.strip())


@given(lines=st.lists(st.sampled_from(_LINES), max_size=30))
@settings(max_examples=200, deadline=None)
def test_forwarded_text_is_kept_whole(lines):
    """What is forwarded falls into note, header and rest, and nothing is lost."""
    text = "\n".join(lines)

    sections = split_forward(text, is_told=True)

    assert not sections or "".join(one.text for one in sections) == text
    assert [one.kind for one in sections][-2:] in ([], ["header", "reply"])


@given(pieces=st.lists(st.sampled_from(_MARKUP) | st.text(max_size=5), max_size=40))
@settings(max_examples=300, deadline=None)
def test_any_markup_gives_a_text_that_can_be_stored(pieces):
    """No order of tags raises anything, and no NUL or half a letter comes out."""
    text = written("".join(pieces))

    text.encode()
    assert "\0" not in text


@pytest.mark.parametrize("language", [name for name, phrases in LANGUAGES.items() if phrases.wrote and phrases.begins])
def test_introduction_is_known_in_every_language(language):
    """First word, date, name and verb introduce a quote, even one without marks."""
    phrases = LANGUAGES[language]
    introduction = f"{phrases.begins[0]} 5.1.2026, Ann {phrases.wrote[0]}:"

    sections = split(f"Yes.\n\n{introduction}\n\nDo you?\n")

    assert [(one.kind, one.text) for one in sections] == [
        ("reply", "Yes.\n\n"),
        ("quote", f"{introduction}\n\nDo you?\n"),
    ]


@pytest.mark.parametrize("language", LANGUAGES)
def test_header_is_known_in_every_language(language):
    """A field for the sender and three others above a text introduce it."""
    phrases = LANGUAGES[language]
    header = "\n".join(f"{name}: x" for name in (phrases.sender[0], *phrases.fields[:3]))

    sections = split(f"Yes.\n\n{header}\n\nDo you?\n")

    assert words_of(sections) == "Yes."


@pytest.mark.parametrize(
    ("subject", "is_forwarded"),
    [
        ("Fwd: x", True),
        ("FW: x", True),
        ("WG: x", True),
        ("[shop] Fwd: x", True),
        ("转发\uff1ax", True),
        ("Re: Fwd: x", False),
        ("Forward me", False),
    ],
)
def test_subject_tells_a_forwarded_mail(subject, is_forwarded):
    """The mark that programs put before the subject of a forwarded mail is known, and an answer is none."""
    assert is_forward(subject) is is_forwarded


@pytest.mark.once
@pytest.mark.parametrize(
    "unit",
    [
        *(
            "\n",
            ":\n",
            "From: x\n",
            "From: x\nTo: y\n",
            "> a\nb\n",
            "-- \n",
            "On 1 wrote:\n> x\n",
            "x:\n\n\n",
            "a",
            " ",
        ),
        *("1 " + "a@" * 150 + ":\n", "On 1 " + "wrote " * 60 + ":\n", "##- \n", "_____\n", "Forwarded message\n", "> "),
    ],
)
def test_hostile_text_takes_linear_time(unit):
    """A text made of what the rules look for is split at a cost that grows with its length alone."""

    def split_all(text):
        split(text)
        split_forward(text, is_told=True)

    assert is_linear(split_all, lambda size: unit * (size // len(unit)))


@pytest.mark.once
@pytest.mark.parametrize("sign", [" ", ">", " >", "-", " -", "_", "*", "\u00a0", "> -"])
def test_long_lines_take_linear_time(sign):
    """A line as long as a mark may be costs no more for its length than a short one."""

    def split_all(text):
        split(text)
        split_forward(text, is_told=True)

    assert is_linear(split_all, lambda size: f"{sign * (size // 1024 // len(sign))}\n" * 1024)


@pytest.mark.once
@pytest.mark.parametrize("unit", ["a b c d e\n", "a ", "a@b.c 1:\n", "\n", "\u5b57", "> a b c d\n"])
def test_hostile_repetition_takes_linear_time(unit):
    """What an answer repeats is found at a cost that grows with the length of both texts alone."""

    def compare(text):
        unrepeated((Section("reply", f"{text}Thanks.\n{text}"),), text)

    assert is_linear(compare, lambda size: unit * (size // len(unit) // 3))


@given(st.lists(st.sampled_from(_LINES)), st.lists(st.sampled_from(_LINES)))
def test_comparison_loses_nothing(said, answered):
    """Whatever is compared with whatever: joined, it is the whole text, and something of it is a reply, if it was."""
    before = split("\n".join(said))

    after = unrepeated(before, "\n".join(answered))

    assert "".join(one.text for one in after) == "\n".join(said)
    assert words_of(after).strip() or not words_of(before).strip()


def test_long_texts_are_compared_with_nothing():
    """Past the bound of all splitting, a text is left as it is."""
    answered = "a b c d e\n" * 40_000
    section = Section("reply", f"Thanks.\n{answered}")

    assert unrepeated((section,), answered) == (section,)


@pytest.mark.once
@pytest.mark.parametrize(
    "unit",
    [
        *(
            "<!--",
            "<a ",
            "</",
            "<",
            "<a b='",
            '<a b="',
            "<![",
            "<?",
            "&#",
            "&#9",
            "<script>",
            "<b>",
            "<b></i>",
            "<div>x",
        ),
        *("<blockquote type=cite>x", "<p>x</p>", "<pre>\n", "<a class", "<a class=", "<li>", "&notit;"),
    ],
)
def test_hostile_markup_takes_linear_time(unit):
    """Open comments, tags, quotes and elements, quadratic for the usual parsers, are read in linear time."""
    assert is_linear(written, lambda size: unit * (size // len(unit)))
