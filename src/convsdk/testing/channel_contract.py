"""The laws that every channel keeps, as tests: subclass `ChannelContract`, hand in a channel and golden requests.

::

    class TestSmsChannel(ChannelContract):
        secrets = ("s3cret-of-the-test",)
        settings_cases = (({"number": "abc", "secret": Secret("x")}, "number"),)
        golden = (Golden(name="one text", request=signed(b"..."), events=1, signed_by=("X-Sms-Signature",)),)

        def channel(self):
            return SmsChannel("shop-sms", SmsSettings(number="+4930123456", secret=Secret(self.secrets[0])))

A failure says what is wrong, why it matters and how to mend it.
"""

import base64
import hashlib
import hmac
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, ClassVar, TypeVar, get_args

import attrs
import msgspec
from attrs import evolve, frozen
from hypothesis import HealthCheck, given, settings

from convsdk.core.events import Event, MessageReceived, Noted, StatusChanged
from convsdk.core.model import Direction
from convsdk.core.ports import Channel, Request
from convsdk.errors import ConvsdkError, Forbidden, ParseError
from convsdk.redaction import SHORTEST
from convsdk.testing.builders import NOON
from convsdk.testing.laws import Level, fail, law
from convsdk.testing.observing import (
    captured,
    clock_call,
    guarded_sockets,
    leaves,
    logged,
    network_call,
    packages_of,
    refuse_leaks,
    secret_forms,
    secrets_in,
    texts_of,
    watched,
    within,
    years_later,
)
from convsdk.testing.odd_requests import GARBAGE, forgeries, search, variations
from convsdk.testing.odd_settings import open_secrets, unnamed_fields
from convsdk.testing.sending_contract import SendingContract

_Answer = TypeVar("_Answer")
_EVENT_TYPES = get_args(Event)
_TYPE_NAME = re.compile(r"[a-z][a-z0-9_]*")
_LONGEST_ID = 400
_LONGEST_SHOWN = 500
_WINDOW = 24
_NUL = "\0"
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")


@frozen(kw_only=True)
class Golden:
    """One request as the platform sends it, and what the channel makes of it.

    `events` is their number, or the events themselves; 0 for a set-up handshake, and for what an adapter leaves out,
    such as "typing" or an update of a kind that is new. `signed_by` names the header fields or query parameters that
    hold the signature (a handshake's token), where the channel verifies. `is_redelivery` marks a request that another
    golden one holds already.
    """

    name: str
    request: Request
    events: int | Sequence[Event]
    signed_by: tuple[str, ...] = ()
    is_redelivery: bool = False


def _verifies(contract: "ChannelContract") -> bool:
    return contract.channel().can.verifies


