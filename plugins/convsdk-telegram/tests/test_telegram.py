"""The Telegram channel: what it reads, how it sends, and the laws of the kit."""

import asyncio
import json
import logging
from datetime import UTC, datetime

import httpx
import pytest

from convsdk.core.events import MessageReceived, Noted
from convsdk.core.fold import Policy
from convsdk.core.identifiers import Kinds
from convsdk.core.model import Attachment, Claim, Identifier, Trait, Trust
from convsdk.core.ports import File, Receipt
from convsdk.errors import Forbidden, ParseError, PermanentError, TransientError, UncertainError
from convsdk.hub import Hub
from convsdk.plugins import load_plugins
from convsdk.testing import NOON, request
from convsdk_telegram import TelegramChannel
from convsdk_telegram.contract import (
    HEADER,
    SAID,
    SECRET_TOKEN,
    TOKEN,
    TelegramContract,
    channel,
    golden_request,
    outbound,
    refusal,
    webhook,
)

ANN = Claim("telegram_user", "7001", Trust.CHANNEL, scope="110201543")


def parse(name, **settings):
    """Give the events of a golden payload."""
    return channel(**settings).parse(golden_request(name))


def from_ann(**message):
    """Give the events of a message from Ann with those members."""
    ann = {"id": 7001, "is_bot": False, "first_name": "Ann"}
    fields = {"message_id": 5, "date": 1441645532, "chat": {"id": 7001, "type": "private"}, "from": ann, **message}
    return channel().parse(webhook(json.dumps({"update_id": 10, "message": fields})))


class TestTelegramContract(TelegramContract):
    """The laws of the kit."""


# -- who may come in


def test_token_of_another_webhook_is_refused():
    """A request without the secret token, or with two, is not Telegram's."""
    for headers in ({}, {HEADER: "another-token-of-good-length"}, ((HEADER, SECRET_TOKEN), (HEADER, SECRET_TOKEN))):
        with pytest.raises(Forbidden, match="shop-bot"):
            channel().verify(request("{}", headers=headers))


# -- what is read


def test_message_names_its_writer():
    """A message has its chat as thread, Telegram's time, and a user id that is scoped by the bot."""
    (event,) = parse("text")

    assert isinstance(event, MessageReceived)
    assert (event.external_id, event.thread, event.text) == ("7001/1365", "7001", "Is the blue one in stock? 💙")
    assert event.at == datetime(2015, 9, 7, 17, 5, 32, tzinfo=UTC)
    assert event.hint.identifiers == (ANN,)
    assert event.hint.traits == (Trait("name", "Ann Arbor", Trust.CHANNEL), Trait("username", "ann", Trust.CHANNEL))


def test_reply_refers_to_the_message_that_it_answers():
    """A reply names the external id of the message before."""
    (event,) = parse("reply")

    assert event.references == ("7001/1365",)


def test_edit_is_noted_under_the_message_that_it_changes():
    """An edited message is a note with the new text, which names the message and leaves what it said before."""
    (event,) = parse("edited")

    assert isinstance(event, Noted)
    assert (event.kind, event.text, event.detail) == ("edited", "Is the green one in stock?", {"message": "7001/1365"})
    assert (event.external_id, event.thread) == ("7001/1365/edit/10001", "7001")


def test_pressed_button_is_a_choice():
    """A button that was pressed reads as its label, and says which block it answers and which value it stands for."""
    (event,) = parse("callback")

    assert (event.text, event.block, event.choice) == ("My order", "topic", "order")
    assert (event.external_id, event.references, event.at) == ("callback/4382bfdwdsb323b2d9", ("7001/1366",), NOON)


def test_pressed_button_ends_its_wait_in_the_answer():
    """The webhook is answered with the call that Telegram's app waits for; other updates with nothing."""
    pressed, written = (channel().answer(parse(name)) for name in ("callback", "text"))

    assert json.loads(pressed.body) == {"method": "answerCallbackQuery", "callback_query_id": "4382bfdwdsb323b2d9"}
    assert (pressed.media_type, written.body) == ("application/json", b"")


