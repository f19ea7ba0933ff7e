import asyncio
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from attrs import evolve, field, frozen
from attrs.exceptions import FrozenInstanceError

from convsdk.core.events import DeliveryStatus, MessageReceived
from convsdk.core.model import (
    Attachment,
    Claim,
    Contact,
    Decision,
    Direction,
    HeldIdentifier,
    Identifier,
    IdentityHint,
    Message,
    Node,
    Outcome,
    Page,
    Rule,
    Ruling,
    RulingKind,
    ShownTrait,
    Step,
    Trait,
    Trust,
    traits_of,
)
from convsdk.core.ports import (
    Capabilities,
    Channel,
    Choice,
    File,
    Headers,
    Outbound,
    Receipt,
    Request,
    Response,
    Secret,
    Widget,
    is_secret,
    parts_of,
)
from convsdk.core.texts import utf16_units
from convsdk.errors import PermanentError, UnsupportedError

NOW = datetime(2026, 1, 1, tzinfo=UTC)
NAIVE = datetime(2026, 1, 1)  # noqa: DTZ001  (what must be refused)
ANN = Identifier("email", "", "ann@x.example")


class Pigeon(Channel):
    type = "pigeon"
    settings = dict

    def parse(self, request):
        return []


def contact(identifiers=(), **traits):
    """Give a contact."""
    held = tuple(HeldIdentifier(node=Node(one), trust=Trust.PROVEN, spelling=one.value) for one in identifiers)
    return Contact(id=7, created_at=NOW, how="", identifiers=held, traits=traits)


def name(value, *, is_verified=True):
    """Give the name that lists show."""
    return ShownTrait(value=value, trust=Trust.AGENT, is_verified=is_verified, hint="h1", at=NOW)


# -- secrets


@pytest.mark.parametrize("show", [repr, str, "{}".format, "{!r:>20}".format, lambda one: f"{[one]}", "%s".__mod__])
def test_secret_is_never_shown(show):
    """However a secret gets into a text, stars stand there."""
    shown = show(Secret("hunter2"))

    assert "hunter2" not in shown
    assert "Secret('***')" in shown


def test_secret_cannot_be_formatted_with_a_width():
    """A format that would cut or pad a secret is refused, and the refusal does not show it."""
    with pytest.raises(TypeError) as caught:
        "{:>20}".format(Secret("hunter2"))

    assert "hunter2" not in str(caught.value)


def test_secret_is_revealed_where_it_is_used():
    """Only `reveal` gives the value."""
    assert Secret("hunter2").reveal() == "hunter2"


def test_secrets_are_compared_by_value():
    """Equal secrets are equal, an empty one is none, and none can be changed."""
    secret = Secret("a")

    assert secret == Secret("a")
    assert secret != Secret("b")
    assert secret
    assert not Secret("")
    with pytest.raises(FrozenInstanceError):
        secret._value = "b"  # noqa: SLF001


# -- requests


@pytest.mark.parametrize("fields", [[("X-A", "1"), ("x-a", "2"), ("B", "3")], {"X-A": "1", "B": "3"}])
def test_headers_are_found_in_any_case(fields):
    """The first of a repeated field is its value, whatever the case of its name."""
    headers = Headers(fields)

    assert headers["x-A"] == "1"
    assert headers.get("b") == "3"
    assert headers.get("c") is None
    assert "X-a" in headers
    assert "c" not in headers
    assert list(headers) == ["x-a", "b"]
    assert len(headers) == 2


def test_all_values_of_a_header_are_given_in_order():
    """A repeated field keeps every value, and an absent one has none."""
    headers = Headers([("Received", "a"), ("received", "b"), ("RECEIVED", "c")])

    assert headers.all("Received") == ("a", "b", "c")
    assert headers.all("Sent") == ()
    assert len(Headers()) == 0


def test_repr_of_a_request_shows_no_content():
    """Neither body nor query nor headers of a request get into a log."""
    request = Request(
        received_at=NOW,
        body=b"hunter2",
        url="/in/shop?token=hunter2",
        query={"token": "hunter2"},
        headers=Headers({"Authorization": "hunter2"}),
    )

    assert repr(request) == str(request) == "Request(POST /in/shop, 7 bytes)"


