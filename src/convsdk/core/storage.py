"""What a store must do: load what a batch touches, write a batch of changes in one transaction, read pages.

Small on purpose, so that somebody else can write one; `convsdk.testing.StoreContract` says when it is right.
"""

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from datetime import datetime
from typing import ClassVar, TypeVar

from attrs import define, field, frozen

from convsdk.core.consent import ConsentRecord, Membership
from convsdk.core.events import Notice
from convsdk.core.fold import Evidence, Moment
from convsdk.core.inbox import Filing
from convsdk.core.model import Decision, Identifier, Message, Node, Ruling, Trust
from convsdk.core.profile import TraitClaim
from convsdk.core.resolver import Changes, Holding, Known

Result = TypeVar("Result")


@frozen(kw_only=True)
class HintRecord:
    """One hint as it is stored: what it attested, what was decided, and where it came from."""

    evidence: Evidence
    decision: Decision
    channel: str = ""
    how: str = ""
    by: str = ""
    conversation: int | None = None
    is_withdrawn: bool = False


@frozen(kw_only=True)
class RulingRecord:
    """A ruling as it is stored, and whether it was taken back."""

    ruling: Ruling
    is_withdrawn: bool = False


@frozen(kw_only=True)
class Withdrawal:
    """Somebody took a hint or a ruling back (`is_undone` False), or undid that (True). Kept as a log."""

    target: str
    is_ruling: bool
    at: datetime
    by: str
    is_undone: bool = False


@frozen(kw_only=True)
class ContactRecord:
    """A contact as it is stored: its nodes, and the ids of all contacts that point at it, itself included."""

    id: int
    created_at: datetime
    how: str
    holdings: tuple[Holding, ...]
    members: tuple[int, ...]


@frozen(kw_only=True)
class NamedTogether:
    """Two nodes that one hint or merge named together, and the contacts that they are on now."""

    a: Node
    b: Node
    contacts: tuple[int | None, int | None]
    trust: Trust | None
    source: str


@frozen(kw_only=True)
class Visit:
    """One hint that came with a cookie: when, whom it named, and the contact that this is now."""

    moment: Moment
    anchor: Identifier | None
    contact: int | None


@frozen
class Memo:
    """A text that is kept under a kind and a key, and when it was written: a browser's session, who is on duty."""

    text: str
    at: datetime


@frozen(kw_only=True)
class Delivery:
    """An outbound message that is still to go; there is none of it once it went, or was given up.

    It is due at `due_at`, which was decided at `put_off_at`. `owner` is the worker that has it (empty: nobody), and
    `is_under_way` says that a request of its may have gone out. With `awaits_echo` nobody knows whether that one
    arrived. `tries` counts those that failed, `waited_s` is how long it was put off in all, and `parts_done` how many
    parts are there already.
    """

    message: int
    conversation: int
    channel: str
    due_at: datetime
    put_off_at: datetime
    owner: str = ""
    is_under_way: bool = False
    awaits_echo: bool = False
    tries: int = 0
    waited_s: float = 0.0
    parts_done: int = 0


@frozen
class Queue:
    """What waits on a channel: how many deliveries, and when the oldest of their messages was written."""

    length: int
    oldest_at: datetime


@frozen(kw_only=True)
class Alias:
    """A message of ours that a further external id means, and which part of it, counted from 0."""

    conversation: int
    message: int
    part: int = 0


@frozen(kw_only=True)
class Found:
    """A message that an external id means: its own, or an alias, which can be that of a part."""

    message: Message
    part: int = 0


@frozen(kw_only=True)
class Watermark:
    """All that was sent in `thread` of `channel` up to a moment, and still has one of `statuses`."""

    channel: str
    thread: str
    until: datetime
    statuses: tuple[str, ...]


