"""The commands that read raw bytes: `parse` and `ingest`."""

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
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, get_type_hints

import attrs
import click
from attrs import frozen

from convsdk.cli.screen import Screen, plain
from convsdk.cli.session import Session, common_options
from convsdk.config import load_config
from convsdk.core.events import Event
from convsdk.core.explain import sentence
from convsdk.core.ports import Channel, Headers, Request, Secret
from convsdk.desk import Received
from convsdk.errors import ConfigError, ConvsdkError, Forbidden, ParseError, PermanentError
from convsdk.hub import Hub

_NAME = "parse"
_PLACEHOLDER = "CONVSDK_NO_SECRET"
_KEY = re.compile(r"[A-Za-z0-9_.-]+")
_MBOX_START = b"From "
_BATCH = 200
_BATCH_BYTES = 16_000_000
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
    intake = _Intake(hub, hub.channel(channel), headers, rejects)
    try:
        with session.screen.progress(f"into {channel}", _size(files)) as advance:
            for batch in _batches(intake.pieces(files)):
                for source, one in intake.take(batch):
                    if session.screen.is_json:
                        session.screen.json(received_record(one) | {"file": source})
                advance(sum(len(piece.body) for piece in batch))
    finally:
        _report(session.screen, intake.outcomes, intake.problems)
    if intake.problems:
        raise click.exceptions.Exit(1)


class _Intake:
    """Where pieces are handed in: takes batches into the hub, and keeps what cannot be taken aside."""

    def __init__(self, hub: Hub, channel: Channel, headers: Headers, rejects: Path) -> None:
        self.outcomes: Counter[str] = Counter()
        self.problems: list[dict[str, str]] = []
        self._hub = hub
        self._channel = channel
        self._headers = headers
        self._rejects = rejects

    def pieces(self, files: Iterable[str]) -> Iterator[Piece]:
        """Give the pieces that the files hold."""
        for name in files:
            try:
                body = sys.stdin.buffer.read() if name == "-" else None
                yield from _mails(name, body) if _is_mbox(name, body) else [_piece(name, body)]
            except OSError as error:
                self.problems.append({"file": name, "problem": error.strerror or str(error), "kept": ""})

    def take(self, batch: Sequence[Piece]) -> list[tuple[str, Received]]:
        """Take a batch in, in one transaction, and give what became of it, with the source of each."""
        read = [(piece, events) for piece in batch if (events := self._read(piece)) is not None]
        try:
            received = self._receive(read)
        except PermanentError:
            # One of them cannot be kept: each by itself, so that it loses none of its neighbours.
            received = [one for each in read for one in self._receive_alone(*each)]
        for _, one in received:
            self.outcomes[one.decision.outcome.value] += 1
        return received

    def _read(self, piece: Piece) -> Sequence[Event] | None:
        headers = _with_type(self._headers, piece.source)
        request = Request(received_at=piece.received_at, body=piece.body, headers=headers)
        try:
            self._channel.verify(request)
            return self._channel.parse(request)
        except (ParseError, Forbidden) as error:
            self._keep(piece, error)
            return None

    def _receive(self, read: Sequence[tuple[Piece, Sequence[Event]]]) -> list[tuple[str, Received]]:
        sources = [piece.source for piece, events in read for _ in events]
        received = self._hub.receive(self._channel.name, [event for _, events in read for event in events])
        return list(zip(sources, received, strict=True))

    def _receive_alone(self, piece: Piece, events: Sequence[Event]) -> list[tuple[str, Received]]:
        try:
            return self._receive([(piece, events)])
        except PermanentError as error:
            self._keep(piece, error)
            return []

    def _keep(self, piece: Piece, error: ConvsdkError) -> None:
        self._rejects.mkdir(mode=0o700, parents=True, exist_ok=True)
        digest = hashlib.sha256(piece.body).hexdigest()[:12]
        kept = self._rejects / f"{digest}-{Path(piece.source).name}"
        kept.write_bytes(piece.body)
        self.problems.append({"file": piece.source, "problem": str(error), "kept": str(kept)})


def _batches(pieces: Iterable[Piece]) -> Iterator[list[Piece]]:
    batch: list[Piece] = []
    for piece in pieces:
        batch.append(piece)
        if len(batch) == _BATCH or sum(len(one.body) for one in batch) >= _BATCH_BYTES:
            yield batch
            batch = []
    if batch:
        yield batch


def _size(files: Iterable[str]) -> int | None:
    """Give how many bytes the files have together; None where one is standard input."""
    paths = list(map(Path, files))
    return None if Path("-") in paths else sum(path.stat().st_size for path in paths if path.is_file())


def _report(screen: Screen, outcomes: Counter[str], problems: Sequence[dict[str, str]]) -> None:
    told = ", ".join(f"{count} {outcome}" for outcome, count in sorted(outcomes.items())) or "nothing"
    screen.say(f"{outcomes.total()} events: {told}")
    for one in problems:
        if screen.is_json:
            screen.json(one)
        screen.aside(f"{one['file']}: {one['problem']}" + (f" [kept as {one['kept']}]" if one["kept"] else ""))


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
