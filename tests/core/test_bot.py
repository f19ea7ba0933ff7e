from collections.abc import Callable
from datetime import UTC, datetime

import msgspec
import pytest
from attrs import evolve, frozen
from hypothesis import given
from hypothesis import strategies as st

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
from convsdk.core.bot import BotState, Expects, Turn, advance, expects
from convsdk.core.flow import (
    Block,
    End,
    Enter,
    Facts,
    Flow,
    FlowError,
    Given,
    Go,
    HandOver,
    Learn,
    Remember,
    Say,
    Trigger,
    Wait,
)
from convsdk.core.forms import Form, form_named
from convsdk.core.hours import OfficeHours

WEDNESDAY = datetime(2026, 5, 6, 12, tzinfo=UTC)
FACTS = Facts(at=WEDNESDAY)
OPENED = Given(kind="opened")
HOURS = OfficeHours(zone="Europe/Berlin", week=("Mon-Fri 09:00-17:00",))
TOPIC = ChooseBlock(
    id="topic",
    text="What is it about?",
    choices=(Choice(value="order", label="My order", next="number"), Choice(value="other", label="Something else")),
    otherwise="people",
)
HELLO = SayBlock(id="hello", text="Hello")
PEOPLE = HandOverBlock(id="people", to="sales", text="One moment")
NUMBER = AskBlock(id="number", text="Which number?", trait="order_number", next="contact")
CONTACT = FormBlock(id="contact", form="contact", text="Your address?")
WELCOME = Flow(blocks=(HELLO, TOPIC, PEOPLE, NUMBER, CONTACT, EndBlock(id="bye", text="Thanks")))


def says(text, **changes):
    """Give a message of the visitor."""
    return Given(kind="message", text=text, **changes)


def talk(flow, *turns, facts=FACTS):
    """Let the visitor do these things one after the other, and give the last turn."""
    turn = Turn(state=None)
    for one in turns:
        turn = advance(flow, turn.state, one, facts)
    return turn


def texts(turn):
    """Give what the bot says in a turn."""
    return [effect.text for effect in turn.effects if isinstance(effect, Say)]


def flaws(*blocks, **changes):
    """Give the lines of the error about a flow of these blocks."""
    with pytest.raises(FlowError) as caught:
        Flow(blocks=blocks, **changes)
    return str(caught.value).splitlines()


def _plugged(waits):
    @frozen(kw_only=True)
    class Plugged(Block):
        type = "plugged"
        waits_for = waits
        do: Callable
        react: Callable

        def enter(self, visit):
            return self.do(visit)

        def answer(self, given, visit):
            return self.react(given, visit)

    return Plugged


PLUGGED = {waits: _plugged(waits) for waits in ("", "text", "form")}


def block(enter, answer=lambda *_: (), waits="", name="plugged"):
    """Give a block of a plugin that does this."""
    return PLUGGED[waits](id=name, do=enter, react=answer)


def test_bot_speaks_until_it_waits():
    """On opening, the blocks run up to the first that waits, and each text names its block."""
    turn = talk(WELCOME, OPENED)

    buttons = [{"value": "order", "label": "My order"}, {"value": "other", "label": "Something else"}]
    assert turn.effects == (
        Say("Hello", {"block": "hello"}),
        Say("What is it about?", {"block": "topic", "choices": buttons}),
    )
    assert expects(WELCOME, turn.state) == Expects(block="topic", kind="choice")


@pytest.mark.parametrize("chosen", [says("x", choice="order", block="topic"), says("  my ORDER ")])
def test_choice_is_a_button_or_its_label(chosen):
    """A pressed button counts by its value, and free text that equals a label in any case."""
    turn = talk(WELCOME, OPENED, chosen)

    assert (texts(turn), turn.state.block, turn.state.answers) == (["Which number?"], "number", {"topic": "order"})


def test_choice_without_a_next_goes_on_after_the_block():
    """A choice that names no block goes on where its block does."""
    turn = talk(WELCOME, OPENED, says("", choice="other", block="topic"))

    assert turn.effects == (Say("One moment", {"block": "people"}), HandOver("sales"))
    assert turn.state.is_over


