"""When an office is open: weekly hours on the clocks of its time zone."""

import re
from collections.abc import Iterator
from datetime import datetime
from zoneinfo import ZoneInfo

from attrs import field, frozen

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_ENTRY = re.compile(r"([a-z]{3})(?:-([a-z]{3}))? ([0-2]\d):([0-5]\d)-([0-2]\d):([0-5]\d)", re.IGNORECASE)
_DAY_ENDS = 24 * 60


def _is_zone(_: object, __: object, value: str) -> None:
    try:
        ZoneInfo(value)
    except (KeyError, ValueError, OSError, TypeError):
        raise ValueError(f"zone: {value!r} is no time zone: take an IANA name, such as 'Europe/Berlin'") from None


def _is_week(_: object, __: object, value: tuple[str, ...]) -> None:
    if type(value) is not tuple or not value:
        raise ValueError("week is empty or no list: add entries such as 'Mon-Fri 09:00-17:00'")
    for entry in value:
        tuple(_minutes(entry))


@frozen(kw_only=True)
class OfficeHours:
    """Weekly hours in an IANA time zone, each entry a day or a row of days: `Mon-Fri 09:00-17:00`, `Sat 10:00-14:00`.

    The end itself is closed; 24:00 is the end of a day. Clocks that are put forward or back change nothing.
    """

    zone: str = field(validator=_is_zone)
    week: tuple[str, ...] = field(validator=_is_week)

    def is_open(self, at: datetime) -> bool:
        """Say whether the office is open at the moment `at`."""
        local = at.astimezone(ZoneInfo(self.zone))
        minute = local.hour * 60 + local.minute
        spans = (span for entry in self.week for span in _minutes(entry))
        return any(day == local.weekday() and start <= minute < end for day, start, end in spans)


def _minutes(entry: object) -> Iterator[tuple[int, int, int]]:
    """Give day of the week, first minute and minute after the last, for each day that `entry` speaks of."""
    found = _ENTRY.fullmatch(entry) if isinstance(entry, str) else None
    first, last = (found[1].lower(), (found[2] or found[1]).lower()) if found else ("", "")
    if not found or first not in _DAYS or last not in _DAYS:
        raise ValueError(f"{entry!r} are no hours: write days and times, such as 'Mon-Fri 09:00-17:00'")
    start, end = int(found[3]) * 60 + int(found[4]), int(found[5]) * 60 + int(found[6])
    if not start < end <= _DAY_ENDS:
        raise ValueError(f"{entry!r} ends before it begins, or after 24:00: split a night at 24:00 and 00:00")
    days = (_DAYS.index(last) - _DAYS.index(first)) % len(_DAYS) + 1
    yield from (((_DAYS.index(first) + day) % len(_DAYS), start, end) for day in range(days))
