"""Each law of `SendingContract` passes on a right channel that answers, and fails on one that breaks this law."""

import hashlib
import json
import socket
import time
from uuid import NAMESPACE_URL, uuid4, uuid5

import httpx
import pytest
import structlog
from attrs import evolve, field, frozen
from attrs.validators import instance_of

from convsdk.core.model import Identifier
from convsdk.core.ports import Capabilities, Channel, File, Outbound, Receipt, Secret
from convsdk.core.texts import pieces_of
from convsdk.errors import PermanentError, TransientError, UncertainError
from convsdk.testing import NOON, ChannelContract, Golden, GoldenAnswer, GoldenSend, request

pytestmark = pytest.mark.once  # as test_channel_contract.py

SECRET = "raven-access-token"
MOST = 20
log = structlog.get_logger()


@frozen(kw_only=True)
class RavenSettings:
    token: Secret = field(default=Secret(SECRET), validator=instance_of(Secret))


class Raven(Channel):
    """A right channel that answers, with everything that a capability for sending stands for."""

    type = "raven"
    settings = RavenSettings
    can = Capabilities(messages=False, sends=True, max_text=MOST, max_per_s=5, is_idempotent=True)

    def parse(self, request):
        return ()

    def build(self, message):
        content = {
            "to": message.thread or message.address or message.to.value,
            "text": message.text,
            "buttons": [one.label for one in message.choices],
            "files": [one.name for one in message.attachments],
        }
        headers = {"authorization": f"Bearer {self.config.token.reveal()}", "idempotency-key": message.token}
        return httpx.Request("POST", "https://raven.example/send", headers=headers, json=content)

    def interpret(self, response):
        if response.status_code == 429:
            raise TransientError("raven is busy: it is tried again")
        if response.is_server_error:
            raise UncertainError("raven fell silent: look whether it arrived")
        if not response.is_success:
            raise PermanentError(f"raven refuses ({response.status_code}): correct the message", code="no")
        try:
            return Receipt(external_id=str(json.loads(response.content)["id"]))
        except (ValueError, TypeError, LookupError, RecursionError):
            raise UncertainError("raven answers what cannot be read: look whether it arrived") from None


def said(text, **fields):
    """Give a message with this text."""
    return Outbound(**{"to": Identifier("raven", "", "ann"), "text": text, "token": "tok", "at": NOON, **fields})


def wanted(text, token="tok"):
    """Give the request for this text."""
    return evolved(Raven("tower", RavenSettings()).build(evolve(said(text), token=token)))


def evolved(request_):
    """Give a request as an author writes it down."""
    return httpx.Request(request_.method, request_.url, headers=request_.headers, content=request_.read())


FILES = tuple(File(name=name, media_type="text/plain", content=b"") for name in ("a.txt", "b.txt"))


class RavenContract(ChannelContract):
    raven = Raven
    secrets = (SECRET,)
    settings_cases = ()
    examples = 40
    golden = (Golden(name="nothing", request=request(b"{}"), events=0),)
    golden_sends = (
        GoldenSend(name="text", message=said("Hello"), requests=[wanted("Hello")]),
        GoldenSend(name="long", message=said("word " * 10, attachments=FILES), requests=3),
    )
    golden_answers = (
        GoldenAnswer(name="taken", response=httpx.Response(200, json={"id": "r1"}), gives=Receipt(external_id="r1")),
        GoldenAnswer(name="busy", response=httpx.Response(429), gives=TransientError),
        GoldenAnswer(name="refused", response=httpx.Response(404), gives=PermanentError),
        GoldenAnswer(name="silent", response=httpx.Response(500), gives=UncertainError),
    )

    def channel(self):
        return self.raven("tower", RavenSettings())


LAWS = [name for name in dir(ChannelContract) if name.startswith("test_") and "settings" not in name]


@pytest.mark.parametrize("law", LAWS)
def test_right_channel_keeps_every_law(law):
    """The right channel passes every law, also one that only warns until its release."""
    case = RavenContract()
    made = getattr(case, law).law

    if made.concerns(case):
        made.check(case)


