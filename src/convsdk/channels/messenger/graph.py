"""Requests to Meta's Graph API, and what its answers mean: pure, since the shell sends them.

A token stands in the header `Authorization` and never in an address, which proxies and logs keep. Each request carries
`appsecret_proof` (https://developers.facebook.com/docs/graph-api/securing-requests).
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote, urlencode

import httpx
from attrs import frozen

from convsdk.channels.messenger.settings import AppSettings
from convsdk.core.answers import asked_pause, read_answer, refusal
from convsdk.core.payloads import Fields, read_fields
from convsdk.core.ports import File, Receipt, Secret
from convsdk.core.signing import hmac_of
from convsdk.core.texts import media_type_of
from convsdk.errors import ParseError, PermanentError, TransientError, UncertainError

_LONGEST_PAUSE_S = 86_400.0
_SHORTEST_SECRET = 4
_BUSINESS_USAGE = "x-business-use-case-usage"

# https://developers.facebook.com/docs/messenger-platform/error-codes and /docs/graph-api/guides/error-handling
_PASSING = {1, 2, 4, 17, 32, 341, 613, 1200, 80001, 80002, 80006}
_DONE_PERHAPS = {(1, 1357046)}
_TOKEN = {102, 190, 458, 459, 460, 463, 464, 467, 492}
_PERMISSION = {3, 10, *range(200, 300)}
_POLICY = {368, 506}
_CLOSED = {2018065, 2018278, 2018108, 2534022}
_UNREACHABLE = {2018001, 1545041, 2534014}
_UNREACHABLE_CODE = 551
_OTHER_OWNER = {2018300}


@frozen(kw_only=True)
class Graph:
    """The Graph API as the channel called `channel` reaches it."""

    channel: str
    settings: AppSettings

    def post(
        self, path: str, content: Mapping[str, Any], *, sender: str | None, file: File | None = None, boundary: str = ""
    ) -> httpx.Request:
        """Give the request that posts `content`, with a `file` as form data.

        For the page or account `sender`; with None, for the app itself.
        """
        token = self.token(sender)
        content = {**content, "appsecret_proof": self._proof(token)}
        headers = _authorization(token)
        if file is None:
            headers["content-type"] = "application/json"
            # With escapes alone: half of a surrogate pair, which no UTF-8 has, is passed on as it came.
            return httpx.Request("POST", self._url(path), headers=headers, content=json.dumps(content))
        # A boundary of its own each time would make two requests for one message differ.
        headers["content-type"] = f"multipart/form-data; boundary={boundary}"
        form = {name: one if isinstance(one, str) else json.dumps(one) for name, one in content.items()}
        name = file.name.encode("utf-8", "replace").decode() or "file"
        files = {"filedata": (name, file.content, media_type_of(file.media_type))}
        return httpx.Request("POST", self._url(path), headers=headers, data=form, files=files)

    def get(self, path: str, query: Mapping[str, str], *, sender: str) -> httpx.Request:
        """Give the request that reads what is at `path`, for the page or account `sender`."""
        token = self.token(sender)
        asked = urlencode({**query, "appsecret_proof": self._proof(token)}, safe=",")
        return httpx.Request("GET", f"{self._url(path)}?{asked}", headers=_authorization(token))

    def batch(self, operations: list[dict[str, Any]]) -> httpx.Request:
        """Give one request for several `operations` by the app itself: in its body their addresses may hold tokens.

        https://developers.facebook.com/docs/graph-api/batch-requests
        """
        return self.post("", {"batch": operations, "include_headers": False}, sender=None)

    def reading(self, path: str, sender: str | None = None, **query: str) -> dict[str, Any]:
        """Give an operation for `batch` that reads; for the page or account `sender`, or else for the app."""
        token = self.token(sender)
        query = {**query, "access_token": token.reveal(), "appsecret_proof": self._proof(token)}
        return {"method": "GET", "relative_url": f"{self.settings.api_version}/{path}?{urlencode(query)}"}

    def token(self, sender: str | None) -> Secret:
        """Give the access token of a page or account, with None the app's; `PermanentError` where there is none."""
        if sender is None:
            return Secret(f"{self.settings.app_id}|{self.settings.app_secret.reveal()}")
        if sender not in self.settings.tokens:
            raise PermanentError(
                f"channel {self.channel!r} has no token of {sender!r}, so nothing is sent from there: "
                f'add {{ id = "{sender}", token = {{ env = "NAME" }} }} to its settings'
            )
        return self.settings.tokens[sender]

    def interpret(self, response: httpx.Response) -> Receipt:
        """Read the answer to something that was to be done: a receipt, or the error that says what to do next."""
        said = read_answer(response)
        is_told = said.key("message_id") or said.key("recipient_id") or said.flag("success")
        if response.is_success and "error" not in said and is_told:
            return Receipt(external_id=said.text("message_id"))
        raise self.error(response)

    def error(self, response: httpx.Response) -> TransientError | UncertainError | PermanentError:
        """Give the error that an answer stands for, in Meta's words and with its code; no secret is in it."""
        said, pause = read_answer(response).fields("error"), _pause(response)
        if not said:
            told = f"{self._host} answered {response.status_code} to channel {self.channel!r} and did not say why"
            return refusal(response, told, remedy="correct graph_url, or what stands between", retry_after_s=pause)
        code, subcode = (said.integer(name) or 0 for name in ("code", "error_subcode"))
        shown = f"{code}/{subcode}" if subcode else str(code)
        words = self.masked(" ".join((said.text("error_user_msg") or said.text("message")).split()))[:500]
        told = f"Meta refused what channel {self.channel!r} asked for ({shown}, {words!r}){_usage(response)}"
        if (code, subcode) in _DONE_PERHAPS:
            return UncertainError(f"{told}, and may have done it: look into the conversation before you send it again")
        remedy = _remedy(code, subcode)
        if remedy and response.status_code != httpx.codes.TOO_MANY_REQUESTS:  # even where it calls that a fault
            return PermanentError(f"{told}: {remedy}", code=shown)
        is_passing = code in _PASSING or said.flag("is_transient")
        remedy = "correct the message, or look the code up at Meta"
        return refusal(response, told, code=shown, is_passing=is_passing, remedy=remedy, retry_after_s=pause)

    def is_disconnected(self, error: Exception) -> bool:
        """Say whether an error is about the access token, so that nothing works until there is a new one."""
        code = (error.code or "" if isinstance(error, PermanentError) else "").partition("/")[0]
        return code.isdecimal() and int(code) in _TOKEN

    def masked(self, text: str) -> str:
        """Give `text` without the channel's secrets: Meta quotes a token that it does not understand."""
        settings = self.settings
        known = [settings.app_secret, settings.verify_token, *settings.tokens.values()]
        for secret in sorted((one.reveal() for one in known), key=len, reverse=True):
            if len(secret) >= _SHORTEST_SECRET:
                text = text.replace(secret, "***")
        return text

    @property
    def _host(self) -> str:
        return httpx.URL(self.settings.graph_url).host

    def _url(self, path: str) -> str:
        return f"{self.settings.graph_url.rstrip('/')}/{self.settings.api_version}/{quote(path)}".rstrip("/")

    def _proof(self, token: Secret) -> str:
        return hmac_of(token.reveal().encode(), self.settings.app_secret)


