"""The commands that read raw bytes: `parse` and `ingest`."""

import json
import os
import re
import secrets
import sys
import tempfile
import time
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, get_args, get_type_hints

import attrs
import click
from attrs import evolve

from convsdk.backfill import BATCH_SIZE, Parcel, Progress
from convsdk.cli.pipe import deliver, envelope_of
from convsdk.cli.screen import Screen, plain
from convsdk.cli.session import Session, common_options, rejects_option
from convsdk.cli.sources import Piece, Sources
from convsdk.config import load_config
from convsdk.core.events import Event, MessageReceived
from convsdk.core.explain import sentence
from convsdk.core.ports import Channel, Envelope, Headers, Request, Secret
from convsdk.desk import Received
from convsdk.errors import ConfigError, Forbidden, ParseError, TransientError
from convsdk.hub import Hub
from convsdk.rejects import Rejects

_NAME = "parse"
_PLACEHOLDER = "CONVSDK_NO_SECRET"
_KEY = re.compile(r"[A-Za-z0-9_.-]+")
_BATCH = 200
_PAUSES_S = (1, 2, 5, 10, 20)
_MEDIA_TYPES = {".json": "application/json", ".jsonl": "application/json", ".eml": "message/rfc822"}


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
@click.option("--channel", "name", metavar="NAME", help="Take the settings of this channel, as configured.")
@common_options
def parse(
    session: Session, *, channel_type: str, file: IO[bytes], headers: Headers, settings: tuple[str, ...], name: str
) -> None:
    """Show what an adapter makes of the bytes in FILE; - is standard input.

    Nothing is stored, and nothing is verified: a required secret that is not set gets a random value, unless it has a
    form of its own, and a required setting the value of its example. With --header, FILE is the body of a request,
    where else it may be a mail. Of a set-up handshake, what answers it is shown.
    """
    _require_type(session, channel_type)
    channel = _named(session, channel_type, name, settings) if name else _configured(session, channel_type, settings)
    request = _request(channel, file.read(), datetime.now(UTC), headers)
    handshake, refusal = _handshake(channel, request)
    if handshake:
        session.screen.facts(handshake)
        return
    events = channel.parse(request)
    if not events:
        session.screen.say(f"no events: {refusal or 'the adapter leaves it out'}")
    for event in events:
        _show(session.screen, event)


def _handshake(channel: Channel, request: Request) -> tuple[dict[str, Any] | None, str]:
    """Give what answers a set-up handshake, None where the request is none; and why one was refused, if it was."""
    try:
        response = channel.challenge(request)
    except Forbidden as error:
        return None, f"a set-up handshake that is not authentic here ({error}): try --channel NAME, and --header"
    if response is None:
        return None, ""
    body = response.body.decode("utf-8", "replace")
    answer = {"status": response.status, "media_type": response.media_type, "body": body}
    return {"event": "set-up handshake, which is answered and holds no events", **answer}, ""


def _show(screen: Screen, event: Event) -> None:
    told = {"event": type(event).__name__} | (summary(event) if isinstance(event, MessageReceived) else plain(event))
    if screen.is_json:
        whole = {"summary": told} if isinstance(event, MessageReceived) else {}
        screen.json(plain(event) | {"event": told["event"]} | whole)
        return
    screen.facts({key: value for key, value in told.items() if value} or told)
    screen.say()


def _request(channel: Channel, body: bytes, received_at: datetime, headers: Headers) -> Request:
    """Give the bytes as the channel takes them: a mail from a file, or the body of a request with those `headers`."""
    envelope = Envelope(sender=None) if channel.addresses and not headers else None
    return Request(received_at=received_at, body=body, headers=headers, envelope=envelope)


