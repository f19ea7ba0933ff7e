"""No log shows a configured secret, whoever wrote the line and by whatever library."""

import base64
import io
import json
import logging
from contextlib import contextmanager, nullcontext
from pathlib import Path
from urllib.parse import quote_plus, urlencode

import httpx
import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from convsdk.config import load_config
from convsdk.plugins import load_plugins
from convsdk.redaction import Redaction

SECRET = 'pässw"ord of/the+shop'


def redaction(*secrets):
    """Give a redaction of those secrets."""
    made = Redaction()
    for one in secrets or (SECRET,):
        made.add(one)
    return made


@contextmanager
def log_lines(*, masks=True, level=logging.INFO):
    """Give what a handler on the root logger writes meanwhile, as a function."""
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(logging.Formatter("%(message)s %(more)s", defaults={"more": ""}))
    root = logging.getLogger()
    before = root.level
    root.addHandler(handler)
    root.setLevel(level)
    try:
        with redaction().in_log_records() if masks else nullcontext():
            yield written.getvalue
    finally:
        root.removeHandler(handler)
        root.setLevel(before)


@pytest.mark.parametrize(
    "shown",
    [
        SECRET,
        repr(SECRET),
        json.dumps(SECRET),
        json.dumps({"a": SECRET}, ensure_ascii=False),
        urlencode({"token": SECRET}),
        quote_plus(SECRET).lower(),
        SECRET.encode().hex(),
        SECRET.encode().hex().upper(),
        base64.b64encode(SECRET.encode()).decode(),
        base64.urlsafe_b64encode(f"x{SECRET}".encode()).decode(),
    ],
)
def test_each_form_of_a_secret_is_masked(shown):
    """A secret is masked as it is, escaped, and encoded for a URL, a header or a dump."""
    masked = redaction().mask(f"before {shown} after")

    assert masked.startswith("before ")
    assert masked.endswith(" after")
    assert "***" in masked
    assert "ssw" not in masked


@given(st.binary(max_size=9), st.text("abcdef0123456789-_", min_size=6, max_size=40), st.binary(max_size=9))
def test_secret_within_base64_is_masked(before, secret, after):
    """Wherever in a text in base64 a secret begins, as in basic authentication, not enough of it is left to read."""
    coded = base64.b64encode(before + secret.encode() + after).decode()

    masked = redaction(secret).mask(coded)

    assert masked.count("***") == 1
    assert len(masked.replace("***", "")) <= len(base64.b64encode(before)) + len(base64.b64encode(after)) + 4


def test_secret_within_another_is_masked_whole():
    """Of two secrets where one holds the other, nothing of the longer one stays."""
    assert redaction("abcdef", "abcdef-and-more").mask("x abcdef-and-more y") == "x *** y"


@pytest.mark.parametrize("short", ["", "a", "token"])
def test_short_secret_is_left(short):
    """What is too short to be told apart from a word is left, or the log would say nothing any more."""
    assert redaction(short).mask("a token of the shop") == "a token of the shop"


class Settings:
    """Shows its secret in its repr, as a plugin's may."""

    def __repr__(self):
        return f"Settings({SECRET!r})"


@pytest.mark.parametrize(
    "render",
    [
        structlog.processors.JSONRenderer(),
        structlog.processors.KeyValueRenderer(),
        structlog.processors.LogfmtRenderer(),
        structlog.dev.ConsoleRenderer(colors=False),
    ],
)
@pytest.mark.parametrize("value", [SECRET, Settings(), {SECRET: [SECRET]}, (Settings(), 1), OSError(SECRET)])
def test_structlog_line_is_masked(render, value):
    """A line of structlog shows no secret, whichever renderer writes it and wherever in it the secret is."""
    masks = redaction()
    event = {"event": f"got {SECRET}", "value": value, "number": 7}

    line = masks(None, "info", render(None, "info", dict(masks(None, "info", event))))

    assert "ssw" not in line
    assert "***" in line
    assert "7" in line


def test_what_holds_no_secret_stays_as_it_is():
    """Values without a secret go to the renderer untouched."""
    event = {"event": "webhook", "value": Path("a"), "number": 7, "flag": True, "none": None, "items": [1, "a"]}

    assert redaction()(None, "info", event) == event


@pytest.mark.parametrize(
    "log",
    [
        lambda: logging.getLogger("plugin").info("token %s", SECRET),
        lambda: logging.getLogger("plugin").info("token %(token)s", {"token": SECRET}),
        lambda: logging.getLogger("plugin").info(f"token {SECRET}"),  # noqa: G004  (as plugins do)
        lambda: logging.getLogger("plugin").info("settings %r", Settings()),
        lambda: logging.getLogger("plugin").info("%s%s", SECRET[:9], SECRET[9:]),
        lambda: logging.getLogger("plugin").info("%d", SECRET),
    ],
)
def test_record_of_any_logger_is_masked(log):
    """A line of the standard library's logging shows no secret, however it is put together."""
    with log_lines() as lines:
        log()

    assert "ssw" not in lines()
    assert lines().strip()


def test_traceback_is_masked():
    """An error's text is masked in its traceback, which still names the error."""
    with log_lines() as lines:
        try:
            raise OSError(SECRET)  # noqa: TRY301  (as a plugin does)
        except OSError:
            logging.getLogger("plugin").exception("it failed")

    assert "OSError: ***" in lines()
    assert "ssw" not in lines()


def test_record_without_a_secret_stays_as_it_is():
    """Arguments keep their types, which a format needs, and a traceback stays."""
    with log_lines() as lines:
        try:
            raise OSError("no disk")  # noqa: TRY301  (as above)
        except OSError:
            logging.getLogger("plugin").exception("%d of %.1f", 3, 4)

    assert lines().startswith("3 of 4.0")
    assert "OSError: no disk" in lines()


def test_handler_masks_what_is_extra():
    """As a filter on a handler, for an app with its own logging, it masks what a record carries besides."""
    with log_lines(masks=False) as lines:
        logging.getLogger().handlers[-1].addFilter(redaction())
        logging.getLogger("plugin").info("hello", extra={"more": SECRET})

    assert lines() == "hello ***\n"


def test_lines_of_httpx_are_masked():
    """Httpx logs the URL of each request, and the token that a platform wants in it is masked."""
    client = httpx.Client(transport=httpx.MockTransport(lambda _: httpx.Response(200)))

    with log_lines() as lines, client:
        client.get("https://api.shop.example/bot", params={"token": SECRET})

    assert "GET https://api.shop.example/bot?token=***" in lines()


def test_secrets_are_masked_only_meanwhile():
    """What a program set up ends with it."""
    with redaction().in_log_records():
        inside = logging.getLogRecordFactory()

    assert logging.getLogRecordFactory() is not inside


def test_configuration_tells_its_secrets_before_a_channel_is_made(tmp_path):
    """Each secret is known by the time that a channel could log it."""
    (tmp_path / "convsdk.toml").write_text('[channels.a]\ntype = "chat"\nsecret = { env = "S" }\n', encoding="utf-8")
    told = []

    load_config(tmp_path / "convsdk.toml", load_plugins(), environ={"S": SECRET}, on_secret=told.append)

    assert told == [SECRET]
