"""From evidence to people: what a hint attests, and the partition of identifiers that all evidence together gives.

`weigh` turns a hint into `Evidence` (canonical forms, anchor, links, notes). `fold` turns all evidence and all rulings
into a `Partition`. Both are functions of values alone, and `fold` does not look at the order in which it is given
them: the same evidence gives the same people.
"""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Collection, Iterable
from datetime import datetime, timedelta

from attrs import field, frozen

from convsdk.core.identifiers import Kinds, has_mixed_scripts, trim
from convsdk.core.model import Claim, Identifier, IdentityHint, Node, Rule, Ruling, RulingKind, Step, Trust


@frozen(kw_only=True)
class Policy:
    """What a workspace can set about identity.

    `blocked` and `own` are values that never identify anybody (the second are the workspace's own addresses),
    `country` reads national phone numbers (ISO 3166), `external_id_cap` is how many ids of one namespace a contact
    may hold, `component_cap` how many identifiers, `visitor_ttl` how long a silent cookie lives, and
    `visitor_shared_at` with how many contacts a cookie counts as shared.
    """

    kinds: Kinds = field(factory=Kinds)
    country: str | None = None
    blocked: frozenset[str] = frozenset()
    own: frozenset[str] = frozenset()
    external_id_cap: int = 1
    component_cap: int = 50
    visitor_ttl: timedelta = timedelta(days=30)
    visitor_shared_at: int = 2

    def canonical(self, claim: Claim) -> Identifier | None:
        """Give the identifier that `claim` names, or None where its value can identify nobody (rules 1 and 9)."""
        kind = self.kinds.get(claim.kind)
        key = kind.canonical(claim.value, country=self.country) if kind else None
        if key is None or key in self.blocked or key in self.own:
            return None
        return Identifier(claim.kind, claim.scope.strip(), key)

    def is_role(self, identifier: Identifier) -> bool:
        """Say whether several people stand behind the identifier."""
        return self.kinds[identifier.kind].is_role(identifier.value)


Moment = tuple[datetime, str]
"""When a hint or a ruling counts: its event time, and its id to break ties."""


@frozen(kw_only=True)
class Evidence:
    """What one hint attests, in canonical form.

    `anchor` is whom the hint is about, with its `trust`; `links` are identifiers attested well enough to be joined
    with it; `notes` were only typed, or are role mailboxes. `visitor` is the cookie, `unusable` the kinds discarded.
    """

    hint: str
    at: datetime
    anchor: Identifier | None = None
    trust: Trust = Trust.ASSERTED
    links: tuple[tuple[Identifier, Trust], ...] = ()
    notes: tuple[tuple[Identifier, Trust], ...] = ()
    visitor: Identifier | None = None
    may_create: bool = True
    unusable: tuple[str, ...] = ()
    spellings: tuple[tuple[Identifier, str], ...] = ()

    @property
    def moment(self) -> Moment:
        """Give when this evidence counts."""
        return self.at, self.hint

    @property
    def identifiers(self) -> tuple[Identifier, ...]:
        """Give every identifier that the hint names, the cookie last."""
        beside = [one for one, _ in (*self.links, *self.notes)]
        return (
            *((self.anchor,) if self.anchor else ()),
            *beside,
            *((self.visitor,) if self.visitor else ()),
        )

    @property
    def attested(self) -> tuple[tuple[Identifier, Trust], ...]:
        """Give the anchor and the links, each with its trust."""
        return ((self.anchor, self.trust), *self.links) if self.anchor else ()


def weigh(hint: IdentityHint, policy: Policy) -> Evidence:
    """Give what `hint` attests under `policy`: rules 1 to 4 and 9, which look at nothing but the hint."""
    best: dict[Identifier, Trust] = {}
    unusable: set[str] = set()
    spellings: dict[Identifier, str] = {}
    for claim in hint.identifiers:
        identifier = policy.canonical(claim)
        if identifier is None or claim.kind == "visitor":
            unusable.add(claim.kind)
        else:
            best[identifier] = max(claim.trust, best.get(identifier, claim.trust))
            if (spelling := trim(claim.value)) != identifier.value:
                spellings.setdefault(identifier, spelling)
    visitor = policy.canonical(Claim("visitor", hint.visitor, Trust.CHANNEL)) if hint.visitor else None
    # Nearly every hint names one identifier: there is nothing to rank then.
    anchor = (
        min(best, key=lambda one: _anchor_order(one, best[one], policy)) if len(best) > 1 else next(iter(best), None)
    )
    others = sorted((one, trust) for one, trust in best.items() if one != anchor)
    # A role mailbox is never evidence (rule 9): as the anchor it takes no links, beside another it is a note.
    takes_links = anchor is not None and not policy.is_role(anchor)
    links = tuple(
        (one, trust) for one, trust in others if takes_links and trust > Trust.ASSERTED and not policy.is_role(one)
    )
    return Evidence(
        hint=hint.id,
        at=hint.at,
        anchor=anchor,
        trust=best[anchor] if anchor else Trust.ASSERTED,
        links=links,
        notes=tuple(pair for pair in others if pair not in links),
        visitor=visitor,
        may_create=hint.may_create,
        unusable=tuple(sorted(unusable)),
        spellings=tuple(spellings.items()),
    )


