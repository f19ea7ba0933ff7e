"""Contacts and messages in any number, within minutes: what the product has written once, written many times.

The Hub makes a few contacts. The rows that the last one of them brought are multiplied in SQL: ids go on in steps,
its address, its message's name and its time are exchanged. So a prefill follows the schema, whatever that becomes, and
the Hub is asked afterwards whether it knows the contacts as its own.
"""

import random
import re
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta

from attrs import frozen
from limit import BODY, address
from places import Column, Place, PostgresqlDatabase

from convsdk.core.events import MessageReceived
from convsdk.core.model import Claim, IdentityHint, Outcome, Trust
from convsdk.hub import Hub

CHANNEL = "mail"
START = datetime(2026, 1, 5, tzinfo=UTC)
NOW = datetime(2026, 11, 2, tzinfo=UTC)
BY_HAND = 512  # so many are made by the Hub: their ids have outgrown whatever else is a number in a row
SAMPLES = 64
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def mail(sender: str, external_id: str, at: datetime) -> MessageReceived:
    """Give an authenticated mail of 200 bytes, as the e-mail channel reads it."""
    hint = IdentityHint(at=at, identifiers=(Claim("email", sender, Trust.CHANNEL),), how="inbound e-mail")
    return MessageReceived(external_id=external_id, hint=hint, at=at, text=BODY)


@frozen(kw_only=True)
class Letter:
    """What one message of a prefill says that the others do not: who wrote, its name, when."""

    sender: str
    name: str
    at: datetime

    @property
    def moment(self) -> str:
        """Give the time as it stands in JSON."""
        return self.at.isoformat().replace("+00:00", "Z")

    @property
    def stamp(self) -> int:
        """Give the time as it stands in a column."""
        return (self.at - _EPOCH) // timedelta(microseconds=1)

    def event(self) -> MessageReceived:
        """Give the message."""
        return mail(self.sender, self.name, self.at)


def first(contact: int) -> Letter:
    """Give the first letter of a contact."""
    return Letter(sender=address(contact), name=f"first-{contact:012d}", at=START + timedelta(seconds=contact))


def further(contact: int, number: int) -> Letter:
    """Give the n-th of many letters of a contact."""
    at = START + timedelta(seconds=contact + number)
    return Letter(sender=address(contact), name=f"more-{contact}-{number:012d}", at=at)


@frozen(kw_only=True)
class Seed:
    """The rows that one letter brought, and how they are to be written for another letter."""

    letter: Letter
    ids: range
    rows: dict[str, list[dict[Column, object]]]

    def newest(self, times: int) -> int:
        """Give the last id that is spent when the seed has been multiplied."""
        return self.ids[-1] + times * len(self.ids)

    def statements(self, place: Place) -> Iterator[str]:
        """Give the statements that write the seed once for each row of `fill`."""
        for table, rows in self.rows.items():
            for row in rows:
                names = ", ".join(f'"{column.name}"' for column in row)
                values = ", ".join(self._expression(place, column, value) for column, value in row.items())
                yield f"insert into {table} ({names}) select {values} from fill f order by f.k"

    def _expression(self, place: Place, column: Column, value: object) -> str:
        if value is None:
            return "null"
        if isinstance(value, bool):
            return str(value).lower()
        if isinstance(value, int):
            return self._number(column, value)
        assert isinstance(value, str | bytes), f"{column} holds {value!r}: say how it is multiplied"
        text = value.decode() if isinstance(value, bytes) else value
        return place.written(self._text(text), column, value)

    def _number(self, column: Column, value: int) -> str:
        if column.is_id and value in self.ids:
            return f"{value} + f.k * {len(self.ids)}"
        return "f.stamp" if value == self.letter.stamp else str(value)

    def _text(self, text: str) -> str:
        changing = {self.letter.sender: "f.address", self.letter.name: "f.marker", self.letter.moment: "f.moment"}
        changing |= {str(one): f"cast({one} + f.k * {len(self.ids)} as text)" for one in self.ids}
        words = "|".join(re.escape(word) for word in changing if not word.isdigit())
        parts = re.split(rf"({words}|(?<![\w.-])\d+(?![\w.-]))", text)
        return " || ".join(changing.get(part) or "'{}'".format(part.replace("'", "''")) for part in parts)


def sow(place: Place, letter: Letter) -> Seed:
    """Have the Hub take one letter, and give the rows that this brought."""
    before = max(_ids(place))
    _receive(place, [letter])
    rows = {table: found for table in _tables(place) if (found := list(_brought(place, table, before, letter.name)))}
    ids = sorted({one for one in _ids(place) if one > before})
    return Seed(letter=letter, ids=range(ids[0], ids[-1] + 1), rows=rows)


