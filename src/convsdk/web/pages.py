"""Which pages may use the widget of a channel: its origins, and what a browser is told of them (CORS).

A page on another site cannot be given a cookie: browsers block it there, or keep it apart for each site. It gets the
token of its visitor in the answer instead, and sends it in a header.
"""

import re
from collections.abc import Callable

from litestar.datastructures import Headers, MutableScopeHeaders
from litestar.enums import ScopeType
from litestar.middleware import ASGIMiddleware
from litestar.status_codes import HTTP_403_FORBIDDEN
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from convsdk.core.ports import Widget

_WIDGET = re.compile(r"/widget/([^/]+)(/.*)?$")
_PREFLIGHT = {
    "access-control-allow-methods": "GET, POST, DELETE",
    "access-control-allow-headers": "authorization, content-type",
    "access-control-max-age": "600",
}


def is_allowed(widget: Widget, headers: Headers) -> bool:
    """Say whether the page that sends a request may use a widget: one of the app's own, or of the widget's origins.

    Who sends no origin is no page, and no page can leave it out where that would matter.
    """
    origin = headers.get("origin")
    return origin is None or _is_own(origin, headers) or origin in widget.origins


def is_cross_site(headers: Headers) -> bool:
    """Say whether a request comes from a page of another site, for which no cookie is kept."""
    said = headers.get("sec-fetch-site")
    if said is not None:
        return said == "cross-site"
    origin = headers.get("origin")  # from a browser that does not say so, in doubt
    return origin is not None and not _is_own(origin, headers)


def _is_own(origin: str, headers: Headers) -> bool:
    # Without the scheme: a proxy may have ended TLS.
    return origin.partition("://")[2] == headers.get("host")


class Pages(ASGIMiddleware):
    """Tells browsers which pages may use the widgets; `widget` gives that of a channel, or None."""

    scopes = (ScopeType.HTTP,)

    def __init__(self, widget: Callable[[str], Widget | None]) -> None:
        self._widget = widget

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        """Answer a browser's question whether a page may, and mark all other answers for the page."""
        headers = Headers.from_scope(scope)
        asked = _WIDGET.search(scope["path"])
        widget = self._widget(asked[1]) if asked else None
        if scope["type"] != ScopeType.HTTP or widget is None:
            await next_app(scope, receive, send)
            return
        told = {"vary": "origin"}
        origin = headers.get("origin")
        if origin is not None and is_allowed(widget, headers):
            told |= _reading(origin)
            if scope["method"] == "OPTIONS":
                await _answer(send, told | _PREFLIGHT)
                return
            told["access-control-expose-headers"] = "retry-after"
        # A page that may not is let read that it may not: whoever built it would look for the reason elsewhere.
        refused = told if origin is None else told | _reading(origin)

        async def send_marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                marked = MutableScopeHeaders(message)
                for name, value in (refused if message["status"] == HTTP_403_FORBIDDEN else told).items():
                    marked[name] = value
            await send(message)

        await next_app(scope, receive, send_marked)


def _reading(origin: str) -> dict[str, str]:
    return {"access-control-allow-origin": origin, "access-control-allow-credentials": "true"}


async def _answer(send: Send, headers: dict[str, str]) -> None:
    fields = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": 204, "headers": fields})
    await send({"type": "http.response.body", "body": b"", "more_body": False})
