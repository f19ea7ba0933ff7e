"""Mail and reports that come over HTTP. The requests are written from the documentation of each provider."""

import base64
import json
from datetime import UTC, datetime, timedelta

import pytest
from attrs import evolve
from cryptography.hazmat.primitives.asymmetric import ec
from providers import (
    ADDRESS,
    BOUNCE,
    CERTIFICATE,
    COMPLAINT,
    CONFIRMATION,
    DELIVERED,
    EVENTS,
    FETCHED,
    HARD,
    KEY,
    MAIL,
    MAILGUN,
    ODD,
    OPENED,
    OTHER_KEY,
    OTHER_SECRET,
    OWN_ID,
    PASSWORD,
    POSTMARK,
    POSTMARK_ID,
    RAW,
    SECRET,
    SENDGRID,
    SES,
    SES_BOUNCE,
    SES_COMPLAINT,
    SIGNED_BY,
    STORED,
    STORED_ACTION,
    STORED_MAIL,
    SUBSCRIBE,
    TOKEN,
    TOPIC,
    basic,
    by_sendgrid,
    certificate,
    channel,
    form,
    inbound,
    mailgun_event,
    mailgun_signature,
    parsed,
    posted,
    postmark,
    postmark_bounce,
    received,
    refused,
    routed,
    sendgrid_event,
    ses_report,
    sns,
)

from convsdk.channels.email.incoming import Mailgun, Postmark, Raw, SendGrid, Ses
from convsdk.core.events import DeliveryStatus
from convsdk.core.model import Claim, Trust
from convsdk.core.ports import Headers, Secret
from convsdk.errors import ParseError
from convsdk.testing import NOON, ChannelContract, Golden, request


class TestRaw(ChannelContract):
    """A raw mail by Standard Webhooks."""

    secrets = (SECRET, OTHER_SECRET)
    settings_cases = (({"address": "nobody", "source": RAW}, "address"),)
    golden = (
        Golden(name="bounce of ours", request=posted(BOUNCE), events=2, signed_by=("webhook-signature",)),
        Golden(
            name="mail",
            request=posted(),
            events=1,
            signed_by=("webhook-signature", "webhook-id", "webhook-timestamp"),
        ),
        Golden(
            name="mail with envelope",
            request=posted(
                MAIL.replace(b"<one@", b"<two@"), secret=OTHER_SECRET, envelope=("ann@mail.example", ADDRESS)
            ),
            events=1,
            signed_by=("webhook-signature", "x-envelope-signature", "x-envelope-from", "x-envelope-to"),
        ),
    )

    def channel(self):
        return channel(RAW)


@pytest.mark.parametrize("late_s", [-301, 301])
def test_old_or_early_signature_is_refused(late_s):
    """A signature counts for five minutes around the receipt."""
    asked = evolve(posted(), received_at=NOON + timedelta(seconds=late_s))

    assert refused(channel(RAW), asked)
    assert not refused(channel(RAW), evolve(asked, received_at=NOON + timedelta(seconds=late_s / 1.1)))


def test_signed_envelope_is_believed():
    """The envelope's recipient names the mail that is answered, and its empty sender a program."""
    asked = posted(envelope=("", f"in-7f3a+{TOKEN}@shop.example"))

    channel(RAW).verify(asked)
    (mail,) = channel(RAW).parse(asked)

    assert mail.references == (OWN_ID,)
    assert mail.detail["class"] == "bounce"


def test_unsigned_envelope_is_refused():
    """Header fields that the signature of the body does not cover are not believed, and not passed over."""
    fields = {"x-envelope-from": "", "x-envelope-to": f"in-7f3a+{TOKEN}@shop.example"}

    assert all(refused(channel(RAW), posted(**{name: value})) for name, value in fields.items())


def test_signature_of_an_envelope_is_none_of_a_mail():
    """Who has seen a signed envelope cannot post it as a mail."""
    seen = posted(envelope=("From: ceo@bank.example", "")).headers
    fields = {"webhook-id": "msg_1/envelope", "webhook-signature": seen["x-envelope-signature"]}

    asked = request(b"From: ceo@bank.example\n", headers={**fields, "webhook-timestamp": seen["webhook-timestamp"]})

    assert refused(channel(RAW), asked)


