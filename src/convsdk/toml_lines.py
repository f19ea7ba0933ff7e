"""Where a TOML document says what: `tomllib` tells no lines, and libraries that keep them show them to nobody."""

import re
import tomllib
from collections.abc import Callable, Iterator

Key = tuple[str | int, ...]
"""A place in a document: the names of tables and keys on the way to it, and the numbers of array items."""

_TOKEN = re.compile(
    r'''(?P<blank>[ \t]+|\#[^\n]*)
    |(?P<newline>\r?\n)
    |(?P<string>"""(?:[^"\\]|\\.|"(?!""))*"{3,5}|\'\'\'(?:[^']|'(?!''))*'{3,5}|"(?:[^"\\\n]|\\.)*"|'[^'\n]*')
    |(?P<mark>[][{},=.])
    |(?P<bare>[^][{},=.\s\#"']+)''',
    re.VERBOSE | re.DOTALL,
)


def lines_of(text: str) -> dict[Key, int]:
    """Give the line of every table, key and array item in `text`, which must be TOML; `tomllib` tells none."""
    return _Scan(text).lines()


class _Scan:
    """A walk over the tokens of a TOML document that is known to be well-formed."""

    def __init__(self, text: str) -> None:
        self._tokens = list(self._tokenize(text))
        self._at = 0
        self._lines: dict[Key, int] = {}
        self._counts: dict[Key, int] = {}

    @staticmethod
    def _tokenize(text: str) -> Iterator[tuple[str, int]]:
        line = 1
        for found in _TOKEN.finditer(text):
            if found.lastgroup != "blank":
                yield ("\n" if found.lastgroup == "newline" else found[0]), line
            line += found[0].count("\n")
        yield "\n", line

    def lines(self) -> dict[Key, int]:
        """Walk the document."""
        table: Key = ()
        while self._at < len(self._tokens):
            if self._skips("\n"):
                continue
            if self._skips("["):
                table = self._header()
            else:
                self._pair(table)
        return self._lines

    def _skips(self, mark: str) -> bool:
        is_there = self._at < len(self._tokens) and self._tokens[self._at][0] == mark
        self._at += is_there
        return is_there

    def _header(self) -> Key:
        is_array = self._skips("[")
        line = self._tokens[self._at][1]
        table: Key = ()
        names = self._names()
        for name in names[:-1]:
            table = self._latest((*table, name))
            self._lines.setdefault(table, line)
        table = (*table, names[-1])
        if is_array:
            self._lines.setdefault(table, line)
            self._counts[table] = self._counts.get(table, -1) + 1
            table = self._latest(table)
        self._lines[table] = line
        while self._skips("]"):
            pass
        return table

    def _latest(self, table: Key) -> Key:
        return (*table, self._counts[table]) if table in self._counts else table

    def _names(self) -> list[str]:
        names = [self._name()]
        while self._skips("."):
            names.append(self._name())
        return names

    def _name(self) -> str:
        token = self._tokens[self._at][0]
        self._at += 1
        return str(tomllib.loads(f"name = {token}")["name"]) if token[0] in "\"'" else token

    def _pair(self, table: Key) -> None:
        line = self._tokens[self._at][1]
        for name in self._names():
            table = (*table, name)
            self._lines.setdefault(table, line)
        self._skips("=")
        self._value(table)

    def _value(self, key: Key) -> None:
        if self._skips("["):
            self._items("]", lambda index: self._item((*key, index)))
        elif self._skips("{"):
            self._items("}", lambda _: self._pair(key))
        else:
            while self._tokens[self._at][0] not in {",", "]", "}", "\n"}:
                self._at += 1

    def _items(self, end: str, read: Callable[[int], None]) -> None:
        index = 0
        while not self._skips(end):
            if self._skips("\n") or self._skips(","):
                continue
            read(index)
            index += 1

    def _item(self, key: Key) -> None:
        self._lines[key] = self._tokens[self._at][1]
        self._value(key)
