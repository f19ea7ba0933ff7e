import asyncio
import hashlib
import hmac
import json
import threading
import time
from collections.abc import Sequence
from contextlib import asynccontextmanager

import httpx
import pytest
from attrs import define, frozen
from litestar import Litestar, asgi
from prometheus_client.parser import text_string_to_metric_families
from structlog.testing import capture_logs

from convsdk.channels.chat import ChatChannel, ChatSettings
from convsdk.channels.messenger import MessengerChannel, MessengerSettings
from convsdk.core.events import Event, MessageReceived
from convsdk.core.model import Trust
from convsdk.core.ports import Capabilities, Channel, Response, Secret
from convsdk.errors import ConfigError, Forbidden, ParseError, PermanentError, TransientError
from convsdk.hub import Hub
from convsdk.ingest import Ingest
from convsdk.rejects import Rejects
from convsdk.store.memory import MemoryStore
from convsdk.testing.builders import NOON, FakeClock, hint
from convsdk.web import Limits, create_app

PATIENCE_S = 20
APP_SECRET = "app-secret-of-the-shop"
POISON = "poison cannot be kept"


class PickyStore(MemoryStore):
    """Refuses a batch with a text of `POISON` in it, and whatever it is told to with `error`."""

    error = None

    def queues(self, workspace):
        if self.error:
            raise self.error
        return super().queues(workspace)

    def transact(self, workspace, work):
        if self.error:
            raise self.error

        def picky(transaction):
            write = transaction.write

            def write_what_can_be_kept(batch):
                if any(one.text == POISON for one in batch.messages):
                    raise PermanentError(POISON)
                write(batch)

            transaction.write = write_what_can_be_kept
            return work(transaction)

        return super().transact(workspace, picky)

    def checkpoint(self, workspace, name):
        if self.error:
            raise self.error
        return super().checkpoint(workspace, name)


@frozen
class DeskSettings:
    pass


class DeskChannel(Channel):
    """Takes lines of text, one message each, and does what the first one says."""

    type = "desk"
    settings = DeskSettings

    def __init__(self, name="desk"):
        super().__init__(name, DeskSettings())
        self.seen, self.threads = [], []

    def verify(self, request):
        self.seen.append(request)
        self.threads.append(threading.current_thread())
        if request.body == b"forged":
            raise Forbidden("channel 'desk': forged")

    def parse(self, request) -> Sequence[Event]:
        if request.body == b"bug":
            raise KeyError("Ann's own words")
        if request.body == b"garbage":
            raise ParseError("that is garbage")
        return [wrote(line) for line in request.body.decode().splitlines()]

    def answer(self, events):
        return Response(body=f"took {len(events)}".encode(), headers=(("X-Desk", "yes"),))


def wrote(text):
    """Give a message with that text, and an external id of the same."""
    email = f"{hashlib.sha256(text.encode()).hexdigest()[:8]}@shop.example"
    return MessageReceived(external_id=text, hint=hint(email=email, trust=Trust.CHANNEL), at=NOON, text=text)


@define
class Holding:
    """Lets no transaction end before it may `go` on."""

    begun: threading.Event
    go: threading.Event

    def __call__(self, hub):
        commit = hub.commit

        def held(arrivals, **options):
            self.begun.set()
            assert self.go.wait(PATIENCE_S), "nobody let it go"
            return commit(arrivals, **options)

        hub.commit = held
        return self


def hold(hub):
    """Hold the transactions of `hub` back."""
    return Holding(threading.Event(), threading.Event())(hub)


SIGNED = ChatSettings(secret=Secret(APP_SECRET))


def shop(store=None):
    """Give a hub with a Messenger channel and a desk."""
    secrets = {"app_secret": Secret(APP_SECRET), "verify_token": Secret("verify")}
    page = MessengerChannel("page", MessengerSettings(**secrets))
    return Hub(store or PickyStore(), channels=[page, DeskChannel()])


def app_of(hub, folder, **settings):
    """Give the app for `hub`, with its rejects in `folder`."""
    return create_app(hub, **({"rejects": folder / "rejects"} | settings))


