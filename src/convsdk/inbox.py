"""What staff do in the inbox: answer, whichever way, and say who has a conversation and whether it is done with."""

import secrets
from abc import abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from html import escape as escape_html
from typing import Any

import msgspec
from attrs import evolve

from convsdk import presence
from convsdk.archive import Archive
from convsdk.automatic import HEARD, heard_key
from convsdk.core.consent import refusal
from convsdk.core.inbox import Conversation, ConversationStatus, Filing
from convsdk.core.model import Attachment, Contact, Direction, Identifier, Message, Trust
from convsdk.core.ports import Channel
from convsdk.core.storage import Alias, Batch, ContactRecord, Memo, ThreadQuery, Transaction
from convsdk.core.templates import contact_values, render
from convsdk.core.ways import FOLLOW_UP, Address, Situation, Way, choose_way, follow_up_of, objection, recipient
from convsdk.errors import Conflict, UnsupportedError
from convsdk.permissions import Permissions
from convsdk.replies import DUTY, Said, Talk, answer, duty_at, new_token, queue_again
from convsdk.reports import UNREACHABLE, Unreachable, unreachable_of

_MOST_HINTS = 1000
"""How much of what was said about an identifier is looked at for an address."""

_Act = Callable[[Talk], None]
"""Something that staff do with a conversation, which may come to nothing."""


def _locked(transaction: Transaction, filing: Filing) -> Filing:
    """Give a conversation as it is now, which nobody else changes until the transaction ends."""
    (found,) = transaction.candidates([ThreadQuery(channel=filing.channel, thread=filing.thread)])
    return next(one for _, one in found if one.id == filing.id)


def _act_on(transaction: Transaction, filing: Filing, do: _Act, *, at: datetime) -> Filing:
    """Do something with a conversation; give it as it is then. What changes nothing is written nowhere."""
    before = _locked(transaction, filing)
    talk = Talk(Batch(), before, at=at, ids=transaction.new_ids())
    do(talk)
    if talk.filing != before:
        transaction.write(talk.end())
    return talk.filing


def _complete(talk: Talk, *, by: str) -> None:
    """Say that a conversation is done with, and read."""
    if talk.filing.status is ConversationStatus.REVIEW:
        raise Conflict(f"conversation {talk.filing.id} is in review: say first whose it is, with 'convsdk review'")
    if talk.filing.status is ConversationStatus.COMPLETE:
        return
    talk.filing = evolve(talk.filing, status=ConversationStatus.COMPLETE, unread=0)
    talk.line(f"completed by {by}", kind="completed")
    talk.notify("conversation.completed", by=by)


def _reopen(talk: Talk, *, by: str) -> None:
    """Say that a conversation is not done with after all."""
    if talk.filing.status is not ConversationStatus.COMPLETE:
        return
    talk.filing = evolve(talk.filing, status=ConversationStatus.OPEN)
    talk.line(f"reopened by {by}", kind="reopened")
    talk.notify("conversation.reopened", by=by)


def _assign(talk: Talk, to: str, *, by: str) -> None:
    """Give a conversation to somebody, or (empty) to nobody."""
    if talk.filing.assignee != to:
        talk.assign(to, by=by)


def _mark_read(talk: Talk, upto: int | None) -> None:
    """Say that a conversation was read; with `upto`, only if nothing came since that many messages."""
    if upto is None or talk.filing.messages <= upto:
        talk.filing = evolve(talk.filing, unread=0)


def _titled(channel: Channel) -> str:
    """Give what the subject of a follow-up says: the name that visitors know a channel by."""
    return channel.widget.title if channel.widget else ""


def _without_way(detail: Mapping[str, Any]) -> dict[str, Any]:
    # Who a message goes to is not for its detail to say.
    return {key: value for key, value in detail.items() if key != "way"}


def follow(followers: list[Callable[[], None]], wake: Callable[[], None]) -> Callable[[], None]:
    """Have `wake` called with the others, and give what ends that."""
    followers.append(wake)
    return lambda: followers.remove(wake)


def call(followers: Iterable[Callable[[], None]]) -> None:
    """Call all who follow something."""
    for wake in tuple(followers):
        wake()