def test_request_is_an_empty_post_unless_it_says_more():
    """Everything but the moment has a default."""
    request = Request(received_at=NOW)

    assert repr(request) == "Request(POST /, 0 bytes)"
    assert (request.body, dict(request.query), dict(request.headers), request.envelope) == (b"", {}, {}, None)


# -- channels


def test_channel_does_nothing_by_itself():
    """A channel that overrides only `parse` verifies nothing, has no address, and answers an empty 200."""
    channel = Pigeon("coop", {"loft": 3})
    request = Request(received_at=NOW)

    assert repr(channel) == "<pigeon channel 'coop'>"
    assert (channel.name, channel.config) == ("coop", {"loft": 3})
    assert channel.addresses == ()
    assert channel.verify(request) is None
    assert channel.parse(request) == []
    assert channel.challenge(request) is None
    assert channel.answer([]) == Response(status=200, body=b"", media_type="text/plain; charset=utf-8", headers=())


def test_channel_promises_nothing_but_messages():
    """What a channel can do beyond reading messages, it must declare."""
    assert Pigeon.can == Capabilities(
        verifies=False,
        challenges=False,
        messages=True,
        sends=False,
        attachments=False,
        reactions=False,
        statuses=False,
        echoes=False,
        max_text=None,
        max_per_s=None,
        is_idempotent=False,
    )


def test_channel_that_cannot_answer_says_so():
    """Sending through a channel that only reads names the channel and whom it did not write to."""
    with pytest.raises(UnsupportedError) as caught:
        Pigeon("coop", {}).build(_outbound("hello"))

    assert str(caught.value) == "channel 'coop' of type 'pigeon' cannot answer: pigeon:p-9 was not written to"


def test_channel_that_does_not_listen_says_so():
    """A channel is sent its requests, unless it says that it listens."""
    loft = Pigeon("loft", {})

    with pytest.raises(UnsupportedError, match="channel 'loft' of type 'pigeon' does not listen"):
        asyncio.run(loft.listen(None))

    assert not loft.listens


def test_channel_that_cannot_answer_reads_no_receipt():
    """A platform's answer to a channel that never asked is refused."""
    with pytest.raises(UnsupportedError) as caught:
        Pigeon("coop", {}).interpret(httpx.Response(200))

    assert str(caught.value) == "channel 'coop' of type 'pigeon' cannot answer, so <Response [200 OK]> is not its"


class Carrier(Pigeon):
    can = Capabilities(sends=True, max_text=5)

    def build(self, message):
        return httpx.Request("POST", "http://loft.example", content=message.text)

    def interpret(self, response):
        return Receipt(external_id=response.text)


def _outbound(text, **fields):
    return Outbound(to=Identifier("pigeon", "", "p-9"), text=text, token="t", at=NOW, **fields)


def test_long_text_goes_in_parts():
    """Each part fits and has a token of its own, and the files go with the last."""
    files = (File(name="a.png", media_type="image/png", content=b"png"),)

    parts = Carrier("coop", {}).parts(_outbound("hello there", attachments=files))

    assert [(one.text, one.token, one.attachments) for one in parts] == [("hello", "t", ()), ("there", "t.1", files)]


def test_text_without_limit_is_one_part():
    """Where the platform has no limit, a message is its own only part."""
    message = _outbound("hello there")

    assert Pigeon("coop", {}).parts(message) == (message,)


PICTURE, INVOICE = (File(name=name, media_type="image/png", content=b"png") for name in ("a.png", "b.png"))
OFFER = {"block": "size", "choices": [{"label": "Small", "value": "s"}, {"label": "Large", "value": "l"}], "by": "ann"}


@pytest.mark.parametrize("choices", ["Small", ["Small"], [{"label": "Small"}], [{"label": 1, "value": "s"}]])
def test_malformed_choices_are_refused(choices):
    """What has no label and value offers nothing: whoever sent it is told."""
    message = _outbound("Which?", detail={"choices": choices})

    with pytest.raises(PermanentError, match="give each a label and a value"):
        _ = message.choices


