from contextlib import closing
from datetime import timedelta

import msgspec
import pytest
from attrs import evolve
from outgoing import send
from servers import STORES, fresh_store

from convsdk.channels.chat import ChatChannel, ChatSettings
from convsdk.core.consent import ConsentState, ListState
from convsdk.core.events import (
    ConsentSignalled,
    DeliveryStatus,
    FieldProblem,
    FormRejected,
    Identified,
    MessageReceived,
    Noted,
    StatusChanged,
)
from convsdk.core.fold import Policy
from convsdk.core.inbox import ConversationStatus
from convsdk.core.model import (
    Claim,
    ConsentSignal,
    Direction,
    Identifier,
    IdentityHint,
    Message,
    Outcome,
    Rule,
    Trait,
    Trust,
)
from convsdk.core.ports import Channel, Response
from convsdk.core.profile import Reach
from convsdk.errors import ConfigError, Conflict, Forbidden, NotFound, ParseError, UnsupportedError
from convsdk.hub import Hub
from convsdk.store import open_store
from convsdk.testing.builders import NOON, FakeClock, hint, request

COOKIE = "c" * 32
OTHER_COOKIE = "d" * 32
PHONE = "+4930123456"


class Till(Channel):
    """A channel whose requests are a JSON list of names, one message each."""

    type = "till"
    settings = str

    def challenge(self, request):
        return Response(body=b"welcome") if request.query.get("hello") == self.config else None

    def verify(self, request):
        if request.headers.get("Till-Key") != self.config:
            raise Forbidden(f"channel {self.name!r}: the key is not ours")

    def parse(self, request):
        try:
            names = msgspec.json.decode(request.body, type=list[str])
        except msgspec.DecodeError as error:
            raise ParseError(f"channel {self.name!r}: no list of names") from error
        return [wrote(name, name) for name in names]

    def answer(self, events):
        return Response(status=202, body=f"{len(events)} taken".encode())


@pytest.fixture(params=STORES)
def store(request, tmp_path):
    """Give an empty store of each kind that ships."""
    with closing(open_store(fresh_store(request.param, tmp_path))) as store:
        yield store


@pytest.fixture
def clock():
    """Give a clock that stands at noon."""
    return FakeClock()


@pytest.fixture
def hub(store, clock):
    """Give a hub on an empty store, with one channel."""
    return Hub(store, channels=[Till("till", "key")], clock=clock)


def email(name):
    """Give the key of a person's address."""
    return Identifier("email", "", f"{name}@shop.example")


def address(name):
    """Give a person's address."""
    return f"{name}@shop.example"


def wrote(external_id, name="", *, trust=Trust.CHANNEL, visitor=None, at=NOON, how="", **fields):
    """Give a message of `name`, or of nobody, attested by the channel unless it says otherwise."""
    said = hint(email=address(name) if name else "", trust=trust, visitor=visitor, at=at, how=how)
    return MessageReceived(external_id=external_id, hint=said, at=at, text=f"text of {external_id}", **fields)


def proven(id, name, **fields):  # noqa: A002  (as in `hint`)
    """Give a hint that proves the account and the address of `name`."""
    return hint(id, email=address(name), account=f"account-{name}", trust=Trust.PROVEN, **fields)


def people(hub, *names):
    """Make one contact for each of `names`, by an attested address, and give their ids."""
    hints = [hint(f"first/{name}", email=address(name), trust=Trust.CHANNEL) for name in names]
    return [decision.contact for decision in hub.resolve_many(hints)]


def notices(hub, kind):
    """Give the payloads of all notices of one kind, in order."""
    return [one.payload for one in hub.store.notices(hub.workspace, since=0, limit=1000) if one.type == kind]


def kept(hub):
    """Give all that a workspace shows."""
    conversations = hub.conversations(limit=1000)
    return (
        list(hub.contacts(limit=1000)),
        conversations,
        [list(hub.messages(one.id)) for one in conversations],
        hub.store.notices(hub.workspace, since=0, limit=1000),
    )


# -- hubs and channels


def test_two_hubs_in_one_process_share_nothing():
    """What one hub keeps in memory, another does not see."""
    first, second = Hub("memory:"), Hub("memory:")

    first.resolve(proven("1", "ann"))

    assert first.find("email", address("ann")) is not None
    assert second.find("email", address("ann")) is None


def test_two_workspaces_of_one_store_share_nothing(store):
    """A person of one workspace is nobody in another."""
    shop, bank = Hub(store, workspace="shop"), Hub(store, workspace="bank")

    shop.resolve(proven("1", "ann"))

    assert list(bank.contacts()) == []
    assert bank.resolve(proven("1", "ann")).outcome is Outcome.CREATED


def test_two_hubs_on_one_store_see_the_same(store):
    """Several hubs may work on one store."""
    first, second = Hub(store), Hub(store)

    first.resolve(proven("1", "ann"))

    assert second.find("email", address("ann")) == first.find("email", address("ann"))


def test_hub_opens_the_store_of_a_url(tmp_path):
    """A SQLite URL names a file, which keeps what a hub has closed."""
    url = f"sqlite:///{tmp_path}/shop.db"
    with closing(Hub(url)) as first:
        created = first.resolve(proven("1", "ann"))

    with closing(Hub(url)) as second:
        assert second.find("email", address("ann")).id == created.contact


@pytest.mark.parametrize("url", ["sqlite:", "sqlite:///", "sqlite:shop.db"])
def test_url_without_a_file_is_refused(url):
    """A SQLite URL that names no file is answered with how to write one."""
    with pytest.raises(ConfigError, match=r"names no file: write sqlite:///shop\.db"):
        Hub(url)


def test_url_of_an_unknown_scheme_is_refused_without_its_password():
    """The error names the schemes that there are, and does not repeat a password."""
    with pytest.raises(ConfigError, match=r"'db\.example/shop'|db\.example/shop: use one of memory, sqlite") as error:
        Hub("oracle://ann:secret@db.example/shop")

    assert "secret" not in str(error.value)


def test_unknown_channel_is_a_config_error(hub):
    """The error names the channels that there are, and what to add."""
    with pytest.raises(
        ConfigError, match=r"no channel 'shop' is configured \(there are: till\): add \[channels.shop\]"
    ):
        hub.handle("shop", request())

    with pytest.raises(ConfigError, match="there are: none"):
        Hub("memory:").channel("shop")


def test_channel_is_given_by_its_name(hub):
    """A configured channel is found by what the configuration calls it."""
    assert hub.channel("till").type == "till"


# -- handle


def test_handle_answers_a_challenge_before_it_verifies(hub):
    """A set-up handshake is answered, and nothing is kept."""
    handled = hub.handle("till", request(query={"hello": "key"}, method="GET"))

    assert handled.response == Response(body=b"welcome")
    assert handled.received == ()
    assert kept(hub) == ([], [], [], [])


def test_handle_keeps_the_events_and_gives_the_channels_answer(hub):
    """An authentic request becomes conversations, and its sender is told what the channel says."""
    handled = hub.handle("till", request(json=["ann", "ben"], headers={"Till-Key": "key"}))

    assert handled.response == Response(status=202, body=b"2 taken")
    assert [one.decision.outcome for one in handled.received] == [Outcome.CREATED, Outcome.CREATED]
    assert [one.event.external_id for one in handled.received] == ["ann", "ben"]
    assert hub.attribution("till/ann") == hub.find("email", address("ann")).id


def test_handle_keeps_nothing_of_a_forged_request(hub):
    """A request that is not authentic raises Forbidden, and leaves no trace."""
    with pytest.raises(Forbidden):
        hub.handle("till", request(json=["ann"], headers={"Till-Key": "guess"}))

    assert kept(hub) == ([], [], [], [])


def test_handle_keeps_nothing_of_what_it_cannot_read(hub):
    """A request that cannot be read raises ParseError, and leaves no trace."""
    with pytest.raises(ParseError):
        hub.handle("till", request("{", headers={"Till-Key": "key"}))

    assert kept(hub) == ([], [], [], [])


# -- receive


