"""What a mail says: the writer's own words, told from the signature and from what is quoted.

A heuristic, and nothing is lost by it: the sections joined are the whole text. HTML comes here as `markup.written`
gives it, with quotes behind `>`, so that one set of rules reads both. The time is linear in the size of the text: each
line is looked at once, beside at most seven others, and long lines are none of the marks. The patterns give back
nothing of the blanks and dashes around a mark (`*+`), which would cost the square of a line.
"""

import re
from collections.abc import Collection, Sequence

from attrs import frozen

from convsdk.channels.email.phrases import FORWARD_SUBJECTS, any_of

REPLY_LINE = "##- Please write above this line -##"
"""What our own mails begin with. Any words may stand between the marks, so that it can be translated."""

_MOST_SPLIT = 500_000
_LONGEST_MARK = 400
_LONGEST_END = 50
_FEWEST_FIELDS = 3
_LONGEST_SIGNATURE = 15
_SHINGLE = 4
_NEARLY_ALL = 0.8

_OWN_LINE = re.compile(r"[>\s]*+##-.{1,200}-##\s*\Z")
_QUOTED = re.compile(r"\s?>")
_SIGNATURE = re.compile(r"(?:--|\u2014|\u2013)\s*\Z")
_ADDRESS = re.compile(r"[^\s@<>]{1,64}@[^\s@<>]{1,255}")
_DIGIT = re.compile(r"\d")
_COLON = r"[:\uff1a]"
# Zoho ends an introduction with dashes.
_END = rf"(?:{_COLON}|---)\W*\Z"
_ENDS = re.compile(_END)
_BEGINS = re.compile(rf"\W*+(?:\d|{any_of('begins')}(?!\w))", re.IGNORECASE)
# The verb is near the colon at the end. Languages without blanks put it behind any letter.
_WROTE = re.compile(
    rf"(?:(?<![^\W\d_])|(?<=[^\x00-\u02ff])){any_of('wrote')}(?![^\W\d_]).{{0,100}}{_END}", re.IGNORECASE
)
_FROM = re.compile(rf"[\s*_>]*+{any_of('sender')}[\s*_]*{_COLON}[\s*_]*(?=\S)", re.IGNORECASE)
_FIELD = re.compile(rf"[\s*_>]*+{any_of('fields')}[\s*_]*{_COLON}", re.IGNORECASE)
_DIVIDER = re.compile(rf"[\s>]*+-{{2,}}+\s*+{any_of('original')}\s*+-*+\s*+\Z", re.IGNORECASE)
_RULE = re.compile(r"[\s>]*+[_-]{5,}+\s*+\Z")
_FORWARD = re.compile(
    rf"[\s>]*+-*+\s*+{any_of('forwarded')}(?: from.{{0,100}})?\s*+{_COLON}?+\s*+-*+\s*+\Z", re.IGNORECASE
)
_FORWARD_SUBJECT = re.compile(rf"\s*(?:\[[^\]]{{0,40}}\]\s*)?(?:{FORWARD_SUBJECTS})\s*{_COLON}", re.IGNORECASE)
# A sign of a language without blanks is a word.
_WORD = re.compile(r"[\u2e80-\ud7af]|[^\W\u2e80-\ud7af]+")
_QUOTED_BLANKS = "> \t\r\n"
_SENT_FROM = re.compile(rf"\s*+{any_of('device')}.{{0,80}}\s*\Z", re.IGNORECASE)


@frozen
class Section:
    """A stretch of a text: `reply`, `quote`, `signature`, and of a forwarded mail `note` and `header`."""

    kind: str
    text: str


def is_own_line(text: str) -> bool:
    """Say whether a text is one line that our own mails can begin with, such as `REPLY_LINE`."""
    return len(text.splitlines()) == 1 and _is_mark(_OWN_LINE, text)


