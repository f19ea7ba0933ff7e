import asyncio
import json
import re
from contextlib import closing

import httpx
import pytest
from servers import fresh_store
from structlog.testing import capture_logs
from visits import HOST, Browser, opened

from convsdk.channels.chat import ChatChannel, ChatSettings
from convsdk.core.forms import Form
from convsdk.core.ports import Widget
from convsdk.errors import TransientError
from convsdk.hub import Hub
from convsdk.web import Limits

PERSON = ["email", "external_id", "phone", "name", "company", "token", "signature", "expires"]
WRITES = ["/session", "/messages", "/forms", "/identity", "/seen", "/typing"]
JSON = {"Content-Type": "application/json"}


def problem(answer):
    """Give the status and the code of a refusal."""
    return answer.status_code, answer.json()["error"]["code"]


def masked(answer):
    """Give all of an answer but what is made for each visitor: ids, and the value of the cookie."""
    body = re.sub(r'"(conversation|visitor)":("\w+"|\d+)', r'"\1":0', answer.text)
    fields = [(name, value) for name, value in answer.headers.multi_items() if name != "content-length"]
    cookies = [(name, re.sub("=[^;]+", "=", value, count=1)) for name, value in fields]
    return answer.status_code, body, cookies


# -- how it looks


def test_page_learns_how_the_widget_looks(tmp_path):
    """Title, greeting, color, forms, rules for attachments and whether an agent is there come in one answer."""
    widget = Widget(title="Shop", greeting="Hello!", color="#102030", file_bytes=5, file_types=("image/png",))
    contact = Form(email="required", phone="removed")
    chat = ChatChannel("chat", ChatSettings(widget=widget, forms={"contact": contact}))
    with opened(fresh_store("sqlite", tmp_path), tmp_path, channels=[chat]) as shop:
        before = Browser(shop).get().json()
        shop.hub.be_on_duty("Kim", shop.clock.advance(seconds=0).replace(hour=18))
        within = Browser(shop).get().json()

    assert before == {
        "title": "Shop",
        "greeting": "Hello!",
        "color": "#102030",
        "forms": {"contact": {"email": "required", "phone": "removed", "account": "optional", "name": "optional"}},
        "attachments": {"max_bytes": 5, "types": ["image/png"]},
        "has_agents": False,
        "session": None,
    }
    assert within["has_agents"] is True


@pytest.mark.parametrize("channel", ["nobody", "site", "CHAT", "%00", "chat%2F.."])
def test_channel_without_a_widget_is_not_there(shop, channel):
    """A channel that is not configured, and one that no widget shows, are a 404 alike."""
    answer = shop.ask("GET", f"/widget/{channel}")

    assert answer.status_code == 404


def test_several_hubs_share_an_app(tmp_path):
    """Each widget reads and writes in the workspace of its own hub."""
    sales = Hub(fresh_store("sqlite", tmp_path), workspace="sales", channels=[ChatChannel("sales", ChatSettings())])
    with closing(sales), opened(fresh_store("sqlite", tmp_path), tmp_path, hubs=[sales]) as shop:
        here, there = Browser(shop), Browser(shop, channel="sales")
        here.say("To the desk")
        number = there.say("To sales")

        assert (here.texts(), there.texts()) == (["To the desk"], ["To sales"])
        assert [one.text for one in sales.messages(number)] == ["To sales"]


def test_app_works_under_any_prefix(shop):
    """Mounted under a prefix, addresses of files are as seen from the script's, which has it."""
    browser = Browser(shop)
    file = browser.upload().json()["id"]
    browser.say("Look", attachments=[file])
    cookie = {"Cookie": f"__Host-convsdk-chat={browser.cookie}"}

    answer = shop.ask("GET", "/support/widget/chat/messages", root_path="/support", headers=cookie)

    assert answer.json()["messages"][0]["attachments"][0]["url"] == f"widget/chat/files/{file}"


# -- messages


def test_message_comes_back_as_it_was_sent(any_shop):
    """The page reads its own message with the id that it gave it; text comes back byte for byte, as text."""
    browser = Browser(any_shop)
    text = "<b>Grüße</b> \u202e & \"'\n\t" + "\U0001f600" * 3

    answer = browser.post("/messages", id="mine", text=text)
    (message,) = browser.get("/messages").json()["messages"]

    assert answer.json()["accepted"] == ["mine"]
    assert message == {
        "id": message["id"],
        "client_id": "mine",
        "sender": "visitor",
        "by": None,
        "at": "2026-01-01T12:00:00Z",
        "text": text,
        "attachments": [],
        "detail": None,
        "is_mail": False,
    }


