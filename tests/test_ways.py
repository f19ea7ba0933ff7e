import asyncio
from contextlib import closing
from datetime import timedelta

import httpx
import pytest
from attrs import evolve
from servers import STORES, fresh_store

from convsdk.channels.chat import ChatChannel, ChatSettings
from convsdk.channels.email import EmailChannel
from convsdk.channels.email.sending import PostmarkSending
from convsdk.channels.email.settings import EmailSettings
from convsdk.core.blocks import AskBlock, SayBlock
from convsdk.core.consent import ConsentState
from convsdk.core.events import DeliveryStatus, MessageReceived, StatusChanged
from convsdk.core.flow import Flow, Trigger
from convsdk.core.model import Claim, Direction, IdentityHint, Trait, Trust
from convsdk.core.ports import Envelope, Request, Secret, Widget
from convsdk.delivery import Deliverer
from convsdk.errors import ConfigError, Conflict, UnsupportedError
from convsdk.hub import Hub
from convsdk.store import open_store
from convsdk.testing.builders import NOON, FakeClock, hint

ANN = "ann@shop.example"
INBOX = "in@channel.example"


@pytest.fixture(params=STORES)
def store(request, tmp_path):
    """Give an empty store of each kind that ships."""
    with closing(open_store(fresh_store(request.param, tmp_path))) as store:
        yield store


@pytest.fixture
def hub(store):
    """Give a hub with a chat that an e-mail channel follows up."""
    return made(store)


def made(store, **settings):
    """Give a hub with a chat that an e-mail channel follows up; `settings` are the chat's."""
    mail = EmailSettings(
        address=INBOX, name="The shop", authserv_id="mx.channel.example", sending=PostmarkSending(token=Secret("t"))
    )
    chat = ChatSettings(follow_up="support", widget=Widget(title="Chat with the shop"), **settings)
    return Hub(store, channels=[ChatChannel("site", chat), EmailChannel("support", mail)], clock=FakeClock())


def wrote(hub, name="m1", *, visitor="v1", at=0, **fields):
    """Let a visitor write in the widget, as whom `fields` say; give the conversation."""
    when = NOON + timedelta(minutes=at)
    said = hint(visitor=visitor, at=when, **fields)
    event = MessageReceived(external_id=f"{name}/{visitor}", hint=said, at=when, text="Where is it?", thread=visitor)
    (received,) = hub.receive("site", [event])
    return received.conversation


def proven(hub, name="m1", *, visitor="v1", email=ANN, trust=Trust.PROVEN):
    """Let a visitor write whose site has signed who they are; give the conversation."""
    claims = (Claim("external_id", "42", Trust.PROVEN, "shop"), Claim("email", email, trust))
    said = IdentityHint(at=NOON, visitor=visitor, identifiers=claims)
    event = MessageReceived(external_id=f"{name}/{visitor}", hint=said, at=NOON, text="Where is it?", thread=visitor)
    (received,) = hub.receive("site", [event])
    return received.conversation


def mailed(hub, *, answering, sender=ANN, name="a1", text="Thank you!", is_attested=True):
    """Take a mail in that answers our message `answering`; give the conversation that it is in."""
    results = f"mx.channel.example; dmarc=pass header.from={sender.rpartition('@')[2]}"
    fields = [
        *([f"Authentication-Results: {results}"] if is_attested else []),
        f"From: <{sender}>",
        f"To: <{INBOX}>",
        f"Message-ID: <{name}@mail.example>",
        f"In-Reply-To: {answering}",
        "Date: Thu, 01 Jan 2026 12:00:00 +0000",
        "Subject: Re: Chat",
    ]
    raw = "\r\n".join([*fields, "", text, ""]).encode()
    request = Request(received_at=NOON, body=raw, envelope=Envelope(sender=sender, recipients=(INBOX,)))
    return hub.handle("support", request).received[0].conversation


def last(hub, conversation):
    """Give the newest outbound message of a conversation."""
    return next(one for one in hub.messages(conversation) if one.direction is Direction.OUTBOUND)


def told(hub, *types):
    """Give the payloads of the notices of these types."""
    return [one.payload for one in hub.store.notices(hub.workspace, since=0, limit=1000) if one.type in types]


def deliver(hub, conversation):
    """Deliver what is queued; give the requests to the provider."""
    posted = []

    def take(request):
        posted.append(request)
        return httpx.Response(200, json={"ErrorCode": 0, "MessageID": f"pm-{len(posted)}", "Message": "OK"})

    async def work():
        async with (
            httpx.AsyncClient(transport=httpx.MockTransport(take)) as client,
            Deliverer(hub, client, clock=hub._clock, poll_s=0.01),  # noqa: SLF001  (the hub's own clock)
            asyncio.timeout(30),
        ):
            while last(hub, conversation).status == "queued":  # noqa: ASYNC110  (in a store, nothing tells us)
                await asyncio.sleep(0.01)

    asyncio.run(work())
    return posted


