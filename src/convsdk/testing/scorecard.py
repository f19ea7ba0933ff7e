"""Runs the kit outside of a test run: what `convsdk check-channel` shows of the channels of a distribution.

A distribution announces the contract of each of its channel types as an entry point of the group `convsdk.contracts`,
under the name of the channel type::

    [project.entry-points."convsdk.contracts"]
    sms = "convsdk_sms.contract:SmsContract"
"""

import traceback
import warnings
from enum import Enum
from importlib import metadata

from attrs import frozen

from convsdk.core.ports import Channel
from convsdk.errors import ConfigError
from convsdk.testing.channel_contract import ChannelContract
from convsdk.testing.laws import Law, LawBroken, Level, laws_of
from convsdk.testing.observing import captured

GROUP = "convsdk.contracts"
"""The group of entry points that a distribution announces the contracts of its channel types in."""


class State(Enum):
    """What became of a law: a broken one that does not bind yet is a warning."""

    PASSED = "passed"
    FAILED = "failed"
    WARNING = "warning"
    NOT_APPLICABLE = "not applicable"


@frozen(kw_only=True)
class Ruling:
    """A law, and what became of it; of a broken one, what is wrong, why it matters, and the remedy."""

    law: Law
    state: State
    what: str = ""
    why: str = ""
    remedy: str = ""


@frozen(kw_only=True)
class Scorecard:
    """The rulings about one channel type."""

    channel: str
    rulings: tuple[Ruling, ...]

    @property
    def level(self) -> Level | None:
        """Give the highest level of which some law concerns the channel, and none up to there is broken."""
        reached = None
        for level in Level:
            states = {one.state for one in self.rulings if one.law.level is level}
            if State.FAILED in states:
                return reached
            reached = level if states - {State.NOT_APPLICABLE} else reached
        return reached


def find_contract(distribution: str, channel: type[Channel]) -> type[ChannelContract]:
    """Give the contract that the distribution announces for its channel type.

    Raises:
        ConfigError: it announces none, or one that cannot be used.
    """
    points = metadata.distribution(distribution).entry_points.select(group=GROUP, name=channel.type)
    if not points:
        raise ConfigError(
            f"{distribution} announces no contract for its channel type {channel.type!r}: write a subclass of "
            f"convsdk.testing.ChannelContract, and name it in the entry points of {GROUP!r}: "
            f'{channel.type} = "{channel.__module__}.contract:{channel.__name__}Contract"'
        )
    value = next(iter(points)).value
    try:
        contract = next(iter(points)).load()
    except (Exception, SystemExit) as error:  # boundary: importing what a plugin brings runs any code
        raise ConfigError(
            f"the contract {value!r} of {distribution} cannot be imported: {_told(error)}: {error}: correct the entry "
            "point or the module, and install what it imports"
        ) from error
    if not isinstance(contract, type) or not issubclass(contract, ChannelContract):
        raise ConfigError(f"{value!r} of {distribution} is no subclass of convsdk.testing.ChannelContract: name one")
    return contract


def examine(contract: type[ChannelContract], channel: type[Channel]) -> Scorecard:
    """Run every law on the channel type, each on a contract of its own; whatever it raises, the others are run."""
    rulings = tuple(_rule(one, contract, channel) for one in laws_of(ChannelContract))
    return Scorecard(channel=channel.type, rulings=rulings)


def _rule(law: Law, contract: type[ChannelContract], channel: type[Channel]) -> Ruling:
    try:
        under_test = contract()
        if not isinstance(under_test.channel(), channel):
            return _broken(law, f"the contract is about {under_test.channel()!r}, and not about a {channel.__name__}")
        if not law.concerns(under_test):
            return Ruling(law=law, state=State.NOT_APPLICABLE)
        with warnings.catch_warnings(), captured():  # what a channel says to garbage is not the command's output
            warnings.simplefilter("ignore")
            law.check(under_test)
    except LawBroken as broken:
        return Ruling(law=law, state=_broken_state(law), what=broken.what, why=broken.why, remedy=broken.remedy)
    except (Exception, SystemExit) as error:  # noqa: BLE001  (boundary: a law runs a plugin's code)
        return _broken(law, f"the channel or its contract raises {_told(error)}", _broken_state(law))
    return Ruling(law=law, state=State.PASSED)


def _broken(law: Law, what: str, state: State = State.FAILED) -> Ruling:
    why = "nothing can be said of this law, and so it does not count as kept"
    return Ruling(law=law, state=state, what=what, why=why, remedy="correct that, and run the check again")


def _broken_state(law: Law) -> State:
    return State.FAILED if law.is_binding else State.WARNING


def _told(error: BaseException) -> str:
    # Only the class and the place: the text could hold a secret of the channel under test.
    place = traceback.extract_tb(error.__traceback__)[-1]
    missing = f" {error.name}" if isinstance(error, ImportError) and error.name else ""
    return f"{type(error).__name__}{missing} at {place.filename}:{place.lineno}"
