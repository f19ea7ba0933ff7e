"""What platforms report on messages of ours: how far each has come, its echo, and who takes no more of them."""

from collections.abc import Collection, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec
from attrs import evolve, frozen

from convsdk.core.events import DeliveryStatus, Event, MessageReceived, Notice, StatusChanged
from convsdk.core.fold import Policy
from convsdk.core.inbox import Filing, advance
from convsdk.core.model import Direction, Identifier, Message, Trust
from convsdk.core.payloads import digest_of
from convsdk.core.storage import Alias, Batch, Delivery, Found, Memo, Transaction, Watermark

REPORT = "report"
"""The kind of the memos that keep a report about a message whose external id nobody knows yet."""
UNREACHABLE = "unreachable"
"""The kind of the memos that say to whom nothing is to be sent any more."""
UNKNOWN = "unknown"
"""The `error_code` in the detail of a message that failed because nobody knows whether it arrived."""
SAID = "said"
"""The kind of the memos that say what was sent last in a thread, for an echo that brings no token back."""
KEPT = timedelta(days=7)
"""How long a report waits for its message to get the external id that it names."""

_BY_VALUE = {one.value: one for one in DeliveryStatus}
_MOVED_BY = {DeliveryStatus.DELIVERED: ("sent",), DeliveryStatus.READ: ("sent", "delivered")}


@frozen(kw_only=True)
class Report:
    """How far a message has come, or why it failed: in the platform's words, and with its code where it gave one."""

    status: DeliveryStatus
    at: datetime
    error: str = ""
    code: str = ""


@frozen(kw_only=True)
class Unreachable:
    """Why nothing is sent to an identifier any more, and since when. `channel` is the one that reported it."""

    since: datetime
    why: str
    channel: str

    def told(self, identifier: Identifier) -> str:
        """Give that in words, and what to do."""
        return (
            f"nothing is sent to {identifier} since {self.since:%Y-%m-%d %H:%M} UTC, when {self.channel!r} reported: "
            f"{self.why or 'it takes no messages'}. Once it does again: convsdk reachable {identifier} --lift"
        )


def token_name(token: str) -> str:
    """Give the alias by which an echo finds the part with that token."""
    return f"token/{token}"


def report_key(channel: str, external_id: str) -> str:
    """Give the key of the memo that keeps a report about that message."""
    return f"{channel}/{external_id}"


def said_memo(token: str, text: str, at: datetime) -> Memo:
    """Give the memo that the part with that token and text is under way."""
    return Memo(_text((token, _words(text))), at)


def _words(text: str) -> str:
    """Give what stands for a text, whatever blanks a platform leaves out of it."""
    return digest_of(" ".join(text.split()))


def unreachable_of(memo: Memo | None) -> Unreachable | None:
    """Give what a memo says of an identifier; None where it was lifted."""
    return msgspec.json.decode(memo.text, type=Unreachable) if memo and memo.text else None


def report_of(memo: Memo) -> Report:
    """Give the report that a memo keeps."""
    return msgspec.json.decode(memo.text, type=Report)


def status_of(message: Message) -> DeliveryStatus:
    """Give how far an outbound message has come; one that was sent elsewhere has been sent."""
    return _BY_VALUE.get(message.status, DeliveryStatus.SENT)


def with_report(message: Message, report: Report) -> Message:
    """Give the message after a report: the same where it says nothing new, or nothing that counts any more."""
    before = status_of(message)
    status = advance(DeliveryStatus.QUEUED if _is_open(message) else before, report.status)
    if status is before:
        return message
    detail: dict[str, Any] = message.detail or {}
    detail = {key: value for key, value in detail.items() if key not in {"error", "error_code", "parts_done"}}
    if status is DeliveryStatus.FAILED:
        detail |= {"error": report.error} | ({"error_code": report.code} if report.code else {})
    return evolve(message, status=status.value, detail=detail or None)


def _is_open(message: Message) -> bool:
    """Say whether nobody has said yet that a message went: of one with an unknown outcome, a report settles it."""
    is_unknown = (message.detail or {}).get("error_code") == UNKNOWN
    status = status_of(message)
    return status is DeliveryStatus.QUEUED or (status is DeliveryStatus.FAILED and is_unknown)


def told_of(message: Message) -> dict[str, Any]:
    """Give what every notice of an outbound message tells of it."""
    told = {
        "conversation": message.conversation,
        "message": message.id,
        "external_id": message.external_id,
        "channel": message.channel,
    }
    way = (message.detail or {}).get("way")
    # Observers are told why; the address is on the message.
    return told | ({"way": way["why"]} if way else {})


def move_notices(before: Message, after: Message, at: datetime, ids: Iterator[int]) -> Iterator[Notice]:
    """Give the notices of how far a message has come: that it has gone, the first time, and each move."""
    if before.status == after.status:
        return
    if after.status != DeliveryStatus.FAILED.value and _is_open(before):
        yield sent_notice(after, at, id=next(ids))
    yield status_changed(after, at, id=next(ids))