@pytest.mark.parametrize("law", LAWS)
def test_channel_with_another_transport_keeps_every_law(law):
    """A channel that sends by another transport than HTTP passes every law, and has no requests to show."""

    async def send(self, message, client):
        return Receipt()

    members = {"build": Channel.build, "interpret": Channel.interpret, "send": send, "__module__": __name__}
    can = evolve(Raven.can, is_idempotent=False)
    long = said("word " * 10)
    sends = (
        GoldenSend(name="parts", message=long, requests=3),
        GoldenSend(name="itself", message=said("Hello"), requests=1),
    )
    case = type(
        "Case",
        (RavenContract,),
        {"raven": type("Pigeon", (Raven,), members | {"can": can}), "golden_sends": sends, "golden_answers": ()},
    )

    getattr(case(), law)()


def broken(law, *, raven=Raven, **contract):
    """Give the text with which `law` fails on the channel `raven`."""
    case = type("Case", (RavenContract,), {"raven": raven, **contract})()
    made = getattr(case, law).law  # which may only warn until its release
    assert made.concerns(case)
    with pytest.raises(pytest.fail.Exception) as failure:
        made.check(case)
    text = str(failure.value)
    assert "why it matters:" in text
    assert "how to mend it:" in text
    return text


def with_(**members):
    """Give the raven with some members replaced by wrong ones."""
    return type("WrongRaven", (Raven,), {"__module__": __name__, **members})


def cut(most):
    """Give `parts` that cut at `most` characters."""

    def parts(self, message):
        return [
            evolve(message, text=piece, token=f"{message.token}.{number}")
            for number, piece in enumerate(pieces_of(message.text, most=most))
        ]

    return parts


# -- what it can do


def test_no_golden_sends():
    """A channel that declares to answer and shows nothing is told."""
    assert "no golden sends" in broken("test_golden_sends_give_their_requests", golden_sends=())


@pytest.mark.parametrize("requests", [2, (), [wanted("Hallo")], [wanted("Hello", token="other")]])
def test_golden_send_with_other_requests(requests):
    """A golden send that goes as other requests than expected is told, without its secret."""
    sends = [GoldenSend(name="text", message=said("Hello"), requests=requests)]

    text = broken("test_golden_sends_give_their_requests", golden_sends=sends)

    assert "expected" in text
    assert SECRET not in text


def test_limit_that_is_never_met():
    """A limit of texts that no golden send reaches is told."""
    sends = [GoldenSend(name="text", message=said("Hello"), requests=1)]

    assert "max_text=20" in broken("test_capabilities_for_sending_are_shown", golden_sends=sends)


def test_rate_of_nothing():
    """A rate at which nothing would ever be sent is told."""
    still = with_(can=evolve(Raven.can, max_per_s=0))

    assert "max_per_s=0" in broken("test_capabilities_for_sending_are_shown", raven=still)


def keyed(key):
    """Give the raven whose key `key` makes of the message."""

    def build(self, message):
        return httpx.Request(
            "POST",
            "https://raven.example/send",
            json={"text": message.text, "at": str(message.at), "key": key(message)},
        )

    return with_(build=build)


@pytest.mark.parametrize(
    "key",
    [
        lambda message: "",
        lambda message: "always the same",
        lambda message: message.text,
        lambda message: str(uuid4()),
        lambda message: str(message.at),
        lambda message: str(uuid5(NAMESPACE_URL, f"{message.token} {message.at}")),
        lambda message: message.token.partition(".")[0],
        lambda message: message.external_id,
    ],
    ids=[
        "none",
        "constant",
        "of the text",
        "random",
        "by time",
        "other at each try",
        "shared by parts",
        "of all parts",
    ],
)
def test_idempotency_without_a_key(key):
    """A channel that declares to be idempotent, and has no key that is one token's alone at every try, is told."""
    assert "is_idempotent" in broken("test_capabilities_for_sending_are_shown", raven=keyed(key))


