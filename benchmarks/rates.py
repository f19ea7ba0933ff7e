"""Rates: how many messages a second everybody stores, and whether one message costs the same among many contacts.

A group gives laps by name, one for each round. In a round everybody has a turn, so that noise meets all alike.
"""

import itertools
import random
import statistics
import sys
from argparse import Namespace
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import prefill
import roster
from attrs import evolve
from contestants import Contestant, Name, OneByOne
from laps import Lap, timed
from limit import address
from places import SqliteFile
from server import Server

from convsdk.hub import Hub

Laps = dict[Name, list[Lap]]
KNOWN, NEW = "known senders", "new senders"
_UNKNOWN = 10**12  # addresses of higher numbers are nobody's yet


def lap(contestant: Contestant, senders: Iterator[str], *, is_new: bool, seconds: float, server: Server | None) -> Lap:
    """Have a contestant store messages for `seconds`; the first portion warms it up and does not count."""
    calls: list[float] = []
    messages, wall_s, cpu_s, server_s = 0, 0.0, 0.0, 0.0
    contestant.take(contestant.prepare(list(itertools.islice(senders, contestant.portion))))
    stored = {table: contestant.place.count(table) for table in ("message", "contact")}
    while wall_s < seconds:
        ready = contestant.prepare(list(itertools.islice(senders, contestant.portion)))
        server_s -= server.cpu_s() if server else 0
        with timed() as spent:
            calls += contestant.take(ready)
        server_s += server.cpu_s() if server else 0
        contestant.check(is_new=is_new)
        messages, wall_s, cpu_s = messages + contestant.portion, wall_s + spent["wall"], cpu_s + spent["cpu"]
    added = {"message": messages, "contact": messages if is_new else 0}
    for table, before in stored.items():
        after = contestant.place.count(table)
        assert after - before == added[table], (
            f"{contestant.name}: {after - before} rows of {table}, not {added[table]}"
        )
    p50_s = statistics.median(calls)
    return Lap(messages=messages, wall_s=wall_s, cpu_s=cpu_s, server_s=server_s, p50_s=p50_s)


def _strangers() -> Iterator[str]:
    return map(address, itertools.count(_UNKNOWN))


def _acquaintances(contacts: int) -> Iterator[str]:
    pick = random.Random(contacts)
    return (address(pick.randint(1, contacts)) for _ in itertools.count())


def rates(contestants: list[Contestant], options: Namespace, server: Server | None = None) -> Laps:
    """Give the laps of all contestants, with known and with new senders."""
    laps: Laps = defaultdict(list)
    # Everybody gets the same senders; who shares a database must not meet the other's new ones.
    known = {one.name: _acquaintances(options.contacts) for one in contestants}
    new = {one.place.url: _strangers() for one in contestants}
    for number in range(options.rounds):
        print(f"  round {number + 1} of {options.rounds}", file=sys.stderr)
        # Up and down in turn, so that who comes late in a round gains nothing and loses nothing by it.
        turns = contestants[:: -1 if number % 2 else 1]
        for what, is_new in ((KNOWN, False), (NEW, True)):
            for one in turns:
                senders = new[one.place.url] if is_new else known[one.name]
                done = lap(one, senders, is_new=is_new, seconds=options.seconds, server=server)
                laps[evolve(one.name, what=what)].append(done)
    return laps


def sqlite(folder: Path, options: Namespace, _: Server | None) -> Laps:
    """Give the rates on SQLite."""
    with ExitStack() as opened:
        contestants = roster.sqlite(folder, options, opened)
        return rates([opened.enter_context(closing(one)) for one in contestants], options)


def postgresql(_: Path, options: Namespace, server: Server | None) -> Laps:
    """Give the rates on PostgreSQL."""
    assert server, "there is no server to measure on"
    with ExitStack() as opened:
        contestants = roster.postgresql(server, options, opened)
        return rates([opened.enter_context(closing(one)) for one in contestants], options, server)


def size(folder: Path, options: Namespace, _: Server | None) -> Laps:
    """Give one message at a time among few contacts and among many."""
    laps: Laps = defaultdict(list)
    with ExitStack() as opened:
        contestants = {}
        for number in options.sizes:
            place = SqliteFile(folder / f"size-{number}.db")
            prefill.contacts(place, number)
            hub = opened.enter_context(closing(Hub(place.url)))
            name = Name(store="SQLite", who=roster.ONE.who, what=among(number))
            contestants[number] = OneByOne(hub, name, place, portion=options.portion), _acquaintances(number)
        for _round in range(options.rounds):
            for one, senders in contestants.values():
                done = lap(one, senders, is_new=False, seconds=options.seconds, server=None)
                laps[one.name].append(done)
    return laps


def among(contacts: int) -> str:
    """Name the row of a size."""
    return f"among {contacts:,} contacts"
