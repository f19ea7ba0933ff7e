"""What staff do in the inbox: which way an answer goes, who has a conversation, and whether it is done with."""

from collections.abc import Callable
from datetime import datetime

from attrs import evolve

from convsdk.core.inbox import ConversationStatus, Filing
from convsdk.core.ports import Channel
from convsdk.core.storage import Batch, ThreadQuery, Transaction
from convsdk.errors import ConfigError, Conflict
from convsdk.replies import Talk

Act = Callable[[Talk], None]
"""Something that staff do with a conversation, which may come to nothing."""


def locked(transaction: Transaction, filing: Filing) -> Filing:
    """Give a conversation as it is now, which nobody else changes until the transaction ends."""
    (found,) = transaction.candidates([ThreadQuery(channel=filing.channel, thread=filing.thread)])
    return next(one for _, one in found if one.id == filing.id)


def act(transaction: Transaction, filing: Filing, do: Act, *, at: datetime) -> Filing:
    """Do something with a conversation; give it as it is then. What changes nothing is written nowhere."""
    before = locked(transaction, filing)
    talk = Talk(Batch(), before, at=at, ids=transaction.new_ids())
    do(talk)
    if talk.filing != before:
        transaction.write(talk.end())
    return talk.filing


def complete(talk: Talk, *, by: str) -> None:
    """Say that a conversation is done with, and read."""
    if talk.filing.status is ConversationStatus.REVIEW:
        raise Conflict(f"conversation {talk.filing.id} is in review: say first whose it is, with 'convsdk review'")
    if talk.filing.status is ConversationStatus.COMPLETE:
        return
    talk.filing = evolve(talk.filing, status=ConversationStatus.COMPLETE, unread=0)
    talk.line(f"completed by {by}", kind="completed")
    talk.notify("conversation.completed", by=by)


def reopen(talk: Talk, *, by: str) -> None:
    """Say that a conversation is not done with after all."""
    if talk.filing.status is not ConversationStatus.COMPLETE:
        return
    talk.filing = evolve(talk.filing, status=ConversationStatus.OPEN)
    talk.line(f"reopened by {by}", kind="reopened")
    talk.notify("conversation.reopened", by=by)


def assign(talk: Talk, to: str, *, by: str) -> None:
    """Give a conversation to somebody, or (empty) to nobody."""
    if talk.filing.assignee != to:
        talk.assign(to, by=by)


def mark_read(talk: Talk, upto: int | None) -> None:
    """Say that a conversation was read; with `upto`, only if nothing came since that many messages."""
    if upto is None or talk.filing.messages <= upto:
        talk.filing = evolve(talk.filing, unread=0)


def check_follow_up(channel: Channel, mail: Channel) -> None:
    """Raise `ConfigError` where `channel` is followed up by `mail`, and that sends no mail."""
    if not mail.can.sends or not mail.addresses:
        raise ConfigError(
            f"channel {channel.name!r} is followed up by {mail.name!r}, which sends no mail: name an e-mail channel "
            f"with [channels.{mail.name}.sending], or take follow_up out"
        )


def titled(channel: Channel) -> str:
    """Give what the subject of a follow-up says: the name that visitors know a channel by."""
    return channel.widget.title if channel.widget else ""
