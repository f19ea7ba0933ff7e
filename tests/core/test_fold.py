from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convsdk.core.fold import Epochs, Evidence, Link, Policy, cautions, fold, weigh
from convsdk.core.identifiers import Kinds, MessagingId
from convsdk.core.model import Claim, Identifier, IdentityHint, Node, Rule, Ruling, RulingKind, Step, Trust

START = datetime(2026, 1, 1, tzinfo=UTC)
POLICY = Policy(kinds=Kinds([MessagingId("psid")]))
ASSERTED, AGENT, CHANNEL, PROVEN = Trust


def identifier(text):
    """Read `kind:value`, with the short kinds e(mail), p(hone), x (external id), m(essaging id), v(isitor)."""
    kind, _, value = text.partition(":")
    names = {"e": "email", "p": "phone", "x": "external_id", "m": "psid", "v": "visitor"}
    return Identifier(names.get(kind, kind), "", value)


def at(day):
    """Give the moment of that day."""
    return START + timedelta(days=day)


def hint(*claims, **fields):
    """Build a hint of (kind, value, trust) claims."""
    return IdentityHint(**({"id": "h1", "at": START, "identifiers": tuple(Claim(*one) for one in claims)} | fields))


def said(name, day, *pairs, may_create=True):
    """Build the evidence of (identifier, trust) pairs, the anchor first."""
    (anchor, trust), *links = [(identifier(text), trust) for text, trust in pairs]
    return Evidence(hint=name, at=at(day), anchor=anchor, trust=trust, links=tuple(links), may_create=may_create)


def ruled(kind, a, b, day=9, name="r1"):
    """Build a ruling."""
    return Ruling(id=name, kind=kind, a=identifier(a), b=identifier(b), at=at(day), by="kim")


def merge(a, b, day=9, name="r1"):
    """Build a merge."""
    return ruled(RulingKind.MERGE, a, b, day, name)


def apart(a, b, day=9, name="r1"):
    """Build a cannot-link."""
    return ruled(RulingKind.CANNOT_LINK, a, b, day, name)


def groups(*given, policy=POLICY, contacts=True):
    """Give the partition as sorted lists of short names."""
    rulings = [one for one in given if isinstance(one, Ruling)]
    partition = fold([one for one in given if isinstance(one, Evidence)], rulings, policy)
    return shown(partition.contacts() if contacts else partition.groups)


def shown(found):
    """Give groups of nodes as sorted lists of short names."""
    shorten = {"email": "e", "phone": "p", "external_id": "x", "psid": "m"}
    return sorted(
        sorted(
            f"{shorten[node.identifier.kind]}:{node.identifier.value}{f'#{node.epoch}' if node.epoch else ''}"
            for node in group
        )
        for group in found
    )


def refusals(*given, policy=POLICY):
    """Give what was refused: source and rule."""
    rulings = [one for one in given if isinstance(one, Ruling)]
    partition = fold([one for one in given if isinstance(one, Evidence)], rulings, policy)
    return [(one.link.source, one.rule) for one in partition.refusals]


# -- policy


def test_claim_becomes_a_canonical_identifier():
    """Kind and trimmed scope are kept, the value becomes its key, in the country of the workspace."""
    assert Policy(country="DE").canonical(Claim("phone", "030 123456", AGENT)) == identifier("p:+4930123456")
    assert POLICY.canonical(Claim("psid", " P9 ", AGENT, " page1 ")) == Identifier("psid", "page1", "P9")


@pytest.mark.parametrize(
    "claim",
    [
        Claim("email", "nobody", AGENT),
        Claim("fax", "1", AGENT),
        Claim("email", "Noise@x.example", AGENT),
        Claim("email", "shop@x.example", AGENT),
        Claim("phone", "030 123456", AGENT),
    ],
)
def test_claim_that_identifies_nobody_gives_none(claim):
    """Unusable, blocked and own values, and kinds that nobody brought, are discarded."""
    policy = Policy(blocked=frozenset({"noise@x.example"}), own=frozenset({"shop@x.example"}))

    assert policy.canonical(claim) is None


def test_policy_has_the_documented_defaults():
    """One account of a namespace, fifty identifiers, thirty days, two contacts."""
    policy = Policy()

    assert (policy.external_id_cap, policy.component_cap, policy.visitor_shared_at) == (1, 50, 2)
    assert (policy.visitor_ttl, policy.country) == (timedelta(days=30), None)


