from datetime import UTC, datetime, timedelta
from functools import reduce
from itertools import permutations, product

import pytest

from convsdk.core.events import DeliveryStatus
from convsdk.core.fold import Evidence
from convsdk.core.inbox import MOST_PARTICIPANTS, ConversationStatus, Filing, advance, choose
from convsdk.core.model import Direction, Identifier, Trust

START = datetime(2026, 1, 1, tzinfo=UTC)
ANN = Identifier("email", "", "ann@x.example")
BOB = Identifier("email", "", "bob@x.example")
EVE = Identifier("email", "", "eve@x.example")
COOKIE = Identifier("visitor", "", "v1")
OTHER_COOKIE = Identifier("visitor", "", "v2")
QUEUED, SENT = DeliveryStatus.QUEUED, DeliveryStatus.SENT
DELIVERED, READ, FAILED = DeliveryStatus.DELIVERED, DeliveryStatus.READ, DeliveryStatus.FAILED


def filing(**fields):
    """Give a conversation without anybody in it yet."""
    defaults = {"id": 1, "channel": "shop", "thread": "", "opened": (START, "h0"), "last_at": START}
    return Filing(**(defaults | fields))


def evidence(**fields):
    """Give what a message attests."""
    return Evidence(**({"hint": "h1", "at": START} | fields))


def after(one, said=None, *, day=0, direction=Direction.INBOUND, is_automatic=False, **more):
    """Give the conversation after one more message."""
    at = START + timedelta(days=day)
    return one.with_message(said or evidence(), at, direction, is_automatic=is_automatic, **more)


def test_new_conversation_is_open_and_empty():
    """A conversation starts open, unread by nobody, with no person and no assignee."""
    one = filing()

    assert one.status is ConversationStatus.OPEN
    assert (one.messages, one.unread, one.assignee, one.subject) == (0, 0, "", "")
    assert (one.identifier, one.visitor, one.trust) == (None, None, None)


@pytest.mark.parametrize(
    ("trust", "is_verified"),
    [(None, False), (Trust.ASSERTED, False), (Trust.AGENT, False), (Trust.CHANNEL, True), (Trust.PROVEN, True)],
)
def test_attested_person_makes_a_verified_conversation(trust, is_verified):
    """What was only claimed, or entered by staff, is not verified."""
    assert filing(trust=trust).is_verified is is_verified


@pytest.mark.parametrize(
    ("identifier", "visitor", "anchor", "cookie", "takes"),
    [
        # A message that only claims to be somebody's goes to that person's conversation from the same browser.
        (ANN, None, ANN, None, True),
        (ANN, COOKIE, ANN, COOKIE, True),
        (ANN, COOKIE, ANN, OTHER_COOKIE, False),
        (ANN, COOKIE, ANN, None, False),
        (ANN, None, ANN, COOKIE, False),
        (ANN, COOKIE, BOB, COOKIE, False),
        # It goes to a nameless one only from the same browser.
        (None, COOKIE, ANN, COOKIE, True),
        (None, COOKIE, ANN, OTHER_COOKIE, False),
        (None, COOKIE, ANN, None, False),
        (None, None, ANN, None, True),
        # A nameless message goes where its browser was.
        (ANN, COOKIE, None, COOKIE, True),
        (None, COOKIE, None, COOKIE, True),
        (ANN, COOKIE, None, OTHER_COOKIE, False),
        (None, COOKIE, None, None, False),
        (ANN, COOKIE, None, None, False),
        # Without a cookie on either side, it never goes to a person's conversation.
        (ANN, None, None, None, False),
        (None, None, None, None, True),
    ],
)
def test_conversation_takes_its_own_person_or_browser(identifier, visitor, anchor, cookie, takes):
    """A message belongs to the conversation of the same person, or of the same nameless browser."""
    one = filing(identifier=identifier, visitor=visitor)

    assert one.takes(evidence(anchor=anchor, visitor=cookie)) is takes


def test_attested_person_is_taken_from_any_browser():
    """Whoever is attested goes on in a conversation of their own wherever they write from."""
    one = filing(identifier=ANN, visitor=COOKIE, trust=Trust.CHANNEL)

    assert one.takes(evidence(anchor=ANN, trust=Trust.CHANNEL, visitor=OTHER_COOKIE))
    assert not one.takes(evidence(anchor=BOB, trust=Trust.PROVEN, visitor=COOKIE))


def test_claim_is_not_let_into_a_verified_conversation():
    """Without a cookie on either side, an address that was only claimed opens a conversation beside the proven one."""
    claim = evidence(anchor=ANN, trust=Trust.ASSERTED)

    assert not filing(identifier=ANN, trust=Trust.CHANNEL).takes(claim)
    assert filing(identifier=ANN, trust=Trust.ASSERTED).takes(claim)


