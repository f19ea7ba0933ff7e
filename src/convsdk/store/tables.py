"""How a batch becomes rows: the same tables and columns in every SQL store."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from msgspec import Raw

from convsdk.core.fold import Evidence
from convsdk.core.inbox import Filing
from convsdk.core.model import Identifier, Message
from convsdk.core.resolver import Changes
from convsdk.core.storage import Batch, HintRecord
from convsdk.store.rows import decision_text, delivery_row, encode, evidence_text, keys_of, row_of, stamp

Row = Sequence[Any]

# Columns are named, so that a later migration can add one without breaking this release.
COLUMNS = {
    "identifier": "id bigint, kind text, scope text, value text, epoch integer, since bigint, since_hint text, "
    "contact_id bigint, trust integer, is_owned boolean, is_founder boolean, spelling text, form integer",
    "contact": "id bigint, root_id bigint, created_at bigint, how text, hint text",
    "hint": "key text, at bigint, anchor_id bigint, visitor_id bigint, trust integer, may_create boolean, "
    "is_joint boolean, channel text, how text, by text, conversation_id bigint, evidence jsonb, decision jsonb",
    "claim": "identifier_id bigint, at bigint, key text, anchor_id bigint, trust integer, is_link boolean",
    "ruling": "id text, kind text, a_id bigint, b_id bigint, at bigint, by text, reason text",
    "trait": "identifier_id bigint, id bigint, name text, value text, trust integer, at bigint, key text",
    "consent": "identifier_id bigint, id bigint, purpose text, state text, at bigint, key text, trust integer, "
    "by text, place text, wording text, wording_version text",
    "membership": "contact_id bigint, id bigint, list text, state text, at bigint, how text, by text",
    "withdrawal": "id bigint, target text, is_ruling boolean, at bigint, by text, is_undone boolean",
    "conversation": "id bigint, channel text, thread text, subject text, identifier_id bigint, visitor_id bigint, "
    "filed_id bigint, opened_at bigint, opened_by text, last_at bigint, trust integer, status text, "
    "messages integer, unread integer, assignee text, bot text, participants text",
    "message": "id bigint, conversation_id bigint, channel text, external_id text, direction text, at bigint, "
    "text text, html text, attachments jsonb, status text, detail jsonb",
    "outbox": "id bigint, type text, version integer, at bigint, payload jsonb",
    "checkpoint": "name text, position text",
    "memo": "kind text, key text, text text, at bigint",
    "alias": "channel text, external_id text, conversation_id bigint, message_id bigint, part integer",
    "delivery": "message_id bigint, conversation_id bigint, channel text, due_at bigint, put_off_at bigint, "
    "owner text, is_under_way boolean, awaits_echo boolean, tries integer, waited_s float8, parts_done integer",
    # Not a table: the columns of a message that can change, after the key that finds it.
    "revised": "conversation_id bigint, id bigint, text text, html text, attachments jsonb, status text, detail jsonb",
}

# What a row does that is there already.
UPSERTS = {
    "identifier": """on conflict (workspace_id, id) do update set since = excluded.since,
      since_hint = excluded.since_hint, contact_id = excluded.contact_id, trust = excluded.trust,
      is_owned = excluded.is_owned, is_founder = excluded.is_founder""",
    "conversation": """on conflict (workspace_id, id) do update set identifier_id = excluded.identifier_id,
      visitor_id = excluded.visitor_id, filed_id = excluded.filed_id, last_at = excluded.last_at,
      trust = excluded.trust, status = excluded.status, messages = excluded.messages, unread = excluded.unread,
      assignee = excluded.assignee, bot = excluded.bot, participants = excluded.participants""",
    "checkpoint": "on conflict (workspace_id, name) do update set position = excluded.position",
    "memo": "on conflict (workspace_id, kind, key) do update set text = excluded.text, at = excluded.at",
    "alias": "on conflict (workspace_id, channel, external_id) do nothing",
    "delivery": """on conflict (workspace_id, message_id) do update set due_at = excluded.due_at,
      put_off_at = excluded.put_off_at, owner = excluded.owner, is_under_way = excluded.is_under_way,
      awaits_echo = excluded.awaits_echo, tries = excluded.tries, waited_s = excluded.waited_s,
      parts_done = excluded.parts_done""",
}


def named_in(batch: Batch) -> set[Identifier]:
    """Give every identifier whose row the rows of `batch` point at."""
    return {
        *(one for record in batch.hints for one in record.evidence.identifiers),
        *(one.identifier for one in batch.traits),
        *(one.identifier for one in batch.consents),
        *(one for ruling in batch.rulings for one in (ruling.a, ruling.b)),
        *(one for filing in batch.filings.values() for one in (filing.identifier, filing.visitor) if one),
    }


def rows_in(
    batch: Batch, base: Mapping[Identifier, int], new_ids: Callable[[], Iterator[int]]
) -> dict[str, Sequence[Row]]:
    """Give the rows of each table that `batch` writes to, in the order of `COLUMNS`.

    `base` has the row id of every identifier in `named_in(batch)`. Rows with a key that others could write at the
    same time are in the order of that key, so that no two writers wait for one another.
    """
    rows: dict[str, Sequence[Row]] = {
        "identifier": [row_of(held) for _, held in sorted(batch.changes.holdings.items())],
        "contact": _contacts(batch.changes),
        "hint": [_hint(one, base) for one in sorted(batch.hints, key=lambda one: one.evidence.hint)],
        "claim": [row for one in batch.hints if one.evidence.anchor for row in _claims(one.evidence, base)],
        "conversation": [_conversation(one, base) for _, one in sorted(batch.filings.items())],
        "message": [_message(one) for one in sorted(batch.messages, key=lambda one: (one.channel, one.external_id))],
        "outbox": [(one.id, one.type, one.version, stamp(one.at), Raw(encode(one.payload))) for one in batch.notices],
    }
    # Nearly every batch is messages of known people alone, and has nothing of these.
    said = (batch.rulings, batch.traits, batch.consents, batch.memberships, batch.withdrawals, batch.checkpoints)
    if batch.memos or any(said):
        rows.update(_said(batch, base, new_ids()))
    if batch.deliveries or batch.aliases or batch.revised:
        rows.update(_outgoing(batch))
    return {table: found for table, found in rows.items() if found}


def _contacts(changes: Changes) -> list[Row]:
    roots = changes.roots
    return [(one.id, roots.get(one.id, one.id), stamp(one.at), one.how, one.hint) for one in changes.contacts]


def _hint(one: HintRecord, base: Mapping[Identifier, int]) -> Row:
    evidence = one.evidence
    return (
        evidence.hint,
        stamp(evidence.at),
        base[evidence.anchor] if evidence.anchor else None,
        base[evidence.visitor] if evidence.visitor else None,
        evidence.trust,
        evidence.may_create,
        bool(evidence.links),
        one.channel,
        one.how,
        one.by,
        one.conversation,
        evidence_text(evidence),
        decision_text(one.decision),
    )


def _claims(evidence: Evidence, base: Mapping[Identifier, int]) -> Iterator[Row]:
    for is_link, pairs in ((True, evidence.links), (False, evidence.notes)):
        for other, trust in pairs:
            yield base[other], stamp(evidence.at), evidence.hint, base[evidence.anchor], trust, is_link  # type: ignore[index]  # links need an anchor


def _conversation(one: Filing, base: Mapping[Identifier, int]) -> Row:
    filed = one.identifier or one.visitor
    return (
        one.id,
        one.channel,
        one.thread,
        one.subject,
        base[one.identifier] if one.identifier else None,
        base[one.visitor] if one.visitor else None,
        base[filed] if filed else None,
        stamp(one.opened[0]),
        one.opened[1],
        stamp(one.last_at),
        one.trust,
        one.status.value,
        one.messages,
        one.unread,
        one.assignee,
        one.bot,
        keys_of(one.participants) if one.participants else "",
    )


def _message(one: Message) -> Row:
    return (
        one.id,
        one.conversation,
        one.channel,
        one.external_id,
        one.direction.value,
        stamp(one.at),
        one.text,
        one.html,
        Raw(encode(one.attachments)),
        one.status,
        Raw(encode(one.detail)) if one.detail else None,
    )


def _outgoing(batch: Batch) -> dict[str, Sequence[Row]]:
    return {
        "alias": [(*key, one.conversation, one.message, one.part) for key, one in sorted(batch.aliases.items())],
        "delivery": [delivery_row(one) for _, one in sorted(batch.deliveries.items())],
        "revised": [
            (one.conversation, one.id, *_message(one)[6:]) for one in sorted(batch.revised, key=lambda one: one.id)
        ],
    }


def _said(batch: Batch, base: Mapping[Identifier, int], ids: Iterator[int]) -> dict[str, Sequence[Row]]:
    return {
        "ruling": [
            (one.id, one.kind.value, base[one.a], base[one.b], stamp(one.at), one.by, one.reason)
            for one in batch.rulings
        ],
        "trait": [
            (base[one.identifier], next(ids), one.name, one.value, one.trust, stamp(one.at), one.hint)
            for one in batch.traits
        ],
        "consent": [
            (
                base[one.identifier],
                next(ids),
                one.purpose,
                one.state.value,
                stamp(one.at),
                one.hint,
                one.trust,
                one.by,
                one.where,
                one.wording,
                one.wording_version,
            )
            for one in batch.consents
        ],
        "membership": [
            (one.contact, next(ids), one.list, one.state.value, stamp(one.at), one.how, one.by)
            for one in batch.memberships
        ],
        "withdrawal": [
            (next(ids), one.target, one.is_ruling, stamp(one.at), one.by, one.is_undone) for one in batch.withdrawals
        ],
        "checkpoint": list(batch.checkpoints.items()),
        "memo": [(*key, one.text, stamp(one.at)) for key, one in sorted(batch.memos.items())],
    }