# -- what a hint attests


def test_nothing_usable_attests_nothing():
    """A hint of which nothing is left has no anchor and says which kinds were discarded."""
    evidence = weigh(hint(("phone", "null", PROVEN), ("email", "", PROVEN), ("phone", "", AGENT)), POLICY)

    assert evidence == Evidence(hint="h1", at=START, unusable=("email", "phone"))
    assert evidence.identifiers == evidence.attested == ()
    assert evidence.moment == (START, "h1")


def test_visitor_is_no_claim():
    """A cookie that a channel hands over as an identifier is discarded: only the server's own counts."""
    evidence = weigh(hint(("visitor", "v1", PROVEN), visitor=" v2 "), POLICY)

    assert evidence == Evidence(hint="h1", at=START, visitor=identifier("v:v2"), unusable=("visitor",))
    assert evidence.identifiers == (identifier("v:v2"),)


def test_unusable_cookie_is_none():
    """A placeholder in the cookie is no visitor."""
    assert weigh(hint(visitor="null"), POLICY).visitor is None


@pytest.mark.parametrize(
    ("claims", "anchor"),
    [
        ([("email", "a@x.de", PROVEN), ("external_id", "1a", AGENT)], "e:a@x.de"),
        ([("email", "a@x.de", PROVEN), ("external_id", "1a", PROVEN)], "x:1a"),
        ([("email", "a@x.de", PROVEN), ("psid", "1a", PROVEN)], "m:1a"),
        ([("psid", "1a", PROVEN), ("external_id", "1a", PROVEN)], "x:1a"),
        ([("phone", "+4930123456", CHANNEL), ("email", "a@x.de", CHANNEL)], "e:a@x.de"),
        ([("phone", "+4930123456", CHANNEL), ("email", "a@x.de", AGENT)], "p:+4930123456"),
        ([("email", "b@x.de", AGENT), ("email", "a@x.de", AGENT)], "e:a@x.de"),
        # A role mailbox goes behind what is attested, but before what was only typed.
        ([("email", "info@x.de", PROVEN), ("phone", "+4930123456", AGENT)], "p:+4930123456"),
        ([("email", "info@x.de", CHANNEL), ("phone", "+4930123456", ASSERTED)], "e:info@x.de"),
        ([("email", "info@x.de", ASSERTED), ("phone", "+4930123456", ASSERTED)], "p:+4930123456"),
    ],
)
def test_strongest_identifier_is_the_anchor(claims, anchor):
    """Trust decides, then the kind, then the value, whatever the order of the claims."""
    assert weigh(hint(*claims), POLICY).anchor == identifier(anchor)
    assert weigh(hint(*reversed(claims)), POLICY).anchor == identifier(anchor)


def test_attested_identifiers_are_linked_and_typed_ones_noted():
    """From AGENT on an identifier is joined with the anchor; a typed one stays a note."""
    evidence = weigh(
        hint(
            ("external_id", "u1", PROVEN),
            ("email", "a@x.de", AGENT),
            ("email", "info@x.de", PROVEN),
            ("phone", "+4930123456", ASSERTED),
            ("psid", "m1", CHANNEL),
            visitor="v1",
            may_create=False,
        ),
        POLICY,
    )

    assert (evidence.anchor, evidence.trust) == (identifier("x:u1"), PROVEN)
    assert evidence.links == ((identifier("e:a@x.de"), AGENT), (identifier("m:m1"), CHANNEL))
    assert evidence.notes == ((identifier("e:info@x.de"), PROVEN), (identifier("p:+4930123456"), ASSERTED))
    assert evidence.attested == ((identifier("x:u1"), PROVEN), *evidence.links)
    assert evidence.may_create is False
    assert evidence.identifiers == tuple(
        map(identifier, ["x:u1", "e:a@x.de", "m:m1", "e:info@x.de", "p:+4930123456", "v:v1"])
    )


def test_role_mailbox_as_anchor_takes_no_links():
    """What stands beside a role mailbox that anchors is a note, however well attested."""
    evidence = weigh(hint(("email", "info@x.de", PROVEN), ("email", "support@x.de", PROVEN)), POLICY)

    assert (evidence.anchor, evidence.links) == (identifier("e:info@x.de"), ())
    assert evidence.notes == ((identifier("e:support@x.de"), PROVEN),)


