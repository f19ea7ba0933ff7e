"""What becomes of deliveries: how each moves on, pure; and how many of them are written down at once.

A step says what happened to one: it is under way, a part arrived, it is put off, it failed, nobody knows. What is
written is the delivery as it is by then, its message's status, and the names by which the platform knows it.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta

from attrs import evolve, frozen

from convsdk.core.events import DeliveryStatus
from convsdk.core.model import Message
from convsdk.core.ports import Capabilities, Outbound, Receipt
from convsdk.core.storage import Alias, Batch, Delivery, Memo, Outgoing, Transaction
from convsdk.core.ways import recipient
from convsdk.hub import Hub
from convsdk.reports import (
    REPORT,
    SAID,
    UNKNOWN,
    UNREACHABLE,
    Report,
    move_notices,
    report_key,
    report_of,
    said_memo,
    token_name,
    unreachable_of,
    with_report,
)

SOON_S = 2.0
"""The shortest pause before another try."""
MOST_S = 24 * 3600.0
"""How long a message is put off in all, and the longest pause that a platform can ask for."""
_SELDOM_S = 3600.0
_ECHO_S = 120.0


@frozen(kw_only=True)
class Job:
    """A delivery that a worker has, with what it needs; `refusal` says why it may not go."""

    delivery: Delivery
    outgoing: Outgoing
    refusal: str = ""


@frozen(kw_only=True)
class Step:
    """What became of a delivery, to be written down: what it is now (None: it has ended), and what that says.

    `change` gives that of the delivery as it stands then. `names` are external ids, each with the part that it means.
    `said` is kept for an echo that names no token, by the key of its thread. `waits` says for the agent until when and
    why it is put off. A step that `is_fact` counts even if another worker has taken over.
    """

    job: Job
    change: Callable[[Delivery], Delivery | None]
    report: Report | None = None
    names: tuple[tuple[str, int], ...] = ()
    said: tuple[str, Memo] | None = None
    waits: str = ""
    is_fact: bool = False

    @property
    def outcome(self) -> str:
        """Give what counts of it: "sent", "failed" or "put_off"; a blank where there is more to come."""
        if self.report is None:
            return "put_off" if self.waits else ""
        return "failed" if self.report.status is DeliveryStatus.FAILED else "sent"


def storable(text: str) -> str:
    """Give what a platform said as every store can keep it: what is half a character is replaced."""
    return text.encode("utf-8", "replace").decode()


def backoff_s(tries: int, random: float) -> float:
    """Give how long to wait after so many tries that failed: twice as long each time, and not all at once."""
    return min(SOON_S * 2.0 ** min(tries, 32), _SELDOM_S) * (0.5 + random / 2)


def under_way(job: Job, part: Outbound, number: int, *, is_echoed: bool = False) -> Step:
    """Say, before a part is sent, that it may have been; and by which token, or words, its echo is known."""
    key = report_key(job.delivery.channel, part.thread)
    return Step(
        job=job,
        change=lambda one: evolve(one, is_under_way=True),
        names=((token_name(part.token), number),),
        said=(key, said_memo(part.token, part.text, part.at)) if is_echoed and part.thread else None,
    )


def arrived(job: Job, number: int, receipt: Receipt, at: datetime, *, is_last: bool) -> Step:
    """Say that the platform has the part `number`, tried at the moment `at`; with the last, the message is sent."""

    def change(one: Delivery) -> Delivery | None:
        done = max(one.parts_done, number + 1)
        return None if is_last else evolve(one, parts_done=done, is_under_way=False, awaits_echo=False, tries=0)

    names = ((storable(receipt.external_id), number),) if receipt.external_id else ()
    report = Report(status=receipt.status, at=at) if is_last else None
    return Step(job=job, change=change, report=report, names=names, is_fact=True)


def freed(job: Job) -> Step:
    """Give a delivery back, for anybody to take."""
    return Step(job=job, change=lambda one: evolve(one, owner="", is_under_way=False))


def failed(job: Job, error: str, at: datetime, *, code: str = "") -> Step:
    """Give a delivery up, in words for the agent and with the platform's code."""
    report = Report(status=DeliveryStatus.FAILED, at=at, error=error, code=code)
    return Step(job=job, change=lambda _: None, report=report)


def put_off(
    job: Job, pause_s: float, at: datetime, *, error: str, is_a_try: bool = True, awaits_echo: bool = False
) -> Step:
    """Try again later; or no more, where that has gone on for a day. No clock is asked how long: it may be set."""
    if job.delivery.waited_s + pause_s > MOST_S:
        return failed(
            job, f"given up, as it would wait for over a day: {error}", at, code=UNKNOWN if awaits_echo else ""
        )
    due_at = at + timedelta(seconds=pause_s)

    def change(one: Delivery) -> Delivery:
        # The echo was faster.
        is_here = awaits_echo and not one.is_under_way and one.parts_done > job.delivery.parts_done
        return evolve(
            one,
            owner="",
            is_under_way=False,
            awaits_echo=awaits_echo and not is_here,
            due_at=at if is_here else due_at,
            put_off_at=at,
            tries=one.tries + is_a_try,
            waited_s=one.waited_s + pause_s,
        )

    return Step(job=job, change=change, waits=f"waits until {due_at:%Y-%m-%d %H:%M} UTC: {error}")