def sent_notice(message: Message, at: datetime, *, id: int) -> Notice:  # noqa: A002  (the field's name)
    """Give the notice that an outbound message has gone."""
    told = told_of(message) | {"direction": message.direction.value}
    return Notice(id=id, type="message.sent", at=at, payload=told)


def status_changed(message: Message, at: datetime, *, id: int) -> Notice:  # noqa: A002  (the field's name)
    """Give the notice that a message has come further, or failed."""
    told = told_of(message) | {"status": message.status}
    error = (message.detail or {}).get("error")
    return Notice(id=id, type="message.status_changed", at=at, payload=told | ({"error": error} if error else {}))


class Reports:
    """Takes the reports and echoes among the events of one transaction, and gathers in `batch` what they change.

    `events` are theirs with their channels, `sending` the channels whose own messages can come back. `stored` has
    the messages with these names, and those of `others`, by channel and external id.
    """

    def __init__(
        self,
        transaction: Transaction,
        policy: Policy,
        events: Sequence[tuple[str, Event]],
        sending: Collection[str],
        others: Collection[tuple[str, str]] = (),
    ) -> None:
        self._policy = policy
        self._revised: dict[int, Message] = {}
        self._changed: dict[int, Delivery] = {}
        reports = [(channel, one) for channel, one in events if isinstance(one, StatusChanged)]
        received = [
            (channel, one) for channel, one in events if isinstance(one, MessageReceived) and channel in sending
        ]
        names = {(channel, name) for channel, one in reports for name in one.messages}
        names |= {(channel, one.external_id) for channel, one in received}
        # The names are locked first: who gives a message one of them looks for reports under the same lock.
        keys = {report_key(*name) for name in names}
        self._kept = transaction.memos(REPORT, keys) if keys else {}
        threads = {report_key(channel, one.thread) for channel, one in received if _is_bare(one)}
        self._said = transaction.memos(SAID, threads) if threads else {}
        names = names.union(others, *(self._tokens(*one) for one in received))
        self._found = transaction.found(names) if names else {}
        self.stored = {name: one.message for name, one in self._found.items()}
        echoed = {one.message.id for each in received if (one := self._named(*each))}
        self._deliveries = transaction.deliveries(echoed) if echoed else {}
        self._marked = _marked(transaction, reports)

    def take(
        self, channel: str, event: StatusChanged, filings: Sequence[Filing], batch: Batch, ids: Iterator[int]
    ) -> None:
        """Move the messages that a report is about, and keep it for those that are not known yet.

        `filings` are the conversations of those messages. What is only ASSERTED to be unreachable is believed of whom
        one of them went to: whoever has a message could report anything about it.
        """
        report = Report(status=event.status, at=event.at, error=event.error)
        messages = list(self._marked.get((channel, event.external_id), ()))
        for name in event.messages:
            found = self._found.get((channel, name))
            if found and not _is_of_a_part(found, report):
                messages.append(found.message)
            elif found is None or found.message.external_id == name:
                self._keep(report_key(channel, name), report, batch)
        for message in messages:
            self._move(message, report, batch, ids)
        identifier = self._policy.canonical(event.unreachable) if event.unreachable else None
        if event.unreachable and identifier:
            if event.unreachable.trust is Trust.ASSERTED and identifier not in _written_to(messages, filings):
                return
            why = Unreachable(since=event.at, why=event.error, channel=channel)
            batch.memos[UNREACHABLE, str(identifier)] = Memo(_text(why), event.at)

    def echo(self, channel: str, event: MessageReceived, batch: Batch, ids: Iterator[int]) -> Message | None:
        """Give the message of ours that `event` is, if it is one, and note that it arrived where that is an echo."""
        found = self._echoed(channel, event)
        if found is None or event.direction is not Direction.OUTBOUND:
            return found.message if found else None
        message = found.message
        batch.aliases[channel, event.external_id] = Alias(
            conversation=message.conversation, message=message.id, part=found.part
        )
        self._found[channel, event.external_id] = found
        if delivery := self._changed.get(message.id, self._deliveries.get(message.id)):
            self._changed[message.id] = _with_echo(delivery, found.part, event.at)
        kept = self._kept.get(report_key(channel, event.external_id))
        reports = [] if delivery else [Report(status=DeliveryStatus.SENT, at=event.at)]
        for report in (*reports, *([report_of(kept)] if kept else [])):
            if not _is_of_a_part(found, report):
                self._move(message, report, batch, ids)
        return message

    def overtook(self, channel: str, event: MessageReceived) -> Report | None:
        """Give the report that came before the outbound message which it is about."""
        kept = self._kept.get(report_key(channel, event.external_id))
        return report_of(kept) if kept else None

    def know(self, message: Message) -> None:
        """Take note of a message that is new: a report about it can be the next event."""
        self._found[message.channel, message.external_id] = Found(message=message)

    def end(self, batch: Batch) -> None:
        """Put the messages and deliveries that have changed into `batch`."""
        batch.messages[:] = [self._revised.pop(one.id, one) for one in batch.messages]
        batch.revised += self._revised.values()
        batch.deliveries |= self._changed

    def _echoed(self, channel: str, event: MessageReceived) -> Found | None:
        found = self._named(channel, event)
        if found is None or (channel, event.external_id) in self._found or not _is_bare(event):
            return found
        # It only says the same: that is an echo of what nobody knows yet to have arrived, and else was said elsewhere.
        delivery = self._changed.get(found.message.id, self._deliveries.get(found.message.id))
        return found if delivery and _is_awaited(delivery, found.part) else None

    def _named(self, channel: str, event: MessageReceived) -> Found | None:
        names = [(channel, event.external_id), *self._tokens(channel, event)]
        found = next((self._found[name] for name in names if name in self._found), None)
        return found if found and found.message.direction is Direction.OUTBOUND else None

    def _tokens(self, channel: str, event: MessageReceived) -> set[tuple[str, str]]:
        token = event.detail.get("token")
        said = self._said.get(report_key(channel, event.thread)) if _is_bare(event) else None
        if said:
            token, words = msgspec.json.decode(said.text, type=tuple[str, str])
            token = token if words == _words(event.text) else None
        return {(channel, token_name(token))} if isinstance(token, str) else set()

    def _move(self, message: Message, report: Report, batch: Batch, ids: Iterator[int]) -> None:
        message = self._revised.get(message.id, message)
        if message.direction is not Direction.OUTBOUND:
            return
        moved = with_report(message, report)
        if moved is not message:
            self._revised[message.id] = moved
            batch.notices += move_notices(message, moved, report.at, ids)

    def _keep(self, key: str, report: Report, batch: Batch) -> None:
        kept = self._kept.get(key)
        before = report_of(kept) if kept else report
        further = before if advance(before.status, report.status) is before.status else report
        self._kept[key] = batch.memos[REPORT, key] = Memo(_text(further), report.at)


