from datetime import UTC, datetime, timedelta
from itertools import count

import pytest

from convsdk.core.fold import Evidence, Policy, fold
from convsdk.core.identifiers import Kinds, MessagingId
from convsdk.core.model import Decision, Identifier, Node, Outcome, Rule, Ruling, RulingKind, Step, Trust
from convsdk.core.resolver import (
    Changes,
    Holding,
    Known,
    NewContact,
    cookie_contact,
    decide,
    needs_history,
    reconcile,
    refold,
)

START = datetime(2026, 1, 1, tzinfo=UTC)
POLICY = Policy(kinds=Kinds([MessagingId("psid")]))
ASSERTED, AGENT, CHANNEL, PROVEN = Trust
ORIGIN = NewContact(id=0, at=START, how="merge undone", hint="r1")


def identifier(text):
    """Read `kind:value`, with the short kinds e(mail), p(hone), x (external id), m(essaging id), v(isitor)."""
    kind, _, value = text.partition(":")
    return Identifier({"e": "email", "p": "phone", "x": "external_id", "m": "psid", "v": "visitor"}[kind], "", value)


def node(text):
    """Read `kind:value`, with `#` and the epoch behind it where it is not the first."""
    named, _, epoch = text.partition("#")
    return Node(identifier(named), int(epoch or 0))


def at(day):
    """Give the moment of that day."""
    return START + timedelta(days=day)


def said(name, day, *pairs, notes=(), **fields):
    """Build the evidence of (identifier, trust) pairs, the anchor first; `notes` are pairs too."""
    (anchor, trust), *links = [(identifier(text), trust) for text, trust in pairs]
    noted = tuple((identifier(text), trust) for text, trust in notes)
    return Evidence(hint=name, at=at(day), anchor=anchor, trust=trust, links=tuple(links), notes=noted, **fields)


def take(known, ids, *given, **options):
    """Decide one piece of evidence after another, and give the last decision with its changes."""
    for one in given:
        decision, changes = decide(one, known, POLICY, ids, **options)
        known.apply(changes)
    return decision, changes


def decided(*given):
    """Give the decision about the last of the evidence."""
    return take(Known(), count(1), *given)[0]


def stored(*given):
    """Give what the evidence left behind, without the evidence itself, and the ids that are free."""
    known, ids = Known(), count(1)
    take(known, ids, *given)
    return Known(holdings=known.holdings, roots=known.roots), ids


def refolded(known, ids, *given):
    """Fold what is stored again, on `given` as all the evidence and rulings that there are."""
    for one in given:
        known.add_ruling(one) if isinstance(one, Ruling) else known.add(one)
    return refold(known, POLICY, ids, origin=ORIGIN)


def owned(text, number, contact=1, trust=PROVEN, **fields):
    """Build a holding that is on a contact."""
    return Holding(id=number, node=node(text), contact=contact, trust=trust, is_owned=True, **fields)


def holding(*held, **fields):
    """Build what is known from holdings."""
    return Known(holdings={one.node: one for one in held}, **fields)


# -- what is known


@pytest.mark.parametrize("trust", Trust)
@pytest.mark.parametrize("notes", [(), [("p:+4930123456", ASSERTED)]])
def test_who_is_new_and_alone_becomes_the_contact_that_the_fold_gives(trust, notes):
    """For an identifier that nobody named before nothing is folded, and the contact is the same, with its ids."""
    evidence = said("h1", 0, ("e:ann@x.de", trust), notes=notes, visitor=identifier("v:c"))
    folded = Changes()

    decision, changes = decide(evidence, Known(), POLICY, count(1), how="inbound")
    origin = NewContact(id=0, at=evidence.at, how="inbound", hint="h1")
    reconcile(Known(), fold([evidence], [], POLICY), [evidence.anchor], count(1), folded, origin=origin)

    assert decision.outcome is Outcome.CREATED
    assert (changes.contacts, changes.roots) == (folded.contacts, folded.roots)
    assert changes.holdings[Node(evidence.anchor)] == folded.holdings[Node(evidence.anchor)]


