"""The WhatsApp channel: what it reads, how it sends, and the laws of the kit."""

import asyncio
import json
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from convsdk.core.events import DeliveryStatus, MessageReceived, Noted, StatusChanged
from convsdk.core.fold import Policy
from convsdk.core.identifiers import Kinds
from convsdk.core.model import Attachment, Claim, Identifier, Trait, Trust
from convsdk.core.ports import File, Secret
from convsdk.errors import Forbidden, ParseError, PermanentError, TransientError, UncertainError
from convsdk.hub import Hub
from convsdk.plugins import load_plugins
from convsdk.testing import NOON, request
from convsdk_whatsapp import WhatsAppChannel
from convsdk_whatsapp.contract import (
    ACCEPTED,
    ACCESS_TOKEN,
    HANDSHAKE,
    TEMPLATE,
    WhatsAppContract,
    channel,
    choices,
    golden_request,
    outbound,
    signed,
)

ANN_ID = Claim("whatsapp_user", "DE.13491208655302741918", Trust.CHANNEL, scope="102290129340398")
ANN_PHONE = Claim("phone", "+4915112345678", Trust.CHANNEL)


def parse(name, **settings):
    """Give the events of a golden payload."""
    return channel(**settings).parse(golden_request(name))


def changed(name, **fields):
    """Give the events of a golden payload whose first message or status has other members; None takes one out."""
    document = json.loads(golden_request(name).body)
    value = document["entry"][0]["changes"][0]["value"]
    (item,) = value.get("messages") or value["statuses"]
    item |= fields
    for gone in [key for key, given in fields.items() if given is None]:
        del item[gone]
    return channel().parse(signed(json.dumps(document).encode()))


class TestWhatsAppContract(WhatsAppContract):
    """The laws of the kit."""


# -- who may come in


def test_handshake_gives_the_challenge_back():
    """Meta's handshake is answered with its challenge, where the token is the chosen one."""
    handshake = request(method="GET", query=HANDSHAKE)

    assert channel().challenge(handshake).body == b"1158201444"
    assert channel().challenge(request(query=HANDSHAKE)) is None
    with pytest.raises(Forbidden):
        channel(verify_token=Secret("another")).challenge(handshake)


def test_signature_of_another_app_is_refused():
    """A webhook that another secret signed is not for this app."""
    with pytest.raises(Forbidden):
        channel(app_secret=Secret("another")).verify(golden_request("text"))


# -- what is read


def test_message_names_its_writer_by_id_and_number():
    """The business-scoped id and the number come in one hint; name and user name are what WhatsApp shows."""
    (event,) = parse("text")

    assert isinstance(event, MessageReceived)
    assert (event.external_id, event.text) == ("wamid.text", "Is the blue one in stock? 💙")
    assert event.at == datetime(2025, 6, 8, 18, 59, 43, tzinfo=UTC)
    assert event.thread == "106540352242922/DE.13491208655302741918"
    assert event.hint.identifiers == (ANN_ID, ANN_PHONE)
    assert event.hint.traits == (Trait("name", "Ann Arbor", Trust.CHANNEL), Trait("username", "ann", Trust.CHANNEL))


def test_writer_who_hides_the_number_is_known_by_the_id():
    """Who has a user name may write without a number."""
    (without,) = changed("text", **{"from": None})
    (instead,) = changed("text", from_user_id=None, **{"from": "DE.13491208655302741918"})

    assert without.hint.identifiers == instead.hint.identifiers == (ANN_ID,)
    assert without.thread == instead.thread == "106540352242922/DE.13491208655302741918"


def test_writer_without_an_id_is_known_by_the_number():
    """An older payload names the number alone, and the id stands beside the name."""
    (with_profile,) = changed("text", from_user_id=None)
    (alone,) = changed("text", from_user_id=None, **{"from": "4915199999999"})

    assert with_profile.hint.identifiers == (ANN_ID, ANN_PHONE)
    assert (alone.hint.identifiers, alone.thread) == (
        (Claim("phone", "+4915199999999", Trust.CHANNEL),),
        "106540352242922/4915199999999",
    )


