"""Which way an answer goes: where its conversation is, or by mail where nobody is there to read it.

What was only claimed stays with who claimed it. An address that a visitor typed is what they asked to be answered at,
in that conversation and in no other; what somebody proven is told goes to their attested addresses alone.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from attrs import frozen

from convsdk.core.inbox import Filing
from convsdk.core.model import Identifier, Message, Trust
from convsdk.errors import Conflict, UnsupportedError

PRESENT_FOR = timedelta(seconds=75)
"""How long who was seen counts as there: a sign of life comes every 30 seconds, and one may be lost."""
FOLLOW_UP = "transactional"
"""The purpose for which a follow-up is written: it belongs to one conversation."""


@frozen(kw_only=True)
class Address:
    """An e-mail address that an answer could go to.

    `trust` is how well it is attested that its contact holds it; `is_typed_here`: it was typed in this conversation, in
    which nobody has proven anything. `refusal` is why nothing is to be sent to it (empty: nothing speaks against it).
    """

    identifier: Identifier
    spelling: str
    trust: Trust
    refusal: str = ""
    is_typed_here: bool = False


@frozen(kw_only=True)
class Situation:
    """What a way is chosen by.

    `is_shown`: the chat widget shows the conversation. `is_present`: somebody looks at it. `follow_up` is the e-mail
    channel by which its channel is followed up (empty: by none), `addresses` those of its contact, and the one that it
    is filed by. `is_automatic`: no person wrote the answer.
    """

    filing: Filing
    is_shown: bool
    is_present: bool = False
    follow_up: str = ""
    addresses: tuple[Address, ...] = ()
    is_automatic: bool = False


@frozen(kw_only=True)
class Way:
    """The way of an answer: by which channel, why, and to whom it is sent (None: it is read in the chat widget)."""

    channel: str
    why: str
    to: Identifier | None = None
    spelling: str = ""


def choose_way(situation: Situation, wish: str = "") -> Way:
    """Give the way of an answer on a channel that sends nothing itself; a `wish`, the name of a channel, wins.

    Raises `UnsupportedError` where there is none, and `Conflict` where the only address refuses.
    """
    filing = situation.filing
    if wish and wish not in {filing.channel, situation.follow_up}:
        known = " or ".join(repr(one) for one in (filing.channel, situation.follow_up) if one)
        raise UnsupportedError(f"conversation {filing.id} cannot be answered by {wish!r}: choose {known}")
    is_chosen = bool(wish) and wish == filing.channel
    if situation.is_shown and (is_chosen or (situation.is_present and not wish)):
        return Way(channel=filing.channel, why="it was chosen" if is_chosen else "the visitor is there")
    permitted = _permitted(situation)
    address = next((one for one in permitted if not one.refusal), None)
    if address and not is_chosen:
        why = "it was chosen" if wish else "the visitor is not there"
        return Way(channel=situation.follow_up, why=why, to=address.identifier, spelling=address.spelling)
    if situation.is_shown and not wish:
        why = _why_no_mail(situation, permitted)
        return Way(channel=filing.channel, why=f"the visitor is not there, and {why}")
    if permitted and not is_chosen:
        raise Conflict(f"conversation {filing.id} cannot be answered by mail: {permitted[0].refusal}")
    raise UnsupportedError(_nowhere(situation, permitted))


def objection(situation: Situation, to: Identifier) -> str:
    """Give why a mail that was on its way to an address may not go there any more; empty: nothing speaks against it."""
    refusals = [one.refusal for one in _permitted(situation) if one.identifier == to]
    if not refusals:
        return f"{to} is no address any more at which this conversation is answered"
    return "" if "" in refusals else refusals[0]


def follow_up_of(message: Message) -> Identifier | None:
    """Give the address to which a message goes by mail that is not where its conversation is; None for any other."""
    to = _way_of(message).get("to")
    return Identifier(kind="email", scope="", value=to) if to else None


def recipient(message: Message, filing: Filing) -> Identifier | None:
    """Give to whom an outbound message of a conversation goes; None where that is nobody."""
    return follow_up_of(message) or filing.identifier


def spelling(message: Message) -> str:
    """Give how the address of a message is spelt that goes by mail; empty for any other."""
    return str(_way_of(message).get("address", ""))


def is_there(seen_at: datetime | None, now: datetime) -> bool:
    """Say whether who was last seen at a moment counts as there."""
    return seen_at is not None and now - seen_at < PRESENT_FOR


def _way_of(message: Message) -> Mapping[str, str]:
    way: Mapping[str, str] = (message.detail or {}).get("way", {})
    return way


def _permitted(situation: Situation) -> tuple[Address, ...]:
    """Give the addresses at which the answer would be read by nobody but whom it is for, the best attested first."""
    if not situation.follow_up:
        return ()
    permitted = [one for one in situation.addresses if _may_read(situation, one)]
    own = situation.filing.identifier
    return tuple(sorted(permitted, key=lambda one: (one.identifier != own, -one.trust, one.identifier.value)))


def _may_read(situation: Situation, address: Address) -> bool:
    filing = situation.filing
    if address.identifier == filing.identifier or (address.is_typed_here and not filing.is_verified):
        # Else whoever types somebody's address would have a program write to them.
        return not (situation.is_automatic and filing.trust is Trust.ASSERTED)
    return filing.is_verified and address.trust > Trust.ASSERTED


def _why_no_mail(situation: Situation, permitted: Sequence[Address]) -> str:
    if not situation.follow_up:
        return f"no e-mail channel follows {situation.filing.channel!r} up"
    return permitted[0].refusal if permitted else "there is no address to which this may be written"


def _nowhere(situation: Situation, permitted: Sequence[Address]) -> str:
    filing = situation.filing
    where = f"conversation {filing.id} is on {filing.channel!r}, which cannot answer"
    if situation.is_shown:
        return f"{where} by mail: {_why_no_mail(situation, permitted)}"
    return f"{where}, and in no browser where a widget would show it; {_why_no_mail(situation, permitted)}"