def test_free_text_at_a_choice_is_asked_again_once():
    """Something else than a choice is asked again once; then the flow goes on at `otherwise`."""
    again = talk(WELCOME, OPENED, says("where is it?"))
    after = talk(WELCOME, OPENED, says("where is it?"), says("hello?", choice="none", block="topic"))

    assert (texts(again), again.state.block, again.state.tries) == (["What is it about?"], "topic", 1)
    assert texts(after) == ["One moment"]


def test_choice_without_otherwise_keeps_waiting():
    """Without `otherwise`, the bot stays silent after it asked again, and still takes the choice."""
    flow = Flow(blocks=(evolve(TOPIC, otherwise=""), NUMBER, CONTACT))

    silent = talk(flow, OPENED, says("a"), says("b"))
    chosen = talk(flow, OPENED, says("a"), says("b"), says("something else"))

    assert (silent.effects, silent.state.tries) == ((), 2)
    assert chosen.state.block == "number"


def test_answer_becomes_a_trait():
    """What is asked for is learnt in one line of at most 255 characters, and remembered."""
    turn = talk(WELCOME, OPENED, says("my order"), says(" 4711\n\tb" + "x" * 300))

    learnt = ("4711 b" + "x" * 300)[:255]
    assert turn.effects[0] == Learn("order_number", learnt)
    assert turn.state.answers["number"] == learnt


def test_blank_answer_is_asked_for_again_once():
    """An attachment alone answers no question: it is asked once more, then waited for in silence."""
    before = (OPENED, says("my order"))

    assert texts(talk(WELCOME, *before, says(" "))) == ["Which number?"]
    assert talk(WELCOME, *before, says(" "), says(" ")).effects == ()
    assert talk(WELCOME, *before, says(" "), says(" "), says("1")).state.block == "contact"


def test_form_is_asked_for_again_once():
    """Free text at a form gets the form once more; the form itself goes on."""
    before = (OPENED, says("my order"), says("1"))

    again = talk(WELCOME, *before, says("why?"))
    silent = talk(WELCOME, *before, says("why?"), says("hm"))
    filled = talk(WELCOME, *before, Given(kind="form", block="contact", fields={"email": "ann@shop.example"}))

    assert again.effects == (Say("Your address?", {"block": "contact", "form": "contact"}),)
    assert silent.effects == ()
    assert filled.effects == (Say("Thanks", {"block": "bye"}), End())


@pytest.mark.parametrize(
    "ignored",
    [OPENED, says("My order", choice="order", block="topic"), says("x", block="gone"), Given(kind="form")],
)
def test_what_answers_no_waiting_block_does_nothing(ignored):
    """An opening, the same answer twice, one to another block, and a form that nobody asked for change nothing."""
    before = talk(WELCOME, OPENED, says("", choice="order", block="topic"))

    turn = advance(WELCOME, before.state, ignored, FACTS)

    assert turn == Turn(state=before.state)


def test_bot_is_silent_for_good_after_its_end():
    """After a hand-over, nothing that the visitor does wakes the bot."""
    over = talk(WELCOME, OPENED, says("", choice="other", block="topic")).state

    turns = [advance(WELCOME, over, one, FACTS) for one in (OPENED, says("hello"), Given(kind="form"))]

    assert turns == [Turn(state=over)] * 3
    assert expects(WELCOME, over) is None


def test_flow_ends_after_its_last_block():
    """A flow whose last block goes on nowhere ends there."""
    turn = talk(Flow(blocks=(HELLO, AutomationBlock(id="enter", name="welcome"))), OPENED)

    assert turn.effects[1:] == (Enter("welcome"), End())
    assert turn.state.is_over


