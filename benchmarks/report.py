"""What the figures say: which target is met, as Markdown and as JSON."""

import statistics
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bulk
import merges
import rates
import roster
import webhooks
from attrs import evolve, frozen
from contestants import Name
from laps import Lap

FLAT = 1.1  # what the memory of a load may grow by, for noise
MEMORY_MIB = 200
Laps = dict[Name, list[Lap]]


@frozen(kw_only=True)
class Target:
    """A figure of ours, as a ratio to another where there is one, and the bound that was promised, if any was."""

    number: str
    claim: str
    ours: Name
    base: Name | None = None
    figure: str = "rate"
    least: float | None = None
    most: float | None = None

    @property
    def bound(self) -> str:
        """Give the bound as text."""
        if self.least is None and self.most is None:
            return "none"
        return f"≥ {self.least:g}" if self.least is not None else f"≤ {self.most:g}"

    def measured(self, laps: Laps) -> list[float]:
        """Give the figure of each round; none where somebody did not take part."""
        if self.ours not in laps or (self.base and self.base not in laps):
            return []
        ours = [getattr(one, self.figure) for one in laps[self.ours]]
        base = [getattr(one, self.figure) for one in laps[self.base]] if self.base else [1.0] * len(ours)
        return [one / other for one, other in zip(ours, base, strict=True)]

    def is_met(self, median: float) -> bool:
        """Say whether the bound holds for the median of the rounds."""
        return (self.least is None or median >= self.least) and (self.most is None or median <= self.most)


def targets(options: Namespace) -> Iterator[Target]:
    """Give what is compared, in the order of the page."""
    yield from _one_by_one()
    for number, store in (("2", "SQLite"), ("3", "PostgreSQL")):
        yield from _group_commit(number, store, options.callers)
    yield from _django()
    yield from _size(*options.sizes)
    for store in ("SQLite", "PostgreSQL"):
        yield from _merge(store, *options.messages)
    for store in ("SQLite", "PostgreSQL"):
        yield from _memory(store, *options.loads)
    for store in ("SQLite", "PostgreSQL"):
        yield from _webhooks(store)


def _named(name: Name, store: str, what: str = rates.KNOWN) -> Name:
    return evolve(name, store=store, what=what)


def _one_by_one() -> Iterator[Target]:
    for store, what in (("SQLite", rates.KNOWN), ("SQLite", rates.NEW), ("PostgreSQL", rates.KNOWN)):
        yield Target(
            number="1",
            claim=f"one message at a time, {store}, {what}: share of the limit's rate one at a time",
            ours=_named(roster.ONE, store, what),
            base=_named(roster.LIMIT, store, what),
            least=0.6 if (store, what) == ("SQLite", rates.KNOWN) else None,
        )


def _group_commit(number: str, store: str, callers: int) -> Iterator[Target]:
    for name, base, what, least in (
        (roster.TASKS, roster.LIMIT_BATCH, rates.KNOWN, 0.5),
        (roster.TASKS, roster.LIMIT, rates.KNOWN, 2.5 if store == "SQLite" else None),
        (roster.TASKS, roster.LIMIT_BATCH, rates.NEW, None),
        (roster.THREADS, roster.LIMIT_BATCH, rates.KNOWN, None),
        (roster.THREADS, roster.LIMIT, rates.KNOWN, None),
    ):
        kind = "asyncio tasks" if name is roster.TASKS else "threads"
        yield Target(
            number=number,
            claim=f"group commit, {callers} {kind}, {store}, {what}: share of the rate of {base.who}",
            ours=_named(name, store, what),
            base=_named(base, store, what),
            least=least,
        )


def _django() -> Iterator[Target]:
    for store, base in (
        ("SQLite", roster.DJANGO),
        ("PostgreSQL", roster.DJANGO),
        ("PostgreSQL", roster.DJANGO_THREADS),
    ):
        for what, least in ((rates.KNOWN, 8), (rates.NEW, None)):
            yield Target(
                number="4",
                claim=f"group commit, {store}, {what}: times as fast as {base.who}",
                ours=_named(roster.TASKS, store, what),
                base=_named(base, store, what),
                least=least,
            )


def _size(few: int, many: int) -> Iterator[Target]:
    yield Target(
        number="5",
        claim=f"one message among {many:,} contacts: its median time over that among {few:,}",
        ours=_named(roster.ONE, "SQLite", rates.among(many)),
        base=_named(roster.ONE, "SQLite", rates.among(few)),
        figure="p50_ms",
        most=1.5,
    )


def _merge(store: str, few: int, many: int) -> Iterator[Target]:
    yield Target(
        number="6",
        claim=f"merge of a contact with {many:,} messages, {store}: its time over that of one with {few:,}",
        ours=Name(store=store, who=merges.WHO, what=merges.merging(many)),
        base=Name(store=store, who=merges.WHO, what=merges.merging(few)),
        figure="p50_ms",
        most=2,
    )
    for unmerged, most in ((few, 2), (many, None)):
        yield Target(
            number="6",
            claim=f"its last {merges.SHOWN} messages afterwards, {store}: time over that of an unmerged contact with "
            f"{unmerged:,}",
            ours=Name(store=store, who=merges.WHO, what=merges.listing(many, is_merged=True)),
            base=Name(store=store, who=merges.WHO, what=merges.listing(unmerged, is_merged=False)),
            figure="p50_ms",
            most=most,
        )


