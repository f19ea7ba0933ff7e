"""A Postfix of our own as the smart host: what it makes of our mail, and the bounce that it sends."""

import asyncio
from datetime import UTC, datetime

import httpx
import pytest
from attrs import evolve
from postfixes import PATIENCE_S, Internet, internet, needs_postfix, open_folder, postfix

from convsdk.channels.email import EmailChannel
from convsdk.channels.email.sending import SmtpSending
from convsdk.channels.email.settings import EmailSettings
from convsdk.core.events import DeliveryStatus
from convsdk.core.model import Claim, Identifier, Trust
from convsdk.core.ports import Envelope, Outbound, Receipt, Request

NOW = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
TOKEN = "abcdefghij234567"

pytestmark = needs_postfix


@pytest.fixture
def folder():
    """Give Postfix's folder."""
    with open_folder() as found:
        yield found


def test_postfix_takes_our_mail_and_bounces_it(folder):
    """What Postfix passes on reads as it was written, and its bounce fails the message and gives the address up."""
    settings = EmailSettings(address="in-7f3a@shop.example", sender="help@shop.example", name="Der Löwe")

    async def run():
        host = Internet()
        async with internet(host) as sink, postfix(folder, sink) as port, httpx.AsyncClient() as client:
            sending = SmtpSending(host="127.0.0.1", port=port, greeting="desk.shop.example")
            channel = EmailChannel("support", evolve(settings, sending=sending))
            receipts = [await channel.send(message(to), client) for to in ("ann@mail.example", "nobody@mail.example")]
            await channel.close()
            mails = [await asyncio.wait_for(host.mails.get(), PATIENCE_S) for _ in range(2)]
        return channel, receipts, sorted(mails, key=lambda one: one[0] == "<>")

    channel, receipts, (passed_on, bounce) = asyncio.run(run())

    assert receipts == [Receipt(), Receipt()]
    reply_address = settings.reply_address(TOKEN)
    assert passed_on[:2] == (reply_address, ("ann@mail.example",))
    (found,) = EmailChannel("other", EmailSettings(address="ann@mail.example")).parse(
        Request(received_at=NOW, body=passed_on[2])
    )
    assert found.text.endswith("Grüße\n.\n" + "ü" * 2000)
    assert found.external_id == settings.message_id(TOKEN)

    assert bounce[:2] == ("<>", (reply_address,))
    mail, status = channel.parse(
        Request(received_at=NOW, body=bounce[2], envelope=Envelope(sender="", recipients=bounce[1]))
    )
    assert mail.detail["class"] == "bounce"
    assert (status.status, status.messages) == (DeliveryStatus.FAILED, (settings.message_id(TOKEN),))
    assert "No such user here" in status.error
    assert status.unreachable == Claim("email", "nobody@mail.example", Trust.ASSERTED)


def message(to):
    """Give a message to the address."""
    text = "Grüße\n.\n" + "ü" * 2000
    return Outbound(to=Identifier("email", "", to), text=text, token=TOKEN, at=NOW)
