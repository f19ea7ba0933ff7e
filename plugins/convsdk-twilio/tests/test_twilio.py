"""The Twilio channel: what it reads, how it sends, what a text costs, and the laws of the kit."""

import asyncio
import base64
from urllib.parse import parse_qs, parse_qsl, urlencode

import httpx
import pytest
from twilio.request_validator import RequestValidator

from convsdk.core.events import ConsentSignalled, DeliveryStatus, MessageReceived, StatusChanged
from convsdk.core.fold import Policy
from convsdk.core.identifiers import Kinds
from convsdk.core.model import Attachment, Claim, Identifier, Trait, Trust
from convsdk.core.ports import File
from convsdk.errors import Forbidden, ParseError, PermanentError, TransientError, UncertainError
from convsdk.hub import Hub
from convsdk.plugins import load_plugins
from convsdk.testing import NOON, request
from convsdk_twilio import TwilioChannel, is_gsm7, segments
from convsdk_twilio.contract import (
    ACCOUNT,
    API_KEY,
    API_SECRET,
    AUTH_TOKEN,
    FILE,
    HEADER,
    URL,
    TwilioContract,
    channel,
    golden_request,
    outbound,
)

ANN = Claim("phone", "+4915112345678", Trust.CHANNEL)


def signed(body, url=URL, path="/channels/shop-sms"):
    """Give the request with that body, signed for `url` by Twilio's own library, as a proxy hands it on."""
    form = {}
    for name, value in parse_qsl(body, keep_blank_values=True):
        form.setdefault(name, []).append(value)
    signature = RequestValidator(AUTH_TOKEN).compute_signature(url, Form(form))
    return request(body, headers={HEADER: signature}, url=f"http://10.0.0.7:8000{path}")


class Form(dict):
    """A form with repeated fields, as Twilio's library reads it."""

    def getlist(self, name):
        """Give all values of a field."""
        return self[name]


def parse(name, **settings):
    """Give the events of a golden form."""
    return channel(**settings).parse(golden_request(name))


def said(text, **fields):
    """Give the events of a message from Ann."""
    form = {"MessageSid": f"SM{'0' * 32}", "From": "+4915112345678", "To": "+4930123456", "Body": text, **fields}
    return channel().parse(signed(urlencode(form)))


class TestTwilioContract(TwilioContract):
    """The laws of the kit."""


@pytest.mark.parametrize("one", TwilioContract.golden, ids=lambda one: one.name)
def test_golden_requests_are_signed_as_twilio_signs(one):
    """What the laws are shown on has the signature that Twilio's own library makes."""
    assert one.request.headers.get(HEADER) == signed(one.request.body.decode()).headers.get(HEADER)


# -- who may come in


@pytest.mark.parametrize(
    ("public_url", "signed_url", "path"),
    [
        (URL, URL, "/channels/shop-sms"),
        ("https://shop.example:443/sms", "https://shop.example/sms", "/sms"),
        ("https://shop.example/sms", "https://shop.example:443/sms", "/sms"),
        ("https://shop.example:8443/sms", "https://shop.example/sms", "/sms"),
        (URL, f"{URL}?shop=1&b=%20x", "/channels/shop-sms?shop=1&b=%20x"),
    ],
)
def test_form_that_twilio_signs_is_let_in(public_url, signed_url, path):
    """The URL as seen from outside is signed: with a port or without, and with its query as it was sent."""
    body = "Body=Gr%C3%BC%C3%9Fe+%26+more&Body=again&MediaUrl0=&A=1"

    channel(public_url=public_url).verify(signed(body, signed_url, path))


@pytest.mark.parametrize("url", ["http://10.0.0.7:8000/channels/shop-sms", f"{URL}/", f"{URL}?a=1"])
def test_form_that_is_signed_for_another_url_is_refused(url):
    """What was signed for another address is not for this channel."""
    with pytest.raises(Forbidden, match="public_url"):
        channel().verify(signed("Body=x", url))