@asynccontextmanager
async def client(app, **transport):
    """Give a client of `app`."""
    wire = httpx.ASGITransport(app, **transport)
    async with httpx.AsyncClient(transport=wire, base_url="http://shop.example") as one:
        yield one


def send(app, method, path, *, root_path="", **request):
    """Give the answer to one request."""

    async def run():
        async with asyncio.timeout(PATIENCE_S), client(app, root_path=root_path) as one:
            return await one.request(method, path, **request)

    return asyncio.run(run())


def post(app, content, path="/channels/desk", **request):
    """Give the answer to one posted body."""
    return send(app, "POST", path, content=content, **request)


def messenger(text="hello", *, mid="m1", secret=APP_SECRET):
    """Give body and headers of a signed webhook."""
    item = {"sender": {"id": "7001"}, "recipient": {"id": "1001"}, "timestamp": 1458692752478}
    entry = {"id": "1001", "messaging": [item | {"message": {"mid": mid, "text": text}}]}
    body = json.dumps({"object": "page", "entry": [entry]}).encode()
    return body, sign(body, secret)


def sign(body, secret=APP_SECRET):
    """Give the header that signs `body`."""
    return {"X-Hub-Signature-256": f"sha256={hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()}"}


def texts(hub):
    """Give the texts of all messages in the store."""
    filings = hub.store.filings(hub.workspace, identifiers=None, before=None, limit=100)
    found = [hub.store.messages(hub.workspace, filing.id, before=None, limit=100) for filing in filings]
    return sorted(one.text for messages in found for one in messages)


def aside(folder):
    """Give what was kept aside."""
    rejects = Rejects(folder / "rejects")
    return [rejects.read(one) for one in rejects.ids()]


def samples(app):
    """Give the metrics: name and labels' values, to value."""
    text = send(app, "GET", "/metrics").text
    found = [one for family in text_string_to_metric_families(text) for one in family.samples]
    return {(one.name.removeprefix("convsdk_"), *one.labels.values()): one.value for one in found}


async def until(condition):
    """Wait for what is about to come."""
    end = asyncio.get_running_loop().time() + PATIENCE_S
    while not condition():
        assert asyncio.get_running_loop().time() < end, "it never came to that"
        await asyncio.sleep(0.001)


# -- what is taken


def test_webhook_is_answered_after_the_commit(tmp_path):
    """A signed webhook gets the channel's answer, and its message is in the store by then."""
    hub = shop()
    body, headers = messenger("Where is my order?")

    answer = post(app_of(hub, tmp_path), body, "/channels/page", headers=headers)

    assert (answer.status_code, answer.content) == (200, b"")
    assert texts(hub) == ["Where is my order?"]


def test_webhook_is_not_answered_before_the_commit(tmp_path):
    """While the transaction runs there is no answer, and other addresses answer meanwhile."""
    hub = shop()
    held = hold(hub)

    async def run():
        async with client(app_of(hub, tmp_path)) as one:
            request = asyncio.create_task(one.post("/channels/desk", content=b"a"))
            await until(held.begun.is_set)
            health = await one.get("/health")
            was_done = request.done()
            held.go.set()
            return health.status_code, was_done, (await request).status_code

    assert asyncio.run(run()) == (200, False, 200)


def test_redelivery_is_a_duplicate(tmp_path):
    """The same webhook twice is answered alike, and kept once."""
    hub = shop()
    app = app_of(hub, tmp_path)
    body, headers = messenger()

    answers = [post(app, body, "/channels/page", headers=headers).status_code for _ in range(2)]

    assert answers == [200, 200]
    assert texts(hub) == ["hello"]
    assert samples(app)["events_total", "page", "duplicate"] == 1


def test_channel_answers_for_itself(tmp_path):
    """Status, body, type and headers of the answer are the channel's."""
    answer = post(app_of(shop(), tmp_path), b"a\nb")

    assert answer.text == "took 2"
    assert answer.headers["x-desk"] == "yes"
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"


def test_handshake_is_answered(tmp_path):
    """A platform's set-up request gets its challenge back, and one with a wrong token learns nothing."""
    app = app_of(shop(), tmp_path)
    query = {"hub.mode": "subscribe", "hub.challenge": "1158201444"}

    right = send(app, "GET", "/channels/page", params=query | {"hub.verify_token": "verify"})
    wrong = send(app, "GET", "/channels/page", params=query | {"hub.verify_token": "guess"})

    assert (right.status_code, right.content) == (200, b"1158201444")
    assert (wrong.status_code, wrong.content) == (403, b"")