@pytest.mark.parametrize(
    "key",
    [
        lambda message: message.token,
        lambda message: str(uuid5(NAMESPACE_URL, message.token)),
        lambda message: hashlib.sha256(message.token.encode()).hexdigest(),
    ],
    ids=["itself", "uuid", "digest"],
)
def test_key_that_is_made_of_the_token(key):
    """A key may be the token, or what is made of all of it, as a platform wants it."""
    case = type("Case", (RavenContract,), {"raven": keyed(key)})()

    case.test_capabilities_for_sending_are_shown()


def test_key_of_a_channel_that_never_cuts():
    """A channel whose messages go as one need not take the token of a second part, and is held to its key."""

    def whole(self, message):
        if "." in message.token:
            raise PermanentError("raven takes no part")
        return Raven.build(self, message)

    can = evolve(Raven.can, max_text=None)
    sends = (GoldenSend(name="text", message=said("Hello"), requests=1),)
    case = type("Case", (RavenContract,), {"raven": with_(build=whole, can=can), "golden_sends": sends})()
    constant = type("Constant", (keyed(lambda message: "same"),), {"can": can, "__module__": __name__})

    case.test_capabilities_for_sending_are_shown()

    assert "is_idempotent" in broken("test_capabilities_for_sending_are_shown", raven=constant, golden_sends=sends)


# -- parts


def test_part_that_is_too_long():
    """A part over the limit is told."""
    assert "more than 20" in broken("test_no_part_is_too_long", raven=with_(parts=cut(MOST + 1)))


def test_text_that_is_cut_off():
    """A text whose end is cut off is told."""

    def parts(self, message):
        return [evolve(message, text=message.text[:MOST])]

    assert "do not say the same" in broken("test_no_text_is_lost_between_parts", raven=with_(parts=parts))


def test_text_that_is_not_sent():
    """A message that goes as nothing is told."""
    empty = with_(parts=lambda self, message: [])
    sends = [GoldenSend(name="empty", message=said(""), requests=0)]

    assert "0 parts" in broken("test_no_text_is_lost_between_parts", raven=empty, golden_sends=sends)


def test_file_that_goes_twice():
    """An attachment that goes with every part is told."""
    assert "its parts 6" in broken("test_no_file_is_lost_between_parts", raven=with_(parts=cut(MOST)))


@pytest.mark.parametrize(
    "token",
    [
        lambda message, number: message.token,
        lambda message, number: f"{message.token}.{number}.{uuid4()}",
        lambda message, number: f"{message.token}.{number}.{message.at}",
        lambda message, number: str(number),
    ],
    ids=["shared", "random", "by time", "of no message"],
)
def test_part_without_a_token_of_its_own(token):
    """A part whose token is another's, or another one at the next try, is told."""

    def parts(self, message):
        cuts = enumerate(pieces_of(message.text, most=MOST))
        return [evolve(message, text=piece, token=token(message, number)) for number, piece in cuts]

    assert "at the next try" in broken("test_parts_have_tokens_of_their_own", raven=with_(parts=parts))


# -- build and interpret


def built(change, **members):
    """Give the raven whose requests `change` makes, with other members besides."""
    return with_(**members, build=lambda self, message: change(self, message, Raven.build(self, message)))


def to_one_person(self, message, request_):
    """Send everything to Ann."""
    return Raven.build(self, evolve(message, to=Identifier("raven", "", "ann"), address="", thread=""))


def to_one_thread(self, message, request_):
    """Send everything to one thread, where there is any."""
    return Raven.build(self, evolve(message, thread="t-1" if message.thread else ""))


def files_to_one_person(self, message, request_):
    """Send each file whose thread nobody knows to Ann."""
    is_astray = message.attachments and not message.thread
    return to_one_person(self, message, request_) if is_astray else request_


TO_ANYBODY = (
    GoldenSend(name="to somebody", message=said("Hello"), requests=1),
    GoldenSend(name="in a thread", message=said("Hello", attachments=FILES, thread="t-9"), requests=1),
)


@pytest.mark.parametrize("change", [to_one_person, to_one_thread, files_to_one_person])
def test_answers_that_go_to_one_person(change):
    """A channel that sends everybody's answers to one person is told, though it is so in one branch alone."""
    text = broken("test_requests_depend_on_their_recipient", raven=built(change), golden_sends=TO_ANYBODY)

    assert "another recipient" in text


