import httpx
import pytest

from convsdk.core.answers import asked_pause, read_answer, refusal
from convsdk.errors import PermanentError, TransientError, UncertainError

SAID = "channel 'desk': the Desk answered"
DATE = "Mon, 02 Mar 2026 09:00:30 GMT"


@pytest.mark.parametrize("content", [b"", b"<html>", b"[]", b'"x"', b"\xff"])
def test_answer_that_is_no_object_is_an_empty_one(content):
    """An answer can be anything: a gateway may have given it."""
    answer = read_answer(httpx.Response(200, content=content))

    assert (answer.key("id"), answer.fields("error").integer("code"), bool(answer)) == ("", None, False)


def test_answer_is_read_leniently():
    """A member of another shape counts as missing, at any depth."""
    answer = read_answer(
        httpx.Response(200, json={"id": "m1", "error": {"code": "many"}, "messages": [1, {"id": "m"}]})
    )

    assert (answer.key("id"), answer.fields("error").integer("code")) == ("m1", None)
    assert [one.key("id") for one in answer.items("messages")] == ["m"]


@pytest.mark.parametrize(
    ("headers", "pause"),
    [
        ({}, None),
        ({"retry-after": "17"}, 17),
        ({"retry-after": "9" * 400}, 86_400),
        ({"retry-after": "²".encode()}, None),
        ({"retry-after": "soon", "date": DATE}, None),
        ({"retry-after": "Mon, 02 Mar 2026 09:01:00 GMT", "date": DATE}, 30),
        ({"retry-after": "Mon, 02 Mar 2026 09:01:00 -0000", "date": DATE}, None),
        ({"retry-after": "Mon, 02 Mar 2026 09:00:00 GMT", "date": DATE}, 0),
        ({"retry-after": "Mon, 02 Mar 2099 09:00:00 GMT", "date": DATE}, 86_400),
        ({"retry-after": "Mon, 02 Mar 2026 09:01:00 GMT"}, None),
    ],
)
def test_pause_that_is_asked_for(headers, pause):
    """Seconds, or a date by the clock of who answered, and a day at most."""
    assert asked_pause(httpx.Response(429, headers=headers)) == pause


@pytest.mark.parametrize(
    ("status", "code", "error"),
    [
        (408, "", TransientError),
        (425, "", TransientError),
        (429, "", TransientError),
        (503, "", TransientError),
        (429, 7, TransientError),
        (500, 7, TransientError),
        (502, "Busy", TransientError),
        (500, "", UncertainError),
        (502, 0, UncertainError),
        (504, None, UncertainError),
        (200, "", UncertainError),
        (200, 7, PermanentError),
        (302, "", PermanentError),
        (400, "", PermanentError),
        (404, 7, PermanentError),
    ],
)
def test_refusal_says_what_to_do_next(status, code, error):
    """Where the platform says that it did not take it, it is tried again or not; where nobody says, nobody knows."""
    assert type(refusal(httpx.Response(status), SAID, code=code)) is error


@pytest.mark.parametrize("status", [200, 400, 500])
def test_code_that_passes_is_tried_again(status):
    """A code of the platform's own outweighs the status."""
    error = refusal(httpx.Response(status, headers={"retry-after": "3"}), SAID, code=7, is_passing=True)

    assert (type(error), error.retry_after_s) == (TransientError, 3)


def test_refusal_tells_what_was_said_and_the_remedy():
    """Its code is the platform's, or else the status."""
    refused = refusal(httpx.Response(400), SAID, code=7, remedy="ask Ann")
    bare = refusal(httpx.Response(404), SAID)

    assert (str(refused), refused.code) == (f"{SAID}: ask Ann", "7")
    assert (str(bare), bare.code) == (f"{SAID}: correct the message", "404")


def test_pause_that_the_platform_names_itself_counts():
    """Some name it in the answer's body."""
    error = refusal(httpx.Response(429, headers={"retry-after": "3"}), SAID, retry_after_s=35)

    assert error.retry_after_s == 35