def test_button_under_a_message_that_the_bot_does_not_see_is_left_out():
    """A button of an inline message has no chat to answer in."""
    body = {"update_id": 1, "callback_query": {"id": "q", "from": {"id": 7001}, "inline_message_id": "i", "data": "x"}}

    assert channel().parse(webhook(json.dumps(body))) == ()


def test_album_is_a_message_for_each_picture():
    """The pictures of an album come one by one; each names the album, the largest size, and the file to ask for."""
    (first,), (second,) = parse("album_first"), parse("album_second")

    assert first.detail == {"files": ["AgAC-large"], "media_group": "12804"}
    assert second.detail["media_group"] == "12804"
    assert first.external_id != second.external_id
    assert first.attachments == (Attachment(name="photo", media_type="image/jpeg", size=94_000),)
    assert (first.text, second.text) == ("Both are broken", "")


def test_document_keeps_its_name():
    """A document has its name, media type and size, and its file id in the detail."""
    (event,) = parse("document")

    assert event.attachments == (Attachment(name="invoice.pdf", media_type="application/pdf", size=20_480),)
    assert event.detail == {"files": ["BQAD-invoice"]}


def test_animation_is_one_file():
    """An animation comes as a document too, and is one attachment."""
    file = {"file_id": "CgAC", "mime_type": "video/mp4"}

    (event,) = from_ann(animation=file, document=file)

    assert [one.name for one in event.attachments] == ["animation"]


def test_own_number_that_is_shared_is_attested():
    """The number that its owner shares is Telegram's word; the name of the contact is the text."""
    (event,) = parse("contact_own")

    assert event.hint.identifiers == (ANN, Claim("phone", "+4930901820", Trust.CHANNEL))
    assert event.text == "Ann Arbor: 4930901820"


@pytest.mark.parametrize(
    "more",
    [
        {"contact": {"phone_number": "+4930901820", "first_name": "Bob", "user_id": 7002}},
        {"contact": {"phone_number": "+4930901820", "first_name": "Bob"}},
        {
            "contact": {"phone_number": "+4930901820", "first_name": "Ann", "user_id": 7001},
            "forward_origin": {"type": "user"},
        },
    ],
)
def test_number_of_somebody_else_is_a_claim(more):
    """A number that is another's, or that was passed on, proves nothing."""
    (event,) = from_ann(**more)

    assert event.hint.identifiers[1] == Claim("phone", "+4930901820", Trust.ASSERTED)


def test_place_is_written_out():
    """A location reads as its coordinates."""
    (event,) = from_ann(location={"latitude": 52.5, "longitude": 13.4})

    assert event.text == "52.5, 13.4"


def test_message_of_another_sort_is_kept_as_it_came():
    """What has neither words nor files, such as a die, keeps its content in the detail."""
    (event,) = from_ann(dice={"emoji": "🎲", "value": 6})

    assert json.loads(event.detail["item"])["dice"]["value"] == 6


def test_reaction_is_noted():
    """A reaction is a note with its emoji; who only reacts does not become a contact."""
    (event,) = parse("reaction")

    assert (event.kind, event.text, event.detail) == ("reaction", "👍", {"message": "7001/1366"})
    assert (event.hint.identifiers, event.hint.may_create) == ((ANN,), False)


def test_groups_and_channels_are_read_where_they_are_named():
    """A group is left out, unless the settings name its type; then its thread is the group."""
    (event,) = parse("group", chats=("private", "supergroup"))

    assert (event.thread, event.hint.identifiers) == ("-1001234567890", (ANN,))
    assert parse("group") == ()


def test_post_of_a_channel_is_nobodys():
    """A channel's post names no user: the conversation is kept, and nobody becomes a contact."""
    post = {"message_id": 3, "date": 1441645532, "chat": {"id": -100, "type": "channel"}, "text": "News"}

    (event,) = channel(chats=("channel",)).parse(webhook(json.dumps({"update_id": 4, "channel_post": post})))

    assert (event.text, event.hint.identifiers, event.hint.may_create) == ("News", (), False)