@pytest.mark.parametrize("path", ["/messages", "/forms"])
def test_repeated_id_does_nothing(any_shop, path):
    """A page that heard no answer sends again under the same id: the answer is the same, and it happened once."""
    browser = Browser(any_shop)
    browser.say("Hello")
    body = {"id": "once", "text": "Again"} | ({"fields": {"email": "ann@shop.example"}} if path == "/forms" else {})

    answers = [browser.post(path, **body) for _ in range(3)]

    assert len({one.text for one in answers}) == 1
    assert browser.texts().count("Again") == (path == "/messages")


def test_ids_of_two_visitors_are_no_repeats(shop):
    """Visitors choose ids: one that another chose too hides nothing."""
    first, second = Browser(shop), Browser(shop)

    first.post("/messages", id="1", text="One")
    second.post("/messages", id="1", text="Two")

    assert (first.texts(), second.texts()) == (["One"], ["Two"])


def test_messages_at_once_are_all_kept(shop):
    """Tabs that send at the same time lose nothing and open one conversation."""
    browser = Browser(shop)
    browser.open()

    async def post(number):
        async with httpx.AsyncClient(transport=httpx.ASGITransport(shop.app), base_url=HOST) as client:
            cookie = {"Cookie": f"__Host-convsdk-chat={browser.cookie}"}
            return await client.post(
                "/widget/chat/messages", json={"id": f"{number}", "text": f"{number}"}, headers=cookie
            )

    async def all_at_once():
        return await asyncio.gather(*map(post, range(20)))

    answers = shop.run(all_at_once())

    assert {one.status_code for one in answers} == {200}
    assert len({one.json()["conversation"] for one in answers}) == 1
    assert sorted(browser.texts(), key=int) == [str(one) for one in range(20)]


@pytest.mark.parametrize("text", ["", " \n", None, 5, ["a"], "a" * 10_001])
def test_message_that_is_none_is_refused(shop, text):
    """Nothing to say, something else than text, or too much of it is a 400."""
    answer = Browser(shop).post("/messages", id="m", text=text)

    assert problem(answer) == (400, "unreadable")


def test_visitor_reads_the_agents_answer(any_shop):
    """An answer of the staff has the agent's name, and is counted as unread until it was seen."""
    browser = Browser(any_shop)
    conversation = browser.say("Where is my order?")
    any_shop.hub.reply(conversation, "On its way", by="Kim")

    unread = browser.session()["unread"]
    (entry,) = browser.get("/conversations").json()["conversations"]
    _, answer = browser.get("/messages").json()["messages"]
    seen = browser.post("/seen", conversation=conversation, message=answer["id"])

    assert (unread, entry["unread"], entry["last"], entry["is_own"], entry["is_current"]) == (
        1,
        1,
        "On its way",
        True,
        True,
    )
    assert (answer["sender"], answer["by"], answer["client_id"]) == ("agent", "Kim", None)
    assert (seen.status_code, browser.session()["unread"]) == (204, 0)


def test_what_was_seen_stays_seen(shop):
    """A position that lies before the last one, of another's conversation or of none, changes nothing."""
    browser, other = Browser(shop), Browser(shop)
    conversation, theirs = browser.say("Hello"), other.say("Hi")
    shop.hub.reply(conversation, "One", by="Kim")
    shop.hub.reply(theirs, "Two", by="Kim")
    last = browser.get("/messages").json()["messages"][-1]["id"]

    browser.post("/seen", conversation=conversation, message=last)
    answers = [
        browser.post("/seen", conversation=one, message=number).status_code
        for one, number in ((conversation, 1), (theirs, 2**62), (2**62, 1))
    ]

    assert answers == [204, 204, 204]
    assert (browser.session()["unread"], other.session()["unread"]) == (0, 1)


def test_notes_and_lines_are_for_staff(any_shop):
    """Notes, and lines such as an assignment, never reach a visitor: neither as messages nor by a number."""
    browser = Browser(any_shop)
    conversation = browser.say("Hello")
    any_shop.hub.reply(conversation, "Hi", by="Kim")
    before = (browser.get().text, browser.get("/conversations").text, browser.get("/messages").text)

    any_shop.hub.note(conversation, "a difficult customer", by="Kim")

    assert browser.texts() == ["Hello", "Hi"]
    assert (browser.get().text, browser.get("/conversations").text, browser.get("/messages").text) == before


