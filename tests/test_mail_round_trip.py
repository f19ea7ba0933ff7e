"""A mail's whole way, over real SMTP: to us, to an agent, back to its writer's mail program, and what that answers."""

import asyncio
import smtplib
from contextlib import AsyncExitStack, asynccontextmanager, closing
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import SMTP as WIRE
from email.policy import default as modern

import httpx
import pytest
from attrs import evolve, frozen
from postfixes import PATIENCE_S, Internet, free_port, internet, needs_postfix, open_folder, postfix
from servers import STORES, fresh_store

from convsdk.archive import Archive
from convsdk.channels.email import EmailChannel
from convsdk.channels.email.sending import SmtpSending
from convsdk.channels.email.settings import EmailSettings
from convsdk.core.inbox import ConversationStatus
from convsdk.core.model import Attachment, Direction
from convsdk.core.ports import AutomaticAnswer
from convsdk.core.storage import Batch, ThreadQuery
from convsdk.delivery import Deliverer
from convsdk.errors import Conflict
from convsdk.hub import Hub
from convsdk.mailserver import MailServer
from convsdk.rejects import Rejects
from convsdk.store import open_store

pytestmark = pytest.mark.once  # mail servers' doing

SHOP = EmailSettings(address="in-7f3a@shop.example", sender="help@shop.example", name="Shop")
TOLD = AutomaticAnswer(text="We have it.")


@pytest.fixture(params=STORES[1:])
def url(request, tmp_path):
    """Give an empty store of each kind that keeps anything, by its URL."""
    return fresh_store(request.param, tmp_path)


@frozen
class Office:
    """A business that takes mail in at `port`, and delivers what its `hub` queues."""

    hub: Hub
    port: int


@asynccontextmanager
async def office(url, folder, relay, settings=SHOP):
    """Run a business whose smart host is at the port that `relay` gives for ours."""
    async with AsyncExitStack() as stack:
        store = stack.enter_context(closing(open_store(url)))
        port = free_port()
        sending = SmtpSending(host="127.0.0.1", port=await relay(port))
        channel = EmailChannel("support", evolve(settings, sending=sending))
        hub = Hub(store, channels=[channel], archive=Archive(folder / "archive"))
        server = await stack.enter_async_context(MailServer(hub, rejects=Rejects(folder / "rejects")))
        await server.listen("127.0.0.1", port)
        client = await stack.enter_async_context(httpx.AsyncClient())
        await stack.enter_async_context(Deliverer(hub, client, poll_s=0.05))
        yield Office(hub, port)


def letter(sender, to, text, *, subject="Shoes", **fields):
    """Give the bytes of a mail as a mail program writes it."""
    mail = EmailMessage()
    head = {
        "From": sender,
        "To": to,
        "Subject": subject,
        **{name.replace("_", "-"): one for name, one in fields.items()},
    }
    for name, value in head.items():
        mail[name] = value
    mail.set_content(text)
    return mail.as_bytes(policy=WIRE)


async def post(port, raw, *, sender, to):
    """Hand a mail to the server at a port, as another server does."""

    def send():
        with smtplib.SMTP("127.0.0.1", port, timeout=PATIENCE_S) as client:
            assert client.sendmail(sender, [to], raw) == {}

    await asyncio.to_thread(send)


async def until(condition):
    """Wait until `condition` holds."""
    async with asyncio.timeout(PATIENCE_S):
        while not (found := await asyncio.to_thread(condition)):  # noqa: ASYNC110  (in a store, nothing tells us)
            await asyncio.sleep(0.02)
    return found


async def came(host):
    """Give the next mail at everybody's server: its return path, and what a mail program makes of it."""
    sender, _, content = await asyncio.wait_for(host.mails.get(), PATIENCE_S)
    return sender, message_from_bytes(content, policy=modern)


def conversations(hub):
    """Give the ids of all conversations."""
    return [one.id for one in hub.conversations()]


def messages(hub, conversation, direction):
    """Give the messages of one direction in a conversation, the oldest first."""
    return [one for one in reversed(hub.messages(conversation).items) if one.direction is direction]


def sent(hub, conversation):
    """Give our last message in a conversation, once it has gone or failed."""
    last = messages(hub, conversation, Direction.OUTBOUND)[-1]
    return last if last.status != "queued" else None


async def asked(place, sender="Ann@mail.example", **fields):
    """Let a customer write to us; give the conversation."""
    raw = letter(sender, SHOP.address, "Where are my shoes?", Message_ID=f"<one-{sender}>", **fields)
    await post(place.port, raw, sender=sender, to=SHOP.address)
    (conversation,) = conversations(place.hub)
    return conversation


def answer_to(mail, to, **fields):
    """Give a customer's answer to a mail of ours, which it quotes."""
    said = mail.get_body(("plain",)).get_content()
    quote = "".join(f"> {line}\n" for line in said.splitlines())
    text = f"Thanks, they came.\n\nOn Mon, 5 Jan 2026 at 10:00, Shop <help@shop.example> wrote:\n{quote}"
    return letter("Ann <Ann@mail.example>", to, text, Message_ID="<two@mail.example>", **fields)


