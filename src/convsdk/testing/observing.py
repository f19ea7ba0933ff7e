"""What a channel does beside its answer, as its contract sees it: network, clock, logs, and secrets that leak."""

import contextlib
import io
import logging
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import date
from typing import Any, NoReturn

import attrs
import pytest
import structlog

from convsdk.core.ports import Channel, Secret
from convsdk.patience import place_in
from convsdk.redaction import SHORTEST, forms_of
from convsdk.testing.laws import Stuck, fail

_CLOCKS = {"time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns", "localtime", "gmtime"}
_NETWORK = {"_socket", "_ssl", "_sqlite3"}


def texts_of(error: BaseException) -> str:
    """Give all that an error could show in a log, its causes included."""
    texts: list[str] = []
    ahead: list[BaseException | None] = [error]
    while ahead:
        one = ahead.pop()
        if one is not None:
            texts += [str(one), repr(one), *map(str, getattr(one, "__notes__", ()))]
            ahead += [one.__cause__, None if one.__suppress_context__ else one.__context__]
    return "\n".join(texts)


def secret_forms(secrets: Iterable[str]) -> dict[str, str]:
    """Give each text under which one of `secrets` could leak, and what it is."""
    return {form: "a secret" for secret in secrets for form in forms_of(secret)}


def leaves(value: object, path: str = "") -> Iterator[tuple[str, object]]:
    """Give every plain value inside `value`, keys of mappings included, with the way to it."""
    shape: type[Any] = type(value)
    if attrs.has(shape) and shape is not Secret:
        for one in attrs.fields(shape):
            yield from leaves(getattr(value, one.name), f"{path}.{one.name}".lstrip("."))
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield f"a key of {path}", key
            yield from leaves(inner, f"{path}[{key!r}]")
    elif isinstance(value, list | tuple | set | frozenset):
        for place, inner in enumerate(value):
            yield from leaves(inner, f"{path}[{place}]")
    else:
        yield path, value


def secrets_in(value: object) -> list[str]:
    """Give the secrets inside `value`, but for those that are too short to be told apart."""
    found = [leaf.reveal() for _, leaf in leaves(value) if isinstance(leaf, Secret)]
    return [one for one in dict.fromkeys(found) if len(one) >= SHORTEST]


def packages_of(channel: type[Channel]) -> tuple[str, ...]:
    """Give what the names of the adapter's own modules begin with, those of adapters that it builds on included."""
    modules = {one.__module__ for one in channel.__mro__ if issubclass(one, Channel) and one is not Channel}
    is_package = {module: hasattr(sys.modules.get(module), "__path__") for module in modules}
    return tuple(f"{module if is_package[module] else module.rpartition('.')[0] or module}." for module in modules)


def network_call(frame: Any, event: str, arg: Any) -> str:  # noqa: ANN401  (what sys.setprofile hands over)
    """Give what of the network a profiled call uses, or a blank."""
    if event == "c_call" and getattr(arg, "__module__", None) in _NETWORK:
        return f"{arg.__module__}.{arg.__name__}"
    if event == "call" and frame.f_globals.get("__name__") == "socket" and frame.f_code.co_name != "<module>":
        return f"socket.{frame.f_code.co_name}"
    return ""


def clock_call(called: Any) -> str:  # noqa: ANN401  (as above)
    """Give the clock that a profiled call reads, or a blank."""
    owner = getattr(called, "__self__", None)
    if owner is time and called.__name__ in _CLOCKS:
        return f"time.{called.__name__}"
    if isinstance(owner, type) and issubclass(owner, date) and called.__name__ in {"now", "utcnow", "today"}:
        return f"{owner.__name__}.{called.__name__}"
    return ""