def test_identifier_is_on_the_contact_that_its_home_points_at():
    """A home that was merged leads to the surviving contact."""
    known = holding(owned("e:a", 1, contact=2), roots={2: 1})

    assert known.contact(node("e:a")) == 1


def test_founder_that_nothing_speaks_for_is_on_no_contact():
    """Who keeps a home only to return to it is on nobody."""
    known = holding(Holding(id=1, node=node("e:a"), contact=1, is_founder=True))

    assert known.contact(node("e:a")) is None


def test_merged_contacts_stay_merged_after_a_change():
    """What is known after a change keeps what was merged before it."""
    known = holding(owned("e:a", 1, contact=3), roots={3: 2})

    after = known.changed(Changes(roots={2: 1}), [identifier("e:a")])

    assert after == Known(holdings=known.holdings, roots={3: 2, 2: 1})


# -- whose history must be loaded

PAIR = said("h1", 1, ("x:1", PROVEN), ("e:a", PROVEN))


def test_new_identifiers_need_no_history():
    """Whom nobody named before has none."""
    assert not needs_history(PAIR, Known(), POLICY)


@pytest.mark.parametrize(
    ("others", "repeats", "is_needed"),
    [
        ([owned("e:a", 2)], {"h1"}, False),
        ([owned("e:a", 2)], set(), True),
        ([owned("e:a", 2, contact=2)], {"h1"}, True),
        ([], {"h1"}, True),
        ([Holding(id=2, node=node("e:a"), trust=PROVEN)], {"h1"}, True),
    ],
)
def test_link_needs_history_unless_it_joins_nobody_anew(others, repeats, is_needed):
    """Only what was said before, and had joined the two, is no news."""
    known = holding(owned("x:1", 1), *others, repeats=repeats)

    assert needs_history(PAIR, known, POLICY) is is_needed


def test_repeated_link_between_nobodies_needs_history():
    """Identifiers that are all on no contact are not joined, though they are all on the same: none."""
    nobodies = [Holding(id=number, node=node(text), trust=PROVEN) for number, text in enumerate(["x:1", "e:a"])]

    assert needs_history(PAIR, holding(*nobodies, repeats={"h1"}), POLICY)


@pytest.mark.parametrize(
    ("text", "before", "trust", "is_needed"),
    [
        ("e:a", AGENT, AGENT, False),
        ("e:a", AGENT, CHANNEL, True),
        ("e:a", ASSERTED, PROVEN, True),
        ("e:a", None, CHANNEL, True),
        ("e:a", ASSERTED, AGENT, False),
        ("e:a", CHANNEL, PROVEN, False),
        ("e:a", PROVEN, CHANNEL, False),
        ("m:9", AGENT, CHANNEL, False),
    ],
)
def test_lone_identifier_needs_history_where_it_becomes_established(text, before, trust, is_needed):
    """Only the step to an attested contact point or account can change whom an agent may join (rule 5)."""
    known = holding(owned(text, 1, trust=before))

    assert needs_history(said("h1", 1, (text, trust)), known, POLICY) is is_needed


@pytest.mark.parametrize(
    ("may_create", "before", "trust", "is_needed"),
    [
        (True, PROVEN, ASSERTED, True),
        (False, None, ASSERTED, True),
        (False, AGENT, CHANNEL, True),
        (False, AGENT, AGENT, False),
        (False, AGENT, ASSERTED, False),
    ],
)
def test_identifier_on_nobody_needs_history_where_more_is_said(may_create, before, trust, is_needed):
    """A hint that may create, or attests better than before, can make a contact of it."""
    known = holding(Holding(id=1, node=node("e:a"), trust=before))

    assert needs_history(said("h1", 1, ("e:a", trust), may_create=may_create), known, POLICY) is is_needed


# -- decisions


@pytest.mark.parametrize(("visitor", "outcome"), [(None, Outcome.UNRESOLVED), (identifier("v:1"), Outcome.ANONYMOUS)])
def test_hint_that_names_nobody_says_what_was_unusable(visitor, outcome):
    """Without a usable identifier only the cookie can say later who it was."""
    decision = decided(Evidence(hint="h1", at=START, visitor=visitor, unusable=("phone",)))

    assert decision == Decision(hint="h1", outcome=outcome, steps=(Step(Rule.UNUSABLE, "phone"),), unusable=("phone",))