@pytest.mark.parametrize("trusts", [(ASSERTED, PROVEN), (PROVEN, ASSERTED)])
def test_best_trust_of_a_repeated_identifier_counts(trusts):
    """One identifier named twice is one, with its better trust and its first spelling."""
    claims = [("email", spelling, trust) for spelling, trust in zip([" Ann@x.de", "ANN@x.de"], trusts, strict=True)]

    evidence = weigh(hint(*claims), POLICY)

    assert (evidence.anchor, evidence.trust, evidence.links, evidence.notes) == (
        identifier("e:ann@x.de"),
        PROVEN,
        (),
        (),
    )
    assert evidence.spellings == ((identifier("e:ann@x.de"), "Ann@x.de"),)


def test_canonical_spelling_is_not_kept():
    """A value that is its own key has no other spelling."""
    assert weigh(hint(("email", " a@x.de ", AGENT)), POLICY).spellings == ()


# -- the order of links


def test_links_are_taken_by_trust_then_time_then_id():
    """PROVEN, CHANNEL, a merge by staff, AGENT; then the earlier; then the id, then the nodes."""
    a, b, c = (Node(identifier(f"e:{one}@x.de")) for one in "abc")
    rising = [
        Link(a=a, b=b, trust=PROVEN, at=at(5), source="z"),
        Link(a=a, b=b, trust=CHANNEL, at=at(4), source="z"),
        Link(a=a, b=b, trust=None, at=at(3), source="z"),
        Link(a=a, b=b, trust=AGENT, at=at(1), source="z"),
        Link(a=a, b=b, trust=AGENT, at=at(2), source="a"),
        Link(a=a, b=b, trust=AGENT, at=at(2), source="b"),
        Link(a=a, b=c, trust=AGENT, at=at(2), source="b"),
        Link(a=b, b=a, trust=AGENT, at=at(2), source="b"),
    ]

    assert sorted(rising[4:] + rising[:4], key=lambda link: link.order) == rising


# -- epochs


def epochs(*evidence):
    """Give when each contact point changed hands, in days."""
    found = Epochs.of(evidence, POLICY).starts
    return {str(one): [(moment - START).days for moment, _ in moments] for one, moments in found.items()}


PHONE = "p:+4930123456"


@pytest.mark.parametrize(
    ("pairs", "starts"),
    [
        ([("x:1", PROVEN, PROVEN)], []),
        ([("x:1", PROVEN, PROVEN), ("x:1", PROVEN, PROVEN)], []),
        ([("x:1", PROVEN, PROVEN), ("x:2", PROVEN, PROVEN)], [1]),
        ([("x:1", PROVEN, CHANNEL), ("x:2", CHANNEL, CHANNEL)], [1]),
        ([("x:1", PROVEN, PROVEN), ("x:2", PROVEN, AGENT)], []),
        ([("x:1", PROVEN, PROVEN), ("x:2", AGENT, PROVEN)], []),
        ([("x:1", PROVEN, PROVEN), ("x:2", PROVEN, PROVEN), ("x:1", PROVEN, PROVEN)], [1, 2]),
        ([("x:1", PROVEN, PROVEN), ("m:1", PROVEN, PROVEN)], []),
        ([("x:1", PROVEN, PROVEN), ("m:1", PROVEN, PROVEN), ("x:2", PROVEN, PROVEN)], [2]),
        # m:1 was with the earlier holder: that one took the number back.
        ([("x:1", PROVEN, PROVEN), ("m:1", PROVEN, PROVEN), ("x:2", PROVEN, PROVEN), ("m:1", PROVEN, PROVEN)], [2, 3]),
    ],
)
def test_contact_point_with_another_account_starts_an_epoch(pairs, starts):
    """A number attested with another account than before has changed hands, also when it comes back."""
    evidence = [said(f"h{day}", day, (account, own), (PHONE, trust)) for day, (account, own, trust) in enumerate(pairs)]

    assert epochs(*evidence) == ({"phone:+4930123456": starts} if starts else {})
    assert epochs(*reversed(evidence)) == epochs(*evidence)


def test_address_can_change_hands_too():
    """An e-mail address has epochs; a messaging id and an account have none."""
    old = said("h0", 0, ("x:1", PROVEN), ("e:a@x.de", PROVEN), ("m:1", PROVEN))
    new = said("h1", 1, ("x:2", PROVEN), ("e:a@x.de", PROVEN), ("m:1", PROVEN))

    assert epochs(old, new) == {"email:a@x.de": [1]}