def test_absent_visitor_is_answered_by_mail(hub):
    """The mail goes to the address that they typed, is in their chat, and tells who asks why it went so."""
    conversation = wrote(hub, email="Ann@shop.example")

    external_id = hub.reply(conversation, "It left this morning.", by="kim")

    sent = last(hub, conversation)
    assert (sent.channel, sent.status, sent.external_id) == ("support", "queued", external_id)
    assert sent.detail["way"] == {
        "channel": "support",
        "why": "the visitor is not there",
        "to": ANN,
        "address": "Ann@shop.example",
    }


def test_present_visitor_is_answered_in_the_widget(hub):
    """Nothing is queued for who looks at the chat."""
    conversation = wrote(hub, email=ANN)
    hub.show_presence([("site", "v1")], by="web-1")

    hub.reply(conversation, "It left this morning.", by="kim")

    sent = last(hub, conversation)
    assert (sent.channel, sent.status) == ("site", "sent")
    assert sent.detail["way"] == {"channel": "site", "why": "the visitor is there"}


def test_explicit_way_wins(hub):
    """An agent chooses by the channel's name; the preview says what would be chosen."""
    conversation = wrote(hub, email=ANN)
    hub.show_presence([("site", "v1")], by="web-1")
    assert hub.way(conversation).channel == "site"

    hub.reply(conversation, "By mail.", by="kim", way="support")
    hub.show_presence([], [("site", "v1")], by="web-1")
    hub.reply(conversation, "Here.", by="kim", way="site")

    assert [one.channel for one in hub.messages(conversation) if one.direction is Direction.OUTBOUND] == [
        "site",
        "support",
    ]


def test_mail_says_what_the_agent_wrote_and_no_more(hub):
    """No history is quoted, no name of the chat's visitor goes out, and the subject is what visitors know."""
    conversation = wrote(hub, "<m1@mail.example>", email=ANN)
    hub.reply(conversation, "An earlier answer.", by="kim", way="site")
    hub.note(conversation, "A difficult customer", by="kim")

    hub.reply(conversation, "It left this morning.", by="kim")

    (posted,) = deliver(hub, conversation)
    body = posted.content.decode()
    assert "It left this morning." in body
    assert '"To":"ann@shop.example"' in body.replace(": ", ":")
    assert "Chat with the shop" in body
    assert not any(one in body for one in ("earlier answer", "difficult", "Where is it", "v1", "References"))
    assert last(hub, conversation).status == "sent"


def test_sent_is_told_once_the_provider_has_it(hub):
    """With channel, external id and why; that it is queued is told before."""
    conversation = wrote(hub, email=ANN)
    external_id = hub.reply(conversation, "It left this morning.", by="kim")
    assert told(hub, "message.sent") == []
    (queued,) = told(hub, "message.queued")

    deliver(hub, conversation)

    (sent,) = told(hub, "message.sent")
    expected = {"channel": "support", "external_id": external_id, "way": "the visitor is not there"}
    assert expected.items() <= sent.items()
    assert expected.items() <= queued.items()
    assert ANN not in str(sent)


@pytest.mark.parametrize("state", [ConsentState.WITHDRAWN, ConsentState.DENIED])
def test_nobody_is_written_to_who_said_no(hub, state):
    """A no to transactional mail keeps the answer in the widget, whoever insists; marketing is another matter."""
    conversation = wrote(hub, email=ANN)
    hub.record_consent("email", ANN, "marketing", state, by="ann")
    assert hub.way(conversation).channel == "support"

    hub.record_consent("email", ANN, "transactional", state, by="ann")

    assert hub.way(conversation).channel == "site"
    assert f"email:{ANN} is {state.value} for transactional" in hub.way(conversation).why
    with pytest.raises(Conflict, match="for transactional"):
        hub.reply(conversation, "By mail!", by="kim", way="support")


def test_address_that_bounced_is_not_written_to(hub):
    """The answer waits in the widget, and the agent is told what was reported."""
    conversation = wrote(hub, email=ANN)
    bounced = StatusChanged(
        external_id="b1",
        status=DeliveryStatus.FAILED,
        at=NOON,
        error="no such user",
        unreachable=Claim("email", ANN, Trust.CHANNEL),
    )
    hub.receive("support", [bounced])

    assert hub.way(conversation).channel == "site"
    assert "no such user" in hub.way(conversation).why


