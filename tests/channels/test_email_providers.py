import asyncio
import base64
import json
from datetime import UTC, datetime
from email import message_from_bytes

import httpx
import pytest
from attrs import evolve
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from providers import DELIVERED, POSTMARK_ID, ses_report, sns
from providers import POSTMARK as POSTMARK_SOURCE
from providers import SES as SES_SOURCE

from convsdk.channels.email import EmailChannel
from convsdk.channels.email.sending import MailgunSending, PostmarkSending, SesSending
from convsdk.channels.email.settings import EmailSettings
from convsdk.core.model import Identifier
from convsdk.core.ports import File, Outbound, Receipt, Secret
from convsdk.errors import PermanentError, TransientError, UncertainError, UnsupportedError

NOW = datetime(2026, 3, 2, 9, 5, 7, tzinfo=UTC)
TOKEN = "abcdefghij234567"
KEY = "key-of-the-tests"
MAILGUN = MailgunSending(domain="mg.shop.example", key=Secret(KEY))
POSTMARK = PostmarkSending(token=Secret(KEY))
SES = SesSending(region="eu-west-1", key_id="AKIDEXAMPLE000000000", secret_key=Secret(KEY))
WAYS = [MAILGUN, POSTMARK, SES]
MESSAGE = Outbound(
    to=Identifier("email", "", "ann@mail.example"),
    text="Grüße",
    token=TOKEN,
    at=NOW,
    subject="Parcel",
    references=("<a@mail.example>",),
)


def channel(sending, **changed):
    """Give a channel that sends so."""
    settings = {
        "address": "in-7f3a@shop.example",
        "sender": "help@shop.example",
        "name": 'The "Shop"',
        "reply_line": "",
    }
    return EmailChannel("support", EmailSettings(**settings | {"sending": sending} | changed))


def interpret(sending, status, content=None, headers=None):
    """Give what the channel makes of an answer."""
    return channel(sending).interpret(httpx.Response(status, json=content, headers=headers))


def send(sending, app):
    """Send by the channel's own client to an ASGI app that stands in for the provider."""

    async def sent():
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app)) as client:
            return await channel(sending).send(MESSAGE, client)

    return asyncio.run(sent())


def stand_in(received, answer):
    """Give an ASGI app that keeps what it receives and answers with that JSON."""

    async def app(scope, receive, send):
        body, is_more = b"", True
        while is_more:
            event = await receive()
            body, is_more = body + event["body"], event.get("more_body", False)
        received.append((scope["path"], dict(scope["headers"]), body))
        content = json.dumps(answer).encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
        await send({"type": "http.response.body", "body": content})

    return app


def test_mailgun_gets_the_whole_mail():
    """Mailgun is handed the recipient and the bytes of the mail, and names its Message-ID."""
    received = []

    receipt = send(MAILGUN, stand_in(received, {"id": f"<{TOKEN}@shop.example>", "message": "Queued."}))

    ((path, headers, body),) = received
    form = message_from_bytes(b"Content-Type: " + headers[b"content-type"] + b"\r\n\r\n" + body)
    to, mail = form.get_payload()
    assert receipt == Receipt(external_id=f"<{TOKEN}@shop.example>")
    assert path == "/v3/mg.shop.example/messages.mime"
    assert base64.b64decode(headers[b"authorization"].removeprefix(b"Basic ")).decode() == f"api:{KEY}"
    assert (to.get_param("name", header="content-disposition"), to.get_payload()) == ("to", "ann@mail.example")
    assert mail.get_param("name", header="content-disposition") == "message"
    assert f"Message-ID: <{TOKEN}@shop.example>".encode() in body


@pytest.mark.parametrize(("region", "host"), [("us", "api.mailgun.net"), ("eu", "api.eu.mailgun.net")])
def test_mailgun_is_asked_where_the_domain_is(region, host):
    """Each region has a host of its own."""
    assert channel(evolve(MAILGUN, region=region)).build(MESSAGE).url.host == host


def test_postmark_gets_the_mail_in_pieces():
    """Postmark is handed texts, header fields and files as JSON, and asked to keep our Message-ID."""
    files = (
        File(name="a.pdf", media_type="application/pdf", content=b"%PDF"),
        File(name="b.png", media_type="image/png", content=b"png", content_id="b1"),
    )

    request = channel(POSTMARK).build(evolve(MESSAGE, attachments=files, is_automatic=True))

    assert (request.url, request.headers["x-postmark-server-token"]) == ("https://api.postmarkapp.com/email", KEY)
    assert json.loads(request.content) == {
        "From": '"The \\"Shop\\"" <help@shop.example>',
        "To": "ann@mail.example",
        "ReplyTo": f'"The \\"Shop\\"" <in-7f3a+{TOKEN}@shop.example>',
        "Subject": "Re: Parcel",
        "TextBody": "Grüße",
        "HtmlBody": "<div>Grüße</div>",
        "MessageStream": "outbound",
        "Headers": [
            {"Name": "Message-ID", "Value": f"<{TOKEN}@shop.example>"},
            {"Name": "In-Reply-To", "Value": "<a@mail.example>"},
            {"Name": "References", "Value": "<a@mail.example>"},
            {"Name": "Auto-Submitted", "Value": "auto-replied"},
            {"Name": "X-Auto-Response-Suppress", "Value": "All"},
            {"Name": "X-PM-KeepID", "Value": "true"},
        ],
        "Attachments": [
            {"Name": "a.pdf", "Content": "JVBERg==", "ContentType": "application/pdf"},
            {"Name": "b.png", "Content": "cG5n", "ContentType": "image/png", "ContentID": "cid:b1"},
        ],
    }