def test_one_hint_starts_one_epoch():
    """Two rival accounts in one hint start at most one epoch between them."""
    first = said("h0", 0, ("x:1", PROVEN), (PHONE, PROVEN))
    both = said("h1", 1, ("x:2", PROVEN), ("x:3", PROVEN), (PHONE, PROVEN))

    assert epochs(first, both) == {"phone:+4930123456": [1]}


def test_other_namespace_is_no_rival():
    """Accounts of two namespaces can share a number."""
    site = Evidence(hint="h0", at=at(0), anchor=Identifier("external_id", "a", "1"), trust=PROVEN)
    shop = Evidence(hint="h1", at=at(1), anchor=Identifier("external_id", "b", "2"), trust=PROVEN)
    both = [
        Evidence(hint=one.hint, at=one.at, anchor=one.anchor, trust=PROVEN, links=((identifier(PHONE), PROVEN),))
        for one in (site, shop)
    ]

    assert epochs(*both) == {}


def test_moment_falls_into_its_epoch():
    """What came before the change is in the earlier epoch, the change itself in the later."""
    phone = identifier(PHONE)
    found = Epochs({phone: [(at(1), "h1"), (at(3), "h3")]})

    assert found.node(phone, (at(1), "h0")) == Node(phone, 0)
    assert found.node(phone, (at(1), "h1")) == Node(phone, 1)
    assert found.node(phone, (at(2), "h2")) == Node(phone, 1)
    assert found.node(phone, (at(3), "h3")) == Node(phone, 2)
    assert found.node(identifier("e:a@x.de"), (at(3), "h3")) == Node(identifier("e:a@x.de"), 0)
    assert Epochs().starts == {}


# -- people


def test_attested_links_make_one_person():
    """Links join transitively."""
    one = said("h1", 0, ("e:a@x.de", CHANNEL), (PHONE, CHANNEL))
    two = said("h2", 1, ("e:b@x.de", CHANNEL), (PHONE, CHANNEL))
    far = said("h3", 2, ("e:c@x.de", CHANNEL))

    assert groups(one, two, far) == [["e:a@x.de", "e:b@x.de", PHONE], ["e:c@x.de"]]


def test_nothing_makes_nobody():
    """No evidence, no contacts; evidence without an anchor neither."""
    assert groups() == []
    assert groups(Evidence(hint="h1", at=START)) == []


def test_hint_that_may_not_create_makes_no_contact():
    """A group is a contact only where some hint on it may create; joining one is enough."""
    shy = said("h1", 0, ("m:1", CHANNEL), may_create=False)
    partition = fold([shy], [], POLICY)
    node = Node(identifier("m:1"))

    assert (partition.contacts(), partition.groups) == ((), (frozenset({node}),))
    assert partition.group(node) is None
    assert partition.group(Node(identifier("m:2"))) is None
    assert groups(shy, said("h2", 1, ("e:a@x.de", AGENT), ("m:1", AGENT))) == [["e:a@x.de", "m:1"]]


def test_partition_knows_the_group_of_a_node():
    """Each node leads to its group, and carries its best trust."""
    one = said("h1", 0, ("e:a@x.de", CHANNEL), (PHONE, AGENT))
    two = said("h2", 1, ("e:a@x.de", ASSERTED))
    email, phone = Node(identifier("e:a@x.de")), Node(identifier(PHONE))

    partition = fold([one, two], [], POLICY)

    assert partition.group(phone) == partition.group(email) == frozenset({email, phone})
    assert partition.trusts == {email: CHANNEL, phone: AGENT}
    assert partition.owned == {email, phone}
    assert partition.refusals == ()


def test_recycled_number_does_not_join():
    """Two accounts that held one number in turn stay two people, each with its epoch."""
    old = said("h1", 0, ("x:1", PROVEN), (PHONE, PROVEN))
    new = said("h2", 1, ("x:2", PROVEN), (PHONE, PROVEN))

    assert groups(old, new) == [[PHONE, "x:1"], [f"{PHONE}#1", "x:2"]]


def test_second_account_of_a_namespace_is_refused():
    """A contact has one external id; a merge by staff cannot change that, but the cap can."""
    given = [said("h1", 0, ("x:1", PROVEN)), said("h2", 0, ("x:2", PROVEN)), merge("x:1", "x:2")]

    assert groups(*given) == [["x:1"], ["x:2"]]
    assert refusals(*given) == [("r1", Rule.ONE_ACCOUNT)]
    assert groups(*given, policy=Policy(external_id_cap=2)) == [["x:1", "x:2"]]


