"""Requests as the providers of mail send them, written from the documentation of each."""

import base64
import hashlib
import hmac
import json
from datetime import timedelta
from urllib.parse import quote_from_bytes

from attrs import evolve
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509.oid import NameOID
from standardwebhooks import Webhook

from convsdk.channels.email import EmailChannel, EmailSettings
from convsdk.channels.email.incoming import Mailgun, Postmark, Raw, SendGrid, Ses
from convsdk.core.ports import Secret
from convsdk.errors import Forbidden
from convsdk.testing import NOON, request

ADDRESS = "in-7f3a@shop.example"
TOKEN = "abcdefghij234567"
SECRET = "whsec_" + base64.b64encode(b"a-secret-of-the-tests-32-bytes--").decode()
OTHER_SECRET = "whsec_" + base64.b64encode(b"another-secret-of-32-bytes-------").decode()
PASSWORD = "a-password-of-the-tests"
OWN_ID = f"<{TOKEN}@shop.example>"
MAIL = (
    b"Return-Path: <ann@mail.example>\r\n"
    b"From: Ann <ann@mail.example>\r\nTo: in-7f3a@shop.example\r\nMessage-ID: <one@mail.example>\r\n"
    b'Content-Type: multipart/mixed; boundary="b"\r\n\r\n'
    b"--b\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nIs it blue?\r\n"
    b"--b\r\nContent-Type: application/pdf; name=a.pdf\r\n\r\n%PDF\r\n--b--\r\n"
)
BOUNCE = (
    b"From: MAILER-DAEMON@mx.example\r\nMessage-ID: <bounce@mx.example>\r\n"
    b'Content-Type: multipart/report; report-type=delivery-status; boundary="b"\r\n\r\n'
    b"--b\r\nContent-Type: text/plain\r\n\r\nNo.\r\n"
    b"--b\r\nContent-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; mx.example\r\n\r\n"
    b"Final-Recipient: rfc822; bob@mail.example\r\nAction: failed\r\nStatus: 5.1.1\r\n\r\n"
    b"--b\r\nContent-Type: message/rfc822\r\n\r\nMessage-ID: <abcdefghij234567@shop.example>\r\n\r\nHi\r\n--b--\r\n"
)
# All that a mail can hold and a form, a text or a careless program would change.
ODD = (
    b"From: Ann <ann@mail.example>\nMessage-ID: <odd@mail.example>\r\n\r\n"
    b"\xe9\xff\x80 8 bit \0 nul\rbare\n\nline\r\n.\r\n--\r\n\x1a+%26&=\r\n\t \r\n"
)


def channel(source):
    """Give an e-mail channel with that source."""
    return EmailChannel("support", EmailSettings(address=ADDRESS, source=source))


def form(fields, *, boundary="xYzZY"):
    """Give the body and the content type of a form with those fields, each as bytes (RFC 7578)."""
    parts = b"".join(
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'.encode() + value + b"\r\n"
        for name, value in fields.items()
    )
    return parts + f"--{boundary}--\r\n".encode(), f"multipart/form-data; boundary={boundary}"


def basic(user="postmark", password=PASSWORD):
    """Give the header fields of basic authentication."""
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


def refused(given, asked):
    """Say whether the channel refuses the request."""
    try:
        given.verify(asked)
    except Forbidden:
        return True
    return False


# -- raw