def split(text: str, *, is_forward: bool = False) -> tuple[Section, ...]:
    """Give the sections of a text, in order; joined they are `text`. Some of it is always a reply, unless it is blank.

    What a customer forwards is what they want to say: in a forwarded mail only marked quotes count.
    """
    if len(text) > _MOST_SPLIT:
        return (Section("reply", text),)
    lines = text.splitlines(keepends=True)
    kinds = _label(lines, is_forward=is_forward)
    if not any(line.strip() for line, kind in zip(lines, kinds, strict=True) if kind == "reply"):
        return (Section("reply", text),) if text else ()
    return _joined(lines, kinds)


def _joined(lines: Sequence[str], kinds: Sequence[str]) -> tuple[Section, ...]:
    found: list[tuple[str, list[str]]] = []
    for line, kind in zip(lines, kinds, strict=True):
        if not found or found[-1][0] != kind:
            found.append((kind, []))
        found[-1][1].append(line)
    return tuple(Section(kind, "".join(inner)) for kind, inner in found)


def words_of(sections: Sequence[Section]) -> str:
    """Give what the writer said, and all there is where they said nothing; without blank lines around what is cut."""
    text = "".join(one.text for one in sections if one.kind == "reply")
    if len(sections) <= 1 or not text.strip():
        return "".join(one.text for one in sections)
    return text.strip()


def is_forward(subject: str) -> bool:
    """Say whether a subject is that of a forwarded mail."""
    return _FORWARD_SUBJECT.match(subject) is not None


def split_forward(text: str, *, is_told: bool) -> tuple[Section, ...]:
    """Give note, header and rest of a forwarded text, or nothing where none is forwarded in it.

    `is_told`: the subject says so; the header fields of the original are then enough. Where it does not, what is quoted
    is of a mail that this one answers.
    """
    lines = text.splitlines(keepends=True) if len(text) <= _MOST_SPLIT else []
    for at, line in enumerate(lines):
        is_marked = _is_mark(_FORWARD, line) and (is_told or not _QUOTED.match(line))
        top = _next_written(lines, at + 1, _QUOTED_BLANKS) if is_marked else at
        if not (is_marked or is_told) or not _is_header(lines, top, is_marked=is_marked):
            continue
        end = next((one for one in range(top, len(lines)) if not lines[one].strip(_QUOTED_BLANKS)), len(lines))
        if end == len(lines):
            return ()
        start = at if is_marked else _introduced(lines, at)
        kinds = ["note"] * start + ["header"] * (end - start) + ["reply"] * (len(lines) - end)
        return _joined(lines, kinds)
    return ()


def forwarded_from(header: str) -> str:
    """Give the raw mailbox that the header of a forwarded text names as its sender."""
    lines = header.splitlines()
    value = next((line[match.end() :] for line in lines if (match := _FROM.match(line))), "")
    # `Ann [mailto:ann@a.example]` and `Ann <ann@a.example<mailto:ann@a.example>>` are how Outlook writes it.
    value = re.sub(r"\[mailto:([^\]\s]{1,320})\]", r"<\1>", value)
    return re.sub(r"<mailto:[^<>\s]{1,320}>", "", value).replace("*", "").strip()


def unrepeated(sections: Sequence[Section], answered: str) -> tuple[Section, ...]:
    """Give `sections` with what they repeat, unmarked, of the text `answered` as a quote; as they are, where all is.

    Four words in a row tell it: programs break lines anew. Without an introduction it must be nearly all of the text,
    since an answer may well have some words of its question.
    """
    if len(answered) + sum(len(one.text) for one in sections) > _MOST_SPLIT:
        return tuple(sections)
    words = _words(answered)
    known = {tuple(words[at : at + _SHINGLE]) for at in range(len(words) - _SHINGLE + 1)}
    lines: list[str] = []
    kinds: list[str] = []
    for one in sections:
        inner = one.text.splitlines(keepends=True)
        lines += inner
        kinds += _unrepeated(inner, known, len(words)) if one.kind == "reply" and known else [one.kind] * len(inner)
    if not any(line.strip() for line, kind in zip(lines, kinds, strict=True) if kind == "reply"):
        return tuple(sections)
    return _joined(lines, kinds)


