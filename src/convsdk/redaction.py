"""Masks the configured secrets in whatever is logged, by whomever: structlog's lines and the standard library's.

A channel's own code never logs a secret, which the conformance kit sees to. That of a library need not know better:
httpx logs the URL of every request, and Telegram's holds the token. And a plugin may log what it likes.

::

    redaction = Redaction()
    structlog.configure(processors=[redaction, structlog.processors.JSONRenderer(), redaction])
    with redaction.in_log_records():
        config = load_config(path, plugins, environ=os.environ, on_secret=redaction.add)
"""

import base64
import json
import logging
import re
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote, quote_plus

SHORTEST = 6
"""Of how many characters a text is long enough to be told apart from a word that stands there by chance."""
MASK = "***"

_FORMATTER = logging.Formatter()


def forms_of(secret: str) -> frozenset[str]:
    """Give each text under which `secret` could stand in a log: as it is, escaped, and encoded, also within more."""
    raw = secret.encode("utf-8", "surrogateescape")
    in_url = {quote(raw), quote(raw, safe=""), quote_plus(raw)}
    forms = {secret, repr(secret)[1:-1], json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]}
    forms |= in_url | {re.sub("%..", lambda found: found[0].lower(), one) for one in in_url}
    forms |= {raw.hex(), raw.hex().upper()}
    for shift in range(3):  # how far into a group of three bytes it begins: "name:secret" is one text in base64
        forms |= {_core(encode(b"\0" * shift + raw), shift) for encode in (base64.b64encode, base64.urlsafe_b64encode)}
    return frozenset(one for one in forms if len(one) >= SHORTEST)


def _core(coded: bytes, shift: int) -> str:
    """Give what of a text in base64 its neighbours have no part in."""
    kept = coded.rstrip(b"=")
    end = len(kept) - 1 if len(kept) < len(coded) else len(kept)
    return kept[(0, 2, 3)[shift] : end].decode()


class Redaction:
    """The secrets that no log may show; a processor for structlog, and a filter for a handler of `logging`.

    A secret of fewer than `SHORTEST` characters is not masked: it would take words with it that say something else.
    """

    def __init__(self) -> None:
        self._forms: tuple[str, ...] = ()

    def add(self, secret: str) -> None:
        """Mask `secret` from now on."""
        if len(secret) >= SHORTEST:
            # The longest first: one can be a part of another.
            self._forms = tuple(sorted({*self._forms, *forms_of(secret)}, key=lambda one: (-len(one), one)))

    def mask(self, text: str) -> str:
        """Give `text` with stars in the place of secrets."""
        if not self._forms or len(text) < len(self._forms[-1]):
            return text
        for form in self._forms:
            if form in text:
                text = text.replace(form, MASK)
        return text

    def __call__(
        self,
        _logger: object,
        _method: str,
        event: MutableMapping[str, Any] | str | bytes,
    ) -> Mapping[str, Any] | str | bytes:
        """Mask a line of structlog, before or after it is rendered; a renderer may show more than it was given."""
        masked: Mapping[str, Any] | str | bytes = self._masked(event)
        return masked

    def filter(self, record: logging.LogRecord) -> bool:
        """Mask a record of the standard library's logging, its arguments and its traceback included."""
        for name, value in list(vars(record).items()):
            if name != "exc_info":
                setattr(record, name, self._masked(value))
        message = _text_of(record.getMessage)
        if message is None:
            # Else logging itself would print the arguments, for somebody to find the mistake.
            record.msg, record.args = "a message that does not fit its arguments", ()
        elif (masked := self.mask(message)) != message:
            record.msg, record.args = masked, ()
        if record.exc_info:
            self._mask_traceback(record, record.exc_info)
        return True

    def _mask_traceback(self, record: logging.LogRecord, exc_info: Any) -> None:  # noqa: ANN401  (a type of logging's own)
        told = _text_of(lambda: _FORMATTER.formatException(exc_info)) or ""
        if (masked := self.mask(told)) != told:
            record.exc_info, record.exc_text = None, masked

    @contextmanager
    def in_log_records(self) -> Iterator[None]:
        """Mask every record of this process meanwhile, whichever logger and handler it goes through.

        For a program. A library that is embedded leaves that to its host, who puts this as a filter on its handlers.
        """
        made = logging.getLogRecordFactory()

        def make(*args: Any, **kwargs: Any) -> logging.LogRecord:  # noqa: ANN401  (whatever the factory takes)
            record = made(*args, **kwargs)
            self.filter(record)
            return record

        logging.setLogRecordFactory(make)
        try:
            yield
        finally:
            if logging.getLogRecordFactory() is make:
                logging.setLogRecordFactory(made)

    def _masked(self, value: Any) -> Any:  # noqa: ANN401  (whatever is logged)
        if isinstance(value, str):
            return self.mask(value)
        if value is None or isinstance(value, bool | int | float):
            return value
        if isinstance(value, Mapping):
            return {self._masked(key): self._masked(one) for key, one in value.items()}
        if type(value) in {list, tuple, set, frozenset}:
            return type(value)(self._masked(one) for one in value)
        text = _text_of(lambda: f"{value}\n{value!r}") or ""
        return value if self.mask(text) == text else self.mask(text.partition("\n")[0])


def _text_of(render: Any) -> str | None:  # noqa: ANN401  (a function that gives a text)
    try:
        return str(render())
    except Exception:  # noqa: BLE001  (boundary: what is logged can have any code, and a log line raises nothing)
        return None
