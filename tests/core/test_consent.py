from datetime import UTC, datetime, timedelta

import pytest

from convsdk.core.consent import (
    ConsentRecord,
    ConsentState,
    ListState,
    Membership,
    Permission,
    current,
    may_write,
    membership,
    refusal,
    state_of,
)
from convsdk.core.model import Claim, ConsentSignal, Identifier, Trust

START = datetime(2026, 1, 1, tzinfo=UTC)
ANN = Identifier("email", "", "ann@x.example")
ANNS_PHONE = Identifier("phone", "", "+4930123456")
GRANTED, PENDING = ConsentState.GRANTED, ConsentState.PENDING
WITHDRAWN, DENIED = ConsentState.WITHDRAWN, ConsentState.DENIED


def said(state, day=0, *, identifier=ANN, purpose="marketing", hint="h"):
    """Give a consent statement, some days after the start."""
    at = START + timedelta(days=day)
    return ConsentRecord(identifier=identifier, purpose=purpose, state=state, at=at, hint=hint, trust=Trust.PROVEN)


def listed(state, day=0, *, contact=1, name="news"):
    """Give a list record, some days after the start."""
    return Membership(contact=contact, list=name, state=state, at=START + timedelta(days=day))


def signal(*, granted, withdrawn=False):
    """Give a yes or a no."""
    claim = Claim("email", "ann@x.example", Trust.PROVEN)
    return ConsentSignal(claim=claim, purpose="marketing", granted=granted, withdrawn=withdrawn)


@pytest.mark.parametrize(
    ("granted", "withdrawn", "trust", "state"),
    [
        (True, False, Trust.ASSERTED, PENDING),
        (True, False, Trust.AGENT, GRANTED),
        (True, False, Trust.CHANNEL, GRANTED),
        (True, False, Trust.PROVEN, GRANTED),
        (False, False, Trust.ASSERTED, DENIED),
        (False, False, Trust.PROVEN, DENIED),
        (False, True, Trust.ASSERTED, WITHDRAWN),
        (True, True, Trust.PROVEN, WITHDRAWN),
    ],
)
def test_signal_stands_for_a_state(granted, withdrawn, trust, state):
    """Anybody may say no at once; a yes that nobody attested waits for its confirmation."""
    assert state_of(signal(granted=granted, withdrawn=withdrawn), trust) is state


def test_statements_are_ordered_by_time_then_hint():
    """Of two statements at one moment, the hint's id decides which is the later."""
    record = said(GRANTED, 1, hint="h7")

    assert record.order == (START + timedelta(days=1), "h7")


def test_optional_facts_of_a_statement_are_empty():
    """Who, where and which words are blank where nobody told them."""
    record = said(GRANTED)

    assert (record.by, record.where, record.wording, record.wording_version) == ("", "", "", "")


def test_nothing_said_is_nothing():
    """Without a statement for the purpose, none counts."""
    assert current([], "marketing") is None
    assert current([said(GRANTED, purpose="surveys")], "marketing") is None


@pytest.mark.parametrize(
    ("states", "counting"),
    [
        ([GRANTED], 0),
        ([GRANTED, WITHDRAWN], 1),
        ([WITHDRAWN, GRANTED], 1),
        ([GRANTED, DENIED], 1),
        ([GRANTED, PENDING], 0),
        ([GRANTED, PENDING, PENDING], 0),
        ([GRANTED, PENDING, WITHDRAWN], 2),
        ([GRANTED, GRANTED], 1),
        ([PENDING], 0),
        ([PENDING, PENDING], 1),
        ([WITHDRAWN, PENDING], 1),
        ([DENIED, PENDING], 1),
        ([PENDING, GRANTED], 1),
        ([GRANTED, WITHDRAWN, PENDING], 2),
    ],
)
def test_newest_statement_counts(states, counting):
    """The newest counts, in any order of arrival, but a request changes nothing about a granted consent."""
    records = [said(state, day, hint=f"h{day}") for day, state in enumerate(states)]

    assert current(records, "marketing") is records[counting]
    assert current(reversed(records), "marketing") is records[counting]


def test_later_hint_counts_at_one_moment():
    """Two statements at one moment are told apart by the ids of their hints."""
    first, second = said(GRANTED, hint="a"), said(WITHDRAWN, hint="b")

    assert current([second, first], "marketing") is second