def _unrepeated(lines: Sequence[str], known: Collection[tuple[str, ...]], size: int) -> list[str]:
    """Give the kind of each line of a reply: a quote where the lines at its end, or else at its start, are repeated."""
    counts = _repeated(lines, known)

    def is_quote(start: int, stop: int, *, is_introduced: bool) -> bool:
        count = sum(counts[at] for at in range(start, stop))
        return count >= (_SHINGLE if is_introduced else max(_SHINGLE, size * _NEARLY_ALL))

    stop = next((at + 1 for at in range(len(lines) - 1, -1, -1) if counts[at] < 0), 0)
    top = _above(lines, _next_written(lines, stop))
    if top < len(lines) and is_quote(stop, len(lines), is_introduced=top < stop):
        return ["reply"] * top + ["quote"] * (len(lines) - top)
    start = _below(lines)
    end = next((at for at in range(start, len(lines)) if counts[at] < 0), len(lines))
    if is_quote(start, end, is_introduced=start > 0):
        return ["quote"] * end + ["reply"] * (len(lines) - end)
    return ["reply"] * len(lines)


def _repeated(lines: Sequence[str], known: Collection[tuple[str, ...]]) -> list[int]:
    """Give how many words each line repeats, and -1 for one that has others as well."""
    words = [(word, at) for at, line in enumerate(lines) for word in _words(line)]
    is_known = bytearray(len(words))
    for at in range(len(words) - _SHINGLE + 1):
        if tuple(word for word, _ in words[at : at + _SHINGLE]) in known:
            is_known[at : at + _SHINGLE] = b"\1" * _SHINGLE
    counts = [0] * len(lines)
    for (_, at), is_repeated in zip(words, is_known, strict=True):
        counts[at] = counts[at] + 1 if is_repeated and counts[at] >= 0 else -1
    return counts


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold())


def _above(lines: Sequence[str], at: int) -> int:
    """Give where what is repeated from line `at` on really starts: with its introduction, however mangled that is."""
    start = _introduced(lines, at) if at < len(lines) else at
    above = next((one for one in range(start - 1, max(start - 4, -1), -1) if lines[one].strip(_QUOTED_BLANKS)), -1)
    return above if start == at and above >= 0 and _is_mangled(lines[above]) else start


def _below(lines: Sequence[str]) -> int:
    """Give where what stands above an answer starts: behind its introduction, if it has one."""
    first = next((at for at, line in enumerate(lines) if line.strip()), len(lines))
    return first + 1 if first < len(lines) and _is_mangled(lines[first]) else 0


def _is_mangled(line: str) -> bool:
    """Say whether a line could have been the introduction of a quote, whatever became of its words and its colon."""
    if len(line) > _LONGEST_MARK or not _DIGIT.search(line):
        return False
    return _ADDRESS.search(line) is not None or _ENDS.search(line[-_LONGEST_END:]) is not None


def _label(lines: Sequence[str], *, is_forward: bool) -> list[str]:
    """Give the kind of each line. Quoted lines between two answers stay with them: alone they would say nothing."""
    kinds = ["reply"] * len(lines)

    def cut(start: int, stop: int, kind: str) -> int:
        kinds[start:stop] = [kind] * (stop - start)
        return start

    end = cut(_end_of_own(lines, is_forward=is_forward), len(lines), "quote")
    end = cut(_start_of_signature(lines, end), end, "signature")
    runs = _quoted_runs(lines, end)
    if runs and not _is_written(lines[runs[-1][1] : end]):
        start = runs.pop()[0]
        end = cut(_introduced(lines, start), end, "quote")
        end = cut(_start_of_signature(lines, end), end, "signature")
    if len(runs) == 1 and not _is_written(lines[: _introduced(lines, runs[0][0])]):
        cut(0, runs[0][1], "quote")
    return kinds


