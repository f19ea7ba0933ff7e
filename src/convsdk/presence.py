"""Which visitors look at their chat just now, for all processes of a store to know.

Each process writes for all of its visitors at once, when one comes or goes and every half minute. A clock that is a
few seconds behind another's does no harm.
"""

from collections.abc import Collection
from datetime import datetime, timedelta

from convsdk.core.inbox import Filing
from convsdk.core.storage import Batch, Memo, Transaction
from convsdk.core.ways import is_there

PRESENCE = "presence"
"""The kind of the memos that say when a visitor was last seen; the text names the process (empty: they went)."""
KEPT = timedelta(days=1)
"""How long it stays in the store."""

Place = tuple[str, str]
"""Where a visitor looks: a channel, and the thread in it."""


def key_of(place: Place) -> str:
    """Give the key of the memo that says whether somebody is there."""
    channel, thread = place
    return f"{channel}/{thread}"


def is_present(memo: Memo | None, now: datetime) -> bool:
    """Say whether a memo says that somebody is there now."""
    return memo is not None and memo.text != "" and is_there(memo.at, now)


def place_of(filing: Filing) -> Place:
    """Give where the visitor of a conversation would be."""
    return filing.channel, filing.thread


def show(transaction: Transaction, seen: Collection[Place], gone: Collection[Place], *, by: str, at: datetime) -> None:
    """Write down who is there and who went, as the process `by` sees it.

    Who went stays where another process has seen them since: the visitor has two pages open.
    """
    keys = {key_of(one) for one in gone}
    known = transaction.memos(PRESENCE, keys) if keys else {}
    memos = {(PRESENCE, key): Memo("", at) for key, memo in known.items() if memo.text == by}
    memos |= {(PRESENCE, key_of(one)): Memo(by, at) for one in seen}
    transaction.write(Batch(memos=memos))
