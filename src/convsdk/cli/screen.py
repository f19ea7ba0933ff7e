"""What a command prints: a table on a terminal, aligned text in a pipe, JSON lines where they are asked for."""

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from enum import Enum
from typing import Any

import attrs
import click
import rich.box
from rich.console import Console
from rich.progress import Progress, TextColumn
from rich.table import Column, Table
from rich.text import Text

from convsdk.core.model import Identifier, Node, Trust
from convsdk.core.ports import Secret

_FOLDED = 12


def plain(value: Any) -> Any:  # noqa: ANN401  (any value of the core becomes JSON)
    """Give `value` as JSON has it: identifiers and times as text, trust by name, a secret as stars, bytes as null."""
    if isinstance(value, Secret):
        return "***"
    if isinstance(value, bytes):
        return None
    if isinstance(value, Identifier | Node):
        return str(value)
    if isinstance(value, Enum):
        return value.name.lower() if isinstance(value, Trust) else value.value
    if isinstance(value, datetime):
        return value.isoformat()
    if attrs.has(type(value)):
        return {one.name: plain(getattr(value, one.name)) for one in attrs.fields(type(value))}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    return value


def cell(value: Any) -> str:  # noqa: ANN401  (as `plain`)
    """Give `value` in one line, with nothing in it that could steer a terminal."""
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M:%S")
    value = plain(value)
    if value is None or value in ("", [], {}):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict | list):
        return ("; " if isinstance(value, dict) else ", ").join(_items(value))
    return "".join(character if character.isprintable() else " " for character in str(value))


def _items(value: dict[str, Any] | list[Any]) -> list[str]:
    return (
        [f"{key}: {cell(item)}" for key, item in value.items()] if isinstance(value, dict) else list(map(cell, value))
    )


class Screen:
    """Where a command's output goes. `is_json` is what `--json` says."""

    def __init__(self, *, is_json: bool) -> None:
        self.is_json = is_json
        # Made anew for each command: a console keeps the stream that it finds when it is made.
        self._console = Console(highlight=False, markup=False, emoji=False)

    def json(self, record: object) -> None:
        """Write one JSON line, whatever was asked for."""
        click.echo(json.dumps(plain(record)))

    def say(self, text: str = "", *, style: str = "") -> None:
        """Write a line for people; with `--json`, nothing."""
        if self.is_json:
            return
        if self._console.is_terminal:
            self._console.print(Text(cell(text) if text else "", style=style))
        else:
            click.echo(cell(text) if text else "")

    def aside(self, text: str) -> None:
        """Write a line for people beside the output, on standard error."""
        click.echo(cell(text), err=True)

    def table(self, records: Iterable[Mapping[str, Any]], columns: Sequence[str], *, empty: str = "none") -> None:
        """Write `records`: as JSON lines, or the `columns` of them as a table; `empty` is said where there are none."""
        if self.is_json:
            for record in records:
                self.json(record)
            return
        asked = [[record.get(column) for column in columns] for record in records]
        if not asked:
            self.say(empty)
        elif self._console.is_terminal:
            self._console.print(_drawn(columns, asked, self._console.width))
        else:
            rows = ([cell(value) for value in values] for values in asked)
            click.echo("\n".join(_aligned([[column.upper() for column in columns], *rows])))

    def facts(self, record: Mapping[str, Any]) -> None:
        """Write one record: as a JSON line, or a line for each of its values."""
        if self.is_json:
            self.json(record)
            return
        if self._console.is_terminal:
            grid = Table.grid("", Column(overflow="fold"), padding=(0, 2))
            for name, value in record.items():
                grid.add_row(Text(f"{name}:", style="bold"), Text(_stacked(value)))
            self._console.print(grid)
            return
        for line in _aligned([[f"{name}:", cell(value)] for name, value in record.items()]):
            click.echo(line)

    @contextmanager
    def progress(self, what: str, total: int, *, is_told: bool = False) -> Iterator[Callable[[int, int], None]]:
        """Give what is called with the bytes and the events so far, and shows how far that is on standard error.

        On a terminal that is a bar. Elsewhere nothing is shown, or with `is_told` a line every few seconds.
        """
        console = Console(stderr=True)
        is_in_the_way = self.is_json and self._console.is_terminal
        pace = Pace(total)
        # Redirecting would send the JSON lines to standard error, too.
        with Progress(
            *Progress.get_default_columns()[:3],
            TextColumn("{task.fields[told]}"),
            console=console,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
            disable=is_in_the_way or not console.is_terminal,
        ) as bar:
            task = bar.add_task(what, total=total, told="")

            def tell(done: int, events: int) -> None:
                told = pace.told(done, events)
                bar.update(task, completed=done, told=told)
                if is_told and not console.is_terminal and pace.is_due():
                    self.aside(f"{what}: {told}")

            yield tell


class Pace:
    """How fast a long work goes, by a clock in seconds; its first look at it is the start of the work."""

    def __init__(self, total: int, *, clock: Callable[[], float] = time.monotonic, every_s: float = 5) -> None:
        self._total = total
        self._clock = clock
        self._every_s = every_s
        self._began = self._last = clock()
        self._first: int | None = None

    def told(self, done: int, events: int) -> str:
        """Say how far `done` of the bytes and so many events are, the rate, and the time that is left."""
        self._first = done if self._first is None else self._first
        spent = self._clock() - self._began
        share = f"{done / self._total:.0%}" if self._total else "100%"
        rate = f"{events / spent:,.0f} events/s" if spent else "-"
        # What an earlier run has passed counts as done, and not as fast.
        gained = done - self._first
        left = str(timedelta(seconds=round(spent * (self._total - done) / gained))) if gained > 0 else "?"
        return f"{share}, {events:,} events, {rate}, {left} left"

    def is_due(self) -> bool:
        """Say whether it is time for another line."""
        if self._clock() - self._last < self._every_s:
            return False
        self._last = self._clock()
        return True


def _drawn(columns: Sequence[str], rows: Sequence[Sequence[Any]], width: int) -> Table:
    table = Table(box=rich.box.SIMPLE_HEAD, header_style="bold", pad_edge=False, padding=(0, 1, 0, 0))
    cells = [list(map(_stacked, values)) for values in rows]
    needed = [
        max(len(line) for text in column for line in text.splitlines()) for column in zip(columns, *cells, strict=True)
    ]
    # The widest column is folded where they do not all fit, and the others, where that is enough, stay in one piece.
    is_enough = sum(needed) - max(needed) + 2 * len(needed) <= width - _FOLDED
    for name, size in zip(columns, needed, strict=True):
        table.add_column(name, overflow="fold", no_wrap=is_enough and size < max(needed))
    for row in cells:
        table.add_row(*map(Text, row))
    return table


def _stacked(value: Any) -> str:  # noqa: ANN401  (as `plain`)
    """Give `value` as a drawn table shows it: a line for each item of a list."""
    value = value if isinstance(value, datetime) else plain(value)
    return "\n".join(_items(value)) if value and isinstance(value, dict | list) else cell(value)


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]