def _receive(place: Place, letters: Iterable[Letter]) -> None:
    hub = Hub(place.url)
    try:
        hub.receive(CHANNEL, [one.event() for one in letters])
    finally:
        hub.close()


def _tables(place: Place) -> list[str]:
    return [one for one in place.tables() if any(column.name == "workspace_id" for column in place.columns(one))]


def _rows(place: Place, table: str) -> Iterator[dict[Column, object]]:
    columns = place.columns(table)
    selected = ", ".join(map(place.readable, columns))
    for row in place.ask(f"select {selected} from {table}"):
        yield dict(zip(columns, row, strict=True))


def _ids(place: Place) -> Iterator[int]:
    for table in _tables(place):
        names = [column.name for column in place.columns(table) if column.is_id]
        for name in names:
            for (found,) in place.ask(f"select max({name}) from {table}"):
                if isinstance(found, int):
                    yield found


def _brought(place: Place, table: str, before: int, name: str) -> Iterator[dict[Column, object]]:
    for row in _rows(place, table):
        is_new = any(column.is_id and isinstance(value, int) and value > before for column, value in row.items())
        if is_new or any(name in str(value) for value in row.values()):
            yield row


def multiply(place: Place, seed: Seed, letters: Callable[[int], Letter], times: int, *further: str) -> None:
    """Write `seed` again for `letters(1)` to `letters(times)`; then run the statements `further`."""
    rows = (
        (number, one.sender, one.name, one.moment, one.stamp)
        for number, one in ((number, letters(number)) for number in range(1, times + 1))
    )
    following = seed.newest(times) + 1
    is_postgresql = isinstance(place, PostgresqlDatabase)
    spend = f"select setval('row_id', {following})" if is_postgresql else f"update workspace set next_id = {following}"
    with place.filling(rows) as run:
        for statement in (*seed.statements(place), *further, spend):
            run(statement)


def contacts(place: Place, number: int) -> None:
    """Make contacts 1 to `number`, each with one message, and check that the Hub knows them."""
    assert number > BY_HAND, f"{number} contacts are too few: give more than {BY_HAND}"
    _receive(place, map(first, range(1, BY_HAND)))
    seed = sow(place, first(BY_HAND))
    multiply(place, seed, lambda one: first(BY_HAND + one), number - BY_HAND)
    (base,) = (row[column] for row in seed.rows["contact"] for column in row if column.name == "id")
    assert isinstance(base, int)
    pick = random.Random(number)
    sample = {number, BY_HAND + 1, *(pick.randint(BY_HAND + 1, number) for _ in range(SAMPLES))}
    _check(place, {one: base + (one - BY_HAND) * len(seed.ids) for one in sample})
    assert place.count("contact") == number, f"{place.url} holds {place.count('contact')} contacts, not {number}"


def _check(place: Place, expected: dict[int, int]) -> None:
    hub = Hub(place.url)
    try:
        for one, contact in expected.items():
            found = hub.find("email", address(one))
            assert found, f"the Hub does not know {address(one)}"
            (received,) = hub.receive(CHANNEL, [mail(address(one), f"check-{one}", NOW)])
            decision = received.decision
            assert (decision.outcome, decision.contact) == (Outcome.ATTACHED, contact), received
            assert found.id == contact, found
            stored = hub.messages(received.conversation or 0).items
            assert [message.external_id for message in stored] == [f"check-{one}", first(one).name], stored
            (replayed,) = hub.receive(CHANNEL, [first(one).event()])
            assert replayed.decision.outcome is Outcome.DUPLICATE, replayed
            assert replayed.decision.contact == contact, replayed
    finally:
        hub.close()


def messages(place: Place, contact: int, number: int) -> None:
    """Give a contact `number` messages more, and check that the Hub lists them."""
    seed = sow(place, further(contact, 0))
    (conversation,) = (one for column, one in seed.rows["message"][0].items() if column.name == "conversation_id")
    counted = f"update conversation set messages = {number + 1}, unread = {number + 1} where id = {conversation}"
    multiply(place, seed, lambda one: further(contact, one), number - 1, counted)
    hub = Hub(place.url)
    try:
        who = hub.find("email", address(contact))
        assert who
        (found,) = hub.conversations(contact=who.id)
        newest = hub.messages(found.id, limit=2).items
    finally:
        hub.close()
    assert (found.id, found.filing.messages) == (conversation, number + 1), found
    assert [one.external_id for one in newest] == [further(contact, number - one).name for one in (1, 2)], newest
