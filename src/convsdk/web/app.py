"""The ASGI app: its addresses, and what holds for all of them."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path

import structlog
from litestar import Litestar, get, route
from litestar import Response as HttpResponse
from litestar.datastructures import State
from prometheus_client import CONTENT_TYPE_LATEST

from convsdk.core.ports import Clock
from convsdk.errors import ConvsdkError
from convsdk.hub import Hub
from convsdk.ingest import Ingest
from convsdk.rejects import Rejects
from convsdk.web.chat import Chat
from convsdk.web.exchange import Incoming, Limits, read_request, write_error, write_response
from convsdk.web.files import Files
from convsdk.web.live import Live
from convsdk.web.pages import Pages
from convsdk.web.webhooks import Webhooks
from convsdk.web.widget import Widgets

_REJECTS = 1000
_READY_S = 2.0
_log = structlog.get_logger(__name__)


def create_app(
    hub: Hub,
    *,
    ingest: Ingest | None = None,
    rejects: Path | str = "rejects",
    files: Path | str = "files",
    limits: Limits | None = None,
    clock: Clock = lambda: datetime.now(UTC),
) -> Litestar:
    """Give the ASGI app for the channels of `hub`, to run by itself or to mount under any prefix.

    ::

        app = create_app(Hub("sqlite:///shop.db", channels=[channel]), rejects="/var/lib/shop/rejects")

    `ingest` is a queue in front of `hub` that others use as well, and who made it closes it; without one the app makes
    its own, and closes it when the server shuts down. `rejects` is the folder for what cannot be taken in, `limits`
    what a request may cost, `clock` gives the time at which one arrived. The hub stays open for its maker to close.
    """
    within = limits or Limits()
    webhooks = Webhooks(hub=hub, ingest=ingest, rejects=Rejects(Path(rejects), capacity=_REJECTS))

    @route("/channels/{channel:str}", http_method=["GET", "POST"], request_max_body_size=within.body_bytes)
    async def take_webhook(request: Incoming) -> HttpResponse[bytes]:
        channel = request.path_params["channel"]
        settled = await webhooks.take(channel, lambda: read_request(request, limits=within, clock=clock))
        return write_response(request, settled.response, is_last=not settled.is_read)

    @get("/health")
    async def tell_health() -> HttpResponse[bytes]:
        return HttpResponse(b"ok\n", media_type="text/plain")

    @get("/ready")
    async def tell_readiness() -> HttpResponse[bytes]:
        is_ready = not webhooks.is_draining and await _answers(hub)
        return HttpResponse(
            b"ready\n" if is_ready else b"not ready\n", status_code=200 if is_ready else 503, media_type="text/plain"
        )

    @get("/metrics")
    async def tell_metrics() -> HttpResponse[bytes]:
        return HttpResponse(webhooks.metrics.text(), headers={"content-type": CONTENT_TYPE_LATEST})

    live = Live(hub)
    kept = Files(Path(files))
    chat = Chat(hub, receive=webhooks.receive, files=kept, clock=clock)
    widgets = Widgets(hub, chat=chat, live=live, files=kept, limits=within)
    return Litestar(
        [take_webhook, tell_health, tell_readiness, tell_metrics, widgets.router()],
        on_shutdown=[live.close, webhooks.drain],
        middleware=[Pages(widgets.widget)],
        exception_handlers={Exception: write_error},
        openapi_config=None,
        logging_config=None,  # it would set up logging for the whole process, which is the host's
        state=State({"live": live}),
    )


async def _answers(hub: Hub) -> bool:
    """Say whether the store answers, by a look at a place where nothing is."""
    try:
        async with asyncio.timeout(_READY_S):
            await asyncio.to_thread(hub.store.checkpoint, hub.workspace, "ready")
    except (ConvsdkError, TimeoutError) as error:
        _log.warning("not ready", why=str(error) or f"the store did not answer in {_READY_S:.0f} s")
        return False
    return True
