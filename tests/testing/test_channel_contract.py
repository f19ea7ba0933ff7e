"""Each law of `ChannelContract` passes on a right channel, and fails on one that breaks this law."""

import contextlib
import hashlib
import hmac
import inspect
import json
import random
import re
import signal
import socket
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode

import pytest
import structlog
from attrs import evolve, field, frozen
from attrs.validators import instance_of

from convsdk.core.events import DeliveryStatus, MessageReceived, Noted, StatusChanged
from convsdk.core.model import Attachment, Claim, Direction, IdentityHint, Trust
from convsdk.core.ports import Capabilities, Channel, Response, Secret, is_secret
from convsdk.errors import Forbidden, ParseError
from convsdk.testing.builders import request
from convsdk.testing.channel_contract import ChannelContract, Golden
from convsdk.testing.observing import within

pytestmark = pytest.mark.once  # the kit's laws run against every channel on each version

SECRET = "pigeon-signing-secret"
log = structlog.get_logger()


def _is_number(_, attribute, value):
    if not value.isdigit():
        raise ValueError(f"{attribute.name}: {value!r} is no number: write digits")


@frozen(kw_only=True)
class PigeonSettings:
    loft: str = field(validator=_is_number)
    secret: Secret = field(validator=instance_of(Secret))


def signature(body):
    """Give the right signature of `body`."""
    return "sha256=" + hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()


class Pigeon(Channel):
    """A right channel: signed JSON, with everything that a capability stands for."""

    type = "pigeon"
    settings = PigeonSettings
    can = Capabilities(verifies=True, challenges=True, attachments=True, reactions=True, statuses=True, echoes=True)

    def verify(self, request):
        expected = hmac.new(self.config.secret.reveal().encode(), request.body, hashlib.sha256).hexdigest()
        given = request.headers.get("X-Sign", "").encode("utf-8", "replace")
        if not hmac.compare_digest(given, b"sha256=" + expected.encode()):
            raise Forbidden(f"channel {self.name!r}: the signature in X-Sign is not right")

    def challenge(self, request):
        return Response(body=b"hello") if request.method == "GET" else None

    def parse(self, request):
        try:
            items = json.loads(request.body)["items"]
            return tuple(self.event(item, request) for item in items)
        except (ValueError, KeyError, TypeError, RecursionError, OverflowError, OSError) as error:
            raise ParseError(f"channel {self.name!r}: no pigeon post") from error

    def event(self, item, request):
        kind, number, at = str(item["kind"]), self.external_id(item, request), self.at(item, request)
        if kind == "status":
            return StatusChanged(external_id=number, status=DeliveryStatus.READ, at=at)
        if kind == "reaction":
            return Noted(external_id=number, kind="reaction", at=at)
        hint = self.hint(item, at)
        files = tuple(Attachment(name=self.text(one)) for one in item.get("files", []))
        direction = Direction.OUTBOUND if kind == "echo" else Direction.INBOUND
        return MessageReceived(
            external_id=number,
            hint=hint,
            at=at,
            text=self.text(item.get("text", "")),
            attachments=files,
            direction=direction,
            detail=self.detail(item),
        )

    def external_id(self, item, request):
        number = item["id"]
        if not isinstance(number, str) or not 0 < len(number) < 100:
            raise ParseError("no id")
        return self.text(number)

    def hint(self, item, at):
        return IdentityHint(at=at, identifiers=(Claim("pigeon", self.text(item["from"]), Trust.CHANNEL),))

    def at(self, item, request):
        return datetime.fromtimestamp(item["at"], UTC)

    def text(self, value):
        return re.sub("[\0\ud800-\udfff]", "\ufffd", str(value))

    def detail(self, item):
        return {}


def post(*items, path="/"):
    """Give the signed request that holds `items`."""
    body = json.dumps({"items": items}).encode()
    return request(body, headers={"X-Sign": signature(body)}, url=path)


TEXT = {"kind": "text", "id": "m1", "from": "ann", "text": "The cat sat upon a mat", "at": 1767225600}