def forged_for_mailgun():
    """Give requests that Mailgun has not sent."""
    for field in ("timestamp", "token", "signature"):
        for value in ("", "0", "\u00e9", "x" * 64):
            yield f"another {field}", routed(**{field: value})
    yield "no signature", request(json={"event-data": {}}, headers={"Content-Type": "application/json"})
    yield "no body", request(headers={"Content-Type": "application/json"})
    yield "another key", routed(**mailgun_signature(key="x"))


class TestMailgun(ChannelContract):
    """Mailgun's routes and webhooks. Its signature covers neither the mail nor the event."""

    secrets = (KEY,)
    forged = tuple(forged_for_mailgun())
    settings_cases = (({"address": "nobody"}, "address"),)
    golden = (
        Golden(name="mail", request=routed(), events=1),
        Golden(name="percents", request=routed(is_percents=True), events=1, is_redelivery=True),
        Golden(name="delivered", request=mailgun_event("delivered"), events=1),
        Golden(name="failed", request=mailgun_event("failed", **HARD), events=1),
        Golden(name="later", request=mailgun_event("failed", severity="temporary", reason="old"), events=0),
        Golden(name="complained", request=mailgun_event("complained"), events=1),
        Golden(name="clicked", request=mailgun_event("clicked"), events=0),
    )

    def channel(self):
        return channel(MAILGUN)


def test_old_signature_of_mailgun_is_refused():
    """A signature counts as long as Mailgun tries to deliver, or as the setting says."""
    late = evolve(routed(), received_at=NOON + timedelta(hours=11))

    assert not refused(channel(MAILGUN), late)
    assert refused(channel(evolve(MAILGUN, window_s=300)), late)
    assert refused(channel(MAILGUN), evolve(late, received_at=NOON + timedelta(hours=13)))


@pytest.mark.parametrize(
    ("asked", "status", "error", "dead"),
    [
        (mailgun_event("delivered"), DeliveryStatus.DELIVERED, "", None),
        (mailgun_event("opened"), DeliveryStatus.READ, "", None),
        (mailgun_event("failed", **HARD), DeliveryStatus.FAILED, "5.1.1 No such user", "bob@mail.example"),
        (mailgun_event("failed", **HARD | {"reason": "generic"}), DeliveryStatus.FAILED, "5.1.1 No such user", None),
        (mailgun_event("complained"), DeliveryStatus.DELIVERED, "complained", "bob@mail.example"),
        (mailgun_event("rejected", reason="virus"), DeliveryStatus.FAILED, "virus", None),
    ],
)
def test_mailgun_reports_on_our_mail(asked, status, error, dead):
    """An event names our Message-ID, how far it came, why not in Mailgun's words, and who is out of reach."""
    (told,) = channel(MAILGUN).parse(asked)

    assert (told.status, told.error, told.messages, told.at) == (status, error, (OWN_ID,), NOON)
    assert told.unreachable == (dead and Claim("email", dead, Trust.CHANNEL))


def test_program_that_opens_a_mail_has_not_read_it():
    """What Mailgun knows for a program's look says nothing."""
    assert channel(MAILGUN).parse(mailgun_event("opened", **{"client-info": {"bot": "apple"}})) == ()


class TestPostmark(ChannelContract):
    """Postmark, which signs nothing: its URL has a password."""

    secrets = (PASSWORD,)
    signs_body = False
    settings_cases = (({"address": "nobody"}, "address"),)
    golden = (
        Golden(name="mail", request=inbound(), events=1, signed_by=("Authorization",)),
        Golden(name="delivered", request=DELIVERED, events=1, signed_by=("Authorization",)),
        Golden(name="bounce", request=postmark_bounce("HardBounce"), events=1),
        Golden(name="vacation", request=postmark_bounce("AutoResponder"), events=0),
        Golden(name="complaint", request=COMPLAINT, events=1),
        Golden(name="open", request=OPENED, events=1),
        Golden(name="click", request=postmark(RecordType="Click", MessageID=POSTMARK_ID), events=0),
    )

    def channel(self):
        return channel(POSTMARK)