@pytest.mark.parametrize("body", ["", "\u00e9", "&".join(f"a{n}=1" for n in range(1001))])
def test_body_that_is_no_form_is_refused(body):
    """Only a form is signed as this channel checks it."""
    with pytest.raises(Forbidden):
        channel().verify(signed(body))


# -- what is read


def test_sms_names_its_writer():
    """An SMS is from a phone number that the channel attests, in the thread of both numbers."""
    (event,) = parse("sms")

    assert isinstance(event, MessageReceived)
    assert (event.external_id, event.text) == (f"SM{'1' * 32}", "Is the blue one in stock? Grüße")
    assert (event.thread, event.at) == ("+4930123456/+4915112345678", NOON)
    assert (event.hint.identifiers, event.hint.how) == ((ANN,), "SMS")


def test_pictures_are_attachments():
    """Each file of an MMS is described by its type and address."""
    (event,) = parse("mms")

    assert event.attachments == (
        Attachment(name="image-1", media_type="image/jpeg", url="https://api.twilio.example/media/ME1"),
        Attachment(name="text-2", media_type="text/vcard", url="https://api.twilio.example/media/ME2"),
    )


def test_stop_withdraws_each_consent():
    """STOP is a message in the thread, and withdraws from each purpose with the words that were sent."""
    message, *consents = parse("stop", purposes=("marketing", "surveys"))

    assert message.text == "Stop "
    assert [one.signal.purpose for one in consents] == ["marketing", "surveys"]
    assert all(isinstance(one, ConsentSignalled) and one.signal.withdrawn for one in consents)
    assert (consents[0].signal.claim, consents[0].signal.wording) == (ANN, "Stop ")


def test_start_grants_it_again():
    """START, or the account's own word for it, is a consent."""
    _, consent = parse("start")

    assert (consent.signal.granted, consent.signal.withdrawn) == (True, False)


@pytest.mark.parametrize(
    ("text", "number"),
    [("UNSUBSCRIBE", 2), ("optout", 2), ("unstop", 2), ("yes", 1), ("please stop", 1), ("help", 1), ("", 1)],
)
def test_only_a_word_alone_opts_out(text, number):
    """The words that Twilio acts upon count alone, whatever their case; others are messages."""
    assert len(said(text)) == number


def test_words_of_the_account_come_first():
    """Where Twilio says what a word is, that counts: a HELP is no STOP."""
    assert len(said("stop", OptOutType="HELP")) == 1
    assert said("arrête", OptOutType="STOP")[1].signal.withdrawn


def test_whatsapp_is_another_thread_of_the_same_number():
    """A WhatsApp address is the phone's owner, in a thread that no SMS comes into."""
    (event,) = parse("whatsapp")

    assert event.thread == "whatsapp:+4930123456/whatsapp:+4915112345678"
    assert (event.hint.identifiers, event.hint.how) == ((ANN,), "WhatsApp message")
    assert event.hint.traits == (Trait("name", "Ann", Trust.CHANNEL),)


def test_whatsapp_button_is_a_choice():
    """A button that was pressed says which block it answers, and which message."""
    (event,) = parse("whatsapp_button")

    assert (event.text, event.block, event.choice) == ("My order", "topic", "order")
    assert event.references == (f"SM{'9' * 32}",)


def test_sender_without_a_number_is_known_by_its_address():
    """A short code is no phone number."""
    (event,) = parse("short_code")

    assert event.hint.identifiers == (Claim("twilio_address", "46201", Trust.CHANNEL, scope=ACCOUNT),)


def test_reports_name_the_message_and_how_far_it_has_come():
    """A report is about one message; each of its statuses is told once."""
    (delivered,), (failed,) = parse("delivered"), parse("undelivered")

    assert isinstance(delivered, StatusChanged)
    assert (delivered.status, delivered.messages) == (DeliveryStatus.DELIVERED, (f"SM{'2' * 32}",))
    assert (delivered.external_id, delivered.error) == (f"SM{'2' * 32}/delivered", "")
    assert (failed.status, failed.error) == (DeliveryStatus.FAILED, "30003: the handset cannot be reached")