@pytest.mark.parametrize(
    ("trigger", "has_agents", "first", "begins"),
    [
        (Trigger(), False, OPENED, True),
        (Trigger(), False, says("hi"), True),
        (Trigger(on="message"), False, OPENED, False),
        (Trigger(on="message"), False, says("hi"), True),
        (Trigger(agents="available"), True, OPENED, True),
        (Trigger(agents="available"), False, OPENED, False),
        (Trigger(agents="away"), False, OPENED, True),
        (Trigger(agents="away"), True, OPENED, False),
        (Trigger(), False, Given(kind="form"), False),
    ],
)
def test_trigger_decides_when_the_bot_begins(trigger, has_agents, first, begins):
    """The bot begins on what its trigger names; until then it has no state and expects nothing."""
    flow = Flow(blocks=(TOPIC, NUMBER, PEOPLE, CONTACT), trigger=trigger)

    turn = advance(flow, None, first, Facts(at=WEDNESDAY, has_agents=has_agents))

    assert (turn.state is not None, bool(turn.effects)) == (begins, begins)
    assert (expects(flow, turn.state) is not None) == begins


def test_message_that_people_got_is_left_to_them():
    """Where the first message does not start the bot, it stays out of the conversation, also when agents leave."""
    flow = Flow(blocks=(HELLO,), trigger=Trigger(agents="away"))

    first = advance(flow, None, says("hi"), Facts(at=WEDNESDAY, has_agents=True))
    second = advance(flow, first.state, says("hi"), FACTS)

    assert (first.effects, second.effects, first.state.is_over) == ((), (), True)


PROVEN = Facts(at=WEDNESDAY, is_known=True, is_proven=True, known={"email": "ann@shop.example", "name": "Ann"})


@pytest.mark.parametrize(
    ("form", "facts", "known"),
    [
        (Form(email="required"), PROVEN, None),
        (Form(email="required", name="required"), PROVEN, None),
        (Form(email="required", phone="required"), PROVEN, dict(PROVEN.known)),
        (Form(email="required", phone="required", name="removed"), PROVEN, {"email": "ann@shop.example"}),
        (Form(email="required"), evolve(PROVEN, known={}), {}),
        (Form(email="required"), evolve(PROVEN, known={"email": "", "name": "Ann"}), {"name": "Ann"}),
        (Form(email="required"), evolve(PROVEN, is_proven=False), {}),
    ],
)
def test_form_is_skipped_or_filled_for_the_proven_only(form, facts, known):
    """Who is proven is asked for what is missing, with the rest filled in; nobody else is shown anything known."""
    flow = Flow(blocks=(CONTACT,), forms={"contact": form})

    turn = talk(flow, OPENED, facts=facts)

    shown = [one.detail.get("known", {}) for one in turn.effects if isinstance(one, Say)]
    assert shown == ([] if known is None else [known])


def test_form_that_the_flow_lost_is_asked_for_all_the_same():
    """A block that is asked about a flow without its form shows nothing known, and skips nothing."""
    flow = Flow(blocks=(CONTACT,))
    object.__setattr__(flow, "forms", {"other": Form(email="required")})

    turn = talk(flow, OPENED, facts=PROVEN)

    assert turn.effects == (Say("Your address?", {"block": "contact", "form": "contact"}),)


@pytest.mark.parametrize(
    ("branch", "facts", "holds"),
    [
        ({"on": "agents"}, Facts(at=WEDNESDAY, has_agents=True), True),
        ({"on": "agents"}, FACTS, False),
        ({"on": "contact"}, PROVEN, True),
        ({"on": "contact"}, FACTS, False),
        ({"on": "hours", "hours": HOURS}, FACTS, True),
        ({"on": "hours", "hours": HOURS}, Facts(at=WEDNESDAY.replace(hour=20)), False),
        ({"on": "answer", "answer_to": "who", "equals": "ANN"}, FACTS, True),
        ({"on": "answer", "answer_to": "who", "equals": "Bob"}, FACTS, False),
    ],
)
def test_branch_goes_by_what_holds(branch, facts, holds):
    """A branch goes on at `then` where its condition holds, and at `otherwise` where not."""
    ask = AskBlock(id="who", text="Who?", trait="name")
    flow = Flow(
        blocks=(ask, BranchBlock(id="if", then="yes", **branch), EndBlock(id="no"), SayBlock(id="yes", text="y"))
    )

    turn = talk(flow, OPENED, says("Ann"), facts=facts)

    assert texts(turn) == ["y"] * holds


