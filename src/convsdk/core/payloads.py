"""What platforms send as JSON or as a form: decoded so that every store can keep it, and read member by member.

::

    update = read_fields(request.body)
    message = update.fields("message")
    text, sent = message.text("caption"), message.moment("date")
"""

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar, cast
from urllib.parse import parse_qsl

from attrs import field, frozen

from convsdk.errors import ParseError

_DEEPEST = 32
_INTEGER_BITS = 63  # what the stores and most readers of JSON can hold
_LONGEST_DIGITS = 18
_MOST_FORM_FIELDS = 1000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")
_COUNT = re.compile(r"([0-9]{1,18})(\.[0-9]{1,18})?")
# Where something was replaced in it, two ids could have become one.
_KEY = re.compile("[^\\s\0-\x1f\x7f\ufffd]{1,255}")

_Shape = TypeVar("_Shape")


def storable(text: str) -> str:
    """Give `text` without what no store keeps: NULs and halves of surrogate pairs, with U+FFFD in their place."""
    return _UNSTORABLE.sub("\ufffd", text)


def read_json(body: bytes) -> Any:  # noqa: ANN401  (JSON comes in)
    """Give the JSON value in `body` (RFC 8259) as every store can keep it; raise `ParseError` where it is none.

    What cannot be kept costs only itself. In place of a byte that is no UTF-8, a NUL or half of a surrogate pair stands
    U+FFFD; a number past 64 bits is a text, and so is, as JSON, what is nested in more than 32 others.
    """
    try:
        return _kept(_DECODER.decode(body.decode("utf-8", "replace")))
    except (ValueError, RecursionError) as error:
        # What it held is not told: it is somebody's words.
        raise ParseError(f"{len(body)} bytes are no JSON that can be read ({type(error).__name__})") from None


def read_fields(body: bytes) -> "Fields":
    """Give the JSON object in `body`, with everything as `read_json` gives it; raise `ParseError` on anything else."""
    return fields_of(read_json(body), path="")


def fields_of(value: object, *, path: str) -> "Fields":
    """Give a value of `read_json` that is an object; raise `ParseError`, which names its `path`, where it is none."""
    if not isinstance(value, dict):
        raise ParseError(f"{path or 'the document'} is no JSON object: compare it with what the platform documents")
    return Fields(value, path=path)


def read_form(body: bytes) -> tuple[tuple[str, str], ...]:
    """Give the fields of a form (`application/x-www-form-urlencoded`) in order; raise `ParseError` where it is none.

    They are to the letter what was sent, as a signature may cover it: keep them by `storable`.
    """
    try:
        return tuple(parse_qsl(body.decode("ascii"), keep_blank_values=True, max_num_fields=_MOST_FORM_FIELDS))
    except ValueError as error:  # UnicodeDecodeError is one
        raise ParseError(f"{len(body)} bytes are no form that can be read ({type(error).__name__})") from None


def digest_of(*values: object) -> str:
    """Give 64 hexadecimal digits that stand for JSON values: for the external id of what has none of its own.

    They are the same at every delivery, however the members of an object are ordered.
    """
    canonical = json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


