"""How an answer is delivered, and what becomes of it: the queue in a store, real HTTP to a server on this machine."""

import asyncio
import json
import threading
from contextlib import asynccontextmanager, closing
from datetime import timedelta
from functools import partial

import httpx
import pytest
from attrs import evolve
from posts import AcceptingChannel, EchoingChannel, ForgetfulChannel, PostChannel, PostSettings, echo, message, status
from receiver import LAST, TAKEN, Receiver
from servers import STORES, fresh_store

from convsdk.archive import Archive
from convsdk.automatic import HEARD, heard_key
from convsdk.core.events import DeliveryStatus
from convsdk.core.model import Attachment, Claim, Direction, Identifier, Message, Trust
from convsdk.core.ports import Outbound, Receipt
from convsdk.core.storage import Batch, Delivery
from convsdk.delivery import Deliverer
from convsdk.errors import Conflict, PermanentError, TransientError, UnsupportedError
from convsdk.hub import Hub
from convsdk.outcomes import arrived, backoff_s, failed, jobs_of, put_off, under_way, write_down
from convsdk.store import open_store
from convsdk.testing.builders import NOON, FakeClock

ANN = Identifier("email", "", "ann@shop.example")


@pytest.fixture(params=STORES)
def store(request, tmp_path):
    """Give an empty store of each kind that ships."""
    with closing(open_store(fresh_store(request.param, tmp_path))) as store:
        yield store


def named(name):
    """Give the answer of a server that calls the message so."""
    return f"HTTP/1.1 200 OK\r\nx-id: {name}\r\n{LAST}".encode()


def refused(code, *fields):
    """Give the answer of a server that does not take it."""
    head = "".join(f"{field}\r\n" for field in fields)
    return f"HTTP/1.1 {code} No\r\n{head}{LAST}".encode()


BROKEN = b""
"""What a server answers that closes the connection instead."""


def shop(store, url="http://127.0.0.1:9/", channel=PostChannel, **options):
    """Give a hub with a channel that posts to `url`."""
    return Hub(store, channels=[channel("post", PostSettings(url=url))], clock=FakeClock(), **options)


def later(hub, **time):
    """Move the hub's clock on."""
    hub._clock.advance(**time)  # noqa: SLF001  (the hub's own clock)


def asked(hub, who="ann"):
    """Let somebody write; give the conversation."""
    (received,) = hub.receive("post", [message(f"in/{who}", who)])
    return received.conversation


def last(hub, conversation):
    """Give the newest outbound message of a conversation."""
    return next(one for one in hub.messages(conversation) if one.direction is Direction.OUTBOUND)


def told(hub, *types):
    """Give the notices of these types."""
    return [one for one in hub.store.notices(hub.workspace, since=0, limit=1000) if one.type in types]


@asynccontextmanager
async def delivering(hub, **options):
    """Deliver meanwhile."""
    given = {"clock": hub._clock, "poll_s": 0.01, "random": lambda: 1.0} | options  # noqa: SLF001  (the hub's own clock)
    async with httpx.AsyncClient() as client, Deliverer(hub, client, **given) as deliverer:
        yield deliverer


async def until(condition, most_s=10):
    """Wait until `condition` holds."""
    async with asyncio.timeout(most_s):
        while not (found := await asyncio.to_thread(condition)):  # noqa: ASYNC110  (in a store, nothing tells us)
            await asyncio.sleep(0.01)
    return found


def waiting(hub, conversation):
    """Give the deliveries of a conversation."""
    ids = [one.id for one in hub.messages(conversation, limit=1000)]
    return list(hub.store.transact(hub.workspace, lambda one: one.deliveries(ids)).values())


def sent(hub, answer=TAKEN, *, conversation=None, text="Hello!"):
    """Have an answer delivered, or what is queued; give its conversation and its external id.

    `answer` is what the server says, or a list of what it says to one request after the other.
    """
    conversation = conversation or asked(hub)
    if text:
        hub.reply(conversation, text, by="kim")
    external_id = last(hub, conversation).external_id
    with Receiver(*(answer if isinstance(answer, list) else [answer])) as receiver:
        channel = type(hub.channels["post"])("post", PostSettings(url=receiver.url))
        other = Hub(hub.store, channels=[channel], clock=hub._clock)  # noqa: SLF001  (the hub's own clock)
        deliver(other, lambda: not waiting(hub, conversation))
    return conversation, external_id


def deliver(hub, condition, **options):
    """Deliver until `condition` holds."""

    async def work():
        async with delivering(hub, **options):
            return await until(condition)

    return asyncio.run(work())


def is_now(hub, conversation, *statuses):
    """Give a condition: the newest answer has one of `statuses`."""
    return lambda: last(hub, conversation).status in statuses


def test_an_answer_is_delivered_with_all_there_is_to_it(store):
    """The platform gets words, address and what was said before; the message is sent, and observers hear of it."""
    with Receiver(named("their/1")) as receiver:
        hub = shop(store, receiver.url)
        conversation = asked(hub)
        external_id = hub.reply(
            conversation, "Hello!", by="kim", html="<p>Hello!</p>", subject="Hi", detail={"buttons": [1]}
        )
        assert last(hub, conversation).status == "queued"

        deliver(hub, is_now(hub, conversation, "sent"))

    (posted,) = receiver.deliveries
    sent = json.loads(posted.body)
    token = sent.pop("token")
    assert len(token) == 26
    assert external_id == f"out/{token}"
    assert sent == {
        "to": "email:ann@shop.example",
        "address": "ann@shop.example",
        "text": "Hello!",
        "html": "<p>Hello!</p>",
        "subject": "Hi",
        "thread": "ann",
        "external_id": external_id,
        "references": ["in/ann"],
        "files": [],
        "heard_at": NOON.isoformat(),
        "detail": {"buttons": [1], "by": "kim"},
        "is_automatic": False,
    }
    assert hub.store.message(hub.workspace, "post", "their/1") == last(hub, conversation)
    moved = told(hub, "message.sent", "message.status_changed")
    assert [(one.type, one.payload.get("status")) for one in moved] == [
        ("message.sent", None),
        ("message.status_changed", "sent"),
    ]


