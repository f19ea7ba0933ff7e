"""Between HTTP and a channel: how a request is read, how large and how slow it may be, and how an answer is written."""

import asyncio
import math
import traceback
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, quote

import structlog
from attrs import field, frozen
from attrs.validators import gt
from litestar import Request as HttpRequest
from litestar import Response as HttpResponse
from litestar.datastructures import State
from litestar.exceptions import HTTPException, InternalServerException
from litestar.exceptions.http_exceptions import RequestEntityTooLarge
from litestar.types import HTTPReceiveMessage, HTTPScope, Receive, WebSocketReceiveMessage

from convsdk.core.ports import Clock, Headers, Request, Response
from convsdk.memory import Memory, Share

Incoming = HttpRequest[Any, Any, State]

RETRY_S = 5.0  # where nobody names a pause
REPAIR_S = 60.0  # where somebody has to act first
_BODILESS = {"GET", "HEAD", "OPTIONS"}
_PLAIN = {"content-type": Response().media_type}  # what is not found looks alike, whatever it is
_log = structlog.get_logger(__name__)


@frozen(kw_only=True)
class Limits:
    """What may be asked of the app.

    A request: `body_bytes` and `body_time_s`, the seconds until all of it has come (`file_time_s` for an upload).
    Where those that are under way have `memory_bytes` together, the next has to come again; one of more than
    `body_bytes` leaves a quarter of them to others. A visitor of a widget, and an address or IPv6 network: requests
    that write in a minute, `address_uploads_per_minute` of them with a file; ten times as many that read.
    `streams`: open event streams, of one visitor `visitor_streams`, and of one address or network `address_streams`.
    `channel_time_s`: how long a channel that is not convsdk's own may take to read a request.
    """

    body_bytes: int = field(default=1_048_576, validator=gt(0))
    memory_bytes: int = field(default=268_435_456, validator=gt(0))
    body_time_s: float = field(default=10.0, validator=gt(0))
    file_time_s: float = field(default=120.0, validator=gt(0))
    visitor_per_minute: int = field(default=120, validator=gt(0))
    address_per_minute: int = field(default=300, validator=gt(0))
    address_uploads_per_minute: int = field(default=30, validator=gt(0))
    streams: int = field(default=5000, validator=gt(0))
    visitor_streams: int = field(default=10, validator=gt(0))
    address_streams: int = field(default=500, validator=gt(0))
    channel_time_s: float = field(default=10.0, validator=gt(0))