@frozen(kw_only=True)
class Outgoing:
    """What a delivery needs: its message, the conversation, how its identifier is spelt, and what was said before.

    `references` are the external ids of up to 20 messages of its channel before, the oldest first; `heard_at` is when
    the last inbound one was written.
    """

    message: Message
    filing: Filing
    address: str = ""
    references: tuple[str, ...] = ()
    heard_at: datetime | None = None


REFERENCES = 20
"""How many messages before an outbound one it refers to at most."""
OVERTAKEN = 20
"""How many messages that somebody wrote may come in behind a later one, for that still to say when they last wrote."""


@define
class Batch:
    """Everything that one transaction writes. `memos` are by kind and key, `aliases` by channel and external id.

    `revised` are messages that are stored: their text, html, attachments, status and detail become these.
    `deliveries` are by message, those that are new and those that changed; `ended` says of which there is none any
    more, and since when.
    """

    changes: Changes = field(factory=Changes)
    hints: list[HintRecord] = field(factory=list)
    traits: list[TraitClaim] = field(factory=list)
    consents: list[ConsentRecord] = field(factory=list)
    memberships: list[Membership] = field(factory=list)
    filings: dict[int, Filing] = field(factory=dict)
    messages: list[Message] = field(factory=list)
    rulings: list[Ruling] = field(factory=list)
    withdrawals: list[Withdrawal] = field(factory=list)
    notices: list[Notice] = field(factory=list)
    checkpoints: dict[str, str] = field(factory=dict)
    memos: dict[tuple[str, str], Memo] = field(factory=dict)
    revised: list[Message] = field(factory=list)
    aliases: dict[tuple[str, str], Alias] = field(factory=dict)
    deliveries: dict[int, Delivery] = field(factory=dict)
    ended: dict[int, datetime] = field(factory=dict)


@frozen(kw_only=True)
class ThreadQuery:
    """Which conversations a message could belong to: `thread` of `channel`, or those holding `references`."""

    channel: str
    thread: str
    references: tuple[str, ...] = ()


def cuts(evidence: Iterable[Evidence]) -> dict[Identifier, list[Moment]]:
    """Give the moments at which an identifier may have changed hands: where joint evidence on it says something new.

    No epoch starts anywhere else, so that what stands alone between two of them can be summed up (rule 7).
    """
    said: defaultdict[Identifier, list[Evidence]] = defaultdict(list)
    for one in sorted((one for one in evidence if one.links), key=lambda one: one.moment):
        for identifier, _ in one.attested:
            if not said[identifier] or said[identifier][-1].attested != one.attested:
                said[identifier].append(one)
    return {identifier: [one.moment for one in new] for identifier, new in said.items()}