def test_an_old_message_that_comes_late_closes_no_window(store):
    """When somebody last wrote is the newest moment, in whatever order a platform delivers what they wrote."""
    with Receiver() as receiver:
        hub = shop(store, receiver.url)
        conversation = asked(hub)
        hub.receive("post", [message("in/late", at=NOON - timedelta(hours=30))])
        hub.reply(conversation, "Hello!", by="kim")

        deliver(hub, is_now(hub, conversation, "sent"))

    assert json.loads(receiver.deliveries[0].body)["heard_at"] == NOON.isoformat()


def test_a_long_answer_goes_on_where_it_stopped(store):
    """Parts that arrived are not sent again, not after an error, nor after it was given up and queued anew."""
    words = " ".join(["word"] * 24)
    answers = [named("p/0"), refused(429, "retry-after: 60"), named("p/1"), refused(400), named("p/2")]
    with Receiver(*answers) as receiver:
        hub = shop(store, receiver.url)
        conversation = asked(hub)
        hub.reply(conversation, words, by="kim")

        deliver(hub, lambda: len(receiver.deliveries) == 2)
        later(hub, seconds=61)
        deliver(hub, is_now(hub, conversation, "failed"))
        failed = last(hub, conversation)
        assert (failed.detail["error"], failed.detail["error_code"]) == ("the server answered 400", "400")
        hub.retry(failed)
        deliver(hub, is_now(hub, conversation, "sent"))

    tokens = [json.loads(one.body)["token"] for one in receiver.deliveries]
    first = tokens[0]
    assert tokens == [first, f"{first}.1", f"{first}.1", f"{first}.2", f"{first}.2"]
    assert {hub.store.message(hub.workspace, "post", f"p/{n}").id for n in range(3)} == {failed.id}
    assert "error" not in last(hub, conversation).detail


def test_files_go_along(store, tmp_path):
    """What an answer brings is in the archive from then on; what stands elsewhere goes by its address."""
    with Receiver() as receiver:
        hub = shop(store, receiver.url, archive=Archive(tmp_path / "archive"))
        conversation = asked(hub)
        files = [
            Attachment(name="a.txt", media_type="text/plain", content=b"kept"),
            Attachment(name="b.txt", media_type="text/plain", url="https://x.example/b.txt"),
        ]
        hub.reply(conversation, "See", by="kim", attachments=files)
        assert [(one.content, one.size) for one in last(hub, conversation).attachments] == [(None, 4), (None, None)]

        deliver(hub, is_now(hub, conversation, "sent"))

    sent = json.loads(receiver.deliveries[0].body)
    assert sent["files"] == [["a.txt", "kept", ""], ["b.txt", "", "https://x.example/b.txt"]]


def test_a_file_without_its_archive_is_not_sent_empty(store, tmp_path):
    """A worker that cannot read a file fails the message, and says what it lacks."""
    hub = shop(store, archive=Archive(tmp_path / "archive"))
    conversation = asked(hub)
    hub.reply(conversation, "See", by="kim", attachments=[Attachment(name="a.txt", content=b"kept")])

    deliver(shop(store), is_now(hub, conversation, "failed"))

    assert last(hub, conversation).detail["error"].startswith("the file 'a.txt' is in the archive, and this worker has")


def test_a_reply_without_a_subject_has_the_conversations(store):
    """A mail program shows both in one thread; a subject of its own counts more."""
    with Receiver() as receiver:
        hub = shop(store, receiver.url)
        (received,) = hub.receive("post", [evolve(message("in/ann", "ann"), subject="Shoes")])
        hub.reply(received.conversation, "One", by="kim")
        hub.reply(received.conversation, "Two", by="kim", subject="Boots")

        deliver(hub, lambda: not waiting(hub, received.conversation))

    assert [json.loads(one.body)["subject"] for one in receiver.deliveries] == ["Shoes", "Boots"]


def test_a_file_that_nothing_could_keep_is_refused(store):
    """Without an archive an answer with a file's bytes is not queued: they would be lost."""
    hub = shop(store)
    conversation = asked(hub)

    with pytest.raises(UnsupportedError, match="no archive"):
        hub.reply(conversation, "See", by="kim", attachments=[Attachment(name="a.txt", content=b"kept")])

    assert len(hub.messages(conversation).items) == 1


def test_an_answer_with_the_same_id_is_queued_once(store):
    """Whoever does not know whether an answer was queued asks again, and nothing is said twice."""
    with Receiver() as receiver:
        hub = shop(store, receiver.url)
        conversation = asked(hub)

        ids = {hub.reply(conversation, "Hello!", by="kim", reply_id="a") for _ in range(2)}
        deliver(hub, is_now(hub, conversation, "sent"))

    assert ids == {last(hub, conversation).external_id}
    assert len(receiver.deliveries) == 1


def test_what_passes_is_tried_again_and_what_is_asked_for_spends_no_try(store):
    """Pauses grow, a pause that the platform asks for is kept, and after a day of them the message has failed."""
    with Receiver(refused(503), refused(503), refused(429, "retry-after: 7"), refused(503)) as receiver:
        hub = shop(store, receiver.url)
        conversation = asked(hub)
        hub.reply(conversation, "Hello!", by="kim")

        pauses = []
        for turn in range(1, 6):
            deliver(hub, lambda turn=turn: not store.owners(hub.workspace) and len(receiver.deliveries) == turn)
            (delivery,) = waiting(hub, conversation) or (None,)
            if delivery:
                pauses.append((delivery.due_at - hub._clock()).total_seconds())  # noqa: SLF001  (as above)
                later(hub, seconds=pauses[-1])

    assert pauses == [2.0, 4.0, 7.0, 8.0]
    assert last(hub, conversation).status == "sent"
    assert len({json.loads(one.body)["token"] for one in receiver.deliveries}) == 1