def test_redelivery_gives_the_first_decision_and_writes_nothing(hub):
    """The same external id on the same channel is the same event."""
    (first,) = hub.receive("till", [wrote("1", "ann")])
    before = kept(hub)

    (again,) = hub.receive("till", [wrote("1", "ann")])

    assert again.decision == first.decision.as_replayed()
    assert again.decision.outcome is Outcome.DUPLICATE
    assert kept(hub) == before


def test_redelivery_inside_one_batch_is_kept_once(hub):
    """A batch that holds one event twice keeps it once."""
    first, again = hub.receive("till", [wrote("1", "ann"), wrote("1", "ann")])

    assert again.decision == first.decision.as_replayed()
    assert len(hub.messages(first.conversation).items) == 1


def test_same_external_id_on_another_channel_is_another_event(hub):
    """External ids are unique inside a channel only."""
    hub.receive("till", [wrote("1", "ann")])

    (other,) = hub.receive("mail", [wrote("1", "ann")])

    assert other.decision.outcome is Outcome.ATTACHED
    assert len(hub.conversations()) == 2


def test_batch_is_one_transaction(hub):
    """An event that fails leaves nothing of the events before it."""
    broken = wrote("2", "ben", direction=None)

    with pytest.raises(AttributeError):
        hub.receive("till", [wrote("1", "ann"), broken])

    assert kept(hub) == ([], [], [], [])


def test_external_id_of_any_length_is_taken(hub):
    """A mail's Message-ID can be longer than a hint's id may be, and is still the same at its redelivery."""
    name = "x" * 1000
    (first,) = hub.receive("till", [wrote(name, "ann", thread="a")])

    again, other = hub.receive("till", [wrote(name, "ann"), wrote(name + "y", "ann", thread="b", references=(name,))])

    assert again.decision == first.decision.as_replayed()
    assert other.decision.outcome is Outcome.ATTACHED
    assert other.conversation == first.conversation
    assert hub.attribution(first.decision.hint) == first.decision.contact


def test_empty_batch_is_harmless(hub):
    """A request without events keeps nothing."""
    assert hub.receive("till", []) == ()
    assert kept(hub) == ([], [], [], [])


def test_batch_keeps_its_order(hub):
    """Messages of one batch stand in the order in which they came, whatever their times are."""
    late = NOON + timedelta(hours=1)

    first, *_ = hub.receive("till", [wrote("1", "ann", at=late), wrote("2", "ann"), wrote("3", "ann")])

    assert [one.external_id for one in hub.messages(first.conversation)] == ["3", "2", "1"]
    conversation = hub.conversation(first.conversation)
    assert (conversation.filing.messages, conversation.filing.unread) == (3, 3)
    assert conversation.filing.last_at == late


def test_message_is_kept_as_it_came(hub):
    """Text, subject, direction, status and detail are read back."""
    (received,) = hub.receive("till", [wrote("1", "ann", subject="Shoes", detail={"sections": [["reply", "text"]]})])

    (message,) = hub.messages(received.conversation)

    assert message == Message(
        id=message.id,
        conversation=received.conversation,
        channel="till",
        external_id="1",
        direction=Direction.INBOUND,
        at=NOON,
        text="text of 1",
        status="received",
        detail={"sections": [["reply", "text"]]},
    )
    assert hub.conversation(received.conversation).filing.subject == "Shoes"


def test_unthreaded_messages_of_one_sender_are_one_conversation(hub):
    """Where the platform has no threads, a conversation is who wrote."""
    first, second = hub.receive("till", [wrote("1", "ann"), wrote("2", "ben")])

    third, fourth = hub.receive("till", [wrote("3", "ann"), wrote("4", "ben")])

    assert third.conversation == first.conversation
    assert fourth.conversation == second.conversation
    assert first.conversation != second.conversation


def test_threads_of_one_sender_are_conversations_of_their_own(hub):
    """Two threads of one sender are two conversations of one contact."""
    received = hub.receive("till", [wrote("1", "ann", thread="a"), wrote("2", "ann", thread="b")])

    (later,) = hub.receive("till", [wrote("3", "ann", thread="a")])

    assert later.conversation == received[0].conversation
    assert {one.conversation for one in received} == {
        one.id for one in hub.conversations(contact=later.decision.contact)
    }


def test_two_senders_of_one_thread_never_share_a_conversation(hub):
    """A thread's key alone shows nobody what another one wrote."""
    first, second = hub.receive("till", [wrote("1", "ann", thread="a"), wrote("2", "ben", thread="a")])

    assert first.conversation != second.conversation


def test_message_without_any_person_gets_a_conversation_of_its_own(hub):
    """Nothing usable is known of the sender: the message is kept, unresolved."""
    first, second = hub.receive("till", [wrote("1"), wrote("2")])

    assert first.decision.outcome is Outcome.UNRESOLVED
    assert first.conversation != second.conversation
    assert [one.contact for one in hub.conversations()] == [None, None]


def test_reply_joins_the_conversation_of_its_reference(hub):
    """A message that answers another one goes where that is, whatever its thread."""
    (first,) = hub.receive("till", [wrote("1", "ann", thread="a")])

    (reply,) = hub.receive("till", [wrote("2", "ann", thread="b", references=("unknown", "1"))])

    assert reply.conversation == first.conversation


def test_reply_of_somebody_else_does_not_join(hub):
    """Knowing a message's id opens nobody's conversation."""
    (first,) = hub.receive("till", [wrote("1", "ann", thread="a")])

    (reply,) = hub.receive("till", [wrote("2", "ben", thread="b", references=("1",))])

    assert reply.conversation != first.conversation


def test_channel_takes_out_of_an_answer_what_it_repeats(store, clock):
    """A channel is asked about an answer to a message of ours, with the text of that; by itself it leaves all."""

    class Trimming(Till):
        def trim(self, event, answered):
            return evolve(event, text=event.text.replace(answered, "").strip())

    hub = Hub(store, channels=[Till("till", "k"), Trimming("trimming", "k")], clock=clock)
    told = {}
    for name in hub.channels:
        (first,) = hub.receive(name, [wrote("1", "ann")])
        send(hub, first.conversation, "Ready?", external_id="ours", status=ConversationStatus.OPEN)
        hub.receive(name, [evolve(wrote("2", "ann", references=("1", "ours")), text="Yes. Ready?")])
        told[name] = hub.messages(first.conversation).items[0].text

    assert told == {"till": "Yes. Ready?", "trimming": "Yes."}


@pytest.mark.parametrize("is_batch", [False, True])
def test_reference_goes_before_thread(hub, is_batch):
    """A reply goes to what it answers and not to its thread, in one batch as in several."""
    events = [
        wrote("1", "ann", thread="a"),
        wrote("2", "ann", thread="b"),
        wrote("3", "ann", thread="b", references=("1",)),
    ]

    received = hub.receive("till", events) if is_batch else [hub.receive("till", [one])[0] for one in events]

    assert received[2].conversation == received[0].conversation


def test_stored_reference_goes_before_a_thread_of_the_batch(hub):
    """A reply goes to what it answers, even where its thread has just been opened."""
    (first,) = hub.receive("till", [wrote("1", "ann", thread="a")])

    _, reply = hub.receive("till", [wrote("2", "ann", thread="b"), wrote("3", "ann", thread="b", references=("1",))])

    assert reply.conversation == first.conversation


def test_nearest_reference_counts_whether_stored_or_of_the_batch(hub):
    """A stored message that is answered goes before one of the same batch that is named after it."""
    (first,) = hub.receive("till", [wrote("1", "ann", thread="a")])

    _, reply = hub.receive(
        "till", [wrote("2", "ann", thread="b"), wrote("3", "ann", thread="c", references=("1", "2"))]
    )

    assert reply.conversation == first.conversation


def test_nearest_reference_of_a_batch_counts(hub):
    """Of several messages that a reply answers, the nearest decides."""
    received = hub.receive(
        "till",
        [
            wrote("1", "ann", thread="a"),
            wrote("2", "ann", thread="b"),
            wrote("3", "ann", thread="c", references=("1", "2")),
        ],
    )

    assert received[2].conversation == received[0].conversation