@pytest.mark.parametrize(
    "form",
    [
        "",
        "MessageSid=x",
        f"MessageSid=SM{'1' * 32}",
        f"MessageSid=SM{'1' * 32}&From=%2B49",
        f"MessageSid=SM{'1' * 32}&MessageStatus=x",
    ],
)
def test_other_forms_are_refused(form):
    """What is neither a message nor a report is kept aside."""
    with pytest.raises(ParseError):
        channel().parse(signed(form))


# -- with the host


def test_host_finds_the_channel():
    """The distribution's entry point brings the channel and its kind of identifier."""
    plugins = load_plugins()

    assert plugins.channel_types["twilio"] is TwilioChannel
    assert plugins.broken == ()


def test_writer_is_known_by_their_number_on_every_surface():
    """The same phone by SMS and by WhatsApp is one contact with two conversations; both are answered with TwiML."""
    kinds = Kinds(TwilioChannel.kinds)
    hub = Hub("memory:", channels=[channel()], policy=Policy(kinds=kinds))

    handled = [hub.handle("shop-sms", golden_request(name)) for name in ("sms", "whatsapp", "stop")]

    assert {one.response.body for one in handled} == {b'<?xml version="1.0" encoding="UTF-8"?><Response/>'}
    assert {one.response.media_type for one in handled} == {"application/xml"}
    (contact,) = {one.contact for one in hub.conversations()}
    assert len(hub.conversations(contact=contact)) == 2


# -- what is sent


def sent(message, **settings):
    """Give the fields of the form that delivers a message."""
    return parse_qs(channel(**settings).build(message).read().decode(), keep_blank_values=True)


def test_message_is_posted_with_the_key():
    """A message is a form to the account's messages, with the key and where to report to."""
    call = channel().build(outbound())

    assert str(call.url) == f"https://api.twilio.com/2010-04-01/Accounts/{ACCOUNT}/Messages.json"
    assert base64.b64decode(call.headers["authorization"].removeprefix("Basic ")).decode() == f"{API_KEY}:{API_SECRET}"
    assert sent(outbound()) == {
        "To": ["+4915112345678"],
        "From": ["+4930123456"],
        "StatusCallback": [URL],
        "Body": ["Yes, it is."],
    }
    assert API_SECRET not in f"{call!r} {call.headers!r}"


def test_service_chooses_the_number():
    """With a messaging service, the service says which number writes."""
    form = sent(outbound(), sender=f"MG{'c3' * 16}")

    assert (form["MessagingServiceSid"], "From" in form) == ([f"MG{'c3' * 16}"], False)


def test_number_that_was_written_to_answers():
    """A thread is answered from the number, and on the surface, that it is on."""
    form = sent(outbound(thread="whatsapp:+4930999/whatsapp:+4915112345678"))

    assert (form["From"], form["To"]) == (["whatsapp:+4930999"], ["whatsapp:+4915112345678"])


def test_files_go_by_their_address():
    """Twilio fetches files itself."""
    assert sent(outbound("", attachments=(FILE, FILE)))["MediaUrl"] == [FILE.url] * 2


@pytest.mark.parametrize(
    "message",
    [
        outbound(" "),
        outbound(to=Identifier("twilio_address", ACCOUNT, "46201")),
        outbound(attachments=(File(name="a.png", media_type="image/png", content=b"PNG"),)),
        outbound(attachments=(File(name="a", media_type="x/y", content=b"", url="https://a.example"),) * 11),
    ],
)
def test_message_that_twilio_would_not_take_is_not_sent(message):
    """Nothing to say, nobody with a number, a file without an address, and more than ten files are refused before."""
    with pytest.raises(PermanentError):
        channel().build(message)