def test_the_agent_is_told_what_a_message_waits_for(store):
    """Until when and why stands at the message as long as it waits, and is gone once it went."""
    with Receiver(refused(429, "retry-after: 3600")) as receiver:
        hub = shop(store, receiver.url)
        conversation = asked(hub)
        hub.reply(conversation, "Hello!", by="kim")
        deliver(hub, lambda: "error" in last(hub, conversation).detail)
        waiting_one = last(hub, conversation)
        later(hub, seconds=3600)
        deliver(hub, is_now(hub, conversation, "sent"))

    assert hub.delivered == {("post", "put_off"): 1, ("post", "sent"): 1}
    assert waiting_one.status == "queued"
    assert waiting_one.detail["error"] == "waits until 2026-01-01 13:00 UTC: the server answered 429"
    assert "error" not in last(hub, conversation).detail


@pytest.mark.parametrize("asked_s", ["1e300", "inf", "90000"])
def test_a_pause_without_end_keeps_no_message_and_no_channel(store, asked_s):
    """Nobody waits for longer than a day: the message fails with the platform's words, and the next ones go then."""
    with Receiver(refused(429, f"retry-after: {asked_s}")) as receiver:
        hub = shop(store, receiver.url)
        conversation = asked(hub)
        hub.reply(conversation, "Hello!", by="kim")
        deliver(hub, is_now(hub, conversation, "failed"))

    assert last(hub, conversation).detail["error"] == (
        "given up, as it would wait for over a day: the server answered 429"
    )


def test_a_pause_that_is_no_number_is_a_short_one(store):
    """What a channel makes of an answer can be anything."""
    with Receiver(refused(429, "retry-after: nan")) as receiver:
        hub = shop(store, receiver.url)
        conversation = asked(hub)
        hub.reply(conversation, "Hello!", by="kim")
        deliver(hub, lambda: "error" in last(hub, conversation).detail)
        (delivery,) = waiting(hub, conversation)

    assert (delivery.due_at - NOON).total_seconds() == 2.0
    assert not delivery.awaits_echo


def test_a_message_is_given_up_after_a_day_of_trying(store):
    """The agent is told the platform's last words; the day is counted in pauses, whatever clocks say."""
    hub = shop(store)
    conversation = asked(hub)
    hub.reply(conversation, "Hello!", by="kim")
    (delivery,) = waiting(hub, conversation)
    tired = evolve(delivery, waited_s=24 * 3600.0)
    store.transact(hub.workspace, lambda one: one.write(Batch(deliveries={tired.message: tired})))

    deliver(hub, is_now(hub, conversation, "failed"))

    assert last(hub, conversation).detail["error"] == "given up, as it would wait for over a day: ConnectError"
    assert waiting(hub, conversation) == []
    (notice,) = told(hub, "message.status_changed")
    assert notice.payload["error"] == last(hub, conversation).detail["error"]


@pytest.mark.parametrize("answer", [BROKEN, refused(504)])
def test_an_unknown_outcome_is_tried_again_where_the_token_is_known(store, answer):
    """The server knows the second by its token; one that it does not take for new does no harm."""
    with Receiver(answer) as receiver:
        hub = shop(store, receiver.url)
        conversation = asked(hub)
        hub.reply(conversation, "Hello!", by="kim")
        deliver(hub, lambda: len(receiver.deliveries) == 1 and not store.owners(hub.workspace))
        later(hub, seconds=2)

        deliver(hub, is_now(hub, conversation, "sent"))

    first, second = (json.loads(one.body)["token"] for one in receiver.deliveries)
    assert first == second


def test_an_unknown_outcome_waits_for_the_echo(store):
    """Where the platform tells of what it took, that settles it, and nothing is sent twice."""
    with Receiver(BROKEN) as receiver:
        hub = shop(store, receiver.url, EchoingChannel)
        conversation = asked(hub)
        hub.reply(conversation, "Hello!", by="kim")
        deliver(hub, lambda: len(receiver.deliveries) == 1 and not store.owners(hub.workspace))
        token = json.loads(receiver.deliveries[0].body)["token"]

        (received,) = hub.receive("post", [echo("their/1", token)])
        deliver(hub, is_now(hub, conversation, "sent"))

    assert received.conversation == conversation
    assert len(receiver.deliveries) == 1
    assert [one.direction for one in hub.messages(conversation)].count(Direction.OUTBOUND) == 1
    assert store.message(hub.workspace, "post", "their/1") == last(hub, conversation)


@pytest.mark.parametrize("answer", [named("their/1"), BROKEN])
@pytest.mark.parametrize(("words", "others"), [(" Hello, ann!", ["their/2"]), ("Hello!", ["their/1", "their/2"])])
def test_an_echo_without_a_token_is_known_by_its_words(store, answer, words, others):
    """What says what is under way in its thread is the echo of that; all else was said elsewhere."""

    def take():
        hub.receive("post", [evolve(echo("their/1", at=hub._clock()), text=words)])  # noqa: SLF001  (the hub's own clock)
        return answer

    with Receiver(take) as receiver:
        hub = shop(store, receiver.url, EchoingChannel)
        conversation = asked(hub)
        hub.reply(conversation, "Hello,  ann!", by="kim")
        deliver(hub, lambda: not hub.store.owners(hub.workspace) and receiver.deliveries)
        hub.receive("post", [evolve(echo("their/2"), text=words)])
        if len(others) == 1:
            deliver(hub, is_now(hub, conversation, "sent"))

    ours = [one.external_id for one in hub.messages(conversation) if one.direction is Direction.OUTBOUND]
    assert len(receiver.deliveries) == 1
    assert [one for one in reversed(ours) if not one.startswith("out/")] == others


