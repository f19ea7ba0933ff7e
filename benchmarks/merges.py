"""Merges: does the time of one, or of a look at what was written last, grow with the messages of the contacts?"""

import statistics
from argparse import Namespace
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import prefill
from contestants import Name
from laps import Lap, timed
from limit import address
from places import Place, PostgresqlDatabase, SqliteFile
from server import Server

from convsdk.core.model import Message
from convsdk.hub import Hub

WHO = "`Hub`"
SHOWN = 50
_MANY, _FEW, _ALONE = 1, 2, 3  # contacts by number: two to be merged, and one that never is
_PARTNERS = 10  # from here on: contacts with one message, to merge them with


def merge(folder: Path, options: Namespace, server: Server | None) -> dict[Name, list[Lap]]:
    """Give merges, and looks at the last messages, of contacts with few messages and with many."""
    laps: dict[Name, list[Lap]] = defaultdict(list)
    places: dict[str, Place] = {"SQLite": SqliteFile(folder / "merge.db")}
    if server:
        places["PostgreSQL"] = PostgresqlDatabase(server.create("convsdk_bench_merge"))
    with ExitStack() as opened:
        hubs = {}
        for store, place in places.items():
            opened.callback(place.close)
            _prepare(place, *options.messages)
            hubs[store] = opened.enter_context(closing(Hub(place.url)))
        for _ in range(options.rounds):
            for store, hub in hubs.items():
                for what, lap in Round(hub, options).laps().items():
                    laps[Name(store=store, who=WHO, what=what)].append(lap)
    return laps


def _prepare(place: Place, few: int, many: int) -> None:
    prefill.contacts(place, prefill.BY_HAND + 1)
    for contact, number in ((_ALONE, few), (_FEW, few), (_MANY, many)):
        prefill.messages(place, contact, number)


def merging(messages: int) -> str:
    """Name the row of a merge."""
    return f"merge a contact with {messages:,} messages"


def listing(messages: int, *, is_merged: bool) -> str:
    """Name the row of a look."""
    return f"list the last {SHOWN} of {messages:,} messages, {'merged' if is_merged else 'unmerged'}"


def last_messages(hub: Hub, contact: int) -> list[Message]:
    """Give the last messages of all conversations of a contact, the newest first."""
    conversations = hub.conversations(contact=contact, limit=SHOWN)
    found = [message for one in conversations for message in hub.messages(one.id, limit=SHOWN).items]
    return sorted(found, key=lambda one: (one.at, one.id), reverse=True)[:SHOWN]


class Round:
    """One round: each contact is merged with others and separated again, several times."""

    def __init__(self, hub: Hub, options: Namespace) -> None:
        self._hub = hub
        self._options = options
        self._spent: dict[str, list[dict[str, float]]] = defaultdict(list)

    def laps(self) -> dict[str, Lap]:
        """Measure."""
        few, many = self._options.messages
        for number in range(self._options.merges):
            self._look(self._id(_ALONE), _ALONE, listing(few, is_merged=False), few)
            self._look(self._id(_MANY), _MANY, listing(many, is_merged=False), many)
            self._merge(_FEW, _PARTNERS + number, few)
            self._merge(_MANY, _PARTNERS + number, many)
        return {what: _lap(calls) for what, calls in self._spent.items()}

    def _merge(self, contact: int, partner: int, messages: int) -> None:
        both = self._id(contact), self._id(partner)
        assert both[0] != both[1], both
        with self._timed(merging(messages)):
            ruled = self._hub.merge(*both, by="benchmark")
        assert ruled.is_joined, ruled
        self._look(self._id(partner), contact, listing(messages, is_merged=True), messages)
        self._hub.unmerge(ruled.id, by="benchmark")
        assert (self._id(contact), self._id(partner)) == both, "separated contacts are those from before the merge"

    def _look(self, shown: int, contact: int, what: str, messages: int) -> None:
        with self._timed(what):
            found = last_messages(self._hub, shown)
        expected = [prefill.further(contact, messages - 1 - number).name for number in range(SHOWN)]
        assert [one.external_id for one in found] == expected, found

    def _id(self, number: int) -> int:
        contact = self._hub.find("email", address(number))
        assert contact, f"nobody has the address {address(number)}"
        return contact.id

    @contextmanager
    def _timed(self, what: str) -> Iterator[None]:
        with timed() as spent:
            yield
        self._spent[what].append(spent)


def _lap(calls: list[dict[str, float]]) -> Lap:
    return Lap(
        messages=len(calls),
        wall_s=sum(one["wall"] for one in calls),
        cpu_s=sum(one["cpu"] for one in calls),
        p50_s=statistics.median(one["wall"] for one in calls),
    )
