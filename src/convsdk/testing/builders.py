"""Builders with defaults for tests: a hint, a request, and a clock that stands still until it is told to go on."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from convsdk.core.model import Claim, IdentityHint, Trait, Trust
from convsdk.core.ports import Envelope, Headers, Request

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
"""The moment at which everything in a test happens, unless it says otherwise."""


class FakeClock:
    """A `Clock` that shows `now` until `advance` moves it.

    ::

        clock = FakeClock()
        hub = Hub("memory:", clock=clock)
        clock.advance(days=31)
    """

    def __init__(self, now: datetime = NOON) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now

    def advance(self, *, days: float = 0, seconds: float = 0) -> datetime:
        """Move the clock on, and give the new moment."""
        self.now += timedelta(days=days, seconds=seconds)
        return self.now


def hint(
    id: str = "",  # noqa: A002  (the field's name)
    *,
    email: str = "",
    phone: str = "",
    account: str = "",
    visitor: str | None = None,
    trust: Trust = Trust.ASSERTED,
    claims: Sequence[Claim] = (),
    traits: Mapping[str, str] | None = None,
    at: datetime = NOON,
    **fields: Any,  # noqa: ANN401  (whatever else an IdentityHint takes)
) -> IdentityHint:
    """Give a hint that names `email`, `phone` and `account` (an external id), each and the `traits` with `trust`.

    `claims` are added as they are, for mixed trust; `fields` are further fields of `IdentityHint`.
    """
    named = {"email": email, "phone": phone, "external_id": account}
    return IdentityHint(
        id=id,
        at=at,
        identifiers=(*(Claim(kind, value, trust) for kind, value in named.items() if value), *claims),
        visitor=visitor,
        traits=tuple(Trait(name, value, trust) for name, value in (traits or {}).items()),
        **fields,
    )


def request(
    body: bytes | str = b"",
    *,
    json: object = msgspec.UNSET,
    headers: Mapping[str, str] | Sequence[tuple[str, str]] = (),
    query: Mapping[str, str] | None = None,
    method: str = "POST",
    url: str = "/",
    received_at: datetime = NOON,
    envelope: Envelope | None = None,
) -> Request:
    """Give a request as it arrives: `body` as bytes or text, or `json` to be encoded."""
    raw = body.encode() if isinstance(body, str) else body
    return Request(
        received_at=received_at,
        body=raw if json is msgspec.UNSET else msgspec.json.encode(json),
        method=method,
        url=url,
        query=dict(query or {}),
        headers=Headers(headers),
        envelope=envelope,
    )