class PigeonContract(ChannelContract):
    pigeon = Pigeon
    secrets = (SECRET,)
    settings_cases = (({"loft": "x", "secret": Secret(SECRET)}, "loft"), ({"loft": "7"}, "secret"))
    examples = 40
    golden = (
        Golden(name="text", request=post(TEXT), events=1, signed_by=("X-Sign",)),
        Golden(name="file", request=post({**TEXT, "id": "m2", "files": ["a.png"]}), events=1),
        Golden(
            name="all the rest",
            request=post(*({**TEXT, "kind": kind, "id": kind} for kind in ("echo", "reaction", "status"))),
            events=3,
        ),
        Golden(name="handshake", request=request(method="GET"), events=0),
    )

    def channel(self):
        return self.pigeon("loft", PigeonSettings(loft="7", secret=Secret(SECRET)))


class TestPigeon(PigeonContract):
    """The right channel passes every law."""


def binding(case, law):
    """Hold the channel to a law, though it may only warn until its release."""
    made = getattr(case, law).law
    assert made.concerns(case)
    made.check(case)


def broken(law, *, pigeon=Pigeon, **contract):
    """Give the text with which `law` fails on the channel `pigeon`."""
    case = type("Case", (PigeonContract,), {"pigeon": pigeon, **contract})()
    with pytest.raises(pytest.fail.Exception) as failure:
        binding(case, law)
    text = str(failure.value)
    assert "why it matters:" in text
    assert "how to mend it:" in text
    return text


def with_(**members):
    """Give the pigeon channel with some members replaced by wrong ones."""
    return type("WrongPigeon", (Pigeon,), {"__module__": __name__, **members})


def test_every_law_is_shown_to_fail():
    """Each law of the contract is broken by some test of this file."""
    laws = [name for name in dir(ChannelContract) if name.startswith("test_")]
    files = (Path(__file__), Path(__file__).with_name("test_sending_contract.py"))
    source = "".join(file.read_text(encoding="utf-8") for file in files)

    assert [law for law in laws if not re.search(rf'broken\(\s*"{law}"', source)] == []


@pytest.mark.parametrize("name", ["", "Pigeon post", "pigeon-post", "7up", None, "päckchen"])
def test_type_that_is_no_name(name):
    """A type that no configuration could write is told."""
    assert repr(name) in broken("test_type_is_a_name", pigeon=with_(type=name))


def test_settings_error_without_the_field():
    """A settings error that does not say which field is wrong is told."""

    def refuse(_, __, value):
        raise ValueError("bad value")

    vague = frozen(type("Vague", (), {"__annotations__": {"loft": str}, "loft": field(validator=refuse)}))

    text = broken(
        "test_settings_errors_name_the_field",
        pigeon=with_(settings=vague),
        settings_cases=[({"loft": "x"}, "loft")],
    )
    assert "does not name 'loft'" in text


def test_wrong_settings_that_are_accepted():
    """Settings that nobody checks are told."""
    cases = [({"loft": "7", "secret": Secret(SECRET)}, "secret")]

    assert "accepted" in broken("test_settings_errors_name_the_field", settings_cases=cases)


def test_settings_error_of_another_kind():
    """A settings error that the configuration does not gather is told."""

    def refuse(_, __, value):
        raise KeyError("loft")

    harsh = frozen(type("Harsh", (), {"__annotations__": {"loft": str}, "loft": field(validator=refuse)}))
    cases = [({"loft": "x"}, "loft")]

    text = broken("test_settings_errors_name_the_field", pigeon=with_(settings=harsh), settings_cases=cases)

    assert "KeyError" in text


def test_settings_error_that_shows_a_secret():
    """A settings error that quotes the secret is told, and not repeated."""

    def refuse(_, __, value):
        raise ValueError(f"secret: {value.reveal()} is too short")

    leaky = frozen(type("Leaky", (), {"__annotations__": {"secret": Secret}, "secret": field(validator=refuse)}))
    cases = [({"secret": Secret(SECRET)}, "secret")]

    text = broken("test_settings_errors_name_the_field", pigeon=with_(settings=leaky), settings_cases=cases)

    assert "holds a secret" in text
    assert SECRET not in text