def _end_of_own(lines: Sequence[str], *, is_forward: bool) -> int:
    """Give where what is below is all quoted: at our own line, a divider, an introduction or a header."""
    has_own, is_passed_on, is_above = False, is_forward, True
    for at, line in enumerate(lines):
        if is_above and _is_mark(_OWN_LINE, line):
            start = _introduced(lines, at)
            if _is_written(lines[:start]):
                return start
            is_above = False
        if is_passed_on or _QUOTED.match(line):
            continue
        is_passed_on = _is_mark(_FORWARD, line)
        if has_own and (_is_mark(_DIVIDER, line) or _is_header(lines, at)):
            return _introduced(lines, at)
        if has_own and (length := _introduction(lines, at)) and not _is_quoted(lines, at + 1):
            return at + 1 - length
        has_own = has_own or bool(line.strip())
    return len(lines)


def _quoted_runs(lines: Sequence[str], end: int) -> list[tuple[int, int]]:
    """Give the first and the next line of each run of quoted lines; blank lines may be in it."""
    runs: list[tuple[int, int]] = []
    is_open = False
    for at, line in enumerate(lines[:end]):
        if _QUOTED.match(line):
            runs.append((runs.pop()[0] if is_open else at, at + 1))
            is_open = True
        elif line.strip():
            is_open = False
    return runs


def _start_of_signature(lines: Sequence[str], end: int) -> int:
    """Give where the signature above line `end` starts; `end` where there is none."""
    last = next((at for at in range(end, 0, -1) if lines[at - 1].strip()), 0)
    for at in range(max(1, last - _LONGEST_SIGNATURE - 1), last):
        if _is_mark(_SIGNATURE, lines[at]) and not any(map(_QUOTED.match, lines[at:last])):
            return at
    return last - 1 if last > 1 and _is_mark(_SENT_FROM, lines[last - 1]) else end


def _introduced(lines: Sequence[str], at: int) -> int:
    """Give where a quote really starts: with the introduction, the divider or the rule right above it."""
    above = at - 1
    while above >= max(at - 3, 0) and not lines[above].strip(_QUOTED_BLANKS):
        above -= 1
    if above < 0:
        return at
    # Some programs name the date before the sender.
    if any(_is_mark(pattern, lines[above]) for pattern in (_RULE, _DIVIDER, _FIELD)):
        return above
    length = _introduction(lines, above, is_followed=True)
    return above + 1 - length if length else at


def _introduction(lines: Sequence[str], at: int, *, is_followed: bool = False) -> int:
    """Give how many lines up to `at` introduce a quote: one to three, since programs break them; 0 where none does.

    `is_followed`: a quote is below, so that less needs to be said.
    """
    if not _ENDS.search(lines[at][-_LONGEST_END:]):
        return 0
    text = ""
    for length, line in enumerate(reversed(lines[max(0, at - 2) : at + 1]), 1):
        if not line.strip() or len(line) > _LONGEST_MARK:
            break
        text = f"{line.strip()} {text}"
        is_said = _DIGIT.search(text) and (_WROTE.search(text) or (is_followed and _ADDRESS.search(text)))
        if is_said and _BEGINS.match(text):
            return length
    return 1 if is_followed and _WROTE.search(lines[at]) else 0


def _is_header(lines: Sequence[str], at: int, *, is_marked: bool = False) -> bool:
    """Say whether the header of an original is here: its sender, and three fields, or two and an address.

    `is_marked`: a divider is above, so that the sender need not come first.
    """
    sender = next((line for line in lines[at : at + (8 if is_marked else 1)] if _is_mark(_FROM, line)), None)
    if sender is None:
        return False
    fields = [line for line in lines[at : at + 8] if _is_mark(_FIELD, line)]
    return len(fields) >= _FEWEST_FIELDS - any("@" in line for line in (sender, *fields))


def _is_mark(pattern: re.Pattern[str], line: str) -> bool:
    return len(line) <= _LONGEST_MARK and pattern.match(line) is not None


def _is_quoted(lines: Sequence[str], at: int) -> bool:
    following = _next_written(lines, at)
    return following < len(lines) and _QUOTED.match(lines[following]) is not None


def _is_written(lines: Sequence[str]) -> bool:
    return any(line.strip() for line in lines)


def _next_written(lines: Sequence[str], at: int, blanks: str | None = None) -> int:
    return next((place for place in range(at, min(at + 3, len(lines))) if lines[place].strip(blanks)), len(lines))
