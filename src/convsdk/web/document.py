"""The API's document: OpenAPI 3.1 as JSON, and a page made from it for people, which loads nothing else."""

from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader
from litestar import Router
from litestar.openapi import OpenAPIConfig, ResponseSpec
from litestar.openapi.plugins import JsonRenderPlugin, OpenAPIRenderPlugin
from litestar.openapi.spec import (
    Components,
    OpenAPIMediaType,
    Operation,
    RequestBody,
    Schema,
    SecurityScheme,
    Server,
    Tag,
)
from litestar.openapi.spec.enums import OpenAPIType

from convsdk.web.exchange import Incoming
from convsdk.web.views import Refusal

SECURITY: list[dict[str, list[str]]] = [{"cookie": []}, {"bearer": []}, {}]
"""What opens a visitor's session; some of what the widget does needs none, or makes one."""

_PATH = "/api"
_HEADERS = {"content-security-policy": "default-src 'none'; style-src 'unsafe-inline'"}
_REFUSALS = {
    400: "It cannot be read.",
    401: "This browser has no session.",
    403: "This page may not use the widget.",
    404: "There is no such widget, or nothing of that id that this visitor may read.",
    408: "The body did not come in time.",
    413: "The body is too large.",
    415: "The content type is not taken.",
    429: "Too many requests: Retry-After says for how long to wait.",
    503: "Try again later: Retry-After says when.",
}
_TAGS = [
    Tag(name="widget", description="What the chat widget of a channel does for the visitor of a page."),
    Tag(name="webhooks", description="What platforms and sites send to a channel."),
    Tag(name="operation", description="What whoever runs the server looks at. Keep it inside."),
]


def told(*statuses: int) -> dict[int, ResponseSpec]:
    """Give how a widget's refusals with `statuses` look, and those that each of its addresses can give."""
    return {
        one: ResponseSpec(Refusal, description=_REFUSALS[one], generate_examples=False)
        for one in sorted({400, 403, 404, 429, 503, *statuses})
    }


def empty(**statuses: str) -> dict[int, ResponseSpec]:
    """Give how answers without a body look: what each says, by its status, such as `_404="..."`."""
    return {int(one[1:]): ResponseSpec(None, description=text) for one, text in statuses.items()}


def raw(media_type: str, description: str) -> ResponseSpec:
    """Give how an answer looks that is no JSON."""
    content = Any if media_type == "*/*" else str
    return ResponseSpec(content, description=description, media_type=media_type, generate_examples=False)


@dataclass
class RawBody(Operation):
    """An operation that takes any bytes, of any type."""

    def __post_init__(self) -> None:
        anything = OpenAPIMediaType(schema=Schema(type=OpenAPIType.STRING, content_media_type="*/*"))
        self.request_body = RequestBody(content={"*/*": anything})


class _Page(OpenAPIRenderPlugin):
    """The document for people."""

    def __init__(self) -> None:
        super().__init__(path="/")
        folder = FileSystemLoader(Path(__file__).with_name("templates"))
        templates = Environment(loader=folder, autoescape=True, trim_blocks=True)
        self._template = templates.get_template("api.html")

    def render(self, request: Incoming, openapi_schema: dict[str, Any]) -> bytes:
        root = request.scope.get("root_path", "").rstrip("/")
        return self._template.render(document=openapi_schema, address=f"{root}{_PATH}/openapi.json").encode()


def document() -> OpenAPIConfig:
    """Give how an app is documented: at `/api` for people, at `/api/openapi.json` for programs."""
    cookie = SecurityScheme(type="apiKey", name="__Host-convsdk-{channel}", security_scheme_in="cookie")
    bearer = SecurityScheme(type="http", scheme="bearer", description="The token of a session without a cookie.")
    return OpenAPIConfig(
        title="convsdk",
        version=version("convsdk"),
        description="What the web app of convsdk takes and gives over HTTP.",
        tags=_TAGS,
        servers=[Server(url="..")],  # seen from the document: the app, under whichever prefix
        components=Components(security_schemes={"cookie": cookie, "bearer": bearer}),
        render_plugins=[_Page(), JsonRenderPlugin()],
        openapi_router=Router(_PATH, route_handlers=[], include_in_schema=False, response_headers=_HEADERS),
        use_handler_docstrings=True,
    )