def _anchor_order(identifier: Identifier, trust: Trust, policy: Policy) -> tuple[bool, bool, int, int, Identifier]:
    # A role mailbox anchors only where nothing better than its own kind of evidence stands beside it. It does go
    # before what was merely typed: or a number in a signature would decide whom an attested sender's mail is from.
    is_claim = trust is Trust.ASSERTED
    return is_claim, policy.is_role(identifier), -trust, policy.kinds[identifier.kind].anchor_rank, identifier


@frozen(kw_only=True)
class Link:
    """A reason to take two nodes for one person. `trust` is None for a merge by staff."""

    a: Node
    b: Node
    trust: Trust | None
    at: datetime
    source: str

    @property
    def order(self) -> tuple[int, datetime, str, Node, Node]:
        """Give the key that the fold sorts by: trust, event time, id (rule 5); a merge ranks below CHANNEL (rule 6)."""
        rank = {Trust.PROVEN: 0, Trust.CHANNEL: 1, None: 2, Trust.AGENT: 3}[self.trust]
        return rank, self.at, self.source, self.a, self.b


@frozen
class Refusal:
    """A link that a rule refused."""

    link: Link
    rule: Rule


class Epochs:
    """When each contact point changed hands (rule 7). Absent identifiers are in their first epoch for all time."""

    def __init__(self, starts: dict[Identifier, list[Moment]] | None = None) -> None:
        self.starts = starts or {}

    def node(self, identifier: Identifier, moment: Moment) -> Node:
        """Give the identifier in the epoch that `moment` falls in."""
        starts = self.starts.get(identifier)
        return Node(identifier, bisect_right(starts, moment)) if starts else Node(identifier)

    @classmethod
    def of(cls, evidence: Iterable[Evidence], policy: Policy) -> "Epochs":
        """Find the epochs: a contact point attested together with another account than before starts a new one."""
        pairings: dict[Identifier, list[tuple[Moment, frozenset[Identifier]]]] = defaultdict(list)
        for one in evidence:
            attested = [identifier for identifier, trust in one.attested if trust >= Trust.CHANNEL]
            accounts = frozenset(identifier for identifier in attested if policy.kinds[identifier.kind].is_account)
            for point in attested:
                if accounts and policy.kinds[point.kind].is_contact_point:
                    pairings[point].append((one.moment, accounts))
        starts = {point: cls._changes(pairs) for point, pairs in pairings.items()}
        return cls({point: moments for point, moments in starts.items() if moments})

    @staticmethod
    def _changes(pairs: list[tuple[Moment, frozenset[Identifier]]]) -> list[Moment]:
        starts: list[Moment] = []
        current: frozenset[Identifier] = frozenset()
        past: frozenset[Identifier] = frozenset()
        for moment, accounts in sorted(pairs, key=lambda pair: pair[0]):
            places = {(one.kind, one.scope) for one in current}
            # An account that held the point in an earlier epoch takes it back: staying would join the two holders.
            if any(one in past or (one.kind, one.scope) in places for one in accounts - current):
                starts.append(moment)
                past |= current
                current = frozenset()
            current |= accounts
        return starts


@frozen(kw_only=True)
class Partition:
    """Who is who: groups of nodes, each one person, and the links that were refused on the way.

    `groups` holds every node that some hint attested; only those in `owned` make a contact.
    """

    epochs: Epochs
    groups: tuple[frozenset[Node], ...]
    owned: frozenset[Node]
    trusts: dict[Node, Trust]
    refusals: tuple[Refusal, ...]
    by_node: dict[Node, frozenset[Node]] = field(init=False)

    @by_node.default
    def _index(self) -> dict[Node, frozenset[Node]]:
        return {node: group for group in self.groups for node in group}

    def contacts(self) -> tuple[frozenset[Node], ...]:
        """Give the groups that are contacts."""
        return tuple(group for group in self.groups if not self.owned.isdisjoint(group))

    def group(self, node: Node) -> frozenset[Node] | None:
        """Give the contact that `node` is on, or None."""
        group = self.by_node.get(node)
        return group if group and not self.owned.isdisjoint(group) else None


