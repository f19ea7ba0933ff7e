"""One mail from a mail server by a pipe (Postfix's pipe(8) and local(8), Exim, procmail): taken in, or told why not.

The exit status is the answer (sysexits.h). 0 says what 250 says by SMTP: it is on disk here, in the store or among the
rejects. All that somebody here can mend is answered 75, so that the mail waits with the mail server.
"""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from convsdk.cli.session import Session
from convsdk.cli.sources import LONGEST
from convsdk.core.ports import Channel, Envelope, Request
from convsdk.errors import ConvsdkError, Forbidden, ParseError, PermanentError
from convsdk.rejects import Rejects

# As numbers, since Python names them on Unix alone.
_TAKEN, _NO_MAIL, _LATER, _REFUSED, _NOBODY = 0, 65, 75, 77, 78
_FROM_LINE = b"From "
# What Postfix gives where the sender is empty, as it is of what programs send.
_NULL_SENDERS = {"mailer-daemon", "<>"}


def envelope_of(sender: str | None, recipients: Sequence[str], environ: Mapping[str, str]) -> Envelope | None:
    """Give the envelope that the options, or else the environment, name; None where they name none."""
    if sender is None and not recipients:
        names = ("ORIGINAL_RECIPIENT", "RECIPIENT")
        recipients = tuple(dict.fromkeys(environ[name] for name in names if environ.get(name)))
        if not recipients:
            return None
        sender = environ.get("SENDER")
    is_null = sender is not None and sender.lower() in _NULL_SENDERS
    return Envelope(sender="" if is_null else sender, recipients=tuple(recipients))


def deliver(session: Session, name: str, mail: IO[bytes], envelope: Envelope, *, rejects: Rejects) -> int:
    """Take one mail in through the channel `name`, and give the exit status; what is wrong goes to standard error."""
    raw = mail.read(LONGEST + 1)
    if raw.startswith(_FROM_LINE):  # as in an mbox: the mail begins below
        raw = raw.partition(b"\n")[2]
    if not raw or len(raw) > LONGEST:
        _tell(session.screen.aside, f"{len(raw)} bytes are no mail that is taken (most: {LONGEST})")
        return _NO_MAIL
    try:
        return _taken(session, name, Request(received_at=datetime.now(UTC), body=raw, envelope=envelope), rejects)
    except Forbidden as error:
        _tell(session.screen.aside, str(error))
        return _REFUSED
    except (ConvsdkError, OSError) as error:
        _tell(session.screen.aside, f"{error} (the mail server keeps the mail and tries again)")
        return _LATER
    except Exception as error:  # noqa: BLE001  (any other status would send the mail back, for a mistake that is ours)
        _tell(session.screen.aside, f"{type(error).__name__} (the mail server keeps the mail and tries again)")
        return _LATER


def _taken(session: Session, name: str, request: Request, rejects: Rejects) -> int:
    channel = session.config.channels.get(name)
    if channel is None or not channel.addresses:
        _tell(
            session.screen.aside,
            f"no channel {name!r} that takes mail is configured: name one in the mail server's command",
        )
        return _NOBODY
    hub = session.hub(channel=name)
    try:
        received = hub.receive(name, hub.read(name, request))
    except (ParseError, PermanentError, ValueError) as error:
        return _set_aside(session, channel, request, error, rejects)
    for one in received:
        _tell(session.screen.say, f"{one.event.external_id}: {one.decision.outcome.value}")
    return _TAKEN


def _set_aside(session: Session, channel: Channel, request: Request, error: Exception, rejects: Rejects) -> int:
    kept = rejects.keep(channel.name, request, error)
    _tell(session.screen.aside, f"{error} [kept as {rejects.path(kept.id)}]")
    return _TAKEN


def _tell(write: Callable[[str], None], words: str) -> None:
    # The status is the answer: where nothing can be written, on a full disk, another would send the mail back. What is
    # left in a buffer would be tried again at the end, and change the status as well.
    try:
        write(words)
    except OSError:
        with Path(os.devnull).open("wb") as nothing:
            for stream in (sys.stdout, sys.stderr):
                os.dup2(nothing.fileno(), stream.fileno())