@frozen
class Fields:
    """A JSON object, whose members are asked for by name and shape.

    A member that is missing or null gives the default. One of another shape raises `ParseError`, with the path that
    leads to it and nothing of what it holds; where the object `is_lenient`, it counts as missing. `raw` is all of it,
    as plain JSON values.
    """

    raw: Mapping[str, Any]
    path: str = field(default="", kw_only=True)
    is_lenient: bool = field(default=False, kw_only=True)

    def __contains__(self, name: object) -> bool:
        return name in self.raw

    def __bool__(self) -> bool:
        return bool(self.raw)

    def text(self, name: str, default: str = "") -> str:
        """Give a text."""
        return self._shaped(name, str, "text", default)

    def key(self, name: str) -> str:
        """Give an id that has to be there: a text of 1 to 255 characters without blanks, or a whole number.

        A lenient object gives an empty text where there is none.
        """
        value = self.raw.get(name)
        text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
        if isinstance(text, str) and _KEY.fullmatch(text):
            return text
        return self._misfit(name, "id, or missing", "")

    def keys(self, name: str) -> tuple[str, ...]:
        """Give the ids of a list, each as `key` gives it."""
        listed = {str(number): value for number, value in enumerate(self.values(name))}
        found = Fields(listed, path=self._path(name), is_lenient=self.is_lenient)
        return tuple(filter(None, map(found.key, listed)))

    def integer(self, name: str, default: int | None = None) -> int | None:
        """Give a whole number."""
        return self._shaped(name, int, "whole number", default)

    def number(self, name: str, default: float | None = None) -> float | None:
        """Give a number."""
        return self._shaped(name, (int, float), "number", default)

    def flag(self, name: str) -> bool:
        """Say whether it is true, and nothing that only counts as that."""
        return self.raw.get(name) is True

    def moment(self, name: str, *, unit: timedelta = timedelta(seconds=1)) -> datetime | None:
        """Give a time since 1970 (UTC), a whole number of `unit` or its digits, which can have decimals; else None.

        A wrong time costs no message: the request's own, `received_at`, does.
        """
        value = self.raw.get(name)
        if isinstance(value, bool) or not isinstance(value, int | str):
            return None
        try:
            found = _COUNT.fullmatch(str(value))
            return _EPOCH + int(found[1]) * unit + float(found[2] or 0) * unit if found else None
        except (ValueError, OverflowError):  # an int of some thousand digits is no text
            return None

    def fields(self, name: str) -> "Fields":
        """Give an object: an empty one where there is none."""
        found: dict[str, Any] = self._shaped(name, dict, "object", {})
        return Fields(found, path=self._path(name), is_lenient=self.is_lenient)

    def values(self, name: str) -> list[Any]:
        """Give a list, whatever is in it; an empty one where there is none."""
        return self._shaped(name, list, "list", [])

    def items(self, name: str) -> Iterator["Fields"]:
        """Give the objects of a list, and of the lists in it."""
        for number, value in enumerate(_leaves(self.values(name))):
            path = f"{self._path(name)}[{number}]"
            if isinstance(value, dict) or not self.is_lenient:
                yield Fields(fields_of(value, path=path).raw, path=path, is_lenient=self.is_lenient)

    def _shaped(self, name: str, shape: Any, what: str, default: _Shape) -> _Shape:  # noqa: ANN401  (as isinstance has it)
        value = self.raw.get(name)
        if value is None:
            return default
        if isinstance(value, shape) and not isinstance(value, bool):
            return cast("_Shape", value)
        return self._misfit(name, what, default)

    def _misfit(self, name: str, what: str, default: _Shape) -> _Shape:
        if self.is_lenient:
            return default
        raise ParseError(f"{self._path(name)} is no {what}: compare it with what the platform documents")

    def _path(self, name: str) -> str:
        return f"{self.path}.{name}" if self.path else name


def _leaves(values: list[Any]) -> Iterator[Any]:
    for value in values:
        yield from _leaves(value) if isinstance(value, list) else (value,)


def _kept(value: Any, depth: int = 0) -> Any:  # noqa: ANN401  (JSON comes in)
    if isinstance(value, str):
        return storable(value)
    if isinstance(value, int) and value.bit_length() > _INTEGER_BITS:
        return str(value)
    if not isinstance(value, list | dict):
        return value
    if depth > _DEEPEST:
        return json.dumps(value)
    if isinstance(value, list):
        return [_kept(each, depth + 1) for each in value]
    return {storable(name): _kept(each, depth + 1) for name, each in value.items()}


def _read_integer(digits: str) -> int | str:
    return int(digits) if len(digits) <= _LONGEST_DIGITS + 2 else digits  # many digits take long, and end as a text


def _read_float(digits: str) -> float | str:
    return value if math.isfinite(value := float(digits)) else digits


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


_DECODER = json.JSONDecoder(parse_int=_read_integer, parse_float=_read_float, parse_constant=_refuse_constant)