def test_accounts_of_one_portfolio_share_their_user_ids():
    """The scope of user ids is the portfolio, where it is set."""
    (event,) = parse("text", business="999")

    assert event.hint.identifiers[0].scope == "999"


def test_file_is_described_and_its_id_kept():
    """A file comes as an id to ask for; its caption is the text, and the message that it answers is named."""
    (image,), (document,) = parse("image"), parse("document")

    assert (image.text, image.references) == ("Broken", ("wamid.earlier",))
    assert image.attachments == (Attachment(name="image", media_type="image/jpeg"),)
    assert document.attachments == (Attachment(name="invoice.pdf", media_type="application/pdf"),)
    assert document.detail == {"type": "document", "files": ["1987654321"]}


def test_place_is_written_out():
    """A location reads as its name, address and coordinates."""
    (event,) = parse("location")

    assert event.text == "Shop, Main St 1, 52.5, 13.4"


@pytest.mark.parametrize("name", ["button_reply", "list_reply", "template_button"])
def test_pressed_button_is_a_choice(name):
    """A button, a row of a list and a quick reply read as their label, with the block that they answer."""
    (event,) = parse(name)

    assert (event.text, event.block, event.choice) == ("My order", "topic", "order")
    assert event.references == ("wamid.question",)


def test_reaction_deletion_and_others_are_notes():
    """What is no message of its own is a note that names its message; nobody becomes a contact by it."""
    notes = [parse(name)[0] for name in ("reaction", "edited", "deleted", "unsupported", "changed_number")]

    assert [one.kind for one in notes] == ["reaction", "edited", "deleted", "unsupported", "system"]
    assert [one.detail for one in notes] == [*[{"message": "wamid.text"}] * 3, {}, {}]
    assert [one.text for one in notes][:2] == ["👍", "Is the green one in stock?"]
    assert notes[-1].text == "Ann changed from 4915112345678 to 4915187654321"
    assert not any(one.hint.may_create for one in notes)


def test_message_of_an_unknown_type_is_kept():
    """A type that is new keeps its place in the thread, and its content in the detail."""
    (event,) = changed("text", type="hologram", hologram={"id": "1"})

    assert (event.text, event.detail["type"]) == ("", "hologram")
    assert json.loads(event.detail["item"])["hologram"] == {"id": "1"}


def test_statuses_name_the_message_by_both_names():
    """A status is about WhatsApp's id and about the name that the message had before it was sent."""
    (event,) = parse("delivered")

    assert isinstance(event, StatusChanged)
    assert (event.status, event.messages) == (DeliveryStatus.DELIVERED, ("wamid.sent", "out/tok-1"))
    assert event.external_id == "wamid.sent/delivered"


def test_failure_says_why():
    """A failed status has WhatsApp's code and its words."""
    (event,) = parse("failed")

    assert (event.status, event.error) == (DeliveryStatus.FAILED, "131026: Message undeliverable")


def test_every_item_of_a_batch_is_read():
    """Entries, changes and items are read in their order; one that cannot be read is noted."""
    first, bad, last = parse("batch")

    assert (first.external_id, last.external_id) == ("wamid.first", "wamid.last/read")
    assert isinstance(bad, Noted)
    assert (bad.kind, bad.thread) == ("unreadable", "106540352242922")
    assert json.loads(bad.detail["item"]) == {"id": "wamid.bad", "type": "text"}


@pytest.mark.parametrize("fields", [{"id": None}, {"id": "a b"}, {"from": "me", "from_user_id": None}, {"text": 5}])
def test_malformed_message_is_noted(fields):
    """A message that is not as documented is kept as a note."""
    (event,) = changed("text", **fields)

    assert event.kind == "unreadable"


def test_status_that_is_not_known_is_noted():
    """A status that is new is kept as a note."""
    (event,) = changed("delivered", status="teleported")

    assert event.kind == "unreadable"