def unknown(job: Job, can: Capabilities, error: str, at: datetime, random: float) -> Step:
    """Nobody knows whether it arrived: what to do depends on how the platform tells one that comes twice."""
    if can.is_idempotent:
        return put_off(job, backoff_s(job.delivery.tries, random), at, error=error)
    if can.echoes:
        return put_off(job, _ECHO_S, at, error=error, awaits_echo=True)
    words = f"it may have arrived: {error}. Ask, or look there, before you send it again"
    return failed(job, words, at, code=UNKNOWN)


def write_down(transaction: Transaction, steps: Sequence[Step], owner: str, at: datetime) -> list[bool]:
    """Write what became of deliveries of `owner`, all at once; say for each whether it still was its own."""
    held = transaction.hold([one.job.delivery for one in steps])
    names = {(one.job.delivery.channel, name) for one in steps for name in _names(one, held)}
    # Who reports about a name that nobody has yet does so under the same lock.
    kept = transaction.memos(REPORT, {report_key(*name) for name in names}) if names else {}
    heard = [step.job.outgoing.message for step in steps if step.report or step.waits]
    told = {(one.channel, one.external_id) for one in heard}
    found = transaction.found(told) if told else {}
    batch, ids = Batch(), transaction.new_ids()
    are_ours = []
    for step in steps:
        message, current = step.job.outgoing.message, held.get(step.job.delivery.message)
        is_ours = current is not None and current.owner == owner
        are_ours.append(is_ours)
        if not is_ours and not step.is_fact:
            continue
        for name, part in step.names:
            alias = Alias(conversation=message.conversation, message=message.id, part=part)
            batch.aliases[message.channel, name] = alias
        if step.said:
            key, memo = step.said
            batch.memos[SAID, key] = memo
        if current:
            _move_on(batch, step, current, at)
        known = found.get((message.channel, message.external_id))
        if known and step.waits:
            batch.revised.append(_waiting(known.message, step.waits))
        if known and step.report:
            memos = [kept.get(report_key(message.channel, name)) for name in _names(step, held)]
            after = _reported(known.message, step, current, [report_of(one) for one in memos if one])
            batch.revised.append(after)
            batch.notices += move_notices(known.message, after, at, ids)
    transaction.write(batch)
    return are_ours


def _names(step: Step, held: Mapping[int, Delivery]) -> Iterator[str]:
    """Give the names by which reports can have overtaken what a step says."""
    yield from (name for name, _ in step.names)
    current = held.get(step.job.delivery.message)
    # By its own name, a message of several parts is only the first of them.
    if step.report and not (current and current.parts_done):
        yield step.job.outgoing.message.external_id


def _move_on(batch: Batch, step: Step, current: Delivery, at: datetime) -> None:
    changed = step.change(current)
    if changed is None:
        batch.ended[current.message] = at
    else:
        batch.deliveries[current.message] = changed


def _waiting(message: Message, why: str) -> Message:
    """Give a message that is put off with the reason, which goes as soon as it gets any further."""
    return evolve(message, detail={**(message.detail or {}), "error": why})


def _reported(message: Message, step: Step, delivery: Delivery | None, overtaken: Iterable[Report]) -> Message:
    """Give a message with what became of it, and with the reports that came before that was known."""
    report = step.report
    assert report is not None  # noqa: S101  (for the type checker: who calls this has looked)
    after = with_report(message, report)
    if report.status is DeliveryStatus.FAILED and delivery and delivery.parts_done:
        after = evolve(after, detail={**(after.detail or {}), "parts_done": delivery.parts_done})
    if report.status is not DeliveryStatus.FAILED:
        left_out = {"error"} if after.status == DeliveryStatus.QUEUED.value else set()  # it waits for nothing any more
        kept = {key: value for key, value in (after.detail or {}).items() if key not in left_out}
        after = evolve(after, detail={**kept, "sent_at": report.at.isoformat()})
    for one in overtaken:
        after = with_report(after, one)
    return after


def jobs_of(hub: Hub, deliveries: Sequence[Delivery]) -> list[Job]:
    """Give `deliveries` with what each needs."""
    if not deliveries:
        return []
    needed = {one.message.id: one for one in hub.store.outgoing(hub.workspace, deliveries)}
    going = {number: recipient(one.message, one.filing) for number, one in needed.items()}
    people = {str(one): one for one in going.values() if one}
    memos = hub.store.memos(hub.workspace, UNREACHABLE, people)
    stopped = {people[key]: why.told(people[key]) for key, memo in memos.items() if (why := unreachable_of(memo))}
    jobs = []
    for delivery in deliveries:
        to = going[delivery.message]
        outgoing = needed[delivery.message]
        refusal = (stopped.get(to, "") if to else "") or hub.objection(outgoing.message)
        jobs.append(Job(delivery=delivery, outgoing=outgoing, refusal=refusal))
    return jobs
