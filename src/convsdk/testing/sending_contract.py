"""The laws that every channel keeps which answers; `ChannelContract` has them, and a channel that cannot passes them.

::

    class TestSmsChannel(ChannelContract):
        ...
        golden_sends = (GoldenSend(name="one text", message=outbound(...), requests=(httpx.Request("POST", ...),)),)
        golden_answers = (
            GoldenAnswer(name="taken", response=httpx.Response(200, json={"id": "1"}), gives=Receipt(external_id="1")),
            GoldenAnswer(name="too many", response=httpx.Response(429), gives=TransientError),
            GoldenAnswer(name="no such number", response=httpx.Response(404), gives=PermanentError),
        )
"""

import re
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from itertools import permutations
from typing import Any, ClassVar

import httpx
from attrs import evolve, frozen
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from convsdk.core.ports import Channel, Outbound, Receipt, Secret
from convsdk.errors import ConvsdkError, PermanentError, TransientError, UncertainError
from convsdk.testing.laws import Level, fail, law
from convsdk.testing.observing import (
    captured,
    clock_call,
    guarded_sockets,
    network_call,
    packages_of,
    refuse_leaks,
    secret_forms,
    secrets_in,
    texts_of,
    watched,
    years_later,
)
from convsdk.testing.odd_messages import to_others, with_choices, with_other_labels

_WORD = re.compile(rb"""[^\s"'&=?/,;:<>(){}\[\]]+""")
# As the shell makes them: of two messages, and of the second part of the first.
_TOKENS = ("mfrggzdfmztwq2lkobyxe43uov", "onswg4tforrw63lnn5xgg2dbnz", "mfrggzdfmztwq2lkobyxe43uov.1")
_FAMILY = "\U0001f469\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466"
_HARD = (
    "x",
    "\U0001f600",
    _FAMILY,
    "e\u0301",
    "\U0001f1e9\U0001f1ea",
    "\u1112\u1161\u11ab",
    "word ",
    "\u4e2d",
    "\n \n",
)
_BLANK = re.compile(r"\s+")
_CODES = (200, 201, 204, 302, 400, 401, 403, 404, 408, 413, 429, 500, 502, 503, 504)
_ODD_BODIES = (
    b"",
    b"null",
    b"[]",
    b"{}",
    b'{"error": null}',
    b'{"error": {"code": "x"}}',
    b"<html>",
    b"\xff",
    b"[" * 50_000,
)
_GIVES = (Receipt, TransientError, PermanentError)


@frozen(kw_only=True)
class GoldenSend:
    """One message as the shell hands it over, and as which requests it goes: themselves, or their number."""

    name: str
    message: Outbound
    requests: int | Sequence[httpx.Request]


@frozen(kw_only=True)
class GoldenAnswer:
    """One answer of the platform, and what it stands for: a receipt, or the class of the error."""

    name: str
    response: httpx.Response
    gives: Receipt | type[ConvsdkError]


def _answers(contract: "SendingContract") -> bool:
    return contract.channel().can.sends


def _answers_over_http(contract: "SendingContract") -> bool:
    return _answers(contract) and contract.is_http()


def _is_asked_by_bots(contract: "SendingContract") -> bool:
    # A bot automation begins with what somebody writes.
    return _answers_over_http(contract) and contract.channel().can.messages


def _is_limited(contract: "SendingContract") -> bool:
    return _answers(contract) and contract.channel().can.max_text is not None