def test_a_late_echo_of_one_part_sends_no_other_again(store):
    """While the echo of a part is waited for, that of one before it settles nothing."""
    with Receiver(named("p/0"), BROKEN) as receiver:
        hub = shop(store, receiver.url, EchoingChannel)
        conversation = asked(hub)
        hub.reply(conversation, "word " * 20, by="kim")
        deliver(hub, lambda: [one for one in waiting(hub, conversation) if one.awaits_echo])
        token = last(hub, conversation).detail["token"]

        hub.receive("post", [echo("p/0", token)])

    (delivery,) = waiting(hub, conversation)
    assert (delivery.awaits_echo, delivery.parts_done) == (True, 1)
    assert delivery.due_at > hub._clock()  # noqa: SLF001  (as above)


def test_without_an_echo_it_is_sent_again(store):
    """After two minutes without an echo the message goes once more."""
    with Receiver(BROKEN) as receiver:
        hub = shop(store, receiver.url, EchoingChannel)
        conversation = asked(hub)
        hub.reply(conversation, "Hello!", by="kim")
        deliver(hub, lambda: len(receiver.deliveries) == 1 and not store.owners(hub.workspace))

        later(hub, seconds=121)
        deliver(hub, is_now(hub, conversation, "sent"))

    assert len(receiver.deliveries) == 2


def test_an_unknown_outcome_is_left_to_the_agent_where_nothing_tells(store):
    """It has failed, and may have arrived; a later report settles it, and so does sending it again."""
    with Receiver(BROKEN) as receiver:
        hub = shop(store, receiver.url, ForgetfulChannel)
        conversation = asked(hub)
        external_id = hub.reply(conversation, "Hello!", by="kim")

        deliver(hub, is_now(hub, conversation, "failed"))
        failed = last(hub, conversation)
        hub.receive("post", [status("s", external_id, to=DeliveryStatus.SENT)])

    assert failed.detail["error"].startswith("it may have arrived: ")
    assert last(hub, conversation).status == "sent"
    assert "error" not in last(hub, conversation).detail
    assert len(receiver.deliveries) == 1
    with pytest.raises(Conflict, match="has not failed: it is 'sent'"):
        hub.retry(failed)


def test_reports_move_a_message_on_and_never_back(store):
    """Late and doubled reports change nothing, and each move is told once."""
    hub = shop(store)
    conversation, external_id = sent(hub, named("their/1"))

    for number, to in enumerate(("delivered", "sent", "read", "delivered", "failed", "read")):
        report = status(f"s{number}", external_id if number % 2 else "their/1", to=DeliveryStatus(to), error="no")
        hub.receive("post", [report, evolve(report, external_id=f"again {number}")])

    assert last(hub, conversation).status == "read"
    moves = [one.payload["status"] for one in told(hub, "message.status_changed")]
    assert moves == ["sent", "delivered", "read"]


def test_a_report_can_overtake_the_answer(store):
    """One about a name that nobody knows yet is kept until the answer names it; the furthest one counts."""
    hub = shop(store)
    hub.receive("post", [status("s1", "their/1", to=DeliveryStatus.READ), status("s2", "their/1")])

    conversation, _ = sent(hub, named("their/1"))

    assert last(hub, conversation).status == "read"


def test_what_is_only_accepted_is_sent_once_a_report_says_so(store):
    """A report by the platform's name moves a message that its answer called queued, and its going is told once."""
    hub = shop(store, channel=AcceptingChannel)
    conversation, _ = sent(hub, named("their/1"))
    assert last(hub, conversation).status == "queued"

    hub.receive("post", [status("s1", "their/1", to=DeliveryStatus.SENT), status("s2", "their/1")])

    assert last(hub, conversation).status == "delivered"
    assert len(told(hub, "message.sent")) == 1


def test_what_is_accepted_after_a_pause_waits_for_nothing_any_more(store):
    """Why a message waited is gone with the answer that takes it, whatever that says."""
    with Receiver(refused(429, "retry-after: 60"), named("their/1")) as receiver:
        hub = shop(store, receiver.url, AcceptingChannel)
        conversation = asked(hub)
        hub.reply(conversation, "Hello!", by="kim")
        deliver(hub, lambda: "error" in last(hub, conversation).detail)
        later(hub, seconds=60)
        deliver(hub, lambda: not waiting(hub, conversation))

    assert last(hub, conversation).status == "queued"
    assert "error" not in last(hub, conversation).detail


@pytest.mark.parametrize("answer", [named("their/1"), BROKEN])
def test_a_report_can_overtake_the_answer_by_our_own_name(store, answer):
    """Such a one is kept as well until the answer is there, even where that is lost; then the message has gone."""
    hub = shop(store, channel=ForgetfulChannel)
    conversation = asked(hub)
    external_id = hub.reply(conversation, "Hello!", by="kim")
    hub.receive("post", [status("s1", external_id)])
    assert last(hub, conversation).status == "queued"

    sent(hub, answer, conversation=conversation, text="")

    assert last(hub, conversation).status == "delivered"
    assert len(told(hub, "message.sent")) == 1


