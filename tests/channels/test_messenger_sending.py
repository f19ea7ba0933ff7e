"""Messenger and Instagram answer: what is sent when, against Meta's Graph API as its documentation has it."""

import asyncio
import json
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from attrs import evolve
from graph import APP, PAGE, SECRET, TOKEN, Failure, Graph, Hook, Person, RefusedError, served

from convsdk.channels.messenger import InstagramChannel, InstagramSettings, MessengerChannel, MessengerSettings, Sender
from convsdk.core.events import DeliveryStatus, StatusChanged
from convsdk.core.model import Direction, Identifier
from convsdk.core.ports import File, Headers, Outbound, Receipt, Request, Secret
from convsdk.errors import PermanentError, TransientError, UncertainError

NOW = datetime(2026, 1, 5, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
ANN = Identifier("messenger_psid", PAGE, "7001")
IG_ANN = Identifier("instagram_igsid", PAGE, "7001")
FAMILY = "\U0001f469\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466"
PHOTO = File(name="a photo.png", media_type="image/png", content=b"\x89PNG\r\n\0--", url="")
INVOICE = File(
    name="invoice.pdf", media_type="application/pdf", content=b"%PDF", url="https://shop.example/invoice.pdf"
)


def messenger(graph=None, **settings):
    """Give a Messenger channel, which sends to `graph`."""
    return MessengerChannel("shop-page", MessengerSettings(pages=(sender(),), **app(graph), **settings))


def instagram(graph=None, **settings):
    """Give an Instagram channel, which sends to `graph`."""
    return InstagramChannel("shop-gram", InstagramSettings(accounts=(sender(),), **app(graph), **settings))


def sender():
    """Give the settings of the page."""
    return Sender(id=PAGE, token=Secret(TOKEN))


def app(graph):
    """Give the settings of the app."""
    place = {"graph_url": graph.url} if graph else {}
    return {"app_secret": Secret(SECRET), "verify_token": Secret("token-of-the-shop"), "app_id": APP, **place}


def outbound(text="Yes, it is.", *, to=ANN, heard=HOUR, **fields):
    """Give a message to somebody who wrote `heard` ago (None: never)."""
    heard_at = None if heard is None else NOW - heard
    return Outbound(**{"to": to, "text": text, "token": "tok", "at": NOW, "heard_at": heard_at} | fields)


def send(channel, message):
    """Send each part of `message` over HTTP; give the receipts."""

    async def run():
        async with httpx.AsyncClient() as client:
            return [await channel.send(part, client) for part in channel.parts(message)]

    return asyncio.run(run())


@pytest.fixture
def graph():
    """Give the platform at noon, with Ann, who wrote an hour ago."""
    platform = Graph(clock=lambda: NOW)
    platform.people[PAGE, "7001"] = Person(heard_at=NOW - HOUR)
    with platform.served():
        yield platform


@pytest.fixture
def gram():
    """Give Instagram at noon, with Ann, who wrote an hour ago."""
    platform = Graph(clock=lambda: NOW, is_instagram=True)
    platform.people[PAGE, "7001"] = Person(heard_at=NOW - HOUR)
    with platform.served():
        yield platform


def body(request):
    """Give the JSON that a request holds."""
    return json.loads(request.read())


# -- what is sent


def test_text_arrives(graph):
    """A text arrives once, and the receipt has Meta's id of it."""
    receipts = send(messenger(graph), outbound("Grüße 😀"))

    (sent,) = graph.sent
    assert receipts == [Receipt(external_id=sent.mid)]
    assert (sent.person, sent.message) == ("7001", {"text": "Grüße 😀", "metadata": "convsdk/tok"})


def test_each_page_of_an_app_writes_by_its_own_token(graph):
    """One person is another one to each page, and is answered by the page that they wrote to."""
    graph.tokens["1002"] = "token-of-the-second-page"
    graph.people["1002", "8001"] = Person(heard_at=NOW - HOUR)
    both = (sender(), Sender(id="1002", token=Secret("token-of-the-second-page")))
    channel = MessengerChannel("shop-pages", MessengerSettings(pages=both, **app(graph)))

    send(channel, outbound("From the first"))
    send(channel, outbound("From the second", to=Identifier("messenger_psid", "1002", "8001")))

    assert [(one.page, one.person, one.message["text"]) for one in graph.sent] == [
        (PAGE, "7001", "From the first"),
        ("1002", "8001", "From the second"),
    ]


@pytest.mark.parametrize("piece", ["word ", "😀", FAMILY, "é", "\U0001f1e9\U0001f1ea", "x"])
def test_long_text_goes_in_parts_that_are_taken(graph, piece):
    """A long text arrives whole and in order, cut where no reader sees a character cut."""
    text = (piece * 6_000)[: 6_000 // len(piece) * len(piece)]

    send(messenger(graph), outbound(text))

    texts = [one.message["text"] for one in graph.sent]
    assert len(texts) > 2
    assert "".join(texts).replace(" ", "") == text.replace(" ", "")
    assert all(one.replace(piece.strip(), "").strip() == "" for one in texts)
    assert [one.message["metadata"] for one in graph.sent][:2] == ["convsdk/tok", "convsdk/tok.1"]


def test_text_for_instagram_is_cut_by_bytes(gram):
    """Instagram counts bytes, and the parts keep to that."""
    send(instagram(gram), outbound("Grüße 😀 " * 300, to=IG_ANN))

    assert len(gram.sent) == 4
    assert "metadata" not in gram.sent[0].message


def test_file_is_uploaded_after_the_text(graph):
    """A file without an address goes up with a message of its own, byte for byte, after the text."""
    send(messenger(graph), outbound("Here", attachments=(PHOTO,)))

    text, photo = graph.sent
    assert text.message["text"] == "Here"
    assert (photo.message["attachment"]["type"], photo.file) == ("image", PHOTO.content)


def test_file_with_an_address_is_fetched_by_meta(graph):
    """A file with an address goes as that address, also where there is no text."""
    send(messenger(graph), outbound("", attachments=(INVOICE,)))

    (sent,) = graph.sent
    assert sent.message["attachment"] == {"type": "file", "payload": {"url": INVOICE.url}}


@pytest.mark.parametrize(
    ("media_type", "sort"),
    [
        ("image/jpeg", "image"),
        ("image/svg+xml", "file"),
        ("audio/mpeg", "audio"),
        ("video/mp4; codecs=avc1", "video"),
        ("application/zip", "file"),
    ],
)
def test_media_type_decides_what_an_attachment_is(media_type, sort):
    """What Meta can show is sent as that, and all else as a file."""
    request = messenger().build(outbound("", attachments=(evolve(INVOICE, media_type=media_type),)))

    assert body(request)["message"]["attachment"]["type"] == sort


@pytest.mark.parametrize(
    ("name", "media_type"),
    [
        ("a.bin", "audio/\r\nX-Forged: 1"),
        ("a\r\nX-Forged: 1", "image/"),
        ("\ud800.bin", "\ud800/\ud800"),
        ("", ""),
    ],
)
def test_odd_names_and_media_types_are_sent_as_any_bytes(graph, name, media_type):
    """What somebody calls a file is no header field of the request, and stops none."""
    channel = messenger(graph)
    message = outbound("", attachments=(File(name=name, media_type=media_type, content=b"1"),))

    send(channel, message)

    assert graph.sent[0].message["attachment"]["type"] == "file"
    request = channel.build(message).read()
    assert b"Content-Type: application/octet-stream\r\n" in request
    assert b"\r\nX-Forged" not in request


def test_quick_replies_go_with_the_last_part(graph):
    """Quick replies stand under the last part, since the next message would take them away."""
    replies = [{"title": "Red", "payload": "RED"}, {"title": "A colour with a long name", "payload": "LONG"}]

    send(messenger(graph), outbound("Which?", attachments=(INVOICE,), detail={"quick_replies": replies}))

    text, file = graph.sent
    assert "quick_replies" not in text.message
    assert [one["title"] for one in file.message["quick_replies"]] == ["Red", "A colour with a…"]


def test_choice_of_a_bot_comes_back_as_its_choice(graph):
    """The buttons of a bot's block are quick replies, and a tap on one names block and choice."""
    choices = [{"value": "order", "label": "My order"}]
    send(messenger(graph), outbound("What about?", detail={"block": "topic", "choices": choices}))
    payload = graph.sent[0].message["quick_replies"][0]["payload"]

    content, headers = graph.hear("7001", "My order", quick_reply={"payload": payload})

    (event,) = messenger().parse(Request(received_at=NOW, body=content, headers=Headers(headers)))
    assert (event.block, event.choice) == ("topic", "order")


def test_buttons_go_with_the_end_of_the_text(graph):
    """Buttons stand under the end of the text, which is shorter there than elsewhere."""
    buttons = [{"title": "Shop", "url": "https://shop.example"}, {"title": "Call", "phone": "+4930123456"}]
    buttons.append({"title": "Human", "payload": "HUMAN"})

    send(messenger(graph), outbound("word " * 500, detail={"buttons": buttons}))

    *before, last = graph.sent
    assert all("text" in one.message for one in before)
    template = last.message["attachment"]["payload"]
    assert [one["type"] for one in template["buttons"]] == ["web_url", "phone_number", "postback"]


@pytest.mark.parametrize("action", ["typing_on", "typing_off", "mark_seen"])
def test_sender_action_is_shown(graph, action):
    """An action is one request without a message, and has no id."""
    receipts = send(messenger(graph), outbound("", detail={"action": action}))

    assert receipts == [Receipt()]
    assert (graph.actions, graph.sent) == ([(action, "7001")], [])


def test_reaction_is_sent():
    """A reaction names the message that it is for."""
    request = messenger().build(outbound("", detail={"action": "react", "mid": "m_1", "reaction": "😊"}))

    assert body(request)["payload"] == {"message_id": "m_1", "reaction": "😊"}


def test_thread_is_passed_and_taken(graph):
    """A thread can be passed to another app, which stops us from answering, and be taken back."""
    channel = messenger(graph)
    send(channel, outbound("", detail={"action": "pass_thread_control", "app": "99", "note": "please"}))

    with pytest.raises(PermanentError, match="another app answers") as refusal:
        send(channel, outbound())
    send(channel, outbound("", heard=None, detail={"action": "take_thread_control"}))
    send(channel, outbound())

    assert refusal.value.code == "10/2018300"
    assert len(graph.sent) == 1


def test_thread_is_passed_to_an_app_alone():
    """Only passing a thread names an app."""
    for action, other in (("pass_thread_control", ""), ("take_thread_control", "99")):
        with pytest.raises(PermanentError, match="app"):
            messenger().handover(ANN, action, app=other)


@pytest.mark.parametrize(
    ("message", "told"),
    [
        (outbound("  "), "empty"),
        (outbound("x" * 2_001), "too long"),
        (outbound("x" * 641, detail={"buttons": [{"title": "a", "url": "https://b.example"}]}), "too long"),
        (outbound(detail={"buttons": [{"title": "a", "payload": "b"}] * 4}), "4 buttons"),
        (outbound(detail={"buttons": [{"title": "a"}]}), "no button"),
        (outbound("", attachments=(INVOICE,), detail={"buttons": [{"title": "a", "payload": "b"}]}), "no text"),
        (outbound(detail={"quick_replies": [{"title": "a"}] * 14}), "14 quick replies"),
        (outbound(detail={"quick_replies": "red"}), "list of tables"),
        (outbound(detail={"quick_replies": [{"payload": "x"}]}), "no quick reply"),
        (outbound(detail={"quick_replies": [{"title": "a", "payload": "x" * 1_001}]}), "too long"),
        (outbound("", attachments=(evolve(PHOTO, content=b"x" * 8_000_001),)), "8000001 bytes"),
        (outbound(detail={"action": "dance"}), "no action"),
        (outbound(detail={"action": "react"}), "no action"),
        (outbound(detail={"tag": "SALE"}), "no tag"),
        (outbound(to=Identifier("email", "", "ann@shop.example")), "no messenger_psid"),
        (outbound(to=Identifier("messenger_psid", "1002", "7001")), "no token of '1002'"),
        (outbound(to=Identifier("messenger_psid", "", "7001")), "no token of ''"),
    ],
)
def test_what_meta_would_refuse_is_not_sent(message, told):
    """A message that Meta would not take is refused before, with what is wrong."""
    with pytest.raises(PermanentError, match=told):
        messenger().build(message)


@pytest.mark.parametrize(
    ("file", "told"),
    [(PHOTO, "no address"), (evolve(INVOICE, media_type="application/zip"), "takes no")],
)
def test_what_instagram_would_refuse_is_not_sent(file, told):
    """Instagram fetches files itself, and knows fewer sorts."""
    with pytest.raises(PermanentError, match=told):
        instagram().build(outbound("", to=IG_ANN, attachments=(file,)))


def test_instagram_sends_a_pdf_by_its_address(gram):
    """What Instagram can fetch arrives."""
    send(instagram(gram), outbound("See:", to=IG_ANN, attachments=(INVOICE,)))

    assert gram.sent[1].message["attachment"]["payload"]["url"] == INVOICE.url


def test_version_and_place_are_settings():
    """The version of the Graph API and its place are settings."""
    request = messenger(api_version="v31.0", graph_url="https://graph.example/").build(outbound())

    assert str(request.url) == "https://graph.example/v31.0/1001/messages"


# -- when


@pytest.mark.parametrize(
    ("heard", "by", "settings", "kind"),
    [
        (23 * HOUR, "", {}, {"messaging_type": "RESPONSE"}),
        (25 * HOUR, "agent-1", {"human_agent": True}, {"messaging_type": "MESSAGE_TAG", "tag": "HUMAN_AGENT"}),
        (167 * HOUR, "agent-1", {"human_agent": True}, {"messaging_type": "MESSAGE_TAG", "tag": "HUMAN_AGENT"}),
        (-HOUR, "", {}, {"messaging_type": "RESPONSE"}),
    ],
)
def test_message_inside_its_window_is_sent(heard, by, settings, kind):
    """Anybody may answer for 24 hours, and an agent for seven days where Meta lets the app do so."""
    content = body(messenger(**settings).build(outbound(heard=heard, detail={"by": by})))

    assert {name: content[name] for name in kind} == kind


@pytest.mark.parametrize(
    ("heard", "message", "settings", "told"),
    [
        (24 * HOUR, {}, {}, "24 hours .* ended at 2026-01-05 12:00 UTC: let an agent answer"),
        (25 * HOUR, {"detail": {"by": "agent-1"}}, {}, "human_agent = true is set"),
        (25 * HOUR, {"detail": {"by": "agent-1"}, "is_automatic": True}, {"human_agent": True}, "24 hours"),
        (168 * HOUR, {"detail": {"by": "agent-1"}}, {"human_agent": True}, "7 days .* ended at 2026-01-05 12:00 UTC"),
        (168 * HOUR, {}, {}, "ended at 2025-12-30 12:00 UTC: wait until they write again"),
        (None, {}, {}, "never wrote"),
        (25 * HOUR, {"detail": {"action": "typing_on"}}, {}, "24 hours"),
    ],
)
def test_message_outside_its_window_is_not_sent(heard, message, settings, told):
    """Out of its window a message is not even tried; the error says until when it was open, and what to do."""
    with pytest.raises(PermanentError, match=told):
        messenger(**settings).build(outbound(heard=heard, **message))


def test_message_tag_needs_no_window(graph):
    """A message with a tag of its own may be sent at any time."""
    graph.people[PAGE, "7001"].heard_at = None

    send(messenger(graph), outbound(heard=None, detail={"tag": "POST_PURCHASE_UPDATE"}))

    assert graph.sent[0].tag == "POST_PURCHASE_UPDATE"


def test_window_that_meta_closes_first_is_told(graph):
    """Where Meta's clock says that the time is over, its code and words are in the error."""
    graph.people[PAGE, "7001"].heard_at = NOW - 25 * HOUR

    with pytest.raises(PermanentError, match=r"outside of allowed window.*wait until they write again") as refusal:
        send(messenger(graph), outbound())

    assert refusal.value.code == "10/2018278"


# -- what Meta answers


@pytest.mark.parametrize("code", [1, 2, 4, 17, 32, 341, 613, 1200, 80006])
def test_passing_error_is_tried_again(graph, code):
    """What passes by itself is transient, and the next try arrives."""
    graph.failures.append(Failure(RefusedError(code, "Please try again later.")))
    channel = messenger(graph)

    with pytest.raises(TransientError, match=f"{code}, 'Please try again later.'"):
        send(channel, outbound())
    send(channel, outbound())

    assert len(graph.sent) == 1


@pytest.mark.parametrize(
    ("code", "subcode", "told"),
    [
        (190, 463, "new access token"),
        (102, None, "new access token"),
        (10, None, "permissions"),
        (200, 2534041, "permissions"),
        (230, None, "permissions"),
        (551, 1545041, "cannot be reached"),
        (100, 2018001, "cannot be reached"),
        (10, 2018278, "time to answer is over"),
        (10, 2534022, "time to answer is over"),
        (368, None, "policies"),
        (100, 2018047, "correct the message"),
        (424242, None, "look the code up"),
    ],
)
def test_lasting_error_stops(graph, code, subcode, told):
    """What does not pass is permanent, with Meta's words and code, and with what to do."""
    graph.failures.append(Failure(RefusedError(code, "Something is wrong.", subcode)))

    with pytest.raises(PermanentError, match=f"'Something is wrong.'.*{told}") as refusal:
        send(messenger(graph), outbound())

    assert refusal.value.code == (f"{code}/{subcode}" if subcode else str(code))


def test_error_that_meta_calls_passing_is_tried_again(graph):
    """Meta itself says of some errors that they pass."""
    graph.failures.append(Failure(RefusedError(424242, "Busy.", is_transient=True)))

    with pytest.raises(TransientError):
        send(messenger(graph), outbound())


def test_error_after_which_the_message_may_have_arrived_is_uncertain(graph):
    """One error is known to come though the messages were sent."""
    graph.failures.append(Failure(RefusedError(1, "Received invalid JSON reply.", 1357046, status=500), at="after"))

    with pytest.raises(UncertainError, match="may have done it"):
        send(messenger(graph), outbound())

    assert len(graph.sent) == 1


@pytest.mark.parametrize(
    ("status", "kind"),
    [(502, UncertainError), (504, UncertainError), (503, TransientError), (429, TransientError), (404, PermanentError)],
)
def test_answer_that_is_not_metas_is_told_apart(status, kind):
    """What stands between and answers for Meta leaves open whether the message arrived, unless it says so."""
    with pytest.raises(kind, match=r"graph\.facebook\.com answered"):
        messenger().interpret(httpx.Response(status, text="<html>no</html>"))


def test_success_without_an_id_is_uncertain():
    """A 200 that says nothing is no receipt."""
    with pytest.raises(UncertainError, match="did not say"):
        messenger().interpret(httpx.Response(200, text="ok"))


@pytest.mark.parametrize(
    ("headers", "pause_s"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        (
            {"retry-after": "Mon, 05 Jan 2026 12:01:00 GMT", "date": "Mon, 05 Jan 2026 12:00:00 GMT"},
            60.0,
        ),
        ({"retry-after": "Mon, 05 Jan 2026 12:01:00 GMT"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "9" * 50}, 86_400.0),
        ({"x-business-use-case-usage": '{"1": [{"estimated_time_to_regain_access": 5}]}', "retry-after": "7"}, 300.0),
        ({"x-business-use-case-usage": '{"1": [{"estimated_time_to_regain_access": 1e999}]}'}, None),
        ({"x-business-use-case-usage": '{"1": {}}'}, None),
        ({"x-business-use-case-usage": "nonsense"}, None),
        ({"x-app-usage": '{"call_count": 101, "total_time": 25}'}, None),
    ],
)
def test_pause_that_meta_asks_for_is_kept(headers, pause_s):
    """How long to wait is Meta's own word: a header field, or when the limit ends."""
    response = httpx.Response(400, headers=headers, json={"error": {"code": 613, "message": "Too many."}})

    with pytest.raises(TransientError) as refusal:
        messenger().interpret(response)

    assert refusal.value.retry_after_s == pause_s
    assert ("101 % of its limit" in str(refusal.value)) is ("x-app-usage" in headers)


def test_rate_limit_names_its_pause(graph):
    """Whoever sends too quickly is told for how long to stop."""
    graph.most_per_s = 0

    with pytest.raises(TransientError) as refusal:
        send(messenger(graph), outbound())

    assert refusal.value.retry_after_s == 60.0


def test_code_that_is_none_is_not_kept():
    """Whatever an answer calls a code, it does not fill the store."""
    answer = httpx.Response(400, content=b'{"error": {"code": 1%s, "message": "no"}}' % (b"0" * 3000))

    with pytest.raises(PermanentError) as refusal:
        messenger().interpret(answer)

    assert refusal.value.code == "0"


def test_token_that_meta_quotes_is_not_shown(graph):
    """Meta quotes a token that it does not know, and the error hides it."""
    graph.tokens = {}

    with pytest.raises(PermanentError, match=r"Malformed access token \*\*\*") as refusal:
        send(messenger(graph), outbound())

    assert TOKEN not in str(refusal.value)


def test_no_secret_is_in_an_address(graph):
    """Neither sending, asking for a profile nor checking puts a secret into an address."""
    channel = messenger(graph)
    send(channel, outbound("Hello", attachments=(PHOTO,)))
    with httpx.Client() as client:
        for request in (channel.profile_request(ANN), *channel.checks(), *channel.subscribe("https://shop.example")):
            client.send(request)

    shown = " ".join(url for _, url in graph.asked)
    assert len(graph.asked) == 6
    assert all(one not in shown for one in (TOKEN, SECRET, "token-of-the-shop"))


# -- what comes back


def test_echo_of_our_own_message_brings_its_token(graph):
    """The echo of what was sent from here says which message it was, as often as it comes."""
    channel = messenger(graph)
    hook = Hook(channel)
    with served(hook.app) as graph.webhook_url:
        graph.copies = 2

        (receipt,) = send(channel, outbound())
        first, again = hook.wait_for(2)

    assert first == again
    assert (first[0].direction, first[0].detail["token"]) == (Direction.OUTBOUND, "tok")
    assert first[0].external_id == receipt.external_id


def test_reports_name_what_was_delivered_and_read(graph):
    """Deliveries name messages, and reading all that came before."""
    hook = Hook(messenger(graph))
    with served(hook.app) as graph.webhook_url:
        graph.deliver("m_7", person="7001")
        graph.read("7001")

    (delivered,), (read,) = hook.told
    assert isinstance(delivered, StatusChanged)
    assert (delivered.status, delivered.messages) == (DeliveryStatus.DELIVERED, ("m_7",))
    assert (read.status, read.watermark, read.thread) == (DeliveryStatus.READ, NOW, "1001/7001")


# -- profiles


def profile(graph, channel, who=ANN):
    """Ask the platform who somebody is; give the hint."""
    with httpx.Client() as client:
        return channel.profile(who, client.send(channel.profile_request(who)), at=NOW)


def test_profile_gives_name_and_picture(graph):
    """Name and picture are traits that the platform attests, and nobody becomes a contact by them."""
    hint = profile(graph, messenger(graph))

    assert {one.name: one.value for one in hint.traits} == {
        "name": "Ann Other",
        "picture": "https://cdn.example/ann.jpg",
    }
    assert {one.trust.name for one in hint.traits} == {"CHANNEL"}
    assert (hint.id, hint.may_create, hint.at, hint.how) == ("", False, NOW, "Messenger profile")
    assert (hint.identifiers[0].scope, hint.identifiers[0].value) == (PAGE, "7001")


def test_more_fields_of_a_profile_are_asked_for_where_set(graph):
    """What needs a permission of its own is asked for where that is set."""
    graph.people[PAGE, "7001"].profile = {"first_name": "Ann", "last_name": "Other", "locale": "en_US"}

    hint = profile(graph, messenger(graph, profile_fields=("locale",)))

    assert {one.name: one.value for one in hint.traits} == {"name": "Ann Other", "locale": "en_US"}


@pytest.mark.parametrize(
    "name", ["", "  ", "Facebook User", "facebook  user", "John Doe", "Instagram User", "-", None, 7]
)
def test_name_that_stands_for_nobody_is_none(graph, name):
    """What Meta shows in the place of a name is no name."""
    graph.people[PAGE, "7001"].profile = {"name": name, "profile_pic": None}

    assert profile(graph, messenger(graph)) is None


def test_profile_that_is_withheld_gives_nothing(graph):
    """Somebody who shows nothing has no profile, and that is no error."""
    graph.people.clear()

    assert profile(graph, messenger(graph)) is None


def test_profile_is_asked_again_after_a_passing_error(graph):
    """A limit that was met passes."""
    graph.failures.append(Failure(RefusedError(4, "Application request limit reached")))

    with pytest.raises(TransientError):
        profile(graph, messenger(graph))


def test_profile_needs_a_token_of_its_page():
    """Nobody is asked for of a page without a token, or by an identifier of another kind."""
    assert messenger().profile_request(evolve(ANN, scope="1002")) is None
    assert messenger().profile_request(IG_ANN) is None


def test_instagram_profile_has_a_user_name(gram):
    """Instagram gives the name that people go by there as well."""
    gram.people[PAGE, "7001"].profile = {"name": None, "username": "ann.o"}

    hint = profile(gram, instagram(gram), IG_ANN)

    assert [(one.name, one.value) for one in hint.traits] == [("username", "ann.o")]