def test_group_that_becomes_a_supergroup_says_where_it_is():
    """A group's last message names the supergroup that goes on."""
    (event,) = from_ann(migrate_to_chat_id=-1001234567890)

    assert (event.kind, event.detail) == ("migrated", {"chat": "-1001234567890"})


def test_half_a_character_is_replaced():
    """NUL and half of a surrogate pair are replaced; whole pairs and escaped backslashes stay."""
    body = golden_request("text").body.replace(b"Is the", rb"\u0000 \ud83d \\u0000 \ud83d\ude00")

    (event,) = channel().parse(webhook(body))

    assert event.text.startswith("\ufffd \ufffd \\u0000 😀 blue")


@pytest.mark.parametrize("body", ["", "[]", '{"message": {}}', '{"update_id": 1, "message": 5}', '{"update_id": true}'])
def test_other_bodies_are_no_update(body):
    """What is no update is kept aside."""
    with pytest.raises(ParseError):
        channel().parse(webhook(body))


# -- with the host


def test_host_finds_the_channel():
    """The distribution's entry point brings the channel and its kind of identifier."""
    plugins = load_plugins()

    assert plugins.channel_types["telegram"] is TelegramChannel
    assert plugins.broken == ()


def test_writer_who_shares_a_number_is_known_by_it():
    """A bot's user becomes a contact, and the number that they share becomes one of its identifiers."""
    kinds = Kinds(TelegramChannel.kinds)
    hub = Hub("memory:", channels=[channel()], policy=Policy(kinds=kinds))

    for name in ("text", "contact_own", "text"):
        (received,) = hub.handle("shop-bot", golden_request(name)).received

    contact = hub.contact(hub.conversations()[0].contact)
    assert received.decision.outcome.value == "duplicate"
    assert {one.node.identifier.kind for one in contact.identifiers} == {"telegram_user", "phone"}
    assert contact.name == "Ann Arbor"


# -- what is sent


def sent(message):
    """Give the fields of the request that delivers a message."""
    return json.loads(channel().build(message).read())


def test_text_is_sent_to_the_chat():
    """A text is a call of sendMessage with the chat's id and nothing that Telegram would read as markup."""
    call = channel().build(outbound("1 < 2 *and* _so_ on"))

    assert call.url.raw_path == f"/bot{TOKEN}/sendMessage".encode()
    assert json.loads(call.read()) == {"chat_id": "7001", "text": "1 < 2 *and* _so_ on"}


def test_message_without_a_thread_goes_to_the_user():
    """Who has a private chat with the bot is reached by their id."""
    assert sent(outbound(thread=""))["chat_id"] == "7001"


def test_who_is_no_user_of_telegram_is_not_written_to():
    """A phone number is no chat."""
    with pytest.raises(PermanentError, match="no telegram_user"):
        channel().build(outbound(thread="", to=Identifier("phone", "", "+4930901820")))


def test_long_text_goes_in_pieces_as_telegram_counts():
    """An emoji counts as two: 3,000 of them are two messages, the buttons with the last one, each with its token."""
    first, last = channel().parts(outbound("💙" * 3000, detail={"choices": [{"value": "v", "label": "l"}]}))

    assert (len(first.text), len(last.text)) == (2048, 952)
    assert (dict(first.detail), len(last.detail["choices"])) == ({}, 1)
    assert (first.token, last.token) == ("tok-1", "tok-1.1")


def test_choices_are_buttons_that_name_their_block():
    """Choices become buttons under the message; what comes back says which block they answer."""
    detail = {"block": "topic", "choices": [{"value": "order", "label": "My order"}, {"value": "x", "label": "Else"}]}

    assert sent(outbound(detail=detail))["reply_markup"] == {
        "inline_keyboard": [
            [{"text": "My order", "callback_data": "topic:order"}],
            [{"text": "Else", "callback_data": "topic:x"}],
        ]
    }