def test_hand_over_and_end_may_say_nothing():
    """Without a text, the effect stands alone."""
    assert talk(Flow(blocks=(HandOverBlock(id="a"),)), OPENED).effects == (HandOver(),)
    assert talk(Flow(blocks=(EndBlock(id="a"),)), OPENED).effects == (End(),)


def test_changed_flow_goes_on_where_its_block_still_waits():
    """A flow that changed elsewhere goes on, and the state notes which one it is now."""
    before = talk(WELCOME, OPENED).state
    changed = evolve(WELCOME, blocks=(evolve(HELLO, text="Hi"), *WELCOME.blocks[1:]))

    turn = advance(changed, before, says("my order"), FACTS)

    assert turn.state.block == "number"
    assert turn.state.flow == changed.fingerprint != before.flow


@pytest.mark.parametrize("blocks", [(HELLO,), (HELLO, SayBlock(id="topic", text="No question"))])
def test_flow_that_lost_its_waiting_block_hands_over(blocks):
    """Where the waiting block is gone or waits no more, people go on, and the log is told why."""
    before, changed = talk(WELCOME, OPENED).state, Flow(blocks=blocks)

    turn = advance(changed, before, says("my order"), FACTS)

    assert turn.effects == (HandOver(reason="the flow was changed: block 'topic' waits no more"),)
    assert turn.state.is_over
    assert expects(changed, before) is None


def _raise(*_):
    raise ValueError("ann@shop.example is the visitor's")


@pytest.mark.parametrize(
    ("plugged", "reason"),
    [
        (block(_raise), "raised ValueError at"),
        (block(lambda _: ["Hello"]), "raised TypeError at"),
        (block(lambda _: None), "raised TypeError at"),
        (block(lambda _: [Wait()]), "raised TypeError at"),
        (block(lambda _: [Go("gone")]), "raised LookupError at"),
        (block(lambda _: [Go("hello")]), "came back to itself"),
        (block(lambda _: (Say(text) for text in [" "])), "raised ValueError at"),
        (block(lambda _: (Say("x", {"at": at}) for at in [WEDNESDAY])), "raised TypeError at"),
        (block(lambda _: (Learn("email", text) for text in ["x"])), "raised ValueError at"),
    ],
)
def test_block_that_fails_hands_over(plugged, reason):
    """A plugin's block that raises, or yields nonsense, leaves the conversation to people; the log quotes nobody."""
    turn = talk(Flow(blocks=(HELLO, plugged)), OPENED)

    assert turn.effects[0] == Say("Hello", {"block": "hello"})
    assert reason in turn.effects[-1].reason
    assert "ann@" not in turn.effects[-1].reason
    assert turn.state.is_over


def test_block_that_fails_on_an_answer_hands_over():
    """A plugin's block that raises on what the visitor wrote costs no message."""
    flow = Flow(blocks=(block(lambda _: [Wait()], _raise, waits="text"),))

    turn = talk(flow, OPENED, says("hello"))

    assert turn.effects[0].reason.startswith("block 'plugged' raised ValueError at ")


def test_block_of_a_plugin_waits_and_remembers():
    """A block that says what it waits for is answered, and its answer is kept for branches."""
    flow = Flow(blocks=(block(lambda _: [Wait()], lambda given, _: [Remember(given.text)], waits="text"), HELLO))

    turn = talk(flow, OPENED, says("42"))

    assert (turn.state.answers, texts(turn)) == ({"plugged": "42"}, ["Hello"])


def test_block_that_waits_goes_on_by_default():
    """A block without an `answer` of its own goes on at whatever is answered."""

    @frozen(kw_only=True)
    class Pause(Block):
        type = "pause"
        waits_for = "text"

        def enter(self, visit):
            yield Wait()

    turn = talk(Flow(blocks=(Pause(id="pause"), HELLO)), OPENED, says("go on"))

    assert texts(turn) == ["Hello"]


