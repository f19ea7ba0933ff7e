"""What the widget's addresses take and give, as JSON; what a visitor sends to the chat itself is in `chat.py`."""

from datetime import datetime
from typing import Annotated

from attrs import field, frozen
from msgspec import Meta

from convsdk.core.bot import Expects
from convsdk.core.events import FieldProblem
from convsdk.core.forms import Form
from convsdk.web.chat import Seen

_Id = Annotated[int, Meta(ge=0, le=2**63 - 1)]


@frozen(kw_only=True)
class Reason:
    """Why a request is refused: a code for programs, and words for whoever writes one."""

    code: str
    message: str


@frozen(kw_only=True)
class Refusal:
    """The answer to a request that is refused."""

    error: Reason


@frozen(kw_only=True)
class FileRules:
    """What may be attached."""

    max_bytes: int
    types: tuple[str, ...]


@frozen(kw_only=True)
class SessionView:
    """A visitor's session as the page knows it: `token` only where the browser keeps no cookie for it."""

    visitor: str
    is_proven: bool
    conversation: int | None
    unread: int
    token: str | None = field(default=None, repr=False)


@frozen(kw_only=True)
class WidgetView:
    """How the widget looks, and the session that this browser has, if any."""

    title: str
    greeting: str
    color: str
    forms: dict[str, Form]
    attachments: FileRules
    has_agents: bool
    session: SessionView | None


@frozen(kw_only=True)
class Begin:
    """How a session begins: whether the visitor opened the chat, and whether the browser may keep it."""

    is_open: bool = False
    keep: bool = True


@frozen(kw_only=True)
class EntryView:
    """A conversation that the visitor may read."""

    id: int
    channel: str
    subject: str
    last_at: datetime
    is_own: bool
    is_current: bool
    unread: int
    last: str


@frozen(kw_only=True)
class EntriesView:
    """The conversations that the visitor may read, the newest first."""

    conversations: tuple[EntryView, ...]


@frozen(kw_only=True)
class HistoryView:
    """Messages of a conversation, the oldest first, and what the bot automation waits for in it."""

    conversation: int | None
    messages: tuple[Seen, ...]
    has_more: bool
    expects: Expects | None
    has_agents: bool


@frozen(kw_only=True)
class Accepted:
    """What was taken: the ids as the browser gave them, and where they stand."""

    accepted: tuple[str, ...]
    conversation: int | None
    session: SessionView


@frozen(kw_only=True)
class Problems:
    """What is wrong with the fields of a form."""

    problems: dict[str, list[FieldProblem]]


@frozen(kw_only=True)
class Position:
    """How far a conversation was read."""

    conversation: _Id
    message: _Id


@frozen(kw_only=True)
class Typing:
    """Whether the visitor is writing just now."""

    is_typing: bool


@frozen(kw_only=True)
class Uploaded:
    """A file that can be attached to a message, by its id."""

    id: str
    name: str
    media_type: str
    size: int