class SendingContract:
    """The laws for a channel that answers. Give `channel()`, `golden_sends` and `golden_answers`.

    `secrets` are the plain secrets of the channel under test, `examples` how many texts it is asked to cut. A channel
    that overrides `send` for another transport than HTTP has no requests and no answers to give.
    """

    golden_sends: ClassVar[Sequence[GoldenSend]] = ()
    golden_answers: ClassVar[Sequence[GoldenAnswer]] = ()
    secrets: ClassVar[Sequence[str]] = ()
    examples: ClassVar[int] = 150

    def channel(self) -> Channel:
        """Give the configured channel under test, a new one at every call."""
        raise NotImplementedError(f"{type(self).__name__} has no channel(): return a configured channel from it")

    # -- what it can do

    @law(Level.SILVER, concerns=_answers)
    def test_golden_sends_give_their_requests(self) -> None:
        """Each message goes as the requests that stand for it."""
        if not self.golden_sends:
            fail(
                "can declares sends=True, and there are no golden sends",
                "every law about sending is shown on them",
                "give messages and their requests: golden_sends = (GoldenSend(name=..., message=..., requests=1),)",
            )
        for one in self.golden_sends:
            parts = self.channel().parts(one.message)
            made = [_plain(each) for each in self._requests(parts)] if self.is_http() else list(parts)
            is_counted = isinstance(one.requests, int)
            got: Any = len(made) if is_counted else made
            expected: Any = one.requests if isinstance(one.requests, int) else [_plain(each) for each in one.requests]
            if got != expected:
                fail(
                    f"{one.name!r} gives {self._shown_of(got)}, expected is {self._shown_of(expected)}",
                    "the platform refuses it, or somebody gets something else than was written",
                    "correct parts and build, or what the golden send expects",
                )

    @law(Level.GOLD, concerns=_answers)
    def test_capabilities_for_sending_are_shown(self) -> None:
        """What `can` declares about sending is shown by a golden send."""
        can = self.channel().can
        is_cut = any(len(self.channel().parts(one.message)) > 1 for one in self._texts())
        if can.max_text is not None and not is_cut:
            fail(
                f"can declares max_text={can.max_text}, and no golden send has a text that is cut",
                "the first long answer would be the test of it",
                "add a golden send whose text is longer, or set max_text=None",
            )
        if can.max_per_s is not None and not can.max_per_s > 0:
            fail(
                f"can declares max_per_s={can.max_per_s}",
                "nothing would ever be sent",
                "give how many messages a second the platform takes, or None",
            )
        parts = [part for each in self._built() for part, _ in each] if can.is_idempotent else []
        tokens = _TOKENS if is_cut else _TOKENS[:2]  # one that never cuts need not take the token of a second part
        if not all(self._is_keyed(part, tokens) for part in parts):
            fail(
                "can declares is_idempotent=True, and nothing in a request is of the token of its message alone",
                "the platform can only know a second one for the same by a key that stays the same, and is no other's",
                "send message.token as the platform's idempotency key, or what is made of all of it, such as "
                "uuid.uuid5(namespace, message.token), or set is_idempotent=False",
            )

    # -- parts

    @law(Level.GOLD, concerns=_is_limited)
    def test_no_part_is_too_long(self) -> None:
        """No part has a longer text than `can.max_text`, whatever is written."""
        most = self.channel().can.max_text

        def check(message: Outbound, parts: Sequence[Outbound]) -> None:
            longest = max((len(one.text) for one in parts), default=0)
            if most is not None and longest > most:
                fail(
                    f"a text of {len(message.text)} characters gives a part of {longest}, more than {most}",
                    "the platform refuses it, or cuts it off",
                    "cut with core.texts.pieces_of(text, most=...), with the platform's way of counting as its size",
                )

        self._on_texts(check)

    @law(Level.SILVER, concerns=_answers)
    def test_no_text_is_lost_between_parts(self) -> None:
        """All parts together say what was written, but for blanks at the cuts; and there is always one."""

        def check(message: Outbound, parts: Sequence[Outbound]) -> None:
            said = _BLANK.sub("", "".join(part.text for part in parts))
            # Where there are no buttons, what is written ends with the choices.
            if not parts or said not in {_BLANK.sub("", one) for one in (message.text, message.spelt_out)}:
                fail(
                    f"a text of {len(message.text)} characters goes in {len(parts)} parts, which do not say the same",
                    "somebody reads an answer with a hole in it",
                    "let parts give all of the text, in order, and at least one message",
                )

        self._on_texts(check)

    @law(Level.SILVER, concerns=_answers)
    def test_no_file_is_lost_between_parts(self) -> None:
        """Each attachment goes with one part, once and in order."""
        for one in self._texts():
            sent = [file for part in self.channel().parts(one.message) for file in part.attachments]
            if sent != list(one.message.attachments):
                fail(
                    f"{one.name!r} has {len(one.message.attachments)} attachments, and its parts {len(sent)}",
                    "somebody gets a file twice, or never",
                    "give each attachment to one part: evolve(message, attachments=...)",
                )

    @law(Level.SILVER, concerns=_answers)
    def test_parts_have_tokens_of_their_own(self) -> None:
        """Every part has a token that no other has, and the same at every try."""

        def check(message: Outbound, parts: Sequence[Outbound]) -> None:
            later = evolve(message, at=message.at + timedelta(minutes=1))
            tokens, again = ([one.token for one in each] for each in (parts, self.channel().parts(later)))
            if len(set(tokens)) < len(tokens) or tokens != again or not all(message.token in one for one in tokens):
                fail(
                    f"the {len(tokens)} parts of a message have the tokens {tokens}, and {again} at the next try",
                    "a part that was sent is known by its token: it would be sent again, or left out",
                    "make them of the message's token and the number of the part: f'{message.token}.{number}'",
                )

        self._on_texts(check)

    # -- build and interpret

    @law(Level.SILVER, concerns=_answers_over_http)
    def test_requests_are_deterministic(self) -> None:
        """The same part gives the same request, byte for byte, also on another instance."""
        for first, again in zip(self._built(), self._built(), strict=True):
            if [_plain(one) for _, one in first] != [_plain(one) for _, one in again]:
                fail(
                    f"the message {first[0][0].token!r} gives another request the second time",
                    "what is tried again must be what the platform may have taken already",
                    "leave out what is random or new each time, such as the boundary of form data",
                )

    @law(Level.SILVER, concerns=_answers_over_http, since="0.2")
    def test_requests_depend_on_their_recipient(self) -> None:
        """What goes to somebody else is another request, in the conversation and, where that can be, outside of it."""
        # A platform that knows threads alone has no golden send without one.
        is_known_outside = any(not one.message.thread and not one.message.references for one in self._texts())
        for one in self._texts():
            outside = [evolve(one.message, thread="", references=())] if is_known_outside else []
            for message in (one.message, *outside):
                self._check_recipient(one.name, message)

    def _check_recipient(self, name: str, message: Outbound) -> None:
        asked = self._outcomes(message)
        others = [self._outcomes(other) for other in to_others(message)]
        for request, *requests in zip(asked, *others, strict=False):
            sent = {one for one in requests if one is not None}
            if request is None or sent != {request}:
                continue
            fail(
                f"{name!r} gives the same request for another recipient",
                "everybody's answers would go to one person",
                "address the request by message.to, message.address or message.thread, in each branch of build; raise "
                "PermanentError for whom it cannot reach",
            )

    @law(Level.SILVER, concerns=_is_asked_by_bots, since="0.2")
    def test_choices_are_shown(self) -> None:
        """Each choice that a message offers is in a request, as a button or as a line of the text."""
        given = [one.message for one in self._texts() if one.message.choices]
        plain = [one.message for one in self._texts() if one.message.text.strip() and not one.message.detail]
        alone = [one for one in plain if not one.attachments]
        for message in given or [*map(with_choices, (alone or plain)[:1])]:
            self._check_choices(message)

    def _check_choices(self, message: Outbound) -> None:
        asked = self._outcomes(message)
        for choice, other in with_other_labels(message):
            if None not in asked and asked == self._outcomes(other):
                fail(
                    f"nothing that is sent shows the choice {choice.label!r}",
                    "somebody is asked a question without its answers",
                    "build buttons of message.choices, or let parts give the choices as lines: "
                    "super().parts(evolve(message, text=message.spelt_out))",
                )

    @law(Level.SILVER, concerns=_answers_over_http)
    def test_build_and_interpret_use_no_network_and_no_clock(self) -> None:
        """Both are pure: the shell sends, and `message.at` is the only time."""
        packages = packages_of(type(self.channel()))
        touched: set[str] = set()

        def touch(frame: Any, event: str, arg: Any) -> str:  # noqa: ANN401  (what sys.setprofile hands over)
            is_own = f"{frame.f_globals.get('__name__', '')}.".startswith(packages)
            return network_call(frame, event, arg) or (clock_call(arg) if event == "c_call" and is_own else "")

        with guarded_sockets(touched), watched(touch, touched):
            now = [_plain(one) for each in self._built() for _, one in each]
            self._interpreted()
        if touched:
            fail(
                f"build or interpret uses {', '.join(sorted(touched))}",
                "what is sent is decided by the message alone, so that it can be tried again and tested",
                "take the time from message.at, and leave requests to the shell",
            )
        with years_later():
            later = [_plain(one) for each in self._built() for _, one in each]
        if now != later:
            fail(
                "build gives another request when the clock shows another time",
                "what is tried again must be what the platform may have taken already",
                "take the time from message.at",
            )

    @law(Level.GOLD, concerns=_answers_over_http)
    def test_requests_hide_secrets(self) -> None:
        """No secret is in an address, an error, a repr or a log of what is sent."""
        shown: dict[str, str] = {}
        with captured() as output:
            for each in self._built():
                for message, request in each:
                    shown[f"the address of {message.token!r}"] = str(request.url)
                    shown[f"the repr of {message.token!r}"] = f"{request!r} {message!r}"
            for name, given in self._interpreted():
                shown[f"what is made of {name!r}"] = texts_of(given) if isinstance(given, Exception) else repr(given)
        shown["the log of what is sent"] = output()
        refuse_leaks(shown, secret_forms(self._secrets()))

    @law(Level.SILVER, concerns=_answers_over_http)
    def test_answers_are_sorted(self) -> None:
        """Each golden answer gives what it stands for, and there is one of a receipt and of each class of error."""
        for kind in _GIVES:
            if not any(one.gives is kind or isinstance(one.gives, kind) for one in self.golden_answers):
                fail(
                    f"no golden answer gives a {kind.__name__}",
                    "whether something is tried again is decided by the class of the error alone",
                    f"add an answer that does: golden_answers = (GoldenAnswer(..., gives={kind.__name__}),)",
                )
        for one, (_, given_) in zip(self.golden_answers, self._interpreted(), strict=True):
            if not (given_ == one.gives if isinstance(one.gives, Receipt) else type(given_) is one.gives):
                fail(
                    f"the answer {one.name!r} gives {given_!r}, expected is {one.gives!r}",
                    "a message is given up, sent twice, or shown as sent while it is not",
                    "correct interpret, or what the golden answer expects",
                )
            if isinstance(given_, Exception) and not str(given_).strip():
                fail(
                    f"the error about {one.name!r} says nothing",
                    "the agent who wrote the message reads it",
                    "say what happened, in the platform's words and with its code, and what to do",
                )

    @law(Level.SILVER, concerns=_answers_over_http)
    def test_any_answer_is_understood(self) -> None:
        """Whatever the platform answers, interpret gives a receipt, or one of the errors that say what to do next."""
        bodies = (*_ODD_BODIES, *(one.response.content for one in self.golden_answers))
        for status, body in ((status, body) for status in _CODES for body in bodies):
            given_ = _interpret(self.channel(), httpx.Response(status, content=body))
            if not isinstance(given_, Receipt | TransientError | UncertainError | PermanentError):
                fail(
                    f"interpret gives {given_!r} for the status {status} and the body {body[:80]!r}",
                    "anything else stops the worker that sends everybody's messages",
                    "check shapes before use; raise UncertainError where nobody knows whether it arrived",
                )

    # -- what the laws are shown on

    def _secrets(self) -> list[str]:
        return secrets_in((*map(Secret, self.secrets), self.channel().config))

    def is_http(self) -> bool:
        """Say whether the channel under test answers by HTTP requests."""
        return type(self.channel()).build is not Channel.build and not self._is_silent()

    def _is_silent(self) -> bool:
        """Say whether the settings of the channel under test let it not answer: its own `can` says so then."""
        channel = self.channel()
        return "can" in vars(channel) and not channel.can.sends

    def _shown_of(self, value: object) -> str:
        text = repr(value)
        for secret in self._secrets():
            text = text.replace(secret, "***")
        return text

    def _texts(self) -> Sequence[GoldenSend]:
        return self.golden_sends if self.channel().can.sends else ()

    def _requests(self, parts: Sequence[Outbound]) -> Iterator[httpx.Request]:
        channel = self.channel()
        yield from (channel.build(part) for part in parts)

    def _built(self) -> list[list[tuple[Outbound, httpx.Request]]]:
        """Give each part of each golden send, with its request."""
        if not self.is_http():
            return []
        channel = self.channel()
        return [[(part, channel.build(part)) for part in channel.parts(one.message)] for one in self._texts()]

    def _outcomes(self, message: Outbound) -> list[tuple[object, ...] | None]:
        """Give each request of a message; None for one that would not be sent."""
        channel = self.channel()
        return [_request_or_none(channel, part) for part in channel.parts(message)]

    def _interpreted(self) -> list[tuple[str, Receipt | Exception]]:
        channel = self.channel()
        answers = self.golden_answers if self.is_http() else ()
        return [(one.name, _interpret(channel, one.response)) for one in answers]

    def _is_keyed(self, part: Outbound, tokens: Sequence[str]) -> bool:
        """Say whether something in the request is the same at each try of a token, and another one of another token."""
        first, again = (
            [self._words_of(evolve(part, at=at), token) for token in tokens]
            for at in (part.at, part.at + timedelta(minutes=1))
        )
        kept = [one & later for one, later in zip(first, again, strict=True)]
        return all(kept[one] - first[other] for one, other in permutations(range(len(tokens)), 2))

    def _words_of(self, part: Outbound, token: str) -> set[bytes]:
        channel = self.channel()
        named = channel.outbound_id(token.partition(".")[0])
        return set(_WORD.findall(_whole(channel.build(evolve(part, token=token, external_id=named)))))

    def _on_texts(self, check: Callable[[Outbound, Sequence[Outbound]], None]) -> None:
        """Let the channel cut the golden messages, hard texts, and any others, and `check` each."""
        channel = self.channel()
        for one in self._texts():
            check(one.message, channel.parts(one.message))
        if not self._texts():
            return
        plain = evolve(self.golden_sends[0].message, attachments=(), detail={}, html="")
        most = channel.can.max_text or 1_000

        def cut(text: str) -> None:
            message = evolve(plain, text=text)
            check(message, channel.parts(message))

        for hard in _HARD:
            for length in (most - 1, most, most + 1, 3 * most + 1):
                cut((hard * (length // len(hard) + 1))[:length])
        # As for garbage that comes in: the same examples at every run.
        searching = settings(
            max_examples=self.examples,
            derandomize=True,
            deadline=None,
            report_multiple_bugs=False,
            suppress_health_check=[HealthCheck.too_slow],
        )
        drawn = st.lists(st.text(max_size=40) | st.sampled_from(_HARD), min_size=1, max_size=20)
        repeated = st.builds(lambda pieces, times: "".join(pieces) * times, drawn, st.integers(1, 1 + most // 20))
        searching(given(text=repeated)(cut))()


def _plain(request: httpx.Request) -> tuple[str, str, tuple[tuple[str, str], ...], bytes]:
    """Give what of a request reaches the platform, to compare."""
    fields = tuple(sorted((name, value) for name, value in request.headers.items() if name != "host"))
    return request.method, str(request.url), fields, request.read()


def _request_or_none(channel: Channel, part: Outbound) -> tuple[object, ...] | None:
    try:
        return _plain(channel.build(part))
    except Exception:  # noqa: BLE001  (whatever it says of an address that nobody has, it does not write to it)
        return None


def _whole(request: httpx.Request) -> bytes:
    fields = (part for field in request.headers.raw for part in field)
    return b"\n".join((str(request.url).encode(), *fields, request.read()))


def _interpret(channel: Channel, response: httpx.Response) -> Receipt | Exception:
    try:
        return channel.interpret(response)
    except Exception as error:  # noqa: BLE001  (what it is, is what the law is about)
        return error
