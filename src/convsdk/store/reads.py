"""What the SQL stores read, written once: `SqliteStore` and `PostgresqlStore` differ in how a statement is run.

Statements name their values `:like_this`. What a database says in its own words stands in class attributes.
"""

import json
from abc import abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any, ClassVar

from convsdk.core.consent import ConsentRecord, ConsentState, ListState, Membership
from convsdk.core.fold import Moment
from convsdk.core.inbox import Filing
from convsdk.core.model import Identifier, Message, Node, Trust
from convsdk.core.profile import TraitClaim
from convsdk.core.resolver import Holding
from convsdk.core.storage import (
    OVERTAKEN,
    REFERENCES,
    ContactRecord,
    Delivery,
    HintRecord,
    Memo,
    NamedTogether,
    Outgoing,
    Queue,
    RulingRecord,
    Store,
    Visit,
)
from convsdk.errors import PermanentError
from convsdk.store.rows import (
    EPOCH_AT,
    FILING,
    FILING_FROM,
    HINT,
    HINT_FROM,
    HOLDER_AT,
    HOLDING,
    MEMO,
    MESSAGE,
    RULING,
    RULING_FROM,
    filing_of,
    hint_of,
    holding_of,
    keys_of,
    memo_of,
    message_of,
    ruling_of,
    stamp,
    time_of,
)

Row = tuple[Any, ...]
ALWAYS = 2**62  # a moment, and an id, after all that there are

# The message that an external id means, its own or an alias. Where it is both, its own counts.
ALIASED = """(select m.conversation_id, m.id as message_id, 0 as rank from message m
    where m.workspace_id = :workspace and m.channel = :channel and m.external_id = :name
  union all select a.conversation_id, a.message_id, 1 from alias a
    where a.workspace_id = :workspace and a.channel = :channel and a.external_id = :name
  order by rank limit 1)"""