@pytest.mark.parametrize(
    ("asked", "status", "error", "is_dead"),
    [
        (DELIVERED, DeliveryStatus.DELIVERED, "", False),
        (OPENED, DeliveryStatus.READ, "", False),
        (postmark_bounce("HardBounce"), DeliveryStatus.FAILED, "550 5.1.1 No such user", True),
        (postmark_bounce("SoftBounce"), DeliveryStatus.FAILED, "550 5.1.1 No such user", False),
        (postmark_bounce("SoftBounce", Inactive=True), DeliveryStatus.FAILED, "550 5.1.1 No such user", True),
        (COMPLAINT, DeliveryStatus.DELIVERED, "spam", True),
    ],
)
def test_postmark_reports_on_our_mail(asked, status, error, is_dead):
    """An event names Postmark's own id, how far the mail came, why not, and who is out of reach."""
    (told,) = channel(POSTMARK).parse(asked)

    assert (told.status, told.error, told.messages) == (status, error, (POSTMARK_ID,))
    assert told.at.replace(microsecond=0) == NOON
    assert told.unreachable == (Claim("email", "bob@mail.example", Trust.CHANNEL) if is_dead else None)


def forged_for_sns():
    """Give requests that SNS has not sent."""
    good = sns(received(MAIL.decode()))
    told = json.loads(good.body)
    for name in told:
        for value in (None, "", "0", "\u00e9", told[name][:-8] + "AAAAAAAA"):
            changed = told | {name: value} if value is not None else {k: v for k, v in told.items() if k != name}
            yield f"another {name}", evolve(good, body=json.dumps(changed).encode())
    yield "another key", sns(received(MAIL.decode()), key=OTHER_KEY)
    yield "no certificate", evolve(good, fetched={})
    yield "garbage for its certificate", evolve(good, fetched={CERTIFICATE: b"no PEM"})


class TestSes(ChannelContract):
    """Amazon SES by way of SNS."""

    has_secrets = False
    forged = tuple(forged_for_sns())
    settings_cases = (({"address": "nobody"}, "address"),)
    golden = (
        Golden(name="as text", request=sns(received(MAIL.decode())), events=1),
        Golden(
            name="as base64",
            request=sns(received(base64.b64encode(MAIL.replace(b"<one@", b"<base64@")).decode()), version="1"),
            events=1,
        ),
        Golden(
            name="in a bucket",
            request=sns(received(**STORED_ACTION), fetched=FETCHED | {STORED: STORED_MAIL}),
            events=1,
        ),
        Golden(name="bounce", request=sns(ses_report("Bounce", bounce=SES_BOUNCE), Subject="b"), events=2),
        Golden(name="complaint", request=sns(ses_report("Complaint", complaint=SES_COMPLAINT)), events=1),
        Golden(name="delivery", request=sns(ses_report("Delivery", delivery={})), events=1),
        Golden(name="confirmation", request=sns("You have chosen", **CONFIRMATION), events=0),
    )

    def channel(self):
        return channel(SES)


@pytest.mark.parametrize(
    "address",
    [
        CERTIFICATE.replace("https", "http"),
        CERTIFICATE.replace("amazonaws.com", "amazonaws.com.evil.example"),
        CERTIFICATE.replace("sns.", "s3."),
        CERTIFICATE.replace("eu-west-1", "eu-west-1.evil"),
        CERTIFICATE.replace("https://", "https://evil.example/?"),
        CERTIFICATE.replace("https://", "https://evil.example#@"),
        CERTIFICATE + "/../x.pem",
    ],
)
def test_certificate_comes_from_sns_alone(address):
    """Only an address at SNS is wanted, and a certificate from elsewhere proves nothing."""
    asked = sns(received(MAIL.decode()), SigningCertURL=address, fetched={address: certificate()})

    assert channel(SES).wants(asked) == ()
    assert refused(channel(SES), asked)


def test_certificate_that_has_expired_proves_nothing():
    """The time of the receipt has to be within that of the certificate."""
    ended = certificate(ends=NOON - timedelta(days=1))
    coming = certificate(begins=NOON + timedelta(days=1))

    assert all(refused(channel(SES), sns(received("a: b"), fetched={CERTIFICATE: one})) for one in (ended, coming))


def test_certificate_of_another_kind_proves_nothing():
    """A certificate with a key that SNS does not use is refused, without a fault."""
    elliptic = certificate(ec.generate_private_key(ec.SECP256R1()))

    assert refused(channel(SES), sns(received("a: b"), fetched={CERTIFICATE: elliptic}))


def test_topic_that_is_not_allowed_is_refused():
    """Anybody can have SNS sign for a topic of their own: nothing is fetched, nothing believed."""
    asked = sns(received(MAIL.decode()), TopicArn=TOPIC.replace("123", "666"))

    assert channel(SES).wants(asked) == ()
    assert refused(channel(SES), asked)