def keeps(law, *, raven=Raven, **contract):
    """Hold the channel `raven` to a law, though it may only warn until its release."""
    case = type("Case", (RavenContract,), {"raven": raven, **contract})()
    getattr(case, law).law.check(case)


ADDRESSES = [
    {},
    {"address": "Ann@mail.example"},
    {"thread": "t-9"},
    {"thread": "t"},
    {"to": Identifier("raven", "", "77")},
    {"to": Identifier("raven", "", "\u5c71\u7530")},
    {"to": Identifier("raven", "", "+")},
]


@pytest.mark.parametrize("given", ADDRESSES)
def test_recipient_may_be_named_in_any_way(given):
    """A channel that writes to the thread, the address or the person is right, however that is spelt."""
    keeps(
        "test_requests_depend_on_their_recipient",
        golden_sends=[GoldenSend(name="one", message=said("Hello", **given), requests=1)],
    )


def addressed(to):
    """Give the channel that writes to what `to` makes of a message."""
    return built(lambda self, message, _: Raven.build(self, evolve(message, thread=to(message))))


def numbered(message):
    """Give a number as the platform's clients have to."""
    return str(int(message.thread))


def in_this_room(message):
    """Refuse whom the one room of the channel does not hold."""
    if message.to.value != "ann":
        raise PermanentError(f"{message.to} is not in the room: nothing was sent")
    return "room"


@pytest.mark.parametrize(
    ("to", "given"),
    [
        (lambda message: message.thread, {"thread": "Queue"}),
        (lambda message: message.thread.lower(), {"thread": "Queue"}),
        (lambda message: message.thread.partition("/")[0], {"thread": "ann@raven.example/phone1"}),
        (lambda message: message.references[-1], {"references": ("c-1", "c-2")}),
        (numbered, {"thread": "-100123"}),
        (in_this_room, {}),
    ],
    ids=["thread alone", "lower case", "a part of the thread", "what is answered", "number", "one room"],
)
def test_recipient_may_be_known_by_one_thing_alone(to, given):
    """A channel is right that knows people by less than the message tells, or that can reach one alone."""
    keeps(
        "test_requests_depend_on_their_recipient",
        raven=addressed(to),
        golden_sends=[GoldenSend(name="one", message=said("Hello", **given), requests=1)],
    )


HEARING = evolve(Raven.can, messages=True)


def without_choices(self, message, request_):
    """Leave out the choices."""
    return Raven.build(self, evolve(message, detail={}))


def with_the_first_choice(self, message, request_):
    """Leave out all choices but the first."""
    return Raven.build(self, evolve(message, detail={**message.detail, "choices": message.detail["choices"][:1]}))


CHOICES = {"block": "topic", "choices": [{"value": "q", "label": "queue"}, {"value": "x", "label": "x"}]}


@pytest.mark.parametrize("detail", [{}, CHOICES], ids=["the law's own", "golden"])
@pytest.mark.parametrize("change", [without_choices, with_the_first_choice])
def test_choices_that_nobody_sees(change, detail):
    """A channel that leaves out choices is told, also where no golden send has any."""
    sends = [GoldenSend(name="question", message=said("Which?", detail=detail), requests=1)]

    raven = built(change, can=HEARING)

    assert "shows the choice" in broken("test_choices_are_shown", raven=raven, golden_sends=sends)


def as_lines(self, message):
    """Give the choices as lines of the text."""
    return Channel.parts(self, evolve(message, text=message.spelt_out, detail={}))


@pytest.mark.parametrize("law", ["test_choices_are_shown", "test_no_text_is_lost_between_parts"])
def test_choices_may_be_lines(law):
    """A channel without buttons shows its choices as lines of the text, which no other law takes amiss."""
    sends = [GoldenSend(name="question", message=said("Which?", detail=CHOICES), requests=1)]

    keeps(law, raven=with_(parts=as_lines), golden_sends=sends)