def kept_id(mail):
    """Answer to the bare address, with In-Reply-To."""
    fields = {"In_Reply_To": mail["Message-ID"], "References": f"<one@mail.example> {mail['Message-ID']}"}
    return SHOP.address, answer_to(mail, SHOP.address, subject=f"AW: {mail['Subject']}", **fields)


def kept_address(mail):
    """Answer to the Reply-To, with nothing else of the mail."""
    to = mail["Reply-To"].addresses[0].addr_spec
    return to, answer_to(mail, to, subject="By the way")


def folded_address(mail):
    """Answer to the Reply-To as a server wrote it that knows no small letters."""
    to = mail["Reply-To"].addresses[0].addr_spec.upper()
    return to, answer_to(mail, to)


@pytest.mark.parametrize("answer", [kept_id, kept_address, folded_address])
def test_an_answer_comes_back_to_its_conversation(url, tmp_path, answer):
    """A customer writes, an agent answers with a file, the customer answers that: one thread, and no quote."""

    async def run():
        host = Internet()
        async with internet(host) as smart, office(url, tmp_path, lambda _: at(smart)) as shop:
            conversation = await asked(shop)
            file = Attachment(name="Größe.txt", media_type="text/plain", content=b"43")
            shop.hub.reply(conversation, "They left this morning.", by="Kim", attachments=[file])
            return_path, mail = await came(host)
            ours = await until(lambda: sent(shop.hub, conversation))
            to, raw = answer(mail)
            await post(shop.port, raw, sender="ann@mail.example", to=to)
            shop.hub.reply(conversation, "You are welcome.", by="Kim")
            _, last = await came(host)
            found = conversations(shop.hub)
            heard = messages(shop.hub, conversation, Direction.INBOUND)
            return conversation, ours, return_path, mail, last, found, heard

    conversation, ours, return_path, mail, last, found, (first, second) = asyncio.run(run())

    assert (mail["From"], mail["To"], mail["Subject"]) == ("Shop <help@shop.example>", "Ann@mail.example", "Re: Shoes")
    assert (mail["Message-ID"], mail["In-Reply-To"]) == (ours.external_id, first.external_id)
    assert return_path == mail["Reply-To"].addresses[0].addr_spec == SHOP.reply_address(ours.detail["token"])
    assert "They left this morning." in mail.get_body(("plain",)).get_content()
    assert [(one.get_filename(), one.get_content()) for one in mail.iter_attachments()] == [("Größe.txt", "43")]
    assert (ours.status, found) == ("sent", [conversation])
    assert second.text.strip() == "Thanks, they came."
    assert second.detail["sections"][1][0] == "quote"
    assert (last["Subject"], last["In-Reply-To"]) == ("Re: Shoes", second.external_id)
    assert last["References"].split() == [first.external_id, ours.external_id, second.external_id]


async def at(port):
    """Give a port that is known."""
    return port


@needs_postfix
def test_a_bounce_stops_the_conversation(url, tmp_path):
    """What a real Postfix cannot deliver comes back: failed, a line in the thread, and nobody writes there again."""

    async def run(folder):
        async with AsyncExitStack() as stack:
            sink = await stack.enter_async_context(internet(Internet()))

            async def relay(port):
                return await stack.enter_async_context(postfix(folder, sink, shop=port))

            shop = await stack.enter_async_context(office(url, tmp_path, relay))
            conversation = await asked(shop, "nobody@mail.example")
            shop.hub.reply(conversation, "They left this morning.", by="Kim")
            await until(lambda: messages(shop.hub, conversation, Direction.LINE)[1:])
            failed = await until(lambda: sent(shop.hub, conversation))
            with pytest.raises(Conflict) as refusal:
                shop.hub.reply(conversation, "Hello?", by="Kim")
            lines = [one.text for one in messages(shop.hub, conversation, Direction.LINE)]
            return failed, lines, conversations(shop.hub) == [conversation], str(refusal.value)

    with open_folder() as folder:
        failed, lines, is_alone, refusal = asyncio.run(run(folder))

    assert failed.status == "failed"
    assert "No such user here" in failed.detail["error"]
    assert lines[0] == "assigned to Kim"
    assert lines[1].startswith("not delivered to nobody@mail.example: ")
    assert is_alone
    assert refusal.startswith("nothing is sent to email:nobody@mail.example since ")
    assert refusal.endswith("Once it does again: convsdk reachable email:nobody@mail.example --lift")


def complete(hub, conversation):
    """Mark a conversation as done."""
    filing = hub.conversation(conversation).filing

    def work(transaction):
        transaction.candidates([ThreadQuery(channel=filing.channel, thread=filing.thread)])
        done = evolve(filing, status=ConversationStatus.COMPLETE)
        transaction.write(Batch(filings={conversation: done}))

    hub.store.transact(hub.workspace, work)