@pytest.mark.parametrize(
    ("filed", "trust", "anchor", "attested", "takes"),
    [
        # Whom it is filed by, and whom its messages were written to, go on in it.
        (ANN, Trust.CHANNEL, ANN, Trust.CHANNEL, True),
        (ANN, Trust.CHANNEL, BOB, Trust.CHANNEL, True),
        (ANN, Trust.ASSERTED, ANN, Trust.CHANNEL, True),
        (ANN, Trust.ASSERTED, BOB, Trust.CHANNEL, True),
        # A claim to be one of them does so only where there is no more than a claim.
        (ANN, Trust.ASSERTED, ANN, Trust.ASSERTED, True),
        (ANN, Trust.ASSERTED, BOB, Trust.ASSERTED, True),
        (ANN, Trust.CHANNEL, ANN, Trust.ASSERTED, False),
        (ANN, Trust.CHANNEL, BOB, Trust.ASSERTED, False),
        # Everybody else does not, even where nobody is named.
        (ANN, Trust.ASSERTED, EVE, Trust.PROVEN, False),
        (None, None, EVE, Trust.PROVEN, False),
        (None, None, BOB, Trust.CHANNEL, True),
    ],
)
def test_answer_of_a_participant_is_taken(filed, trust, anchor, attested, takes):
    """To know a message's id is not enough, to be one of those whom it was written to is."""
    one = filing(identifier=filed, trust=trust, participants=(BOB,))

    assert one.takes_answer(evidence(anchor=anchor, trust=attested)) is takes


def test_participant_is_not_let_into_what_a_browser_shows():
    """A conversation with a cookie on either side is as closed to an answer as to any message."""
    shown = filing(identifier=ANN, visitor=COOKIE, trust=Trust.ASSERTED, participants=(BOB,))
    mailed = filing(identifier=ANN, trust=Trust.ASSERTED, participants=(BOB,))

    assert not shown.takes_answer(evidence(anchor=BOB, trust=Trust.PROVEN))
    assert not mailed.takes_answer(evidence(anchor=BOB, trust=Trust.PROVEN, visitor=COOKIE))
    assert shown.takes_answer(evidence(visitor=COOKIE))


@pytest.mark.parametrize(
    ("trust", "anchor", "attested", "takes"),
    [
        (Trust.PROVEN, BOB, Trust.CHANNEL, True),
        (Trust.CHANNEL, BOB, Trust.PROVEN, True),
        # Who is not attested, or was not written to, is let in nowhere; nor is anybody into what was only claimed.
        (Trust.PROVEN, BOB, Trust.ASSERTED, False),
        (Trust.PROVEN, BOB, Trust.AGENT, False),
        (Trust.PROVEN, EVE, Trust.PROVEN, False),
        (Trust.AGENT, BOB, Trust.PROVEN, False),
        (Trust.ASSERTED, BOB, Trust.PROVEN, False),
        (Trust.ASSERTED, ANN, Trust.PROVEN, False),
    ],
)
def test_answer_to_a_follow_up_comes_back_where_both_sides_are_attested(trust, anchor, attested, takes):
    """Whoever only claimed to be Ann would read in their browser what Ann answers by mail."""
    chat = filing(identifier=ANN, visitor=COOKIE, trust=trust).written_to(BOB)

    assert chat.takes_answer(evidence(anchor=anchor, trust=attested)) is takes


def test_conversation_in_review_takes_no_answer():
    """Nothing is mixed with what nobody has looked at, and a message leaves it there."""
    one = filing(status=ConversationStatus.REVIEW, participants=(BOB,))

    assert not one.takes_answer(evidence(anchor=BOB, trust=Trust.PROVEN))
    assert after(one).status is ConversationStatus.REVIEW


def test_participants_are_gathered_and_bounded():
    """Each is kept once, in order; the first stay where there are too many."""
    many = [Identifier("email", "", f"p{number}@x.example") for number in range(MOST_PARTICIPANTS)]

    one = after(filing(participants=(BOB,)), participants=(ANN, BOB))
    full = after(one, participants=many)

    assert one.participants == (BOB, ANN)
    assert after(one).participants == (BOB, ANN)
    assert full.participants == (BOB, ANN, *many[:-2])


def test_first_name_files_a_nameless_conversation():
    """The first message that names somebody files the conversation, with its trust and cookie."""
    one = after(filing(), evidence(anchor=ANN, trust=Trust.PROVEN, visitor=COOKIE))

    assert (one.identifier, one.trust, one.visitor) == (ANN, Trust.PROVEN, COOKIE)