def test_files_go_apart_where_the_platform_wants_them_so():
    """Each file is a message behind the texts, and the choices go with the last text."""
    can = Capabilities(max_text=5, sends_files_apart=True)

    parts = parts_of(_outbound("hello there", attachments=(PICTURE, INVOICE), detail=OFFER), can)

    assert [(one.text, one.token, one.attachments, len(one.choices)) for one in parts] == [
        ("hello", "t", (), 0),
        ("there", "t.1", (), 2),
        ("", "t.2", (PICTURE,), 0),
        ("", "t.3", (INVOICE,), 0),
    ]
    assert {one.detail["by"] for one in parts} == {"ann"}


def test_file_without_a_text_is_all_there_is():
    """No empty text goes before it."""
    (part,) = parts_of(_outbound(" ", attachments=(PICTURE,)), Capabilities(sends_files_apart=True))

    assert (part.text, part.token, part.attachments) == ("", "t", (PICTURE,))


def test_text_is_measured_as_the_platform_does():
    """An emoji counts as two where UTF-16 does."""
    can = Capabilities(max_text=4, text_size=utf16_units)

    assert [one.text for one in parts_of(_outbound("😀😀😀"), can)] == ["😀😀", "😀"]


def test_choices_of_a_message():
    """Each has its label and what a press of it sends back; a platform without buttons spells them out."""
    message = _outbound("Which?", detail=OFFER)

    assert message.choices == (Choice(label="Small", payload="size:s"), Choice(label="Large", payload="size:l"))
    assert message.spelt_out == "Which?\n- Small\n- Large"
    assert (_outbound("Yes.").choices, _outbound("Yes.").spelt_out) == ((), "Yes.")


def test_message_that_cannot_go_says_so():
    """Another kind of identifier is another channel's, and nothing is not sent."""
    with pytest.raises(PermanentError, match=r"^pigeon:p-9 is no dove or phone, so nothing was sent: "):
        _outbound("hello").require_kind("dove", "phone")
    with pytest.raises(PermanentError, match="has neither a text nor a file"):
        _outbound(" \n").require_content()
    _outbound("hello").require_kind("pigeon")
    _outbound("", attachments=(PICTURE,)).require_content()
    _outbound("hello").require_content()


@pytest.mark.parametrize(
    ("heard_at", "is_open"),
    [(None, False), (NOW - timedelta(hours=24), False), (NOW - timedelta(hours=23, minutes=59), True)],
)
def test_window_closes_after_what_the_person_last_wrote(heard_at, is_open):
    """Whoever never wrote has opened none."""
    assert _outbound("hello", heard_at=heard_at).is_within(timedelta(hours=24)) is is_open


@frozen(kw_only=True)
class Loft:
    key: Secret = field(validator=is_secret("copy it from the loft"))
    pin: Secret = field(default=Secret("1234"), validator=is_secret("take four digits", pattern="[0-9]{4}"))


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"key": "plain-key"}, "key must be a secret, .*: copy it from the loft"),
        ({"key": Secret(" ")}, "key must be a secret, .*: copy it from the loft"),
        ({"key": Secret("k"), "pin": Secret("12345")}, "pin must be a secret, .*: take four digits"),
        ({"key": Secret("k"), "pin": Secret("١٢٣٤")}, "pin must be a secret, .*: take four digits"),
    ],
)
def test_field_that_holds_no_secret_is_refused(wrong, told):
    """The error names the field and the remedy, and nothing of what was given."""
    with pytest.raises(ValueError, match=f"^{told}$") as caught:
        Loft(**wrong)

    assert "plain-key" not in str(caught.value)
    assert "12345" not in str(caught.value)


def test_secret_that_fits_is_taken():
    """A secret is any text that is not blank, unless a pattern says more."""
    assert Loft(key=Secret("k")).pin.reveal() == "1234"