def by_hand(raw, secret, at):
    """Give the signature of bytes that are no text: the reference implementation signs text alone."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    digest = hmac.new(key, f"msg_1.{int(at.timestamp())}.".encode() + raw, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(digest).decode()}"


def posted(raw=MAIL, *, secret=SECRET, at=NOON, envelope=None, **more):
    """Give a raw mail, signed by the reference implementation."""
    signer, headers = Webhook(secret), {"Content-Type": "message/rfc822", "webhook-id": "msg_1"}
    headers["webhook-timestamp"] = str(int(at.timestamp()))
    headers["webhook-signature"] = signer.sign("msg_1", at, raw.decode()) if raw.isascii() else by_hand(raw, secret, at)
    if envelope is not None:
        sender, *recipients = envelope
        headers["x-envelope-signature"] = signer.sign("msg_1/envelope", at, "\n".join(envelope))
        fields = [*headers.items(), ("x-envelope-from", sender), *(("x-envelope-to", one) for one in recipients)]
        return request(raw, headers=fields)
    return request(raw, headers=headers | more)


RAW = Raw(secrets=(Secret(SECRET), Secret(OTHER_SECRET)))


# -- Mailgun

KEY = "mailgun-signing-key-of-the-tests"
MAILGUN = Mailgun(signing_key=Secret(KEY))


def mailgun_signature(at=NOON, token="a" * 50, key=KEY):
    """Give what Mailgun puts beside everything."""
    stamp = str(int(at.timestamp()))
    signed = hmac.new(key.encode(), f"{stamp}{token}".encode(), hashlib.sha256).hexdigest()
    return {"timestamp": stamp, "token": token, "signature": signed}


def routed(raw=MAIL, *, is_percents=False, **more):
    """Give what a Mailgun route posts to an URL that ends in mime."""
    given = {"recipient": ADDRESS, "sender": "ann@mail.example", "subject": "x"} | mailgun_signature() | more
    fields = {name: value.encode() for name, value in given.items()} | {"body-mime": raw}
    if is_percents:
        body = "&".join(f"{name}={quote_from_bytes(value)}" for name, value in fields.items()).encode()
        return request(body, headers={"Content-Type": "application/x-www-form-urlencoded"})
    body, kind = form(fields)
    return request(body, headers={"Content-Type": kind})


def mailgun_event(event, **more):
    """Give what a Mailgun webhook posts."""
    data = {
        "event": event,
        "id": f"{event}-1",
        "timestamp": NOON.timestamp(),
        "recipient": "bob@mail.example",
        "message": {"headers": {"message-id": OWN_ID.strip("<>"), "to": "bob@mail.example"}},
    }
    return request(
        json={"signature": mailgun_signature(), "event-data": data | more}, headers={"Content-Type": "application/json"}
    )


HARD = {"severity": "permanent", "reason": "bounce", "delivery-status": {"code": 550, "message": "5.1.1 No such user"}}


# -- Postmark

POSTMARK = Postmark(password=Secret(PASSWORD))


def postmark(**document):
    """Give what a Postmark webhook posts."""
    return request(json=document, headers=basic() | {"Content-Type": "application/json"})


def inbound(raw=""):
    """Give what Postmark's inbound webhook posts."""
    return postmark(
        From="ann@mail.example", OriginalRecipient=ADDRESS, MessageID="p-1", RawEmail=raw or MAIL.decode(), Headers=[]
    )


POSTMARK_ID = "883953f4-6105-42a2-a16a-77a8eac79483"
DELIVERED = postmark(
    RecordType="Delivery",
    MessageID=POSTMARK_ID,
    Recipient="bob@mail.example",
    DeliveredAt="2026-01-01T12:00:00.1230000Z",
    Details="250 ok",
    Metadata={},
)


def postmark_bounce(kind, **more):
    """Give what Postmark posts of a bounce of that type."""
    given = {"RecordType": "Bounce", "ID": 42, "Type": kind, "MessageID": POSTMARK_ID, "Email": "bob@mail.example"}
    return postmark(**given | {"BouncedAt": "2026-01-01T12:00:00Z", "Details": "550 5.1.1 No such user"} | more)


COMPLAINT = postmark_bounce("SpamComplaint", RecordType="SpamComplaint", Details=None, Description="spam")
OPENED = postmark(RecordType="Open", MessageID=POSTMARK_ID, Recipient="bob@mail.example", ReceivedAt="2026-01-01T12:00")


# -- Amazon SES

TOPIC = "arn:aws:sns:eu-west-1:123456789012:mail"
CERTIFICATE = f"https://sns.eu-west-1.amazonaws.com/SimpleNotificationService-{'0' * 32}.pem"
SUBSCRIBE = f"https://sns.eu-west-1.amazonaws.com/?Action=ConfirmSubscription&TopicArn={TOPIC}&Token=abc"
SNS_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
OTHER_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
SES = Ses(topics=(TOPIC,), buckets=("mail-of-the-shop",))
STORED = "s3://mail-of-the-shop/in/one mail"