def test_other_purpose_does_not_count():
    """A withdrawal from one purpose leaves another as it was."""
    granted = said(GRANTED, 0)

    assert current([granted, said(WITHDRAWN, 1, purpose="surveys")], "marketing") is granted


# -- lists

ON, OFF = ListState.SUBSCRIBED, ListState.UNSUBSCRIBED


@pytest.mark.parametrize(
    ("records", "state"),
    [
        ([], None),
        ([listed(ON, name="other")], None),
        ([listed(OFF, name="other")], None),
        ([listed(ON)], ON),
        ([listed(OFF)], OFF),
        ([listed(ON, 0), listed(OFF, 1)], OFF),
        ([listed(OFF, 0), listed(ON, 1)], ON),
        ([listed(ON, 1), listed(OFF, 0)], ON),
        ([listed(OFF, 1), listed(ON, 0)], OFF),
        ([listed(OFF, 0), listed(ON, 0)], ON),
        ([listed(ON, 0), listed(OFF, 0)], OFF),
        ([listed(ON, 5, contact=1), listed(OFF, 0, contact=2)], OFF),
        ([listed(OFF, 0, contact=1), listed(ON, 5, contact=2)], OFF),
        ([listed(ON, 0, contact=1), listed(ON, 5, contact=2)], ON),
        ([listed(OFF, 0, contact=1), listed(ON, 1, contact=1), listed(ON, 5, contact=2)], ON),
        ([listed(ON, 0), listed(OFF, 1, name="other")], ON),
    ],
)
def test_membership_is_the_newest_of_each_contact(records, state):
    """Each merged contact counts with its newest record, the last of one moment, and one that left speaks for all."""
    assert membership(iter(records), "news") is state


def test_optional_facts_of_a_membership_are_empty():
    """How and by whom are blank where nobody told them."""
    record = listed(ON)

    assert (record.how, record.by) == ("", "")


# -- may we write?


def test_permission_is_its_answer():
    """A permission can be asked as a condition."""
    assert Permission(is_given=True)
    assert not Permission(is_given=False)
    assert Permission(is_given=True).missing == ()


def test_granted_consent_permits():
    """Who granted it, at the identifier in question, may be written to."""
    answer = may_write(ANN, "marketing", [said(GRANTED)])

    assert answer == Permission(is_given=True, missing=())


def test_nobody_asked_is_no_permission():
    """Nothing said is a no, also where another identifier or another purpose was granted."""
    records = [said(GRANTED, identifier=ANNS_PHONE), said(GRANTED, purpose="surveys")]

    answer = may_write(ANN, "marketing", records)

    assert answer == Permission(is_given=False, missing=("email:ann@x.example was never asked about marketing",))


@pytest.mark.parametrize(("state", "word"), [(PENDING, "pending"), (WITHDRAWN, "withdrawn"), (DENIED, "denied")])
def test_anything_but_a_grant_is_no_permission(state, word):
    """The answer says what stands in the way."""
    answer = may_write(ANN, "marketing", [said(GRANTED, identifier=ANNS_PHONE), said(state, 1)])

    assert answer == Permission(is_given=False, missing=(f"email:ann@x.example is {word} for marketing",))


def test_newer_withdrawal_elsewhere_forbids():
    """Who withdrew at one identifier after granting at another does not want to be written to."""
    answer = may_write(ANN, "marketing", [said(GRANTED, 0), said(WITHDRAWN, 1, identifier=ANNS_PHONE)])

    assert answer.missing == ("phone:+4930123456, the same person, has withdrawn from marketing",)
    assert not answer


@pytest.mark.parametrize(
    "other",
    [
        said(WITHDRAWN, 0, identifier=ANNS_PHONE),
        said(WITHDRAWN, 1, identifier=ANNS_PHONE, hint="h"),
        said(DENIED, 2, identifier=ANNS_PHONE),
        said(PENDING, 2, identifier=ANNS_PHONE),
        said(GRANTED, 2, identifier=ANNS_PHONE),
        said(WITHDRAWN, 2, identifier=ANNS_PHONE, purpose="surveys"),
    ],
)
def test_what_was_said_elsewhere_and_is_no_newer_withdrawal_forbids_nothing(other):
    """An older withdrawal, another state and another purpose leave the consent as it is."""
    answer = may_write(ANN, "marketing", [said(GRANTED, 1), other])

    assert answer == Permission(is_given=True)