def test_message_is_sent_by_its_request():
    """What `build` gives goes through the client, and `interpret` reads what comes back."""

    async def send():
        transport = httpx.MockTransport(lambda request: httpx.Response(200, content=request.content))
        async with httpx.AsyncClient(transport=transport) as client:
            return await Carrier("coop", {}).send(_outbound("hello"), client)

    assert asyncio.run(send()) == Receipt(external_id="hello", status=DeliveryStatus.SENT)


def test_request_that_delivers_has_the_time_outs_of_its_client():
    """A platform that hangs is waited for as long as the client waits, and not for ever."""
    seen = []

    def answer(request):
        seen.append(request.extensions["timeout"])
        return httpx.Response(200, content=request.content)

    async def send():
        async with httpx.AsyncClient(transport=httpx.MockTransport(answer), timeout=7) as client:
            await Carrier("coop", {}).send(_outbound("hello"), client)

    asyncio.run(send())

    assert seen == [{"connect": 7, "read": 7, "write": 7, "pool": 7}]


def test_channel_names_a_message_before_it_is_sent():
    """The external id of what is to be sent comes from its token, and a channel fetches nothing unless it says so."""
    coop = Pigeon("coop", {})

    assert coop.outbound_id("t") == "out/t"
    assert coop.wants(Request(received_at=NOW)) == ()


# -- values of the model


def test_channel_asks_its_platform_nothing_unless_it_says_what():
    """A channel knows of no profiles, and has nothing to check or subscribe, unless it says so."""
    pigeon, answer = Pigeon("loft", {}), httpx.Response(200)

    assert pigeon.profile_request(ANN) is None
    assert pigeon.profile(ANN, answer, at=NOW) is None
    assert (pigeon.checks(), pigeon.judge([answer]), pigeon.subscribe()) == ((), (), ())


def test_traits_are_those_with_a_value():
    """A blank says nothing about a person."""
    assert traits_of(Trust.CHANNEL, name=" Ann ", company=" ") == (Trait("name", "Ann", Trust.CHANNEL),)


def test_channel_tells_nobody_anything_by_itself():
    """Whoever writes gets no automatic answer unless the channel says so."""
    written = MessageReceived(external_id="m1", hint=IdentityHint(at=NOW), at=NOW)

    assert Pigeon("loft", {}).automatic_answer(written) is None


def test_trust_is_ordered():
    """A claim weighs least, then staff, then the platform, then proof."""
    assert list(Trust) == [Trust.ASSERTED, Trust.AGENT, Trust.CHANNEL, Trust.PROVEN]
    assert sorted(Trust) == list(Trust)


@pytest.mark.parametrize(
    ("identifier", "epoch", "text"),
    [
        (ANN, 0, "email:ann@x.example"),
        (ANN, 2, "email:ann@x.example#2"),
        (Identifier("psid", "page1", "p-9"), 0, "psid:page1/p-9"),
        (Identifier("psid", "page1", "p-9"), 1, "psid:page1/p-9#1"),
    ],
)
def test_node_is_written_with_scope_and_epoch(identifier, epoch, text):
    """The scope stands before the value, a later epoch behind it."""
    assert str(Node(identifier, epoch)) == text


def test_moment_without_time_zone_is_refused():
    """A naive time constructs neither a hint nor a ruling."""
    remedy = "has no time zone: give an aware datetime"

    with pytest.raises(ValueError, match=remedy):
        IdentityHint(id="h1", at=NAIVE)
    with pytest.raises(ValueError, match=remedy):
        Ruling(id="m1", kind=RulingKind.MERGE, a=ANN, b=ANN, at=NAIVE, by="kim")


def test_id_of_a_hint_is_short_text():
    """An id of 512 characters is taken; a longer one, or one that is no text, is not."""
    assert len(IdentityHint(id="x" * 512, at=NOW).id) == 512
    with pytest.raises(ValueError, match="512"):
        IdentityHint(id="x" * 513, at=NOW)
    with pytest.raises(TypeError):
        IdentityHint(id=7, at=NOW)