def test_all_flaws_are_told_at_once():
    """Each mistake names the place and id of its block, in their order, with a remedy."""
    told = flaws(
        evolve(HELLO, next="topci"),
        evolve(PEOPLE, next="hello"),
        evolve(TOPIC, otherwise="peple"),
        HELLO,
        NUMBER,
        CONTACT,
        forms={"other": Form(email="required")},
    )

    assert told == [
        "block 1 ('hello'): it goes on at 'topci', which is no block: did you mean 'topic'?",
        "block 2 ('people'): it never goes on at its next: remove next",
        "block 3 ('topic'): it goes on at 'peple', which is no block: did you mean 'people'?",
        "block 4 ('hello'): its id is that of block 1: give each block its own",
        "block 6 ('contact'): there is no form 'contact': add it to the channel's forms, or take other",
    ]


def test_target_that_resembles_no_block_is_told():
    """A target that is like no id gets the plain remedy."""
    assert flaws(evolve(HELLO, next="zzz")) == [
        "block 1 ('hello'): it goes on at 'zzz', which is no block: name the id of a block"
    ]


def test_unreachable_block_is_a_flaw():
    """A block that no other goes on at is told, also one behind a hand-over."""
    assert flaws(PEOPLE, HELLO) == [
        "block 2 ('hello'): no block goes on here: name it as the next of another, or remove it"
    ]


@pytest.mark.parametrize(
    "blocks",
    [
        (evolve(HELLO, next="hello"),),
        (HELLO, AutomationBlock(id="enter", name="x", next="hello")),
        (HELLO, evolve(CONTACT, next="hello")),
        (HELLO, BranchBlock(id="if", on="agents", then="hello")),
    ],
)
def test_circle_that_waits_for_nobody_is_a_flaw(blocks):
    """A flow that could run for ever is told at the first block of the circle; a form can be skipped, so counts not."""
    assert flaws(*blocks) == [
        "block 1 ('hello'): it comes back here without waiting, and would for ever: put an ask or a choose in between"
    ]


def test_circle_with_a_question_is_allowed():
    """A flow may come back to where it asked."""
    flow = Flow(blocks=(HELLO, evolve(TOPIC, otherwise="hello"), evolve(NUMBER, next="topic")))

    assert talk(flow, OPENED, says("x"), says("y")).state == talk(flow, OPENED).state


@pytest.mark.parametrize("blocks", [(), tuple(SayBlock(id=f"b{index}", text="x") for index in range(101))])
def test_number_of_blocks_is_bounded(blocks):
    """A flow has at least one block and at most 100."""
    assert flaws(*blocks) == [f"a flow has 1 to 100 blocks, and not {len(blocks)}: add or remove some"]