def test_postmark_names_the_id_by_which_it_reports():
    """The id in Postmark's answer stands in no mail, and is the one that its webhooks have."""
    received = []

    receipt = send(POSTMARK, stand_in(received, {"ErrorCode": 0, "Message": "OK", "MessageID": POSTMARK_ID}))
    (told,) = channel(POSTMARK, source=POSTMARK_SOURCE).parse(DELIVERED)

    assert receipt == Receipt(external_id=POSTMARK_ID)
    assert told.messages == (receipt.external_id,)
    assert len(received) == 1


def test_ses_names_the_id_by_which_it_reports():
    """Where a notification has no header of the mail, the id that it has is the one of the receipt."""
    receipt = interpret(SES, 200, {"MessageId": "0102-ses"})

    (told,) = channel(SES, source=SES_SOURCE).parse(sns(ses_report("Delivery", delivery={})))

    assert told.messages == (receipt.external_id,)


def test_ses_gets_the_whole_mail():
    """Amazon SES is handed the bytes of the mail, and reports come back to the address with the token."""
    received = []

    receipt = send(evolve(SES, configuration_set="shop"), stand_in(received, {"MessageId": "0102-3"}))

    ((path, _, body),) = received
    asked = json.loads(body)
    raw = base64.b64decode(asked.pop("Content")["Raw"]["Data"])
    assert receipt == Receipt(external_id="<0102-3@eu-west-1.amazonses.com>")
    assert path == "/v2/email/outbound-emails"
    assert f"Message-ID: <{TOKEN}@shop.example>".encode() in raw
    assert asked == {
        "FromEmailAddress": "help@shop.example",
        "Destination": {"ToAddresses": ["ann@mail.example"]},
        "FeedbackForwardingEmailAddress": f"in-7f3a+{TOKEN}@shop.example",
        "ConfigurationSetName": "shop",
    }


def test_first_region_of_ses_names_itself_differently():
    """Message-IDs of us-east-1 end in email.amazonses.com."""
    found = interpret(evolve(SES, region="us-east-1"), 200, {"MessageId": "0102-3"})

    assert found.external_id == "<0102-3@email.amazonses.com>"


@pytest.mark.parametrize("session_token", [None, Secret("a-session")])
def test_signature_for_ses_is_the_one_that_amazon_computes(session_token):
    """The signature over a request is that of Amazon's own signer."""
    request = channel(evolve(SES, session_token=session_token)).build(MESSAGE)

    signed = {name: request.headers[name] for name in request.headers if name.startswith("x-amz")}
    theirs = AWSRequest(
        "POST", str(request.url), signed | {"content-type": request.headers["content-type"]}, request.content
    )
    theirs.context["timestamp"] = request.headers["x-amz-date"]
    signer = SigV4Auth(Credentials(SES.key_id, KEY), "ses", "eu-west-1")
    canonical = signer.canonical_request(theirs)
    signature = signer.signature(signer.string_to_sign(theirs, canonical), theirs)
    assert request.headers["x-amz-date"] == "20260302T090507Z"
    assert request.headers["authorization"] == (
        f"AWS4-HMAC-SHA256 Credential={signer.scope(theirs)}, "
        f"SignedHeaders={signer.signed_headers(signer.headers_to_sign(theirs))}, Signature={signature}"
    )


def test_moment_of_a_signature_is_in_utc():
    """A time in another zone is signed as the same moment."""
    request = channel(SES).build(evolve(MESSAGE, at=datetime.fromisoformat("2026-03-02T11:05:07+02:00")))

    assert request.headers["x-amz-date"] == "20260302T090507Z"


@pytest.mark.parametrize("sending", WAYS)
def test_same_message_is_the_same_request(sending):
    """Nothing in a request is drawn by lot."""
    first, second = (channel(sending).build(MESSAGE) for _ in range(2))

    assert (first.url, first.headers, first.read()) == (second.url, second.headers, second.read())