def test_news_about_the_account_are_noted():
    """What is about the account and not about a person is a note in the account's thread."""
    (event,) = parse("account")

    assert (event.kind, event.thread) == ("unknown", "102290129340398")
    assert json.loads(event.detail["item"])["field"] == "account_update"


@pytest.mark.parametrize(
    "body", [b"", b"[]", b'{"object":"page","entry":[]}', b'{"object":"whatsapp_business_account","entry":[5]}']
)
def test_other_bodies_are_refused(body):
    """Only the batch of a WhatsApp business account is read."""
    with pytest.raises(ParseError):
        channel().parse(signed(body))


# -- with the host


def test_host_finds_the_channel():
    """The distribution's entry point brings the channel and its kind of identifier."""
    plugins = load_plugins()

    assert plugins.channel_types["whatsapp"] is WhatsAppChannel
    assert plugins.broken == ()


def hub():
    """Give a hub in memory with one WhatsApp channel."""
    kinds = Kinds(WhatsAppChannel.kinds)
    return Hub("memory:", channels=[channel()], policy=Policy(kinds=kinds))


def written(user, number, at):
    """Give the request for a message by `user` from `number`, `at` seconds."""
    document = json.loads(golden_request("text").body)
    (message,) = document["entry"][0]["changes"][0]["value"]["messages"]
    message |= {"id": f"wamid.{at}", "from_user_id": user, "timestamp": str(at)}
    message = message | {"from": number} if number else {k: v for k, v in message.items() if k != "from"}
    document["entry"][0]["changes"][0]["value"] |= {"messages": [message], "contacts": []}
    return signed(json.dumps(document).encode())


def test_writer_who_hides_the_number_later_stays_the_same_contact():
    """Who once wrote with a number is the same person without it, and with a new one."""
    inbox = hub()

    for at, number in ((100, "4915112345678"), (200, ""), (300, "4915187654321")):
        inbox.handle("shop-whatsapp", written("DE.1", number, at))

    (contact,) = {one.contact for one in inbox.conversations()}
    identifiers = inbox.contact(contact).identifiers
    assert [one.node.identifier.kind for one in identifiers].count("phone") == 2


def test_number_with_another_id_has_changed_hands():
    """A number that comes with another user id is another person's from then on, and joins nobody."""
    inbox = hub()

    inbox.handle("shop-whatsapp", written("DE.1", "4915112345678", 100))
    inbox.handle("shop-whatsapp", written("DE.2", "4915112345678", 200))
    (said,) = inbox.handle("shop-whatsapp", written("DE.1", "", 300)).received

    first, second = sorted({one.contact for one in inbox.conversations()})
    assert said.decision.contact == first
    assert {one.node.epoch for one in inbox.contact(second).identifiers if one.node.identifier.kind == "phone"} == {1}


# -- what is sent


def sent(message, **settings):
    """Give the fields of the request that delivers a message."""
    return json.loads(channel(**settings).build(message).read())


def test_text_is_posted_to_the_number():
    """A text goes to the number's messages, with the token that comes back with each status."""
    call = channel().build(outbound())

    assert str(call.url) == "https://graph.facebook.com/v23.0/106540352242922/messages"
    assert call.headers["authorization"] == f"Bearer {ACCESS_TOKEN}"
    assert ACCESS_TOKEN not in f"{call!r} {call.headers!r} {call.url}"
    assert sent(outbound()) == {
        "messaging_product": "whatsapp",
        "recipient_type": "individual",
        "to": "4915112345678",
        "type": "text",
        "text": {"body": "Yes, it is.", "preview_url": False},
        "biz_opaque_callback_data": "tok-1",
    }


def test_user_id_is_a_recipient():
    """Who is known by the business-scoped id is written to by it: as `to` it would be taken for a number."""
    fields = sent(outbound(to=Identifier("whatsapp_user", "102290129340398", "DE.1")))

    assert (fields["recipient"], "to" in fields) == ("DE.1", False)


