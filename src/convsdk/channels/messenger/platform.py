"""What Messenger and Instagram differ in, names and limits, and what both send back to us as it was sent.

https://developers.facebook.com/docs/messenger-platform and /docs/messenger-platform/instagram, read in version v25.0.
"""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from attrs import field, frozen

from convsdk.core.texts import media_type_of, utf8_bytes, utf16_units

OURS = "convsdk/"
"""How the `metadata` of a message begins that was sent from here; its token follows."""

LONGEST_PAYLOAD = 1_000
_BUTTON = "convsdk:"


@frozen(kw_only=True)
class Platform:
    """One of Meta's surfaces that the Send API and its webhooks serve.

    `object` is what a webhook calls it, `kind` the kind of identifier of its people. A text may have `most_text` by
    `size`. `tags` are the message tags that it knows. `has_metadata`: an echo brings back what was sent along.
    `has_uploads`: it takes files with a message, not only their addresses. `files` are the media types that it knows as
    each sort of attachment (a type that ends with a slash is a whole family), and `most_bytes` how large each may be.
    `permissions` are what a token needs, `fields` what the app has to be subscribed to, and `page_fields` its pages.
    `profile` is what a profile is asked for.
    """

    name: str
    object: str
    kind: str
    most_text: int
    size: Callable[[str], int] = field(eq=False)
    tags: frozenset[str]
    has_metadata: bool
    has_uploads: bool
    files: Mapping[str, tuple[str, ...]] = field(hash=False)
    most_bytes: Mapping[str, int] = field(hash=False)
    permissions: tuple[str, ...]
    fields: tuple[str, ...]
    page_fields: tuple[str, ...]
    profile: tuple[str, ...]

    def sort_of(self, media_type: str) -> str | None:
        """Give the sort of attachment that a file of this media type is, or None where it is not taken."""
        plain = media_type_of(media_type)
        for sort, types in self.files.items():
            if any(plain.startswith(one) if one.endswith("/") else plain == one for one in types):
                return sort
        return "file" if self.files.get("file") == () else None


_MB = 1_000_000
_PAGE_FIELDS = (
    "messages",
    "messaging_postbacks",
    "messaging_optins",
    "messaging_referrals",
    "messaging_handovers",
    "message_deliveries",
    "message_reads",
    "message_echoes",
    "message_edits",
    "message_reactions",
    "standby",
)

MESSENGER = Platform(
    name="Messenger",
    object="page",
    kind="messenger_psid",
    most_text=2_000,
    # The reference says "characters" and not which; no other way of counting them gives more than this one.
    size=utf16_units,
    tags=frozenset({"ACCOUNT_UPDATE", "CONFIRMED_EVENT_UPDATE", "HUMAN_AGENT", "POST_PURCHASE_UPDATE"}),
    has_metadata=True,
    has_uploads=True,
    files={
        "image": ("image/png", "image/jpeg", "image/gif", "image/webp"),
        "audio": ("audio/",),
        "video": ("video/",),
        "file": (),
    },
    most_bytes={"image": 8 * _MB, "audio": 25 * _MB, "video": 25 * _MB, "file": 25 * _MB},
    permissions=("pages_messaging", "pages_manage_metadata"),
    fields=_PAGE_FIELDS,
    page_fields=_PAGE_FIELDS,
    profile=("name", "first_name", "last_name", "profile_pic"),
)

INSTAGRAM = Platform(
    name="Instagram",
    object="instagram",
    kind="instagram_igsid",
    most_text=1_000,
    size=utf8_bytes,
    tags=frozenset({"HUMAN_AGENT"}),
    has_metadata=False,
    has_uploads=False,
    files={
        "image": ("image/png", "image/jpeg", "image/gif"),
        "audio": ("audio/aac", "audio/m4a", "audio/x-m4a", "audio/mp4", "audio/wav", "audio/x-wav"),
        "video": ("video/mp4", "video/ogg", "video/x-msvideo", "video/quicktime", "video/webm"),
        "file": ("application/pdf",),
    },
    most_bytes={"image": 8 * _MB, "audio": 25 * _MB, "video": 25 * _MB, "file": 25 * _MB},
    permissions=("instagram_basic", "instagram_manage_messages", "pages_manage_metadata"),
    fields=(
        "messages",
        "messaging_postbacks",
        "messaging_referral",
        "messaging_handover",
        "messaging_seen",
        "message_reactions",
        "standby",
    ),
    page_fields=("messages",),
    profile=("name", "username", "profile_pic"),
)


def button_payload(block: str, choice: str) -> str:
    """Give the payload of a button that stands for a choice in a block of a bot automation."""
    return f"{_BUTTON}{msgspec.json.encode([block, choice]).decode()}"


def pressed(payload: Any) -> tuple[str, str]:  # noqa: ANN401  (JSON comes in)
    """Give the block and the choice of a button that `button_payload` made; blanks for any other one."""
    if not isinstance(payload, str) or not payload.startswith(_BUTTON):
        return "", ""
    try:
        return msgspec.json.decode(payload.removeprefix(_BUTTON), type=tuple[str, str])
    except (msgspec.MsgspecError, UnicodeError):
        return "", ""