class ChannelContract(SendingContract):
    """The laws. Give `channel()`, `golden`, and where there are any `settings_cases` and `secrets`.

    `settings_cases` are pairs: keyword arguments for the settings class that are wrong, and the field that is to
    blame. `secrets` are the plain secrets of the channel under test. `signs_body` is False for a platform whose
    signature does not cover the body (a token in a header). `forged` are requests that have to be refused and that the
    kit cannot make itself, as pairs of how each was made and the request: one whose signature stands in the body, or
    one that is right but too old: `(("signed an hour ago", request(...)),)`. `has_secrets` is False for a channel that
    verifies by public keys alone. `examples` is how much garbage each channel is fed, `patience_s` how long it may take
    over one request. For a channel that answers, give what `SendingContract` names besides.
    """

    golden: ClassVar[Sequence[Golden]] = ()
    settings_cases: ClassVar[Sequence[tuple[Mapping[str, Any], str]]] = ()
    signs_body: ClassVar[bool] = True
    forged: ClassVar[Sequence[tuple[str, Request]]] = ()
    has_secrets: ClassVar[bool] = True
    patience_s: ClassVar[float] = 10

    # -- the class itself

    @law(Level.BRONZE)
    def test_type_is_a_name(self) -> None:
        """`type` is the word that a configuration calls the channel by."""
        name = getattr(self.channel(), "type", None)
        if not isinstance(name, str) or not _TYPE_NAME.fullmatch(name):
            fail(
                f"the channel's type is {name!r}",
                "a configuration file names it, and it becomes part of table rows and log lines",
                "use lower-case ASCII letters, digits and '_', beginning with a letter: type = 'sms'",
            )

    @law(Level.BRONZE)
    def test_settings_errors_name_the_field(self) -> None:
        """Whoever wrote a wrong setting is told which one."""
        channel = self.channel()
        if attrs.fields(channel.settings) and not self.settings_cases:
            fail(
                f"no settings_cases are given, and {channel.settings.__name__} has settings",
                "a setting that nobody checks fails at the first request and not at the start",
                "give pairs of wrong settings and the field to blame: settings_cases = (({'number': 'x'}, 'number'),)",
            )
        for wrong, name in self.settings_cases:
            self._check_settings_error(type(channel), channel.settings, wrong, name)

    def _check_settings_error(
        self, channel: type[Channel], shape: type[Any], wrong: Mapping[str, Any], name: str
    ) -> None:
        try:
            channel("kit", shape(**wrong))
        except (ValueError, TypeError, ConvsdkError) as error:
            told = str(error)
            if not re.search(rf"\b{re.escape(name)}\b", told):
                fail(
                    f"wrong settings are refused with {told!r}, which does not name {name!r}",
                    "whoever edits the configuration must find the line",
                    f"begin the text with the field: raise ValueError('{name}: ... is no ...: write ...')",
                )
            secrets = (*self._secrets(), *secrets_in(wrong))
            refuse_leaks({"the error about a wrong setting": told}, secret_forms(secrets))
        except Exception as error:  # noqa: BLE001  (whatever it is, the law is broken)
            fail(
                f"wrong settings raise {error!r}",
                "the configuration gathers ValueError, TypeError and ConvsdkError, and stops at anything else",
                f"raise ValueError('{name}: ...') in a validator of the settings class",
            )
        else:
            fail(
                f"the wrong settings for {name!r} are accepted: {sorted(wrong)}",
                "the mistake would show at the first request and not at the start",
                f"give the field {name!r} of {shape.__name__} a validator",
            )

    @law(Level.BRONZE, since="0.2")
    def test_each_setting_has_its_type(self) -> None:
        """Whoever gives a setting of the wrong kind is told which one, whatever else is right."""
        channel = self.channel()
        if untyped := unnamed_fields(type(channel)):
            fail(
                f"{channel.settings.__name__} takes anything for {', '.join(map(repr, untyped))}",
                "the mistake would show at the first request and not at the start",
                "annotate each field with what it holds: str, int, Secret, tuple[str, ...], or a class with attrs",
            )
        if opened := list(open_secrets(channel.config)):
            fail(
                f"{channel.settings.__name__} takes a plain text for {', '.join(map(repr, opened))}, or does not say "
                "which field refuses it",
                "a secret that is no Secret is shown in every repr and log",
                "give the field a validator: field(validator=is_secret())",
            )

    # -- parse

    @law(Level.BRONZE)
    def test_golden_requests_give_their_events(self) -> None:
        """Each golden request gives the events that it stands for."""
        if not self.golden:
            fail(
                "there are no golden requests",
                "every other law is shown on them",
                "give requests from the platform's documentation: golden = (Golden(name=..., request=..., events=1),)",
            )
        for one in self._parsed():
            events: Any = self._ask(self.channel().parse, one.request)
            if not isinstance(events, Sequence) or not all(isinstance(event, _EVENT_TYPES) for event in events):
                fail(
                    f"{one.name!r} gives {type(events).__name__} of {sorted({type(e).__name__ for e in events})}",
                    "the hub walks over the events more than once and knows only the types of core.events",
                    "return a tuple or list of MessageReceived, Identified, StatusChanged and the like",
                )
            got = len(events) if isinstance(one.events, int) else tuple(events)
            expected = one.events if isinstance(one.events, int) else tuple(one.events)
            if got != expected:
                fail(
                    f"{one.name!r} gives {got!r}, expected is {expected!r}",
                    "a message that is dropped or made up is what users notice first",
                    "correct parse, or what the golden request expects",
                )

    @law(Level.BRONZE)
    def test_parse_raises_nothing_but_parse_error(self) -> None:
        """Whatever bytes arrive, parse gives events or raises `ParseError`."""
        self._on_garbage(lambda _: None)

    @law(Level.BRONZE)
    def test_parse_is_deterministic(self) -> None:
        """The same request gives the same events, also on another instance and in another process."""
        channel = self.channel()
        for one in self._parsed():
            first, again, elsewhere = (
                self._ask(each.parse, one.request) for each in (channel, channel, self.channel())
            )
            if list(first) != list(again) or list(first) != list(elsewhere):
                fail(
                    f"{one.name!r} gives other events the second time",
                    "a redelivery that looks new is stored twice",
                    "let parse look at the request and the settings only: no counter, no random id, no clock, no state",
                )
        if called := self._own_calls(lambda called: "hash()" if called is hash else ""):
            fail(
                f"parse or verify calls {', '.join(called)}",
                "each process gives another number, so that a redelivery to the next one is stored twice",
                "take hashlib.sha256(...).hexdigest() for what has to be the same everywhere",
            )

    @law(Level.BRONZE)
    def test_parse_and_verify_use_no_network(self) -> None:
        """Neither parse nor verify opens a connection: look-ups are jobs that run after the commit."""
        if touched := sorted(self._touched(network_call)):
            fail(
                f"parse or verify uses the network: {', '.join(touched)}",
                "a slow platform would hold up every message, inside the transaction",
                "leave out what needs a look-up, or put what it needs into the event's detail",
            )

    @law(Level.BRONZE)
    def test_parse_and_verify_use_no_clock(self) -> None:
        """The only clock is `request.received_at`: what arrived can be read again later with the same result."""
        channel = self.channel()
        if called := self._own_calls(clock_call):
            fail(f"parse or verify reads the clock: {', '.join(called)}", *_CLOCK_REMEDY)
        for one in self._parsed():
            first = self._read(channel, one.request)
            with years_later():
                later = self._read(channel, one.request)
            if first != later:
                fail(f"{one.name!r} gives other events when the clock shows another time", *_CLOCK_REMEDY)

    # -- events

    @law(Level.GOLD)
    def test_external_ids_are_stable_under_redelivery(self) -> None:
        """A second delivery, later, has the same external ids."""
        channel = self.channel()
        for one in self._parsed():
            first = [event.external_id for event in self._ask(channel.parse, one.request)]
            for later in (timedelta(seconds=61), timedelta(hours=25)):
                moved = evolve(one.request, received_at=one.request.received_at + later)
                again = [event.external_id for event in self._ask(channel.parse, moved)]
                if first != again:
                    fail(
                        f"{one.name!r} gives the external ids {first}, and {again} when it is delivered {later} later",
                        "external ids are how a redelivery is recognised: the message would be stored twice",
                        "take the platform's id, or a hash of what identifies the message; never received_at",
                    )

    @law(Level.GOLD)
    def test_external_ids_are_unique(self) -> None:
        """Two events never share an external id, since the second would count as a redelivery and be lost."""
        channel = self.channel()
        found = [
            (event.external_id, one.name)
            for one in self._parsed()
            if not one.is_redelivery
            for event in self._ask(channel.parse, one.request)
        ]
        doubled = [one for one, times in Counter(one for one, _ in found).items() if times > 1]
        if doubled:
            names = [name for one, name in found if one == doubled[0]]
            fail(
                f"the external id {doubled[0]!r} is given {len(names)} times: by {', '.join(map(repr, names))}",
                "the second event counts as a redelivery of the first and is lost",
                "make ids that tell apart what one request holds (message id and kind of event), or mark a golden "
                "request that repeats another with is_redelivery=True",
            )

    @law(Level.BRONZE)
    def test_external_ids_can_be_kept(self) -> None:
        """Every event has an external id, of a length that a store's key can hold."""
        self._on_garbage(_check_external_id)

    @law(Level.BRONZE)
    def test_hint_ids_are_left_empty(self) -> None:
        """The hub makes the ids of hints, from channel and external id."""
        for name, event in self._events():
            given_id = getattr(getattr(event, "hint", None), "id", "")
            if given_id:
                fail(
                    f"{name!r} gives a hint with the id {given_id!r}",
                    "the hub would overwrite it, and two channels could choose the same",
                    "leave IdentityHint.id empty",
                )

    @law(Level.BRONZE)
    def test_times_are_aware(self) -> None:
        """Every time says its zone."""
        for name, event in self._events():
            for path, value in leaves(event):
                if isinstance(value, datetime) and value.utcoffset() is None:
                    fail(
                        f"{name!r} gives {path} without a time zone: {value!r}",
                        "times of several channels are compared, and a naive one cannot be",
                        "read the platform's zone, or UTC: datetime.fromtimestamp(seconds, UTC)",
                    )

    @law(Level.BRONZE)
    def test_text_can_be_written_down(self) -> None:
        """No text holds a lone surrogate or a NUL, and every event encodes as JSON, whatever arrived."""
        self._on_garbage(_check_encodes)

    # -- what it can do

    @law(Level.GOLD)
    def test_capabilities_are_true(self) -> None:
        """What `can` declares is shown by a golden request, and what one shows is declared."""
        can = self.channel().can
        for name, shown in self._shown().items():
            declared = bool(getattr(can, name))
            if declared and not shown:
                fail(
                    f"can declares {name!r}, and no golden request shows it",
                    "the runtime offers what a channel declares",
                    f"add a golden request that shows it, or set {name}=False",
                )
            if shown and not declared:
                fail(
                    f"the channel shows {name!r}, and can does not declare it",
                    "the runtime leaves out what a channel does not declare",
                    f"set {name}=True in its Capabilities",
                )

    def _shown(self) -> dict[str, bool]:
        events = [event for _, event in self._events()]
        messages = [event for event in events if isinstance(event, MessageReceived)]
        channel = self.channel()
        return {
            "messages": bool(messages),
            "attachments": any(message.attachments for message in messages),
            "reactions": any(isinstance(event, Noted) and event.kind == "reaction" for event in events),
            "statuses": any(isinstance(event, StatusChanged) for event in events),
            "echoes": any(message.direction is Direction.OUTBOUND for message in messages),
            "challenges": any(self._ask(channel.challenge, one.request) is not None for one in self.golden),
            "verifies": any(self._verdict(channel, forged) is not None for _, forged in self._forgeries()),
            "sends": not self._is_silent() and (self.is_http() or type(channel).send is not Channel.send),
        }

    # -- verify

    @law(Level.BRONZE)
    def test_golden_requests_are_authentic(self) -> None:
        """What the platform sends is let in."""
        for one in self._parsed():
            if error := self._verdict(self.channel(), one.request):
                fail(
                    f"{one.name!r} is refused: {error!r}",
                    "a platform stops sending after some refusals",
                    "correct verify, or sign the golden request with the secret of the channel under test",
                )

    @law(Level.GOLD, concerns=_verifies)
    def test_forged_requests_are_forbidden(self) -> None:
        """A signature (or a handshake's token) that is missing, broken or of another body gives `Forbidden`."""
        channel = self.channel()
        if not self.forged and not any(one.signed_by for one in self.golden):
            fail(
                "can declares verifies=True, and no golden request says what it is signed by",
                "the law breaks the signature to see whether it is looked at",
                "name its header fields or query parameters: Golden(..., signed_by=('X-Hub-Signature-256',)); where it "
                "stands in the body, give forged requests: forged = (('another signature', request(...)),)",
            )
        for how, forged in self._forgeries():
            error = self._verdict(channel, forged)
            if error is None:
                fail(
                    f"verify lets a request in with {how}",
                    "anybody could write in any customer's name",
                    "raise Forbidden unless the signature over the raw body is right (hmac.compare_digest on bytes)",
                )
            if not isinstance(error, Forbidden):
                fail(
                    f"verify raises {error!r} on a request with {how}",
                    "anything but Forbidden is a fault of the server: a platform repeats it, an operator is woken",
                    "compare bytes, not text (hmac.compare_digest refuses non-ASCII text), and raise Forbidden",
                )

    @law(Level.GOLD, concerns=_verifies)
    def test_refusals_leak_nothing(self) -> None:
        """A refusal holds neither a secret, nor the signature that was expected, nor the body."""
        channel = self.channel()
        for how, forged in self._forgeries():
            with captured() as output:
                error = self._verdict(channel, forged)
            if error is not None:
                texts = {f"the refusal of a request with {how}": texts_of(error)}
                texts[f"the log of a request with {how}"] = output()
                refuse_leaks(texts, self._unspeakable(forged))

    @law(Level.GOLD)
    def test_parse_errors_leak_nothing(self) -> None:
        """Neither a `ParseError` nor what is logged beside it holds a secret."""
        channel = self.channel()
        with captured() as output:
            errors = [self._read(channel, request) for request in self._odd_requests()]
        told = "\n".join(texts_of(error) for error in errors if isinstance(error, ParseError))
        refuse_leaks({"a ParseError": told, "the log of garbage": output()}, secret_forms(self._secrets()))

    @law(Level.GOLD)
    def test_secrets_are_never_shown(self) -> None:
        """Neither repr, str nor a log of the channel and its settings shows a secret."""
        channel = self.channel()
        if channel.can.verifies and self.has_secrets and not self._secrets():
            fail(
                "the channel verifies, and no secrets are given",
                "the law looks for them wherever they could be shown",
                "give the plain secrets of the channel under test: secrets = ('...',); has_secrets = False, if it has "
                "public keys alone",
            )
        shown: dict[str, str] = {}
        for name, value in {"channel": channel, "settings": channel.config}.items():
            shown |= {
                f"repr of the {name}": repr(value),
                f"str of the {name}": str(value),
                f"format of the {name}": f"{value}",
                f"a log line with the {name}": logged(value),
            }
        with captured() as output:
            for one in self.golden:
                self._verdict(channel, one.request)
                events = self._read(channel, one.request)
                shown[f"an event of {one.name!r}"] = f"{events!r} {secrets_in(events)}"
        refuse_leaks(shown | {"the log of the golden requests": output()}, secret_forms(self._secrets()))

    # -- what the laws are shown on

    def _ask(self, act: Callable[[Request], _Answer], request: Request) -> _Answer:
        """Give what the channel's `act` makes of a request; raise `Stuck` where it does not come back."""

        def tell(place: str) -> str:
            parts = (request.url, dict(request.query), dict(request.headers), request.body)
            asked = ", ".join(_cut(self._shown_of(part)) for part in parts)
            name = getattr(act, "__name__", repr(act))
            return (
                f"{name} has not come back within {self.patience_s:g} s, and is at {place or 'an unknown place'}, from "
                f"{request.method} {asked}"
            )

        with within(self.patience_s, tell):
            return act(request)

    def _verdict(self, channel: Channel, request: Request) -> Exception | None:
        """Give why `request` is refused, or None where it is let in, as the hub asks: a handshake is not verified."""
        try:
            if self._ask(channel.challenge, request) is None:
                self._ask(channel.verify, request)
        except Exception as error:  # noqa: BLE001  (what it is, is what the law is about)
            return error
        return None

    def _read(self, channel: Channel, request: Request) -> list[Event] | Exception:
        try:
            return list(self._ask(channel.parse, request))
        except Exception as error:  # noqa: BLE001  (as above)
            return error

    def _parse_or_refuse(self, channel: Channel, request: Request) -> Sequence[Event]:
        try:
            return tuple(self._ask(channel.parse, request))
        except ParseError:
            return ()
        except Exception as error:  # noqa: BLE001  (as above)
            fail(
                f"parse raises {error!r} on {_cut(repr(request.body))}",
                "only a ParseError keeps the bytes aside and goes on; anything else stops the whole batch",
                "check shapes and types before use, and raise ParseError with what was expected",
            )

    def _parsed(self) -> list[Golden]:
        """Give the golden requests that reach parse: a set-up handshake is answered before."""
        channel = self.channel()
        return [one for one in self.golden if self._ask(channel.challenge, one.request) is None]

    def _events(self) -> Iterator[tuple[str, Event]]:
        channel = self.channel()
        for one in self._parsed():
            for event in self._ask(channel.parse, one.request):
                yield one.name, event

    def _forgeries(self) -> Iterator[tuple[str, Request]]:
        for pair in self.forged:
            _check_forged(pair)
            yield pair
        for one in self.golden:
            for name in one.signed_by:
                for how, forged in forgeries(one.request, name):
                    yield f"{how} ({one.name})", forged
            if one.signed_by and self.signs_body and one in self._parsed():
                yield f"a byte too many in its body ({one.name})", evolve(one.request, body=one.request.body + b" ")
                yield f"no body ({one.name})", evolve(one.request, body=b"")

    def _unspeakable(self, request: Request) -> dict[str, str]:
        """Give every text that a refusal of `request` may not hold, and what it is."""
        forms = secret_forms(self._secrets())
        for secret in self._secrets():
            for digest in (hashlib.sha1, hashlib.sha256, hashlib.sha512):
                mac = hmac.new(secret.encode("utf-8", "surrogateescape"), request.body, digest).digest()
                coded = (base64.b64encode(mac), base64.urlsafe_b64encode(mac))
                texts = (mac.hex(), *(one.decode().rstrip("=") for one in coded))
                forms |= dict.fromkeys(texts, "the right signature")
        for text in (request.body.decode("utf-8", "replace"), repr(request.body)[2:-1]):
            if len(text) >= SHORTEST:
                starts = range(max(1, len(text) - _WINDOW + 1))
                forms |= dict.fromkeys((text[at : at + _WINDOW] for at in starts), "a part of the body")
        return forms

    def _touched(self, is_forbidden: Callable[[Any, str, Any], str]) -> set[str]:
        touched: set[str] = set()
        channel = self.channel()
        for one in self.golden:
            with guarded_sockets(touched), watched(is_forbidden, touched):
                self._verdict(channel, one.request)
                self._read(channel, one.request)
        return touched

    def _own_calls(self, is_forbidden: Callable[[Any], str]) -> list[str]:
        """Give the forbidden calls that stand in the adapter's own code: a library may well stamp a log line."""
        packages = packages_of(type(self.channel()))

        def name_own(frame: Any, event: str, arg: Any) -> str:  # noqa: ANN401  (what sys.setprofile hands over)
            module = frame.f_globals.get("__name__", "")
            found = is_forbidden(arg) if event == "c_call" and f"{module}.".startswith(packages) else ""
            return found and f"{found} in {module}"

        return sorted(self._touched(name_own))

    def _seeds(self) -> list[Request]:
        return [one.request for one in self._parsed()] or [Request(received_at=NOON)]

    def _odd_requests(self) -> Iterator[Request]:
        for seed in self._seeds():
            yield from (seed, *variations(seed))
        yield from (evolve(self._seeds()[0], body=body) for body in GARBAGE)

    def _on_garbage(self, check: Callable[[Event], None]) -> None:
        """Feed the golden requests, bytes like them and bytes unlike them to parse, and `check` each event."""
        channel = self.channel()

        def feed(request: Request) -> None:
            for event in self._parse_or_refuse(channel, request):
                check(event)

        for request in self._odd_requests():
            feed(request)
        # The same examples at every run: an author's change is to blame for a failure, and not the luck of the day.
        searching = settings(
            max_examples=self.examples,
            derandomize=True,
            deadline=None,
            report_multiple_bugs=False,
            suppress_health_check=[HealthCheck.too_slow],
        )
        searching(given(request=search(self._seeds()))(feed))()