def test_number_is_written_to_as_whatsapp_has_it():
    """A Mexican number has a 1 there that it has nowhere else: it is known all the same, and answered."""
    inbox = hub()
    (said,) = inbox.handle("shop-whatsapp", written("", "5215512345678", 100)).received

    filing = inbox.conversation(said.conversation).filing
    assert str(filing.identifier) == "phone:+525512345678"
    assert sent(outbound(to=filing.identifier, thread=filing.thread))["to"] == "5215512345678"


def test_number_that_was_written_to_answers():
    """A thread is answered from the number that it is at."""
    assert channel().build(outbound(thread="777777/DE.1")).url.path == "/v23.0/777777/messages"


@pytest.mark.parametrize(
    ("heard_at", "why"),
    [
        (NOON - timedelta(hours=24), "was open until 2026-01-01 12:00 UTC: only a template"),
        (NOON - timedelta(days=9), "was open until 2025-12-24 12:00 UTC: only a template"),
        (None, "has not written yet: only a template"),
    ],
)
def test_closed_window_takes_templates_only(heard_at, why):
    """24 hours after the person's last message, the error says when that was over and what can be done."""
    with pytest.raises(PermanentError, match=why) as caught:
        channel().build(outbound(heard_at=heard_at))

    assert caught.value.code == "131047"
    assert sent(outbound("", heard_at=heard_at, detail=TEMPLATE))["type"] == "template"


def test_window_is_open_until_the_last_second():
    """A second before, a text can be sent."""
    assert sent(outbound(heard_at=NOON - timedelta(hours=23, minutes=59, seconds=59)))["type"] == "text"


def test_template_has_its_language_and_components():
    """A template is sent by name and language, with the components as the Cloud API has them."""
    components = [{"type": "body", "parameters": [{"type": "text", "text": "Ann"}]}]
    detail = {"template": {"name": "order_sent", "language": "de", "components": components}}

    (part,) = channel().parts(outbound("Dear Ann", detail=detail))

    wanted = {"name": "order_sent", "language": {"code": "de"}, "components": components}
    assert sent(part)["template"] == wanted


def test_three_choices_are_buttons():
    """Up to three choices are buttons; what comes back says which block they answer."""
    interactive = sent(outbound("What is it?", detail=choices(3)))["interactive"]

    assert (interactive["type"], interactive["body"]) == ("button", {"text": "What is it?"})
    assert interactive["action"]["buttons"][2] == {"type": "reply", "reply": {"id": "topic:v2", "title": "Option 2"}}


@pytest.mark.parametrize("detail", [choices(4), choices(10), choices(2, "A label of 22 places{}")])
def test_more_or_longer_choices_are_a_list(detail):
    """Up to ten choices, or longer labels, are the rows of a list that the configured button opens."""
    interactive = sent(outbound(detail=detail), list_button="Auswählen")["interactive"]

    assert (interactive["type"], interactive["action"]["button"]) == ("list", "Auswählen")
    assert len(interactive["action"]["sections"][0]["rows"]) == len(detail["choices"])


@pytest.mark.parametrize(
    "detail", [choices(11), choices(1, "A label that is too long {}"), choices(1) | {"block": "b" * 260}]
)
def test_choices_that_whatsapp_cannot_show_are_lines(detail):
    """What fits into no list is written out."""
    fields = sent(outbound("What is it?", detail=detail))

    assert fields["text"]["body"].startswith(f"What is it?\n- {detail['choices'][0]['label']}")


def test_long_text_goes_in_parts():
    """4,096 characters are a message, 1,024 where there are choices, which go with the last."""
    plain = channel().parts(outbound("a" * 5000))
    asked = channel().parts(outbound("a" * 1500, detail=choices(2)))

    assert [len(one.text) for one in plain] == [4096, 904]
    assert [(len(one.text), bool(one.choices), one.token) for one in asked] == [
        (1024, False, "tok-1"),
        (476, True, "tok-1.1"),
    ]