def test_unknown_person_becomes_a_contact():
    """The steps tell what was discarded, who the anchor is and what was linked with it, in this order."""
    decision = decided(said("h1", 1, ("x:1", PROVEN), ("e:a", PROVEN), ("m:9", CHANNEL), unusable=("phone",)))

    assert decision == Decision(
        hint="h1",
        outcome=Outcome.CREATED,
        contact=4,
        steps=(
            Step(Rule.UNUSABLE, "phone"),
            Step(Rule.ANCHOR, "external_id:1"),
            Step(Rule.LINK, "external_id:1", "email:a"),
            Step(Rule.LINK, "external_id:1", "psid:9"),
        ),
        unusable=("phone",),
    )


def test_new_contact_is_written_with_its_founder():
    """The oldest identifier founds the contact, which says by which hint and how it came to be."""
    evidence = said("h1", 1, ("x:1", PROVEN), ("e:a", CHANNEL))

    _, changes = take(Known(), count(1), evidence)
    _, told = take(Known(), count(1), evidence, how="login")

    assert changes == Changes(
        holdings={
            node("e:a"): owned("e:a", 1, contact=3, trust=CHANNEL, is_founder=True),
            node("x:1"): owned("x:1", 2, contact=3),
        },
        contacts=[NewContact(id=3, at=at(1), how="", hint="h1")],
    )
    assert [one.how for one in told.contacts] == ["login"]


def test_known_person_is_attached_and_nothing_is_written():
    """What says nothing new is told by its anchor alone, and changes nothing."""
    known, ids = stored(said("h1", 1, ("e:a", PROVEN)))

    decision, changes = take(known, ids, said("h2", 2, ("e:a", PROVEN), unusable=("phone",)))

    assert decision == Decision(
        hint="h2",
        outcome=Outcome.ATTACHED,
        contact=2,
        steps=(Step(Rule.UNUSABLE, "phone"), Step(Rule.ANCHOR, "email:a")),
        unusable=("phone",),
    )
    assert changes == Changes()


def test_quiet_hint_only_raises_the_trust():
    """Better proof of what is settled is written without looking at the history, and nothing else is."""
    known, ids = stored(said("h1", 1, ("x:1", CHANNEL), ("e:a", CHANNEL)))

    decision, changes = take(known, ids, said("h2", 2, ("x:1", PROVEN)))

    assert (decision.outcome, decision.contact) == (Outcome.ATTACHED, 3)
    assert changes == Changes(holdings={node("x:1"): owned("x:1", 2, contact=3)})


def test_quiet_hint_attests_what_only_a_merge_had_named():
    """An identifier that came to its contact by a merge has no trust until somebody attests it."""
    known = holding(owned("e:a", 1, trust=None))

    _, changes = take(known, count(2), said("h1", 1, ("e:a", AGENT)))

    assert changes == Changes(holdings={node("e:a"): owned("e:a", 1, trust=AGENT)})


def test_quiet_hint_means_the_epoch_of_its_moment():
    """A recycled number speaks for the one who holds it now."""
    known, ids = stored(*(said(f"h{one}", one, (f"x:{one}", PROVEN), ("p:1", CHANNEL)) for one in (1, 2)))

    decision, changes = take(known, ids, said("h3", 3, ("p:1", CHANNEL)))

    assert decision.contact == known.contact(node("x:2"))
    assert decision.steps == (Step(Rule.ANCHOR, "phone:1#1"),)
    assert changes == Changes()


def test_link_that_is_said_again_only_attaches():
    """A link between two that are joined already gains nothing."""
    decision = decided(PAIR, said("h2", 2, ("x:1", PROVEN), ("e:a", PROVEN)))

    assert decision == Decision(
        hint="h2", outcome=Outcome.ATTACHED, contact=3, steps=(Step(Rule.ANCHOR, "external_id:1"),)
    )