def test_an_absence_reopens_nothing_and_is_not_answered(url, tmp_path):
    """An out-of-office answer to our reply is kept where it belongs; nobody is told anything for it."""

    async def run():
        host = Internet()
        settings = evolve(SHOP, automatic_answer=TOLD)
        async with internet(host) as smart, office(url, tmp_path, lambda _: at(smart), settings) as shop:
            conversation = await asked(shop)
            return_path, mail = await came(host)
            await until(lambda: sent(shop.hub, conversation))
            shop.hub.reply(conversation, "They left this morning.", by="Kim")
            to, reply = await came(host)
            await until(lambda: sent(shop.hub, conversation))
            complete(shop.hub, conversation)
            away = {"Auto_Submitted": "auto-replied", "In_Reply_To": reply["Message-ID"], "Message_ID": "<away@x>"}
            raw = letter("ann@mail.example", to, "I am away.", subject="Away", **away)
            await post(shop.port, raw, sender="", to=to)
            filing = shop.hub.conversation(conversation).filing
            return return_path, mail, filing, shop.hub.messages(conversation).items, conversations(shop.hub)

    return_path, mail, filing, (newest, *before), found = asyncio.run(run())

    assert (return_path, mail["Auto-Submitted"], mail["Subject"]) == ("<>", "auto-replied", "Re: Shoes")
    assert "We have it." in mail.get_body(("plain",)).get_content()
    assert (filing.status, filing.assignee, found) == (ConversationStatus.COMPLETE, "Kim", [filing.id])
    assert (newest.text.strip(), newest.direction) == ("I am away.", Direction.INBOUND)
    assert [one.text for one in before if one.direction is Direction.OUTBOUND] == [
        "They left this morning.",
        "We have it.",
    ]


class Relay(Internet):
    """Passes each mail on to the office of its domain; one that `strips` takes off all that says a program wrote it."""

    def __init__(self, *, strips):
        super().__init__()
        self.ports = {}
        self._strips = strips

    async def handle_DATA(self, server, session, envelope):  # noqa: N802  (aiosmtpd's name)
        (to,), raw, sender = envelope.rcpt_tos, envelope.content, envelope.mail_from
        if self._strips:
            mail = message_from_bytes(raw, policy=modern)
            for name in ("Auto-Submitted", "X-Auto-Response-Suppress"):
                del mail[name]
            raw, sender = mail.as_bytes(policy=WIRE), mail["From"].addresses[0].addr_spec
        await post(self.ports[to.rpartition("@")[2]], raw, sender=sender.strip("<>"), to=to)
        return await super().handle_DATA(server, session, envelope)


@pytest.mark.parametrize("strips", [False, True])
@pytest.mark.parametrize("kind", STORES[1:])
def test_two_that_answer_by_themselves_stop_after_one_mail_each(kind, tmp_path, strips):
    """They know an automatic answer by its marks; and where a server on the way removes them, by whom it is from."""

    async def run():
        relay = Relay(strips=strips)
        async with AsyncExitStack() as stack:
            smart = await stack.enter_async_context(internet(relay))
            offices = {}
            for name in ("a", "b"):
                settings = EmailSettings(address=f"in-7f3a@{name}.example", automatic_answer=TOLD)
                folder = tmp_path / name
                place = office(fresh_store(kind, tmp_path), folder, lambda _: at(smart), settings)
                offices[name] = await stack.enter_async_context(place)
                relay.ports[f"{name}.example"] = offices[name].port
            for one, other in (("a", "b"), ("b", "a")):
                sender, to = f"in-7f3a@{other}.example", f"in-7f3a@{one}.example"
                raw = letter(sender, to, "Hello.", Message_ID=f"<first@{other}>")
                await post(offices[one].port, raw, sender=sender, to=to)
            # A mail is no longer queued only once the other side has taken it in, and queued what it says to it.
            hubs = [offices[one].hub for one in ("a", "b", "a", "b")]
            await until(lambda: all(is_quiet(one) for one in hubs))
            return relay.mails.qsize(), [len(automatic(one)) for one in hubs[:2]], [len(heard(one)) for one in hubs[:2]]

    passed_on, told, taken = asyncio.run(run())

    assert (passed_on, told) == (2, [1, 1])
    assert taken == [2, 2]


def everything(hub):
    """Give all messages."""
    return [one for number in conversations(hub) for one in hub.messages(number).items]


def automatic(hub):
    """Give what a hub said by itself."""
    return [one for one in everything(hub) if (one.detail or {}).get("is_automatic")]


def heard(hub):
    """Give what came in."""
    return [one for one in everything(hub) if one.direction is Direction.INBOUND]


def is_quiet(hub):
    """Say whether nothing is to go."""
    return not any(one.status == "queued" for one in everything(hub))