@contextlib.contextmanager
def watched(is_forbidden: Callable[[Any, str, Any], str], touched: set[str]) -> Iterator[None]:
    """Note in `touched` what is called meanwhile and `is_forbidden`."""

    # A profile function sees calls of names that a module imported early, which patching `time.time` does not.
    def watch(frame: Any, event: str, arg: Any) -> None:  # noqa: ANN401  (as above)
        if found := is_forbidden(frame, event, arg):
            touched.add(found)

    before = sys.getprofile()
    sys.setprofile(watch)
    try:
        yield
    finally:
        sys.setprofile(before)


@contextlib.contextmanager
def guarded_sockets(touched: set[str]) -> Iterator[None]:
    """Refuse every socket meanwhile, and note in `touched` that one was asked for."""

    def refuse(*_: object, **__: object) -> NoReturn:
        touched.add("socket")
        raise OSError("a channel has no network while it verifies and parses")

    with pytest.MonkeyPatch.context() as patch:
        for name in ("socket", "create_connection", "getaddrinfo", "gethostbyname", "getfqdn"):
            patch.setattr(socket, name, refuse)
        yield


@contextlib.contextmanager
def years_later() -> Iterator[None]:
    """Let every clock of this process go ten years ahead meanwhile."""
    shift = 10 * 365 * 86_400
    with pytest.MonkeyPatch.context() as patch:
        for name, ahead in (("time", shift), ("monotonic", shift), ("time_ns", shift * 10**9)):
            patch.setattr(time, name, _shifted(getattr(time, name), ahead))
        yield


def _shifted(clock: Callable[[], float], ahead: float) -> Callable[[], float]:
    return lambda: clock() + ahead


@contextlib.contextmanager
def within(most_s: float, tell: Callable[[str], str]) -> Iterator[None]:
    """Raise `Stuck`, with what `tell` says of the place where it happens, once it has taken more than `most_s`.

    By a signal, since a regular expression at work lets no other thread run. So it is limited only where there are such
    signals (not on Windows), in the main thread, and where nobody else has a timer running.
    """
    is_main = threading.current_thread() is threading.main_thread()
    if not hasattr(signal, "setitimer") or not is_main or signal.getitimer(signal.ITIMER_REAL)[0]:
        yield
        return

    def end(_signal: int, frame: Any) -> NoReturn:  # noqa: ANN401  (as above)
        raise Stuck(tell(place_in(traceback.extract_stack(frame))))

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, most_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


class _Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__(level=logging.NOTSET)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(f"{record.getMessage()} {vars(record)!r}")


@contextlib.contextmanager
def captured() -> Iterator[Callable[[], str]]:
    """Catch what is logged (structlog and the standard library) or printed; the value gives it as one text."""
    printed = io.StringIO()
    handler = _Lines()
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        with (
            structlog.testing.capture_logs() as entries,
            contextlib.redirect_stdout(printed),
            contextlib.redirect_stderr(printed),
        ):
            yield lambda: "\n".join((*map(_rendered, entries), *handler.lines, printed.getvalue()))
    finally:
        root.setLevel(level)
        root.removeHandler(handler)


def _rendered(entry: Mapping[str, Any]) -> str:
    return " ".join(f"{key}={value!r} {value}" for key, value in entry.items())


def logged(value: object) -> str:
    """Give the log line that holds `value`, as each of structlog's renderers writes it."""
    renderers = (
        structlog.processors.JSONRenderer(),
        structlog.processors.KeyValueRenderer(),
        structlog.processors.LogfmtRenderer(),
        structlog.dev.ConsoleRenderer(colors=False),
    )
    return "\n".join(str(render(None, "info", {"event": "kit", "value": value})) for render in renderers)


def refuse_leaks(texts: Mapping[str, str], forms: Mapping[str, str]) -> None:
    """Fail where one of `texts` (by where each is) holds one of `forms` (with what each is)."""
    for place, text in texts.items():
        for form, what in forms.items():
            if form in text:
                # What leaked is not repeated here: a test's output is a log too.
                fail(
                    f"{place} holds {what}",
                    "logs are read by many, and kept",
                    "keep secrets in Secret fields, and tell what is wrong without quoting it",
                )
