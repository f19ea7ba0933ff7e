"""How values stand in the rows of a SQL store: what is selected for each, how a row is read, and how one is written."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from convsdk.core.events import Notice
from convsdk.core.fold import Evidence
from convsdk.core.identifiers import FORM_VERSION
from convsdk.core.inbox import ConversationStatus, Filing
from convsdk.core.model import (
    Attachment,
    Decision,
    Direction,
    Identifier,
    Message,
    Node,
    Ruling,
    RulingKind,
    Trust,
)
from convsdk.core.resolver import Holding
from convsdk.core.storage import (
    Delivery,
    HintRecord,
    Memo,
    RulingRecord,
)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

encode = msgspec.json.Encoder().encode
decode_evidence = msgspec.json.Decoder(Evidence).decode
decode_decision = msgspec.json.Decoder(Decision).decode
decode_detail = msgspec.json.Decoder(dict[str, Any]).decode
decode_keys = msgspec.json.Decoder(list[tuple[str, str, str]]).decode
decode_attachments = msgspec.json.Decoder(tuple[Attachment, ...]).decode

HOLDING = (
    "i.id, i.kind, i.scope, i.value, i.epoch, i.since, i.since_hint, i.contact_id, i.trust, i.is_owned, i.is_founder,"
    " i.spelling"
)
FILING = """c.id, c.channel, c.thread, c.opened_at, c.opened_by, c.last_at, c.subject,
  n.kind, n.scope, n.value, v.kind, v.scope, v.value, c.trust, c.status, c.messages, c.unread, c.assignee, c.bot,
  c.participants"""
FILING_FROM = """conversation c
  left join identifier n on n.workspace_id = c.workspace_id and n.id = c.identifier_id
  left join identifier v on v.workspace_id = c.workspace_id and v.id = c.visitor_id"""
HINT = """h.key, h.at, h.trust, h.may_create, n.kind, n.scope, n.value, v.kind, v.scope, v.value, h.evidence,
  h.decision, h.channel, h.how, h.by, h.conversation_id, h.is_withdrawn"""
HINT_FROM = """hint h
  left join identifier n on n.workspace_id = h.workspace_id and n.id = h.anchor_id
  left join identifier v on v.workspace_id = h.workspace_id and v.id = h.visitor_id"""
RULING = "r.id, r.kind, a.kind, a.scope, a.value, b.kind, b.scope, b.value, r.at, r.by, r.reason, r.is_withdrawn"
RULING_FROM = """ruling r
  join identifier a on a.workspace_id = r.workspace_id and a.id = r.a_id
  join identifier b on b.workspace_id = r.workspace_id and b.id = r.b_id"""
MESSAGE = """m.id, m.conversation_id, m.channel, m.external_id, m.direction, m.at, m.text, m.html, m.attachments,
  m.status, m.detail"""
DELIVERY = """d.message_id, d.conversation_id, d.channel, d.due_at, d.put_off_at, d.owner, d.is_under_way,
  d.awaits_echo, d.tries, d.waited_s, d.parts_done"""

MEMO = "select text, at from memo where workspace_id = :workspace and kind = :kind and key = :key"

# The epoch that an identifier (the row `base`) was in at a moment, and the contact that it is on: for correlated use.
EPOCH_AT = """(select e.epoch from identifier e
  where e.workspace_id = {base}.workspace_id and e.kind = {base}.kind and e.scope = {base}.scope
    and e.value = {base}.value and (e.epoch = 0 or (e.since, e.since_hint) <= ({at}, {key}))
  order by e.epoch desc limit 1)"""
HOLDER_AT = (
    """(select k.root_id from identifier e
  join contact k on k.workspace_id = e.workspace_id and k.id = e.contact_id
  where e.workspace_id = {base}.workspace_id and e.kind = {base}.kind and e.scope = {base}.scope
    and e.value = {base}.value and e.is_owned and e.epoch = """
    + EPOCH_AT
    + ")"
)


def stamp(at: datetime) -> int:
    """Give a moment as it is stored: microseconds since 1970 (UTC)."""
    return (at - _EPOCH) // _MICROSECOND


def time_of(stamp: int) -> datetime:
    """Give the moment of a stored stamp."""
    return _EPOCH + timedelta(microseconds=stamp)


def text_of(value: object) -> str:
    """Give a value as the JSON text that a statement reads it from."""
    return encode(value).decode()


def keys_of(identifiers: Iterable[Identifier]) -> str:
    """Give `identifiers` as the JSON that a store's `KEYS` reads."""
    return text_of([(one.kind, one.scope, one.value) for one in identifiers])


def holding_of(row: Sequence[Any]) -> Holding:
    """Give the holding in a row of `HOLDING`."""
    number, kind, scope, value, epoch, since, since_hint, contact, trust, is_owned, is_founder, spelling = row
    return Holding(
        id=number,
        node=Node(Identifier(kind, scope, value), epoch),
        since=None if since is None else (time_of(since), since_hint),
        contact=contact,
        trust=None if trust is None else Trust(trust),
        is_owned=bool(is_owned),
        is_founder=bool(is_founder),
        spelling=spelling,
    )


def row_of(held: Holding) -> tuple[Any, ...]:
    """Give the row of a holding, in the order of its table."""
    since = (None, None) if held.since is None else (stamp(held.since[0]), held.since[1])
    identifier = held.node.identifier
    return (
        held.id,
        identifier.kind,
        identifier.scope,
        identifier.value,
        held.node.epoch,
        *since,
        held.contact,
        held.trust,
        held.is_owned,
        held.is_founder,
        held.spelling,
        FORM_VERSION,
    )


def filing_of(row: Sequence[Any]) -> Filing:
    """Give the conversation in a row of `FILING`."""
    number, channel, thread, opened_at, opened_by, last_at, subject = row[:7]
    trust, status, messages, unread, assignee, bot, participants = row[13:20]
    return Filing(
        id=number,
        channel=channel,
        thread=thread,
        opened=(time_of(opened_at), opened_by),
        last_at=time_of(last_at),
        subject=subject,
        identifier=Identifier(*row[7:10]) if row[7] is not None else None,
        visitor=Identifier(*row[10:13]) if row[10] is not None else None,
        trust=None if trust is None else Trust(trust),
        status=ConversationStatus(status),
        messages=messages,
        unread=unread,
        assignee=assignee,
        bot=bot,
        participants=tuple(Identifier(*one) for one in decode_keys(participants)) if participants else (),
    )


def message_of(row: Sequence[Any]) -> Message:
    """Give the message in a row of `MESSAGE`."""
    number, conversation, channel, external_id, direction, at, text, html, attachments, status, detail = row
    return Message(
        id=number,
        conversation=conversation,
        channel=channel,
        external_id=external_id,
        direction=Direction(direction),
        at=time_of(at),
        text=text,
        html=html,
        attachments=decode_attachments(attachments),
        status=status,
        detail=decode_detail(detail) if detail else None,
    )


def delivery_of(row: Sequence[Any]) -> Delivery:
    """Give the delivery in a row of `DELIVERY`."""
    message, conversation, channel, due_at, put_off_at, owner, is_under_way, awaits_echo, *counts = row
    tries, waited_s, parts_done = counts
    return Delivery(
        message=message,
        conversation=conversation,
        channel=channel,
        due_at=time_of(due_at),
        put_off_at=time_of(put_off_at),
        owner=owner,
        is_under_way=bool(is_under_way),
        awaits_echo=bool(awaits_echo),
        tries=tries,
        waited_s=waited_s,
        parts_done=parts_done,
    )


def delivery_row(one: Delivery) -> tuple[Any, ...]:
    """Give the row of a delivery, in the order of `DELIVERY`."""
    return (
        one.message,
        one.conversation,
        one.channel,
        stamp(one.due_at),
        stamp(one.put_off_at),
        one.owner,
        one.is_under_way,
        one.awaits_echo,
        one.tries,
        one.waited_s,
        one.parts_done,
    )


def memo_of(row: Sequence[Any] | None) -> Memo | None:
    """Give the memo in a row of `MEMO`."""
    return Memo(row[0], time_of(row[1])) if row else None


def notice_of(row: Sequence[Any]) -> Notice:
    """Give the notice in a row of (id, type, version, at, payload)."""
    return Notice(id=row[0], type=row[1], version=row[2], at=time_of(row[3]), payload=msgspec.json.decode(row[4]))


def hint_of(row: tuple[Any, ...]) -> HintRecord:
    """Give the hint in a row of `HINT`."""
    evidence, decision, channel, how, by, conversation, is_withdrawn = row[10:]
    return HintRecord(
        evidence=decode_evidence(evidence) if evidence else _plain_evidence(row),
        decision=decode_decision(decision),
        channel=channel,
        how=how,
        by=by,
        conversation=conversation,
        is_withdrawn=bool(is_withdrawn),
    )


def _plain_evidence(row: tuple[Any, ...]) -> Evidence:
    return Evidence(
        hint=row[0],
        at=time_of(row[1]),
        trust=Trust(row[2]),
        may_create=bool(row[3]),
        anchor=Identifier(*row[4:7]) if row[4] is not None else None,
        visitor=Identifier(*row[7:10]) if row[7] is not None else None,
    )


def evidence_text(evidence: Evidence) -> msgspec.Raw | None:
    """Give evidence as it is stored beside the columns of its hint: None where they say all of it, as nearly always."""
    is_more = evidence.links or evidence.notes or evidence.unusable or evidence.spellings
    return msgspec.Raw(encode(evidence)) if is_more else None


def decision_text(decision: Decision) -> msgspec.Raw:
    """Give a decision as it is stored: without its empty fields where it says no more than who wrote."""
    if decision.absorbed or decision.refused or decision.suggested or decision.displaced or decision.unusable:
        return msgspec.Raw(encode(decision))
    kept = {"hint": decision.hint, "outcome": decision.outcome, "contact": decision.contact, "steps": decision.steps}
    return msgspec.Raw(encode(kept))


def ruling_of(row: Sequence[Any]) -> RulingRecord:
    """Give the ruling in a row of `RULING`."""
    ruling = Ruling(
        id=row[0],
        kind=RulingKind(row[1]),
        a=Identifier(*row[2:5]),
        b=Identifier(*row[5:8]),
        at=time_of(row[8]),
        by=row[9],
        reason=row[10],
    )
    return RulingRecord(ruling=ruling, is_withdrawn=bool(row[11]))