@pytest.mark.parametrize("sending", WAYS)
def test_provider_that_is_busy_is_asked_again(sending):
    """Too many requests pass, and so does a provider that is busy; the pause that it asks for is kept."""
    dates = {"Retry-After": "Mon, 02 Mar 2026 09:01:00 GMT", "Date": "Mon, 02 Mar 2026 09:00:30 GMT"}

    with pytest.raises(TransientError) as busy:
        interpret(sending, 429, {}, {"Retry-After": "17"})
    with pytest.raises(TransientError) as dated:
        interpret(sending, 503, None, dates)
    with pytest.raises(TransientError) as silent:
        interpret(sending, 429, None, {"Retry-After": "soon"})

    assert [one.value.retry_after_s for one in (busy, dated, silent)] == [17, 30, None]


@pytest.mark.parametrize("status", [500, 502, 504])
@pytest.mark.parametrize("sending", WAYS)
def test_fault_without_a_word_leaves_it_open(sending, status):
    """Where a provider fell silent, or a gateway got no answer, the mail may have been taken."""
    with pytest.raises(UncertainError, match=str(status)):
        interpret(sending, status)


@pytest.mark.parametrize(
    ("sending", "answer", "code", "words"),
    [
        (MAILGUN, (400, {"message": "to parameter is not a valid address"}, {}), "400", "to parameter is not"),
        (MAILGUN, (401, {"message": "Invalid private key"}, {}), "401", "check the key"),
        (POSTMARK, (422, {"ErrorCode": 406, "Message": "inactive\nrecipient"}, {}), "406", "inactive recipient"),
        (POSTMARK, (200, {"ErrorCode": 300, "Message": "Invalid"}, {}), "300", "Invalid"),
        (SES, (400, {"message": "none"}, {"X-Amzn-ErrorType": "MessageRejected:x"}), "MessageRejected", "none"),
        (SES, (403, {"__type": "a#InvalidSignatureException"}, {}), "InvalidSignatureException", "check the key"),
    ],
)
def test_refusal_has_the_code_and_words_of_the_provider(sending, answer, code, words):
    """A mail that is never taken is told with what the provider said, on one line and without the key."""
    with pytest.raises(PermanentError, match=words) as refused:
        interpret(sending, *answer)

    assert refused.value.code == code
    assert "\n" not in str(refused.value)
    assert KEY not in str(refused.value)


@pytest.mark.parametrize(
    ("sending", "status", "content", "headers"),
    [
        (POSTMARK, 422, {"ErrorCode": 100, "Message": "Maintenance"}, {}),
        (SES, 400, {}, {"X-Amzn-ErrorType": "LimitExceededException"}),
        (SES, 400, {"__type": "SendingPausedException"}, {}),
    ],
)
def test_refusal_that_passes_is_tried_again(sending, status, content, headers):
    """Some codes say later, whatever their status says."""
    with pytest.raises(TransientError):
        interpret(sending, status, content, headers)


@pytest.mark.parametrize("sending", [MAILGUN, SES])
def test_answer_without_an_id_is_a_receipt(sending):
    """A mail that was taken is sent, even if the answer names nothing, or is no JSON object."""
    assert interpret(sending, 200, ["x"]) == Receipt()
    assert channel(sending).interpret(httpx.Response(200, text="<html>")) == Receipt()


@pytest.mark.parametrize("sending", WAYS)
def test_international_address_is_refused_before(sending):
    """No provider writes to an address with other letters before the @."""
    with pytest.raises(PermanentError, match="SMTPUTF8"):
        channel(sending).build(evolve(MESSAGE, to=Identifier("email", "", "änn@mail.example")))


@pytest.mark.parametrize("sending", [None, *WAYS])
def test_channel_sends_where_it_is_told_how(sending):
    """An instance declares that it can answer only where its settings say how."""
    found = channel(sending)

    assert (found.can.sends, EmailChannel.can.sends) == (sending is not None, True)
    assert found.can.is_idempotent == (sending in (MAILGUN, POSTMARK))
    assert found.outbound_id(TOKEN) == f"<{TOKEN}@shop.example>"
    assert KEY not in repr(found.config)


def test_channel_without_a_way_sends_nothing():
    """It says what to set."""
    with pytest.raises(UnsupportedError, match="set its sending"):
        channel(None).build(MESSAGE)
    with pytest.raises(UnsupportedError, match="cannot answer"):
        channel(None).interpret(httpx.Response(200))


@pytest.mark.parametrize(
    ("made", "told"),
    [
        (lambda: evolve(MAILGUN, domain="mg.shop.example/../x"), "domain"),
        (lambda: evolve(MAILGUN, key=Secret("")), "key"),
        (lambda: evolve(POSTMARK, token=KEY), "token"),
        (lambda: evolve(POSTMARK, stream="a b"), "stream"),
        (lambda: evolve(SES, region="eu-west-1.evil.example"), "region"),
        (lambda: evolve(SES, key_id="lower"), "key_id"),
        (lambda: evolve(SES, configuration_set="a/b"), "configuration_set"),
    ],
)
def test_unusable_setting_of_a_provider_is_refused(made, told):
    """What would change the address or the signature of a request is refused, with the field's name."""
    with pytest.raises(ValueError, match=told):
        made()