def test_withdrawal_that_was_taken_back_forbids_nothing():
    """Only the newest statement of the other identifier counts."""
    records = [
        said(GRANTED, 0),
        said(WITHDRAWN, 1, identifier=ANNS_PHONE),
        said(GRANTED, 2, identifier=ANNS_PHONE),
    ]

    assert may_write(ANN, "marketing", records) == Permission(is_given=True)


def test_every_withdrawal_elsewhere_is_named_in_order():
    """Each other identifier that withdrew is named once, in the order of identifiers."""
    second = Identifier("email", "", "ann@work.example")
    records = [
        said(WITHDRAWN, 2, identifier=ANNS_PHONE),
        said(WITHDRAWN, 1, identifier=second, hint="a"),
        said(WITHDRAWN, 2, identifier=second, hint="b"),
        said(GRANTED, 0),
    ]

    answer = may_write(ANN, "marketing", records)

    assert answer.missing == (
        "email:ann@work.example, the same person, has withdrawn from marketing",
        "phone:+4930123456, the same person, has withdrawn from marketing",
    )


@pytest.mark.parametrize("memberships", [[], [listed(OFF)], [listed(ON, name="other")], [listed(ON), listed(OFF, 1)]])
def test_list_needs_a_subscription(memberships):
    """Consent alone puts nobody on a list."""
    answer = may_write(ANN, "marketing", [said(GRANTED)], list_name="news", memberships=memberships)

    assert answer == Permission(is_given=False, missing=("the contact is not subscribed to news",))


def test_subscription_with_consent_permits():
    """Both records together are a yes."""
    answer = may_write(ANN, "marketing", [said(GRANTED)], list_name="news", memberships=[listed(ON)])

    assert answer == Permission(is_given=True)


def test_subscription_without_consent_does_not_permit():
    """Being on a list implies no consent."""
    answer = may_write(ANN, "marketing", [], list_name="news", memberships=[listed(ON)])

    assert answer.missing == ("email:ann@x.example was never asked about marketing",)


def test_everything_missing_is_named():
    """The answer names the consent first, then the list."""
    answer = may_write(ANN, "marketing", [], list_name="news")

    assert answer == Permission(
        is_given=False,
        missing=("email:ann@x.example was never asked about marketing", "the contact is not subscribed to news"),
    )


def test_lists_do_not_matter_where_none_is_asked_for():
    """Without a list in question, having left one forbids nothing."""
    answer = may_write(ANN, "marketing", [said(GRANTED)], memberships=[listed(OFF)])

    assert answer == Permission(is_given=True)


@pytest.mark.parametrize(
    ("records", "told"),
    [
        ([], ""),
        ([said(PENDING)], ""),
        ([said(GRANTED)], ""),
        ([said(WITHDRAWN)], f"{ANN} is withdrawn for marketing"),
        ([said(DENIED)], f"{ANN} is denied for marketing"),
        # A request that waits for its confirmation takes no refusal back; a yes does.
        ([said(WITHDRAWN), said(PENDING, 1)], f"{ANN} is withdrawn for marketing"),
        ([said(WITHDRAWN), said(GRANTED, 1)], ""),
        ([said(WITHDRAWN, purpose="news")], ""),
        # At another identifier of the same person a withdrawal counts, a denial does not.
        ([said(WITHDRAWN, identifier=ANNS_PHONE)], f"{ANNS_PHONE}, the same person, has withdrawn from marketing"),
        ([said(DENIED, identifier=ANNS_PHONE)], ""),
        (
            [said(GRANTED), said(WITHDRAWN, 1, identifier=ANNS_PHONE)],
            f"{ANNS_PHONE}, the same person, has withdrawn from marketing",
        ),
        ([said(GRANTED, 1), said(WITHDRAWN, identifier=ANNS_PHONE)], ""),
    ],
)
def test_what_needs_no_consent_is_stopped_by_a_no_alone(records, told):
    """Nobody has to have been asked; whoever said no is not written to, and the reason says where."""
    assert refusal(ANN, "marketing", records) == told