def test_proven_visitor_is_written_to_at_a_proven_address_alone(hub):
    """What was typed by whomever receives nothing of what somebody proven is told."""
    unverified = proven(hub, trust=Trust.ASSERTED)
    assert hub.way(unverified).to is None

    verified = proven(hub, "m2", visitor="v2")

    assert hub.way(verified).to.value == ANN


def test_claim_leads_to_no_address_of_its_contact(hub):
    """Who claims an account is not answered at what its owner has proven."""
    proven(hub)
    claim = Claim("external_id", "42", Trust.ASSERTED, "shop")
    said = IdentityHint(at=NOON, visitor="v9", identifiers=(claim,))
    event = MessageReceived(external_id="m9/v9", hint=said, at=NOON, text="It is me", thread="v9")
    (received,) = hub.receive("site", [event])
    assert hub.conversation(received.conversation).contact == hub.find("email", ANN).id

    assert hub.way(received.conversation).to is None


def test_address_that_was_typed_beside_a_claimed_account_is_answered_there(hub):
    """Not what the account's owner has proven, and only until the owner speaks in that conversation."""
    proven(hub, visitor="v7")
    account = Claim("external_id", "42", Trust.ASSERTED, "shop")

    def said(name, *claims):
        who = IdentityHint(at=NOON, visitor="v9", identifiers=claims)
        (received,) = hub.receive(
            "site", [MessageReceived(external_id=name, hint=who, at=NOON, text="It is me", thread="v9")]
        )
        return received.conversation

    conversation = said("m1/v9", account, Claim("email", "Me@home.example", Trust.ASSERTED))
    way = hub.way(conversation)
    assert (way.to.value, way.spelling) == ("me@home.example", "Me@home.example")
    hub.reply(conversation, "Hi!", by="kim")

    assert said("m2/v9", evolve(account, trust=Trust.PROVEN)) == conversation

    assert hub.way(conversation).to is None


def test_address_of_another_conversation_is_not_used(hub):
    """An address is for the conversation in which it was typed, and for no other of that browser."""
    wrote(hub, email=ANN)
    nameless = wrote(hub, "m2", visitor="v2")

    assert hub.way(nameless).to is None


def test_attested_answer_comes_back_into_a_proven_chat(hub):
    """By the Message-ID, and to who reads it in the widget: the address was attested for that person."""
    conversation = proven(hub)
    external_id = hub.reply(conversation, "It left this morning.", by="kim")

    found = mailed(hub, answering=external_id)

    assert found == conversation
    inbound = hub.messages(conversation).items[0]
    assert (inbound.channel, inbound.direction, inbound.text.strip()) == ("support", Direction.INBOUND, "Thank you!")
    # What goes out next answers that mail.
    hub.reply(conversation, "You are welcome.", by="kim")
    (first, second) = deliver(hub, conversation)
    assert "a1@mail.example" in second.content.decode()
    assert "a1@mail.example" not in first.content.decode()


def test_attested_answer_stays_out_of_a_chat_that_was_only_claimed(hub):
    """Whoever typed Ann's address would read in the widget what Ann answers; staff see where it belongs."""
    conversation = wrote(hub, email=ANN)
    external_id = hub.reply(conversation, "It left this morning.", by="kim")

    found = mailed(hub, answering=external_id, text="My card number is 1234")

    assert found != conversation
    assert hub.conversation(found).filing.channel == "support"
    assert hub.messages(found).items[0].detail["related"] == [conversation]
    assert "card" not in str([one.text for one in hub.messages(conversation)])


@pytest.mark.parametrize(("sender", "is_attested"), [(ANN, False), ("eve@evil.example", True)])
def test_forged_answer_stays_out_of_a_proven_chat(hub, sender, is_attested):
    """To know a message's id opens nobody's chat: neither unattested, nor to somebody else."""
    conversation = proven(hub)
    external_id = hub.reply(conversation, "It left this morning.", by="kim")

    assert mailed(hub, answering=external_id, sender=sender, is_attested=is_attested) != conversation


def test_answer_by_mail_opens_a_chat_again_and_says_nothing_to_its_bot(hub):
    """A completed conversation is open once its answer comes, and observers are told."""
    conversation = proven(hub)
    external_id = hub.reply(conversation, "It left this morning.", by="kim")
    hub.complete(conversation, by="kim")

    mailed(hub, answering=external_id)

    assert hub.conversation(conversation).filing.status.value == "open"
    assert told(hub, "conversation.reopened") == [{"conversation": conversation}]