def test_cookies_conversation_gets_its_identifier_once(hub):
    """The first who is named in a nameless conversation owns it, and nobody after."""
    (asked,) = hub.receive("till", [wrote("1", visitor=COOKIE, thread="t")])
    assert hub.conversation(asked.conversation).filing.identifier is None

    named = hint(email=address("ann"), visitor=COOKIE)
    (told,) = hub.receive("till", [Identified(external_id="2", hint=named, thread="t")])
    again = hint(email=address("ben"), visitor=COOKIE)
    (retold,) = hub.receive("till", [Identified(external_id="3", hint=again, thread="t")])
    (repeated,) = hub.receive("till", [Identified(external_id="4", hint=named, thread="t")])

    assert told.conversation == repeated.conversation == asked.conversation
    assert retold.conversation is None
    assert hub.conversation(asked.conversation).filing.identifier == email("ann")
    assert hub.conversation(asked.conversation).contact == told.decision.contact


def test_conversation_is_named_and_goes_on_in_one_batch(hub):
    """A form and the message after it, delivered together, are the conversation that the cookie began."""
    named = hint(email=address("ann"), visitor=COOKIE)
    events = [
        wrote("1", visitor=COOKIE, thread="t"),
        Identified(external_id="2", hint=named, thread="t"),
        wrote("3", "ann", trust=Trust.ASSERTED, visitor=COOKIE, thread="t"),
    ]

    received = hub.receive("till", events)

    assert len({one.conversation for one in received}) == 1
    assert hub.conversation(received[0].conversation).filing.messages == 2


def test_who_only_identifies_opens_no_conversation(hub):
    """A site that says who is there makes a contact, and an empty conversation nowhere."""
    said = hint(email=address("ann"), trust=Trust.PROVEN)

    (received,) = hub.receive("till", [Identified(external_id="1", hint=said)])

    assert received.decision.outcome is Outcome.CREATED
    assert received.conversation is None
    assert hub.conversations() == []


def test_rejected_form_is_a_line_in_the_conversation(hub):
    """A form that was sent back leaves a line for the agents, and no unread mark."""
    problem = FieldProblem(field="email", code="required", message="Please give your address.")
    said = hint(visitor=COOKIE)

    (received,) = hub.receive("till", [FormRejected(external_id="1", hint=said, problems=(problem,), thread="t")])

    (line,) = hub.messages(received.conversation)
    assert (line.direction, line.text, line.status) == (Direction.LINE, "form sent back: email required", "")
    assert hub.conversation(received.conversation).filing.unread == 0


def test_notes_of_the_platform_are_lines(hub):
    """A reaction joins its person's conversation; one without a person stands alone."""
    (asked,) = hub.receive("till", [wrote("1", "ann", thread="t")])
    reaction = Noted(
        external_id="2",
        kind="reaction",
        at=NOON,
        hint=hint(email=address("ann"), trust=Trust.CHANNEL),
        thread="t",
        text="liked it",
    )

    reacted, alone = hub.receive("till", [reaction, Noted(external_id="3", kind="ping", at=NOON, text="ping")])

    assert reacted.conversation == asked.conversation
    assert next(iter(hub.messages(asked.conversation))).text == "liked it"
    assert alone.conversation != asked.conversation
    assert alone.decision.outcome is Outcome.UNRESOLVED


def test_status_report_about_nothing_of_ours_opens_nothing(hub):
    """A report about a message that nobody sent opens no conversation, and is not told."""
    report = StatusChanged(external_id="s", status=DeliveryStatus.READ, at=NOON, messages=("1",), thread="t")

    (first,) = hub.receive("till", [report])
    hub.receive("till", [report])

    assert first.conversation is None
    assert notices(hub, "message.status_changed") == []
    assert hub.conversations() == []


def test_opt_out_is_kept_and_creates_nobody(hub):
    """A word such as STOP withdraws at once, also for somebody unknown."""
    claim = Claim("email", address("ann"), Trust.CHANNEL)
    signal = ConsentSignal(claim=claim, purpose="news", granted=False, withdrawn=True)

    (received,) = hub.receive("till", [ConsentSignalled(external_id="1", at=NOON, signal=signal)])

    assert received.conversation is None
    assert hub.consent(email("ann"), "news") is ConsentState.WITHDRAWN
    assert list(hub.contacts()) == []


def test_consent_about_nothing_usable_is_dropped(hub):
    """A yes for an address that is none is no record."""
    claim = Claim("email", "null", Trust.CHANNEL)
    signal = ConsentSignal(claim=claim, purpose="news", granted=True)

    hub.receive("till", [ConsentSignalled(external_id="1", at=NOON, signal=signal)])

    assert notices(hub, "consent.changed") == []


def test_traits_of_nobody_and_blank_traits_are_dropped(hub):
    """A trait needs somebody whom it describes, and a value."""
    hub.resolve(hint("1", traits={"name": "Ghost"}))

    decision = hub.resolve(hint("2", email=address("ann"), traits={"name": "  ", "company": "Shop"}))

    assert set(hub.contact(decision.contact).traits) == {"company"}


# -- resolve


def test_resolve_needs_an_id(hub):
    """A hint without an id could not be told from its second delivery."""
    with pytest.raises(ValueError, match="has no id: give one that is the same at every delivery"):
        hub.resolve(hint(email=address("ann")))

    assert list(hub.contacts()) == []


def test_resolve_many_decides_in_order(hub):
    """Later hints of one call see the earlier ones, and a doubled one gives its first decision."""
    hints = [hint("1", email=address("ann")), proven("2", "ann"), hint("1", email=address("ann"))]

    first, second, again = hub.resolve_many(hints)

    assert (first.outcome, second.outcome) == (Outcome.CREATED, Outcome.LINKED)
    assert second.contact == first.contact
    assert again == first.as_replayed()


def test_amend_hint_is_applied_to_every_hint(store):
    """What plugins add to a hint counts as if the channel had said it, and they see the hint's id."""
    seen = []

    def amend(given):
        seen.append(given.id)
        return IdentityHint(
            id=given.id, at=given.at, identifiers=given.identifiers, traits=(Trait("vip", "yes", Trust.AGENT),)
        )

    hub = Hub(store, amend_hint=amend)

    hub.receive("till", [wrote("1", "ann")])
    hub.resolve(hint("2", email=address("ben")))

    assert seen == ["till/1", "2"]
    assert [str(one.traits["vip"]) for one in hub.contacts()] == ["yes", "yes"]


def test_policy_is_applied(store):
    """The rules that a hub is given hold for what it resolves and what it finds."""
    hub = Hub(store, policy=Policy(country="DE", own=frozenset({address("shop")})))

    decision = hub.resolve(hint("1", phone="030 123456", email=address("shop"), trust=Trust.CHANNEL))

    assert [str(one.node) for one in hub.contact(decision.contact).identifiers] == [f"phone:{PHONE}"]
    assert decision.unusable == ("email",)
    assert hub.find("email", address("shop")) is None


# -- merge, keep apart, take back


def test_merge_by_contact_id(hub):
    """Two contacts become one, under the lower id; the other id redirects."""
    ann, ben = people(hub, "ann", "ben")

    ruled = hub.merge(ben, ann, by="kim", reason="same desk")

    assert ruled.is_joined
    assert ruled.contacts == (ann, ann)
    assert hub.contact(ben) == hub.contact(ann)
    assert hub.contact(ann).redirects == (ben,)
    assert [one.id for one in hub.contacts()] == [ann]


def test_merge_by_identifier(hub):
    """An identifier names its contact as well as an id does."""
    ann, ben = people(hub, "ann", "ben")

    ruled = hub.merge(email("ann"), ben, by="kim")

    assert ruled.contacts == (ann, ann)


def test_merge_with_an_unknown_contact_is_not_found(hub):
    """A contact id that nobody has is named in the error."""
    (ann,) = people(hub, "ann")

    with pytest.raises(NotFound, match="no contact 9999 in workspace 'default'"):
        hub.merge(ann, 9999, by="kim")