def test_settings_error_that_shows_the_wrong_secret():
    """A settings error that quotes the secret it refuses is told, though that is not the channel's own."""

    def refuse(_, __, value):
        raise ValueError(f"secret: {value.reveal()} is too short")

    leaky = frozen(type("Leaky", (), {"__annotations__": {"secret": Secret}, "secret": field(validator=refuse)}))
    cases = [({"secret": Secret("a-new-secret")}, "secret")]

    text = broken("test_settings_errors_name_the_field", pigeon=with_(settings=leaky), settings_cases=cases)

    assert "holds a secret" in text


def test_settings_without_cases():
    """A channel with settings and no wrong ones to show is told."""
    assert "settings_cases" in broken("test_settings_errors_name_the_field", settings_cases=())


def settings_with(secret, **types):
    """Give the pigeon whose settings have this field for the secret, and others of these types, and their class."""
    members = {"__annotations__": types | {"secret": Secret}, "__module__": __name__, "secret": secret}
    shape = frozen(kw_only=True)(type("Odd", (), members | dict.fromkeys(types, "7")))
    return with_(settings=shape), shape


@pytest.mark.parametrize("kind", [Any, object])
def test_setting_of_any_type(kind):
    """A setting that takes whatever is written there is told, beside one with a type."""
    pigeon, shape = settings_with(field(default=Secret("s"), validator=is_secret()), loft=str, age=kind)

    text = broken("test_each_setting_has_its_type", channel=lambda self: pigeon("loft", shape()))

    assert "anything for 'age'" in text


def counts_on_a_secret(_, __, value):
    """Take a secret, as a validator that looks for nothing else."""
    if not value.reveal():
        raise ValueError("secret is empty: give one")


SECRET_FIELDS = {
    "unchecked": field(default=Secret("s")),
    "checked without its name": field(default=Secret("s"), validator=counts_on_a_secret),
    "several": field(default=(Secret("s"),)),
}


def secretive(one):
    """Give a contract about the pigeon with such a field for a secret."""
    pigeon, shape = settings_with(one)
    return {"pigeon": pigeon, "channel": lambda self: pigeon("loft", shape())}


@pytest.mark.parametrize("one", SECRET_FIELDS.values(), ids=SECRET_FIELDS)
def test_secret_that_may_be_plain(one):
    """A field with a secret that takes a plain text as well, or does not say that it refuses it, is told."""
    assert "plain text for 'secret'" in broken("test_each_setting_has_its_type", **secretive(one))


SAFE_FIELDS = {
    "checked": field(default=Secret("s"), validator=is_secret()),
    "converted": field(default="s", converter=lambda given: given if isinstance(given, Secret) else Secret(given)),
    "made": field(default=Secret("s"), init=False),
}


@pytest.mark.parametrize("one", SAFE_FIELDS.values(), ids=SAFE_FIELDS)
def test_secret_that_is_never_plain(one):
    """A field that checks its secret, makes one of what is given, or takes nothing, keeps the law."""
    binding(type("Case", (PigeonContract,), secretive(one))(), "test_each_setting_has_its_type")


def test_no_golden_requests():
    """A contract without golden requests shows nothing, and says so."""
    assert "no golden" in broken("test_golden_requests_give_their_events", golden=())


@pytest.mark.parametrize("events", [2, 0, ()])
def test_golden_request_with_other_events(events):
    """A golden request that gives other events than expected is told."""
    golden = [Golden(name="text", request=post(TEXT), events=events)]

    assert "expected" in broken("test_golden_requests_give_their_events", golden=golden)


def test_parse_that_gives_an_iterator():
    """Events that can be walked over once only are told."""
    lazy = with_(parse=lambda self, request: iter(Pigeon.parse(self, request)))

    assert "core.events" in broken("test_golden_requests_give_their_events", pigeon=lazy)