def test_mail_in_a_bucket_is_wanted_once_the_request_is_authentic():
    """First the certificate is fetched, and only for what SNS has signed the mail."""
    asked = sns(received(**STORED_ACTION), fetched={})
    forged = sns(received(**STORED_ACTION), key=OTHER_KEY)

    assert channel(SES).wants(asked) == (CERTIFICATE,)
    assert channel(SES).wants(forged) == (CERTIFICATE,)
    assert channel(SES).wants(evolve(asked, fetched=FETCHED)) == (CERTIFICATE, STORED)


@pytest.mark.parametrize("bucket", ["mail-of-the-shop.evil", "other", "", "mail-of-the-shop/.."])
def test_mail_in_a_foreign_bucket_is_not_fetched(bucket):
    """A bucket that is not configured is not asked, and what lies there is no mail of ours."""
    asked = sns(received(**STORED_ACTION | {"bucketName": bucket}))

    assert channel(SES).wants(asked) == (CERTIFICATE,)
    with pytest.raises(ParseError, match="buckets"):
        channel(SES).parse(asked)


@pytest.mark.parametrize(
    "key", ["../other/mail", "mail/../../x", "..", "mail/..", "mail::file:///etc/passwd", "a\nb", ""]
)
def test_mail_elsewhere_than_in_the_bucket_is_not_fetched(key):
    """A key that would lead out of its bucket is none: fsspec reads `::` as another place."""
    asked = sns(received(**STORED_ACTION | {"objectKey": key}))

    assert channel(SES).wants(asked) == (CERTIFICATE,)


def test_subscription_is_confirmed_once_it_is_authentic():
    """The link that confirms an allowed topic is wanted after the check of the signature, and leads to SNS."""
    asked = sns("You have chosen", **CONFIRMATION)
    elsewhere = sns("You have chosen", **CONFIRMATION | {"SubscribeURL": "https://evil.example/?x"})

    assert channel(SES).wants(evolve(asked, fetched={})) == (CERTIFICATE,)
    assert channel(SES).wants(asked) == (CERTIFICATE, SUBSCRIBE)
    assert channel(SES).wants(elsewhere) == (CERTIFICATE,)
    assert channel(SES).parse(asked) == ()


@pytest.mark.parametrize(
    ("message", "told"),
    [
        (ses_report("Delivery", is_named=True, delivery={}), [(DeliveryStatus.DELIVERED, "", None)]),
        (ses_report("", eventType="Open", open={}), [(DeliveryStatus.READ, "", None)]),
        (
            ses_report("Bounce", is_named=True, bounce=SES_BOUNCE),
            [
                (DeliveryStatus.FAILED, "smtp; 550 5.1.1 No such user", "bob@mail.example"),
                (DeliveryStatus.FAILED, "Permanent General", "eve@mail.example"),
            ],
        ),
        (
            ses_report("Bounce", bounce=SES_BOUNCE | {"bounceType": "Transient", "bouncedRecipients": []}),
            [(DeliveryStatus.FAILED, "Transient General", None)],
        ),
        (
            ses_report("Complaint", complaint=SES_COMPLAINT),
            [(DeliveryStatus.DELIVERED, "abuse", "bob@mail.example")],
        ),
        (
            ses_report("", eventType="Reject", reject={"reason": "Bad content"}),
            [(DeliveryStatus.FAILED, "Bad content", None)],
        ),
        (
            ses_report("", eventType="Rendering Failure", failure={}),
            [(DeliveryStatus.FAILED, "rendering failure", None)],
        ),
        (ses_report("", eventType="DeliveryDelay"), []),
    ],
)
def test_ses_reports_on_our_mail(message, told):
    """A notification tells of each recipient, named by our Message-ID where SES gives the headers, else by its own."""
    found = channel(SES).parse(sns(message))

    dead = [one.unreachable and one.unreachable.value for one in found]
    assert [(one.status, one.error, each) for one, each in zip(found, dead, strict=True)] == told
    name = OWN_ID if message["mail"]["headers"] else "<0102-ses@eu-west-1.amazonses.com>"
    assert {one.messages for one in found} <= {(name,)}