def test_merge_with_an_emptied_contact_is_not_found(hub):
    """A contact that nothing speaks for any more cannot be merged."""
    ann, ben = people(hub, "ann", "ben")
    hub.withdraw("first/ben", by="kim")

    with pytest.raises(NotFound):
        hub.merge(ann, ben, by="kim")

    assert hub.contact(ben).identifiers == ()
    assert hub.contact(ben).name == f"contact {ben}"


def test_merge_that_a_rule_forbids_stays_a_suggestion(hub):
    """Two accounts are two people: they stay apart, and the request stays on record."""
    ann, ben = (hub.resolve(proven(name, name)).contact for name in ("ann", "ben"))

    ruled = hub.merge(ann, ben, by="kim", merge_id="m1")

    assert not ruled.is_joined
    assert ruled.contacts == (ann, ben)
    assert [(one.contacts, one.evidence) for one in hub.suggestions()] == [((ann, ben), "m1")]


def test_second_merge_of_one_id_is_harmless(hub):
    """A merge that is sent twice counts once, also after it was taken back."""
    ann, ben = people(hub, "ann", "ben")
    hub.merge(ann, ben, by="kim", merge_id="m1")
    before = kept(hub)

    again = hub.merge(ann, ben, by="kim", merge_id="m1")
    unchanged = kept(hub)
    hub.unmerge("m1", by="kim")
    after_undo = hub.merge(ann, ben, by="kim", merge_id="m1")

    assert again.is_joined
    assert unchanged == before
    assert not after_undo.is_joined


def test_merge_that_somebody_else_has_just_written_is_harmless(hub, store, clock, monkeypatch):
    """Two who send one merge at the same moment make one."""
    ann, ben = people(hub, "ann", "ben")
    rival = Hub(store, clock=clock)

    def meanwhile(workspace, ruling):
        monkeypatch.undo()
        rival.merge(ann, ben, by="eve", merge_id="m1")

    monkeypatch.setattr(store, "ruling", meanwhile)
    ruled = hub.merge(ann, ben, by="kim", merge_id="m1")

    assert ruled.is_joined
    assert len(notices(hub, "contact.merged")) == 1


@pytest.mark.parametrize("merge_id", ["0", "z"])
def test_merge_by_contact_id_means_the_contact_and_not_its_recycled_number(hub, clock, merge_id):
    """A contact that held a number before somebody else is not mistaken for its holder of today."""
    first, second = clock(), clock.advance(days=1)
    ann = hub.resolve(hint("1", phone=PHONE, trust=Trust.CHANNEL, at=first - timedelta(days=1))).contact
    hub.resolve(hint("2", phone=PHONE, account="ann", trust=Trust.CHANNEL, at=first))
    ben = hub.resolve(hint("3", phone=PHONE, account="ben", trust=Trust.CHANNEL, at=second)).contact
    (eve,) = people(hub, "eve")
    assert ann != ben

    preview = hub.preview_merge(ann, eve)
    ruled = hub.merge(ann, eve, by="kim", merge_id=merge_id)

    assert "external_id:ann" in map(str, preview.identifiers)
    assert ruled.is_joined
    assert hub.contact(eve).id == hub.find("external_id", "ann").id == ann
    assert hub.find("external_id", "ben").id == ben


def test_cannot_link_keeps_a_merge_apart(hub):
    """What staff said stands against a later merge, until it is taken back."""
    ann, ben = people(hub, "ann", "ben")

    apart = hub.cannot_link(ann, ben, by="kim", reason="brothers")
    refused = hub.merge(ann, ben, by="eve")
    hub.unmerge(apart.id, by="kim")

    assert not apart.is_joined
    assert not refused.is_joined
    assert hub.contact(ann) == hub.contact(ben)


def test_cannot_link_separates_what_was_merged(hub):
    """Two who were joined by staff and then declared two people are two contacts."""
    ann, ben = people(hub, "ann", "ben")
    hub.merge(ann, ben, by="kim")

    hub.cannot_link(email("ann"), email("ben"), by="eve")

    assert hub.contact(ann).id != hub.contact(ben).id


def test_cannot_link_of_one_with_itself_is_a_conflict(hub):
    """Nobody is kept apart from themselves."""
    (ann,) = people(hub, "ann")

    with pytest.raises(Conflict, match="cannot be kept apart from itself: name two identifiers"):
        hub.cannot_link(ann, email("ann"), by="kim")


def test_unmerge_brings_everything_back(hub):
    """Conversations, and what was written while merged, stand with their own person again."""
    first, second = hub.receive("till", [wrote("1", "ann"), wrote("2", "ben")])
    ann, ben = first.decision.contact, second.decision.contact
    before = list(hub.contacts())
    merge = hub.merge(ann, ben, by="kim")
    (late,) = hub.receive("till", [wrote("3", "ben", thread="new")])
    assert late.decision.contact == ann
    assert len(hub.conversations(contact=ben)) == 3

    hub.unmerge(merge.id, by="kim")

    assert list(hub.contacts()) == before
    assert [one.id for one in hub.conversations(contact=ann)] == [first.conversation]
    assert {one.id for one in hub.conversations(contact=ben)} == {second.conversation, late.conversation}
    assert hub.attribution("till/3") == ben


@pytest.mark.parametrize("call", ["unmerge", "withdraw", "restore"])
def test_taking_back_what_is_not_there_is_not_found(hub, call):
    """An unknown id is named in the error."""
    with pytest.raises(NotFound, match="'nothing' in workspace 'default'"):
        getattr(hub, call)("nothing", by="kim")


def test_unmerging_twice_is_harmless(hub):
    """A merge that was taken back is not taken back again, and nothing is written."""
    ann, ben = people(hub, "ann", "ben")
    merge = hub.merge(ann, ben, by="kim")
    hub.unmerge(merge.id, by="kim")
    before = kept(hub)

    hub.unmerge(merge.id, by="eve")

    assert kept(hub) == before


def test_restore_makes_a_merge_count_again(hub):
    """The undo of a merge can be undone, and undoing it twice is harmless."""
    ann, ben = people(hub, "ann", "ben")
    merge = hub.merge(ann, ben, by="kim")
    before = list(hub.contacts())
    hub.unmerge(merge.id, by="kim")

    hub.restore(merge.id, by="kim")
    hub.restore(merge.id, by="kim")

    assert list(hub.contacts()) == before


def test_withdrawn_hint_counts_for_nothing_until_it_is_restored(hub):
    """A link that a hint made is gone with it, and comes back with it."""
    decision = hub.resolve(proven("1", "ann"))
    hub.resolve(hint("2", email=address("ann"), trust=Trust.CHANNEL))
    before = hub.contact(decision.contact)

    hub.withdraw("1", by="kim")
    without = hub.find("external_id", "account-ann")
    hub.restore("1", by="kim")

    assert without is None
    assert hub.contact(decision.contact) == before


def test_preview_of_a_merge_writes_nothing(hub):
    """It gives what the merge would join, and nothing changes."""
    ann, ben = people(hub, "ann", "ben")
    before = kept(hub)

    preview = hub.preview_merge(ann, ben)

    assert preview
    assert [one.identifier for one in preview.identifiers] == [email("ann"), email("ben")]
    assert kept(hub) == before
    assert hub.suggestions() == []


def test_preview_names_the_rule_that_forbids(hub):
    """A merge of two accounts is refused before anybody asks for it."""
    ann, ben = (hub.resolve(proven(name, name)).contact for name in ("ann", "ben"))

    preview = hub.preview_merge(ann, ben)

    assert not preview
    assert [one.rule for one in preview.refused] == [Rule.ONE_ACCOUNT]


# -- contacts


@pytest.mark.parametrize("call", ["contact", "explain"])
def test_unknown_contact_is_not_found(hub, call):
    """The error names the contact and the workspace."""
    with pytest.raises(NotFound, match="no contact 7 in workspace 'default'"):
        getattr(hub, call)(7)


def test_find_takes_any_spelling(hub):
    """An identifier is found however it is written; what is none, and who is unknown, is None."""
    decision = hub.resolve(hint("1", email="Ann@Shop.Example", trust=Trust.CHANNEL))

    assert hub.find("email", " ANN@SHOP.EXAMPLE ").id == decision.contact
    assert hub.find("email", address("ben")) is None
    assert hub.find("email", "no address") is None
    assert hub.find("no kind", "x") is None