def test_notes_hide_no_message(shop):
    """However many notes lie between, the messages before and after them are found."""
    browser = Browser(shop)
    conversation = browser.say("Before")
    first = browser.get("/messages").json()["messages"][0]["id"]
    for number in range(120):
        shop.hub.note(conversation, f"note {number}", by="Kim")

    newest = browser.texts()
    shop.hub.reply(conversation, "After", by="Kim")
    later = browser.get("/messages", after=first).json()["messages"]

    assert newest == ["Before"]
    assert [one["text"] for one in later] == ["After"]


def test_history_comes_in_pages(any_shop):
    """Fifty at a time, the oldest first: the newest, those before one, and those after one, without gap or double."""
    browser = Browser(any_shop)
    conversation = browser.say("0")
    for number in range(1, 120):
        any_shop.hub.reply(conversation, str(number), by="Kim")

    def read(**where):
        answer = browser.get("/messages", **where).json()
        return answer["messages"], answer["has_more"]

    back, has_more = read()
    pages = [back]
    while has_more:
        page, has_more = read(before=pages[0][0]["id"])
        pages.insert(0, page)
    forth, has_more = read(after=pages[0][0]["id"])
    while has_more:
        page, has_more = read(after=forth[-1]["id"])
        forth += page

    assert [one["text"] for page in pages for one in page] == [str(one) for one in range(120)]
    assert [one["text"] for one in forth] == [str(one) for one in range(1, 120)]
    assert len(back) == 50
    assert read(after=forth[-1]["id"]) == ([], False)


def test_conversation_of_others_looks_like_none(any_shop):
    """Another's conversation and one that is not there are the same 404 but for the number that was asked for."""
    theirs = Browser(any_shop).say("Secret")
    browser = Browser(any_shop)
    browser.say("Mine")

    other, none = (browser.get("/messages", conversation=one) for one in (theirs, 999_999))

    assert masked(other)[::2] == masked(none)[::2]
    assert other.text.replace(str(theirs), "") == none.text.replace("999999", "")


# -- forms


def test_form_says_what_is_wrong_with_each_field(tmp_path):
    """A form that cannot be taken is a 422 with the problems by field, and the corrected one has the same id."""
    chat = ChatChannel("chat", ChatSettings(forms={"contact": Form(email="required", name="removed")}))
    with opened(fresh_store("sqlite", tmp_path), tmp_path, channels=[chat]) as shop:
        browser = Browser(shop)
        wrong = {"email": "nonsense", "phone": "12", "name": "Ann", "age": 5}
        refused = browser.post("/forms", id="f", form="contact", fields=wrong)
        taken = browser.post("/forms", id="f", form="contact", fields={"email": "ann@shop.example"})

        assert refused.status_code == 422
        problems = refused.json()["problems"]
        assert {name: [one["code"] for one in each] for name, each in problems.items()} == {
            "email": ["invalid"],
            "phone": ["invalid"],
            "name": ["unknown_field"],
            "age": ["unknown_field"],
        }
        assert (taken.status_code, taken.json()["accepted"]) == (200, ["f"])
        assert shop.hub.find("email", "ann@shop.example") is not None


def test_address_given_later_is_the_whole_conversations(any_shop):
    """Who gives an address on day 29 is the contact of what was written on day 0."""
    browser = Browser(any_shop)
    conversation = browser.say("Day 0")
    any_shop.clock.advance(days=29)

    browser.submit(email="ann@shop.example", name="Ann")

    contact = any_shop.hub.find("email", "ann@shop.example")
    assert any_shop.hub.conversation(conversation).contact == contact.id


@pytest.mark.parametrize("way", ["identity", "forms", "messages"])
def test_no_answer_tells_whether_an_address_is_known(any_shop, way):
    """Known or not, an address gets the same bytes, status and header fields, in every answer that follows too."""
    for trust in range(3):
        any_shop.mail("known@shop.example", f"mail {trust}")
    answers = []
    for email in ("known@shop.example", "unknown@shop.example"):
        browser = Browser(any_shop)
        browser.open()
        said = [
            browser.identify(id="i", email=email, external_id=f"id of {email}") if way == "identity" else None,
            browser.post("/forms", id="f", form="contact", fields={"email": email}) if way == "forms" else None,
            browser.post("/messages", id="m", text="Who am I?"),
            browser.get(),
            browser.get("/messages"),
        ]
        read = json.loads(browser.get("/conversations").text)["conversations"]
        answers.append([masked(one) if i < 4 else len(one.text) for i, one in enumerate(said) if one] + [len(read)])

    assert answers[0][:-2] == answers[1][:-2]
    assert answers[0][-1] == answers[1][-1] == 1