_CLOCK_REMEDY = (
    "what is kept aside and read again tomorrow must give what it gives today",
    "take the time from the payload, and request.received_at where there is none or an expiry is checked",
)


def _check_forged(given: Any) -> None:  # noqa: ANN401  (whatever the author wrote)
    is_pair = isinstance(given, tuple | list) and len(given) == 2  # noqa: PLR2004  (a pair)
    if not (is_pair and isinstance(given[0], str) and isinstance(given[1], Request)):
        fail(
            f"forged holds {given!r}, which is no pair of a text and a request",
            "the law says how a request was made that is let in, and asks nothing without one",
            "give pairs: forged = (('a signature of yesterday', request(...)),), with a comma behind a single one",
        )


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."


def _check_external_id(event: Event) -> None:
    if not event.external_id or len(event.external_id) > _LONGEST_ID:
        fail(
            f"an event's external id has {len(event.external_id)} characters",
            f"a redelivery is recognised by it, and a key holds up to {_LONGEST_ID}",
            "take the platform's id; hash one that is too long; raise ParseError where there is none",
        )


def _check_encodes(event: Event) -> None:
    for path, value in leaves(event):
        if isinstance(value, str) and (unstorable := _UNSTORABLE.search(value)):
            fail(
                f"{path} of {type(event).__name__} holds {'a NUL' if unstorable[0] == _NUL else 'a lone surrogate'}",
                "no UTF-8 has the one and PostgreSQL keeps no text with the other: the store refuses the whole batch",
                "replace both, also after JSON escapes: re.sub('[\\0\\ud800-\\udfff]', '\\ufffd', text)",
            )
        if isinstance(value, float) and not math.isfinite(value):
            fail(
                f"{path} of {type(event).__name__} is {value}",
                "JSON has no such number, and it is not even equal to itself: the event differs at each reading",
                "leave it out, or raise ParseError where it is needed",
            )
    try:
        msgspec.json.encode(event)
    except Exception as error:  # noqa: BLE001  (msgspec passes on what a value's own code raises)
        fail(
            f"{type(event).__name__} cannot be encoded as JSON: {error!r}",
            "events are written to the outbox and sent to webhooks as JSON",
            "keep plain JSON values in detail: text, numbers, booleans, None, lists, dicts with text as keys",
        )