@pytest.mark.parametrize("detail", [{"keyboard": "reply"}, {"block": "b" * 64}])
def test_choices_are_keys_where_asked_or_too_long(detail):
    """Where it is asked for, or a value does not fit into 64 bytes, the labels are keys that write themselves."""
    markup = sent(outbound(detail=detail | {"choices": [{"value": "v", "label": "Yes"}]}))["reply_markup"]

    assert (markup["keyboard"], markup["one_time_keyboard"]) == ([[{"text": "Yes"}]], True)


def test_files_are_messages_of_their_own():
    """A picture is a photo and anything else a document, each after the text, with the same bytes at every try."""
    files = (
        File(name="a.png", media_type="image/png", content=b"PNG"),
        File(name="b.pdf", media_type="x/y", content=b"P"),
    )

    text, photo, document = channel().parts(outbound(attachments=files))
    calls = [channel().build(one) for one in (photo, document)]

    assert (text.attachments, photo.text, document.token) == ((), "", "tok-1.2")
    assert [call.url.path.rpartition("/")[2] for call in calls] == ["sendPhoto", "sendDocument"]
    assert b'name="chat_id"\r\n\r\n7001' in calls[0].read()
    assert b'name="photo"; filename="a.png"\r\nContent-Type: image/png\r\n\r\nPNG' in calls[0].read()
    assert calls[1].read() == channel().build(document).read()


def test_file_that_stands_elsewhere_goes_by_its_address():
    """Of what is not in the archive there are no bytes: Telegram fetches it."""
    file = File(name="a.png", media_type="image/png", content=b"", url="https://files.shop.example/a.png")

    (part,) = channel().parts(outbound("", attachments=(file,)))

    assert sent(part) == {"chat_id": "7001", "photo": "https://files.shop.example/a.png"}


def test_file_alone_is_one_message():
    """Without a text, a file is all that is sent."""
    (part,) = channel().parts(outbound("", attachments=(File(name="a.png", media_type="image/png", content=b"P"),)))

    assert part.token == "tok-1"


def test_picture_that_is_too_large_goes_as_a_document():
    """Telegram takes photos up to 10 MB."""
    file = File(name="a.png", media_type="image/png", content=bytes(10_000_001))

    assert channel().build(outbound("", attachments=(file,))).url.path.endswith("/sendDocument")


def test_empty_message_is_not_sent():
    """A message with nothing in it is refused before Telegram does."""
    with pytest.raises(PermanentError, match="neither a text nor a file"):
        channel().build(outbound(" "))


def deliver(answer, message=None):
    """Give the receipt for a message that Telegram answers so, or what is raised; and the paths that were called."""
    called = []

    def telegram(call):
        called.append((call.url.raw_path, call.read()))
        return answer(json.loads(called[-1][1])) if callable(answer) else answer

    async def run():
        async with httpx.AsyncClient(transport=httpx.MockTransport(telegram)) as client:
            return await channel().send(message or outbound(), client)

    return asyncio.run(run()), called


def test_receipt_names_the_message_as_updates_do():
    """The receipt's id is what a later edit, reply or reaction calls the message."""
    receipt, _ = deliver(httpx.Response(200, json=SAID))

    assert receipt.external_id == "7001/1366"


def test_flood_control_names_the_pause():
    """Telegram says how long to wait, and that is how long it is waited."""
    with pytest.raises(TransientError) as caught:
        deliver(refusal(429, "Too Many Requests: retry after 35", retry_after=35))

    assert caught.value.retry_after_s == 35


def test_fault_of_telegram_passes():
    """Where Telegram itself says that it is in trouble, it is asked again."""
    with pytest.raises(TransientError):
        deliver(refusal(500))


@pytest.mark.parametrize(
    ("code", "description", "remedy"),
    [
        (403, "Forbidden: bot was blocked by the user", "blocked the bot"),
        (400, "Bad Request: chat not found", "never written"),
        (401, "Unauthorized", "@BotFather"),
        (413, "Request Entity Too Large", "send a link"),
        (409, "Conflict", "Bot API"),
    ],
)
def test_refusal_says_what_to_do(code, description, remedy):
    """What Telegram will not do is permanent, with its code, its words and the remedy."""
    with pytest.raises(PermanentError, match=f"{description}.*{remedy}") as caught:
        deliver(refusal(code, description))

    assert caught.value.code == str(code)


