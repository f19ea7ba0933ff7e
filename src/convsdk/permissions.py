"""Who may be written to: what people said about that, and the lists that they are on. Neither implies the other."""

import secrets
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection

from convsdk.core.consent import (
    ConsentRecord,
    ConsentState,
    ListState,
    Membership,
    Permission,
    current,
    may_write,
    membership,
)
from convsdk.core.fold import Policy
from convsdk.core.model import Claim, Identifier, Trust
from convsdk.core.ports import Clock
from convsdk.core.storage import Batch, ContactRecord, Result, Store, Transaction
from convsdk.desk import consent_changed
from convsdk.errors import NotFound


class Permissions(ABC):
    """What a `Hub` knows and records of consent and of lists."""

    store: Store
    workspace: str
    policy: Policy
    _clock: Clock

    @abstractmethod
    def transact(self, work: Callable[[Transaction], Result]) -> Result:
        """Run `work` as `Store.transact` does, and wake those who follow what this hub writes."""

    def record_consent(
        self,
        kind: str,
        value: str,
        purpose: str,
        state: ConsentState,
        *,
        by: str,
        where: str = "",
        wording: str = "",
        wording_version: str = "",
        trust: Trust = Trust.AGENT,
        scope: str = "",
    ) -> ConsentRecord:
        """Record what somebody said about being written to at one identifier. A yes without proof stays pending."""
        identifier = self.policy.canonical(Claim(kind, value, trust, scope))
        if identifier is None:
            raise ValueError(f"{value!r} is no usable {kind}: nothing was recorded")
        is_unproven = state is ConsentState.GRANTED and trust is Trust.ASSERTED
        record = ConsentRecord(
            identifier=identifier,
            purpose=purpose,
            state=ConsentState.PENDING if is_unproven else state,
            at=self._clock(),
            hint=f"consent/{secrets.token_hex(8)}",
            trust=trust,
            by=by,
            where=where,
            wording=wording,
            wording_version=wording_version,
        )

        def work(transaction: Transaction) -> None:
            notice = consent_changed(record, id=next(transaction.new_ids()))
            transaction.write(Batch(consents=[record], notices=[notice]))

        self.transact(work)
        return record

    def consent(self, identifier: Identifier, purpose: str) -> ConsentState | None:
        """Give what counts for one identifier and purpose, or None where nobody ever said anything."""
        contact = self.store.find(self.workspace, identifier)
        holder = self.store.contact(self.workspace, contact) if contact else None
        record = current(self._consents([identifier], holder), purpose)
        return record.state if record else None

    def _consents(self, identifiers: Collection[Identifier], holder: ContactRecord | None) -> list[ConsentRecord]:
        """Give the statements that count for who holds the identifiers now: a yes ends where they change hands."""
        since = {held.node.identifier: held.since for held in holder.holdings if held.since} if holder else {}
        return [
            one
            for one in self.store.consents(self.workspace, identifiers)
            if one.state is not ConsentState.GRANTED
            or one.identifier not in since
            or one.order >= since[one.identifier]
        ]

    def may_write(self, identifier: Identifier, purpose: str, *, list_name: str | None = None) -> Permission:
        """Say whether a contact may be written to at `identifier` for `purpose`, and if not, what is missing."""
        contact = self.store.find(self.workspace, identifier)
        record = self.store.contact(self.workspace, contact) if contact else None
        identifiers = {identifier, *(held.node.identifier for held in record.holdings)} if record else {identifier}
        return may_write(
            identifier,
            purpose,
            self._consents(identifiers, record),
            list_name=list_name,
            memberships=self.store.memberships(self.workspace, record.members) if record else (),
        )

    def set_list(self, contact: int, name: str, state: ListState, *, how: str, by: str = "") -> None:
        """Put a contact on a list, or take it off. This says nothing about consent."""
        record = self.store.contact(self.workspace, contact)
        if record is None:
            raise NotFound(f"no contact {contact} in workspace {self.workspace!r}: see 'convsdk contacts'")
        at = self._clock()
        # One record for every contact that was merged into this one: each keeps it if they are separated again.
        records = [Membership(contact=one, list=name, state=state, at=at, how=how, by=by) for one in record.members]
        self.transact(lambda transaction: transaction.write(Batch(memberships=records)))

    def on_list(self, contact: int, name: str) -> ListState | None:
        """Give whether a contact is on a list, or None where nothing was ever recorded."""
        record = self.store.contact(self.workspace, contact)
        return membership(self.store.memberships(self.workspace, record.members), name) if record else None
