"""What the channels of the Messenger Platform have to be told: the app, its pages or accounts, and their tokens."""

import re
from collections.abc import Mapping
from typing import Any, Literal
from urllib.parse import urlsplit

from attrs import field, frozen
from attrs.validators import instance_of

from convsdk.core.ports import Secret, is_secret

_CONTACT_FROM = ("manual", "first_message")
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_VERSION = re.compile(r"v[0-9]{1,3}\.[0-9]{1,2}", re.ASCII)
_ID = re.compile(r"[0-9]{1,64}", re.ASCII)
_ADDRESS = re.compile(r"[!-~]+", re.ASCII)
_FIELD = re.compile(r"[a-z_]{1,64}", re.ASCII)
_DASHBOARD = "copy it from the app's dashboard at Meta"


def _is_way(_: object, attribute: Any, value: Any) -> None:  # noqa: ANN401  (as above)
    if value not in _CONTACT_FROM:
        message = f'{attribute.name} must be "manual" or "first_message", not {value!r}'
        raise ValueError(message)


def _is_id(_: object, attribute: Any, value: Any) -> None:  # noqa: ANN401  (as above)
    if not isinstance(value, str) or not _ID.fullmatch(value):
        message = f"{attribute.name} is {value!r}, which is no id at Meta: write its digits in quotes"
        raise ValueError(message)


def _is_id_if_any(instance: object, attribute: Any, value: Any) -> None:  # noqa: ANN401  (as above)
    if value != "":
        _is_id(instance, attribute, value)


def _is_version(_: object, attribute: Any, value: Any) -> None:  # noqa: ANN401  (as above)
    if not isinstance(value, str) or not _VERSION.fullmatch(value):
        message = f'{attribute.name} is {value!r}, which is no version of the Graph API: write one such as "v25.0"'
        raise ValueError(message)


def _is_safe(_: object, attribute: Any, value: Any) -> None:  # noqa: ANN401  (as above)
    text = str(value)
    try:
        parts = urlsplit(text)
        # Paths are put behind it, which would be lost behind "?" or "#", even where nothing follows these.
        is_base = bool(_ADDRESS.fullmatch(text)) and not set(text) & set("?#")
        is_plain = is_base and parts.port != 0 and not parts.username and bool(parts.hostname)
        is_safe = is_plain and bool(parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOOPBACK))
    except ValueError:
        is_safe = False
    if not is_safe:
        message = f"{attribute.name} is no safe web address: write https://host (http is for this machine alone)"
        raise ValueError(message)


def _are_fields(_: object, attribute: Any, value: Any) -> None:  # noqa: ANN401  (as above)
    if not isinstance(value, tuple) or not all(isinstance(one, str) and _FIELD.fullmatch(one) for one in value):
        message = f'{attribute.name} must be names of profile fields, such as ["name", "locale"], not {value!r}'
        raise ValueError(message)


@frozen(kw_only=True)
class Sender:
    """A page or account that messages are sent from: its id, and the access token that lets us."""

    id: str = field(validator=_is_id)
    # It goes into a header field.
    token: Secret = field(validator=is_secret(_DASHBOARD, pattern="[!-~]+"))


def _are_senders(_: object, attribute: Any, value: Any) -> None:  # noqa: ANN401  (as above)
    if not isinstance(value, tuple) or not all(isinstance(one, Sender) for one in value):
        message = f'{attribute.name} must be tables: write {{ id = "1001", token = {{ env = "NAME" }} }} for each'
        raise ValueError(message)
    if len({one.id for one in value}) < len(value):
        message = f"{attribute.name} has an id twice: name each once"
        raise ValueError(message)


@frozen(kw_only=True)
class AppSettings:
    """What a channel of the Messenger Platform needs to know.

    `app_secret` is the app's own, which signs webhooks and proves requests; `verify_token` the one chosen for the
    set-up handshake; `app_id` the app's, which the check of its set-up needs. `contact_from` says when a person becomes
    a contact: "manual" (an agent enters them) or "first_message". `human_agent`: Meta lets this app's agents answer for
    seven days. `profile_fields` are what else a profile is asked for, beside name and picture. `api_version` is the
    Graph API's, and `graph_url` where that is.
    """

    app_secret: Secret = field(validator=is_secret(_DASHBOARD))
    verify_token: Secret = field(validator=is_secret(_DASHBOARD))
    app_id: str = field(default="", validator=_is_id_if_any)
    contact_from: Literal["manual", "first_message"] = field(default="manual", validator=_is_way)
    human_agent: bool = field(default=False, validator=instance_of(bool))
    profile_fields: tuple[str, ...] = field(default=(), validator=_are_fields)
    api_version: str = field(default="v25.0", validator=_is_version)
    graph_url: str = field(default="https://graph.facebook.com", validator=_is_safe)

    @property
    def tokens(self) -> Mapping[str, Secret]:
        """Give the access token of each page or account, by its id."""
        return {}


@frozen(kw_only=True)
class MessengerSettings(AppSettings):
    """As every app's, and `pages`: those that messages are sent from, each with its page access token."""

    pages: tuple[Sender, ...] = field(default=(), validator=_are_senders)

    @property
    def tokens(self) -> Mapping[str, Secret]:
        return {one.id: one.token for one in self.pages}


@frozen(kw_only=True)
class InstagramSettings(AppSettings):
    """As every app's, and `accounts`: those that messages are sent from.

    Each with the access token of its page, or (with `graph_url` "https://graph.instagram.com") its own.
    """

    accounts: tuple[Sender, ...] = field(default=(), validator=_are_senders)

    @property
    def tokens(self) -> Mapping[str, Secret]:
        return {one.id: one.token for one in self.accounts}
