"""Texts as platforms count, cut and encode them: no character that a reader sees as one is cut in two."""

import html
import re
import unicodedata
from collections.abc import Callable, Iterator

_JOINER = "\u200d"
_FLAG = re.compile("[\U0001f1e6-\U0001f1ff]")
_TONES = re.compile("[\U0001f3fb-\U0001f3ff\U000e0020-\U000e007f]")
# Python takes the square of its digits for a number; none of this length is a character.
_LONG_NUMBER = re.compile(r"&#[xX]?[0-9a-fA-F]{8,};?")
_MEDIA_TYPE = re.compile(r"[a-z0-9][a-z0-9!#$&^_.+-]{0,126}/[a-z0-9][a-z0-9!#$&^_.+-]{0,126}")
_VOWELS_AND_FINALS = re.compile("[\u1160-\u11ff\ud7b0-\ud7ff]")


def utf16_units(text: str) -> int:
    """Measure `text` as many platforms do: an emoji counts as two."""
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def utf8_bytes(text: str) -> int:
    """Measure `text` in the bytes of UTF-8."""
    return len(text.encode("utf-8", "surrogatepass"))


def pieces_of(text: str, *, most: int, size: Callable[[str], int] = len) -> tuple[str, ...]:
    """Give `text` in pieces of a `size` up to `most`, cut at line ends and blanks where there are any.

    `size` measures as a platform does: characters, unless it is told otherwise; it may not be less for more text.
    Blanks at a cut are left out, and a cluster of characters that is too large for a piece is cut after all. A text
    of nothing but blanks is one empty piece.
    """
    if size(text) <= most:
        return (text,)
    pieces: list[str] = []
    words = [word for word in re.split(r"(?<=\s)(?=\S)", text) if word.strip()]
    piece = ""
    for word in words:
        if size((piece + word).rstrip()) <= most:
            piece += word
            continue
        if piece.strip():
            pieces.append(piece.strip())
        *whole, piece = _cut(word, most, size)
        pieces += whole
    return (*pieces, piece.strip()) if piece.strip() or not pieces else tuple(pieces)


def _cut(word: str, most: int, size: Callable[[str], int]) -> list[str]:
    """Give a word that may be too large in pieces."""
    if size(word.rstrip()) <= most:
        return [word]
    pieces, piece = [], ""
    for cluster in _clusters(word):
        for one in [cluster] if size(cluster) <= most else cluster:
            if piece and size(piece + one) > most:
                pieces.append(piece)
                piece = ""
            piece += one
    return [*pieces, piece]


def _clusters(text: str) -> Iterator[str]:
    """Give the characters as a reader sees them: near enough to Unicode's extended grapheme clusters (UAX 29)."""
    cluster = ""
    for one in text:
        if cluster and not _belongs(one, cluster):
            yield cluster
            cluster = ""
        cluster += one
    yield cluster


def _belongs(one: str, cluster: str) -> bool:
    """Say whether a character goes on with the cluster before it."""
    if one == _JOINER or cluster[-1] == _JOINER or unicodedata.category(one).startswith("M"):
        return True
    if _FLAG.fullmatch(one):
        return len(cluster) == 1 and _FLAG.fullmatch(cluster) is not None
    return bool(_TONES.fullmatch(one) or _VOWELS_AND_FINALS.fullmatch(one))


def unescaped(text: str) -> str:
    """Give `text` with its HTML character references as what they stand for, in linear time."""
    return html.unescape(_LONG_NUMBER.sub("\ufffd", text))


def media_type_of(text: str, default: str = "application/octet-stream") -> str:
    """Give a media type without its parameters, in lower case (RFC 6838, 4.2); `default` for a text that is none."""
    plain = text.partition(";")[0].strip().lower()
    return plain if _MEDIA_TYPE.fullmatch(plain) else default
