import hashlib
import hmac
import json
from datetime import UTC, datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from convsdk.channels.chat import ChatChannel, ChatSettings, Form, convsdk_channels
from convsdk.core.blocks import FormBlock
from convsdk.core.events import FormRejected, Identified, MessageReceived, Noted
from convsdk.core.flow import Flow, FlowError
from convsdk.core.model import Attachment, Claim, Trait, Trust
from convsdk.core.ports import Headers, Request, Secret
from convsdk.errors import Forbidden, ParseError
from convsdk.hookspecs import Context

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)
SECRET = "a-secret-of-the-chat"
V1 = hashlib.sha256(b"v1").hexdigest()[:32]


def channel(**settings):
    """Give a chat channel with these settings."""
    return ChatChannel("shop-chat", ChatSettings(**settings))


def message(**changes):
    """Give a message as the widget sends it."""
    return {"type": "message", "id": "m1", "visitor": "v1", "conversation": "c1", "text": "Hello"} | changes


def form(*, fields=None, **changes):
    """Give a form submission as the widget sends it."""
    given = {"email": "ann@shop.example"} if fields is None else fields
    plain = {"type": "form", "id": "f1", "visitor": "v1", "conversation": "c1", "form": "contact", "fields": given}
    return plain | changes


def request(content, **changes):
    """Give the request with `content`, bytes or JSON."""
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    return Request(**{"received_at": NOW, "body": body} | changes)


def signed(body, secret=SECRET):
    """Give the header value that signs `body`."""
    return "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def parse(content, **settings):
    """Give the events that a channel with these settings reads."""
    return channel(**settings).parse(request(content))


def problems(fields, **settings):
    """Give field and code of each problem of a form with these fields."""
    (event,) = parse(form(fields=fields), **settings)
    assert isinstance(event, FormRejected)
    return {(one.field, one.code) for one in event.problems}


def test_plugin_brings_the_chat_channel():
    """The hook gives the one channel class."""
    assert convsdk_channels(Context(version="1")) == [ChatChannel]


def test_message_is_filed_under_its_visitor_and_conversation():
    """A message has the widget's id and thread, the visitor, and the time of receipt."""
    (event,) = parse(message())

    assert isinstance(event, MessageReceived)
    assert (event.external_id, event.thread, event.text, event.at) == (f"m1/{V1}", "c1", "Hello", NOW)
    assert (event.hint.visitor, event.hint.id, event.hint.identifiers) == ("v1", "", ())


def test_array_gives_its_events_in_order():
    """An array of messages and forms gives one event for each, in order."""
    events = parse([message(), form()])

    assert [event.external_id for event in events] == [f"m1/{V1}", f"f1/{V1}"]


@pytest.mark.parametrize("content", [message, form, lambda **changes: form(fields={}, **changes)])
def test_visitors_may_choose_the_same_id(content):
    """What two visitors send under one id are two events, and no id shows a cookie."""
    first, second = parse([content(visitor="cookie-1"), content(visitor="cookie-2")])

    assert first.external_id != second.external_id
    assert "cookie" not in first.external_id


def test_message_cannot_take_the_id_of_a_rejected_form():
    """No id that a visitor can choose is that of their rejected form."""
    rejected, sent = parse([form(fields={}), message(id="f1#rejected")])

    assert rejected.external_id != sent.external_id


def test_opening_is_noted_under_its_visitor():
    """That a visitor opened the chat is noted in the conversation, and makes no contact."""
    (event,) = parse({"type": "open", "id": "o1", "visitor": "v1", "conversation": "c1"})

    assert isinstance(event, Noted)
    assert (event.external_id, event.kind, event.text) == (f"o1/{V1}", "chat_opened", "opened the chat")
    assert (event.thread, event.at) == ("c1", NOW)
    assert (event.hint.visitor, event.hint.may_create) == ("v1", False)


def test_answer_names_its_block():
    """A message, a form and a rejected form say which block they answer, and a message which choice."""
    chosen, filled, rejected = parse(
        [message(block="topic", choice="or\0der"), form(block="contact"), form(block="contact", fields={})]
    )

    assert (chosen.block, chosen.choice) == ("topic", "or\ufffdder")
    assert (filled.block, rejected.block) == ("contact", "contact")


def test_bot_shows_the_forms_of_its_channel():
    """The forms of a chat are those of its bot, and one that is missing is refused."""
    bot = Flow(blocks=(FormBlock(id="who", form="contact", text="Who are you?"),))
    forms = {"contact": Form(email="required", phone="required")}

    assert channel(bot=bot, forms=forms).bot.forms == forms
    with pytest.raises(FlowError, match="there is no form 'contact'"):
        ChatSettings(bot=bot, forms={"other": Form(email="required")})


def test_attachment_is_described():
    """An attachment is handed on with its name, type, size and address."""
    photo = {"name": "a.png", "media_type": "image/png", "size": 3, "url": "https://files.example/a.png"}

    (event,) = parse(message(text="", attachments=[photo]))

    assert event.attachments == (Attachment(**photo),)


