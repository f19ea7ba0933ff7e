"""May we write to this identifier, for this purpose, and why? And: who is on which list?

Two records that never imply one another. Consent belongs to an identifier and is append-only; being on a list belongs
to a contact. Marketing needs both. Nothing here is widened by a merge, an import or a claim that nobody proved.
"""

from collections.abc import Collection, Iterable
from datetime import datetime
from enum import Enum

from attrs import frozen

from convsdk.core.model import ConsentSignal, Identifier, Trust


class ConsentState(Enum):
    """What somebody said about being written to."""

    GRANTED = "granted"
    PENDING = "pending"
    WITHDRAWN = "withdrawn"
    DENIED = "denied"


@frozen(kw_only=True)
class ConsentRecord:
    """One statement about (identifier, purpose): what, when, by whom, where, in which words. Never changed."""

    identifier: Identifier
    purpose: str
    state: ConsentState
    at: datetime
    hint: str
    trust: Trust
    by: str = ""
    where: str = ""
    wording: str = ""
    wording_version: str = ""

    @property
    def order(self) -> tuple[datetime, str]:
        """Give what statements are ordered by: time, then the hint's id."""
        return self.at, self.hint


def state_of(signal: ConsentSignal, trust: Trust) -> ConsentState:
    """Give the state that a signal stands for. A yes that nobody attested waits for a double opt-in."""
    if signal.withdrawn:
        return ConsentState.WITHDRAWN
    if not signal.granted:
        return ConsentState.DENIED
    return ConsentState.PENDING if trust is Trust.ASSERTED else ConsentState.GRANTED


def current(records: Iterable[ConsentRecord], purpose: str) -> ConsentRecord | None:
    """Give the statement that counts among those of one identifier: the newest, or None where nobody said anything.

    A request that waits for its confirmation changes nothing about a consent that is already granted.
    """
    counting: ConsentRecord | None = None
    for record in sorted((one for one in records if one.purpose == purpose), key=lambda one: one.order):
        is_granted = counting is not None and counting.state is ConsentState.GRANTED
        if not (is_granted and record.state is ConsentState.PENDING):
            counting = record
    return counting


class ListState(Enum):
    """Whether a contact is on a list."""

    SUBSCRIBED = "subscribed"
    UNSUBSCRIBED = "unsubscribed"


@frozen(kw_only=True)
class Membership:
    """What was recorded about one contact and one list: what, when, how, by whom."""

    contact: int
    list: str
    state: ListState
    at: datetime
    how: str = ""
    by: str = ""


def membership(records: Iterable[Membership], name: str) -> ListState | None:
    """Give whether a contact is on the list `name`, from the records of all contacts that were merged into it.

    Each of these counts with its newest record, and one that left speaks for all: a merge puts nobody on a list.
    """
    newest: dict[int, Membership] = {}
    for record in records:
        if record.list == name and (record.contact not in newest or record.at >= newest[record.contact].at):
            newest[record.contact] = record
    states = {record.state for record in newest.values()}
    if ListState.UNSUBSCRIBED in states:
        return ListState.UNSUBSCRIBED
    return ListState.SUBSCRIBED if states else None


@frozen(kw_only=True)
class Permission:
    """The answer to "may we write?": yes or no, and what is missing, in words."""

    is_given: bool
    missing: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return self.is_given


def may_write(
    identifier: Identifier,
    purpose: str,
    records: Collection[ConsentRecord],
    *,
    list_name: str | None = None,
    memberships: Collection[Membership] = (),
) -> Permission:
    """Say whether the contact may be written to at `identifier` for `purpose`, as a member of `list_name` if given.

    `records` are the statements of all identifiers of the contact, `memberships` those of all its merged contacts. A
    withdrawal at another identifier of the same person counts where it is newer than the consent, and no request that
    waits for its confirmation hides it.
    """
    missing: list[str] = []
    own = current((one for one in records if one.identifier == identifier), purpose)
    if own is None:
        missing.append(f"{identifier} was never asked about {purpose}")
    elif own.state is not ConsentState.GRANTED:
        missing.append(f"{identifier} is {own.state.value} for {purpose}")
    else:
        missing += [
            f"{other.identifier}, the same person, has withdrawn from {purpose}"
            for other in _newest_of_each(purpose, [one for one in records if one.state is not ConsentState.PENDING])
            if other.state is ConsentState.WITHDRAWN and other.order > own.order
        ]
    if list_name is not None and membership(memberships, list_name) is not ListState.SUBSCRIBED:
        missing.append(f"the contact is not subscribed to {list_name}")
    return Permission(is_given=not missing, missing=tuple(missing))


def refusal(identifier: Identifier, purpose: str, records: Collection[ConsentRecord]) -> str:
    """Give in words why nothing is written to `identifier` for a purpose that nobody has to agree to; empty: no reason.

    `records` are the statements of all identifiers of the contact: a withdrawal at another one counts until this one
    is granted anew, and a request that waits for its confirmation hides none.
    """
    settled = [one for one in records if one.state is not ConsentState.PENDING]
    said = {one.identifier: one for one in _newest_of_each(purpose, settled)}
    own = said.pop(identifier, None)
    if own and own.state is not ConsentState.GRANTED:
        return f"{identifier} is {own.state.value} for {purpose}"
    for other in said.values():
        if other.state is ConsentState.WITHDRAWN and (own is None or other.order > own.order):
            return f"{other.identifier}, the same person, has withdrawn from {purpose}"
    return ""


def _newest_of_each(purpose: str, records: Collection[ConsentRecord]) -> list[ConsentRecord]:
    identifiers = sorted({record.identifier for record in records})
    found = (current((one for one in records if one.identifier == each), purpose) for each in identifiers)
    return [record for record in found if record is not None]