class Trusting(Pigeon):
    def parse(self, request):
        return tuple(self.event(item, request) for item in json.loads(request.body)["items"])


class TrustsValues(Pigeon):
    def parse(self, request):
        try:
            document = json.loads(request.body)
        except (ValueError, RecursionError) as error:
            raise ParseError("no JSON") from error
        if not isinstance(document, dict) or not isinstance(document.get("items"), list):
            raise ParseError("no items")
        return tuple(self.event(item, request) for item in document["items"])


class TrustsTheEnd(Pigeon):
    def parse(self, request):
        if b'"kind"' in request.body and not request.body.endswith(b"}"):
            raise EOFError("cut off")
        return super().parse(request)


class TrustsFields(Pigeon):
    def parse(self, request):
        request.headers["X-Sign"].encode()
        return super().parse(request)


@pytest.mark.parametrize("pigeon", [Trusting, TrustsValues, TrustsTheEnd, TrustsFields])
def test_parse_that_raises_something_else(pigeon):
    """An exception other than ParseError is found: by any bytes, a changed value, a cut or a changed field."""
    assert "parse raises" in broken("test_parse_raises_nothing_but_parse_error", pigeon=pigeon)


def as_form(request):
    """Give the request with its body in the field of a form, as some platforms send JSON."""
    return evolve(request, body=urlencode({"v": "1", "payload": request.body.decode()}).encode())


class FormPigeon(Pigeon):
    """A right channel that reads its JSON out of a form."""

    can = evolve(Pigeon.can, verifies=False, challenges=False)

    def challenge(self, request):
        return None

    def parse(self, request):
        form = dict(parse_qsl(request.body.decode("utf-8", "replace")))
        return super().parse(evolve(request, body=form.get("payload", "").encode()))


class TrustsThePayload(FormPigeon):
    """Calls a method of what is mostly a text."""

    def text(self, value):
        return super().text(value.strip())

    def external_id(self, item, request):
        return super().external_id(item, request).strip()


class TrustsTheForm(FormPigeon):
    """Takes it that a field is always there, and is a number."""

    def parse(self, request):
        form = dict(parse_qsl(request.body.decode("utf-8", "replace")))
        assert "payload" not in form or form["v"].isdigit()
        return super().parse(request)


@pytest.mark.parametrize(
    ("pigeon", "told"), [(FormPigeon, ""), (TrustsThePayload, "AttributeError"), (TrustsTheForm, "KeyError")]
)
def test_json_in_a_form_is_changed_like_any(pigeon, told):
    """A value in the JSON of a form's field is replaced as one in a body of JSON is, and so is each field."""
    law = "test_parse_raises_nothing_but_parse_error"
    golden = (Golden(name="text", request=as_form(post({**TEXT, "files": ["a"]})), events=1),)
    contract = {"pigeon": pigeon, "golden": golden, "examples": 1}

    if told:
        assert told in broken(law, **contract)
    else:
        binding(type("Case", (PigeonContract,), contract)(), law)


def _read_on_garbage(examples):
    read = []

    class Remembers(Pigeon):
        def parse(self, request):
            read.append(request)
            return super().parse(request)

    contract = type("Case", (PigeonContract,), {"pigeon": Remembers, "examples": examples})
    contract().test_parse_raises_nothing_but_parse_error()
    return [(one.body, dict(one.headers)) for one in read]


def test_search_is_the_same_at_every_run():
    """What a law tries is no matter of luck, and `examples` says how much of it there is."""
    first, again, longer = (_read_on_garbage(examples) for examples in (30, 30, 130))

    assert first == again
    assert len(longer) > len(first) + 50


def _wait(_, request):
    if b"items" not in request.body:  # the golden requests come back
        threading.Event().wait()


def _loop(_, request):
    while b"items" not in request.body:
        pass


def _backtrack(_, request):
    if not request.body.strip(b"a"):
        re.match("(a+)+$", "a" * 40 + "b")


