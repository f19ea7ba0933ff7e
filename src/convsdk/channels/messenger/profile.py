"""What Meta tells of a person: name, picture and locale, where it is more than a stand-in.

https://developers.facebook.com/docs/messenger-platform/identity/user-profile
"""

from datetime import datetime
from typing import Any

import msgspec

from convsdk.channels.messenger.platform import Platform
from convsdk.core.model import Claim, Identifier, IdentityHint, Trait, Trust

_LONGEST = 255
_LONGEST_URL = 2_000
# What stands there for somebody whose name is withheld or gone.
_NOBODY = {"facebook user", "instagram user", "instagrammer", "messenger user", "john doe", "jane doe", "none", "null"}


def read_profile(body: bytes, who: Identifier, platform: Platform, *, at: datetime) -> IdentityHint | None:
    """Give what the answer says of `who`; None where it says nothing."""
    try:
        said = msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None
    given = {
        "name": _name(said),
        "picture": _picture(said.get("profile_pic")),
        "locale": _plain(said.get("locale")),
        "username": _plain(said.get("username")),
    }
    traits = tuple(Trait(name, value, Trust.CHANNEL) for name, value in given.items() if value)
    if not traits:
        return None
    return IdentityHint(
        at=at,
        identifiers=(Claim(who.kind, who.value, Trust.CHANNEL, scope=who.scope),),
        traits=traits,
        may_create=False,
        how=f"{platform.name} profile",
    )


def _name(said: dict[str, Any]) -> str:
    whole = _plain(said.get("name"))
    parts = [_plain(said.get(part)) for part in ("first_name", "last_name")]
    name = whole or " ".join(part for part in parts if part)
    return "" if name.casefold() in _NOBODY or not any(map(str.isalnum, name)) else name


def _picture(value: object) -> str:
    url = _plain(value, most=_LONGEST_URL)
    return url if url.startswith("https://") else ""


def _plain(value: object, *, most: int = _LONGEST) -> str:
    """Give one line of text that every store can keep, or a blank."""
    if not isinstance(value, str):
        return ""
    line = " ".join(value.split())
    # A NUL or half of a surrogate pair is no part of a name.
    is_usable = len(line) <= most and "\0" not in line and line == line.encode("utf-8", "replace").decode()
    return line if is_usable else ""
