"""The commands that read raw bytes: `parse`, `ingest` and `scenarios`."""

import hashlib
import json
import mailbox
import os
import re
import secrets
import sys
import tempfile
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, get_type_hints

import attrs
import click
from attrs import frozen

from convsdk.cli.screen import Screen, plain
from convsdk.cli.session import Session, common_options
from convsdk.config import load_config
from convsdk.core.explain import sentence
from convsdk.core.ports import Channel, Headers, Request, Secret
from convsdk.core.storage import Store
from convsdk.errors import ConfigError, Forbidden, ParseError
from convsdk.hub import Received
from convsdk.scenarios import Verdict, load_scenarios, run_scenario
from convsdk.store import open_store

_NAME = "parse"
_PLACEHOLDER = "CONVSDK_NO_SECRET"
_KEY = re.compile(r"[A-Za-z0-9_.-]+")
_MBOX_START = b"From "
_MEDIA_TYPES = {".json": "application/json", ".eml": "message/rfc822"}


@frozen(kw_only=True)
class Piece:
    """The raw bytes of one request: where they come from, and when they arrived there."""

    source: str
    body: bytes
    received_at: datetime


def _header(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> Headers:
    pairs = [value.partition(":") for value in values]
    if wrong := [value for value, (_, colon, _) in zip(values, pairs, strict=True) if not colon]:
        raise click.BadParameter(f"{wrong[0]!r} has no colon: write 'Name: value'")
    return Headers([(name.strip(), value.strip()) for name, _, value in pairs])


_headers = click.option("--header", "headers", metavar="K:V", multiple=True, callback=_header, help="A header field.")


# -- parse


@click.command
@click.argument("channel_type", metavar="TYPE")
@click.argument("file", type=click.File("rb"))
@_headers
@click.option("--set", "settings", metavar="KEY=VALUE", multiple=True, help="A setting of the channel, as in TOML.")
@common_options
def parse(session: Session, channel_type: str, file: IO[bytes], headers: Headers, settings: tuple[str, ...]) -> None:
    """Show what an adapter makes of the bytes in FILE, as JSON lines.

    Nothing is stored, and nothing is verified: a required secret that is not set gets a random value.
    """
    channel = _configured(session, channel_type, settings)
    request = Request(received_at=datetime.now(UTC), body=file.read(), headers=headers)
    for event in channel.parse(request):
        session.screen.json({"event": type(event).__name__} | plain(event))


def _configured(session: Session, channel_type: str, settings: Sequence[str]) -> Channel:
    known = session.plugins.channel_types
    given = dict(map(_setting, settings))
    if channel_type in known:
        given = dict.fromkeys(_required_secrets(known[channel_type]), f'{{ env = "{_PLACEHOLDER}" }}') | given
    lines = [f"[channels.{_NAME}]", f"type = {json.dumps(channel_type)}", *map(" = ".join, given.items())]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "convsdk.toml")
        path.write_text("\n".join(lines), encoding="utf-8")
        try:
            environ = {**os.environ, _PLACEHOLDER: secrets.token_hex(32)}
            return load_config(path, session.plugins, environ=environ).channels[_NAME]
        except ConfigError as error:
            place = re.compile(rf"{re.escape(str(path))}:\d+: (channel '{_NAME}':? )?")
            told = "; ".join(place.sub("", line) for line in str(error).splitlines())
            raise ConfigError(f"{channel_type}: {told} (give settings with --set KEY=VALUE)") from None