@pytest.mark.parametrize("get_stuck", [_wait, _loop, _backtrack])
def test_parse_that_never_comes_back(get_stuck):
    """The law says within the time that is set which request it was and where it is, also of what yields to nobody."""

    def parse(self, request):
        with contextlib.suppress(Exception):  # a channel's own net does not catch the end
            get_stuck(self, request)
        return Pigeon.parse(self, request)

    told = broken("test_parse_raises_nothing_but_parse_error", pigeon=with_(parse=parse), patience_s=0.2)

    lines, first = inspect.getsourcelines(get_stuck)
    places = [f"{__file__}:{first + number}" for number in range(1, len(lines))]
    assert told.startswith(tuple(f"parse has not come back within 0.2 s, and is at {place}, from" for place in places))
    assert re.search(r"from POST '/', \{\}, \{'x-sign': .*\}, b'", told)


@pytest.mark.parametrize("name", ["verify", "challenge"])
def test_verify_that_never_comes_back(name):
    """So are those who look at a request before it is read, and the text has no secret that stands in a request."""
    stuck = {name: lambda _, request: threading.Event().wait() if SECRET in request.url else None}
    golden = (Golden(name="text", request=post(TEXT, path=f"/{SECRET}"), events=1),)

    told = broken("test_golden_requests_are_authentic", pigeon=with_(**stuck), golden=golden, patience_s=0.2)

    assert "has not come back within 0.2 s" in told
    assert "from POST '/***'" in told


def test_search_that_gets_stuck_ends_at_once():
    """It is not looked for a smaller request: each try would take as long."""
    tried = []

    def parse(self, request):
        if b"items" not in request.body and not request.headers:  # as only the search makes them
            tried.append(request)
            threading.Event().wait()
        return Pigeon.parse(self, request)

    broken("test_parse_raises_nothing_but_parse_error", pigeon=with_(parse=parse), patience_s=0.2)

    assert len(tried) == 1


def test_timer_of_somebody_else_is_left_alone():
    """Whoever limits the whole test keeps their own limit."""
    rung = []
    before = signal.signal(signal.SIGALRM, lambda *_: rung.append(1))
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    try:
        with within(0.01, str):
            while not rung:
                time.sleep(0.01)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)

    assert rung == [1]


def test_parse_with_random_ids():
    """Ids made by chance are told."""
    chance = with_(external_id=lambda self, item, request: str(random.random()))  # noqa: S311

    assert "the second time" in broken("test_parse_is_deterministic", pigeon=chance)


def test_parse_that_keeps_state():
    """Events that depend on what the instance has seen before are told."""

    class Counts(Pigeon):
        seen = 0

        def detail(self, item):
            self.seen += 1
            return {"seen": self.seen}

    assert "the second time" in broken("test_parse_is_deterministic", pigeon=Counts)


def test_parse_with_numbers_of_one_process():
    """An id made by hash(), which is another one in the next process, is told."""
    hashed = with_(external_id=lambda self, item, request: str(hash(item["id"])))

    assert "calls hash()" in broken("test_parse_is_deterministic", pigeon=hashed)


def _look_up(self, item):
    try:
        socket.create_connection(("127.0.0.1", 9))
    except OSError:
        return {}
    return {}


def _resolve_name(self, item):
    socket.getfqdn("localhost")
    return {}


@pytest.mark.parametrize("detail", [_look_up, _resolve_name])
def test_parse_that_uses_the_network(detail):
    """A look-up is told, even where its failure is swallowed."""

    class Curious(Pigeon):
        def parse(self, request):
            try:
                return super().parse(request)
            except OSError:
                return ()

    Curious.detail = detail

    assert "network" in broken("test_parse_and_verify_use_no_network", pigeon=Curious)


_now = time.time