@pytest.mark.parametrize(
    ("branch", "flaw"),
    [
        ({"on": "agents", "then": ""}, "the same block either way"),
        ({"on": "hours"}, "on = 'hours' and hours is missing: add it"),
        ({"on": "agents", "hours": HOURS}, "on = 'agents' and hours do not go together: remove it"),
        ({"on": "answer", "answer_to": "topic"}, "equals is missing"),
        ({"on": "answer", "equals": "order"}, "answer_to is missing"),
        ({"on": "answer", "equals": "order", "answer_to": "gone"}, "answer_to is 'gone', which asks nothing"),
        ({"on": "answer", "equals": "order", "answer_to": "contact"}, "answer_to is 'contact', which asks nothing"),
        (
            {"on": "answer", "equals": "odre", "answer_to": "topic"},
            "is no choice of 'topic': take one of 'order', 'other'",
        ),
    ],
)
def test_branch_that_cannot_decide_is_a_flaw(branch, flaw):
    """A branch names what its condition needs and nothing else, and an answer that can be given."""
    told = flaws(
        TOPIC, NUMBER, CONTACT, BranchBlock(**{"id": "if", "then": "people"} | branch), EndBlock(id="e"), PEOPLE
    )

    assert any(flaw in line and line.startswith("block 4 ('if')") for line in told)


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: SayBlock(id="a", text=" "), "text"),
        (lambda: SayBlock(id="a", text="a\0b"), "text"),
        (lambda: HandOver("\ud800"), "to"),
        (lambda: SayBlock(id="A B", text="x"), "id"),
        (lambda: EndBlock(id="a", text=" "), "text"),
        (lambda: AskBlock(id="a", text="x", trait="Order Number"), "trait"),
        (lambda: AskBlock(id="a", text="x", trait="email"), "trait"),
        (lambda: AskBlock(id="a", text="x", trait="work_phone"), "trait"),
        (lambda: AskBlock(id="a", text="x", trait="external_id"), "trait"),
        (lambda: FormBlock(id="a", text="x", form=""), "form"),
        (lambda: AutomationBlock(id="a", name=""), "name"),
        (lambda: BranchBlock(id="a", on="weather"), "on"),
        (lambda: ChooseBlock(id="a", text="x", choices=()), "choices"),
        (lambda: ChooseBlock(id="a", text="x", choices=("x",)), "choices"),
        (lambda: evolve(TOPIC, choices=(Choice(value="a", label="A"), Choice(value="a", label="B"))), "value twice"),
        (lambda: evolve(TOPIC, choices=(Choice(value="a", label="A"), Choice(value="b", label="a "))), "label twice"),
        (lambda: Trigger(on="hover"), "on"),
        (lambda: Trigger(agents="some"), "agents"),
        (lambda: OfficeHours(zone="Europe/Atlantis", week=("Mon 09:00-10:00",)), "zone"),
        (lambda: OfficeHours(zone="../etc", week=("Mon 09:00-10:00",)), "zone"),
        (lambda: OfficeHours(zone="UTC", week=()), "week"),
        (lambda: OfficeHours(zone="UTC", week=("weekdays",)), "are no hours"),
        (lambda: OfficeHours(zone="UTC", week=(9,)), "are no hours"),
        (lambda: OfficeHours(zone="UTC", week=("Mon-Fry 09:00-10:00",)), "are no hours"),
        (lambda: OfficeHours(zone="UTC", week=("Mon 22:00-06:00",)), "ends before it begins"),
        (lambda: OfficeHours(zone="UTC", week=("Mon 09:00-24:30",)), "ends before it begins"),
    ],
)
def test_unusable_value_does_not_construct(make, field):
    """A block refuses what it cannot work with, and names the field."""
    with pytest.raises(ValueError, match=field):
        make()


@pytest.mark.parametrize("blocks", [[HELLO], ("hello",)])
def test_flow_is_made_of_blocks(blocks):
    """Something else than a tuple of blocks is refused."""
    with pytest.raises(TypeError, match="no tuple of blocks"):
        Flow(blocks=blocks)


@pytest.mark.parametrize(
    ("week", "at", "is_open"),
    [
        ("Mon-Fri 09:00-17:00", datetime(2026, 5, 6, 7, 0, tzinfo=UTC), True),
        ("Mon-Fri 09:00-17:00", datetime(2026, 5, 6, 6, 59, tzinfo=UTC), False),
        ("Mon-Fri 09:00-17:00", datetime(2026, 5, 6, 15, 0, tzinfo=UTC), False),
        ("Mon-Fri 09:00-17:00", datetime(2026, 1, 7, 15, 59, tzinfo=UTC), True),
        ("Mon-Fri 09:00-17:00", datetime(2026, 5, 9, 12, 0, tzinfo=UTC), False),
        ("sat-mon 00:00-24:00", datetime(2026, 5, 9, 22, 0, tzinfo=UTC), True),
        ("Sun 00:00-24:00", datetime(2026, 5, 9, 22, 0, tzinfo=UTC), True),
        ("Sun 00:00-24:00", datetime(2026, 5, 9, 21, 59, tzinfo=UTC), False),
    ],
)
def test_office_is_open_by_the_clocks_of_its_zone(week, at, is_open):
    """Hours are those on the office's own clocks, in summer and in winter; the end is closed."""
    assert OfficeHours(zone="Europe/Berlin", week=(week,)).is_open(at) is is_open


