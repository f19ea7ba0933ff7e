"""The memory that bodies share which are under way, of mails as of requests: a bound over all of them.

Each may be as large as it likes where it is alone. Many of them, mostly not yet proved to be from anybody, are not.
"""

from collections.abc import Iterator
from contextlib import contextmanager


class Memory:
    """Has `most_bytes` for all. What has more than `small_bytes` leaves a quarter of them to what has not.

    So a few large ones cannot keep all others out, and any number of small ones stays within the bound as well.
    """

    def __init__(self, most_bytes: int, *, small_bytes: int) -> None:
        self.most_bytes = most_bytes
        self.small_bytes = small_bytes
        self.held_bytes = 0

    @contextmanager
    def share(self) -> Iterator["Share"]:
        """Give the share of one that is under way, until the context ends; how it ends does not matter."""
        one = Share(self)
        try:
            yield one
        finally:
            one.hold(0)


class Share:
    """What one has of the memory: as much as came of it, and not what it was announced to be."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self.held_bytes = 0

    def has_room(self, size: int) -> bool:
        """Say whether it may have `size` bytes; one that has the memory to itself may have any."""
        memory = self._memory
        others_bytes = memory.held_bytes - self.held_bytes
        is_small = size <= memory.small_bytes
        return others_bytes == 0 or others_bytes + size <= memory.most_bytes * (1 if is_small else 0.75)

    def hold(self, size: int) -> None:
        """Say that it has `size` bytes now."""
        self._memory.held_bytes += size - self.held_bytes
        self.held_bytes = size