@pytest.mark.parametrize(
    "at",
    [
        lambda self, item, request: datetime.now(UTC),
        lambda self, item, request: datetime.fromtimestamp(time.time(), UTC),
        lambda self, item, request: datetime.fromtimestamp(_now(), UTC),
        lambda self, item, request: (time.monotonic(), Pigeon.at(self, item, request))[1],
    ],
)
def test_parse_that_reads_the_clock(at):
    """The clock is not read, neither through the module nor through a name imported early."""
    assert "reads the clock" in broken("test_parse_and_verify_use_no_clock", pigeon=with_(at=at))


def test_adapter_that_reads_the_clock_for_another():
    """The clock is found in the module of an adapter that the channel under test builds on."""
    builds_on = type("Builds", (with_(at=lambda self, item, request: datetime.now(UTC)),), {"__module__": "elsewhere"})

    assert "reads the clock" in broken("test_parse_and_verify_use_no_clock", pigeon=builds_on)


def test_parse_that_depends_on_the_clock_through_a_library():
    """Where a library reads the clock for the channel, the events differ under another time."""
    library = {"__name__": "somebody.elses", "time": time}
    exec("def year():\n    return time.time() // (365 * 86400)", library)  # noqa: S102

    hidden = with_(detail=lambda self, item: {"year": library["year"]()})

    assert "shows another time" in broken("test_parse_and_verify_use_no_clock", pigeon=hidden)


def test_external_id_from_the_time_of_receipt():
    """An id that changes at a redelivery is told."""
    late = with_(external_id=lambda self, item, request: f"{item['id']}/{request.received_at.isoformat()}")

    assert "later" in broken("test_external_ids_are_stable_under_redelivery", pigeon=late)


def test_external_id_given_twice():
    """Two events with one id are told, by the names of their golden requests."""
    same = with_(external_id=lambda self, item, request: "same")

    text = broken("test_external_ids_are_unique", pigeon=same)

    assert "'text', 'file'" in text


@pytest.mark.parametrize(
    "external_id",
    [lambda self, item, request: "", lambda self, item, request: f"{request.body!r}" * 9],
)
def test_external_id_that_cannot_be_kept(external_id):
    """An empty or endless id is told."""
    text = broken("test_external_ids_can_be_kept", pigeon=with_(external_id=external_id))

    assert "characters" in text


def test_hint_with_an_id():
    """A channel that makes hint ids is told."""
    named = with_(hint=lambda self, item, at: IdentityHint(id="mine", at=at))

    assert "'mine'" in broken("test_hint_ids_are_left_empty", pigeon=named)


def test_naive_time():
    """A time without a zone is told, with the field."""

    class Naive(Pigeon):
        def at(self, item, request):
            return super().at(item, request).replace(tzinfo=None)

        def hint(self, item, at):
            return super().hint(item, at.replace(tzinfo=UTC))

    assert "at without a time zone" in broken("test_times_are_aware", pigeon=Naive)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (lambda self, value: str(value).replace("\0", ""), "a lone surrogate"),
        (lambda self, value: str(value).encode("utf-8", "replace").decode(), "a NUL"),
    ],
)
def test_text_that_cannot_be_stored(text, told):
    """Text that some store cannot write is found in what a value is replaced by."""
    assert f"holds {told}" in broken("test_text_can_be_written_down", pigeon=with_(text=text))


def test_detail_with_no_number():
    """A NaN that came in as JSON and goes out in a detail is told."""
    careless = with_(detail=lambda self, item: {name: one for name, one in item.items() if isinstance(one, float)})

    assert "is nan" in broken("test_text_can_be_written_down", pigeon=careless)


def test_detail_that_is_no_json():
    """A detail that does not encode as JSON is told."""
    odd = with_(detail=lambda self, item: {"what": object()})

    assert "JSON" in broken("test_text_can_be_written_down", pigeon=odd)


CAPABILITIES = ("verifies", "challenges", "messages", "attachments", "reactions", "statuses", "echoes")


@pytest.mark.parametrize("name", CAPABILITIES)
def test_capability_that_is_not_declared(name):
    """What a golden request shows must be declared."""
    declared = Capabilities(**{one: one != name for one in CAPABILITIES})

    assert f"shows {name!r}" in broken("test_capabilities_are_true", pigeon=with_(can=declared))