def test_find_keeps_scopes_apart(hub):
    """The same value in another scope is somebody else."""
    claim = Claim("external_id", "7", Trust.PROVEN, "shop")
    decision = hub.resolve(hint("1", claims=[claim]))

    assert hub.find("external_id", "7", scope="shop").id == decision.contact
    assert hub.find("external_id", "7") is None


def test_contact_shows_spelling_trust_cookies_and_notes(hub):
    """A profile tells how an address was written, how well it is attested, and what was only typed beside it."""
    claims = [Claim("phone", PHONE, Trust.ASSERTED)]
    said = hint("1", email="Ann@Shop.Example", trust=Trust.CHANNEL, claims=claims, visitor=COOKIE, how="inbound e-mail")

    contact = hub.contact(hub.resolve(said).contact)

    (held,) = contact.identifiers
    assert (held.node.identifier, held.spelling, held.trust) == (email("ann"), "Ann@Shop.Example", Trust.CHANNEL)
    assert contact.visitors == (COOKIE,)
    assert contact.notes == (Identifier("phone", "", PHONE),)
    assert (contact.how, contact.created_at) == ("inbound e-mail", NOON)


def test_claimed_trait_is_shown_as_unverified(hub):
    """What was typed about a verified person fills a blank, is marked, and gives way to what is attested."""
    decision = hub.resolve(proven("1", "ann"))
    hub.resolve(hint("2", email=address("ann"), traits={"name": "Ann", "company": "Shop"}))
    hub.resolve(hint("3", email=address("ann"), traits={"company": "Bank"}, trust=Trust.AGENT, by="kim"))

    contact = hub.contact(decision.contact)

    assert contact.name == "Ann (unverified)"
    assert (contact.traits["name"].trust, contact.traits["name"].hint) == (Trust.ASSERTED, "2")
    assert str(contact.traits["company"]) == "Bank"


def test_trait_of_a_claimed_contact_has_no_mark(hub):
    """Where all is only claimed, a mark would say nothing."""
    decision = hub.resolve(hint("1", email=address("ann"), traits={"name": "Ann"}))

    assert hub.contact(decision.contact).name == "Ann"


def test_traits_stay_with_the_holder_of_their_time(hub):
    """A number that changed hands takes no name along."""
    day = timedelta(days=1)
    first = hint("1", phone=PHONE, account="ann", trust=Trust.PROVEN, traits={"name": "Ann"})
    ann = hub.resolve(first).contact
    ben = hub.resolve(hint("2", phone=PHONE, account="ben", trust=Trust.PROVEN, at=NOON + day)).contact
    hub.resolve(hint("3", phone=PHONE, trust=Trust.CHANNEL, traits={"name": "Ben"}, at=NOON + 2 * day))

    assert hub.contact(ann).name == "Ann"
    assert hub.contact(ben).name == "Ben"


def test_pages_of_contacts(hub):
    """Each page begins after the cursor of the one before, and the last has none."""
    ids = people(hub, "ann", "ben", "eve")

    first = hub.contacts(limit=2)
    second = hub.contacts(after=first.next, limit=2)

    assert [one.id for one in (*first, *second)] == ids
    assert second.next is None


def test_pages_of_messages(hub):
    """The newest come first, and the cursor goes back in time."""
    received = hub.receive("till", [wrote(str(number), "ann") for number in range(3)])
    conversation = received[0].conversation

    first = hub.messages(conversation, limit=2)
    second = hub.messages(conversation, before=first.next, limit=2)

    assert [one.external_id for one in (*first, *second)] == ["2", "1", "0"]
    assert second.next is None


def test_pages_of_conversations(hub):
    """Pages of all conversations, and of one contact's, give each once, the newest first."""
    events = [wrote(str(n), "ben" if n % 3 else "ann", thread=str(n), at=NOON + timedelta(hours=n)) for n in range(7)]
    received = hub.receive("till", events)
    ann = received[0].decision.contact
    expected = [one.conversation for one in reversed(received)]

    for contact, ids in ((None, expected), (ann, expected[::3])):
        pages, before = [], None
        while page := hub.conversations(contact=contact, before=before, limit=2):
            pages += [one.id for one in page]
            before = page[-1].filing.opened

        assert pages == ids


def test_page_of_a_contact_looks_past_what_is_not_its_own(hub):
    """A cookie that two people share fills no page with what is attributed to neither."""
    ann = hub.resolve(hint("0", email=address("ann"), visitor=COOKIE, trust=Trust.CHANNEL)).contact
    (own,) = hub.receive("till", [wrote("1", "ann")])
    hub.resolve(hint("2", email=address("ben"), visitor=COOKIE, trust=Trust.CHANNEL))
    later = [wrote(f"v{n}", visitor=COOKIE, thread=str(n), at=NOON + timedelta(hours=n + 1)) for n in range(3)]
    hub.receive("till", later)

    page = hub.conversations(contact=ann, limit=1)

    assert [one.id for one in page] == [own.conversation]


def test_conversations_of_an_unknown_contact_are_not_found(hub):
    """An unknown contact, and an unknown conversation, are named in the error."""
    with pytest.raises(NotFound, match="no contact 7"):
        hub.conversations(contact=7)
    with pytest.raises(NotFound, match="no conversation 7"):
        hub.conversation(7)


# -- attribution


def test_cookie_attributes_within_thirty_days(hub):
    """A nameless visit is shown under whom the cookie spoke for, for thirty days from visit to visit."""
    (named,) = hub.resolve_many([hint("named", email=address("ann"), visitor=COOKIE)])
    for name, days in (("before", -30), ("after", 30), ("sliding", 59), ("late", 90)):
        hub.resolve(hint(name, visitor=COOKIE, at=NOON + timedelta(days=days)))

    found = {name: hub.attribution(name) for name in ("before", "after", "sliding", "late")}

    assert found == {"before": named.contact, "after": named.contact, "sliding": named.contact, "late": None}


def test_shared_cookie_attributes_to_nobody(hub):
    """A cookie that spoke for two people speaks for neither."""
    hub.resolve(hint("1", email=address("ann"), visitor=COOKIE))
    hub.resolve(hint("2", email=address("ben"), visitor=COOKIE))

    hub.resolve(hint("3", visitor=COOKIE))

    assert hub.attribution("3") is None
    assert hub.find("email", address("ann")).visitors == ()


def test_role_mailbox_owns_no_cookie(hub):
    """A cookie that came with info@ speaks for nobody."""
    hub.resolve(hint("1", email=address("info"), visitor=COOKIE))

    hub.resolve(hint("2", visitor=COOKIE))

    assert hub.attribution("2") is None


def test_hint_without_anybody_is_attributed_to_nobody(hub):
    """Neither an identifier nor a cookie: nobody."""
    hub.resolve(hint("1"))

    assert hub.attribution("1") is None


@pytest.mark.parametrize("call", ["attribution", "access"])
def test_unknown_hint_is_not_found(hub, call):
    """The error says what a hint's id looks like."""
    with pytest.raises(NotFound, match="no hint 'nothing' in workspace 'default': it is 'channel/external id'"):
        getattr(hub, call)("nothing")


def test_cookies_conversations_are_on_the_contact_made_later(hub):
    """Who gives an address after a nameless visit finds that conversation on their contact."""
    (asked,) = hub.receive("till", [wrote("1", visitor=COOKIE, thread="a")])

    (told,) = hub.receive("till", [wrote("2", "ann", visitor=COOKIE, thread="b", at=NOON + timedelta(days=20))])

    shown = {one.id for one in hub.conversations(contact=told.decision.contact)}
    assert shown == {asked.conversation, told.conversation}


# -- suggestions


