"""How the cost of something grows with its input: what must be linear is so on any machine, however busy it is."""

import gc
import time

_SMALL, _TIMES = 100_000, 4
_NOTHING_S = 0.01  # below, a clock tells noise


def is_linear(work, make):
    """Say whether `work` costs about four times as much on an input of four times the size (quadratic: sixteen)."""
    small = min(_costs(work, make(_SMALL)))
    enough = 2.5 * _TIMES * max(small, _NOTHING_S)
    return any(cost < enough for cost in _costs(work, make(_SMALL * _TIMES)))  # noise only adds: one is proof


def _costs(work, given):
    gc.disable()  # a collection costs what all other tests have left behind
    try:
        for _ in range(3):
            began = time.process_time()
            work(given)
            yield time.process_time() - began
    finally:
        gc.enable()
