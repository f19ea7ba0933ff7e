from contextlib import closing
from datetime import timedelta

import pytest
from servers import STORES, fresh_store

from convsdk.channels.chat import ChatChannel, ChatSettings
from convsdk.core.blocks import (
    AskBlock,
    AutomationBlock,
    BranchBlock,
    Choice,
    ChooseBlock,
    EndBlock,
    FormBlock,
    HandOverBlock,
    SayBlock,
)
from convsdk.core.events import FieldProblem, FormRejected, Identified, MessageReceived, Noted
from convsdk.core.flow import Flow, Trigger
from convsdk.core.model import Claim, Direction, IdentityHint, Trait, Trust
from convsdk.hub import Hub
from convsdk.store import open_store
from convsdk.testing.builders import NOON, FakeClock, hint

ASKING = (
    SayBlock(id="hello", text="Hello!"),
    ChooseBlock(
        id="topic",
        text="What is it about?",
        choices=(
            Choice(value="order", label="An order", next="order"),
            Choice(value="hours", label="Opening hours", next="hours"),
        ),
    ),
    SayBlock(id="hours", text="We are open from 9 to 5.", next="topic"),
    AskBlock(id="order", text="Which order?", trait="order_number"),
    FormBlock(id="who", form="contact", text="Who are you?"),
    AutomationBlock(id="enter", name="orders"),
    HandOverBlock(id="people", to="kim", text="Kim takes over."),
)


@pytest.fixture(params=STORES)
def store(request, tmp_path):
    """Give an empty store of each kind that ships."""
    with closing(open_store(fresh_store(request.param, tmp_path))) as store:
        yield store


def shop(store, *blocks, trigger=None):
    """Give a hub with a chat on which a bot with `blocks` talks, as after a start of the program."""
    flow = Flow(trigger=trigger or Trigger(on="open"), blocks=blocks or ASKING)
    return Hub(store, channels=[ChatChannel("chat", ChatSettings(bot=flow))], clock=FakeClock())


def nobody(minute=0):
    """Give the hint of a browser of which nothing more is known."""
    return hint(visitor="v1", at=NOON + timedelta(minutes=minute))


def opened(minute=0):
    """Give the event that says that the visitor opened the chat."""
    return Noted(
        external_id="opened", kind="chat_opened", at=NOON, hint=nobody(minute), thread="v1", text="opened the chat"
    )


def wrote(number, text="", **fields):
    """Give a message of the visitor."""
    said = {"hint": nobody(number), "thread": "v1"} | fields
    return MessageReceived(external_id=f"m{number}", at=NOON + timedelta(minutes=number), text=text, **said)


def filled(number, email="ann@shop.example", **fields):
    """Give a form that the visitor filled in."""
    said = IdentityHint(
        at=NOON + timedelta(minutes=number),
        visitor="v1",
        identifiers=(Claim("email", email, Trust.ASSERTED),),
        how="chat form",
    )
    return Identified(external_id=f"f{number}", hint=said, thread="v1", **({"block": "who"} | fields))


def said(hub):
    """Give what was said in the visitor's conversation, by the bot and by agents, in order."""
    (conversation,) = hub.conversations()
    return [one.text for one in hub.messages(conversation.id) if one.direction is Direction.OUTBOUND][::-1]


def notices(hub, kind):
    """Give the payloads of all notices of one kind, in order."""
    return [one.payload for one in hub.store.notices(hub.workspace, since=0, limit=1000) if one.type == kind]


def test_bot_talks_from_the_opening_to_the_agent(store):
    """Each answer leads on, also after a new start of the program, until there is a contact and a task for an agent."""
    events = [
        opened(),
        wrote(1, "An order", block="topic", choice="order"),
        wrote(2, "4711", block="order"),
        filled(3),
    ]

    for event in events:
        hub = shop(store)
        hub.receive("chat", [event])

    assert said(hub) == ["Hello!", "What is it about?", "Which order?", "Who are you?", "Kim takes over."]
    (conversation,) = hub.conversations()
    assert conversation.filing.assignee == "kim"
    contact = hub.find("email", "ann@shop.example")
    assert conversation.contact == contact.id
    assert str(contact.traits["order_number"]) == "4711"
    lines = [one.text for one in hub.messages(conversation.id) if one.direction is Direction.LINE]
    assert lines[::-1] == ["opened the chat", "form filled in: email", "assigned to kim"]
    (entered,) = notices(hub, "automation.entered")
    assert entered == {
        "conversation": conversation.id,
        "automation": "orders",
        "contact": contact.id,
        "how": "chat form",
    }
    assert [one["assignee"] for one in notices(hub, "conversation.assigned")] == ["kim"]


def test_what_the_bot_shows_is_with_its_messages(store):
    """Buttons and forms come with the message that asks, so that a widget can draw them."""
    hub = shop(store)

    hub.receive("chat", [opened(), wrote(1, "", block="topic", choice="order"), wrote(2, "4711")])

    (conversation,) = hub.conversations()
    details = [one.detail for one in hub.messages(conversation.id) if one.direction is Direction.OUTBOUND][::-1]
    assert details[1]["choices"] == [
        {"value": "order", "label": "An order"},
        {"value": "hours", "label": "Opening hours"},
    ]
    assert details[-1] == {"block": "who", "form": "contact"}


def test_bot_goes_round_as_often_as_it_is_asked(store):
    """A menu that is come back to answers each time, though the bot then stands where it stood before."""
    hub = shop(store)

    hub.receive("chat", [opened(), *(wrote(turn, block="topic", choice="hours") for turn in (1, 2, 3))])

    assert said(hub).count("We are open from 9 to 5.") == 3


