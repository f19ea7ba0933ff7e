"""HTML written down the way plain text has it, so that one set of rules finds quotes and signatures in both.

A reader for text and not a guard: what agents are shown as HTML is cleaned elsewhere. It takes time linear in the size
of the HTML, whatever is in it; the standard library's `html.parser` is quadratic on open comments and tags in releases
of Python that are still in use.
"""

import re
from collections import Counter

from convsdk.core.payloads import storable
from convsdk.core.texts import unescaped

_MOST_READ = 500_000
_DEEPEST = 5
_SIGNATURE_LINE = "-- "
_QUOTE_LINE = "-----Original Message-----"

_RAW = re.compile(r"</(?:script|style|title)\b", re.IGNORECASE)
_TOKEN = re.compile(
    r"<!--|<(?P<end>/?)(?P<name>[a-zA-Z][a-zA-Z0-9:-]*+)(?P<attributes>(?:[^>\"']|\"[^\"]*\"|'[^']*')*+)[>\"']?"
    r"|<[!?/][^<>]*+>?|[^<]++|<"
)
_ATTRIBUTE = re.compile(r"(?<![\w-])(class|id|type|cite|style)\s*+=\s*+(\"[^\"]*\"|'[^']*'|[^\s\"'>]++)", re.IGNORECASE)
_HIDDEN = re.compile(r"display\s*:\s*none|mso-hide\s*:\s*all", re.IGNORECASE)
_CITES = re.compile(r"\bcite\b|quote", re.IGNORECASE)
_QUOTES = re.compile(r"yahoo_quoted|protonmail_quote", re.IGNORECASE)
_SIGNATURES = re.compile(r"(?:gmail|moz|protonmail)[_-]signature(?!_prefix)|\bsignature\b", re.IGNORECASE)
_ANSWERED = re.compile(r"divRplyFwdMsg|mail-editor-reference-message-container", re.IGNORECASE)
_RAW_ELEMENTS = {"script", "style", "title"}
_VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}
_HEADINGS = {"h1", "h2", "h3", "h4", "h5", "h6"}
_SPACED = {"p", "blockquote", "ul", "ol", "table", "pre"} | _HEADINGS
_BLOCKS = _SPACED | {"address", "article", "center", "dd", "div", "dl", "dt", "footer", "form", "header", "hr", "li"}
_BLOCKS |= {"section", "tr"}
_MOST_ATTRIBUTES = 2_000


def written(markup: str) -> str:
    """Give the text of HTML the way plain text has it: quotes behind `>`, a line of dashes above the signature."""
    page, position, markup = _Page(), 0, markup[:_MOST_READ]
    while match := _TOKEN.match(markup, position):
        position = match.end()
        if match[0] == "<!--":
            end = markup.find("-->", position)
            position = end + 3 if end >= 0 else len(markup)
        elif match["name"] is None:
            page.say(match[0] if match[0][0] != "<" or match[0] == "<" else "")
        elif match["end"]:
            page.close(match["name"].lower())
        elif (name := match["name"].lower()) in _RAW_ELEMENTS:
            end_tag = _RAW.search(markup, position)
            position = end_tag.start() if end_tag else len(markup)
        else:
            page.open(name, match["attributes"][:_MOST_ATTRIBUTES])
    return page.text()


class _Page:
    """Lines, as they come out of elements. `_open` holds what each open element changed."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._line: list[str] = []
        self._depth = 0
        self._is_spaced = False
        self._open: list[tuple[str, Counter[str]]] = []
        self._names: Counter[str] = Counter()
        self._in: Counter[str] = Counter()

    def say(self, text: str) -> None:
        if self._in["hidden"]:
            return
        text = unescaped(text)
        if not self._in["pre"]:
            self._line.append(text)
            return
        first, *others = text.split("\n")
        self._line.append(first)
        for other in others:
            self._end_line()
            self._line.append(other)

    def open(self, name: str, attributes: str) -> None:
        if name in _BLOCKS:
            self._end_block(name)
        if name == "br":
            self._end_line()
        if name in _VOID:
            return
        effects, marks = _effects(name, attributes)
        for mark in marks:
            self._put_line(mark)
        if name == "li":
            self._line.append("- ")
        self._open.append((name, effects))
        self._names[name] += 1
        self._in.update(effects)

    def close(self, name: str) -> None:
        if name in {"td", "th"}:
            self._line.append(" ")
        if not self._names[name]:
            return
        if name in _BLOCKS:
            self._end_block(name)
        closed = ""
        while closed != name:
            closed, effects = self._open.pop()
            self._names[closed] -= 1
            self._in.subtract(effects)

    def text(self) -> str:
        self._end_block("p")
        return storable("\n".join(self._lines))

    def _end_block(self, name: str) -> None:
        # A block with nothing but a blank that does not break in it is how programs leave a line free.
        if "".join(self._line).strip(" \t\r\n"):
            self._end_line()
        self._line = []
        self._is_spaced |= name in _SPACED

    def _end_line(self) -> None:
        text = "".join(self._line)
        self._line = []
        self._put_line(text.rstrip() if self._in["pre"] else " ".join(text.split()))

    def _put_line(self, text: str) -> None:
        if self._in["hidden"]:
            return
        if not text:
            self._is_spaced = True
            return
        above, self._depth = self._depth, min(self._in["quote"], _DEEPEST)
        if self._is_spaced and self._lines:
            self._lines.append(("> " * min(above, self._depth)).rstrip())
        self._lines.append("> " * self._depth + text)
        self._is_spaced = False


def _effects(name: str, attributes: str) -> tuple[Counter[str], list[str]]:
    """Give what an element changes inside it, and the lines that stand for it in plain text."""
    given = {key.lower(): value.strip("\"'") for key, value in _ATTRIBUTE.findall(attributes)}
    mark = f"{given.get('class', '')} {given.get('id', '')}"
    is_cited = name == "blockquote" and ("cite" in given or _CITES.search(f"{given.get('type', '')} {mark}"))
    effects = {
        "hidden": name == "head" or _HIDDEN.search(given.get("style", "")),
        "pre": name == "pre",
        "quote": is_cited or _QUOTES.search(mark),
    }
    lines = {_SIGNATURE_LINE: _SIGNATURES.search(mark), _QUOTE_LINE: _ANSWERED.search(mark)}
    return Counter([key for key, found in effects.items() if found]), [line for line, found in lines.items() if found]