def test_form_knows_its_fields():
    """A field that no form has is as one that was removed, and any name is a form where there are none."""
    form = form_named({}, "any")

    assert (form.presence("email"), form.presence("name"), form.presence("shoe")) == ("required", "optional", "removed")
    assert form_named({"other": form}, "any") is None


ODD = [_raise, lambda *_: ["x"], lambda *_: [Wait()], lambda *_: [Go("b0")], lambda *_: [Say("x"), Remember("ann")]]


@st.composite
def flows(draw):
    """Give a valid flow: each block can go on at the next one, and only questions lead back."""
    count = draw(st.integers(1, 8))
    ids = [f"b{index}" for index in range(count)]
    return Flow(
        blocks=tuple(draw(_block(ids, index)) for index in range(count)),
        trigger=draw(st.builds(Trigger, on=st.sampled_from(["open", "message"]))),
    )


def _block(ids, index):
    fixed, ahead = {"id": st.just(ids[index])}, ids[index + 1 :]
    anywhere, texts = st.sampled_from(["", *ids]), st.sampled_from(["Hello", "Well?"])
    choices = st.builds(
        lambda one, two: (Choice(value="a", label="Ann", next=one), Choice(value="b", label="Bob", next=two)),
        st.just(""),
        anywhere,
    )
    kinds = [
        st.builds(SayBlock, **fixed, text=texts),
        st.builds(AskBlock, **fixed, text=texts, trait=st.just("name")),
        st.builds(FormBlock, **fixed, text=texts, form=st.just("contact")),
        st.builds(ChooseBlock, **fixed, text=texts, choices=choices, otherwise=anywhere),
        st.builds(AutomationBlock, **fixed, name=texts),
        st.builds(
            block,
            st.sampled_from(ODD),
            st.sampled_from(ODD),
            st.sampled_from(["", "text", "form"]),
            fixed["id"],
        ),
    ]
    if not ahead:
        kinds += [st.builds(EndBlock, **fixed), st.builds(HandOverBlock, **fixed, text=texts)]
    if ahead[1:]:
        targets = st.sampled_from(ahead[1:])
        kinds.append(st.builds(BranchBlock, **fixed, on=st.sampled_from(["agents", "contact"]), then=targets))
    return st.one_of(kinds)


VISITS = st.builds(
    Given,
    kind=st.sampled_from(["opened", "message", "message", "form"]),
    text=st.sampled_from(["", "ann", "Bob", "x"]),
    choice=st.sampled_from(["", "", "a", "z"]),
    block=st.sampled_from(["", "b0", "b1", "b2", "gone"]),
)
MOMENTS = st.builds(
    Facts,
    at=st.just(WEDNESDAY),
    has_agents=st.booleans(),
    is_known=st.booleans(),
    is_proven=st.booleans(),
    known=st.sampled_from([{}, {"email": "ann@shop.example"}]),
)


@given(flows(), st.lists(st.tuples(VISITS, MOMENTS), max_size=12))
def test_no_visitor_brings_a_valid_flow_to_a_halt(flow, visits):
    """Whatever a visitor does: nothing raises or repeats itself, and a state is the same after a restart."""
    state = None
    for visit, facts in visits:
        turn = advance(flow, state, visit, facts)
        stored = msgspec.json.decode(msgspec.json.encode(turn.state), type=BotState | None)

        spoken = [one.detail["block"] for one in turn.effects if isinstance(one, Say)]
        assert len(spoken) == len(set(spoken))
        assert stored == turn.state
        assert (expects(flow, stored) is None) == (stored is None or stored.is_over)
        assert not (turn.effects and state and state.is_over)
        assert any(isinstance(one, End | HandOver) for one in turn.effects) == (
            bool(turn.effects) and turn.state.is_over
        )
        state = stored