def _memory(store: str, few: int, many: int) -> Iterator[Target]:
    small, large = (Name(store=store, who=bulk.WHO, what=bulk.loading(one)) for one in (few, many))
    for name in (small, large):
        claim = f"{name.what}, {store}: most resident memory in MiB"
        yield Target(number="7", claim=claim, ours=name, figure="rss_mib", most=MEMORY_MIB)
    claim = f"{name.what}, {store}: memory over that of {few:,}"
    yield Target(number="7", claim=claim, ours=large, base=small, figure="rss_mib", most=FLAT)


def _webhooks(store: str) -> Iterator[Target]:
    ours, each = (evolve(one, store=store) for one in (webhooks.GROUP, webhooks.EACH))
    claim = f"durable webhooks, {store}, group commit: times as fast as a commit for each request in the same app"
    yield Target(number="8", claim=claim, ours=ours, base=each, least=2.5)
    claim = f"durable webhooks, {store}, group commit: share of the rate of {webhooks.BARE.who}"
    yield Target(number="8", claim=claim, ours=ours, base=webhooks.BARE)


def _spread(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def _shown(values: list[float], digits: int = 0) -> str:
    if len(values) == 1:
        return f"{values[0]:,.{digits}f}"
    spread = _spread(values)
    return f"{spread['median']:,.{digits}f} ({spread['min']:,.{digits}f}-{spread['max']:,.{digits}f})"


def as_json(laps: Laps, options: Namespace, machine: dict[str, str]) -> dict[str, Any]:
    """Give everything, every round included."""
    figures = ("messages", "rate", "cpu_us", "p50_ms", "rss_mib")
    return {
        "machine": machine,
        "options": {name: value for name, value in vars(options).items() if isinstance(value, int | float | list)},
        "targets": [
            {"number": one.number, "claim": one.claim, "bound": one.bound}
            | ({"is_met": one.is_met(statistics.median(values)), **_spread(values)} if values else {"is_met": None})
            for one, values in ((one, one.measured(laps)) for one in targets(options))
        ],
        "rows": [
            {"store": name.store, "who": name.who, "what": name.what}
            | {"rounds": [{figure: getattr(lap, figure) for figure in figures} for lap in rounds]}
            for name, rounds in laps.items()
        ],
    }


def target_table(laps: Laps, options: Namespace) -> str:
    """Give the table of what is compared."""
    lines = ["| row | what | target | measured | met |", "|---|---|---|---|---|"]
    for one in targets(options):
        values = one.measured(laps)
        verdict = "" if one.bound == "none" else "yes" if values and one.is_met(statistics.median(values)) else "**no**"
        measured, verdict = (_shown(values, 2), verdict) if values else ("not measured", "")
        lines.append(f"| {one.number} | {one.claim} | {one.bound} | {measured} | {verdict} |")
    return "\n".join(lines)


def row_table(laps: Laps) -> str:
    """Give the table of all rows."""
    lines = [
        "| store | who | what | a second | processor, µs each | median call, ms | memory, MiB |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, rounds in laps.items():
        calls = _shown([one.p50_ms for one in rounds], 2) if any(one.p50_s for one in rounds) else ""
        memory = _shown([one.rss_mib for one in rounds]) if any(one.rss_mib for one in rounds) else ""
        rate, cpu = _shown([one.rate for one in rounds]), _shown([one.cpu_us for one in rounds])
        lines.append(f"| {name.store} | {name.who} | {name.what} | {rate} | {cpu} | {calls} | {memory} |")
    return "\n".join(lines)


def _rounds(laps: Laps) -> str:
    """Give how many rounds the rows have; a single one is of what has no noise."""
    counts = {len(one) for one in laps.values()} - {1} or {1}
    least, most = min(counts), max(counts)
    return f"{least}" if least == most else f"{least} to {most}"


def page(laps: Laps, options: Namespace, machine: dict[str, str], skipped: list[str]) -> str:
    """Give the page of the documentation."""
    facts = "\n".join(f"| {name} | {value} |" for name, value in machine.items())
    missing = "".join(f"\n**Not measured:** {one}.\n" for one in skipped)
    return (
        (Path(__file__).parent / "page.md")
        .read_text("utf-8")
        .format(
            machine=facts,
            missing=missing,
            targets=target_table(laps, options),
            rows=row_table(laps),
            contacts=f"{options.contacts:,}",
            rounds=_rounds(laps),
            seconds=f"{options.seconds:g}",
            callers=options.callers,
            batch=roster.BATCH,
            shown=merges.SHOWN,
            writers=f"{bulk.WRITERS:,}",
            flat=FLAT,
            connections=webhooks.CONNECTIONS,
        )
    )