@pytest.mark.parametrize("answer", [httpx.Response(200, content=b"{}"), httpx.Response(502, content=b"<html>")])
def test_answer_that_cannot_be_read_is_uncertain(answer):
    """A success without a message may have been one, and so may what a gateway could not pass on."""
    with pytest.raises(UncertainError):
        deliver(answer)


def test_group_that_has_moved_is_written_to_where_it_is():
    """A group that has become a supergroup is written to there, at once."""
    said = {"ok": True, "result": {"message_id": 2, "chat": {"id": -100777}}}

    def telegram(call):
        moved = call["chat_id"] == "-100777"
        return httpx.Response(200, json=said) if moved else refusal(400, "upgraded", migrate_to_chat_id=-100777)

    receipt, called = deliver(telegram, outbound(thread="-55"))

    assert (receipt.external_id, len(called)) == ("-100777/2", 2)


async def _answer(reader, writer):
    """Answer one call as Telegram does, over HTTP."""
    await reader.readuntil(b"\r\n\r\n")
    body = json.dumps(SAID).encode()
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%s" % (len(body), body))
    await writer.drain()
    writer.close()


def test_bot_token_is_in_no_log_error_or_repr(caplog):
    """The token is in the URL, and what httpx and its transport log and raise shows the URL: it shows stars there."""
    caplog.set_level(logging.DEBUG)
    call = channel().build(outbound())

    async def run():
        server = await asyncio.start_server(_answer, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with server, httpx.AsyncClient() as client:
            return await channel(api=f"http://127.0.0.1:{port}").send(outbound(), client)

    receipt = asyncio.run(run())
    with pytest.raises(httpx.HTTPStatusError) as caught:
        httpx.Response(403, request=call).raise_for_status()

    shown = [caplog.text, str(caught.value), repr(call), repr(call.url), f"{call.url}"]
    assert receipt.external_id == "7001/1366"
    assert "/bot***/sendMessage" in caplog.text
    assert "httpcore" in caplog.text
    assert not [text for text in shown if TOKEN in text or TOKEN.partition(":")[2] in text]


# -- whether it is set up


def test_webhook_is_set_with_its_secret_and_updates():
    """Telegram is told the address, the secret token and what to send; without an address there is nothing to say."""
    (call,) = channel().subscribe("https://help.shop.example/channels/shop-bot")

    told = json.loads(call.read())
    assert call.url.path.endswith("/setWebhook")
    assert (told["url"], told["secret_token"]) == ("https://help.shop.example/channels/shop-bot", SECRET_TOKEN)
    assert {"callback_query", "message_reaction"} < set(told["allowed_updates"])
    assert channel().subscribe() == []
    done = httpx.Response(200, json={"ok": True, "result": True, "description": "Webhook was set"})
    assert channel().interpret(done) == Receipt()


@pytest.mark.parametrize(
    ("said", "right"),
    [
        ({"ok": True, "result": {"url": "https://a.example", "pending_update_count": 0}}, [True, True, True]),
        ({"ok": True, "result": {"url": ""}}, [True, False, True]),
        ({"ok": True, "result": {"url": "https://a.example", "last_error_message": "refused"}}, [True, True, False]),
        ({"ok": False, "error_code": 401, "description": "Unauthorized"}, [False, False, True]),
    ],
)
def test_check_says_what_is_missing(said, right):
    """The check tells whether the token is accepted, the webhook set, and the program reached there."""
    (call,) = channel().checks()

    checks = channel().judge([httpx.Response(200, json=said)])

    assert call.url.path.endswith("/getWebhookInfo")
    assert [one.is_right for one in checks] == right
    assert all(one.remedy for one in checks if not one.is_right)


def test_settings_of_another_api_are_used():
    """A Bot API server of one's own is called where the settings name it."""
    assert str(channel(api="http://127.0.0.1:8081").build(outbound()).url).startswith("http://127.0.0.1:8081/bot***/")