def test_only_what_is_new_is_told_as_a_link():
    """An identifier that was on the contact already is not linked once more, nor written again."""
    known, ids = Known(), count(1)
    take(known, ids, said("h1", 1, ("x:1", PROVEN), ("e:a", PROVEN)))

    decision, changes = take(known, ids, said("h2", 2, ("x:1", PROVEN), ("e:a", PROVEN), ("m:9", PROVEN)))

    assert decision == Decision(
        hint="h2",
        outcome=Outcome.LINKED,
        contact=3,
        steps=(Step(Rule.ANCHOR, "external_id:1"), Step(Rule.LINK, "external_id:1", "psid:9")),
    )
    assert changes == Changes(holdings={node("m:9"): owned("m:9", 4, contact=3)})


def test_merge_names_the_contact_that_was_absorbed():
    """Of two contacts that prove to be one person, the older stays and the other points at it."""
    known, ids = Known(), count(1)
    take(known, ids, said("h1", 1, ("x:1", PROVEN)), said("h2", 2, ("e:a", PROVEN)))

    decision, changes = take(known, ids, said("h3", 3, ("x:1", PROVEN), ("e:a", PROVEN)))

    assert decision == Decision(
        hint="h3",
        outcome=Outcome.MERGED,
        contact=2,
        absorbed=(4,),
        steps=(Step(Rule.ANCHOR, "external_id:1"), Step(Rule.LINK, "external_id:1", "email:a")),
    )
    assert changes == Changes(roots={4: 2})


def test_refused_link_is_told_and_suggested():
    """A second account is another person, and the pair is shown by what their contacts are best known by."""
    decision = decided(
        said("h1", 1, ("x:1", PROVEN), ("m:9", PROVEN)),
        said("h2", 2, ("x:2", PROVEN), ("m:9", CHANNEL)),
    )

    assert decision == Decision(
        hint="h2",
        outcome=Outcome.CONFLICT,
        contact=5,
        steps=(Step(Rule.ANCHOR, "external_id:2"),),
        refused=(Step(Rule.ONE_ACCOUNT, "external_id:2", "psid:9"),),
        suggested=(("external_id:1", "external_id:2"),),
    )


def test_pair_names_each_side_by_its_own_contact():
    """A third contact that was refused before does not appear in what is suggested now."""
    decision = decided(
        said("h1", 1, ("x:1", PROVEN), ("m:9", PROVEN)),
        said("h2", 2, ("x:2", PROVEN), ("m:9", CHANNEL)),
        said("h3", 3, ("x:3", PROVEN), ("m:9", CHANNEL)),
    )

    assert decision.suggested == (("external_id:1", "external_id:3"),)


def test_refused_link_of_nobody_is_suggested_by_its_own_names():
    """Identifiers that are on no contact stand for themselves."""
    decision = decided(
        said("h1", 1, ("x:1", PROVEN), ("m:9", PROVEN), may_create=False),
        said("h2", 2, ("x:2", PROVEN), ("m:9", CHANNEL), may_create=False),
    )

    assert decision.outcome is Outcome.ANONYMOUS
    assert decision.suggested == (("external_id:2", "psid:9"),)


def test_earlier_refusal_is_not_told_again():
    """What was refused before and still is has not been displaced."""
    decision = decided(
        said("h1", 1, ("x:1", PROVEN), ("m:9", PROVEN)),
        said("h2", 2, ("x:2", PROVEN), ("m:9", CHANNEL)),
        said("h3", 3, ("x:1", PROVEN), ("e:a", PROVEN)),
    )

    assert decision == Decision(
        hint="h3",
        outcome=Outcome.LINKED,
        contact=3,
        steps=(Step(Rule.ANCHOR, "external_id:1"), Step(Rule.LINK, "external_id:1", "email:a")),
    )


