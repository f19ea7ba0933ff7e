import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from convsdk.core.payloads import Fields, digest_of, fields_of, read_fields, read_form, read_json, storable
from convsdk.errors import ParseError

SENT = datetime(2016, 3, 23, 0, 25, 52, tzinfo=UTC)
SEEN = {"id": 7, "name": "Ann", "at": 1458692752, "sizes": [{"w": 1}, [{"w": 2}]], "chat": {"id": "c 1"}, "on": True}


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (rb'"a\u0000b"', "a\ufffdb"),
        (rb'"\ud83d \ude00 \\ud800 \ud83d\ude00"', "\ufffd \ufffd \\ud800 😀"),
        (b'"\xff!"', "\ufffd!"),
        (rb'{"\u0000": 1}', {"\ufffd": 1}),
        (b"9223372036854775807", 2**63 - 1),
        (b"-9223372036854775807", 1 - 2**63),
        (b"9223372036854775808", str(2**63)),
        (b"9" * 9000, "9" * 9000),
        (b"1e999", "1e999"),
        (b"[1.5, true, null]", [1.5, True, None]),
    ],
)
def test_json_is_read_as_every_store_can_keep_it(given, kept):
    """What no store keeps costs only itself."""
    assert read_json(given) == kept


def test_what_is_nested_too_deep_is_kept_as_its_json():
    """Behind 32 levels a text stands for the rest."""
    value = read_json(b"[" * 40 + b'"\\u0000"' + b"]" * 40)

    for _ in range(33):
        (value,) = value
    assert value == "[" * 7 + '"\\u0000"' + "]" * 7


@pytest.mark.parametrize("body", [b"", b"\xff", b"{", b"NaN", b"[-Infinity]", b"[" * 100_000 + b"]" * 100_000])
def test_what_is_no_json_is_a_parse_error(body):
    """It says how long it was, and nothing of what it held."""
    with pytest.raises(ParseError, match=f"^{len(body)} bytes are no JSON that can be read"):
        read_json(body)


@given(st.binary())
@example(b'{"a":' * 3000)
def test_any_bytes_are_json_or_a_parse_error(body):
    """What is read can be written as JSON and as UTF-8."""
    try:
        value = read_json(body)
    except ParseError:
        return
    json.dumps(value, allow_nan=False, ensure_ascii=False).encode()


@pytest.mark.parametrize("body", [b"[]", b"7", b"null", b'"x"'])
def test_document_that_is_no_object_is_a_parse_error(body):
    """Members are those of an object."""
    with pytest.raises(ParseError, match="the document is no JSON object"):
        read_fields(body)


def test_members_are_read_by_name_and_shape():
    """Each shape has its look-up."""
    fields = read_fields(json.dumps(SEEN | {"price": 1.5, "tags": ["a", 2]}).encode())

    assert (fields.text("name"), fields.key("id"), fields.integer("id"), fields.number("price")) == ("Ann", "7", 7, 1.5)
    assert (fields.flag("on"), fields.flag("id"), fields.moment("at")) == (True, False, SENT)
    assert ([one.integer("w") for one in fields.items("sizes")], fields.values("tags")) == ([1, 2], ["a", 2])
    assert ("chat" in fields, "gone" in fields, bool(fields)) == (True, False, True)
    assert fields.fields("chat").raw == {"id": "c 1"}


def test_member_that_is_missing_or_null_gives_the_default():
    """Nothing is told of it, and an id is all that has to be there."""
    fields = Fields({"null": None})

    for name in ("null", "gone"):
        assert (fields.text(name), fields.text(name, "x"), fields.integer(name), fields.number(name, 2)) == (
            "",
            "x",
            None,
            2,
        )
        assert (fields.flag(name), fields.moment(name), fields.values(name), list(fields.items(name))) == (
            False,
            None,
            [],
            [],
        )
        assert not fields.fields(name).fields("deeper")
        with pytest.raises(ParseError, match=f"^{name} is no id, or missing: "):
            fields.key(name)


@pytest.mark.parametrize(
    ("shape", "name"),
    [
        ("text", "id"),
        ("integer", "name"),
        ("integer", "on"),
        ("number", "on"),
        ("fields", "sizes"),
        ("values", "chat"),
        ("key", "sizes"),
        ("key", "on"),
    ],
)
def test_member_of_another_shape_is_a_parse_error(shape, name):
    """The error names the way to it and holds nothing of it; in a lenient object it counts as missing."""
    message, lenient = Fields({"message": SEEN}).fields("message"), Fields(SEEN, is_lenient=True)

    with pytest.raises(ParseError, match=rf"^message\.{name} is no .*: compare it with what the platform documents$"):
        getattr(message, shape)(name)
    assert not (found := getattr(lenient, shape)(name)) or found == Fields({})