@pytest.mark.parametrize("name", [*CAPABILITIES, "sends"])
def test_capability_that_is_not_shown(name):
    """What is declared must be shown by a golden request."""
    blind = with_(
        can=Capabilities(messages=name == "messages", **({} if name == "messages" else {name: True})),
        challenge=lambda self, request: None,
        verify=lambda self, request: None,
    )
    golden = [Golden(name="nothing", request=post(), events=0, signed_by=("X-Sign",))]

    assert f"declares {name!r}" in broken("test_capabilities_are_true", pigeon=blind, golden=golden)


def test_channel_that_sends_and_does_not_say_so():
    """A channel with a `build` of its own declares that it sends."""
    sends = with_(build=lambda self, message: None)

    assert "shows 'sends'" in broken("test_capabilities_are_true", pigeon=sends)


def test_golden_request_that_is_refused():
    """A channel that refuses what its platform sends is told."""

    def verify(self, request):
        raise Forbidden("no")

    assert "is refused" in broken("test_golden_requests_are_authentic", pigeon=with_(verify=verify))


def _only_if_there(self, request):
    if "X-Sign" in request.headers:
        Pigeon.verify(self, request)


def _compares_text(self, request):
    if not hmac.compare_digest(request.headers.get("X-Sign", ""), signature(request.body)):
        raise Forbidden("no")


def _looks_at_the_start(self, request):
    if not signature(request.body).startswith(request.headers.get("X-Sign", "x")):
        raise Forbidden("no")


def _forgets_the_body(self, request):
    if not request.headers.get("X-Sign", "").startswith("sha256="):
        raise Forbidden("no")


def _stumbles(self, request):
    if request.headers["X-Sign"] != signature(request.body):
        raise Forbidden("no")


@pytest.mark.parametrize(
    ("verify", "told"),
    [
        (_only_if_there, "lets a request in with no X-Sign"),
        (_compares_text, "a foreign letter"),
        (_looks_at_the_start, "lets a request in with an empty"),
        (_forgets_the_body, "lets a request in"),
        (_stumbles, "KeyError"),
    ],
)
def test_verify_that_is_not_tight(verify, told):
    """Each common hole of a signature check is found."""
    assert told in broken("test_forged_requests_are_forbidden", pigeon=with_(verify=verify))


def _answers_anybody(self, request):
    return Response(body=b"hello") if "token" in request.query else None


def _tells_the_token(self, request):
    if "token" in request.query and request.query["token"] != SECRET:
        raise Forbidden(f"the token is not {SECRET}")
    return _answers_anybody(self, request)


@pytest.mark.parametrize(
    ("law", "challenge", "told"),
    [
        ("test_forged_requests_are_forbidden", _answers_anybody, "lets a request in with an empty token"),
        ("test_refusals_leak_nothing", _tells_the_token, "a secret"),
    ],
)
def test_handshake_that_is_not_tight(law, challenge, told):
    """A handshake is broken like a signature, where it says by what it is signed."""
    handshake = request(method="GET", query={"token": SECRET})
    golden = [Golden(name="handshake", request=handshake, events=0, signed_by=("token",))]

    assert told in broken(law, pigeon=with_(challenge=challenge), golden=golden)


@pytest.mark.parametrize("forged", [(post(TEXT),), ("old", post(TEXT)), (("old",),), ((post(TEXT), "old"),), (7,)])
def test_forged_request_without_how(forged):
    """A request alone, or a pair that is not in a list of them, is told as what it is, and how to write it."""
    told = broken("test_forged_requests_are_forbidden", forged=forged)

    assert "which is no pair of a text and a request" in told
    assert "forged = (('a signature of yesterday', request(...)),)" in told


def test_forged_request_that_is_let_in():
    """A request that only its author can make is looked at as those of the kit are."""
    told = broken("test_forged_requests_are_forbidden", forged=(("a signature of yesterday", post(TEXT)),))

    assert "verify lets a request in with a signature of yesterday" in told