class UnreadError(Exception):
    """A body did not come as it may: too large, too slow, or not to its end; or there is no room for it.

    `status` is what its sender is told, with when to come again where that helps, `why` what the log is told beside.
    """

    def __init__(self, reason: str, status: int, *, retry_after_s: float | None = None, why: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.status = status
        self.retry_after_s = retry_after_s
        self.why = why


async def read_request(
    incoming: Incoming, *, limits: Limits, clock: Clock, share: Share, body_bytes: int = 0
) -> Request:
    """Give the request as a channel sees it; raise `UnreadError` where its body goes beyond `limits`.

    `body_bytes` is what its channel takes where that is more, and such a body has the time of a file. `share` is what
    the body has of the memory, for as long as the caller holds the request.
    """
    # The framework's own limit is one for all channels: that of the one which takes the largest.
    most = max(limits.body_bytes, body_bytes)
    time_s = limits.file_time_s if most > limits.body_bytes else limits.body_time_s
    return Request(
        body=await _whole(incoming, most=most, time_s=time_s, share=share),
        received_at=clock(),
        method=incoming.method,
        url=_url(incoming.scope, incoming.headers.get("host", "")),
        query=_query(incoming.scope["query_string"]),
        headers=Headers((name.decode("latin-1"), value.decode("latin-1")) for name, value in incoming.scope["headers"]),
    )


async def read_body(incoming: Incoming, *, limits: Limits, memory: Memory) -> bytes:
    """Give the body of a request, which the framework keeps as well; raise `UnreadError` where it exceeds `limits`.

    It counts as part of `memory` while it comes: what follows takes a moment.
    """
    with memory.share() as share:
        return await _whole(incoming, most=limits.body_bytes, time_s=limits.body_time_s, share=share)


async def _whole(incoming: Incoming, *, most: int, time_s: float, share: Share) -> bytes:
    """Give a body of up to `most` bytes.

    The size counts as it comes, whether or not the sender has announced it, and nothing is read beyond it. The time is
    that of the whole body: a sender that drips a byte now and then is not waited for.
    """
    _require_room(incoming.content_length or 0, most, share)
    incoming.receive = _counted(incoming.receive, most, share)
    try:
        async with asyncio.timeout(time_s):
            return await incoming.body()
    except TimeoutError:
        raise UnreadError("slow", 408) from None
    except RequestEntityTooLarge:
        raise UnreadError("oversized", 413) from None
    except InternalServerException:  # Litestar's word for a sender that hung up
        raise UnreadError("gone", 400) from None


def _counted(receive: Receive, most: int, share: Share) -> Receive:
    async def receive_counted() -> HTTPReceiveMessage | WebSocketReceiveMessage:
        message = await receive()
        if message["type"] == "http.request":
            size = share.held_bytes + len(message["body"])
            _require_room(size, most, share)
            share.hold(size)
        return message

    return receive_counted


def _require_room(size: int, most: int, share: Share) -> None:
    if size > most:
        raise UnreadError("oversized", 413)
    if not share.has_room(size):
        raise UnreadError(
            "busy",
            503,
            retry_after_s=RETRY_S,
            why="there is no memory for it now, beside the other requests under way: its sender comes again",
        )


def _url(scope: HTTPScope, host: str) -> str:
    # As it was sent, since some platforms sign it: with the prefix that the app is mounted under, and its escapes.
    path = (scope.get("raw_path") or quote(scope.get("root_path", "") + scope["path"]).encode()).decode("latin-1")
    query = scope["query_string"].decode("latin-1")
    return f"{scope['scheme']}://{host}{path}{'?' if query else ''}{query}"


def _query(query: bytes) -> Mapping[str, str]:
    pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True)
    return dict(reversed(pairs))  # of a repeated parameter the first, as of a header field


def write_response(incoming: Incoming, response: Response, *, is_last: bool) -> HttpResponse[bytes]:
    """Give the answer as HTTP; after the `is_last` one, the sender has to make a new connection.

    Who was answered before the body was read could else send all of it, and the next request would wait behind it.
    """
    return HttpResponse(
        content=response.body,
        status_code=response.status,
        headers={"content-type": response.media_type} | dict(response.headers) | closing(incoming, is_last=is_last),
    )


def closing(incoming: Incoming, *, is_last: bool) -> dict[str, str]:
    """Give the header field that ends a connection with its `is_last` answer, where HTTP has connections."""
    return {"connection": "close"} if is_last and incoming.scope["http_version"].startswith("1") else {}


def retry_after(pause_s: float) -> dict[str, str]:
    """Give the header field that says when to come again; HTTP knows whole seconds."""
    return {"retry-after": str(max(1, math.ceil(pause_s)))}


def write_error(incoming: Incoming, error: Exception) -> HttpResponse[bytes]:
    """Give the answer to what no handler could answer: its status, and nothing about why."""
    if isinstance(error, HTTPException):
        # Nobody reads the body of what has no handler: it could go on without end.
        ending = closing(incoming, is_last=incoming.method not in _BODILESS)
        return HttpResponse(content=b"", status_code=error.status_code, headers=_PLAIN | (error.headers or {}) | ending)
    # Its text, or a traceback with values, could hold what a customer wrote.
    at = traceback.extract_tb(error.__traceback__)[-1]
    _log.error("a request failed", error=type(error).__name__, at=f"{at.filename}:{at.lineno}")
    return HttpResponse(content=b"", status_code=500, headers=_PLAIN)
