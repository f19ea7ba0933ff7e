"""Mail that comes over HTTP, through the app into the store."""

import asyncio

import httpx
from cryptography.hazmat.primitives.asymmetric import rsa
from providers import (
    CERTIFICATE,
    CONFIRMATION,
    MAIL,
    MAILGUN,
    SES,
    SUBSCRIBE,
    certificate,
    channel,
    received,
    routed,
    sns,
)

from convsdk.channels.email import EmailChannel, EmailSettings
from convsdk.hub import Hub
from convsdk.store.memory import MemoryStore
from convsdk.testing.builders import FakeClock
from convsdk.web import create_app


def shop(source):
    """Give a hub with that source of mail."""
    return Hub(MemoryStore(), channels=[channel(source)])


def amazon(asked, pages):
    """Give a client of a web with those pages, which notes what it was asked."""

    def reply(incoming):
        asked.append(str(incoming.url))
        page = pages.get(str(incoming.url))
        return httpx.Response(404) if page is None else httpx.Response(200, content=page)

    return httpx.AsyncClient(transport=httpx.MockTransport(reply))


def post(hub, folder, given, **options):
    """Give the answer to a provider's request."""
    app = create_app(hub, rejects=folder / "rejects", files=folder / "files", clock=FakeClock(), **options)

    async def run():
        wire = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=wire, base_url="http://shop.example") as one:
            return await one.post("/channels/support", content=given.body, headers=dict(given.headers))

    return asyncio.run(run())


def texts(hub):
    """Give the texts of all messages in the store."""
    filings = hub.store.filings(hub.workspace, identifiers=None, before=None, limit=100)
    found = [hub.store.messages(hub.workspace, filing.id, before=None, limit=100) for filing in filings]
    return sorted(one.text for messages in found for one in messages)


def test_mail_by_sns_is_taken_with_the_certificate_that_it_names(tmp_path):
    """The certificate is fetched, and the mail is in the store when SNS is answered."""
    hub, asked = shop(SES), []

    answer = post(hub, tmp_path, sns(received(MAIL.decode())), client=amazon(asked, {CERTIFICATE: certificate()}))

    assert (answer.status_code, texts(hub)) == (200, ["Is it blue?"])
    assert asked == [CERTIFICATE]


def test_certificate_that_cannot_be_fetched_is_answered_503(tmp_path):
    """SNS comes again, and nothing is kept aside."""
    answer = post(shop(SES), tmp_path, sns(received(MAIL.decode())), client=amazon([], {}))

    assert (answer.status_code, answer.headers["retry-after"], answer.content) == (503, "30", b"")
    assert not (tmp_path / "rejects").exists()


def test_forged_request_makes_nothing_but_the_certificate_be_fetched(tmp_path):
    """What SNS did not sign is answered 403 without a word, and confirms nothing."""
    asked, wrong = [], certificate(rsa.generate_private_key(public_exponent=65537, key_size=2048))

    answer = post(
        shop(SES), tmp_path, sns("You have chosen", **CONFIRMATION), client=amazon(asked, {CERTIFICATE: wrong})
    )

    assert (answer.status_code, answer.content, asked) == (403, b"", [CERTIFICATE])


def test_subscription_is_confirmed(tmp_path):
    """The link of an authentic confirmation is fetched before SNS is answered."""
    asked = []
    pages = {CERTIFICATE: certificate(), SUBSCRIBE: b"<ConfirmSubscriptionResponse/>"}

    answer = post(shop(SES), tmp_path, sns("You have chosen", **CONFIRMATION), client=amazon(asked, pages))

    assert (answer.status_code, asked) == (200, [CERTIFICATE, SUBSCRIBE])


def test_mail_beyond_the_limit_of_the_app_is_taken_by_a_source_of_mail(tmp_path):
    """A mail may be as large as mails are, and other channels keep the limit of the app."""
    letter = MAIL.replace(b"%PDF", b"x" * 2_000_000)
    desk = EmailChannel("support", EmailSettings(address="a@shop.example", source=MAILGUN))
    desk.__class__ = type("SmallChannel", (EmailChannel,), {"body_bytes": 0})
    hub = shop(MAILGUN)

    assert post(hub, tmp_path, routed(letter)).status_code == 200
    assert texts(hub) == ["Is it blue?"]
    assert post(Hub(MemoryStore(), channels=[desk]), tmp_path, routed(letter)).status_code == 413


def test_channel_without_a_source_is_not_there(tmp_path):
    """Mail that comes by SMTP alone cannot be posted."""
    assert post(shop(None), tmp_path, routed()).status_code == 404


def test_app_fetches_by_a_client_of_its_own_where_it_is_handed_none(tmp_path):
    """Without a way out, which the tests have not, that is a fetch that failed."""
    assert post(shop(SES), tmp_path, sns(received(MAIL.decode()))).status_code == 503
