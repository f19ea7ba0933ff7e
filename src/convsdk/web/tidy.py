"""HTML of any kind, written down anew as tags that nest, in a time linear in its size.

Browsers' rules for what is not nested cost a parser quadratic time: each open tag is looked at for each one that
follows. What comes out of here is open at most `_DEEPEST` levels, and has only the tags and attributes that are asked
for, each value in double quotes. Whether those do any harm is not known here.
"""

import re
from collections.abc import Collection, Mapping
from collections.abc import Set as AbstractSet

from convsdk.core.texts import unescaped

AMPERSAND = "\ufdd0"
"""Stands for an `&`: a noncharacter, which no text has (Unicode 23.7) and no mail is left."""

_DEEPEST = 256
_LONGEST = 2_000_000

_TAG = re.compile(r"<(/?)([a-zA-Z][^\s/>]*+)")
_ATTRIBUTE = re.compile(
    r"""[\s/]*+([^\s/>][^\s/>=]*+)(?:\s*+=\s*+(?:"([^"]*+)"|'([^']*+)'|(?!["'])([^\s>]*+)))?+""",
)
_AFTER_ATTRIBUTES = re.compile(r"[\s/]*+>")
_COMMENT_END = re.compile(r"--!?>")
_REFERENCE = re.compile(r"&(?:#[0-9]++|#[xX][0-9a-fA-F]++|[a-zA-Z][a-zA-Z0-9]{1,31});")
_VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}
# What is inside is no markup, or is shown by nobody.
_OPAQUE = {"iframe", "noembed", "noframes", "plaintext", "script", "style", "textarea", "title", "xmp"}
_END_OF_OPAQUE = {name: re.compile(rf"</{name}(?=[\s/>])[^>]*+>?", re.IGNORECASE) for name in _OPAQUE}
_INSTEAD = {"body": "div"}  # what it looks like is what the mail looks like
# Beyond these no end tag reaches, but that of a part of a table.
_CELLS = {"td", "th", "caption", "table"}
_TABLE = _CELLS | {"tr", "tbody", "thead", "tfoot"}
_BLOCKS = _TABLE | {"div", "blockquote", "ul", "ol", "li", "dl", "dd", "dt", "center"}
_ENDING_P = (
    *("p", "address", "article", "aside", "blockquote", "center", "details", "div", "dl", "figure", "footer", "header"),
    *("h1", "h2", "h3", "h4", "h5", "h6", "hr", "main", "nav", "ol", "pre", "section", "table", "ul"),
)
# What a start tag ends where its own end was left out, and how far up that is looked for.
_ENDED: Mapping[str, tuple[frozenset[str], frozenset[str]]] = {
    **dict.fromkeys(_ENDING_P, (frozenset({"p"}), frozenset(_BLOCKS))),
    "li": (frozenset({"li"}), frozenset({"ul", "ol", *_CELLS})),
    **dict.fromkeys(("dd", "dt"), (frozenset({"dd", "dt"}), frozenset({"dl", *_CELLS}))),
    **dict.fromkeys(("td", "th"), (frozenset({"td", "th"}), frozenset({"tr", "table"}))),
    "tr": (frozenset({"tr"}), frozenset({"table", "tbody", "thead", "tfoot"})),
    **dict.fromkeys(("tbody", "thead", "tfoot"), (frozenset({"tbody", "thead", "tfoot"}), frozenset({"table"}))),
}


def tidy(markup: str, *, tags: Collection[str], attributes: Collection[str]) -> str:
    """Give `markup` with those of its tags and attributes that are named, as tags that nest.

    What is longer than two million characters is cut there.
    """
    writer = _Writer(tags, attributes)
    markup, at = markup[:_LONGEST].replace(AMPERSAND, "\ufffd"), 0
    while (start := markup.find("<", at)) >= 0:
        writer.text(markup[at:start])
        at = _past_markup(markup, start, writer)
    writer.text(markup[at:])
    return writer.end()