class SqlReads(Store):
    """The reading half of a store on a SQL database."""

    KEYS: ClassVar[str]
    """Gives the identifiers of the JSON `:keys` as rows of (kind, scope, value)."""

    IDS: ClassVar[str]
    """Gives the ids of the JSON `:ids` as rows of (value)."""

    TEXTS: ClassVar[str]
    """Gives the texts of the JSON `:texts` as rows of (value)."""

    PAIRS: ClassVar[str]
    """Gives the JSON `:pairs` as rows of (message, conversation)."""

    BEFORE: ClassVar[str]
    """For each message of `:pairs`, the external ids of up to `:most` messages before it, the oldest first."""

    AND_THEN: ClassVar[str]
    """A join that begins with its left side."""

    @abstractmethod
    def _all(self, statement: str, values: Mapping[str, Any]) -> list[Row]:
        """Run a statement that reads, and give its rows."""

    @abstractmethod
    def _workspace(self, name: str) -> int:
        """Give the number of a workspace."""

    def _one(self, statement: str, values: Mapping[str, Any]) -> Row | None:
        return next(iter(self._all(statement, values)), None)

    def _named(self, workspace: str, identifiers: Iterable[Identifier] = (), **more: Any) -> dict[str, Any]:  # noqa: ANN401  (SQL values)
        try:
            keys = keys_of(identifiers)
        except UnicodeEncodeError as error:
            raise PermanentError(f"an identifier has half a character in it ({error}): nothing was read") from error
        return {"workspace": self._workspace(workspace), "keys": keys, **more}

    @property
    def _bases(self) -> str:
        # The immutable rows of the identifiers asked for, as `b`.
        return f"""{self.KEYS} w {self.AND_THEN} identifier b
          on b.workspace_id = :workspace and b.kind = w.kind and b.scope = w.scope and b.value = w.value
          and b.epoch = 0"""

    def contact(self, workspace: str, contact: int) -> ContactRecord | None:
        # A resting contact redirects to one that may have been merged since.
        row = self._one(
            f"""with recursive way(id) as (
                select root_id from contact where workspace_id = :workspace and id = :contact union
                select c.root_id from way {self.AND_THEN} contact c on c.workspace_id = :workspace and c.id = way.id
              ) select c.id from way {self.AND_THEN} contact c
                on c.workspace_id = :workspace and c.id = way.id and c.root_id = c.id""",
            {"workspace": self._workspace(workspace), "contact": contact},
        )
        return self._records(workspace, [row[0]])[0] if row else None

    def contacts(self, workspace: str, *, after: int, limit: int) -> list[ContactRecord]:
        rows = self._all(
            """select id from contact c where workspace_id = :workspace and id > :after and root_id = id and exists (
                select 1 from contact k join identifier i on i.workspace_id = k.workspace_id and i.contact_id = k.id
                where k.workspace_id = c.workspace_id and k.root_id = c.id and i.is_owned)
              order by id limit :most""",
            {"workspace": self._workspace(workspace), "after": after, "most": limit},
        )
        return self._records(workspace, [root for (root,) in rows])

    def _records(self, workspace: str, roots: list[int]) -> list[ContactRecord]:
        asked = {"workspace": self._workspace(workspace), "ids": json.dumps(roots)}
        members: dict[int, list[int]] = {root: [] for root in roots}
        created: dict[int, tuple[int, str]] = {}
        for contact, root, at, how in self._all(
            f"""select k.id, k.root_id, k.created_at, k.how from {self.IDS} w {self.AND_THEN} contact k
              on k.workspace_id = :workspace and k.root_id = w.value order by k.id""",
            asked,
        ):
            members[root].append(contact)
            created[contact] = (at, how)
        holdings: dict[int, list[Holding]] = {root: [] for root in roots}
        for *row, root in self._all(
            f"""select {HOLDING}, k.root_id from {self.IDS} w
              {self.AND_THEN} contact k on k.workspace_id = :workspace and k.root_id = w.value
              {self.AND_THEN} identifier i on i.workspace_id = k.workspace_id and i.contact_id = k.id
              where i.is_owned order by i.id""",
            asked,
        ):
            holdings[root].append(holding_of(tuple(row)))
        return [
            ContactRecord(
                id=root,
                created_at=time_of(created[root][0]),
                how=created[root][1],
                holdings=tuple(holdings[root]),
                members=tuple(members[root]),
            )
            for root in roots
        ]

    def find(self, workspace: str, identifier: Identifier, moment: Moment | None = None) -> int | None:
        at, key = (stamp(moment[0]), moment[1]) if moment else (ALWAYS, "")
        row = self._one(
            f"select {HOLDER_AT.format(base='b', at=':at', key=':hint')} from {self._bases}",
            self._named(workspace, [identifier], at=at, hint=key),
        )
        return row[0] if row else None

    def traits(self, workspace: str, identifiers: Collection[Identifier]) -> list[TraitClaim]:
        rows = self._all(
            f"""select b.kind, b.scope, b.value, t.name, t.value, t.trust, t.at, t.key from {self._bases}
              join trait t on t.workspace_id = b.workspace_id and t.identifier_id = b.id
              join hint h on h.workspace_id = t.workspace_id and h.key = t.key
              where not h.is_withdrawn""",
            self._named(workspace, identifiers),
        )
        return [
            TraitClaim(
                identifier=Identifier(*row[:3]),
                name=row[3],
                value=row[4],
                trust=Trust(row[5]),
                at=time_of(row[6]),
                hint=row[7],
            )
            for row in rows
        ]

    def visitors(self, workspace: str, identifiers: Collection[Identifier]) -> list[Identifier]:
        rows = self._all(
            # From one cookie to the next by the index: each may have come with a million messages.
            f"""with recursive pair(anchor_id, visitor_id) as (
                select b.id, (select min(h.visitor_id) from hint h where h.workspace_id = :workspace
                  and h.anchor_id = b.id and h.visitor_id is not null and not h.is_withdrawn) from {self._bases}
                union all
                select p.anchor_id, (select min(h.visitor_id) from hint h where h.workspace_id = :workspace
                  and h.anchor_id = p.anchor_id and h.visitor_id > p.visitor_id and not h.is_withdrawn)
                from pair p where p.visitor_id is not null)
              select distinct v.kind, v.scope, v.value from pair p {self.AND_THEN} identifier v
                on v.workspace_id = :workspace and v.id = p.visitor_id order by 1, 2, 3""",
            self._named(workspace, identifiers),
        )
        return [Identifier(*row) for row in rows]

    def visits(self, workspace: str, visitor: Identifier) -> list[Visit]:
        rows = self._all(
            f"""select h.at, h.key, a.kind, a.scope, a.value, {HOLDER_AT.format(base="a", at="h.at", key="h.key")}
              from {self._bases} join hint h on h.workspace_id = b.workspace_id and h.visitor_id = b.id
              left join identifier a on a.workspace_id = h.workspace_id and a.id = h.anchor_id
              where not h.is_withdrawn""",
            self._named(workspace, [visitor]),
        )
        return [
            Visit(moment=(time_of(at), key), anchor=Identifier(*anchor) if anchor[0] else None, contact=contact)
            for at, key, *anchor, contact in rows
        ]

    def named_together(self, workspace: str, identifiers: Collection[Identifier] | None) -> list[NamedTogether]:
        # Two branches, each by its own index: with an `or`, every claim of the workspace would be read.
        asked = f"(select b.id from {self._bases})"
        sides = ("true",) if identifiers is None else (f"{{a}} in {asked}", f"{{b}} in {asked}")
        named = " union ".join(
            f"""select anchor_id as a, identifier_id as b, at, key as source, trust from claim
              where workspace_id = :workspace and not is_withdrawn and {side.format(a="anchor_id", b="identifier_id")}
            union select a_id, b_id, at, id, null from ruling
              where workspace_id = :workspace and kind = 'merge' and not is_withdrawn
              and {side.format(a="a_id", b="b_id")}"""
            for side in sides
        )
        rows = self._all(
            f"""select * from (
              select w.at, w.source, w.trust,
                a.kind, a.scope, a.value, {EPOCH_AT.format(base="a", at="w.at", key="w.source")} as first_epoch,
                {HOLDER_AT.format(base="a", at="w.at", key="w.source")} as first,
                z.kind, z.scope, z.value, {EPOCH_AT.format(base="z", at="w.at", key="w.source")} as second_epoch,
                {HOLDER_AT.format(base="z", at="w.at", key="w.source")} as second
              from ({named}) w
              join identifier a on a.workspace_id = :workspace and a.id = w.a
              join identifier z on z.workspace_id = :workspace and z.id = w.b
            ) found where first is null or second is null or first <> second order by 1, 2, 4, 5, 6, 9, 10, 11""",
            self._named(workspace, identifiers or ()),
        )
        return [
            NamedTogether(
                a=Node(Identifier(*row[3:6]), row[6]),
                b=Node(Identifier(*row[8:11]), row[11]),
                contacts=(row[7], row[12]),
                trust=None if row[2] is None else Trust(row[2]),
                source=row[1],
            )
            for row in rows
        ]

    def hint(self, workspace: str, hint: str) -> HintRecord | None:
        row = self._one(
            f"select {HINT} from {HINT_FROM} where h.workspace_id = :workspace and h.key = :hint",
            {"workspace": self._workspace(workspace), "hint": hint},
        )
        return hint_of(row) if row else None

    def rulings(self, workspace: str, identifiers: Collection[Identifier]) -> list[RulingRecord]:
        rows = self._all(
            f"""select {RULING} from {RULING_FROM} where r.workspace_id = :workspace and r.id in (
              select a.id from {self._bases} join ruling a on a.workspace_id = b.workspace_id and a.a_id = b.id
              union select a.id from {self._bases} join ruling a on a.workspace_id = b.workspace_id and a.b_id = b.id
              ) order by r.at, r.id""",
            self._named(workspace, identifiers),
        )
        return [ruling_of(row) for row in rows]

    def ruling(self, workspace: str, ruling: str) -> RulingRecord | None:
        row = self._one(
            f"select {RULING} from {RULING_FROM} where r.workspace_id = :workspace and r.id = :ruling",
            {"workspace": self._workspace(workspace), "ruling": ruling},
        )
        return ruling_of(row) if row else None

    def consents(self, workspace: str, identifiers: Collection[Identifier]) -> list[ConsentRecord]:
        rows = self._all(
            f"""select b.kind, b.scope, b.value, t.purpose, t.state, t.at, t.key, t.trust, t.by, t.place, t.wording,
                t.wording_version
              from {self._bases} join consent t on t.workspace_id = b.workspace_id and t.identifier_id = b.id
              left join hint h on h.workspace_id = t.workspace_id and h.key = t.key
              where t.state <> 'granted' or not coalesce(h.is_withdrawn, false)
              order by t.at, t.key""",
            self._named(workspace, identifiers),
        )
        return [
            ConsentRecord(
                identifier=Identifier(*row[:3]),
                purpose=row[3],
                state=ConsentState(row[4]),
                at=time_of(row[5]),
                hint=row[6],
                trust=Trust(row[7]),
                by=row[8],
                where=row[9],
                wording=row[10],
                wording_version=row[11],
            )
            for row in rows
        ]

    def memberships(self, workspace: str, contacts: Collection[int]) -> list[Membership]:
        rows = self._all(
            f"""select m.contact_id, m.list, m.state, m.at, m.how, m.by from {self.IDS} w {self.AND_THEN} membership m
              on m.workspace_id = :workspace and m.contact_id = w.value order by m.at, m.id""",
            {"workspace": self._workspace(workspace), "ids": json.dumps(sorted(contacts))},
        )
        return [
            Membership(contact=row[0], list=row[1], state=ListState(row[2]), at=time_of(row[3]), how=row[4], by=row[5])
            for row in rows
        ]

    def filing(self, workspace: str, conversation: int) -> Filing | None:
        row = self._one(
            f"select {FILING} from {FILING_FROM} where c.workspace_id = :workspace and c.id = :conversation",
            {"workspace": self._workspace(workspace), "conversation": conversation},
        )
        return filing_of(row) if row else None

    def thread(self, workspace: str, channel: str, thread: str, *, limit: int) -> list[Filing]:
        rows = self._all(
            f"""select {FILING} from {FILING_FROM} where c.workspace_id = :workspace and c.channel = :channel
              and c.thread = :thread order by c.id desc limit :most""",
            {"workspace": self._workspace(workspace), "channel": channel, "thread": thread, "most": limit},
        )
        return [filing_of(row) for row in rows]

    def messages(
        self, workspace: str, conversation: int, *, before: int | None = None, after: int | None = None, limit: int
    ) -> list[Message]:
        rows = self._all(
            f"""select {MESSAGE} from message m where m.workspace_id = :workspace and m.conversation_id = :conversation
              and m.id < :before and m.id > :after order by m.id {"desc" if after is None else "asc"} limit :most""",
            {
                "workspace": self._workspace(workspace),
                "conversation": conversation,
                "before": ALWAYS if before is None else before,
                "after": -1 if after is None else after,
                "most": limit,
            },
        )
        rows.sort(key=itemgetter(0), reverse=True)
        return [message_of(row) for row in rows]

    def message(self, workspace: str, channel: str, external_id: str) -> Message | None:
        row = self._one(
            f"""select {MESSAGE} from {ALIASED} w {self.AND_THEN} message m
              on m.workspace_id = :workspace and m.conversation_id = w.conversation_id and m.id = w.message_id""",
            {"workspace": self._workspace(workspace), "channel": channel, "name": external_id},
        )
        return message_of(row) if row else None

    def outgoing(self, workspace: str, deliveries: Sequence[Delivery]) -> list[Outgoing]:
        asked = {
            "workspace": self._workspace(workspace),
            "pairs": json.dumps([(one.message, one.conversation) for one in deliveries]),
        }
        rows = self._all(
            f"""select {MESSAGE}, {FILING},
                (select i.spelling from identifier i where i.workspace_id = c.workspace_id and i.kind = n.kind
                  and i.scope = n.scope and i.value = n.value order by i.epoch desc limit 1),
                (select max(l.at) from (select h.at from message h where h.workspace_id = c.workspace_id
                  and h.conversation_id = c.id and h.direction = 'inbound' order by h.id desc limit {OVERTAKEN}) l)
              from {self.PAIRS} w {self.AND_THEN} message m
                on m.workspace_id = :workspace and m.conversation_id = w.conversation and m.id = w.message
              cross join {FILING_FROM}
              where c.workspace_id = :workspace and c.id = m.conversation_id order by m.id""",
            asked,
        )
        before: dict[int, list[str]] = {}
        for message, name in self._all(self.BEFORE, {**asked, "most": REFERENCES}):
            before.setdefault(message, []).append(name)
        return [
            Outgoing(
                message=message_of(row[:11]),
                filing=filing_of(row[11:-2]),
                address=row[-2] or "",
                references=tuple(before.get(row[0], ())),
                heard_at=None if row[-1] is None else time_of(row[-1]),
            )
            for row in rows
        ]

    def owners(self, workspace: str) -> list[str]:
        statement = "select distinct owner from delivery where workspace_id = :workspace and owner <> '' order by owner"
        return [owner for (owner,) in self._all(statement, {"workspace": self._workspace(workspace)})]

    def queues(self, workspace: str) -> dict[str, Queue]:
        rows = self._all(
            f"""select d.channel, count(*), min(m.at) from delivery d {self.AND_THEN} message m
                on m.workspace_id = d.workspace_id and m.conversation_id = d.conversation_id and m.id = d.message_id
              where d.workspace_id = :workspace group by d.channel""",
            {"workspace": self._workspace(workspace)},
        )
        return {channel: Queue(length, time_of(oldest)) for channel, length, oldest in rows}

    def memos(self, workspace: str, kind: str, keys: Collection[str]) -> dict[str, Memo]:
        rows = self._all(
            f"""select m.key, m.text, m.at from {self.TEXTS} w {self.AND_THEN} memo m
              on m.workspace_id = :workspace and m.kind = :kind and m.key = w.value""",
            {"workspace": self._workspace(workspace), "kind": kind, "texts": json.dumps(sorted(keys))},
        )
        return {key: Memo(text, time_of(at)) for key, text, at in rows}

    def memo(self, workspace: str, kind: str, key: str) -> Memo | None:
        return memo_of(self._one(MEMO, {"workspace": self._workspace(workspace), "kind": kind, "key": key}))

    def checkpoint(self, workspace: str, name: str) -> str | None:
        row = self._one(
            "select position from checkpoint where workspace_id = :workspace and name = :name",
            {"workspace": self._workspace(workspace), "name": name},
        )
        return row[0] if row else None