def _setting(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not _KEY.fullmatch(name):
        raise ConfigError(f"{text!r} is no setting: write --set key=value")
    try:
        tomllib.loads(f"value = {value}")
    except tomllib.TOMLDecodeError:
        return name, json.dumps(value)  # a JSON string is a TOML string
    return name, value


def _required_secrets(channel_type: type[Channel]) -> list[str]:
    hints = get_type_hints(channel_type.settings)
    fields = attrs.fields(channel_type.settings)
    return [one.name for one in fields if one.default is attrs.NOTHING and hints[one.name] is Secret]


# -- ingest


@click.command
@click.argument("channel")
@click.argument("files", nargs=-1, required=True)
@_headers
@click.option("--rejects", type=click.Path(path_type=Path), default=Path("rejects"), help="Where refused bytes go.")
@common_options
def ingest(session: Session, channel: str, files: tuple[str, ...], headers: Headers, rejects: Path) -> None:
    """Take FILES in through a channel, into the store.

    A FILE is one request's body, a mail, or an mbox, which is split into its mails; - is standard input. What the
    channel refuses is copied to the folder for rejects and told at the end, with exit status 1.
    """
    hub = session.hub(channel=channel)
    hub.channel(channel)
    problems: list[dict[str, str]] = []
    outcomes: Counter[str] = Counter()
    for piece in session.screen.progress(_pieces(files, problems), f"into {channel}"):
        request = Request(received_at=piece.received_at, body=piece.body, headers=_with_type(headers, piece.source))
        try:
            handled = hub.handle(channel, request)
        except (ParseError, Forbidden) as error:
            problems.append({"file": piece.source, "problem": str(error), "kept": _keep(piece, rejects)})
            continue
        for one in handled.received:
            outcomes[one.decision.outcome.value] += 1
            if session.screen.is_json:
                session.screen.json(received_record(one) | {"file": piece.source})
    _report(session.screen, outcomes, problems)


def _report(screen: Screen, outcomes: Counter[str], problems: Sequence[dict[str, str]]) -> None:
    told = ", ".join(f"{count} {outcome}" for outcome, count in sorted(outcomes.items())) or "nothing"
    screen.say(f"{outcomes.total()} events: {told}")
    for one in problems:
        if screen.is_json:
            screen.json(one)
        screen.aside(f"{one['file']}: {one['problem']}" + (f" [kept as {one['kept']}]" if one["kept"] else ""))
    if problems:
        raise click.exceptions.Exit(1)


def received_record(received: Received) -> dict[str, Any]:
    """Give what is told of one event that was taken in: what it was, what was decided, and why."""
    decision = received.decision
    return {
        "event": type(received.event).__name__,
        "external_id": received.event.external_id,
        "outcome": decision.outcome.value,
        "contact": decision.contact,
        "conversation": received.conversation,
        "because": [sentence(step) for step in (*decision.steps, *decision.refused)],
    }


def _pieces(files: Iterable[str], problems: list[dict[str, str]]) -> Iterator[Piece]:
    for name in files:
        try:
            body = sys.stdin.buffer.read() if name == "-" else None
            yield from _mails(name, body) if _is_mbox(name, body) else [_piece(name, body)]
        except OSError as error:
            problems.append({"file": name, "problem": error.strerror or str(error), "kept": ""})


def _piece(name: str, body: bytes | None) -> Piece:
    return Piece(source=name, body=Path(name).read_bytes() if body is None else body, received_at=datetime.now(UTC))


def _is_mbox(name: str, body: bytes | None) -> bool:
    if body is not None:
        return body.startswith(_MBOX_START)
    with Path(name).open("rb") as file:
        return file.read(len(_MBOX_START)) == _MBOX_START


def _mails(name: str, body: bytes | None) -> Iterator[Piece]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(name)
        if body is not None:
            path = Path(folder, "stdin.mbox")
            path.write_bytes(body)
        with closing(mailbox.mbox(path, create=False)) as box:
            for number, key in enumerate(box.keys(), 1):
                first, _, mail = box.get_bytes(key, from_=True).partition(b"\n")
                yield Piece(source=f"{name}#{number}", body=mail, received_at=_delivered_at(first))


def _delivered_at(from_line: bytes) -> datetime:
    """Give the time in an mbox's `From ` line, which the mail server wrote; the present where there is none."""
    now = datetime.now(UTC)
    try:
        at = datetime.strptime(" ".join([*from_line.decode("ascii").split()[2:7], "+0000"]), "%a %b %d %H:%M:%S %Y %z")
    except ValueError:
        return now
    return min(at, now)


def _with_type(headers: Headers, source: str) -> Headers:
    media_type = _MEDIA_TYPES.get(Path(source).suffix.lower())
    if media_type is None or "content-type" in headers:
        return headers
    return Headers([*((name, value) for name in headers for value in headers.all(name)), ("content-type", media_type)])


def _keep(piece: Piece, folder: Path) -> str:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    digest = hashlib.sha256(piece.body).hexdigest()[:12]
    kept = folder / f"{digest}-{Path(piece.source).name}"
    kept.write_bytes(piece.body)
    return str(kept)


# -- scenarios


@click.command
@click.argument("file", type=click.Path(path_type=Path))
@common_options
def scenarios(session: Session, file: Path) -> None:
    """Run the identity scenarios in FILE: a line for each, and a diff where one fails.

    Each runs on a fresh store: in memory, or with '--store sqlite:' in a file of its own. Another store is used as it
    is, and should be empty.
    """
    verdicts: list[Verdict] = []
    for scenario in load_scenarios(file):
        with _scenario_store(session) as store:
            verdicts.append(run_scenario(scenario, store, kinds=session.plugins.kinds))
        _tell_verdict(session.screen, verdicts[-1])
    failed = sum(not one.is_passed for one in verdicts)
    session.screen.say(f"{len(verdicts)} scenarios, {failed} failed", style="red" if failed else "green")
    if failed:
        raise click.exceptions.Exit(1)


@contextmanager
def _scenario_store(session: Session) -> Iterator[Store]:
    with tempfile.TemporaryDirectory() as folder:
        url = session.asked_store or "memory:"
        url = f"sqlite:///{Path(folder, 'scenario.db')}" if url == "sqlite:" else url
        with closing(open_store(url, factories=session.plugins.store_factories)) as store:
            yield store


def _tell_verdict(screen: Screen, verdict: Verdict) -> None:
    if screen.is_json:
        screen.json(plain(verdict) | {"passed": verdict.is_passed})
        return
    state = "ok  " if verdict.is_passed else "FAIL"
    screen.say(f"{state}  {verdict.name}  ({verdict.runs} runs)", style="" if verdict.is_passed else "red")
    for difference in verdict.differences:
        screen.say(f"      {difference}")