def test_messaging_ids_are_not_capped():
    """One person may have several ids of a platform."""
    assert groups(said("h1", 0, ("m:1", CHANNEL), ("m:2", CHANNEL), ("m:3", CHANNEL))) == [["m:1", "m:2", "m:3"]]


def test_cap_refuses_the_link_that_passes_it():
    """A contact may reach its cap and not pass it."""
    one = said("h1", 0, ("e:a@x.de", PROVEN), ("e:b@x.de", PROVEN), ("e:c@x.de", PROVEN))

    assert groups(one, policy=Policy(component_cap=3)) == [["e:a@x.de", "e:b@x.de", "e:c@x.de"]]
    assert groups(one, policy=Policy(component_cap=2)) == [["e:a@x.de", "e:b@x.de"], ["e:c@x.de"]]
    assert refusals(one, policy=Policy(component_cap=2)) == [("h1", Rule.CAP)]


def test_epochs_of_one_number_count_once_towards_the_cap():
    """A number that goes to and fro between two accounts fills neither."""
    turns = [said(f"h{day}", day, (f"x:{day % 2}", PROVEN), (PHONE, PROVEN)) for day in range(4)]

    found = groups(*turns, policy=Policy(component_cap=2))

    assert found == [[PHONE, f"{PHONE}#2", "x:0"], [f"{PHONE}#1", f"{PHONE}#3", "x:1"]]


@pytest.mark.parametrize("day", [0, 9])
def test_cannot_link_outweighs_all_evidence(day):
    """Two people by staff's word stay two, also over a third identifier, whenever it was said."""
    one = said("h1", 1, ("e:a@x.de", PROVEN), (PHONE, PROVEN))
    two = said("h2", 2, ("e:b@x.de", PROVEN), (PHONE, PROVEN))
    given = [one, two, apart("e:a@x.de", "e:b@x.de", day)]

    assert groups(*given) == [["e:a@x.de", PHONE], ["e:b@x.de"]]
    assert refusals(*given) == [("h2", Rule.CANNOT_LINK)]


def test_cannot_link_is_named_before_other_rules():
    """Where several rules forbid a link, staff's word is the reason, then the account, then the cap."""
    given = [said("h1", 0, ("x:1", PROVEN)), said("h2", 0, ("x:2", PROVEN)), merge("x:1", "x:2")]
    strict = Policy(component_cap=1)

    assert refusals(*given, apart("x:1", "x:2", name="r2"), policy=strict) == [("r1", Rule.CANNOT_LINK)]
    assert refusals(*given, policy=strict) == [("r1", Rule.ONE_ACCOUNT)]


@pytest.mark.parametrize(
    ("left", "right", "is_joined"),
    [
        (("e:a@x.de", CHANNEL), ("e:b@x.de", CHANNEL), False),
        (("e:a@x.de", PROVEN), (PHONE, CHANNEL), False),
        (("x:1", PROVEN), ("e:b@x.de", CHANNEL), False),
        (("e:a@x.de", AGENT), ("e:b@x.de", PROVEN), True),
        (("e:a@x.de", PROVEN), ("e:b@x.de", ASSERTED), True),
        (("e:a@x.de", PROVEN), ("m:1", PROVEN), True),
    ],
)
def test_agents_entry_joins_no_two_established_people(left, right, is_joined):
    """An entry by staff joins at most one established person with somebody; a merge joins two."""
    names = sorted([left[0], right[0]])
    both = [said("h1", 0, left), said("h2", 0, right)]
    entry = said("h3", 1, (left[0], AGENT), (right[0], AGENT))

    assert groups(*both, entry) == ([names] if is_joined else [[names[0]], [names[1]]])
    assert refusals(*both, entry) == ([] if is_joined else [("h3", Rule.BOTH_ESTABLISHED)])
    assert groups(*both, merge(left[0], right[0])) == [names]


def test_channel_evidence_joins_established_people():
    """Only an agent's entry is held back; what a platform attests joins."""
    both = [said("h1", 0, ("e:a@x.de", CHANNEL)), said("h2", 0, (PHONE, CHANNEL))]

    assert groups(*both, said("h3", 1, ("e:a@x.de", CHANNEL), (PHONE, CHANNEL))) == [["e:a@x.de", PHONE]]