def test_a_report_on_one_part_says_nothing_of_those_that_failed(store):
    """A message of which a part failed stays failed, whenever the platform says that an earlier one arrived."""
    hub = shop(store, channel=ForgetfulChannel)
    conversation = asked(hub)
    external_id = hub.reply(conversation, "word " * 20, by="kim")
    hub.receive("post", [status("s1", external_id)])

    sent(hub, [named("p/0"), refused(400)], conversation=conversation, text="")
    hub.receive("post", [status("s2", "p/0"), status("s3", external_id)])

    assert (last(hub, conversation).status, last(hub, conversation).detail["parts_done"]) == ("failed", 1)


def test_an_echo_of_one_part_says_nothing_of_those_that_failed(store):
    """With what was reported on it before, it moves no message of which a later part fails."""

    def take():
        token = last(hub, conversation).detail["token"]
        hub.receive("post", [status("s1", "p/0"), echo("p/0", token)])
        return named("p/0")

    with Receiver(take, refused(400)) as receiver:
        hub = shop(store, receiver.url, EchoingChannel)
        conversation = asked(hub)
        hub.reply(conversation, "word " * 20, by="kim")
        deliver(hub, lambda: not waiting(hub, conversation))

    assert last(hub, conversation).status == "failed"


def test_a_report_can_come_with_the_echo_that_it_is_about(store):
    """Of an answer that was given elsewhere, both can be in one request, in any order."""
    hub = shop(store, channel=EchoingChannel)
    conversation = asked(hub)

    hub.receive("post", [status("s1", "their/1"), echo("their/1"), status("s2", "their/1", to=DeliveryStatus.READ)])

    assert last(hub, conversation).status == "read"


def test_a_failure_is_told_with_its_words(store):
    """The platform's words stand at the message, and the address takes nothing more until somebody lifts that."""
    hub = shop(store)
    conversation, external_id = sent(hub)
    bounce = status("s", external_id, to=DeliveryStatus.FAILED, error="no such mailbox")

    hub.receive("post", [evolve(bounce, unreachable=Claim("email", "Ann@shop.example", Trust.CHANNEL))])

    assert (last(hub, conversation).status, last(hub, conversation).detail["error"]) == ("failed", "no such mailbox")
    words = (
        "nothing is sent to email:ann@shop.example since 2026-01-01 12:00 UTC, when 'post' reported: no such mailbox. "
        "Once it does again: convsdk reachable email:ann@shop.example --lift"
    )
    with pytest.raises(Conflict) as refusal:
        hub.reply(conversation, "Hello?", by="kim")
    assert str(refusal.value) == words
    with pytest.raises(Conflict):
        hub.retry(last(hub, conversation))
    hub.make_reachable(ANN)
    hub.reply(conversation, "Hello?", by="kim")
    assert last(hub, conversation).status == "queued"


def test_what_was_queued_before_the_address_failed_is_not_sent(store):
    """The queue is looked through once more when it is a message's turn."""
    with Receiver() as receiver:
        hub = shop(store, receiver.url)
        conversation = asked(hub)
        hub.reply(conversation, "Hello!", by="kim")
        claim = Claim("email", "ann@shop.example", Trust.CHANNEL)
        hub.receive("post", [status("s", "none", to=DeliveryStatus.FAILED, error="complaint", unreachable=claim)])

        deliver(hub, is_now(hub, conversation, "failed"))

    assert receiver.deliveries == []
    assert "reported: complaint" in last(hub, conversation).detail["error"]


def test_what_anybody_could_report_is_believed_of_whom_it_went_to(store):
    """An ASSERTED claim counts for the recipient of the message it names, of ours, and for nobody else."""
    hub = shop(store)
    conversation, external_id = sent(hub)
    asked(hub, "bob")
    hub.reply(conversation, "Hello?", by="kim")
    claims = [Claim("email", f"{one}@shop.example", Trust.ASSERTED) for one in ("bob", "ann")]
    forged = [(external_id, claims[0]), ("in/ann", claims[1]), ("none", claims[1]), ("in/bob", claims[0])]

    for number, (name, claim) in enumerate(forged):
        report = status(f"s{number}", name, to=DeliveryStatus.FAILED)
        hub.receive("post", [evolve(report, unreachable=claim)])
    assert [hub.unreachable(hub.policy.canonical(one)) for one in claims] == [None, None]
    hub.receive("post", [evolve(status("s", external_id, to=DeliveryStatus.FAILED), unreachable=claims[1])])

    assert [bool(hub.unreachable(hub.policy.canonical(one))) for one in claims] == [False, True]


def test_who_heard_from_us_a_year_ago_is_forgotten(store):
    """No automatic answer looks further back."""
    hub = shop(store)
    hub.reply(asked(hub), "Hello!", by="kim")
    key = heard_key("post", ANN)
    later(hub, days=365)
    deliver(hub, lambda: True)
    assert store.memo(hub.workspace, HEARD, key).at == NOON

    later(hub, seconds=1)
    deliver(hub, lambda: True)

    assert store.memo(hub.workspace, HEARD, key) is None


def test_a_watermark_moves_what_was_sent_before(store):
    """All of the thread up to a moment is read, but for what was sent later or is still to go."""
    hub = shop(store)
    conversation, _ = sent(hub)
    later(hub, seconds=60)
    hub.reply(conversation, "queued before, sent after", by="kim")
    later(hub, seconds=60)
    sent(hub, conversation=conversation, text="")
    hub.reply(conversation, "still to go", by="kim")

    hub.receive("post", [status("s", to=DeliveryStatus.READ, thread="ann", watermark=NOON + timedelta(seconds=90))])

    outbound = [one.status for one in hub.messages(conversation) if one.direction is Direction.OUTBOUND]
    assert outbound == ["queued", "sent", "read"]


def test_an_answer_that_was_given_elsewhere_has_been_sent(store):
    """An echo of nothing of ours is a message of its own, and can be read."""
    hub = shop(store, channel=EchoingChannel)
    conversation = asked(hub)

    hub.receive("post", [echo("theirs", "none")])
    hub.receive("post", [echo("theirs", "none")])
    assert last(hub, conversation).status == "sent"
    hub.receive("post", [status("s", "theirs", to=DeliveryStatus.READ)])

    assert last(hub, conversation).status == "read"
    assert len(hub.messages(conversation).items) == 2