def test_channel_sees_the_request_as_it_came(tmp_path):
    """Method, address with its escapes, the first of a parameter, and every header field are the request's."""
    hub = shop()
    app = app_of(hub, tmp_path, clock=FakeClock())

    post(app, b"a", "/channels/desk?a=1&a=2&b=%C3%A9&c=", headers=[("X-Sign", "one"), ("X-Sign", "two")])

    (request,) = hub.channels["desk"].seen
    assert (request.method, request.body, request.received_at) == ("POST", b"a", NOON)
    assert request.url == "http://shop.example/channels/desk?a=1&a=2&b=%C3%A9&c="
    assert request.query == {"a": "1", "b": "é", "c": ""}
    assert request.headers.all("x-sign") == ("one", "two")


def test_content_type_is_the_channels_business(tmp_path):
    """A type that is wrong, odd or missing keeps no request from its channel."""
    app = app_of(shop(), tmp_path)
    types = ["application/json", "multipart/form-data", "nonsense", ""]

    answers = [post(app, b"a", headers={"Content-Type": one}).status_code for one in types]

    assert answers == [200] * len(types)


class OwnChannel(DeskChannel):
    """A desk that convsdk itself brings."""

    type = "own"


OwnChannel.__module__ = "convsdk.channels.own"


@pytest.mark.parametrize(
    ("channel", "size", "is_in_loop"),
    [(OwnChannel, 65_536, True), (OwnChannel, 65_537, False), (DeskChannel, 1, False)],
)
def test_what_may_take_long_is_read_beside_the_loop(tmp_path, channel, size, is_in_loop):
    """A large body, and any of a channel that is not ours, is verified and parsed in a thread; else on the spot."""
    hub = Hub(MemoryStore(), channels=[channel("desk")])

    post(app_of(hub, tmp_path), b"a" * size)

    assert (hub.channels["desk"].threads == [threading.main_thread()]) is is_in_loop


class StuckChannel(DeskChannel):
    """A desk that comes back only once it is let go."""

    type = "stuck"

    def __init__(self, name="stuck"):
        super().__init__(name)
        self.go = threading.Event()

    def parse(self, request):
        self.go.wait(PATIENCE_S)
        return super().parse(request)


def test_channel_that_does_not_come_back_holds_up_no_other(tmp_path):
    """Its senders are told to come again, at once where all its threads are stuck; it is taken once it is free."""
    stuck = StuckChannel()
    hub = Hub(MemoryStore(), channels=[stuck, DeskChannel()])
    app = app_of(hub, tmp_path, limits=Limits(channel_time_s=0.05))

    async def work():
        async with client(app) as one, asyncio.timeout(PATIENCE_S):
            refused = [await one.post("/channels/stuck", content=str(number)) for number in range(6)]
            other = await one.post("/channels/desk", content="a")
            stuck.go.set()
            while (await one.post("/channels/stuck", content="at last")).status_code != 200:  # noqa: ASYNC110  (nothing tells us)
                await asyncio.sleep(0.01)
            return refused, other

    with capture_logs() as logs:
        refused, other = asyncio.run(work())

    assert {(one.status_code, one.headers["Retry-After"]) for one in refused} == {(503, "60")}
    assert other.status_code == 200
    told = [one for one in logs if one["event"] == "a channel does not come back from a request"]
    assert "test_webhooks.py:" in told[0]["at"]
    assert (told[0]["channel"], told[0]["log_level"]) == ("stuck", "error")
    assert sorted(texts(hub)) == ["a", "at last"]


# -- what is refused


