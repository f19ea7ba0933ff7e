"""How a batch becomes rows: the same tables and columns in every SQL store."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from msgspec import Raw

from convsdk.core.model import Identifier
from convsdk.core.storage import Batch
from convsdk.store.rows import decision_text, encode, evidence_text, row_of, stamp

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
    "messages integer, unread integer, assignee text",
    "message": "id bigint, conversation_id bigint, channel text, external_id text, direction text, at bigint, "
    "text text, html text, attachments jsonb, status text",
    "outbox": "id bigint, type text, version integer, at bigint, payload jsonb",
    "checkpoint": "name text, position text",
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


def rows_in(batch: Batch, base: Mapping[Identifier, int], ids: Iterator[int]) -> dict[str, Sequence[tuple[Any, ...]]]:
    """Give the rows of each table that `batch` writes to, in the order of `COLUMNS`.

    `base` has the row id of every identifier in `named_in(batch)`. Rows with a key that others could write at the
    same time are in the order of that key, so that no two writers wait for one another.
    """
    roots = batch.changes.roots
    rows: dict[str, Sequence[tuple[Any, ...]]] = {
        "hint": [
            (
                one.evidence.hint,
                stamp(one.evidence.at),
                base[one.evidence.anchor] if one.evidence.anchor else None,
                base[one.evidence.visitor] if one.evidence.visitor else None,
                one.evidence.trust,
                one.evidence.may_create,
                bool(one.evidence.links),
                one.channel,
                one.how,
                one.by,
                one.conversation,
                evidence_text(one.evidence),
                decision_text(one.decision),
            )
            for one in sorted(batch.hints, key=lambda one: one.evidence.hint)
        ],
        "identifier": [row_of(held) for _, held in sorted(batch.changes.holdings.items())],
        "contact": [
            (one.id, roots.get(one.id, one.id), stamp(one.at), one.how, one.hint) for one in batch.changes.contacts
        ],
        "claim": [
            (base[other], stamp(one.evidence.at), one.evidence.hint, base[one.evidence.anchor], trust, is_link)
            for one in batch.hints
            if one.evidence.anchor
            for is_link, pairs in ((True, one.evidence.links), (False, one.evidence.notes))
            for other, trust in pairs
        ],
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
        "conversation": [
            (
                one.id,
                one.channel,
                one.thread,
                one.subject,
                base[one.identifier] if one.identifier else None,
                base[one.visitor] if one.visitor else None,
                base[filed] if (filed := one.identifier or one.visitor) else None,
                stamp(one.opened[0]),
                one.opened[1],
                stamp(one.last_at),
                one.trust,
                one.status.value,
                one.messages,
                one.unread,
                one.assignee,
            )
            for _, one in sorted(batch.filings.items())
        ],
        "message": [
            (
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
            )
            for one in sorted(batch.messages, key=lambda one: (one.channel, one.external_id))
        ],
        "outbox": [(one.id, one.type, one.version, stamp(one.at), Raw(encode(one.payload))) for one in batch.notices],
        "checkpoint": list(batch.checkpoints.items()),
    }
    return {table: found for table, found in rows.items() if found}