class TestSendGrid(ChannelContract):
    """SendGrid's inbound parse and event webhooks."""

    secrets = (PASSWORD,)
    settings_cases = (({"address": "nobody"}, "address"),)
    golden = (
        Golden(name="mail", request=by_sendgrid(*parsed()), events=1, signed_by=SIGNED_BY),
        Golden(name="events", request=by_sendgrid(EVENTS, "application/json"), events=3, signed_by=SIGNED_BY),
    )

    def channel(self):
        return channel(SENDGRID)


def test_sendgrid_proves_itself_by_password_where_it_does_not_sign():
    """Without a signature the password counts, and where none is set the request is refused."""
    body, kind = parsed()
    asked = request(body, headers=basic("sendgrid") | {"Content-Type": kind})

    assert not refused(channel(SENDGRID), asked)
    assert refused(channel(SENDGRID), request(body, headers=basic("sendgrid", "x") | {"Content-Type": kind}))
    assert refused(channel(evolve(SENDGRID, password=None)), asked)


def test_wrong_signature_of_sendgrid_is_not_mended_by_a_password():
    """What is signed by somebody else is refused, whatever it has besides."""
    signed = by_sendgrid(*parsed(), key=ec.generate_private_key(ec.SECP256R1()))

    assert refused(channel(SENDGRID), evolve(signed, headers=Headers({**dict(signed.headers), **basic("sendgrid")})))


@pytest.mark.parametrize(
    ("event", "status", "error", "is_dead"),
    [
        (sendgrid_event("delivered", response="250 OK"), DeliveryStatus.DELIVERED, "", False),
        (sendgrid_event("open"), DeliveryStatus.READ, "", False),
        (sendgrid_event("bounce", type="bounce", reason="550 5.1.1"), DeliveryStatus.FAILED, "550 5.1.1", True),
        (sendgrid_event("bounce", type="blocked", reason="421 busy"), DeliveryStatus.FAILED, "421 busy", False),
        (sendgrid_event("dropped", reason="Bounced Address"), DeliveryStatus.FAILED, "Bounced Address", True),
        (
            sendgrid_event("dropped", reason="Unsubscribed Address"),
            DeliveryStatus.FAILED,
            "Unsubscribed Address",
            False,
        ),
        (sendgrid_event("spamreport"), DeliveryStatus.DELIVERED, "spamreport", True),
    ],
)
def test_sendgrid_reports_on_our_mail(event, status, error, is_dead):
    """An event names our Message-ID, how far the mail came, why not, and who is out of reach."""
    (told,) = channel(SENDGRID).parse(request(json=[event], headers={"Content-Type": "application/json"}))

    assert (told.status, told.error, told.messages, told.at) == (status, error, (OWN_ID,), NOON)
    assert told.unreachable == (Claim("email", "bob@mail.example", Trust.CHANNEL) if is_dead else None)


def test_program_that_opens_for_its_user_has_not_read():
    """What SendGrid knows for a machine's opening says nothing; without a Message-ID its own id names the mail."""
    events = [sendgrid_event("open", sg_machine_open=True), sendgrid_event("delivered", **{"smtp-id": ""})]

    (told,) = channel(SENDGRID).parse(request(json=events, headers={"Content-Type": "application/json"}))

    assert told.messages == ("14c5d75ce93",)


# -- all of them


def carried():
    """Give an odd mail through each source that can carry every byte."""
    signed = by_sendgrid(*parsed(ODD))
    return {
        "raw": (RAW, posted(ODD)),
        "mailgun": (MAILGUN, routed(ODD)),
        "mailgun, percents": (MAILGUN, routed(ODD, is_percents=True)),
        "ses, base64": (SES, sns(received(base64.b64encode(ODD).decode()))),
        "ses, bucket": (SES, sns(received(**STORED_ACTION), fetched=FETCHED | {STORED: ODD})),
        "sendgrid": (SENDGRID, signed),
    }


@pytest.mark.parametrize("name", carried())
def test_every_byte_arrives(name):
    """Bytes above 127, NULs and line ends of every sort arrive as they were sent."""
    source, asked = carried()[name]

    channel(source).verify(asked)
    (mail,) = source.read(asked)

    assert mail.raw == ODD


@pytest.mark.parametrize(("source", "asked"), [(POSTMARK, inbound), (SES, lambda raw: sns(received(raw)))])
def test_every_character_arrives(source, asked):
    """What a provider posts as JSON text arrives with its line ends and NULs; other charsets are lost before."""
    text = "From: Ann <ann@mail.example>\r\n\r\nGr\u00fc\u00dfe \0 \r bare \n\u20ac\r\n"

    (mail,) = source.read(asked(text))

    assert mail.raw == text.encode()