def test_long_text_goes_in_parts():
    """Twilio takes 1,600 characters at a time."""
    assert [len(one.text) for one in channel().parts(outbound("word " * 400))] == [1599, 399]


def test_choices_are_lines():
    """There are no buttons in an SMS: the choices are listed, and what is written is matched with them."""
    choices = [{"value": "order", "label": "My order"}, {"value": "x", "label": "Else"}]

    (part,) = channel().parts(outbound("What is it about?", detail={"choices": choices}))

    assert part.text == "What is it about?\n- My order\n- Else"


def deliver(http_status, headers=None, **answer):
    """Give the receipt for a message that Twilio answers so, or what is raised."""
    response = httpx.Response(http_status, json=answer, headers=headers)

    async def run():
        async with httpx.AsyncClient(transport=httpx.MockTransport(lambda _: response)) as client:
            return await channel().send(outbound(), client)

    return asyncio.run(run())


def test_receipt_has_the_sid():
    """Twilio has queued it, and reports on it under its SID."""
    receipt = deliver(201, sid=f"SM{'3' * 32}", status="queued", num_segments="1", error_code=None)

    assert (receipt.external_id, receipt.status) == (f"SM{'3' * 32}", DeliveryStatus.QUEUED)


@pytest.mark.parametrize(("headers", "pause"), [({"retry-after": "7"}, 7), ({"retry-after": "soon"}, None), ({}, None)])
def test_too_many_requests_wait(headers, pause):
    """Where Twilio says how long, that is how long it is waited."""
    with pytest.raises(TransientError) as caught:
        deliver(429, headers, code=20429, message="Too Many Requests")

    assert caught.value.retry_after_s == pause


def test_fault_of_twilio_passes():
    """A server that is in trouble is asked again."""
    with pytest.raises(TransientError):
        deliver(503, code=20503)


@pytest.mark.parametrize(
    ("code", "remedy"), [(21610, "START"), (21211, "correct it"), (20003, "console"), (12345, "docs/api/errors")]
)
def test_refusal_says_what_to_do(code, remedy):
    """What Twilio will not do is permanent, with its code and the remedy."""
    with pytest.raises(PermanentError, match=remedy) as caught:
        deliver(400, code=code, message="x", status=400)

    assert caught.value.code == str(code)


@pytest.mark.parametrize("status", [201, 502])
def test_answer_that_cannot_be_read_is_uncertain(status):
    """A success without a SID may have been one, and so may what a gateway could not pass on."""
    with pytest.raises(UncertainError):
        deliver(status)


# -- what a text costs


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("", 1),
        ("a" * 160, 1),
        ("a" * 161, 2),
        ("a" * 306, 2),
        ("a" * 307, 3),
        ("\u20ac" * 80, 1),
        ("\u20ac" * 81, 2),
        ("a" * 152 + "[" + "a" * 152, 3),  # an extended character is not cut: 152, then 2 + 151, then 1
        ("я" * 70, 1),
        ("я" * 71, 2),
        ("я" * 134, 2),
        ("я" * 135, 3),
        ("💙" * 35, 1),
        ("💙" * 36, 2),
        ("я" * 66 + "💙" + "я" * 66, 3),  # an emoji is not cut: 66, then 2 + 65, then 1
        ("a" * 159 + "`", 3),
    ],
)
def test_segments_are_counted_as_carriers_count(text, number):
    """160 septets or 70 UTF-16 units alone, 153 or 67 in each of several; two places are not cut in two."""
    assert segments(text) == number


def test_one_foreign_character_makes_a_text_ucs_2():
    """GSM-7 has Greek capitals and the euro sign, and neither accents of all sorts nor Cyrillic."""
    assert is_gsm7("Größe @ 5 € Δ[]")
    assert not any(map(is_gsm7, ("ç", "`", "Ж", "💙", "\u2013")))
