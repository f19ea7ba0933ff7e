from datetime import timedelta

import pytest

from convsdk.core.inbox import Filing
from convsdk.core.model import Direction, Identifier, Message, Trust
from convsdk.core.ways import PRESENT_FOR, Address, Situation, Way, choose_way, is_there, objection, recipient, spelling
from convsdk.errors import Conflict, UnsupportedError
from convsdk.testing.builders import NOON

ANN = Identifier("email", "", "ann@shop.example")
OLD = Identifier("email", "", "ann@old.example")
ACCOUNT = Identifier("external_id", "shop", "42")


def chat(identifier=ANN, trust=Trust.ASSERTED):
    """Give a conversation in the widget."""
    return Filing(
        id=7, channel="site", thread="v1", opened=(NOON, "1"), last_at=NOON, identifier=identifier, trust=trust
    )


def address(identifier=ANN, trust=Trust.ASSERTED, refusal="", **more):
    """Give an address of the contact."""
    return Address(identifier=identifier, spelling=identifier.value.title(), trust=trust, refusal=refusal, **more)


def situation(filing=None, *addresses, **more):
    """Give a situation in which nobody looks, and mail can go."""
    given = {"is_shown": True, "follow_up": "support", "filing": filing or chat(), "addresses": addresses}
    return Situation(**given | more)


def message(**detail):
    """Give an outbound message with that detail."""
    return Message(
        id=1,
        conversation=7,
        channel="support",
        external_id="1",
        direction=Direction.OUTBOUND,
        at=NOON,
        text="Hi",
        detail=detail or None,
    )


def test_visitor_who_is_there_reads_it_in_the_widget():
    """Mail goes to nobody who looks."""
    way = choose_way(situation(chat(), address(), is_present=True))

    assert way == Way(channel="site", why="the visitor is there")


def test_visitor_who_is_gone_is_answered_at_the_address_they_typed():
    """That is what they asked for; it is written as they spelt it."""
    way = choose_way(situation(chat(), address()))

    assert way == Way(channel="support", why="the visitor is not there", to=ANN, spelling="Ann@Shop.Example")


@pytest.mark.parametrize(("wish", "to"), [("site", None), ("support", ANN)])
def test_explicit_choice_wins(wish, to):
    """Whoever chooses knows better, whether the visitor is there or not."""
    ways = [choose_way(situation(chat(), address(), is_present=there), wish) for there in (True, False)]

    assert [(one.channel, one.to, one.why) for one in ways] == [(wish, to, "it was chosen")] * 2


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"follow_up": ""}, "the visitor is not there, and no e-mail channel follows 'site' up"),
        ({"addresses": ()}, "the visitor is not there, and there is no address to which this may be written"),
        ({"addresses": (address(refusal="it bounced"),)}, "the visitor is not there, and it bounced"),
    ],
)
def test_widget_keeps_what_cannot_go_by_mail(given, why):
    """It is read when they come back, and the agent is told why it did not go."""
    way = choose_way(situation(chat(), **{"addresses": (address(),)} | given))

    assert way == Way(channel="site", why=why)


def test_claim_is_answered_nowhere_but_where_it_was_made():
    """Who only claims to be Ann gets no answer sent to addresses that Ann proved."""
    claimed = situation(chat(ACCOUNT), address(ANN, Trust.PROVEN), address(OLD, Trust.CHANNEL))

    assert choose_way(claimed).to is None


def test_typed_address_is_for_what_nobody_has_proven_alone():
    """It is where whoever claims an account wants to be answered, by a person and until the account speaks."""
    typed = Address(identifier=OLD, spelling=OLD.value, trust=Trust.ASSERTED, is_typed_here=True)

    claimed = choose_way(situation(chat(ACCOUNT), typed))
    automatic = choose_way(situation(chat(ACCOUNT), typed, is_automatic=True))
    proven = choose_way(situation(chat(ACCOUNT, Trust.PROVEN), typed))

    assert (claimed.to, automatic.to, proven.to) == (OLD, None, None)


