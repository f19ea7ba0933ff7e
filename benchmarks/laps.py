"""What is measured of a lap, and how: messages a second, processor time, the median call, memory."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from attrs import frozen


@frozen(kw_only=True)
class Lap:
    """One contestant's part of one round. `server_s` is processor time of the database server, where there is one."""

    messages: int
    wall_s: float
    cpu_s: float
    server_s: float = 0.0
    p50_s: float = 0.0
    rss_mib: float = 0.0

    @property
    def rate(self) -> float:
        """Give messages per second."""
        return self.messages / self.wall_s

    @property
    def cpu_us(self) -> float:
        """Give the microseconds of processor time of one message, the server's included."""
        return (self.cpu_s + self.server_s) / self.messages * 1e6

    @property
    def p50_ms(self) -> float:
        """Give the milliseconds of the median call."""
        return self.p50_s * 1e3


@contextmanager
def timed() -> Iterator[dict[str, float]]:
    """Give the seconds that the block takes, by the clock and of the processor, once it is done."""
    spent: dict[str, float] = {}
    wall, cpu = time.perf_counter(), time.process_time()
    yield spent
    spent |= {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
