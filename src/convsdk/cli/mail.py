"""The command `mail`: a mail server for the channels that have an address, and the mailboxes of those that have one."""

import asyncio
import logging
import re
import signal
import ssl
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from convsdk.cli.session import Session, common_options, memory_option, rejects_option
from convsdk.errors import ConfigError
from convsdk.listening import Listening
from convsdk.rejects import Rejects

if TYPE_CHECKING:
    from convsdk.mailserver import MailServer

_REJECTS = 1000
_UNIX = "unix:"


_Place = tuple[str, int] | Path


def _place(_: click.Context, option: click.Parameter, value: str | None) -> _Place | None:
    if value is None:
        return None
    if value.startswith(_UNIX) and len(value) > len(_UNIX):
        return Path(value.removeprefix(_UNIX))
    host, _colon, port = value.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:  # noqa: PLR2004  (the last port)
        raise click.BadParameter(
            f"{value!r} is no place to listen: write HOST:PORT, such as 127.0.0.1:2525, or unix:PATH", param=option
        )
    return host, int(port)


def _mode(_: click.Context, option: click.Parameter, value: str) -> int:
    if not re.fullmatch(r"0?[0-7]{3}", value):
        raise click.BadParameter(f"{value!r} is no mode of a file: write one such as 0660", param=option)
    return int(value, 8)


_file = click.Path(path_type=Path, exists=True, dir_okay=False)


@click.command
@click.option("--smtp", metavar="PLACE", callback=_place, help="Where to speak SMTP: HOST:PORT; 0 is a free port.")
@click.option("--lmtp", metavar="PLACE", callback=_place, help="Where to speak LMTP: HOST:PORT, or unix:PATH.")
@click.option("--socket-mode", default="0660", show_default=True, callback=_mode, help="Who may use a unix:PATH.")
@click.option("--tls-cert", type=_file, help="The certificate to offer STARTTLS with, and those above it (PEM).")
@click.option("--tls-key", type=_file, help="Its key, where that is in a file of its own.")
@rejects_option
@memory_option
@common_options
def mail(
    session: Session,
    *,
    smtp: _Place | None,
    lmtp: _Place | None,
    socket_mode: int,
    tls_cert: Path | None,
    tls_key: Path | None,
    rejects: Path,
    memory_mib: int,
) -> None:
    """Take mail in by SMTP and LMTP, and from mailboxes by IMAP, until SIGTERM or SIGINT.

    Mail to a channel's address goes to that channel, and any other is refused: those of all workspaces, or of the one
    that --workspace names. Channels with a mailbox, or another source that they listen to, need neither --smtp nor
    --lmtp. What is under way at the signal is kept and answered. What cannot be taken in goes to the folder for
    rejects: see 'convsdk rejects'. Plugins and webhooks are told by 'convsdk serve' or 'convsdk worker'.
    """
    try:
        from convsdk.mailserver import MailLimits, MailServer  # noqa: PLC0415  (the extra may be missing)
    except ImportError as error:
        raise ConfigError(f"'convsdk mail' needs the extra 'email' ({error}): pip install 'convsdk[email]'") from error
    places = {name: place for name, place in (("smtp", smtp), ("lmtp", lmtp)) if place}
    hubs = session.hubs()
    if not places and not any(one.listens for hub in hubs for one in hub.channels.values()):
        raise ConfigError(
            "there is nowhere to listen: give --smtp HOST:PORT, --lmtp HOST:PORT or both, "
            "or let a channel read a mailbox (imap)"
        )
    logging.getLogger("mail.log").disabled = True  # the library's, which repeats what clients say
    tls = _tls(tls_cert, tls_key)
    kept = Rejects(rejects, capacity=_REJECTS)
    limits = MailLimits(memory_bytes=memory_mib << 20)

    async def run() -> None:
        async with AsyncExitStack() as running:
            facts: dict[str, Any] = {}
            if places:
                server = await running.enter_async_context(MailServer(*hubs, rejects=kept, limits=limits, tls=tls))
                facts = await _listen(server, places, socket_mode) | {"addresses": server.addresses}
            listening = await running.enter_async_context(Listening(*hubs, rejects=kept))
            await _wait_for_signal(session, facts | {"listening": listening.channels})

    asyncio.run(run())


async def _listen(server: "MailServer", places: dict[str, _Place], socket_mode: int) -> dict[str, str]:
    found = {}
    for name, place in places.items():
        is_lmtp = name == "lmtp"
        try:
            if isinstance(place, Path):
                await server.listen_at(place, mode=socket_mode, is_lmtp=is_lmtp)
                found[name] = f"{_UNIX}{place}"
            else:
                host, port = place
                found[name] = f"{host}:{await server.listen(host.strip('[]'), port, is_lmtp=is_lmtp)}"
        except OSError as error:
            why = re.sub(r".*: (\[errno \d+\] )?", "", str(error.strerror))  # asyncio adds the address once more
            where = place if isinstance(place, Path) else f"{place[0]}:{place[1]}"
            raise ConfigError(
                f"{where} cannot be listened on ({why}): end what does, or give another --{name}"
            ) from error
    return found


async def _wait_for_signal(session: Session, facts: dict[str, Any]) -> None:
    ending, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: loop.call_soon_threadsafe(ending.set))
    session.screen.facts(facts)
    await ending.wait()


def _tls(certificate: Path | None, key: Path | None) -> ssl.SSLContext | None:
    if certificate is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(certificate, key)
    except ssl.SSLError as error:
        raise ConfigError(f"{certificate} and its key cannot be used ({error.reason}): give a pair in PEM") from error
    return context