def test_what_is_proven_goes_to_no_address_that_was_only_typed():
    """Somebody else can have typed it, and would read what the owner of the account is told."""
    proven = situation(chat(ACCOUNT, Trust.PROVEN), address(OLD), address(ANN, Trust.CHANNEL))
    only_typed = situation(chat(ACCOUNT, Trust.PROVEN), address(OLD))

    assert choose_way(proven).to == ANN
    assert choose_way(only_typed).to is None


def test_best_attested_address_is_written_to_that_takes_mail():
    """The conversation's own comes first, then by trust; one that refuses is passed over."""
    others = (address(OLD, Trust.PROVEN), address(ANN, Trust.CHANNEL))

    own = choose_way(situation(chat(ANN, Trust.CHANNEL), *others))
    best = choose_way(situation(chat(ACCOUNT, Trust.PROVEN), *others))
    next_best = choose_way(
        situation(chat(ACCOUNT, Trust.PROVEN), address(OLD, Trust.PROVEN, refusal="no"), address(ANN, Trust.CHANNEL))
    )

    assert [own.to, best.to, next_best.to] == [ANN, OLD, ANN]


def test_program_writes_to_no_address_that_was_only_typed():
    """Else whoever types an address has it written to."""
    claimed = choose_way(situation(chat(), address(), is_automatic=True))
    proven = choose_way(situation(chat(ANN, Trust.PROVEN), address(ANN, Trust.PROVEN), is_automatic=True))

    assert (claimed.to, proven.to) == (None, ANN)


@pytest.mark.parametrize(
    ("given", "wish", "error", "words"),
    [
        ({}, "pager", UnsupportedError, "conversation 7 cannot be answered by 'pager': choose 'site' or 'support'"),
        ({"follow_up": ""}, "support", UnsupportedError, "by 'support': choose 'site'"),
        ({"addresses": ()}, "support", UnsupportedError, "there is no address to which this may be written"),
        ({"addresses": (address(refusal="it bounced"),)}, "support", Conflict, "by mail: it bounced"),
        ({"is_shown": False, "addresses": ()}, "", UnsupportedError, "in no browser where a widget would show it"),
        ({"is_shown": False}, "site", UnsupportedError, "in no browser where a widget would show it"),
        ({"is_shown": False, "addresses": (address(refusal="it bounced"),)}, "", Conflict, "it bounced"),
    ],
)
def test_where_there_is_no_way_that_is_said(given, wish, error, words):
    """With what is in the way, and what could be chosen."""
    with pytest.raises(error, match=words):
        choose_way(situation(chat(), **{"addresses": (address(),)} | given), wish)


@pytest.mark.parametrize(
    ("addresses", "words"),
    [
        ((address(),), ""),
        ((address(refusal="it bounced"),), "it bounced"),
        ((address(refusal="it bounced"), address(is_typed_here=True)), ""),
        ((address(OLD, Trust.PROVEN),), "email:ann@shop.example is no address any more"),
    ],
)
def test_what_waits_is_asked_again_whether_it_may_go(addresses, words):
    """Its address can have bounced, or be nobody's of the conversation by now."""
    found = objection(situation(chat(), *addresses), ANN)

    assert found.startswith(words)
    assert bool(found) == bool(words)


def test_message_knows_to_whom_it_goes():
    """By mail to the address that was chosen then; any other to whom its conversation is filed under."""
    mailed = message(way={"channel": "support", "to": OLD.value, "address": "Ann@old.example"})
    shown = message(way={"channel": "site", "why": "the visitor is there"})

    assert (recipient(mailed, chat()), spelling(mailed)) == (OLD, "Ann@old.example")
    assert (recipient(shown, chat()), spelling(shown)) == (ANN, "")
    assert recipient(message(), chat(None, None)) is None


def test_sign_of_life_holds_for_a_while():
    """Who was seen 75 seconds ago is gone, as is who was never seen."""
    assert is_there(NOON, NOON + PRESENT_FOR - timedelta(seconds=1))
    assert not is_there(NOON, NOON + PRESENT_FOR)
    assert not is_there(None, NOON)