def test_pauses_double_up_to_an_hour():
    """They are drawn from the upper half, so that not all come back at once."""
    assert [backoff_s(tries, 1.0) for tries in (0, 1, 2, 10, 1000)] == [2.0, 4.0, 8.0, 2048.0, 3600.0]
    assert backoff_s(0, 0.0) == 1.0


def test_one_at_a_time_in_a_conversation_and_all_at_once_between_them(store):
    """Answers of one conversation arrive in order, the next after the one before; others do not wait for it."""
    with Receiver() as receiver:
        hub = shop(store, receiver.url)
        talks = {who: asked(hub, who) for who in ("ann", "bob", "eve")}
        for turn in range(5):
            for talk in talks.values():
                hub.reply(talk, str(turn), by="kim")

        deliver(hub, lambda: len(receiver.deliveries) == 15)

    arrived = [json.loads(one.body) for one in receiver.deliveries]
    for who in talks:
        assert [one["text"] for one in arrived if one["thread"] == who] == ["0", "1", "2", "3", "4"]
    places = [[number for number, one in enumerate(arrived) if one["thread"] == who] for who in talks]
    assert max(first for first, *_ in places) < min(last for *_, last in places)


def test_what_a_hub_queues_goes_at_once(store):
    """Whoever queues something wakes who delivers it: nobody waits for the next look into the store."""
    with Receiver() as receiver:
        hub = shop(store, receiver.url)
        conversation = asked(hub)

        async def work():
            async with delivering(hub, poll_s=3600):
                await asyncio.sleep(0.2)
                await asyncio.to_thread(hub.reply, conversation, "Hello!", by="kim")
                await until(lambda: receiver.deliveries)

        asyncio.run(work())


def test_secrets_are_in_no_log_and_no_message(store, capsys):
    """What goes wrong is told without the request."""
    hub = shop(store, "http://127.0.0.1:9/?key=s3cret")
    conversation = asked(hub)
    hub.reply(conversation, "private words", by="kim")

    deliver(hub, lambda: waiting(hub, conversation)[0].tries == 1)

    output = "".join(capsys.readouterr())
    assert "a message was put off" in output
    assert "s3cret" not in output
    assert "private" not in output


def left_behind(hub, *, is_under_way):
    """Leave the newest answer of a conversation as a worker leaves it that dies with it."""
    conversation = asked(hub)
    hub.reply(conversation, "Hello!", by="kim")
    (due,) = hub.store.transact(hub.workspace, lambda one: one.due("post", owner="dead", at=NOON, limit=5))
    dead = evolve(due, is_under_way=is_under_way)
    hub.store.transact(hub.workspace, lambda one: one.write(Batch(deliveries={due.message: dead})))
    return conversation


@pytest.mark.parametrize(
    ("channel", "is_under_way", "outcome"),
    [
        (PostChannel, True, "sent"),
        (EchoingChannel, True, "queued"),
        (EchoingChannel, False, "sent"),
        (ForgetfulChannel, True, "failed"),
        (ForgetfulChannel, False, "sent"),
    ],
)
def test_what_a_dead_worker_had_is_taken_over(store, channel, is_under_way, outcome):
    """What it had not begun just goes; of what was under way nobody knows, and what becomes of it depends."""
    with Receiver() as receiver:
        hub = shop(store, receiver.url, channel)
        conversation = left_behind(hub, is_under_way=is_under_way)

        deliver(hub, lambda: "dead" not in store.owners(hub.workspace), lease_s=0.2)
        if channel is PostChannel:
            later(hub, seconds=2)  # a try was spent
        if outcome != "queued":
            deliver(hub, is_now(hub, conversation, outcome))

    assert last(hub, conversation).status == outcome
    assert len(receiver.deliveries) == (outcome == "sent")
    if outcome == "queued":
        (delivery,) = waiting(hub, conversation)
        assert (delivery.awaits_echo, delivery.due_at) == (True, NOON + timedelta(seconds=120))


def test_who_was_taken_for_dead_changes_nothing_but_facts(store):
    """What another worker has by now is its own; that a part arrived counts, whoever says so."""
    hub = shop(store)
    conversation = left_behind(hub, is_under_way=True)
    (theirs,) = waiting(hub, conversation)
    (job,) = jobs_of(hub, [theirs])
    part = Outbound(to=ANN, text="Hello!", token="t", at=NOON)

    def write(step):
        return store.transact(hub.workspace, lambda one: write_down(one, [step], "late", NOON))

    for step in (under_way(job, part, 0), put_off(job, 5, NOON, error="no"), failed(job, "no", NOON)):
        assert write(step) == [False]
        assert waiting(hub, conversation) == [theirs]
        assert last(hub, conversation).status == "queued"
    assert write(arrived(job, 0, Receipt(external_id="their/1"), NOON, is_last=True)) == [False]

    assert waiting(hub, conversation) == []
    assert last(hub, conversation).status == "sent"