def certificate(key=SNS_KEY, *, begins=NOON - timedelta(days=30), ends=NOON + timedelta(days=5000)):
    """Give a certificate for `key` (PEM)."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "sns.amazonaws.com")])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    dated = builder.serial_number(1).not_valid_before(begins).not_valid_after(ends)
    return dated.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


FETCHED = {CERTIFICATE: certificate()}


def sns(message, *, key=SNS_KEY, version="2", fetched=FETCHED, **more):
    """Give what SNS delivers, signed as its documentation says."""
    text = message if isinstance(message, str) else json.dumps(message)
    told = {
        "Type": "Notification",
        "MessageId": hashlib.sha256(text.encode()).hexdigest()[:32],
        "TopicArn": TOPIC,
        "Message": text,
        "Timestamp": "2026-01-01T12:00:00.000Z",
    } | more
    names = ["Message", "MessageId", "Subject", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"]
    signed = "".join(f"{name}\n{told[name]}\n" for name in names if name in told).encode()
    digest = hashes.SHA1() if version == "1" else hashes.SHA256()  # noqa: S303
    signature = base64.b64encode(key.sign(signed, padding.PKCS1v15(), digest)).decode()
    told = {"SignatureVersion": version, "Signature": signature, "SigningCertURL": CERTIFICATE} | told
    return evolve(request(json=told, headers={"Content-Type": "text/plain"}), fetched=fetched)


def received(content=None, **action):
    """Give SES's notification of a mail that came in."""
    told = {
        "notificationType": "Received",
        "mail": {"source": "ann@mail.example", "messageId": "m-1", "destination": [ADDRESS], "headers": []},
        "receipt": {"recipients": [ADDRESS], "action": action or {"type": "SNS", "topicArn": TOPIC}},
    }
    return told if content is None else told | {"content": content}


STORED_ACTION = {"type": "S3", "bucketName": "mail-of-the-shop", "objectKey": "in/one mail", "topicArn": TOPIC}
CONFIRMATION = {"Type": "SubscriptionConfirmation", "Token": "abc", "SubscribeURL": SUBSCRIBE}
STORED_MAIL = MAIL.replace(b"<one@", b"<stored@")


def ses_report(kind, *, is_named=False, **more):
    """Give SES's notification about a mail of ours."""
    headers = [{"name": "Message-ID", "value": OWN_ID}] if is_named else []
    mail = {"messageId": "0102-ses", "source": ADDRESS, "destination": ["bob@mail.example"], "headers": headers}
    return {"notificationType": kind, "mail": mail} | more


SES_BOUNCE = {
    "bounceType": "Permanent",
    "bounceSubType": "General",
    "bouncedRecipients": [
        {"emailAddress": "bob@mail.example", "diagnosticCode": "smtp; 550 5.1.1 No such user"},
        {"emailAddress": "eve@mail.example"},
    ],
    "timestamp": "2026-01-01T12:00:00.000Z",
    "feedbackId": "f-1",
}
SES_COMPLAINT = {"complainedRecipients": [{"emailAddress": "bob@mail.example"}], "complaintFeedbackType": "abuse"}


# -- SendGrid

SENDGRID_KEY = ec.generate_private_key(ec.SECP256R1())
PUBLIC_KEY = base64.b64encode(
    SENDGRID_KEY.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
).decode()
SIGNED_BY = ("X-Twilio-Email-Event-Webhook-Signature", "X-Twilio-Email-Event-Webhook-Timestamp")
SENDGRID = SendGrid(public_keys=(PUBLIC_KEY,), password=Secret(PASSWORD))


def by_sendgrid(body, kind, key=SENDGRID_KEY):
    """Give a request that SendGrid has signed."""
    stamp = str(int(NOON.timestamp()))
    signature = base64.b64encode(key.sign(stamp.encode() + body, ec.ECDSA(hashes.SHA256()))).decode()
    return request(body, headers={"Content-Type": kind, SIGNED_BY[0]: signature, SIGNED_BY[1]: stamp})


def parsed(raw=MAIL, **more):
    """Give the form of SendGrid's inbound parse webhook, and its content type."""
    envelope = json.dumps({"to": [ADDRESS], "from": "ann@mail.example"}).encode()
    return form({"headers": b"", "envelope": envelope, "email": raw, "charsets": b"{}"} | more)


def sendgrid_event(event, **more):
    """Give one event as SendGrid's webhook lists it."""
    known = {"email": "bob@mail.example", "timestamp": int(NOON.timestamp()), "smtp-id": OWN_ID, "event": event}
    return known | {"sg_event_id": f"{event}-1", "sg_message_id": "14c5d75ce93.dfd.64b469.filter0001"} | more


EVENTS = json.dumps([sendgrid_event(one) for one in ("processed", "delivered", "open", "bounce")]).encode()