def test_typed_address_of_another_contact_is_a_suggestion(hub):
    """Two contacts that were named together are one pair to look at, for both and for all."""
    ann, ben = people(hub, "ann", "ben")
    claims = [Claim("email", address("ben"), Trust.ASSERTED)]
    decision = hub.resolve(hint("1", email=address("ann"), trust=Trust.CHANNEL, claims=claims))

    (found,) = hub.suggestions()

    assert decision.contact == ann
    assert found.contacts == (ann, ben)
    assert {one.identifier for one in found.because} == {email("ann"), email("ben")}
    assert (found.trust, found.evidence) == (Trust.ASSERTED, "1")
    assert hub.suggestions(ann) == hub.suggestions(ben) == [found]
    assert hub.suggestions(9999) == []


def test_role_mailbox_is_no_suggestion(hub):
    """That somebody writes beside info@ makes them nobody's double."""
    people(hub, "ann", "info")
    claims = [Claim("email", address("info"), Trust.AGENT)]

    hub.resolve(hint("1", email=address("ann"), trust=Trust.CHANNEL, claims=claims))

    assert hub.suggestions() == []


def test_note_that_nobody_holds_is_no_suggestion(hub):
    """A suggestion needs two contacts."""
    claims = [Claim("phone", PHONE, Trust.ASSERTED)]

    hub.resolve(hint("1", email=address("ann"), trust=Trust.CHANNEL, claims=claims))

    assert hub.suggestions() == []


def test_pair_kept_apart_is_not_suggested_until_that_is_taken_back(hub):
    """What staff said about two people ends the suggestion that a claim made."""
    ann, ben = people(hub, "ann", "ben")
    claims = [Claim("email", address("ben"), Trust.ASSERTED)]
    hub.resolve(hint("1", email=address("ann"), trust=Trust.CHANNEL, claims=claims))

    apart = hub.cannot_link(ann, ben, by="kim")
    while_apart = hub.suggestions()
    hub.unmerge(apart.id, by="kim")

    assert while_apart == []
    assert [one.contacts for one in hub.suggestions()] == [(ann, ben)]


# -- explain and access


def test_explain_tells_the_story_in_sentences(hub):
    """Links, merges with their reason, and what stays apart are told."""
    ann = hub.resolve(proven("1", "ann", how="sign-in")).contact
    (ben,) = people(hub, "ben")
    (eve,) = people(hub, "eve")
    hub.merge(ann, ben, by="kim", reason="phoned", merge_id="m1")
    claims = [Claim("email", address("eve"), Trust.ASSERTED)]
    hub.resolve(hint("2", email=address("ann"), trust=Trust.CHANNEL, claims=claims))

    told = hub.explain(ben)

    assert "email:ann@shop.example is proven" in told
    assert "external_id:account-ann and email:ann@shop.example were attested together, so they are one person" in str(
        told
    )
    assert "kim merged email:ann@shop.example and email:ben@shop.example (phoned) [m1]" in told
    assert "but are not joined [2]" in str(told)
    assert eve in hub.suggestions()[0].contacts


def test_claimed_session_reads_itself(hub):
    """An address that was only typed opens nothing of the contact that it is filed under."""
    hub.receive("till", [wrote("1", "ann", thread="a")])

    (session,) = hub.receive("till", [wrote("2", "ann", trust=Trust.ASSERTED, visitor=COOKIE, thread="b")])

    access = hub.access("till/2")
    assert access.reach is Reach.OWN_SESSION
    assert (access.readable, access.withheld) == ((session.conversation,), ())


def test_mail_reads_its_thread(hub):
    """A sender without a session reads the thread that they wrote in."""
    (sent,) = hub.receive("till", [wrote("1", "ann")])

    access = hub.access("till/1")

    assert (access.reach, access.readable) == (Reach.OWN_THREAD, (sent.conversation,))


def test_session_without_a_conversation_reads_nothing(hub):
    """A claim that came with no message has nothing to read."""
    hub.resolve(hint("1", email=address("ann"), visitor=COOKIE))

    assert hub.access("1").readable == ()


def test_proven_session_reads_its_contacts_verified_conversations(hub):
    """What others only claimed is withheld; what the own browser wrote is not."""
    verified, claimed, own = hub.receive(
        "till",
        [
            wrote("1", "ann", thread="a"),
            wrote("2", "ann", trust=Trust.ASSERTED, visitor=OTHER_COOKIE, thread="b"),
            wrote("3", "ann", trust=Trust.ASSERTED, visitor=COOKIE, thread="c"),
        ],
    )
    hub.resolve(proven("4", "ann", visitor=COOKIE))

    access = hub.access("4")

    assert access.reach is Reach.CONTACT
    assert set(access.readable) == {verified.conversation, own.conversation}
    assert access.withheld == (claimed.conversation,)


def test_proof_that_was_taken_back_opens_nothing(hub):
    """A session whose proof was withdrawn reads no more than an unproven one, whoever holds the address."""
    hub.receive("till", [wrote("1", "ann", thread="a")])
    hub.resolve(hint("2", email=address("ann"), trust=Trust.PROVEN, visitor=COOKIE))
    hub.withdraw("2", by="kim")

    access = hub.access("2")

    assert (access.reach, access.readable) == (Reach.OWN_SESSION, ())


# -- notes, consent, lists


def chatting(store, clock):
    """Give a hub with a channel that the widget shows, and one conversation on it."""
    hub = Hub(store, channels=[ChatChannel("chat", ChatSettings())], clock=clock)
    (received,) = hub.receive("chat", [wrote("1", "ann", visitor=COOKIE)])
    return hub, received.conversation


def test_answer_is_in_the_conversation(store, clock):
    """Who answers first takes the conversation, which a line says, and has read it."""
    hub, conversation = chatting(store, clock)
    clock.advance(seconds=60)

    hub.reply(conversation, "Hello!", by="kim")
    hub.reply(conversation, "Anything else?", by="lee")

    filing = hub.conversation(conversation).filing
    assert (filing.assignee, filing.unread, filing.messages, filing.last_at) == ("kim", 0, 4, clock())
    told = [(one.direction, one.text, (one.detail or {}).get("by")) for one in hub.messages(conversation)]
    assert told[::-1][1:] == [
        (Direction.OUTBOUND, "Hello!", "kim"),
        (Direction.LINE, "assigned to kim", None),
        (Direction.OUTBOUND, "Anything else?", "lee"),
    ]
    told = [one.type for one in hub.store.notices("default", since=0, limit=50)]
    assert told[-3:] == ["message.sent", "conversation.assigned", "message.sent"]


def test_answer_with_the_same_id_is_one(store, clock):
    """Whoever does not know whether an answer was kept sends it again, and nothing is said twice."""
    hub, conversation = chatting(store, clock)

    ids = [hub.reply(conversation, "Hello!", by="kim", reply_id="a") for _ in range(2)]

    assert ids == ["reply/a", "reply/a"]
    assert [one.text for one in hub.messages(conversation)] == ["assigned to kim", "Hello!", "text of 1"]


def test_only_what_a_widget_shows_is_answered_there(hub):
    """An answer that nobody would ever read is refused, and so is one to a conversation that is not there."""
    (received,) = hub.receive("till", [wrote("1", "ann")])

    with pytest.raises(UnsupportedError, match=r"on 'till', which cannot answer, and in no browser"):
        hub.reply(received.conversation, "Hello!", by="kim")
    with pytest.raises(ValueError, match="write some"):
        hub.reply(received.conversation, " ", by="kim")
    with pytest.raises(NotFound):
        hub.reply(10**9, "Hello!", by="kim")


def test_agents_are_on_duty_until_they_said(store, clock):
    """An agent is there from the moment that says so until the one that was named, or until taken off."""
    hub = Hub(store, clock=clock)

    hub.be_on_duty("kim", clock() + timedelta(hours=8))
    hub.be_on_duty("lee", clock() + timedelta(hours=1))
    hub.be_on_duty("max", clock() + timedelta(hours=8))
    hub.be_on_duty("max", None)
    at_first = hub.on_duty()
    clock.advance(seconds=3600)

    assert at_first == ("kim", "lee")
    assert hub.on_duty() == ("kim",)
    assert Hub(store, workspace="another", clock=clock).on_duty() == ()


