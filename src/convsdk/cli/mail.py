"""The command `mail`: a mail server for the channels that have an address."""

import asyncio
import logging
import re
import signal
import ssl
from pathlib import Path
from typing import TYPE_CHECKING

import click

from convsdk.cli.session import Session, common_options, rejects_option
from convsdk.errors import ConfigError
from convsdk.rejects import Rejects

if TYPE_CHECKING:
    from convsdk.mailserver import MailServer

_REJECTS = 1000


def _place(_: click.Context, option: click.Parameter, value: str | None) -> tuple[str, int] | None:
    if value is None:
        return None
    host, _colon, port = value.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:  # noqa: PLR2004  (the last port)
        raise click.BadParameter(
            f"{value!r} is no place to listen: write HOST:PORT, such as 127.0.0.1:2525", param=option
        )
    return host, int(port)


_file = click.Path(path_type=Path, exists=True, dir_okay=False)


@click.command
@click.option("--smtp", metavar="HOST:PORT", callback=_place, help="Where to speak SMTP; port 0 takes a free one.")
@click.option("--lmtp", metavar="HOST:PORT", callback=_place, help="Where to speak LMTP.")
@click.option("--tls-cert", type=_file, help="The certificate to offer STARTTLS with, and those above it (PEM).")
@click.option("--tls-key", type=_file, help="Its key, where that is in a file of its own.")
@rejects_option
@common_options
def mail(
    session: Session,
    *,
    smtp: tuple[str, int] | None,
    lmtp: tuple[str, int] | None,
    tls_cert: Path | None,
    tls_key: Path | None,
    rejects: Path,
) -> None:
    """Take mail in by SMTP and LMTP, until SIGTERM or SIGINT.

    Mail to a channel's address goes to that channel, and any other is refused: those of all workspaces, or of the one
    that --workspace names. What is under way at the signal is kept and answered. What cannot be taken in goes to the
    folder for rejects: see 'convsdk rejects'. Plugins and webhooks are told by 'convsdk serve' or 'convsdk worker'.
    """
    try:
        from convsdk.mailserver import MailServer  # noqa: PLC0415  (the extra may be missing)
    except ImportError as error:
        raise ConfigError(f"'convsdk mail' needs the extra 'email' ({error}): pip install 'convsdk[email]'") from error
    places = {name: place for name, place in (("smtp", smtp), ("lmtp", lmtp)) if place}
    if not places:
        raise ConfigError("there is nowhere to listen: give --smtp HOST:PORT, --lmtp HOST:PORT or both")
    logging.getLogger("mail.log").disabled = True  # the library's, which repeats what clients say
    tls = _tls(tls_cert, tls_key)
    hubs = session.hubs()

    async def run() -> None:
        async with MailServer(*hubs, rejects=Rejects(rejects, capacity=_REJECTS), tls=tls) as server:
            await _serve(session, server, places)

    asyncio.run(run())


async def _serve(session: Session, server: "MailServer", places: dict[str, tuple[str, int]]) -> None:
    found = {}
    for name, (host, port) in places.items():
        try:
            found[name] = f"{host}:{await server.listen(host.strip('[]'), port, is_lmtp=name == 'lmtp')}"
        except OSError as error:
            why = re.sub(r".*: (\[errno \d+\] )?", "", str(error.strerror))  # asyncio adds the address once more
            raise ConfigError(
                f"{host}:{port} cannot be listened on ({why}): end what does, or give another --{name}"
            ) from error
    ending, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: loop.call_soon_threadsafe(ending.set))
    session.screen.facts(found | {"addresses": server.addresses})
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