def test_one_parser_reads_all():
    """The same mail gives the same message through every source."""
    asked = (
        (RAW, posted(envelope=("ann@mail.example", ADDRESS))),
        (MAILGUN, routed()),
        (POSTMARK, inbound()),
        (SES, sns(received(MAIL.decode()))),
        (SENDGRID, by_sendgrid(*parsed())),
    )

    first, *others = [channel(source).parse(one) for source, one in asked]

    assert first[0].text == "Is it blue?"
    assert [one.name for one in first[0].attachments] == ["a.pdf"]
    assert all(one == first for one in others)


@pytest.mark.parametrize("source", [RAW, MAILGUN, POSTMARK, SES, SENDGRID])
def test_mail_that_a_server_took_in_needs_no_proof(source):
    """A request with an envelope is from our own mail server, and is read as a raw mail."""
    asked = request(MAIL, envelope=RAW.read(posted())[0].envelope)

    channel(source).verify(asked)

    assert channel(source).wants(asked) == ()
    assert channel(source).parse(asked)[0].text == "Is it blue?"


def test_channel_without_a_source_takes_no_requests():
    """Nobody can post mail to a channel whose mail comes by another way."""
    assert not channel(None).is_webhook
    assert channel(RAW).is_webhook


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: Raw(secrets=()), "secrets"),
        (lambda: Raw(secrets=(Secret("whsec_short"),)), "secrets"),
        (lambda: Mailgun(signing_key=Secret(" ")), "signing_key"),
        (lambda: Mailgun(signing_key="text"), "signing_key"),
        (lambda: Postmark(password=Secret("")), "password"),
        (lambda: Ses(topics=()), "topics"),
        (lambda: Ses(topics=("mail",)), "topics"),
        (lambda: Ses(topics=(TOPIC,), buckets=("a/b",)), "buckets"),
        (SendGrid, "public_keys"),
        (lambda: SendGrid(public_keys=("no key",)), "public_keys"),
        (lambda: SendGrid(password=Secret("")), "password"),
    ],
)
def test_wrong_settings_of_a_source_are_told(make, told):
    """Each error names the field."""
    with pytest.raises(ValueError, match=told):
        make()


def test_broken_form_is_a_parse_error():
    """A form without the raw mail, without parts or without end tells what to do."""
    for body, kind in (
        (b"", ""),
        (b"x", "multipart/form-data"),
        form({"text": b"Hi"}),
        (b"--b\r\n" + b"x" * 300_000, "multipart/form-data; boundary=b"),
    ):
        for source in (MAILGUN, SENDGRID):
            with pytest.raises(ParseError):
                channel(source).parse(request(body, headers={"Content-Type": kind}))


def test_reported_ids_stay_short():
    """An id of any length becomes one that a store can keep."""
    (told,) = channel(MAILGUN).parse(mailgun_event("delivered", id="x" * 9_000))

    assert told.external_id.startswith("mailgun/sha256:")


@pytest.mark.parametrize(
    "time",
    ["yesterday", "2026-13-01", "0001-01-01T00:00:00Z", "0001-01-01T00:00:00+05:00", "9999-12-31", 1e300, -1e300, 0],
)
def test_time_that_is_none_is_that_of_the_receipt(time):
    """A report without a usable time happened when it came."""
    event = sendgrid_event("delivered", timestamp=time)
    asked = request(json=[event], headers={"Content-Type": "application/json"})
    if isinstance(time, str):
        asked = postmark(RecordType="Delivery", MessageID="x", DeliveredAt=time)

    (told,) = channel(POSTMARK if isinstance(time, str) else SENDGRID).parse(asked)

    assert told.at == NOON
    assert told.at <= datetime.now(UTC)


def test_password_counts_by_basic_authentication_alone():
    """The same letters under another scheme are no password, and the scheme's case does not matter."""
    asked = {how: basic()["Authorization"].replace("Basic", how) for how in ("Bearer", "basic")}

    given = {how: evolve(DELIVERED, headers=Headers({"Authorization": value})) for how, value in asked.items()}

    assert refused(channel(POSTMARK), given["Bearer"])
    assert not refused(channel(POSTMARK), given["basic"])