@pytest.mark.parametrize("how", ["unsigned", "wrong key", "other body", "not in ASCII"])
def test_forger_learns_nothing(tmp_path, how):
    """Whatever is wrong with a signature, the answer is an empty 403, and nothing is kept."""
    hub = shop()
    body, headers = messenger()
    forged = {
        "unsigned": {},
        "wrong key": sign(body, "guess"),
        "other body": sign(body + b" "),
        "not in ASCII": {"X-Hub-Signature-256": "sha256=\u00e9".encode("latin-1")},
    }[how]

    answer = post(app_of(hub, tmp_path), body, "/channels/page", headers=forged)

    assert (answer.status_code, answer.content) == (403, b"")
    assert (texts(hub), aside(tmp_path)) == ([], [])
    assert headers["X-Hub-Signature-256"][7:] not in str(answer.headers)


@pytest.mark.parametrize("path", ["/channels/fax", "/channels/PAGE", "/channels/%00", "/channels/desk/more", "/"])
def test_what_is_not_there_looks_alike(tmp_path, path):
    """An unknown channel is an empty 404, as is every other address that is not there."""
    answer = post(app_of(shop(), tmp_path), b"a", path)

    assert (answer.status_code, answer.content) == (404, b"")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"


def test_chat_without_a_secret_is_left_to_its_widget(tmp_path):
    """Where nothing could be verified, anybody could post: there is no webhook, and with a secret only a signed one."""
    body = json.dumps({"type": "message", "id": "m1", "visitor": "v1", "text": "Hello"}).encode()
    signed = {"X-Convsdk-Signature": sign(body)["X-Hub-Signature-256"]}
    hub = Hub("memory:", channels=[ChatChannel("open", ChatSettings()), ChatChannel("own", SIGNED)])
    app = app_of(hub, tmp_path)

    answers = [post(app, body, "/channels/open"), post(app, body, "/channels/own")]
    kept = post(app, body, "/channels/own", headers=signed)

    assert [one.status_code for one in (*answers, kept)] == [404, 403, 200]
    assert texts(hub) == ["Hello"]


def test_other_method_is_refused(tmp_path):
    """A webhook is posted, or got for a handshake."""
    answer = send(app_of(shop(), tmp_path), "PUT", "/channels/desk", content=b"a")

    assert (answer.status_code, answer.content) == (405, b"")


def test_bug_of_a_channel_is_told_without_what_it_read(tmp_path):
    """An error that no channel may raise is a 500 that is counted and logged by its type and place alone."""
    hub = shop()
    app = app_of(hub, tmp_path)

    with capture_logs() as logs:
        answer = post(app, b"bug")

    assert (answer.status_code, answer.content) == (500, b"")
    assert [one["event"] for one in logs] == ["webhook", "a request failed"]
    assert logs[1]["error"] == "KeyError"
    assert "Ann" not in str(logs)
    assert samples(app)["webhook_requests_total", "desk", "failed"] == 1


# -- limits


def test_announced_size_is_refused_unread(tmp_path):
    """A body that is announced as too large is a 413 before any of it is read; the largest that is allowed is taken."""
    hub = shop()
    app = app_of(hub, tmp_path, limits=Limits(body_bytes=10))
    pulled = []

    async def body():
        pulled.append(1)
        yield b"a" * 11

    refused = post(app, body(), headers={"Content-Length": "11"})
    taken = post(app, b"a" * 10)

    assert (refused.status_code, refused.content, pulled) == (413, b"", [])
    assert refused.headers["connection"] == "close"
    assert taken.status_code == 200
    assert texts(hub) == ["a" * 10]


def test_size_that_nobody_announced_is_refused_when_it_is_reached(tmp_path):
    """A chunked body is read up to the limit and no further."""
    app = app_of(shop(), tmp_path, limits=Limits(body_bytes=10))
    pulled = []

    async def body():
        for number in range(100):
            pulled.append(number)
            yield b"aaaa"

    refused = post(app, body())

    assert (refused.status_code, refused.content) == (413, b"")
    assert pulled == [0, 1, 2]


def test_usual_limit_is_one_mebibyte(tmp_path):
    """Without another word, 1 MiB is taken, and a byte more is not."""
    app = app_of(shop(), tmp_path)

    answers = [post(app, b"a" * size).status_code for size in (1_048_576, 1_048_577)]

    assert answers == [200, 413]