def test_answer_that_comes_twice_is_answered_once(store):
    """A redelivery, and a second tab with a button that is past, make the bot say nothing."""
    hub = shop(store)
    hub.receive("chat", [opened(), wrote(1, block="topic", choice="order")])
    before = said(hub)

    hub.receive("chat", [wrote(1, block="topic", choice="order")])
    hub.receive("chat", [wrote(2, block="topic", choice="order")])

    assert said(hub) == before


def test_form_that_is_sent_back_leaves_the_bot_where_it_is(store):
    """The bot waits on for a form that was wrong, and goes on with the right one."""
    hub = shop(store, FormBlock(id="who", form="contact", text="Who are you?"), EndBlock(id="end", text="Thank you."))
    problem = FieldProblem(field="email", code="invalid", message="Please enter a valid e-mail address.")

    hub.receive("chat", [opened()])
    hub.receive("chat", [FormRejected(external_id="f1#rejected", hint=nobody(1), problems=(problem,), thread="v1")])
    waiting = said(hub)
    hub.receive("chat", [filled(2)])

    assert waiting == ["Who are you?"]
    assert said(hub) == ["Who are you?", "Thank you."]


def test_bot_is_silent_once_an_agent_has_answered(store):
    """Two voices would contradict one another: people go on alone."""
    hub = shop(store)
    hub.receive("chat", [opened()])
    (conversation,) = hub.conversations()

    hub.reply(conversation.id, "Hi, this is Lee.", by="lee")
    hub.receive("chat", [wrote(1, block="topic", choice="order")])

    assert said(hub)[-1] == "Hi, this is Lee."


def test_bot_does_not_join_a_conversation_that_is_older(store):
    """Whoever wrote to people before there was a bot goes on with people."""
    Hub(store, channels=[ChatChannel("chat", ChatSettings())]).receive("chat", [wrote(1, "Hello?")])
    hub = shop(store, trigger=Trigger(on="message"))

    hub.receive("chat", [wrote(2, "Anybody there?")])

    assert said(hub) == []


def test_opening_alone_asks_nobody_to_read(store):
    """A visitor who only looks leaves nothing unread; what the bot says is no answer by a person."""
    hub = shop(store)

    hub.receive("chat", [opened()])
    looked = hub.conversations()[0].filing
    hub.receive("chat", [wrote(1, "Hello?")])

    assert looked.unread == 0
    assert hub.conversations()[0].filing.unread == 1


@pytest.mark.parametrize(("is_staffed", "told"), [(True, "We are here."), (False, "We are away.")])
def test_bot_knows_whether_agents_are_there(store, is_staffed, told):
    """A branch on agents looks at who is on duty at that moment."""
    branch = BranchBlock(id="who", on="agents", then="here", otherwise="away")
    hub = shop(store, branch, EndBlock(id="here", text="We are here."), EndBlock(id="away", text="We are away."))
    if is_staffed:
        hub.be_on_duty("kim", NOON + timedelta(hours=8))

    hub.receive("chat", [opened()])

    assert said(hub) == [told]


def test_form_is_filled_in_for_who_is_proven_and_for_nobody_else(store):
    """What a contact is known by is put into a form for the person who proved to be that contact, and nobody else."""
    blocks = (FormBlock(id="who", form="contact", text="Who are you?"), EndBlock(id="end", text="Thank you."))
    hub = shop(store, *blocks, trigger=Trigger(on="message"))
    account = Claim("external_id", "7", Trust.PROVEN)
    address, claimed = (Claim("email", "ann@shop.example", trust) for trust in (Trust.PROVEN, Trust.ASSERTED))
    typed = (Trait("company", "Typed Ltd", Trust.ASSERTED),)
    hub.resolve(IdentityHint(id="1", at=NOON, identifiers=(account, address), traits=typed))
    proven = IdentityHint(at=NOON, visitor="v2", identifiers=(account,))
    unproven = IdentityHint(at=NOON, visitor="v3", identifiers=(claimed,))

    hub.receive("chat", [wrote(1, "Hi", hint=unproven, thread="v3")])
    hub.receive("chat", [wrote(2, "Hi", hint=proven, thread="v2")])

    shown = {one.filing.thread: list(hub.messages(one.id)) for one in hub.conversations()}
    assert shown["v3"][0].detail == {"block": "who", "form": "contact"}
    # Nothing that is required is missing: the form is left out.
    assert [one.text for one in shown["v2"]] == ["Thank you.", "Hi"]


def test_contact_that_a_mail_created_says_so_where_it_enters(store):
    """Who hears of an automation is told how the contact came to be, so that none of an inbound e-mail gets in."""
    hub = shop(store, AutomationBlock(id="enter", name="welcome"), trigger=Trigger(on="message"))
    mailed = Claim("email", "ann@shop.example", Trust.CHANNEL)
    hub.resolve(IdentityHint(id="mail", at=NOON, identifiers=(mailed,), how="inbound e-mail"))
    account = Claim("external_id", "7", Trust.PROVEN)
    claims = (account, Claim("email", "ann@shop.example", Trust.PROVEN))

    hub.receive("chat", [wrote(1, "Hi", hint=IdentityHint(at=NOON, visitor="v1", identifiers=claims))])
    hub.receive("chat", [wrote(2, "Hi", hint=hint(visitor="v2", at=NOON), thread="v2")])

    (entered,) = notices(hub, "automation.entered")  # and nobody enters where nobody is known
    assert entered["how"] == "inbound e-mail"