@pytest.mark.parametrize("can", [Raven.can, evolve(HEARING, sends=False)], ids=["hears nobody", "does not send"])
def test_choices_of_a_channel_that_no_bot_talks_on(can):
    """A channel that hears nobody, or does not send, is asked for no choices."""
    case = type("Case", (RavenContract,), {"raven": with_(can=can)})()

    assert not case.test_choices_are_shown.law.concerns(case)


def test_choices_that_a_template_leaves_no_room_for():
    """A channel whose golden sends are all of a form of the platform's is asked for no choices in them."""
    sends = [GoldenSend(name="template", message=said("Hi", detail={"template": "hello"}), requests=1)]

    keeps("test_choices_are_shown", raven=built(without_choices), golden_sends=sends)


def test_request_with_something_random():
    """A request that is another one at the second try is told."""

    def change(self, message, request_):
        request_.headers["x-nonce"] = str(uuid4())
        return request_

    assert "second time" in broken("test_requests_are_deterministic", raven=built(change))


def test_build_that_looks_at_the_clock():
    """A request with the present time in it is told."""

    def change(self, message, request_):
        request_.headers["x-at"] = str(int(time.time()))
        return request_

    text = broken("test_build_and_interpret_use_no_network_and_no_clock", raven=built(change))

    assert "time.time" in text


def test_build_that_depends_on_the_clock_of_a_library():
    """A request that another module stamps is told as well."""

    def change(self, message, request_):
        request_.headers["x-at"] = hashlib.md5(clock().encode(), usedforsecurity=False).hexdigest()
        return request_

    clock = eval("lambda: str(int(time.time()))", {"time": time, "str": str, "int": int, "__name__": "elsewhere"})  # noqa: S307  (code of another module)

    assert "another time" in broken("test_build_and_interpret_use_no_network_and_no_clock", raven=built(change))


def test_build_that_asks_the_network():
    """A request for which another one is made is told."""

    def change(self, message, request_):
        try:
            socket.create_connection(("127.0.0.1", 9))
        except OSError:
            return request_

    assert "socket" in broken("test_build_and_interpret_use_no_network_and_no_clock", raven=built(change))


def in_address(self, message, request_):
    """Put the token into the address."""
    return httpx.Request("POST", f"https://raven.example/send?token={self.config.token.reveal()}")


def in_log(self, message, request_):
    """Put the token into the log."""
    log.info("sending", token=self.config.token.reveal())
    return request_


@pytest.mark.parametrize(("change", "place"), [(in_address, "the address of"), (in_log, "the log of")])
def test_secret_that_leaks_when_sending(change, place):
    """A secret in an address or a log is told, and not repeated."""
    text = broken("test_requests_hide_secrets", raven=built(change))

    assert place in text
    assert SECRET not in text


def test_secret_that_leaks_with_an_error():
    """A secret in the error about an answer is told."""

    def interpret(self, response):
        raise PermanentError(f"raven does not know {self.config.token.reveal()}")

    assert "what is made of" in broken("test_requests_hide_secrets", raven=with_(interpret=interpret))


@pytest.mark.parametrize("place", [0, 1, 2])
def test_class_of_answers_that_is_not_shown(place):
    """A receipt or a class of error that no golden answer gives is told."""
    answers = [one for number, one in enumerate(RavenContract.golden_answers) if number != place]

    assert "no golden answer gives" in broken("test_answers_are_sorted", golden_answers=answers)


def test_answer_of_another_class():
    """An answer that is sorted otherwise is told."""

    def interpret(self, response):
        if response.status_code == 429:
            raise PermanentError("raven is busy")
        return Raven.interpret(self, response)

    assert "'busy'" in broken("test_answers_are_sorted", raven=with_(interpret=interpret))


def test_error_that_says_nothing():
    """An error without words is told."""

    def interpret(self, response):
        if response.status_code == 429:
            raise TransientError("")
        return Raven.interpret(self, response)

    assert "says nothing" in broken("test_answers_are_sorted", raven=with_(interpret=interpret))


def test_answer_that_stops_the_worker():
    """An answer on which interpret breaks is told."""

    def interpret(self, response):
        return Receipt(external_id=json.loads(response.content)["id"])

    assert "stops the worker" in broken("test_any_answer_is_understood", raven=with_(interpret=interpret))
