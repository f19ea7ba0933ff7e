from datetime import UTC, datetime

import pytest

from convsdk.core.explain import sentence, sentences
from convsdk.core.fold import Evidence
from convsdk.core.model import Decision, Identifier, Node, Outcome, Rule, Ruling, RulingKind, Step, Trust
from convsdk.core.resolver import Holding
from convsdk.core.storage import ContactRecord, HintRecord, NamedTogether, RulingRecord

START = datetime(2026, 1, 1, tzinfo=UTC)
ANN = Identifier("email", "", "ann@x.example")
BOB = Identifier("email", "", "bob@x.example")
ABOUT_A = (Step(Rule.ANCHOR, "a"),)


def record(*trusts):
    """Give a contact that holds one address in as many epochs as there are trusts."""
    held = (Holding(id=number, node=Node(ANN, number), trust=trust) for number, trust in enumerate(trusts))
    return ContactRecord(id=1, created_at=START, how="", holdings=tuple(held), members=(1,))


def hint(outcome=Outcome.CREATED, steps=ABOUT_A, *, refused=(), suggested=(), **fields):
    """Give a stored hint with its decision."""
    decision = Decision(hint="h1", outcome=outcome, steps=steps, refused=refused, suggested=suggested)
    return HintRecord(evidence=Evidence(hint="h1", at=START), decision=decision, **fields)


def ruling(kind=RulingKind.MERGE, *, reason="", is_withdrawn=False):
    """Give a stored ruling about Ann and Bob."""
    one = Ruling(id="m1", kind=kind, a=ANN, b=BOB, at=START, by="kim", reason=reason)
    return RulingRecord(ruling=one, is_withdrawn=is_withdrawn)


def pair(contacts=(1, 2), trust=Trust.PROVEN):
    """Give two identifiers that were named together."""
    return NamedTogether(a=Node(ANN), b=Node(BOB, 1), contacts=contacts, trust=trust, source="h9")


def told(*hints, holdings=(), rulings=(), apart=()):
    """Give the sentences about a contact."""
    story = sentences(record(*holdings), hints, rulings, apart)
    return story if holdings else story[1:]


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        (Rule.UNUSABLE, "the a was discarded: no usable value"),
        (Rule.ANCHOR, "it was about a"),
        (Rule.LINK, "a and b were attested together, so they are one person"),
        (Rule.NOTE, "b was only typed, so it is a note and no key"),
        (Rule.ROLE, "b is a role mailbox, which is never evidence about one person"),
        (Rule.EPOCH, "a had changed hands, so what came before stays with its earlier holder"),
        (Rule.NO_CREATE, "nobody holds a, and this channel makes no contact by itself"),
        (Rule.DISPLACED, "stronger evidence took apart a and b"),
        (Rule.ONE_ACCOUNT, "a and b stay apart: a contact has one account of a namespace"),
        (Rule.CANNOT_LINK, "a and b stay apart: staff said that they are two people"),
        (Rule.CAP, "a and b stay apart: the contact has reached its cap of identifiers"),
        (Rule.BOTH_ESTABLISHED, "a and b stay apart: both are established, so staff must confirm a merge"),
    ],
)
def test_every_step_is_a_sentence(rule, text):
    """Each rule says what it did to which identifiers."""
    assert sentence(Step(rule, "a", "b")) == text


def test_braces_in_a_value_are_no_placeholders():
    """A value may hold anything, and is shown as it is."""
    assert (
        sentence(Step(Rule.LINK, "{other}", "{0}")) == "{other} and {0} were attested together, so they are one person"
    )


def test_look_alike_is_told():
    """A flagged address is told as one that may imitate another."""
    step = Step(Rule.NOTE, "email:r\u0430ypal@x.example", "mixed scripts")

    assert sentence(step) == (
        "email:r\u0430ypal@x.example mixes letters of several scripts and may imitate another address"
    )


