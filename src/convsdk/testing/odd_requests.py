"""Requests with something wrong, made from right ones: what `ChannelContract` shows its laws on."""

import json
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import parse_qsl, urlencode

from attrs import evolve
from hypothesis import strategies as st

from convsdk.core.ports import Headers, Request

GARBAGE = (
    *(b"", b"\0", b" ", b"null", b"true", b"0", b"[]", b"{}", b'""', b"[null]", b'{"a":', b"[{}]", b"NaN", b"1e999"),
    *(b"\xff\xfe", b"\xef\xbb\xbf{}", b'"\\ud800"', b'{"\\ud800": "\\ud800"}', b"=&=&%zz%", b"a" * 100_000),
    *(b"1" * 5_000, b"[" * 100_000, b'{"a":' * 20_000, b"From: \r\n\r\n", b"\r\n" * 1_000, b"--\r\n--"),
)
"""Bodies that no platform sends."""

_CUTS = 200
_LEFT_OUT: Any = object()
_PUT_IN: tuple[Any, ...] = (
    *(_LEFT_OUT, None, True, 0, -1, 10**15, 10**30, 1.5, 1e300, float("nan"), float("inf")),
    *("", " ", "a\0b", "a\ud800b", "0", "x" * 5_000, "\u202e\u200b"),
    *([], {}, [None], [[]], [{}], {"": None}, {"id": []}, {"\ud800": "\0"}),
)
_PUT_IN_FIELDS = ("", "0", "a\0b", "a\ud800b", "\u00e9", "x" * 5_000)


def forgeries(request: Request, name: str) -> Iterator[tuple[str, Request]]:
    """Give `request` with the signature in its field or parameter `name` broken, and how, each way that holes have."""
    for how, signature in _broken(request.query.get(name) or request.headers.get(name, "")):
        yield f"{how} {name}", _with_field(request, name, signature)


def _broken(sign: str) -> Iterator[tuple[str, str | None]]:
    # Not the last character: in base64 that can hold bits that count for nothing.
    middle = (len(sign) + sign.find("=") + 1) // 2
    other = "0" if sign[middle : middle + 1] != "0" else "1"
    yield "no", None
    yield "an empty", ""
    yield "another character in its", sign[:middle] + other + sign[middle + 1 :]
    yield "a truncated", sign[:-4]
    yield "nothing but the first character of its", sign[:1]
    yield "nothing but the prefix of its", sign[: sign.find("=") + 1 if sign.find("=") < len(sign) // 2 else 0]
    yield "another prefix before its", f"md5={sign.rpartition('=')[2]}"
    yield "a foreign letter in its", sign[:-1] + "\u00e9"
    yield "a zero for its", "0"
    yield "a lone surrogate in its", sign[:-1] + "\udce9"


def _with_field(request: Request, name: str, value: str | None) -> Request:
    more = () if value is None else ((name, value),)
    if name in request.query:
        kept = {key: one for key, one in request.query.items() if key != name}
        return evolve(request, query=kept | dict(more))
    fields = [(key, one) for key in request.headers if key != name.lower() for one in request.headers.all(key)]
    return evolve(request, headers=Headers((*fields, *more)))


def variations(seed: Request) -> Iterator[Request]:
    """Give `seed` with its body cut off, and each field and each value in its body replaced by each odd one.

    Values are those of JSON, of a form, and of JSON in the fields of a form.
    """
    for end in range(0, len(seed.body), 1 + len(seed.body) // _CUTS):
        yield evolve(seed, body=seed.body[:end])
    for name in (*seed.headers, *seed.query):
        yield from (_with_field(seed, name, value) for value in (None, *_PUT_IN_FIELDS))
    for text in (*_odd_documents(seed.body), *_odd_forms(seed.body)):
        yield evolve(seed, body=text.encode())


def _odd_documents(text: str | bytes) -> Iterator[str]:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return
    for path in _paths(document):
        for value in _PUT_IN:
            yield json.dumps(_replaced(document, path, value))


def _odd_forms(body: bytes) -> Iterator[str]:
    try:
        form = parse_qsl(body.decode(), keep_blank_values=True, strict_parsing=True)
    except ValueError:  # UnicodeDecodeError is one
        return
    for place, (name, value) in enumerate(form):
        inner = _odd_documents(value) if value.startswith(("{", "[")) else ()
        for odd in (None, *_PUT_IN_FIELDS, *inner):
            given = [] if odd is None else [(name, odd)]
            yield urlencode([*form[:place], *given, *form[place + 1 :]], errors="surrogatepass")


def _paths(document: object, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    listed = enumerate(document) if isinstance(document, list) else ()
    for key, inner in document.items() if isinstance(document, dict) else listed:
        yield from _paths(inner, (*path, key))


def _replaced(document: Any, path: tuple[Any, ...], value: Any) -> Any:  # noqa: ANN401  (JSON)
    if not path:
        return None if value is _LEFT_OUT else value
    key, *rest = path
    copy = dict(document) if isinstance(document, dict) else list(document)
    if not rest and value is _LEFT_OUT:
        del copy[key]
        return copy
    copy[key] = _replaced(document[key], tuple(rest), value)
    return copy


def search(seeds: Sequence[Request]) -> st.SearchStrategy[Request]:
    """Give a strategy for requests like `seeds` with a stretch of the body replaced, and for bodies unlike them."""
    bodies = st.one_of(
        st.sampled_from(seeds).flatmap(lambda seed: _spliced(seed.body)),
        st.binary(max_size=300),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
            lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4),
        ).map(lambda value: json.dumps(value).encode()),
    )

    def dress(seed: Request, body: bytes, is_bare: bool) -> Request:  # noqa: FBT001  (drawn, in the order of the strategies)
        bare: dict[str, Any] = {"headers": Headers(), "query": {}, "envelope": None} if is_bare else {}
        return evolve(seed, body=body, **bare)

    return st.builds(dress, st.sampled_from(seeds), bodies, st.sampled_from((False, False, False, True)))


def _spliced(body: bytes) -> st.SearchStrategy[bytes]:
    return st.builds(
        lambda start, length, more: body[:start] + more + body[start + length :],
        st.integers(0, len(body)),
        st.integers(0, 40),
        st.binary(max_size=8) | st.sampled_from((b"", b"\xff", b"\0", b"\r\n\r\n", b'"', b"=?", b"%")),
    )
