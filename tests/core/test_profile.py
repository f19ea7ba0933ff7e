from datetime import UTC, datetime, timedelta

import pytest

from convsdk.core.fold import Evidence, Policy
from convsdk.core.model import Identifier, ShownTrait, Trust
from convsdk.core.profile import Reach, TraitClaim, reach, shown_traits

START = datetime(2026, 1, 1, tzinfo=UTC)
ANN = Identifier("email", "", "ann@x.example")
ROLE = Identifier("email", "", "info@x.example")
COOKIE = Identifier("visitor", "", "v1")
ASSERTED, AGENT, CHANNEL, PROVEN = Trust


def claim(value, trust, day=0, *, name="name", hint="h"):
    """Give one statement about the name."""
    at = START + timedelta(days=day)
    return TraitClaim(identifier=ANN, name=name, value=value, trust=trust, at=at, hint=hint)


def shown(*claims, is_verified=True):
    """Give the shown values of some statements."""
    return {name: one.value for name, one in shown_traits(claims, is_verified=is_verified).items()}


def evidence(anchor=None, trust=Trust.ASSERTED, visitor=None):
    """Give what a session attests."""
    return Evidence(hint="h1", at=START, anchor=anchor, trust=trust, visitor=visitor)


def test_trait_is_shown_with_its_provenance():
    """The profile says which hint gave a value, when, and how well attested."""
    traits = shown_traits([claim("Ann", PROVEN, 1, hint="h7")], is_verified=True)

    assert traits == {
        "name": ShownTrait(value="Ann", trust=PROVEN, is_verified=True, hint="h7", at=START + timedelta(days=1))
    }


@pytest.mark.parametrize(
    ("earlier", "later", "value"),
    [
        (AGENT, PROVEN, "earlier"),
        (AGENT, CHANNEL, "earlier"),
        (AGENT, ASSERTED, "earlier"),
        (AGENT, AGENT, "later"),
        (PROVEN, AGENT, "later"),
        (PROVEN, PROVEN, "later"),
        (PROVEN, CHANNEL, "earlier"),
        (PROVEN, ASSERTED, "earlier"),
        (CHANNEL, AGENT, "later"),
        (CHANNEL, PROVEN, "later"),
        (CHANNEL, CHANNEL, "later"),
        (CHANNEL, ASSERTED, "earlier"),
        (ASSERTED, AGENT, "later"),
        (ASSERTED, PROVEN, "later"),
        (ASSERTED, CHANNEL, "later"),
        (ASSERTED, ASSERTED, "earlier"),
    ],
)
def test_best_source_is_shown(earlier, later, value):
    """Staff, then proof, then the platform, then a claim; the newest of the best, but the first of mere claims."""
    first, second = claim("earlier", earlier, 0), claim("later", later, 1)

    assert shown(first, second) == {"name": value}
    assert shown(second, first) == {"name": value}


def test_hints_id_decides_at_one_moment():
    """Of two values at one moment, the later hint's is shown."""
    assert shown(claim("b", PROVEN, hint="b"), claim("a", PROVEN, hint="a")) == {"name": "b"}


@pytest.mark.parametrize("name", ["email", "phone"])
def test_claim_fills_no_contact_point(name):
    """What somebody typed is never shown as an address or a number."""
    assert shown(claim("x", ASSERTED, name=name)) == {}
    assert shown(claim("x", ASSERTED, 0, name=name), claim("y", AGENT, 1, name=name)) == {name: "y"}


def test_traits_do_not_mix():
    """Each trait has its own best source."""
    assert shown(claim("Ann", AGENT), claim("Shop", ASSERTED, 1, name="company")) == {"name": "Ann", "company": "Shop"}


@pytest.mark.parametrize(
    ("trust", "is_contact_verified", "text"),
    [
        (ASSERTED, True, "Ann (unverified)"),
        (ASSERTED, False, "Ann"),
        (AGENT, True, "Ann"),
        (CHANNEL, True, "Ann"),
        (CHANNEL, False, "Ann"),
    ],
)
def test_claim_is_marked_on_a_verified_contact(trust, is_contact_verified, text):
    """The mark sets a claim apart from what is known; where all is claimed, it would say nothing."""
    traits = shown_traits([claim("Ann", trust)], is_verified=is_contact_verified)

    assert str(traits["name"]) == text


@pytest.mark.parametrize(
    ("said", "reaches"),
    [
        (evidence(ANN, PROVEN), Reach.CONTACT),
        (evidence(ANN, PROVEN, COOKIE), Reach.CONTACT),
        (evidence(ROLE, PROVEN, COOKIE), Reach.OWN_SESSION),
        (evidence(ROLE, PROVEN), Reach.OWN_THREAD),
        (evidence(ANN, CHANNEL, COOKIE), Reach.OWN_SESSION),
        (evidence(ANN, CHANNEL), Reach.OWN_THREAD),
        (evidence(None, PROVEN), Reach.OWN_THREAD),
        (evidence(None, ASSERTED, COOKIE), Reach.OWN_SESSION),
    ],
)
def test_reach_comes_from_the_sessions_own_proof(said, reaches):
    """Only who proved to be one person reads that contact's conversations."""
    assert reach(said, Policy()) is reaches