def test_verify_of_which_nobody_says_what_signs():
    """A channel that verifies names its signature in a golden request."""
    golden = [Golden(name="text", request=post(TEXT), events=1)]

    assert "signed_by" in broken("test_forged_requests_are_forbidden", golden=golden)


def _leak(make):
    def verify(self, request):
        try:
            Pigeon.verify(self, request)
        except Forbidden as error:
            make(self, request, error)

    return verify


def _expected(self, request, _):
    raise Forbidden(f"expected {signature(request.body)}") from None


def _secret(self, request, _):
    raise Forbidden(f"not signed with {self.config.secret.reveal()}") from None


def _body(self, request, _):
    raise Forbidden(f"wrong signature on {request.body!r}") from None


def _in_the_cause(self, request, _):
    raise Forbidden("no") from ValueError(signature(request.body))


def _in_the_log(self, request, error):
    log.warning("refused", expected=signature(request.body))
    raise error


def _printed(self, request, error):
    print(self.config.secret.reveal())  # noqa: T201
    raise error


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (_expected, "the right signature"),
        (_secret, "a secret"),
        (_body, "a part of the body"),
        (_in_the_cause, "the right signature"),
        (_in_the_log, "the right signature"),
        (_printed, "a secret"),
    ],
)
def test_refusal_that_leaks(make, told):
    """A refusal that helps a forger is told, wherever it says it, and the test's output does not repeat it."""
    text = broken("test_refusals_leak_nothing", pigeon=with_(verify=_leak(make)))

    assert f"holds {told}" in text
    assert SECRET not in text


def test_parse_error_with_the_secret():
    """A ParseError that quotes a secret is told."""

    def parse(self, request):
        raise ParseError(f"not by {self.config.secret.reveal()}")

    assert "a secret" in broken("test_parse_errors_leak_nothing", pigeon=with_(parse=parse))


def _logs_it(self, item):
    log.info("parsed", secret=self.config.secret.reveal())
    return {}


@pytest.mark.parametrize(
    "members",
    [
        {"__repr__": lambda self: f"<pigeon {self.config.secret.reveal()}>"},
        {"__str__": lambda self: f"pigeon {self.config.secret.reveal()}"},
        {"detail": _logs_it},
    ],
)
def test_secret_that_is_shown(members):
    """A secret in repr, str or a log line is told."""
    assert "holds a secret" in broken("test_secrets_are_never_shown", pigeon=with_(**members))


def test_secret_in_an_event():
    """A secret that an event carries away is told, even while its repr is masked."""
    carries = with_(detail=lambda self, item: {"settings": self.config})

    assert "an event of 'text'" in broken("test_secrets_are_never_shown", pigeon=carries)


def test_secret_in_a_list_of_secrets():
    """A secret is looked for where the settings keep several, too."""
    several = frozen(kw_only=True)(type("Several", (), {"__annotations__": {"secrets": tuple[Secret, ...]}}))

    class Tells(Pigeon):
        settings = several

        def __repr__(self):
            return self.config.secrets[0].reveal()

    text = broken(
        "test_secrets_are_never_shown",
        secrets=(),
        golden=(),
        channel=lambda self: Tells("loft", several(secrets=(Secret(SECRET),))),
    )

    assert "repr of the channel" in text


def test_secret_in_a_plain_field():
    """A secret that the settings keep as text is told, since their repr shows it."""
    plain = frozen(kw_only=True)(type("Plain", (), {"__annotations__": {"secret": str}}))

    text = broken("test_secrets_are_never_shown", channel=lambda self: Pigeon("loft", plain(secret=SECRET)))

    assert "repr of the settings" in text


def test_verifying_without_secrets():
    """A channel that verifies gives the secrets to look for."""
    text = broken(
        "test_secrets_are_never_shown",
        secrets=(),
        channel=lambda self: Pigeon("loft", PigeonSettings(loft="7", secret=Secret(""))),
    )

    assert "no secrets are given" in text