def test_merge_goes_before_agents_entries():
    """The merge by staff is taken first, and the older entry that contradicts it gives way."""
    entry = said("h1", 0, ("x:1", AGENT), ("e:a@x.de", AGENT))
    account = said("h2", 1, ("x:2", AGENT))
    given = [entry, account, merge("x:2", "e:a@x.de")]

    assert groups(*given) == [["e:a@x.de", "x:2"], ["x:1"]]
    assert refusals(*given) == [("h1", Rule.ONE_ACCOUNT)]


def test_proof_goes_before_a_merge():
    """What is proven is taken before what staff merged."""
    proof = said("h1", 20, ("x:1", PROVEN), ("e:a@x.de", PROVEN))
    given = [proof, said("h2", 1, ("x:2", AGENT)), merge("x:2", "e:a@x.de")]

    assert groups(*given) == [["e:a@x.de", "x:1"], ["x:2"]]
    assert refusals(*given) == [("r1", Rule.ONE_ACCOUNT)]


def test_merge_of_an_identifier_with_itself_does_nothing():
    """An identifier is one person with itself already."""
    assert groups(said("h1", 0, ("e:a@x.de", AGENT)), merge("e:a@x.de", "e:a@x.de")) == [["e:a@x.de"]]
    assert groups(merge("e:a@x.de", "e:a@x.de"), contacts=False) == []


def test_merge_of_what_nobody_attested_makes_no_contact():
    """A ruling creates nobody; beside an attested identifier the other is known by the merge alone."""
    assert groups(merge("e:a@x.de", "e:b@x.de")) == []
    assert groups(merge("e:a@x.de", "e:b@x.de"), contacts=False) == [["e:a@x.de", "e:b@x.de"]]
    assert groups(said("h1", 0, ("e:a@x.de", AGENT)), merge("e:a@x.de", "e:b@x.de")) == [["e:a@x.de", "e:b@x.de"]]


def test_merge_takes_the_epoch_of_its_moment():
    """A number merged before it changed hands is that of its earlier holder."""
    old = said("h1", 0, ("x:1", PROVEN), (PHONE, PROVEN))
    new = said("h2", 5, ("x:2", PROVEN), (PHONE, PROVEN))
    other = said("h3", 0, ("e:a@x.de", AGENT))

    assert groups(old, new, other, merge(PHONE, "e:a@x.de", 4)) == [["e:a@x.de", PHONE, "x:1"], [f"{PHONE}#1", "x:2"]]
    assert groups(old, new, other, merge("e:a@x.de", PHONE, 6)) == [["e:a@x.de", f"{PHONE}#1", "x:2"], [PHONE, "x:1"]]


NAMES = ["e:a@x.de", "e:b@x.de", PHONE, "x:1", "x:2", "m:1"]
PAIRS = st.tuples(st.sampled_from(NAMES), st.sampled_from(Trust))
HISTORIES = st.lists(st.lists(PAIRS, min_size=1, max_size=3, unique_by=lambda pair: pair[0]), max_size=7)


@given(HISTORIES, st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from(NAMES)), max_size=2), st.randoms())
def test_order_of_evidence_does_not_matter(history, rulings, random):
    """The same evidence and rulings give the same people and the same refusals in every order."""
    attested = [[pair for pair in pairs if pair[1] > ASSERTED] or pairs[:1] for pairs in history]
    evidence = [said(f"h{day}", day, *pairs) for day, pairs in enumerate(attested)]
    ruled_ = [(merge, apart)[number](a, b, name=f"r{number}") for number, (a, b) in enumerate(rulings)]
    shuffled, ruled_shuffled = list(evidence), list(ruled_)
    random.shuffle(shuffled)
    random.shuffle(ruled_shuffled)

    one, other = fold(evidence, ruled_, POLICY), fold(shuffled, ruled_shuffled, POLICY)

    assert set(one.groups) == set(other.groups)
    assert one.owned == other.owned
    assert one.trusts == other.trusts
    assert one.refusals == other.refusals


def test_look_alike_is_a_caution():
    """Each identifier that mixes scripts is flagged, the cookie and notes included."""
    evidence = weigh(hint(("email", "r\u0430ypal@x.example", PROVEN), ("email", "ann@x.example", PROVEN)), POLICY)

    assert cautions(evidence) == (Step(Rule.NOTE, "email:r\u0430ypal@x.example", "mixed scripts"),)