def test_filed_conversation_is_never_filed_anew():
    """Later names, better trust and other cookies change nothing about where it is filed."""
    filed = filing(identifier=ANN, trust=Trust.ASSERTED, visitor=COOKIE)

    one = after(filed, evidence(anchor=BOB, trust=Trust.PROVEN, visitor=OTHER_COOKIE))

    assert (one.identifier, one.trust, one.visitor) == (ANN, Trust.ASSERTED, COOKIE)


def test_nameless_message_files_nothing():
    """Without an anchor the conversation stays nameless and has no trust."""
    one = after(filing(), evidence(visitor=COOKIE))

    assert (one.identifier, one.trust, one.visitor) == (None, None, COOKIE)


def test_message_is_counted_and_keeps_the_latest_time():
    """A late message counts but does not turn the clock back."""
    one = after(after(filing(), day=3), day=1)

    assert (one.messages, one.unread, one.last_at) == (2, 2, START + timedelta(days=3))


def test_answer_is_read():
    """Whoever answers has read what was there."""
    one = after(filing(unread=4, messages=4), direction=Direction.OUTBOUND)

    assert (one.unread, one.messages) == (0, 5)


@pytest.mark.parametrize(
    ("direction", "is_automatic"), [(Direction.OUTBOUND, True), (Direction.LINE, False), (Direction.NOTE, False)]
)
def test_what_nobody_answered_stays_unread(direction, is_automatic):
    """An automatic answer, a line or a note says nothing of whether somebody has read what was there."""
    one = after(filing(unread=4), direction=direction, is_automatic=is_automatic)

    assert one.unread == 4


@pytest.mark.parametrize(
    ("direction", "is_automatic", "status"),
    [
        (Direction.INBOUND, False, ConversationStatus.OPEN),
        (Direction.INBOUND, True, ConversationStatus.COMPLETE),
        (Direction.OUTBOUND, False, ConversationStatus.COMPLETE),
    ],
)
def test_only_a_person_reopens(direction, is_automatic, status):
    """A complete conversation opens when a person writes, not for an out-of-office reply and not for an answer."""
    one = after(filing(status=ConversationStatus.COMPLETE), direction=direction, is_automatic=is_automatic)

    assert one.status is status


def test_first_candidate_that_takes_it_is_chosen():
    """The likeliest conversation comes first, but only one that takes the message counts."""
    strange, first, second = filing(id=1, identifier=BOB), filing(id=2, identifier=ANN), filing(id=3, identifier=ANN)

    assert choose([], [strange, first, second], evidence(anchor=ANN)) is first
    assert choose([], [strange], evidence(anchor=ANN)) is None
    assert choose([], [], evidence(anchor=ANN)) is None


def test_what_is_answered_goes_before_the_thread():
    """The conversation of an answered message comes before one of the thread, if it takes the answer."""
    strange, answered, threaded = filing(id=1, identifier=BOB), filing(id=2, identifier=ANN), filing(id=3)

    assert choose([strange, answered], [threaded], evidence(anchor=ANN)) is answered
    assert choose([strange], [threaded], evidence(anchor=ANN)) is threaded


@pytest.mark.parametrize(
    ("status", "report", "result"),
    [
        (QUEUED, SENT, SENT),
        (SENT, DELIVERED, DELIVERED),
        (DELIVERED, READ, READ),
        (READ, DELIVERED, READ),
        (DELIVERED, SENT, DELIVERED),
        (SENT, QUEUED, SENT),
        (SENT, SENT, SENT),
        (QUEUED, FAILED, FAILED),
        (SENT, FAILED, FAILED),
        (DELIVERED, FAILED, DELIVERED),
        (READ, FAILED, READ),
        (FAILED, FAILED, FAILED),
        (FAILED, QUEUED, FAILED),
        (FAILED, SENT, FAILED),
        (FAILED, DELIVERED, DELIVERED),
        (FAILED, READ, READ),
    ],
)
def test_delivery_never_moves_back(status, report, result):
    """Late and doubled reports change nothing; a failure counts until the message has arrived after all."""
    assert advance(status, report) is result


@pytest.mark.parametrize("reports", list(product(DeliveryStatus, repeat=3)))
def test_delivery_is_the_same_in_whatever_order_it_is_reported(reports):
    """Of every three reports, doubled ones and overtaking ones among them, the outcome is that of the best."""
    ranks = [QUEUED, SENT, FAILED, DELIVERED, READ]

    outcomes = {reduce(advance, order) for order in permutations(reports)}

    assert outcomes == {max(reports, key=ranks.index)}
