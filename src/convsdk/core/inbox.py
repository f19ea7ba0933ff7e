"""The state of conversations: which one a message belongs to, and how far an outbound message has come."""

from collections.abc import Sequence
from datetime import datetime
from enum import Enum
from itertools import chain

from attrs import evolve, frozen

from convsdk.core.events import DeliveryStatus
from convsdk.core.fold import Evidence, Moment
from convsdk.core.model import Direction, Identifier, Trust

MOST_PARTICIPANTS = 500
"""How many participants of one conversation are kept."""


class ConversationStatus(Enum):
    """Whether somebody should look at a conversation."""

    OPEN = "open"
    COMPLETE = "complete"
    REVIEW = "review"
    """Staff must say whose it is: its message names nobody for certain."""


@frozen(kw_only=True)
class Filing:
    """A conversation as it is stored: filed by the identifier it happened on, or the cookie while there is none.

    `identifier` is set once, by the first message that names somebody, and never changes: the contact is looked up
    through it, so that merging and unmerging move no conversation. `opened` is the moment that an epoch is chosen by.
    `bot` is where its bot automation stands, as JSON text (empty: none began). `participants` are who else its messages
    were written to.
    """

    id: int
    channel: str
    thread: str
    opened: Moment
    last_at: datetime
    subject: str = ""
    identifier: Identifier | None = None
    visitor: Identifier | None = None
    trust: Trust | None = None
    status: ConversationStatus = ConversationStatus.OPEN
    messages: int = 0
    unread: int = 0
    assignee: str = ""
    bot: str = ""
    participants: tuple[Identifier, ...] = ()

    @property
    def is_verified(self) -> bool:
        """Say whether the conversation's person was attested and not only claimed."""
        return self.trust is not None and self.trust >= Trust.CHANNEL

    def takes(self, evidence: Evidence) -> bool:
        """Say whether a message with this evidence belongs here: the same person, or the same nameless browser.

        Who only claims to be somebody is let into what the same browser wrote, or, where there are no cookies, into
        what was no more than a claim itself: never into a conversation that somebody else could read there. And who
        is attested does not go on in another browser's claim, whose visitor would read it.
        """
        if evidence.anchor is not None:
            if self.identifier is None:
                return self.visitor == evidence.visitor
            if self.identifier != evidence.anchor:
                return False
            if evidence.trust > Trust.ASSERTED and self.is_verified:
                return True
            if evidence.trust >= Trust.CHANNEL and self.visitor is None:
                return False
            return self.visitor == evidence.visitor and (self.visitor is not None or not self.is_verified)
        return self.visitor == evidence.visitor and (self.visitor is not None or self.identifier is None)

    def takes_answer(self, evidence: Evidence) -> bool:
        """Say whether an answer to one of its messages belongs here: that of anybody to whom they were written.

        To know a message's id opens nobody's conversation. And what only claims to be from a participant goes on in
        what was no more than a claim itself.
        """
        if self.status is ConversationStatus.REVIEW:
            return False
        if evidence.anchor is None or self.visitor is not None or evidence.visitor is not None:
            return self.takes(evidence) or self._follows_up(evidence)
        if evidence.anchor != self.identifier and evidence.anchor not in self.participants:
            return False
        return evidence.trust > Trust.ASSERTED or not self.is_verified

    def _follows_up(self, evidence: Evidence) -> bool:
        """Say whether who answers was written to about a chat of somebody attested, and is attested as well.

        In a chat that was only claimed, whoever claimed it would read the answer of whom they claimed to be.
        """
        is_attested = evidence.trust >= Trust.CHANNEL and evidence.visitor is None
        return is_attested and self.is_verified and evidence.anchor in self.participants

    def written_to(self, other: Identifier) -> "Filing":
        """Give the conversation with one more participant."""
        return evolve(self, participants=self._with_participants((other,)))

    def with_message(
        self,
        evidence: Evidence,
        at: datetime,
        direction: Direction,
        *,
        is_automatic: bool,
        participants: Sequence[Identifier] = (),
    ) -> "Filing":
        """Give the conversation after one more message: filed if it was nameless, reopened if a person wrote."""
        is_inbound = direction is Direction.INBOUND
        reopens = is_inbound and not is_automatic and self.status is not ConversationStatus.REVIEW
        is_answered = direction is Direction.OUTBOUND and not is_automatic
        is_filed = self.identifier is not None or evidence.anchor is None
        # Written out: `evolve` takes four times as long, and this runs once for every message.
        return Filing(
            id=self.id,
            channel=self.channel,
            thread=self.thread,
            opened=self.opened,
            last_at=max(self.last_at, at),
            subject=self.subject,
            identifier=self.identifier if is_filed else evidence.anchor,
            visitor=self.visitor or evidence.visitor,
            trust=self.trust if is_filed else evidence.trust,
            status=ConversationStatus.OPEN if reopens else self.status,
            messages=self.messages + 1,
            unread=0 if is_answered else self.unread + is_inbound,
            assignee=self.assignee,
            bot=self.bot,
            participants=self._with_participants(participants) if participants else self.participants,
        )

    def _with_participants(self, others: Sequence[Identifier]) -> tuple[Identifier, ...]:
        # The first stay: nobody is pushed out by a mail to hundreds.
        return tuple(dict.fromkeys((*self.participants, *others)))[:MOST_PARTICIPANTS]


def choose(answered: Sequence[Filing], threaded: Sequence[Filing], evidence: Evidence) -> Filing | None:
    """Give the first conversation that takes a message with `evidence`: of those it answers, then of its thread."""
    return next(
        chain(
            (one for one in answered if one.takes_answer(evidence)), (one for one in threaded if one.takes(evidence))
        ),
        None,
    )


_ORDER = (DeliveryStatus.QUEUED, DeliveryStatus.SENT, DeliveryStatus.DELIVERED, DeliveryStatus.READ)


def advance(status: DeliveryStatus, report: DeliveryStatus) -> DeliveryStatus:
    """Give the status after `report`: late and doubled reports never move it back; a failure counts until delivery."""
    if report is DeliveryStatus.FAILED:
        return status if status in _ORDER[2:] else report
    if status is DeliveryStatus.FAILED:
        return report if report in _ORDER[2:] else status
    return max(status, report, key=_ORDER.index)