@pytest.mark.parametrize("jump", [timedelta(days=-400), timedelta(days=400)])
def test_a_clock_that_jumps_takes_nothing_from_a_worker(store, jump):
    """Who is there and who is not is no matter of clocks: what is under way is not sent twice, and the rest goes."""
    clock = FakeClock()
    go = threading.Event()

    def answer():
        go.wait(10)
        return TAKEN

    with Receiver(answer) as receiver:
        hub = Hub(store, channels=[PostChannel("post", PostSettings(url=receiver.url))], clock=clock)
        talks = [asked(hub), asked(hub, "bob")]
        hub.reply(talks[0], "before", by="kim")

        async def work():
            # Two workers, each of which looks whether the other is there five times a second.
            async with delivering(hub, lease_s=0.4), delivering(hub, lease_s=0.4):
                await until(lambda: receiver.deliveries)
                clock.now += jump
                hub.reply(talks[1], "after", by="kim")
                await until(is_now(hub, talks[1], "sent"))
                await asyncio.sleep(1)
                go.set()
                await until(is_now(hub, talks[0], "sent"))

        asyncio.run(work())

    assert [json.loads(one.body)["text"] for one in receiver.deliveries] == ["before", "after"]


def test_what_was_queued_by_a_clock_ahead_goes(store):
    """A clock that is set right again after something was queued holds it up for a minute at most."""
    with Receiver() as receiver:
        hub = shop(store, receiver.url)
        conversation = asked(hub)
        later(hub, days=30)
        hub.reply(conversation, "Hello!", by="kim")
        later(hub, days=-30)

        deliver(hub, lambda: waiting(hub, conversation)[0].due_at == NOON + timedelta(seconds=60))
        later(hub, seconds=60)
        deliver(hub, is_now(hub, conversation, "sent"))

    assert len(receiver.deliveries) == 1


def queue_many(hub, people, count):
    """Let so many people write, and queue so many answers to them in turn, as fast as a store can."""
    talks = [asked(hub, f"p{number}") for number in range(people)]

    def work(transaction):
        ids, batch = transaction.new_ids(), Batch()
        for number in range(count):
            said = Message(
                id=next(ids),
                conversation=talks[number % people],
                channel="post",
                external_id=f"out/{number}",
                direction=Direction.OUTBOUND,
                at=NOON,
                text=str(number),
                status="queued",
                detail={"token": f"t{number}"},
            )
            batch.messages.append(said)
            batch.deliveries[said.id] = Delivery(
                message=said.id, conversation=said.conversation, channel="post", due_at=NOON, put_off_at=NOON
            )
        transaction.write(batch)

    hub.store.transact(hub.workspace, work)


def assert_in_order(texts, people, count):
    """Each of the numbered texts is there once, and those of one conversation in order."""
    assert sorted(texts) == list(range(count))
    for person in range(people):
        own = [text for text in texts if text % people == person]
        assert own == sorted(own)


@pytest.mark.once
def test_ten_thousand_messages_keep_their_order(tmp_path):
    """Those of a hundred conversations go in turn: at no time is one conversation far ahead of another."""
    texts = []

    def take(request):
        texts.append(int(json.loads(request.content)["text"]))
        return httpx.Response(204)

    with closing(open_store(fresh_store("sqlite", tmp_path))) as store:
        hub = shop(store)
        queue_many(hub, 100, 10_000)

        async def work():
            async with (
                httpx.AsyncClient(transport=httpx.MockTransport(take)) as client,
                Deliverer(hub, client, clock=hub._clock, poll_s=0.01),  # noqa: SLF001  (as above)
            ):
                await until(lambda: len(texts) == 10_000, 120)

        asyncio.run(work())

    assert_in_order(texts, 100, 10_000)
    assert max(abs(text - place) for place, text in enumerate(texts)) < 10 * 100


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_two_workers_share_a_queue(kind, tmp_path):
    """Each takes a share, nothing goes twice, and every conversation keeps its order: on SQLite as well, if need be."""
    url = fresh_store(kind, tmp_path)
    with Receiver() as receiver, closing(open_store(url)) as one, closing(open_store(url)) as two:
        hubs = [shop(store, receiver.url) for store in (one, two)]
        queue_many(hubs[0], 20, 400)
        owners = set()

        def is_done():
            owners.update(one.owners("default"))
            return len(receiver.deliveries) >= 400 and not one.owners("default")

        async def work():
            async with delivering(hubs[0]), delivering(hubs[1]):
                await until(is_done, 60)

        asyncio.run(work())

    assert_in_order([int(json.loads(one.body)["text"]) for one in receiver.deliveries], 20, 400)
    assert len(owners) == 2


@pytest.mark.parametrize("broken", ["outgoing", "transact"])
def test_what_was_claimed_as_the_store_went_away_goes_when_it_is_back(store, monkeypatch, broken):
    """A store that breaks off behind the claim, or just before it says that this is kept, loses no message."""
    monkeypatch.setattr("convsdk.delivery._MENDING_S", 0.05)

    class Broken:
        """Claims once, and gives no answer then."""

        has_broken = False

        def __getattr__(self, name):
            found = getattr(store, name)
            return partial(self._break, found) if name == broken and not self.has_broken else found

        def _break(self, act, *given):
            done = act(*given)
            self.has_broken = bool(store.owners("default"))
            if self.has_broken:
                raise TransientError("the store is away")
            return done

    with Receiver() as receiver:
        hub = shop(Broken(), receiver.url)
        conversation = asked(hub)
        hub.reply(conversation, "Hello!", by="kim")

        deliver(hub, is_now(hub, conversation, "sent"))

    assert hub.store.has_broken
    assert len(receiver.deliveries) == 1


def test_another_process_is_heard_of_at_once(tmp_path):
    """What somebody else queues in PostgreSQL goes without a look into the store."""
    url = fresh_store("postgresql", tmp_path)
    with Receiver() as receiver, closing(open_store(url)) as one, closing(open_store(url)) as two:
        hub, other = (shop(store, receiver.url) for store in (one, two))
        conversation = asked(hub)

        async def work():
            async with delivering(hub, poll_s=3600):
                await asyncio.sleep(0.5)
                await asyncio.to_thread(other.reply, conversation, "Hello!", by="kim")
                await until(lambda: receiver.deliveries, 4)

        asyncio.run(work())