def test_choices_that_are_written_out_go_in_parts_as_well():
    """No part is over the limit, however long the lines of the choices make it."""
    parts = channel().parts(outbound("word " * 200, detail=choices(100, "{} " + "x" * 60)))

    bodies = [sent(one)["text"]["body"] for one in parts]
    assert max(map(len, bodies)) <= 4096
    assert " ".join(bodies).count("- ") == 100


@pytest.mark.parametrize(
    ("media_type", "kind"),
    [("image/png", "image"), ("video/mp4", "video"), ("audio/ogg", "audio"), ("image/gif", "document")],
)
def test_files_go_by_their_address(media_type, kind):
    """Each file is a message of its own after the text, which WhatsApp fetches."""
    file = File(name="a.bin", media_type=media_type, content=b"", url="https://files.shop.example/a")

    text, part = channel().parts(outbound(attachments=(file,)))

    assert (text.attachments, sent(part)["type"]) == ((), kind)
    assert sent(part)[kind]["link"] == "https://files.shop.example/a"
    assert sent(part)[kind].get("filename") == ("a.bin" if kind == "document" else None)


@pytest.mark.parametrize(
    "message",
    [
        outbound(" "),
        outbound(to=Identifier("email", "", "ann@shop.example")),
        outbound(attachments=(File(name="a", media_type="x/y", content=b"A"),)),
        outbound(detail={"template": {"name": "order_sent"}}),
        outbound(detail={"template": "order_sent"}),
        outbound(detail={"choices": [{"title": "Red"}]}),
        outbound(detail={"choices": ["Red"]}),
    ],
)
def test_message_that_whatsapp_would_not_take_is_not_sent(message):
    """Nothing to say, nobody whom it knows, a file without an address, and malformed detail, are refused before."""
    with pytest.raises(PermanentError):
        channel().build(message)


def deliver(http_status, headers=None, **answer):
    """Give the receipt for a message that WhatsApp answers so, or what is raised."""
    response = httpx.Response(http_status, json=answer, headers=headers)

    async def run():
        async with httpx.AsyncClient(transport=httpx.MockTransport(lambda _: response)) as client:
            return await channel().send(outbound(), client)

    return asyncio.run(run())


def test_receipt_has_whatsapps_id():
    """WhatsApp has accepted it, and reports on it under its id."""
    receipt = deliver(200, **ACCEPTED)

    assert (receipt.external_id, receipt.status) == ("wamid.new", DeliveryStatus.QUEUED)


@pytest.mark.parametrize("status", [200, 502])
def test_answer_without_an_id_is_uncertain(status):
    """A success without an id may have been one, and so may what a gateway could not pass on."""
    with pytest.raises(UncertainError):
        deliver(status)


@pytest.mark.parametrize("code", [4, 80007, 130429, 131048, 131056, 131016])
def test_limits_pass(code):
    """What is over a limit is tried again, after the pause that is named, if any."""
    with pytest.raises(TransientError) as caught:
        deliver(400, {"retry-after": "60"}, error={"code": code, "message": "x"})

    assert caught.value.retry_after_s == 60


def test_fault_of_meta_passes():
    """A server that is in trouble is asked again."""
    with pytest.raises(TransientError) as caught:
        deliver(503, error={"code": 131016})

    assert caught.value.retry_after_s is None


@pytest.mark.parametrize(
    ("code", "remedy"),
    [
        (131026, "cannot be reached"),
        (131047, "template"),
        (190, "system user"),
        (131050, "stopped marketing"),
        (100, "error codes"),
    ],
)
def test_refusal_says_what_to_do(code, remedy):
    """What WhatsApp will not do is permanent, with its code and the remedy."""
    with pytest.raises(PermanentError, match=remedy) as caught:
        deliver(400, error={"code": code, "message": "x", "error_data": {"details": "y"}})

    assert caught.value.code == str(code)
