"""The command `serve`: the web app by itself, on uvicorn, and the outbox beside it."""

import asyncio
import secrets
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, ExitStack, closing, contextmanager, nullcontext
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from convsdk.cli.session import Session, common_options, memory_option, rejects_option
from convsdk.cli.worker import working
from convsdk.core.ports import Secret
from convsdk.errors import ConfigError
from convsdk.listening import Listening
from convsdk.rejects import Rejects

if TYPE_CHECKING:
    from convsdk.web.server import Server

_BACKLOG = 2048  # uvicorn's own
_REJECTS = 1000
_DEMO_SECRET = "CONVSDK_DEMO_SITE_SECRET"  # noqa: S105  (the name of the variable)


@click.command
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="The port; 0 takes a free one."
)
@click.option("--outbox/--no-outbox", "tells", default=True, help="Whether it also does what 'convsdk worker' does.")
@click.option("--listen/--no-listen", "listens", default=True, help="Whether it also reads mailboxes and the like.")
@rejects_option
@click.option(
    "--files", type=click.Path(path_type=Path), default=Path("files"), show_default=True, help="Folder for attachments."
)
@memory_option
@click.option("--demo", "is_demo", is_flag=True, help="A shop with the chat widget, on a store of its own.")
@common_options
def serve(
    session: Session,
    *,
    host: str,
    port: int,
    tells: bool,
    listens: bool,
    rejects: Path,
    files: Path,
    memory_mib: int,
    is_demo: bool,
) -> None:
    """Take webhooks in over HTTP, and serve the chat widget, until SIGTERM or SIGINT.

    Each configured channel has its address, /channels/NAME, and /widget/NAME where a widget shows it: those of all
    workspaces, or of the one that --workspace names. What is under way at the signal is kept and answered. What cannot
    be taken in goes to the folder for rejects: see 'convsdk rejects'. Answers are delivered, and plugins and webhooks
    are told what happened. Channels that listen, such as to a mailbox, do so in one process with the store at a time.
    """
    try:
        from convsdk.web import Limits, create_app  # noqa: PLC0415  (the extra may be missing)
        from convsdk.web.demo import demo_routes  # noqa: PLC0415  (as above)
        from convsdk.web.server import Server  # noqa: PLC0415  (as above)
    except ImportError as error:
        raise ConfigError(f"'convsdk serve' needs the extra 'web' ({error}): pip install 'convsdk[web]'") from error
    with ExitStack() as stack:
        secret = Secret(secrets.token_hex(32))
        if is_demo:
            session = stack.enter_context(_demo_session(session, secret))
        hubs = session.hubs()
        channels = sorted(name for hub in hubs for name in hub.channels)
        if not channels:
            nothing = f"workspace {hubs[0].workspace!r} has no channel" if hubs else "no channel is configured"
            raise ConfigError(f"{nothing} to serve: add [channels.NAME]")
        routes = demo_routes(secret=secret, audience="convsdk-demo") if is_demo else ()
        limits = Limits(memory_bytes=memory_mib << 20)
        app = create_app(*hubs, rejects=rejects, files=files, limits=limits, routes=routes)
        listening = stack.enter_context(closing(_listen(host, port)))
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, _stop)
        session.screen.facts(
            {
                "url": _url(listening),
                "workspaces": [hub.workspace for hub in hubs],
                "channels": channels,
                "rejects": str(rejects),
            }
        )
        kept = Rejects(rejects, capacity=_REJECTS)
        asyncio.run(
            _serve(
                Server(app),
                listening,
                lambda: working(session) if tells else nullcontext(),
                lambda: Listening(*hubs, rejects=kept) if listens else nullcontext(),
            )
        )


async def _serve(
    server: "Server", listening: socket.socket, *besides: Callable[[], AbstractAsyncContextManager[object]]
) -> None:
    async with AsyncExitStack() as running:  # they end last, the first of them after the others: it tells of them
        for beside in besides:
            await running.enter_async_context(beside())
        await server.serve(sockets=[listening])


@contextmanager
def _demo_session(session: Session, secret: Secret) -> Iterator[Session]:
    """Give a session of the demo shop, whose store stays there to look around in."""
    with resources.as_file(resources.files("convsdk") / "demo" / "shop.toml") as file:
        own = Session(
            screen=session.screen,
            config_file=file,
            store_url=session.asked_store,
            environ={_DEMO_SECRET: secret.reveal()},
        )
        with closing(own):
            yield own


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        why = str(error.strerror).partition(" (while")[0]  # Python adds the address once more
        raise ConfigError(
            f"{host}:{port} cannot be listened on ({why}): end what does, or give another --host or --port"
        ) from error


def _url(listening: socket.socket) -> str:
    host, port, *_ = listening.getsockname()
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _stop(_number: int, _frame: object) -> NoReturn:
    # uvicorn has its own handlers while it serves, and raises the signal again afterwards: that shall end the program
    # by the way that closes the store.
    raise SystemExit(0)