# -- what is refused


@pytest.mark.parametrize("path", WRITES)
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b"1" * 5000,
        b'{"id": "\xff"}',
        rb'{"id": "\ud800", "text": "\ud800"}',
        '{"id": "1"}'.encode("utf-16"),
        b"[" * 100_000,
        b'{"a":' * 100_000,
    ],
    ids=["empty", "cut", "null", "list", "number", "latin", "surrogate", "utf-16", "deep list", "deep object"],
)
def test_nonsense_is_told_from_a_fault(shop, path, body):
    """A body that cannot be read is a 400 with a code: whatever was sent, the server is not to blame."""
    browser = Browser(shop)
    browser.open()

    with capture_logs() as logs:
        answer = browser.send("POST", path, content=body, headers=JSON)

    assert problem(answer) == (400, "unreadable")
    assert not [one for one in logs if one["log_level"] == "error"]


@pytest.mark.parametrize("depth", [50, 200, 400, 800, 990, 1500])
def test_form_with_deep_values_is_sent_back(shop, depth):
    """A value of any depth is a wrong value, or a body that cannot be read."""
    nested = b'{"a":' * depth + b"1" + b"}" * depth

    answer = Browser(shop).send(
        "POST", "/forms", content=b'{"id": "f", "fields": {"email": %b}}' % nested, headers=JSON
    )

    assert answer.status_code in {400, 422}