def test_shutdown_lets_what_is_under_way_finish(store):
    """A worker that ends waits for the answer and writes it down; what it had not begun is anybody's again."""
    go = threading.Event()

    def answer():
        go.wait(10)
        return TAKEN

    with Receiver(answer) as receiver:
        hub = shop(store, receiver.url, ForgetfulChannel)
        talks = [asked(hub), asked(hub, "bob")]
        for talk in talks:
            hub.reply(talk, "Hello!", by="kim")

        async def work():
            async with delivering(hub, concurrency=1):
                await until(lambda: receiver.deliveries)
                asyncio.get_running_loop().call_later(0.2, go.set)

        asyncio.run(work())

    assert [last(hub, talk).status for talk in talks] == ["sent", "queued"]
    assert store.owners(hub.workspace) == []
    assert len(receiver.deliveries) == 1


def test_what_hangs_at_the_end_is_an_unknown_outcome(store):
    """After the grace a request is given up, and nobody knows what came of it."""
    go = threading.Event()

    def answer():
        go.wait(10)
        return TAKEN

    with Receiver(answer) as receiver:
        hub = shop(store, receiver.url, ForgetfulChannel)
        conversation = asked(hub)
        hub.reply(conversation, "Hello!", by="kim")

        async def work():
            async with delivering(hub, grace_s=0.1):
                await until(lambda: receiver.deliveries)

        asyncio.run(work())
        go.set()

    assert last(hub, conversation).status == "failed"
    assert last(hub, conversation).detail["error"].startswith("it may have arrived")


def test_a_channel_that_hangs_holds_up_no_other(store):
    """However much is queued before on a channel whose platform says nothing, another one's message goes at once."""
    hub = Hub(
        store,
        channels=[
            kind(kind.type, PostSettings(url=f"http://{kind.type}.example/"))
            for kind in (ForgetfulChannel, PostChannel)
        ],
        clock=FakeClock(),
    )
    for number in range(40):
        (received,) = hub.receive("forgetful", [message(f"in/{number}", f"p{number}")])
        hub.reply(received.conversation, "Hello?", by="kim")
    conversation = asked(hub)
    hub.reply(conversation, "Hello!", by="kim")
    hanging = []

    async def take(request):
        if request.url.host == "forgetful.example":
            hanging.append(request)
            await asyncio.Event().wait()
        return httpx.Response(204)

    async def work():
        async with httpx.AsyncClient(transport=httpx.MockTransport(take)) as client:
            options = {"clock": hub._clock, "poll_s": 0.01, "grace_s": 0.1}  # noqa: SLF001  (as above)
            async with Deliverer(hub, client, **options):
                await until(lambda: hanging)
                await until(is_now(hub, conversation, "sent"))

    asyncio.run(work())

    assert 0 < len(hanging) < 40


def test_no_more_go_in_a_second_than_the_platform_takes():
    """Each waits for its turn; a pause that the platform asks for holds for all."""
    texts = []

    class SlowChannel(PostChannel):
        can = evolve(PostChannel.can, max_per_s=20)

    def take(request):
        texts.append(asyncio.get_running_loop().time())
        return httpx.Response(204)

    hub = shop(open_store("memory:"), channel=SlowChannel)
    queue_many(hub, 5, 10)

    async def work():
        async with (
            httpx.AsyncClient(transport=httpx.MockTransport(take)) as client,
            Deliverer(hub, client, clock=hub._clock, poll_s=0.01),  # noqa: SLF001  (as above)
        ):
            await until(lambda: len(texts) == 10)

    asyncio.run(work())

    assert texts[-1] - texts[0] > 9 / 20 - 0.01


class OddChannel(PostChannel):
    """Gets a name or words that no store can keep."""

    def interpret(self, response):
        if "x-odd" in response.headers:
            raise PermanentError("no \ud800", code="\ud800")
        return Receipt(external_id="\ud800")


@pytest.mark.parametrize(("answer", "status"), [(TAKEN, "sent"), (refused(400, "x-odd: 1"), "failed")])
def test_what_no_store_can_keep_holds_up_no_message(store, answer, status):
    """Half a character in a platform's answer is replaced, and the ledger goes on."""
    hub = shop(store, channel=OddChannel)

    conversation, _ = sent(hub, answer)

    assert last(hub, conversation).status == status


def test_redirects_are_not_followed():
    """A message goes to where its channel sends it, and to nobody else, whatever the client does for others."""
    with Receiver() as stranger, Receiver(refused(307, f"location: {stranger.url}")) as receiver:
        channel = PostChannel("post", PostSettings(url=receiver.url))
        message = Outbound(to=ANN, text="Hello!", token="t", at=NOON)

        async def work():
            async with httpx.AsyncClient(follow_redirects=True) as client:
                await channel.send(message, client)

        with pytest.raises(PermanentError, match="answered 307"):
            asyncio.run(work())

    assert stranger.deliveries == []


def test_a_mistake_in_an_adapter_holds_up_nobody_else(capsys):
    """Its messages are left to the agent, with the error's name and not its words, and the next one goes."""
    hub = shop(open_store("memory:"), channel=ForgetfulChannel)
    queue_many(hub, 2, 2)

    class Broken(ForgetfulChannel):
        def build(self, message):
            if message.text == "0":
                raise KeyError("private words")
            return super().build(message)

    hub.channels["post"].__class__ = Broken
    with Receiver() as receiver:
        hub.channels["post"].config = PostSettings(url=receiver.url)
        deliver(hub, lambda: receiver.deliveries and not hub.store.owners(hub.workspace))

    failed = hub.store.message(hub.workspace, "post", "out/0")
    assert (failed.status, "KeyError" in failed.detail["error"]) == ("failed", True)
    assert "private" not in str(failed.detail) + "".join(capsys.readouterr())