def test_weaker_link_is_displaced():
    """A proof takes an identifier away from whom an agent had put it on: nobody is absorbed, the pair is shown."""
    decision = decided(
        said("h1", 1, ("x:1", AGENT), ("m:9", AGENT), ("e:a", AGENT)),
        said("h2", 2, ("x:2", PROVEN), ("m:9", PROVEN), unusable=("phone",)),
    )

    assert decision == Decision(
        hint="h2",
        outcome=Outcome.LINKED,
        contact=6,
        steps=(
            Step(Rule.UNUSABLE, "phone"),
            Step(Rule.ANCHOR, "external_id:2"),
            Step(Rule.LINK, "external_id:2", "psid:9"),
            Step(Rule.DISPLACED, "external_id:1", "psid:9"),
        ),
        suggested=(("email:a", "external_id:2"),),
        displaced=("h1",),
        unusable=("phone",),
    )


def test_new_epoch_is_told_once():
    """A number that changes hands is told as a new epoch by the hint that starts it, and by no later one."""
    given = [
        said("h1", 1, ("x:1", PROVEN), ("p:1", CHANNEL)),
        said("h2", 2, ("x:2", PROVEN), ("p:1", CHANNEL)),
        said("h3", 3, ("x:2", PROVEN), ("p:1", CHANNEL), ("m:9", CHANNEL)),
    ]

    assert decided(*given[:2]).steps == (
        Step(Rule.EPOCH, "phone:1#1"),
        Step(Rule.ANCHOR, "external_id:2"),
        Step(Rule.LINK, "external_id:2", "phone:1#1"),
    )
    assert decided(*given).steps == (
        Step(Rule.ANCHOR, "external_id:2"),
        Step(Rule.LINK, "external_id:2", "psid:9"),
    )


def test_every_epoch_begins_with_its_own_hint():
    """The epochs of a number are stored with the moments at which it changed hands."""
    known, _ = stored(*(said(f"h{one}", one, (f"x:{one}", PROVEN), ("p:1", CHANNEL)) for one in (1, 2, 3)))

    since = [held.since for held in known.held([identifier("p:1")])]

    assert since == [None, (at(2), "h2"), (at(3), "h3")]


def test_hint_that_may_not_create_leaves_its_identifier_on_nobody():
    """An unknown person stays without a contact, at the first hint and at the ones that only repeat it."""
    known, ids = Known(), count(1)
    first = said("h1", 1, ("e:a", PROVEN), may_create=False)
    again = said("h2", 2, ("e:a", PROVEN), may_create=False)
    steps = (Step(Rule.NO_CREATE, "email:a"),)

    created, changes = take(known, ids, first)
    repeated, unchanged = take(known, ids, again)

    assert created == Decision(hint="h1", outcome=Outcome.ANONYMOUS, steps=steps)
    assert repeated == Decision(hint="h2", outcome=Outcome.ANONYMOUS, steps=steps)
    assert changes == Changes(holdings={node("e:a"): Holding(id=1, node=node("e:a"), trust=PROVEN)})
    assert unchanged == Changes()


# -- what was only typed

HOLDERS = [said("h1", 1, ("e:a", PROVEN)), said("h2", 1, ("p:1", PROVEN))]


@pytest.mark.parametrize("links", [[], [("m:9", PROVEN)]])
def test_typed_value_of_another_contact_is_a_note_and_a_suggestion(links):
    """Typing somebody else's number joins nobody, whether or not the rest of the hint says something new."""
    decision = decided(*HOLDERS, said("h3", 3, ("e:a", PROVEN), *links, notes=[("p:1", ASSERTED)]))

    assert decision.contact == 2
    assert decision.suggested == (("email:a", "phone:1"),)
    assert decision.steps[0] == Step(Rule.ANCHOR, "email:a")
    assert decision.steps[-1] == Step(Rule.NOTE, "email:a", "phone:1")