class Transaction(ABC):
    """One write transaction of one workspace: all of it is kept or none.

    What it has loaded stays true until it ends: nobody else changes those identifiers, their history or those
    conversations meanwhile.
    """

    @abstractmethod
    def load(self, evidence: Sequence[Evidence]) -> Known:
        """Give what is known of the identifiers that `evidence` names, and the decisions already made for its hints."""

    @abstractmethod
    def load_history(self, known: Known, identifiers: Collection[Identifier], pending: Sequence[Evidence] = ()) -> None:
        """Add to `known` all valid evidence and rulings that lead to `identifiers`, with the holdings that they name.

        They reach over any number of links, refused ones included. Of the hints that name one identifier alone, the
        first of each trust and `may_create` stands for all in a stretch of time, between the `cuts` that the joint
        evidence makes, loaded and `pending`. Sees what this transaction has written.
        """

    @abstractmethod
    def candidates(self, queries: Sequence[ThreadQuery]) -> list[list[tuple[str, Filing]]]:
        """Give for each query the conversations that it could mean, the likeliest first.

        Those that hold its references, under their own id or an alias, in their order, each with the reference; then
        those of its thread, the newest first, each with an empty string.
        """

    @abstractmethod
    def due(self, channel: str, *, owner: str, at: datetime, limit: int) -> list[Delivery]:
        """Give up to `limit` deliveries that are due and nobody's, and make them `owner`'s; who waits longest first.

        Of a conversation only the first, and the next once that has ended, when it becomes due anew: so each
        conversation has its turn. Waits for no other worker.
        """

    @abstractmethod
    def bring_forward(self, at: datetime) -> None:
        """Make due now what was put off later than `at`, by a clock that has been set back since."""

    @abstractmethod
    def deliveries_of(self, owner: str) -> list[Delivery]:
        """Give the deliveries of a worker, locked together with their conversations."""

    @abstractmethod
    def hold(self, deliveries: Sequence[Delivery]) -> dict[int, Delivery]:
        """Give by message what `deliveries` are now, locked together with their conversations.

        Those that have ended are missing. Who ends one asks this first, before memos and messages.
        """

    @abstractmethod
    def deliveries(self, messages: Collection[int]) -> dict[int, Delivery]:
        """Give by message the deliveries of `messages`, locked, where there are any; who asks ends none of them."""

    @abstractmethod
    def found(self, external_ids: Collection[tuple[str, str]]) -> dict[tuple[str, str], Found]:
        """Give by channel and external id the messages that these mean, their own ids and aliases, locked."""

    @abstractmethod
    def sent_until(self, watermarks: Sequence[Watermark]) -> list[list[Message]]:
        """Give for each watermark its outbound messages, locked, in order of id."""

    @abstractmethod
    def memos(self, kind: str, keys: Collection[str]) -> dict[str, Memo]:
        """Give by key the memos of that kind, as `memo` does."""

    @abstractmethod
    def memo(self, kind: str, key: str) -> Memo | None:
        """Give the memo of that kind and key, or None; nobody else writes it until this transaction ends."""

    @abstractmethod
    def forget_memos(self, kind: str, *, before: datetime) -> int:
        """Delete the memos of that kind that were last written before a moment; say how many there were."""

    @abstractmethod
    def new_ids(self) -> Iterator[int]:
        """Give unused ids in rising order, for rows of any kind; above those of every transaction that has ended."""

    @abstractmethod
    def write(self, batch: Batch) -> None:
        """Write `batch`. It is kept when the transaction ends without an error."""