def test_body_that_drips_is_not_waited_for(tmp_path):
    """The deadline is that of the whole body: a byte now and then does not put it off."""
    app = app_of(shop(), tmp_path, limits=Limits(body_time_s=0.05))

    async def body():
        while True:
            yield b"a"
            await asyncio.sleep(0.001)

    answer = post(app, body())

    assert (answer.status_code, answer.content) == (408, b"")
    assert answer.headers["connection"] == "close"
    assert samples(app)["webhook_requests_total", "desk", "slow"] == 1


def test_sender_that_hangs_up_is_no_error(tmp_path):
    """A body that ends early is counted, and nothing of it is kept."""
    hub = shop()
    app = app_of(hub, tmp_path)
    scope = {"type": "http", "http_version": "1.1", "method": "POST", "scheme": "http", "path": "/channels/desk"}
    scope |= {"raw_path": b"/channels/desk", "query_string": b"", "headers": [], "asgi": {"version": "3.0"}}
    sent = []

    async def run():
        messages = iter([{"type": "http.request", "body": b"a", "more_body": True}, {"type": "http.disconnect"}])

        async def receive():
            return next(messages)

        async def keep(message):
            sent.append(message)

        await app(scope, receive, keep)

    asyncio.run(run())

    assert sent[0]["status"] == 400
    assert texts(hub) == []
    assert samples(app)["webhook_requests_total", "desk", "gone"] == 1