def test_note_by_staff_is_in_the_conversation(hub):
    """A note is a message that never leaves, signed by who wrote it."""
    (received,) = hub.receive("till", [wrote("1", "ann")])

    number = hub.note(received.conversation, "Call back.", by="kim")

    note, _ = hub.messages(received.conversation)
    assert (note.id, note.direction, note.text, note.status) == (number, Direction.NOTE, "Call back.", "by kim")


def test_note_needs_a_conversation(hub):
    """A note is written into a conversation that is there."""
    with pytest.raises(NotFound, match="no conversation 7"):
        hub.note(7, "Call back.", by="kim")


def test_consent_counts_by_the_newest(hub, clock):
    """Each purpose has its own statements, and nobody who was never asked has one."""
    hub.record_consent("email", "Ann@Shop.Example", "news", ConsentState.GRANTED, by="kim", wording="Yes, please.")
    clock.advance(days=1)
    record = hub.record_consent("email", address("ann"), "news", ConsentState.WITHDRAWN, by="kim")

    assert (record.identifier, record.at) == (email("ann"), clock())
    assert hub.consent(email("ann"), "news") is ConsentState.WITHDRAWN
    assert hub.consent(email("ann"), "calls") is None


def test_claimed_yes_stays_pending(hub):
    """A yes that nobody proved waits for the double opt-in; a no counts at once."""
    yes = hub.record_consent("email", address("ann"), "news", ConsentState.GRANTED, by="", trust=Trust.ASSERTED)
    no = hub.record_consent("email", address("ann"), "calls", ConsentState.DENIED, by="", trust=Trust.ASSERTED)

    assert (yes.state, no.state) == (ConsentState.PENDING, ConsentState.DENIED)
    assert not hub.may_write(email("ann"), "news")


def test_consent_for_an_unusable_value_is_refused(hub):
    """Nothing is recorded about a value that identifies nobody."""
    with pytest.raises(ValueError, match="'null' is no usable email: nothing was recorded"):
        hub.record_consent("email", "null", "news", ConsentState.GRANTED, by="kim")


def test_may_write_names_what_is_missing(hub):
    """Consent and list are two things, and each is named where it is missing."""
    (ann,) = people(hub, "ann")

    neither = hub.may_write(email("ann"), "news", list_name="weekly")
    hub.record_consent("email", address("ann"), "news", ConsentState.GRANTED, by="kim")
    no_list = hub.may_write(email("ann"), "news", list_name="weekly")
    hub.set_list(ann, "weekly", ListState.SUBSCRIBED, how="form")
    both = hub.may_write(email("ann"), "news", list_name="weekly")

    no_consent, no_membership = neither.missing
    assert "never asked about news" in no_consent
    assert no_list.missing == (no_membership,) == ("the contact is not subscribed to weekly",)
    assert both


def test_membership_without_consent_is_not_enough(hub):
    """Somebody on a list who never consented is not written to."""
    (ann,) = people(hub, "ann")
    hub.set_list(ann, "weekly", ListState.SUBSCRIBED, how="import")

    permission = hub.may_write(email("ann"), "news", list_name="weekly")

    assert permission.missing == ("email:ann@shop.example was never asked about news",)


def test_unknown_address_may_be_written_to_with_its_consent_alone(hub):
    """Consent belongs to the identifier, contact or not; a list needs a contact."""
    hub.record_consent("email", address("ann"), "news", ConsentState.GRANTED, by="kim")

    assert hub.may_write(email("ann"), "news")
    assert not hub.may_write(email("ann"), "news", list_name="weekly")


def test_withdrawal_counts_across_a_merge(hub, clock):
    """Who withdrew at one address is not written to at another, while the two are one person."""
    ann, ben = people(hub, "ann", "ben")
    hub.record_consent("email", address("ann"), "news", ConsentState.GRANTED, by="kim")
    clock.advance(days=1)
    hub.record_consent("email", address("ben"), "news", ConsentState.WITHDRAWN, by="kim")
    assert hub.may_write(email("ann"), "news")

    merge = hub.merge(ann, ben, by="kim")
    merged = hub.may_write(email("ann"), "news")
    hub.unmerge(merge.id, by="kim")

    assert merged.missing == ("email:ben@shop.example, the same person, has withdrawn from news",)
    assert hub.may_write(email("ann"), "news")


def test_list_state_is_read_back(hub):
    """A contact is on a list, off it, or nothing was ever recorded."""
    (ann,) = people(hub, "ann")

    hub.set_list(ann, "weekly", ListState.SUBSCRIBED, how="form", by="kim")

    assert hub.on_list(ann, "weekly") is ListState.SUBSCRIBED
    assert hub.on_list(ann, "daily") is None
    assert hub.on_list(9999, "weekly") is None


def test_list_of_an_unknown_contact_is_not_found(hub):
    """Nobody unknown is put on a list."""
    with pytest.raises(NotFound, match="no contact 7"):
        hub.set_list(7, "weekly", ListState.SUBSCRIBED, how="form")


def test_who_left_a_list_stays_off_it_across_a_merge_and_its_undo(hub, clock):
    """A merge puts nobody on a list, and what was said while merged holds for both afterwards."""
    ann, ben = people(hub, "ann", "ben")
    hub.set_list(ann, "weekly", ListState.SUBSCRIBED, how="form")
    hub.set_list(ben, "weekly", ListState.UNSUBSCRIBED, how="link")
    merge = hub.merge(ann, ben, by="kim")
    merged = hub.on_list(ann, "weekly")
    clock.advance(days=1)
    hub.set_list(ben, "daily", ListState.SUBSCRIBED, how="form")

    hub.unmerge(merge.id, by="kim")

    assert merged is ListState.UNSUBSCRIBED
    assert (hub.on_list(ann, "weekly"), hub.on_list(ben, "weekly")) == (ListState.SUBSCRIBED, ListState.UNSUBSCRIBED)
    assert (hub.on_list(ann, "daily"), hub.on_list(ben, "daily")) == (ListState.SUBSCRIBED, ListState.SUBSCRIBED)


# -- notices


def test_created_contact_is_told_with_how_it_came_to_be(hub):
    """An automation can tell a contact of an inbound e-mail from one of a form."""
    (received,) = hub.receive("till", [wrote("1", "ann", how="inbound e-mail")])

    assert notices(hub, "contact.created") == [{"contact": received.decision.contact, "how": "inbound e-mail"}]
    assert notices(hub, "conversation.opened") == [{"conversation": received.conversation, "channel": "till"}]
    assert notices(hub, "message.received") == [{"conversation": received.conversation, "direction": "inbound"}]


def test_contact_created_by_a_hint_with_a_refused_link_is_told(hub):
    """A conflict about one identifier of a hint does not hide that its anchor is a new contact."""
    hub.resolve(proven("1", "ann"))
    claims = [Claim("external_id", "account-new", Trust.PROVEN), Claim("email", address("ann"), Trust.AGENT)]

    decision = hub.resolve(hint("2", claims=claims, how="form"))

    assert decision.outcome is Outcome.CONFLICT
    assert notices(hub, "contact.created")[1:] == [{"contact": decision.contact, "how": "form"}]


def test_merge_by_evidence_is_told(hub):
    """Two contacts that evidence joins are told as a merge, and an identifier that is gained as a link."""
    ann, ben = people(hub, "ann", "ben")
    claims = [Claim("email", address("ben"), Trust.CHANNEL)]

    hub.resolve(hint("1", email=address("ann"), trust=Trust.CHANNEL, claims=claims))
    hub.resolve(hint("2", email=address("ann"), phone=PHONE, trust=Trust.CHANNEL))

    assert notices(hub, "contact.merged") == [{"contact": ann, "former": ben, "because": "1"}]
    assert notices(hub, "contact.identified") == [{"contact": ann, "hint": "2"}]


def test_merge_by_staff_and_its_undo_are_told(hub):
    """Observers hear of both, with the id of the merge."""
    ann, ben = people(hub, "ann", "ben")

    hub.merge(ann, ben, by="kim", merge_id="m1")
    hub.unmerge("m1", by="kim")

    assert notices(hub, "contact.merged") == [{"contact": ann, "former": ben, "because": "m1"}]
    assert notices(hub, "contact.unmerged") == [{"contact": ben, "former": ann, "because": "m1"}]