def fold(evidence: Collection[Evidence], rulings: Collection[Ruling], policy: Policy) -> Partition:
    """Give the partition that all of `evidence` and `rulings` make together, whatever order they stand in.

    Links are taken by trust, event time and id. One is refused where it would give a contact too many accounts of
    one namespace, join a pair that staff declared different people, pass the cap, or, for an agent's entry, join two
    sides that are both established people (rule 5).
    """
    epochs = Epochs.of(evidence, policy)
    trusts: dict[Node, Trust] = {}
    owned: set[Node] = set()
    links: list[Link] = []
    for one in evidence:
        for identifier, trust in one.attested:
            node = epochs.node(identifier, one.moment)
            trusts[node] = max(trust, trusts.get(node, trust))
            if one.may_create:
                owned.add(node)
        if one.anchor:
            anchor = epochs.node(one.anchor, one.moment)
            links += [
                Link(a=anchor, b=epochs.node(other, one.moment), trust=trust, at=one.at, source=one.hint)
                for other, trust in one.links
            ]
    apart: list[frozenset[Node]] = []
    for ruling in rulings:
        moment = (ruling.at, ruling.id)
        a, b = epochs.node(ruling.a, moment), epochs.node(ruling.b, moment)
        if ruling.kind is RulingKind.CANNOT_LINK:
            apart.append(frozenset({a, b}))
        elif a != b:
            links.append(Link(a=a, b=b, trust=None, at=ruling.at, source=ruling.id))
    groups, refusals = _join(links, trusts, apart, policy)
    return Partition(epochs=epochs, groups=groups, owned=frozenset(owned), trusts=trusts, refusals=refusals)


def _join(
    links: list[Link], trusts: dict[Node, Trust], apart: list[frozenset[Node]], policy: Policy
) -> tuple[tuple[frozenset[Node], ...], tuple[Refusal, ...]]:
    sets: dict[Node, set[Node]] = {node: {node} for node in trusts}
    refusals: list[Refusal] = []
    for link in sorted(links, key=lambda link: link.order):
        left = sets.setdefault(link.a, {link.a})
        right = sets.setdefault(link.b, {link.b})
        if left is right:
            continue
        rule = _objection(link, left=left, right=right, trusts=trusts, apart=apart, policy=policy)
        if rule:
            refusals.append(Refusal(link, rule))
            continue
        small, large = sorted((left, right), key=len)
        large |= small
        for node in small:
            sets[node] = large
    groups = {id(group): frozenset(group) for group in sets.values()}
    return tuple(groups.values()), tuple(refusals)


def _objection(
    link: Link,
    *,
    left: set[Node],
    right: set[Node],
    trusts: dict[Node, Trust],
    apart: list[frozenset[Node]],
    policy: Policy,
) -> Rule | None:
    """Give the rule that forbids to join the two sides, or None."""
    both = left | right
    if any(pair <= both for pair in apart):
        return Rule.CANNOT_LINK
    accounts: dict[tuple[str, str], set[str]] = defaultdict(set)
    for node in both:
        if policy.kinds[node.identifier.kind].is_single:
            accounts[node.identifier.kind, node.identifier.scope].add(node.identifier.value)
    if any(len(values) > policy.external_id_cap for values in accounts.values()):
        return Rule.ONE_ACCOUNT
    # Epochs of one identifier count once: a number that goes to and fro between two accounts fills neither.
    if len({node.identifier for node in both}) > policy.component_cap:
        return Rule.CAP
    if link.trust is Trust.AGENT and all(_is_established(side, trusts, policy) for side in (left, right)):
        return Rule.BOTH_ESTABLISHED
    return None


def _is_established(side: set[Node], trusts: dict[Node, Trust], policy: Policy) -> bool:
    return any(
        trusts.get(node, Trust.ASSERTED) >= Trust.CHANNEL and policy.kinds[node.identifier.kind].establishes
        for node in side
    )


def cautions(evidence: Evidence) -> tuple[Step, ...]:
    """Give a step for each identifier that looks like another one: a flag for people, never part of a match."""
    return tuple(
        Step(Rule.NOTE, str(one), "mixed scripts") for one in evidence.identifiers if has_mixed_scripts(one.value)
    )