def test_identity_beside_a_message_is_asserted():
    """What the page says of the visitor beside a message is a claim, and blank values are left out."""
    (event,) = parse(message(identity={"email": " ann@shop.example ", "account": "Shop", "name": " "}))

    assert event.hint.identifiers == (Claim("email", "ann@shop.example", Trust.ASSERTED),)
    assert event.hint.traits == (Trait("company", "Shop", Trust.ASSERTED),)


def test_nul_in_a_text_is_replaced():
    """A NUL, which PostgreSQL cannot keep, is replaced and costs no message."""
    (event,) = parse(message(text="a\0b"))

    assert event.text == "a\ufffdb"


def test_form_identifies_with_asserted_values():
    """A valid form gives e-mail, phone as E.164, company and name, all asserted."""
    fields = {"email": "Ann@Shop.example", "phone": "030 123456", "account": "Shop", "name": "Ann\u00a0Lee"}

    (event,) = parse(form(fields=fields), country="DE")

    assert isinstance(event, Identified)
    assert (event.external_id, event.thread, event.hint.how) == (f"f1/{V1}", "c1", "chat form")
    assert event.hint.visitor == "v1"
    assert event.hint.identifiers == (
        Claim("email", "Ann@Shop.example", Trust.ASSERTED),
        Claim("phone", "+4930123456", Trust.ASSERTED),
    )
    assert event.hint.traits == (
        Trait("company", "Shop", Trust.ASSERTED),
        Trait("name", "Ann\u00a0Lee", Trust.ASSERTED),
    )


@pytest.mark.parametrize("blank", ["", "  ", "\u200b", None])
def test_blank_optional_field_is_as_absent(blank):
    """An optional or removed field that is blank is no problem and gives nothing."""
    definition = Form(email="required", name="removed")
    fields = {"email": "ann@shop.example", "phone": blank, "account": blank, "name": blank}

    (event,) = parse(form(fields=fields), forms={"contact": definition})

    assert [claim.kind for claim in event.hint.identifiers] == ["email"]
    assert event.hint.traits == ()


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, {("email", "required")}),
        ({"email": " "}, {("email", "required")}),
        ({"email": "ann"}, {("email", "invalid")}),
        ({"email": ["ann@shop.example"]}, {("email", "invalid")}),
        ({"email": "a" * 400}, {("email", "too_long")}),
        ({"email": "ann@shop.example", "phone": "12"}, {("phone", "invalid")}),
        ({"email": "ann@shop.example", "phone": "030 123456"}, {("phone", "invalid")}),
        ({"email": "ann@shop.example", "name": "A" * 256}, {("name", "too_long")}),
        ({"email": "ann@shop.example", "name": "A\nB"}, {("name", "invalid")}),
        ({"email": "ann@shop.example", "shoe": "42"}, {("shoe", "unknown_field")}),
        (
            {"email": "x", "phone": "x", "__class__": "x"},
            {("email", "invalid"), ("phone", "invalid"), ("__class__", "unknown_field")},
        ),
    ],
)
def test_wrong_field_is_named(fields, expected):
    """Each field that is wrong has a problem with its code."""
    assert problems(fields) == expected


def test_required_and_removed_fields_are_as_configured():
    """A required field must be there, a removed one must not."""
    definition = Form(email="required", phone="required", account="removed")

    found = problems({"email": "ann@shop.example", "account": "Shop"}, forms={"contact": definition})

    assert found == {("phone", "required"), ("account", "unknown_field")}


def test_form_that_is_not_configured_is_rejected():
    """Where forms are configured, one of another name is sent back."""
    assert problems(None, forms={"other": Form(email="required")}) == {("form", "invalid")}


def test_rejected_form_names_the_visitor_only():
    """A form that cannot be taken gives no evidence but the visitor, and keeps its conversation."""
    (event,) = parse(form(fields={"email": "ann@shop.example", "phone": "x", "name": "Ann"}))

    assert (event.hint.visitor, event.hint.identifiers, event.hint.traits) == ("v1", (), ())
    assert event.thread == "c1"


def test_corrected_form_is_no_duplicate_of_the_rejected_one():
    """The same id sent again with corrected fields has another external id."""
    (rejected,) = parse(form(fields={}))
    (corrected,) = parse(form())

    assert rejected.external_id != corrected.external_id == f"f1/{V1}"


@pytest.mark.parametrize("email", [{}, {"email": "optional"}, {"email": "removed"}, {"email": "no"}])
def test_form_without_required_email_is_refused(email):
    """A definition that omits, removes or relaxes the e-mail address does not construct."""
    with pytest.raises(ValueError, match="email"):
        Form(**email)


@pytest.mark.parametrize("name", ["phone", "account", "name"])
def test_unknown_presence_is_refused(name):
    """A field is required, optional or removed, and nothing else."""
    with pytest.raises(ValueError, match=name):
        Form(email="required", **{name: "maybe"})