def test_holdings_are_told_with_their_trust():
    """What a contact holds comes first, each with how well it is attested."""
    story = told(holdings=(Trust.ASSERTED, Trust.AGENT, Trust.CHANNEL, Trust.PROVEN, None))

    assert story == [
        "email:ann@x.example is only claimed",
        "email:ann@x.example#1 is entered by staff",
        "email:ann@x.example#2 is attested by the platform",
        "email:ann@x.example#3 is proven",
        "email:ann@x.example#4 is named",
    ]


def test_hint_is_told_with_all_its_steps():
    """A hint's sentence names it, its outcome, what it did and what was refused."""
    one = hint(
        Outcome.CONFLICT, (Step(Rule.ANCHOR, "a"), Step(Rule.LINK, "a", "b")), refused=(Step(Rule.CAP, "a", "c"),)
    )

    assert told(one) == [
        (
            "hint h1: conflict; it was about a; a and b were attested together, so they are one person; "
            "a and c stay apart: the contact has reached its cap of identifiers"
        )
    ]


@pytest.mark.parametrize(
    ("fields", "start"),
    [
        ({}, "hint h1: created; "),
        ({"how": "inbound e-mail"}, "inbound e-mail h1: created; "),
        ({"is_withdrawn": True}, "hint h1, since taken back: created; "),
    ],
)
def test_hint_is_told_by_how_it_came(fields, start):
    """The sentence starts with the channel's words, and says so where the hint no longer counts."""
    assert told(hint(**fields)) == [start + "it was about a"]


def test_hint_that_only_attached_is_not_told():
    """A message that did nothing but arrive says nothing about who is who."""
    assert told(hint(Outcome.ATTACHED)) == []


@pytest.mark.parametrize(
    "one",
    [
        hint(Outcome.ATTACHED, suggested=(("a", "b"),)),
        hint(Outcome.ATTACHED, (Step(Rule.NOTE, "a", "b"), Step(Rule.ANCHOR, "a"))),
        hint(Outcome.LINKED),
    ],
)
def test_attached_hint_that_did_more_is_told(one):
    """A note, a suggestion or another outcome is worth a sentence."""
    assert len(told(one)) == 1


@pytest.mark.parametrize(
    ("one", "text"),
    [
        (ruling(), "kim merged email:ann@x.example and email:bob@x.example [m1]"),
        (ruling(RulingKind.CANNOT_LINK), "kim kept apart email:ann@x.example and email:bob@x.example [m1]"),
        (
            ruling(reason="same card", is_withdrawn=True),
            "kim merged email:ann@x.example and email:bob@x.example (same card), since taken back [m1]",
        ),
    ],
)
def test_ruling_is_told(one, text):
    """What staff ruled is told with their name, reason and the id by which it can be taken back."""
    assert told(rulings=[one]) == [text]


@pytest.mark.parametrize(
    ("trust", "word"), [(Trust.PROVEN, "proven"), (Trust.ASSERTED, "only claimed"), (None, "named")]
)
def test_pair_that_is_not_joined_is_told(trust, word):
    """Two contacts that were named together are told with the evidence that did."""
    assert told(apart=[pair(trust=trust)]) == [
        f"email:ann@x.example and email:bob@x.example#1 were named together ({word}), but are not joined [h9]"
    ]


@pytest.mark.parametrize("contacts", [(1, None), (None, 2), (None, None)])
def test_pair_with_nobody_is_not_told(contacts):
    """A note on nobody is not a second person."""
    assert told(apart=[pair(contacts)]) == []


def test_story_has_an_order():
    """Holdings, hints, rulings, and what is not joined."""
    story = told(hint(), holdings=(Trust.PROVEN,), rulings=[ruling()], apart=[pair()])

    assert [one.split()[0] for one in story] == ["email:ann@x.example", "hint", "kim", "email:ann@x.example"]
    assert len(story) == 4


def test_contact_that_holds_nothing_says_so():
    """A contact whose evidence was all taken back still has its sentence."""
    assert sentences(record(), (), (), ()) == ["contact 1 holds nothing now: the evidence for it was taken back"]


def test_withdrawn_hint_is_told_even_if_it_only_attached():
    """What was taken back is part of the story, however little it had done."""
    assert told(hint(Outcome.ATTACHED, is_withdrawn=True)) == [
        "hint h1, since taken back: attached; it was about a",
    ]
