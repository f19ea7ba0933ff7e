"""Tells a receiver over HTTP what happened, signed as Standard Webhooks has it.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

import asyncio
import json
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from urllib.parse import quote

import httpx

from convsdk.config import WebhookConfig
from convsdk.core.events import Notice
from convsdk.core.ports import Clock
from convsdk.core.signing import sign
from convsdk.errors import PermanentError, TransientError
from convsdk.outbox import Gone

_ANSWER_S = 20.0
"""How long a receiver may take for all of its answer's head, from the connection on."""
_BODY_S, _BODY_BYTES = 1.0, 65_536
_LONGEST_PAUSE_S = 86_400.0
_PASSING = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS}


class Webhook:
    """A receiver of notices of `workspace`. `name` is what the configuration calls it; `client` makes its requests."""

    def __init__(
        self,
        name: str,
        config: WebhookConfig,
        *,
        client: httpx.AsyncClient,
        workspace: str = "default",
        clock: Clock = lambda: datetime.now(UTC),
    ) -> None:
        self._name = name
        self._config = config
        self._client = client
        self._workspace = workspace
        self._clock = clock

    async def tell(self, notice: Notice) -> None:
        """Tell the receiver about `notice`, and return once it has taken it (2xx).

        Raises `TransientError` where it may take it later, `PermanentError` where somebody has to act first, and
        `Gone`. No error shows the URL, the request or the answer.
        """
        try:
            async with asyncio.timeout(_ANSWER_S + _BODY_S):
                response = await self._post(notice)
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as error:
            # Without its cause, which has the URL, the body and the signature.
            raise TransientError(f"webhook {self._name!r} gave no answer ({type(error).__name__})") from None
        self._judge(response)

    async def _post(self, notice: Notice) -> httpx.Response:
        now = self._clock()
        told = {"type": notice.type, "timestamp": notice.at.isoformat(), "data": notice.payload}
        body = json.dumps(told, separators=(",", ":")).encode()
        headers = {
            "content-type": "application/json",
            "user-agent": "convsdk",
            "webhook-id": self._id(notice),
            "webhook-timestamp": str(int(now.timestamp())),
        }
        headers["webhook-signature"] = sign(
            body, id=headers["webhook-id"], timestamp=int(now.timestamp()), keys=self._config.keys
        )
        request = self._client.build_request(
            "POST", self._config.url, content=body, headers=headers, timeout=httpx.Timeout(_ANSWER_S)
        )
        response = await self._client.send(request, stream=True, follow_redirects=False)
        try:
            await _read_away(response)
        finally:
            await response.aclose()
        return response

    def _id(self, notice: Notice) -> str:
        # Two workspaces can tell the same receiver, and the dot separates what is signed.
        return f"{quote(self._workspace, safe='').replace('.', '%2E')}_{notice.id}"

    def _judge(self, response: httpx.Response) -> None:
        status = response.status_code
        if response.is_success:
            return
        said = f"webhook {self._name!r} answered {status}"
        if status == HTTPStatus.GONE:
            raise Gone(said, code=str(status))
        if status in _PASSING or response.is_server_error:
            raise TransientError(said, retry_after_s=self._asked_pause(response.headers.get("retry-after", "")))
        raise PermanentError(said, code=str(status))

    def _asked_pause(self, given: str) -> float | None:
        """Read Retry-After (RFC 9110, section 10.2.3): seconds or a date."""
        try:
            asked_s = float(int(given)) if given.isdecimal() else self._until(parsedate_to_datetime(given))
        except (ValueError, OverflowError):
            return None
        return min(max(asked_s, 0.0), _LONGEST_PAUSE_S)

    def _until(self, moment: datetime) -> float:
        return ((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - self._clock()).total_seconds()


async def _read_away(response: httpx.Response) -> None:
    """Read what the receiver says, which is of no interest, so that its connection can be used again."""
    read = 0
    # The head decides: a body that hangs, breaks off or has no end changes nothing.
    with suppress(httpx.HTTPError, httpx.StreamError, TimeoutError):
        async with asyncio.timeout(_BODY_S):
            async for chunk in response.aiter_raw():
                read += len(chunk)
                if read > _BODY_BYTES:
                    return