def test_hint_says_nothing_unless_told():
    """A bare hint names nobody, and may create a contact."""
    hint = IdentityHint(at=NOW)

    assert (hint.id, hint.identifiers, hint.visitor, hint.traits, hint.consents) == ("", (), None, (), ())
    assert (hint.may_create, hint.how, hint.by) == (True, "", None)


def test_trait_needs_a_name():
    """A trait without a name is no trait; one without a value is."""
    assert Trait("name", "", Trust.AGENT).value == ""
    with pytest.raises(ValueError, match="name"):
        Trait("", "Ann", Trust.AGENT)


def test_claim_is_world_wide_unless_scoped():
    """A claim's scope is empty by default."""
    assert Claim("email", "ann@x.example", Trust.AGENT).scope == ""


def test_replay_gives_the_first_decision_again():
    """A duplicate differs from the first decision in its outcome alone."""
    first = Decision(hint="h1", outcome=Outcome.CREATED, contact=3, steps=(Step(Rule.ANCHOR, "email:a"),))

    assert first.as_replayed() == Decision(
        hint="h1", outcome=Outcome.DUPLICATE, contact=3, steps=(Step(Rule.ANCHOR, "email:a"),)
    )


@pytest.mark.parametrize(
    ("one", "called"),
    [
        (contact([ANN], name=name("Ann")), "Ann"),
        (contact([ANN], name=name("Ann", is_verified=False)), "Ann (unverified)"),
        (contact([ANN]), "email:ann@x.example"),
        (contact([ANN], company=name("Shop")), "email:ann@x.example"),
        (contact(), "contact 7"),
    ],
)
def test_contact_is_called_by_the_best_that_is_known(one, called):
    """The name comes first, then the first identifier, then the number."""
    assert one.name == called


def test_page_is_iterated_over_its_items():
    """A page is its items, and the last page has no cursor."""
    page = Page((1, 2))

    assert list(page) == [1, 2]
    assert page.next is None


# -- the widget


def test_channel_is_shown_by_no_widget_unless_it_says_how():
    """Most channels have their own surface, no bot on it and no forms; requests come to them by themselves."""
    loft = Pigeon("loft", {})

    assert (loft.widget, loft.bot, dict(loft.forms), loft.is_webhook) == (None, None, {}, True)
    assert loft.follow_up == ""


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ({"origins": ("shop.example",)}, r"write it as 'https://shop.example'"),
        ({"origins": ("https://shop.example/",)}, r"write it as 'https://shop.example'"),
        ({"origins": ("https://*.shop.example",)}, r"write it as 'https://shop.example'"),
        ({"color": "blue"}, r"write one such as '#0b57d0'"),
    ],
)
def test_widget_refuses_what_no_browser_would_match(setting, told):
    """A slip in an origin or a colour is told when the widget is set up, with how to write it."""
    with pytest.raises(ValueError, match=told):
        Widget(**setting)


@pytest.mark.parametrize("origin", ["https://shop.example", "http://127.0.0.1:8000", "http://[::1]:8000"])
def test_widget_takes_origins_as_browsers_send_them(origin):
    """An origin is a scheme, a host and perhaps a port."""
    assert Widget(origins=(origin,)).origins == (origin,)


def test_no_message_holds_the_bytes_of_an_attachment():
    """However a message comes about, what its attachments hold is not part of it."""
    attachment = Attachment(name="order.pdf", content=b"%PDF")

    message = Message(
        id=1,
        conversation=1,
        channel="support",
        external_id="1",
        direction=Direction.OUTBOUND,
        at=datetime(2026, 1, 1, tzinfo=UTC),
        text="",
        attachments=(attachment,),
    )

    assert message.attachments == (evolve(attachment, content=None),)
    assert evolve(message).attachments == message.attachments
    assert "%PDF" not in repr(attachment)


def test_channel_that_says_nothing_takes_what_the_app_takes():
    """A channel has no limit of its own for the size of a request, unless it says so."""

    class Plain(Channel):
        type = "plain"

        def parse(self, request):
            return []

    assert Plain("plain", None).body_bytes == 0