def test_suggestion_is_told(hub):
    """Observers hear which two identifiers may be one person."""
    people(hub, "ann", "ben")
    claims = [Claim("email", address("ben"), Trust.ASSERTED)]

    hub.resolve(hint("1", email=address("ann"), trust=Trust.CHANNEL, claims=claims))

    pair = ["email:ann@shop.example", "email:ben@shop.example"]
    assert notices(hub, "suggestion.opened") == [{"identifiers": pair, "because": "1"}]


def test_consent_is_told_however_it_came(hub):
    """A consent that a channel signals and one that staff record are told alike."""
    claim = Claim("email", address("ann"), Trust.CHANNEL)
    signal = ConsentSignal(claim=claim, purpose="news", granted=True)

    hub.receive("till", [ConsentSignalled(external_id="1", at=NOON, signal=signal)])
    hub.record_consent("email", address("ann"), "news", ConsentState.WITHDRAWN, by="kim")

    told = [(one["identifier"], one["purpose"], one["state"]) for one in notices(hub, "consent.changed")]
    assert told == [("email:ann@shop.example", "news", state) for state in ("granted", "withdrawn")]


# -- no takeover, and no leak over a change of hands


def test_attested_message_does_not_go_on_in_another_browsers_claim(hub):
    """Whoever proves an account gets a conversation of their own: the claimant's browser would read it."""
    claimed = wrote("1", "ann", trust=Trust.ASSERTED, visitor=COOKIE)
    attested = wrote("2", "ann", trust=Trust.PROVEN, visitor=OTHER_COOKIE)

    mine, hers = (hub.receive("till", [one])[0].conversation for one in (claimed, attested))

    assert mine != hers
    assert hub.access("till/1").readable == (mine,)
    assert hub.access("till/2").readable == (hers,)


def test_forged_mail_does_not_catch_the_genuine_ones_after_it(hub):
    """A claim opens a conversation beside the attested one, which the next attested mail goes on in."""
    mails = [
        wrote(str(n), "ann", trust=trust) for n, trust in enumerate((Trust.CHANNEL, Trust.ASSERTED, Trust.CHANNEL))
    ]

    first, forged, last = (hub.receive("till", [one])[0].conversation for one in mails)

    assert first == last != forged


def test_claimed_opt_in_does_not_hide_a_withdrawal(hub):
    """A request that waits for its confirmation brings nobody back who has withdrawn at another address."""
    hub.resolve(proven("1", "ann", claims=[Claim("email", address("ann2"), Trust.PROVEN)]))
    hub.record_consent("email", address("ann"), "news", ConsentState.GRANTED, by="kim", trust=Trust.PROVEN)
    for state, trust in ((ConsentState.WITHDRAWN, Trust.PROVEN), (ConsentState.GRANTED, Trust.ASSERTED)):
        hub._clock.advance(days=1)  # noqa: SLF001  (the fixture's own clock)
        hub.record_consent("email", address("ann2"), "news", state, by="kim", trust=trust)

    assert not hub.may_write(email("ann"), "news")


def test_yes_ends_where_a_number_changes_hands(hub):
    """The new holder of a number was never asked, and the old one's no still counts."""
    number = Identifier("phone", "", PHONE)
    hub.resolve(hint("1", account="ann", phone=PHONE, trust=Trust.PROVEN))
    hub.record_consent("phone", PHONE, "news", ConsentState.GRANTED, by="kim", trust=Trust.PROVEN)
    assert hub.may_write(number, "news")

    hub.resolve(hint("2", account="ben", phone=PHONE, trust=Trust.PROVEN, at=NOON + timedelta(days=1)))

    assert hub.consent(number, "news") is None
    assert not hub.may_write(number, "news")


def test_yes_of_a_withdrawn_hint_counts_no_more(hub):
    """A hint that is taken back takes its yes with it, and gives it back when it is restored."""
    claim = Claim("email", address("ann"), Trust.PROVEN)
    signal = ConsentSignal(claim=claim, purpose="news", granted=True)
    hub.resolve(hint("1", claims=[claim], consents=(signal,)))

    hub.withdraw("1", by="kim")
    assert hub.consent(email("ann"), "news") is None
    hub.restore("1", by="kim")

    assert hub.consent(email("ann"), "news") is ConsentState.GRANTED


def test_traits_of_a_new_holder_are_not_the_old_ones(hub):
    """What is said of a number's new holder is not shown on the contact that had it before."""
    for day, (account, name) in enumerate((("ann", "Ann"), ("ben", "Ben"))):
        at = NOON + timedelta(days=day)
        hub.resolve(hint(str(day), account=account, phone=PHONE, traits={"name": name}, trust=Trust.PROVEN, at=at))
    hub.resolve(hint("2", phone=PHONE, traits={"name": "Benny"}, trust=Trust.PROVEN, at=NOON + timedelta(days=2)))

    names = [hub.find("external_id", account).name for account in ("ann", "ben")]

    assert names == ["Ann", "Benny"]


def test_older_words_of_a_cookie_overwrite_no_claim(hub):
    """What a browser said before anybody knew whose it is counts from then on: after what was said in between."""
    hub.resolve(hint("1", visitor=COOKIE, traits={"name": "Eve"}))
    hub.resolve(hint("2", email=address("ann"), traits={"name": "Ann"}, at=NOON + timedelta(days=1)))

    hub.resolve(hint("3", email=address("ann"), visitor=COOKIE, at=NOON + timedelta(days=2)))

    assert hub.find("email", address("ann")).name == "Ann"


def test_words_of_a_cookie_are_its_contacts_for_thirty_days(hub):
    """A pause longer than the cookie lives parts what was said before from who comes after."""
    hub.resolve(hint("1", visitor=COOKIE, traits={"name": "Eve"}))

    hub.resolve(hint("2", email=address("ann"), visitor=COOKIE, trust=Trust.CHANNEL, at=NOON + timedelta(days=60)))

    assert hub.find("email", address("ann")).traits == {}


def test_cookie_is_no_side_of_a_merge(hub):
    """Staff cannot join people through a browser that both have used."""
    people(hub, "ann")

    with pytest.raises(Conflict, match="says which browser"):
        hub.merge(Identifier("visitor", "", COOKIE), email("ann"), by="kim")


def test_pairs_of_a_new_holder_are_not_the_old_ones(hub):
    """Suggestions and reasons of a contact leave out who was named with its number later."""
    hub.resolve(hint("1", account="ann", phone=PHONE, trust=Trust.PROVEN))
    hub.resolve(hint("2", account="ben", phone=PHONE, trust=Trust.PROVEN, at=NOON + timedelta(days=1)))
    people(hub, "zed")
    claims = [Claim("email", address("zed"), Trust.CHANNEL), Claim("phone", PHONE, Trust.ASSERTED)]
    hub.resolve(hint("3", claims=claims, at=NOON + timedelta(days=2)))
    ann, ben = (hub.find("external_id", account).id for account in ("ann", "ben"))

    assert hub.suggestions(ben)
    assert hub.suggestions(ann) == []
    assert not any("zed" in line for line in hub.explain(ann))


def test_spelling_is_kept_without_what_nobody_sees(hub):
    """An address is written to as it was spelt, but for zero-width characters at its edges."""
    hub.resolve(hint("1", email="\u200bAnn@Shop.example\ufeff", trust=Trust.CHANNEL))

    assert hub.find("email", address("ann")).identifiers[0].spelling == "Ann@Shop.example"


def test_resting_contact_redirects_over_a_later_merge(hub):
    """An id whose evidence was taken back leads to who is left of it, wherever that one is merged to."""
    (bob,) = people(hub, "bob")
    ann = hub.resolve(hint("1", email=address("ann"), phone=PHONE, trust=Trust.CHANNEL)).contact
    hub.resolve(hint("2", phone=PHONE, trust=Trust.CHANNEL, at=NOON + timedelta(days=1)))
    hub.withdraw("1", by="kim")
    left = hub.find("phone", PHONE).id

    hub.merge(left, bob, by="kim")

    assert left != ann
    assert hub.contact(ann).id == bob
