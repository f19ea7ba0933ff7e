"""The demo shop: a few pages with the widget on them, and what a shop's backend does to say who is logged in."""

import time
from pathlib import Path

import jwt
from litestar import Response as HttpResponse
from litestar import get
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath, FromQuery
from litestar.response import File as FileResponse
from litestar.response import Redirect

from convsdk.core.ports import Secret

_PAGES = Path(__file__).with_name("static") / "demo"
_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_TOKEN_S = 300
# As strict as a page can be: the widget needs nothing more.
_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
}


def demo_routes(*, secret: Secret, audience: str) -> list[HTTPRouteHandler]:
    """Give the addresses of the demo shop. `secret` and `audience` are those of its channel for identification."""

    @get("/", include_in_schema=False)
    async def enter() -> Redirect:
        return Redirect("demo/")

    @get(["/demo", "/demo/{name:str}"], include_in_schema=False)
    async def show(name: FromPath[str] = "index.html") -> FileResponse | HttpResponse[bytes]:
        if name not in {path.name for path in _PAGES.iterdir()}:
            return HttpResponse(b"", status_code=404)
        page = _PAGES / name
        return FileResponse(page, media_type=_TYPES[page.suffix], headers=_HEADERS, content_disposition_type="inline")

    @get("/demo/token", include_in_schema=False)
    async def sign(visitor: FromQuery[str]) -> HttpResponse[str]:
        # A real backend signs whom its own session knows.
        claims = {
            "aud": audience,
            "exp": int(time.time()) + _TOKEN_S,
            "visitor": visitor,
            "sub": "customer-7",
            "email": "ann@customer.example",
            "email_verified": True,
            "name": "Ann Ahlen",
        }
        token = jwt.encode(claims, secret.reveal(), algorithm="HS256")
        return HttpResponse(token, media_type="text/plain", headers={"cache-control": "no-store"})

    return [enter, show, sign]