@pytest.mark.parametrize("value", ["", " ", "c 1", "a\n", "\ufffd", "x" * 256, "a\x7f", True, 1.5, None, []])
def test_what_is_no_id_is_refused(value):
    """An id has no blanks, and nothing of it was replaced: two could have become one."""
    with pytest.raises(ParseError, match="is no id"):
        Fields({"id": value}).key("id")


def test_list_with_something_else_in_it():
    """Only objects are given: what is none is a parse error that names its place, and left out of a lenient one."""
    members = {"sizes": [{"w": 1}, 5]}

    with pytest.raises(ParseError, match=r"^sizes\[1\] is no JSON object"):
        list(Fields(members).items("sizes"))
    assert [one.raw for one in Fields(members, is_lenient=True).items("sizes")] == [{"w": 1}]


def test_list_of_ids():
    """Each has to be one; in a lenient object what is none is left out."""
    assert Fields({"mids": ["m1", 2]}).keys("mids") == ("m1", "2")
    assert Fields({"mids": ["m1", None]}, is_lenient=True).keys("mids") == ("m1",)
    with pytest.raises(ParseError, match=r"^mids\.1 is no id"):
        Fields({"mids": ["m1", None]}).keys("mids")


def test_value_that_stands_alone_is_read_like_a_document():
    """What was taken out of a list can be looked into; its errors name the path that is given."""
    assert fields_of({"w": 1}, path="sizes").integer("w") == 1
    with pytest.raises(ParseError, match=r"^sizes is no JSON object"):
        fields_of(5, path="sizes")


@pytest.mark.parametrize(
    ("value", "unit", "moment"),
    [
        (1458692752, timedelta(seconds=1), SENT),
        ("1458692752", timedelta(seconds=1), SENT),
        (1458692752478, timedelta(milliseconds=1), SENT.replace(microsecond=478_000)),
        (0, timedelta(seconds=1), datetime(1970, 1, 1, tzinfo=UTC)),
        ("1458692752.000005", timedelta(seconds=1), SENT.replace(microsecond=5)),
        ("1458692752000.5", timedelta(milliseconds=1), SENT.replace(microsecond=500)),
        *((wrong, timedelta(seconds=1), None) for wrong in (-1, 10**17, "soon", "²", "9" * 30, 1.5, True, [], None)),
        *((wrong, timedelta(seconds=1), None) for wrong in ("1.", ".5", "1.5.5", "1.5e3", "-1.5", "1.5\n")),
    ],
)
def test_moment_counts_from_1970(value, unit, moment):
    """A time is a number or its digits, and anything else is none."""
    assert Fields({"at": value}).moment("at", unit=unit) == moment


def test_number_too_long_to_be_written_is_no_moment():
    """Such as no JSON that was read here gives, and Python turns into no text."""
    assert Fields({"at": 10**5_000}).moment("at") is None


def test_digest_is_that_of_the_values():
    """The order of members does not matter, and each value does."""
    assert digest_of("a", {"x": 1, "y": "é"}) == digest_of("a", {"y": "é", "x": 1})
    assert len({digest_of("a", 1), digest_of("a", "1"), digest_of(["a", 1]), digest_of("a")}) == 4


def test_text_is_made_storable():
    """Each NUL and each half of a pair is replaced."""
    assert storable("a\0\ud83d😀") == "a\ufffd\ufffd😀"


def test_form_is_read_to_the_letter_and_in_order():
    """A field that is empty or comes twice is one as well, and what is no UTF-8 costs only itself."""
    given = b"a=1&b=&a=%7B%22x%22%3A+1%7D&%C3%A9=%00%ff"

    assert read_form(given) == (("a", "1"), ("b", ""), ("a", '{"x": 1}'), ("é", "\0\ufffd"))


@pytest.mark.parametrize("body", ["é=1".encode(), b"a=1&" * 1001], ids=["no ASCII", "too many fields"])
def test_body_that_is_no_form_is_refused(body):
    """What it holds is not told: it is somebody's words."""
    with pytest.raises(ParseError, match=f"^{len(body)} bytes are no form that can be read"):
        read_form(body)