def _pause(response: httpx.Response) -> float | None:
    """Give how many seconds an answer asks to wait, by `Retry-After` or a limit that ends; None where it names none.

    `estimated_time_to_regain_access` is in minutes
    (https://developers.facebook.com/docs/graph-api/overview/rate-limiting).
    """
    asked = asked_pause(response)
    minutes = [used.number("estimated_time_to_regain_access") for used in _usages(response, _BUSINESS_USAGE)]
    pauses = [one * 60.0 for one in minutes if one and one > 0] + ([] if asked is None else [asked])
    return min(max(pauses), _LONGEST_PAUSE_S) if pauses else None


def _usages(response: httpx.Response, header: str) -> Iterator[Fields]:
    """Give the usages that a header field holds: one, or lists of them by the id of a business."""
    try:
        value = Fields(read_fields(response.headers.get(header, "{}").encode()).raw, is_lenient=True)
    except ParseError:
        return
    lists = [name for name, one in value.raw.items() if isinstance(one, list)]
    yield from (used for name in lists for used in value.items(name))
    yield from () if lists else (value,)


def _usage(response: httpx.Response) -> str:
    """Say how much of its limit the app has used, where the answer does."""
    usages = list(_usages(response, "x-app-usage"))
    most = max((used.integer(name) or 0 for used in usages for name in ("call_count", "total_time")), default=0)
    return f" (the app has used {most} % of its limit)" if most else ""


def _remedy(code: int, subcode: int) -> str:
    """Give what to do about an error that passes by nothing else; a blank where that is not known."""
    if subcode in _CLOSED:
        return "the time to answer is over; wait until they write again, or use another way"
    if subcode in _UNREACHABLE or code == _UNREACHABLE_CODE:
        return "this person cannot be reached there (blocked, deleted, or the id of another page); use another way"
    if subcode in _OTHER_OWNER:
        return "another app answers this person now; take the thread first (action 'take_thread_control')"
    if code in _TOKEN:
        return "connect it anew: get a new access token and set it, then run 'convsdk channels connect NAME'"
    if code in _POLICY:
        return "Meta has blocked this for a while for its policies; see the page's support inbox, and do not repeat it"
    if code in _PERMISSION:
        return "connect it anew with the permissions that 'convsdk channels connect NAME' names"
    return ""


def _authorization(token: Secret) -> dict[str, str]:
    return {"authorization": f"Bearer {token.reveal()}"}