class Store(ABC):
    """Where a workspace's contacts, evidence and conversations are kept. Methods may be called from any thread.

    `writers` is how many write transactions are worth running at once.
    """

    writers: ClassVar[int] = 1

    @abstractmethod
    def transact(self, workspace: str, work: Callable[[Transaction], Result]) -> Result:
        """Run `work` in one write transaction and give its result; where it raises, nothing of it is kept.

        A store that others write to at the same time may run `work` again from the start, because it lost a race or
        its connection: `work` must have no effect but what it writes, and only the last run counts.
        """

    @abstractmethod
    def close(self) -> None:
        """Let go of files and connections; a closed store cannot be used again."""

    def finish_upgrade(self) -> list[str]:
        """Take away what only the release before still needed, once it runs nowhere; give the steps that did."""
        return []

    @abstractmethod
    def contact(self, workspace: str, contact: int) -> ContactRecord | None:
        """Give the contact that the id `contact` leads to now."""

    @abstractmethod
    def contacts(self, workspace: str, *, after: int, limit: int) -> list[ContactRecord]:
        """Give up to `limit` contacts with an id above `after`, by id."""

    @abstractmethod
    def find(self, workspace: str, identifier: Identifier, moment: Moment | None = None) -> int | None:
        """Give the contact that holds `identifier` (at `moment`, or now), or None."""

    @abstractmethod
    def traits(self, workspace: str, identifiers: Collection[Identifier]) -> list[TraitClaim]:
        """Give what valid hints said about traits, anchored at any of `identifiers`."""

    @abstractmethod
    def visitors(self, workspace: str, identifiers: Collection[Identifier]) -> list[Identifier]:
        """Give the cookies that spoke for any of `identifiers`."""

    @abstractmethod
    def visits(self, workspace: str, visitor: Identifier) -> list[Visit]:
        """Give the visits of a cookie, in any order."""

    @abstractmethod
    def named_together(self, workspace: str, identifiers: Collection[Identifier] | None) -> list[NamedTogether]:
        """Give what valid hints and merges named together, with any of `identifiers` among it (None: anywhere).

        Only where the two are on different contacts, or one is on none.
        """

    @abstractmethod
    def hint(self, workspace: str, hint: str) -> HintRecord | None:
        """Give the hint of that id."""

    @abstractmethod
    def hints(self, workspace: str, identifiers: Collection[Identifier], *, limit: int) -> list[HintRecord]:
        """Give the first `limit` hints anchored at any of `identifiers`, by event time."""

    @abstractmethod
    def rulings(self, workspace: str, identifiers: Collection[Identifier]) -> list[RulingRecord]:
        """Give the rulings that name any of `identifiers`, by time, those taken back included."""

    @abstractmethod
    def ruling(self, workspace: str, ruling: str) -> RulingRecord | None:
        """Give the ruling of that id."""

    @abstractmethod
    def consents(self, workspace: str, identifiers: Collection[Identifier]) -> list[ConsentRecord]:
        """Give every consent statement about `identifiers`, by time, but for a yes whose hint was withdrawn."""

    @abstractmethod
    def memberships(self, workspace: str, contacts: Collection[int]) -> list[Membership]:
        """Give every list record of `contacts`, by time."""

    @abstractmethod
    def filings(
        self,
        workspace: str,
        *,
        identifiers: Collection[Identifier] | None,
        before: Moment | None,
        limit: int,
        is_in_review: bool = False,
    ) -> list[Filing]:
        """Give conversations, the newest first, filed by or opened under any of `identifiers` (None: all).

        `is_in_review`: only those in which staff must say whose they are.
        """

    @abstractmethod
    def filing(self, workspace: str, conversation: int) -> Filing | None:
        """Give the conversation of that id."""

    @abstractmethod
    def thread(self, workspace: str, channel: str, thread: str, *, limit: int) -> list[Filing]:
        """Give the conversations of a thread of `channel`, the newest first."""

    @abstractmethod
    def messages(
        self, workspace: str, conversation: int, *, before: int | None = None, after: int | None = None, limit: int
    ) -> list[Message]:
        """Give the messages of a conversation, the newest first.

        Of those with an id below `before` the newest `limit`; with `after`, of those above it the oldest.
        """

    @abstractmethod
    def message(self, workspace: str, channel: str, external_id: str) -> Message | None:
        """Give the message of that channel and external id, its own or an alias, or None."""

    @abstractmethod
    def outgoing(self, workspace: str, deliveries: Sequence[Delivery]) -> list[Outgoing]:
        """Give what each of `deliveries` needs, in order of message; one whose message is not there is left out."""

    @abstractmethod
    def owners(self, workspace: str) -> list[str]:
        """Give the workers that have deliveries."""

    @abstractmethod
    def queues(self, workspace: str) -> dict[str, Queue]:
        """Give by channel what is still to go, where there is something."""

    def listen(self, wake: Callable[[], None]) -> Callable[[], None]:  # noqa: ARG002  (for those that can tell)
        """Call `wake`, from any thread, when another process has queued something; give what ends that.

        A store that cannot tell does nothing: whoever delivers looks by itself as well.
        """
        return lambda: None

    @abstractmethod
    def memos(self, workspace: str, kind: str, keys: Collection[str]) -> dict[str, Memo]:
        """Give by key the memos of that kind."""

    @abstractmethod
    def memo(self, workspace: str, kind: str, key: str) -> Memo | None:
        """Give the memo of that kind and key, or None."""

    @abstractmethod
    def checkpoint(self, workspace: str, name: str) -> str | None:
        """Give how far the work of that name had come when it last wrote so, or None."""

    @abstractmethod
    def notices(self, workspace: str, *, since: int, limit: int) -> list[Notice]:
        """Give the notices with an id above `since`, in order."""
