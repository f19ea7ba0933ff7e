"""Automatic answers: whoever writes is told at once that it arrived, in the transaction that takes the message in.

A memo of each channel and person says when they last heard from us, automatically or from an agent. It is locked
before it is looked at, so that two processes which take in two messages of one person send one answer.
"""

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta

from attrs import frozen

from convsdk.core.events import Event, MessageReceived
from convsdk.core.fold import Evidence
from convsdk.core.inbox import Filing
from convsdk.core.model import Identifier
from convsdk.core.ports import AutomaticAnswer, Channel
from convsdk.core.storage import Batch, Memo, Transaction
from convsdk.core.ways import Way
from convsdk.replies import Said, answer, new_token
from convsdk.reports import UNREACHABLE, unreachable_of

HEARD = "heard"
"""The kind of the memos that say when somebody last heard from us on a channel."""
LONGEST = timedelta(days=365)
"""How long such a memo can matter: the longest `again_after_days`."""
FRESH = timedelta(hours=1)
"""How far a message's time may be from the clock's for an automatic answer: what is loaded later gets none."""


def heard_key(channel: str, who: Identifier) -> str:
    """Give the key of the memo that says when somebody last heard from us on a channel."""
    return f"{channel}/{who}"


@frozen(kw_only=True)
class Due:
    """What somebody who wrote is to be told, unless they have heard from us already."""

    channel: Channel
    to: Identifier
    subject: str
    answer: AutomaticAnswer

    @property
    def key(self) -> str:
        """Give the key of the memo that says when they last did."""
        return heard_key(self.channel.name, self.to)


def due_answer(channel: Channel | None, event: Event, evidence: Evidence, at: datetime) -> Due | None:
    """Give the automatic answer to a message, as far as it alone decides; None for what gets none."""
    if channel is None or not channel.can.sends or not isinstance(event, MessageReceived) or evidence.anchor is None:
        return None
    if event.is_automatic or event.review or abs(at - event.at) > FRESH:
        return None
    given = channel.automatic_answer(event)
    if given is None:
        return None
    return Due(channel=channel, to=evidence.anchor, subject=given.subject or event.subject, answer=given)


class AutomaticAnswers:
    """Queues the automatic answers of one transaction, those of `due`, which are by the ids of their hints."""

    def __init__(self, transaction: Transaction, due: Mapping[str, Due], at: datetime) -> None:
        self._due = due
        self._at = at
        self._heard = {
            key: memo.at for key, memo in transaction.memos(HEARD, {one.key for one in due.values()}).items()
        }
        people = {str(one.to) for one in due.values()}
        memos = transaction.memos(UNREACHABLE, people)
        self._stopped = {one for one in people if unreachable_of(memos.get(one))}

    def give(self, evidence: Evidence, filing: Filing, batch: Batch, ids: Iterator[int]) -> None:
        """Queue the answer to the message of `evidence`, which is in the conversation `filing`, if there is one.

        What is sent there goes to whom it is filed by: another participant is told nothing.
        """
        due = self._due.get(evidence.hint)
        if due is None or filing.identifier != due.to or str(due.to) in self._stopped or self._has_heard(due):
            return
        token = new_token()
        said = Said(text=due.answer.text, detail={"subject": due.subject} if due.subject else {}, is_automatic=True)
        external_id = due.channel.outbound_id(token)
        way = Way(channel=filing.channel, why="", to=due.to)
        answer(filing, said, way, at=self._at, external_id=external_id, ids=ids, token=token, batch=batch)
        batch.memos[HEARD, due.key] = Memo("", self._at)
        self._heard[due.key] = self._at

    def _has_heard(self, due: Due) -> bool:
        heard_at = self._heard.get(due.key)
        return heard_at is not None and heard_at > self._at - timedelta(days=due.answer.again_after_days)
