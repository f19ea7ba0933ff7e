"""How often somebody may do something."""

from collections import OrderedDict
from collections.abc import Callable
from time import monotonic

# Above it, whoever was quiet for longest is forgotten, and may do a little more than is allowed.
_MOST_KEYS = 100_000


class Throttle:
    """Lets each key through `per_minute` times a minute, and that many times at once after a pause.

    A leaky bucket, in the form in which one number stands for it: the moment at which the bucket is empty. `timer`
    gives seconds.
    """

    def __init__(self, per_minute: int, *, timer: Callable[[], float] = monotonic) -> None:
        self._each_s = 60 / per_minute
        self._timer = timer
        self._empty_at: OrderedDict[str, float] = OrderedDict()

    def wait_s(self, key: str) -> float:
        """Count one more of `key` and give 0, or, where that is too much, the seconds until it is not."""
        now = self._timer()
        empty_at = max(self._empty_at.pop(key, now), now)
        excess_s = empty_at + self._each_s - now - 60
        self._empty_at[key] = empty_at if excess_s > 0 else empty_at + self._each_s
        if len(self._empty_at) > _MOST_KEYS:
            self._empty_at.popitem(last=False)
        return max(excess_s, 0)