@pytest.mark.parametrize("path", WRITES)
@pytest.mark.parametrize("media_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
def test_other_types_are_no_json(shop, path, media_type):
    """What a form on any page could send unasked is a 415, whatever is in it."""
    answer = Browser(shop).send("POST", path, content=b"{}", headers={"Content-Type": media_type})

    assert problem(answer) == (415, "media_type")


@pytest.mark.parametrize("value", ["\0", "a\0b", "\n", "\u202e", "\ufeff", "x" * 9000, 2**70, -1, 1.5, True, [], {}])
def test_odd_values_do_no_harm(any_shop, value):
    """Odd values in any field are taken as text or refused, on every store; what was written before can be read."""
    browser = Browser(any_shop)
    browser.say("Hello")
    bodies = {
        "/messages": {"id": "1", "text": "x", "attachments": [], "block": "", "choice": ""},
        "/forms": {"id": "2", "form": "contact", "block": "", "fields": {"email": "ann@shop.example"}},
        "/identity": {"id": "3"} | dict.fromkeys(PERSON),
        "/seen": {"conversation": 1, "message": 1},
        "/session": {"is_open": False, "keep": True},
        "/typing": {"is_typing": True},
    }

    answers = [
        browser.send("POST", path, json=body | {name: value}).status_code
        for path, body in bodies.items()
        for name in body
    ]
    answers += [
        browser.send("POST", "/forms", json={"id": "4", "fields": {name: value}}).status_code
        for name in ("email", "phone", "account", "name", "x\0")
    ]
    answers.append(browser.send("POST", "/identity", json={"id": "5", "traits": {"a\0": "b\0"}}).status_code)

    assert set(answers) <= {200, 204, 400, 404, 422}
    assert "Hello" in browser.texts()


@pytest.mark.parametrize("number", [-1, 2**63, 10**400, 1.5, "x", None])
def test_position_that_is_none_is_refused(shop, number):
    """How far a conversation was read is a message's number, and nothing beyond what those can be."""
    browser = Browser(shop)
    conversation = browser.say("Hello")

    answers = [
        browser.post("/seen", conversation=conversation, message=number),
        browser.post("/seen", conversation=number, message=1),
    ]

    assert [problem(one) for one in answers] == [(400, "unreadable")] * 2


@pytest.mark.parametrize("name", ["conversation", "before", "after"])
@pytest.mark.parametrize("value", ["-1", str(2**63), "9" * 50, "x", "", "%00", "1;drop"])
def test_number_that_is_none_is_refused(shop, name, value):
    """Numbers beyond those of messages and conversations are a 400."""
    browser = Browser(shop)
    browser.say("Hello")

    answer = browser.send("GET", f"/messages?{name}={value}")

    assert problem(answer) == (400, "unreadable")


def test_too_many_fields_are_refused(shop):
    """A form of more fields than any has, and attachments beyond twenty, are a 400."""
    browser = Browser(shop)

    fields = browser.submit(**{f"field{number}": "x" for number in range(51)})
    attachments = browser.post("/messages", id="m", text="x", attachments=["0" * 32] * 21)

    assert [problem(one) for one in (fields, attachments)] == [(400, "unreadable")] * 2


def test_large_body_is_refused(tmp_path):
    """A body beyond the limit is a 413, announced or not, and the connection ends with it."""
    with opened(fresh_store("sqlite", tmp_path), tmp_path, limits=Limits(body_bytes=100)) as shop:

        async def endless():
            while True:
                yield b" " * 50

        announced = Browser(shop).post("/messages", id="m", text="x" * 100)
        unannounced = Browser(shop).send("POST", "/messages", content=endless(), headers=JSON)

    assert [one.status_code for one in (announced, unannounced)] == [413, 413]
    assert announced.headers["connection"] == unannounced.headers["connection"] == "close"


def test_body_that_drips_is_not_waited_for(tmp_path):
    """A JSON body has its time as a whole: a byte now and then puts nothing off."""
    with opened(fresh_store("sqlite", tmp_path), tmp_path, limits=Limits(body_time_s=0.05)) as shop:

        async def drip():
            while True:
                yield b" "
                await asyncio.sleep(0.001)

        answers = [Browser(shop).send("POST", path, content=drip(), headers=JSON) for path in WRITES]

    assert [problem(one) for one in answers] == [(408, "slow")] * len(WRITES)
    assert {one.headers["connection"] for one in answers} == {"close"}


@pytest.mark.parametrize("method", ["HEAD", "TRACE", "PUT", "PATCH", "CONNECT"])
def test_other_methods_are_refused(shop, method):
    """No address does anything by a method that it does not name, and none echoes what it was sent."""
    answers = [
        shop.ask(method, f"/widget/chat{path}", headers={"Cookie": "a=secret"})
        for path in ("", "/session", "/messages", "/events", "/files/0")
    ]

    assert {one.status_code for one in answers} == {405}
    assert not any("secret" in one.text for one in answers)


def test_no_answer_is_kept_by_caches(shop):
    """What belongs to one visitor is stored by no cache, refusals among it."""
    browser = Browser(shop)
    browser.say("Hello")

    answers = [browser.get(path) for path in ("", "/messages", "/conversations", "/files/0")]
    answers += [browser.open(), browser.post("/messages", id=""), Browser(shop).get("/messages")]

    assert {one.headers["cache-control"] for one in answers} == {"no-store"}


# -- come again later


def test_app_that_shuts_down_says_when_to_come_again(shop):
    """While the app drains, what is written is a 503 with a pause, and what is there can still be read."""
    browser = Browser(shop)
    browser.say("Hello")
    shop.run(shop.app.on_shutdown[-1]())

    answers = [
        browser.post("/messages", id="m", text="More"),
        browser.submit(email="ann@shop.example"),
        browser.identify(email="ann@shop.example"),
    ]

    assert [problem(one) for one in answers] == [(503, "busy")] * 3
    assert {one.headers["retry-after"] for one in answers} == {"5"}
    assert browser.texts() == ["Hello"]


def test_full_queue_says_when_to_come_again(shop, monkeypatch):
    """What finds no room is a 503 with whole seconds, and is taken when it comes again under the same id."""
    browser = Browser(shop)
    browser.open()

    def refuse(arrivals):
        raise TransientError("the queue is full", retry_after_s=1.2)

    commit, shop.hub.commit = shop.hub.commit, refuse
    refused = browser.post("/messages", id="m", text="Hello")
    shop.hub.commit = commit
    taken = browser.post("/messages", id="m", text="Hello")

    assert (problem(refused), refused.headers["retry-after"]) == ((503, "busy"), "2")
    assert (taken.status_code, browser.texts()) == (200, ["Hello"])


def test_fault_is_told_without_what_was_written(shop):
    """A bug is a 500 without a word, and a line in the log with its place alone."""
    browser = Browser(shop)
    browser.open()

    def fail(arrivals):
        raise KeyError("Ann's own words")

    shop.hub.commit = fail
    with capture_logs() as logs:
        answer = browser.post("/messages", id="m", text="Ann's own words")

    assert (answer.status_code, answer.content) == (500, b"")
    assert "Ann" not in str(logs)