@pytest.mark.parametrize(
    ("text", "trust", "may_create", "rule"),
    [
        ("p:2", ASSERTED, True, Rule.NOTE),
        ("x:1", ASSERTED, True, Rule.NOTE),
        ("p:1", AGENT, True, Rule.ROLE),
        ("p:1", ASSERTED, False, Rule.NOTE),
    ],
)
def test_other_notes_suggest_nothing(text, trust, may_create, rule):
    """A value that nobody holds, one's own, a role mailbox, and one beside nobody are no pair to look at."""
    anchor = "e:a" if may_create else "e:new"
    joined = said("h0", 2, ("e:a", PROVEN), ("x:1", PROVEN))
    evidence = said("h3", 3, (anchor, PROVEN), notes=[(text, trust)], may_create=may_create)

    decision = decided(*HOLDERS, joined, evidence)

    assert decision.suggested == ()
    assert decision.steps[-1] == Step(rule, str(node(anchor)), str(node(text)))


def test_note_names_the_epoch_of_its_moment():
    """Whoever types a recycled number means the one who holds it now."""
    decision = decided(
        said("h1", 1, ("x:1", PROVEN), ("p:1", CHANNEL)),
        said("h2", 2, ("x:2", PROVEN), ("p:1", CHANNEL)),
        said("h3", 3, ("x:1", PROVEN), notes=[("p:1", ASSERTED)]),
    )

    assert decision.steps[-1] == Step(Rule.NOTE, "external_id:1", "phone:1#1")
    assert decision.suggested == (("external_id:1", "phone:1#1"),)


# -- spellings


def test_first_spelling_of_an_identifier_stays():
    """The spelling comes with the identifier that it is of, and no later one takes its place."""
    known, ids = Known(), count(1)
    first = said("h1", 1, ("x:1", PROVEN), ("e:a", AGENT), spellings=((identifier("e:a"), "A"),))
    later = [(identifier("e:a"), "Aa"), (identifier("x:1"), "One")]
    second = said("h2", 2, ("x:1", PROVEN), ("e:a", PROVEN), ("m:9", PROVEN), spellings=tuple(later))

    take(known, ids, first, second)

    spelt = {str(held.node): held.spelling for held in known.holdings.values()}
    assert spelt == {"external_id:1": "", "email:a": "A", "psid:9": ""}
    assert known.holdings[node("e:a")].trust is PROVEN


def test_spelling_of_a_known_key_is_not_kept():
    """An identifier that first came as its own key stays spelt so."""
    known, ids = Known(), count(1)

    take(known, ids, said("h1", 1, ("e:a", AGENT)))
    take(known, ids, said("h2", 2, ("e:a", PROVEN), spellings=((identifier("e:a"), "A"),)))

    assert known.holdings[node("e:a")] == owned("e:a", 1, contact=2, is_founder=True)


# -- after a ruling or a withdrawal


def test_withdrawn_link_gives_the_other_side_a_contact_of_its_own():
    """The founder keeps the contact; who leaves gets a new one, after the model of the origin."""
    known, ids = stored(PAIR)

    changes = refolded(known, ids, said("h2", 2, ("x:1", PROVEN)), said("h3", 3, ("e:a", PROVEN)))

    assert changes == Changes(
        holdings={node("x:1"): owned("x:1", 2, contact=4, is_founder=True)},
        contacts=[NewContact(id=4, at=START, how="merge undone", hint="r1")],
    )


def test_contact_rests_while_nothing_speaks_for_its_founder():
    """What is left of it becomes a new contact, to which the resting one redirects; nobody inherits its id."""
    known, ids = stored(PAIR)

    changes = refolded(known, ids, said("h2", 2, ("x:1", PROVEN)))

    assert changes == Changes(
        holdings={
            node("x:1"): owned("x:1", 2, contact=4, is_founder=True),
            node("e:a"): Holding(id=1, node=node("e:a"), contact=3, is_founder=True),
        },
        contacts=[
            NewContact(id=4, at=changes.contacts[0].at, how=changes.contacts[0].how, hint=changes.contacts[0].hint)
        ],
        roots={3: 4},
    )


def test_resting_contact_wakes_with_its_founder():
    """The evidence that comes back gives the id back, and the contact made meanwhile redirects to it."""
    known, ids = stored(PAIR)
    known.apply(refolded(known, ids, said("h2", 2, ("x:1", PROVEN))))

    known.apply(refolded(known, ids, PAIR, said("h2", 2, ("x:1", PROVEN))))

    assert [known.contact(node(one)) for one in ("e:a", "x:1")] == [3, 3]
    assert known.roots[4] == 3


