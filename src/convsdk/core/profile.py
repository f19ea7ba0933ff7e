"""What a contact's profile shows: traits with their provenance, and what a session may read of its conversations."""

from collections.abc import Iterable
from datetime import datetime
from enum import Enum

from attrs import frozen

from convsdk.core.fold import Evidence, Policy
from convsdk.core.model import Identifier, ShownTrait, Trust

# How far up a source stands when a trait is shown: staff first, since they correct what the others say (rule 10).
_PRECEDENCE = {Trust.AGENT: 3, Trust.PROVEN: 2, Trust.CHANNEL: 1, Trust.ASSERTED: 0}
_CONTACT_POINTS = frozenset({"email", "phone"})


@frozen(kw_only=True)
class TraitClaim:
    """One statement about a trait: on which identifier or cookie, what, how well attested, when, by which hint."""

    identifier: Identifier
    name: str
    value: str
    trust: Trust
    at: datetime
    hint: str


def shown_traits(claims: Iterable[TraitClaim], *, is_verified: bool) -> dict[str, ShownTrait]:
    """Give the traits of one contact, from all that was said about it (rule 10).

    The best source counts, and the newest of it; among mere claims the first, so that nobody overwrites by typing.
    A claim fills blanks of descriptive traits only. It is marked as unverified on a contact of which something is
    verified (`is_verified`); where all is only claimed, the mark would say nothing.
    """
    shown: dict[str, ShownTrait] = {}
    for claim in sorted(claims, key=lambda one: (one.at, one.hint)):
        is_claimed = claim.trust is Trust.ASSERTED
        standing = shown.get(claim.name)
        if is_claimed and (standing is not None or claim.name in _CONTACT_POINTS):
            continue
        if standing is None or _PRECEDENCE[claim.trust] >= _PRECEDENCE[standing.trust]:
            shown[claim.name] = ShownTrait(
                value=claim.value,
                trust=claim.trust,
                is_verified=not (is_claimed and is_verified),
                hint=claim.hint,
                at=claim.at,
            )
    return shown


class Reach(Enum):
    """How far the reading of a session goes (rule 11)."""

    OWN_SESSION = "own_session"
    """Only what this browser session wrote or received."""
    OWN_THREAD = "own_thread"
    """Only this messaging or mail thread."""
    CONTACT = "contact"
    """All verified conversations of the contact, and what the session itself wrote."""


def reach(evidence: Evidence, policy: Policy) -> Reach:
    """Give how far the session that sent `evidence` may read: its own proof counts, not what it is filed under."""
    is_proven = evidence.anchor is not None and evidence.trust is Trust.PROVEN and not policy.is_role(evidence.anchor)
    if is_proven:
        return Reach.CONTACT
    return Reach.OWN_SESSION if evidence.visitor else Reach.OWN_THREAD