def _past_markup(markup: str, start: int, writer: "_Writer") -> int:
    """Give where what begins at the `<` ends; what has no end swallows the rest, as in a browser."""
    tag = _TAG.match(markup, start)
    if tag is None:
        return _past_other(markup, start, writer)
    found, at = _attributes(markup, tag.end())
    if at < 0:
        return len(markup)
    name = tag[2].lower()
    if tag[1]:
        writer.close(name)
        return at
    if name in _OPAQUE:
        end = _END_OF_OPAQUE[name].search(markup, at)
        return end.end() if end else len(markup)
    writer.open(name, found)
    return at


def _past_other(markup: str, start: int, writer: "_Writer") -> int:
    if markup.startswith("<!--", start):
        if markup.startswith((">", "->"), start + 4):
            return markup.index(">", start) + 1
        end = _COMMENT_END.search(markup, start + 4)
        return end.end() if end else len(markup)
    if markup.startswith(("<!", "<?", "</"), start):
        return markup.find(">", start) + 1 or len(markup)
    writer.text("<")
    return start + 1


def _attributes(markup: str, at: int) -> tuple[dict[str, str], int]:
    """Give the attributes of a tag by name, and where the tag ends: -1 where it does not."""
    found: dict[str, str] = {}
    while (end := _AFTER_ATTRIBUTES.match(markup, at)) is None:
        one = _ATTRIBUTE.match(markup, at)
        # A quote that is not closed is never closed.
        if one is None or markup.startswith("=", one.end()):
            return {}, -1
        name, *values = one.groups()
        found.setdefault(name.lower(), next((value for value in values if value is not None), ""))
        at = one.end()
    return found, end.end()


def _quoted(value: str) -> str:
    """Give a value for double quotes. In one, `&copy=` is part of an address, and no reference without its end."""
    if "&" in value:
        whole = _REFERENCE.sub(lambda match: unescaped(match[0]), value)
        value = whole.replace("&", AMPERSAND)
    return value.replace('"', "&quot;")


class _Writer:
    """What is written, and which tags are open in it."""

    def __init__(self, tags: Collection[str], attributes: Collection[str]) -> None:
        self._tags = tags
        self._attributes = attributes
        self._written: list[str] = []
        self._open: list[str] = []

    def text(self, text: str) -> None:
        if "&" in text:
            text = unescaped(text).replace("&", AMPERSAND)
        self._written.append(text.replace("<", "&lt;"))

    def open(self, name: str, attributes: Mapping[str, str]) -> None:
        if name == "body" and "bgcolor" in attributes:  # without it, white letters can stand on white
            style = f"background-color:{attributes['bgcolor']};{attributes.get('style', '')}"
            attributes = {**attributes, "style": style}
        name = _INSTEAD.get(name, name)
        if name not in self._tags:
            return
        if name in _ENDED:
            self._end_before(*_ENDED[name])
        if name not in _VOID:
            if len(self._open) == _DEEPEST:
                return
            self._open.append(name)
        told = (f' {one}="{_quoted(value)}"' for one, value in attributes.items() if one in self._attributes)
        self._written.append(f"<{name}{''.join(told)}>")

    def close(self, name: str) -> None:
        name = _INSTEAD.get(name, name)
        if name in self._tags and name not in _VOID:
            self._end_before({name}, {"table"} - {name} if name in _TABLE else _CELLS)

    def end(self) -> str:
        self._shorten(0)
        return "".join(self._written)

    def _end_before(self, wanted: AbstractSet[str], beyond: AbstractSet[str]) -> None:
        """End the innermost of the `wanted` tags, and what is open in it, unless one of those `beyond` is nearer."""
        if wanted.isdisjoint(self._open):  # as nearly always, and a hundred times as quick to see
            return
        for depth in range(len(self._open) - 1, -1, -1):
            if self._open[depth] in wanted:
                self._shorten(depth)
                return
            if self._open[depth] in beyond:
                return

    def _shorten(self, depth: int) -> None:
        self._written += [f"</{name}>" for name in reversed(self._open[depth:])]
        del self._open[depth:]