def _written_to(messages: Sequence[Message], filings: Sequence[Filing]) -> set[Identifier | None]:
    """Give whom those of `messages` that we sent went to; `filings` are their conversations."""
    sent_in = {one.conversation for one in messages if one.direction is Direction.OUTBOUND}
    return {one.identifier for one in filings if one.id in sent_in}


def _is_of_a_part(found: Found, report: Report) -> bool:
    """Say whether a report says nothing of the whole message: others of its parts are still to go, or failed."""
    detail = found.message.detail or {}
    is_going = status_of(found.message) is DeliveryStatus.QUEUED and "sent_at" not in detail
    return report.status is not DeliveryStatus.FAILED and (is_going or found.part < detail.get("parts_done", 0))


def _is_bare(event: MessageReceived) -> bool:
    """Say whether an event can be the echo of a message of ours without saying of which."""
    return event.direction is Direction.OUTBOUND and bool(event.thread) and "token" not in event.detail


def _is_awaited(delivery: Delivery, part: int) -> bool:
    """Say whether nobody knows yet whether the part arrived that an echo is about: a later one than those that did."""
    return part >= delivery.parts_done and (delivery.is_under_way or delivery.awaits_echo)


def _with_echo(delivery: Delivery, part: int, at: datetime) -> Delivery:
    """Give a delivery of which a part has arrived after all; whoever waited for that goes on."""
    if not _is_awaited(delivery, part):
        return evolve(delivery, parts_done=max(delivery.parts_done, part + 1))
    is_waiting = delivery.awaits_echo and not delivery.owner
    delivery = evolve(delivery, parts_done=part + 1, is_under_way=False, awaits_echo=False)
    return evolve(delivery, due_at=at, put_off_at=at) if is_waiting else delivery


def _marked(
    transaction: Transaction, reports: Sequence[tuple[str, StatusChanged]]
) -> dict[tuple[str, str], list[Message]]:
    """Give by channel and external id of a report what was sent up to its watermark and can still be moved by it."""
    marks = {
        (channel, one.external_id): Watermark(
            channel=channel, thread=one.thread, until=one.watermark, statuses=_MOVED_BY.get(one.status, ())
        )
        for channel, one in reports
        if one.watermark is not None
    }
    if not marks:
        return {}
    found = transaction.sent_until(list(marks.values()))
    return {
        name: [one for one in each if _sent_at(one) <= mark.until]
        for (name, mark), each in zip(marks.items(), found, strict=True)
    }


def _sent_at(message: Message) -> datetime:
    # Written when it was queued, it can have gone much later.
    sent_at = (message.detail or {}).get("sent_at")
    return datetime.fromisoformat(sent_at) if sent_at else message.at


def _text(value: Report | Unreachable | tuple[str, str]) -> str:
    return msgspec.json.encode(value).decode()
