"""What a law of a contract is: the level that it belongs to, the release that it binds from, and how it is broken."""

import functools
import re
import warnings
from collections.abc import Callable, Iterator
from enum import IntEnum
from importlib.metadata import version
from typing import Any, NoReturn

import pytest
from attrs import frozen


class Level(IntEnum):
    """How far a channel has come: it receives, it answers, it keeps every law of what it declares."""

    BRONZE = 1
    SILVER = 2
    GOLD = 3


class LawBroken(pytest.fail.Exception):  # type: ignore[misc,name-defined]
    """A law is broken: `what` is wrong, `why` it matters, and the `remedy`."""

    def __init__(self, what: str, why: str, remedy: str) -> None:
        super().__init__(f"{what}\n  why it matters: {why}\n  how to mend it: {remedy}", pytrace=False)
        self.what = what
        self.why = why
        self.remedy = remedy


class Stuck(BaseException):
    """What a law asks of a channel has not come back in time: no `Exception`, which the channel itself could take."""


class LawWarning(UserWarning):
    """A law is broken that does not bind yet: it will, from the release that the text names."""


@frozen(kw_only=True)
class Law:
    """One law of a contract. `concerns` says of a contract whether its channel declares what the law is about.

    `since` is the release that it binds from, such as "0.2"; empty where it always has. Until then, `is_kept` warns.
    """

    name: str
    text: str
    level: Level
    concerns: Callable[[Any], bool]
    since: str
    check: Callable[[Any], None]

    @property
    def is_binding(self) -> bool:
        """Say whether a channel that breaks it fails, and is not only warned."""
        return not self.since or _release(version("convsdk")) >= _release(self.since)


def law(
    level: Level, *, concerns: Callable[[Any], bool] = lambda _: True, since: str = ""
) -> Callable[[Callable[[Any], None]], Callable[[Any], None]]:
    """Make a method of a contract a law of `level`.

    One that comes new in a release is marked with the next minor one: `since="0.2"` for a law that 0.1 brings. It
    warns in the one and fails in the other, so that nobody's tests fail with an update that has only patches.
    """

    def mark(check: Callable[[Any], None]) -> Callable[[Any], None]:
        text = (check.__doc__ or "").partition("\n")[0]
        name = check.__name__.removeprefix("test_").replace("_", " ")
        made = Law(name=name, text=text, level=level, concerns=concerns, since=since, check=_ending(check))

        @functools.wraps(check)
        def keep(contract: Any) -> None:  # noqa: ANN401  (a contract of any kind)
            if not made.concerns(contract):
                return
            try:
                made.check(contract)
            except LawBroken as broken:
                if made.is_binding:
                    raise
                _warn(made, str(broken))
            except Exception as error:  # boundary: a law to come runs a plugin's code in ways that none did
                if made.is_binding:
                    raise
                _warn(made, f"the channel raises {type(error).__name__}")

        keep.law = made  # type: ignore[attr-defined]  # where `laws_of` finds it
        return keep

    return mark


def laws_of(contract: type[Any]) -> Iterator[Law]:
    """Give the laws of a contract in the order in which they are written, whatever a subclass puts in their place."""
    for one in reversed(contract.__mro__):
        yield from (made for method in vars(one).values() if isinstance(made := getattr(method, "law", None), Law))


def fail(what: str, why: str, remedy: str) -> NoReturn:
    """Fail the law that runs: what is wrong, why it matters, and how to mend it."""
    raise LawBroken(what, why, remedy)


def _ending(check: Callable[[Any], None]) -> Callable[[Any], None]:
    @functools.wraps(check)
    def check_to_the_end(contract: Any) -> None:  # noqa: ANN401  (as above)
        try:
            check(contract)
        except Stuck as stuck:
            what = str(stuck)
        else:
            return
        fail(
            what,
            "one such request, from anybody, would keep a worker busy for good",
            "look at that place for a regular expression with one repetition inside another, a loop that does not end, "
            "or a wait; set patience_s where it only takes longer",
        )

    return check_to_the_end


def _warn(broken_law: Law, told: str) -> None:
    # A project that makes errors of warnings would fail at once, and the release of grace would be none.
    with warnings.catch_warnings():
        warnings.simplefilter("always", LawWarning)
        text = f"{broken_law.name}: this fails from convsdk {broken_law.since} on: {told}"
        warnings.warn(text, LawWarning, stacklevel=3)


def _release(text: str) -> tuple[int, int]:
    numbers = [int(one) for one in re.findall(r"\d+", text)] + [0, 0]
    return numbers[0], numbers[1]
