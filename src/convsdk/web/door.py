"""What every request to a widget passes: which page sends it, how often, and whose browser it is; and its refusals."""

import ipaddress
from collections.abc import Mapping
from typing import Any

import structlog
from litestar import Response as HttpResponse
from litestar.datastructures import Cookie
from litestar.exceptions import HTTPException
from litestar.status_codes import HTTP_500_INTERNAL_SERVER_ERROR

from convsdk.core.ports import Channel
from convsdk.errors import ConvsdkError, Forbidden, NotFound, ParseError, TransientError, UnsupportedError
from convsdk.web.exchange import (
    REPAIR_S,
    RETRY_S,
    Incoming,
    Limits,
    UnreadError,
    closing,
    retry_after,
    write_error,
)
from convsdk.web.pages import is_allowed, is_cross_site
from convsdk.web.throttle import Throttle
from convsdk.web.views import Reason, Refusal

PRIVATE = {"cache-control": "no-store"}
_UNREAD = {408, 413, 415, 503}  # the body may still be coming, without end
_CODES = {400: "unreadable", 404: "not_found", 405: "method", 413: "too_large", 415: "media_type"}
_log = structlog.get_logger(__name__)


class RefusedError(Exception):
    """A request is refused: its status, a code for a program, and words for whoever writes one."""

    def __init__(self, status: int, code: str, text: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(text)
        self.status = status
        self.code = code
        self.retry_after_s = retry_after_s


class Door:
    """Lets requests to the widgets of `channels`, by name, in or refuses them."""

    def __init__(self, channels: Mapping[str, Channel], limits: Limits) -> None:
        self._channels = channels
        self._visitor_writes = Throttle(limits.visitor_per_minute)
        self._writes = Throttle(limits.address_per_minute)
        self._reads = Throttle(limits.address_per_minute * 10)
        self._uploads = Throttle(limits.address_uploads_per_minute)

    def let_in(self, request: Incoming, *, is_write: bool) -> tuple[Channel, str]:
        """Give the channel of a request and the token of its browser; raise `RefusedError` where it may not come in."""
        name = request.path_params["channel"]
        channel = self._channels.get(name)
        if channel is None or channel.widget is None:
            raise RefusedError(404, "not_found", "there is no such widget: name a channel that has one")
        if not is_allowed(channel.widget, request.headers):
            raise RefusedError(403, "origin", "this page may not use the widget: add its origin to the channel's")
        _require(self._writes if is_write else self._reads, network(request))
        return channel, _token(request, name)

    def require_upload_pace(self, request: Incoming) -> None:
        """Count one more upload of an address; raise `RefusedError` where that is too much."""
        _require(self._uploads, network(request))

    def require_pace(self, visitor: str) -> None:
        """Count one more write of a visitor; raise `RefusedError` where that is too much."""
        _require(self._visitor_writes, visitor)


def _require(throttle: Throttle, key: str) -> None:
    wait_s = throttle.wait_s(key)
    if wait_s:
        raise RefusedError(429, "too_many", "too many requests: wait, and try again", retry_after_s=wait_s)


def network(request: Incoming) -> str:
    """Give whom an address belongs to: of IPv6, one customer has more addresses than could be counted."""
    host = request.client.host if request.client else ""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if not isinstance(address, ipaddress.IPv6Address):
        return host
    return str(address.ipv4_mapped or ipaddress.IPv6Network((int(address), 64), strict=False))


def _cookie_name(channel: str) -> str:
    # Browsers take this name from the very host alone, so that no neighbour can put a session of its own there.
    return f"__Host-convsdk-{channel}"


def cookie(channel: str, token: str, age_s: int) -> Cookie:
    """Give the cookie that holds the token of a visitor, or with an age of 0 takes it away."""
    return Cookie(
        key=_cookie_name(channel), value=token, max_age=age_s, path="/", secure=True, httponly=True, samesite="lax"
    )


def cookie_token(request: Incoming, channel: str) -> str:
    """Give the token that the browser keeps in its cookie, if any."""
    return request.cookies.get(_cookie_name(channel), "")


def holds_token(request: Incoming) -> bool:
    """Say whether it is the page that holds the token of its visitor, since no cookie may or can."""
    return _bearer(request) is not None or is_cross_site(request.headers)


def _token(request: Incoming, channel: str) -> str:
    bearer = _bearer(request)
    return cookie_token(request, channel) if bearer is None else bearer


def _bearer(request: Incoming) -> str | None:
    # A site that is not public yet may ask for a password, which comes in this header too.
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token if scheme.lower() == "bearer" else None


def write_refusal(request: Incoming, error: Exception) -> HttpResponse[Any]:
    """Give the answer to what was refused, or could not be answered."""
    refused = _refusal(error)
    if refused is None:
        return write_error(request, error)
    pause = {} if refused.retry_after_s is None else retry_after(refused.retry_after_s)
    headers = PRIVATE | closing(request, is_last=refused.status in _UNREAD) | pause
    content = Refusal(error=Reason(code=refused.code, message=str(refused)))
    return HttpResponse(content, status_code=refused.status, headers=headers)


def _refusal(error: Exception) -> RefusedError | None:
    """Give what is told of an error; None where the server is to blame."""
    match error:
        case RefusedError():
            return error
        case UnreadError():
            return RefusedError(
                error.status, error.reason, "the body did not come as it may", retry_after_s=error.retry_after_s
            )
        case ParseError():
            return RefusedError(400, "unreadable", str(error))
        case NotFound() | UnsupportedError():
            return RefusedError(404, "not_found", str(error))
        case Forbidden():
            return RefusedError(403, "forbidden", "this is not allowed")
        case TransientError():
            pause_s = RETRY_S if error.retry_after_s is None else error.retry_after_s
            return RefusedError(503, "busy", "try again later", retry_after_s=pause_s)
        case ConvsdkError():
            _log.error("a request of a widget failed", why=str(error))
            return RefusedError(503, "failed", "try again later", retry_after_s=REPAIR_S)
        case HTTPException(status_code=status) if status < HTTP_500_INTERNAL_SERVER_ERROR:
            return RefusedError(status, _CODES.get(status, "refused"), _told(error))
    return None


def _told(error: HTTPException) -> str:
    """Give which parts of a request were not as they should be, and nothing that stood there."""
    extra = error.extra if isinstance(error.extra, list) else []
    keys = sorted({str(one.get("key", "")) for one in extra if isinstance(one, Mapping)} - {""})
    return f"not as the API's document says: {', '.join(keys)}" if keys else "not as the API's document says"