def test_each_resting_contact_redirects_to_what_is_left_of_it():
    """Two contacts that lose their founders in one fold redirect each to its own rest."""
    known, ids = stored(PAIR, said("h2", 2, ("x:2", PROVEN), ("e:b", PROVEN)))

    known.apply(refolded(known, ids, said("h3", 3, ("x:1", PROVEN)), said("h4", 4, ("x:2", PROVEN))))

    left = [known.contact(node(one)) for one in ("x:1", "x:2")]
    assert [known.roots[known.holdings[node(one)].contact] for one in ("e:a", "e:b")] == left
    assert len({*left}) == 2


def test_identifier_that_moves_takes_no_contact_along():
    """Who is not a contact's founder joins another contact under that one's id, however low its former id was."""
    known, ids = stored(PAIR, said("h2", 2, ("e:b", PROVEN)))
    other = known.contact(node("e:b"))

    known.apply(refolded(known, ids, said("h3", 3, ("e:a", PROVEN)), said("h4", 4, ("e:b", PROVEN), ("x:1", PROVEN))))

    assert known.contact(node("x:1")) == known.contact(node("e:b")) == other
    assert known.contact(node("e:a")) == 3


def test_identifier_that_nothing_speaks_for_forgets_whose_it_was():
    """What comes back later must not move the contact that it was once on."""
    known, ids = stored(PAIR)

    known.apply(refolded(known, ids, said("h2", 2, ("e:a", PROVEN))))

    assert known.holdings[node("x:1")].contact is None


def test_resting_contact_keeps_its_redirect():
    """A fold that finds the founder on no contact still leaves the redirect as it is."""
    known, ids = stored(PAIR)
    given = [said("h2", 2, ("e:a", PROVEN), may_create=False), said("h3", 3, ("x:1", PROVEN))]
    known.apply(refolded(known, ids, *given))

    again = refolded(Known(holdings=known.holdings, roots=known.roots), ids, *given)

    assert again == Changes()
    assert known.roots[3] == known.contact(node("x:1"))


def test_founder_keeps_the_contact_before_an_older_identifier():
    """An identifier that was on record first, but came to the contact later, does not take it along."""
    known, ids = stored(
        said("h1", 1, ("e:a", PROVEN), notes=[("p:1", ASSERTED)]),
        said("h2", 2, ("x:2", PROVEN)),
        said("h3", 3, ("x:2", PROVEN), ("p:1", PROVEN)),
    )
    contact = known.contact(node("x:2"))

    known.apply(refolded(known, ids, said("h2", 2, ("x:2", PROVEN)), said("h4", 4, ("p:1", PROVEN))))

    assert known.holdings[node("p:1")].id < known.holdings[node("x:2")].id
    assert known.contact(node("x:2")) == contact != known.contact(node("p:1"))


def test_merged_contact_that_loses_everything_stands_alone_again():
    """A contact that nothing speaks for any more points at itself, not at whom it was merged into."""
    given = [said("h1", 1, ("x:1", PROVEN)), said("h2", 2, ("e:a", PROVEN))]
    known, ids = Known(), count(1)
    take(known, ids, *given, said("h3", 3, ("x:1", PROVEN), ("e:a", PROVEN)))

    changes = refolded(Known(holdings=known.holdings, roots=known.roots), ids, given[0])

    assert changes == Changes(
        holdings={node("e:a"): Holding(id=3, node=node("e:a"), contact=4, is_founder=True)}, roots={4: 4}
    )


def test_withdrawn_epoch_begins_nowhere():
    """An epoch that nothing speaks for stays on record, without a beginning and on nobody."""
    known, ids = Known(), count(1)
    first = said("h1", 1, ("x:1", PROVEN), ("p:1", CHANNEL))
    take(known, ids, first, said("h2", 2, ("x:2", PROVEN), ("p:1", CHANNEL)))
    was = known.holdings[node("p:1#1")]

    changes = refolded(Known(holdings=known.holdings, roots=known.roots), ids, first)

    assert was.since == (at(2), "h2")
    assert (changes.holdings[was.node].since, changes.holdings[was.node].trust) == (None, None)
    assert changes.holdings[was.node].is_owned is False


