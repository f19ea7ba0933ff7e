import html
from contextlib import suppress

import pytest
from pace import is_linear

from convsdk.core.model import Contact, HeldIdentifier, Identifier, Node, ShownTrait, Trust
from convsdk.core.templates import contact_values, render
from convsdk.testing.builders import NOON

ANN = {"contact.name": "Ann", "contact.city": ""}


def held(kind, value, trust):
    """Give an identifier on a contact."""
    return HeldIdentifier(node=Node(Identifier(kind, "", value)), trust=trust, spelling=value.title())


def trait(value, trust):
    """Give a trait as a profile shows it."""
    return ShownTrait(value=value, trust=trust, is_verified=True, hint="1", at=NOON)


@pytest.mark.parametrize(
    ("text", "rendered"),
    [
        ("Dear {{ contact.name | customer }},", "Dear Ann,"),
        ("{{contact.name}}{{contact.name|x}}", "AnnAnn"),
        ("Dear {{ contact.company | customer | or so }}!", "Dear customer | or so!"),
        ("From {{ contact.company | }}.", "From ."),
        ("In {{ contact.city | town }}", "In "),
        ("{ not one } }} and } {", "{ not one } }} and } {"),
        ("{{{ contact.name }}}", "{Ann}"),
        ("", ""),
    ],
)
def test_placeholder_gives_the_value_or_its_fallback(text, rendered):
    """Everything else stays as it is."""
    assert render(text, ANN) == rendered


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{{ contact.phone }} {{ contact.company }} {{ contact.name }}", "certain: contact.company, contact.phone: "),
        ("{{ name | there }}", "no placeholders 'name'"),
        ("{{ contact.name", "is not closed"),
        ("{{ contact.name | " + "x" * 300 + " }}", "too long"),
        ("{{}}", "no placeholders ''"),
    ],
)
def test_placeholder_that_cannot_be_filled_is_refused(text, words):
    """The error names each, and says what to write."""
    with pytest.raises(ValueError, match=words):
        render(text, ANN)


def test_value_is_no_template_and_no_markup():
    """What somebody is called says nothing to the parser, nor to who shows HTML."""
    values = {"contact.name": "{{ contact.email }}<b>"}

    assert render("Hi {{ contact.name }}", values, escape=html.escape) == "Hi {{ contact.email }}&lt;b&gt;"


def test_only_what_was_attested_is_known():
    """A name that somebody typed, or an address that is but a note, is none."""
    contact = Contact(
        id=1,
        created_at=NOON,
        how="page",
        identifiers=(
            held("email", "ann@shop.example", Trust.PROVEN),
            held("email", "ann@old.example", Trust.CHANNEL),
            held("phone", "+4930901820", Trust.ASSERTED),
            held("visitor", "v1", Trust.PROVEN),
        ),
        traits={"name": trait("Ann", Trust.AGENT), "company": trait("Evil", Trust.ASSERTED)},
    )

    assert contact_values(contact) == {"contact.name": "Ann", "contact.email": "Ann@Shop.Example"}


@pytest.mark.parametrize("piece", ["{{", "{{ contact.name }}", "{{ x", "{", "}}"])
def test_long_text_takes_time_in_proportion(piece):
    """Whatever it is made of."""

    def work(text):
        with suppress(ValueError):
            render(text, ANN)

    assert is_linear(work, lambda size: piece * (size // len(piece)))