def test_limits_that_let_nothing_through_are_refused():
    """A limit is more than nothing."""
    for wrong in ({"body_bytes": 0}, {"body_time_s": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            Limits(**wrong)


# -- come again later


@pytest.mark.parametrize(("asked_s", "told"), [(None, "5"), (0.2, "1"), (7.2, "8")])
def test_busy_store_is_told_with_when_to_come_again(tmp_path, asked_s, told):
    """What the store cannot take now is a 503 with whole seconds, and is taken when it comes again."""
    store = PickyStore()
    hub = shop(store)
    app = app_of(hub, tmp_path)
    store.error = TransientError("the store is busy", retry_after_s=asked_s)

    refused = post(app, b"a")
    store.error = None
    taken = post(app, b"a")

    assert (refused.status_code, refused.content, refused.headers["retry-after"]) == (503, b"", told)
    assert taken.status_code == 200
    assert (texts(hub), aside(tmp_path)) == (["a"], [])


def test_full_queue_is_told_with_when_to_come_again(tmp_path):
    """What finds no room in the queue is a 503 at once; what is in the queue is kept."""
    hub = shop()
    held = hold(hub)

    async def run(ingest):
        app = app_of(hub, tmp_path, ingest=ingest)
        async with client(app) as one:
            under_way = asyncio.create_task(one.post("/channels/desk", content=b"a"))
            await until(held.begun.is_set)
            waiting = asyncio.create_task(one.post("/channels/desk", content=b"b"))
            await until(lambda: ingest.waiting == 1)
            queue = await one.get("/metrics")
            refused = await one.post("/channels/desk", content=b"c")
            held.go.set()
            return refused, queue, [(await each).status_code for each in (under_way, waiting)]

    with Ingest(hub, capacity=1) as ingest:
        refused, queue, others = asyncio.run(run(ingest))

    assert refused.status_code == 503
    assert int(refused.headers["retry-after"]) >= 1
    assert "convsdk_queue_events 1.0" in queue.text
    assert others == [200, 200]
    assert texts(hub) == ["a", "b"]


def test_store_that_somebody_has_to_mend_loses_nothing(tmp_path):
    """A store that is read-only or gone is a 503, which the platform answers by coming again."""
    store = PickyStore()
    hub = shop(store)
    app = app_of(hub, tmp_path)
    store.error = ConfigError("the file is read-only: let it be written to")

    with capture_logs() as logs:
        answer = post(app, b"a")

    assert (answer.status_code, answer.headers["retry-after"]) == (503, "60")
    assert (logs[0]["log_level"], logs[0]["why"]) == ("error", "the file is read-only: let it be written to")


# -- what is kept aside


def test_what_cannot_be_parsed_is_kept_aside_and_acknowledged(tmp_path):
    """An authentic request that cannot be read is on disk with all that came, and the platform may forget it."""
    app = app_of(shop(), tmp_path, clock=FakeClock())
    body = b"nonsense"

    answer = post(app, body, "/channels/page?a=b", headers=sign(body))

    (reject,) = aside(tmp_path)
    assert (answer.status_code, answer.content) == (200, b"")
    assert (reject.channel, reject.method, reject.body) == ("page", "POST", body)
    assert (reject.received_at, reject.query) == (NOON, {"a": "b"})
    assert reject.request().headers["X-Hub-Signature-256"] == sign(body)["X-Hub-Signature-256"]
    assert reject.sha256 == hashlib.sha256(body).hexdigest()
    assert "no JSON" in reject.error
    assert samples(app)["webhook_rejects_total", "page"] == 1


def test_poison_is_kept_aside_and_spoils_no_other(tmp_path):
    """An event that the store refuses leaves the others of its request in the store, and the request aside."""
    hub = shop()
    app = app_of(hub, tmp_path)
    body = f"a\nb\n{POISON}\nc".encode()

    answer = post(app, body)

    (reject,) = aside(tmp_path)
    assert (answer.status_code, answer.text) == (200, "took 0")
    assert texts(hub) == ["a", "b", "c"]
    assert (reject.error, reject.body) == (POISON, body)
    assert samples(app)["events_total", "desk", "created"] == 3


def test_store_that_gets_busy_on_the_way_gets_the_whole_request_again(tmp_path):
    """Where the store fails when half of a spoilt request is kept, nothing is aside, and the next try keeps all."""
    store = PickyStore()
    hub = shop(store)
    app = app_of(hub, tmp_path)
    commit, times = hub.commit, []

    def failing_third(arrivals, **options):
        times.append(1)
        if len(times) == 3:
            raise TransientError("the store is busy")
        return commit(arrivals, **options)

    hub.commit = failing_third
    body = f"a\n{POISON}".encode()

    answers = [post(app, body).status_code for _ in range(2)]

    assert answers == [503, 200]
    assert texts(hub) == ["a"]
    assert [one.body for one in aside(tmp_path)] == [body]


def test_same_request_again_is_the_same_reject(tmp_path):
    """A platform that does not believe the answer fills no disk."""
    app = app_of(shop(), tmp_path)

    for date in ("Mon", "Tue"):
        post(app, b"garbage", headers={"Date": date})

    assert len(aside(tmp_path)) == 1


def test_what_cannot_be_kept_aside_is_not_acknowledged(tmp_path):
    """Where the folder cannot be written to, the platform is asked to come again."""
    (tmp_path / "rejects").write_text("in the way")
    app = app_of(shop(), tmp_path)

    answer = post(app, b"garbage")

    assert (answer.status_code, answer.headers["retry-after"]) == (503, "60")


def test_forged_requests_are_not_kept_aside(tmp_path):
    """Nobody without a channel's secret can put files on the disk of a channel that has one."""
    app = app_of(shop(), tmp_path)

    answer = post(app, b"forged")

    assert answer.status_code == 403
    assert not (tmp_path / "rejects").exists()


# -- the process


def test_ready_says_whether_the_store_answers(tmp_path):
    """Readiness is the store's, health the process's."""
    store = PickyStore()
    app = app_of(shop(store), tmp_path)

    before = send(app, "GET", "/ready").status_code
    store.error = TransientError("the store is away")
    answers = [send(app, "GET", path).status_code for path in ("/ready", "/health")]

    assert before == 200
    assert answers == [503, 200]


def test_store_that_hangs_is_not_ready(tmp_path, monkeypatch):
    """Readiness is told in time, also where the store takes longer."""
    monkeypatch.setattr("convsdk.web.app._READY_S", 0.01)
    hub = shop()
    go = threading.Event()
    hub.store.checkpoint = lambda *_: go.wait(PATIENCE_S)

    async def run():
        async with client(app_of(hub, tmp_path)) as one:
            answer = await one.get("/ready")
            go.set()
            return answer

    assert asyncio.run(run()).status_code == 503


def test_app_starts_no_thread_before_it_is_used(tmp_path):
    """A server may load the app and fork, which threads do not survive; from its first request on it has one queue."""
    before = set(threading.enumerate())
    app = app_of(shop(), tmp_path)
    after = set(threading.enumerate())

    answers = [post(app, content).status_code for content in (b"a", b"b")]

    writers = [one for one in set(threading.enumerate()) - before if one.name.startswith("convsdk-ingest")]
    assert after == before
    assert answers == [200, 200]
    assert len(writers) == 1


def test_shutdown_drains(tmp_path):
    """What is under way is kept and answered, what comes is sent away, and the shutdown waits for the queue."""
    hub = shop()
    held = hold(hub)
    app = app_of(hub, tmp_path)

    async def run():
        events, told = asyncio.Queue(), []

        async def tell(message):
            told.append(message["type"])

        server = asyncio.create_task(app({"type": "lifespan", "asgi": {"version": "3.0"}}, events.get, tell))
        events.put_nowait({"type": "lifespan.startup"})
        async with client(app) as one:
            under_way = asyncio.create_task(one.post("/channels/desk", content=b"a"))
            await until(held.begun.is_set)
            events.put_nowait({"type": "lifespan.shutdown"})
            end = time.monotonic() + PATIENCE_S
            while (await one.get("/ready")).status_code != 503:
                assert time.monotonic() < end, "the app does not drain"
            refused, health = await one.post("/channels/desk", content=b"b"), await one.get("/health")
            told_before = list(told)
            held.go.set()
            await server
            return refused, health, told_before, told, await under_way

    refused, health, told_before, told, under_way = asyncio.run(run())

    assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
    assert (health.status_code, under_way.status_code) == (200, 200)
    assert told_before == ["lifespan.startup.complete"]
    assert told[1:] == ["lifespan.shutdown.complete"]
    assert texts(hub) == ["a"]


def test_queue_that_was_handed_in_is_left_open(tmp_path):
    """Who made an ingest closes it: others use it as well."""
    hub = shop()

    async def run(app):
        async with app.lifespan():
            pass

    with Ingest(hub) as ingest:
        asyncio.run(run(app_of(hub, tmp_path, ingest=ingest)))
        (received,) = ingest.receive("desk", [wrote("a")])

    assert received.event.external_id == "a"


def test_log_and_metrics_hold_nothing_personal(tmp_path):
    """A request is one line of channel, outcome and duration; what a stranger makes up is no label and no log."""
    app = app_of(shop(), tmp_path)
    body, headers = messenger("my secret")

    with capture_logs() as logs:
        post(app, body, "/channels/page?token=t0k3n", headers=headers)
        post(app, b"a", "/channels/made-up")

    assert [sorted(one) for one in logs] == [["channel", "duration_ms", "event", "log_level", "outcome"]] * 2
    assert [(one["channel"], one["outcome"]) for one in logs] == [("page", "taken"), ("(none)", "unknown")]
    told = samples(app)
    assert told["webhook_requests_total", "page", "taken"] == 1
    assert told["webhook_requests_total", "(none)", "unknown"] == 1
    assert told["events_total", "page", "unresolved"] == 1
    assert told["commit_seconds_count",] == 1
    assert not {one for name in told for one in name} & {"made-up", "my secret", "t0k3n"}


def test_two_apps_share_nothing(tmp_path):
    """Each app counts for itself."""
    one, other = (app_of(shop(), tmp_path) for _ in range(2))

    post(one, b"a")

    assert ("webhook_requests_total", "desk", "taken") in samples(one)
    assert ("webhook_requests_total", "desk", "taken") not in samples(other)


# -- several workspaces


def test_each_channel_leads_to_its_own_workspace(tmp_path):
    """Of several hubs on one store, each gets what comes for its channels, and one set of metrics counts all."""
    store = MemoryStore()
    hubs = [Hub(store, workspace=name, channels=[DeskChannel(f"{name}-desk")]) for name in ("shop", "forum")]
    app = create_app(*hubs, rejects=tmp_path)

    answers = [post(app, text, f"/channels/{name}-desk") for name, text in (("shop", b"a"), ("forum", b"b"))]

    told = samples(app)
    assert [one.status_code for one in answers] == [200, 200]
    assert [texts(hub) for hub in hubs] == [["a"], ["b"]]
    assert [told["events_total", f"{name}-desk", "created"] for name in ("shop", "forum")] == [1, 1]
    assert told["queue_events",] == 0
    assert send(app, "GET", "/ready").status_code == 200


class PostingChannel(DeskChannel):
    """A desk that can answer."""

    type = "posting"
    can = Capabilities(sends=True, is_idempotent=True)


def test_what_goes_out_is_measured(tmp_path):
    """What is still to go is told as the store has it, what workers did as the hub counted; an empty queue is 0."""
    hub = Hub(MemoryStore(), channels=[PostingChannel("full"), PostingChannel("empty")])
    who = hint(email="ann@shop.example", trust=Trust.CHANNEL)
    (received,) = hub.receive("full", [MessageReceived(external_id="1", hint=who, at=NOON, text="Where is it?")])
    hub.reply(received.conversation, "On its way.", by="kim")
    hub.delivered["full", "failed"] += 2

    told = samples(create_app(hub, rejects=tmp_path))

    assert [told["deliveries_waiting", name] for name in ("full", "empty")] == [1, 0]
    assert 0 <= told["deliveries_oldest_seconds", "full"] < PATIENCE_S
    assert told["deliveries_total", "full", "failed"] == 2
    assert told["deliveries_total", "empty", "sent"] == 0


def test_metrics_need_no_store(tmp_path):
    """Where the store is away, what the process counted is told all the same."""
    store = PickyStore()
    app = create_app(Hub(store, channels=[PostingChannel("desk")]), rejects=tmp_path)
    store.error = TransientError("the store is away")

    told = samples(app)

    assert told["deliveries_total", "desk", "sent"] == 0
    assert ("deliveries_waiting", "desk") not in told


def test_one_store_of_several_that_is_away_is_not_ready(tmp_path):
    """An app is ready where all its stores are."""
    away = PickyStore()
    hubs = [Hub(store, channels=[DeskChannel(name)]) for store, name in ((MemoryStore(), "a"), (away, "b"))]
    away.error = TransientError("the store is away")

    assert send(create_app(*hubs, rejects=tmp_path), "GET", "/ready").status_code == 503


def test_channel_name_in_two_workspaces_is_refused():
    """One address cannot lead to two channels."""
    hubs = [Hub(MemoryStore(), workspace=name, channels=[DeskChannel()]) for name in ("shop", "forum")]

    with pytest.raises(ConfigError, match=r"channel 'desk' is in workspace 'shop' and in 'forum'.*: rename"):
        create_app(*hubs)


def test_one_queue_before_several_workspaces_is_refused():
    """An ingest belongs to one hub."""
    hubs = [Hub(MemoryStore(), workspace=name) for name in ("shop", "forum")]

    with Ingest(hubs[0]) as ingest, pytest.raises(ConfigError, match="one ingest cannot stand before 2 hubs"):
        create_app(*hubs, ingest=ingest)


# -- mounting


@pytest.mark.parametrize("prefix", ["/shop", "/channels", "/a/b"])
@pytest.mark.parametrize("is_raw", [True, False])
def test_app_works_under_a_prefix(tmp_path, prefix, is_raw):
    """Mounted as ASGI has it (`root_path`), the app answers there, and a channel sees the whole address."""
    hub = shop()
    app = app_of(hub, tmp_path)

    async def host(scope, receive, send):  # `raw_path` is optional in ASGI
        await app({key: one for key, one in scope.items() if is_raw or key != "raw_path"}, receive, send)

    answer = post(host, b"a", f"{prefix}/channels/desk", root_path=prefix)

    assert answer.status_code == 200
    assert hub.channels["desk"].seen[0].url == f"http://shop.example{prefix}/channels/desk"


def test_app_works_inside_a_litestar_app(tmp_path):
    """Mounted in a Litestar host, the app answers under its prefix, and the host beside it."""
    hub = shop()
    inner = app_of(hub, tmp_path)
    host = Litestar([asgi("/shop", is_mount=True, copy_scope=True)(inner)], openapi_config=None, logging_config=None)

    answers = [post(host, b"a", path).status_code for path in ("/shop/channels/desk", "/channels/desk")]

    assert answers == [200, 404]
    assert hub.channels["desk"].seen[0].url == "http://shop.example/shop/channels/desk"