@pytest.mark.parametrize(
    ("name", "value"),
    [("secret", Secret(" ")), ("secret", "hunter2"), ("country", "de"), ("country", "Germany")],
)
def test_unusable_setting_is_refused(name, value):
    """A settings error names its field."""
    with pytest.raises(ValueError, match=name) as refusal:
        ChatSettings(**{name: value})

    assert "hunter2" not in str(refusal.value)


def test_accepted_ids_are_answered():
    """What was taken is answered by its ids."""
    chat = channel()

    answer = chat.answer(chat.parse(request([message(), form()])))

    assert (answer.status, json.loads(answer.body)) == (200, {"accepted": ["m1", "f1"]})


def test_answer_gives_the_ids_that_were_sent():
    """The sender is answered by the ids that it chose, whatever is in them."""
    chat = channel()

    answer = chat.answer(chat.parse(request([message(id="a/b"), form(id="c#rejected", fields={})])))

    assert json.loads(answer.body)["accepted"] == ["a/b"]
    assert list(json.loads(answer.body)["problems"]) == ["c#rejected"]


def test_problems_are_answered_by_field():
    """A rejected form is answered with status 422 and each field's problem, beside what was taken."""
    chat = channel()

    answer = chat.answer(chat.parse(request([message(), form(fields={})])))

    problem = {"field": "email", "code": "required", "message": "Please enter your e-mail address."}
    assert answer.status == 422
    assert json.loads(answer.body) == {"accepted": ["m1"], "problems": {"f1": [problem]}}


def test_rightly_signed_body_is_verified():
    """The HMAC of the raw body is accepted."""
    content = request(message())

    channel(secret=Secret(SECRET)).verify(
        request(content.body, headers=Headers({"x-convsdk-signature": signed(content.body)}))
    )


@pytest.mark.parametrize(
    "fields",
    [
        [],
        [("X-Convsdk-Signature", "")],
        [("X-Convsdk-Signature", "sha256=ü")],
        [("X-Convsdk-Signature", "sha256=\ud800")],
        [("X-Convsdk-Signature", signed(b"{}", "another"))],
        [("X-Convsdk-Signature", signed(b"{}").removeprefix("sha256="))],
        [("X-Convsdk-Signature", signed(b"{}")), ("X-Convsdk-Signature", "sha256=0")],
    ],
)
def test_wrong_signature_is_forbidden(fields):
    """A signature that is missing, foreign, malformed or repeated is refused, and the refusal gives nothing away."""
    with pytest.raises(Forbidden) as caught:
        channel(secret=Secret(SECRET)).verify(request(b"{}", headers=Headers(fields)))

    assert SECRET not in str(caught.value)
    assert signed(b"{}")[7:] not in str(caught.value)


def test_unsigned_body_is_verified_without_a_secret():
    """Where no secret is set, nothing is asked for."""
    channel().verify(request(message()))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff",
        b"[" * 100_000,
        b'{"type":"form","id":"f","visitor":"v","fields":{"email":' + b"[" * 100_000,
        b'{"type":"message","id":"\\ud800","visitor":"v","text":"x"}',
        message(type="other"),
        message(id=""),
        message(id=1),
        message(visitor=" "),
        message(visitor="v" * 256),
        message(visitor="a\nb"),
        message(conversation="\0"),
        message(text="x" * 10_001),
        message(text=" "),
        message(block="A block"),
        message(choice="x" * 256),
        form(block="x" * 65),
        {"type": "open", "id": "o1", "visitor": " "},
        message(attachments=[{"name": "x", "url": "javascript:alert(1)"}]),
        message(attachments=[{"name": "x", "media_type": "image/png\n"}]),
        form(fields=[]),
        [message()] * 101,
    ],
)
def test_anything_else_is_a_parse_error(content):
    """A body that is no chat message or form is a parse error."""
    with pytest.raises(ParseError):
        parse(content)


def test_parse_error_quotes_nothing():
    """The text of a parse error holds no word of the body."""
    with pytest.raises(ParseError) as caught:
        parse(message(type="ann@shop.example"))

    assert "ann@" not in str(caught.value)


values = st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner, max_size=3))
names = st.sampled_from(["email", "phone", "account", "name"]) | st.text(max_size=20)
bodies = st.binary() | st.builds(
    lambda kind, fields, extra: json.dumps(
        {"type": kind, "fields": fields, "id": "i", "visitor": "v"} | extra
    ).encode(),
    st.sampled_from(["message", "form"]),
    st.dictionaries(names, values, max_size=6),
    st.dictionaries(st.sampled_from(["id", "visitor", "conversation", "text", "identity", "attachments"]), values),
)


@given(body=bodies, country=st.sampled_from(["", "DE", "ZZ"]))
@example(body=b"null", country="")
def test_any_bytes_give_events_or_a_parse_error(body, country):
    """Parsing is total and deterministic, and what it gives can be stored as UTF-8."""
    chat = channel(country=country)

    try:
        events = chat.parse(request(body))
    except ParseError:
        return

    assert repr(events).encode()
    assert chat.answer(events).body
    assert chat.parse(request(body)) == events
