"""Several processes with one store: who does a work that is not to be done twice, and which of them are there."""

import math
import secrets
import time

from convsdk.core.ports import Clock
from convsdk.core.storage import Batch, Memo, Transaction
from convsdk.hub import Hub

MARK = "deliverer"
"""The kind of the memos by which workers show that they are there."""


class Lease:
    """Lets one process at a time do the work of that name in a workspace: the one whose mark stands in the store.

    Its holder renews the mark. Who has seen the same one for `length_s` puts its own there: no clocks are compared.
    A holder that hung for longer does not know that it lost the lease before it asks again, so what it does meanwhile
    has to be harmless.
    """

    def __init__(self, hub: Hub, work: str, *, clock: Clock, length_s: float) -> None:
        self._hub = hub
        self._key = (work, "lease")
        self._clock = clock
        self._length_s = length_s
        self._mark = ""
        self._seen: str | None = None
        self._seen_at = 0.0

    def hold(self) -> bool:
        """Take the lease if it is free, renew it if it is ours; say whether it is."""
        memo = self._hub.store.memo(self._hub.workspace, *self._key)
        mark, now = memo.text if memo else "", time.monotonic()
        if mark != self._seen:
            self._seen, self._seen_at = mark, now
        is_ours = bool(mark) and mark == self._mark
        is_fresh = now - self._seen_at < (self._length_s / 3 if is_ours else self._length_s)
        return is_ours if mark and is_fresh else self._replace(mark, secrets.token_hex(8))

    def release(self) -> None:
        """Let another process take over at once."""
        if self._mark:
            self._replace(self._mark, "")

    def _replace(self, before: str, mark: str) -> bool:
        """Put `mark` in the place of `before`, if that still stands there."""

        def work(transaction: Transaction) -> bool:
            memo = transaction.memo(*self._key)
            if (memo.text if memo else "") != before:
                return False
            transaction.write(Batch(memos={self._key: Memo(mark, self._clock())}))
            return True

        is_replaced = self._hub.store.transact(self._hub.workspace, work)
        if is_replaced:
            self._mark = mark
        return is_replaced


class Presence:
    """Shows the other workers that this one is there, and finds those that are no more.

    Each renews a mark of its own. Whose mark has stayed the same for `length_s` is gone: no clocks are compared.
    """

    def __init__(self, hub: Hub, *, clock: Clock, length_s: float) -> None:
        self.owner = secrets.token_hex(8)
        self._hub = hub
        self._clock = clock
        self._length_s = length_s
        self._renewed_at = -math.inf
        self._seen: dict[str, tuple[str, float]] = {}

    @property
    def is_fresh(self) -> bool:
        """Say whether nobody can have taken this worker for dead."""
        return time.monotonic() - self._renewed_at < self._length_s * 2 / 3

    def renew(self) -> None:
        """Put a new mark down."""
        renewed_at = time.monotonic()
        memo = Memo(secrets.token_hex(8), self._clock())
        batch = Batch(memos={(MARK, self.owner): memo})
        self._hub.store.transact(self._hub.workspace, lambda transaction: transaction.write(batch))
        self._renewed_at = renewed_at

    def gone(self) -> list[tuple[str, str]]:
        """Give the workers that have deliveries and are there no more, each with its last mark."""
        now, seen = time.monotonic(), {}
        for owner in self._hub.store.owners(self._hub.workspace):
            memo = self._hub.store.memo(self._hub.workspace, MARK, owner)
            mark = memo.text if memo else ""
            before, since = self._seen.get(owner, ("", now))
            seen[owner] = (mark, since if owner in self._seen and before == mark else now)
        self._seen = seen
        return [
            (owner, mark)
            for owner, (mark, since) in seen.items()
            if owner != self.owner and now - since >= self._length_s
        ]
