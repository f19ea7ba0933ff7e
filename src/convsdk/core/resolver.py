"""What to do with a hint, a ruling or a withdrawal, given what is known: `decide` and `refold`.

`Known` is the part of a workspace that a batch touches. A store loads it, the resolver reads it and answers with a
`Decision` and the `Changes` that make it true, and applying the changes to `Known` lets the next hint of the batch
see them: so a batch ends as its hints would one by one.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import datetime

from attrs import define, evolve, field, frozen

from convsdk.core.fold import Epochs, Evidence, Moment, Partition, Policy, cautions, fold
from convsdk.core.model import Decision, Identifier, Node, Outcome, Rule, Ruling, Step, Trust


@frozen(kw_only=True)
class Holding:
    """An identifier in one epoch, and the contact that it is on.

    `contact` is where it belongs (follow `Known.roots` from there), `is_founder` whether that contact goes where this
    identifier goes, `is_owned` whether it is on a contact at all: one that was only typed is not. `since` is None
    for an epoch that later evidence took back. `trust` is the best attestation so far, None where it was only typed
    beside another. `spelling` is the value as it first came, for sending to it; empty where it is the key itself.
    """

    id: int
    node: Node
    since: Moment | None = None
    contact: int | None = None
    trust: Trust | None = None
    is_owned: bool = False
    is_founder: bool = False
    spelling: str = ""


@frozen(kw_only=True)
class NewContact:
    """A contact that comes into being: when, how ("inbound e-mail"), and by which hint."""

    id: int
    at: datetime
    how: str
    hint: str


@define
class Changes:
    """What a decision writes: holdings to insert or update, contacts to create, and where contacts point."""

    holdings: dict[Node, Holding] = field(factory=dict)
    contacts: list[NewContact] = field(factory=list)
    roots: dict[int, int] = field(factory=dict)


@define
class Known:
    """What a store knows of the identifiers that a batch names.

    `evidence` holds the hints that name several identifiers, and some that stand for all that name one alone, for
    those identifiers whose history was asked for (`needs_history`). `repeats` holds the hints of the batch that
    only say again what the last joint evidence on each of their identifiers said.
    """

    holdings: dict[Node, Holding] = field(factory=dict)
    roots: dict[int, int] = field(factory=dict)
    evidence: dict[str, Evidence] = field(factory=dict)
    rulings: dict[str, Ruling] = field(factory=dict)
    repeats: set[str] = field(factory=set)
    decisions: dict[str, Decision] = field(factory=dict)
    _named: defaultdict[Identifier, set[str]] = field(factory=lambda: defaultdict(set), init=False, repr=False)
    _ruled: defaultdict[Identifier, set[str]] = field(factory=lambda: defaultdict(set), init=False, repr=False)

    def epochs(self, identifiers: Iterable[Identifier]) -> Epochs:
        """Give the epochs of `identifiers` as they stand."""
        starts: dict[Identifier, list[Moment]] = {}
        for held in self.held(identifiers):
            if held.since is not None:
                starts.setdefault(held.node.identifier, []).append(held.since)
        return Epochs(starts)

    def holding(self, identifier: Identifier, moment: Moment) -> Holding | None:
        """Give the holding of `identifier` in the epoch that `moment` falls in, or None where nobody named it."""
        if Node(identifier, 1) not in self.holdings:  # nearly always: most identifiers never change hands
            return self.holdings.get(Node(identifier))
        return self.holdings.get(self.epochs([identifier]).node(identifier, moment))

    def contact(self, node: Node) -> int | None:
        """Give the contact that `node` is on now, or None."""
        held = self.holdings.get(node)
        if held is None or not held.is_owned or held.contact is None:
            return None
        return self.roots.get(held.contact, held.contact)

    def add(self, evidence: Evidence) -> None:
        """Take one piece of evidence in."""
        self.evidence[evidence.hint] = evidence
        for identifier, _ in evidence.attested:
            self._named[identifier].add(evidence.hint)

    def add_ruling(self, ruling: Ruling) -> None:
        """Take one ruling in."""
        self.rulings[ruling.id] = ruling
        for identifier in (ruling.a, ruling.b):
            self._ruled[identifier].add(ruling.id)

    def scope(self, identifiers: Iterable[Identifier]) -> set[Identifier]:
        """Give every identifier that evidence and rulings lead to from `identifiers`, refused links included."""
        reached: set[Identifier] = set()
        ahead = list(identifiers)
        while ahead:
            one = ahead.pop()
            if one in reached:
                continue
            reached.add(one)
            ahead += (other for key in self._named[one] for other, _ in self.evidence[key].attested)
            ahead += (other for key in self._ruled[one] for other in (self.rulings[key].a, self.rulings[key].b))
        return reached

    def within(self, scope: Collection[Identifier]) -> tuple[list[Evidence], list[Ruling]]:
        """Give the evidence and the rulings about the identifiers of `scope`."""
        keys = {key for one in scope for key in self._named[one]}
        ruled = {key for one in scope for key in self._ruled[one]}
        return [self.evidence[key] for key in keys], [self.rulings[key] for key in ruled]

    def held(self, identifiers: Iterable[Identifier]) -> Iterator[Holding]:
        """Give the holdings of `identifiers`, in all their epochs."""
        for identifier in identifiers:
            number = 0
            while (held := self.holdings.get(Node(identifier, number))) is not None:
                yield held
                number += 1

    def changed(self, changes: Changes, identifiers: Iterable[Identifier]) -> "Known":
        """Give what is known of `identifiers` once `changes` are made."""
        holdings = {held.node: held for held in self.held(set(identifiers))} | changes.holdings
        return Known(holdings=holdings, roots=self.roots | changes.roots)

    def apply(self, changes: Changes) -> None:
        """Take `changes` over, so that the next decision sees them."""
        self.holdings.update(changes.holdings)
        self.roots.update(changes.roots)


def needs_history(evidence: Evidence, known: Known, policy: Policy) -> bool:
    """Say whether `evidence` could change who is who, so that the history of its identifiers must be loaded.

    The two common hints need none: one whose identifiers nobody named before, and one that says of known
    identifiers what was said already.
    """
    return _could_change(evidence, _held(evidence, known), known, policy)


def _held(evidence: Evidence, known: Known) -> list[Holding | None]:
    return [known.holding(one, evidence.moment) for one, _ in evidence.attested]


def _could_change(evidence: Evidence, held: Sequence[Holding | None], known: Known, policy: Policy) -> bool:
    if all(holding is None for holding in held):
        return False
    if evidence.links and (evidence.hint not in known.repeats or not _is_joined(held, known)):
        return True
    return any(
        holding is None or _is_news(holding, trust, evidence, policy)
        for holding, (_, trust) in zip(held, evidence.attested, strict=True)
    )


def _is_joined(held: Iterable[Holding | None], known: Known) -> bool:
    # A rule may have refused what is said again, and then refuses it again: that is no quiet attachment.
    contacts = {known.contact(holding.node) if holding else None for holding in held}
    return len(contacts) == 1 and None not in contacts


def _is_news(holding: Holding, trust: Trust, evidence: Evidence, policy: Policy) -> bool:
    if not holding.is_owned:
        return evidence.may_create or holding.trust is None or trust > holding.trust
    # Whoever becomes established may no longer be joined by an agent's entry (rule 5).
    is_risen = trust >= Trust.CHANNEL > (holding.trust or Trust.ASSERTED)
    return is_risen and policy.kinds[holding.node.identifier.kind].establishes


def decide(
    evidence: Evidence, known: Known, policy: Policy, ids: Iterator[int], *, how: str = ""
) -> tuple[Decision, Changes]:
    """Give what to do with one hint, and what to write for it.

    `known` must hold the history of the hint's identifiers where `needs_history` says so. `ids` gives new ids, in
    rising order. `how` is kept on a contact that the hint creates. A hint that was decided before gets its first
    decision again, marked as a duplicate, and changes nothing.
    """
    if evidence.hint in known.decisions:
        return known.decisions[evidence.hint].as_replayed(), Changes()
    current = _held(evidence, known)
    attested = [holding for holding in current if holding]
    is_quiet = bool(attested) and not _could_change(evidence, current, known, policy)
    if evidence.anchor is not None:
        known.add(evidence)
    steps = [*cautions(evidence), *(Step(Rule.UNUSABLE, kind) for kind in evidence.unusable)]
    changes = Changes()
    if evidence.anchor is None:
        outcome = Outcome.ANONYMOUS if evidence.visitor else Outcome.UNRESOLVED
        decision = Decision(hint=evidence.hint, outcome=outcome, steps=tuple(steps), unusable=evidence.unusable)
    elif is_quiet:
        decision = _attach(evidence, attested, known, steps, changes)
    elif not attested and not evidence.links and evidence.may_create:
        decision = _create(evidence, known, ids, how=how, steps=steps, changes=changes)
    else:
        decision = _decide_by_fold(evidence, known, policy, ids, how=how, steps=steps, changes=changes)
    _register(evidence.identifiers, known, changes, ids)
    for identifier, spelling in evidence.spellings:
        for node, held in changes.holdings.items():
            if node.identifier == identifier and node not in known.holdings:
                changes.holdings[node] = evolve(held, spelling=spelling)
    return decision, changes


def _attach(
    evidence: Evidence, attested: Sequence[Holding], known: Known, steps: list[Step], changes: Changes
) -> Decision:
    for held, (_, trust) in zip(attested, evidence.attested, strict=True):
        if held.trust is None or trust > held.trust:
            changes.holdings[held.node] = evolve(held, trust=trust)
    anchor = attested[0].node
    contact = known.contact(anchor)
    steps.append(Step(Rule.ANCHOR if contact else Rule.NO_CREATE, str(anchor)))
    suggested = _notes(evidence, known, contact, steps)
    return Decision(
        hint=evidence.hint,
        outcome=Outcome.ATTACHED if contact else Outcome.ANONYMOUS,
        contact=contact,
        steps=tuple(steps),
        suggested=suggested,
        unusable=evidence.unusable,
    )


def _create(
    evidence: Evidence, known: Known, ids: Iterator[int], *, how: str, steps: list[Step], changes: Changes
) -> Decision:
    """Make a contact of a lone identifier that nobody named before.

    The fold and `reconcile` would come to the same, in four times the time.
    """
    assert evidence.anchor is not None  # noqa: S101  (for the type checker: who attests nothing is not decided about)
    anchor, number, contact = Node(evidence.anchor), next(ids), next(ids)
    changes.holdings[anchor] = Holding(
        id=number, node=anchor, contact=contact, trust=evidence.trust, is_owned=True, is_founder=True
    )
    changes.contacts.append(NewContact(id=contact, at=evidence.at, how=how, hint=evidence.hint))
    steps.append(Step(Rule.ANCHOR, str(anchor)))
    suggested = _notes(evidence, known, contact, steps)
    return Decision(
        hint=evidence.hint,
        outcome=Outcome.CREATED,
        contact=contact,
        steps=tuple(steps),
        suggested=suggested,
        unusable=evidence.unusable,
    )


def _decide_by_fold(
    evidence: Evidence,
    known: Known,
    policy: Policy,
    ids: Iterator[int],
    *,
    how: str,
    steps: list[Step],
    changes: Changes,
) -> Decision:
    scope = known.scope(one for one, _ in evidence.attested)
    partition = fold(*known.within(scope), policy)
    epochs = partition.epochs
    nodes = [epochs.node(one, evidence.moment) for one, _ in evidence.attested]
    group = partition.group(nodes[0]) or frozenset()
    before = {contact for node in group if (contact := known.contact(node)) is not None}
    was = known.contact(nodes[0])
    gained = [node for node in nodes[1:] if node in group and (was is None or known.contact(node) != was)]
    is_gain = any(known.contact(node) is None for node in nodes if node in group)
    displaced = [
        refusal
        for refusal in partition.refusals
        if refusal.link.source != evidence.hint
        and known.contact(refusal.link.a) is not None
        and known.contact(refusal.link.a) == known.contact(refusal.link.b)
    ]
    reconcile(
        known, partition, scope, ids, changes, origin=NewContact(id=0, at=evidence.at, how=how, hint=evidence.hint)
    )
    after = known.changed(changes, (*scope, *evidence.identifiers))
    contact = after.contact(nodes[0])
    refused = [refusal for refusal in partition.refusals if refusal.link.source == evidence.hint]
    steps += [Step(Rule.EPOCH, str(node)) for node in nodes if node.epoch and node not in known.holdings]
    steps.append(Step(Rule.ANCHOR if contact else Rule.NO_CREATE, str(nodes[0])))
    steps += [Step(Rule.LINK, str(nodes[0]), str(node)) for node in gained]
    steps += [Step(Rule.DISPLACED, str(one.link.a), str(one.link.b)) for one in displaced]
    suggested = [_pair(after, one.link.a, one.link.b) for one in (*refused, *displaced)]
    return Decision(
        hint=evidence.hint,
        outcome=_outcome(contact, len(before), is_conflict=bool(refused), is_gain=is_gain),
        contact=contact,
        absorbed=tuple(sorted(before - {contact})) if len(before) > 1 else (),
        refused=tuple(Step(one.rule, str(one.link.a), str(one.link.b)) for one in refused),
        suggested=(*suggested, *_notes(evidence, after, contact, steps)),
        steps=tuple(steps),
        displaced=tuple(sorted({one.link.source for one in displaced})),
        unusable=evidence.unusable,
    )


def _outcome(contact: int | None, contacts_before: int, *, is_conflict: bool, is_gain: bool) -> Outcome:
    if contact is None:
        return Outcome.ANONYMOUS
    if is_conflict:
        return Outcome.CONFLICT
    if contacts_before == 0:
        return Outcome.CREATED
    if contacts_before > 1:
        return Outcome.MERGED
    return Outcome.LINKED if is_gain else Outcome.ATTACHED


def _notes(evidence: Evidence, known: Known, contact: int | None, steps: list[Step]) -> tuple[tuple[str, str], ...]:
    """Note what was only typed (rule 4), and give a pair to look at for each value that another contact holds."""
    if not evidence.notes:
        return ()
    epochs = known.epochs(one for one, _ in evidence.notes)
    pairs: list[tuple[str, str]] = []
    for identifier, trust in evidence.notes:
        node = epochs.node(identifier, evidence.moment)
        is_role = trust > Trust.ASSERTED
        steps.append(Step(Rule.ROLE if is_role else Rule.NOTE, str(evidence.anchor), str(node)))
        holder = known.contact(node)
        if not is_role and holder is not None and contact is not None and holder != contact:
            pairs.append(tuple(sorted((str(evidence.anchor), str(node)))))  # type: ignore[arg-type]  # a pair
    return tuple(pairs)


def _pair(known: Known, a: Node, b: Node) -> tuple[str, str]:
    first, second = sorted((str(_face(known, a)), str(_face(known, b))))
    return first, second


def _face(known: Known, node: Node) -> Node:
    """Give the identifier that stands for the contact of `node` where people read about it."""
    contact = known.contact(node)
    if contact is None:
        return node
    return min(one for one in known.holdings if known.contact(one) == contact)


def reconcile(
    known: Known,
    partition: Partition,
    scope: Collection[Identifier],
    ids: Iterator[int],
    changes: Changes,
    *,
    origin: NewContact,
) -> None:
    """Put into `changes` what makes the stored contacts of `scope` equal to `partition`.

    A contact stands with its founder, for good: it goes to the group that the founder is in, and rests while the
    founder is on no contact. A group that gets several points them at the lowest id, one that gets none becomes a new
    contact like `origin`, to which the resting one of its identifiers redirects. So who is who decides about the ids
    too, and the same evidence taken back gives the same contacts back.
    """
    stored = {held.node: held for held in known.held(scope)}
    holdings = {node: _holding(node, known, partition, ids) for node in sorted(partition.by_node)}
    groups = sorted(partition.contacts(), key=min)
    standing = {holdings[node].contact for group in groups for node in group if holdings[node].is_founder}
    roots: dict[int | None, int] = {}
    for group in groups:
        members = sorted((holdings[node] for node in group), key=lambda one: one.id)
        if not any(one.is_founder for one in members):
            contact = next(ids)
            changes.contacts.append(evolve(origin, id=contact))
            roots |= dict.fromkeys({one.contact for one in members} - standing - {None}, contact)
            members[0] = evolve(members[0], contact=contact, is_founder=True)
        founded = [one.contact for one in members if one.is_founder and one.contact is not None]
        roots |= dict.fromkeys(founded, min(founded))
        for held in members:
            home = held.contact if held.is_founder else min(founded)
            holdings[held.node] = evolve(held, contact=home, is_owned=True)
    for node, held in stored.items():
        if node not in holdings:
            # Nothing speaks for it any more: the identifier stays on record, on nobody.
            holdings[node] = evolve(held, is_owned=False, since=None, trust=None)
    for node, held in holdings.items():
        if held.is_owned:
            continue
        holdings[node] = evolve(held, contact=held.contact if held.is_founder else None)
        if held.is_founder and stored[node].is_owned and held.contact is not None:
            roots.setdefault(held.contact, held.contact)
    changes.holdings.update({node: held for node, held in holdings.items() if stored.get(node) != held})
    changes.roots.update(
        {one: root for one, root in roots.items() if one is not None and known.roots.get(one, one) != root}
    )


def _holding(node: Node, known: Known, partition: Partition, ids: Iterator[int]) -> Holding:
    since = partition.epochs.starts[node.identifier][node.epoch - 1] if node.epoch else None
    held = known.holdings.get(node) or Holding(id=next(ids), node=node)
    return evolve(held, since=since, trust=partition.trusts.get(node), is_owned=False)


def refold(known: Known, policy: Policy, ids: Iterator[int], *, origin: NewContact) -> Changes:
    """Give what to write to make the contacts equal to everything in `known`, after a ruling or a withdrawal."""
    ruled = [one for ruling in known.rulings.values() for one in (ruling.a, ruling.b)]
    scope = {*(node.identifier for node in known.holdings), *ruled}
    changes = Changes()
    reconcile(known, fold(*known.within(scope), policy), scope, ids, changes, origin=origin)
    _register(ruled, known, changes, ids)
    return changes


def _register(identifiers: Iterable[Identifier], known: Known, changes: Changes, ids: Iterator[int]) -> None:
    """Give every identifier a holding of its own, so that whoever names it next finds what is on record."""
    for identifier in identifiers:
        node = Node(identifier)
        if node not in known.holdings and node not in changes.holdings:
            changes.holdings[node] = Holding(id=next(ids), node=node)


def cookie_contact(visits: Collection[tuple[Moment, int | None]], moment: Moment, policy: Policy) -> int | None:
    """Give the contact for a visit that named nobody, from all `visits` of that cookie (rule 8).

    Each visit is a moment and the contact that it spoke for, if any. A pause longer than the policy's `visitor_ttl`
    ends the visitor: what comes after it is another one's.
    """
    ordered = sorted([*visits, (moment, None)], key=lambda visit: visit[0])
    at = bisect_left([one for one, _ in ordered], moment)
    start = at
    while start > 0 and ordered[start][0][0] - ordered[start - 1][0][0] <= policy.visitor_ttl:
        start -= 1
    end = at
    while end + 1 < len(ordered) and ordered[end + 1][0][0] - ordered[end][0][0] <= policy.visitor_ttl:
        end += 1
    session = ordered[start : end + 1]
    spoken = [contact for when, contact in session if contact is not None and when <= moment]
    if len(set(spoken)) >= policy.visitor_shared_at:
        return None
    if spoken:
        return spoken[-1]
    return next((contact for _, contact in session if contact is not None), None)
