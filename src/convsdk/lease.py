"""One process at a time: who of several with one store does a work that is not to be done twice."""

import secrets
import time

from convsdk.core.ports import Clock
from convsdk.core.storage import Batch, Memo, Transaction
from convsdk.hub import Hub


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