class Inbox(Permissions):
    """What a `Hub` lets staff do: answer, and say who has a conversation, whether it is read, and done with."""

    channels: Mapping[str, Channel]
    archive: Archive | None
    _queue_followers: list[Callable[[], None]]

    @abstractmethod
    def conversation(self, conversation: int) -> Conversation:
        """Give one conversation, under the contact that it is on now."""

    @abstractmethod
    def contact(self, contact: int) -> Contact:
        """Give the contact that the id leads to now."""

    def note(self, conversation: int, text: str, *, by: str) -> int:
        """Write a note by staff for staff into a conversation; give the message's id. It never leaves."""
        self.conversation(conversation)
        at = self._clock()

        def work(transaction: Transaction) -> int:
            number = next(transaction.new_ids())
            message = Message(
                id=number,
                conversation=conversation,
                channel="",
                external_id=f"note/{number}",
                direction=Direction.NOTE,
                at=at,
                text=text,
                status=f"by {by}",
            )
            transaction.write(Batch(messages=[message]))
            return number

        return self.transact(work)

    def reply(
        self,
        conversation: int,
        text: str,
        *,
        by: str,
        reply_id: str = "",
        html: str = "",
        subject: str = "",
        attachments: Sequence[Attachment] = (),
        detail: Mapping[str, Any] | None = None,
        is_automatic: bool = False,
        way: str = "",
        is_template: bool = False,
    ) -> str:
        """Answer a conversation, and give the message's external id.

        On a channel that sends, the answer is queued, and delivered by a `Deliverer`. On any other the widget shows it
        while the visitor is there; else it goes by mail, where there is an e-mail channel for that and an address that
        may be written to. `way`, the name of one of the two channels, decides. The message's `channel` says which it
        was, and its `detail["way"]` why; `Hub.way` tells both before.

        The first agent who answers takes the conversation, and its bot automation says no more; what is `is_automatic`
        no agent wrote. The same `reply_id` again changes nothing. `html` is the text once more, `detail` what more
        there is to it, such as buttons, as plain JSON values. `is_template`: `text`, `html` and `subject` have
        placeholders, as `render` fills them in.

        Raises `UnsupportedError` where nothing can be sent that way, `Conflict` where the address takes nothing any
        more, and `ValueError` for an answer with neither words nor a file.
        """
        filing = self.conversation(conversation).filing
        if is_template:
            text, subject = (self.render(one, conversation) for one in (text, subject))
            html = self.render(html, conversation, escape=escape_html)
        if not text.strip() and not attachments:
            raise ValueError("a reply without words says nothing: write some")
        chosen = self.way(conversation, wish=way, is_automatic=is_automatic)
        channel = self.channels[chosen.channel] if chosen.to else None
        token = new_token() if channel else ""
        if channel and chosen.channel != filing.channel:
            subject = subject or filing.subject or _titled(self.channels[filing.channel])
        said = Said(
            text=text,
            by=by,
            html=html,
            attachments=self._archived(attachments),
            detail={**_without_way(detail or {}), **({"subject": subject} if subject else {})},
            is_automatic=is_automatic,
        )
        # By this one a second call knows the first.
        name = f"reply/{reply_id or secrets.token_hex(8)}"
        external_id = channel.outbound_id(token) if channel else name
        query = ThreadQuery(channel=filing.channel, thread=filing.thread, references=(name,))
        at = self._clock()

        def work(transaction: Transaction) -> str:
            (found,) = transaction.candidates([query])
            if before := transaction.found([(filing.channel, name)]):
                return before[filing.channel, name].message.external_id
            locked = next(one for _, one in found if one.id == conversation)
            batch = answer(locked, said, chosen, at=at, external_id=external_id, ids=transaction.new_ids(), token=token)
            if channel:
                alias = Alias(conversation=conversation, message=next(iter(batch.deliveries)))
                batch.aliases[filing.channel, name] = alias
            if chosen.to and not is_automatic:
                batch.memos[HEARD, heard_key(chosen.channel, chosen.to)] = Memo("", at)
            transaction.write(batch)
            return external_id

        external_id = self.transact(work)
        call(self._queue_followers)
        return external_id

    def render(self, text: str, conversation: int, *, escape: Callable[[str], str] = str) -> str:
        """Give a saved response with its placeholders filled in, for that conversation: `{{ contact.name | there }}`.

        Known is what was attested of its contact, such as `contact.email` and the traits, and only where it was
        attested as well whose conversation it is: who only claims to be somebody is told nothing about them. Raises
        `ValueError` for what is unknown and has no fallback.
        """
        found = self.conversation(conversation)
        is_attested = (found.filing.trust or Trust.ASSERTED) > Trust.ASSERTED
        values = contact_values(self.contact(found.contact)) if found.contact and is_attested else {}
        return render(text, values, escape=escape)

    def way(self, conversation: int, *, wish: str = "", is_automatic: bool = False) -> Way:
        """Give the way that an answer to a conversation would go now, and why; raises as `reply` does."""
        found = self.conversation(conversation)
        filing, channel = found.filing, self.channels.get(found.filing.channel)
        if channel is None or not channel.can.sends:
            return choose_way(self._situation(found, channel, is_automatic=is_automatic), wish)
        if wish not in {"", filing.channel}:
            raise UnsupportedError(f"conversation {filing.id} is answered by {filing.channel!r} alone, not by {wish!r}")
        if filing.identifier is None:
            raise UnsupportedError(
                f"conversation {filing.id} on {filing.channel!r} is nobody's that could be written to"
            )
        self.check_reachable(filing.identifier)
        return Way(channel=filing.channel, why="", to=filing.identifier)

    def objection(self, message: Message) -> str:
        """Give why a message that waits to be sent may not go any more; empty: nothing speaks against it.

        A follow-up can wait for a day, and be tried anew after a month: by then its address may be somebody else's, or
        its contact may have said no.
        """
        to = follow_up_of(message)
        if to is None:
            return ""
        found = self.conversation(message.conversation)
        situation = Situation(
            filing=found.filing,
            is_shown=found.filing.visitor is not None,
            follow_up=message.channel,
            addresses=tuple(self._addresses(found)),
            is_automatic=bool((message.detail or {}).get("is_automatic")),
        )
        return objection(situation, to)

    def _situation(self, found: Conversation, channel: Channel | None, *, is_automatic: bool) -> Situation:
        follow_up = channel.follow_up if channel else ""
        return Situation(
            filing=found.filing,
            is_shown=found.filing.visitor is not None,
            is_present=self.is_present(found.id),
            follow_up=follow_up,
            addresses=tuple(self._addresses(found)) if follow_up else (),
            is_automatic=is_automatic,
        )

    def _addresses(self, found: Conversation) -> Iterator[Address]:
        """Give the e-mail addresses of a conversation's contact, and what speaks against each."""
        record = self.store.contact(self.workspace, found.contact) if found.contact else None
        held = {one.node.identifier: one for one in record.holdings} if record else {}
        own = found.filing.identifier
        for one in sorted({*held, *({own} if own else ())}):
            if one.kind != "email":
                continue
            trust, spelt = (held[one].trust, held[one].spelling) if one in held else (None, "")
            yield Address(
                identifier=one,
                spelling=spelt or one.value,
                trust=trust or Trust.ASSERTED,
                refusal=self._refusal(one, found.contact, record),
            )
        for one, spelt in self._typed(found.filing).items():
            yield Address(
                identifier=one,
                spelling=spelt,
                trust=Trust.ASSERTED,
                refusal=self._refusal(one, self.store.find(self.workspace, one), None),
                is_typed_here=True,
            )

    def _typed(self, filing: Filing) -> dict[Identifier, str]:
        """Give the addresses that were typed in a conversation which is filed under another claim, an account's."""
        about = filing.identifier
        if about is None or about.kind == "email" or filing.trust is not Trust.ASSERTED:
            return {}
        hints = self.store.hints(self.workspace, [about], limit=_MOST_HINTS)
        said = [one.evidence for one in hints if one.conversation == filing.id]
        # Where somebody has proven who they are by now, or may have, no claim is answered any more.
        if len(hints) == _MOST_HINTS or any(one.trust > Trust.ASSERTED for one in said):
            return {}
        notes = {note: dict(one.spellings) for one in said for note, _ in one.notes if note.kind == "email"}
        return {note: spellings.get(note, note.value) for note, spellings in list(notes.items())[-1:]}

    def _refusal(self, one: Identifier, contact: int | None, record: ContactRecord | None) -> str:
        """Give why nothing of a contact's is to be sent to an address; empty where nothing speaks against it."""
        if self.store.find(self.workspace, one) != contact:
            return f"{one} is somebody else's by now"
        if stopped := self.unreachable(one):
            return stopped.told(one)
        identifiers = {one, *(held.node.identifier for held in record.holdings)} if record else {one}
        return refusal(one, FOLLOW_UP, self._consents(identifiers, record))

    def is_present(self, conversation: int) -> bool:
        """Say whether the visitor of a conversation looks at the chat widget now."""
        filing = self.conversation(conversation).filing
        memo = self.store.memo(self.workspace, presence.PRESENCE, presence.key_of((filing.channel, filing.thread)))
        return presence.is_present(memo, self._clock())

    def show_presence(
        self, seen: Collection[presence.Place], gone: Collection[presence.Place] = (), *, by: str
    ) -> None:
        """Write down which visitors are there and which went, each as channel and thread, as the process `by` sees it.

        It holds for 75 seconds: whoever shows it does so every 30.
        """
        at = self._clock()
        self.transact(lambda one: presence.show(one, seen, gone, by=by, at=at))

    def forget_presence(self) -> None:
        """Forget who was there a day ago and longer."""
        before = self._clock() - presence.KEPT
        self.transact(lambda one: one.forget_memos(presence.PRESENCE, before=before))

    def complete(self, conversation: int, *, by: str) -> Conversation:
        """Say that a conversation is done with, which opens again when somebody writes. A second time says no more.

        Raises `Conflict` while it is in review.
        """
        return self._act(conversation, lambda talk: _complete(talk, by=by))

    def reopen(self, conversation: int, *, by: str) -> Conversation:
        """Say that a conversation is not done with after all."""
        return self._act(conversation, lambda talk: _reopen(talk, by=by))

    def assign(self, conversation: int, to: str, *, by: str) -> Conversation:
        """Give a conversation to an agent, or (an empty `to`) to nobody; a line in it says so."""
        return self._act(conversation, lambda talk: _assign(talk, to, by=by))

    def mark_read(self, conversation: int, *, messages: int | None = None) -> Conversation:
        """Say that a conversation was read, which holds for all agents.

        `messages` is the `filing.messages` of what was read: where more came since, it stays unread.
        """
        return self._act(conversation, lambda talk: _mark_read(talk, messages))

    def _act(self, conversation: int, do: _Act) -> Conversation:
        filing, at = self.conversation(conversation).filing, self._clock()
        self.transact(lambda transaction: _act_on(transaction, filing, do, at=at))
        return self.conversation(conversation)

    def _archived(self, attachments: Sequence[Attachment]) -> tuple[Attachment, ...]:
        """Give `attachments` with their bytes in the archive."""
        archive = self.archive
        if archive is None and any(one.content is not None for one in attachments):
            raise UnsupportedError("there is no archive to keep attachments in: give the hub one, or their URLs")
        return tuple(
            evolve(one, url=archive.put(one.content), size=len(one.content), content=None)
            if archive is not None and one.content is not None
            else one
            for one in attachments
        )

    def retry(self, message: Message) -> None:
        """Send an outbound message once more that failed. Raises `Conflict` where it has not."""
        filing = self.conversation(message.conversation).filing
        to, channel = recipient(message, filing), self.channels.get(message.channel)
        if to is None or channel is None or not channel.can.sends:
            raise UnsupportedError(
                f"message {message.id} of {message.channel!r} cannot be sent: see 'convsdk channels'"
            )
        self.check_reachable(to)
        at = self._clock()
        self.transact(lambda transaction: queue_again(transaction, message, at))
        call(self._queue_followers)

    def on_queued(self, wake: Callable[[], None]) -> Callable[[], None]:
        """Have `wake` called, from any thread, whenever this hub has queued something; give what ends that."""
        return follow(self._queue_followers, wake)

    def unreachable(self, identifier: Identifier) -> Unreachable | None:
        """Give why nothing is sent to `identifier` any more, and since when; None where it takes messages."""
        return unreachable_of(self.store.memo(self.workspace, UNREACHABLE, str(identifier)))

    def check_reachable(self, identifier: Identifier) -> None:
        """Raise `Conflict` where nothing is sent to `identifier` any more, with what to do about it."""
        if stopped := self.unreachable(identifier):
            raise Conflict(stopped.told(identifier))

    def make_reachable(self, identifier: Identifier) -> None:
        """Let `identifier` be written to again, whatever was reported about it."""
        at = self._clock()
        batch = Batch(memos={(UNREACHABLE, str(identifier)): Memo("", at)})
        self.transact(lambda transaction: transaction.write(batch))

    def be_on_duty(self, agent: str, until: datetime | None) -> None:
        """Say until when `agent` is there to answer; None ends it now."""

        def work(transaction: Transaction) -> None:
            now = self._clock()
            duty = duty_at(transaction.memo(*DUTY), now)
            duty.pop(agent, None)
            if until is not None:
                duty[agent] = until
            transaction.write(Batch(memos={DUTY: Memo(msgspec.json.encode(duty).decode(), now)}))

        self.transact(work)

    def on_duty(self) -> tuple[str, ...]:
        """Give the names of the agents who are there to answer now."""
        return tuple(sorted(duty_at(self.store.memo(self.workspace, *DUTY), self._clock())))