def test_contact_that_nobody_may_have_created_goes():
    """Where only a hint is left that may not create, the identifier is on nobody but would return to its contact."""
    known, ids = stored(said("h1", 1, ("e:a", PROVEN)))

    changes = refolded(known, ids, said("h2", 2, ("e:a", AGENT), may_create=False))

    held = Holding(id=1, node=node("e:a"), contact=2, trust=AGENT, is_founder=True)
    assert changes == Changes(holdings={node("e:a"): held})


def test_new_contacts_are_numbered_in_the_order_of_their_identifiers():
    """The same evidence gives the same ids, whatever order it is stored in."""
    names = [f"e:{letter}" for letter in "hgfedcba"]

    known = Known(holdings={node(one): Holding(id=number, node=node(one)) for number, one in enumerate(names)})
    changes = refolded(known, count(11), *(said(one, 1, (one, PROVEN)) for one in names))

    contacts = [changes.holdings[node(one)].contact for one in sorted(names)]
    assert contacts == [one.id for one in changes.contacts] == list(range(11, 19))


def test_ruling_puts_its_identifiers_on_record():
    """Identifiers that only a ruling names get a holding each, on nobody."""
    apart = Ruling(id="r1", kind=RulingKind.CANNOT_LINK, a=identifier("e:a"), b=identifier("e:b"), at=START, by="kim")

    changes = refolded(Known(), count(1), apart)

    assert changes == Changes(
        holdings={
            node("e:a"): Holding(id=1, node=node("e:a")),
            node("e:b"): Holding(id=2, node=node("e:b")),
        }
    )


# -- cookies


@pytest.mark.parametrize(
    ("visits", "day", "contact"),
    [
        ([], 0, None),
        ([(0, None)], 0, None),
        ([(0, 7)], 0, 7),
        ([(0, 7), (30, None)], 30, 7),
        ([(0, 7), (31, None)], 31, None),
        ([(0, 7), (20, None), (40, None)], 40, 7),
        ([(0, None), (30, 7)], 0, 7),
        ([(0, None), (31, 7)], 0, None),
        ([(0, None), (1, None), (41, 7)], 0, None),
        ([(0, None), (20, None), (40, 7)], 0, 7),
        ([(0, None), (1, None), (2, 7)], 0, 7),
        ([(0, 7), (1, None), (2, 8)], 1, 7),
        ([(0, 7), (1, 8), (2, None)], 2, None),
        ([(0, 7), (1, 7), (2, None)], 2, 7),
        ([(0, None), (1, 7), (2, 8)], 0, 7),
    ],
)
def test_cookie_speaks_for_the_one_contact_of_its_session(visits, day, contact):
    """The one spoken for so far counts, else the next, within pauses of thirty days; two are nobody."""
    given = [((at(when), f"h{when}"), who) for when, who in visits]

    assert cookie_contact(given, (at(day), f"h{day}"), POLICY) == contact
    assert cookie_contact(given[::-1], (at(day), f"h{day}"), POLICY) == contact


@pytest.mark.parametrize("day", [1, 20])
def test_moment_without_a_visit_of_its_own_falls_into_the_session_around_it(day):
    """A visit whose hint was withdrawn is attributed by the others of its session."""
    visits = [((at(0), "h0"), 7), ((at(10), "h10"), None)]

    assert cookie_contact(visits, (at(day), "gone"), POLICY) == 7


@pytest.mark.parametrize("day", [-100, 100])
def test_visit_that_is_on_record_no_more_is_nobodys_after_a_pause(day):
    """A moment without a visit of its own is still as far from the others as the pause between them says."""
    spoken = datetime(2026, 6, 1, tzinfo=UTC)

    assert cookie_contact([((spoken, "h0"), 7)], (spoken + timedelta(days=day), "gone"), Policy()) is None