def summary(event: MessageReceived) -> dict[str, Any]:
    """Give what is most asked of a message: who wrote it, how far that is believed, in answer to what, and what."""
    claims, detail = event.hint.identifiers, event.detail
    sections = [*detail.get("sections", [])]
    asides = {kind: "".join(text for one, text in sections if one == kind) for kind in ("quote", "signature")}
    return {
        "id": event.external_id,
        "sender": claims[0].value if claims else detail.get("from", ""),
        "name": next((trait.value for trait in event.hint.traits if trait.name == "name"), ""),
        "trust": claims[0].trust if claims else "none",
        "attested_by": detail.get("attested_by", ""),
        "makes_contact": event.hint.may_create,
        "class": detail.get("class", ""),
        "why": detail.get("why", ""),
        "review": detail.get("review", ""),
        "unreadable": detail.get("unreadable", ""),
        "thread": event.thread,
        "answers": event.references,
        "subject": event.subject,
        "text": event.text,
        **asides,
        "attachments": [f"{one.name} ({one.media_type}, {one.size} bytes)" for one in event.attachments],
    }


def _named(session: Session, channel_type: str, name: str, settings: Sequence[str]) -> Channel:
    if settings:
        raise ConfigError("--channel has all settings from the configuration: leave --set out")
    channel = session.config.channels.get(name)
    if channel is None or channel.type != channel_type:
        known = ", ".join(one.name for one in session.config.channels.values() if one.type == channel_type) or "none"
        raise ConfigError(f"no channel {name!r} of type {channel_type!r} is configured (there are: {known})")
    return channel


def _configured(session: Session, channel_type: str, settings: Sequence[str]) -> Channel:
    known = session.plugins.channel_types
    given, made_up = dict(map(_setting, settings)), dict[str, str]()
    if channel_type in known:
        made_up = _placeholders(known[channel_type])
        made_up = {name: value for name, value in made_up.items() if name not in given}
        given = made_up | given
    lines = [f"[channels.{_NAME}]", f"type = {json.dumps(channel_type)}", *map(" = ".join, given.items())]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "convsdk.toml")
        path.write_text("\n".join(lines), encoding="utf-8")
        try:
            environ = {**os.environ, _PLACEHOLDER: secrets.token_hex(32)}
            return load_config(path, session.plugins, environ=environ).channels[_NAME]
        except ConfigError as error:
            place = re.compile(rf"{re.escape(str(path))}:\d+: (channel '{_NAME}':? )?")
            problems = [_asked_for(place.sub("", line), made_up) for line in str(error).splitlines()]
            remedy = _remedy(session, channel_type, problems)
            raise ConfigError(f"{channel_type}: {'; '.join(problems)} ({remedy})") from None


def _asked_for(problem: str, made_up: Mapping[str, str]) -> str:
    """Give a problem as it is, or where nobody gave the setting, what to give: a made-up secret has no form."""
    name = _setting_in(problem)
    if name not in made_up:
        return problem
    given = f'{name}={{ env = "NAME" }}'
    return f"{name} has a form of its own, so none was made up: name a variable that holds one, --set '{given}'"


def _setting_in(problem: str) -> str:
    return re.split(r"[: .]", problem, maxsplit=1)[0]


def _remedy(session: Session, channel_type: str, problems: Sequence[str]) -> str:
    """Say how settings are given: a secret, and what belongs to a channel, by the configuration alone."""
    known = session.plugins.channel_types
    if channel_type not in known:
        return "a configured channel is given by its type and --channel NAME"
    hints = get_type_hints(known[channel_type].settings)
    hidden = {name for name, kind in hints.items() if Secret in (kind, *get_args(kind))}
    if all(_setting_in(problem) in hidden for problem in problems):
        return "--channel NAME takes the settings of a configured channel"
    return "give settings with --set KEY=VALUE, or those of a configured channel with --channel NAME"


def _require_type(session: Session, channel_type: str) -> None:
    """Raise `ConfigError` where a configured channel is named in the place of a type."""
    if channel_type in session.plugins.channel_types:
        return
    try:
        channel = session.config.channels.get(channel_type)
    except ConfigError:
        return  # the type is what was asked about
    if channel is not None:
        raise ConfigError(
            f"{channel_type!r} is a channel, and no type: use --channel {channel_type}, and its type "
            f"{channel.type!r} in the place of its name"
        )