def test_bot_of_a_chat_does_not_answer_mail(store):
    """It asked in the widget; what comes by mail is for people."""
    asking = (AskBlock(id="order", text="Which order?", trait="order"), SayBlock(id="thanks", text="Thanks!"))
    hub = made(store, bot=Flow(trigger=Trigger(on="message"), blocks=asking))
    conversation = proven(hub)
    assert last(hub, conversation).text == "Which order?"
    external_id = hub.reply(conversation, "We look into it.", by="a program", is_automatic=True)

    assert mailed(hub, answering=external_id) == conversation

    assert last(hub, conversation).text == "We look into it."


def test_same_reply_goes_once_though_the_visitor_leaves_between(hub):
    """A second call with the same id says nothing twice, whichever way it would go now."""
    conversation = wrote(hub, email=ANN)
    hub.show_presence([("site", "v1")], by="web-1")
    first = hub.reply(conversation, "Hello", by="kim", reply_id="r1")
    hub.show_presence([], [("site", "v1")], by="web-1")

    second = hub.reply(conversation, "Hello", by="kim", reply_id="r1")
    third = hub.reply(conversation, "Another", by="kim", reply_id="r2")
    hub.show_presence([("site", "v1")], by="web-1")

    assert second == first
    assert hub.reply(conversation, "Another", by="kim", reply_id="r2") == third


def test_failed_mail_can_be_sent_again(hub):
    """To the address that it was for, unless that takes nothing any more."""
    conversation = wrote(hub, email=ANN)
    external_id = hub.reply(conversation, "It left this morning.", by="kim")
    failed = StatusChanged(
        external_id="s1", status=DeliveryStatus.FAILED, at=NOON, messages=(external_id,), error="mailbox full"
    )
    deliver(hub, conversation)
    hub.receive("support", [failed])
    assert last(hub, conversation).status == "failed"

    hub.retry(last(hub, conversation))

    assert len(deliver(hub, conversation)) == 1


def test_message_cannot_say_to_whom_it_goes(hub):
    """The detail of an answer is the caller's, its way is not."""
    conversation = wrote(hub, email=ANN)

    hub.reply(conversation, "Hi", by="kim", detail={"way": {"to": "eve@evil.example"}})

    assert last(hub, conversation).detail["way"]["to"] == ANN
    by_mail = mailed(hub, answering="<x@mail.example>")
    hub.reply(by_mail, "Hi", by="kim", detail={"way": {"to": "eve@evil.example"}})
    assert "eve@" not in "".join(one.content.decode() for one in deliver(hub, by_mail))


def test_presence_holds_while_any_process_sees_the_visitor(hub):
    """One page of two that closes takes nobody away; a process that died no more than 75 seconds later."""
    conversation = wrote(hub, email=ANN)
    place = ("site", "v1")
    assert not hub.is_present(conversation)

    hub.show_presence([place], by="web-1")
    hub.show_presence([place], by="web-2")
    hub.show_presence([], [place], by="web-1")
    assert hub.is_present(conversation)

    hub.show_presence([], [place], by="web-2")
    assert not hub.is_present(conversation)

    hub.show_presence([place], by="web-1")
    hub._clock.advance(seconds=75)  # noqa: SLF001  (a test's clock)
    assert not hub.is_present(conversation)
    hub._clock.advance(seconds=86400)  # noqa: SLF001  (as above)
    hub.forget_presence()
    assert hub.store.memo(hub.workspace, "presence", "site/v1") is None


def test_chat_is_followed_up_only_by_what_sends_mail():
    """That is found at the start, and not when somebody waits for an answer."""
    silent = EmailChannel("support", EmailSettings(address=INBOX))

    with pytest.raises(ConfigError, match=r"'site' is followed up by 'support', which sends no mail"):
        Hub("memory:", channels=[ChatChannel("site", ChatSettings(follow_up="support")), silent])
    with pytest.raises(ConfigError, match="no channel 'support' is configured"):
        Hub("memory:", channels=[ChatChannel("site", ChatSettings(follow_up="support"))])


def test_mail_is_not_answered_in_a_widget(hub):
    """A conversation on a channel that sends has that one way."""
    found = mailed(hub, answering="<nothing@mail.example>")

    with pytest.raises(UnsupportedError, match="is answered by 'support' alone, not by 'site'"):
        hub.reply(found, "Hi", by="kim", way="site")


