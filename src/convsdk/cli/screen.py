"""What a command prints: a table on a terminal, aligned text in a pipe, JSON lines where they are asked for."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from enum import Enum
from typing import Any, TypeVar

import attrs
import click
import rich.box
from rich.console import Console
from rich.progress import track
from rich.table import Table
from rich.text import Text

from convsdk.core.model import Identifier, Node, Trust
from convsdk.core.ports import Secret

Item = TypeVar("Item")


def plain(value: Any) -> Any:  # noqa: ANN401  (any value of the core becomes JSON)
    """Give `value` as JSON has it: identifiers and times as text, trust by name, a secret as stars."""
    if isinstance(value, Secret):
        return "***"
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
    if value is None or value in ("", []):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return "; ".join(f"{key}: {cell(item)}" for key, item in value.items()) or "-"
    if isinstance(value, list):
        return ", ".join(map(cell, value))
    return "".join(character if character.isprintable() else " " for character in str(value))


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
        rows = [[cell(record.get(column)) for column in columns] for record in records]
        if not rows:
            self.say(empty)
        elif self._console.is_terminal:
            self._console.print(_drawn(columns, rows))
        else:
            click.echo("\n".join(_aligned([[column.upper() for column in columns], *rows])))

    def facts(self, record: Mapping[str, Any]) -> None:
        """Write one record: as a JSON line, or a line for each of its values."""
        if self.is_json:
            self.json(record)
            return
        for line in _aligned([[f"{name}:", cell(value)] for name, value in record.items()]):
            self.say(line)

    def progress(self, items: Iterable[Item], what: str) -> Iterator[Item]:
        """Give `items`, with a progress bar on standard error where that is a terminal."""
        console = Console(stderr=True)
        if not console.is_terminal:
            yield from items
            return
        yield from track(items, what, console=console, transient=True)


def _drawn(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    table = Table(*columns, box=rich.box.SIMPLE_HEAD, header_style="bold", pad_edge=False)
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]
