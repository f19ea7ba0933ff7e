"""The ASGI app: its addresses, and what holds for all of them."""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import httpx
import structlog
from litestar import Litestar, get, route
from litestar import Response as HttpResponse
from litestar.datastructures import State
from litestar.handlers import HTTPRouteHandler
from litestar.response import File as FileResponse
from prometheus_client import CONTENT_TYPE_LATEST

from convsdk.core.ports import Clock
from convsdk.errors import ConfigError, ConvsdkError
from convsdk.hub import Hub
from convsdk.ingest import Ingest
from convsdk.memory import Memory
from convsdk.rejects import Rejects
from convsdk.web.chat import Chat
from convsdk.web.document import RawBody, document, empty, raw
from convsdk.web.exchange import Incoming, Limits, read_request, write_error, write_response
from convsdk.web.files import Files
from convsdk.web.live import Live
from convsdk.web.pages import Pages
from convsdk.web.webhooks import Webhooks
from convsdk.web.widget import Home, Widgets

_REJECTS = 1000
_SCRIPT = Path(__file__).with_name("static") / "widget.js"
# Any page may load it: what it may do there, its channel says. A new release is there within the hour.
_SCRIPT_HEADERS = {
    "cache-control": "public, max-age=3600",
    "cross-origin-resource-policy": "cross-origin",
    "x-content-type-options": "nosniff",
}
_READY_S = 2.0
_log = structlog.get_logger(__name__)


def create_app(
    *hubs: Hub,
    ingest: Ingest | None = None,
    rejects: Path | str = "rejects",
    files: Path | str = "files",
    limits: Limits | None = None,
    routes: Sequence[HTTPRouteHandler] = (),
    client: httpx.AsyncClient | None = None,
    clock: Clock = lambda: datetime.now(UTC),
) -> Litestar:
    """Give the ASGI app for the channels of `hubs`, to run by itself or to mount under any prefix.

    ::

        app = create_app(Hub("sqlite:///shop.db", channels=[channel]), rejects="/var/lib/shop/rejects")

    Several hubs are several workspaces, mostly on one store; raises `ConfigError` where two have a channel of the same
    name. `ingest` is a queue in front of the one hub that others use as well, and who made it closes it; without one
    the app makes its own, and closes it when the server shuts down. `rejects` is the folder for what cannot be taken
    in, `files` that for attachments, `limits` what may be asked of the app, `routes` are addresses of your own,
    `client` fetches what channels want (None: one of the app's own), `clock` gives the time at which a request arrived.
    The hubs and the client stay open for their maker to close.
    """
    if ingest and len(hubs) > 1:
        raise ConfigError(f"one ingest cannot stand before {len(hubs)} hubs: leave it out, and each gets its own")
    within = limits or Limits()
    channels = _homes(hubs)
    aside = Rejects(Path(rejects), capacity=_REJECTS)
    webhooks = Webhooks(
        hubs=channels, ingest=ingest, rejects=aside, channel_time_s=within.channel_time_s, client=client
    )
    memory = Memory(within.memory_bytes, small_bytes=within.body_bytes)
    larger = {name: hub.channels[name].body_bytes for name, hub in channels.items()}

    @route(
        "/channels/{channel:str}",
        http_method=["GET", "POST"],
        status_code=200,
        request_max_body_size=max(within.body_bytes, *larger.values(), 0),
        tags=["webhooks"],
        operation_class=RawBody,
        responses={200: raw("*/*", "The channel's answer.")}
        | empty(
            _400="The channel does not take it.",
            _403="It is not authentic.",
            _404="There is no such channel.",
            _408="The body did not come in time.",
            _413="The body is too large.",
            _503="Try again later: Retry-After says when.",
        ),
    )
    async def take_webhook(request: Incoming) -> HttpResponse[bytes]:
        """Take what a platform or a site sends to a channel. A 2xx says that it is on disk here."""
        channel = request.path_params["channel"]
        more = larger.get(channel, 0)
        with memory.share() as share:
            settled = await webhooks.take(
                channel,
                lambda: read_request(request, limits=within, clock=clock, share=share, body_bytes=more),
                share=share,
            )
        return write_response(request, settled.response, is_last=not settled.is_read)

    @get("/health", tags=["operation"], responses={200: raw("text/plain", "It is.")})
    async def tell_health() -> HttpResponse[bytes]:
        """Say that the process is up."""
        return HttpResponse(b"ok\n", media_type="text/plain")

    @get(
        "/ready",
        tags=["operation"],
        responses={200: raw("text/plain", "It is."), 503: raw("text/plain", "It is not, or no longer.")},
    )
    async def tell_readiness() -> HttpResponse[bytes]:
        """Say whether the store answers and requests are taken."""
        is_ready = not webhooks.is_draining and await _answer(hubs)
        return HttpResponse(
            b"ready\n" if is_ready else b"not ready\n", status_code=200 if is_ready else 503, media_type="text/plain"
        )

    @get("/metrics", tags=["operation"], responses={200: raw("text/plain", "In Prometheus' text format.")})
    async def tell_metrics() -> HttpResponse[bytes]:
        """Give what was counted."""
        text = await asyncio.to_thread(webhooks.metrics.text)
        return HttpResponse(text, headers={"content-type": CONTENT_TYPE_LATEST})

    @get("/widget.js", include_in_schema=False)
    async def give_widget() -> FileResponse:
        return FileResponse(
            _SCRIPT, media_type="text/javascript", headers=_SCRIPT_HEADERS, content_disposition_type="inline"
        )

    kept = Files(Path(files))
    homes = {
        hub: Home(hub, Chat(hub, receive=webhooks.receive, files=kept, clock=clock), Live(hub)) for hub in set(hubs)
    }
    widgets = Widgets({name: homes[hub] for name, hub in channels.items()}, files=kept, limits=within, memory=memory)
    streams = [home.live for home in homes.values()]
    return Litestar(
        [take_webhook, tell_health, tell_readiness, tell_metrics, give_widget, widgets.router(), *routes],
        on_shutdown=[*(one.close for one in streams), webhooks.drain],
        middleware=[Pages(widgets.widget)],
        exception_handlers={Exception: write_error},
        openapi_config=document(),
        logging_config=None,  # it would set up logging for the whole process, which is the host's
        state=State({"live": {hub.workspace: home.live for hub, home in homes.items()}}),
    )


def _homes(hubs: Sequence[Hub]) -> Mapping[str, Hub]:
    """Give the hub of each channel, by the channel's name."""
    homes: dict[str, Hub] = {}
    for hub in hubs:
        for name in hub.channels:
            if name in homes:
                raise ConfigError(
                    f"channel {name!r} is in workspace {homes[name].workspace!r} and in {hub.workspace!r}, "
                    "and one address cannot lead to both: rename one of the two"
                )
            homes[name] = hub
    return homes


async def _answer(hubs: Sequence[Hub]) -> bool:
    """Say whether the stores answer, each by a look at a place where nothing is."""
    looks = {hub.store: hub.workspace for hub in hubs}
    try:
        async with asyncio.timeout(_READY_S):
            for store, workspace in looks.items():
                await asyncio.to_thread(store.checkpoint, workspace, "ready")
    except (ConvsdkError, TimeoutError) as error:
        _log.warning("not ready", why=str(error) or f"the store did not answer in {_READY_S:.0f} s")
        return False
    return True