def test_address_that_has_changed_hands_is_not_written_to(hub):
    """An old conversation's answer is not for whoever holds its address today."""
    conversation = proven(hub)
    newer = IdentityHint(
        id="site/new",
        at=NOON + timedelta(days=400),
        identifiers=(Claim("external_id", "77", Trust.PROVEN, "shop"), Claim("email", ANN, Trust.PROVEN)),
    )

    hub.resolve(newer)

    assert hub.way(conversation).to is None


@pytest.mark.parametrize("state", [ConsentState.WITHDRAWN, ConsentState.DENIED])
def test_follow_up_that_waits_does_not_go_after_a_no(hub, state):
    """Who says no after the answer was queued gets no mail; the agent is told why, and a yes lets it go after all."""
    conversation = wrote(hub, email=ANN)
    hub.reply(conversation, "It left this morning.", by="kim")
    hub.record_consent("email", ANN, "transactional", state, by="ann")

    assert deliver(hub, conversation) == []
    failed = last(hub, conversation)
    assert failed.status == "failed"
    assert failed.detail["error"] == f"email:{ANN} is {state.value} for transactional"

    hub._clock.advance(seconds=60)  # noqa: SLF001  (the hub's own clock)
    hub.record_consent("email", ANN, "transactional", ConsentState.GRANTED, by="ann")
    hub.retry(failed)
    assert len(deliver(hub, conversation)) == 1


def test_follow_up_that_waits_does_not_go_to_who_has_the_address_by_then(hub):
    """It was written for whoever had the address before."""
    conversation = proven(hub)
    hub.reply(conversation, "It left this morning.", by="kim")
    claims = (Claim("external_id", "77", Trust.PROVEN, "shop"), Claim("email", ANN, Trust.PROVEN))
    hub.resolve(IdentityHint(id="site/new", at=NOON + timedelta(days=400), identifiers=claims))

    assert deliver(hub, conversation) == []
    assert "somebody else's by now" in last(hub, conversation).detail["error"]


def test_worker_without_the_chat_delivers_its_follow_ups(hub):
    """A process that has only the mail's channel can still say whether an address may be written to."""
    conversation = wrote(hub, email=ANN)
    hub.reply(conversation, "It left this morning.", by="kim")
    worker = Hub(hub.store, channels=[hub.channels["support"]], clock=hub._clock)  # noqa: SLF001  (as above)

    assert len(deliver(worker, conversation)) == 1


def test_template_tells_who_is_attested_what_is_known_of_them(hub):
    """In words, HTML and subject; who only claims to be Ann is told nothing about her."""
    attested, claimed = proven(hub), wrote(hub, "m2", visitor="v2", email=ANN)
    template = {
        "is_template": True,
        "html": "<p>{{ contact.name | you }}</p>",
        "subject": "For {{ contact.name | you }}",
    }
    hub.resolve(named(hub, "<Ann>"))

    for one in (attested, claimed):
        hub.reply(one, "Hi {{ contact.name | there }}", by="kim", way="support", **template)

    said = [last(hub, one) for one in (attested, claimed)]
    assert [one.text for one in said] == ["Hi <Ann>", "Hi there"]
    assert [one.html for one in said] == ["<p>&lt;Ann&gt;</p>", "<p>you</p>"]
    assert [one.detail["subject"] for one in said] == ["For <Ann>", "For you"]
    with pytest.raises(ValueError, match=r"not known for certain: contact\.email"):
        hub.render("{{ contact.email }}", claimed)


def named(hub, name):
    """Give what staff know of Ann's name."""
    identifier = Claim("email", ANN, Trust.AGENT)
    return IdentityHint(id="name", at=NOON, identifiers=(identifier,), traits=(Trait("name", name, Trust.AGENT),))


def test_note_never_leaves(hub):
    """No note is delivered, on whatever channel; what goes out refers to none, and no status report moves one."""
    conversations = [proven(hub), wrote(hub, "m2", visitor="v2", email=ANN), mailed(hub, answering="<x@mail.example>")]

    for one in conversations:
        number = hub.note(one, "A difficult customer", by="kim")
        note = hub.messages(one).items[0]
        assert (note.id, note.direction, note.channel) == (number, Direction.NOTE, "")
        assert hub.store.transact(hub.workspace, lambda transaction: transaction.deliveries([number])) == {}  # noqa: B023  (run at once)
        with pytest.raises(UnsupportedError):
            hub.retry(note)
        hub.reply(one, "Hello!", by="kim", way="support")
        sent = [request.content.decode() for request in deliver(hub, one)]
        assert len(sent) == 1
        assert not any("difficult" in each or note.external_id in each for each in sent)

    assert not [one for one in told(hub, "message.sent", "message.queued") if "note" in str(one)]