def _setting(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not _KEY.fullmatch(name):
        raise ConfigError(f"{text!r} is no setting: write --set key=value")
    try:
        tomllib.loads(f"value = {value}")
    except tomllib.TOMLDecodeError:
        return name, json.dumps(value)  # a JSON string is a TOML string
    return name, value


def _placeholders(channel_type: type[Channel]) -> dict[str, str]:
    """Give something for each required setting that has to be a secret, or that shows an example of itself."""
    hints = get_type_hints(channel_type.settings)
    required = [one for one in attrs.fields(channel_type.settings) if one.default is attrs.NOTHING]
    secret = f'{{ env = "{_PLACEHOLDER}" }}'
    examples = {one.name: json.dumps(one.metadata["example"]) for one in required if "example" in one.metadata}
    return {one.name: secret for one in required if hints[one.name] is Secret} | examples


# -- ingest


@click.command
@click.argument("channel")
@click.argument("files", nargs=-1, required=True)
@_headers
@click.option("--sender", metavar="ADDRESS", help="The envelope's sender of one mail on standard input; may be empty.")
@click.option("--recipient", "recipients", metavar="ADDRESS", multiple=True, help="And its recipient.")
@rejects_option
@click.option("--bulk", "is_bulk", is_flag=True, help="Large batches, told progress, and a checkpoint to go on from.")
@common_options
def ingest(
    session: Session,
    *,
    channel: str,
    files: tuple[str, ...],
    headers: Headers,
    sender: str | None,
    recipients: tuple[str, ...],
    rejects: Path,
    is_bulk: bool,
) -> None:
    """Take FILES in through a channel, into the store.

    A FILE is one request's body, a mail, an mbox, which is split into its mails, JSON lines (.jsonl), a request's
    body each, or a folder: a Maildir, or one with .eml files; - is standard input. What the channel or the store
    refuses is kept in the folder for rejects and told on standard error, and the exit status is 1: 'convsdk rejects'
    lists it and runs it again. A channel that verifies wants the signature of a body as well, with --header.

    With --bulk, the same command goes on where it was when it ended, however it ended. Where the files have changed
    in what was taken in before, it begins anew, and knows again what is in the store.

    With - alone and an envelope, standard input is one mail from a mail server, which the exit status is for
    (sysexits.h): 0 it is on disk here, 75 try again later, 65, 77 and 78 it will never be taken. The envelope is in
    --sender and --recipient, or in the variables SENDER, RECIPIENT and ORIGINAL_RECIPIENT, as mail servers set them.
    """
    envelope = envelope_of(sender, recipients, os.environ) if files == ("-",) else None
    if envelope is None and (sender is not None or recipients):
        raise click.UsageError("an envelope is of one mail on standard input: give - as the only file")
    if envelope is not None:
        raise click.exceptions.Exit(deliver(session, channel, sys.stdin.buffer, envelope, rejects=Rejects(rejects)))
    hub = session.hub(channel=channel)
    with Sources(files) as sources:
        intake = _Intake(
            hub, hub.channel(channel), headers=headers, rejects=Rejects(rejects), sources=sources, screen=session.screen
        )
        try:
            with session.screen.progress(f"into {channel}", sources.total, is_told=is_bulk) as tell:
                for progress in intake.in_bulk() if is_bulk else intake.run():
                    intake.settle(progress)
                    tell(sources.read, intake.outcomes.total())
        finally:
            told = ", ".join(f"{count} {outcome}" for outcome, count in sorted(intake.outcomes.items())) or "nothing"
            session.screen.say(f"{intake.outcomes.total()} events: {told}")
    if intake.problems:
        raise click.exceptions.Exit(1)


class _Intake:
    """Where pieces are handed in: takes them into the hub, and keeps what cannot be taken aside."""

    def __init__(
        self, hub: Hub, channel: Channel, *, headers: Headers, rejects: Rejects, sources: Sources, screen: Screen
    ) -> None:
        self.outcomes: Counter[str] = Counter()
        self.problems = 0
        self._hub = hub
        self._channel = channel
        self._headers = headers
        self._rejects = rejects
        self._sources = sources
        self._screen = screen

    def run(self, *, name: str = "", batch_size: int = _BATCH) -> Iterator[Progress]:
        """Take all pieces in that come now, and give how far that is after each batch."""
        return self._hub.receive_many(self._channel.name, self._parcels(), name=name, batch_size=batch_size)

    def in_bulk(self) -> Iterator[Progress]:
        """As `run`, but in large batches, from the checkpoint on; wait where the store is busy or full, and go on."""
        name = f"ingest/{self._channel.name}/{self._sources.name}" if self._sources.name else ""
        pauses = iter(_PAUSES_S)
        while True:
            self._begin(name)
            try:
                for progress in self.run(name=name, batch_size=BATCH_SIZE):
                    pauses = iter(_PAUSES_S)
                    yield progress
                return
            except TransientError as error:
                pause = next(pauses, None)
                if pause is None or not name:
                    raise TransientError(
                        f"{error}; what was told is kept, and the same command goes on from there"
                    ) from error
                self._screen.aside(f"{error} (again in {pause} s)")
                time.sleep(pause)

    def _begin(self, name: str) -> None:
        position = self._hub.store.checkpoint(self._hub.workspace, name) if name else None
        if not self._sources.go_on(position):
            self._screen.aside("the files have changed since they were taken in: all are read from the start")
        elif position:
            self._screen.aside("going on from the checkpoint: what was taken in before is passed over")

    def _parcels(self) -> Iterator[Parcel]:
        for piece in self._sources.pieces():
            # The bytes are let go of here: attachments of a thousand mails would fill the memory.
            yield Parcel(events=self._read(piece), position=piece.position, origin=evolve(piece, body=None))

    def _read(self, piece: Piece) -> tuple[Event, ...]:
        if piece.body is None:
            self._report(piece, piece.problem)
            return ()
        request = self._request(piece, piece.body)
        try:
            events = self._hub.read(self._channel.name, request)
            if not events and self._channel.challenge(request):
                told = (
                    f"a set-up handshake, which holds no events: 'convsdk parse {self._channel.type}' shows its answer"
                )
                self._screen.aside(f"{piece.source}: {told}")
            return events
        except Forbidden as error:
            self._keep(piece, request, error if self._headers else self._unsigned(error))
        except ParseError as error:
            self._keep(piece, request, error)
        return ()

    def _unsigned(self, error: Forbidden) -> Forbidden:
        """Give the refusal of a bare body: its remedy is another than that of a request which a platform sent."""
        what = ": ".join(str(error).split(": ")[:2])
        return Forbidden(
            f"{what}: this channel verifies, and a bare body is not signed: give the signature that came with it, "
            f"--header 'NAME: VALUE', or only look: 'convsdk parse {self._channel.type} FILE --channel "
            f"{self._channel.name}'"
        )

    def _request(self, piece: Piece, body: bytes) -> Request:
        headers = self._headers if self._channel.addresses else _with_type(self._headers, piece.place.path)
        return _request(self._channel, body, piece.received_at, headers)

    def settle(self, progress: Progress) -> None:
        """Tell and count what became of a batch."""
        for one in progress.settled:
            piece = one.parcel.origin
            assert isinstance(piece, Piece)  # noqa: S101  (for the type checker: it was put in above)
            for received in one.received:
                self.outcomes[received.decision.outcome.value] += 1
                if self._screen.is_json:
                    self._screen.json(received_record(received) | {"file": piece.source})
            if one.error:
                self._keep(piece, self._request(piece, piece.place.read()), one.error)

    def _keep(self, piece: Piece, request: Request, error: Exception) -> None:
        kept = self._rejects.keep(self._channel.name, request, error)
        self._report(piece, str(error), str(self._rejects.path(kept.id)))

    def _report(self, piece: Piece, problem: str, kept: str = "") -> None:
        self.problems += 1
        if self._screen.is_json:
            self._screen.json({"file": piece.source, "problem": problem, "kept": kept})
        self._screen.aside(f"{piece.source}: {problem}" + (f" [kept as {kept}]" if kept else ""))


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


def _with_type(headers: Headers, path: Path) -> Headers:
    media_type = _MEDIA_TYPES.get(path.suffix.lower())
    if media_type is None or "content-type" in headers:
        return headers
    return Headers([*((name, value) for name in headers for value in headers.all(name)), ("content-type", media_type)])
